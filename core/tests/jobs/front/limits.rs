//! Limits on what callers send, on how long they take, and on how many there are.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::figures::Jobs;
use livepeer_core::front::{Admission, Config, Event, Outcome};
use livepeer_core::http::{Headers, In, Method};
use livepeer_core::job::batch::{Failed, Finished};
use livepeer_sim::Driven;

use super::streams::begun;
use super::{CHAT, Door, payload, request};

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let mut door = Door::with(Config {
        max_json: 10,
        ..Config::default()
    });
    let mut head = request(Method::Post, "/llm");
    head.length = Some(11);
    let announced = door.open(head);
    assert_eq!(door.seen[&announced].status, 413);
    assert_eq!(
        door.seen[&announced].headers.get("connection"),
        Some("close")
    );

    let grows = door.open(request(Method::Post, "/v1/chat/completions"));
    door.http(grows, In::Data(Bytes::from_static(b"0123456789")));
    assert!(!door.seen.contains_key(&grows));
    door.http(grows, In::Data(Bytes::from_static(b"x")));
    let text = "The request body is larger than 10 bytes.";
    assert_eq!(door.seen[&grows].message(), text);
    assert_eq!((door.front.in_flight(), door.front.held()), (0, 0));
    // What still comes of it is nobody's.
    door.http(grows, In::Data(Bytes::from_static(b"x")));
    door.http(grows, In::End(Headers::new()));
}

/// Media spec 8, row 11.
#[test]
fn a_body_that_stops_or_takes_too_long_is_answered_with_408() {
    let mut door = Door::new();
    let stops = door.open(request(Method::Post, "/v1/chat/completions"));
    door.pass(Duration::from_secs(29));
    assert!(door.seen.is_empty());
    door.pass(Duration::from_secs(1));
    let seen = &door.seen[&stops];
    assert_eq!(seen.status, 408);
    assert_eq!(seen.message(), "The request body stopped for 30 s.");
    assert_eq!(seen.headers.get("connection"), Some("close"));

    let dribbles = door.open(request(Method::Post, "/llm"));
    for _ in 0..14 {
        door.pass(Duration::from_secs(20));
        door.http(dribbles, In::Data(Bytes::from_static(b" ")));
    }
    door.pass(Duration::from_secs(20));
    assert_eq!(
        door.seen[&dribbles].message(),
        "The request body took longer than 300 s."
    );
    assert_eq!(door.front.held(), 0);
}

#[test]
fn more_requests_than_may_run_are_told_to_come_back() {
    let mut door = Door::with(Config {
        max_in_flight: 4,
        ..Config::default()
    });
    let mut from = |peer: &str| {
        let mut head = request(Method::Post, "/v1/chat/completions");
        head.peer = peer.parse().ok();
        door.open(head)
    };
    let ids = [
        "192.0.2.1",
        "192.0.2.1",
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.2",
        "192.0.2.3",
    ]
    .map(&mut from);
    let status = |door: &Door, at: usize| door.seen.get(&ids[at]).map(|seen| seen.status);
    assert_eq!([0, 1, 3, 4].map(|at| status(&door, at)), [None; 4]);
    assert_eq!(
        status(&door, 2),
        Some(503),
        "half of all is for one address"
    );
    assert_eq!(status(&door, 5), Some(503));
    let seen = &door.seen[&ids[5]];
    assert_eq!(seen.message(), "Too many requests in flight.");
    assert_eq!(seen.headers.get("x-should-retry"), Some("true"));
    assert_eq!(seen.headers.get("retry-after-ms"), Some("250"));
    door.leave(ids[0]);
    let again = door.get("/healthz");
    assert_eq!(door.seen[&again].status, 200, "there is room again");
}

#[test]
fn bytes_of_all_requests_are_bounded_together_until_their_work_is_done() {
    let mut door = Door::with(Config {
        max_held: 2_000,
        ..Config::default()
    });
    let body = format!(r#"{{"prompt":"{}"}}"#, "x".repeat(700));
    door.post("/text-to-image", &body);
    let (id, _) = door.want();
    assert!(
        door.front.held() > 700,
        "the shell has it now, and it counts"
    );
    let more = door.post("/text-to-image", &body);
    assert_eq!(door.seen[&more].status, 503);
    door.tell(|front, now| front.failed(now, id, livepeer_core::job::batch::Failed::Closed));
    assert_eq!(door.front.held(), 0);
    door.post("/text-to-image", &body);
    door.want();
}

#[test]
fn a_shutdown_takes_no_new_work_and_says_when_all_is_done() {
    let mut door = Door::new();
    let running = door.post("/text-to-image", r#"{"prompt":"x"}"#);
    let (id, _) = door.want();
    door.tell(|front, now| front.drain(now));
    let ready = door.get("/readyz");
    assert_eq!(door.seen[&ready].status, 503, "balancers are told at once");
    door.post("/text-to-image", r#"{"prompt":"x"}"#);
    let (within, _) = door.want();
    door.pass(Duration::from_secs(5));
    let late = door.post("/v1/chat/completions", super::CHAT);
    assert_eq!(
        door.seen[&late].message(),
        "This instance is shutting down; try again."
    );
    let models = door.get("/v1/models");
    assert_eq!(door.seen[&models].status, 200, "what makes no work goes on");
    for id in [id, within] {
        assert!(door.others.is_empty());
        let failed = livepeer_core::job::batch::Failed::UnknownModel;
        door.tell(|front, now| front.failed(now, id, failed));
    }
    assert!(matches!(door.others[..], [Event::Drained]));
    assert_eq!(door.seen[&running].status, 503);
}

#[test]
fn a_request_has_the_state_that_its_admission_has_come_to() {
    let mut door = Door::with(Config {
        // Two of them for one address.
        max_in_flight: 4,
        drain_grace: Duration::from_secs(5),
        ..Config::default()
    });
    let open = door.open(request(Method::Post, "/v1/chat/completions"));
    assert_eq!(
        door.front.states(),
        BTreeMap::from([(Admission::Reading, 1)])
    );
    let (_, id, served) = begun(&mut door, "/v1/chat/completions");
    let states = [(Admission::Reading, 1), (Admission::Working, 1)];
    assert_eq!(
        door.front.states(),
        BTreeMap::from(states),
        "a head waits for the first event"
    );
    door.post("/v1/chat/completions", CHAT);
    door.tell(|front, now| front.chunk(now, id, &payload("hi", "")));
    let states = [(Admission::Reading, 1), (Admission::Answering, 1)];
    assert_eq!(door.front.states(), BTreeMap::from(states));
    let finished = Finished {
        answer: None,
        files: Vec::new(),
        served,
    };
    door.tell(|front, now| front.done(now, id, finished));
    door.leave(open);
    door.post("/v1/chat/completions", "{");
    door.get("/nowhere");
    door.post("/text-to-image", r#"{"prompt":"x"}"#);
    let (id, _) = door.want();
    door.tell(|front, now| front.failed(now, id, Failed::UnknownModel));
    door.tell(|front, now| front.drain(now));
    door.pass(Duration::from_secs(5));
    door.post("/v1/chat/completions", CHAT);
    let ends: Vec<_> = { door.finished.iter() }
        .map(|summary| (summary.state, summary.outcome))
        .collect();
    let expected = [
        (Admission::Limiting, Outcome::Refused),
        (Admission::Answering, Outcome::Answered),
        (Admission::Reading, Outcome::Gone),
        (Admission::Parsed, Outcome::Refused),
        (Admission::New, Outcome::Refused),
        (Admission::Working, Outcome::Refused),
        (Admission::New, Outcome::Refused),
    ];
    assert_eq!(ends, expected);
    let page = door.front.to_prometheus(&Jobs::of("live"));
    let line = "\nlivepeer_front_ended_total{state=\"parsed\",outcome=\"refused\"} 1\n";
    assert!(page.contains(line), "{page}");
}

#[test]
fn a_job_that_tells_nothing_is_given_up() {
    let mut door = Door::new();
    let native = door.post("/text-to-image", r#"{"prompt":"x"}"#);
    let (first, _) = door.want();
    let open_ai = door.post("/v1/chat/completions", super::CHAT);
    let (second, _) = door.want();
    door.pass(Duration::from_secs(330));
    assert_eq!(door.gone, [first, second]);
    assert_eq!(door.seen[&native].status, 503);
    assert_eq!(door.seen[&native].message(), "Service Unavailable Error");
    assert_eq!(door.seen[&open_ai].status, 504);
    assert_eq!(door.front.in_flight(), 0);
}

#[test]
fn a_client_that_goes_is_told_at_once_and_answered_never() {
    let mut door = Door::new();
    let reading = door.open(request(Method::Post, "/llm"));
    door.leave(reading);
    assert!(door.gone.is_empty(), "nobody works for it");
    let working = door.post("/v1/chat/completions", super::CHAT);
    let (id, work) = door.want();
    door.leave(working);
    assert_eq!(door.gone, [id]);
    let served = super::served(&work, Vec::new());
    door.tell(|front, now| front.head(now, id, served.clone()));
    door.tell(|front, now| front.chunk(now, id, &super::payload("x", "stop")));
    assert!(door.seen.is_empty());
    assert!(
        door.finished
            .iter()
            .all(|one| one.outcome == Outcome::Gone && one.status.is_none())
    );
    assert_eq!((door.front.in_flight(), door.front.held()), (0, 0));
}
