//! A clock that runs at another pace, for scenarios about minutes, or about what must not depend on time at all.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::task::{Context, Poll};

use livepeer_core::Time;

use crate::rt::Runtime;

/// A runtime whose time passes `faster` times as fast as it does, and `slower` times as slowly.
#[derive(Clone)]
pub(super) struct Paced<R> {
    inner: R,
    epoch: Time,
    faster: u32,
    slower: u32,
}

impl<R: Runtime> Paced<R> {
    pub(super) fn faster(inner: &R, faster: u32) -> Self {
        Self {
            inner: inner.clone(),
            epoch: inner.now(),
            faster,
            slower: 1,
        }
    }

    pub(super) fn slower(inner: &R, slower: u32) -> Self {
        Self {
            slower,
            ..Self::faster(inner, 1)
        }
    }
}

impl<R: Runtime> Runtime for Paced<R> {
    type Stream = R::Stream;
    type Sleep = R::Sleep;
    type Listener = R::Listener;
    type Udp = R::Udp;
    #[cfg(unix)]
    type LocalStream = R::LocalStream;
    #[cfg(unix)]
    type LocalListener = R::LocalListener;

    fn now(&self) -> Time {
        self.epoch + self.inner.now().since(self.epoch) * self.faster / self.slower
    }

    fn sleep_until(&self, at: Time) -> R::Sleep {
        let span = at.since(self.epoch) * self.slower / self.faster;
        self.inner.sleep_until(self.epoch + span)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.spawn(task);
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.inner.resolve(host, port).await
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<R::Stream> {
        self.inner.connect(to).await
    }

    async fn bind(&self, at: SocketAddr) -> io::Result<R::Listener> {
        self.inner.bind(at).await
    }

    fn local_addr(&self, listener: &R::Listener) -> io::Result<SocketAddr> {
        self.inner.local_addr(listener)
    }

    async fn accept(&self, listener: &R::Listener) -> io::Result<(R::Stream, SocketAddr)> {
        self.inner.accept(listener).await
    }

    fn take_udp(&self, socket: UdpSocket) -> io::Result<R::Udp> {
        self.inner.take_udp(socket)
    }

    fn poll_receive(
        &self,
        socket: &R::Udp,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        self.inner.poll_receive(socket, cx, into)
    }

    fn try_send(&self, socket: &R::Udp, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        self.inner.try_send(socket, datagram, to)
    }

    fn poll_sendable(&self, socket: &R::Udp, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_sendable(socket, cx)
    }

    #[cfg(unix)]
    fn take_local(&self, socket: std::os::unix::net::UnixListener) -> io::Result<R::LocalListener> {
        self.inner.take_local(socket)
    }

    #[cfg(unix)]
    async fn accept_local(&self, listener: &R::LocalListener) -> io::Result<R::LocalStream> {
        self.inner.accept_local(listener).await
    }
}
