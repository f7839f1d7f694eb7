//! Live entry, driven by hand: senders and their names, and everything that is told of their streams.

mod admission;
mod life;
mod told;

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
use livepeer_core::front::Front;
use livepeer_core::http::{Body, Fault, Headers, In, Out, Reach, Request, Url};
use livepeer_core::money::Amount;
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

    /// The stream that began last.
    fn stream(&self) -> StreamId {
        let mut all = self.said.iter().rev();
        let begun = all.find_map(|event| match event {
            Event::Start(stream, _) => Some(*stream),
            _ => None,
        });
        begun.expect("one began")
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

    /// The streams whose publishers were told of a shutdown, and when it ends them.
    fn shutdowns(&self) -> Vec<(String, Time)> {
        let told = self.reports.iter().filter(|(queue, event)| {
            queue == "ai_stream_events" && event["type"] == "instance.draining"
        });
        let told = told.map(|(_, event)| {
            let stream = event["stream_id"].as_str().expect("a name").to_owned();
            (
                stream,
                Time::from_millis(event["ends"].as_u64().expect("a time")),
            )
        });
        told.collect()
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
    livepeer_sim::driven!(entry: Entry, book);

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
        named: Reach::of_caller("10.0.0.9".parse().ok()),
    }
}

fn announced(name: &str, form: &str) -> Publish {
    announced_by("10.0.0.9", name, form)
}

fn announced_by(host: &str, name: &str, form: &str) -> Publish {
    let kind = "application/x-www-form-urlencoded";
    let host = host.parse().ok();
    let body = Bytes::from(form.to_owned());
    let hook = StartHook::read(name, kind, &body, host).unwrap().unwrap();
    let query = hook.query.clone();
    by(Way::Hook(Box::new(hook)), name, &query)
}

fn url() -> Url {
    Url::parse(ORCH).unwrap()
}

/// The failure of an orchestrator from which nothing comes.
fn silent() -> Failure {
    let after = Duration::from_secs(5);
    let cause = Cause::Silent {
        what: "output",
        after,
    };
    Failure::new(Party::Orchestrator(url()), cause)
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
