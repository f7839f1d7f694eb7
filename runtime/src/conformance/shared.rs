//! Requests to peers that may speak HTTP/2 or not: many share a connection, and what may go wrong with one.

use bytes::Bytes;
use futures_rustls::TlsAcceptor;
use livepeer_core::http::{Body, Fault, In, Out, Response};

use super::frames::{Frames, GOAWAY, MAX_STREAMS, REFUSED, RESET};
use super::*;
use crate::http::io::{HyperIo, Io};
use crate::http::{MAX_SEATS, SHARED_STREAM_WINDOW};

const EITHER: Protocol = Protocol::Either;

fn ask(at: &Url) -> Request {
    post(at.clone(), Body::Full(Bytes::from_static(b"question"))).protocol(EITHER)
}

/// The next step of this exchange; others only report what was sent.
async fn next<R: Runtime>(client: &Side<R>, id: EffectId) -> In {
    loop {
        match client.next().await {
            (_, In::Sent(_)) => {}
            (of, step) => {
                assert_eq!(of, id, "a step of another exchange: {step:?}");
                return step;
            }
        }
    }
}

/// The body of an answer that is good.
async fn body<R: Runtime>(client: &Side<R>, id: EffectId) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        match next(client, id).await {
            In::Reply(reply) => assert_eq!(reply.status, 200),
            In::Data(data) => body.extend_from_slice(&data),
            In::End(_) => return body,
            step => panic!("not part of a good answer: {step:?}"),
        }
    }
}

/// A peer with TLS in the hands of the scenario.
struct Peer<R: Runtime> {
    runtime: R,
    listener: R::Listener,
    identity: Identity,
    at: Url,
}

impl<R: Runtime> Peer<R> {
    async fn new(runtime: &R) -> Self {
        let (listener, at) = listen(runtime, "https").await;
        Self {
            identity: identity(runtime),
            runtime: runtime.clone(),
            listener,
            at,
        }
    }

    /// The next connection, and whether HTTP/2 was chosen.
    async fn accept(&self) -> (Raw<Io<R::Stream>>, bool) {
        let (stream, _) = self.runtime.accept(&self.listener).await.expect("a client");
        let config = tls(&self.identity).expect("a certificate");
        let accepted = TlsAcceptor::from(config).accept(HyperIo(stream));
        let stream = accepted.await.expect("a handshake");
        let http2 = stream.get_ref().1.alpn_protocol() == Some(crate::tls::H2);
        (Raw(Io::tls(stream.into())), http2)
    }

    async fn accept_http2(&self, settings: &[(u16, u32)]) -> Frames<Io<R::Stream>> {
        let (peer, http2) = self.accept().await;
        assert!(http2);
        Frames::serve(peer, settings).await
    }

    /// Takes a request over HTTP/1.1, and answers it with these bytes.
    async fn answer_http1(&self, words: &str) -> Raw<Io<R::Stream>> {
        let (mut peer, http2) = self.accept().await;
        assert!(!http2, "what was refused once goes over HTTP/1.1");
        let asked = peer.read_to("question").await;
        assert!(asked.starts_with("POST / HTTP/1.1\r\n"), "{asked}");
        let length = words.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{words}");
        peer.write(answer.as_bytes()).await.expect("it listens");
        peer
    }
}

/// Streamed answers share one connection to a peer that offers HTTP/2, and a reader that stops holds up no other.
pub async fn streamed_answers_share_a_connection<R: Runtime>(runtime: R) {
    let identity = identity(&runtime);
    let (server, socket) = Side::serving(&runtime, tls(&identity), Habits::Tell).await;
    let at = url(&socket, true, "/");
    let client = Side::client(&runtime);
    let asked = [(); 3].map(|()| client.open(ask(&at)));
    let mut served = Vec::new();
    while served.len() < asked.len() {
        match server.next().await {
            (id, In::Request(request)) => assert_eq!((request.protocol, id), (HTTP2, id)),
            (id, In::End(_)) => served.push(id),
            _ => {}
        }
    }
    assert_eq!(socket.connections(), 1);
    for id in &served {
        server.step(*id, Out::Reply(Response::new(200).body(Body::Stream)));
    }
    let mut replied = 0;
    while replied < asked.len() {
        replied += usize::from(matches!(client.next().await.1, In::Reply(_)));
    }
    // All but one are held back, with more on its way to each than has room there.
    for id in &asked[1..] {
        client.step(*id, Out::Pause);
    }
    let much = Bytes::from(pattern(4 * SHARED_STREAM_WINDOW as usize));
    for id in &served {
        server.step(*id, Out::Data(much.clone()));
        server.step(*id, Out::End(Headers::new()));
    }
    let (mut bodies, mut ended) = (vec![Vec::new(); asked.len()], 0);
    while ended < asked.len() {
        let (id, step) = client.next().await;
        let at = asked.iter().position(|asked| *asked == id);
        let at = at.expect("nothing else was asked");
        match step {
            In::Data(data) => bodies[at].extend_from_slice(&data),
            In::End(_) => {
                ended += 1;
                if at == 0 {
                    assert!(bodies[1..].iter().all(|body| body.len() < much.len()));
                    for id in &asked[1..] {
                        client.step(*id, Out::Resume);
                    }
                }
            }
            In::Sent(_) => {}
            step => panic!("not part of a body: {step:?}"),
        }
    }
    assert!(bodies.iter().all(|body| *body == much));
}

/// A peer that offers no HTTP/2, or has no TLS to offer it by, gets the same requests over HTTP/1.1.
pub async fn a_peer_without_http2_is_asked_over_http1<R: Runtime>(runtime: R) {
    let identity = identity(&runtime);
    let mut only_http1 = tls(&identity).expect("a certificate").as_ref().clone();
    only_http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut without_alpn = only_http1.clone();
    without_alpn.alpn_protocols.clear();
    for config in [Some(only_http1), Some(without_alpn), None] {
        let secure = config.is_some();
        let config = config.map(Arc::new);
        let (server, socket) = Side::serving(&runtime, config, Habits::Tell).await;
        let at = url(&socket, secure, "/");
        let client = Side::client(&runtime);
        for _ in 0..2 {
            let asked = client.open(ask(&at));
            let (id, request) = server.accept().await;
            assert_eq!(request.protocol, HTTP1);
            let reply = Response::new(200).body(Body::Full(Bytes::from_static(b"answer")));
            assert_eq!(server.rest(id).await.0, b"question");
            server.step(id, Out::Reply(reply));
            assert_eq!(body(&client, asked).await, b"answer");
        }
        assert_eq!(socket.connections(), 1, "the second takes the first one's");
    }
}

/// More answers at a time than share a connection have another one opened, for a peer that lets fewer be sooner.
pub async fn further_streams_have_another_connection<R: Runtime>(runtime: R) {
    let identity = identity(&runtime);
    let (server, socket) = Side::serving(&runtime, tls(&identity), Habits::Tell).await;
    let at = url(&socket, true, "/");
    let client = Side::client(&runtime);
    for _ in 0..=MAX_SEATS {
        client.open(ask(&at));
    }
    let mut asked = 0;
    while asked <= MAX_SEATS {
        asked += usize::from(matches!(server.next().await.1, In::Request(_)));
    }
    assert_eq!(socket.connections(), 2);

    let peer = Peer::new(&runtime).await;
    let client = Side::client(&runtime);
    let first = client.open(ask(&peer.at));
    let mut one = peer.accept_http2(&[(MAX_STREAMS, 1)]).await;
    let stream = one.request().await;
    one.answer(stream, b"begun", false).await;
    assert!(matches!(next(&client, first).await, In::Reply(_)));
    let second = client.open(ask(&peer.at));
    let mut other = peer.accept_http2(&[]).await;
    let stream = other.request().await;
    other.answer(stream, b"all", true).await;
    loop {
        match client.next().await {
            (id, In::End(_)) if id == second => break,
            (_, In::Failed(fault)) => panic!("{fault}"),
            _ => {}
        }
    }
}

/// A request that the peer says it did not look at goes once more over HTTP/1.1, whether its stream was refused or the
/// peer said goodbye meanwhile; what the peer had begun goes on to its end.
pub async fn what_a_peer_did_not_look_at_goes_once_more<R: Runtime>(runtime: R) {
    let peer = Peer::new(&runtime).await;
    let client = Side::client(&runtime);
    let asked = client.open(ask(&peer.at));
    let mut frames = peer.accept_http2(&[]).await;
    let stream = frames.request().await;
    frames.send(RESET, 0, stream, &REFUSED.to_be_bytes()).await;
    let again = peer.answer_http1("after a refusal").await;
    assert_eq!(body(&client, asked).await, b"after a refusal");
    drop(again);

    // The connection with the refusal is good for others.
    let seen = client.open(ask(&peer.at));
    let stream = frames.request().await;
    let unseen = client.open(ask(&peer.at));
    frames.request().await;
    let mut goodbye = stream.to_be_bytes().to_vec();
    goodbye.extend_from_slice(&0_u32.to_be_bytes());
    frames.send(GOAWAY, 0, 0, &goodbye).await;
    let _again = peer.answer_http1("after a goodbye").await;
    let mut answers = [Vec::new(), Vec::new()];
    let mut ended = 0;
    frames.answer(stream, b"before it", true).await;
    while ended < 2 {
        let (id, step) = client.next().await;
        assert!(id == seen || id == unseen);
        match step {
            In::Data(data) => answers[usize::from(id == unseen)].extend_from_slice(&data),
            In::End(_) => ended += 1,
            In::Failed(fault) => panic!("{fault}"),
            _ => {}
        }
    }
    assert_eq!(answers, [&b"before it"[..], b"after a goodbye"]);

    // Whoever comes later has another connection.
    let later = client.open(ask(&peer.at));
    let mut frames = peer.accept_http2(&[]).await;
    let stream = frames.request().await;
    frames.answer(stream, b"later", true).await;
    assert_eq!(body(&client, later).await, b"later");
}

/// A connection that breaks takes all its streams with it, and each is told of; one that a peer resets is alone. None of
/// them goes once more, also where the peer said goodbye for a fault of its own: it may have done what they ask.
pub async fn a_shared_connection_that_breaks_takes_its_streams_along<R: Runtime>(runtime: R) {
    const CANCEL: u32 = 8;
    const INTERNAL_ERROR: u32 = 2;
    let peer = Peer::new(&runtime).await;
    let client = Side::client(&runtime);
    let reset = client.open(ask(&peer.at));
    let mut frames = peer.accept_http2(&[]).await;
    let stream = frames.request().await;
    let begun = client.open(ask(&peer.at));
    let other = frames.request().await;
    frames.send(RESET, 0, stream, &CANCEL.to_be_bytes()).await;
    let fault = next(&client, reset).await;
    assert!(matches!(fault, In::Failed(Fault::Broken(_))), "{fault:?}");
    let waits = client.open(ask(&peer.at));
    let seen = frames.request().await;
    frames.answer(other, b"half", false).await;
    assert!(matches!(next(&client, begun).await, In::Reply(_)));
    assert!(matches!(next(&client, begun).await, In::Data(_)));
    let mut goodbye = seen.to_be_bytes().to_vec();
    goodbye.extend_from_slice(&INTERNAL_ERROR.to_be_bytes());
    frames.send(GOAWAY, 0, 0, &goodbye).await;
    drop(frames);
    let mut failed = Vec::new();
    while failed.len() < 2 {
        if let (id, In::Failed(fault)) = client.next().await {
            assert!(matches!(fault, Fault::Broken(_)), "{fault}");
            failed.push(id);
        }
    }
    failed.sort();
    assert_eq!(failed, [begun, waits]);
}

/// Exchanges that wait for the connection that another opens hear with it that there is none, and go on without it when
/// it is given up.
pub async fn those_who_wait_for_a_connection_hear_of_it<R: Runtime>(runtime: R) {
    let peer = Peer::new(&runtime).await;
    let client = Side::client(&runtime);
    let first = client.open(ask(&peer.at));
    let (stream, _) = { peer.runtime.accept(&peer.listener).await }.expect("a connection");
    let others = [(); 2].map(|()| client.open(ask(&peer.at)));
    // They come to wait in tasks of their own.
    rest(&runtime, Duration::from_millis(100)).await;
    client.step(first, Out::Abort);
    let (second, _) = { peer.runtime.accept(&peer.listener).await }.expect("another");
    drop((stream, second));
    for _ in others {
        let (id, step) = client.next().await;
        assert!(others.contains(&id), "nothing is told of what was given up");
        assert!(matches!(step, In::Failed(Fault::Tls(_))), "{step:?}");
    }
}
