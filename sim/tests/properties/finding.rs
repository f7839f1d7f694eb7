//! Handshake, session pool, discovery and price feed against peers and jobs that do anything in any order.

use livepeer_sim::steps::{discovery, handshake, pool, price_feed};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;

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
    fn a_price_feed_asks_one_question_at_a_time_and_keeps_the_last_good_price(
        data in vec(any::<u8>(), 0..300)
    ) {
        price_feed::run(&data);
    }

    #[test]
    fn a_discovery_names_everybody_once_and_keeps_secrets(
        data in vec(any::<u8>(), 0..400)
    ) {
        discovery::run(&data);
    }
}
