//! Handshake, session pool and discovery against peers and jobs that do anything in any order.

use livepeer_sim::steps::{discovery, handshake, pool};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;

/// Found once: nobody who was taken off the list while suspended is lent under another's address.
const UNLISTED_WHILE_SUSPENDED: &[u8] = &[
    116, 4, 0, 0, 90, 0, 0, 16, 131, 2, 2, 0, 0, 0, 0, 10, 0, 0, 84, 0, 0, 134, 0, 1, 6, 52, 0, 0,
    34, 48, 0, 170, 0, 0, 81, 44, 214, 178, 52, 0, 0, 170, 0, 0, 126, 214, 78, 186, 81, 0, 204, 14,
    37, 86, 0, 1, 11, 93, 1, 47, 48, 129, 22, 0, 1, 74, 42, 0, 0, 10, 0, 0, 102, 0, 0, 0, 182, 0,
    0, 0, 74, 0, 0, 2, 6, 0, 0, 0, 14, 91, 78, 0, 82, 42, 48, 0, 148, 0, 248, 190, 249, 252, 104,
    0, 46, 40, 38, 13, 0, 60, 50, 42, 36, 0, 109, 1, 47, 33, 9, 102, 0, 1, 86, 14, 18, 1, 1, 218,
    55, 0, 14, 37, 209, 116, 8, 230, 0, 220, 35, 49, 5,
];

/// Found once: a job's session that was given up says nothing any more of the orchestrator it was with.
const GIVEN_UP_WHILE_LENT: &[u8] = &[
    219, 42, 0, 0, 74, 0, 0, 4, 0, 0, 150, 0, 0, 0, 20, 0, 0, 16, 11, 14, 0, 14, 37, 10, 0, 0, 16,
    56, 182, 0, 0, 0, 2, 218, 0, 0, 10, 0, 0, 18, 4, 0, 0, 74, 0, 0, 84, 0, 0, 0, 120, 98, 78, 182,
    138, 47, 0, 90, 103, 0, 182, 43, 20, 0, 54, 0, 13, 1, 70, 0, 0, 0, 4, 0, 0, 18, 4, 0, 14, 26,
    0, 0, 4, 0, 0, 78, 47, 46, 37, 198, 49, 0, 0, 36, 0, 0, 38, 49, 0, 0, 74, 0, 0, 17, 52, 105,
    46, 59, 106, 0, 0, 16, 28, 26, 0, 0, 78, 139, 74, 0, 0, 46, 48, 166, 30, 1, 87, 10, 0, 0, 242,
    33, 44, 0, 52, 0, 0, 14, 67, 4, 0, 0, 38, 0, 0, 153, 86, 0, 0, 0, 46, 145, 102, 0, 8, 28, 38,
    0, 0, 0, 122, 0, 0, 78, 0, 58, 0, 0, 4, 0, 0, 122, 0, 0, 112, 36, 20, 0, 0, 86, 0, 0, 0, 1, 9,
    38, 0, 0, 0, 42, 0, 0, 54, 0, 0, 0, 170, 0, 0, 214, 0, 0, 0, 182, 0, 0, 0, 34, 170, 0, 0, 14,
    145, 42, 30, 0, 110, 145, 198, 43, 49, 1, 160, 0, 1, 1, 0, 0, 0,
];

/// Found once: a session that comes home while answers are gathered serves the job that waits.
const HOME_WHILE_GATHERING: &[u8] = &[
    228, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    1, 0, 0, 0, 0, 0, 45, 2, 4, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 46, 0, 206, 0, 102, 0, 1, 1, 16, 0,
    230, 0, 1, 4, 106, 0, 0, 210, 98, 36, 0, 99, 90, 0, 0, 180, 0, 8, 177, 1, 2, 2,
];

/// Found once: a lease that comes home does not take back what was renewed meanwhile.
const HOME_WITH_AN_OLD_WORD: &[u8] = &[
    27, 10, 0, 0, 50, 16, 89, 182, 0, 0, 0, 54, 0, 24, 154, 166, 0, 25, 11, 18, 138, 0, 0, 86, 0,
    0, 0, 182, 0, 0, 0, 10, 0, 0, 16, 0, 174, 67, 6, 0, 5, 160, 20, 0, 40, 42, 0, 0, 4, 0, 0, 109,
    1, 67, 1, 0, 14, 80, 0, 26, 0, 0, 122, 0, 0, 78, 0, 34,
];

#[test]
fn what_was_found_once_stays_found() {
    pool::run(HOME_WITH_AN_OLD_WORD);
    pool::run(HOME_WHILE_GATHERING);
    pool::run(GIVEN_UP_WHILE_LENT);
    pool::run(UNLISTED_WHILE_SUSPENDED);
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn a_handshake_ends_once_and_changes_a_pin_at_most_once_a_call(
        data in vec(any::<u8>(), 0..300)
    ) {
        handshake::run(&data);
    }

    #[test]
    fn a_pool_lends_nobody_suspended_and_leaves_no_job_waiting(
        data in vec(any::<u8>(), 0..500)
    ) {
        pool::run(&data);
    }

    #[test]
    fn a_discovery_names_everybody_once_and_keeps_secrets(
        data in vec(any::<u8>(), 0..400)
    ) {
        discovery::run(&data);
    }
}
