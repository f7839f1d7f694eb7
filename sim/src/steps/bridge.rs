//! A bridge whose senders, clocks and job do as they like.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::{Effect, EffectId, Time};
use livepeer_ingest::bridge::{
    Bridge, Config, Event, KEEP_ALIVE, KEY_EVERY, MAX_SEGMENT, PARK_AFTER, Source,
};
use livepeer_media::demux::{self, Demux};
use livepeer_media::frame::{AccessUnit, Audio, AudioTrack, Ticks};
use livepeer_media::timeline::{Clocks, Kind, ORIGIN};
use livepeer_media::{aac, mux};

use super::Reel;
use super::reel::count_all;
use crate::{Driven, Exchanges};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// A source begins; the bits say with which clocks, and whether it announces sound.
    Source(u8),
    /// A picture: a key frame or not, so much later than the last by its own clock, of some size.
    Picture(bool, u8, u8),
    /// A second of pictures and sound as they should be, with a key frame at its beginning or not.
    Second(bool),
    /// A frame of sound of some format, so much later than the last by its own clock.
    Sound(u8, u8),
    /// A sender report of a track.
    Report(bool, u8),
    /// Pictures were lost.
    Lost,
    /// The job takes no more bytes, or takes them again.
    Blocked(bool),
    /// The stream is over.
    End,
    /// Time passes: so many tens of milliseconds, to the third power.
    Pass(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(32) {
            0 | 1 => Self::Source(reel.byte()),
            2..=9 => Self::Picture(reel.below(4) == 0, reel.byte(), reel.byte()),
            10..=14 => Self::Second(reel.below(4) != 0),
            15..=20 => Self::Sound(reel.byte(), reel.byte()),
            21 => Self::Report(reel.below(2) == 0, reel.byte()),
            22 => Self::Lost,
            23 | 24 => Self::Blocked(reel.below(2) == 0),
            25 if reel.below(8) == 0 => Self::End,
            _ => Self::Pass(reel.byte()),
        }
    }
}

/// Plays steps against a bridge.
pub struct Player {
    now: Time,
    book: Exchanges,
    bridge: Bridge,
    config: Config,
    /// The clock of the source's pictures, and of its sound.
    clocks: [i64; 2],
    demux: Demux,
    opened: Option<Option<AudioTrack>>,
    /// When the open segment began, and how many bytes it has.
    open: Option<(Time, u64)>,
    segments: u64,
    /// When the last byte came.
    byte: Option<Time>,
    key: Option<Time>,
    stalled: bool,
    ended: bool,
    last: [Option<Ticks>; 2],
    read: [u64; 2],
    /// How often each thing happened.
    seen: BTreeMap<String, u32>,
}

/// A slice and, before a key frame, parameter sets of 320x180 as x264 writes them.
fn picture(key: bool, bytes: usize) -> Bytes {
    const SETS: &[u8] = &[
        0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x0d, 0xda, 0x05, 0x06, 0x7e, 0x78, 0x40, 0x00, 0x00, 0x03,
        0x00, 0x40, 0x00, 0x00, 0x0f, 0x23, 0xc5, 0x0a, 0xa8, 0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80,
    ];
    let mut data = if key { SETS.to_vec() } else { Vec::new() };
    data.extend_from_slice(&[0, 0, 0, 1, if key { 0x65 } else { 0x41 }]);
    data.resize(data.len() + 1 + bytes, 7);
    data.into()
}

/// Steps of a clock: mostly those of a steady one, some back, some far.
fn step(byte: u8) -> i64 {
    match byte {
        0..200 => i64::from(byte % 50) * 90,
        200..220 => -i64::from(byte) * 900,
        220..240 => i64::from(byte) * 9000,
        240..250 => -(1 << 33),
        _ => 1 << 50,
    }
}

impl Player {
    /// A bridge without a source; the byte picks its settings.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(10_000);
        let config = Config {
            min_segment: Duration::from_millis(500 * u64::from(flavour % 8)),
            stalled_after: Duration::from_secs(2 + 10 * u64::from(flavour / 8)),
        };
        Self {
            now,
            book: Exchanges::default(),
            bridge: Bridge::new(now, config),
            config,
            clocks: [0, 0],
            demux: Demux::new(),
            opened: None,
            open: None,
            segments: 0,
            byte: None,
            key: None,
            stalled: false,
            ended: false,
            last: [None, None],
            read: [0, 0],
            seen: BTreeMap::new(),
        }
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match *step {
            Step::Source(bits) => {
                let clocks = if bits & 1 == 0 {
                    Clocks::Shared
                } else {
                    Clocks::Apart
                };
                let sound = bits & 2 == 0;
                self.clocks = [i64::from(bits) << 24, i64::from(bits) << 25];
                if clocks == Clocks::Shared {
                    self.clocks[1] = self.clocks[0];
                }
                self.bridge.source(self.now, Source { clocks, sound });
            }
            Step::Picture(key, later, size) => {
                self.clocks[0] = self.clocks[0].saturating_add(self::step(later));
                self.picture(key, usize::from(size).pow(2));
            }
            Step::Second(key) => {
                for frame in 0..25 {
                    self.clocks[0] = self.clocks[0].saturating_add(3600);
                    self.picture(key && frame == 0, 100);
                    for _ in 0..2 {
                        self.clocks[1] = self.clocks[1].saturating_add(1800);
                        self.sound(0);
                        self.pass_millis(20);
                    }
                }
            }
            Step::Sound(format, later) => {
                self.clocks[1] = self.clocks[1].saturating_add(self::step(later));
                self.sound(format);
            }
            Step::Report(video, later) => {
                let (kind, clock) = if video {
                    (Kind::Video, self.clocks[0])
                } else {
                    (Kind::Audio, self.clocks[1])
                };
                let micros = self.now.as_nanos() as i64 / 1000 + self::step(later);
                self.bridge.report(self.now, kind, Ticks(clock), micros);
            }
            Step::Lost => self.bridge.lost(self.now),
            Step::Blocked(blocked) => self.bridge.blocked(self.now, blocked),
            Step::End => self.bridge.end(self.now),
            Step::Pass(tens) => self.pass_millis(u64::from(tens % 64).pow(3) * 10),
        }
        self.drain();
    }

    fn picture(&mut self, key: bool, bytes: usize) {
        let time = Ticks(self.clocks[0]);
        let unit = AccessUnit {
            pts: time,
            dts: time,
            key,
            data: picture(key, bytes),
        };
        self.bridge.video(self.now, unit);
        self.drain();
    }

    fn sound(&mut self, format: u8) {
        let aac = aac::Config::new(48_000, 1 + format % 2).expect("a usual one");
        let (track, data) = match format {
            0..200 => (AudioTrack::Opus { channels: 2 }, &[0xfc, 1, 2][..]),
            200..250 => (AudioTrack::Aac(aac), &[1, 2, 3][..]),
            _ => (AudioTrack::Opus { channels: 2 }, &[][..]),
        };
        let audio = Audio {
            pts: Ticks(self.clocks[1]),
            track,
            data: Bytes::from_static(data),
        };
        self.bridge.audio(self.now, audio);
        self.drain();
    }

    /// Lets the stream end, and compares what was read with what the bridge counted.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn finish(&mut self) {
        self.bridge.end(self.now);
        self.drain();
        assert!(self.ended && self.open.is_none());
        self.demux.finish();
        self.frames();
        let figures = self.bridge.figures();
        assert_eq!(
            self.read,
            [figures.pictures, figures.sounds + figures.silences]
        );
        assert_eq!(self.segments, figures.segments);
        for (name, count) in [
            ("forced", figures.forced),
            ("silences", figures.silences),
            ("dropped", figures.dropped),
            ("jumps", figures.jumps),
        ] {
            self.count(name, count);
        }
    }

    fn count(&mut self, name: &str, count: u64) {
        if count > 0 {
            *self.seen.entry(name.to_owned()).or_default() += count as u32;
        }
    }

    /// Looks at the frames that a model would have by now.
    fn frames(&mut self) {
        while let Some(event) = self.demux.next_event() {
            let (track, time) = match &event {
                demux::Event::Tracks(tracks) => {
                    let sound = self.opened.expect("it opens first");
                    assert_eq!(tracks.audio, sound.map(AudioTrack::codec));
                    continue;
                }
                demux::Event::Video(unit) => {
                    assert!(self.read[0] > 0 || (unit.key && unit.dts == ORIGIN));
                    (0, unit.dts)
                }
                demux::Event::Audio(audio) => {
                    assert_eq!(Some(audio.track), self.opened.flatten());
                    (1, audio.pts)
                }
                other => panic!("{other:?}"),
            };
            let last = self.last[track].replace(time);
            assert!(
                last.is_none_or(|last| time > last),
                "time only goes forward"
            );
            self.read[track] += 1;
        }
    }

    /// The channel of an open bridge is never silent for so long that its readers give up.
    fn is_alive(&self) {
        let limit = KEEP_ALIVE + PARK_AFTER;
        let silent = self.byte.map(|byte| self.now.since(byte));
        assert!(self.ended || silent.is_none_or(|silent| silent <= limit));
    }
}

impl Driven for Player {
    crate::driven!(bridge: Bridge, book);

    fn is_over(&self) -> bool {
        self.ended
    }

    fn effect(&mut self, _: EffectId, effect: Effect) {
        panic!("a bridge asks for nothing: {effect:?}");
    }

    fn event(&mut self, event: Event) {
        assert!(!self.ended, "after the end: {event:?}");
        let name = match event {
            Event::Opened(sound) => {
                assert_eq!(
                    self.opened.replace(sound),
                    None,
                    "the tracks are decided once"
                );
                "Opened"
            }
            Event::Begin => {
                assert!(self.opened.is_some());
                assert_eq!(self.open.replace((self.now, 0)), None, "one at a time");
                self.segments += 1;
                "Begin"
            }
            Event::Write(bytes) => {
                let (_, written) = self.open.as_mut().expect("bytes lie in segments");
                if *written == 0 {
                    assert!(bytes.len() >= mux::TABLES && bytes[..3] == [0x47, 0x40, 0]);
                }
                *written += bytes.len() as u64;
                assert_eq!(bytes.len() % 188, 0, "whole packets");
                self.byte = Some(self.now);
                self.demux.push(&bytes).expect("it is MPEG-TS");
                self.frames();
                "Write"
            }
            Event::End => {
                let (began, written) = self.open.take().expect("an end has a beginning");
                assert!(
                    written > 0,
                    "a segment without a byte costs its reader a connection"
                );
                assert!(self.now.since(began) <= MAX_SEGMENT + PARK_AFTER);
                "End"
            }
            Event::Key => {
                let asked = self.key.replace(self.now);
                assert!(asked.is_none_or(|asked| self.now >= asked + KEY_EVERY));
                "Key"
            }
            Event::Stalled => {
                assert!(!self.stalled && self.open.is_none());
                self.stalled = true;
                "Stalled"
            }
            Event::Flows => {
                assert!(self.stalled);
                self.stalled = false;
                "Flows"
            }
            Event::Done => {
                self.ended = true;
                "Done"
            }
            other => panic!("{other:?}"),
        };
        self.count(name, 1);
    }

    fn idle(&mut self, wake: Option<Time>) {
        self.is_alive();
        assert!(
            !self.ended || wake.is_none(),
            "a bridge that has ended sleeps"
        );
        if let Some((began, _)) = self.open {
            assert!(self.now.since(began) <= MAX_SEGMENT + PARK_AFTER);
            assert!(!self.stalled && self.config.stalled_after >= PARK_AFTER);
        }
    }
}

/// Plays what the bytes say, with one bridge after the other; hands back how often each thing happened.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) -> BTreeMap<String, u32> {
    let mut seen = BTreeMap::new();
    Reel::new(data).play_each(Player::new, |player, reel| {
        if let Some(reel) = reel {
            player.play(&Step::read(reel));
            return player.ended;
        }
        player.finish();
        count_all(&mut seen, &player.seen);
        true
    });
    seen
}
