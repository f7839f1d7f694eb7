//! Publishers of RTMP at one listener, whose owner admits them or not: they follow the protocol, leave, come back, take
//! each other's streams, and send junk, all of it in pieces of any size.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use livepeer_core::{Effect, EffectId, Time};
use livepeer_ingest::rtmp::{
    Config, ConnectionId, Event, Input, MAX_CONNECTIONS, MAX_PER_ADDRESS, Output, Server, StreamId,
};

use super::Reel;
use super::reel::nth;
use crate::{Driven, Exchanges};

/// A thing that a publisher says.
#[derive(Clone, Copy, Debug)]
pub enum Word {
    /// C0, C1 and C2.
    Hello,
    /// `connect`, `createStream` and `publish` of the n-th name.
    Publish(u8),
    /// The configuration of video, or one of a codec that is not taken.
    VideoConfig(bool),
    /// The configuration of AAC or Opus.
    AudioConfig(bool),
    /// A picture at that tenth of a second: a key frame or another.
    Picture(u8, bool),
    /// A frame of sound at that tenth of a second.
    Sound(u8),
    /// `FCUnpublish`, or `deleteStream`.
    Leave(bool),
}

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// A peer connects from the n-th address.
    Open(u8),
    /// A peer connects from the n-th address and says all up to its first key frame, under the m-th name.
    Begin(u8, u8),
    /// The n-th peer says something.
    Say(u8, Word),
    /// The n-th peer sends junk.
    Junk(u8, Vec<u8>),
    /// The n-th peer goes.
    Close(u8),
    /// The owner answers the n-th connection, whether it asked or not.
    Answer(u8, bool),
    /// The owner ends the n-th stream.
    Stop(u8),
    /// Time passes: so many milliseconds, squared.
    Pass(u8),
}

impl Word {
    fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(12) {
            0 | 1 => Self::Hello,
            2 | 3 => Self::Publish(reel.byte()),
            4 => Self::VideoConfig(reel.below(8) != 0),
            5 => Self::AudioConfig(reel.below(4) != 0),
            6..=8 => Self::Picture(reel.byte(), reel.below(2) == 0),
            9 | 10 => Self::Sound(reel.byte()),
            _ => Self::Leave(reel.below(2) == 0),
        }
    }

    /// The bytes of it.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Self::Hello => [&[3][..], &[0; 2 * 1536]].concat(),
            Self::Publish(name) => {
                let name = [b'a' + name % 3];
                [
                    command("connect", b"\x03\x00\x03app\x02\x00\x04live\x00\x00\x09"),
                    command("createStream", b"\x05"),
                    command("publish", &[&b"\x05\x02\x00\x01"[..], &name].concat()),
                ]
                .concat()
            }
            Self::VideoConfig(true) => message(9, 0, &VIDEO_CONFIG),
            Self::VideoConfig(false) => message(9, 0, b"\x90hvc1"),
            Self::AudioConfig(true) => message(8, 0, b"\xaf\x00\x11\x90"),
            Self::AudioConfig(false) => message(
                8,
                0,
                b"\x90OpusOpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00",
            ),
            Self::Picture(at, true) => message(
                9,
                100 * u32::from(at),
                b"\x17\x01\x00\x00\x00\x00\x00\x00\x02\x65\x88",
            ),
            Self::Picture(at, false) => message(
                9,
                100 * u32::from(at),
                b"\x27\x01\x00\x00\x00\x00\x00\x00\x02\x41\x9a",
            ),
            Self::Sound(at) => message(8, 100 * u32::from(at), b"\xaf\x01\x21\x10\x04\x60\x8c\x1c"),
            Self::Leave(true) => command("FCUnpublish", b"\x05"),
            Self::Leave(false) => command("deleteStream", b"\x05"),
        }
    }
}

/// The configuration of 320x180, Constrained Baseline, as ffmpeg sends it.
const VIDEO_CONFIG: [u8; 45] = [
    0x17, 0, 0, 0, 0, 1, 0x42, 0xc0, 0x0d, 0xff, 0xe1, 0, 24, 0x67, 0x42, 0xc0, 0x0d, 0xd9, 0x01,
    0x41, 0x9f, 0x9e, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x42,
    0xa4, 0x80, 1, 0, 5, 0x68, 0xcb, 0x83, 0xcb, 0x20,
];

/// A message of at most 128 bytes, which is one chunk: of video (9) or sound (8) with a stamp below 2^24, or a command (20).
#[must_use]
pub fn message(kind: u8, stamp: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![3];
    bytes.extend_from_slice(&stamp.to_be_bytes()[1..]);
    bytes.extend_from_slice(&[0, 0, payload.len() as u8, kind, 1, 0, 0, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

fn command(name: &str, arguments: &[u8]) -> Vec<u8> {
    let head = [2, 0, name.len() as u8];
    let number = [0, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0];
    let payload = [&head, name.as_bytes(), &number, arguments].concat();
    message(20, 0, &payload)
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(32) {
            0 | 1 => Self::Open(reel.byte()),
            2..=4 => Self::Begin(reel.byte(), reel.byte()),
            5..=20 => Self::Say(reel.byte(), Word::read(reel)),
            21 => {
                let count = reel.below(24);
                Self::Junk(reel.byte(), (0..count).map(|_| reel.byte()).collect())
            }
            22 => Self::Close(reel.byte()),
            23..=27 => Self::Answer(reel.byte(), reel.below(3) != 0),
            28 if reel.below(4) == 0 => Self::Stop(reel.byte()),
            29 if reel.below(8) == 0 => Self::Pass(reel.byte()),
            _ => Self::Pass(reel.below(30)),
        }
    }
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The stream has begun, or another publisher goes on: a key frame has to come.
    Begun,
    Live,
    Stalled,
    Over,
}

/// Plays steps against a listener.
pub struct Player {
    now: Time,
    book: Exchanges,
    server: Server,
    /// Bytes of a piece in which peers send.
    piece: usize,
    connections: BTreeSet<ConnectionId>,
    opened: u64,
    asked: BTreeSet<ConnectionId>,
    streams: BTreeMap<StreamId, Stage>,
    seen: BTreeMap<String, u32>,
}

impl Player {
    /// A listener; the bits say whether streams may be taken over, and in which pieces peers send.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_000);
        let config = Config {
            takeover: flavour & 1 == 0,
            ..Config::default()
        };
        Self {
            now,
            book: Exchanges::default(),
            server: Server::new(now, config),
            piece: [usize::MAX, 11, 128, 1_000][usize::from(flavour >> 1 & 3)],
            connections: BTreeSet::new(),
            opened: 0,
            asked: BTreeSet::new(),
            streams: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match step {
            Step::Open(address) => drop(self.open(*address)),
            Step::Begin(address, name) => {
                let id = self.open(*address);
                for word in [Word::Hello, Word::Publish(*name)] {
                    self.data(id, &word.bytes());
                }
                self.server.admit(self.now, id);
                self.drain();
                self.asked.remove(&id);
                for word in [
                    Word::VideoConfig(true),
                    Word::AudioConfig(true),
                    Word::Picture(0, true),
                ] {
                    self.data(id, &word.bytes());
                }
            }
            Step::Say(n, word) => self.say(*n, &word.bytes()),
            Step::Junk(n, bytes) => self.say(*n, bytes),
            Step::Close(n) => {
                if let Some(id) = nth(*n, self.connections.clone()) {
                    self.connections.remove(&id);
                    self.asked.remove(&id);
                    self.server.handle_input(self.now, Input::Closed(id));
                }
            }
            Step::Answer(n, admits) => {
                let stray = ConnectionId(u64::from(*n));
                let id = nth(*n, self.asked.clone()).unwrap_or(stray);
                self.asked.remove(&id);
                if *admits {
                    self.server.admit(self.now, id);
                } else {
                    self.server.refuse(self.now, id, "wrong stream key");
                }
            }
            Step::Stop(n) => {
                if let Some(stream) = nth(*n, self.streams.keys().copied()) {
                    self.server.stop(self.now, stream, "stopped");
                }
            }
            Step::Pass(n) => self.pass_millis(u64::from(*n).pow(2)),
        }
        self.drain();
    }

    fn open(&mut self, address: u8) -> ConnectionId {
        self.opened += 1;
        let id = ConnectionId(self.opened);
        self.connections.insert(id);
        let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, address % 2));
        let opened = Input::Opened(id, address);
        self.server.handle_input(self.now, opened);
        self.drain();
        id
    }

    fn say(&mut self, n: u8, bytes: &[u8]) {
        if let Some(id) = nth(n, self.connections.clone()) {
            self.data(id, bytes);
        }
    }

    fn data(&mut self, id: ConnectionId, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece) {
            let data = Input::Data(id, Bytes::copy_from_slice(piece));
            self.server.handle_input(self.now, data);
            self.drain();
        }
    }

    fn count(&mut self, what: &str) {
        *self.seen.entry(what.to_owned()).or_default() += 1;
    }

    /// The stream goes to another stage, from one that it may have been at.
    fn turn(&mut self, stream: StreamId, to: Stage, from: &[Option<Stage>]) {
        let before = self.streams.insert(stream, to);
        assert!(from.contains(&before), "{stream:?}: {before:?} to {to:?}");
    }

    fn happened(&mut self, event: Event) {
        use Stage::{Begun, Live, Over, Stalled};
        const GOES_ON: [Option<Stage>; 3] = [Some(Begun), Some(Live), Some(Stalled)];
        let name = match event {
            Event::Asks { connection, .. } => {
                assert!(self.asked.insert(connection), "asked twice");
                "Asks"
            }
            Event::Opened { stream, .. } => {
                self.turn(stream, Begun, &[None]);
                "Opened"
            }
            Event::Resumed(stream, connection) => {
                assert!(self.connections.contains(&connection));
                self.turn(stream, Begun, &GOES_ON);
                "Resumed"
            }
            Event::Video(stream, unit) => {
                let is_first = self.streams.get(&stream) == Some(&Begun);
                assert!(unit.key || !is_first, "a stream begins with a key frame");
                self.turn(stream, Live, &[Some(Begun), Some(Live)]);
                "Video"
            }
            Event::Audio(stream, _) => {
                let stage = self.streams.get(&stream);
                assert!(matches!(stage, Some(Begun | Live)), "{stage:?}");
                "Audio"
            }
            Event::Damaged(..) => "Damaged",
            Event::Stalled(stream) => {
                self.turn(stream, Stalled, &GOES_ON);
                "Stalled"
            }
            Event::Ended(stream, ending) => {
                self.turn(stream, Over, &GOES_ON);
                self.count(&format!("{ending:?}"));
                "Ended"
            }
            Event::Closed(id, why) => {
                self.asked.remove(&id);
                let why = format!("{why:?}");
                self.count(why.split(['(', ' ']).next().unwrap_or_default());
                "Closed"
            }
            other => panic!("{other:?}"),
        };
        self.count(name);
    }
}

impl Driven for Player {
    crate::driven!(server: Server, book);

    fn effect(&mut self, _: EffectId, effect: Effect) {
        panic!("a listener has no such effects: {effect:?}");
    }

    fn event(&mut self, output: Output) {
        match output {
            Output::Write(id, bytes) => {
                assert!(self.connections.contains(&id), "a word to nobody");
                assert!(!bytes.is_empty(), "nothing is said");
            }
            Output::Close(id) => assert!(self.connections.remove(&id), "closed twice"),
            Output::Event(event) => self.happened(event),
            Output::Idle(_) => unreachable!("told as such"),
        }
    }

    fn idle(&mut self, _: Option<Time>) {
        let connections = self.server.connections();
        assert!(connections <= MAX_CONNECTIONS.min(2 * MAX_PER_ADDRESS));
        assert!(self.server.streams() <= 3, "as many as there are names");
    }
}

/// Plays what the bytes say, and lets everybody fall silent: nothing is left. Hands back how often each thing happened.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) -> BTreeMap<String, u32> {
    let mut reel = Reel::new(data);
    let mut player = Player::new(reel.byte());
    reel.play(Step::read, |step| player.play(step));
    player.pass_millis(60_000);
    assert_eq!(player.drain(), None, "something lasts for ever");
    assert_eq!(
        (player.server.connections(), player.server.streams()),
        (0, 0)
    );
    assert!(player.connections.is_empty(), "a connection was forgotten");
    let over = |stage| stage == &Stage::Over;
    assert!(player.streams.values().all(over), "a stream without an end");
    player.seen
}
