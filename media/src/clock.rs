//! Media time from time stamps that wrap, jump and repeat.

use std::time::Duration;

/// Ticks a second of PTS, DTS and the base of PCR.
pub(crate) const TICKS_PER_SECOND: u64 = 90_000;
/// Time stamps have 33 bits.
pub(crate) const STAMP_BITS: u32 = 33;
/// The largest time stamp.
pub(crate) const STAMP_MASK: u64 = (1 << STAMP_BITS) - 1;

/// A longer step forward is an edit of the stream, not a slow frame rate.
const MAX_STEP: u64 = 10 * TICKS_PER_SECOND;
/// A shorter step back is disorder, not an edit.
const MAX_DISORDER: u64 = TICKS_PER_SECOND;

/// The time that `ticks` of 90 kHz take.
pub(crate) const fn ticks_to_duration(ticks: u64) -> Duration {
    // 10^9 / 90000 = 100000 / 9; whole seconds first, so that nothing overflows.
    let rest = ticks % TICKS_PER_SECOND;
    Duration::new(
        ticks / TICKS_PER_SECOND,
        (rest * 100_000 / 9) as u32, // below 10^9
    )
}

/// The ticks of 90 kHz in `duration`, rounded down.
pub(crate) const fn duration_to_ticks(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(TICKS_PER_SECOND)
        .saturating_add(duration.subsec_nanos() as u64 * 9 / 100_000)
}

/// Counts the media time that a sequence of time stamps covers, whatever their origin, across the wrap after
/// 26.5 hours and across edits: a jump counts as one frame of the usual length.
#[derive(Debug, Default)]
pub(crate) struct MediaClock {
    last: Option<u64>,
    step: u64,
    elapsed: u64,
    jumps: u64,
}

impl MediaClock {
    /// Takes the time stamp of the next frame in decoding order; returns the ticks from the first frame to it.
    pub(crate) fn advance(&mut self, stamp: u64) -> u64 {
        let stamp = stamp & STAMP_MASK;
        let Some(last) = self.last else {
            self.last = Some(stamp);
            return self.elapsed;
        };
        let forward = stamp.wrapping_sub(last) & STAMP_MASK;
        let back = last.wrapping_sub(stamp) & STAMP_MASK;
        if back <= MAX_DISORDER {
            // The same stamp, or a late one: no time has passed.
            return self.elapsed;
        }
        if forward <= MAX_STEP {
            self.step = forward;
            self.elapsed += forward;
        } else {
            self.jumps += 1;
            self.elapsed += self.step;
        }
        self.last = Some(stamp);
        self.elapsed
    }

    /// Whether there was a time stamp.
    pub(crate) const fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// Ticks from the first frame to the last.
    pub(crate) const fn elapsed(&self) -> u64 {
        self.elapsed
    }

    /// Ticks from the first frame to the end of the last, which is taken to be as long as the one before.
    pub(crate) const fn end(&self) -> u64 {
        self.elapsed + self.step
    }

    /// How many edits there were.
    pub(crate) const fn jumps(&self) -> u64 {
        self.jumps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_across_the_wrap() {
        let mut clock = MediaClock::default();
        let start = STAMP_MASK - 3000;
        for frame in 0..10 {
            assert_eq!(clock.advance(start + frame * 3000), frame * 3000);
        }
        assert_eq!(clock.end(), 30_000);
        assert_eq!(clock.jumps(), 0);
    }

    #[test]
    fn an_edit_counts_as_one_frame() {
        let mut clock = MediaClock::default();
        for stamp in [0, 3000, 6000, 900_000_000, 900_003_000, 0, 3000] {
            clock.advance(stamp);
        }
        assert_eq!(clock.elapsed(), 6 * 3000);
        assert_eq!(clock.jumps(), 2);
    }

    #[test]
    fn late_and_repeated_stamps_take_no_time() {
        let mut clock = MediaClock::default();
        for stamp in [9000, 12_000, 12_000, 10_000, 15_000] {
            clock.advance(stamp);
        }
        assert_eq!(clock.elapsed(), 6000);
        assert_eq!(clock.jumps(), 0);
    }

    #[test]
    fn ticks_and_durations_convert() {
        assert_eq!(ticks_to_duration(90_000), Duration::from_secs(1));
        assert_eq!(ticks_to_duration(45), Duration::from_micros(500));
        assert_eq!(duration_to_ticks(Duration::from_millis(1500)), 135_000);
        assert_eq!(
            ticks_to_duration(u64::MAX).as_secs(),
            u64::MAX / TICKS_PER_SECOND
        );
    }
}
