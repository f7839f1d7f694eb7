//! Bodies: streaming, flushing, pressure, and what heads may look like.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, In, Out, Response};

use super::*;
use crate::driver::MAX_EVENTS;

/// How large the bodies of these scenarios are.
const LARGE: usize = 3 << 20;

/// A request body streamed in many pieces arrives in order and whole, over TLS with a pin.
pub async fn a_streamed_upload_arrives_whole_over_tls<R: Runtime>(runtime: R) {
    let identity = identity(&runtime);
    for protocol in [HTTP1, HTTP2] {
        let (server, socket) = Side::serving(&runtime, tls(&identity), Habits::Tell).await;
        let client = Side::client(&runtime);
        let request = post(url(&socket, true, "/up"), Body::Stream).protocol(protocol);
        let ours = client.open(request);
        let body = pattern(LARGE);
        for (i, chunk) in body.chunks(10_007).enumerate() {
            client.step(ours, Out::Data(Bytes::copy_from_slice(chunk)));
            // Now and then the queue runs dry.
            if i % 64 == 0 {
                rest(&runtime, Duration::from_millis(2)).await;
            }
        }
        client.step(ours, Out::End(Headers::new()));
        let (theirs, request) = server.accept().await;
        assert_eq!(request.method, Method::Post);
        assert_eq!(request.url.path(), "/up");
        assert_eq!(request.protocol, protocol);
        let (got, _) = server.rest(theirs).await;
        assert!(got == body, "the body changed on its way");
        server.step(theirs, Out::Reply(Response::new(204)));
        assert_eq!(client.reply(ours).await.status, 204);
        assert!(client.rest(ours).await.0.is_empty());
        let pin = client
            .handle
            .driver()
            .pins()
            .get(&url(&socket, true, "/").authority());
        assert_eq!(pin, Some(identity.sha256()));
    }
}

/// A reply streamed in many pieces arrives in order and whole, over TLS with a pin.
pub async fn a_streamed_download_arrives_whole_over_tls<R: Runtime>(runtime: R) {
    let identity = identity(&runtime);
    for protocol in [HTTP1, HTTP2] {
        let (server, socket) = Side::serving(&runtime, tls(&identity), Habits::Tell).await;
        let client = Side::client(&runtime);
        let ours = client.open(get(url(&socket, true, "/down")).protocol(protocol));
        let (theirs, _) = server.accept().await;
        assert!(matches!(server.of(theirs).await, In::End(_)));
        let head = Response::new(200)
            .header("lp-trickle-seq", "7")
            .body(Body::Stream);
        server.step(theirs, Out::Reply(head));
        let body = pattern(LARGE);
        for chunk in body.chunks(70_001) {
            server.step(theirs, Out::Data(Bytes::copy_from_slice(chunk)));
        }
        server.step(theirs, Out::End(Headers::new()));
        let reply = client.reply(ours).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.headers.get("lp-trickle-seq"), Some("7"));
        assert!(
            client.rest(ours).await.0 == body,
            "the body changed on its way"
        );
    }
}

/// The reply streams while the request still does.
pub async fn both_directions_stream_at_once_over_every_protocol<R: Runtime>(runtime: R) {
    for secure in [false, true] {
        let tls = if secure {
            tls(&identity(&runtime))
        } else {
            None
        };
        let (_server, socket) = Side::server(&runtime, tls).await;
        for protocol in [HTTP1, HTTP2] {
            let client = Side::client(&runtime);
            let whole = Bytes::from(pattern(100_000));
            let pieces = [whole.slice(..1), whole.slice(1..90_000), Bytes::new()];
            let pieces = [&pieces[..], &[whole.slice(90_000..)]].concat();
            for body in [Body::Full(whole), Body::Pieces(pieces)] {
                let to = url(&socket, secure, "/sink");
                let (status, text) = client.fetch(post(to, body).protocol(protocol)).await;
                assert_eq!((status, text), (200, b"100000".to_vec()));
            }
        }
    }
}

/// A call as gRPC makes it: a framed message there, one back, and the status after it.
pub async fn a_unary_call_over_http2_has_trailers<R: Runtime>(runtime: R) {
    let (_server, socket) = Side::server(&runtime, tls(&identity(&runtime))).await;
    let client = Side::client(&runtime);
    let call = post(
        url(&socket, true, "/grpc"),
        Body::Full(Bytes::from_static(b"\0\0\0\0\x02hi")),
    )
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .protocol(HTTP2);
    let id = client.open(call);
    let reply = client.reply(id).await;
    assert_eq!(reply.headers.get("grpc-status"), None);
    let (body, trailers) = client.rest(id).await;
    assert_eq!(body, b"7");
    assert_eq!(trailers.get("grpc-status"), Some("0"));
}

/// A server that has heard enough answers before the request is over.
pub async fn an_early_reply_is_delivered_while_the_upload_goes_on<R: Runtime>(runtime: R) {
    let (_server, socket) = Side::server(&runtime, None).await;
    for protocol in [HTTP1, HTTP2] {
        let client = Side::client(&runtime);
        let id = client.open(post(url(&socket, false, "/early"), Body::Stream).protocol(protocol));
        client.step(id, Out::Data(Bytes::from_static(b"first")));
        assert_eq!(client.reply(id).await.status, 200);
        // Nobody listens any more; that harms nobody.
        client.step(id, Out::Data(Bytes::from_static(b"second")));
        client.step(id, Out::End(Headers::new()));
        assert_eq!(client.rest(id).await.0, b"enough");
    }
}

/// Even if the server resets the connection under an upload at full speed.
pub async fn an_early_reply_survives_the_reset_that_follows_it<R: Runtime>(runtime: R) {
    let (listener, url) = listen(&runtime, "http").await;
    for _ in 0..10 {
        let client = Side::client(&runtime);
        let id = client.open(post(url.clone(), Body::Stream));
        for _ in 0..64 {
            client.step(id, Out::Data(Bytes::from(pattern(64 << 10))));
        }
        let mut peer = Raw(runtime.accept(&listener).await.expect("a connection").0);
        peer.read_to("\r\n\r\n").await;
        peer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ngone")
            .await
            .expect("the client listens");
        // With unread bytes in its buffer, closing the socket resets the connection.
        drop(peer);
        assert_eq!(client.reply(id).await.status, 404);
        assert_eq!(client.rest(id).await.0, b"gone");
    }
}

/// A server that answers early listens on for a while, so that its answer arrives and no reset in its place.
pub async fn an_early_reply_of_ours_is_followed_by_no_reset<R: Runtime>(runtime: R) {
    for answered_before in [false, true] {
        let (_server, socket) = Side::server(&runtime, None).await;
        let mut peer = raw(&runtime, &socket).await;
        let head = "POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 400000\r\n\r\nfirst";
        peer.write(head.as_bytes())
            .await
            .expect("the server listens");
        if answered_before {
            peer.read_to("enough").await;
        }
        peer.write(&pattern(300_000))
            .await
            .expect("the server listens");
        let mut answer = Vec::new();
        loop {
            let more = peer.read().await.expect("no reset");
            if more.is_empty() {
                break;
            }
            answer.extend_from_slice(&more);
        }
        if !answered_before {
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(answer.ends_with("enough"), "{answer}");
        }
    }
}

/// Bytes reach the peer one by one, without waiting for more.
pub async fn every_chunk_is_flushed_as_it_comes<R: Runtime>(runtime: R) {
    for protocol in [HTTP1, HTTP2] {
        for secure in [false, true] {
            let tls = if secure {
                tls(&identity(&runtime))
            } else {
                None
            };
            let (server, socket) = Side::serving(&runtime, tls, Habits::Tell).await;
            let client = Side::client(&runtime);
            let ours =
                client.open(post(url(&socket, secure, "/"), Body::Stream).protocol(protocol));
            let (theirs, _) = server.accept().await;
            for i in 0..20_u8 {
                client.step(ours, Out::Data(vec![i].into()));
                match server.of(theirs).await {
                    In::Data(data) => assert_eq!(data[..], [i]),
                    step => panic!("not data: {step:?}"),
                }
            }
            client.step(ours, Out::End(Headers::new()));
            assert!(matches!(server.of(theirs).await, In::End(_)));
            server.step(theirs, Out::Reply(Response::new(200).body(Body::Stream)));
            client.reply(ours).await;
            for i in 0..20_u8 {
                server.step(theirs, Out::Data(vec![i].into()));
                match client.of(ours).await {
                    In::Data(data) => assert_eq!(data[..], [i]),
                    step => panic!("not data: {step:?}"),
                }
            }
            server.step(theirs, Out::End(Headers::new()));
            assert!(matches!(client.of(ours).await, In::End(_)));
        }
    }
}

/// How many body bytes wait among the events.
pub(super) fn drain<R: Runtime>(side: &Side<R>) -> usize {
    let mut bytes = 0;
    while let Some((_, step)) = side.handle.try_next() {
        if let In::Data(data) = step {
            bytes += data.len();
        }
    }
    bytes
}

/// `Pause` holds one body and not the other; `Resume` lets the rest through.
pub async fn pause_stops_one_exchange_and_resume_goes_on<R: Runtime>(runtime: R) {
    let (_server, socket) = Side::server(&runtime, None).await;
    for protocol in [HTTP1, HTTP2] {
        let client = Side::client(&runtime);
        let path = format!("/source/{}", 64 << 20);
        let id = client.open(get(url(&socket, false, &path)).protocol(protocol));
        client.reply(id).await;
        client.step(id, Out::Pause);
        // What was already read may still come.
        let mut before = 0;
        loop {
            rest(&runtime, Duration::from_millis(50)).await;
            match drain(&client) {
                0 => break,
                late => before += late,
            }
        }
        rest(&runtime, Duration::from_millis(150)).await;
        assert_eq!(drain(&client), 0, "bytes came through a pause");
        let other = client.open(get(url(&socket, false, "/source/1000")).protocol(protocol));
        client.reply(other).await;
        assert_eq!(client.rest(other).await.0.len(), 1000);
        client.step(id, Out::Resume);
        let (body, _) = client.rest(id).await;
        assert_eq!(before + body.len(), 64 << 20);
    }
}

/// While the owner does not look, at most `MAX_EVENTS` events wait, and the server is held back too.
pub async fn nobody_reading_events_bounds_memory<R: Runtime>(runtime: R) {
    const ALL: usize = 256 << 20;
    for protocol in [HTTP1, HTTP2] {
        let (_server, socket) = Side::server(&runtime, None).await;
        let client = Side::client(&runtime);
        let id =
            client.open(get(url(&socket, false, &format!("/source/{ALL}"))).protocol(protocol));
        rest(&runtime, Duration::from_millis(300)).await;
        let mut waiting = 0;
        let mut seen = 0;
        while let Some((_, step)) = client.handle.try_next() {
            waiting += 1;
            if let In::Data(data) = step {
                seen += data.len();
            }
            if waiting == MAX_EVENTS {
                break;
            }
        }
        assert!(seen <= MAX_EVENTS * crate::http::CLIENT_BUF_BYTES);
        assert!(seen < ALL / 4, "{seen} bytes came unasked");
        // With somebody to look, the rest comes.
        let (body, _) = loop {
            match client.of(id).await {
                In::Data(data) => seen += data.len(),
                In::End(trailers) => break ((), trailers),
                In::Reply(_) => {}
                step => panic!("{step:?}"),
            }
        };
        let () = body;
        assert_eq!(seen, ALL);
    }
}

/// A machine learns how much of its body is out, and nothing while the peer does not read.
pub async fn sent_follows_what_the_peer_takes<R: Runtime>(runtime: R) {
    let (listener, url) = listen(&runtime, "http").await;
    let client = Side::client(&runtime);
    let id = client.open(post(url, Body::Stream));
    const CHUNKS: usize = 1024;
    for _ in 0..CHUNKS {
        client.step(id, Out::Data(Bytes::from_static(&[0; 64 << 10])));
    }
    let mut peer = Raw(runtime.accept(&listener).await.expect("a connection").0);
    let mut sent = 0;
    let mut count = |client: &Side<R>| {
        while let Some((_, step)) = client.handle.try_next() {
            match step {
                In::Sent(bytes) => sent += bytes,
                step => panic!("{step:?}"),
            }
        }
        sent
    };
    // Until the socket is full: no more is sent for a while.
    let mut unread = 0;
    loop {
        rest(&runtime, Duration::from_millis(100)).await;
        match count(&client) {
            more if more > unread || more == 0 => unread = more,
            _ => break,
        }
    }
    assert!(unread < CHUNKS << 15, "{unread} bytes sent, none read");
    // Now the peer reads.
    let mut got = 0;
    while got < CHUNKS << 16 {
        got += peer.read().await.expect("more").len();
        count(&client);
    }
    while count(&client) < CHUNKS << 16 {
        rest(&runtime, Duration::from_millis(5)).await;
    }
    assert_eq!(count(&client), CHUNKS << 16);
}

/// A write that had to wait wakes its task once there is room, also if another one went through meanwhile: hyper, told to
/// wait, tries once more before it returns, and goes on only when it is woken.
pub async fn a_write_that_had_to_wait_wakes_its_task<R: Runtime>(runtime: R) {
    #[derive(Default)]
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }
    let listener = std::net::TcpListener::bind(LOOPBACK).expect("a free port");
    let at = listener.local_addr().expect("it has an address");
    let mut ours = runtime.connect(at).await.expect("it listens");
    let (mut peer, _) = listener.accept().expect("a connection");
    peer.set_nonblocking(true).expect("a socket");
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let mut some = vec![0; 1 << 20];
    for _ in 0..20 {
        loop {
            woken.0.store(false, Ordering::Release);
            if Pin::new(&mut ours).poll_write(&mut cx, &some).is_pending() {
                break;
            }
        }
        // Nothing else runs here between the peer's read and the second write, if that needs nobody's help.
        loop {
            let _ = std::io::Read::read(&mut peer, &mut some);
            if Pin::new(&mut ours)
                .poll_write(&mut cx, b"little")
                .is_ready()
            {
                break;
            }
            rest(&runtime, Duration::from_millis(1)).await;
        }
        // A third of the buffer has to be free before there is room.
        while !woken.0.load(Ordering::Acquire) {
            let _ = std::io::Read::read(&mut peer, &mut some);
            rest(&runtime, Duration::from_millis(1)).await;
        }
    }
}

/// Payment headers come to 58 kB; heads beyond the bound are refused with a status.
pub async fn large_heads_pass_and_larger_ones_are_refused<R: Runtime>(runtime: R) {
    let (_server, socket) = Side::server(&runtime, None).await;
    for protocol in [HTTP1, HTTP2] {
        let client = Side::client(&runtime);
        let request = |size: usize| {
            post(url(&socket, false, "/sink"), Body::Empty)
                .header("livepeer-payment", "x".repeat(size))
                .protocol(protocol)
        };
        assert_eq!(client.fetch(request(60_000)).await.0, 200);
        let id = client.open(request(crate::http::MAX_HEAD_BYTES + 1));
        match client.of(id).await {
            In::Reply(reply) => assert_eq!(reply.status, 431),
            In::Failed(_) => {}
            step => panic!("{step:?}"),
        }
    }
}

/// 470 and its like.
pub async fn unusual_statuses_pass<R: Runtime>(runtime: R) {
    let (_server, socket) = Side::server(&runtime, None).await;
    for protocol in [HTTP1, HTTP2] {
        let client = Side::client(&runtime);
        for status in [200, 404, 470, 480, 482, 503] {
            let path = format!("/status/{status}");
            let (got, body) = client
                .fetch(get(url(&socket, false, &path)).protocol(protocol))
                .await;
            assert_eq!((got, body.len()), (status, 0));
        }
    }
    let mut peer = raw(&runtime, &socket).await;
    peer.write(b"GET /status/470 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("the server listens");
    let head = peer.read_to("\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 470 status code 470\r\n"),
        "{head}"
    );
}
