//! A front door with callers, jobs and a shell that do anything in any order.

use std::collections::BTreeMap;

use livepeer_sim::steps::front;
use livepeer_sim::{Dice, seeds};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;

proptest! {
    #![proptest_config(cases(50))]

    #[test]
    fn every_request_is_answered_once_and_every_place_is_given_back(
        data in vec(any::<u8>(), 0..400)
    ) {
        front::run(&data);
    }
}

/// `FRONT_SEEDS=10000` plays more of them, `FRONT_SEED=n` one.
const KIND: &str = "FRONT";

#[test]
fn the_fronts_steps_reach_every_event_and_every_status() {
    let played = seeds::play(KIND, &seeds::wanted(KIND, &[], 80), |seed| {
        let mut dice = Dice::new(seed);
        let data = dice.bytes(500);
        front::run(&data)
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
        "Want", "Gone", "Full", "Room", "answered", "refused", "broken", "gone", "200", "202",
        "204", "400", "404", "405", "408", "413", "417", "500", "502", "503", "504",
    ] {
        assert!(seen.contains_key(kind), "{kind} never happened: {seen:?}");
    }
}
