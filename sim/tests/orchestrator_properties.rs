//! An orchestrator against gateways that do anything in any order.

use livepeer_sim::steps::orchestrator;
use proptest::collection::vec;
use proptest::prelude::*;

fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(300);
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn an_orchestrator_answers_once_credits_once_and_overdraws_nobody(
        data in vec(any::<u8>(), 0..400)
    ) {
        orchestrator::run(&data);
    }
}
