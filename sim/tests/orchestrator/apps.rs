//! Apps that are rented out: the answers of the reference, recorded, and what becomes of sessions, places and money.

mod replay;

use bytes::Bytes;
use livepeer_core::Address;
use livepeer_core::http::{Body, Method, Request, Url};
use livepeer_core::payment::Unit;
use livepeer_core::trickle::Start;
use livepeer_core::wire::app::registration::SessionNews;
use livepeer_core::wire::app::{SESSION_TOKEN_HEADER, Session};
use livepeer_core::wire::challenge::{Challenge, PAYER_ADDRESS_HEADER};
use livepeer_core::wire::payment::{PAYMENT_HEADER, SEGMENT_HEADER};
use livepeer_core::wire::runner::Mode;
use livepeer_orchestrator::{App, AppPrice, Config, Event, Quirks, Tempo, Worker};
use livepeer_sim::{Answer, Node};
use serde_json::{Value, json};

use crate::program::{PROGRAM, Program};
use crate::stage::{Paid, SERVICE, Stage, ms, off_chain, on_chain, secs, service};
use replay::Replay;

/// The word by which runners register.
const BOOT: &str = "boot";

fn open(config: Config) -> Config {
    Config {
        register_secret: Some(BOOT.to_owned()),
        ..config
    }
}

fn ask(
    stage: &mut Stage,
    method: Method,
    path: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = Request::new(method, service().with_path(path));
    for (name, value) in fields {
        request.headers.push_any(name, *value);
    }
    stage.ask(request.body(Body::Full(Bytes::copy_from_slice(body.as_bytes()))))
}

fn post(stage: &mut Stage, path: &str) -> Answer {
    ask(stage, Method::Post, path, &[], "")
}

fn text(answer: &Answer) -> (Option<u16>, String) {
    (answer.status, answer.text())
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("JSON: {}", answer.text()))
}

/// Lets a runner say that it lives; the answer has its secret the first time.
fn beat(stage: &mut Stage, secret: &str, fields: &Value) -> Answer {
    let body = fields.to_string();
    ask(
        stage,
        Method::Post,
        "/runners/heartbeat",
        &[("authorization", secret)],
        &body,
    )
}

/// Wants a session, and gets the demand for its payment.
fn demand(stage: &mut Stage, path: &str) -> Challenge {
    let payer = stage.payer.address().checksummed();
    let answer = ask(
        stage,
        Method::Post,
        path,
        &[(PAYER_ADDRESS_HEADER, &payer)],
        "",
    );
    assert_eq!(answer.status, Some(402), "{}", answer.text());
    let challenge = Challenge::from_json(&answer.body).expect("a demand that can be met");
    challenge.expect("a demand")
}

fn paid(stage: &mut Stage, path: &str, paid: &Paid, body: &str) -> Answer {
    let fields = [
        (PAYMENT_HEADER, &*paid.payment),
        (SEGMENT_HEADER, &*paid.segment),
    ];
    ask(stage, Method::Post, path, &fields, body)
}

/// Pays for a session with as many tickets.
fn rent(stage: &mut Stage, runner: &str, tickets: u32) -> Session {
    let path = format!("/apps/{runner}/session");
    let challenge = demand(stage, &path);
    let with = stage.pay(&challenge.info, &challenge.manifest_id, 1..=tickets);
    let answer = paid(stage, &path, &with, "");
    assert_eq!(answer.status, Some(200), "{}", answer.text());
    let url = service().with_path(&path);
    Session::from_json(&answer.body, &url).expect("a session")
}

// ---- sessions, places and money ----

/// Wei for a second: a ticket of the usual worth lasts for eight of them.
const SECOND: i64 = 1_000_000_000;

fn priced(mode: Mode, unit: Unit, wei: i64) -> App {
    App {
        capacity: 1,
        price: Some(AppPrice { wei, unit }),
        ..App::new(
            "x/y",
            mode,
            Worker::At(Url::parse(&format!("http://{PROGRAM}")).expect("a URL")),
        )
    }
}

fn stage(mode: Mode, unit: Unit, wei: i64) -> (Stage, Node<Program>) {
    let mut stage = Stage::new(on_chain().with_app("r1", priced(mode, unit, wei)));
    let program = Program::serve(&mut stage);
    (stage, program)
}

/// The balance of a session in wei, to the nearest ten: tickets are worth a little less than they should.
fn on_account(stage: &Stage, payer: Address, session: &str) -> i64 {
    let balance = stage.net.get(stage.orch).balance(payer, session);
    let wei: i64 = balance
        .expect("an account")
        .whole_wei()
        .to_string()
        .parse()
        .expect("few wei");
    (wei + 5) / 10 * 10
}

fn sessions(stage: &Stage) -> usize {
    stage.net.get(stage.orch).rented().count()
}

#[test]
fn the_listing_tells_places_and_prices() {
    let (mut stage, _) = stage(Mode::Persistent, Unit::Seconds, SECOND);
    let listing = |stage: &mut Stage| json_of(&ask(stage, Method::Get, "/discovery", &[], ""));
    let runner = |used: u32| {
        json!([{ "address": SERVICE, "runners": [{
            "url": format!("{SERVICE}/apps/r1/session"), "app": "x/y", "mode": "persistent",
            "capacity": 1, "capacity_used": used, "capacity_available": 1 - used,
            "price_info": { "price": SECOND, "currency": "wei", "unit": "seconds" },
        }] }])
    };
    assert_eq!(listing(&mut stage), runner(0));
    rent(&mut stage, "r1", 2);
    assert_eq!(listing(&mut stage), runner(1));
}

#[test]
fn a_metered_session_lasts_as_long_as_it_is_paid() {
    let (mut stage, program) = stage(Mode::Persistent, Unit::Seconds, SECOND);
    let challenge = demand(&mut stage, "/apps/r1/session");
    let first = stage.pay(&challenge.info, &challenge.manifest_id, 1..=2);
    let reserved = paid(&mut stage, "/apps/r1/session", &first, "");
    assert_eq!(reserved.status, Some(200));
    let session = Session::from_json(&reserved.body, &challenge.orchestrator).expect("a session");
    let payer = stage.payer.address();
    stage.net.run_for(secs(12));
    let balance = |stage: &Stage, wei: i64| {
        assert_eq!(on_account(stage, payer, &session.id), wei);
    };
    balance(&stage, 16_000_000_000 - 10 * SECOND);
    // Sixteen seconds were paid; one more ticket, where the demand says, is eight more.
    let more = stage.pay(&challenge.info, &challenge.manifest_id, 3..=3);
    let taken = paid(&mut stage, challenge.payment_url.path(), &more, "");
    assert_eq!(taken.status, Some(200), "{}", taken.text());
    stage.net.run_for(secs(9));
    balance(&stage, 24_000_000_000 - 20 * SECOND);
    assert_eq!(sessions(&stage), 1);
    stage.net.run_for(secs(5));
    assert_eq!(
        sessions(&stage),
        0,
        "the next five seconds are not on account"
    );
    let late = paid(&mut stage, challenge.payment_url.path(), &more, "");
    assert_eq!(
        text(&late),
        (Some(404), "runner session not found".to_owned())
    );
    let path = format!("{}/x", session.app.path());
    assert_eq!(
        text(&post(&mut stage, &path)),
        (Some(404), "runner session not found".to_owned())
    );
    assert!(stage.net.get(program).seen.is_empty(), "it was never used");
}

#[test]
fn a_reservation_whose_answer_was_lost_is_told_apart_by_its_name() {
    let (mut stage, _) = stage(Mode::Persistent, Unit::Seconds, SECOND);
    let challenge = demand(&mut stage, "/apps/r1/session");
    let with = stage.pay(&challenge.info, &challenge.manifest_id, 1..=2);
    for (status, words) in [(200, ""), (409, "session already exists")] {
        let answer = paid(&mut stage, "/apps/r1/session", &with, "");
        assert_eq!(answer.status, Some(status));
        assert!(answer.text().contains(words));
    }
    let stop = format!("/apps/r1/session/{}/stop", challenge.manifest_id);
    assert_eq!(post(&mut stage, &stop).status, Some(204));
    assert_eq!(sessions(&stage), 0);
    let events = stage.events();
    let credited = events
        .iter()
        .filter(|event| matches!(event, Event::Credited { .. }));
    assert_eq!(credited.count(), 1, "the second payment was not looked at");
}

#[test]
fn a_fixed_price_is_taken_once_and_before_the_app_is_asked() {
    let wei = 5_000_000_000;
    let (mut stage, program) = stage(Mode::SingleShot, Unit::Fixed, wei);
    let challenge = demand(&mut stage, "/apps/r1/app/x");
    let with = stage.pay(&challenge.info, &challenge.manifest_id, 1..=1);
    let answer = paid(&mut stage, "/apps/r1/app/x?y=z", &with, "body");
    assert_eq!(text(&answer), (Some(200), "the app's words".to_owned()));
    let seen = stage.net.get(program).last();
    assert_eq!(
        (seen.request.url.path(), &seen.body[..]),
        ("/x?y=z", &b"body"[..])
    );
    let left = on_account(&stage, stage.payer.address(), &challenge.manifest_id);
    assert_eq!(left, 8_000_000_000 - wei);
    assert_eq!(sessions(&stage), 0, "the place is free again");
}

#[test]
fn a_single_call_is_cut_when_its_money_is_gone() {
    // One ticket is seven seconds: two bills of five are too much.
    let (mut stage, program) = stage(Mode::SingleShot, Unit::Seconds, 8_000_000_000 / 7);
    let challenge = demand(&mut stage, "/apps/r1/app/slow");
    let with = stage.pay(&challenge.info, &challenge.manifest_id, 1..=1);
    let request = Request::new(Method::Post, service().with_path("/apps/r1/app/slow"))
        .header(PAYMENT_HEADER, with.payment)
        .header(SEGMENT_HEADER, with.segment);
    let id = stage.send(request);
    stage.net.run_for(ms(9_900));
    let caller = stage.caller;
    assert_eq!(stage.net.get(caller).answer(id).status, None);
    stage.net.run_for(ms(300));
    let answer = stage.answer(id);
    assert_eq!(text(&answer), (Some(502), "context canceled".to_owned()));
    assert!(stage.net.get(program).last().gone, "the app is told");
    assert_eq!(sessions(&stage), 0);
}

#[test]
fn a_caller_that_leaves_frees_the_place_of_its_call() {
    let app = App {
        capacity: 1,
        ..App::new(
            "x/y",
            Mode::SingleShot,
            Worker::Echo(Tempo {
                takes: secs(60),
                pace: ms(1),
            }),
        )
    };
    let mut stage = Stage::new(off_chain().with_app("r1", app));
    let id = stage.send(Request::new(
        Method::Post,
        service().with_path("/apps/r1/app/x"),
    ));
    stage.net.run_for(ms(100));
    assert_eq!(sessions(&stage), 1);
    assert_eq!(post(&mut stage, "/apps/r1/app/x").status, Some(503));
    let caller = stage.caller;
    let gone = livepeer_core::http::Out::Abort;
    stage.net.with(caller, |caller, _| caller.step(id, gone));
    stage.net.run_for(ms(100));
    assert_eq!(sessions(&stage), 0);
}

#[test]
fn an_answer_that_is_not_taken_stops_the_app() {
    let words = "word ".repeat(40_000);
    let app = App::new("x/y", Mode::SingleShot, Worker::Echo(Tempo::default()));
    let mut stage = Stage::new(off_chain().with_app("r1", app));
    let caller = stage.caller;
    stage.net.slow_down(caller, 200_000);
    let request = Request::new(Method::Post, service().with_path("/apps/r1/app/events"));
    let id = stage.send(request.body(Body::Full(words.clone().into())));
    stage.net.run_for(secs(1));
    assert_eq!(sessions(&stage), 1, "the rest waits");
    stage
        .net
        .run_while(secs(60), |net| !net.get(caller).answer(id).is_over());
    let answer = stage.net.get(caller).answer(id);
    assert!(answer.end.is_some());
    let events = answer.text();
    assert_eq!(events.matches("data: ").count(), 40_001, "none is lost");
    assert!(events.ends_with("data: [DONE]"));
}

// ---- beyond HTTP ----

fn socket(path: &str) -> Request {
    Request::new(Method::Get, service().with_path(path))
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "chat")
}

/// The answer to a request that leaves HTTP, so far.
fn so_far(stage: &mut Stage, id: livepeer_core::EffectId) -> Answer {
    stage.net.run_for(ms(200));
    stage.net.get(stage.caller).answer(id).clone()
}

fn say(stage: &mut Stage, id: livepeer_core::EffectId, bytes: impl Into<Bytes>) {
    let bytes = bytes.into();
    stage
        .net
        .with(stage.caller, |caller, _| caller.write(id, bytes));
}

#[test]
fn a_socket_of_an_app_passes_and_is_the_session_of_a_single_call() {
    let (mut stage, program) = stage(Mode::SingleShot, Unit::Seconds, SECOND);
    let challenge = {
        let payer = stage.payer.address().checksummed();
        let asked = socket("/apps/r1/app/x").header(PAYER_ADDRESS_HEADER, payer);
        let answer = stage.ask(asked);
        assert_eq!(answer.status, Some(402), "money first");
        let challenge = Challenge::from_json(&answer.body).expect("a demand that can be met");
        challenge.expect("a demand")
    };
    let with = stage.pay(&challenge.info, &challenge.manifest_id, 1..=3);
    let paid = socket("/apps/r1/app/x")
        .header(PAYMENT_HEADER, with.payment)
        .header(SEGMENT_HEADER, with.segment);
    let id = stage.send(paid);
    let answer = so_far(&mut stage, id);
    assert_eq!(answer.status, Some(101));
    assert_eq!(answer.headers.get("upgrade"), Some("websocket"));
    let seen = stage.net.get(program).last();
    assert_eq!(seen.request.upgrade(), Some("websocket"));
    let protocol = seen.request.headers.get("sec-websocket-protocol");
    assert_eq!(protocol, Some("chat"));
    say(&mut stage, id, "hello");
    assert_eq!(so_far(&mut stage, id).body, b"HELLO");
    assert_eq!(sessions(&stage), 1);
    let end = |caller: &mut livepeer_sim::Caller, _: livepeer_core::Time| caller.end(id);
    stage.net.with(stage.caller, end);
    assert!(so_far(&mut stage, id).end.is_some(), "the app ended too");
    assert_eq!(sessions(&stage), 0, "the call is over");
}

#[test]
fn a_socket_ends_when_its_money_does_and_when_its_app_stays() {
    let (mut stage, program) = stage(Mode::SingleShot, Unit::Seconds, SECOND);
    let challenge = demand(&mut stage, "/apps/r1/app/x");
    let with = stage.pay(&challenge.info, &challenge.manifest_id, 1..=1);
    let id = stage.send(
        socket("/apps/r1/app/x")
            .header(PAYMENT_HEADER, with.payment)
            .header(SEGMENT_HEADER, with.segment),
    );
    assert_eq!(so_far(&mut stage, id).status, Some(101));
    stage.net.run_for(secs(20));
    assert!(so_far(&mut stage, id).fault.is_some(), "nobody paid on");
    assert!(stage.net.get(program).last().gone, "the app hears of it");
    // For nothing, with an app that goes on when its peer has ended.
    let app = App::new(
        "x/y",
        Mode::SingleShot,
        Worker::At(Url::parse(&format!("http://{PROGRAM}")).expect("a URL")),
    );
    let mut stage = Stage::new(off_chain().with_app("r1", app));
    let program = Program::serve(&mut stage);
    stage
        .net
        .with(program, |program, _| program.stubborn = true);
    let id = stage.send(socket("/apps/r1/app/x"));
    assert_eq!(so_far(&mut stage, id).status, Some(101));
    let end = |caller: &mut livepeer_sim::Caller, _: livepeer_core::Time| caller.end(id);
    stage.net.with(stage.caller, end);
    stage.net.run_for(secs(9));
    assert_eq!(sessions(&stage), 1);
    stage.net.run_for(secs(2));
    assert_eq!(sessions(&stage), 0);
}

#[test]
fn the_app_that_is_built_in_says_back_what_comes_over_a_socket() {
    let app = App::new("x/y", Mode::SingleShot, Worker::Echo(Tempo::default()));
    let mut stage = Stage::new(off_chain().with_app("r1", app));
    let id = stage.send(socket("/apps/r1/app/x"));
    let answer = so_far(&mut stage, id);
    let accept = answer.headers.get("sec-websocket-accept");
    assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    // A message of 200,000 zeros under a mask of zeros, which the client does not take at once.
    let caller = stage.caller;
    stage.net.slow_down(caller, 100_000);
    let mut frame = vec![0x82, 0xff, 0, 0, 0, 0, 0, 3, 0x0d, 0x40, 0, 0, 0, 0];
    frame.resize(frame.len() + 200_000, 0);
    for piece in frame.chunks(10_000) {
        say(&mut stage, id, piece.to_vec());
    }
    say(&mut stage, id, vec![0x88, 0x80, 0, 0, 0, 0]);
    stage.net.run_for(secs(1));
    assert_eq!(sessions(&stage), 1, "the rest waits");
    let answer = stage.answer(id);
    assert_eq!(answer.body.len(), 200_000 + 10 + 2);
    assert!(answer.body.ends_with(&[0x88, 0]), "it ends as it was told");
    assert!(answer.end.is_some());
    assert_eq!(sessions(&stage), 0);
}

#[test]
fn a_live_session_sends_its_channel_out_again() {
    let app = App::new("x/live", Mode::Persistent, Worker::Live(Tempo::default()));
    let mut stage = Stage::new(off_chain().with_app("live", app));
    let reserved = post(&mut stage, "/apps/live/session");
    let session = Session::from_json(&reserved.body, &service()).expect("a session");
    let start = format!("{}/start", session.app.path());
    let started = json_of(&post(&mut stage, &start));
    let url = |name: &str| Url::parse(started[name].as_str().expect("text")).expect("a URL");
    let (input, output) = (url("publish_url"), url("subscribe_url"));
    assert_eq!(input.path(), format!("/ai/trickle/{}-in", session.id));
    let reader = stage.reader(&output, Start::Next);
    let publisher = stage.publisher(&input, false);
    for segment in [b"first segment", b"other segment"] {
        assert!(stage.publish(publisher, segment, ms(40)));
    }
    stage.net.run_for(ms(200));
    let (segments, over) = stage.read(reader);
    assert_eq!(
        segments,
        [b"first segment".to_vec(), b"other segment".to_vec()]
    );
    assert!(!over);
    let again = json_of(&post(&mut stage, &start));
    assert_eq!(again, started, "the channels stay what they are");
    assert_eq!(
        post(&mut stage, session.stop_url().path()).status,
        Some(204)
    );
    stage.net.run_for(secs(1));
    assert!(stage.read(reader).1, "the channels end with the session");
}

// ---- runners ----

fn runner(name: &str) -> Value {
    let url = format!("http://{PROGRAM}/base");
    json!({ "app": "x/y", "runner_id": name, "mode": "persistent", "capacity": 2, "runner_url": url })
}

fn registered() -> (Stage, Value) {
    let mut stage = Stage::new(open(off_chain()));
    let answer = beat(&mut stage, BOOT, &runner("r1"));
    assert_eq!(answer.status, Some(200), "{}", answer.text());
    let told = json_of(&answer);
    (stage, told)
}

#[test]
fn a_runner_hears_of_its_sessions() {
    let (mut stage, told) = registered();
    let news = Url::parse(told["o2r"]["url"].as_str().expect("text")).expect("a URL");
    let reader = stage.reader(&news, Start::At(livepeer_core::trickle::Seq::ZERO));
    let answer = post(&mut stage, "/apps/r1/session");
    let session = Session::from_json(&answer.body, &service()).expect("a session");
    assert_eq!(
        post(&mut stage, session.stop_url().path()).status,
        Some(204)
    );
    stage.net.run_for(secs(11));
    let (heard, over) = stage.read(reader);
    let heard: Vec<_> = heard
        .iter()
        .map(|message| SessionNews::from_json(message))
        .collect();
    let expected = [
        SessionNews::Reserved(session.id.clone()),
        SessionNews::Released(session.id),
        SessionNews::Nothing,
    ];
    assert_eq!((&heard[..], over), (&expected[..], false));
    // Twenty seconds of silence, and at most five more until somebody looks.
    stage.net.run_for(secs(15));
    assert!(stage.read(reader).1);
    assert_eq!(post(&mut stage, "/apps/r1/session").status, Some(404));
}

#[test]
fn a_silent_runner_loses_its_sessions_and_may_come_again() {
    let (mut stage, told) = registered();
    let secret = told["heartbeat_secret"].as_str().expect("text").to_owned();
    assert_eq!(post(&mut stage, "/apps/r1/session").status, Some(200));
    for _ in 0..3 {
        stage.net.run_for(secs(15));
        assert_eq!(beat(&mut stage, &secret, &runner("r1")).status, Some(200));
    }
    stage.net.run_for(secs(21));
    assert_eq!(sessions(&stage), 1, "nobody has looked yet");
    assert_eq!(beat(&mut stage, &secret, &runner("r1")).status, Some(404));
    stage.net.run_for(secs(5));
    assert_eq!(sessions(&stage), 0);
    assert_eq!(beat(&mut stage, &secret, &runner("r1")).status, Some(401));
    assert_eq!(beat(&mut stage, BOOT, &runner("r1")).status, Some(200));
}

#[test]
fn a_node_may_forget_a_runner() {
    let (mut stage, told) = registered();
    let secret = told["heartbeat_secret"].as_str().expect("text").to_owned();
    let forget_every = std::num::NonZeroU32::new(2);
    let quirks = Quirks {
        forget_every,
        ..Quirks::default()
    };
    stage
        .net
        .with(stage.orch, |orch, now| orch.set_quirks(now, quirks));
    let statuses: Vec<_> = (0..4)
        .map(|_| beat(&mut stage, &secret, &runner("r1")).status)
        .collect();
    assert_eq!(statuses, [Some(404), Some(200), Some(404), Some(200)]);
}

#[test]
fn names_that_nobody_reaches_and_targets_that_lose_a_part_are_refused() {
    let mut stage = Stage::new(open(off_chain()));
    for name in ["a/b", "a b", " a", "..", "a#b"] {
        let answer = beat(&mut stage, BOOT, &runner(name));
        assert_eq!(answer.status, Some(400), "{name:?}");
    }
    let mut replay = Replay::new(&json!({
        "runner": { "route": "r1", "mode": "persistent", "capacity": 1, "runner_url": format!("http://{PROGRAM}/base") },
        "sessions": ["5e551d00"],
    }));
    let session = replay.names["5e551d00"].clone();
    let path = format!("/runner/r1/session/{session}/proxy");
    let token = replay.token.clone();
    let mut target = |url: &str| {
        let body = json!({ "target_url": url }).to_string();
        let fields = [(SESSION_TOKEN_HEADER, &*token)];
        ask(&mut replay.stage, Method::Post, &path, &fields, &body)
    };
    let refused = target("http://10.0.0.2:8080/ui#top");
    assert_eq!(
        text(&refused),
        (Some(400), "target_url must not have a fragment".to_owned())
    );
    let made = json_of(&target("http://10.0.0.2:8080/ui"));
    let url = Url::parse(made["url"].as_str().expect("text")).expect("a URL");
    let id = made["proxy_id"].as_str().expect("text");
    assert_eq!(url.path(), format!("/run/{id}"));
    assert_eq!(
        post(&mut replay.stage, &format!("/run/{id}/a?b")).status,
        Some(200)
    );
    let seen = replay.stage.net.get(replay.program).last();
    assert_eq!(seen.request.url.path(), "/ui/a?b");
}
