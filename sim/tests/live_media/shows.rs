//! Senders by RTMP and WHIP, in pieces of any size, their jobs, and those who watch: they come, take each other's names,
//! say goodbye or vanish, and orchestrators die under them. Every picture of a sender goes through the job and comes
//! back, what a job ends with is told once, and in the end nothing is left of anybody.
//!
//! `INGEST_SEEDS=10000` plays more of them, `INGEST_SEED=n` one. The wires are those of `serve`: live entry decides.

mod wires;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::entry::{self, Entry, SenderId, StreamId};
use livepeer_core::http::Method;
use livepeer_core::job::SwapLimit;
use livepeer_core::job::live;
use livepeer_core::wire::StartRequest;
use livepeer_core::{EffectId, Rng, Time};
use livepeer_ingest::bridge::{self, Bridge};
use livepeer_ingest::browser::{self, Peer, call};
use livepeer_ingest::port::{self, Clock, Door, Port, SessionId};
use livepeer_ingest::rtmp::{self, ConnectionId, Server};
use livepeer_media::demux::Demux;
use livepeer_orchestrator::Join;
use livepeer_sim::steps::rtmp::{Word, message};
use livepeer_sim::world::{Gateway, World};
use livepeer_sim::{Node, seeds};

use super::{ms, orchestrator};

const KIND: &str = "INGEST";

/// Seeds that once found something come first.
const FOUND: [u64; 0] = [];

const NAMES: [&str; 3] = ["a", "b", "c"];
/// The distance of pictures, and how many there are from one key frame to the next.
const FRAME: Duration = Duration::from_millis(40);
const GROUP: u32 = 20;

/// Where a sender is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Rtmp(ConnectionId),
    Whip(SessionId),
}

/// How a sender leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    /// With `deleteStream` or DELETE.
    Word,
    /// With FIN, or close_notify.
    Close,
    /// With nothing at all.
    Vanishes,
}

/// A sender of pictures and sound.
struct Sender {
    name: &'static str,
    /// Bytes of a piece in which it sends.
    piece: usize,
    /// Its connection, or the number of its peer.
    by: By,
    /// When the next picture is due, and when it leaves.
    next: Time,
    until: Time,
    leaves: Leaves,
    frames: u32,
    /// The pictures of it that arrived.
    arrived: u32,
    /// Whether nothing but itself ended it, and all that it sent has to be there.
    whole: bool,
    gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Rtmp(ConnectionId),
    Whip(usize),
}

/// A stream and its job.
struct Show {
    bridge: Node<Bridge>,
    output: String,
    /// The job, once it was told to begin: its gateway.
    job: Option<usize>,
    started: bool,
    /// Events of the bridge that the job has not taken.
    queue: VecDeque<bridge::Event>,
    blocked: bool,
    /// The sender that is heard: the last that began.
    heard: Option<Place>,
    /// The bytes that went into the job.
    written: Vec<u8>,
    /// How much of the output went to those who watch: segments, and bytes of the last one.
    shown: (usize, usize),
    /// How many orchestrators made it.
    makers: usize,
    demux: Demux,
    /// Whether the job was stopped before its input was over.
    cut: bool,
}

struct Run {
    rng: Rng,
    world: World,
    gateways: Vec<Gateway>,
    live: Live,
}

/// The machines of live entry, and the wires between them.
struct Live {
    clock: Clock,
    entry: Node<Entry>,
    server: Node<Server>,
    port: Node<Port>,
    places: BTreeMap<SenderId, Place>,
    admitted: BTreeMap<SenderId, StreamId>,
    published: BTreeMap<rtmp::StreamId, (SenderId, StreamId)>,
    shows: BTreeMap<StreamId, Show>,
    senders: Vec<Sender>,
    peers: Vec<Option<Peer>>,
    /// Requests, and the peers that made them.
    calls: BTreeMap<EffectId, usize>,
    asked: u64,
    sessions: BTreeMap<SessionId, usize>,
    last_call: Option<usize>,
    opened: u64,
    /// Jobs that wait for a gateway.
    wanted: Vec<StreamId>,
    told: Told,
}

/// Counts of what happened.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    pictures: u64,
    /// Before a key frame, or while a job had not begun for more than a second.
    dropped: u64,
    watched: u64,
    taken_over: u64,
    whole_jobs: u64,
    failed_jobs: u64,
    by_whip: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seeds::seed(seed));
        let count = 1 + rng.below(2) as usize;
        let configs = (0..count)
            .map(|n| orchestrator(n, Join::default()))
            .collect();
        let mut world = World::new(rng.fork(), configs);
        let now = world.net.now();
        let clock = browser::clock(now);
        let config = entry::Config {
            base: "https://gw.example".into(),
            takeover: rng.below(4) != 0,
            ..entry::Config::default()
        };
        let entry = Entry::new(now, Arc::new(config), rng.fork());
        let live = Live {
            clock,
            entry: world.net.add(entry),
            server: world.net.add(Server::new(now, rtmp::Config::default())),
            port: world.net.add(browser::port(
                now,
                clock,
                port::Config::default(),
                rng.fork(),
            )),
            places: BTreeMap::new(),
            admitted: BTreeMap::new(),
            published: BTreeMap::new(),
            shows: BTreeMap::new(),
            senders: Vec::new(),
            peers: Vec::new(),
            calls: BTreeMap::new(),
            asked: 0,
            sessions: BTreeMap::new(),
            last_call: None,
            opened: 0,
            wanted: Vec::new(),
            told: Told::default(),
        };
        Self {
            rng,
            world,
            gateways: Vec::new(),
            live,
        }
    }

    /// Lets time pass.
    fn pass(&mut self, span: Duration) {
        let end = self.world.net.now() + span;
        loop {
            while self.live.carry(&mut self.world, &mut self.gateways) {
                self.begin_jobs();
            }
            let now = self.world.net.now();
            if now >= end {
                return;
            }
            let peers = self.live.peers.iter().flatten().filter_map(Peer::wake);
            let senders = self.live.senders.iter().filter(|sender| !sender.gone);
            let due = senders.map(|sender| sender.next.min(sender.until));
            let next = peers.chain(due).chain([end]).min().unwrap_or(end);
            let next = next.max(now + Duration::from_micros(100));
            let live = &mut self.live;
            let carry = |world: &mut World, gateways: &mut [Gateway]| live.carry(world, gateways);
            self.world
                .run_till(next.since(now), &mut self.gateways, carry);
            let now = self.world.net.now();
            for peer in self.live.peers.iter_mut().flatten() {
                if peer.wake().is_some_and(|wake| wake <= now) {
                    peer.tick(now);
                }
            }
            for at in 0..self.live.senders.len() {
                self.act(at);
            }
        }
    }

    fn begin_jobs(&mut self) {
        for id in std::mem::take(&mut self.live.wanted) {
            let Some(show) = self.live.shows.get_mut(&id) else {
                continue;
            };
            show.job = Some(self.gateways.len());
            let config = live::Config {
                swap_limit: SwapLimit::new(1, Duration::from_secs(600)),
                leave_dead: true,
                ..live::Config::default()
            };
            let request = StartRequest {
                model_id: "noop".to_owned(),
                ..StartRequest::default()
            };
            self.gateways.push(self.world.gateway(config, request));
        }
    }

    /// Somebody begins to send.
    fn send(&mut self, whip: bool) {
        let now = self.world.net.now();
        let name = NAMES[self.rng.below(3) as usize];
        let by = if whip {
            By::Whip(self.meet(Door::Whip, name))
        } else {
            self.live.opened += 1;
            let id = ConnectionId(self.live.opened);
            let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, self.rng.below(4) as u8));
            let opened = rtmp::Input::Opened(id, address);
            let server = self.live.server;
            self.world
                .net
                .with(server, |server, now| server.handle_input(now, opened));
            By::Rtmp(id)
        };
        let leaves = [Leaves::Word, Leaves::Close, Leaves::Vanishes];
        let sender = Sender {
            name,
            piece: [usize::MAX, 1_000, 64, 13][self.rng.below(4) as usize],
            by,
            next: now,
            until: now + ms(100 + self.rng.below(6_000)),
            leaves: leaves[self.rng.below(3) as usize],
            frames: 0,
            arrived: 0,
            whole: true,
            gone: false,
        };
        self.live.told.by_whip += u64::from(whip);
        self.live.senders.push(sender);
        if let By::Rtmp(id) = by {
            let at = NAMES.iter().position(|one| *one == name).unwrap_or(0) as u8;
            for word in [
                Word::Hello,
                Word::Publish(at),
                Word::VideoConfig(true),
                Word::AudioConfig(true),
            ] {
                self.bytes(
                    id,
                    self.live.senders[self.live.senders.len() - 1].piece,
                    &word.bytes(),
                );
            }
        }
    }

    /// Somebody comes with an offer. The number of the peer.
    fn meet(&mut self, door: Door, stream: &str) -> usize {
        let now = self.world.net.now();
        let live = &mut self.live;
        let number = live.peers.len();
        let at = SocketAddr::from(([192, 0, 2, 9], 5_000 + number as u16));
        let peer = Peer::new(live.clock, now, at, door, false);
        live.asked += 1;
        let mut call = call(live.asked, Method::Post, door, stream, None);
        call.body = peer.offer.clone().into();
        live.peers.push(Some(peer));
        live.calls.insert(call.exchange, number);
        live.last_call = Some(number);
        self.world
            .net
            .with(live.port, |port, now| port.call(now, &call));
        while self.live.carry(&mut self.world, &mut self.gateways) {
            self.begin_jobs();
        }
        number
    }

    /// Somebody watches a stream that there is.
    fn watch(&mut self) {
        let outputs: Vec<_> = self
            .live
            .shows
            .values()
            .map(|show| show.output.clone())
            .collect();
        if !outputs.is_empty() {
            let at = self.rng.below(outputs.len() as u64) as usize;
            self.meet(Door::Whep, &outputs[at]);
        }
    }

    fn bytes(&mut self, id: ConnectionId, piece: usize, bytes: &[u8]) {
        for piece in bytes.chunks(piece) {
            let data = rtmp::Input::Data(id, Bytes::copy_from_slice(piece));
            let server = self.live.server;
            self.world
                .net
                .with(server, |server, now| server.handle_input(now, data));
        }
    }

    /// A sender does what is due: its next picture, or its end.
    fn act(&mut self, at: usize) {
        let now = self.world.net.now();
        let sender = &mut self.live.senders[at];
        if sender.gone {
            return;
        }
        if sender.until <= now {
            sender.gone = true;
            let (by, leaves, piece) = (sender.by, sender.leaves, sender.piece);
            return self.leave(by, leaves, piece);
        }
        if sender.next > now {
            return;
        }
        sender.next = now + FRAME;
        let (frame, by, piece) = (sender.frames, sender.by, sender.piece);
        let key = frame.is_multiple_of(GROUP);
        match by {
            By::Rtmp(id) => {
                sender.frames += 1;
                let stamp = 40 * frame;
                let picture: &[u8] = match key {
                    true => b"\x17\x01\x00\x00\x00\x00\x00\x00\x04\x65\x88\x84\x01",
                    false => b"\x27\x01\x00\x00\x00\x00\x00\x00\x03\x41\x9a\x02",
                };
                let sound = b"\xaf\x01\x21\x10\x04\x60\x8c\x1c";
                let said = [message(8, stamp, sound), message(9, stamp, picture)].concat();
                self.bytes(id, piece, &said);
            }
            By::Whip(peer) => {
                let Some(Some(peer)) = self.live.peers.get_mut(peer) else {
                    return;
                };
                if peer.connected.is_none() {
                    return;
                }
                sender.frames += 1;
                let sound = Arc::from([0xfc, 0xff, 0xfe].as_slice());
                peer.frame(now, false, 1_920 * u64::from(frame), sound);
                peer.frame(now, true, 3_600 * u64::from(frame), picture(key).into());
            }
        }
    }

    fn leave(&mut self, by: By, leaves: Leaves, piece: usize) {
        match (by, leaves) {
            (By::Rtmp(id), Leaves::Word) => self.bytes(id, piece, &Word::Leave(false).bytes()),
            (By::Rtmp(id), Leaves::Close) => {
                let (server, closed) = (self.live.server, rtmp::Input::Closed(id));
                self.world
                    .net
                    .with(server, |server, now| server.handle_input(now, closed));
            }
            (By::Whip(number), Leaves::Word) => {
                let sessions = &self.live.sessions;
                let session = sessions.iter().find(|(_, peer)| **peer == number);
                let session = session.map(|(session, _)| session.to_string());
                let sender = self.live.senders.iter().find(|sender| sender.by == by);
                let name = sender.map_or("", |sender| sender.name);
                self.live.asked += 1;
                let call = call(
                    self.live.asked,
                    Method::Delete,
                    Door::Whip,
                    name,
                    session.as_deref(),
                );
                self.live.calls.insert(call.exchange, number);
                // What it sent before is on its way already.
                while self.live.carry(&mut self.world, &mut self.gateways) {
                    self.begin_jobs();
                }
                self.world
                    .net
                    .with(self.live.port, |port, now| port.call(now, &call));
            }
            (By::Whip(number), Leaves::Close) => {
                let now = self.world.net.now();
                if let Some(peer) = &mut self.live.peers[number] {
                    peer.close(now);
                }
            }
            (By::Whip(number), Leaves::Vanishes) => self.live.peers[number] = None,
            (By::Rtmp(_), Leaves::Vanishes) => {}
        }
    }
}

/// A slice and, before a key frame, parameter sets of 320x180 as x264 writes them.
fn picture(key: bool) -> Vec<u8> {
    const SETS: &[u8] = &[
        0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x0d, 0xda, 0x05, 0x06, 0x7e, 0x78, 0x40, 0x00, 0x00, 0x03,
        0x00, 0x40, 0x00, 0x00, 0x0f, 0x23, 0xc5, 0x0a, 0xa8, 0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80,
    ];
    match key {
        true => [SETS, &[0, 0, 0, 1, 0x65, 0x88, 0x84, 0x01]].concat(),
        false => vec![0, 0, 0, 1, 0x41, 0x9a, 0x02],
    }
}

fn play(seed: u64) -> Told {
    let mut run = Run::new(seed);
    // A handshake costs more than all the rest: most seeds have none.
    let whip = run.rng.below(4) == 0;
    let viewers = run.rng.below(4) == 0;
    let dies = run.rng.below(3) == 0;
    for _ in 0..2 + run.rng.below(4) {
        let by_whip = whip && run.rng.below(2) == 0;
        run.send(by_whip);
        let wait = ms(run.rng.below(2_500));
        run.pass(wait);
        if viewers && run.rng.below(2) == 0 {
            run.watch();
        }
        if dies && run.rng.below(3) == 0 {
            let serving = run
                .gateways
                .iter()
                .rev()
                .find_map(|one| one.log.started.last());
            if let Some(authority) = serving.map(|started| started.orchestrator.authority()) {
                run.world.net.link(&authority).down = true;
                run.world.net.cut(&authority);
            }
        }
        if viewers && run.rng.below(3) == 0 {
            // A viewer vanishes, or a sender with it.
            let at = run.rng.below(run.live.peers.len() as u64 + 1) as usize;
            if let Some(peer) = run.live.peers.get_mut(at) {
                *peer = None;
            }
        }
    }
    run.pass(Duration::from_secs(9));
    for sender in &run.live.senders {
        assert!(sender.gone, "its time is over");
    }
    // Those who watch go last, and all who vanished are missed by now.
    run.pass(Duration::from_secs(40));
    run.live.peers.iter_mut().for_each(|peer| *peer = None);
    run.pass(Duration::from_secs(60));
    // Who lost its orchestrator tries for a while.
    for _ in 0..30 {
        if !run.live.shows.is_empty() {
            run.pass(Duration::from_secs(30));
        }
    }
    let net = &run.world.net;
    let (server, port) = (net.get(run.live.server), net.get(run.live.port));
    assert_eq!((server.connections(), server.streams()), (0, 0));
    assert!(port.is_empty() && net.get(run.live.entry).is_empty());
    assert!(run.live.shows.is_empty(), "a job without an end");
    assert!(run.live.calls.is_empty(), "a request without an answer");
    assert!(run.live.places.is_empty() && run.live.published.is_empty());
    for sender in run.live.senders.iter().filter(|sender| sender.whole) {
        let (sent, arrived) = (sender.frames, sender.arrived);
        assert!(
            arrived == sent || arrived == 0,
            "{arrived} of {sent} of {:?}",
            sender.by
        );
    }
    // Whatever happened, nothing is left open, once the servers have swept.
    run.world.net.run_for(Duration::from_secs(1_000));
    for gateway in &run.gateways {
        assert!(run.world.net.get(gateway.media).is_idle());
    }
    run.live.told
}

#[test]
fn every_picture_of_any_sender_comes_back_and_nothing_is_left_of_anybody() {
    let played = seeds::play(KIND, &seeds::wanted(KIND, &FOUND, 24), play);
    let sum = |of: fn(&Told) -> u64| played.iter().map(of).sum::<u64>();
    let counts = [
        sum(|told| told.pictures),
        sum(|told| told.watched),
        sum(|told| told.taken_over),
        sum(|told| told.whole_jobs),
        sum(|told| told.failed_jobs),
        sum(|told| told.by_whip),
    ];
    println!("pictures, watched, taken over, whole jobs, failed jobs, by WHIP: {counts:?}");
    assert!(seeds::alone(KIND).is_some() || counts.iter().all(|count| *count > 0));
}
