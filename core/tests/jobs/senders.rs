//! Live entry, driven by hand: senders and their names, and everything that is told of their streams.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::entry::{
    AUTH_WITHIN, BEAT_EVERY, Config, Denied, Entry, Event, GRACE, Hook, Job, JobEnd, LARGE_UPDATE,
    Left, MEASURE_EVERY, MEDIA_WITHIN, MediaServer, Notice, Publish, REMEMBERED, SenderId,
    StreamId, Updated, Way, Why, key_headers, without_addresses,
};
use livepeer_core::error::{Cause, Failure, Party};
use livepeer_core::http::{Body, Fault, Headers, In, Out, Request, Url};
use livepeer_core::wire::entry::{IngestMetrics, OutputName, StartHook, StreamName};
use livepeer_core::wire::{EventContext, RunnerEvent};
use livepeer_core::{Address, Effect, EffectId, Time};
use livepeer_sim::{Driven, Exchanges};
use serde_json::{Value, json};

use crate::cases;

const ORCH: &str = "https://orch-a.example:8935";

/// A live entry, and everything that it said.
struct Desk {
    now: Time,
    book: Exchanges,
    entry: Entry,
    asked: VecDeque<(EffectId, Request)>,
    said: Vec<Event>,
    reports: Vec<(String, Value)>,
    notices: Vec<Notice>,
}

impl Desk {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: Config) -> Self {
        let now = Time::from_secs(1_790_000_000);
        Self {
            now,
            book: Exchanges::default(),
            entry: Entry::new(now, Arc::new(config), [7; 32]),
            asked: VecDeque::new(),
            said: Vec::new(),
            reports: Vec::new(),
            notices: Vec::new(),
        }
    }

    fn publish(&mut self, publish: Publish) -> SenderId {
        let id = self.entry.publish(self.now, publish);
        self.drain();
        id
    }

    /// A sender that comes by WHIP and is let in.
    fn whip(&mut self, name: &str, query: &str) -> (SenderId, StreamId) {
        let id = self.publish(by(Way::Whip, name, query));
        (id, self.admitted(id))
    }

    fn admitted(&mut self, id: SenderId) -> StreamId {
        let admitted = self.said.iter().find_map(|event| match event {
            Event::Admit { sender, stream, .. } if *sender == id => Some(*stream),
            _ => None,
        });
        admitted.unwrap_or_else(|| panic!("{:?}", self.said))
    }

    fn refused(&self, id: SenderId) -> Option<&Denied> {
        self.said.iter().find_map(|event| match event {
            Event::Refuse(sender, denied) if *sender == id => Some(denied),
            _ => None,
        })
    }

    fn jobs(&self) -> Vec<&Job> {
        let jobs = self.said.iter().filter_map(|event| match event {
            Event::Start(_, job) => Some(&**job),
            _ => None,
        });
        jobs.collect()
    }

    fn stopped(&self) -> Vec<(StreamId, Why)> {
        let stopped = self.said.iter().filter_map(|event| match event {
            Event::Stop(id, why) => Some((*id, why.clone())),
            _ => None,
        });
        stopped.collect()
    }

    fn kicked(&self) -> Vec<SenderId> {
        let kicked = self.said.iter().filter_map(|event| match event {
            Event::Kick(id, _) => Some(*id),
            _ => None,
        });
        kicked.collect()
    }

    fn settled(&self) -> Vec<SenderId> {
        let settled = self.said.iter().filter_map(|event| match event {
            Event::Settled(id) => Some(*id),
            _ => None,
        });
        settled.collect()
    }

    fn updates(&self) -> Vec<String> {
        let updates = self.said.iter().filter_map(|event| match event {
            Event::Update(_, params, _) => Some(params.to_json()),
            _ => None,
        });
        updates.collect()
    }

    fn traces(&self) -> Vec<&str> {
        let traces = self
            .reports
            .iter()
            .filter(|(queue, _)| queue == "stream_trace");
        traces
            .map(|(_, event)| event["type"].as_str().unwrap())
            .collect()
    }

    fn errors(&self) -> Vec<&str> {
        let errors = self
            .reports
            .iter()
            .filter(|(_, event)| event["type"] == "error");
        errors
            .map(|(_, event)| event["message"].as_str().unwrap())
            .collect()
    }

    /// A command to the machine.
    fn tell<T>(&mut self, command: impl FnOnce(&mut Entry, Time) -> T) -> T {
        let told = command(&mut self.entry, self.now);
        self.drain();
        told
    }

    fn status(&self, name: &str) -> Value {
        let status = self.entry.status(name);
        serde_json::from_str(&status.unwrap()).unwrap()
    }
}

impl Driven for Desk {
    type Machine = Entry;

    fn parts(&mut self) -> (&mut Entry, &mut Time) {
        (&mut self.entry, &mut self.now)
    }

    fn book(&mut self) -> &mut Exchanges {
        &mut self.book
    }

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(Out::Request(request)) => self.asked.push_back((id, request)),
            Effect::Http(Out::Abort) => self.asked.retain(|(one, _)| *one != id),
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Report { queue, event } => {
                let event = serde_json::from_str(&event).unwrap();
                self.reports.push((queue, event));
            }
            Event::Notice(notice) => self.notices.push(notice),
            event => self.said.push(event),
        }
    }
}

fn config() -> Config {
    Config {
        base: "https://gw.example".into(),
        playback: "http://localhost:8889/".into(),
        ..Config::default()
    }
}

fn hooked(url: &str, key: &str) -> Option<Hook> {
    Some(Hook {
        url: Url::parse(url).unwrap(),
        headers: key_headers(key),
    })
}

fn by(way: Way, name: &str, query: &str) -> Publish {
    Publish {
        way,
        name: StreamName::parse(name).unwrap(),
        key: None,
        query: query.to_owned(),
    }
}

fn announced(name: &str, form: &str) -> Publish {
    let kind = "application/x-www-form-urlencoded";
    let host = "10.0.0.9".parse().ok();
    let body = Bytes::from(form.to_owned());
    let hook = StartHook::read(name, kind, &body, host).unwrap().unwrap();
    let query = hook.query.clone();
    by(Way::Hook(Box::new(hook)), name, &query)
}

fn url() -> Url {
    Url::parse(ORCH).unwrap()
}

fn full(request: &Request) -> Value {
    match &request.body {
        Body::Full(bytes) => serde_json::from_slice(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Whether a request is the one that a vector has.
fn is_request(request: &Request, wanted: &Value) {
    assert_eq!(request.method.as_str(), wanted["method"]);
    let url = Url::parse(wanted["url"].as_str().unwrap()).unwrap();
    assert_eq!(request.url, url);
    for (name, value) in wanted["headers"].as_object().into_iter().flatten() {
        assert_eq!(request.headers.get(name), value.as_str(), "{name}");
    }
    if wanted["body_json"].is_object() {
        let (mut body, mut wanted) = (full(request), wanted["body_json"].clone());
        let (told, pattern) = (body["whep_url"].take(), wanted["whep_url"].take());
        if let Some(pattern) = pattern.as_str() {
            let start = pattern
                .trim_start_matches("re:^")
                .split('[')
                .next()
                .unwrap();
            assert!(told.as_str().unwrap().starts_with(start), "{told}");
        }
        assert_eq!(body, wanted);
    }
}

/// The starts of the vectors: what the webhook is asked, what follows of its answer, and who is kicked.
#[test]
fn starts_go_as_the_vectors_have_it() {
    let mut played = 0;
    for case in cases("jobs/06-live-entry.json", "cases") {
        let (given, wanted) = (&case["in"], &case["out"]);
        let path = given["request"]["path"].as_str().unwrap_or_default();
        let Some(upstream) = wanted["upstream"].as_array().filter(|all| !all.is_empty()) else {
            continue;
        };
        let Some(stream) = path.strip_suffix("/start") else {
            continue;
        };
        played += 1;
        let mut desk = Desk::with(Config {
            webhook: given["webhook"]
                .as_str()
                .and_then(|url| hooked(url, given["webhook_key"].as_str().unwrap())),
            ..config()
        });
        let stream = stream.rsplit_once('/').unwrap().1;
        let form = given["request"]["body_text"].as_str().unwrap();
        let sender = desk.publish(announced(stream, form));
        let mut upstream = upstream.iter();
        if let Some((id, asked)) = desk.asked.pop_front() {
            is_request(&asked, upstream.next().unwrap());
            let reply = &given["peers"][0]["reply"];
            let body = match reply["body_text"].as_str() {
                Some(text) => text.to_owned(),
                None => reply["body_json"].to_string(),
            };
            desk.respond(id, reply["status"].as_u64().unwrap() as u16, body);
        }
        let status = wanted["reply"]["status"].as_u64().unwrap();
        if status == 200 {
            let stream = desk.admitted(sender);
            desk.tell(|entry, now| entry.job_over(now, stream, JobEnd::NoOrchestrator));
            assert_eq!(desk.settled(), [sender], "it is answered");
        } else {
            let denied = desk.refused(sender).expect("it is refused");
            assert_eq!(u64::from(denied.status()), status);
        }
        let (_, kick) = desk.asked.pop_front().expect("a kick");
        is_request(&kick, upstream.next().unwrap());
        assert!(upstream.next().is_none() && desk.asked.is_empty());
        for trace in wanted["traces"].as_array().into_iter().flatten() {
            assert!(desk.traces().contains(&trace.as_str().unwrap()), "{trace}");
        }
    }
    assert_eq!(played, 5);
}

#[test]
fn a_heartbeat_ends_the_streams_that_its_answer_names() {
    let mut played = 0;
    for case in cases("jobs/06-live-entry.json", "cases") {
        let (given, wanted) = (&case["in"], &case["out"]);
        if given["tick"] != "heartbeat" {
            continue;
        }
        played += 1;
        let mut headers = Headers::new();
        for (name, value) in given["heartbeat_headers"].as_object().unwrap() {
            headers.push_any(name, value.as_str().unwrap());
        }
        let mut desk = Desk::with(Config {
            heartbeat: Some(Hook {
                url: Url::parse(given["heartbeat_url"].as_str().unwrap()).unwrap(),
                headers,
            }),
            ..config()
        });
        let mut ids = BTreeMap::new();
        for (name, stream) in given["streams"].as_object().unwrap() {
            let id = stream["stream_id"].as_str().unwrap();
            let (_, stream) = desk.whip(name, &format!("streamId={id}"));
            ids.insert(stream, name.clone());
        }
        desk.pass(BEAT_EVERY);
        let (id, beat) = desk.asked.pop_front().expect("a beat");
        is_request(&beat, &wanted["upstream"][0]);
        let reply = &given["peers"][0]["reply"];
        let body = match reply["body_text"].as_str() {
            Some(text) => text.to_owned(),
            None => reply["body_json"].to_string(),
        };
        desk.respond(id, reply["status"].as_u64().unwrap() as u16, body);
        let ended: Vec<_> = desk.stopped();
        let stopped = wanted["stopped"].as_array().unwrap();
        assert_eq!(ended.len(), stopped.len());
        for ((id, why), stopped) in ended.iter().zip(stopped) {
            assert_eq!(
                (ids[id].as_str(), why),
                (stopped["stream"].as_str().unwrap(), &Why::Terminated)
            );
            assert_eq!(desk.errors(), [stopped["reason"].as_str().unwrap()]);
        }
        desk.pass(BEAT_EVERY);
        assert_eq!(desk.asked.len(), 1, "and again");
    }
    assert_eq!(played, 2);
}

#[test]
fn an_answer_of_the_webhook_says_what_the_job_is() {
    let mut desk = Desk::with(Config {
        webhook: hooked("https://auth.example/hook", "k1"),
        ..config()
    });
    let sender = desk.publish(by(Way::Whip, "cam1", "pipeline=noop&streamId=s1"));
    let (id, asked) = desk.asked.pop_front().expect("a question");
    assert_eq!(full(&asked)["type"], "livepeer-whip");
    assert!(desk.said.is_empty(), "nobody is let in before the answer");
    let answer = json!({ "pipeline": "sd", "pipeline_id": "p9", "rtmp_output_url": "rtmp://out/x",
        "pipeline_parameters": { "a": 1 } });
    desk.respond(id, 200, answer.to_string());
    desk.admitted(sender);
    let [job] = desk.jobs()[..] else {
        panic!("{:?}", desk.said)
    };
    assert_eq!(
        (&*job.pipeline, &*job.stream_id, &job.outputs[..]),
        ("sd", "s1", &["rtmp://out/x".to_owned()][..])
    );
    assert_eq!(job.params.as_ref().unwrap().to_json(), r#"{"a":1}"#);
    assert_eq!(desk.reports[0].1["pipeline_id"], "p9");
}

#[test]
fn a_webhook_that_says_nothing_lets_nobody_in_and_is_not_waited_for() {
    for (way, kicks) in [("whip", 0), ("hook", 1)] {
        let mut desk = Desk::with(Config {
            webhook: hooked("https://auth.example/hook", "k1"),
            ..config()
        });
        let publish = match way {
            "whip" => by(Way::Whip, "cam1", ""),
            _ => announced("cam1", "source_id=a&source_type=rtmpConn"),
        };
        let late = desk.publish(publish.clone());
        desk.pass(AUTH_WITHIN - Duration::from_millis(1));
        assert_eq!(desk.refused(late), None);
        desk.pass(Duration::from_millis(1));
        assert_eq!(desk.refused(late), Some(&Denied::Failed));
        assert!(matches!(&desk.notices[..], [Notice::NoVerdict(_)]));
        assert_eq!(desk.asked.len(), kicks);
        let broken = desk.publish(publish);
        let (id, _) = desk.asked.pop_back().unwrap();
        desk.http(id, In::Failed(Fault::Connect("refused".into())));
        assert_eq!(desk.refused(broken), Some(&Denied::Failed));
    }
}

#[test]
fn a_sender_that_goes_before_the_answer_is_forgotten() {
    let mut desk = Desk::with(Config {
        webhook: hooked("https://auth.example/hook", ""),
        ..config()
    });
    let sender = desk.publish(by(Way::Rtmp, "cam1", ""));
    let (_, asked) = &desk.asked[0];
    assert_eq!(full(asked)["type"], "rtmp");
    assert_eq!(asked.headers.get("x-api-key"), None);
    desk.tell(|entry, now| entry.left(now, sender, Left::Ended));
    assert!(desk.asked.is_empty() && desk.said.is_empty() && desk.entry.is_empty());
}

#[test]
fn keys_are_asked_for_where_there_are_any() {
    let mut desk = Desk::with(Config {
        keys: [
            ("cam1".to_owned(), "k1".to_owned()),
            (String::new(), "k2".to_owned()),
        ]
        .into(),
        ..config()
    });
    for (name, key, fits) in [
        ("cam1", Some("k1"), true),
        ("cam1", Some("k2"), false),
        ("cam1", None, false),
        ("other", Some("k2"), true),
        ("other", Some(""), false),
    ] {
        let mut publish = by(Way::Whip, name, "");
        publish.key = key.map(str::to_owned);
        let sender = desk.publish(publish);
        let wanted = (!fits).then_some(&Denied::Unauthorized);
        assert_eq!(desk.refused(sender), wanted, "{name} {key:?}");
    }
    let hook = desk.publish(announced("cam2", "source_id=a&source_type=rtmpConn"));
    assert_eq!(
        desk.refused(hook),
        None,
        "the media server knows its senders"
    );
}

/// The states of jobs spec 11.2.
#[test]
fn a_stream_lives_as_its_table_has_it() {
    let mut desk = Desk::new();
    let sender = desk.publish(announced(
        "cam1",
        "source_id=a&source_type=rtmpConn&query=streamId%3Ds1",
    ));
    let stream = desk.admitted(sender);
    assert!(
        desk.settled().is_empty(),
        "the hook waits for the first search"
    );
    let updated = desk.tell(|entry, now| entry.update(now, "cam1", r#"{"a":1}"#));
    assert_eq!(updated, Ok(Updated::Kept), "nobody has to wait");
    assert!(desk.updates().is_empty(), "kept until somebody works");
    desk.tell(|entry, now| entry.started(now, stream, url()));
    assert_eq!(desk.settled(), [sender]);
    assert_eq!(desk.updates(), [r#"{"a":1}"#]);
    let came = " {\"prompt\":\"dog\",\"a\" : 1.0}";
    let updated = desk.tell(|entry, now| entry.update(now, "s1", came));
    assert_eq!(desk.updates().last().unwrap(), came, "byte for byte");
    let told = desk.said.iter().rev().find_map(|event| match event {
        Event::Update(of, _, Some(update)) if *of == stream => Some(*update),
        _ => None,
    });
    assert_eq!(updated, Ok(Updated::Sent(told.expect("somebody waits"))));
    assert_eq!(desk.notices, []);
    let large = format!(r#"{{"prompt":"{}"}}"#, "x".repeat(LARGE_UPDATE - 13));
    for text in [&large[..], &format!("{large} ")] {
        let updated = desk.tell(|entry, now| entry.update(now, "cam1", text));
        assert!(
            matches!(updated, Ok(Updated::Sent(_))),
            "it is sent all the same"
        );
    }
    let name = StreamName::parse("cam1").unwrap();
    assert_eq!(large.len(), LARGE_UPDATE);
    assert_eq!(desk.notices, [Notice::LargeUpdate(name, LARGE_UPDATE + 1)]);

    desk.tell(|entry, now| entry.input(now, stream));
    for _ in 0..4 {
        desk.tell(|entry, now| entry.input(now, stream));
        desk.tell(|entry, now| entry.output_seen(now, stream));
    }
    let other = Url::parse("https://orch-b.example:8935").unwrap();
    desk.tell(|entry, now| entry.swapped(now, stream, "silent", other));
    desk.tell(|entry, now| entry.stop(now, "cam1")).unwrap();
    assert_eq!(
        desk.traces(),
        [
            "gateway_receive_stream_request",
            "gateway_send_first_ingest_segment",
            "gateway_receive_first_processed_segment",
            "gateway_receive_few_processed_segments",
            "orchestrator_swap",
            "gateway_ingest_stream_closed",
        ]
    );
    let swap = desk
        .reports
        .iter()
        .find(|(_, one)| one["type"] == "orchestrator_swap");
    let swap = &swap.unwrap().1;
    assert_eq!(
        swap["orchestrator_info"]["url"], ORCH,
        "the one that was lost"
    );
    assert_eq!(swap["message"], "silent");
    assert_eq!(desk.stopped(), [(stream, Why::Asked)]);
    let (_, kick) = desk.asked.pop_front().unwrap();
    assert_eq!(
        kick.url.to_string(),
        "http://10.0.0.9:9997/v3/rtmpconns/kick/a"
    );
    assert!(desk.tell(|entry, now| entry.stop(now, "cam1")).is_err());
    // What is still told of it changes nothing.
    desk.said.clear();
    desk.tell(|entry, now| entry.started(now, stream, url()));
    desk.tell(|entry, now| entry.job_over(now, stream, JobEnd::Failed("late")));
    assert!(desk.said.is_empty() && desk.entry.is_empty());
}

#[test]
fn a_newer_sender_takes_the_name_at_once_and_quietly() {
    let mut desk = Desk::new();
    let (old_sender, old) = desk.whip("cam1", "streamId=s1");
    desk.tell(|entry, now| entry.started(now, old, url()));
    let (_, new) = desk.whip("cam1", "streamId=s1");
    assert_ne!(old, new);
    assert_eq!(desk.stopped(), [(old, Why::TakenOver)]);
    assert_eq!(desk.kicked(), [old_sender]);
    assert!(desk.errors().is_empty(), "nobody needs to know");
    // The older one's last words do not reach the newer one.
    desk.tell(|entry, now| entry.left(now, old_sender, Left::Ended));
    desk.tell(|entry, now| {
        entry.job_over(now, old, JobEnd::Failed("control channel does not exist"))
    });
    assert_eq!(desk.status("s1")["gateway_status"]["error"], Value::Null);
    let output = OutputName::parse("cam1-out").unwrap();
    assert_eq!(desk.entry.output(&output), Ok(new));
    let request = &desk.jobs()[0].request_id;
    let output = OutputName::parse(&format!("cam1-{request}-out")).unwrap();
    assert_eq!(
        desk.entry.output(&output).unwrap_err().status,
        404,
        "of the older request"
    );
}

#[test]
fn without_takeover_a_name_is_free_once_its_sender_is_gone() {
    let mut desk = Desk::with(Config {
        takeover: false,
        ..config()
    });
    let (first, _) = desk.whip("cam1", "");
    let second = desk.publish(by(Way::Rtmp, "cam1", ""));
    assert_eq!(desk.refused(second), Some(&Denied::Taken));
    desk.tell(|entry, now| entry.left(now, first, Left::Ended));
    desk.whip("cam1", "");
}

#[test]
fn a_sender_that_vanished_may_come_back_for_the_same_work() {
    let mut desk = Desk::new();
    let (sender, stream) = desk.whip("cam1", "");
    desk.tell(|entry, now| entry.left(now, sender, Left::Lost));
    desk.pass(GRACE - Duration::from_millis(1));
    assert!(desk.stopped().is_empty());
    let back = desk.publish(by(Way::Whip, "cam1", "params=%7B%22a%22%3A1%7D"));
    assert_eq!(desk.admitted(back), stream, "the job goes on");
    desk.tell(|entry, now| entry.started(now, stream, url()));
    assert_eq!(desk.updates(), [r#"{"a":1}"#]);
    desk.pass(GRACE);
    assert!(desk.stopped().is_empty());

    desk.tell(|entry, now| entry.left(now, back, Left::Lost));
    let other = desk.publish(by(Way::Whip, "cam1", "pipeline=other"));
    assert_ne!(desk.admitted(other), stream, "other work is another job");

    desk.tell(|entry, now| entry.left(now, other, Left::Lost));
    desk.pass(GRACE);
    assert_eq!(desk.stopped().last().unwrap().1, Why::Disconnected);
    assert_eq!(desk.errors(), ["whip disconnected"]);
}

#[test]
fn media_joins_the_stream_that_a_media_server_announced() {
    let mut desk = Desk::new();
    let hook = desk.publish(announced(
        "cam1",
        "source_id=a&source_type=rtmpConn&query=pipeline%3Dsd",
    ));
    let stream = desk.admitted(hook);
    let sender = desk.publish(by(Way::Rtmp, "cam1", ""));
    assert_eq!(desk.admitted(sender), stream);
    assert_eq!(desk.jobs().len(), 1);
    desk.pass(MEDIA_WITHIN);
    assert!(desk.stopped().is_empty(), "there is media");
    // Another publisher of RTMP goes on with it, and the first one is closed.
    let next = desk.publish(by(Way::Rtmp, "cam1", ""));
    assert_ne!(
        desk.admitted(next),
        stream,
        "it wants other work than the announcement"
    );
    assert_eq!(desk.kicked(), [sender]);
    let again = desk.publish(by(Way::Rtmp, "cam1", ""));
    assert_eq!(desk.admitted(again), desk.admitted(next));
    assert_eq!(desk.kicked(), [sender, next]);

    let lonely = desk.publish(announced("cam2", "source_id=b&source_type=srtConn"));
    desk.admitted(lonely);
    desk.pass(MEDIA_WITHIN);
    assert_eq!(desk.stopped().last().unwrap().1, Why::NoVideo);
    assert_eq!(desk.errors().last(), Some(&"missing video"));
    let (_, kick) = desk.asked.back().unwrap();
    assert_eq!(kick.url.path(), "/v3/srtconns/kick/b");
}

#[test]
fn a_status_is_told_with_ours_beside_it_and_for_a_while_after_the_end() {
    let mut desk = Desk::new();
    let (sender, stream) = desk.whip("my-cam", "streamId=s1");
    let request = desk.jobs()[0].request_id.clone();
    let whep = format!("http://localhost:8889/my-cam-{request}-out/whep");
    assert_eq!(
        desk.status("s1"),
        json!({ "gateway_status": { "whep_url": whep } })
    );
    desk.tell(|entry, now| entry.started(now, stream, url()));
    let mut context = EventContext::default();
    context.add_orchestrator(Address([7; 20]), &url());
    let said = br#"{"type":"status","state":"ONLINE","inference_status":{"last_params":{"p":1}}}"#;
    let event = RunnerEvent::parse(said, &context).unwrap();
    desk.tell(|entry, now| entry.runner(now, stream, event));
    let said = br#"{"type":"status","state":"DEGRADED_INFERENCE","inference_status":{"fps":3}}"#;
    let event = RunnerEvent::parse(said, &context).unwrap();
    desk.tell(|entry, now| entry.runner(now, stream, event));
    let metrics = IngestMetrics {
        id: "x".into(),
        ..IngestMetrics::default()
    };
    desk.tell(|entry, now| entry.metrics(now, stream, metrics));
    for name in ["s1", "my-cam"] {
        let told = desk.status(name);
        assert_eq!(told["state"], "DEGRADED_INFERENCE");
        assert_eq!(told["inference_status"]["last_params"], json!({ "p": 1 }));
        assert_eq!(
            told["gateway_status"]["ingest_metrics"]["stats"]["conn_quality"],
            "good"
        );
        assert!(!told.to_string().contains("orch-a"), "{told}");
    }
    let (queue, event) = desk.reports.last().unwrap();
    assert_eq!(
        (queue.as_str(), &event["stream_id"]),
        ("stream_ingest_metrics", &json!("s1"))
    );

    desk.tell(|entry, now| entry.left(now, sender, Left::Ended));
    let told = desk.status("s1");
    assert_eq!(
        told["gateway_status"]["error"]["error_message"],
        "whip disconnected"
    );
    desk.pass(REMEMBERED - Duration::from_millis(1));
    assert_eq!(desk.status("my-cam")["state"], "DEGRADED_INFERENCE");
    desk.pass(Duration::from_millis(1));
    assert_eq!(desk.entry.status("s1").unwrap_err().status, 404);
}

#[test]
fn how_media_arrive_is_asked_for_as_long_as_somebody_sends() {
    let mut desk = Desk::new();
    let hook = desk.publish(announced("cam0", "source_id=a&source_type=rtmpConn"));
    desk.pass(MEASURE_EVERY);
    let measured = |desk: &mut Desk| {
        let mut found = Vec::new();
        desk.said.retain(|event| match event {
            Event::Measure(stream, sender) => {
                found.push((*stream, *sender));
                false
            }
            _ => true,
        });
        found
    };
    assert_eq!(measured(&mut desk), [], "its media are at the media server");
    let (first, of_first) = desk.whip("cam1", "");
    desk.pass(Duration::from_secs(2));
    let (second, of_second) = desk.whip("cam2", "");
    desk.pass(Duration::from_secs(3));
    let both = [(of_first, first), (of_second, second)];
    assert_eq!(measured(&mut desk), both);
    desk.tell(|entry, now| entry.left(now, first, Left::Lost));
    desk.pass(MEASURE_EVERY);
    assert_eq!(measured(&mut desk), both[1..]);
    let back = desk.publish(by(Way::Whip, "cam1", ""));
    desk.pass(MEASURE_EVERY);
    assert_eq!(measured(&mut desk), [(of_first, back), both[1]]);
    for sender in [back, second] {
        desk.tell(|entry, now| entry.left(now, sender, Left::Ended));
    }
    desk.pass(MEASURE_EVERY);
    assert_eq!(measured(&mut desk), []);
    assert!(
        desk.jobs().len() == 3 && desk.settled().is_empty(),
        "{hook:?}"
    );
}

#[test]
fn a_runner_names_no_queue_of_its_own() {
    let mut desk = Desk::new();
    let (_, stream) = desk.whip("cam1", "");
    for (said, queue) in [
        (
            r#"{"event":{"a":1},"queue_event_type":"create_new_payment"}"#,
            "ai_stream_events",
        ),
        (
            r#"{"event":{"a":1},"queue_event_type":"stream_trace"}"#,
            "stream_trace",
        ),
        (r#"{"type":"status"}"#, "ai_stream_status"),
    ] {
        let event = RunnerEvent::parse(said.as_bytes(), &EventContext::default()).unwrap();
        desk.tell(|entry, now| entry.runner(now, stream, event));
        assert_eq!(desk.reports.last().unwrap().0, queue);
    }
}

#[test]
fn a_failure_is_told_without_the_address_of_whoever_failed() {
    let mut desk = Desk::new();
    let (sender, stream) = desk.whip("cam1", "");
    desk.tell(|entry, now| entry.started(now, stream, url()));
    desk.tell(|entry, now| entry.swapped(now, stream, "silent", url()));
    let link = Fault::Connect(format!(
        "tcp connect to orch-a.example:8935 ({ORCH}) refused"
    ));
    let failure = Failure::new(Party::Orchestrator(url()), Cause::Link(link));
    let text = without_addresses(&failure);
    assert_eq!(
        text,
        "the orchestrator: cannot connect: tcp connect to … … refused"
    );
    desk.tell(|entry, now| entry.job_over(now, stream, JobEnd::Failed(&text)));
    let told = desk.status("cam1");
    let message = &told["gateway_status"]["error"]["error_message"];
    assert_eq!(message, &format!("Too many swaps: {text}"));
    assert_eq!(desk.kicked(), [sender]);
}

#[test]
fn a_large_update_is_sent_and_warned_of() {
    let mut desk = Desk::new();
    let (_, stream) = desk.whip("cam1", "");
    desk.tell(|entry, now| entry.started(now, stream, url()));
    let large = format!(r#"{{"prompt":"{}"}}"#, "x".repeat(32 << 10));
    desk.tell(|entry, now| entry.update(now, "cam1", &large))
        .unwrap();
    let name = StreamName::parse("cam1").unwrap();
    assert_eq!(desk.notices, [Notice::LargeUpdate(name, large.len())]);
    assert_eq!(desk.updates(), [large], "in one message");
    let refused = desk.tell(|entry, now| entry.update(now, "nobody", "{}"));
    assert_eq!(refused.unwrap_err().status, 404);
    let refused = desk.tell(|entry, now| entry.update(now, "cam1", "[1]"));
    assert_eq!(refused.unwrap_err().status, 400);
}

#[test]
fn events_are_told_in_order_and_again_until_they_are_taken_or_too_many() {
    let mut desk = Desk::with(Config {
        events: hooked("https://listen.example/", "k"),
        ..config()
    });
    desk.whip("cam1", "");
    let (id, told) = desk.asked.pop_front().unwrap();
    let event = &full(&told)[0];
    assert_eq!(
        (&event["type"], &event["gateway"]),
        (&json!("stream_trace"), &json!("gw.example"))
    );
    assert_eq!(event["data"]["type"], "gateway_receive_stream_request");
    assert_eq!(event["timestamp"], "1790000000000");
    assert_eq!(event["id"].as_str().unwrap().len(), 36);
    // Nothing else is told meanwhile, and nothing waits for it.
    desk.whip("cam2", "");
    assert!(desk.asked.is_empty());
    desk.respond(id, 503, "");
    desk.pass(Duration::from_secs(1));
    let (id, again) = desk.asked.pop_front().unwrap();
    let all = full(&again);
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert_eq!(&all[0], event, "the same one");
    desk.respond(id, 204, "");
    assert_eq!(desk.entry.waiting(), (0, 0));

    // A place that never takes any: each is tried ten times, then it is lost, and told so.
    desk.whip("cam3", "");
    desk.asked.clear();
    desk.pass(Duration::from_secs(600));
    assert_eq!(desk.entry.waiting().0, 0);
    assert_eq!(desk.notices, [Notice::EventsLost(1)]);
}

#[test]
fn a_media_server_is_told_who_asks() {
    let mut desk = Desk::with(Config {
        media_server: Some(MediaServer {
            user: "admin".into(),
            password: "pw".into(),
        }),
        ..config()
    });
    let sender = desk.publish(announced("cam1", "source_id=a&source_type=webRTCSession"));
    desk.admitted(sender);
    desk.tell(|entry, now| entry.stop(now, "cam1")).unwrap();
    let (id, kick) = desk.asked.pop_front().unwrap();
    assert_eq!(
        kick.headers.get("authorization"),
        Some("Basic YWRtaW46cHc=")
    );
    desk.respond(id, 401, "");
    assert!(matches!(&desk.notices[..], [Notice::NoKick(_)]));
}

#[test]
fn a_shutdown_lets_nobody_in_and_ends_what_is_left() {
    let mut desk = Desk::new();
    let (sender, stream) = desk.whip("cam1", "");
    desk.tell(|entry, now| entry.close(now));
    let late = desk.publish(by(Way::Whip, "cam2", ""));
    assert_eq!(desk.refused(late), Some(&Denied::Full));
    assert_eq!(desk.entry.len(), 1, "what runs goes on");
    let other = desk.publish(by(Way::Whip, "cam1", "pipeline=other"));
    assert_eq!(
        desk.refused(other),
        Some(&Denied::Full),
        "other work is new"
    );
    desk.tell(|entry, now| entry.left(now, sender, Left::Lost));
    let back = desk.publish(by(Way::Whip, "cam1", ""));
    assert_eq!(desk.admitted(back), stream, "a sender may come back");
    desk.tell(Entry::stop_all);
    assert_eq!(desk.stopped(), [(stream, Why::Closing)]);
    assert_eq!(desk.kicked(), [back]);
}

#[test]
fn there_is_room_for_so_many_streams() {
    let mut desk = Desk::with(Config {
        max_streams: 1,
        ..config()
    });
    desk.whip("cam1", "");
    let more = desk.publish(by(Way::Whip, "cam2", ""));
    assert_eq!(desk.refused(more), Some(&Denied::Full));
    desk.whip("cam1", "");
}
