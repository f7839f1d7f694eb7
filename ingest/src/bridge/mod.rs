//! The bridge from whoever sends live video to the input of a job: frames in, segments of MPEG-TS out, byte by byte.
//!
//! ```text
//!   WHIP, RTMP ──▶ video, audio ──▶ Timeline ──▶ Mux ──▶ Begin, Write, End ──▶ input of the job
//!        ▲                                                                       │
//!        └──────────────────────────── Key ◀── Bridge ◀── blocked ◀──────────────┘
//! ```
//!
//! Bytes leave as they come: one write a frame, inside the open segment. Nothing waits for the end of a segment, which
//! only says where a model that joins later may begin.
//!
//! | state | input | next | output |
//! |---|---|---|---|
//! | Empty | a key frame, and it is known whether there is sound | Open | `Begin`, tables, picture |
//! | Open | a picture | Open | its packets |
//! | Open | a key frame, and the segment is [`Config::min_segment`] old by clock and by media time | Open | `End`, `Begin`, tables, picture |
//! | Open | a picture, and the segment is [`MAX_SEGMENT`] old | Open | `End`, `Begin`, tables, parameter sets, picture |
//! | Open | a picture, and the last key frame is [`KEY_DUE`] old | Open | `Key`, once in that time |
//! | Open | sound is [`SILENCE_AFTER`] more behind the picture than it usually comes, or than [`MAX_LAG`] at a source's beginning | Open | silence up to where it should be |
//! | Open | no picture for [`CLOCK_AFTER`] | Open | a clock reference |
//! | Open | no picture for [`PARK_AFTER`] | Parked | `End`: readers give up on a body that stays silent |
//! | Open | no room for [`BLOCKED_FOR`], or for [`MAX_BLOCKED`] | Open | nothing until the next key frame, `Key` |
//! | Parked | no byte for [`KEEP_ALIVE`] | Parked | `Begin`, tables, `End` |
//! | Parked | no picture for [`Config::stalled_after`] | Parked | `Stalled` |
//! | Parked | a picture, and none was lost | Open | `Begin`, tables, parameter sets, picture; `Flows` if it had stalled |
//! | Parked | a picture after a loss | Parked | `Key` until a key frame comes |
//! | any | another source | same | its time follows; pictures from its first key frame on |
//! | any | end | Done | `End`, `Done` |
//!
//! Whether there is sound is decided once, with the first key frame, since models do not notice a track that comes later
//! and wait for one that does not come: a source that announces sound has [`SOUND_WITHIN`] to send it. From then on the
//! gaps of sound are filled with silence, whatever the source does.
//!
//! A new orchestrator is not the bridge's business: the job keeps what it is owed.

mod segment;

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::machine::{Input, Machine, Outbox, Output, earlier};
use livepeer_core::time::Time;
use livepeer_media::frame::{AccessUnit, Audio, AudioTrack, Ticks};
use livepeer_media::timeline::{Clocks, Kind, Timeline};

use self::segment::Segments;

/// Media time or clock time after which a segment is cut at the next picture, key frame or not. Readers of the reference
/// give up on a segment after 30 s.
pub const MAX_SEGMENT: Duration = Duration::from_secs(10);
/// How old the last key frame of a segment may be before one is asked for, and how often that is done.
pub const KEY_DUE: Duration = Duration::from_secs(2);
/// How often a key frame is asked for while nothing can be shown without one.
pub const KEY_EVERY: Duration = Duration::from_millis(500);
/// How long a source that announces sound has to send it, from its first picture on.
pub const SOUND_WITHIN: Duration = Duration::from_millis(500);
/// How far sound may be behind the picture before silence is sent, beyond how far it is behind when it comes.
pub const SILENCE_AFTER: Ticks = Ticks::from_millis(60);
/// Sound that comes behind its pictures by more than this is taken for silence.
pub const MAX_LAG: Ticks = Ticks::from_millis(500);
/// Silence for more than this is not made up for: a gap in both tracks is none.
pub const MAX_SILENCE: Ticks = Ticks::SECOND;
/// How long the segment goes without a clock reference: pictures carry it, unless they are slow.
pub const CLOCK_AFTER: Duration = Duration::from_millis(100);
/// How long an open segment waits for a picture.
pub const PARK_AFTER: Duration = Duration::from_secs(2);
/// How long the channel goes without a byte: below the 25 s after which its readers give up.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long the input of the job may take no more bytes before pictures are dropped.
pub const BLOCKED_FOR: Duration = Duration::from_secs(1);
/// Bytes that are written at most while the input of the job takes no more, before pictures are dropped.
pub const MAX_BLOCKED: u64 = 16 << 20;
/// Bytes that are kept at most until it is known whether there is sound.
pub const MAX_HELD: usize = 4 << 20;

/// Settings of a bridge.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The time that a segment has at least, by the clock and in the media (`LIVE_AI_MIN_SEG_DUR` of the reference).
    pub min_segment: Duration,
    /// How long no picture may come before the input counts as stalled.
    pub stalled_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            min_segment: Duration::from_secs(1),
            stalled_after: Duration::from_secs(60),
        }
    }
}

/// A sender of live video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Whether video and sound are stamped by one clock.
    pub clocks: Clocks,
    /// Whether it announces sound.
    pub sound: bool,
}

/// An event of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The tracks are decided, before the first segment: H.264, and sound if there is any.
    Opened(Option<AudioTrack>),
    /// A segment begins.
    Begin,
    /// The next bytes of the open segment.
    Write(Bytes),
    /// The open segment is complete.
    End,
    /// The source should send a key frame.
    Key,
    /// No picture came for [`Config::stalled_after`]: nobody should be paid until [`Event::Flows`].
    Stalled,
    /// Pictures come again after [`Event::Stalled`].
    Flows,
    /// The bridge has ended.
    Done,
}

/// Counts of what became of the frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Segments that were begun, those without a picture included.
    pub segments: u64,
    /// Segments among them that begin without a key frame, for want of one.
    pub forced: u64,
    /// Bytes of MPEG-TS that were written.
    pub bytes: u64,
    /// Pictures that were sent on.
    pub pictures: u64,
    /// Pictures that were dropped: before a key frame, or because the job took no more.
    pub dropped: u64,
    /// Frames of sound that were sent on.
    pub sounds: u64,
    /// Frames of silence that were put in their place.
    pub silences: u64,
    /// Jumps of the sources' time stamps.
    pub jumps: u64,
    /// The place of the last picture and of the last frame of sound in the time of the job; zero if there was none.
    pub last: [Ticks; 2],
}

/// The bridge of one job. See the [module](self).
#[derive(Debug)]
pub struct Bridge {
    config: Config,
    now: Time,
    timeline: Timeline,
    state: State,
    segments: Option<Segments>,
    /// Pictures are dropped until a key frame comes.
    needs_key: bool,
    key_asked: Option<Time>,
    /// Since when the job takes no more, and what was sent on before.
    blocked: Option<(Time, u64)>,
    figures: Figures,
    out: Outbox<Event>,
}

#[derive(Debug)]
enum State {
    /// The tracks are not decided.
    Empty(Waiting),
    /// A segment is open.
    Open {
        /// When the last picture came.
        picture: Time,
        /// When the last clock reference was written.
        clock: Time,
    },
    /// No segment is open.
    Parked {
        /// When the last picture came.
        picture: Time,
        /// When the last byte was written.
        byte: Time,
        stalled: bool,
    },
    Done,
}

/// The frames from the first key frame on, until it is known whether there is sound.
#[derive(Debug, Default)]
struct Waiting {
    source: Option<Source>,
    first_picture: Option<Time>,
    sound: Option<AudioTrack>,
    held: Vec<(Time, Frame)>,
    bytes: usize,
}

#[derive(Clone, Debug)]
enum Frame {
    Video(AccessUnit),
    Audio(Audio),
}

impl Bridge {
    /// A bridge without a source.
    #[must_use]
    pub fn new(now: Time, config: Config) -> Self {
        Self {
            config,
            now,
            timeline: Timeline::new(Clocks::Shared),
            state: State::Empty(Waiting::default()),
            segments: None,
            needs_key: true,
            key_asked: None,
            blocked: None,
            figures: Figures::default(),
            out: Outbox::default(),
        }
    }

    /// A source begins, the first or another in its place. What comes next is from this one.
    pub fn source(&mut self, now: Time, source: Source) {
        self.advance(now);
        self.timeline.restart(source.clocks);
        self.needs_key = true;
        if let Some(segments) = &mut self.segments {
            segments.source();
        }
        if let State::Empty(waiting) = &mut self.state {
            *waiting = Waiting {
                source: Some(source),
                ..Waiting::default()
            };
        }
    }

    /// The next picture of the source, in decoding order and stamped by its clock. Tracks with clocks apart are aligned by
    /// when their frames come until there are sender reports.
    pub fn video(&mut self, now: Time, unit: AccessUnit) {
        self.advance(now);
        if let State::Empty(waiting) = &mut self.state {
            waiting.first_picture.get_or_insert(self.now);
        }
        if self.is_done() || !self.may_show(&unit) {
            return;
        }
        if let State::Empty(waiting) = &mut self.state {
            waiting.hold(self.now, Frame::Video(unit));
            self.decide();
        } else {
            self.picture(self.now, unit);
        }
    }

    /// The next frame of sound of the source, stamped by its clock.
    pub fn audio(&mut self, now: Time, audio: Audio) {
        self.advance(now);
        if let State::Empty(waiting) = &mut self.state {
            waiting.sound.get_or_insert(audio.track);
            if !waiting.held.is_empty() {
                waiting.hold(self.now, Frame::Audio(audio));
                self.decide();
            }
        } else if matches!(self.state, State::Open { .. }) && !self.needs_key && !self.is_full() {
            self.sound(self.now, &audio);
        }
    }

    /// A sender report of the source: see [`Timeline::report`].
    pub fn report(&mut self, now: Time, kind: Kind, stamp: Ticks, micros: i64) {
        self.advance(now);
        self.timeline.report(kind, stamp, micros);
    }

    /// Pictures of the source were lost. While a segment is open the next ones are sent on all the same: decoders
    /// conceal. After a pause they wait for a key frame.
    pub fn lost(&mut self, now: Time) {
        self.advance(now);
        match self.state {
            State::Done => return,
            State::Open { .. } => {}
            State::Empty(_) | State::Parked { .. } => self.needs_key = true,
        }
        self.ask_for_key(KEY_EVERY);
    }

    /// Whether the input of the job takes no more bytes for now.
    pub fn blocked(&mut self, now: Time, blocked: bool) {
        self.advance(now);
        self.blocked = blocked.then(|| self.blocked.unwrap_or((self.now, self.figures.bytes)));
    }

    /// The stream is over.
    pub fn end(&mut self, now: Time) {
        self.advance(now);
        if self.is_done() {
            return;
        }
        if matches!(self.state, State::Open { .. }) {
            self.out.event(Event::End);
        }
        self.state = State::Done;
        self.out.event(Event::Done);
    }

    /// Whether the stream is over.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.is_done()
    }

    /// Counts what became of the frames so far.
    #[must_use]
    pub const fn figures(&self) -> Figures {
        Figures {
            jumps: self.timeline.jumps(),
            ..self.figures
        }
    }

    /// The sound of the job, once the tracks are decided.
    #[must_use]
    pub fn tracks(&self) -> Option<Option<AudioTrack>> {
        self.segments.as_ref().map(Segments::sound)
    }

    const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether the job has taken nothing for so long, or of so much, that pictures are dropped.
    fn is_full(&self) -> bool {
        self.blocked.is_some_and(|(since, before)| {
            self.now >= since + BLOCKED_FOR || self.figures.bytes - before > MAX_BLOCKED
        })
    }

    /// Whether a picture can be shown; if not, asks for one that can.
    fn may_show(&mut self, unit: &AccessUnit) -> bool {
        let is_full = self.is_full();
        self.needs_key = is_full || (self.needs_key && !unit.key);
        if self.needs_key {
            self.figures.dropped += 1;
            if !is_full {
                self.ask_for_key(KEY_EVERY);
            }
        }
        !self.needs_key
    }

    fn ask_for_key(&mut self, every: Duration) {
        if self.key_asked.is_none_or(|asked| self.now >= asked + every) {
            self.key_asked = Some(self.now);
            self.out.event(Event::Key);
        }
    }

    /// Opens the first segment as soon as the tracks are decided.
    fn decide(&mut self) {
        let State::Empty(waiting) = &mut self.state else {
            return;
        };
        if waiting.held.is_empty() || !waiting.is_decided(self.now) {
            return;
        }
        let held = std::mem::take(&mut waiting.held);
        let sound = waiting.sound;
        self.segments = Some(Segments::new(self.config.min_segment, sound));
        self.out.event(Event::Opened(sound));
        for (arrived, frame) in held {
            match frame {
                Frame::Video(unit) => self.picture(arrived, unit),
                Frame::Audio(audio) => self.sound(arrived, &audio),
            }
        }
    }

    /// Sends on a picture.
    fn picture(&mut self, arrived: Time, unit: AccessUnit) {
        let (pts, dts) = self.timeline.video(arrival(arrived), unit.pts, unit.dts);
        let unit = AccessUnit { pts, dts, ..unit };
        let Some(segments) = &mut self.segments else {
            return;
        };
        self.figures.last[0] = dts;
        if matches!(self.state, State::Parked { stalled: true, .. }) {
            self.out.event(Event::Flows);
        }
        if !matches!(self.state, State::Open { .. }) {
            segments.begin(self.now, &unit, &mut self.out, &mut self.figures);
        } else if segments.is_due(self.now, &unit) {
            self.out.event(Event::End);
            segments.begin(self.now, &unit, &mut self.out, &mut self.figures);
        }
        segments.picture(self.now, &unit, &mut self.out, &mut self.figures);
        let key_is_due = segments.key_is_due(self.now);
        self.state = State::Open {
            picture: self.now,
            clock: self.now,
        };
        if key_is_due {
            self.ask_for_key(KEY_DUE);
        }
    }

    /// Sends on a frame of sound.
    fn sound(&mut self, arrived: Time, audio: &Audio) {
        let Some(segments) = &mut self.segments else {
            return;
        };
        if segments.sound() != Some(audio.track) {
            return;
        }
        let Some(duration) = audio.track.duration(&audio.data) else {
            return;
        };
        if let Some(pts) = self.timeline.audio(arrival(arrived), audio.pts) {
            self.figures.last[1] = pts;
            segments.sounds(pts, duration, audio, &mut self.out, &mut self.figures);
        }
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.decide();
        if let State::Open { picture, clock } = self.state {
            if self.now >= picture + PARK_AFTER {
                self.out.event(Event::End);
                self.state = State::Parked {
                    picture,
                    byte: self.now,
                    stalled: false,
                };
            } else if self.now >= clock + CLOCK_AFTER {
                self.tick();
            }
        }
        self.rest();
    }

    /// Keeps the clock of the open segment going between slow pictures.
    fn tick(&mut self) {
        // Nothing is added where nothing is taken.
        let packet = self.segments.as_mut().and_then(Segments::clock);
        if let Some(packet) = packet.filter(|_| self.blocked.is_none()) {
            segment::write(packet, &mut self.out, &mut self.figures);
        }
        if let State::Open { clock, .. } = &mut self.state {
            *clock = self.now;
        }
    }

    /// Lets the time pass in which there are no pictures.
    fn rest(&mut self) {
        let State::Parked {
            picture,
            byte,
            stalled,
        } = &mut self.state
        else {
            return;
        };
        if !*stalled && self.now >= *picture + self.config.stalled_after {
            *stalled = true;
            self.out.event(Event::Stalled);
        }
        if self.now >= *byte + KEEP_ALIVE {
            *byte = self.now;
            if let Some(segments) = &mut self.segments {
                segments.keep_alive(&mut self.out, &mut self.figures);
            }
        }
    }

    /// When time alone changes something.
    fn wake(&self) -> Option<Time> {
        match &self.state {
            State::Empty(waiting) => waiting.wake(),
            State::Open { picture, clock } => {
                Some((*picture + PARK_AFTER).min(*clock + CLOCK_AFTER))
            }
            State::Parked {
                picture,
                byte,
                stalled,
            } => {
                let stall = (!stalled).then(|| *picture + self.config.stalled_after);
                earlier(stall, Some(*byte + KEEP_ALIVE))
            }
            State::Done => None,
        }
    }
}

impl Waiting {
    fn hold(&mut self, arrived: Time, frame: Frame) {
        self.bytes += match &frame {
            Frame::Video(unit) => unit.data.len(),
            Frame::Audio(audio) => audio.data.len(),
        };
        self.held.push((arrived, frame));
    }

    fn is_decided(&self, now: Time) -> bool {
        self.sound.is_some()
            || self.source.is_none_or(|source| !source.sound)
            || self.bytes > MAX_HELD
            || self
                .first_picture
                .is_some_and(|first| now >= first + SOUND_WITHIN)
    }

    fn wake(&self) -> Option<Time> {
        let first = self.first_picture.filter(|_| !self.held.is_empty());
        first.map(|first| first + SOUND_WITHIN)
    }
}

/// An arrival as the timeline takes it.
const fn arrival(arrived: Time) -> Duration {
    Duration::from_nanos(arrived.as_nanos())
}

impl Machine for Bridge {
    type Event = Event;

    fn handle_input(&mut self, now: Time, _: Input) {
        self.advance(now);
    }

    fn poll_output(&mut self) -> Output<Event> {
        self.out.pop().unwrap_or_else(|| Output::Idle(self.wake()))
    }
}

#[cfg(test)]
mod tests;
