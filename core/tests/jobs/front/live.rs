//! Requests about live streams at the front door: which of them reach the shell, and how all of them are answered.

use livepeer_core::wire::byoc::stream::data_ended;
use livepeer_core::wire::byoc::{JOB_HEADER, JobRequest};
use livepeer_core::wire::sse;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::front::route::ROUTES;
use livepeer_core::front::{
    Call, Config, Event, Hls, LIVE_WITHIN, LiveRoutes, Network, Origins, RequestId,
};
use livepeer_core::http::{Body, In, Method, Reach, Request, Response};
use livepeer_sim::Driven;
use serde_json::Value;

use super::{Door, request};
use crate::cases;

const LIVE: &str = "/live/video-to-video";

fn door() -> Door {
    Door::with(Config {
        live: LiveRoutes::All,
        ..Config::default()
    })
}

/// The request that the shell is to answer, of which there is one.
fn called(door: &mut Door) -> (RequestId, Call) {
    match door.others.pop() {
        Some(Event::Live(id, call)) if door.others.is_empty() => (id, *call),
        other => panic!("{other:?} {:?}", door.seen),
    }
}

fn asked(of: &Value) -> (Request, Bytes) {
    let method = Method::from_name(of["method"].as_str().unwrap()).unwrap();
    let mut head = request(method, of["path"].as_str().unwrap());
    for (name, value) in of["headers"].as_object().unwrap() {
        head.headers.push_any(name, value.as_str().unwrap());
    }
    let body = if let Some(text) = of["body_text"].as_str() {
        text.to_owned()
    } else if let Some(count) = of["body_repeat"]["count"].as_u64() {
        of["body_repeat"]["text"]
            .as_str()
            .unwrap()
            .repeat(count as usize)
    } else {
        of["body_json"].to_string()
    };
    (head, body.into())
}

/// Cases that the front door answers by itself are answered as the vectors have it; the others reach the shell whole.
#[test]
fn requests_that_make_no_sense_are_answered_as_the_vectors_have_it() {
    let mut refused = 0;
    for case in cases("jobs/06-live-entry.json", "cases") {
        let (given, wanted) = (&case["in"], &case["out"]["reply"]);
        if given["request"].is_null() {
            continue;
        }
        let mut door = door();
        let (mut head, body) = asked(&given["request"]);
        head.peer = given["remote_ip"].as_str().map(|ip| ip.parse().unwrap());
        let exchange = door.send(head, body);
        let id = case["id"].as_str().unwrap();
        let Some(seen) = door.seen.get(&exchange) else {
            let (_, call) = called(&mut door);
            // Whoever knows the streams, or speaks WebRTC, answers those.
            let status = wanted["status"].as_u64().unwrap();
            let late = match call {
                Call::Start(_) => [200, 403].contains(&status),
                Call::Update { .. } | Call::Status { .. } => [200, 404].contains(&status),
                Call::Whip(..) => [400, 415].contains(&status),
                other => panic!("{id}: {other:?}"),
            };
            assert!(late, "{id}");
            continue;
        };
        refused += 1;
        assert_eq!(seen.status, wanted["status"], "{id}");
        match wanted["body_text"].as_str() {
            Some("re:.+") => assert!(!seen.text().is_empty(), "{id}"),
            Some(text) => assert_eq!(seen.text(), text, "{id}"),
            None => {}
        }
        let kind = wanted["headers"]["content-type"].as_str();
        assert!(
            kind.is_none() || kind == seen.headers.get("content-type"),
            "{id}"
        );
    }
    assert_eq!(refused, 18, "cases that need nobody else");
}

#[test]
fn the_shell_answers_by_id_and_once() {
    let mut door = door();
    let asked = door.get(&format!("{LIVE}/cam1/status"));
    let (id, call) = called(&mut door);
    assert!(matches!(call, Call::Status { stream } if stream == "cam1"));
    let answer = || Response::new(200).body(Body::Full(Bytes::from_static(b"{}")));
    door.tell(|front, now| front.respond(now, id, answer()));
    door.tell(|front, now| front.respond(now, id, answer()));
    assert_eq!(
        (door.seen[&asked].status, door.seen[&asked].text()),
        (200, "{}")
    );
    assert_eq!((door.front.in_flight(), door.front.held()), (0, 0));

    let leaves = door.get(&format!("{LIVE}/cam1/status"));
    let (id, _) = called(&mut door);
    door.leave(leaves);
    assert_eq!(door.gone, [id], "nobody waits any more");
    door.tell(|front, now| front.respond(now, id, answer()));
    assert!(!door.seen.contains_key(&leaves));
}

#[test]
fn an_offer_is_handed_on_whole_with_its_session_and_its_head() {
    let mut door = door();
    let mut head = request(Method::Post, &format!("{LIVE}/my-cam/whip?pipeline=noop"));
    head.headers.push("content-type", "application/sdp");
    door.send(head, "v=0");
    let (id, call) = called(&mut door);
    let Call::Whip(name, session) = call else {
        panic!("{call:?}")
    };
    assert_eq!(
        (name.as_str(), &session.name, &*session.body),
        ("my-cam", &None, &b"v=0"[..])
    );
    assert!(session.request.url.path().ends_with("?pipeline=noop"));
    assert_eq!(
        session.request.headers.get("content-type"),
        Some("application/sdp")
    );
    door.tell(|front, now| front.respond(now, id, Response::new(201)));

    let end = door.send(
        request(Method::Delete, &format!("{LIVE}/my-cam/whip/0a")),
        "",
    );
    let (id, call) = called(&mut door);
    assert!(matches!(call, Call::Whip(_, session) if session.name.as_deref() == Some("0a")));
    door.tell(|front, now| front.respond(now, id, Response::new(200)));
    assert_eq!(door.seen[&end].status, 200);

    door.send(
        request(Method::Post, &format!("{LIVE}/my-cam-0a1b2c3d-out/whep")),
        "v=0",
    );
    let (_, call) = called(&mut door);
    let Call::Whep(output, _) = call else {
        panic!("{call:?}")
    };
    assert_eq!(
        (output.stream.as_str(), output.request_id.as_deref()),
        ("my-cam", Some("0a1b2c3d"))
    );
    let malformed = door.post(&format!("{LIVE}/cam1/whep"), "v=0");
    assert_eq!(
        (door.seen[&malformed].status, door.seen[&malformed].text()),
        (404, "Malformed stream ID\n")
    );
}

#[test]
fn bodies_have_the_limits_of_what_they_are() {
    let mut door = door();
    for (method, path, limit) in [
        (Method::Post, "cam1/whip", 64 << 10),
        (Method::Patch, "cam1/whip/0a", 64 << 10),
        (Method::Post, "cam1-out/whep", 64 << 10),
        (Method::Post, "cam1/update", 1 << 20),
        (Method::Put, "smoketest", 16 << 10),
    ] {
        let mut head = request(method, &format!("{LIVE}/{path}"));
        head.length = Some(limit + 1);
        let large = door.open(head);
        let seen = &door.seen[&large];
        assert_eq!(seen.status, 413, "{path}");
        assert_eq!(
            seen.headers.get("content-type"),
            Some("text/plain; charset=utf-8")
        );
    }
    assert_eq!(door.front.in_flight(), 0);
}

#[test]
fn web_pages_may_ask_and_see_where_their_session_is() {
    let mut door = Door::with(Config {
        live: LiveRoutes::All,
        cors: Origins::Any,
        ..Config::default()
    });
    let from_page = |method, path: &str| {
        let mut head = request(method, &format!("{LIVE}/{path}"));
        head.headers.push("origin", "https://app.example");
        head
    };
    let preflight = door.send(from_page(Method::Options, "cam1/whip/0a"), "");
    let seen = &door.seen[&preflight];
    assert_eq!(seen.status, 204);
    let methods = seen.headers.get("access-control-allow-methods").unwrap();
    assert!(methods.contains("PATCH") && methods.contains("DELETE"));

    let made = door.send(from_page(Method::Post, "cam1/whip"), "v=0");
    let (id, _) = called(&mut door);
    let exposed = "Location, ETag, Link, Livepeer-Playback-URL";
    let answer = Response::new(201).header("access-control-expose-headers", exposed);
    door.tell(|front, now| front.respond(now, id, answer));
    let seen = &door.seen[&made];
    assert_eq!(seen.headers.get("access-control-allow-origin"), Some("*"));
    let all: Vec<_> = { seen.headers.iter() }
        .filter(|(name, _)| *name == "access-control-expose-headers")
        .collect();
    assert_eq!(all, [("access-control-expose-headers", exposed)]);

    let unknown = door.send(from_page(Method::Post, "cam1/whep"), "v=0");
    let seen = &door.seen[&unknown];
    assert_eq!(
        (seen.status, seen.headers.get("access-control-allow-origin")),
        (404, Some("*")),
        "the page sees the status"
    );
}

#[test]
fn without_leave_for_pages_a_preflight_is_answered_all_the_same() {
    let mut door = door();
    for path in ["cam1/update", "cam1/status", "cam1/stop"] {
        let asked = door.send(request(Method::Options, &format!("{LIVE}/{path}")), "");
        let seen = &door.seen[&asked];
        assert_eq!(seen.status, 204, "{path}");
        assert_eq!(seen.headers.get("access-control-allow-origin"), None);
    }
}

#[test]
fn what_is_not_served_is_an_unknown_path() {
    for (live, whip) in [(LiveRoutes::None, 404), (LiveRoutes::Hooks, 404)] {
        let mut door = Door::with(Config {
            live,
            ..Config::default()
        });
        let asked = door.post(&format!("{LIVE}/cam1/whip"), "v=0");
        assert_eq!(door.seen[&asked].status, whip);
        let asked = door.get(&format!("{LIVE}/cam1/status"));
        assert_eq!(door.seen.contains_key(&asked), live == LiveRoutes::None);
    }
    let paths = ROUTES.iter().filter(|row| row.path.starts_with(LIVE));
    assert_eq!(paths.count(), 11, "ten of them and the rest");
}

#[test]
fn a_shell_that_says_nothing_is_not_waited_for() {
    let mut door = door();
    let mut head = request(Method::Post, &format!("{LIVE}/cam1/start"));
    head.headers
        .push("content-type", "application/x-www-form-urlencoded");
    let asked = door.send(head, "source_id=a&source_type=rtmpConn");
    let (id, _) = called(&mut door);
    door.pass(LIVE_WITHIN - Duration::from_secs(1));
    assert!(door.seen.is_empty());
    door.pass(Duration::from_secs(1));
    assert_eq!((door.seen[&asked].status, &door.gone[..]), (504, &[id][..]));
}

#[test]
fn a_shutdown_takes_no_new_streams_and_senders_of_old_ones_reach_the_shell() {
    let mut door = door();
    door.tell(|front, now| front.drain(now));
    door.pass(Duration::from_secs(5));
    for (method, path) in [(Method::Post, "cam1/start"), (Method::Put, "smoketest")] {
        let late = door.send(request(method, &format!("{LIVE}/{path}")), "");
        let seen = &door.seen[&late];
        let text = "This instance is shutting down; try again.\n";
        assert_eq!((seen.status, seen.text()), (503, text));
    }
    assert!(matches!(door.others.pop(), Some(Event::Drained)));
    // A sender that comes back goes on with its stream, which the shell knows; and sessions end.
    for (method, path) in [
        (Method::Post, "cam1/whip"),
        (Method::Options, "cam1/whip"),
        (Method::Delete, "cam1/whip/0a"),
    ] {
        door.send(request(method, &format!("{LIVE}/{path}")), "v=0");
        let (_, call) = called(&mut door);
        assert!(matches!(call, Call::Whip(..)));
    }
}

#[test]
fn players_of_hls_reach_the_shell_with_names_that_make_sense() {
    let mut door = door();
    let source = || "source".to_owned();
    for (path, name, part) in [
        ("/stream/cam1-out.m3u8", "cam1-out", Hls::Master),
        (
            "/stream/my-cam-0a1b2c3d-out/source.m3u8",
            "my-cam-0a1b2c3d-out",
            Hls::List(source()),
        ),
        (
            "/stream/cam1-out/source/7.ts",
            "cam1-out",
            Hls::Segment(source(), 7),
        ),
    ] {
        let exchange = door.get(path);
        let (id, call) = called(&mut door);
        let Call::Hls(output, asked) = call else {
            panic!("{call:?}")
        };
        let named = output.request_id.map_or_else(
            || format!("{}-out", output.stream),
            |request| output.stream.output_of(&request),
        );
        assert_eq!((named.as_str(), asked), (name, part), "{path}");
        let answer = Response::new(200).header("access-control-allow-origin", "*");
        door.tell(|front, now| front.respond(now, id, answer));
        let seen = &door.seen[&exchange];
        assert_eq!(seen.headers.get("access-control-allow-origin"), Some("*"));
    }
    for path in [
        "/stream/cam1.m3u8",
        "/stream/.m3u8",
        "/stream/cam1-out/source/x.ts",
        "/stream/cam1-out/source/99999999999999999999.ts",
        "/stream/../../etc",
        "/stream/%2e%2e/%2e%2e/passwd.ts",
        "/stream/cam1-out/source/0.mp4",
    ] {
        let exchange = door.get(path);
        assert!(door.others.is_empty(), "{path}");
        assert_eq!(door.seen[&exchange].status, 404, "{path}");
    }
}

#[test]
fn the_address_of_a_caller_is_what_those_say_who_are_trusted() {
    let network = |text: &str| Network::new(text.parse().unwrap(), 8);
    let mut door = Door::with(Config {
        live: LiveRoutes::All,
        trusted_proxies: network("127.0.0.0").into_iter().collect(),
        ..Config::default()
    });
    let mut named = |peer: Option<&str>, fields: &[(&'static str, &str)]| {
        let mut head = request(Method::Put, &format!("{LIVE}/smoketest"));
        head.peer = peer.map(|peer| peer.parse().unwrap());
        for (name, value) in fields {
            head.headers.push(name, *value);
        }
        door.send(head, r#"{"stream_url":"rtmp://10.0.0.9/x"}"#);
        match called(&mut door).1 {
            Call::SmokeTest(test) => test.named,
            other => panic!("{other:?}"),
        }
    };
    let at = |text: &str| Reach::PublicOr(text.parse().unwrap());
    let field = "x-forwarded-for";
    assert_eq!(named(Some("10.0.0.9"), &[]), at("10.0.0.9"));
    assert_eq!(named(Some("8.8.8.8"), &[]), Reach::Public);
    assert_eq!(named(None, &[]), Reach::Public, "of a unix socket");
    // A proxy that nobody vouches for says that it is one, and no more.
    assert_eq!(
        named(Some("10.0.0.1"), &[(field, "10.0.0.9")]),
        Reach::Public
    );
    assert_eq!(
        named(Some("10.0.0.1"), &[("forwarded", "for=10.0.0.9")]),
        Reach::Public
    );
    // One that is trusted says who its peer was, behind what that one said.
    assert_eq!(
        named(Some("127.0.0.1"), &[(field, "10.0.0.9")]),
        at("10.0.0.9")
    );
    assert_eq!(
        named(Some("127.0.0.1"), &[(field, "127.0.0.1, 8.8.8.8")]),
        Reach::Public
    );
    assert_eq!(
        named(
            Some("127.0.0.1"),
            &[(field, "127.0.0.5"), (field, "10.0.0.9, 127.0.0.2")]
        ),
        at("10.0.0.9")
    );
    assert_eq!(
        named(Some("127.0.0.1"), &[(field, "10.0.0.9, unknown")]),
        Reach::Public
    );
    assert_eq!(
        named(Some("127.0.0.1"), &[]),
        Reach::Public,
        "it says nothing"
    );
}

#[test]
fn an_order_for_a_stream_through_a_container_makes_sense_or_is_refused_in_plain_words() {
    let job = |parameters: &str| {
        let job = JobRequest {
            request: "{}".into(),
            parameters: parameters.into(),
            capability: "turn".into(),
            timeout_seconds: 30,
            ..JobRequest::default()
        };
        job.to_header(None)
    };
    let start = "/process/stream/start";
    let mut door = door();
    let good = request(Method::Post, start).header(JOB_HEADER, job(""));
    let body = r#"{"stream_name":"cam","stream_id":"1","params":"{\"a\":1}","rtmp_output":"rtmp://a/b/c, rtmp://d/e"}"#;
    door.send(good.clone(), body);
    let (id, Call::Order(order)) = called(&mut door) else {
        panic!("no order")
    };
    assert_eq!(order.name.as_str(), "cam-1");
    assert_eq!(order.ordered.outputs, ["rtmp://a/b/c", "rtmp://d/e"]);
    assert!(order.ordered.params.is_some() && order.video_out);
    let base = "http://gw.example/process/stream/cam-1";
    assert_eq!(order.urls.whip_url, format!("{base}/whip"));
    assert_eq!(order.urls.status_url, format!("{base}/status"));
    assert_eq!(order.urls.data_url, "");
    door.tell(|front, now| front.respond(now, id, Response::new(200)));
    door.send(good.clone(), "{}");
    let (_, Call::Order(order)) = called(&mut door) else {
        panic!("no order")
    };
    assert_eq!(order.name.as_str().len(), 8, "it is drawn");
    let bare = request(Method::Post, start);
    let silent = r#"{"enable_video_ingress":false,"enable_data_output":true}"#;
    let silent = request(Method::Post, start).header(JOB_HEADER, job(silent));
    door.send(silent, r#"{"stream_name":"cam","stream_id":"1"}"#);
    let (_, Call::Order(order)) = called(&mut door) else {
        panic!("no order")
    };
    assert!(!order.video_in && order.video_out && order.host == "gw.example");
    assert_eq!(order.urls.whip_url, "", "nobody is to send");
    assert_eq!(order.urls.data_url, format!("{base}/data"));
    for (request, body, status, words) in [
        (bare, "{}", 400, "Unable to parse job request, err="),
        (good.clone(), "words", 400, ""),
        (
            good.clone(),
            r#"{"params":"[1]"}"#,
            400,
            "invalid model params",
        ),
        (
            good.clone(),
            r#"{"stream_name":"cam-out"}"#,
            400,
            "a name ending in -out",
        ),
        (
            good.clone(),
            r#"{"stream_id":"a/b"}"#,
            400,
            "a stream's name has",
        ),
    ] {
        let exchange = door.send(request, body);
        let seen = &door.seen[&exchange];
        assert_eq!(seen.status, status, "{}", seen.text());
        assert!(seen.text().starts_with(words), "{}", seen.text());
        assert!(seen.text().ends_with('\n') && door.others.is_empty());
    }
    let large = door.send(good, " ".repeat((10 << 20) + 1));
    assert_eq!(door.seen[&large].status, 413);
    for (method, path, is) in [
        (Method::Get, "/process/stream/cam-1/status", "Status"),
        (Method::Get, "/process/stream/cam-1/data", "Data"),
        (Method::Post, "/process/stream/cam-1/stop", "Stop"),
        (Method::Post, "/process/stream/cam-1/update", "Update"),
    ] {
        let body = if path.ends_with("update") { "{}" } else { "" };
        door.send(request(method, path), body);
        let (_, call) = called(&mut door);
        assert!(format!("{call:?}").starts_with(is), "{call:?}");
    }
    let exchange = door.send(request(Method::Get, start), "");
    assert_eq!(door.seen[&exchange].status, 405);
    // Parameters may be long, and are JSON; a job that comes with them is one.
    let update = || request(Method::Post, "/process/stream/cam-1/update");
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(2 << 20));
    door.send(update(), long.clone());
    let (_, Call::Update { params, .. }) = called(&mut door) else {
        panic!("no update")
    };
    assert_eq!(params, long);
    let wrong = update().header(JOB_HEADER, "words");
    for (request, body) in [(update(), "words"), (wrong, "{}")] {
        let exchange = door.send(request, body);
        assert_eq!(door.seen[&exchange].status, 400, "{body}");
    }
    let large = door.send(update(), " ".repeat((10 << 20) + 1));
    assert_eq!(door.seen[&large].status, 413);
    // A last word goes to the container, and a media server may have the media.
    door.send(request(Method::Post, "/process/stream/cam-1/stop"), "bye");
    let (_, Call::Stop { words, .. }) = called(&mut door) else {
        panic!("no end")
    };
    assert_eq!(&words[..], b"bye");
    let rtmp = request(Method::Post, "/process/stream/cam-1/rtmp")
        .header("content-type", "application/x-www-form-urlencoded");
    let rtmp = Request {
        peer: "10.0.0.9".parse().ok(),
        ..rtmp
    };
    door.send(rtmp.clone(), "source_id=a1&source_type=rtmpConn");
    let (_, Call::Source(hook)) = called(&mut door) else {
        panic!("no source")
    };
    assert_eq!(hook.input(), "rtmp://10.0.0.9/cam-1");
    let missing = door.send(rtmp, "source_type=rtmpConn");
    assert_eq!(door.seen[&missing].text(), "Missing source_id\n");
}

#[test]
fn the_data_of_a_container_goes_out_as_it_comes_and_silence_is_filled_with_comments() {
    let mut door = door();
    let exchange = door.send(request(Method::Get, "/process/stream/cam-1/data"), "");
    let (id, _) = called(&mut door);
    door.tell(|front, now| {
        assert!(front.data_head(now, id), "it is wanted");
    });
    door.tell(|front, now| front.relay(now, id, sse::event(b"{\"a\":1}\rb")));
    let unsent = door.seen[&exchange].unsent;
    door.http(exchange, In::Sent(unsent));
    door.pass(Duration::from_secs(16));
    door.tell(|front, now| {
        front.relay(now, id, data_ended());
        front.relay_end(now, id);
    });
    let seen = &door.seen[&exchange];
    assert_eq!(seen.status, 200);
    assert_eq!(seen.headers.get("content-type"), Some("text/event-stream"));
    assert_eq!(
        seen.text(),
        "data: {\"a\":1}\ndata: b\n\n: keep-alive\n\nevent: end\ndata: {\"type\":\"stream_ended\"}\n\n"
    );
    // Whoever asks for the head alone has all of it.
    let head = door.send(request(Method::Head, "/process/stream/cam-1/data"), "");
    let (id, _) = called(&mut door);
    door.tell(|front, now| assert!(!front.data_head(now, id)));
    assert_eq!(
        (door.seen[&head].status, door.seen[&head].text()),
        (200, "")
    );
}
