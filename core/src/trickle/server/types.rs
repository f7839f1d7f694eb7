//! The settings, questions, answers and events of a server.

use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use core::ops::Range;
use core::time::Duration;

use bytes::Bytes;

#[cfg(doc)]
use super::Server;
use crate::error::Misuse;
use crate::http::Headers;
use crate::machine::EffectId;
use crate::time::Time;
use crate::trickle::{ContentType, Ending, Seq};

/// The channel of changes in channels (trickle spec 5.10).
pub const CHANGES: &str = "_changes";

/// Body bytes held for one request while the embedder decides on it.
pub const MAX_EARLY_BYTES: usize = 256 << 10;

/// Bytes held for all requests that the embedder decides on; half of them for those of one address.
pub const MAX_PENDING_BYTES: usize = 64 << 20;

/// How long the embedder may take for an answer to [`Event::Asked`].
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How a server behaves. The defaults are production's (trickle spec 9), with bounds of ours (D21).
#[derive(Clone, Debug)]
pub struct Config {
    /// The absolute path in front of channel names; begins and ends with `/`.
    pub base: String,
    /// Whether peers may create channels.
    pub autocreate: bool,
    /// Whether `_changes` exists.
    pub changefeed: bool,
    /// Whether `GET /metrics`, beside the channels, tells the figures of the server.
    pub figures: bool,
    /// A channel without a new byte for this long is removed by the next sweep.
    pub idle: Duration,
    /// The time between sweeps; at least a millisecond.
    pub sweep: Duration,
    /// How long a segment whose publisher broke off waits for somebody to continue it (D6).
    pub orphan_grace: Duration,
    /// How long it waits once a later segment has begun.
    pub overtaken_grace: Duration,
    /// Whether HTTP writes to names starting with `_` are refused (D20).
    pub protect_reserved: bool,
    /// Bytes handed to the driver for one reader and not yet to its transport; a reader behind that waits.
    pub reader_window: usize,
    /// A reader that takes nothing for this long while its segment has left the window is let go.
    pub stall_within: Duration,
    /// Bytes of all segments that have left their window and are still read. Beyond, the readers that have waited
    /// longest are let go.
    pub max_outside_bytes: usize,
    /// The longest segment; a longer one is answered 413 and closed.
    pub max_segment_bytes: usize,
    /// Channels at a time; more are answered 503.
    pub max_channels: usize,
    /// Readers and writers of one channel at a time; more are answered 503.
    pub max_channel_guests: usize,
    /// Unanswered and running exchanges of all channels; more are answered 503.
    pub max_exchanges: usize,
    /// The rule by which a peer may create a channel; also asked for segment POSTs that autocreate (D23).
    pub on_create: Gate,
    /// The rule by which a peer may delete a channel.
    pub on_delete: Gate,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base: "/ai/trickle/".to_string(),
            autocreate: false,
            changefeed: false,
            figures: false,
            idle: Duration::from_secs(300),
            sweep: Duration::from_secs(60),
            orphan_grace: Duration::from_secs(2),
            overtaken_grace: Duration::from_secs(1),
            protect_reserved: true,
            reader_window: 512 << 10,
            stall_within: Duration::from_secs(30),
            max_outside_bytes: 256 << 20,
            max_segment_bytes: 256 << 20,
            max_channels: 10_000,
            max_channel_guests: 10_000,
            max_exchanges: 50_000,
            on_create: Gate::Open,
            on_delete: Gate::Open,
        }
    }
}

/// The rule by which a peer's wish to create or delete a channel is decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Let all peers do so.
    #[default]
    Open,
    /// Refuse all peers, for this reason.
    Refuse(Refusal),
    /// The embedder: [`Event::Asked`], then [`Server::answer`].
    Ask,
}

/// Why a wish is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 400 to 499; 500 says that deciding failed; anything else becomes 400 (trickle spec 4).
    pub status: u16,
    /// The message for people.
    pub text: String,
}

/// The wish of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wish {
    /// A new channel.
    Create,
    /// A channel's end.
    Delete,
}

/// Names a local reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReaderId(pub(super) u64);

/// An event of a server, for its embedder.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A channel was made, by whomever.
    Created(Arc<str>),
    /// A channel is gone.
    Removed(Arc<str>, Removal),
    /// [`Server::read`] has something for a reader that it told [`Read::Pending`] before.
    Readable(ReaderId),
    /// [`Gate::Ask`]: decide with [`Server::answer`] within [`ANSWER_WITHIN`].
    Asked {
        /// Names the question.
        id: EffectId,
        /// The wish of the peer.
        wish: Wish,
        /// The channel's name.
        name: Arc<str>,
        /// The request's header fields, for credentials.
        headers: Headers,
    },
    /// After [`Server::close`], the last event: everybody has been answered.
    Closed(Ending),
}

/// Why a channel is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Removal {
    /// A peer's DELETE.
    ByPeer,
    /// The embedder's [`Server::delete_channel`].
    ByOwner,
    /// Nothing was written for the idle time.
    Idle,
    /// The server was closed.
    Shutdown,
}

/// The result of [`Server::read`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Read {
    /// A segment begins.
    Begin(Seq, ContentType),
    /// The next bytes of the segment.
    Data(Seq, Bytes),
    /// The segment is complete, as far as the server can know.
    End(Seq),
    /// Segments that were gone before this reader came to them, or to the end of the first of them.
    Gap(Range<Seq>),
    /// The publisher began anew; the next seq may be lower.
    Discontinuity,
    /// No bytes yet; [`Event::Readable`] follows.
    Pending,
    /// The channel is over, or the reader is unknown.
    Ended,
}

/// Why an embedder's call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// A channel of that name does not exist.
    #[error("there is no channel of that name")]
    NoChannel,
    /// The number of channels that the configuration allows is reached.
    #[error("there are as many channels as allowed")]
    TooManyChannels,
    /// Names are not empty.
    #[error("a channel needs a name")]
    BadName,
    /// The segment was closed by somebody else, or has grown too long; the bytes are dropped.
    #[error("the segment was closed meanwhile")]
    SegmentClosed,
    /// The call does not fit what was called before.
    #[error(transparent)]
    Misuse(#[from] Misuse),
}

/// A channel's figures.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The head: the seq after the segment last started.
    pub head: Seq,
    /// When it last received something.
    pub activity: Time,
    /// Bytes received since its creation.
    pub received: u64,
    /// Readers and writers now.
    pub guests: usize,
    /// The readers among `guests` that wait for segments that have no byte yet: they have all there is.
    pub waiting: usize,
    /// The channel's media type.
    pub content: ContentType,
}
