//! The three trickle machines against peers that do anything in any order.

use livepeer_sim::steps::{trickle_publisher, trickle_server, trickle_subscriber};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn a_server_keeps_its_word_to_readers_whatever_peers_do(data in vec(any::<u8>(), 0..600)) {
        trickle_server::run(&data);
    }

    #[test]
    fn a_publisher_has_one_outcome_per_segment_and_ends_whatever_its_server_says(
        data in vec(any::<u8>(), 0..600)
    ) {
        trickle_publisher::run(&data);
    }

    #[test]
    fn a_subscriber_tells_each_byte_once_in_order_and_ends_whatever_its_server_says(
        data in vec(any::<u8>(), 0..600)
    ) {
        trickle_subscriber::run(&data);
    }
}

/// Steps by which a server that never answered was read along with for as long as its segment was open.
#[test]
fn a_server_that_is_read_along_with_is_not_waited_for_without_end() {
    trickle_publisher::run(&[
        0, 41, 0, 0, 0, 34, 0, 55, 0, 80, 0, 56, 0, 0, 76, 0, 176, 18, 1, 14, 68, 14, 22, 73, 0, 0,
        0, 172, 0, 38, 1, 31, 112, 0, 120, 1, 0, 12, 0, 14, 10, 124,
    ]);
}
