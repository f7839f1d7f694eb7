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
