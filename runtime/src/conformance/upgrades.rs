//! Exchanges that leave HTTP.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, In, Out, Response, SWITCHING};

use super::bodies::drain;
use super::life::connections;
use super::*;

/// How many bytes go each way.
const LARGE: usize = 2 << 20;

fn asking(url: Url) -> Request {
    get(url).header("upgrade", "websocket")
}

fn granted() -> Response {
    Response::new(SWITCHING)
        .header("upgrade", "websocket")
        .body(Body::Stream)
}

/// Has a client and a server leave HTTP together; their names of the exchange.
async fn leave<R: Runtime>(client: &Side<R>, server: &Side<R>, to: Url) -> (EffectId, EffectId) {
    let ours = client.open(asking(to));
    let (theirs, request) = server.accept().await;
    assert_eq!(request.upgrade(), Some("websocket"));
    assert!(matches!(server.of(theirs).await, In::End(_)));
    server.step(theirs, Out::Reply(granted()));
    let reply = client.reply(ours).await;
    assert_eq!(
        (reply.status, reply.headers.get("upgrade")),
        (SWITCHING, Some("websocket"))
    );
    (ours, theirs)
}

/// Bytes pass both ways at once and whole, and the side that asked may end before the other.
pub async fn an_exchange_that_leaves_http_carries_bytes_both_ways<R: Runtime>(runtime: R) {
    for secure in [false, true] {
        let tls = if secure {
            tls(&identity(&runtime))
        } else {
            None
        };
        let (_server, socket) = Side::server(&runtime, tls).await;
        let client = Side::client(&runtime);
        let id = client.open(asking(url(&socket, secure, "/echo")));
        assert_eq!(client.reply(id).await.status, SWITCHING);
        let body = pattern(LARGE);
        for chunk in body.chunks(10_007) {
            client.step(id, Out::Data(Bytes::copy_from_slice(chunk)));
        }
        client.step(id, Out::End(Headers::new()));
        let (got, _) = client.rest(id).await;
        assert!(got == body, "the bytes changed on their way");
        connections(&runtime, &socket, 0).await;
    }
}

/// Bytes are flushed as they come, and one that comes with the request is not lost.
pub async fn a_client_made_by_hand_leaves_http<R: Runtime>(runtime: R) {
    let (_server, socket) = Side::server(&runtime, None).await;
    let mut peer = raw(&runtime, &socket).await;
    let head = "GET /echo HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\r\nearly";
    peer.write(head.as_bytes()).await.expect("it listens");
    let answer = peer.read_to("early").await;
    let (head, rest) = answer.split_once("\r\n\r\n").expect("a head");
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("\r\nupgrade: websocket"), "{head}");
    assert!(head.contains("\r\nconnection: upgrade"), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    assert_eq!(rest, "early");
    for text in ["a", "b", "c"] {
        peer.write(text.as_bytes()).await.expect("it listens");
        assert_eq!(peer.read_to(text).await, text);
    }
    drop(peer);
    connections(&runtime, &socket, 0).await;
}

/// A request that cannot leave HTTP, or whose wish is not granted, is a request like any other.
pub async fn a_wish_to_leave_http_that_is_not_granted_changes_nothing<R: Runtime>(runtime: R) {
    let (_server, socket) = Side::server(&runtime, None).await;
    let client = Side::client(&runtime);
    for _ in 0..2 {
        let (status, _) = client
            .fetch(asking(url(&socket, false, "/status/204")))
            .await;
        assert_eq!(status, 204);
    }
    assert_eq!(socket.connections(), 1, "the connection was used again");
    let to = asking(url(&socket, false, "/echo")).protocol(HTTP2);
    assert_eq!(client.fetch(to).await.0, 200);
    let heads = [
        ("1.1", "upgrade: websocket\r\n"),
        ("1.0", "connection: upgrade\r\nupgrade: websocket\r\n"),
        (
            "1.1",
            "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 1\r\n",
        ),
    ];
    for (version, fields) in heads {
        let mut peer = raw(&runtime, &socket).await;
        let sent = format!("GET /echo HTTP/{version}\r\nhost: x\r\n{fields}\r\nx");
        peer.write(sent.as_bytes()).await.expect("it listens");
        let answer = peer.read_to("\r\n\r\n").await;
        let status = format!("HTTP/{version} 200 ");
        assert!(answer.starts_with(&status), "{fields}: {answer}");
    }
}

/// A side that takes nothing holds the other one back, in both directions.
pub async fn bytes_beyond_http_are_held_back<R: Runtime>(runtime: R) {
    const ALL: usize = 32 << 20;
    let (server, socket) = Side::serving(&runtime, None, Habits::Tell).await;
    let client = Side::client(&runtime);
    let (ours, theirs) = leave(&client, &server, url(&socket, false, "/")).await;
    for (from, its, to, other) in [
        (&server, theirs, &client, ours),
        (&client, ours, &server, theirs),
    ] {
        to.step(other, Out::Pause);
        // One piece may have been read already.
        from.step(its, Out::Data(Bytes::from_static(b"x")));
        rest(&runtime, Duration::from_millis(20)).await;
        let mut got = drain(to);
        for _ in 0..ALL / (64 << 10) {
            from.step(its, Out::Data(Bytes::from_static(&[0; 64 << 10])));
        }
        rest(&runtime, Duration::from_millis(200)).await;
        assert_eq!(drain(to), 0, "bytes came through a pause");
        let mut sent = 0;
        while let Some((_, step)) = from.handle.try_next() {
            if let In::Sent(bytes) = step {
                sent += bytes;
            }
        }
        assert!(sent < ALL, "all of it was taken, and nobody read it");
        to.step(other, Out::Resume);
        while got < ALL + 1 {
            match to.of(other).await {
                In::Data(data) => got += data.len(),
                step => panic!("{step:?}"),
            }
        }
        assert_eq!(got, ALL + 1);
        // The last reports.
        rest(&runtime, Duration::from_millis(20)).await;
        while from.handle.try_next().is_some() {}
    }
}

/// Giving such an exchange up closes its socket, whichever side does.
pub async fn an_abort_closes_a_connection_that_left_http<R: Runtime>(runtime: R) {
    for by_client in [true, false] {
        let (server, socket) = Side::serving(&runtime, None, Habits::Tell).await;
        let client = Side::client(&runtime);
        let (ours, theirs) = leave(&client, &server, url(&socket, false, "/")).await;
        let (leaves, its, other, hears) = match by_client {
            true => (&client, ours, &server, theirs),
            false => (&server, theirs, &client, ours),
        };
        leaves.step(its, Out::Abort);
        assert!(matches!(other.of(hears).await, In::End(_) | In::Failed(_)));
        other.step(hears, Out::Abort);
        connections(&runtime, &socket, 0).await;
    }
    // So does dropping the machine.
    let (server, socket) = Side::serving(&runtime, None, Habits::Tell).await;
    let client = Side::client(&runtime);
    let (_, theirs) = leave(&client, &server, url(&socket, false, "/")).await;
    drop(client);
    assert!(matches!(
        server.of(theirs).await,
        In::End(_) | In::Failed(_)
    ));
    drop(server);
}

/// A peer that leaves HTTP unasked is told apart, and a machine that would gets a status sent instead.
pub async fn nobody_leaves_http_unasked<R: Runtime>(runtime: R) {
    let (listener, url) = listen(&runtime, "http").await;
    let client = Side::client(&runtime);
    let id = client.open(get(url));
    let mut peer = Raw(runtime.accept(&listener).await.expect("a connection").0);
    peer.read_to("\r\n\r\n").await;
    peer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nxyz")
        .await
        .expect("it listens");
    let fault = client.fault(id).await;
    assert!(matches!(fault, Fault::Protocol(_)), "{fault:?}");
    let (server, socket) = Side::serving(&runtime, None, Habits::Tell).await;
    let id = client.open(get(super::url(&socket, false, "/")));
    let (theirs, _) = server.accept().await;
    server.step(theirs, Out::Reply(granted()));
    assert_eq!(client.reply(id).await.status, 500);
}
