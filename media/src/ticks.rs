//! Media time.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use crate::clock::{STAMP_MASK, duration_to_ticks, ticks_to_duration};

/// A point or a length of media time in ticks of 90 kHz, unwrapped. Arithmetic saturates.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks(pub i64);

impl Ticks {
    /// No time.
    pub const ZERO: Self = Self(0);
    /// The ticks of a second.
    pub const SECOND: Self = Self(90_000);

    /// The ticks in that many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(90))
    }

    /// The ticks in that many samples of 48 kHz, rounded down.
    #[must_use]
    pub const fn from_48k(samples: i64) -> Self {
        Self(samples.saturating_mul(15).div_euclid(8))
    }

    /// The ticks in `duration`, rounded down.
    #[must_use]
    pub fn from_duration(duration: Duration) -> Self {
        Self(i64::try_from(duration_to_ticks(duration)).unwrap_or(i64::MAX))
    }

    /// The samples of 48 kHz in these ticks, rounded down.
    #[must_use]
    pub const fn to_48k(self) -> i64 {
        self.0.saturating_mul(8).div_euclid(15)
    }

    /// The time that these ticks take; zero if they are negative.
    #[must_use]
    pub fn to_duration(self) -> Duration {
        ticks_to_duration(u64::try_from(self.0).unwrap_or(0))
    }

    /// The lowest 33 bits: a time stamp of MPEG-TS.
    #[must_use]
    pub const fn stamp(self) -> u64 {
        self.0 as u64 & STAMP_MASK // two's complement: the remainder modulo 2^33
    }
}

impl Add for Ticks {
    type Output = Self;

    fn add(self, by: Self) -> Self {
        Self(self.0.saturating_add(by.0))
    }
}

impl AddAssign for Ticks {
    fn add_assign(&mut self, by: Self) {
        *self = *self + by;
    }
}

impl Sub for Ticks {
    type Output = Self;

    fn sub(self, by: Self) -> Self {
        Self(self.0.saturating_sub(by.0))
    }
}

impl fmt::Debug for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ticks", self.0)
    }
}
