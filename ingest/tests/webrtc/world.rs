//! A port and peers of it, in virtual time. The peers are the engine's own, in the part of a browser.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Method, Request, Response, Url};
use livepeer_core::{EffectId, Time};
use livepeer_ingest::browser::{self, Peer};
use livepeer_ingest::port::{
    Call, Clock, Config, Datagram, Door, Event, Frame, Output, Port, SessionId,
};
use livepeer_media::timeline::{Clocks, Timeline};
use livepeer_media::{AccessUnit, Audio};

pub(crate) use livepeer_ingest::browser::Packet;

/// The time at which each world begins.
const START: Time = Time::from_secs(1_800_000_000);

/// Whether a datagram is lost; `true` towards the port.
type Loses = Box<dyn FnMut(bool, &Datagram) -> bool>;

pub(crate) struct World {
    pub(crate) port: Port,
    pub(crate) now: Time,
    clock: Clock,
    pub(crate) clients: Vec<Client>,
    pub(crate) events: Vec<Event>,
    /// Frames of senders, and when they came.
    pub(crate) arrivals: Vec<(Time, Frame)>,
    pub(crate) replies: Vec<(EffectId, Response)>,
    /// Datagrams that the port sent, by the first byte.
    pub(crate) sent: Vec<Datagram>,
    /// Frames of senders go to this stream.
    pub(crate) loop_to: Option<String>,
    timeline: Timeline,
    /// Whether a datagram is lost; `true` towards the port.
    pub(crate) loses: Loses,
    exchanges: u64,
}

pub(crate) struct Client {
    peer: Peer,
    pub(crate) location: String,
    /// Frames to send once connected: when after that, whether video, stamp, data.
    script: VecDeque<(Duration, bool, u64, Arc<[u8]>)>,
}

/// The frames of a recording: whether video, whether key frame, stamp, data.
pub(crate) fn clip() -> Vec<(bool, bool, u64, Arc<[u8]>)> {
    let mut rest: &[u8] = include_bytes!("../../../media/tests/vectors/au/chromium.au");
    let mut frames = Vec::new();
    while let [kind, key, after @ ..] = rest {
        let (stamp, after) = after.split_first_chunk().unwrap();
        let (length, after) = after.split_first_chunk().unwrap();
        let (data, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        frames.push((
            *kind == b'v',
            *key == 1,
            u64::from_be_bytes(*stamp),
            Arc::from(data),
        ));
        rest = after;
    }
    frames
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let clock = browser::clock(START);
        let mut config = Config::default();
        change(&mut config);
        Self {
            port: browser::port(START, clock, config, [7; 32]),
            now: START,
            clock,
            clients: Vec::new(),
            events: Vec::new(),
            arrivals: Vec::new(),
            replies: Vec::new(),
            sent: Vec::new(),
            loop_to: None,
            timeline: Timeline::new(Clocks::Apart),
            loses: Box::new(|_, _| false),
            exchanges: 0,
        }
    }

    pub(crate) fn request(&mut self, method: Method, door: Door, path: &str) -> (EffectId, Call) {
        self.exchanges += 1;
        let exchange = EffectId::by_peer(self.exchanges);
        let url = Url::parse(&format!("http://gateway{path}")).unwrap();
        let mut parts = path.split('?').next().unwrap().split('/').skip(3);
        let stream = parts.next().unwrap().to_owned();
        let call = Call {
            exchange,
            door,
            stream,
            session: parts.nth(1).map(str::to_owned),
            request: Request::new(method, url),
            body: Bytes::new(),
        };
        (exchange, call)
    }

    pub(crate) fn post(&mut self, door: Door, path: &str, body: impl Into<Bytes>) -> EffectId {
        let (exchange, mut call) = self.request(Method::Post, door, path);
        call.request = call.request.header("content-type", "application/sdp");
        call.body = body.into();
        self.port.call(self.now, &call);
        self.drain();
        exchange
    }

    /// Any other request, with its answer.
    pub(crate) fn ask(&mut self, method: Method, door: Door, path: &str) -> Response {
        let (exchange, call) = self.request(method, door, path);
        self.port.call(self.now, &call);
        self.drain();
        self.reply(exchange)
    }

    pub(crate) fn reply(&mut self, exchange: EffectId) -> Response {
        let at = self
            .replies
            .iter()
            .position(|(id, _)| *id == exchange)
            .expect("an answer");
        self.replies.remove(at).1
    }

    /// The session that asks for leave.
    pub(crate) fn asked(&mut self) -> SessionId {
        let at = self
            .events
            .iter()
            .position(|event| matches!(event, Event::Asked { .. }));
        match self.events.remove(at.expect("a question")) {
            Event::Asked { session, .. } => session,
            other => panic!("{other:?}"),
        }
    }

    /// A client that is answered and let in.
    pub(crate) fn join(&mut self, door: Door, stream: &str) -> (usize, SessionId) {
        self.join_with(door, stream, str::to_owned)
    }

    /// Does the same with an offer that was tampered with on its way.
    pub(crate) fn join_with(
        &mut self,
        door: Door,
        stream: &str,
        change: impl FnOnce(&str) -> String,
    ) -> (usize, SessionId) {
        let client = self.client(door, false);
        self.join_as(client, door, stream, change)
    }

    /// Lets in a sender whose packets are written one by one.
    pub(crate) fn join_by_packets(&mut self, stream: &str) -> (usize, SessionId) {
        let client = self.client(Door::Whip, true);
        let joined = self.join_as(client, Door::Whip, stream, str::to_owned);
        self.run(Duration::from_millis(200));
        assert!(self.clients[joined.0].connected.is_some());
        joined
    }

    fn client(&self, door: Door, by_packets: bool) -> Client {
        let at = SocketAddr::from(([192, 0, 2, 2], 5_000 + self.clients.len() as u16));
        Client {
            peer: Peer::new(self.clock, self.now, at, door, by_packets),
            location: String::new(),
            script: VecDeque::new(),
        }
    }

    fn join_as(
        &mut self,
        mut client: Client,
        door: Door,
        stream: &str,
        change: impl FnOnce(&str) -> String,
    ) -> (usize, SessionId) {
        let name = if door == Door::Whip { "whip" } else { "whep" };
        let exchange = self.post(
            door,
            &format!("/live/video-to-video/{stream}/{name}"),
            change(&client.offer),
        );
        if door == Door::Whip {
            let session = self.asked();
            self.port.admit(self.now, session, None);
            self.drain();
        }
        let reply = self.reply(exchange);
        assert_eq!(reply.status, 201, "{reply:?}");
        client.location = reply.headers.get("location").unwrap().to_owned();
        client.peer.answer(self.now, &reply);
        let session = SessionId::parse(client.location.rsplit('/').next().unwrap()).unwrap();
        self.clients.push(client);
        (self.clients.len() - 1, session)
    }

    /// Gives a client a recording to send, from when it is connected.
    pub(crate) fn play(&mut self, client: usize, frames: &[(bool, bool, u64, Arc<[u8]>)]) {
        let first = |video| {
            frames
                .iter()
                .find(|frame| frame.0 == video)
                .map_or(0, |frame| frame.2)
        };
        let (video, audio) = (first(true), first(false));
        let mut script: Vec<_> = frames
            .iter()
            .map(|(is_video, _, stamp, data)| {
                let (since, rate) = if *is_video {
                    (stamp - video, 90)
                } else {
                    (stamp - audio, 48)
                };
                (
                    Duration::from_micros(since * 1_000 / rate),
                    *is_video,
                    *stamp,
                    Arc::clone(data),
                )
            })
            .collect();
        script.sort_by_key(|(at, ..)| *at);
        self.clients[client].script = script.into();
    }

    /// Has the pictures that a client is to send come so much later than their sound.
    pub(crate) fn delay_pictures(&mut self, client: usize, by: Duration) {
        let script = self.clients[client].script.make_contiguous();
        for (at, ..) in script.iter_mut().filter(|frame| frame.1) {
            *at += by;
        }
        script.sort_by_key(|(at, ..)| *at);
    }

    /// Sends a packet of a sender that writes its own, and lets a millisecond pass.
    pub(crate) fn send(&mut self, client: usize, packet: Packet<'_>) {
        self.clients[client].peer.packet(self.now, packet);
        self.run(Duration::from_millis(1));
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let port = self.drain();
            let clients = self.clients.iter().filter_map(Client::next);
            let next = clients.chain(port).min().unwrap_or(until);
            if self.now >= until {
                return;
            }
            self.now = next.min(until).max(self.now + Duration::from_micros(1));
            for client in &mut self.clients {
                client.tick(self.now);
            }
            self.port.tick(self.now);
        }
    }

    /// Lets everything be said that is to be said now.
    pub(crate) fn drain(&mut self) -> Option<Time> {
        loop {
            let wake = loop {
                match self.port.poll_output() {
                    Output::Send(datagram) => {
                        if !(self.loses)(false, &datagram) {
                            let mut clients = self.clients.iter_mut();
                            let to = clients.find(|client| client.at == datagram.peer);
                            if let Some(client) = to {
                                client.peer.receive(self.now, &datagram.data);
                            }
                        }
                        self.sent.push(datagram);
                    }
                    Output::Reply(id, reply) => self.replies.push((id, reply)),
                    Output::Event(event) => self.event(event),
                    Output::Idle(at) => break at,
                }
            };
            let mut quiet = true;
            for index in 0..self.clients.len() {
                while let Some(datagram) = self.clients[index].peer.sent() {
                    if !(self.loses)(true, &datagram) {
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

    fn event(&mut self, event: Event) {
        if let (Some(stream), Event::Frame(_, frame)) = (&self.loop_to, &event) {
            let arrival = self.now.since(Time::ZERO);
            match frame {
                Frame::Video(unit) => {
                    let (pts, dts) = self.timeline.video(arrival, unit.pts, unit.dts);
                    let unit = AccessUnit {
                        pts,
                        dts,
                        ..unit.clone()
                    };
                    self.port.send_video(self.now, stream, &unit);
                }
                Frame::Audio(audio) => {
                    if let Some(pts) = self.timeline.audio(arrival, audio.pts) {
                        let audio = Audio {
                            pts,
                            ..audio.clone()
                        };
                        self.port.send_audio(self.now, stream, &audio);
                    }
                }
                Frame::Report(kind, stamp, micros) => self.timeline.report(*kind, *stamp, *micros),
                Frame::Lost => {}
            }
        }
        if let Event::Frame(_, frame) = &event {
            self.arrivals.push((self.now, frame.clone()));
        }
        self.events.push(event);
    }

    /// The pictures and packets of sound that came in: how many of each.
    pub(crate) fn frames(&self) -> (usize, usize) {
        let count = |video: bool| {
            let of_kind = |event: &&Event| match event {
                Event::Frame(_, Frame::Video(_)) => video,
                Event::Frame(_, Frame::Audio(_)) => !video,
                _ => false,
            };
            self.events.iter().filter(of_kind).count()
        };
        (count(true), count(false))
    }
}

pub(crate) fn text(reply: &Response) -> String {
    match &reply.body {
        Body::Full(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        _ => String::new(),
    }
}

/// The offer of a client that nobody has met.
pub(crate) fn offer(door: Door) -> String {
    let at = SocketAddr::from(([192, 0, 2, 9], 1));
    Peer::new(browser::clock(START), START, at, door, false).offer
}

impl Client {
    /// When this client has something to do.
    fn next(&self) -> Option<Time> {
        let frame = self.connected.zip(self.script.front());
        let frame = frame.map(|(since, (at, ..))| since + *at);
        self.peer.wake().into_iter().chain(frame).min()
    }

    fn tick(&mut self, now: Time) {
        while let (Some(since), Some((at, ..))) = (self.connected, self.script.front())
            && since + *at <= now
        {
            let (_, video, stamp, data) = self.script.pop_front().unwrap();
            self.peer.frame(now, video, stamp, data);
        }
        self.peer.tick(now);
    }
}

impl Deref for Client {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Peer {
        &mut self.peer
    }
}
