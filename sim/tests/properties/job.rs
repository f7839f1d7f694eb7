//! A live job against orchestrators, runners and an owner that do anything in any order.

use std::collections::BTreeMap;

use livepeer_sim::steps::{batch, live_job};
use livepeer_sim::{Dice, seeds};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;

proptest! {
    #![proptest_config(cases(25))]

    #[test]
    fn a_live_job_ends_gives_every_lease_back_and_pays_no_nonce_twice(
        data in vec(any::<u8>(), 0..300)
    ) {
        live_job::run(&data);
    }
}

/// `STEPS_SEEDS=10000` plays more of them, `STEPS_SEED=n` one.
const KIND: &str = "STEPS";

#[test]
fn the_jobs_steps_reach_every_event_and_every_ending() {
    let played = seeds::play(KIND, &seeds::wanted(KIND, &[], 40), |seed| {
        let mut dice = Dice::new(seed);
        let data = dice.bytes(250);
        live_job::run(&data)
    });
    let mut seen = BTreeMap::new();
    for (kind, count) in played.into_iter().flatten() {
        *seen.entry(kind).or_insert(0) += count;
    }
    println!("{seen:?}");
    if seeds::alone(KIND).is_some() {
        return;
    }
    for kind in [
        "NeedLease",
        "Started",
        "Standby",
        "Swapped",
        "Paid",
        "PaymentHeld",
        "Signers",
        "Runner",
        "Updated",
        "Lost",
        "Release",
        "Refused",
        "TimedOut",
        "Silent",
        "Nonsense",
        "Link",
        "Gone",
        "TooMuch",
        "Finished",
        "Stopped",
        "NoOrchestrator",
        "Failed",
    ] {
        assert!(seen.contains_key(kind), "{kind} never happened: {seen:?}");
    }
}

#[test]
fn batch_jobs_end_once_and_their_steps_reach_every_event_and_every_failure() {
    let played = seeds::play(
        "BATCH_STEPS",
        &seeds::wanted("BATCH_STEPS", &[105], 60),
        |seed| {
            let mut dice = Dice::new(seed);
            let data = dice.bytes(400);
            batch::run(&data)
        },
    );
    let mut seen = BTreeMap::new();
    for (kind, count) in played.into_iter().flatten() {
        *seen.entry(kind).or_insert(0) += count;
    }
    println!("{seen:?}");
    if seeds::alone("BATCH_STEPS").is_some() {
        return;
    }
    for kind in [
        "Find",
        "Trying",
        "Head",
        "Chunk",
        "Done",
        "Failed",
        "Paid",
        "Pool",
        "Caller",
        "NoOrchestrator",
        "UnknownModel",
        "Broken",
        "Ours",
        "Closed",
    ] {
        assert!(seen.contains_key(kind), "{kind} never happened: {seen:?}");
    }
}
