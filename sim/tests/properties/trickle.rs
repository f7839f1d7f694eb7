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
