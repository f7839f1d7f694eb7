//! One timeline for a job, over every source that feeds it and every jump of their clocks.
//!
//! Models drop each picture whose time stamp is not later than that of the one before, for ever, and do not mind a jump
//! forward. So time here only goes forward: the first frame of the job is at [`ORIGIN`], and where a source's clock
//! jumps, or another source takes over, the next frame follows the last at its usual distance. Each jump is counted.
//!
//! | the stamps of a track | then |
//! |---|---|
//! | go on by at most [`MAX_STEP`] | time goes on as they do |
//! | repeat | a picture follows after one tick, sound is left out |
//! | go back, or on by more | video: the frame follows the last one, or where sound is by now; sound finds video's place |
//! | are the first | the other track's clock ([`Clocks::Shared`]) or its arrival ([`Clocks::Apart`]) says where |
//!
//! Sources with clocks that are apart are aligned by arrival first, and once both tracks have had a sender report by
//! these: sound begins where they say if they are there in time, and else moves there by at most [`MAX_SLEW`] a packet, so
//! that nobody hears it.

use std::time::Duration;

use crate::frame::Ticks;

/// The place of the first frame of a job: the clock reference of its packets lies before it, and not below zero.
pub const ORIGIN: Ticks = Ticks::SECOND;
/// A longer step forward is a jump.
pub const MAX_STEP: Ticks = Ticks(10 * Ticks::SECOND.0);
/// How far sound moves with each packet to where the sender's reports say it belongs: 1 ms.
pub const MAX_SLEW: Ticks = Ticks::from_millis(1);
/// Reports that would move sound by more are not believed.
pub const MAX_MISALIGNMENT: Ticks = Ticks(5 * Ticks::SECOND.0);
/// Sound begins at most so far from where its arrival says, if the sender's reports say so: no job begins before zero.
pub const MAX_CORRECTION: Ticks = ORIGIN;
/// A picture is shown at most so long after it is decoded.
pub const MAX_COMPOSITION: Ticks = Ticks(10 * Ticks::SECOND.0);

/// The distance of frames that is expected until there were two.
const FIRST_STEP: i64 = 3000;

/// Time stamps of a number of bits, unwrapped: each is taken for the one nearest to the last.
#[derive(Clone, Copy, Debug)]
pub struct Unwrap {
    bits: u32,
    last: Option<i64>,
}

impl Unwrap {
    /// Stamps of so many bits, 1 to 62: 33 in MPEG-TS, 32 in RTP, 31 in RTMP, whose senders wrap there as well as at 32.
    #[must_use]
    pub const fn new(bits: u32) -> Self {
        debug_assert!(bits > 0 && bits < 63, "a signed number holds it");
        Self { bits, last: None }
    }

    /// The next stamp, unwrapped. The first is as it is.
    pub fn next(&mut self, stamp: u64) -> i64 {
        let modulus = 1_i64 << self.bits;
        let stamp = (stamp & (modulus as u64 - 1)) as i64; // at most 62 bits
        let next = self.last.map_or(stamp, |last| {
            let forward = (stamp - last).rem_euclid(modulus);
            let step = if forward < modulus / 2 {
                forward
            } else {
                forward - modulus
            };
            last.saturating_add(step)
        });
        self.last = Some(next);
        next
    }
}

/// Whether the stamps of video and sound come from one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// A clock for all tracks, as in RTMP and MPEG-TS.
    Shared,
    /// A clock each, as in RTP.
    Apart,
}

/// A track of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

/// The timeline of a job. See the [module](self).
#[derive(Debug)]
pub struct Timeline {
    clocks: Clocks,
    video: Track,
    audio: Track,
    jumps: u64,
}

/// A track's way from the source's clock to the job's.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    /// The offset that is added to the stamps of the source, once it has given one.
    offset: Option<i64>,
    /// The last stamp of the source.
    stamp: i64,
    /// Where the last frame is, over all sources.
    last: Option<i64>,
    /// The usual distance of frames.
    step: Option<i64>,
    /// The first frame of the source: when it arrived and where it is.
    first: Option<(Duration, i64)>,
    /// The last sender report: a stamp, and its time in ticks.
    report: Option<(i64, i64)>,
}

impl Track {
    /// The usual place of the next frame, if there was one.
    fn next(&self) -> Option<i64> {
        let step = self.step.unwrap_or(FIRST_STEP);
        self.last.map(|last| last.saturating_add(step))
    }

    /// Another source follows.
    const fn forget(&mut self) {
        (self.offset, self.first, self.report) = (None, None, None);
    }
}

impl Timeline {
    /// The timeline of a job whose first source has such clocks.
    #[must_use]
    pub fn new(clocks: Clocks) -> Self {
        Self {
            clocks,
            video: Track::default(),
            audio: Track::default(),
            jumps: 0,
        }
    }

    /// Another source takes over: its first frame follows the last one of either track.
    pub const fn restart(&mut self, clocks: Clocks) {
        self.clocks = clocks;
        self.video.forget();
        self.audio.forget();
    }

    /// The place of a picture with those stamps: its PTS and DTS. `arrival` is on any clock that only goes forward.
    pub fn video(&mut self, arrival: Duration, pts: Ticks, dts: Ticks) -> (Ticks, Ticks) {
        let place = self.place(Kind::Video, arrival, dts.0);
        let composition = (pts - dts).clamp(Ticks::ZERO, MAX_COMPOSITION);
        (Ticks(place) + composition, Ticks(place))
    }

    /// The place of a frame of sound with that stamp. `None`: there is sound at that place already.
    pub fn audio(&mut self, arrival: Duration, pts: Ticks) -> Option<Ticks> {
        let before = self.audio.last;
        let place = self.place(Kind::Audio, arrival, pts.0);
        if before.is_some_and(|before| place <= before) {
            self.audio.last = before;
            return None;
        }
        self.slew();
        Some(Ticks(place))
    }

    /// A sender report of a track with its own clock: `stamp`, in the ticks that frames of this track are given in, is
    /// at `micros` of the sender's time.
    pub fn report(&mut self, kind: Kind, stamp: Ticks, micros: i64) {
        let ticks = i128::from(micros) * 9 / 100;
        self.track(kind).report = i64::try_from(ticks).ok().map(|ticks| (stamp.0, ticks));
    }

    /// Where the last picture is.
    #[must_use]
    pub fn last_video(&self) -> Option<Ticks> {
        self.video.last.map(Ticks)
    }

    /// How often the stamps jumped.
    #[must_use]
    pub const fn jumps(&self) -> u64 {
        self.jumps
    }

    const fn track(&mut self, kind: Kind) -> &mut Track {
        match kind {
            Kind::Video => &mut self.video,
            Kind::Audio => &mut self.audio,
        }
    }

    fn place(&mut self, kind: Kind, arrival: Duration, stamp: i64) -> i64 {
        let track = *self.track(kind);
        let step = stamp.saturating_sub(track.stamp);
        let place = match (track.offset, track.last) {
            (Some(_), Some(last)) if step == 0 => {
                last.saturating_add(i64::from(kind == Kind::Video))
            }
            (Some(offset), Some(last)) if step > 0 && step <= MAX_STEP.0 => {
                let track = self.track(kind);
                track.step = Some(track.step.map_or(step, |usual| (7 * usual + step) / 8));
                let place = stamp.saturating_add(offset);
                match kind {
                    Kind::Video => place.max(last.saturating_add(1)),
                    Kind::Audio => place,
                }
            }
            (offset, _) => {
                if offset.is_some() {
                    self.jumps += 1;
                    // It was of the stamps before.
                    self.track(kind).report = None;
                }
                self.join(kind, arrival, stamp)
            }
        };
        let track = self.track(kind);
        track.stamp = stamp;
        track.last = Some(place);
        track.first.get_or_insert((arrival, place));
        place
    }

    /// The place of a frame whose own track does not say where it belongs.
    fn join(&mut self, kind: Kind, arrival: Duration, stamp: i64) -> i64 {
        let track = *self.track(kind);
        let other = *self.track(match kind {
            Kind::Video => Kind::Audio,
            Kind::Audio => Kind::Video,
        });
        let beside = match self.clocks {
            Clocks::Shared => other.offset.map(|offset| stamp.saturating_add(offset)),
            Clocks::Apart if track.offset.is_some() => None,
            Clocks::Apart => other.first.map(|(arrived, place)| {
                let after = Ticks::from_duration(arrival.saturating_sub(arrived));
                let before = Ticks::from_duration(arrived.saturating_sub(arrival));
                let place = place.saturating_add(after.0).saturating_sub(before.0);
                let reported = (self.in_step().filter(|_| kind == Kind::Audio))
                    .and_then(|offset| i64::try_from(i128::from(stamp) + offset).ok());
                let is_believed =
                    |reported: &i64| reported.abs_diff(place) <= MAX_CORRECTION.0 as u64; // positive
                reported.filter(is_believed).unwrap_or(place)
            }),
        };
        let near = |place: &i64| {
            let distance = other.last.map_or(0, |last| last.abs_diff(*place));
            distance <= MAX_STEP.0 as u64 // positive
        };
        let beside = beside.filter(near);
        let is_later = |place: i64| track.last.is_none_or(|last| place > last);
        let place = match beside {
            Some(place) if is_later(place) => place,
            // Sound that was there already is dropped; its clock is known from here on.
            Some(place) if kind == Kind::Audio && self.clocks == Clocks::Shared => place,
            _ => track.next().max(other.last).unwrap_or(ORIGIN.0),
        };
        let offset = Some(place.saturating_sub(stamp));
        self.track(kind).offset = offset;
        if kind == Kind::Video && self.clocks == Clocks::Shared && beside.is_some() {
            // One clock, one offset: sound follows the picture.
            self.audio.offset = offset;
        }
        place
    }

    /// The offset of sound at which it is in step with the pictures, as the sender's reports say.
    fn in_step(&self) -> Option<i128> {
        let (video, audio, offset) = (self.video.report?, self.audio.report?, self.video.offset?);
        // The stamp of video at the moment of the stamp of sound, less that stamp.
        let apart =
            i128::from(video.0) - i128::from(audio.0) + i128::from(audio.1) - i128::from(video.1);
        Some(apart + i128::from(offset))
    }

    /// Moves sound towards the place that the sender's reports give it.
    fn slew(&mut self) {
        let (Clocks::Apart, Some(wanted), Some(now)) =
            (self.clocks, self.in_step(), self.audio.offset)
        else {
            return;
        };
        let distance = wanted - i128::from(now);
        if distance.abs() <= i128::from(MAX_MISALIGNMENT.0) {
            let slew = distance.clamp(i128::from(-MAX_SLEW.0), i128::from(MAX_SLEW.0)) as i64; // within 90
            self.audio.offset = Some(now.saturating_add(slew));
        }
    }
}

/// Decoding times for a stream that only says when its pictures are shown: the pictures' times in order, as many later
/// as the stream reorders.
#[derive(Clone, Debug)]
pub struct Reorder {
    depth: usize,
    /// The latest times of pictures, in order.
    held: Vec<i64>,
    last: Option<i64>,
}

impl Reorder {
    /// A stream in which at most `depth` pictures come before one that is shown earlier, as its
    /// [`Sps`](crate::h264::Sps) says.
    #[must_use]
    pub fn new(depth: u32) -> Self {
        Self {
            depth: depth.min(crate::h264::MAX_REORDER) as usize,
            held: Vec::new(),
            last: None,
        }
    }

    /// When the next picture, shown at `pts`, is decoded.
    pub fn next(&mut self, pts: Ticks) -> Ticks {
        if self.held.is_empty() {
            // Pictures before the first one, a tick each, so that decoding times rise from the beginning.
            let before = (1..=self.depth as i64).rev();
            self.held
                .extend(before.map(|ticks| pts.0.saturating_sub(ticks)));
        }
        let at = self.held.partition_point(|held| *held <= pts.0);
        self.held.insert(at, pts.0);
        let dts = self.held.remove(0);
        // A stream that reorders more than it says.
        let dts = self
            .last
            .map_or(dts, |last| dts.max(last.saturating_add(1)))
            .min(pts.0);
        self.last = Some(dts);
        Ticks(dts)
    }
}

/// Video stamps in microseconds instead of ticks, as Safari of iOS 18.4 and later sends them.
///
/// The second stamp that differs from the first decides: a source whose stamps run at more than 800 kHz against their
/// arrival is scaled from then on. Differences are scaled, so the first stamp needs no correction.
#[derive(Debug)]
pub struct Microseconds {
    verdict: Option<bool>,
    first: Option<(Duration, i64)>,
}

impl Microseconds {
    /// Frames do not come faster than this, so arrivals closer together say nothing of the clock.
    const LEAST: Duration = Duration::from_nanos(1_000_000_000 / 30);
    /// Ticks a second above which the stamps must be microseconds.
    const FAST: i128 = 800_000;

    /// A watch over a sender that calls itself `user_agent`; only those that may be such a Safari are watched.
    #[must_use]
    pub fn new(user_agent: &str) -> Self {
        let may = user_agent.is_empty()
            || (["iPhone", "iPad", "Version/18"]
                .iter()
                .any(|part| user_agent.contains(part))
                && !user_agent.contains("Version/18.6"));
        Self {
            verdict: (!may).then_some(false),
            first: None,
        }
    }

    /// Whether it is known how the sender counts: at the latest with its second picture.
    #[must_use]
    pub const fn is_decided(&self) -> bool {
        self.verdict.is_some()
    }

    /// The stamp in ticks.
    pub fn next(&mut self, arrival: Duration, stamp: i64) -> i64 {
        let (arrived, first) = *self.first.get_or_insert((arrival, stamp));
        let step = i128::from(stamp) - i128::from(first);
        if self.verdict.is_none() && step != 0 {
            let passed = arrival.saturating_sub(arrived).max(Self::LEAST).as_nanos() as i128; // below 2^94
            self.verdict = Some(step * 1_000_000_000 > Self::FAST * passed);
        }
        if self.verdict == Some(true) {
            let scaled = i128::from(first) + step * 9 / 100;
            i64::try_from(scaled).unwrap_or(stamp)
        } else {
            stamp
        }
    }
}

#[cfg(test)]
mod tests;
