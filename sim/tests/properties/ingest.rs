//! Senders and viewers at the sockets of live entry, that do anything in any order.

use livepeer_sim::steps::{rtmp, webrtc};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{cases, reach};

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn publishers_of_rtmp_leave_nothing_behind(data in vec(any::<u8>(), 0..800)) {
        rtmp::run(&data);
    }
}

proptest! {
    // A handshake costs more than a thousand steps.
    #![proptest_config(cases(8))]

    #[test]
    fn sessions_of_webrtc_leave_nothing_behind(data in vec(any::<u8>(), 0..200)) {
        webrtc::run(&data);
    }
}

#[test]
fn the_steps_of_publishers_reach_every_event_and_most_endings() {
    reach(
        "RTMP",
        &[],
        40,
        3_000,
        rtmp::run,
        &[
            "Asks",
            "Opened",
            "Resumed",
            "Video",
            "Audio",
            "Damaged",
            "Stalled",
            "Ended",
            "Closed",
            "Deleted",
            "Gone",
            "CodecChanged",
            "Stopped",
            "Peer",
            "TooMany",
            "Refused",
            "Replaced",
            "Bad",
            "Media",
            "TooLate",
        ],
    );
}

#[test]
fn the_steps_of_webrtc_sessions_reach_every_event_and_most_endings() {
    reach(
        "WEBRTC",
        &[],
        40,
        400,
        webrtc::run,
        &[
            "Asked",
            "Connected",
            "Opened",
            "Video",
            "Audio",
            "Stalled",
            "Ended",
            "Watching",
            "Left",
            "Disconnected",
            "Gone",
            "Kicked",
            "200",
            "201",
            "204",
            "400",
            "403",
            "404",
            "405",
            "415",
            "422",
            "503",
        ],
    );
}
