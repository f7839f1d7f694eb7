//! The Livepeer gateway library on smol.
//!
//! [`SmolRuntime`] runs its tasks on smol's global executor; everything else is `livepeer_runtime`, with this
//! runtime filled in.
//!
//! An application needs this crate alone, and begins with [`Gateway`]:
//! [`Gateway::live_video`](api::Gateway::live_video) starts a job,
//! [`Gateway::orchestrator`](api::Gateway::orchestrator) a session with one orchestrator,
//! [`Gateway::discover`](api::Gateway::discover) a search. The rest of the protocol is [`core`], MPEG-TS is [`media`].

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use livepeer_runtime::http::FuturesIo;
use livepeer_runtime::{Clock, Runtime};
use smol::io::{AsyncRead, AsyncWrite};
use smol::{Async, Timer};

livepeer_runtime::adapter!(SmolRuntime);

#[cfg(feature = "ingest")]
pub use livepeer_runtime::ingest;

/// A driver on smol's global executor.
#[must_use]
pub fn driver() -> Driver {
    Driver::new(SmolRuntime::new())
}

/// smol's global executor and reactor.
#[derive(Clone, Debug)]
pub struct SmolRuntime {
    clock: Clock,
}

impl SmolRuntime {
    /// Starts the clock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: Clock::start(),
        }
    }
}

impl Default for SmolRuntime {
    fn default() -> Self {
        Self::new()
    }
}

/// A timer without its reading.
#[derive(Debug)]
pub struct Sleep(Timer);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}

/// A socket as smol's reactor has it, whose write side closes when it is told to: the reactor alone would only flush it,
/// and a peer would wait for the end of what we say (`an_exchange_that_leaves_http_carries_bytes_both_ways`).
#[derive(Debug)]
pub struct Socket<S>(Async<S>);

/// A socket whose write side can be closed.
trait ShutDown {
    fn shut_down(&self) -> io::Result<()>;
}

impl ShutDown for TcpStream {
    fn shut_down(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

#[cfg(unix)]
impl ShutDown for UnixStream {
    fn shut_down(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl<S> AsyncRead for Socket<S>
where
    Async<S>: AsyncRead + Unpin,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: ShutDown> AsyncWrite for Socket<S>
where
    Async<S>: AsyncWrite + Unpin,
{
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.0.get_ref().shut_down() {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            closed => closed,
        })
    }
}

/// A socket as smol's reactor has it, not as `smol::net` wraps it.
///
/// A `smol::net::TcpStream` forgets its waker as soon as a write succeeds. hyper, told to wait by one write, tries
/// another before it returns, and counts on being woken even if that one went through: an upload to a peer that read
/// between the two would stand still for ever (`sent_follows_what_the_peer_takes`).
fn stream(stream: Async<TcpStream>) -> io::Result<FuturesIo<Socket<TcpStream>>> {
    stream.get_ref().set_nodelay(true)?;
    Ok(FuturesIo(Socket(stream)))
}

impl Runtime for SmolRuntime {
    type Stream = FuturesIo<Socket<TcpStream>>;
    type Sleep = Sleep;
    type Listener = Async<TcpListener>;
    type Udp = Async<UdpSocket>;
    #[cfg(unix)]
    type LocalStream = FuturesIo<Socket<UnixStream>>;
    #[cfg(unix)]
    type LocalListener = Async<UnixListener>;

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn sleep_until(&self, at: Time) -> Sleep {
        Sleep(Timer::at(self.clock.instant(at)))
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        smol::spawn(task).detach();
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        smol::net::resolve((host, port)).await
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<Self::Stream> {
        stream(Async::<TcpStream>::connect(to).await?)
    }

    async fn bind(&self, at: SocketAddr) -> io::Result<Self::Listener> {
        Async::<TcpListener>::bind(at)
    }

    fn local_addr(&self, listener: &Self::Listener) -> io::Result<SocketAddr> {
        listener.get_ref().local_addr()
    }

    async fn accept(&self, listener: &Self::Listener) -> io::Result<(Self::Stream, SocketAddr)> {
        let (accepted, from) = listener.accept().await?;
        Ok((stream(accepted)?, from))
    }

    fn take_udp(&self, socket: UdpSocket) -> io::Result<Async<UdpSocket>> {
        Async::new(socket)
    }

    fn poll_receive(
        &self,
        socket: &Async<UdpSocket>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        loop {
            match socket.get_ref().recv_from(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(socket.poll_readable(cx))?;
                }
                received => return Poll::Ready(received),
            }
        }
    }

    fn try_send(
        &self,
        socket: &Async<UdpSocket>,
        datagram: &[u8],
        to: SocketAddr,
    ) -> io::Result<()> {
        socket.get_ref().send_to(datagram, to).map(|_| ())
    }

    fn poll_sendable(
        &self,
        socket: &Async<UdpSocket>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        socket.poll_writable(cx)
    }

    #[cfg(unix)]
    fn take_local(&self, socket: UnixListener) -> io::Result<Self::LocalListener> {
        Async::new(socket)
    }

    #[cfg(unix)]
    async fn accept_local(&self, listener: &Self::LocalListener) -> io::Result<Self::LocalStream> {
        Ok(FuturesIo(Socket(listener.accept().await?.0)))
    }
}
