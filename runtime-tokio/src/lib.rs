//! The Livepeer gateway library on tokio.
//!
//! [`TokioRuntime`] needs a tokio runtime with I/O and time enabled around it; everything else is
//! `livepeer_runtime`, with this runtime filled in.
//!
//! An application needs this crate alone, and begins with [`Gateway`]:
//! [`Gateway::live_video`](api::Gateway::live_video) starts a job,
//! [`Gateway::orchestrator`](api::Gateway::orchestrator) a session with one orchestrator,
//! [`Gateway::discover`](api::Gateway::discover) a search. The rest of the protocol is [`core`], MPEG-TS is [`media`].
//! Readers and writers are those of `futures-io`: wrap those of tokio with `tokio_util::compat`.
//!
//! ```no_run
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gateway = livepeer_tokio::Gateway::new();
//! let job = gateway.live_video("noop").signer("https://signer.example");
//! let (job, mut input, mut output) = job.start().await?;
//! let clip = std::fs::read("clip.ts")?;
//! tokio::spawn(async move { input.publish_ts(&clip[..]).await });
//! while let Some((seq, segment)) = output.next_segment().await? {
//!     println!("segment {seq}: {} bytes back", segment.len());
//! }
//! job.wait().await?;
//! # Ok(()) }
//! ```
//!
//! A trickle server and a reader of one of its channels, both in this process, over a real socket:
//!
//! ```
//! use livepeer_tokio::core::trickle::{Seq, Start, server, subscriber};
//! use livepeer_tokio::Url;
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let driver = livepeer_tokio::driver();
//!
//! let relay = driver.drive(server::Server::new(driver.now(), server::Config::default()));
//! let socket = livepeer_tokio::Server::bind(&relay, "127.0.0.1:0".parse()?, None).await?;
//! relay.with(|m, now| m.create_channel(now, "greetings", Default::default()))?;
//! relay.with(|m, now| m.publish(now, "greetings", "hello".into()))?;
//!
//! let url = Url::parse(&format!("http://{}/ai/trickle/greetings", socket.local_addr()))?;
//! let start = Start::At(Seq::ZERO);
//! let reader = subscriber::Subscriber::new(driver.now(), Default::default(), url, start);
//! let reader = driver.drive(reader);
//! while let Some(event) = reader.next().await {
//!     if let subscriber::Event::Data(seq, bytes) = event {
//!         assert_eq!((seq, &bytes[..]), (Seq::ZERO, &b"hello"[..]));
//!         break;
//!     }
//! }
//! # Ok(()) }
//! ```

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use hyper_util::rt::TokioIo;
use livepeer_runtime::{Clock, Runtime};
use tokio::io::ReadBuf;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

livepeer_runtime::adapter!(TokioRuntime);

#[cfg(feature = "ingest")]
pub use livepeer_runtime::ingest;

/// A driver on the tokio runtime that runs now.
#[must_use]
pub fn driver() -> Driver {
    Driver::new(TokioRuntime::new())
}

/// How many connections may wait to be accepted, if the system allows as many: a thousand channels that begin their
/// next segments at once open more than tokio's usual 1,024, and who finds no room tries again only after a second.
const BACKLOG: u32 = 4096;

/// tokio, as found around the caller. Where there is none, such as in a destructor that runs on a thread of its own,
/// tasks go to the runtime that was there first.
#[derive(Clone, Debug)]
pub struct TokioRuntime {
    clock: Clock,
    home: Arc<OnceLock<tokio::runtime::Handle>>,
}

impl TokioRuntime {
    /// Starts the clock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: Clock::start(),
            home: Arc::new(OnceLock::new()),
        }
    }
}

impl Default for TokioRuntime {
    fn default() -> Self {
        Self::new()
    }
}

fn stream(stream: TcpStream) -> io::Result<TokioIo<TcpStream>> {
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(stream))
}

impl Runtime for TokioRuntime {
    type Stream = TokioIo<TcpStream>;
    type Sleep = tokio::time::Sleep;
    type Listener = TcpListener;
    type Udp = UdpSocket;
    #[cfg(unix)]
    type LocalStream = TokioIo<tokio::net::UnixStream>;
    #[cfg(unix)]
    type LocalListener = tokio::net::UnixListener;

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn sleep_until(&self, at: Time) -> Self::Sleep {
        tokio::time::sleep_until(self.clock.instant(at).into())
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match (tokio::runtime::Handle::try_current(), self.home.get()) {
            (Ok(here), _) => {
                self.home.get_or_init(|| here.clone());
                here.spawn(task);
            }
            (Err(_), Some(home)) => {
                // If it has ended, so has the task.
                home.spawn(task);
            }
            (Err(missing), None) => {
                panic!("a machine was driven where no tokio runtime is: {missing}")
            }
        }
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<Self::Stream> {
        stream(TcpStream::connect(to).await?)
    }

    async fn bind(&self, at: SocketAddr) -> io::Result<Self::Listener> {
        let socket = if at.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        // As `TcpListener::bind` does; elsewhere it means something else.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
        socket.listen(BACKLOG)
    }

    fn local_addr(&self, listener: &Self::Listener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    async fn accept(&self, listener: &Self::Listener) -> io::Result<(Self::Stream, SocketAddr)> {
        let (accepted, from) = listener.accept().await?;
        Ok((stream(accepted)?, from))
    }

    fn take_udp(&self, socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
        UdpSocket::from_std(socket)
    }

    fn poll_receive(
        &self,
        socket: &UdpSocket,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buffer = ReadBuf::new(into);
        let from = ready!(socket.poll_recv_from(cx, &mut buffer))?;
        Poll::Ready(Ok((buffer.filled().len(), from)))
    }

    fn try_send(&self, socket: &UdpSocket, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        socket.try_send_to(datagram, to).map(|_| ())
    }

    fn poll_sendable(&self, socket: &UdpSocket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        socket.poll_send_ready(cx)
    }

    #[cfg(unix)]
    fn take_local(
        &self,
        socket: std::os::unix::net::UnixListener,
    ) -> io::Result<Self::LocalListener> {
        tokio::net::UnixListener::from_std(socket)
    }

    #[cfg(unix)]
    async fn accept_local(&self, listener: &Self::LocalListener) -> io::Result<Self::LocalStream> {
        Ok(TokioIo::new(listener.accept().await?.0))
    }
}
