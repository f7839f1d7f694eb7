//! The front door, driven by hand: every request is answered once, in the shape of its route.

mod apps;
mod backends;
mod containers;
mod limits;
mod live;
mod routes;
mod streams;
mod vectors;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use livepeer_core::front::{Config, Event, Front, RequestId, Summary, Work};
use livepeer_core::http::{Body, Fault, Headers, In, Method, Out, Request, Response, Url};
use livepeer_core::job::batch::{Attempt, Served};
use livepeer_core::money::Price;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::{Effect, EffectId, Time};
use livepeer_sim::{Driven, Exchanges};
use serde_json::Value;

use crate::openai::models;

/// The clock of the vectors.
const NOW: u64 = 1_790_000_000;

/// An answer as its client sees it.
#[derive(Debug, Default)]
struct Seen {
    status: u16,
    headers: Headers,
    body: Vec<u8>,
    /// Bytes that the driver has not said to be sent.
    unsent: usize,
    ended: bool,
    aborted: bool,
    asked_to_report: usize,
    /// Whether it is to say no more for now.
    held: bool,
}

impl Seen {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|err| panic!("{err}: {}", self.text()))
    }

    /// The message of an error, in OpenAI's or Livepeer's own shape.
    fn message(&self) -> String {
        self.json()["error"]["message"]
            .as_str()
            .expect("a message")
            .into()
    }
}

struct Door {
    now: Time,
    book: Exchanges,
    front: Front,
    opened: u64,
    seen: BTreeMap<EffectId, Seen>,
    wanted: Vec<(RequestId, Box<Work>)>,
    gone: Vec<RequestId>,
    /// Full and Room, in order.
    pressure: Vec<(RequestId, bool)>,
    finished: Vec<Summary>,
    others: Vec<Event>,
}

impl Door {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let now = Time::from_secs(NOW);
        let mut front = Front::new(now, Arc::new(config), [7; 32]);
        front.set_models(now, models());
        Self {
            now,
            book: Exchanges::default(),
            front,
            opened: 0,
            seen: BTreeMap::new(),
            wanted: Vec::new(),
            gone: Vec::new(),
            pressure: Vec::new(),
            finished: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Sends the head of a request.
    fn open(&mut self, request: Request) -> EffectId {
        let id = EffectId::by_peer(self.opened);
        self.opened += 1;
        self.http(id, In::Request(request.body(Body::Stream)));
        id
    }

    /// Sends a whole request.
    fn send(&mut self, request: Request, body: impl Into<Bytes>) -> EffectId {
        let id = self.open(request);
        let body = body.into();
        if !body.is_empty() {
            self.http(id, In::Data(body));
        }
        self.http(id, In::End(Headers::new()));
        id
    }

    fn post(&mut self, path: &str, body: &str) -> EffectId {
        self.send(request(Method::Post, path), body.to_owned())
    }

    fn get(&mut self, path: &str) -> EffectId {
        self.send(request(Method::Get, path), "")
    }

    /// The request that wants work, of which there is one.
    fn want(&mut self) -> (RequestId, Box<Work>) {
        assert_eq!(self.wanted.len(), 1, "{:?}", self.seen);
        self.wanted.remove(0)
    }

    /// A command to the front door.
    fn tell(&mut self, command: impl FnOnce(&mut Front, Time)) {
        command(&mut self.front, self.now);
        self.drain();
    }

    fn leave(&mut self, id: EffectId) {
        self.http(id, In::Failed(Fault::Broken("gone".into())));
    }
}

impl Driven for Door {
    type Machine = Front;
    const PATIENT: bool = true;

    fn parts(&mut self) -> (&mut Front, &mut Time) {
        (&mut self.front, &mut self.now)
    }

    fn book(&mut self) -> &mut Exchanges {
        &mut self.book
    }

    fn effect(&mut self, id: EffectId, effect: Effect) {
        let Effect::Http(step) = effect else {
            panic!("it signs and stores nothing: {effect:?}")
        };
        match step {
            Out::Reply(Response {
                status,
                headers,
                body,
            }) => {
                let ended = body != Body::Stream;
                let body = match body {
                    Body::Full(bytes) => bytes.to_vec(),
                    _ => Vec::new(),
                };
                let seen = Seen {
                    status,
                    headers,
                    body,
                    ended,
                    ..Seen::default()
                };
                let before = self.seen.insert(id, seen);
                assert!(before.is_none(), "{id:?} is answered twice");
            }
            Out::Data(data) => {
                let seen = self.seen.get_mut(&id).expect("a head comes first");
                assert!(!seen.ended && !data.is_empty());
                seen.body.extend_from_slice(&data);
                seen.unsent += data.len();
            }
            Out::End(trailers) => {
                assert!(trailers.is_empty());
                let seen = self.seen.get_mut(&id).expect("a head comes first");
                assert!(!seen.ended, "{id:?} is ended twice");
                seen.ended = true;
            }
            Out::Abort => self.seen.entry(id).or_default().aborted = true,
            Out::Pause => self.seen.get_mut(&id).expect("a head").held = true,
            Out::Resume => self.seen.get_mut(&id).expect("a head").held = false,
            Out::Report => self.seen.get_mut(&id).expect("a head").asked_to_report += 1,
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Want(id, work) => self.wanted.push((id, work)),
            Event::Gone(id) => self.gone.push(id),
            Event::Full(id) => self.pressure.push((id, true)),
            Event::Room(id) => self.pressure.push((id, false)),
            Event::Finished(summary) => self.finished.push(*summary),
            other => self.others.push(other),
        }
    }
}

fn request(method: Method, path: &str) -> Request {
    let url = Url::parse("http://localhost")
        .expect("a URL")
        .with_path(path);
    let mut request = Request::new(method, url);
    request.host = Some("gw.example".into());
    request.peer = "192.0.2.1".parse().ok();
    request
}

/// The price of the vectors.
fn price(pipeline: Pipeline) -> Price {
    let (wei, per) = match pipeline {
        Pipeline::Llm => (12_500, 3),
        Pipeline::AudioToText => (7, 2),
        Pipeline::TextToSpeech => (11, 1),
        _ => (100, 1),
    };
    Price::new(wei, per).expect("a price")
}

/// The orchestrator of the vectors has done the work, after those attempts.
fn served(work: &Work, attempts: Vec<Attempt>) -> Served {
    let price = price(work.request.pipeline());
    let units = work.request.units().expect("it is measured");
    Served {
        url: Url::parse("https://orch-a.example:8935").expect("a URL"),
        address: "0xbAd0517FD884b028CF4d5Bda23Dcd2C71c539d29"
            .parse()
            .expect("an address"),
        units,
        price: Some(price),
        cost: price.fee(units),
        tickets: 1,
        value: price.fee(units),
        attempts,
        waited: std::time::Duration::ZERO,
        selecting: std::time::Duration::ZERO,
        paying: std::time::Duration::ZERO,
        upstream: std::time::Duration::ZERO,
    }
}

/// A chat that is answered as a stream.
const CHAT: &str =
    r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

/// The payload of a chunk.
fn payload(words: &str, finish: &str) -> Bytes {
    format!(
        r#"{{"choices":[{{"delta":{{"content":"{words}","role":"assistant"}},"finish_reason":"{finish}","index":0}}],"created":1,"id":"c1","model":"m"}}"#
    )
    .into()
}
