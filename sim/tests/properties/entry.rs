//! Live entry with senders, jobs and places of the operator's that do anything in any order.

use livepeer_sim::steps::entry;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{cases, reach};

proptest! {
    #![proptest_config(cases(50))]

    #[test]
    fn every_sender_is_answered_once_and_every_name_has_one_stream(
        data in vec(any::<u8>(), 0..400)
    ) {
        entry::run(&data);
    }
}

#[test]
fn the_steps_of_live_entry_reach_every_event() {
    reach(
        "ENTRY",
        &[],
        80,
        500,
        entry::run,
        &[
            "Admit",
            "goes on",
            "Settled",
            "Update",
            "Kick",
            "TakenOver",
            "Asked",
            "Terminated",
            "Disconnected",
            "NoVideo",
            "NoOrchestrator",
            "Finished",
            "Failed",
            "Closing",
            "refused 400",
            "refused 401",
            "refused 403",
            "refused 409",
            "refused 503",
            "status",
            "404",
            "auth",
            "beat",
            "listen",
            "9997",
            "stream_trace",
            "ai_stream_events",
            "ai_stream_status",
            "stream_ingest_metrics",
            "large",
            "no verdict",
            "no beat",
            "no kick",
            "lost",
        ],
    );
}
