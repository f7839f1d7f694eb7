//! The front door over real sockets: limits that hold before the machine hears of a request, and leave to send a body.

use std::sync::Arc;

use livepeer_core::front::{Config, Front};
use livepeer_core::http::Protocol;

use super::{LOOPBACK, Side, get, raw, rest, url};
use crate::Driver;
use crate::http::{Limits, Server};
use crate::rt::Runtime;

async fn door<R: Runtime>(runtime: &R, limits: Limits) -> Server<R> {
    let front = Front::new(runtime.now(), Arc::new(Config::default()), [7; 32]);
    let front = Driver::new(runtime.clone()).drive(front);
    let listener = runtime.bind(LOOPBACK).await.expect("a free port");
    let server = Server::serve_within(&front, listener, None, limits).expect("it has an address");
    runtime.spawn(async move { while front.next().await.is_some() {} });
    server
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
