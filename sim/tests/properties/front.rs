//! A front door with callers, jobs and a shell that do anything in any order.

use livepeer_sim::steps::front;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{cases, reach};

proptest! {
    #![proptest_config(cases(50))]

    #[test]
    fn every_request_is_answered_once_and_every_place_is_given_back(
        data in vec(any::<u8>(), 0..400)
    ) {
        front::run(&data);
    }
}

#[test]
fn the_fronts_steps_reach_every_event_and_every_status() {
    reach(
        "FRONT",
        // A client leaves HTTP with its app, and a slow one catches up; a whole answer comes behind the beginning of one.
        &[2211, 59],
        80,
        500,
        front::run,
        &[
            "Want",
            "Live",
            "Order",
            "App",
            "EndSession",
            "Gone",
            "Full",
            "Room",
            "Said",
            "SaidAll",
            "answered",
            "refused",
            "broken",
            "gone",
            "200",
            "201",
            "202",
            "204",
            "400",
            "403",
            "404",
            "405",
            "408",
            "413",
            "417",
            "500",
            "502",
            "503",
            "504",
        ],
    );
}
