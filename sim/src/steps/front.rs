//! A front door with callers, jobs and a shell that do anything in any order.
//!
//! Beside it a ledger is kept: who was let in, who wants work, who was answered. Every request is answered once at most,
//! work is wanted only for whole requests that nobody has answered, every place is given back, and when nobody moves any
//! more all of it comes to an end.

mod hired;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::error::{Cause, Failure, Party};
use livepeer_core::front::route::Page;
use livepeer_core::front::{
    Admission, AppSessionId, Call, Config, Event, Front, LiveRoutes, MAX_UNSENT, Origins, Outcome,
    RequestId, SESSION_HEADER, Work,
};
use livepeer_core::http::{
    Body, Fault, Headers, In, Method, Out, Request, Response, SWITCHING, Url,
};
use livepeer_core::job::app::{Answer as AppAnswer, Failed as AppFailed};
use livepeer_core::job::batch::{Attempt, Failed, File, Finished, Left, RefusedBy, Served};
use livepeer_core::job::byoc::{Done, Failed as ContainerFailed};
use livepeer_core::models::{Models, Offer};
use livepeer_core::money::{Amount, Price};
use livepeer_core::pipeline::Pipeline;
use livepeer_core::wire::batch::{Answer, BadRequest, Image, Media, Probe, read_answer};
use livepeer_core::wire::byoc::{JOB_HEADER, JobRequest};
use livepeer_core::wire::sse;
use livepeer_core::{Address, Effect, EffectId, Time};

use self::hired::{backends, hired, words};
use super::Reel;
use super::reel::nth;
use crate::{Driven, Exchanges};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// Somebody sends the head of a request of some kind.
    Open(u8, [u8; 3]),
    /// The n-th caller sends more of its body, or all of it.
    Body(u8, bool),
    /// The n-th caller's body ends.
    End(u8),
    /// The n-th caller goes away.
    Leave(u8),
    /// The n-th caller takes some of what it is sent; beyond HTTP it says something, too.
    Take(u8, u8),
    /// The n-th job tells something; a late one whose request is over, too.
    Job(u8, u8),
    /// The shell answers the n-th question, or another.
    Shell(u8, u8),
    /// The settings or the models change.
    Change(u8),
    /// The shutdown begins.
    Drain,
    /// Time passes: so many tens of milliseconds, squared.
    Pass(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(24) {
            0..=4 => Self::Open(reel.byte(), [reel.byte(), reel.byte(), reel.byte()]),
            5..=8 => Self::Body(reel.byte(), reel.below(4) != 0),
            9..=11 => Self::End(reel.byte()),
            12 if reel.below(3) == 0 => Self::Leave(reel.byte()),
            12 | 13 => Self::Take(reel.byte(), reel.byte()),
            14..=20 => Self::Job(reel.byte(), reel.byte()),
            21 => Self::Shell(reel.byte(), reel.byte()),
            22 => match reel.below(8) {
                0 => Self::Drain,
                other => Self::Change(other),
            },
            _ if reel.below(4) == 0 => Self::Pass(reel.byte()),
            _ => Self::Pass(reel.below(40)),
        }
    }
}

/// A caller that waits for the end of its answer.
#[derive(Debug)]
struct Caller {
    body: Bytes,
    given: usize,
    ended: bool,
    /// Its answer has begun.
    head: bool,
    unsent: usize,
    /// Whether it has left HTTP, and may say more.
    beyond: bool,
    /// The request that it became, once that wants work.
    request: Option<RequestId>,
}

/// Plays steps against a front door.
pub struct Player {
    now: Time,
    book: Exchanges,
    front: Front,
    callers: BTreeMap<EffectId, Caller>,
    opened: u64,
    /// The exchange that is being fed.
    feeding: Option<EffectId>,
    /// Callers whose bodies wait for the first search, in order.
    waiting: VecDeque<EffectId>,
    /// Work that is wanted and not over.
    jobs: BTreeMap<RequestId, Box<Work>>,
    /// Jobs whose client has its answer and comes back.
    background: BTreeSet<RequestId>,
    /// Requests whose jobs are over: whatever is told of them changes nothing.
    over: Vec<RequestId>,
    full: BTreeSet<RequestId>,
    asked: Vec<RequestId>,
    /// Requests about live streams that nobody has answered.
    calls: BTreeSet<RequestId>,
    /// Requests for the data of containers, among those that are passed on.
    data: BTreeSet<RequestId>,
    /// Orders for containers whose answers are not over.
    orders: BTreeSet<RequestId>,
    /// Sessions with apps that are held.
    used: BTreeSet<AppSessionId>,
    /// Bytes that callers beyond HTTP have said, and nobody took.
    said: BTreeMap<RequestId, usize>,
    draining: bool,
    drained: bool,
    config: Config,
    /// How often each status and event was seen.
    seen: BTreeMap<String, u32>,
}

impl Player {
    /// A front door; the bits pick what it has.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_790_000_000);
        let mut config = Config {
            cors: if flavour & 1 != 0 {
                Origins::Any
            } else {
                Origins::None
            },
            folder: flavour & 2 != 0,
            done_on_native: flavour & 4 != 0,
            max_in_flight: if flavour & 8 != 0 { 4 } else { 64 },
            max_held: if flavour & 16 != 0 { 4_000 } else { 1 << 20 },
            max_kept: if flavour & 32 != 0 { 100 } else { 1 << 20 },
            pages: vec![Page::Metrics],
            live: LiveRoutes::All,
            containers: true,
            apps: vec!["a/*".into()],
            max_json: 2_000,
            ..Config::default()
        };
        config.settings.backends = backends();
        let mut front = Front::new(now, Arc::new(config.clone()), [3; 32]);
        front.set_models(now, models());
        Self {
            now,
            book: Exchanges::default(),
            front,
            callers: BTreeMap::new(),
            opened: 0,
            feeding: None,
            waiting: VecDeque::new(),
            jobs: BTreeMap::new(),
            background: BTreeSet::new(),
            over: Vec::new(),
            full: BTreeSet::new(),
            asked: Vec::new(),
            calls: BTreeSet::new(),
            data: BTreeSet::new(),
            orders: BTreeSet::new(),
            used: BTreeSet::new(),
            said: BTreeMap::new(),
            draining: false,
            drained: false,
            config,
            seen: BTreeMap::new(),
        }
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match step {
            Step::Open(kind, bits) => self.open(*kind, *bits),
            Step::Body(pick, all) => {
                if let Some(id) = self.pick_open(*pick) {
                    self.give(id, *all);
                }
            }
            Step::End(pick) => {
                if let Some(id) = self.pick_open(*pick) {
                    self.give(id, true);
                    if let Some(caller) = self.callers.get_mut(&id) {
                        caller.ended = true;
                    }
                    let waited = self.waits();
                    self.say(id, In::End(Headers::new()));
                    if self.waits() > waited {
                        self.waiting.push_back(id);
                    }
                }
            }
            Step::Leave(pick) => {
                if let Some(id) = nth(*pick, self.callers.keys().copied()) {
                    self.callers.remove(&id);
                    self.say(id, In::Failed(Fault::Broken("gone".into())));
                }
            }
            Step::Take(pick, part) => self.take(*pick, *part),
            Step::Job(pick, what) => self.job(*pick, *what),
            Step::Shell(pick, what) => self.shell(*pick, *what),
            Step::Change(what) => {
                if what & 1 != 0 {
                    self.config.max_json ^= 1_024;
                    let config = Arc::new(self.config.clone());
                    self.front.set_config(self.now, config);
                } else {
                    let models = if what & 2 != 0 {
                        models()
                    } else {
                        Models::new()
                    };
                    self.front.set_models(self.now, models);
                }
            }
            Step::Drain => {
                self.draining = true;
                self.front.drain(self.now);
            }
            Step::Pass(tens) => {
                let tens = u64::from(*tens);
                self.pass(Duration::from_millis(tens * tens * 10));
            }
        }
        self.drain();
    }

    fn note(&mut self, what: impl Into<String>) {
        *self.seen.entry(what.into()).or_default() += 1;
    }

    fn pick_open(&self, pick: u8) -> Option<EffectId> {
        let open = self.callers.iter().filter(|(_, caller)| !caller.ended);
        nth(pick, open.map(|(id, _)| *id))
    }

    /// Feeds an exchange, and knows meanwhile that it is fed.
    fn say(&mut self, id: EffectId, step: In) {
        self.feeding = Some(id);
        self.http(id, step);
        self.feeding = None;
    }

    fn open(&mut self, kind: u8, bits: [u8; 3]) {
        let id = EffectId::by_peer(self.opened);
        self.opened += 1;
        let form = "multipart/form-data; boundary=B";
        let stream = if bits[0] & 1 != 0 { "true" } else { "false" };
        let chat = format!(
            r#"{{"model":"m/llm","stream":{stream},"max_tokens":9,"messages":[{{"role":"user","content":"hi"}}]}}"#
        );
        let backed_chat = chat.replace("m/llm", "b/llm");
        let picture = "--B\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\nx\r\n--B\r\n\
                       content-disposition: form-data; name=\"prompt\"\r\n\r\nx\r\n--B--\r\n";
        let sdp = "application/sdp";
        let hook = "application/x-www-form-urlencoded";
        let live = 20 + kind % 15;
        let kind = if kind >= 216 { live } else { kind % 20 };
        let (method, path, content_type, body) = match kind {
            0 | 1 => (Method::Post, "/text-to-image", "", r#"{"prompt":"x"}"#),
            2 | 3 => (Method::Post, "/llm", "", chat.as_str()),
            4..=6 => (Method::Post, "/v1/chat/completions", "", chat.as_str()),
            7 => (
                Method::Post,
                "/v1/images/generations",
                "",
                r#"{"prompt":"x"}"#,
            ),
            8 => (Method::Post, "/v1/images/edits", form, picture),
            9 | 10 => (Method::Post, "/image-to-video", form, picture),
            11 => (
                Method::Post,
                "/image-to-video/result",
                "",
                r#"{"request_id":"00000000"}"#,
            ),
            12 => (Method::Get, "/v1/models", "", ""),
            13 => (Method::Get, "/stream/00000000/0.png", "", ""),
            14 => (Method::Get, "/metrics", "", ""),
            15 => (Method::Options, "/llm", "", ""),
            16 => (Method::Get, "/llm", "", ""),
            17 => (Method::Post, "/nothing", "", ""),
            18 => (Method::Get, "/%zz", "", ""),
            20 => (
                Method::Post,
                "/live/video-to-video/cam/start",
                hook,
                "source_id=a&source_type=rtmpConn",
            ),
            21 => (
                Method::Post,
                "/live/video-to-video/cam/update",
                "",
                r#"{"prompt":"x"}"#,
            ),
            22 => (Method::Get, "/live/video-to-video/cam/status", "", ""),
            23 => (Method::Post, "/live/video-to-video/cam/stop", "", ""),
            24 => (Method::Post, "/live/video-to-video/cam/whip", sdp, "v=0"),
            25 => (Method::Delete, "/live/video-to-video/cam/whip/0a", "", ""),
            26 => (
                Method::Post,
                "/live/video-to-video/cam-out/whep",
                sdp,
                "v=0",
            ),
            27 => (Method::Options, "/live/video-to-video/cam/update", "", ""),
            28 => (Method::Post, "/process/request/turn", "", "{}"),
            29 => (Method::Post, "/apps/a/b/draw?x=1", "", "{}"),
            30 => (
                Method::Post,
                "/v1/chat/completions",
                "",
                backed_chat.as_str(),
            ),
            31 => (
                Method::Post,
                "/v1/embeddings",
                "",
                r#"{"model":"b/vec","input":"x","encoding_format":"base64"}"#,
            ),
            33 => (Method::Post, "/process/stream/start", "", "{}"),
            34 => (Method::Get, "/process/stream/cam/data", "", ""),
            32 => (
                Method::Post,
                "/v1/audio/speech",
                "",
                r#"{"model":"b/llm","input":"x"}"#,
            ),
            _ => (Method::Head, "/healthz", "", ""),
        };
        let url = Url::parse("http://h").expect("a URL").with_path(path);
        let mut request = Request::new(method, url).body(Body::Stream);
        request.peer = Some(IpAddr::from([192, 0, 2, bits[1] % 4]));
        if !content_type.is_empty() {
            request.headers.push("content-type", content_type);
        }
        let body = match bits[2] % 8 {
            0 => Bytes::from(bits.to_vec()),
            1 => format!("{body}{}", " ".repeat(3_000)).into(),
            _ => Bytes::from(body.to_owned()),
        };
        if [28, 33].contains(&kind) && bits[0] & 3 != 0 {
            let job = JobRequest {
                request: "{}".into(),
                capability: "turn".into(),
                timeout_seconds: 9,
                ..JobRequest::default()
            };
            request.headers.push(JOB_HEADER, job.to_header(None));
        }
        if kind == 29 && bits[0] & 3 != 0 {
            request
                .headers
                .push(SESSION_HEADER, format!("{}", bits[0] & 3));
        }
        if bits[2] & 8 != 0 {
            request.length = Some(body.len() as u64);
        }
        if bits[2] & 16 != 0 {
            request.headers.push("prefer", "respond-async");
        }
        if bits[2] & 112 == 112 {
            request.headers.push("origin", "https://app.example");
        }
        if bits[0] % 32 == 2 {
            request.headers.push("expect", "other");
        }
        let caller = Caller {
            body,
            given: 0,
            ended: false,
            head: false,
            unsent: 0,
            beyond: false,
            request: None,
        };
        self.callers.insert(id, caller);
        self.say(id, In::Request(request));
    }

    /// Sends a piece of a caller's body, or the rest.
    fn give(&mut self, id: EffectId, all: bool) {
        let Some(caller) = self.callers.get_mut(&id) else {
            return;
        };
        let rest = caller.body.slice(caller.given..);
        let piece = if all {
            rest
        } else {
            rest.slice(..rest.len() / 2)
        };
        caller.given += piece.len();
        if !piece.is_empty() {
            self.say(id, In::Data(piece));
        }
    }

    fn take(&mut self, pick: u8, part: u8) {
        let behind = self.callers.iter().filter(|(_, caller)| caller.unsent > 0);
        let Some(id) = nth(pick, behind.map(|(id, _)| *id)) else {
            return;
        };
        let caller = self.callers.get_mut(&id).expect("picked");
        let taken = (caller.unsent * usize::from(part) / 255).max(1);
        caller.unsent -= taken;
        let beyond = caller.beyond;
        self.say(id, In::Sent(taken));
        if beyond && self.callers.contains_key(&id) {
            self.say(id, In::Data(Bytes::from(vec![9; 30_000])));
            if !part.is_multiple_of(4) {
                self.say(id, In::End(Headers::new()));
            }
        }
    }

    // ---- the shell -------------------------------------------------------------------------------------------

    fn job(&mut self, pick: u8, what: u8) {
        let late = what >= 250;
        let id = if late {
            nth(pick, self.over.iter().copied())
        } else {
            nth(pick, self.jobs.keys().copied())
        };
        let Some(id) = id else { return };
        let work = self.jobs.get(&id);
        let pipeline = work.map_or(Pipeline::Llm, |work| work.request.pipeline());
        let stream = work.is_some_and(|work| work.request.is_stream());
        let probe = work.and_then(|work| work.request.needs());
        let now = self.now;
        match what % 12 {
            0..=2 => {
                self.front.head(now, id, served());
                if stream && what.is_multiple_of(2) {
                    self.front.chunk(now, id, &payload("words", ""));
                }
            }
            3 | 4 if what & 3 != 0 => {
                let words = payload(&"x".repeat(MAX_UNSENT / 2), "");
                for _ in 0..4 {
                    if !self.full.contains(&id) {
                        self.front.chunk(self.now, id, &words);
                        self.drain();
                    }
                }
            }
            3 | 4 => {
                let words = if what & 16 != 0 { "[DONE]" } else { "nonsense" };
                self.front.chunk(now, id, &Bytes::from(words));
            }
            5 => {
                self.front.chunk(now, id, &payload("last", "stop"));
            }
            6 => {
                self.front
                    .chunk(now, id, &Bytes::from(r#"{"error":"oom"}"#));
            }
            7 => {
                self.jobs.remove(&id);
                self.over.push(id);
                self.front.failed(now, id, failed(what / 12));
            }
            8 if probe.is_some() => {
                self.jobs.remove(&id);
                self.over.push(id);
                let bad = BadRequest::new("it cannot be decoded");
                self.front.refuse_work(now, id, &bad);
            }
            8 | 9 => {
                if probe == Some(Probe::Image) {
                    let media = Media::Image {
                        width: 8,
                        height: 8,
                    };
                    self.front.measured(now, id, media);
                }
            }
            _ => {
                self.jobs.remove(&id);
                self.over.push(id);
                let finished = finished(pipeline, stream, what);
                self.front.done(now, id, finished);
            }
        }
        self.drain();
    }

    fn shell(&mut self, pick: u8, what: u8) {
        let Some(id) = nth(pick, self.asked.iter().copied()) else {
            return;
        };
        let content = Bytes::from_static(b"content");
        if self.orders.contains(&id) {
            return self.relay(id, what);
        }
        if self.calls.contains(&id) {
            let status = [200, 201, 404, 503][usize::from(what % 4)];
            let response = Response::new(status).body(Body::Full(content));
            return self.front.respond(self.now, id, response);
        }
        match what % 4 {
            0 => self.front.object(self.now, id, None),
            1 => self.front.object(self.now, id, Some(content)),
            _ => self.front.page(self.now, id, 200, "text/plain", content),
        }
    }

    /// How many requests wait for the first search.
    fn waits(&self) -> u64 {
        let states = self.front.states();
        states.get(&Admission::Parsed).copied().unwrap_or_default()
    }

    /// A container or an app says something.
    fn relay(&mut self, id: RequestId, what: u8) {
        let now = self.now;
        let kind = [sse::CONTENT_TYPE, "application/json", "", "audio/wav"];
        let kind = kind[usize::from(what / 8 % 4)];
        match what % 8 {
            0 if self.data.contains(&id) => drop(self.front.data_head(now, id)),
            0 => {
                let served = hired(kind);
                self.front.order_head(now, id, &served);
            }
            1 => {
                let mut headers = Headers::new();
                headers.push("content-type", kind);
                let answer = AppAnswer {
                    runner: url(),
                    status: [200, SWITCHING, 429, 500][usize::from(what / 32 % 4)],
                    headers,
                    price: None,
                };
                self.front.app_head(now, id, &answer, "a/b", None);
            }
            2 if what < 64 => {
                if let Some(said) = self.said.remove(&id) {
                    self.front.taken(now, id, said);
                }
            }
            3 => self.front.relay(now, id, words(what / 8)),
            2 | 4 => {
                let much = Bytes::from(vec![7; MAX_UNSENT / 2]);
                for _ in 0..4 {
                    if !self.full.contains(&id) {
                        self.front.relay(self.now, id, much.clone());
                        self.drain();
                    }
                }
            }
            5 if what < 128 => self.front.relay_end(now, id),
            5 => {
                let done = Done {
                    served: hired(kind),
                    body: words(what / 8),
                };
                self.front.order_done(now, id, done);
            }
            6 => match what / 8 % 4 {
                0 => self.front.relay_broke(now, id),
                1 => {
                    let attempts = Vec::new();
                    let failed = ContainerFailed::Undecided { attempts };
                    self.front.order_failed(now, id, &failed);
                }
                2 => {
                    let text = String::from_utf8_lossy(&words(what / 32)).into_owned();
                    let failed = ContainerFailed::Caller { status: 400, text };
                    self.front.order_failed(now, id, &failed);
                }
                _ => {
                    let attempts = Vec::new();
                    let failed = AppFailed::Exhausted { attempts };
                    self.front.app_failed(now, id, &failed);
                }
            },
            _ => {
                let response = Response::new(502).body(Body::Full("no".into()));
                self.front.respond(now, id, response);
            }
        }
    }

    /// The answer of an exchange is over.
    fn ended(&mut self, id: EffectId) {
        let caller = self.callers.remove(&id).expect("one answer for one caller");
        if let Some(request) = caller.request {
            self.full.remove(&request);
        }
    }
}

impl Driven for Player {
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
            panic!("a front door signs and stores nothing: {effect:?}")
        };
        match step {
            Out::Reply(reply) => {
                self.note(format!("{}", reply.status));
                assert!(reply.headers.get("x-request-id").is_some() || reply.status == 417);
                let caller = self.callers.get_mut(&id).expect("an answer to who waits");
                assert!(!caller.head, "answered twice");
                caller.head = true;
                caller.beyond = reply.status == SWITCHING;
                if reply.body != Body::Stream {
                    self.ended(id);
                }
            }
            Out::Data(data) => {
                let caller = self.callers.get_mut(&id).expect("a caller that is there");
                assert!(caller.head, "a head comes first");
                caller.unsent += data.len();
                let most = MAX_UNSENT * 2 + (64 << 10);
                assert!(caller.unsent <= most, "it goes on for a slow client");
            }
            Out::End(_) => {
                assert!(self.callers[&id].head);
                self.ended(id);
            }
            Out::Report => assert!(self.callers[&id].head),
            Out::Pause | Out::Resume => assert!(self.callers[&id].beyond, "said beyond HTTP"),
            Out::Abort => self.ended(id),
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Want(id, work) => {
                self.note("Want");
                let exchange = self.feeding.unwrap_or_else(|| {
                    let is_there = |id: &EffectId| self.callers.contains_key(id);
                    let waits = self.waiting.iter().position(is_there);
                    let waits = waits.expect("a body has just ended, or has waited");
                    self.waiting
                        .drain(..=waits)
                        .next_back()
                        .expect("at least that")
                });
                match self.callers.get_mut(&exchange) {
                    Some(caller) => {
                        assert!(caller.ended && !caller.head, "whole, and not answered");
                        caller.request = Some(id);
                    }
                    None => assert!(self.background.insert(id), "accepted"),
                }
                assert!(self.jobs.insert(id, work).is_none(), "wanted once");
            }
            Event::Live(id, call) if matches!(*call, Call::Data { .. }) => {
                self.note("Data");
                self.asked.push(id);
                assert!(self.orders.insert(id) && self.data.insert(id), "told once");
            }
            Event::Live(id, _) => {
                self.note("Live");
                self.asked.push(id);
                assert!(self.calls.insert(id), "told once");
            }
            Event::Order(id, order) => {
                self.note("Order");
                let exchange = self.feeding.expect("a body has just ended");
                let caller = self.callers.get_mut(&exchange).expect("who waits");
                assert!(caller.ended && !caller.head, "whole, and not answered");
                caller.request = Some(id);
                order.check().expect("it makes sense");
                self.asked.push(id);
                assert!(self.orders.insert(id), "told once");
            }
            Event::App(id, request) => {
                self.note("App");
                let called = (&*request.app, &*request.call.path);
                let all = [
                    ("a/b", "draw?x=1"),
                    ("b/app", "v1/chat/completions"),
                    ("b/app", "v1/audio/speech"),
                ];
                assert!(all.contains(&called), "{called:?}");
                self.used.insert(request.session);
                self.asked.push(id);
                assert!(self.orders.insert(id), "told once");
            }
            Event::EndSession(id) => {
                self.note("EndSession");
                assert!(self.used.remove(&id), "one that was used, and once");
            }
            Event::Said(id, bytes) => {
                self.note("Said");
                assert!(self.orders.contains(&id), "somebody takes it");
                *self.said.entry(id).or_default() += bytes.len();
            }
            Event::SaidAll(id) => {
                self.note("SaidAll");
                assert!(self.orders.contains(&id), "told once");
            }
            Event::Gone(id) => {
                self.note("Gone");
                self.calls.remove(&id);
                self.orders.remove(&id);
                if self.jobs.remove(&id).is_some() {
                    self.over.push(id);
                }
            }
            Event::Full(id) => {
                self.note("Full");
                assert!(self.full.insert(id), "told once");
            }
            Event::Room(id) => {
                self.note("Room");
                assert!(self.full.remove(&id), "there was no room before");
            }
            Event::Page(id, _) | Event::Fetch(id, _) => self.asked.push(id),
            Event::Keep(_) => assert!(self.config.folder),
            Event::Finished(summary) => {
                self.note(summary.outcome.name());
                self.background.remove(&summary.id);
                self.calls.remove(&summary.id);
                self.orders.remove(&summary.id);
                let worked = summary.state >= Admission::Working;
                assert!(worked || summary.job.is_none(), "nobody works before that");
                let looked = summary.state >= Admission::Parsed;
                assert!(looked || summary.outcome != Outcome::Answered);
                let answered = summary.status.is_some();
                assert_eq!(answered, summary.outcome != Outcome::Gone || answered);
                // Its job may go on to its end by itself, and nobody hears of it.
                if self.jobs.remove(&summary.id).is_some() {
                    self.over.push(summary.id);
                }
            }
            Event::Drained => {
                assert!(self.draining && !self.drained, "told once");
                assert_eq!(self.front.in_flight(), 0);
                self.drained = true;
            }
            other => panic!("{other:?}"),
        }
    }

    fn idle(&mut self, _: Option<Time>) {
        let places = self.front.in_flight();
        assert_eq!(
            places,
            self.callers.len() + self.background.len(),
            "a place for everybody who waits"
        );
        let states = self.front.states();
        assert_eq!(states.values().sum::<u64>(), places as u64);
        let passing = [Admission::New, Admission::Limiting];
        let rests = passing.iter().any(|state| states.contains_key(state));
        assert!(!rests, "nothing waits there: {states:?}");
        assert!(places > 0 || self.front.held() == 0, "all is given back");
        assert!(self.front.held() <= self.config.max_held);
        assert!(self.front.kept() <= self.config.max_kept);
    }
}

fn models() -> Models {
    let mut models = Models::new();
    let offer = || Offer {
        price: None,
        warm: true,
    };
    models.offer(1, "m/llm", Pipeline::Llm, offer());
    models.offer(1, "stabilityai/sdxl-turbo", Pipeline::TextToImage, offer());
    models.offer(1, "stabilityai/sdxl-turbo", Pipeline::ImageToImage, offer());
    models.discovered();
    models
}

fn url() -> Url {
    Url::parse("https://orch:8935").expect("a URL")
}

fn served() -> Served {
    Served {
        url: url(),
        address: Address([7; 20]),
        units: 9,
        price: Price::new(1, 3),
        cost: Amount::ratio(9, 3).expect("a sum"),
        tickets: 1,
        value: Amount::zero(),
        attempts: vec![Attempt {
            url: url(),
            reason: Left::Busy,
        }],
        waited: Duration::ZERO,
        selecting: Duration::ZERO,
        paying: Duration::ZERO,
        upstream: Duration::ZERO,
    }
}

fn payload(words: &str, finish: &str) -> Bytes {
    format!(r#"{{"choices":[{{"delta":{{"content":"{words}"}},"finish_reason":"{finish}"}}]}}"#)
        .into()
}

fn failed(kind: u8) -> Failed {
    let attempts = Vec::new();
    let failure = |cause| Box::new(Failure::new(Party::Orchestrator(url()), cause));
    match kind % 9 {
        0 => Failed::Caller {
            text: "bad lora".into(),
            by: RefusedBy::Runner,
        },
        1 => Failed::NoOrchestrator {
            attempts,
            tried: Vec::new(),
            again: None,
        },
        2 => Failed::NoMatch {
            excluded: vec![("only", 3)],
        },
        3 => Failed::UnknownModel,
        4 => Failed::TimedOut { attempts },
        5 => Failed::ResultLost {
            attempts,
            failure: failure(Cause::Gone("the result")),
        },
        6 => Failed::Broken {
            served: Box::new(served()),
            failure: failure(Cause::Gone("the rest of the answer")),
        },
        7 => Failed::Ours(failure(Cause::Gone("the key holder"))),
        _ => Failed::Closed,
    }
}

/// The end of a job: mostly with an answer of its own kind.
fn finished(pipeline: Pipeline, stream: bool, what: u8) -> Finished {
    let image = |n: u8| Image {
        nsfw: n == 1,
        seed: 1,
        url: format!("https://orch/{n}.png"),
    };
    let file = |n: u8| File {
        url: format!("https://orch/{n}.png"),
        name: "0.png".into(),
        content: vec![n; usize::from(what)].into(),
    };
    let answer = match pipeline {
        _ if stream || what == 11 => None,
        Pipeline::Llm => {
            let body = payload("all of it", "stop");
            Some(read_answer(pipeline, &body).expect("an answer"))
        }
        _ => Some(Answer::Images((0..3).map(image).collect())),
    };
    Finished {
        answer,
        files: (0..3).map(file).collect(),
        served: served(),
    }
}

/// Plays what the bytes say; hands back how often each status and event was seen.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) -> BTreeMap<String, u32> {
    let mut reel = Reel::new(data);
    let mut player = Player::new(reel.byte());
    reel.play(Step::read, |step| player.play(step));
    // Nobody moves any more: everybody gets an answer all the same, or is let go.
    player.pass(Duration::from_secs(4_000));
    assert!(player.callers.is_empty(), "a caller waits for ever");
    assert!(player.background.is_empty() && player.jobs.is_empty() && player.calls.is_empty());
    assert_eq!(
        (
            player.front.in_flight(),
            player.front.held(),
            player.front.kept()
        ),
        (0, 0, 0)
    );
    assert_eq!(player.draining, player.drained);
    player.seen
}
