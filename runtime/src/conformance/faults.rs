//! Peers that are not what they should be.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, In, Out, Response};

use super::*;

/// A refused connection and an unknown name are told apart.
pub async fn refused_connections_and_unknown_names_are_told_apart<R: Runtime>(runtime: R) {
    let (listener, nobody) = listen(&runtime, "http").await;
    drop(listener);
    for protocol in [HTTP1, HTTP2] {
        let client = Side::client(&runtime);
        let id = client.open(get(nobody.clone()).protocol(protocol));
        let fault = client.fault(id).await;
        assert!(
            matches!(&fault, Fault::Connect(why) if why.contains(&nobody.authority())),
            "{fault}"
        );
        let unknown = Url::parse("http://no-such-host.invalid:1/").expect("a URL");
        let id = client.open(get(unknown).protocol(protocol));
        let fault = client.fault(id).await;
        assert!(
            matches!(&fault, Fault::Resolve(why) if why.contains("no-such-host")),
            "{fault}"
        );
    }
}

/// An http:// server behind an https:// URL, and a peer that hangs up on the handshake.
pub async fn a_peer_without_tls_is_named<R: Runtime>(runtime: R) {
    let (_server, socket) = Side::server(&runtime, None).await;
    for protocol in [HTTP1, HTTP2] {
        let client = Side::client(&runtime);
        let id = client.open(get(url(&socket, true, "/")).protocol(protocol));
        let fault = client.fault(id).await;
        assert!(
            matches!(&fault, Fault::Protocol(why) if why.contains("http://")),
            "{fault}"
        );
        let (listener, at) = listen(&runtime, "https").await;
        let id = client.open(get(at).protocol(protocol));
        drop(runtime.accept(&listener).await.expect("a connection"));
        let fault = client.fault(id).await;
        assert!(matches!(fault, Fault::Tls(_)), "{fault}");
    }
}

/// gRPC to a peer that knows only HTTP/1.1, with and without TLS.
pub async fn a_peer_without_http2_is_named<R: Runtime>(runtime: R) {
    let identity = identity(&runtime);
    let mut only_http1 = crate::tls::server_config(&identity)
        .expect("the key is the certificate's")
        .as_ref()
        .clone();
    only_http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut without_alpn = only_http1.clone();
    without_alpn.alpn_protocols.clear();
    for config in [only_http1, without_alpn] {
        let (_server, socket) = Side::server(&runtime, Some(Arc::new(config))).await;
        let client = Side::client(&runtime);
        let id = client.open(get(url(&socket, true, "/")).protocol(HTTP2));
        let fault = client.fault(id).await;
        assert!(
            matches!(&fault, Fault::Protocol(why) if why.contains("HTTP/2")),
            "{fault}"
        );
    }
    let (listener, at) = listen(&runtime, "http").await;
    let client = Side::client(&runtime);
    let id = client.open(get(at).protocol(HTTP2));
    let mut peer = Raw(runtime.accept(&listener).await.expect("a connection").0);
    peer.read().await.expect("a preface");
    peer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
        .await
        .expect("the client listens");
    let fault = client.fault(id).await;
    assert!(
        matches!(&fault, Fault::Protocol(why) if why.contains("HTTP/2")),
        "{fault}"
    );
}

/// Something else altogether.
pub async fn a_peer_that_is_no_http_server_is_named<R: Runtime>(runtime: R) {
    let (listener, at) = listen(&runtime, "http").await;
    for (protocol, greeting) in [
        (HTTP1, &b"SSH-2.0-OpenSSH_9.6\r\n"[..]),
        (HTTP1, b"\x15\x03\x01\x00\x02\x02\x16"),
        (HTTP2, b"SSH-2.0-OpenSSH_9.6\r\n"),
    ] {
        let client = Side::client(&runtime);
        let id = client.open(get(at.clone()).protocol(protocol));
        let mut peer = Raw(runtime.accept(&listener).await.expect("a connection").0);
        peer.read().await.expect("a request");
        peer.write(greeting).await.expect("the client listens");
        let fault = client.fault(id).await;
        assert!(matches!(fault, Fault::Protocol(_)), "{fault:?}");
    }
}

/// A reply that stops: after its head, inside a chunk, before its length, or before it began.
pub async fn a_peer_that_breaks_mid_body_is_noticed<R: Runtime>(runtime: R) {
    let (listener, at) = listen(&runtime, "http").await;
    for said in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhal",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n",
    ] {
        let client = Side::client(&runtime);
        let id = client.open(get(at.clone()));
        let mut peer = Raw(runtime.accept(&listener).await.expect("a connection").0);
        peer.read_to("\r\n\r\n").await;
        peer.write(said.as_bytes())
            .await
            .expect("the client listens");
        drop(peer);
        let fault = client.fault(id).await;
        assert!(matches!(fault, Fault::Broken(_)), "{said:?}: {fault:?}");
    }
}

/// A request body that stops is `Failed`, whatever stopped it.
pub async fn a_client_that_breaks_mid_body_is_noticed<R: Runtime>(runtime: R) {
    let (server, socket) = Side::serving(&runtime, None, Habits::Tell).await;
    for sent in [
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let mut peer = raw(&runtime, &socket).await;
        peer.write(sent.as_bytes())
            .await
            .expect("the server listens");
        let (id, _) = server.accept().await;
        assert!(matches!(server.of(id).await, In::Data(_)));
        drop(peer);
        assert!(matches!(server.of(id).await, In::Failed(Fault::Broken(_))));
    }
    // A chunk that is none breaks the request, but the peer is there to be told.
    let mut peer = raw(&runtime, &socket).await;
    peer.write(
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    )
    .await
    .expect("the server listens");
    let (id, _) = server.accept().await;
    assert!(matches!(server.of(id).await, In::Data(_)));
    assert!(matches!(server.of(id).await, In::Failed(Fault::Broken(_))));
    let answer = peer.read_all().await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    for protocol in [HTTP1, HTTP2] {
        let client = Side::client(&runtime);
        let ours = client.open(post(url(&socket, false, "/"), Body::Stream).protocol(protocol));
        client.step(ours, Out::Data(Bytes::from_static(b"half")));
        let (theirs, _) = server.accept().await;
        assert!(matches!(server.of(theirs).await, In::Data(_)));
        client.step(ours, Out::Abort);
        assert!(matches!(server.of(theirs).await, In::Failed(_)));
    }
}

/// A reader that waits for the head and goes away is noticed, and so is one in the middle of a body.
pub async fn a_waiting_client_that_leaves_is_noticed<R: Runtime>(runtime: R) {
    for secure in [false, true] {
        let tls = if secure {
            tls(&identity(&runtime))
        } else {
            None
        };
        let (server, socket) = Side::serving(&runtime, tls, Habits::Tell).await;
        for protocol in [HTTP1, HTTP2] {
            for replied in [false, true] {
                let client = Side::client(&runtime);
                let ours = client.open(get(url(&socket, secure, "/")).protocol(protocol));
                let (theirs, _) = server.accept().await;
                assert!(matches!(server.of(theirs).await, In::End(_)));
                if replied {
                    server.step(theirs, Out::Reply(Response::new(200).body(Body::Stream)));
                    client.reply(ours).await;
                }
                client.step(ours, Out::Abort);
                assert!(matches!(server.of(theirs).await, In::Failed(_)));
            }
        }
    }
}

/// The machine gets the path of the first line, whatever a `Host` field that is no authority would add to it.
pub async fn a_host_does_not_choose_the_path<R: Runtime>(runtime: R) {
    let (server, socket) = Side::serving(&runtime, None, Habits::Tell).await;
    for fields in [
        "host: x/metrics?\r\n",
        "host: x/metrics#\r\n",
        "host: u@x\r\n",
        "host: x:80/\r\n",
        "host: x y\r\n",
        "host: x\r\nhost: y\r\n",
        "",
    ] {
        let mut peer = raw(&runtime, &socket).await;
        let sent = format!("POST /public HTTP/1.1\r\n{fields}content-length: 0\r\n\r\n");
        peer.write(sent.as_bytes())
            .await
            .expect("the server listens");
        let answer = peer.read_to("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{fields:?}: {answer}");
    }
    for (target, version, fields) in [
        ("/public?x", "1.1", "host: x\r\n"),
        ("/public?x", "1.1", "host: [::1]:8935\r\n"),
        ("/public?x", "1.1", "host:\r\n"),
        ("/public?x", "1.0", ""),
        ("http://y:1/public?x", "1.1", "host: x\r\n"),
    ] {
        let mut peer = raw(&runtime, &socket).await;
        let sent = format!("GET {target} HTTP/{version}\r\n{fields}\r\n");
        peer.write(sent.as_bytes())
            .await
            .expect("the server listens");
        let (id, request) = server.accept().await;
        assert_eq!(request.url.path(), "/public?x", "{sent:?}");
        assert!(matches!(server.of(id).await, In::End(_)));
        server.step(id, Out::Reply(Response::new(204)));
        peer.read_to("\r\n\r\n").await;
    }
}

/// Nonsense on the socket does not reach the machine.
pub async fn garbage_gets_a_status_and_nothing_else<R: Runtime>(runtime: R) {
    let (server, socket) = Side::server(&runtime, None).await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(20_000));
    let many = format!(
        "GET / HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "a: b\r\n".repeat(1000)
    );
    for (sent, status) in [
        ("\0\x01\x02\x03 nonsense\r\n\r\n", "400"),
        ("BR(EW / HTTP/1.1\r\nhost: x\r\n\r\n", "400"),
        ("GET / HTTP/9.9\r\n\r\n", "400"),
        (&long, "414"),
        (&many, "431"),
        (
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
            "400",
        ),
    ] {
        let mut peer = raw(&runtime, &socket).await;
        peer.write(sent.as_bytes())
            .await
            .expect("the server listens");
        let answer = peer.read_to("\r\n\r\n").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{sent:.40?}: {answer}"
        );
    }
    assert_eq!(server.handle.with(|m, _| m.requests), 0);
    // Peers that say nothing, or not enough, are held and cost little; others are served meanwhile.
    let mut silent = Vec::new();
    for i in 0..100 {
        let mut peer = raw(&runtime, &socket).await;
        peer.write(&b"GET /status/200 HTTP/1.1\r\nhost: "[..i % 30])
            .await
            .expect("the server listens");
        silent.push(peer);
    }
    let client = Side::client(&runtime);
    assert_eq!(
        client
            .fetch(get(url(&socket, false, "/status/200")))
            .await
            .0,
        200
    );
    drop(silent);
    while socket.connections() > 1 {
        rest(&runtime, Duration::from_millis(5)).await;
    }
}
