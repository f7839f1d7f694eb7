//! A peer of WHIP or WHEP for tests: the engine of our own side in the part of a browser, without I/O.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use livepeer_core::http::{Body, Method, Request, Response, Url};
use livepeer_core::{EffectId, Seed, Time};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{
    Direction, Frequency, KeyframeRequestKind, MediaData, MediaKind, MediaTime, Mid,
};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{Extension, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc};

use crate::port::{Call, Certificate, Clock, Config, Datagram, Door, Port};

/// The address of every [`port`].
pub const PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 8189);

/// A clock on which it is `time` now.
#[must_use]
pub fn clock(time: Time) -> Clock {
    Clock::new(Instant::now(), time)
}

/// A port at [`PORT`] that goes by a clock.
///
/// # Panics
/// If the crypto library can make no key.
#[must_use]
pub fn port(now: Time, clock: Clock, config: Config, seed: Seed) -> Port {
    // A key takes its time.
    static MADE: OnceLock<Certificate> = OnceLock::new();
    let certificate = MADE.get_or_init(Certificate::generate).clone();
    let config = Config {
        addresses: vec![PORT],
        ..config
    };
    Port::new(now, config, certificate, clock, seed)
}

/// A request at a door of a stream, or at a session of it.
#[must_use]
pub fn call(number: u64, method: Method, door: Door, stream: &str, session: Option<&str>) -> Call {
    let name = match door {
        Door::Whip => "whip",
        Door::Whep => "whep",
    };
    let path = match session {
        None => format!("http://gateway/live/video-to-video/{stream}/{name}"),
        Some(session) => format!("http://gateway/live/video-to-video/{stream}/{name}/{session}"),
    };
    let request = Request::new(method, Url::parse(&path).expect("a URL"));
    Call {
        exchange: EffectId::by_peer(number),
        door,
        stream: stream.to_owned(),
        session: session.map(str::to_owned),
        request: request.header("content-type", "application/sdp"),
        body: Bytes::new(),
    }
}

/// A peer. It sends video and sound, or receives them.
#[derive(Debug)]
pub struct Peer {
    rtc: Rtc,
    clock: Clock,
    now: Time,
    by_packets: bool,
    /// The address that it sends from.
    pub at: SocketAddr,
    /// The address of the port that it sends to.
    pub port: SocketAddr,
    /// The names of its video and of its sound.
    pub mids: [Mid; 2],
    pending: Option<SdpPendingOffer>,
    /// Its offer.
    pub offer: String,
    /// Since when media can flow.
    pub connected: Option<Time>,
    /// Whether the other side said goodbye.
    pub closed: bool,
    /// How often it was asked for a key frame.
    pub keys_asked: u32,
    /// The frames that it got.
    pub got: VecDeque<MediaData>,
    sends: VecDeque<Datagram>,
    wake: Option<Instant>,
}

/// A packet of RTP, for a peer that writes them one by one.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Video or sound.
    pub video: bool,
    /// The number of the packet.
    pub number: u64,
    /// The time stamp.
    pub stamp: u32,
    /// Whether it is the last of a picture.
    pub marker: bool,
    /// At most 1,300 bytes.
    pub payload: &'a [u8],
}

impl Peer {
    /// A peer with an offer; it writes frames, or packets one by one.
    ///
    /// # Panics
    /// If the engine does not do what it is for.
    #[must_use]
    pub fn new(clock: Clock, now: Time, at: SocketAddr, door: Door, by_packets: bool) -> Self {
        let config = Rtc::builder().set_extension(9, Extension::PlayoutDelay);
        let config = config.set_rtp_mode(by_packets);
        let mut rtc = config.build(clock.instant(now));
        rtc.add_local_candidate(Candidate::host(at, "udp").expect("an address"));
        let direction = match door {
            Door::Whip => Direction::SendOnly,
            Door::Whep => Direction::RecvOnly,
        };
        let mut api = rtc.sdp_api();
        let kinds = [MediaKind::Video, MediaKind::Audio];
        let mids = kinds.map(|kind| api.add_media(kind, direction, None, None, None));
        let (offer, pending) = api.apply().expect("media were added");
        Self {
            rtc,
            clock,
            now,
            by_packets,
            at,
            port: PORT,
            mids,
            pending: Some(pending),
            offer: offer.to_sdp_string(),
            connected: None,
            closed: false,
            keys_asked: 0,
            got: VecDeque::new(),
            sends: VecDeque::new(),
            wake: None,
        }
    }

    /// Takes the answer to its offer.
    ///
    /// # Panics
    /// If no engine could.
    pub fn answer(&mut self, now: Time, reply: &Response) {
        let Body::Full(text) = &reply.body else {
            panic!("{reply:?} has no answer")
        };
        let text = std::str::from_utf8(text).expect("text");
        let answer = SdpAnswer::from_sdp_string(text).expect("an answer");
        if let Some(pending) = self.pending.take() {
            let accepted = self.rtc.sdp_api().accept_answer(pending, answer);
            accepted.expect("an answer to this offer");
            self.tick(now);
        }
    }

    /// When it has something to do.
    #[must_use]
    pub fn wake(&self) -> Option<Time> {
        self.wake.map(|at| self.clock.time(at))
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time) {
        self.input(now, Input::Timeout(self.clock.instant(now)));
    }

    /// Takes in a datagram from the port.
    pub fn receive(&mut self, now: Time, data: &[u8]) {
        if let Ok(received) = Receive::new(Protocol::Udp, self.port, self.at, data) {
            self.input(now, Input::Receive(self.clock.instant(now), received));
        }
    }

    fn input(&mut self, now: Time, input: Input<'_>) {
        self.now = now;
        let _ = self.rtc.handle_input(input);
        self.drain();
    }

    /// The next datagram for the port.
    pub fn sent(&mut self) -> Option<Datagram> {
        self.sends.pop_front()
    }

    /// Sends a frame, if it writes frames: of video with a stamp of 90 kHz, of sound with one of 48 kHz.
    pub fn frame(&mut self, now: Time, video: bool, stamp: u64, data: Arc<[u8]>) {
        let frequency = match video {
            true => Frequency::NINETY_KHZ,
            false => Frequency::FORTY_EIGHT_KHZ,
        };
        // The engine has no writer where packets are written.
        if self.by_packets {
            return;
        }
        let Some(writer) = self.rtc.writer(self.mids[usize::from(!video)]) else {
            return;
        };
        let number = writer.payload_params().next().map(|known| known.pt());
        if let Some(number) = number {
            let at = self.clock.instant(now);
            let _ = writer.write(number, at, MediaTime::new(stamp, frequency), data);
        }
        self.tick(now);
    }

    /// Sends a packet, if it writes packets.
    pub fn packet(&mut self, now: Time, packet: Packet<'_>) {
        if !self.by_packets {
            return;
        }
        let mid = self.mids[usize::from(!packet.video)];
        let media = self.rtc.media(mid);
        let Some(number) = media.and_then(|media| media.remote_pts().first().copied()) else {
            return;
        };
        let at = self.clock.instant(now);
        let payload = &packet.payload[..packet.payload.len().min(1_300)];
        let written = RtpWrite::new(number, packet.number.into(), packet.stamp, at, payload);
        let mut api = self.rtc.direct_api();
        if let Some(stream) = api.stream_tx_by_mid(mid, None) {
            stream.set_unpaced(true);
            stream.write_rtp(written.marker(packet.marker));
            self.tick(now);
        }
    }

    /// The payload type of what it sends of a kind, if it writes frames.
    pub fn payload(&mut self, video: bool) -> Option<u8> {
        let writer = self.rtc.writer(self.mids[usize::from(!video)])?;
        writer.payload_params().next().map(|known| *known.pt())
    }

    /// Asks the other side for a key frame.
    pub fn ask_for_key(&mut self, now: Time) {
        if !self.by_packets
            && let Some(mut writer) = self.rtc.writer(self.mids[0])
        {
            let _ = writer.request_keyframe(None, KeyframeRequestKind::Pli);
            self.tick(now);
        }
    }

    /// Says goodbye.
    pub fn close(&mut self, now: Time) {
        let _ = self.rtc.close();
        self.tick(now);
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.wake = self.rtc.is_alive().then_some(at);
                    return;
                }
                Ok(Output::Transmit(transmit)) => self.sends.push_back(Datagram {
                    peer: self.at,
                    data: transmit.contents.into(),
                }),
                Ok(Output::Event(Event::Connected)) => self.connected = Some(self.now),
                Ok(Output::Event(Event::MediaData(data))) => self.got.push_back(data),
                Ok(Output::Event(Event::KeyframeRequest(_))) => self.keys_asked += 1,
                Ok(Output::Event(Event::Closed)) => self.closed = true,
                Ok(Output::Event(_)) => {}
                Err(_) => {
                    self.wake = None;
                    return;
                }
            }
        }
    }
}
