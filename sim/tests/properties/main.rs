//! Machines against peers that do anything in any order. `PROPTEST_CASES` says how many times; a failure prints the
//! bytes that replay it.

mod finding;
mod forms;
mod front;
mod job;
mod orchestrator;
mod payment;
mod trickle;

use proptest::prelude::ProptestConfig;

/// Settings for this many cases, unless the environment says otherwise.
fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(default);
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
