//! The connection of a publisher: what it may send when, and its frames until the stream begins.

use std::net::IpAddr;
use std::time::Duration;

use bytes::BytesMut;
use livepeer_core::Time;
use livepeer_core::wire::entry::Publication;
use livepeer_media::flv;
use livepeer_media::frame::{AccessUnit, Audio, AudioCodec, Tracks, VideoCodec};
use rtmp_runtime::amf0::{Amf0Value, Command};

use super::dialogue::Dialogue;

/// How long a handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a peer may take from the handshake to `publish`.
pub const BEFORE_PUBLISH: Duration = Duration::from_secs(10);
/// Bytes that a peer sends before `publish`, at most.
pub const MAX_BEFORE_PUBLISH: usize = 64 << 10;
/// How long the owner may take to say whether a stream may be published.
pub const AUTHORIZING: Duration = Duration::from_secs(5);
/// Bytes that are kept of a peer that does not wait for the answer, at most.
pub const MAX_BEFORE_ANSWER: usize = 1 << 20;
/// How long a stream with sound is waited for after its first key frame.
pub const AUDIO_WAIT: Duration = Duration::from_millis(500);
/// How long a stream may have sound alone.
pub const VIDEO_WAIT: Duration = Duration::from_secs(5);
/// How long a stream may go without a key frame.
pub const KEY_FRAME_WAIT: Duration = Duration::from_secs(20);
/// How long a publisher may be silent.
pub const SILENCE: Duration = Duration::from_secs(10);
/// How long a refused peer is given to read why.
pub const LAST_WORDS: Duration = Duration::from_millis(100);
/// Over this time the rate of a publisher is measured.
pub const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Bits a second that a publisher may send whatever it declared.
pub const MAX_RATE: u64 = 40_000_000;
/// A publisher may send as many times what it declared.
const DECLARED_RATES: u64 = 4;
/// Bytes of frames that wait for sound, at most; then the stream begins without.
const MAX_WAITING: usize = 4 << 20;
/// Frames of sound that are kept until the first key frame, at most.
const MAX_EARLY_AUDIO: usize = 64;
/// Script data beyond this is not read.
const MAX_SCRIPT: usize = 64 << 10;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) address: IpAddr,
    pub(super) dialogue: Dialogue,
    pub(super) phase: Phase,
    /// When the phase is over, whatever comes.
    pub(super) deadline: Option<Time>,
    /// Bytes that came before `publish`.
    pub(super) before_publish: usize,
}

/// The state of a connection; the diagram is in the [room's doc](super).
#[derive(Debug)]
pub(super) enum Phase {
    Handshake,
    Open,
    /// The owner was asked; the bytes that came since.
    Authorizing(Publication, BytesMut),
    Publishing(Box<Publishing>),
    /// The refusal is written, or there is nothing to be said.
    Closing,
}

/// A frame of either track.
#[derive(Debug)]
pub(super) enum Frame {
    Video(AccessUnit),
    Audio(Audio),
}

/// A publisher at work.
#[derive(Debug)]
pub(super) struct Publishing {
    pub(super) publication: Publication,
    pub(super) flv: flv::Reader,
    pub(super) gate: Gate,
    last_key: Time,
    pub(super) last_bytes: Time,
    rate: Rate,
}

/// Whether the stream's tracks are known.
#[derive(Debug)]
pub(super) enum Gate {
    /// Frames wait until they are.
    Headers(Waiting),
    /// Frames go on to the owner.
    Live(Tracks),
}

/// Frames of a stream that has not begun.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    frames: Vec<Frame>,
    bytes: usize,
    first_video: Option<Time>,
    /// When the first frame of sound came.
    first_audio: Option<Time>,
    pub(super) audio: Option<AudioCodec>,
}

/// Bytes in the current stretch of [`RATE_WINDOW`].
#[derive(Debug)]
struct Rate {
    since: Time,
    bytes: u64,
    declared: u64,
}

impl Connection {
    pub(super) fn new(now: Time, address: IpAddr) -> Self {
        Self {
            address,
            dialogue: Dialogue::new(),
            phase: Phase::Handshake,
            deadline: Some(now + HANDSHAKE),
            before_publish: 0,
        }
    }

    /// When something has to be done if nothing comes.
    pub(super) fn wake(&self) -> Option<Time> {
        match &self.phase {
            Phase::Publishing(publishing) => Some(publishing.wake()),
            _ => self.deadline,
        }
    }
}

impl Publishing {
    pub(super) fn new(now: Time, publication: Publication) -> Self {
        Self {
            publication,
            flv: flv::Reader::default(),
            gate: Gate::Headers(Waiting::default()),
            last_key: now,
            last_bytes: now,
            rate: Rate {
                since: now,
                bytes: 0,
                declared: 0,
            },
        }
    }

    /// Takes note of bytes. Returns whether there are too many.
    pub(super) fn count(&mut self, now: Time, bytes: usize) -> bool {
        self.last_bytes = now;
        let rate = &mut self.rate;
        let mut too_fast = false;
        let passed = now.since(rate.since);
        if passed >= RATE_WINDOW {
            let bits = u128::from(rate.bytes) * 8;
            let most = MAX_RATE.max(rate.declared.saturating_mul(DECLARED_RATES));
            too_fast = bits * 1000 > u128::from(most) * passed.as_millis();
            (rate.since, rate.bytes) = (now, 0);
        }
        rate.bytes = rate.bytes.saturating_add(bytes as u64);
        too_fast
    }

    /// Reads the bit rates that a publisher declares.
    pub(super) fn declare(&mut self, script: &[u8]) {
        /// A name and a number, so that the values behind can be read as those of a command.
        const AS_COMMAND: [u8; 12] = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        if script.len() > MAX_SCRIPT {
            return;
        }
        let Ok(values) = Command::parse(&[&AS_COMMAND, script].concat()) else {
            return;
        };
        for value in &values.arguments {
            let (Amf0Value::Object(fields) | Amf0Value::EcmaArray(fields)) = value else {
                continue;
            };
            let rate = |name| {
                let field = fields.iter().find(|(key, _)| key == name);
                match field {
                    Some((_, Amf0Value::Number(kilobits))) => {
                        kilobits.clamp(0.0, 1e9) as u64 * 1000
                    }
                    _ => 0,
                }
            };
            self.rate.declared = rate("videodatarate") + rate("audiodatarate");
        }
    }

    /// Takes a picture. Returns it if it goes on at once.
    pub(super) fn video(&mut self, now: Time, unit: AccessUnit) -> Option<Frame> {
        if unit.key {
            self.last_key = now;
        }
        match &mut self.gate {
            Gate::Live(_) => return Some(Frame::Video(unit)),
            Gate::Headers(waiting) if unit.key || waiting.first_video.is_some() => {
                waiting.first_video.get_or_insert(now);
                waiting.bytes += unit.data.len();
                waiting.frames.push(Frame::Video(unit));
            }
            // Pictures before the first key frame cannot be decoded.
            Gate::Headers(_) => {}
        }
        None
    }

    /// Takes a frame of sound. Returns it if it goes on at once.
    pub(super) fn audio(&mut self, now: Time, audio: Audio) -> Option<Frame> {
        match &mut self.gate {
            // Sound that was not there when the stream began is out for good: models do not find it any more.
            Gate::Live(tracks) => (tracks.audio.is_some()).then_some(Frame::Audio(audio)),
            Gate::Headers(waiting) => {
                waiting.audio = Some(audio.track.codec());
                waiting.first_audio.get_or_insert(now);
                if waiting.first_video.is_none() && waiting.frames.len() == MAX_EARLY_AUDIO {
                    waiting.frames.remove(0);
                }
                waiting.bytes += audio.data.len();
                waiting.frames.push(Frame::Audio(audio));
                None
            }
        }
    }

    /// Begins the stream if its tracks are known by now: they and the frames that waited.
    pub(super) fn begin(&mut self, now: Time) -> Option<(Tracks, Vec<Frame>)> {
        let Gate::Headers(waiting) = &mut self.gate else {
            return None;
        };
        let first = waiting.first_video?;
        let is_known =
            waiting.audio.is_some() || now >= first + AUDIO_WAIT || waiting.bytes > MAX_WAITING;
        if !is_known {
            return None;
        }
        let tracks = Tracks {
            video: Some(VideoCodec::H264),
            audio: waiting.audio,
        };
        let frames = std::mem::take(&mut waiting.frames);
        self.gate = Gate::Live(tracks);
        Some((tracks, frames))
    }

    /// The reason why the publisher has to go now, if there is one.
    pub(super) fn overdue(&self, now: Time) -> Option<Overdue> {
        if now >= self.last_bytes + SILENCE {
            return Some(Overdue::Silent);
        }
        if now >= self.last_key + KEY_FRAME_WAIT {
            return Some(Overdue::NoKeyFrame);
        }
        let only_audio = self.only_audio_since();
        only_audio
            .is_some_and(|since| now >= since + VIDEO_WAIT)
            .then_some(Overdue::NoVideo)
    }

    /// Since when there is sound and no picture.
    fn only_audio_since(&self) -> Option<Time> {
        match &self.gate {
            Gate::Headers(waiting) if waiting.first_video.is_none() => waiting.first_audio,
            _ => None,
        }
    }

    fn wake(&self) -> Time {
        let mut wake = (self.last_bytes + SILENCE).min(self.last_key + KEY_FRAME_WAIT);
        if let Gate::Headers(waiting) = &self.gate {
            if let Some(first) = waiting.first_video {
                wake = wake.min(first + AUDIO_WAIT);
            } else if let Some(since) = waiting.first_audio {
                wake = wake.min(since + VIDEO_WAIT);
            }
        }
        wake
    }
}

/// A wait that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    Silent,
    NoKeyFrame,
    NoVideo,
}
