//! When a segment is due.
//!
//! The schedule starts with the first segment and then follows media time, so that small delays do not add up.
//! After a long stall it starts anew from the late segment: a burst that makes up for the stall would push
//! segments out of the trickle server's window before anybody read them (trickle spec 4).

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Add;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;

use crate::segmenter::Segment;

/// Later than this, the schedule starts anew.
pub const MAX_LAG: Duration = Duration::from_secs(1);

/// How fast media time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// The pace at which the peers take it.
    Max,
    /// A number of thousandths of real time.
    Thousandths(NonZeroU32),
}

impl Speed {
    /// The speed of real time: one second of media a second.
    pub const REAL: Self = Self::Thousandths(NonZeroU32::new(1000).expect("not zero"));

    /// How long media of that duration takes.
    pub fn stretch(self, media: Duration) -> Duration {
        match self {
            Self::Max => Duration::ZERO,
            Self::Thousandths(speed) => {
                let nanos = media.as_nanos() * 1000 / u128::from(speed.get());
                Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
        }
    }
}

impl Default for Speed {
    fn default() -> Self {
        Self::REAL
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            &Self::REAL => f.write_str("real"),
            Self::Thousandths(speed) => {
                let (whole, part) = (speed.get() / 1000, speed.get() % 1000);
                if part == 0 {
                    write!(f, "{whole}")
                } else {
                    let part = format!("{part:03}");
                    write!(f, "{whole}.{}", part.trim_end_matches('0'))
                }
            }
        }
    }
}

/// The text is not a speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a speed is `real`, `max` or a factor from 0.001 to 1000, such as 2 or 0.5")]
pub struct BadSpeed;

impl FromStr for Speed {
    type Err = BadSpeed;

    fn from_str(text: &str) -> Result<Self, BadSpeed> {
        if text.eq_ignore_ascii_case("max") {
            return Ok(Self::Max);
        }
        if text.eq_ignore_ascii_case("real") {
            return Ok(Self::REAL);
        }
        let text = text.strip_suffix(['x', 'X']).unwrap_or(text);
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str, most: usize| {
            !text.is_empty() && text.len() <= most && text.bytes().all(|b| b.is_ascii_digit())
        };
        if !digits(whole, 4) || !digits(part, 3) {
            return Err(BadSpeed);
        }
        let number = |text: &str| text.parse::<u32>().map_err(|_| BadSpeed);
        let speed = number(whole)? * 1000 + number(&format!("{part:0<3}"))?;
        NonZeroU32::new(speed)
            .filter(|speed| speed.get() <= 1_000_000)
            .map(Self::Thousandths)
            .ok_or(BadSpeed)
    }
}

/// Says when each of a row of segments is due. Loops of an input need no new one: it adds durations up. `T` is
/// a time of the caller's clock.
#[derive(Debug)]
pub struct Pacer<T> {
    speed: Speed,
    /// Start of the schedule, once there was a segment.
    since: Option<T>,
    /// Media time of the schedule so far.
    media: Duration,
}

impl<T: Copy + Ord + Add<Duration, Output = T>> Pacer<T> {
    /// A schedule that begins with its first segment.
    pub const fn new(speed: Speed) -> Self {
        Self {
            speed,
            since: None,
            media: Duration::ZERO,
        }
    }

    /// When the next segment is to start: `now` or later.
    pub fn next_due(&mut self, now: T) -> T {
        let since = *self.since.get_or_insert(now);
        let mut due = since + self.speed.stretch(self.media);
        if now > due + MAX_LAG {
            self.since = Some(now);
            self.media = Duration::ZERO;
            due = now;
        }
        due.max(now)
    }

    /// The segment that was due last plays for so long; then the one after it is due.
    pub fn plays(&mut self, duration: Duration) {
        self.media += duration;
    }
}

/// Pieces of a segment are no shorter than this, so that small frames share one.
const PIECE: Duration = Duration::from_millis(20);

/// Cuts a whole segment into pieces that begin with frames, and says how long after its beginning each is due.
#[must_use]
pub fn pieces(segment: &Segment, speed: Speed) -> Vec<(Duration, Bytes)> {
    let mut cuts = vec![(Duration::ZERO, 0)];
    if speed != Speed::Max {
        for frame in &segment.frames {
            let due = speed.stretch(frame.after);
            if cuts.last().is_some_and(|(last, _)| due >= *last + PIECE) {
                cuts.push((due, frame.at));
            }
        }
    }
    let ends = cuts[1..].iter().map(|(_, at)| *at);
    let ends: Vec<usize> = ends.chain([segment.data.len()]).collect();
    let pieces = cuts.into_iter().zip(ends);
    pieces
        .map(|((due, from), to)| (due, segment.data.slice(from..to)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segmenter::{Config, Segmenter};
    use crate::testing::CLIP;

    const START: Duration = Duration::from_secs(1000);
    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Duration {
        START + Duration::from_millis(millis)
    }

    /// When a segment of that duration is due.
    fn due(pacer: &mut Pacer<Duration>, now: Duration, duration: Duration) -> Duration {
        let due = pacer.next_due(now);
        pacer.plays(duration);
        due
    }

    #[test]
    fn segments_are_due_as_their_media_plays() {
        let mut pacer = Pacer::new(Speed::REAL);
        assert_eq!(due(&mut pacer, START, SECOND), at(0));
        assert_eq!(due(&mut pacer, at(5), SECOND * 2), at(1000));
        assert_eq!(due(&mut pacer, at(1001), SECOND), at(3000));
    }

    #[test]
    fn small_delays_do_not_add_up() {
        let mut pacer = Pacer::new(Speed::REAL);
        due(&mut pacer, START, SECOND);
        for index in 1..100 {
            let late = at(index * 1000 + 40);
            assert_eq!(due(&mut pacer, late, SECOND), late);
        }
        assert_eq!(due(&mut pacer, at(99_900), SECOND), at(100_000));
    }

    #[test]
    fn a_stall_is_not_made_up_for_by_a_burst() {
        let mut pacer = Pacer::new(Speed::REAL);
        due(&mut pacer, START, SECOND);
        assert_eq!(due(&mut pacer, at(8000), SECOND), at(8000));
        assert_eq!(due(&mut pacer, at(8001), SECOND), at(9000));
    }

    #[test]
    fn factors_stretch_and_max_does_not_wait() {
        let mut double = Pacer::new("2".parse().expect("a speed"));
        due(&mut double, START, SECOND);
        assert_eq!(due(&mut double, START, SECOND), at(500));
        let mut max = Pacer::new(Speed::Max);
        for _ in 0..5 {
            assert_eq!(due(&mut max, START, SECOND), START);
        }
    }

    #[test]
    fn a_segment_leaves_at_the_pace_of_its_time_stamps_and_whole() {
        let mut segmenter = Segmenter::new(Config::default());
        segmenter.push(CLIP).expect("it can be cut");
        let segment = segmenter.next_segment().expect("it has many");
        let real = pieces(&segment, Speed::REAL);
        // Thirty frames a second, and no frame is left out.
        assert_eq!(real.len(), 30);
        assert_eq!(real[0].0, Duration::ZERO);
        assert!(real.windows(2).all(|two| two[0].0 + PIECE <= two[1].0));
        let joined: Vec<u8> = real.iter().flat_map(|(_, piece)| piece.to_vec()).collect();
        assert!(joined == segment.data);
        let double = pieces(&segment, "2".parse().expect("a speed"));
        assert!(double.last().expect("pieces").0 * 2 <= real.last().expect("pieces").0);
        let max = pieces(&segment, Speed::Max);
        assert_eq!(max, [(Duration::ZERO, segment.data)]);
    }

    #[test]
    fn speeds_are_read_and_written() {
        for (text, shown) in [
            ("real", "real"),
            ("REAL", "real"),
            ("1", "real"),
            ("1.0", "real"),
            ("max", "max"),
            ("2x", "2"),
            ("0.5", "0.5"),
            ("0.001", "0.001"),
            ("1000", "1000"),
            ("12.34", "12.34"),
        ] {
            let speed: Speed = text.parse().expect(text);
            assert_eq!(speed.to_string(), shown);
        }
        for text in [
            "", "0", "-1", "fast", "1001", "1.2345", "1e3", ".5", "1.", "0.0", "∞", "1 ",
        ] {
            assert_eq!(text.parse::<Speed>(), Err(BadSpeed), "{text}");
        }
    }
}
