//! The session of a sender: from its offer to its frames (WHIP, RFC 9725).
//!
//! ```text
//! Asking ──admitted──▶ Connecting ──DTLS done──▶ Waiting ──video──▶ Live
//! ```
//! Any of them ends by its deadline, by the peer, or by us. A stream is opened with what was offered. Whether sound that was
//! offered comes is found out where the tracks are decided: in the [bridge](crate::bridge).

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::Time;
use livepeer_core::machine::earlier;
use livepeer_core::wire::entry::IngestMetrics;
use livepeer_media::frame::{AccessUnit, Audio, AudioTrack, Ticks};
use livepeer_media::timeline::Microseconds;
use livepeer_media::{h264, opus};
use str0m::media::MediaData;

use crate::sdp::Kind;
use crate::session::End;
use crate::webrtc::{self, Datagram, Happened, Out, Peer};

/// How long an answer waits for leave to be given.
pub const ADMISSION: Duration = Duration::from_secs(5);
/// How long a peer may take from our answer to its first valid STUN message, and from there to the end of DTLS.
pub const CONNECTING: Duration = Duration::from_secs(10);
/// How long video may take from there, unless configured otherwise.
pub const VIDEO: Duration = Duration::from_secs(5);
/// How long the first key frame may come after video: OBS drops what it encoded before it was connected, ignores
/// requests, and has a key frame every 250 frames. A stream that shows none in this time is taken to refresh its pictures
/// piece by piece, and recovery points do in place of key frames.
pub const KEY_FRAME: Duration = Duration::from_secs(10);
/// How long a peer is taken to be there without a word: browsers and ffmpeg send a STUN message every 5 s or sooner.
pub const CONSENT: Duration = Duration::from_secs(10);
/// How long a request for a key frame is followed by no other.
pub const KEY_FRAME_PAUSE: Duration = Duration::from_millis(500);
/// At most this many bytes a second come from a sender, over [`RATE_WINDOW`].
pub const MAX_BYTES_A_SECOND: u64 = 50_000_000 / 8;
/// Bytes that a datagram counts for at least: small ones cost as much work.
pub const LEAST_COUNTED: usize = 512;
/// How long a sender's rate is measured.
pub const RATE_WINDOW: Duration = Duration::from_secs(2);

/// A piece of a sender's stream. Time stamps are the sender's, unwrapped: a timeline of the job's places them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A picture; WebRTC senders do not reorder.
    Video(AccessUnit),
    /// A packet of Opus.
    Audio(Audio),
    /// A sender report: the stamp of a track is at so many microseconds of the sender's clock.
    Report(Kind, Ticks, i64),
    /// Pictures before those that come next are missing or damaged. The sender was asked for a key frame.
    Lost,
}

/// The news of a sender's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Connected,
    /// The stream begins; whether sound was offered.
    Opened(bool),
    Frame(Frame),
    Stalled,
    Resumed,
}

#[derive(Debug)]
enum State {
    Asking {
        by: Time,
    },
    Connecting(Connecting),
    /// Connected: video has to come by then.
    Waiting {
        by: Time,
    },
    Live(Keys),
}

/// The pictures of a stream with which decoding may begin.
#[derive(Debug)]
struct Keys {
    /// When the last key frame came, or the first picture if none has.
    idr: Time,
    /// When the stream is given up, unless there is such a picture.
    by: Option<Time>,
    /// Whether a recovery point came before one was looked for.
    recovers: bool,
}

#[derive(Debug)]
pub(crate) struct Whip {
    peer: Peer,
    state: State,
    config: Patience,
    offered_audio: bool,
    video: h264::Stream,
    microseconds: Microseconds,
    reports: [Option<i64>; 2],
    heard: Time,
    /// When to ask for a key frame, if one is wanted.
    key_due: Option<Time>,
    key_asked: Option<Time>,
    rate: (Time, u64),
    stalled: bool,
    said: VecDeque<Said>,
}

/// The waiting times that operators may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long a connected sender may take to its first picture.
    pub video: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { video: VIDEO }
    }
}

/// A session whose peer is not connected yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Connecting {
    /// When that is given up.
    pub(crate) by: Time,
    /// Whether the peer has proved to be there.
    pub(crate) heard: bool,
}

impl Connecting {
    pub(crate) fn new(now: Time) -> Self {
        Self {
            by: now + CONNECTING,
            heard: false,
        }
    }

    /// A valid STUN message came: with the first, the time for DTLS begins.
    pub(crate) fn hear(&mut self, now: Time) {
        if !std::mem::replace(&mut self.heard, true) {
            self.by = now + CONNECTING;
        }
    }
}

impl Whip {
    pub(crate) fn new(now: Time, peer: Peer, config: Patience, user_agent: &str) -> Self {
        Self {
            offered_audio: peer.wants(Kind::Audio),
            peer,
            state: State::Asking {
                by: now + ADMISSION,
            },
            config,
            video: h264::Stream::default(),
            microseconds: Microseconds::new(user_agent),
            reports: [None; 2],
            heard: now,
            key_due: None,
            key_asked: None,
            rate: (now, 0),
            stalled: false,
            said: VecDeque::new(),
        }
    }

    /// Whether no peer has proved to be there yet.
    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(
            self.state,
            State::Asking { .. } | State::Connecting(Connecting { heard: false, .. })
        )
    }

    pub(crate) fn admit(&mut self, now: Time) {
        self.state = State::Connecting(Connecting::new(now));
    }

    pub(crate) fn accepts(&self, now: Time, from: std::net::SocketAddr, data: &[u8]) -> bool {
        self.peer.accepts(now, from, data)
    }

    /// Takes in a datagram of the peer's; `stun` if it is a STUN message with a valid checksum.
    pub(crate) fn receive(
        &mut self,
        now: Time,
        datagram: &Datagram,
        stun: bool,
    ) -> Result<(), End> {
        let (since, bytes) = &mut self.rate;
        if now.since(*since) >= RATE_WINDOW {
            (*since, *bytes) = (now, 0);
        }
        *bytes += datagram.data.len().max(LEAST_COUNTED) as u64;
        if *bytes > MAX_BYTES_A_SECOND * RATE_WINDOW.as_secs() {
            return Err(End::InputRate);
        }
        if stun {
            self.heard = now;
            if let State::Connecting(connecting) = &mut self.state {
                connecting.hear(now);
            }
        }
        self.peer.receive(now, datagram.peer, &datagram.data);
        Ok(())
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now: Time) -> Result<(), End> {
        match &mut self.state {
            State::Connecting(connecting) if now >= connecting.by => {
                return Err(End::NotConnected(if connecting.heard {
                    "DTLS was not done in time"
                } else {
                    "no STUN message came"
                }));
            }
            State::Waiting { by } if now >= *by => return Err(End::NoVideo),
            State::Live(keys) => keys.check(now)?,
            _ => {}
        }
        if matches!(self.state, State::Waiting { .. } | State::Live(_))
            && now >= self.heard + CONSENT
        {
            return Err(End::Gone);
        }
        if self.key_due.is_some_and(|due| now >= due) {
            self.key_due = None;
            if self.peer.ask_for_key_frame() {
                self.key_asked = Some(now);
            }
        }
        self.peer.tick(now);
        Ok(())
    }

    /// How the stream arrives so far.
    pub(crate) fn metrics(&self) -> IngestMetrics {
        self.peer.arrival().metrics()
    }

    /// Whether the answer waited too long for leave.
    pub(crate) fn is_overdue(&self, now: Time) -> bool {
        matches!(self.state, State::Asking { by } if now >= by)
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        let state = match &self.state {
            State::Asking { by } | State::Connecting(Connecting { by, .. }) => Some(*by),
            State::Waiting { by } => Some((*by).min(self.heard + CONSENT)),
            State::Live(keys) => earlier(keys.by, Some(self.heard + CONSENT)),
        };
        state
            .into_iter()
            .chain(self.key_due)
            .chain(self.peer.deadline())
            .min()
    }

    /// Takes what the engine has to say; datagrams go to `send`.
    pub(crate) fn drain(&mut self, now: Time, send: &mut VecDeque<Datagram>) -> Result<(), End> {
        while let Some(out) = self.peer.poll() {
            match out {
                Out::Send(datagram) => send.push_back(datagram),
                Out::Happened(happened) => self.happened(now, happened)?,
            }
        }
        Ok(())
    }

    pub(crate) fn said(&mut self) -> Option<Said> {
        self.said.pop_front()
    }

    /// Says goodbye, and gives back what is left to be sent.
    pub(crate) fn close(&mut self, send: &mut VecDeque<Datagram>) {
        self.peer.close();
        while let Some(out) = self.peer.poll() {
            if let Out::Send(datagram) = out {
                send.push_back(datagram);
            }
        }
    }

    /// Asks the sender for a key frame, unless it was asked a moment ago: then when that moment is over.
    pub(crate) fn want_key_frame(&mut self, now: Time) {
        let due = self
            .key_asked
            .map_or(now, |asked| now.max(asked + KEY_FRAME_PAUSE));
        self.key_due.get_or_insert(due);
    }

    fn happened(&mut self, now: Time, happened: Happened) -> Result<(), End> {
        match happened {
            Happened::Connected => {
                if matches!(self.state, State::Connecting(_)) {
                    self.state = State::Waiting {
                        by: now + self.config.video,
                    };
                    self.said.push_back(Said::Connected);
                }
            }
            Happened::Media(kind, media) => self.media(now, kind, &media)?,
            Happened::Endless => {
                return Err(End::BadVideo("a NAL unit without an end".to_owned()));
            }
            // As good as none.
            Happened::Torn => self.unit(now, Ticks::ZERO, &[])?,
            Happened::Paused(true) => {
                self.stalled = true;
                self.said.push_back(Said::Stalled);
            }
            Happened::Paused(false) => {
                // The engine says so of a stream's first packet, too.
                if std::mem::take(&mut self.stalled) {
                    self.said.push_back(Said::Resumed);
                    self.want_key_frame(now);
                }
            }
            Happened::Closed => return Err(End::Disconnected),
            Happened::Broken(text) => {
                return Err(match self.state {
                    State::Asking { .. } | State::Connecting(_) => End::NotConnected("DTLS failed"),
                    _ => End::Broken(text),
                });
            }
            Happened::KeyFrameWanted | Happened::Loss(_) => {}
        }
        Ok(())
    }

    fn media(&mut self, now: Time, kind: Kind, media: &MediaData) -> Result<(), End> {
        match kind {
            Kind::Video => {
                self.picture(now, media)?;
                self.report(now, kind, media);
                Ok(())
            }
            Kind::Audio => {
                self.report(now, kind, media);
                // Something else than a packet of Opus is dropped: decoders end at it.
                if opus::samples(&media.data).is_some() {
                    let audio = Audio {
                        pts: webrtc::ticks(media.time),
                        track: AudioTrack::Opus { channels: 2 },
                        data: Bytes::copy_from_slice(&media.data),
                    };
                    self.frame(Frame::Audio(audio));
                }
                Ok(())
            }
        }
    }

    fn picture(&mut self, now: Time, media: &MediaData) -> Result<(), End> {
        if matches!(self.state, State::Waiting { .. }) {
            self.state = State::Live(Keys::new(now));
            self.said.push_back(Said::Opened(self.offered_audio));
        }
        if !media.contiguous {
            self.lost(now);
        }
        let stamp = webrtc::ticks(media.time);
        let pts = Ticks(self.microseconds.next(now.since(Time::ZERO), stamp.0));
        self.unit(now, pts, &media.data)
    }

    /// Takes an access unit.
    fn unit(&mut self, now: Time, pts: Ticks, data: &[u8]) -> Result<(), End> {
        match self.video.annex_b(data) {
            Ok(Some(picture)) => {
                let mut key = picture.key;
                if let State::Live(keys) = &mut self.state {
                    key = keys.may_begin(now, picture.key, picture.recovers);
                    if key {
                        self.key_due = None;
                    } else if keys.by.is_some() {
                        self.want_key_frame(now);
                    }
                }
                self.frame(Frame::Video(AccessUnit {
                    pts,
                    dts: pts,
                    key,
                    data: picture.data,
                }));
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(dropped) => {
                self.lost(now);
                if self.video.is_hopeless() {
                    return Err(End::BadVideo(dropped.to_string()));
                }
                Ok(())
            }
        }
    }

    fn lost(&mut self, now: Time) {
        self.want_key_frame(now);
        self.frame(Frame::Lost);
    }

    fn frame(&mut self, frame: Frame) {
        if matches!(self.state, State::Live(_)) {
            self.said.push_back(Said::Frame(frame));
        }
    }

    /// Tells a sender report once, with the first frame with which that can be done: a sender may report before its first
    /// picture, and then not for seconds.
    fn report(&mut self, now: Time, kind: Kind, media: &MediaData) {
        let last = &mut self.reports[usize::from(kind == Kind::Audio)];
        let Some((stamp, micros)) = webrtc::report(media).filter(|(_, at)| *last != Some(*at))
        else {
            return;
        };
        let counts_ticks = kind == Kind::Audio || self.microseconds.is_decided();
        if !counts_ticks || !matches!(self.state, State::Live(_)) {
            return;
        }
        *last = Some(micros);
        let stamp = match kind {
            Kind::Video => Ticks(self.microseconds.next(now.since(Time::ZERO), stamp.0)),
            Kind::Audio => stamp,
        };
        self.frame(Frame::Report(kind, stamp, micros));
    }
}

impl Keys {
    fn new(now: Time) -> Self {
        Self {
            idr: now,
            by: Some(now + KEY_FRAME),
            recovers: false,
        }
    }

    /// Whether decoding may begin with a picture.
    fn may_begin(&mut self, now: Time, is_idr: bool, recovers: bool) -> bool {
        let may = is_idr || recovers && now >= self.idr + KEY_FRAME;
        if is_idr {
            self.idr = now;
        }
        if may {
            self.by = None;
        }
        self.recovers |= recovers;
        may
    }

    /// Gives a stream up that no decoder could begin with. One that has recovery points gets the time for another.
    fn check(&mut self, now: Time) -> Result<(), End> {
        if self.by.is_some_and(|by| now >= by) {
            if !std::mem::take(&mut self.recovers) {
                return Err(End::NoKeyFrame);
            }
            self.by = Some(now + KEY_FRAME);
        }
        Ok(())
    }
}
