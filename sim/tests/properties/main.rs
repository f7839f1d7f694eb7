//! Machines against peers that do anything in any order. `PROPTEST_CASES` says how many times; a failure prints the
//! bytes that replay it.

mod entry;
mod finding;
mod forms;
mod front;
mod ingest;
mod job;
mod orchestrator;
mod payment;
mod trickle;

use std::collections::BTreeMap;

use livepeer_sim::{Dice, seeds};
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

/// The things that a player saw, and how often.
type Seen = BTreeMap<String, u32>;

/// Plays the steps that `bytes` bytes of chance say, for the seeds `found` and `usual` others, and checks that
/// everything in `all` happened. `{KIND}_SEEDS=10000` plays more of them, `{KIND}_SEED=n` one.
fn reach(
    kind: &str,
    found: &[u64],
    usual: u64,
    bytes: usize,
    run: fn(&[u8]) -> Seen,
    all: &[&str],
) {
    let played = seeds::play(kind, &seeds::wanted(kind, found, usual), |seed| {
        run(&Dice::new(seed).bytes(bytes))
    });
    let mut seen = Seen::new();
    for (what, count) in played.into_iter().flatten() {
        *seen.entry(what).or_insert(0) += count;
    }
    println!("{seen:?}");
    if seeds::alone(kind).is_some() {
        return;
    }
    for what in all {
        assert!(seen.contains_key(*what), "{what} never happened: {seen:?}");
    }
}
