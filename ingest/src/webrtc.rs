//! A WebRTC peer over `str0m`: an offer in, datagrams in and out, media in and out.
//!
//! The engine is deterministic but for its keys and numbers: those come from the crypto library's source of entropy, and
//! no driver can have a say in that.

mod setup;
mod shared;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use livepeer_core::Time;
use livepeer_media::frame::Ticks;
use str0m::change::SdpOffer;
use str0m::error::RtcError;
use str0m::media::{Frequency, KeyframeRequestKind, MediaData, MediaTime, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RawPacket, Ssrc};
use str0m::{Candidate, IceCreds, Input, Output, Rtc};

use self::setup::{check, codecs, extensions, fragments};
pub use self::shared::{Certificate, Clock};
pub(crate) use self::shared::{Common, Credentials};
use crate::arrival::Arrival;
use crate::fragments::Fragments;
use crate::sdp::{Answer, Kind, Offer, Role, Sender, Setup};

/// How long after our first ClientHello we repeat it. ffmpeg 9 always loses the first one, and the engine's own
/// repetition comes after a second. Repeating any later record stops ffmpeg's media for half a minute.
const HELLO_AGAIN: Duration = Duration::from_millis(30);
/// How often a viewer is told what time the stamps of pictures and of sound mean: Chromium keeps them in step from the second
/// report on.
const REPORTS_EVERY: Duration = Duration::from_secs(1);
/// How many packets out of order are held: more than the largest key frame has, or the engine would give up on it.
const REORDERED_VIDEO: usize = 512;
/// At most this many packets of video are kept, and for how long, to be sent again to a viewer that lost them. The engine
/// keeps three seconds of itself, a MiB of each stream of 2 Mbit/s; what is older than this is of no use to anybody who
/// watches live.
const KEPT_PACKETS: (usize, Duration) = (1_000, Duration::from_secs(1));
/// The part of what is sent, of 1, that may be packets which are sent again: the engine's own.
const MAX_REPEATED: f32 = 0.15;
/// At most this many errors of the engine in a row end a session that is connected.
const MAX_ERRORS: u32 = 32;

/// A datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The address at the other end.
    pub peer: SocketAddr,
    /// The payload.
    pub data: Vec<u8>,
}

/// Things that happened to a peer.
#[derive(Debug)]
pub(crate) enum Happened {
    /// DTLS is done: media can flow.
    Connected,
    /// A picture or a packet of sound.
    Media(Kind, Box<MediaData>),
    /// A picture whose packets do not make whole NAL units.
    Torn,
    /// Video of which nothing will ever be made.
    Endless,
    /// The sender has been silent for a while, or is heard again.
    Paused(bool),
    /// The viewer asks for a key frame.
    KeyFrameWanted,
    /// The part of our video that got lost on its way to the viewer, of 1.
    Loss(f32),
    /// The peer said goodbye.
    Closed,
    /// The engine gave up.
    Broken(String),
}

/// An output of a peer.
#[derive(Debug)]
pub(crate) enum Out {
    Send(Datagram),
    Happened(Happened),
}

/// The reason why a sound offer became no session. The fault is ours.
#[derive(Debug, thiserror::Error)]
#[error("the WebRTC engine refused an offer that we took: {0}")]
pub(crate) struct Unmade(String);

#[derive(Debug)]
enum Hello {
    /// Done: we are not the client, or it is over.
    None,
    Waiting,
    /// Sent once; again at that time unless the peer is heard.
    Sent(Datagram, Time),
    Again(Datagram),
}

/// The parts of a session that sends or receives media of one kind.
#[derive(Clone, Copy, Debug)]
struct Track {
    kind: Kind,
    mid: Mid,
    payload: Pt,
    pli: bool,
    /// The sources that we send from, as long as nothing was sent.
    undeclared: Option<(Ssrc, Option<Ssrc>)>,
}

#[derive(Debug)]
pub(crate) struct Peer {
    rtc: Rtc,
    clock: Clock,
    now: Time,
    /// The local address that the engine believes in, one a family.
    ours: Vec<SocketAddr>,
    tracks: Vec<Track>,
    /// The fragments of each payload type of a sender's video: the engine joins each on its own.
    fragments: Vec<(Pt, Fragments)>,
    arrival: Arrival,
    hello: Hello,
    /// Whether a viewer may hold pictures back.
    in_step: bool,
    connected: bool,
    errors: u32,
    deadline: Option<Time>,
    /// Outputs of the engine that had to be taken before they were asked for.
    early: VecDeque<Out>,
}

impl Peer {
    /// Takes an offer, and answers it.
    pub(crate) fn accept(
        now: Time,
        common: &Common,
        credentials: &Credentials,
        offer: &Offer,
        id: u64,
    ) -> Result<(Self, String), Unmade> {
        let unmade = |error: RtcError| Unmade(error.to_string());
        let mut config = Rtc::builder()
            .set_ice_lite(true)
            .set_dtls_cert(common.certificate.0.clone())
            .set_local_ice_credentials(IceCreds {
                ufrag: credentials.ufrag.clone(),
                pass: credentials.password.clone(),
            })
            .set_reordering_size_video(REORDERED_VIDEO)
            .set_extension_map(extensions(offer));
        config = match offer.role() {
            // A copy of each packet is little beside its decryption: see `fragments` for what it is good for.
            Role::Whip { .. } => config.enable_raw_packets(true),
            Role::Whep => config
                .set_stats_interval(Some(Duration::from_secs(1)))
                .set_rtcp_report_interval_audio(REPORTS_EVERY)
                .set_rtcp_report_interval_video(REPORTS_EVERY),
        };
        *config.codec_config() = codecs(offer);
        let mut rtc = config.build(common.clock.instant(now));
        let mut ours = Vec::<SocketAddr>::new();
        for address in &common.addresses {
            if ours
                .iter()
                .all(|known| known.is_ipv4() != address.is_ipv4())
            {
                let candidate = Candidate::host(*address, "udp");
                let candidate = candidate.map_err(|error| Unmade(error.to_string()))?;
                rtc.add_local_candidate(candidate);
                ours.push(*address);
            }
        }
        let text = offer.for_engine();
        let parsed = SdpOffer::from_sdp_string(&text).map_err(|error| Unmade(error.to_string()))?;
        rtc.sdp_api().accept_offer(parsed).map_err(unmade)?;
        let mut tracks = Vec::new();
        let mut senders = Vec::new();
        for kind in [Kind::Video, Kind::Audio] {
            let Some((name, taken)) = offer.section(kind) else {
                continue;
            };
            let mid = Mid::from(name);
            let mut undeclared = None;
            check(&rtc, mid, taken)?;
            if offer.role() == Role::Whep {
                let mut api = rtc.direct_api();
                let stream = api.stream_tx_by_mid(mid, None);
                let stream = stream.ok_or_else(|| Unmade(format!("no stream for {name}")))?;
                let (ssrc, repair) = (stream.ssrc(), stream.rtx());
                senders.push(Sender {
                    kind,
                    ssrc: *ssrc,
                    repair: repair.map(|ssrc| *ssrc),
                });
                // The engine reports of a stream with a stamp of zero as long as nothing was sent, and viewers then take
                // many seconds to have pictures and sound in step: it is declared with the first that is sent
                // (`reports_say_when_pictures_and_sound_were_captured`).
                api.remove_stream_tx(ssrc);
                undeclared = Some((ssrc, repair));
            }
            tracks.push(Track {
                kind,
                mid,
                payload: Pt::new_with_value(taken.formats[0].number),
                pli: taken.formats.iter().any(|format| format.has_pli()),
                undeclared,
            });
        }
        let fingerprint = rtc.direct_api().local_dtls_fingerprint().bytes.clone();
        let fingerprint: Vec<_> = fingerprint
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        let answer = offer.answer(&Answer {
            id,
            ufrag: &credentials.ufrag,
            password: &credentials.password,
            fingerprint: &fingerprint.join(":"),
            addresses: &common.addresses,
            senders: &senders,
        });
        let payloads = |kind| {
            let formats = offer.section(kind).map(|(_, taken)| &taken.formats);
            let formats = formats.into_iter().flatten();
            formats.map(|format| format.number).collect()
        };
        let peer = Self {
            arrival: Arrival::new(payloads),
            rtc,
            clock: common.clock,
            now,
            ours,
            tracks,
            fragments: fragments(offer),
            hello: match offer.setup {
                Setup::Active => Hello::Waiting,
                Setup::Passive => Hello::None,
            },
            in_step: common.in_step,
            connected: false,
            errors: 0,
            deadline: Some(now),
            early: VecDeque::new(),
        };
        Ok((peer, answer))
    }

    /// Whether a STUN message is from this peer: it names both sides and its checksum is made with our password.
    pub(crate) fn accepts(&self, now: Time, from: SocketAddr, data: &[u8]) -> bool {
        let now = self.clock.instant(now);
        self.input(now, from, data)
            .is_some_and(|input| self.rtc.accepts(&input))
    }

    fn input<'a>(&self, now: Instant, from: SocketAddr, data: &'a [u8]) -> Option<Input<'a>> {
        let to = *self
            .ours
            .iter()
            .find(|ours| ours.is_ipv4() == from.is_ipv4())?;
        let received = Receive::new(Protocol::Udp, from, to, data).ok()?;
        Some(Input::Receive(now, received))
    }

    /// Counts of what came of the peer and what went to it.
    pub(crate) const fn arrival(&self) -> &Arrival {
        &self.arrival
    }

    /// Takes in a datagram from the peer. Whether it was one that the engine could read.
    pub(crate) fn receive(&mut self, now: Time, from: SocketAddr, data: &[u8]) -> bool {
        self.now = self.now.max(now);
        self.arrival.came(self.now, data);
        let instant = self.clock.instant(self.now);
        if matches!(data, [20..=63, ..]) {
            self.hello = Hello::None;
        }
        let Some(input) = self.input(instant, from, data) else {
            return false;
        };
        // The engine lets time pass with it, and says in the drain that follows when it wants to be called.
        self.deadline = None;
        match self.rtc.handle_input(input) {
            Ok(()) => true,
            Err(error) => {
                self.note(&error);
                false
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now: Time) {
        self.now = self.now.max(now);
        if let Hello::Sent(datagram, at) = &self.hello
            && self.now >= *at
        {
            self.hello = Hello::Again(datagram.clone());
        }
        if self.deadline.is_some_and(|at| at <= self.now) {
            let input = Input::Timeout(self.clock.instant(self.now));
            if let Err(error) = self.rtc.handle_input(input) {
                self.note(&error);
            }
        }
    }

    /// The latest time that this peer heard of.
    pub(crate) const fn now(&self) -> Time {
        self.now
    }

    /// When to call [`Peer::tick`], after a drain.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let hello = match &self.hello {
            Hello::Sent(_, at) => Some(*at),
            _ => None,
        };
        self.deadline.into_iter().chain(hello).min()
    }

    /// The next output; `None` when drained.
    pub(crate) fn poll(&mut self) -> Option<Out> {
        self.early.pop_front().or_else(|| self.poll_engine())
    }

    fn poll_engine(&mut self) -> Option<Out> {
        if matches!(self.hello, Hello::Again(_)) {
            let Hello::Again(datagram) = std::mem::replace(&mut self.hello, Hello::None) else {
                return None;
            };
            return Some(Out::Send(datagram));
        }
        loop {
            if self.errors > MAX_ERRORS {
                self.rtc.disconnect();
                self.errors = 0;
                return Some(Out::Happened(Happened::Broken(
                    "too many errors".to_owned(),
                )));
            }
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    let at = self.clock.time(at);
                    // Time stands still within a drain: what is due now is due a moment later.
                    let at = at.max(self.now + Duration::from_millis(1));
                    self.deadline = self.rtc.is_alive().then_some(at);
                    return None;
                }
                Ok(Output::Transmit(transmit)) => {
                    self.arrival.went(transmit.contents.len());
                    let datagram = Datagram {
                        peer: transmit.destination,
                        data: transmit.contents.into(),
                    };
                    if matches!(self.hello, Hello::Waiting) && is_client_hello(&datagram.data) {
                        self.hello = Hello::Sent(datagram.clone(), self.now + HELLO_AGAIN);
                    }
                    return Some(Out::Send(datagram));
                }
                Ok(Output::Event(event)) => {
                    if let Some(happened) = self.happened(event) {
                        return Some(Out::Happened(happened));
                    }
                }
                Err(error) => {
                    if let Some(text) = self.note(&error) {
                        return Some(Out::Happened(Happened::Broken(text)));
                    }
                    if matches!(error, RtcError::Packet(mid, ..) if self.kind(mid) == Some(Kind::Video))
                    {
                        return Some(Out::Happened(Happened::Torn));
                    }
                }
            }
        }
    }

    /// Counts an error. Its text if the session is over: before it is connected any error is the end, later one may be
    /// a datagram that somebody else sent.
    fn note(&mut self, error: &RtcError) -> Option<String> {
        let passing = self.connected || matches!(error, RtcError::Packet(..));
        self.errors += if passing { 1 } else { MAX_ERRORS + 1 };
        if self.errors <= MAX_ERRORS && self.rtc.is_alive() {
            return None;
        }
        self.rtc.disconnect();
        self.errors = 0;
        Some(error.to_string())
    }

    fn happened(&mut self, event: str0m::Event) -> Option<Happened> {
        use str0m::Event;
        Some(match event {
            Event::Connected => {
                self.connected = true;
                Happened::Connected
            }
            Event::RawPacket(packet) => {
                let RawPacket::RtpRx(head, payload) = *packet else {
                    return None;
                };
                let fragments = self.fragments(head.payload_type)?;
                fragments.see(head.sequence_number, &payload);
                if !fragments.is_endless() {
                    return None;
                }
                Happened::Endless
            }
            Event::MediaData(media) => {
                self.errors = 0;
                let kind = self.kind(media.mid)?;
                let numbers = **media.seq_range.start()..=**media.seq_range.end();
                let fragments = self.fragments(media.pt);
                if fragments.is_some_and(|fragments| !fragments.claim(numbers)) {
                    return Some(Happened::Torn);
                }
                Happened::Media(kind, Box::new(media))
            }
            Event::StreamPaused(paused) if self.kind(paused.mid) == Some(Kind::Video) => {
                Happened::Paused(paused.paused)
            }
            Event::KeyframeRequest(_) => Happened::KeyFrameWanted,
            Event::MediaEgressStats(stats) if self.kind(stats.mid) == Some(Kind::Video) => {
                Happened::Loss(stats.loss?)
            }
            Event::Closed => Happened::Closed,
            _ => return None,
        })
    }

    fn kind(&self, mid: Mid) -> Option<Kind> {
        self.tracks
            .iter()
            .find(|track| track.mid == mid)
            .map(|track| track.kind)
    }

    fn fragments(&mut self, payload: Pt) -> Option<&mut Fragments> {
        let mut all = self.fragments.iter_mut();
        all.find(|(of, _)| *of == payload)
            .map(|(_, fragments)| fragments)
    }

    fn track(&self, kind: Kind) -> Option<Track> {
        self.tracks.iter().copied().find(|track| track.kind == kind)
    }

    /// Asks the sender for a key frame. Whether it offered to be asked.
    pub(crate) fn ask_for_key_frame(&mut self) -> bool {
        let Some(track) = self.track(Kind::Video).filter(|track| track.pli) else {
            return false;
        };
        self.deadline = Some(self.now);
        let writer = self.rtc.writer(track.mid);
        writer.is_some_and(|mut writer| {
            writer
                .request_keyframe(None, KeyframeRequestKind::Pli)
                .is_ok()
        })
    }

    /// Whether the viewer wants media of a kind.
    pub(crate) fn wants(&self, kind: Kind) -> bool {
        self.track(kind).is_some()
    }

    /// Sends a picture. `captured` says when it was on the machine's clock, so that sound is kept in step.
    pub(crate) fn send_video(&mut self, captured: Time, stamp: u64, data: Arc<[u8]>) {
        let time = MediaTime::from_90khz(stamp);
        self.send(Kind::Video, captured, time, data);
    }

    /// Sends a packet of Opus. The stamp counts samples of 48 kHz.
    pub(crate) fn send_audio(&mut self, captured: Time, stamp: u64, data: Arc<[u8]>) {
        let time = MediaTime::new(stamp, Frequency::FORTY_EIGHT_KHZ);
        self.send(Kind::Audio, captured, time, data);
    }

    fn send(&mut self, kind: Kind, captured: Time, time: MediaTime, data: Arc<[u8]>) {
        let mut tracks = self.tracks.iter_mut();
        let (Some(track), true) = (tracks.find(|track| track.kind == kind), self.connected) else {
            return;
        };
        let undeclared = track.undeclared.take();
        if let Some((ssrc, repair)) = undeclared {
            let mut api = self.rtc.direct_api();
            let stream = api.declare_stream_tx(ssrc, repair, track.mid, None);
            if kind == Kind::Video {
                let (packets, time) = KEPT_PACKETS;
                stream.set_rtx_cache(packets, time, Some(MAX_REPEATED));
            }
        }
        let track = *track;
        let wallclock = self.clock.instant(captured);
        let Some(writer) = self.rtc.writer(track.mid) else {
            return;
        };
        let writer = match kind {
            // Chromium holds pictures back otherwise: for 7 ms, and once reports say how far apart they are, for its sound.
            Kind::Video if !self.in_step => writer.playout_delay(MediaTime::ZERO, MediaTime::ZERO),
            Kind::Video | Kind::Audio => writer,
        };
        if let Err(error) = writer.write(track.payload, wallclock, time, data) {
            self.note(&error);
        }
        // The engine packs what was written when time passes, and says in the drain that follows when it wants to be called.
        self.deadline = None;
        let input = Input::Timeout(self.clock.instant(self.now));
        if let Err(error) = self.rtc.handle_input(input) {
            self.note(&error);
        }
        if undeclared.is_some() {
            // The engine learns the clock of a stream, which its reports go by, from the first packet that is polled.
            while let Some(out) = self.poll_engine() {
                self.early.push_back(out);
            }
        }
    }

    /// Says goodbye. What is left to be sent follows from [`Peer::poll`].
    pub(crate) fn close(&mut self) {
        self.deadline = Some(self.now);
        if self.connected {
            if let Err(error) = self.rtc.close() {
                self.note(&error);
            }
        } else {
            self.rtc.disconnect();
        }
    }
}

/// The last sender report at the time of a frame: its stamp in ticks, unwrapped like the frame's, and its moment in
/// microseconds since 1970.
pub(crate) fn report(media: &MediaData) -> Option<(Ticks, i64)> {
    let info = media.last_sender_info?;
    let since = info.ntp_time.duration_since(std::time::UNIX_EPOCH).ok()?;
    let (frame, report) = (
        media.time.numer(),
        info.rtp_time.rebase(media.time.frequency()).numer(),
    );
    // Both count modulo 2^32 on the wire.
    let apart = (report as u32).wrapping_sub(frame as u32) as i32;
    let stamp = frame.checked_add_signed(apart.into())?;
    let stamp = ticks(MediaTime::new(stamp, media.time.frequency()));
    Some((stamp, i64::try_from(since.as_micros()).ok()?))
}

/// A stamp of video or of Opus as ticks.
pub(crate) fn ticks(time: MediaTime) -> Ticks {
    Ticks(time.rebase(Frequency::NINETY_KHZ).numer() as i64) // the engine counts from 2^32 wraps of 32 bits
}

/// A DTLS record that begins with the handshake message of type 1.
fn is_client_hello(data: &[u8]) -> bool {
    data.first() == Some(&22) && data.get(13) == Some(&1)
}
