//! A live job, and the bridge that feeds one, against orchestrators, runners, senders and an owner that do anything in
//! any order.

use livepeer_sim::steps::{app, batch, bridge, byoc, live_job, runner, runner_session};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{cases, reach};

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
    reach(
        "STEPS",
        &[],
        40,
        250,
        live_job::run,
        &[
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
        ],
    );
}

#[test]
fn batch_jobs_end_once_and_their_steps_reach_every_event_and_every_failure() {
    reach(
        "BATCH_STEPS",
        &[105],
        60,
        400,
        batch::run,
        &[
            "Find",
            "Trying",
            "Head",
            "Chunk",
            "Done",
            "Failed",
            "Paid",
            "Signers",
            "Pool",
            "Caller",
            "NoOrchestrator",
            "UnknownModel",
            "Broken",
            "Ours",
            "Closed",
        ],
    );
}

#[test]
fn jobs_for_containers_end_once_run_once_without_leave_and_reach_every_event_and_every_failure() {
    reach(
        "BYOC_STEPS",
        // A container refuses.
        &[72],
        60,
        400,
        byoc::run,
        &[
            "Find",
            "Trying",
            "Head",
            "Chunk",
            "Done",
            "Failed",
            "Paid",
            "Signers",
            "Caller",
            "NoOrchestrator",
            "Exhausted",
            "Undecided",
            "Broken",
            "Ours",
            "Closed",
            "Begun",
            "Left",
            "Lost",
            "Runner",
            "Updated",
            "Ended",
        ],
    );
}

#[test]
fn a_rental_ends_once_and_its_steps_reach_every_event_and_every_failure() {
    reach(
        "APP_STEPS",
        &[],
        600,
        120,
        app::run,
        &[
            "Trying",
            "Reserved",
            "Head",
            "Data",
            "Done",
            "Paid",
            "Trouble",
            "Signers",
            "Closed",
            "Failed",
            "NoRunner",
            "Exhausted",
            "Undecided",
            "Broken",
            "Ours",
        ],
    );
}

#[test]
fn a_bridge_gives_whole_segments_and_its_steps_reach_everything() {
    reach(
        "BRIDGE_STEPS",
        &[],
        40,
        200,
        bridge::run,
        &[
            "Opened", "Begin", "Write", "End", "Key", "Stalled", "Flows", "Done", "forced",
            "silences", "dropped", "jumps",
        ],
    );
}

#[test]
fn a_runner_knows_its_sessions_and_tells_nobody_else_its_secrets() {
    reach(
        "RUNNER_STEPS",
        &[],
        50,
        300,
        runner::run,
        &[
            "Registered",
            "Reserved",
            "Released",
            "Failed",
            "Gone",
            "Refused",
        ],
    );
}

#[test]
fn a_wish_about_a_session_is_sent_once_and_has_one_answer() {
    reach(
        "RUNNER_SESSION_STEPS",
        &[],
        50,
        100,
        runner_session::run,
        &["Channels", "NoChannels", "Proxy", "Stopped", "Failed"],
    );
}
