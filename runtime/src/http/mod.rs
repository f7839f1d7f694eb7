//! HTTP/1.1 and HTTP/2 over hyper, as client and as server.

mod accept;
mod body;
mod client;
mod connect;
mod connection;
pub(crate) mod convert;
pub(crate) mod io;
mod limits;
#[cfg(unix)]
mod local;
mod pool;
mod seats;
mod serve;
mod server;
mod timer;
mod tunnel;
mod turns;
mod unread;

use std::future::Future;
use std::time::Duration;

pub use accept::HANDSHAKE_TIMEOUT;
pub(crate) use client::Client;
pub use io::FuturesIo;
pub use limits::{HEADER_TIMEOUT, IDLE_TIMEOUT, Limits, MAX_CONNECTIONS};
#[cfg(unix)]
pub use local::LocalSocket;
pub use seats::MAX_SEATS;
pub(crate) use server::Listener;
pub use server::{MAX_STREAMS, Server};
pub use unread::{EARLY_BODY_BYTES, EARLY_BODY_WITHIN};

use crate::rt::Runtime;

/// The largest head of a message, request or reply. Payment headers come to 58 kB (payments spec 4.4).
pub const MAX_HEAD_BYTES: usize = 128 << 10;
/// The most header fields of a message.
pub const MAX_HEADERS: usize = 128;
/// At most this many bytes are read, or gathered for writing, at a time on a client's connection.
pub const CLIENT_BUF_BYTES: usize = 256 << 10;
/// The limit of reading and gathering on a server's connection: its readers are more often slower than the server.
pub const SERVER_BUF_BYTES: usize = 512 << 10;
/// HTTP/2: how much of a stream's body may be on its way to us.
pub const STREAM_WINDOW: u32 = 1 << 20;
/// HTTP/2: how much of all streams' bodies may be on its way to us.
pub const CONNECTION_WINDOW: u32 = 4 << 20;
/// HTTP/2: how much of a stream's body may be on its way to us on a connection that streamed answers share, so that
/// readers that stop hold up nobody else's.
pub const SHARED_STREAM_WINDOW: u32 = 64 << 10;
/// HTTP/2: how often a connection that hears nothing asks whether its peer is there, also while it waits for use.
pub const PING_EVERY: Duration = Duration::from_secs(20);
/// HTTP/2: how long the peer may take to answer that. A connection whose peer does not is closed.
pub const PING_WITHIN: Duration = Duration::from_secs(10);

type ClientIo<R> = io::Io<io::Wire<<R as Runtime>::Stream>>;

/// Lets hyper spawn the tasks of HTTP/2 streams on our runtime.
#[derive(Clone)]
pub(crate) struct Executor<R>(pub(crate) R);

impl<R: Runtime, F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor<R> {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
