//! A port and peers of it, in virtual time. The peers are the engine's own, in the part of a browser.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use livepeer_core::http::{Body, Method, Request, Response, Url};
use livepeer_core::{EffectId, Time};
use livepeer_ingest::port::{
    Call, Certificate, Clock, Config, Datagram, Door, Event, Frame, Output, Port, SessionId,
};
use livepeer_media::timeline::{Clocks, Kind, Timeline};
use livepeer_media::{AccessUnit, Audio};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{
    Direction, Frequency, KeyframeRequestKind, MediaData, MediaKind, MediaTime, Mid,
};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{Extension, RtpWrite};
use str0m::{Candidate, Input, Rtc};

pub(crate) const PORT: &str = "192.0.2.1:8189";

/// The certificate of all tests: a key takes its time.
fn certificate() -> Certificate {
    static MADE: OnceLock<Certificate> = OnceLock::new();
    MADE.get_or_init(Certificate::generate).clone()
}

/// Whether a datagram is lost; `true` towards the port.
type Loses = Box<dyn FnMut(bool, &Datagram) -> bool>;

pub(crate) struct World {
    pub(crate) port: Port,
    pub(crate) now: Time,
    base: Instant,
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
    pub(crate) rtc: Rtc,
    pub(crate) at: SocketAddr,
    pub(crate) mids: (Mid, Mid),
    pending: Option<SdpPendingOffer>,
    pub(crate) offer: String,
    pub(crate) location: String,
    pub(crate) got: Vec<MediaData>,
    pub(crate) connected: Option<Time>,
    pub(crate) closed: bool,
    pub(crate) key_frames_asked: u32,
    wake: Option<Instant>,
    sends: Vec<Datagram>,
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
        let base = Instant::now();
        let now = Time::from_secs(1_800_000_000);
        let mut config = Config {
            addresses: vec![PORT.parse().unwrap()],
            ..Config::default()
        };
        change(&mut config);
        Self {
            port: Port::new(now, config, certificate(), Clock::new(base, now), [7; 32]),
            now,
            base,
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

    fn instant(&self) -> Instant {
        self.base + self.now.since(Time::from_secs(1_800_000_000))
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
        let at = SocketAddr::from(([192, 0, 2, 2], 5_000 + self.clients.len() as u16));
        let client = Client::new(self.instant(), at, door);
        self.join_as(client, door, stream, change)
    }

    /// Lets in a sender whose packets are written one by one.
    pub(crate) fn join_by_packets(&mut self, stream: &str) -> (usize, SessionId) {
        let at = SocketAddr::from(([192, 0, 2, 2], 5_000 + self.clients.len() as u16));
        let client = Client::of_packets(self.instant(), at);
        let joined = self.join_as(client, Door::Whip, stream, str::to_owned);
        self.run(Duration::from_millis(200));
        assert!(self.clients[joined.0].connected.is_some());
        joined
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
        client.answer(&text(&reply));
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

    /// Sends a packet of a sender that writes its own, and lets a millisecond pass.
    pub(crate) fn send(&mut self, client: usize, packet: Packet<'_>) {
        let now = self.instant();
        self.clients[client].write(now, packet);
        self.run(Duration::from_millis(1));
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let port = self.drain();
            let now = self.instant();
            let clients = self
                .clients
                .iter()
                .filter_map(|client| client.next(now, self.now));
            let next = clients.min().map(|wait| self.now + wait);
            let next = next.into_iter().chain(port).min().unwrap_or(until);
            if self.now >= until {
                return;
            }
            self.now = next.min(until).max(self.now + Duration::from_micros(1));
            let now = self.instant();
            for client in &mut self.clients {
                client.tick(now, self.now);
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
                            let now = self.instant();
                            let to = self
                                .clients
                                .iter_mut()
                                .find(|client| client.at == datagram.peer);
                            if let Some(client) = to {
                                client.receive(now, &datagram.data);
                                client.poll(self.now);
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
                for datagram in self.clients[index].drain(self.now) {
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

/// A packet of RTP as a sender of packets writes it.
#[derive(Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) video: bool,
    pub(crate) number: u64,
    pub(crate) stamp: u32,
    pub(crate) marker: bool,
    pub(crate) payload: &'a [u8],
}

pub(crate) fn text(reply: &Response) -> String {
    match &reply.body {
        Body::Full(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        _ => String::new(),
    }
}

impl Client {
    pub(crate) fn new(now: Instant, at: SocketAddr, door: Door) -> Self {
        Self::made(now, at, door, false)
    }

    /// A sender whose packets are written one by one.
    fn of_packets(now: Instant, at: SocketAddr) -> Self {
        Self::made(now, at, Door::Whip, true)
    }

    fn made(now: Instant, at: SocketAddr, door: Door, packets: bool) -> Self {
        let extension = Extension::PlayoutDelay;
        let config = Rtc::builder().set_extension(9, extension);
        let mut rtc = config.set_rtp_mode(packets).build(now);
        rtc.add_local_candidate(Candidate::host(at, "udp").unwrap());
        let direction = match door {
            Door::Whip => Direction::SendOnly,
            Door::Whep => Direction::RecvOnly,
        };
        let mut api = rtc.sdp_api();
        let video = api.add_media(MediaKind::Video, direction, None, None, None);
        let audio = api.add_media(MediaKind::Audio, direction, None, None, None);
        let (offer, pending) = api.apply().unwrap();
        Self {
            rtc,
            at,
            mids: (video, audio),
            pending: Some(pending),
            offer: offer.to_sdp_string(),
            location: String::new(),
            got: Vec::new(),
            connected: None,
            closed: false,
            key_frames_asked: 0,
            wake: Some(now),
            sends: Vec::new(),
            script: VecDeque::new(),
        }
    }

    fn answer(&mut self, text: &str) {
        let answer =
            SdpAnswer::from_sdp_string(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        self.rtc
            .sdp_api()
            .accept_answer(self.pending.take().unwrap(), answer)
            .unwrap();
    }

    fn write(&mut self, now: Instant, packet: Packet<'_>) {
        let mid = if packet.video {
            self.mids.0
        } else {
            self.mids.1
        };
        let payload_type = self.rtc.media(mid).unwrap().remote_pts()[0];
        let number = packet.number.into();
        let written = RtpWrite::new(payload_type, number, packet.stamp, now, packet.payload);
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, None).unwrap();
        stream.set_unpaced(true);
        stream.write_rtp(written.marker(packet.marker));
    }

    /// The payload type of what it sends of a kind.
    pub(crate) fn payload(&mut self, kind: Kind) -> u8 {
        let mid = match kind {
            Kind::Video => self.mids.0,
            Kind::Audio => self.mids.1,
        };
        let writer = self.rtc.writer(mid).expect("answered");
        let payload = writer.payload_params().next().expect("a codec").pt();
        *payload
    }

    pub(crate) fn ask_for_key_frame(&mut self) {
        let mut writer = self.rtc.writer(self.mids.0).unwrap();
        writer
            .request_keyframe(None, KeyframeRequestKind::Pli)
            .unwrap();
    }

    /// How long it is until this client has something to do.
    fn next(&self, now: Instant, time: Time) -> Option<Duration> {
        let timer = self.wake.map(|at| at.saturating_duration_since(now));
        let frame = self
            .connected
            .zip(self.script.front())
            .map(|(since, (at, ..))| (since + *at).since(time));
        timer.into_iter().chain(frame).min()
    }

    fn tick(&mut self, now: Instant, time: Time) {
        while let (Some(since), Some((at, ..))) = (self.connected, self.script.front())
            && since + *at <= time
        {
            let (_, video, stamp, data) = self.script.pop_front().unwrap();
            let mid = if video { self.mids.0 } else { self.mids.1 };
            let Some(writer) = self.rtc.writer(mid) else {
                return;
            };
            let pt = writer.payload_params().next().unwrap().pt();
            let frequency = if video {
                Frequency::NINETY_KHZ
            } else {
                Frequency::FORTY_EIGHT_KHZ
            };
            writer
                .write(pt, now, MediaTime::new(stamp, frequency), data)
                .unwrap();
        }
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
    }

    fn receive(&mut self, now: Instant, data: &[u8]) {
        let received = Receive::new(Protocol::Udp, PORT.parse().unwrap(), self.at, data);
        self.rtc
            .handle_input(Input::Receive(now, received.unwrap()))
            .unwrap();
    }

    fn drain(&mut self, now: Time) -> Vec<Datagram> {
        self.poll(now);
        std::mem::take(&mut self.sends)
    }

    fn poll(&mut self, now: Time) {
        loop {
            match self.rtc.poll_output().unwrap() {
                str0m::Output::Timeout(at) => {
                    self.wake = self.rtc.is_alive().then_some(at);
                    return;
                }
                str0m::Output::Transmit(transmit) => self.sends.push(Datagram {
                    peer: self.at,
                    data: transmit.contents.into(),
                }),
                str0m::Output::Event(str0m::Event::Connected) => self.connected = Some(now),
                str0m::Output::Event(str0m::Event::MediaData(data)) => self.got.push(data),
                str0m::Output::Event(str0m::Event::KeyframeRequest(_)) => {
                    self.key_frames_asked += 1
                }
                str0m::Output::Event(str0m::Event::Closed) => self.closed = true,
                str0m::Output::Event(_) => {}
            }
        }
    }
}
