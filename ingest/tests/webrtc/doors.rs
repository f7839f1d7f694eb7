//! The requests of WHIP and WHEP, and their answers.

use std::time::Duration;

use livepeer_core::http::Method;
use livepeer_ingest::port::{Denied, Door, Event, MAX_FRAGMENT, MAX_WAITING};
use livepeer_ingest::whip::ADMISSION;

use crate::world::{self, World, text};

const WHIP: &str = "/live/video-to-video/cam/whip";

fn offer() -> String {
    world::offer(Door::Whip)
}

#[test]
fn an_answer_waits_for_leave_and_says_where_the_session_is() {
    let mut world =
        World::with(|config| config.ice_servers = vec!["stun:stun.example:3478".to_owned()]);
    let (exchange, mut call) =
        world.request(Method::Post, Door::Whip, &format!("{WHIP}?params={{}}"));
    call.request = call
        .request
        .header("content-type", "Application/SDP; charset=utf-8")
        .header("authorization", "bearer abc");
    call.request.peer = "192.0.2.7".parse().ok();
    call.body = offer().into();
    world.port.call(world.now, &call);
    world.drain();
    assert!(world.replies.is_empty(), "not before it is let in");
    let Event::Asked {
        session,
        stream,
        bearer,
        query,
        peer,
    } = world.events.remove(0)
    else {
        panic!("{:?}", world.events);
    };
    assert_eq!(
        (stream.as_str(), bearer.as_deref(), query.as_str()),
        ("cam", Some("abc"), "params={}")
    );
    assert_eq!(peer, "192.0.2.7".parse().ok());
    world
        .port
        .admit(world.now, session, Some("http://gateway/cam-out/whep"));
    world.drain();
    let reply = world.reply(exchange);
    assert_eq!(reply.status, 201);
    let header = |name| reply.headers.get(name).unwrap_or_default();
    assert_eq!(header("location"), format!("{WHIP}/{session}"));
    let answer = text(&reply);
    let ufrag = answer
        .lines()
        .find_map(|line| line.strip_prefix("a=ice-ufrag:"))
        .unwrap();
    assert_eq!(header("etag"), format!("\"{ufrag}\""));
    assert_eq!(
        header("link"),
        "<stun:stun.example:3478>; rel=\"ice-server\""
    );
    assert_eq!(
        header("livepeer-playback-url"),
        "http://gateway/cam-out/whep"
    );
    assert_eq!(
        header("access-control-expose-headers"),
        "Location, ETag, Link, Livepeer-Playback-URL"
    );
    assert_eq!(
        (header("content-type"), header("cache-control")),
        ("application/sdp", "no-store")
    );
    assert!(
        answer.contains("a=candidate:1 1 udp 2130706431 192.0.2.1 8189 typ host\r\n"),
        "{answer}"
    );
}

#[test]
fn whoever_is_not_let_in_hears_why() {
    for (denied, status) in [
        (Denied::Unauthorized, 401),
        (Denied::Forbidden, 403),
        (Denied::Taken, 409),
        (Denied::BadParams, 400),
        (Denied::Place("rtmpOutput: it may not".to_owned()), 400),
        (Denied::Full, 503),
        (Denied::Closing, 503),
        (Denied::Elsewhere("https://other.example/x".to_owned()), 307),
        (Denied::Failed, 503),
    ] {
        let mut world = World::new();
        let exchange = world.post(Door::Whip, WHIP, offer());
        let session = world.asked();
        world.port.deny(world.now, session, &denied);
        world.drain();
        let reply = world.reply(exchange);
        assert_eq!(reply.status, status);
        assert!(!text(&reply).contains("v=0"), "no SDP in a refusal");
        assert!(world.port.is_empty());
        world.port.admit(world.now, session, None);
        world.drain();
        assert!(
            world.replies.is_empty() && world.events.is_empty(),
            "it is over"
        );
    }
    let mut world = World::new();
    let exchange = world.post(Door::Whip, WHIP, offer());
    world.run(ADMISSION + Duration::from_millis(10));
    assert_eq!(world.reply(exchange).status, 503, "nobody answered");
    let exchange = world.post(Door::Whip, WHIP, offer());
    world.port.gone(world.now, exchange);
    world.drain();
    assert!(world.port.is_empty() && world.replies.is_empty());
}

#[test]
fn requests_that_are_none_of_ours_get_their_statuses() {
    let mut world = World::new();
    for (method, door, path, status) in [
        (Method::Get, Door::Whip, WHIP, 204),
        (Method::Head, Door::Whip, WHIP, 405),
        (Method::Put, Door::Whip, WHIP, 405),
        (Method::Options, Door::Whip, WHIP, 204),
        (
            Method::Head,
            Door::Whep,
            "/live/video-to-video/cam/whep",
            200,
        ),
        (
            Method::Get,
            Door::Whep,
            "/live/video-to-video/cam/whep",
            405,
        ),
        (Method::Delete, Door::Whip, &format!("{WHIP}/0123"), 404),
        (
            Method::Delete,
            Door::Whip,
            &format!("{WHIP}/{}", "0".repeat(32)),
            404,
        ),
        (Method::Options, Door::Whip, &format!("{WHIP}/x"), 204),
        (Method::Post, Door::Whip, WHIP, 415),
    ] {
        let reply = world.ask(method, door, path);
        assert_eq!(reply.status, status, "{method:?} {path}");
        assert_eq!(status == 405, reply.headers.get("allow").is_some());
    }
    for (body, status) in [
        ("hello".to_owned(), 400),
        ("v=0\r\n".repeat(20_000), 413),
        (offer().replace("H264/", "VP8/"), 422),
    ] {
        let exchange = world.post(Door::Whip, WHIP, body);
        assert_eq!(world.reply(exchange).status, status);
    }
}

/// Media spec 8, row 28.
#[test]
fn guesses_at_sessions_are_slowed_down() {
    let mut world = World::new();
    let guess = format!("{WHIP}/{}", "0".repeat(32));
    let statuses: Vec<_> = (0..12)
        .map(|_| world.ask(Method::Delete, Door::Whip, &guess).status)
        .collect();
    assert_eq!((statuses[9], statuses[10]), (404, 429));
    world.run(Duration::from_secs(2));
    assert_eq!(world.ask(Method::Delete, Door::Whip, &guess).status, 404);
}

/// Media spec 8, row 29.
#[test]
fn candidates_of_the_peer_are_taken_and_thrown_away() {
    let mut world = World::new();
    let (client, session) = world.join(Door::Whip, "cam");
    let location = world.clients[client].location.clone();
    let offer = world.clients[client].offer.clone();
    let ufrag = offer
        .lines()
        .find_map(|line| line.strip_prefix("a=ice-ufrag:"))
        .unwrap();
    let fragment = format!("a=ice-ufrag:{ufrag}\r\na=candidate:1 1 udp 1 192.0.2.3 9 typ host\r\n");
    let sdpfrag = "application/trickle-ice-sdpfrag";
    let mut patch = |kind: &str, tag: Option<&str>, body: String| {
        let (exchange, mut call) = world.request(Method::Patch, Door::Whip, &location);
        call.request = call.request.header("content-type", kind);
        if let Some(tag) = tag {
            call.request = call.request.header("if-match", tag);
        }
        call.body = body.into();
        world.run(Duration::from_millis(250));
        world.port.call(world.now, &call);
        world.drain();
        world.reply(exchange).status
    };
    assert_eq!(patch(sdpfrag, Some("*"), fragment.clone()), 204);
    assert_eq!(patch(sdpfrag, Some("\"wrong\""), fragment.clone()), 412);
    assert_eq!(patch(sdpfrag, None, fragment.clone()), 428);
    assert_eq!(patch("application/json", Some("*"), fragment.clone()), 415);
    assert_eq!(patch(sdpfrag, Some("*"), "x".repeat(MAX_FRAGMENT + 1)), 413);
    assert_eq!(
        patch(sdpfrag, Some("*"), "a=ice-ufrag:another\r\n".to_owned()),
        422
    );
    assert!(world.port.len() == 1, "the session lives on: {session:?}");
    let statuses: Vec<_> = (0..8)
        .map(|_| {
            let (exchange, call) = world.request(Method::Patch, Door::Whip, &location);
            world.port.call(world.now, &call);
            world.drain();
            world.reply(exchange).status
        })
        .collect();
    assert!(statuses.contains(&429), "{statuses:?}");
}

/// Media spec 8, row 10.
#[test]
fn offers_without_peers_are_bounded() {
    let mut world = World::new();
    let offer = offer();
    let mut statuses = Vec::new();
    for n in 0..=MAX_WAITING.1 {
        let exchange = world.post(Door::Whip, WHIP, offer.clone());
        match world.replies.iter().find(|(id, _)| *id == exchange) {
            Some((_, reply)) => statuses.push(reply.status),
            None => assert!(n < MAX_WAITING.1),
        }
    }
    assert_eq!(statuses, [429]);
    world.run(ADMISSION + Duration::from_millis(10));
    assert!(world.port.is_empty(), "those who wait are dropped");
}
