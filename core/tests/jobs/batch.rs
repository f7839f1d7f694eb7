//! Batch jobs and their orchestrators' answers, from the vectors and by hand.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::handshake::Identity;
use livepeer_core::http::{Body, Fault, Headers, In, Method, Out, Response, Url};
use livepeer_core::job::batch::{Batch, Config, Event, Failed, Finished, JobId, Left};
use livepeer_core::payment::Payer;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::pool::{self, Quickest};
use livepeer_core::prefer::{Named, Preferences};
use livepeer_core::wire::SegmentCredentials;
use livepeer_core::wire::batch::BatchRequest;
use livepeer_core::wire::grpc;
use livepeer_core::{Effect, EffectId, Input, Machine, Time};
use livepeer_proto::net;
use livepeer_sim::{Driven, Exchanges, heard};
use serde_json::Value;

use crate::{cases, raw};

mod standby;

const MODEL: &str = "m";

/// A machine, and a world around it in which every orchestrator shakes hands.
struct World {
    batch: Batch<Quickest>,
    pipeline: Pipeline,
    now: Time,
    book: Exchanges,
    /// Requests that the test has to answer.
    asked: Vec<(EffectId, Method, Url, Headers, Bytes)>,
    /// Handshakes, by host.
    shaken: Vec<String>,
    /// Whether handshakes are answered.
    shakes: bool,
    aborted: Vec<EffectId>,
    paused: Vec<bool>,
    suspended: Vec<Url>,
    finds: usize,
    heads: usize,
    chunks: Vec<Bytes>,
    done: Vec<(JobId, Finished)>,
    failed: Vec<(JobId, Failed)>,
}

impl Driven for World {
    livepeer_sim::driven!(batch: Batch<Quickest>, book);

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(Out::Request(request)) => {
                if request.url.path().contains("GetOrchestrator") {
                    self.shaken.push(request.url.host().to_owned());
                    if self.shakes {
                        let info = self.info(&request.url);
                        for step in heard(grpc::reply(&info)) {
                            self.book.told(self.now, id, &step);
                            self.batch.handle_input(self.now, Input::Http(id, step));
                        }
                    }
                    return;
                }
                let body = match request.body {
                    Body::Full(body) => body,
                    Body::Pieces(pieces) => pieces.concat().into(),
                    _ => Bytes::new(),
                };
                let asked = (id, request.method, request.url, request.headers, body);
                self.asked.push(asked);
            }
            Effect::Http(Out::Abort) => {
                self.asked.retain(|(asked, ..)| *asked != id);
                self.aborted.push(id);
            }
            Effect::Http(Out::Pause) => self.paused.push(true),
            Effect::Http(Out::Resume) => self.paused.push(false),
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Find => self.finds += 1,
            Event::Head(..) => self.heads += 1,
            Event::Chunk(_, chunk) => self.chunks.push(chunk),
            Event::Done(id, finished) => self.done.push((id, *finished)),
            Event::Failed(id, failed) => self.failed.push((id, *failed)),
            Event::Pool(pool::Event::Suspended(url, _)) => self.suspended.push(url),
            _ => {}
        }
    }
}

impl World {
    fn new(pipeline: Pipeline, orchestrators: &[&str]) -> Self {
        Self::with(Config::default(), pipeline, orchestrators)
    }

    fn with(config: Config, pipeline: Pipeline, orchestrators: &[&str]) -> Self {
        let now = Time::from_secs(1_700_000_000);
        let mut batch = Batch::new(
            now,
            config,
            pipeline,
            MODEL,
            Identity::Offchain,
            Payer::Offchain,
            Quickest,
            [7; 32],
        );
        let urls: Vec<Url> = orchestrators.iter().map(|url| self::url(url)).collect();
        batch.offer(now, urls);
        Self {
            batch,
            pipeline,
            now,
            book: Exchanges::default(),
            asked: Vec::new(),
            shaken: Vec::new(),
            shakes: true,
            aborted: Vec::new(),
            paused: Vec::new(),
            suspended: Vec::new(),
            finds: 0,
            heads: 0,
            chunks: Vec::new(),
            done: Vec::new(),
            failed: Vec::new(),
        }
    }

    fn info(&self, url: &Url) -> net::OrchestratorInfo {
        let wanted = Capabilities::for_model(self.pipeline.capability(), MODEL);
        net::OrchestratorInfo {
            transcoder: url.origin(),
            auth_token: Some(net::AuthToken {
                token: Bytes::from_static(b"secret"),
                session_id: format!("s{}", self.shaken.len()),
                expiration: 4_000_000_000,
            }),
            capabilities: Some(wanted.to_wire()),
            ..Default::default()
        }
    }

    fn submit(&mut self, request: &BatchRequest) -> JobId {
        self.submit_with(request, Preferences::default())
    }

    fn submit_with(&mut self, request: &BatchRequest, preferences: Preferences) -> JobId {
        let id = self.batch.submit(self.now, request, preferences);
        self.drain();
        id.expect("it takes jobs")
    }

    /// Answers the one request that waits.
    fn answer(&mut self, status: u16, content: &str, body: impl Into<Bytes>) -> String {
        let (id, _, url, ..) = self.asked.remove(0);
        self.http(
            id,
            In::Reply(Response::new(status).header("content-type", content)),
        );
        self.http(id, In::Data(body.into()));
        self.http(id, In::End(Headers::new()));
        url.to_string()
    }
}

fn url(text: &str) -> Url {
    Url::parse(text).expect("a URL")
}

fn picture() -> BatchRequest {
    let mut request = BatchRequest::new(Pipeline::TextToImage);
    request.set_model(MODEL);
    request.set("prompt", "p").expect("a field");
    request
}

fn chat(stream: bool) -> BatchRequest {
    let mut request = BatchRequest::new(Pipeline::Llm);
    request.set_model(MODEL);
    let messages = r#"[{"role":"user","content":"hi"}]"#;
    request.set_text("messages", messages).expect("messages");
    request.set("max_tokens", 8).expect("a field");
    request.set("stream", stream).expect("a field");
    request
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.map(|one| one.as_str().expect("a text").to_owned())
        .collect()
}

/// An answer with a picture.
const PICTURE: &str =
    r#"{"images":[{"url":"data:image/png;base64,iVBORw0KGgo=","seed":1,"nsfw":false}]}"#;

#[test]
fn orchestrators_are_left_as_the_vectors_say() {
    let all = cases("jobs/02-ai-batch-failover.json", "cases");
    let mut played = 0;
    for case in &all {
        let id = case["id"].as_str().expect("a name");
        let (given, wanted) = (&case["in"], &case["out"]);
        let orchestrators = texts(&given["orchestrators"]);
        let named: Vec<&str> = orchestrators.iter().map(String::as_str).collect();
        let mut world = World::new(Pipeline::TextToImage, &named);
        let body = Bytes::from(raw(&given["request"], "body"));
        let mut request = BatchRequest::read_json(Pipeline::TextToImage, &body).expect("a request");
        request.take_empty();
        let job = world.submit(&request);
        let first = world.shaken.len();
        let mut upstream = Vec::new();
        for peer in given["peers"].as_array().expect("peers") {
            let reply = &peer["reply"];
            let (exchange, _, url, ..) = world.asked.first().expect(id).clone();
            upstream.push(url.to_string());
            if reply == "connection refused" {
                world.asked.remove(0);
                world.http(exchange, In::Failed(Fault::Connect("refused".into())));
                continue;
            }
            let status = reply["status"].as_u64().expect("a status") as u16;
            let body = match reply.get("body_repeat") {
                Some(repeat) => {
                    let times = repeat["count"].as_u64().expect("a number") as usize;
                    repeat["text"].as_str().expect("a text").repeat(times)
                }
                None => raw(reply, "body"),
            };
            world.answer(status, "text/plain", body);
        }
        let mut expected = wanted["upstream"].as_array().into_iter().flatten();
        assert!(
            expected.all(|asked| upstream.contains(&asked["url"].as_str().unwrap().to_owned())),
            "{id}: {upstream:?}"
        );
        if let Some(all) = wanted["upstream"].as_array() {
            assert_eq!(upstream.len(), all.len(), "{id}");
        }
        if wanted.get("suspended").is_some() {
            let suspended: Vec<String> = world.suspended.iter().map(Url::origin).collect();
            assert_eq!(suspended, texts(&wanted["suspended"]), "{id}");
        }
        if wanted.get("refreshed").is_some() {
            let again = &world.shaken[first..];
            // What comes home stale is shaken hands with once more, for the next job.
            assert!(
                again.len() >= texts(&wanted["refreshed"]).len(),
                "{id}: {again:?}"
            );
        }
        let ended = world.failed.len() + world.done.len();
        assert_eq!(ended, 1, "{id}: {:?}", world.batch.pool().tried());
        match wanted["reply"]["status"].as_u64().expect("a status") {
            200 => assert_eq!(world.done[0].0, job, "{id}: {:?}", world.failed),
            400 => assert!(
                matches!(&world.failed[0].1, Failed::Caller { text, .. } if text == "bad lora"),
                "{id}"
            ),
            503 => assert!(
                matches!(&world.failed[0].1, Failed::NoOrchestrator { attempts, .. } if attempts.len() == 2),
                "{id}: {:?}",
                world.failed
            ),
            500 => assert!(
                matches!(&world.failed[0].1, Failed::ResultLost { .. }),
                "{id}: {:?}",
                world.failed
            ),
            other => panic!("{id}: {other}"),
        }
        assert_eq!(world.batch.jobs(), 0, "{id}");
        played += 1;
    }
    assert_eq!(played, all.len());
}

#[test]
fn streams_pass_as_the_vectors_say() {
    let all = cases("jobs/04-llm-stream.json", "cases");
    for case in &all {
        let id = case["id"].as_str().expect("a name");
        let (given, wanted) = (&case["in"], &case["out"]["reply"]);
        let mut world = World::new(Pipeline::Llm, &["https://orch-a.example:8935"]);
        let body = Bytes::from(raw(&given["request"], "body"));
        let request = BatchRequest::read_json(Pipeline::Llm, &body).expect("a request");
        world.submit(&request);
        let reply = &given["peers"][0]["reply"];
        let content = reply["headers"]["content-type"].as_str().expect("a type");
        world.answer(200, content, raw(reply, "body"));
        let Some(events) = wanted["events_json"].as_array() else {
            assert_eq!(world.done.len(), 1, "{id}");
            continue;
        };
        let broken = events
            .last()
            .is_some_and(|last| last.get("error").is_some());
        let passed: Vec<Value> = { world.chunks.iter() }
            .map(|chunk| {
                let native = livepeer_core::wire::batch::native_chunk(chunk);
                serde_json::from_slice(&native).expect("JSON")
            })
            .collect();
        assert_eq!(
            passed[..],
            events[..events.len() - usize::from(broken)],
            "{id}"
        );
        assert_eq!(world.heads, 1, "{id}");
        assert_eq!(world.failed.len(), usize::from(broken), "{id}");
        assert_eq!(world.done.len(), usize::from(!broken), "{id}");
    }
}

#[test]
fn the_headers_are_those_that_orchestrators_read() {
    let mut world = World::new(Pipeline::TextToImage, &["https://a.example:8935"]);
    world.submit(&picture());
    let (_, method, url, headers, body) = &world.asked[0];
    assert_eq!(*method, Method::Post);
    assert_eq!(url.path(), "/text-to-image");
    assert_eq!(
        headers.get("livepeer-payment"),
        Some(""),
        "off-chain, and there"
    );
    assert_eq!(headers.get("authorization"), Some("Livepeer-AI-Worker-1.0"));
    assert_eq!(headers.get("content-type"), Some("application/json"));
    let segment = headers.get("livepeer-segment").expect("credentials");
    let credentials = SegmentCredentials::decode(segment).expect("credentials");
    assert_eq!(credentials.manifest_id, "27_m");
    assert_eq!((credentials.seq, credentials.duration_ms), (0, 0));
    let nothing = "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470";
    assert_eq!(hex::encode(credentials.hash), nothing);
    assert!(credentials.signature.is_empty());
    assert!(credentials.capabilities.is_some() && credentials.auth_token.is_some());
    let body: Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(body["model_id"], MODEL);
}

#[test]
fn time_is_looked_at_between_tries_and_cuts_no_request() {
    let mut world = World::new(
        Pipeline::TextToImage,
        &["https://a.example:8935", "https://b.example:8935"],
    );
    world.submit(&picture());
    // Longer than a job may try, and the answer is good all the same.
    world.pass(Duration::from_secs(60));
    world.answer(200, "application/json", PICTURE);
    assert_eq!(world.done.len(), 1);
    // A failure so late leaves no second try.
    world.submit(&picture());
    world.pass(Duration::from_secs(3));
    world.answer(500, "text/plain", "boom");
    let Failed::NoOrchestrator { attempts, .. } = &world.failed[0].1 else {
        panic!("{:?}", world.failed);
    };
    assert_eq!(attempts[0].reason, Left::Status(500));
    assert!(world.asked.is_empty());
}

#[test]
fn an_answer_that_never_ends_is_given_up_after_its_limit() {
    let mut world = World::new(Pipeline::TextToImage, &["https://a.example:8935"]);
    world.submit(&picture());
    let id = world.asked[0].0;
    for _ in 0..10 {
        world.http(id, In::Data(Bytes::new()));
        world.pass(Duration::from_secs(29));
        assert!(world.failed.is_empty());
    }
    world.pass(Duration::from_secs(20));
    assert!(matches!(&world.failed[0].1, Failed::TimedOut { .. }));
    assert_eq!(world.aborted, [id]);
}

#[test]
fn a_stream_is_held_back_up_to_its_orchestrator_and_may_be_silent_meanwhile() {
    let mut world = World::new(Pipeline::Llm, &["https://a.example:8935"]);
    let job = world.submit(&chat(true));
    let (id, ..) = world.asked.remove(0);
    world.http(
        id,
        In::Reply(Response::new(200).header("content-type", "text/event-stream")),
    );
    assert_eq!(
        world.heads, 1,
        "who answers is known before there is a chunk"
    );
    let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    world.http(id, In::Data(chunk.into()));
    assert_eq!((world.heads, world.chunks.len()), (1, 1));
    let now = world.now;
    world.batch.pause(now, job);
    world.drain();
    world.pass(Duration::from_secs(600));
    assert!(world.failed.is_empty(), "the silence is ours");
    let now = world.now;
    world.batch.resume(now, job);
    world.drain();
    assert_eq!(world.paused, [true, false]);
    world.pass(Duration::from_secs(119));
    assert!(world.failed.is_empty());
    world.pass(Duration::from_secs(2));
    assert!(matches!(&world.failed[0].1, Failed::Broken { .. }));
}

#[test]
fn a_stream_that_gave_nothing_yet_goes_on_elsewhere() {
    for body in ["", "data: {\"error\":\"oom\"}\n\n", "data: nothing\n\n"] {
        let mut world = World::new(
            Pipeline::Llm,
            &["https://a.example:8935", "https://b.example:8935"],
        );
        world.submit(&chat(true));
        world.answer(200, "text/event-stream", body);
        assert_eq!((world.heads, world.chunks.len()), (1, 0));
        assert_eq!(world.asked.len(), 1, "the other one has it");
        let whole = r#"{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}"#;
        // A whole answer to a request for a stream is one chunk.
        world.answer(200, "application/json", whole);
        assert_eq!(
            (world.heads, &world.chunks[..]),
            (2, &[Bytes::from(whole)][..])
        );
        assert_eq!(world.done[0].1.served.attempts.len(), 1);
    }
}

#[test]
fn an_answer_without_a_picture_is_none_and_another_one_is_asked() {
    let image = |url: &str| format!(r#"{{"images":[{{"url":"{url}","seed":1,"nsfw":false}}]}}"#);
    for body in [
        "<html></html>".to_owned(),
        r#"{"images":[]}"#.to_owned(),
        image(""),
        image("data:image/png;base64,iVBOR*"),
        image("data:image/png,iVBORw0KGgo="),
    ] {
        let mut world = World::new(
            Pipeline::TextToImage,
            &["https://a.example:8935", "https://b.example:8935"],
        );
        world.submit(&picture());
        world.answer(200, "application/json", body.clone());
        assert_eq!(world.asked.len(), 1, "{body}: the other one has it");
        world.answer(200, "application/json", PICTURE);
        let served = &world.done[0].1.served;
        assert_eq!(served.attempts[0].reason, Left::InvalidAnswer, "{body}");
    }
}

#[test]
fn settings_that_change_hold_for_jobs_that_begin_later() {
    let hosts = ["https://a.example:8935", "https://b.example:8935"];
    let mut world = World::new(Pipeline::TextToImage, &hosts);
    world.submit(&picture());
    let (now, mut config) = (world.now, Config::default());
    config.answer_within = Duration::from_secs(20);
    config.tries.tries = 1;
    world.batch.set_config(now, config, Quickest);
    world.drain();
    // This one began by the old ones: a minute is not too long, and there is another try.
    world.pass(Duration::from_secs(1));
    world.answer(500, "text/plain", "boom");
    world.pass(Duration::from_secs(60));
    assert!(world.failed.is_empty());
    world.answer(200, "application/json", PICTURE);
    assert_eq!(world.done.len(), 1);
    world.submit(&picture());
    world.answer(500, "text/plain", "boom");
    let Failed::NoOrchestrator { attempts, .. } = &world.failed[0].1 else {
        panic!("{:?}", world.failed);
    };
    assert_eq!(attempts.len(), 1);
    world.pass(Duration::from_secs(600));
    world.submit(&picture());
    world.pass(Duration::from_secs(21));
    assert!(matches!(&world.failed[1].1, Failed::TimedOut { .. }));
}

#[test]
fn a_hostile_place_of_a_result_is_not_visited() {
    for place in [
        "http://127.0.0.1:22/x.png",
        "https://10.0.0.1/x.png",
        "file:///etc/passwd",
        "nonsense://x",
    ] {
        let mut world = World::new(Pipeline::TextToImage, &["https://a.example:8935"]);
        world.submit(&picture());
        let body = format!(r#"{{"images":[{{"url":"{place}","seed":1,"nsfw":false}}]}}"#);
        world.answer(200, "application/json", body);
        assert!(world.asked.is_empty(), "{place}");
        assert!(
            matches!(&world.failed[0].1, Failed::ResultLost { .. }),
            "{place}"
        );
    }
}

#[test]
fn a_result_that_is_too_large_or_too_slow_is_lost_and_asked_of_nobody_else() {
    let hosts = ["https://a.example:8935", "https://b.example:8935"];
    for slow in [false, true] {
        let mut world = World::new(Pipeline::TextToImage, &hosts);
        let (now, mut config) = (world.now, Config::default());
        config.max_result = 1_000;
        world.batch.set_config(now, config, Quickest);
        world.submit(&picture());
        let body = r#"{"images":[{"url":"/stream/0/x.png","seed":1,"nsfw":false}]}"#;
        world.answer(200, "application/json", body);
        assert_eq!(world.asked[0].2.path(), "/stream/0/x.png");
        match slow {
            false => drop(world.answer(200, "image/png", vec![7; 1_001])),
            true => world.pass(Duration::from_secs(5)),
        }
        assert!(matches!(&world.failed[0].1, Failed::ResultLost { .. }));
        // The work was done and paid for.
        let jobs = world.asked.iter().filter(|asked| asked.1 == Method::Post);
        assert_eq!(jobs.count(), 0);
    }
}

#[test]
fn preferences_decide_who_is_asked_and_say_so_when_they_leave_nobody() {
    let hosts = ["https://a.example:8935", "https://b.example:8935"];
    let host = |name: &str| Named::Host(name.into(), None);
    let mut world = World::new(Pipeline::TextToImage, &hosts);
    // Both are there.
    world.drain();
    let order = Preferences {
        order: vec![host("b.example")],
        ..Preferences::default()
    };
    world.submit_with(&picture(), order);
    assert_eq!(world.asked[0].2.host(), "b.example");
    world.answer(503, "text/plain", "insufficient capacity");
    assert_eq!(world.asked[0].2.host(), "a.example");
    world.answer(200, "application/json", PICTURE);
    let single = Preferences {
        allow_fallbacks: false,
        ..Preferences::default()
    };
    world.submit_with(&picture(), single);
    world.answer(500, "text/plain", "boom");
    assert!(world.asked.is_empty(), "one try, and no other");
    let mut world = World::new(Pipeline::TextToImage, &hosts);
    let mut nobody = Preferences::default();
    nobody.limits.only = Some(vec![host("c.example")]);
    world.submit_with(&picture(), nobody);
    world.batch.offer(world.now, Vec::<Url>::new());
    world.drain();
    assert_eq!(
        world.failed[0].1,
        Failed::NoMatch {
            excluded: vec![("only", 2)]
        }
    );
    assert!(world.asked.is_empty());
}
