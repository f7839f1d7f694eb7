//! UDP, as a runtime carries it.

use std::future::poll_fn;
use std::io;

use super::*;
use crate::rt::bind_udp;

/// A socket in the hands of the scenario.
struct Socket<R: Runtime> {
    runtime: R,
    udp: R::Udp,
    at: SocketAddr,
}

impl<R: Runtime> Socket<R> {
    fn new(runtime: &R) -> Self {
        let socket = bind_udp(LOOPBACK).expect("a free port");
        let at = socket.local_addr().expect("it has an address");
        let udp = runtime.take_udp(socket).expect("it can be watched");
        let runtime = runtime.clone();
        Self { runtime, udp, at }
    }

    async fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        loop {
            match self.runtime.try_send(&self.udp, datagram, to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|cx| self.runtime.poll_sendable(&self.udp, cx)).await?;
                }
                sent => return sent,
            }
        }
    }

    async fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut into = [0; 2_048];
        loop {
            let received = poll_fn(|cx| self.runtime.poll_receive(&self.udp, cx, &mut into)).await;
            // What is reported of an earlier datagram is not about this one.
            if let Ok((length, from)) = received {
                return (into[..length].to_vec(), from);
            }
        }
    }
}

/// Datagrams arrive whole, one by one and with their senders' addresses, also many at once.
pub async fn datagrams_go_both_ways<R: Runtime>(runtime: R) {
    let (one, other) = (Socket::new(&runtime), Socket::new(&runtime));
    for round in 0..20_u8 {
        // Few enough to fit into the smallest buffer.
        let sent: Vec<_> = (0..20)
            .map(|n| pattern(n * 60 + usize::from(round)))
            .collect();
        for datagram in &sent {
            one.send(datagram, other.at).await.expect("there is room");
        }
        for datagram in &sent {
            assert_eq!(other.receive().await, (datagram.clone(), one.at));
        }
        other.send(&[round], one.at).await.expect("there is room");
        assert_eq!(one.receive().await, (vec![round], other.at));
    }
}

/// A peer that is gone, an address that cannot be reached and a datagram that is too long cost nothing but themselves.
pub async fn a_datagram_that_cannot_be_sent_ends_nothing<R: Runtime>(runtime: R) {
    let (one, other, gone) = (
        Socket::new(&runtime),
        Socket::new(&runtime),
        Socket::new(&runtime).at,
    );
    for round in 0..10_u8 {
        // Whether the system says so is its own business.
        let _ = one.send(b"nobody listens", gone).await;
        let _ = one
            .send(b"nobody can be reached", ([0, 0, 0, 0], 0).into())
            .await;
        assert!(one.send(&[0; 1 << 17], other.at).await.is_err());
        other.send(&[round], one.at).await.expect("there is room");
        assert_eq!(one.receive().await, (vec![round], other.at));
        one.send(&[round], other.at).await.expect("there is room");
        assert_eq!(other.receive().await, (vec![round], one.at));
    }
}

/// A task that waits for a datagram sleeps until there is one, and leaves the socket as it was when it is dropped.
pub async fn a_task_that_waits_for_a_datagram_can_be_dropped<R: Runtime>(runtime: R) {
    let (one, other) = (Socket::new(&runtime), Socket::new(&runtime));
    for _ in 0..3 {
        let mut waiting = Box::pin(one.receive());
        poll_fn(|cx| {
            assert!(waiting.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(waiting);
        rest(&runtime, Duration::from_millis(1)).await;
    }
    other.send(b"late", one.at).await.expect("there is room");
    assert_eq!(one.receive().await.0, b"late");
}
