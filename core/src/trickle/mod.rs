//! Trickle: a live sequence of segments over plain HTTP, each uploaded by one POST and downloaded by any number of
//! GETs while it is still being written.
//!
//! # Glossary
//!
//! | word | meaning |
//! |---|---|
//! | channel | a named live sequence of segments |
//! | segment | an opaque byte string with a sequence number ([`Seq`]) |
//! | head | the seq the server expects next: one past the segment last started |
//! | slot | the server keeps [`WINDOW`] of them per channel; seq *n* lives in slot *n* mod 5 |
//! | fresh, open, closed | a segment with no byte yet, with bytes and still writable, finished |
//! | warm, preconnect | a request for seq + 1 that leaves before seq is finished |
//! | precreate | the server making a fresh segment because a reader asked for it |
//! | lag, ahead | a reader asked for an evicted seq, or for one beyond the head |
//!
//! # The machines
//!
//! [`Publisher`] writes one channel, [`Subscriber`] reads one, [`Server`] serves any number of them. They know
//! nothing of sockets, clocks or each other. [`message`] holds the framings that applications put on top.
//!
//! Rules cite the trickle specification by section, decisions on peers' defects by their number there (D1 to D26).

pub mod headers;
pub mod message;
pub mod publisher;
pub mod server;
pub mod subscriber;

use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;

use crate::error::Failure;

pub use publisher::Publisher;
pub use server::Server;
pub use subscriber::Subscriber;

/// How many segments of a channel a server keeps reachable (trickle spec 5.2).
pub const WINDOW: usize = 5;

/// The status of "the channel exists, this seq is neither in the window nor at the head" (trickle spec 4).
pub const STATUS_NOT_IN_WINDOW: u16 = 470;

/// An unanswered GET is asked again after this long, as the Go subscriber does (trickle spec 7.1).
pub const REFRESH: Duration = Duration::from_secs(20);

/// The pause between repeated questions that bring nothing new (trickle spec 7.3, 7.4).
pub const PAUSE: Duration = Duration::from_millis(250);

/// The longest pause that repeated failures lead to (trickle spec 7.4).
pub const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long an answer to a DELETE is waited for (trickle spec 6.2-8).
pub const DELETE_WITHIN: Duration = Duration::from_secs(2);

/// A segment's number within its channel: between 0 and 2^63 - 1, since peers hold it in a signed integer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(u64);

impl Seq {
    /// The first of a new channel.
    pub const ZERO: Self = Self(0);
    /// The last that peers can represent.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The seq of that number; a larger one than [`Seq::MAX`] becomes that.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        if number > Self::MAX.0 {
            Self::MAX
        } else {
            Self(number)
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number after; [`Seq::MAX`] has itself.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.0 + 1)
    }

    /// The number `count` further on.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self::new(self.0.saturating_add(count))
    }

    /// The number `count` before, or zero.
    #[must_use]
    pub const fn minus(self, count: u64) -> Self {
        Self(self.0.saturating_sub(count))
    }
}

impl From<u32> for Seq {
    fn from(number: u32) -> Self {
        Self(u64::from(number))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seq {}", self.0)
    }
}

/// Where a reader begins (trickle spec 7.2-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The segment that begins next: index -1.
    Next,
    /// The segment before the head, from its first byte: index -2, the lowest latency to a first picture.
    Current,
    /// The segment with this number.
    At(Seq),
}

impl fmt::Display for Start {
    /// The number as the index in a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Next => f.write_str("-1"),
            Self::Current => f.write_str("-2"),
            Self::At(seq) => fmt::Display::fmt(seq, f),
        }
    }
}

/// How a machine of this room ended; the last event it ever tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// Our own side closed the machine.
    Closed,
    /// The channel is over: it was deleted or swept.
    EndOfStream,
    /// The machine could not go on.
    Failed(Failure),
}

/// A channel's media type. Compares without regard to case, since peers write `video/MP2T` and `video/mp2t`.
#[derive(Clone)]
pub struct ContentType(Arc<str>);

impl ContentType {
    /// MPEG-TS, the type of video channels.
    pub const MPEG_TS: &'static str = "video/MP2T";
    /// The type of one JSON object per segment.
    pub const JSON: &'static str = "application/json";
    /// JSON lines.
    pub const JSON_LINES: &'static str = "application/jsonl";

    /// The type of that name; may be empty, as servers' channels may.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ContentType {
    fn default() -> Self {
        Self::new("")
    }
}

impl From<&str> for ContentType {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl PartialEq for ContentType {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for ContentType {}

impl PartialEq<str> for ContentType {
    fn eq(&self, other: &str) -> bool {
        self.0.eq_ignore_ascii_case(other)
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
