//! The course of a session: media, parameters, events, and its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use livepeer_core::http::{Body, Method, Request, Url};
use livepeer_core::trickle::Start;
use livepeer_core::wire::{Channels, Params};
use livepeer_orchestrator::Orchestrator;
use livepeer_orchestrator::{
    Config, EndReason, Event, Join, ModelConfig, Pipeline, PipelineFactory,
};
use serde_json::Value;

use crate::stage::{Stage, ms, off_chain, secs, service};

fn segments(n: u8) -> Vec<Vec<u8>> {
    (0..n).map(|n| vec![n; 1_000 + usize::from(n)]).collect()
}

fn ended(stage: &mut Stage) -> Vec<EndReason> {
    stage
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::SessionEnded { why, .. } => Some(why),
            _ => None,
        })
        .collect()
}

fn told(
    stage: &mut Stage,
    reader: livepeer_sim::Node<livepeer_core::trickle::Subscriber>,
) -> Vec<Value> {
    let (segments, _) = stage.read(reader);
    segments
        .iter()
        .map(|segment| serde_json::from_slice(segment).expect("events are JSON"))
        .collect()
}

#[test]
fn noop_returns_every_byte_while_it_is_still_being_written() {
    let mut stage = Stage::new(off_chain());
    let channels = stage.start_off_chain();
    let output = stage.reader(&channels.subscribe, Start::At(0.into()));
    let video = stage.publisher(&channels.publish, false);
    // Half of a segment goes through before the other half exists.
    stage.net.with(video, |p, now| p.begin(now)).expect("ready");
    stage
        .net
        .with(video, |p, now| p.write(now, Bytes::from_static(b"half")))
        .expect("room");
    stage.net.run_for(ms(20));
    assert_eq!(stage.read(output).0, [b"half"]);
    stage.net.with(video, |p, now| p.end(now)).expect("open");
    let sent = segments(12);
    for segment in &sent {
        stage.publish(video, segment, ms(300));
    }
    stage.net.run_for(ms(100));
    assert!(stage.read(output).0 == sent);
}

/// The segments that come back from a runner that joins within a minute at `from`. Of six the first one is open for
/// `open` milliseconds, and the others follow at once.
fn joined_late(from: Start, open: u64) -> Vec<Vec<u8>> {
    let within = secs(60);
    let mut stage = Stage::new(Config {
        join: Join { within, from },
        ..off_chain()
    });
    let channels = stage.start_off_chain();
    let output = stage.reader(&channels.subscribe, Start::At(0.into()));
    let video = stage.publisher(&channels.publish, false);
    let sent = segments(6);
    let first = Bytes::copy_from_slice(&sent[0]);
    stage.net.with(video, |p, now| p.begin(now)).expect("ready");
    stage
        .net
        .with(video, |p, now| p.write(now, first))
        .expect("room");
    stage.net.run_for(ms(open));
    stage.net.with(video, |p, now| p.end(now)).expect("open");
    for segment in &sent[1..] {
        stage.publish(video, segment, ms(10));
    }
    stage.net.run_for(secs(61));
    stage.read(output).0
}

#[test]
fn a_runner_that_joins_late_gets_the_open_segment_whole_and_old_ones_the_next() {
    let sent = segments(6);
    assert!(joined_late(Start::Current, 60_500) == sent);
    assert!(joined_late(Start::Next, 60_500) == sent[1..]);
}

#[test]
fn a_runner_that_joins_late_misses_what_was_sent_at_once() {
    let sent = segments(6);
    assert!(joined_late(Start::Current, 0) == sent[5..]);
    assert!(joined_late(Start::Next, 0).is_empty());
}

#[test]
fn when_the_input_ends_the_place_is_free_at_once_and_readers_still_get_the_tail() {
    let mut stage = Stage::new(off_chain());
    let channels = stage.start_off_chain();
    let video = stage.publisher(&channels.publish, false);
    // Nobody reads until the input is over.
    let sent = segments(4);
    for segment in &sent {
        stage.publish(video, segment, ms(20));
    }
    stage.net.with(video, |p, now| p.close(now));
    stage.net.run_for(ms(100));
    assert_eq!(ended(&mut stage), [EndReason::InputClosed]);
    assert_eq!(stage.net.get(stage.orch).sessions().count(), 0);
    let gone = |stage: &mut Stage, channel: &Url| {
        let head = Request::new(Method::Head, channel.child("0"));
        stage.ask(head).status == Some(404)
    };
    assert!(gone(&mut stage, &channels.publish));
    let events = stage.reader(&channels.events, Start::Next);
    let output = stage.reader(&channels.subscribe, Start::At(0.into()));
    stage.net.run_for(ms(250));
    let (got, over) = stage.read(output);
    assert!(got == sent && !over, "{} segments, over: {over}", got.len());
    // And once they wait for more than there will be, it ends for them too; the events end last.
    stage.net.run_for(ms(300));
    assert_eq!(stage.read(output), (Vec::new(), true));
    assert!(!stage.read(events).1);
    stage.net.run_for(ms(500));
    assert!(stage.read(events).1 && gone(&mut stage, &channels.control));
}

#[test]
fn an_output_that_nobody_reads_goes_soon() {
    let mut stage = Stage::new(off_chain());
    let channels = stage.start_off_chain();
    let video = stage.publisher(&channels.publish, false);
    stage.publish(video, b"x", ms(20));
    stage.net.with(video, |p, now| p.close(now));
    stage.net.run_for(ms(1_500));
    let head = |stage: &mut Stage| {
        stage
            .ask(Request::new(Method::Head, channels.subscribe.child("0")))
            .status
    };
    assert_eq!(head(&mut stage), Some(200));
    stage.net.run_for(ms(2_500));
    assert_eq!(head(&mut stage), Some(404));
}

#[test]
fn a_segment_that_is_open_when_the_input_ends_comes_out_as_far_as_it_came() {
    let mut stage = Stage::new(off_chain());
    let channels = stage.start_off_chain();
    let output = stage.reader(&channels.subscribe, Start::At(0.into()));
    let id = stage.send(
        Request::new(Method::Post, channels.publish.child("0"))
            .body(livepeer_core::http::Body::Stream),
    );
    stage
        .net
        .with(stage.caller, |caller, _| caller.write(id, &b"cut off"[..]));
    stage.net.run_for(ms(20));
    let deleted = stage.ask(Request::new(Method::Delete, channels.publish.clone()));
    assert_eq!(deleted.status, Some(200));
    stage.net.run_for(ms(1_000));
    assert_eq!(stage.read(output), (vec![b"cut off".to_vec()], true));
}

#[test]
fn segments_that_the_publisher_left_out_do_not_hold_up_those_after_them() {
    let mut stage = Stage::new(off_chain());
    let channels = stage.start_off_chain();
    let output = stage.reader(&channels.subscribe, Start::At(0.into()));
    for seq in ["0", "7", "8"] {
        let url = channels.publish.child(seq);
        let post = Request::new(Method::Post, url).body(Body::Full(seq.into()));
        assert_eq!(stage.ask(post).status, Some(200));
        stage.net.run_for(secs(11));
    }
    assert_eq!(stage.read(output).0, [b"0", b"7", b"8"]);
}

#[test]
fn deleting_the_output_ends_the_session() {
    let mut stage = Stage::new(off_chain());
    let channels = stage.start_off_chain();
    stage.ask(Request::new(Method::Delete, channels.subscribe.clone()));
    stage.net.run_for(ms(100));
    assert_eq!(ended(&mut stage), [EndReason::OutputClosed]);
    let answer = stage.ask(Request::new(Method::Get, channels.publish.child("0")));
    assert_eq!(answer.status, Some(404));
}

#[test]
fn an_orphaned_session_is_swept_and_its_place_given_back() {
    let one = ModelConfig {
        capacity: 1,
        ..ModelConfig::default()
    };
    let mut stage = Stage::new(off_chain().with_model("noop", one));
    let channels = stage.start_off_chain();
    // Control messages are no input.
    let control = stage.publisher(&channels.control, true);
    while stage.publish(control, br#"{"keep":"alive"}"#, ms(10)) {
        stage.net.run_for(secs(10));
    }
    assert_eq!(ended(&mut stage), [EndReason::Idle]);
    stage.start_off_chain();
}

#[test]
fn the_runner_speaks_every_five_seconds_and_tells_how_it_is() {
    let mut stage = Stage::new(off_chain());
    let channels = stage.start_off_chain();
    let events = stage.reader(&channels.events, Start::At(0.into()));
    let kinds = |told: &[Value]| -> Vec<String> {
        told.iter()
            .map(|one| one["event"]["type"].as_str().expect("a type").to_owned())
            .collect()
    };
    stage.net.run_for(secs(12));
    let first = told(&mut stage, events);
    assert_eq!(kinds(&first), ["status", "heartbeat", "status"]);
    let status = &first[0]["event"];
    assert_eq!(status["state"], "LOADING");
    assert_eq!(status["pipeline"], "noop");
    assert_eq!(first[0]["queue_event_type"], "ai_stream_events");
    assert_eq!(first[1]["queue_event_type"], "stream_heartbeat");
    let video = stage.publisher(&channels.publish, false);
    stage.publish(video, b"x", ms(10));
    stage.net.run_for(secs(10));
    let second = told(&mut stage, events);
    assert_eq!(kinds(&second), ["heartbeat", "status"]);
    assert_eq!(second[1]["event"]["state"], "ONLINE");
    assert!(second[1]["event"]["inference_status"]["last_output_time"].is_u64());
    stage.net.run_for(secs(10));
    let third = told(&mut stage, events);
    assert_eq!(third[1]["event"]["state"], "DEGRADED_INPUT");
}

/// Counts updates, and writes a mark at the end of every segment.
struct Marks(Arc<AtomicU32>);

impl Pipeline for Marks {
    fn data(&mut self, bytes: &Bytes) -> Bytes {
        bytes.to_ascii_uppercase().into()
    }

    fn end(&mut self) -> Bytes {
        Bytes::from_static(b"|")
    }

    fn update(&mut self, _: &Params) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn another_pipeline_does_something_else_and_hears_of_new_parameters() {
    let updates = Arc::new(AtomicU32::new(0));
    let counted = updates.clone();
    let factory = PipelineFactory::new(move || Marks(counted.clone()));
    let model = ModelConfig::default().running(factory);
    let mut stage = Stage::new(off_chain().with_model("marks", model));
    let info = stage.info();
    let body = r#"{"model_id":"marks","params":{"prompt":"a cat"},"stream_id":null}"#;
    let answer = stage.start_with(&Stage::unpaid(&info), body);
    let channels = Channels::from_json(&answer.body, &service()).expect("started");
    assert_eq!(updates.load(Ordering::Relaxed), 1);
    let events = stage.reader(&channels.events, Start::At(0.into()));
    let output = stage.reader(&channels.subscribe, Start::At(0.into()));
    let video = stage.publisher(&channels.publish, false);
    stage.publish(video, b"abc", ms(20));
    let control = stage.publisher(&channels.control, true);
    for message in [r#"{"keep":"alive"}"#, r#"{"prompt":"a dog"}"#, "nonsense"] {
        stage.publish(control, message.as_bytes(), ms(20));
    }
    stage.net.run_for(secs(11));
    assert_eq!(stage.read(output).0, [b"ABC|"]);
    assert_eq!(updates.load(Ordering::Relaxed), 2);
    let told = told(&mut stage, events);
    let kinds: Vec<&str> = told
        .iter()
        .filter_map(|one| one["event"]["type"].as_str())
        .collect();
    assert_eq!(
        kinds,
        ["status", "params_update", "error", "heartbeat", "status"]
    );
    assert_eq!(
        told[0]["event"]["inference_status"]["last_params"]["prompt"],
        "a cat"
    );
    assert_eq!(told[1]["event"]["params"]["prompt"], "a dog");
    assert_eq!(
        told[4]["event"]["inference_status"]["last_params"]["prompt"],
        "a dog"
    );
}

#[test]
fn the_owner_can_end_sessions_and_the_whole_thing() {
    let mut stage = Stage::new(off_chain());
    let one = stage.start_off_chain();
    let two = stage.start_off_chain();
    let output = stage.reader(&two.subscribe, Start::At(0.into()));
    assert!(stage.net.with(stage.orch, |orch, now| {
        orch.end_session(now, &one.manifest_id)
    }));
    assert!(!stage.net.with(stage.orch, |orch, now| {
        orch.end_session(now, &one.manifest_id)
    }));
    assert_eq!(ended(&mut stage), [EndReason::ByOwner]);
    stage.net.with(stage.orch, Orchestrator::close);
    let answer = stage.ask(Request::new(Method::Post, service().with_path("/payment")));
    assert_eq!(answer.status, Some(503));
    stage.net.run_for(secs(5));
    assert!(stage.read(output).1);
    let events: Vec<Event> = stage.events();
    assert!(
        matches!(events[..], [Event::SessionEnded { .. }, Event::Closed]),
        "{events:?}"
    );
}

#[test]
fn peers_cannot_make_channels_of_their_own() {
    let mut stage = Stage::new(off_chain());
    for path in ["/ai/trickle/mine", "/ai/trickle/mine/0"] {
        let answer = stage.ask(Request::new(Method::Post, service().with_path(path)));
        assert!(
            matches!(answer.status, Some(403 | 404)),
            "{:?}",
            answer.status
        );
    }
}
