//! The recorded transcripts of the Go server, replayed against ours (vectors/trickle/README.md).
//!
//! The wire is simulated: a request becomes inputs, outputs become what a socket would show. Where a transcript's
//! `advice` tells us to deviate, the deviation is written down in [`deviation`] and checked instead.

mod clients;
mod deviations;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, Headers, In, Method, Out, Request, Response, Url};
use livepeer_core::trickle::server::{Config, Event, Gate, Refusal, Server};
use livepeer_core::trickle::{ContentType, STATUS_NOT_IN_WINDOW};
use livepeer_core::{Effect, EffectId, Input, Time};
use livepeer_sim::{Driven, Exchanges};
use serde_json::Value;

use crate::vectors::{file, path};
use deviations::{Deviation, deviation};

/// The part of an exchange seen so far.
#[derive(Default)]
struct Seen {
    reply: Option<Response>,
    body: Vec<u8>,
    /// How much of `body` a step has looked at.
    read: usize,
    ended: bool,
    gone: bool,
}

impl Seen {
    /// The bytes that no step has looked at yet.
    fn rest(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.body[self.read..]).into_owned();
        self.read = self.body.len();
        rest
    }
}

struct World {
    name: String,
    server: Server,
    base: String,
    now: Time,
    book: Exchanges,
    minted: u64,
    ids: BTreeMap<String, EffectId>,
    seen: BTreeMap<EffectId, Seen>,
}

/// Fails if an object has keys that nobody reads.
fn only(name: &str, what: &str, of: &Value, known: &[&str]) {
    for key in of.as_object().unwrap().keys() {
        assert!(known.contains(&&**key), "{name}: unknown {what} key {key}");
    }
}

impl World {
    fn new(name: &str, config: &Value) -> Self {
        let now = Time::from_secs(1_000);
        let millis = |key: &str| config[key].as_u64().map(Duration::from_millis);
        let gate = match &config["hook_status"] {
            Value::Null => Gate::Open,
            Value::Number(status) => Gate::Refuse(Refusal {
                status: status.as_u64().unwrap() as u16,
                text: "hook says no".into(),
            }),
            Value::String(plain) if plain == "plain error" => Gate::Refuse(Refusal {
                status: 500,
                text: "hook says no".into(),
            }),
            other => panic!("{name}: unknown hook_status {other}"),
        };
        let defaults = Config::default();
        let config_ours = Config {
            base: config["base"].as_str().unwrap().into(),
            autocreate: config["autocreate"].as_bool().unwrap(),
            changefeed: config["changefeed"].as_bool().unwrap_or(false),
            idle: millis("idle_ms").unwrap_or(defaults.idle),
            sweep: millis("sweep_ms").unwrap_or(defaults.sweep),
            on_create: gate.clone(),
            on_delete: gate,
            ..defaults
        };
        let known = [
            "base",
            "autocreate",
            "changefeed",
            "idle_ms",
            "sweep_ms",
            "channels",
            "hook_status",
        ];
        only(name, "server", config, &known);
        let mut server = Server::new(now, config_ours.clone());
        for channel in config["channels"].as_array().into_iter().flatten() {
            let content = ContentType::new(channel["content_type"].as_str().unwrap());
            server
                .create_channel(now, channel["name"].as_str().unwrap(), content)
                .unwrap();
        }
        Self {
            name: name.into(),
            server,
            base: config_ours.base,
            now,
            book: Exchanges::default(),
            minted: 0,
            ids: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    fn open(&mut self, request: &Value) -> EffectId {
        let known = [
            "method",
            "path",
            "absolute_path",
            "headers",
            "body",
            "chunks",
            "stream",
            "content_length",
        ];
        only(&self.name, "request", request, &known);
        let path = match request["absolute_path"].as_str() {
            Some(path) => path.to_string(),
            None => format!("{}{}", self.base, request["path"].as_str().unwrap()),
        };
        let mut headers = Headers::new();
        for (name, value) in request["headers"].as_object().into_iter().flatten() {
            headers.push_any(name, value.as_str().unwrap());
        }
        let mut ours = Request::new(
            Method::from_name(request["method"].as_str().unwrap()).unwrap(),
            Url::parse("http://server:80").unwrap().with_path(&path),
        )
        .body(Body::Stream);
        ours.headers = headers;
        let id = EffectId::by_peer(self.minted);
        self.minted += 1;
        self.seen.entry(id).or_default();
        self.http(id, In::Request(ours));
        id
    }

    fn exchange(&mut self, request: &Value) -> EffectId {
        let id = self.open(request);
        if let Some(body) = request["body"].as_str() {
            self.http(id, In::Data(Bytes::copy_from_slice(body.as_bytes())));
        }
        for chunk in request["chunks"].as_array().into_iter().flatten() {
            let chunk = chunk.as_str().unwrap();
            self.http(id, In::Data(Bytes::copy_from_slice(chunk.as_bytes())));
        }
        self.http(id, In::End(Headers::new()));
        id
    }

    fn check_head(&self, at: &str, id: EffectId, want: &Value) {
        let seen = &self.seen[&id];
        let reply = seen
            .reply
            .as_ref()
            .unwrap_or_else(|| panic!("{at}: no answer, wanted {want}"));
        assert_eq!(
            u64::from(reply.status),
            want["status"].as_u64().unwrap(),
            "{at}: status"
        );
        let exact = reply.status == 200 || reply.status == STATUS_NOT_IN_WINDOW;
        for (name, value) in want["headers"].as_object().into_iter().flatten() {
            let free = (name == "Content-Type" || name == "Connection") && !exact;
            if free {
                continue;
            }
            let have = reply.headers.get(&name.to_ascii_lowercase());
            let fits = match value {
                Value::Array(any) => any.iter().any(|one| one.as_str() == have),
                one => one.as_str() == have,
            };
            assert!(fits, "{at}: {name} is {have:?}, wanted {value}");
        }
        for (name, value) in reply.headers.iter() {
            let listed = want["headers"]
                .as_object()
                .into_iter()
                .flatten()
                .any(|(listed, _)| listed.eq_ignore_ascii_case(name));
            let watched = name.starts_with("lp-trickle-")
                || exact && (name == "content-type" || name == "connection" || name == "location");
            assert!(listed || !watched, "{at}: unlisted {name}: {value}");
        }
    }

    fn check_response(&mut self, at: &str, id: EffectId, want: &Value, head_only: bool) {
        self.check_head(at, id, want);
        let seen = self.seen.get_mut(&id).unwrap();
        assert!(seen.ended, "{at}: the answer has not ended");
        let status = seen.reply.as_ref().unwrap().status;
        if status == 200 || status == STATUS_NOT_IN_WINDOW {
            let body = seen.rest();
            if !head_only {
                assert_eq!(body, want["body"].as_str().unwrap(), "{at}: body");
            }
        }
    }

    fn expect(&mut self, at: &str, step: usize, id: EffectId, want: &Value, head_only: bool) {
        match deviation(&self.name, step) {
            None => {
                assert!(want.get("none").is_none() && want.get("hangs").is_none());
                self.check_response(at, id, want, head_only);
            }
            Some(Deviation::Status(status)) => {
                let seen = &self.seen[&id];
                assert_eq!(seen.reply.as_ref().unwrap().status, status, "{at}");
            }
            Some(Deviation::Instead(ours)) => self.check_response(at, id, &ours, head_only),
            Some(Deviation::Skip) => {}
        }
    }

    fn step(&mut self, number: usize, step: &Value) {
        let at = format!("{} step {number} {}", self.name, step["do"]);
        let named = |world: &Self| {
            let name = step["id"].as_str().unwrap();
            world.ids[name]
        };
        match step["do"].as_str().unwrap() {
            "exchange" => {
                let id = self.exchange(&step["request"]);
                self.expect(
                    &at,
                    number,
                    id,
                    &step["response"],
                    step["request"]["method"] == "HEAD",
                );
            }
            "open" => {
                let id = self.open(&step["request"]);
                if step["request"]["stream"].is_null()
                    && step["request"]["content_length"].is_null()
                {
                    self.http(id, In::End(Headers::new()));
                }
                self.ids.insert(step["id"].as_str().unwrap().into(), id);
                self.pass_millis(60);
            }
            "send" => {
                let id = named(self);
                let bytes = Bytes::copy_from_slice(step["body"].as_str().unwrap().as_bytes());
                self.http(id, In::Data(bytes));
            }
            // Bytes that are no chunk: the driver sees broken framing.
            "send_raw" | "half_close" => {
                let id = named(self);
                let fault = Fault::Broken("unexpected end of body".into());
                self.http(id, In::Failed(fault));
            }
            "abort" => {
                let id = named(self);
                self.http(id, In::Failed(Fault::Broken("reset".into())));
                self.seen.get_mut(&id).unwrap().read = 0;
            }
            "finish" => {
                let id = named(self);
                self.http(id, In::End(Headers::new()));
            }
            "quiet" => {
                let id = named(self);
                let count = |world: &Self| {
                    let seen = &world.seen[&id];
                    (seen.reply.is_some(), seen.body.len(), seen.ended)
                };
                let before = count(self);
                self.pass_millis(step["ms"].as_u64().unwrap());
                if deviation(&self.name, number).is_none() {
                    assert_eq!(before, count(self), "{at}: it is not quiet");
                    let seen = &self.seen[&id];
                    assert_eq!(seen.read, seen.body.len(), "{at}: unread bytes");
                }
            }
            "head" => {
                let id = named(self);
                self.check_head(&at, id, &step["response"]);
            }
            "data" => {
                let id = named(self);
                let seen = self.seen.get_mut(&id).unwrap();
                assert_eq!(seen.rest(), step["body"].as_str().unwrap(), "{at}");
            }
            "end" => {
                let id = named(self);
                let seen = self.seen.get_mut(&id).unwrap();
                assert_eq!(seen.rest(), step["body"].as_str().unwrap_or(""), "{at}");
                assert!(seen.ended, "{at}: it has not ended");
            }
            "response" => {
                let id = named(self);
                self.expect(
                    &at,
                    number,
                    id,
                    &step["response"],
                    self.name == "head-method",
                );
            }
            // Optional, and not ours: no known client needs them (D15).
            "info" => assert_eq!(self.name, "first-byte-timeout"),
            "wait" => self.pass_millis(step["ms"].as_u64().unwrap()),
            other => panic!("{at}: unknown step {other}"),
        }
    }
}

impl Driven for World {
    livepeer_sim::driven!(server: Server, book);

    const PATIENT: bool = true;

    fn effect(&mut self, id: EffectId, effect: Effect) {
        let Effect::Http(out) = effect else {
            panic!("only http is expected");
        };
        let seen = self.seen.entry(id).or_default();
        assert!(!seen.ended && !seen.gone, "{id:?} spoke after its end");
        match out {
            Out::Reply(reply) => {
                assert!(seen.reply.is_none(), "{}: two replies", self.name);
                match &reply.body {
                    Body::Empty => seen.ended = true,
                    Body::Full(bytes) => {
                        seen.body.extend_from_slice(bytes);
                        seen.ended = true;
                    }
                    Body::Pieces(pieces) => {
                        seen.body.extend_from_slice(&pieces.concat());
                        seen.ended = true;
                    }
                    Body::Stream => {}
                }
                seen.reply = Some(reply);
            }
            Out::Data(bytes) => {
                assert!(seen.reply.is_some(), "data before the head");
                seen.body.extend_from_slice(&bytes);
                let sent = Input::Http(id, In::Sent(bytes.len()));
                self.feed(sent);
            }
            Out::End(_) => seen.ended = true,
            Out::Abort => seen.gone = true,
            Out::Pause | Out::Resume | Out::Report => {}
            Out::Request(_) => panic!("a server asks nothing"),
        }
    }

    fn event(&mut self, event: Event) {
        assert!(
            matches!(event, Event::Created(_) | Event::Removed(..)),
            "unexpected {event:?}"
        );
    }
}

/// The world after the first steps of a transcript, at most so many, and how many those were.
fn replay(name: &str, most: usize) -> (World, usize) {
    let vector = file(&format!("trickle/{name}"));
    let mut world = World::new(vector["name"].as_str().unwrap(), &vector["server"]);
    let steps = vector["steps"].as_array().unwrap();
    let steps = &steps[..steps.len().min(most)];
    for (number, step) in steps.iter().enumerate() {
        world.step(number, step);
    }
    (world, steps.len())
}

#[test]
fn every_transcript_replays() {
    let mut names: Vec<String> = fs::read_dir(path("trickle"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.as_bytes()[0].is_ascii_digit())
        .collect();
    names.sort();
    assert_eq!(names.len(), 35, "a transcript is missing or new");
    let steps: usize = names.iter().map(|name| replay(name, usize::MAX).1).sum();
    assert_eq!(steps, 510, "a step is missing or new");
}

#[test]
fn an_orphans_readers_are_ended_with_it() {
    // Transcript 35 with our decisions D6 and D25.
    let (world, _) = replay("35-orphan-stranded.json", usize::MAX);
    let seen = &world.seen[&world.ids["g"]];
    assert!(seen.ended);
    assert_eq!(seen.body, b"part");
}

#[test]
fn a_restart_with_reset_keeps_its_bytes() {
    // Transcript 24 with our decision D5.
    let (mut world, _) = replay("24-restart-at-zero.json", 6);
    let n0 = world.ids["n0"];
    assert!(
        world.seen[&n0].reply.is_none(),
        "it waits for its first byte"
    );
    world.http(n0, In::Data(Bytes::from_static(b"new0")));
    world.http(n0, In::End(Headers::new()));
    let mut check = |path: &str, status: u16, latest: &str, body: &str| {
        let id = world.exchange(&serde_json::json!({"method": "GET", "path": path}));
        let seen = &world.seen[&id];
        let reply = seen.reply.as_ref().unwrap();
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(
            reply.headers.get("lp-trickle-latest"),
            Some(latest),
            "{path}"
        );
        assert_eq!(String::from_utf8_lossy(&seen.body), body, "{path}");
    };
    check("q/next", 200, "1", "1");
    check("q/0", 200, "1", "new0");
    check("q/2", 470, "1", "Entry not found");
}
