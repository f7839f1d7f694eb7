//! The performance of an orchestrator, as the pool remembers it.

use core::time::Duration;

use crate::time::Time;

/// The performance of an orchestrator so far: what selection goes by, kept between runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrackRecord {
    /// The round trip of its handshakes; smoothed, so that one slow answer does not decide.
    pub round_trip: Option<Duration>,
    /// The time from a job's request to the first byte of its result; smoothed.
    pub first_byte: Option<Duration>,
    /// Jobs that it did, not long ago: see [`TrackRecord::age`].
    pub good: u32,
    /// Jobs and handshakes in which it failed, not long ago.
    pub bad: u32,
    /// When the counts were last halved.
    pub since: Time,
}

impl TrackRecord {
    /// Old deeds count half after this long, and half of that after as long again.
    pub const HALF_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

    /// Lets the counts age. Without this an orchestrator could live for ever on what it did once.
    pub fn age(&mut self, now: Time) {
        if self.since == Time::ZERO {
            self.since = now;
        }
        let lives = now.since(self.since).as_nanos() / Self::HALF_LIFE.as_nanos();
        if lives > 0 {
            let lives = u32::try_from(lives).unwrap_or(u32::MAX);
            self.good = self.good.checked_shr(lives).unwrap_or(0);
            self.bad = self.bad.checked_shr(lives).unwrap_or(0);
            self.since = now;
        }
    }
}
