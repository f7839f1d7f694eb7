//! The interface of an async runtime.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use livepeer_core::Time;

use crate::lock;
use crate::steering::Steering;

/// An async runtime: a clock, sockets and tasks. The adapters for tokio and smol implement it; nothing else in
/// the project knows which one runs.
pub trait Runtime: Clone + Send + Sync + Unpin + 'static {
    /// A connected TCP stream with `TCP_NODELAY` on: readers of trickle see bytes only through flushes
    /// (trickle spec 6.2-4). A write that has to wait wakes its task once there is room, even if another write went
    /// through in between (conformance `a_write_that_had_to_wait_wakes_its_task`). Shut down, it says so to the peer and
    /// goes on reading (conformance `an_exchange_that_leaves_http_carries_bytes_both_ways`).
    type Stream: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static;
    /// Waits for a point in time.
    type Sleep: Future<Output = ()> + Send + 'static;
    /// A listening TCP socket.
    type Listener: Send + Sync + 'static;
    /// A bound UDP socket.
    type Udp: Send + Sync + 'static;
    /// A connected unix socket.
    #[cfg(unix)]
    type LocalStream: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static;
    /// A listening unix socket.
    #[cfg(unix)]
    type LocalListener: Send + Sync + 'static;

    /// The time: what [`Clock`] says. It follows the wall clock and never goes back.
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

    /// The address that a listener listens on.
    ///
    /// # Errors
    /// If the system does not say.
    fn local_addr(&self, listener: &Self::Listener) -> io::Result<SocketAddr>;

    /// The next connection of a listener, and the address at its other end.
    fn accept(
        &self,
        listener: &Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// Takes over a UDP socket that is bound and does not block, such as [`bind_udp`] makes.
    ///
    /// # Errors
    /// If the system does not let the runtime watch it.
    fn take_udp(&self, socket: UdpSocket) -> io::Result<Self::Udp>;

    /// The next datagram of a socket: how long it is, and the address that it came from. A datagram longer than `into`
    /// is cut. Only one task may wait at a time.
    fn poll_receive(
        &self,
        socket: &Self::Udp,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>>;

    /// Sends a datagram now, from any task.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] while the system has no room for it, see [`Runtime::poll_sendable`]; anything else
    /// is about this datagram alone.
    fn try_send(&self, socket: &Self::Udp, datagram: &[u8], to: SocketAddr) -> io::Result<()>;

    /// Waits until the system may have room for datagrams again. Only one task may wait at a time.
    fn poll_sendable(&self, socket: &Self::Udp, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Takes over a unix socket that listens and does not block.
    ///
    /// # Errors
    /// If the system does not let the runtime watch it.
    #[cfg(unix)]
    fn take_local(
        &self,
        socket: std::os::unix::net::UnixListener,
    ) -> io::Result<Self::LocalListener>;

    /// The next connection of a unix socket.
    #[cfg(unix)]
    fn accept_local(
        &self,
        listener: &Self::LocalListener,
    ) -> impl Future<Output = io::Result<Self::LocalStream>> + Send;
}

/// Bytes that the system is asked to keep for each direction of a UDP socket: a second of 32 Mbit/s. It gives less where
/// its own limit is lower (`net.core.rmem_max` and `wmem_max` on Linux).
pub const UDP_BUFFER: usize = 4 << 20;

/// Binds a UDP socket that does not block, with room for bursts, for [`Runtime::take_udp`].
///
/// # Errors
/// If the address cannot be bound.
pub fn bind_udp(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(at)?;
    socket.set_nonblocking(true)?;
    let options = socket2::SockRef::from(&socket);
    // Both only ask: a smaller buffer loses datagrams sooner, and nothing else.
    let _ = options.set_recv_buffer_size(UDP_BUFFER);
    let _ = options.set_send_buffer_size(UDP_BUFFER);
    Ok(socket)
}

/// The time that adapters answer [`Runtime::now`] with: the wall clock, made fit for machines by `Steering`. Clones
/// are one clock.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Ticking>);

#[derive(Debug)]
struct Ticking {
    start: Instant,
    steering: Mutex<Steering>,
}

/// A timer further away than this ends early. Not every runtime's clock reaches far, and after a sleep of the machine
/// that the runtime's clock did not count, nothing is late by more than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

impl Clock {
    /// Reads the wall clock.
    #[must_use]
    pub fn start() -> Self {
        Self(Arc::new(Ticking {
            start: Instant::now(),
            steering: Mutex::new(Steering::new(wall())),
        }))
    }

    /// The time. It never goes back.
    #[must_use]
    pub fn now(&self) -> Time {
        // Read under the lock, so that readings are in order.
        let mut steering = lock(&self.0.steering);
        steering.now(self.0.start.elapsed(), wall)
    }

    /// The instant of `at` on the system's monotonic clock, at most half a minute from now.
    #[must_use]
    pub fn instant(&self, at: Time) -> Instant {
        Instant::now() + at.since(self.now()).min(LONGEST_SLEEP)
    }
}

/// The system's time; the beginning of time if it is earlier.
fn wall() -> Time {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Time::ZERO + since
}
