//! Peers that fall silent: which of them are waited for, and for how long.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, In, Out};
use livepeer_core::trickle::{ContentType, server};

use super::frames::{END_STREAM, Frames, HEADERS, RESET};
use super::pace::Paced;
use super::trickle::relay;
use super::*;
use crate::lock;
use crate::signal::{Signal, Stop};

/// How much faster time passes where minutes have to.
const FASTER: u32 = 10;

/// A relay whose links can lose everything.
struct Tunnel {
    at: SocketAddr,
    state: Arc<TunnelState>,
}

#[derive(Default)]
struct TunnelState {
    /// Ends the accepting of connections.
    stop: Signal,
    /// The signals of all connections: asked to stop, a connection carries nothing any more; stopped, it closes.
    links: Mutex<Vec<Arc<Signal>>>,
    moved: AtomicU64,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.state.stop.raise(Stop::Now);
        self.raise(Stop::Now);
    }
}

impl Tunnel {
    async fn new<R: Runtime>(runtime: &R, to: SocketAddr) -> Self {
        let listener = runtime.bind(LOOPBACK).await.expect("a free port");
        let at = runtime.local_addr(&listener).expect("it has an address");
        let state = Arc::<TunnelState>::default();
        let (inner, shared) = (runtime.clone(), Arc::clone(&state));
        runtime.spawn(async move {
            let accept = pin!(async {
                while let Ok((near, _)) = inner.accept(&listener).await {
                    let Ok(far) = inner.connect(to).await else {
                        continue;
                    };
                    let link = Arc::<Signal>::default();
                    lock(&shared.links).push(Arc::clone(&link));
                    inner.spawn(carry(near, far, link, Arc::clone(&shared)));
                }
            });
            shared.stop.unless_stopped(accept).await;
        });
        Self { at, state }
    }

    /// Lets the connections that there are carry nothing from now on; new ones do.
    fn lose(&self) {
        self.raise(Stop::Finish);
    }

    fn raise(&self, to: Stop) {
        for link in lock(&self.state.links).iter() {
            link.raise(to);
        }
    }

    /// How many connections it has accepted.
    fn accepted(&self) -> usize {
        lock(&self.state.links).len()
    }

    /// How much its last connection has carried.
    fn moved(&self) -> u64 {
        self.state.moved.load(Ordering::Relaxed)
    }
}

async fn carry<S: Read + Write + Unpin>(
    mut near: S,
    mut far: S,
    link: Arc<Signal>,
    state: Arc<TunnelState>,
) {
    let carried = relay(&mut near, &mut far, u64::MAX, &state.moved);
    if link.unless_asked(pin!(carried)).await.is_none() {
        // The sockets stay open.
        let end = std::future::pending::<()>();
        link.unless_stopped(pin!(end)).await;
    }
}

/// The status of an answer; or none if it failed.
async fn status<R: Runtime>(client: &Side<R>, request: Request) -> Option<u16> {
    let id = client.open(request);
    let mut status = None;
    loop {
        match client.handle.next().await.expect("the machine is open") {
            (of, In::Reply(reply)) if of == id => status = Some(reply.status),
            (of, In::End(_)) if of == id => return status,
            (of, In::Failed(_)) if of == id => return None,
            _ => {}
        }
    }
}

/// A server behind a tunnel, and a client whose time passes faster.
async fn behind_a_tunnel<R: Runtime>(
    runtime: &R,
) -> (Side<R>, Server<R>, Tunnel, Side<Paced<R>>, Url) {
    let (server, socket) = Side::server(runtime, None).await;
    let tunnel = Tunnel::new(runtime, socket.local_addr()).await;
    let client = Side::client(&Paced::faster(runtime, FASTER));
    let url = Url::parse(&format!("http://{}/status/204", tunnel.at)).expect("a URL");
    (server, socket, tunnel, client, url)
}

/// An exchange that heard nothing until it was given up takes the connections with it that may be as dead: the next
/// one is not sent into the same void.
pub async fn dead_connections_are_left_with_the_exchange_that_found_out<R: Runtime>(runtime: R) {
    for protocol in [HTTP1, HTTP2] {
        let (_server, _socket, tunnel, client, at) = behind_a_tunnel(&runtime).await;
        // Several at a time, so that over HTTP/1.1 several connections wait afterwards.
        let uploads = [(); 3]
            .map(|()| client.open(post(at.with_path("/sink"), Body::Stream).protocol(protocol)));
        for id in uploads {
            client.step(id, Out::End(Headers::new()));
        }
        let mut ended = 0;
        while ended < uploads.len() {
            match client.handle.next().await.expect("the machine is open").1 {
                In::End(_) => ended += 1,
                In::Failed(fault) => panic!("{fault}"),
                _ => {}
            }
        }
        tunnel.lose();
        let id = client.open(get(at.clone()).protocol(protocol));
        rest(&client.runtime, Duration::from_secs(2)).await;
        client.step(id, Out::Abort);
        // The exchange ends in a task of its own, which may run on another thread.
        rest(&client.runtime, Duration::from_secs(1)).await;
        let next = get(at).protocol(protocol);
        assert_eq!(status(&client, next).await, Some(204));
    }
}

/// An HTTP/2 connection whose peer falls silent ends by itself, so that what waits on it fails.
pub async fn a_silent_http2_connection_is_found_dead<R: Runtime>(runtime: R) {
    let (_server, _socket, tunnel, client, at) = behind_a_tunnel(&runtime).await;
    let request = get(at).protocol(HTTP2);
    assert_eq!(status(&client, request.clone()).await, Some(204));
    tunnel.lose();
    while status(&client, request.clone()).await != Some(204) {}
    assert_eq!(tunnel.accepted(), 2);
}

/// An HTTP/2 connection asks whether its peer is there also while it waits for use.
pub async fn an_idle_http2_connection_is_asked_whether_it_lives<R: Runtime>(runtime: R) {
    let (_server, _socket, tunnel, client, at) = behind_a_tunnel(&runtime).await;
    let request = get(at).protocol(HTTP2);
    assert_eq!(status(&client, request.clone()).await, Some(204));
    rest(&client.runtime, Duration::from_secs(1)).await;
    let before = tunnel.moved();
    while tunnel.moved() == before {
        rest(&client.runtime, Duration::from_millis(100)).await;
    }
    // A connection that was closed would have moved something too.
    assert_eq!(status(&client, request).await, Some(204));
    assert_eq!(tunnel.accepted(), 1);
}

/// A request that ends between two looks at its connection is not taken for a head that comes in drop by drop.
pub async fn a_connection_may_be_idle_after_any_request<R: Runtime>(runtime: R) {
    let fast = Paced::faster(&runtime, FASTER);
    let (_server, socket) = Side::server(&fast, None).await;
    let mut peer = raw(&fast, &socket).await;
    let head = "POST /sink HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n";
    peer.write(head.as_bytes())
        .await
        .expect("the server listens");
    // Looked at while it runs, it ends before the next look.
    rest(&fast, Duration::from_secs(3)).await;
    peer.write(b"rest").await.expect("the server listens");
    peer.read_to("\r\n\r\n4").await;
    rest(&fast, crate::http::HEADER_TIMEOUT + Duration::from_secs(5)).await;
    peer.write(b"GET /status/204 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("the server listens");
    peer.read_to("HTTP/1.1 204").await;
}

/// A small body is read although it was answered before it came: nobody takes the answer for an error.
pub async fn a_small_body_is_read_after_an_early_answer<R: Runtime>(runtime: R) {
    // No client is too slow for it.
    let slow = Paced::slower(&runtime, 100);
    let (_server, socket) = Side::server(&slow, None).await;
    let mut peer = raw(&slow, &socket).await;
    let head = "POST /status/404 HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n";
    peer.write(head.as_bytes())
        .await
        .expect("the server listens");
    rest(&runtime, Duration::from_millis(50)).await;
    peer.write(b"small").await.expect("the server listens");
    peer.read_to("HTTP/1.1 404").await;
    peer.write(b"GET /status/204 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("the connection is open");
    peer.read_to("HTTP/1.1 204").await;

    let peer = raw(&slow, &socket).await;
    let mut peer = Frames::ask(peer, true, "/status/404", false).await;
    peer.until(|(kind, _, _)| kind == HEADERS).await;
    peer.settle().await;
    let ended = |frames: &Frames<_>| {
        let mut heard = frames.heard.iter();
        heard.any(|(kind, flags, stream)| {
            *stream == 1 && *kind <= HEADERS && flags & END_STREAM != 0
        })
    };
    assert!(!ended(&peer), "the answer ends before its request");
    peer.body(b"small").await;
    peer.until(|(kind, flags, stream)| stream == 1 && kind <= HEADERS && flags & END_STREAM != 0)
        .await;
    peer.settle().await;
    assert!(peer.heard.iter().all(|(kind, _, _)| *kind != RESET));
}

/// A reader that takes nothing of a segment that has left the window is let go, and its connection is closed.
pub async fn a_reader_that_takes_nothing_is_let_go<R: Runtime>(runtime: R) {
    for http2 in [false, true] {
        let fast = Paced::faster(&runtime, FASTER);
        let config = server::Config {
            stall_within: Duration::from_secs(1),
            idle: Duration::from_secs(24 * 3600),
            ..server::Config::default()
        };
        let machine = server::Server::new(fast.now(), config);
        let channels = Driver::new(fast.clone()).drive(machine);
        let publish = |bytes: Bytes| {
            channels
                .with(|m, now| m.publish(now, "c", bytes))
                .expect("it is there")
        };
        channels
            .with(|m, now| m.create_channel(now, "c", ContentType::default()))
            .expect("it is new");
        let socket = Server::bind(&channels, LOOPBACK, None)
            .await
            .expect("a free port");
        // More than the system holds for a socket.
        let piece = Bytes::from(vec![0; 256 << 10]);
        let size = 256 * piece.len();
        channels.with(|m, now| {
            m.begin(now, "c").expect("it is there");
            for _ in 0..size / piece.len() {
                m.write(now, "c", piece.clone()).expect("it is open");
            }
            m.end(now, "c").expect("it is open");
        });
        let mut peer = raw(&fast, &socket).await;
        let mut held = None;
        if http2 {
            held = Some(Frames::ask(peer, false, "/ai/trickle/c/0", true).await);
        } else {
            peer.write(b"GET /ai/trickle/c/0 HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .expect("the server listens");
        }
        while channels.with(|m, _| m.stats("c").expect("it is there").guests) == 0 {
            rest(&fast, Duration::from_millis(10)).await;
        }
        for _ in 0..5 {
            publish(Bytes::from_static(b"x"));
        }
        assert_eq!(channels.with(|m, _| m.outside_bytes()), size);
        while socket.connections() > 0 {
            rest(&fast, Duration::from_millis(10)).await;
        }
        assert_eq!(channels.with(|m, _| m.outside_bytes()), 0);
        drop(held);
    }
}
