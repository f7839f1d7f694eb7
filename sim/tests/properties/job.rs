//! A live job against orchestrators, runners and an owner that do anything in any order.

use livepeer_sim::steps::live_job;
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

#[test]
fn the_jobs_steps_reach_every_event_and_every_ending() {
    let mut dice = livepeer_sim::Dice::new(7);
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..40 {
        let data: Vec<u8> = (0..250).map(|_| dice.roll() as u8).collect();
        for (kind, count) in live_job::run(&data) {
            *seen.entry(kind).or_insert(0) += count;
        }
    }
    println!("{seen:?}");
    for kind in [
        "NeedLease",
        "Started",
        "Standby",
        "Swapped",
        "Paid",
        "PaymentHeld",
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
