//! Senders by WHIP and viewers by WHEP at one port, whose owner lets them in or not: they connect, send what they like,
//! leave, vanish, and ask for each other's sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Method, Response};
use livepeer_core::{Effect, EffectId, Time};
use livepeer_ingest::browser::{self, Packet, Peer, call};
use livepeer_ingest::port::{
    Clock, Config, Datagram, Denied, Door, Event, Frame, Output, Port, SessionId,
};
use livepeer_media::frame::{AccessUnit, Audio, AudioTrack, Ticks};
use livepeer_media::{h264, opus};

use super::Reel;
use super::reel::nth;
use crate::{Driven, Exchanges};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// Somebody makes an offer, to send or to watch, under the n-th name; the last bits say how good it is.
    Offer(bool, u8, u8),
    /// The owner answers the n-th sender, whether it asked or not.
    Answer(u8, u8),
    /// The n-th caller hangs up.
    HangUp(u8),
    /// Any other request, about the n-th session or one that nobody has.
    Ask(u8, u8),
    /// The n-th peer connects, or as far as it comes.
    Connect(u8),
    /// The n-th peer sends pictures and sound as they should be, for so many frames.
    Frames(u8, u8),
    /// The n-th peer sends a packet of its own: stamp, marker and content as the bytes say, or a key frame.
    Packet(u8, u8, Vec<u8>),
    /// The n-th peer asks for a key frame.
    Key(u8),
    /// The n-th peer says goodbye, or is gone without a word.
    Leave(u8, bool),
    /// Somebody sends a datagram from the n-th address.
    Junk(u8, Vec<u8>),
    /// The owner opens, breaks or closes the n-th output.
    Stream(u8, u8),
    /// The owner has a frame of the n-th output: a picture, a key frame or sound.
    Show(u8, u8),
    /// The owner ends the n-th session, or all.
    Kick(u8),
    /// Time passes: so many tens of milliseconds, squared.
    Pass(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        let bytes = |reel: &mut Reel<'_>| {
            let count = reel.below(24);
            (0..count).map(|_| reel.byte()).collect()
        };
        match reel.below(40) {
            0..=4 => Self::Offer(reel.below(2) == 0, reel.byte(), reel.byte()),
            5..=9 => Self::Answer(reel.byte(), reel.byte()),
            10 => Self::HangUp(reel.byte()),
            11..=13 => Self::Ask(reel.byte(), reel.byte()),
            14..=18 => Self::Connect(reel.byte()),
            19..=22 => Self::Frames(reel.byte(), reel.byte()),
            23..=26 => Self::Packet(reel.byte(), reel.byte(), bytes(reel)),
            27 => Self::Key(reel.byte()),
            28 => Self::Leave(reel.byte(), reel.below(2) == 0),
            29 => Self::Junk(reel.byte(), bytes(reel)),
            30 | 31 => Self::Stream(reel.byte(), reel.byte()),
            32..=34 => Self::Show(reel.byte(), reel.byte()),
            35 if reel.below(4) == 0 => Self::Kick(reel.byte()),
            36 => Self::Pass(reel.below(128)),
            _ => Self::Pass(reel.below(12)),
        }
    }
}

/// Names of streams, and of the outputs that can be watched.
const NAMES: [&str; 3] = ["cam", "x", "my-cam"];
/// Peers that are played with: a handshake costs more than anything else.
const MAX_PEERS: usize = 6;

/// A sender or viewer that is at the port.
struct Session {
    door: Door,
    stream: String,
    /// The request that waits for the owner.
    asks: Option<EffectId>,
    opened: Option<bool>,
    stalled: bool,
}

/// Plays steps against a port.
pub struct Player {
    now: Time,
    clock: Clock,
    book: Exchanges,
    port: Port,
    /// Peers, and whether what is sent between them and the port arrives.
    peers: Vec<(Peer, bool)>,
    /// Requests without an answer, and the peer that made each.
    asked: BTreeMap<EffectId, Option<usize>>,
    calls: u64,
    /// The offer that is being made.
    offers: Option<EffectId>,
    sessions: BTreeMap<SessionId, Session>,
    /// Names of sessions that once were.
    names: Vec<(Door, String, String)>,
    streams: BTreeSet<String>,
    frame: u64,
    seen: BTreeMap<String, u32>,
}

impl Player {
    /// A port without sessions; the byte picks its settings.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_800_000_000);
        let clock = browser::clock(now);
        let config = Config {
            max_sessions: 2 + usize::from(flavour % 4),
            max_viewers: 1 + usize::from(flavour / 4 % 2),
            ..Config::default()
        };
        Self {
            now,
            clock,
            book: Exchanges::default(),
            port: browser::port(now, clock, config, [flavour; 32]),
            peers: Vec::new(),
            asked: BTreeMap::new(),
            calls: 0,
            offers: None,
            sessions: BTreeMap::new(),
            names: Vec::new(),
            streams: BTreeSet::new(),
            frame: 0,
            seen: BTreeMap::new(),
        }
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match step {
            Step::Offer(sends, name, bits) => self.offer(*sends, *name, *bits),
            Step::Answer(pick, how) => self.answer(*pick, *how),
            Step::HangUp(pick) => {
                if let Some(exchange) = nth(*pick, self.asked.keys().copied()) {
                    self.asked.remove(&exchange);
                    self.port.gone(self.now, exchange);
                    self.sessions
                        .retain(|_, session| session.asks != Some(exchange));
                }
            }
            Step::Ask(pick, what) => self.ask(*pick, *what),
            Step::Connect(pick) => {
                let connects = |(peer, there): &(Peer, bool)| *there && peer.connected.is_none();
                let waiting = self.peers.iter().enumerate();
                let waiting = waiting.filter(|(_, peer)| connects(peer)).map(|(n, _)| n);
                if nth(*pick, waiting).is_some() {
                    self.pass(Duration::from_millis(300));
                }
            }
            Step::Frames(pick, count) => self.frames(*pick, *count),
            Step::Packet(pick, bits, payload) => self.packet(*pick, *bits, payload),
            Step::Key(pick) => {
                let now = self.now;
                if let Some((peer, _)) = self.peer(*pick) {
                    peer.ask_for_key(now);
                }
            }
            Step::Leave(pick, goodbye) => {
                let now = self.now;
                if let Some((peer, there)) = self.peer(*pick) {
                    if *goodbye {
                        peer.close(now);
                    } else {
                        *there = false;
                    }
                }
            }
            Step::Junk(pick, data) => {
                let peer = nth(*pick, self.peers.iter().map(|(peer, _)| peer.at));
                let datagram = Datagram {
                    peer: peer.unwrap_or(SocketAddr::from(([203, 0, 113, 9], 9))),
                    data: data.clone(),
                };
                self.port.receive(self.now, &datagram);
            }
            Step::Stream(pick, what) => self.stream(*pick, *what),
            Step::Show(pick, what) => self.show(*pick, *what),
            Step::Kick(pick) => match nth(*pick, self.sessions.keys().copied()) {
                Some(session) if !pick.is_multiple_of(8) => {
                    self.port.kick(self.now, session, "kicked")
                }
                _ => self.port.kick_all(self.now, "kicked"),
            },
            Step::Pass(tens) => {
                self.pass(Duration::from_millis(u64::from(*tens).pow(2) * 10));
            }
        }
        self.drain();
    }

    fn peer(&mut self, pick: u8) -> Option<&mut (Peer, bool)> {
        let at = usize::from(pick).checked_rem(self.peers.len())?;
        self.peers.get_mut(at)
    }

    fn offer(&mut self, sends: bool, name: u8, bits: u8) {
        let name = NAMES[usize::from(name) % NAMES.len()];
        let (door, stream) = match sends {
            true => (Door::Whip, name.to_owned()),
            false => (Door::Whep, format!("{name}-out")),
        };
        self.calls += 1;
        let mut call = call(self.calls, Method::Post, door, &stream, None);
        let mut from = None;
        call.body = match bits % 8 {
            0 => Bytes::from_static(b"v=0\r\nnonsense"),
            _ if self.peers.len() == MAX_PEERS => return,
            how => {
                let at = SocketAddr::from(([192, 0, 2, 2], 5_000 + self.calls as u16));
                let peer = Peer::new(self.clock, self.now, at, door, how >= 5);
                let offer = match how {
                    1 => peer.offer.replace("H264/", "VP8/"),
                    2 => peer.offer.replace("setup:actpass", "setup:passive"),
                    _ => peer.offer.clone(),
                };
                from = Some(self.peers.len());
                self.peers.push((peer, true));
                offer.into()
            }
        };
        self.asked.insert(call.exchange, from);
        self.offers = Some(call.exchange);
        self.port.call(self.now, &call);
        self.drain();
    }

    fn answer(&mut self, pick: u8, how: u8) {
        let waiting = |(_, session): &(&SessionId, &Session)| session.asks.is_some();
        let waiting = self.sessions.iter().filter(waiting).map(|(id, _)| *id);
        let waiting = nth(pick, waiting).or_else(|| nth(pick, self.sessions.keys().copied()));
        let Some(id) = waiting else { return };
        if !how.is_multiple_of(4) {
            let asks = self.session(id).asks.take();
            let let_in = self
                .port
                .admit(self.now, id, Some("http://gateway/out/whep"));
            assert_eq!(let_in, asks.is_some(), "let in once");
        } else {
            self.port.deny(self.now, id, &Denied::Forbidden);
        }
    }

    fn ask(&mut self, pick: u8, what: u8) {
        let unknown = (Door::Whip, "cam".to_owned(), "0".repeat(32));
        let (door, stream, session) = nth(pick, self.names.clone()).unwrap_or(unknown);
        let method = [Method::Delete, Method::Patch, Method::Get, Method::Options];
        let method = method[usize::from(what) % 4];
        let session = (what & 0x80 == 0).then_some(session.as_str());
        self.calls += 1;
        let call = call(self.calls, method, door, &stream, session);
        self.asked.insert(call.exchange, None);
        self.port.call(self.now, &call);
    }

    /// Lets a peer send a key frame and others after it.
    fn frames(&mut self, pick: u8, count: u8) {
        for n in 0..=count % 32 {
            self.frame += 1;
            let (frame, now) = (self.frame, self.now);
            let Some((peer, _)) = self.peer(pick) else {
                return;
            };
            if peer.connected.is_none() {
                return;
            }
            let data = picture(n == 0);
            peer.frame(now, true, 3_000 * frame, data.to_vec().into());
            if count & 0x80 == 0 {
                let sound = [0xfc, 0xff, 0xfe];
                peer.frame(now, false, 1_600 * frame, sound.to_vec().into());
            }
            self.pass(Duration::from_millis(33));
        }
    }

    fn packet(&mut self, pick: u8, bits: u8, payload: &[u8]) {
        self.frame += 1;
        let (frame, now) = (self.frame, self.now);
        let Some((peer, _)) = self.peer(pick) else {
            return;
        };
        let packet = Packet {
            video: bits & 1 == 0,
            number: frame,
            stamp: u32::from(bits >> 3) * 3_000,
            marker: bits & 2 == 0,
            payload: if bits & 4 == 0 { KEY_FRAME } else { payload },
        };
        if peer.connected.is_some() {
            peer.packet(now, packet);
        }
    }

    fn stream(&mut self, pick: u8, what: u8) {
        let name = format!("{}-out", NAMES[usize::from(pick) % NAMES.len()]);
        match what % 4 {
            0 | 1 => {
                self.port.open_stream(&name);
                self.streams.insert(name);
            }
            2 => self.port.restart_stream(&name),
            _ => {
                self.port.close_stream(self.now, &name);
                self.streams.remove(&name);
            }
        }
    }

    fn show(&mut self, pick: u8, what: u8) {
        let name = format!("{}-out", NAMES[usize::from(pick) % NAMES.len()]);
        self.frame += 1;
        let pts = Ticks(3_000 * self.frame as i64);
        let now = self.now;
        if what.is_multiple_of(3) {
            let audio = Audio {
                pts,
                track: AudioTrack::Opus { channels: 2 },
                data: Bytes::from_static(&[0xfc, 0xff, 0xfe]),
            };
            self.port.send_audio(now, &name, &audio);
        } else {
            let key = what & 0x10 == 0;
            let unit = AccessUnit {
                pts,
                dts: pts,
                key,
                data: picture(key),
            };
            self.port.send_video(now, &name, &unit);
        }
    }

    /// Lets time pass, and carries what is sent.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..100_000 {
            let port = self.drain();
            let there = self.peers.iter().filter(|(_, there)| *there);
            let peers = there.filter_map(|(peer, _)| peer.wake());
            let next = peers.chain(port).min().unwrap_or(end);
            if self.now >= end {
                return;
            }
            self.now = next.min(end).max(self.now + Duration::from_micros(100));
            for (peer, there) in &mut self.peers {
                if *there && peer.wake().is_some_and(|wake| wake <= self.now) {
                    peer.tick(self.now);
                }
            }
            self.port.tick(self.now);
        }
        panic!("they wake each other without end");
    }

    /// Hears all that is said, and carries it.
    fn drain(&mut self) -> Option<Time> {
        loop {
            let wake = Driven::drain(self);
            let mut quiet = true;
            for at in 0..self.peers.len() {
                while let Some(datagram) = self.peers[at].0.sent() {
                    if self.peers[at].1 {
                        quiet = false;
                        self.port.receive(self.now, &datagram);
                    }
                }
            }
            if quiet {
                return wake;
            }
        }
    }

    fn reply(&mut self, exchange: EffectId, reply: &Response) {
        let from = self.asked.remove(&exchange);
        self.note(&reply.status.to_string());
        if reply.status != 201 {
            self.sessions
                .retain(|_, session| session.asks != Some(exchange));
            assert!(
                reply.status != 500,
                "the engine refused what we took: {reply:?}"
            );
            return;
        }
        let location = reply.headers.get("location").unwrap_or_default();
        let mut parts = location.rsplit('/');
        let (Some(session), Some(door), Some(stream)) = (parts.next(), parts.next(), parts.next())
        else {
            panic!("{location}");
        };
        let door = if door == "whip" {
            Door::Whip
        } else {
            Door::Whep
        };
        let name = (door, stream.to_owned(), session.to_owned());
        self.names.push(name);
        if let Some(Some(peer)) = from
            && let Some((peer, _)) = self.peers.get_mut(peer)
        {
            peer.answer(self.now, reply);
        }
    }

    fn note(&mut self, what: &str) {
        *self.seen.entry(what.to_owned()).or_default() += 1;
    }

    fn session(&mut self, id: SessionId) -> &mut Session {
        self.sessions.get_mut(&id).expect("a session that lives")
    }

    fn happened(&mut self, event: Event) {
        let name = match event {
            Event::Asked {
                session, stream, ..
            } => {
                let new = Session {
                    door: Door::Whip,
                    stream,
                    asks: self.offers.take(),
                    opened: None,
                    stalled: false,
                };
                assert!(self.sessions.insert(session, new).is_none());
                "Asked"
            }
            Event::Connected(id) => {
                assert_eq!(self.session(id).asks, None);
                "Connected"
            }
            Event::Opened(id, sound) => {
                assert!(self.session(id).opened.replace(sound).is_none(), "once");
                "Opened"
            }
            Event::Frame(id, frame) => {
                let sound = self.session(id).opened.expect("the tracks are told first");
                match frame {
                    Frame::Video(unit) => {
                        let mut again = h264::Stream::default();
                        let picture = again.annex_b(&unit.data);
                        assert!(!unit.key || picture.is_ok(), "{picture:?}");
                        "Video"
                    }
                    Frame::Audio(audio) => {
                        assert!(sound || opus::samples(&audio.data).is_some());
                        "Audio"
                    }
                    Frame::Report(..) => "Report",
                    Frame::Lost => "Lost",
                }
            }
            Event::Stalled(id) => {
                assert!(!std::mem::replace(&mut self.session(id).stalled, true));
                "Stalled"
            }
            Event::Resumed(id) => {
                assert!(std::mem::replace(&mut self.session(id).stalled, false));
                "Resumed"
            }
            Event::Ended(id, end) => {
                let session = self.sessions.remove(&id).expect("ended once");
                assert!(session.door == Door::Whip && session.asks.is_none());
                self.note(variant(&format!("{end:?}")));
                "Ended"
            }
            Event::Watching(id, stream) => {
                assert!(self.streams.contains(&stream), "{stream}");
                let new = Session {
                    door: Door::Whep,
                    stream,
                    asks: None,
                    opened: None,
                    stalled: false,
                };
                assert!(self.sessions.insert(id, new).is_none());
                "Watching"
            }
            Event::Left(id, end) => {
                let session = self.sessions.remove(&id).expect("left once");
                assert_eq!(session.door, Door::Whep, "{}", session.stream);
                self.note(variant(&format!("{end:?}")));
                "Left"
            }
            other => panic!("{other:?}"),
        };
        self.note(name);
    }
}

/// Parameter sets of 320x180 as x264 writes them, and an IDR picture, in one packet (STAP-A).
const KEY_FRAME: &[u8] = &[
    0x78, 0, 22, 0x67, 0x42, 0xc0, 0x0d, 0xda, 0x05, 0x06, 0x7e, 0x78, 0x40, 0x00, 0x00, 0x03,
    0x00, 0x40, 0x00, 0x00, 0x0f, 0x23, 0xc5, 0x0a, 0xa8, 0, 4, 0x68, 0xce, 0x3c, 0x80, 0, 4, 0x65,
    0x88, 0x84, 0x01,
];

/// The name of a variant.
fn variant(debug: &str) -> &str {
    debug.split(['(', ' ']).next().unwrap_or_default()
}

/// A slice and, before a key frame, parameter sets of 320x180 as x264 writes them.
fn picture(key: bool) -> Bytes {
    const KEY: &[u8] = &[
        0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x0d, 0xda, 0x05, 0x06, 0x7e, 0x78, 0x40, 0x00, 0x00, 0x03,
        0x00, 0x40, 0x00, 0x00, 0x0f, 0x23, 0xc5, 0x0a, 0xa8, 0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80,
        0, 0, 0, 1, 0x65, 0x88, 0x84, 0x01,
    ];
    const OTHER: &[u8] = &[0, 0, 0, 1, 0x41, 0x9a, 0x02];
    Bytes::from_static(if key { KEY } else { OTHER })
}

impl Driven for Player {
    crate::driven!(port: Port, book);

    fn effect(&mut self, _: EffectId, effect: Effect) {
        panic!("a port has no such effects: {effect:?}");
    }

    fn event(&mut self, output: Output) {
        match output {
            Output::Reply(exchange, reply) => self.reply(exchange, &reply),
            Output::Send(datagram) => {
                let to = self
                    .peers
                    .iter_mut()
                    .find(|(peer, _)| peer.at == datagram.peer);
                if let Some((peer, true)) = to {
                    peer.receive(self.now, &datagram.data);
                }
            }
            Output::Event(event) => self.happened(event),
            Output::Idle(_) => unreachable!("told as such"),
        }
    }

    fn idle(&mut self, wake: Option<Time>) {
        assert!(self.port.is_empty() || wake.is_some(), "a session for ever");
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
    player.peers.clear();
    Driven::pass(&mut player, Duration::from_secs(60));
    assert!(player.port.is_empty());
    assert_eq!(Driven::drain(&mut player), None, "something lasts for ever");
    let waiting: Vec<_> = player.asked.keys().collect();
    assert!(waiting.is_empty(), "{waiting:?} were never answered");
    assert!(player.sessions.is_empty(), "a session without an end");
    player.seen
}
