//! When a segment is due.
//!
//! The schedule starts with the first segment and then follows media time, so that small delays do not add up.
//! After a long stall it starts anew from the late segment: a burst that makes up for the stall would push
//! segments out of the trickle server's window before anybody read them (trickle spec 4).

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::Time;
use livepeer_core::job::live::media::stamps::{Scanner, distance};
use livepeer_media::clock::ticks_to_duration;

/// A time stamp further from the first one of its segment is a jump, not a time to wait for.
const MAX_SEGMENT: Duration = Duration::from_secs(10);

/// Later than this, the schedule starts anew.
pub(crate) const MAX_LAG: Duration = Duration::from_secs(1);

/// How fast media time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speed {
    /// As fast as the peers take it.
    Max,
    /// A number of thousandths of real time.
    Thousandths(NonZeroU32),
}

impl Speed {
    /// The speed of real time: one second of media a second.
    pub(crate) const REAL: Self = Self::Thousandths(NonZeroU32::new(1000).expect("not zero"));

    /// How long media of that duration takes.
    pub(crate) fn stretch(self, media: Duration) -> Duration {
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
pub(crate) struct BadSpeed;

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

/// Says when each of a row of segments is due. Loops of an input need no new one: it adds durations up.
#[derive(Debug)]
pub(crate) struct Pacer {
    speed: Speed,
    /// Start of the schedule, once there was a segment.
    since: Option<Time>,
    /// Media time of the schedule so far.
    media: Duration,
}

impl Pacer {
    /// A schedule that begins with its first segment.
    pub(crate) const fn new(speed: Speed) -> Self {
        Self {
            speed,
            since: None,
            media: Duration::ZERO,
        }
    }

    /// When the next segment is to start: `now` or later.
    pub(crate) fn next_due(&mut self, now: Time) -> Time {
        let since = *self.since.get_or_insert(now);
        let mut due = since + self.speed.stretch(self.media);
        if now.since(due) > MAX_LAG {
            self.since = Some(now);
            self.media = Duration::ZERO;
            due = now;
        }
        due.max(now)
    }

    /// The segment that was due last plays for so long; then the one after it is due.
    pub(crate) fn plays(&mut self, duration: Duration) {
        self.media += duration;
    }
}

/// Pieces of a segment are no shorter than this, so that small frames share one.
const PIECE: Duration = Duration::from_millis(20);

/// Cuts a segment into pieces, and says how long after its beginning each is due by the time stamps in it.
pub(crate) fn pieces(segment: Bytes, speed: Speed) -> Vec<(Duration, Bytes)> {
    let mut stamps = Vec::new();
    if speed != Speed::Max {
        Scanner::default().push(&segment, |stamp| stamps.push(stamp));
    }
    // Where there is video, sound goes along with it.
    if stamps.iter().any(|stamp| stamp.video) {
        stamps.retain(|stamp| stamp.video);
    }
    let mut cuts = vec![(Duration::ZERO, 0)];
    for stamp in &stamps {
        let since = u64::try_from(distance(stamps[0].pts, stamp.pts)).unwrap_or(0);
        let media = ticks_to_duration(since);
        let due = speed.stretch(media);
        if let (Some((last, _)), Ok(at)) = (cuts.last(), usize::try_from(stamp.at))
            && due >= *last + PIECE
            && media <= MAX_SEGMENT
        {
            cuts.push((due, at));
        }
    }
    let ends = cuts[1..].iter().map(|(_, at)| *at);
    let ends: Vec<usize> = ends.chain([segment.len()]).collect();
    let pieces = cuts.into_iter().zip(ends);
    pieces
        .map(|((due, from), to)| (due, segment.slice(from..to)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIP: &[u8] = include_bytes!("../media/testsrc-360p30-12s.ts");

    const START: Time = Time::from_secs(1000);
    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Time {
        START + Duration::from_millis(millis)
    }

    /// When a segment of that duration is due.
    fn due(pacer: &mut Pacer, now: Time, duration: Duration) -> Time {
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
        let segment = Bytes::from_static(&CLIP[..188 * 400]);
        let real = pieces(segment.clone(), Speed::REAL);
        assert!(real.len() > 10, "{} pieces", real.len());
        assert_eq!(real[0].0, Duration::ZERO);
        assert!(real.windows(2).all(|two| two[0].0 + PIECE <= two[1].0));
        let joined: Vec<u8> = real.iter().flat_map(|(_, piece)| piece.to_vec()).collect();
        assert!(joined == segment);
        let double = pieces(segment.clone(), "2".parse().expect("a speed"));
        assert!(double.last().expect("pieces").0 * 2 <= real.last().expect("pieces").0);
        assert_eq!(
            pieces(segment.clone(), Speed::Max),
            [(Duration::ZERO, segment)]
        );
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
