//! The connection of a publisher: what it may send when, and its frames until the stream begins.

use std::net::IpAddr;
use std::time::Duration;

use bytes::BytesMut;
use livepeer_core::Time;
use livepeer_core::wire::entry::Publication;
use livepeer_media::flv;
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

/// A publisher at work.
#[derive(Debug)]
pub(super) struct Publishing {
    pub(super) publication: Publication,
    pub(super) flv: flv::Reader,
    stage: Stage,
    last_key: Time,
    pub(super) last_bytes: Time,
    rate: Rate,
}

/// Whether a key frame has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// None has; since when there is sound, if there is.
    Waiting(Option<Time>),
    Begun,
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
            stage: Stage::Waiting(None),
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

    /// Takes note of a picture. Whether the stream has begun, and whether it does so with this one: those before the first key
    /// frame cannot be decoded.
    pub(super) fn video(&mut self, now: Time, is_key: bool) -> (bool, bool) {
        if is_key {
            self.last_key = now;
        }
        let begins = is_key && self.stage != Stage::Begun;
        if begins {
            self.stage = Stage::Begun;
        }
        (self.stage == Stage::Begun, begins)
    }

    /// Takes note of a frame of sound. Whether the stream has begun.
    pub(super) fn audio(&mut self, now: Time) -> bool {
        match &mut self.stage {
            Stage::Begun => true,
            Stage::Waiting(since) => {
                since.get_or_insert(now);
                false
            }
        }
    }

    /// The reason why the publisher has to go now, if there is one.
    pub(super) fn overdue(&self, now: Time) -> Option<Overdue> {
        if now >= self.last_bytes + SILENCE {
            return Some(Overdue::Silent);
        }
        if now >= self.last_key + KEY_FRAME_WAIT {
            return Some(Overdue::NoKeyFrame);
        }
        let only_audio =
            matches!(self.stage, Stage::Waiting(Some(since)) if now >= since + VIDEO_WAIT);
        only_audio.then_some(Overdue::NoVideo)
    }

    fn wake(&self) -> Time {
        let wake = (self.last_bytes + SILENCE).min(self.last_key + KEY_FRAME_WAIT);
        match self.stage {
            Stage::Waiting(Some(since)) => wake.min(since + VIDEO_WAIT),
            _ => wake,
        }
    }
}

/// A wait that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    Silent,
    NoKeyFrame,
    NoVideo,
}
