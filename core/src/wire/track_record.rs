//! Track records of orchestrators, as they are stored between runs.

use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Time;
use crate::track_record::TrackRecord;

/// Microseconds and seconds, so that the text stays readable.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    round_trip_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_byte_us: Option<u64>,
    good: u32,
    bad: u32,
    since: u64,
}

/// The bytes to store.
#[must_use]
pub fn track_record_bytes(record: &TrackRecord) -> Vec<u8> {
    let micros = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let stored = Stored {
        round_trip_us: record.round_trip.map(micros),
        first_byte_us: record.first_byte.map(micros),
        good: record.good,
        bad: record.bad,
        since: record.since.as_secs(),
    };
    serde_json::to_vec(&stored).expect("numbers are always JSON")
}

/// Reads stored bytes; `None` if they are of another version, or broken.
#[must_use]
pub fn read_track_record(bytes: &[u8]) -> Option<TrackRecord> {
    let stored: Stored = serde_json::from_slice(bytes).ok()?;
    Some(TrackRecord {
        round_trip: stored.round_trip_us.map(Duration::from_micros),
        first_byte: stored.first_byte_us.map(Duration::from_micros),
        good: stored.good,
        bad: stored.bad,
        since: Time::from_secs(stored.since),
    })
}
