//! An orchestrator against gateways that do anything in any order.

use livepeer_sim::steps::{orchestrator, programs};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn an_orchestrator_answers_once_credits_once_and_overdraws_nobody(
        data in vec(any::<u8>(), 0..400)
    ) {
        orchestrator::run(&data);
    }
}

proptest! {
    #![proptest_config(cases(120))]

    #[test]
    fn programs_are_asked_once_places_come_back_and_sessions_end(
        data in vec(any::<u8>(), 0..400)
    ) {
        programs::run(&data);
    }
}

/// Steps by which a stream that had ended in blank lines was answered once more when its time was over.
#[test]
fn a_stream_that_ends_in_blank_lines_is_answered_once() {
    programs::run(&[
        0, 17, 161, 7, 0, 0, 100, 193, 200, 73, 187, 27, 105, 6, 206, 41, 70, 6, 62, 123, 231, 31,
        36, 40, 136, 106, 233, 225, 100, 192, 23, 132, 218, 55, 85, 96, 221, 43, 209, 4, 227, 106,
        216, 3, 250, 133, 4, 1, 78, 93, 183, 54, 34, 67, 28, 153, 208, 118, 253, 186, 117, 206,
        245, 231, 129, 246, 5, 115, 233, 23, 130, 190, 129, 125, 88, 187, 133, 163, 229, 123, 103,
        249, 39, 235,
    ]);
}
