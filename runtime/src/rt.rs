//! What an async runtime has to offer.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use livepeer_core::Time;

/// An async runtime: a clock, sockets and tasks. The adapters for tokio and smol implement it; nothing else in
/// the project knows which one runs.
pub trait Runtime: Clone + Send + Sync + Unpin + 'static {
    /// A connected TCP stream with `TCP_NODELAY` on: readers of trickle see bytes only through flushes
    /// (trickle spec 6.2-4).
    type Stream: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static;
    /// Waits for a point in time.
    type Sleep: Future<Output = ()> + Send + 'static;
    /// A listening TCP socket.
    type Listener: Send + Sync + 'static;

    /// The time: read from the wall once, when the runtime was made, and monotonic from there.
    fn now(&self) -> Time;

    /// A future that ends at `at` or soon after. It may end early; callers look at the clock.
    fn sleep_until(&self, at: Time) -> Self::Sleep;

    /// Runs `task` to its end in the background.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// The addresses of a host name, best first. `host` may be an address; IPv6 comes without brackets.
    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    /// Connects to one address.
    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Listens on an address; port 0 picks a free one.
    fn bind(&self, at: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// Where a listener listens.
    ///
    /// # Errors
    /// If the system does not say.
    fn local_addr(&self, listener: &Self::Listener) -> io::Result<SocketAddr>;

    /// The next connection of a listener, and the address at its other end.
    fn accept(
        &self,
        listener: &Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

/// A wall clock that is read once and never goes back: what adapters answer [`Runtime::now`] with.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Time,
    start: Instant,
}

/// A timer further away than this ends early, because not every runtime's clock reaches further.
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 3600);

impl Clock {
    /// Reads the wall clock.
    #[must_use]
    pub fn start() -> Self {
        let epoch = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            epoch: Time::ZERO + epoch,
            start: Instant::now(),
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.epoch + self.start.elapsed()
    }

    /// The same point in time on the system's monotonic clock, at most a day from now.
    #[must_use]
    pub fn instant(&self, at: Time) -> Instant {
        let now = Instant::now();
        let wait = at.since(self.epoch + (now - self.start));
        now + wait.min(LONGEST_SLEEP)
    }
}
