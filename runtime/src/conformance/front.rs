//! The front door over real sockets: limits that hold before the machine hears of a request, and leave to send a body.

use std::sync::Arc;

use livepeer_core::front::{Config, Front};
use livepeer_core::http::Protocol;

use super::{Habits, LOOPBACK, Side, get, identity, raw, rest, url};
#[cfg(unix)]
use crate::http::LocalSocket;
use crate::http::{Limits, Server};
use crate::rt::Runtime;
use crate::tls::CurrentIdentity;
use crate::{Driver, Handle};

async fn door<R: Runtime>(runtime: &R, limits: Limits) -> Server<R> {
    let front = front(runtime);
    let listener = runtime.bind(LOOPBACK).await.expect("a free port");
    Server::serve_within(&front, listener, None, limits).expect("it has an address")
}

/// A front door before which nobody works.
fn front<R: Runtime>(runtime: &R) -> Handle<Front, R> {
    let front = Front::new(runtime.now(), Arc::new(Config::default()), [7; 32]);
    let front = Driver::new(runtime.clone()).drive(front);
    let events = front.clone();
    runtime.spawn(async move { while events.next().await.is_some() {} });
    front
}

/// Heads that are too large, in a wrong tongue or make no sense are refused in plain words, and the connection is closed.
pub async fn a_front_door_refuses_what_no_machine_could_answer<R: Runtime>(runtime: R) {
    let socket = door(&runtime, Limits::front_door()).await;
    let head = |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n{fields}\r\n");
    let long = "x".repeat(40_000);
    for (sent, status, words) in [
        (head("/healthz", &format!("x: {long}\r\n")), 431, ""),
        (head("/healthz", &"a: b\r\n".repeat(101)), 431, ""),
        (
            head(&format!("/{}", &long[..9_000]), ""),
            414,
            "URI too long",
        ),
        (
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\r\n\r\n".into(),
            400,
            "this port speaks http",
        ),
        (head("/v1/%00", ""), 400, "malformed path"),
        (head("/healthz", "expect: tea\r\n"), 417, "100-continue"),
        (head("/healthz", "a: b\r\n folded: c\r\n"), 400, ""),
    ] {
        let mut peer = raw(&runtime, &socket).await;
        let _ = peer.write(sent.as_bytes()).await;
        let answer = if words.is_empty() {
            peer.read_to("\r\n\r\n").await
        } else {
            peer.read_to(words).await
        };
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{sent:.60?}: {answer}"
        );
    }
}

/// A client that asks for leave to send its body gets it once the head is admitted, and not if the head is refused.
pub async fn a_front_door_gives_leave_to_send_only_what_it_will_read<R: Runtime>(runtime: R) {
    let socket = door(&runtime, Limits::front_door()).await;
    let head = |path: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut admitted = raw(&runtime, &socket).await;
    admitted
        .write(head("/llm", 2).as_bytes())
        .await
        .expect("a connection");
    let leave = admitted.read_to("\r\n\r\n").await;
    assert!(leave.starts_with("HTTP/1.1 100 "), "{leave}");
    admitted.write(b"{}").await.expect("a connection");
    let answer = admitted.read_to("missing required fields").await;
    assert!(answer.contains("HTTP/1.1 400 "), "{answer}");
    for (path, length, status) in [("/nothing", 2, 404), ("/llm", 5 << 20, 413)] {
        let mut refused = raw(&runtime, &socket).await;
        refused
            .write(head(path, length).as_bytes())
            .await
            .expect("a connection");
        let answer = refused.read_to("\r\n\r\n").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {answer}"
        );
    }
}

/// A front door answers over HTTP/1.1 and over HTTP/2 with prior knowledge.
pub async fn a_front_door_speaks_both_versions_of_http<R: Runtime>(runtime: R) {
    let socket = door(&runtime, Limits::front_door()).await;
    let client = Side::client(&runtime);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let request = get(url(&socket, false, "/healthz")).protocol(protocol);
        assert_eq!(
            client.fetch(request).await,
            (200, br#"{"status":"ok"}"#.to_vec())
        );
    }
}

/// One address has a limited number of connections; further ones are told so.
pub async fn a_front_door_has_room_for_so_many_connections_of_one_address<R: Runtime>(runtime: R) {
    let limits = Limits {
        max_per_address: 2,
        ..Limits::front_door()
    };
    let socket = door(&runtime, limits).await;
    let first = raw(&runtime, &socket).await;
    let _second = raw(&runtime, &socket).await;
    let mut third = raw(&runtime, &socket).await;
    let answer = third.read_to("too many connections").await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    drop(first);
    while socket.connections() > 1 {
        rest(&runtime, std::time::Duration::from_millis(5)).await;
    }
    let mut again = raw(&runtime, &socket).await;
    again
        .write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("a connection");
    let answer = again.read_to("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// A port that speaks TLS says so to whoever does not, and shows another certificate once it has one.
pub async fn a_front_door_with_tls_tells_so_and_changes_its_certificate<R: Runtime>(runtime: R) {
    let (old, new) = (identity(&runtime), identity(&runtime));
    let current = CurrentIdentity::new(&old).expect("they fit");
    let listener = runtime.bind(LOOPBACK).await.expect("a free port");
    let (door, limits) = (front(&runtime), Limits::front_door());
    let socket = Server::serve_within(&door, listener, Some(current.server_config()), limits);
    let socket = socket.expect("it has an address");
    for plain in [
        "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut peer = raw(&runtime, &socket).await;
        peer.write(plain.as_bytes()).await.expect("a connection");
        let answer = peer.read_all().await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("this port speaks https\n"),
            "{answer}"
        );
    }
    let at = url(&socket, true, "/healthz");
    let shows = async |protocol| {
        let driver = Driver::new(runtime.clone());
        let client = Side::new(&driver, Habits::Tell);
        let request = get(at.clone()).protocol(protocol);
        assert_eq!(client.fetch(request).await.0, 200);
        driver.pins().get(&at.authority())
    };
    for protocol in [Protocol::Http1, Protocol::Http2] {
        assert_eq!(shows(protocol).await, Some(old.sha256()));
    }
    assert!(current.replace(&new).expect("they fit"));
    assert!(!current.replace(&new).expect("they fit"), "it is the same");
    for protocol in [Protocol::Http1, Protocol::Http2] {
        assert_eq!(shows(protocol).await, Some(new.sha256()));
    }
}

/// A unix socket is a door like others, and its file is gone when it closes.
#[cfg(unix)]
pub async fn a_front_door_listens_at_a_unix_socket<R: Runtime>(runtime: R) {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    let name = format!(
        "livepeer-{}-{}.sock",
        std::process::id(),
        runtime.now().as_nanos()
    );
    let path = std::env::temp_dir().join(name);
    let socket = LocalSocket::bind(&path, 0o600).expect("nobody listens there");
    let (door, limits) = (front(&runtime), Limits::front_door());
    let server = Server::serve_local(&door, socket, limits).expect("it can be watched");
    let there = path.clone();
    let peer = std::thread::spawn(move || {
        let mut stream = UnixStream::connect(there)?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    });
    while !peer.is_finished() {
        rest(&runtime, std::time::Duration::from_millis(5)).await;
    }
    let answer = peer.join().expect("no panic").expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(r#"{"status":"ok"}"#),
        "{answer}"
    );
    server
        .shutdown(runtime.now() + std::time::Duration::from_secs(60))
        .await;
    assert!(!path.exists());
}

/// Chunks count where a request has a length beside them, and it is the last one on its connection: what a proxy that
/// believed the length would take for the next request is none (RFC 9112 6.3).
pub async fn a_request_with_two_lengths_ends_its_connection<R: Runtime>(runtime: R) {
    let socket = door(&runtime, Limits::front_door()).await;
    for lengths in [
        "content-length: 7\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 7",
    ] {
        let mut peer = raw(&runtime, &socket).await;
        let sent = format!(
            "POST /llm HTTP/1.1\r\nhost: x\r\n{lengths}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n\
             GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
        );
        peer.write(sent.as_bytes()).await.expect("a connection");
        let answer = peer.read_all().await;
        assert!(answer.contains("missing required fields"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
}
