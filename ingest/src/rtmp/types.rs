//! Everything that a listener is told, and that it tells.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::Time;
use livepeer_core::wire::entry::Publication;
use livepeer_media::flv::{self, Refused};
use livepeer_media::frame::{AccessUnit, Audio};

use super::messages::BadPeer;

/// How long a stream waits for its publisher to come back.
pub const HOLD: Duration = Duration::from_secs(10);

/// Settings of an operator.
#[derive(Clone, Debug)]
pub struct Config {
    /// Applications that are taken; the first part of the path.
    pub apps: Vec<String>,
    /// Whether a second publisher of a name takes the stream over. Otherwise it is refused as long as the first sends.
    pub takeover: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            apps: vec!["live".to_owned(), "stream".to_owned()],
            takeover: true,
        }
    }
}

/// Names a connection; the driver counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names a stream, over all its publishers. A stream that ended and one of the same name that comes later are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) u64);

/// A fact from outside.
#[derive(Clone, Debug)]
pub enum Input {
    /// Nothing but time has passed.
    Tick,
    /// A peer connected.
    Opened(ConnectionId, IpAddr),
    /// Bytes came.
    Data(ConnectionId, Bytes),
    /// The connection is over.
    Closed(ConnectionId),
}

/// An output of the machine.
#[derive(Debug)]
pub enum Output {
    /// Send these bytes.
    Write(ConnectionId, Bytes),
    /// Close the connection once all is sent. Nothing more is said of it or taken from it.
    Close(ConnectionId),
    /// Know this.
    Event(Event),
    /// Drained. Send [`Input::Tick`] at that time, if no other input comes before it; `None` waits for input only.
    Idle(Option<Time>),
}

/// News for the owner.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// May this be published? Answered by [`Server::admit`](super::Server::admit) or [`Server::refuse`](super::Server::refuse); without an answer it is refused.
    Asks {
        /// The connection that waits.
        connection: ConnectionId,
        /// Where it comes from.
        address: IpAddr,
        /// The request of a publisher.
        publication: Publication,
    },
    /// A stream begins; its first picture, a key frame, follows. Whether there is sound, the bridge finds out.
    Opened {
        /// The stream.
        stream: StreamId,
        /// The connection that it comes by.
        connection: ConnectionId,
        /// The request.
        publication: Publication,
    },
    /// Another connection goes on with the stream: time stamps are on another clock, and a key frame follows.
    Resumed(StreamId, ConnectionId),
    /// A picture, in the publisher's time.
    Video(StreamId, AccessUnit),
    /// A frame of sound, in the publisher's time.
    Audio(StreamId, Audio),
    /// A tag was dropped since it is damaged; pictures that follow may lack what they refer to.
    Damaged(StreamId, flv::Damaged),
    /// The publisher is gone, and may come back within [`HOLD`].
    Stalled(StreamId),
    /// The stream is over.
    Ended(StreamId, Ending),
    /// A connection is over.
    Closed(ConnectionId, Why),
}

/// Why a stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// The publisher said so.
    Deleted,
    /// The publisher did not come back.
    Gone,
    /// The publisher went on with another codec.
    CodecChanged,
    /// [`Server::stop`](super::Server::stop) was called.
    Stopped,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// The peer closed it.
    #[error("closed by the peer")]
    Peer,
    /// The publisher said that the stream is over.
    #[error("the publisher ended the stream")]
    Deleted,
    /// Too many connections, in all or from this address.
    #[error("too many connections")]
    TooMany,
    /// Too many refusals of this address within a minute.
    #[error("too many refused keys from this address")]
    Banned,
    /// There is no such application.
    #[error("no application {0:?}")]
    BadApp(String),
    /// The stream's name is not one.
    #[error("not a stream's name")]
    BadName,
    /// The owner refused it.
    #[error("refused: {0}")]
    Refused(String),
    /// Another publisher took the stream over.
    #[error("replaced by another publisher")]
    Replaced,
    /// The protocol was broken.
    #[error(transparent)]
    Bad(#[from] BadPeer),
    /// The media cannot be taken.
    #[error(transparent)]
    Media(#[from] Refused),
    /// More bytes than that state allows.
    #[error("more than {0} bytes before the stream began")]
    TooEarly(usize),
    /// More bits a second than allowed.
    #[error("too many bits a second")]
    TooFast,
    /// A wait was over.
    #[error("no {0} in time")]
    TooLate(&'static str),
    /// The owner ended it.
    #[error("stopped: {0}")]
    Stopped(String),
}
