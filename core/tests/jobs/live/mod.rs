//! The life of a live video job, driven by hand: starts and their refusals, control, events, silence, swaps.

mod channels;
mod feeds;
mod standby;
mod start;
mod swaps;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::handshake::Identity;
use livepeer_core::http::{Fault, Headers, In, Method, Out, Response, Url};
use livepeer_core::job::live::media::{self, News, Owed};
use livepeer_core::job::live::{Config, Ending, Event, LiveVideoJob};
use livepeer_core::payment::Payer;
use livepeer_core::pool::{self, Lease, Outcome, Quickest, SessionPool};
use livepeer_core::wire::grpc;
use livepeer_core::wire::{Params, StartRequest};
use livepeer_core::{Cause, Effect, EffectId, Failure, Input, Machine, Output, Party, Time};
use livepeer_proto::net;
use livepeer_sim::{Driven, Exchanges, heard};
use serde_json::{Value, json};

use crate::{cases, of_kind, raw};

/// How long a job waits for the reason of an end that it has seen.
const LAST_WORDS_MS: u64 = 1_000;

fn case(id: &str) -> Value {
    let all = cases("jobs/07-live-events-control.json", "cases");
    all.into_iter()
        .find(|case| case["id"] == id)
        .expect("the case exists")
}

/// A list of a case, by the time that each entry is for.
fn timed(list: &Value) -> Vec<(u64, &Value)> {
    let list = list.as_array().unwrap();
    let timed = list.iter().map(|one| (one["at_ms"].as_u64().unwrap(), one));
    timed.collect()
}

fn info(host: &str) -> net::OrchestratorInfo {
    net::OrchestratorInfo {
        transcoder: format!("https://{host}:8935"),
        auth_token: Some(net::AuthToken {
            token: Bytes::from_static(b"secret"),
            session_id: "s".into(),
            expiration: 4_000_000_000,
        }),
        capabilities: Some(net::Capabilities {
            bitstring: vec![1 << 35],
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A lease from a pool that shook hands with `host`.
fn lease(now: Time, host: &str) -> Lease {
    let wanted = Capabilities::live_video("noop");
    let mut pool = SessionPool::new(
        now,
        pool::Config::default(),
        Identity::Offchain,
        wanted,
        Quickest,
        [7; 32],
    );
    pool.offer(
        now,
        vec![Url::parse(&format!("https://{host}:8935")).unwrap()],
    );
    while let Output::Effect(id, Effect::Http(Out::Request(_))) = pool.poll_output() {
        for step in heard(grpc::reply(&info(host))) {
            pool.handle_input(now, Input::Http(id, step));
        }
    }
    pool.take(now).expect("the orchestrator fits")
}

/// A job, and a world around it that answers as well-behaved trickle servers do.
struct World {
    job: LiveVideoJob,
    start: Time,
    now: Time,
    book: Exchanges,
    /// Requests that the test has to answer: starts and handshakes.
    asked: Vec<(EffectId, Method, Url, Bytes)>,
    /// Control messages, with the host they went to.
    control: Vec<(u64, String, String)>,
    /// POSTs under way, by exchange.
    posting: BTreeMap<EffectId, (Url, Vec<u8>)>,
    /// The parked GET of the events channel.
    events_get: Option<(EffectId, Url)>,
    /// The parked GET of the events channel of a standby.
    standby_get: Option<(EffectId, Url)>,
    events: Vec<(u64, Event)>,
    /// The sessions of whoever works and of a standby with input, and those that were given up.
    session: u32,
    beside: u32,
    left: Vec<u32>,
    aborted: Vec<EffectId>,
}

impl World {
    fn new(config: Config) -> Self {
        let start = Time::from_secs(1_700_000_000);
        let request = StartRequest {
            model_id: "noop".into(),
            ..Default::default()
        };
        let job = LiveVideoJob::new(start, config, request, Payer::Offchain);
        let mut world = Self {
            job,
            start,
            now: start,
            book: Exchanges::default(),
            asked: Vec::new(),
            control: Vec::new(),
            posting: BTreeMap::new(),
            events_get: None,
            standby_get: None,
            events: Vec::new(),
            session: 0,
            beside: 0,
            left: Vec::new(),
            aborted: Vec::new(),
        };
        world.drain();
        world
    }

    fn ms(&self) -> u64 {
        u64::try_from(self.now.since(self.start).as_millis()).unwrap()
    }

    /// Answers a GetOrchestrator call.
    fn inform(&mut self, call: EffectId, message: &net::OrchestratorInfo) {
        for step in heard(grpc::reply(message)) {
            self.feed(Input::Http(call, step));
        }
        self.drain();
    }

    fn answer(&mut self, id: EffectId, reply: Response, body: &[u8]) {
        self.feed(Input::Http(id, In::Reply(reply)));
        if !body.is_empty() {
            let body = Bytes::copy_from_slice(body);
            self.feed(Input::Http(id, In::Data(body)));
        }
        self.feed(Input::Http(id, In::End(Headers::new())));
    }

    fn on_http(&mut self, id: EffectId, out: Out) {
        match out {
            Out::Request(request) => {
                let path = request.url.path().to_string();
                if path.ends_with("/next") {
                    self.answer(
                        id,
                        Response::new(200).header("lp-trickle-latest", "0"),
                        b"0",
                    );
                } else if path.contains("-events/") {
                    let beside = |(_, url): &(_, Url)| url.host() != request.url.host();
                    if self.events_get.as_ref().is_some_and(beside) {
                        self.standby_get = Some((id, request.url));
                    } else {
                        self.events_get = Some((id, request.url));
                    }
                } else if path.contains("-control/") && request.method == Method::Post {
                    self.posting.insert(id, (request.url, Vec::new()));
                } else if request.method == Method::Delete {
                    self.answer(id, Response::new(200), b"");
                } else {
                    let body = match request.body {
                        livepeer_core::http::Body::Full(body) => body,
                        _ => Bytes::new(),
                    };
                    self.asked.push((id, request.method, request.url, body));
                }
            }
            Out::Data(data) => {
                if let Some((_, body)) = self.posting.get_mut(&id) {
                    body.extend_from_slice(&data);
                    self.feed(Input::Http(id, In::Sent(data.len())));
                }
            }
            Out::End(_) => {
                let (url, body) = self
                    .posting
                    .remove(&id)
                    .expect("an end follows a beginning");
                let seq = url.path().rsplit('/').next().unwrap().to_string();
                self.control.push((
                    self.ms(),
                    url.host().to_string(),
                    String::from_utf8(body).unwrap(),
                ));
                self.answer(id, Response::new(200).header("lp-trickle-seq", seq), b"");
            }
            Out::Abort => {
                self.posting.remove(&id);
                self.standby_get.take_if(|(get, _)| *get == id);
                if self.events_get.take_if(|(get, _)| *get == id).is_some() {
                    self.events_get = self.standby_get.take();
                }
                self.aborted.push(id);
            }
            _ => {}
        }
    }

    /// Lets time pass to `ms` after the start, waking the job whenever it asked to be woken.
    fn pass_to(&mut self, ms: u64) {
        self.pass_millis(ms - self.ms());
    }

    fn command(&mut self, run: impl FnOnce(&mut LiveVideoJob, Time)) {
        run(&mut self.job, self.now);
        self.drain();
    }

    /// The media of whoever works tell something.
    fn media(&mut self, event: media::Event) {
        let session = self.session;
        self.command(|job, now| job.on_media(now, News { session, event }));
    }

    /// The media of the standby do.
    fn standby_media(&mut self, event: media::Event) {
        let session = self.beside;
        self.command(|job, now| job.on_media(now, News { session, event }));
    }

    /// Gives the job an orchestrator.
    fn lend(&mut self, host: &str) {
        let lease = lease(self.now, host);
        self.command(|job, now| job.assign(now, lease).unwrap());
    }

    /// Gives the job an orchestrator and answers its start request.
    fn assign(&mut self, host: &str, status: u16, body: &str) {
        self.lend(host);
        self.answer_start(status, body);
    }

    fn answer_start(&mut self, status: u16, body: &str) {
        let (id, method, url, _) = self.asked.pop().expect("the job asks to start");
        assert_eq!((method, url.path()), (Method::Post, "/live-video-to-video"));
        self.answer(id, Response::new(status), body.as_bytes());
        self.drain();
    }

    /// The orchestrator closes the control channel, to which a message is on its way.
    fn close_control(&mut self) {
        let is_control = |url: &Url| url.path().contains("-control/");
        let posting = self.posting.iter().find(|(_, (url, _))| is_control(url));
        let id = *posting.expect("the next message has its request").0;
        self.posting.remove(&id);
        let closed = Response::new(200).header("lp-trickle-closed", "terminated");
        self.answer(id, closed, b"");
        self.drain();
    }

    /// The orchestrator closes the events channel.
    fn close_events(&mut self) {
        let (id, _) = self.events_get.take().expect("the job listens to events");
        let closed = Response::new(200).header("lp-trickle-closed", "terminated");
        self.answer(id, closed, b"");
        self.drain();
    }

    /// The orchestrator closes a media channel and does not say why.
    fn lose_media(&mut self) {
        self.media(media::Event::Ended(None));
        self.pass_to(self.ms() + LAST_WORDS_MS);
    }

    fn assign_well(&mut self, host: &str) {
        self.assign(host, 200, &channels("m1"));
    }

    /// The runner says something.
    fn runner_says(&mut self, segment: &str) {
        let (id, url) = self.events_get.take().expect("the job listens to events");
        self.say(id, &url, segment);
    }

    /// The runner of the orchestrator beside says something.
    fn standby_says(&mut self, segment: &str) {
        let (id, url) = self.standby_get.take().expect("the job listens to it too");
        self.say(id, &url, segment);
    }

    fn say(&mut self, id: EffectId, url: &Url, segment: &str) {
        let index = url.path().rsplit('/').next().unwrap();
        let seq: u64 = index.parse().unwrap_or(0);
        self.answer(
            id,
            Response::new(200).header("lp-trickle-seq", seq.to_string()),
            segment.as_bytes(),
        );
        self.drain();
    }

    fn take_events(&mut self) -> Vec<(u64, Event)> {
        std::mem::take(&mut self.events)
    }
}

impl Driven for World {
    livepeer_sim::driven!(job: LiveVideoJob, book);

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(out) => self.on_http(id, out),
            other => panic!("an off-chain job wants {other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        match &event {
            Event::Started(started) => self.session = started.session,
            Event::Standby(session, _) => self.beside = *session,
            Event::Left(session) => return self.left.push(*session),
            _ => {}
        }
        self.events.push((self.ms(), event));
    }
}

fn channels(id: &str) -> String {
    let url = |suffix: &str| format!("/ai/trickle/{id}{suffix}");
    json!({"manifest_id": id, "publish_url": url(""), "subscribe_url": url("-out"),
           "control_url": url("-control"), "events_url": url("-events")})
    .to_string()
}

fn released_only(events: &[(u64, Event)]) -> bool {
    matches!(
        events,
        [
            (_, Event::Lost(..)),
            (_, Event::Release(..)),
            (_, Event::NeedLease)
        ]
    )
}
