//! The way of frames from a sender to whoever takes them.

use livepeer_ingest::bridge::Source;
use livepeer_media::frame::{AccessUnit, Audio, Ticks};
use livepeer_media::timeline::Kind;

/// A piece of a sender's stream, in the order in which it was sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Sent {
    /// The stream begins, or goes on from a sender that came back: its stamps are on another clock.
    Source(Source),
    /// A picture, in the sender's time.
    Video(AccessUnit),
    /// A frame of sound, in the sender's time.
    Audio(Audio),
    /// A sender report: the stamp of a track is at so many microseconds of the sender's clock.
    Report(Kind, Ticks, i64),
    /// Pictures before those that come next are missing or damaged.
    Lost,
    /// The sender is gone for good.
    Ended,
}

/// A taker of a sender's stream.
pub trait Taker: Send + Sync + 'static {
    /// Takes the next piece, in the task that read it from the socket: be brief. Pieces come one at a time, and
    /// [`Sent::Ended`] last.
    fn take(&self, sent: Sent);
}

impl<F: Fn(Sent) + Send + Sync + 'static> Taker for F {
    fn take(&self, sent: Sent) {
        self(sent);
    }
}
