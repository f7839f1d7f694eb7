//! Units of work, and how many of them went by (payments spec 2, 9, 10).

use core::time::Duration;

use num_bigint::BigInt;

use crate::money::{Amount, Price};
use crate::time::Time;

/// The pixels that one second of live video counts as, whatever its real size: 1280 x 720 x 30.
pub const PIXELS_PER_SECOND: u64 = 27_648_000;

/// The unit that a job is billed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Live video: [`PIXELS_PER_SECOND`] for every second, prices in wei per pixel.
    PixelSeconds,
    /// Seconds.
    Seconds,
    /// A request or session.
    Fixed,
}

impl Unit {
    /// The name under which orchestrators advertise prices.
    #[must_use]
    pub const fn advertised(self) -> &'static str {
        match self {
            Self::PixelSeconds => "720p-pixel-seconds",
            Self::Seconds => "seconds",
            Self::Fixed => "fixed",
        }
    }

    /// The unit of that name; case and surrounding blanks do not count.
    #[must_use]
    pub fn from_advertised(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|unit| unit.advertised().eq_ignore_ascii_case(name.trim()))
    }

    /// The type by which remote signers name a job that is billed so. Never send another type than the unit's: a fixed
    /// runner paid as live video costs billions of tickets (payments spec T3).
    #[must_use]
    pub const fn signer_type(self) -> &'static str {
        match self {
            Self::PixelSeconds => "lv2v",
            Self::Seconds => "live",
            Self::Fixed => "fixed",
        }
    }

    /// The unit of a signer's job type.
    #[must_use]
    pub fn from_signer_type(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|unit| unit.signer_type() == name)
    }

    const ALL: [Self; 3] = [Self::PixelSeconds, Self::Seconds, Self::Fixed];

    /// How long the first payment of a session covers; nothing for what is paid once.
    #[must_use]
    pub const fn preload(self) -> Duration {
        match self {
            Self::PixelSeconds => Duration::from_secs(60),
            Self::Seconds => Duration::from_secs(10),
            Self::Fixed => Duration::ZERO,
        }
    }

    /// How long the recipient is to be paid ahead at any time: a signer that mints early does so when less is left
    /// (payments spec 10).
    #[must_use]
    pub const fn reserve(self) -> Duration {
        match self {
            Self::PixelSeconds => Duration::from_secs(15),
            Self::Seconds => Duration::from_secs(10),
            Self::Fixed => Duration::ZERO,
        }
    }

    /// Units per second; `None` for what is paid once.
    #[must_use]
    pub const fn per_second(self) -> Option<u64> {
        match self {
            Self::PixelSeconds => Some(PIXELS_PER_SECOND),
            Self::Seconds => Some(1),
            Self::Fixed => None,
        }
    }

    /// The units that a payment `elapsed` after the last one is billed. Zero, which is also how a clock that
    /// stepped back shows, bills the preload (payments spec 12.3 step 6).
    #[must_use]
    pub fn billable(self, elapsed: Duration) -> u64 {
        match self {
            Self::PixelSeconds if elapsed.is_zero() => PIXELS_PER_SECOND * self.preload().as_secs(),
            Self::PixelSeconds => trunc(PIXELS_PER_SECOND, elapsed),
            Self::Seconds if elapsed.is_zero() => self.preload().as_secs(),
            Self::Seconds => elapsed
                .as_secs()
                .saturating_add(u64::from(elapsed.subsec_nanos() > 0)),
            Self::Fixed => 1,
        }
    }
}

/// `trunc(per_second x seconds)` in IEEE doubles, as every implementation computes it (payments spec 2.1).
fn trunc(per_second: u64, elapsed: Duration) -> u64 {
    let seconds = elapsed.as_secs() as f64 + f64::from(elapsed.subsec_nanos()) / 1e9;
    // A cast from a float cuts towards zero and saturates.
    (per_second as f64 * seconds) as u64
}

/// Turns elapsed time into whole units without losing fractions.
#[derive(Clone, Debug)]
pub struct Meter {
    per_second: u64,
    interval: Duration,
    last: Time,
}

impl Meter {
    /// A meter that starts now and reads at most every `interval`.
    #[must_use]
    pub fn new(now: Time, per_second: u64, interval: Duration) -> Self {
        Self {
            per_second,
            interval,
            last: now,
        }
    }

    /// The units since the last reading; `None` if that is less than an interval ago. The meter advances by what
    /// it billed, so what was cut off is counted next time.
    pub fn read(&mut self, now: Time) -> Option<u64> {
        if self.last + self.interval > now {
            return None;
        }
        let units = trunc(self.per_second, now.since(self.last));
        if self.per_second > 0 {
            let billed = u128::from(units) * 1_000_000_000 / u128::from(self.per_second);
            self.last = self.last + Duration::from_nanos(u64::try_from(billed).unwrap_or(u64::MAX));
        }
        Some(units)
    }

    /// When the next reading is due.
    #[must_use]
    pub fn next(&self) -> Time {
        self.last + self.interval
    }

    /// Up to when time was billed.
    #[must_use]
    pub const fn billed_until(&self) -> Time {
        self.last
    }
}

/// An output of a transcoding job, for its estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rendition {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Frames per `framerate_den` seconds; zero passes the input's through.
    pub framerate: u32,
    /// Zero counts as one.
    pub framerate_den: u32,
}

impl Rendition {
    fn pixels(&self, seconds: u64) -> BigInt {
        // The input's rate is not known in advance.
        const PASS_THROUGH: u32 = 60;
        let fps = match self.framerate {
            0 => PASS_THROUGH,
            rate => rate.div_ceil(self.framerate_den.max(1)),
        };
        BigInt::from(self.width) * self.height * fps * seconds
    }
}

/// The output pixels that a segment of `duration` is expected to have.
#[must_use]
pub fn estimated_pixels(renditions: &[Rendition], duration: Duration) -> BigInt {
    let seconds = duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0));
    renditions.iter().map(|r| r.pixels(seconds)).sum()
}

/// The expected fee for transcoding a segment: its pixels, times the double nearest to 1.02, times the price.
#[must_use]
pub fn estimated_fee(renditions: &[Rendition], duration: Duration, price: &Price) -> Amount {
    let pixels = price.fee(estimated_pixels(renditions, duration));
    let surplus = Amount::ratio(2_296_835_809_958_953_i64, 2_251_799_813_685_248_i64)
        .expect("the denominator is a constant");
    Amount::from(pixels.as_ratio() * surplus.as_ratio())
}
