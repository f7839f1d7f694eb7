//! Jobs for a container whose orchestrators, signer and callers do as they like.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::chain::ChainView;
use livepeer_core::http::{Headers, In, Out, Request, Response, Url};
use livepeer_core::job::byoc::stream::{StreamEvent, StreamOrder};
use livepeer_core::job::byoc::{Byoc, Config, Event, Failed, JobId, Order};
use livepeer_core::job::live::media::{self, News};
use livepeer_core::money::Price;
use livepeer_core::payment::Budget;
use livepeer_core::wire::byoc::stream::{START_PATH, STOP_PATH, StreamChannels};
use livepeer_core::wire::byoc::{JobRequest, Scheme, Sender, Token};
use livepeer_core::wire::payment::PAYMENT_HEADER;
use livepeer_core::wire::{Payment, TicketParams};
use livepeer_core::{Effect, EffectId, Time};

use super::Reel;
use super::ours::{Ours, fault};
use super::payer::payer;
use super::payment_session::{GOOD, first_word, quote, signers_answer};
use super::reel::nth;
use crate::{Driven, Exchanges, Key};

/// A step of the play.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Discovery has found those of the four that the bits name.
    Offer(u8),
    /// Discovery has found those of the four that the bits name, and no others.
    Replace(u8),
    /// A caller orders a job.
    Submit(u8),
    /// The n-th caller goes away.
    Cancel(u8),
    /// A caller orders a stream.
    Open(u8),
    /// The n-th stream gets other parameters, news of its media, or its end.
    Steer(u8, u8),
    /// The n-th caller takes nothing more, or takes something again.
    Hold(u8, bool),
    /// The n-th exchange is answered in such a way.
    Answer(u8, u8),
    /// The n-th exchange goes on, and does not end.
    Begin(u8, u8),
    /// The n-th exchange breaks.
    Fail(u8, bool),
    /// The n-th record is durable, or was not kept.
    Stored(u8, bool),
    /// The n-th signature is made, or refused.
    Signed(u8, bool),
    /// Blocks go by.
    Chain(u8),
    /// Everybody answers well.
    Serve,
    /// Time passes: so many tens of milliseconds, squared.
    Pass(u8),
    /// The owner has enough.
    Close,
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(32) {
            0 => Self::Offer(reel.byte()),
            1 => Self::Replace(reel.byte()),
            2..=5 => Self::Submit(reel.byte()),
            6 => Self::Open(reel.byte()),
            7 => Self::Steer(reel.byte(), reel.byte()),
            8 => Self::Cancel(reel.byte()),
            9 => Self::Hold(reel.byte(), true),
            10 => Self::Hold(reel.byte(), false),
            11..=17 => Self::Answer(reel.byte(), reel.byte()),
            18 | 19 => Self::Begin(reel.byte(), reel.byte()),
            20 => Self::Fail(reel.byte(), true),
            21 => Self::Fail(reel.byte(), false),
            22 | 23 => Self::Stored(reel.byte(), !reel.byte().is_multiple_of(8)),
            24 | 25 => Self::Signed(reel.byte(), !reel.byte().is_multiple_of(8)),
            26 => Self::Chain(reel.byte()),
            27 | 28 => Self::Serve,
            29 | 30 => Self::Pass(reel.byte()),
            _ if reel.below(16) == 0 => Self::Close,
            _ => Self::Pass(reel.byte()),
        }
    }
}

/// The side that plays.
pub struct Player {
    now: Time,
    book: Exchanges,
    byoc: Byoc,
    ours: Ours,
    chain: ChainView,
    open: BTreeMap<EffectId, Request>,
    tokens: u32,
    /// Jobs that have not ended, by the name that they bear in their requests.
    jobs: BTreeMap<JobId, String>,
    /// Streams that have not ended, and the session in which each runs.
    streams: BTreeMap<JobId, Option<u32>>,
    /// Starts of streams of which nobody knows whether they came about, by the name that is in the text for orchestrators.
    uncertain: BTreeSet<String>,
    /// Segments of events that were told.
    told: u64,
    /// Jobs that may run more than once.
    repeats: BTreeSet<String>,
    /// Jobs that an orchestrator may have done: requests that it got and did not refuse.
    may_have_run: BTreeSet<String>,
    /// Requests that were refused, as far as their answers came.
    refused: BTreeSet<EffectId>,
    /// Streams that somebody answers with.
    headed: BTreeSet<JobId>,
    /// The nonces of all tickets that left, by commitment.
    tickets: BTreeMap<[u8; 32], u32>,
    submitted: u32,
    closed: bool,
    /// How often each event was told.
    seen: BTreeMap<String, u32>,
}

const NAME: &str = "text-reversal";

/// How long a job without a word from anybody goes on, at most.
const PATIENCE: Duration = Duration::from_secs(900);

/// The most jobs at a time.
const MAX_JOBS: usize = 64;

fn orchestrator(n: u8) -> Url {
    Url::parse(&format!("https://o{}:8935", n % 4)).expect("a URL")
}

fn some(bits: u8) -> Vec<Url> {
    let named = (0..4).filter(|n| bits & (1 << n) != 0);
    named.map(orchestrator).collect()
}

impl Player {
    /// A machine without a job; the byte picks who pays.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_790_000_000);
        let key = Key::named("payer");
        let chain = ChainView::development();
        let (payer, _) = payer(flavour, &key, &chain);
        let config = Config {
            max_jobs: MAX_JOBS,
            max_answer: 4_096,
            scheme: if flavour & 4 == 0 {
                Scheme::Texts
            } else {
                Scheme::Framed
            },
            ..Config::default()
        };
        let mut player = Self {
            now,
            book: Exchanges::default(),
            byoc: Byoc::new(now, config, NAME, payer, [flavour; 32]),
            ours: Ours::new(now, key, Budget::unlimited(), true),
            chain,
            open: BTreeMap::new(),
            tokens: 0,
            jobs: BTreeMap::new(),
            streams: BTreeMap::new(),
            uncertain: BTreeSet::new(),
            told: 0,
            repeats: BTreeSet::new(),
            may_have_run: BTreeSet::new(),
            refused: BTreeSet::new(),
            headed: BTreeSet::new(),
            tickets: BTreeMap::new(),
            submitted: 0,
            closed: false,
            seen: BTreeMap::new(),
        };
        if flavour & 16 != 0 {
            player.play(&Step::Offer(15));
        }
        player
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        let now = self.now;
        match *step {
            Step::Offer(bits) => self.byoc.offer(now, some(bits)),
            Step::Replace(bits) => self.byoc.replace(now, some(bits)),
            Step::Submit(kind) => self.submit(kind),
            Step::Cancel(pick) => {
                let all = self.jobs.keys().chain(self.streams.keys());
                if let Some(id) = nth(pick, all.copied()) {
                    self.jobs.remove(&id);
                    self.byoc.cancel(now, id);
                }
            }
            Step::Open(kind) => self.open_stream(kind),
            Step::Steer(pick, what) => self.steer(pick, what),
            Step::Hold(pick, hold) => {
                if let Some(id) = nth(pick, self.jobs.keys().copied()) {
                    match hold {
                        true => self.byoc.pause(now, id),
                        false => self.byoc.resume(now, id),
                    }
                }
            }
            Step::Answer(pick, kind) => self.answer(pick, kind, true),
            Step::Begin(pick, kind) => self.answer(pick, kind, false),
            Step::Fail(pick, connected) => {
                if let Some(id) = nth(pick, self.open.keys().copied()) {
                    let request = self.open.remove(&id).expect("picked");
                    if connected {
                        self.ran(id, &request);
                    }
                    self.http(id, In::Failed(fault(connected)));
                }
            }
            Step::Stored(pick, keeps) => {
                for stored in self.ours.stored(now, pick, keeps) {
                    self.input(stored);
                }
            }
            Step::Signed(pick, signs) => {
                if let Some(signed) = self.ours.signed(pick, signs) {
                    self.input(signed);
                }
            }
            Step::Chain(blocks) => {
                self.chain.l1_block += u64::from(blocks % 64);
                self.byoc.set_chain(now, self.chain.clone());
            }
            Step::Serve => self.serve(),
            Step::Pass(tens) => {
                let tens = u64::from(tens);
                self.pass(Duration::from_millis(tens * tens * 10));
            }
            Step::Close => {
                self.closed = true;
                self.byoc.close(now);
            }
        }
        self.drain();
        assert!(self.byoc.jobs() >= self.jobs.len(), "a job was lost");
        assert!(
            self.byoc.streams() >= self.streams.len(),
            "a stream was lost"
        );
    }

    /// Ends the play: nobody answers any more, and all jobs end.
    ///
    /// # Panics
    /// If one does not.
    pub fn finish(&mut self) {
        for id in self.jobs.keys().copied().collect::<Vec<_>>() {
            self.byoc.resume(self.now, id);
        }
        self.drain();
        self.pass(PATIENCE);
        assert!(self.jobs.is_empty(), "{:?} wait for ever", self.jobs);
        assert!(self.streams.is_empty(), "{:?} run for ever", self.streams);
        assert_eq!((self.byoc.jobs(), self.byoc.streams()), (0, 0));
        let now = self.now;
        self.byoc.close(now);
        self.closed = true;
        self.drain();
        // Channels are deleted still.
        self.pass(PATIENCE);
        assert!(self.open.is_empty(), "{:?} are open at the end", self.open);
    }

    fn submit(&mut self, kind: u8) {
        self.submitted += 1;
        let name = format!("job-{}", self.submitted);
        let order = Order {
            may_repeat: kind & 1 != 0,
            path: if kind & 2 == 0 {
                String::new()
            } else {
                "/run?x=1".into()
            },
            body: vec![kind; 16].into(),
            ..Order::new(JobRequest {
                id: name.clone(),
                request: "{}".into(),
                parameters: match kind & 4 {
                    0 => String::new(),
                    _ => r#"{"orchestrators":{"exclude":["https://o1:8935"]}}"#.into(),
                },
                capability: NAME.into(),
                timeout_seconds: u32::from(kind % 64) + 1,
            })
        };
        let repeats = order.may_repeat;
        match self.byoc.submit(self.now, order) {
            Ok(id) => {
                assert!(!self.closed && self.jobs.insert(id, name.clone()).is_none());
                if repeats {
                    self.repeats.insert(name);
                }
            }
            Err(_) => assert!(self.closed || self.is_crowded()),
        }
    }

    fn is_crowded(&self) -> bool {
        self.byoc.jobs() + self.byoc.streams() >= MAX_JOBS
    }

    fn open_stream(&mut self, kind: u8) {
        self.submitted += 1;
        let name = format!("stream-{}", self.submitted);
        let parameters = match kind & 6 {
            0 => String::new(),
            2 => r#"{"enable_video_ingress":true}"#.into(),
            4 => r#"{"enable_video_egress":true,"enable_data_output":true}"#.into(),
            _ => r#"{"enable_video_ingress":true,"enable_video_egress":true}"#.into(),
        };
        let mut order = StreamOrder::new(JobRequest {
            request: format!(r#"{{"of":"{name}"}}"#),
            parameters,
            capability: NAME.into(),
            timeout_seconds: u32::from(kind % 16) + 1,
            ..JobRequest::default()
        });
        order.may_repeat = kind & 1 != 0;
        if order.may_repeat {
            self.repeats.insert(name);
        }
        match self.byoc.open_stream(self.now, order) {
            Ok(id) => assert!(!self.closed && self.streams.insert(id, None).is_none()),
            Err(_) => assert!(self.closed || self.is_crowded()),
        }
    }

    /// Does something with a stream, or tells news of the media of whoever has it, or had it.
    fn steer(&mut self, pick: u8, what: u8) {
        let now = self.now;
        let Some((id, session)) = nth(pick, self.streams.iter()) else {
            return;
        };
        let (id, session) = (*id, session.unwrap_or_default());
        let event = match what % 12 {
            0 | 1 => {
                let body = format!(r#"{{"width":{what}}}"#);
                // One that does not run says so.
                let _ = self.byoc.update_stream(now, id, body.into());
                return;
            }
            2 => return self.byoc.stop_stream(now, id, "enough".into()),
            3 | 4 => media::Event::Begun,
            5 => media::Event::Done,
            6 => media::Event::Waits(what & 16 != 0),
            7 | 8 => media::Event::Seen,
            9 => media::Event::Delivered,
            _ => media::Event::Ended(None),
        };
        self.byoc.on_stream_media(now, id, &News { session, event });
    }

    /// The exchange that is answered next. Containers take their time after every other job.
    fn next_to_serve(&self) -> Option<u8> {
        let slow = self.submitted.is_multiple_of(2);
        let waits = |request: &Request| match Self::job_of(request) {
            Some(_) => slow,
            // A container that spoke at once again would never be done.
            None => request.url.path().contains("-events/"),
        };
        let place = self.open.values().position(|request| !waits(request))?;
        u8::try_from(place).ok()
    }

    /// Lets everybody answer well, until nobody is asked any more.
    fn serve(&mut self) {
        for _ in 0..400 {
            if let Some(done) = self.ours.serve(self.now) {
                done.into_iter().for_each(|input| self.input(input));
            } else if let Some(pick) = self.next_to_serve() {
                self.answer(pick, 255, true);
            } else {
                return;
            }
        }
    }

    /// The job of a request to a container; `None` for other requests.
    fn job_of(request: &Request) -> Option<String> {
        let (job, stream) = Self::named(request)?;
        (!stream).then_some(job.id)
    }

    /// The stream that is to be started, or stopped, by a request; `None` for other requests.
    fn stream_of(request: &Request, path: &str) -> Option<String> {
        let (job, _) = Self::named(request).filter(|_| request.url.path() == path)?;
        let text: serde_json::Value = serde_json::from_str(&job.request).expect("our own");
        assert_eq!(text["stream_id"], job.id, "it is about that stream");
        Some(text["of"].as_str().expect("our own").to_owned())
    }

    /// The job that a request names, and whether it is about a stream.
    fn named(request: &Request) -> Option<(JobRequest, bool)> {
        let header = request.headers.get("livepeer")?;
        let job = JobRequest::read_signed(header).expect("our own").0;
        Some((job, request.url.path().starts_with("/ai/stream/")))
    }

    fn ran(&mut self, id: EffectId, request: &Request) {
        if !self.refused.contains(&id)
            && let Some(job) = Self::job_of(request)
        {
            self.may_have_run.insert(job);
        }
        if !self.refused.contains(&id)
            && let Some(stream) = Self::stream_of(request, START_PATH)
        {
            self.uncertain.insert(stream);
        }
    }

    fn token(&mut self, request: &Request, kind: u8) -> Token {
        self.tokens += 1;
        let kinds = [kind, GOOD].map(|kind| quote(self.now, 0, kind).ticket_params);
        let mut params = { kinds.into_iter() }
            .flatten()
            .next()
            .expect("good ones have some");
        let mut hash = [1; 32];
        hash[..4].copy_from_slice(&self.tokens.to_be_bytes());
        params.recipient_rand_hash = hash.to_vec().into();
        // Some are free, and some sell without saying how to pay.
        let price = if kind % 8 == 3 {
            0
        } else {
            i64::from(kind % 16) * 100_000_000
        };
        Token {
            service: request.url.with_path("/"),
            price: Price::new(price, 1).expect("a price"),
            ticket_params: TicketParams::from_wire(&params)
                .ok()
                .filter(|_| kind % 16 != 9),
            balance: i64::from(kind % 5) * 1_000_000_000,
            capacity: u32::from(kind % 7 != 2),
        }
    }

    fn answer(&mut self, pick: u8, kind: u8, ends: bool) {
        let Some(id) = nth(pick, self.open.keys().copied()) else {
            return;
        };
        let request = self.open[&id].clone();
        let path = request.url.path();
        if path == "/sign-orchestrator-info" && !kind.is_multiple_of(8) {
            self.open.remove(&id);
            let key = self.ours.key().clone();
            return self.identify(id, &key);
        }
        let (status, content, body) = if path == "/sign-byoc-job" {
            let job = Self::asked_to_sign(&request);
            let digest = job.digest(if kind & 1 == 0 {
                Scheme::Texts
            } else {
                Scheme::Framed
            });
            let signature = self.ours.key().sign(digest);
            let address = self.ours.key().address();
            let body = format!(r#"{{"sender":"{address}","signature":"{signature:?}"}}"#);
            (
                if kind % 16 == 1 { 404 } else { 200 },
                "application/json",
                body.into_bytes(),
            )
        } else if request.url.host() == "signer" {
            let kind = if kind < 128 { kind } else { GOOD };
            let (status, body) =
                signers_answer(self.now, self.ours.key(), &self.chain, &request, kind);
            (status, "application/json", body)
        } else if path == "/process/token" {
            let status = if kind % 32 == 5 { 503 } else { 200 };
            let body = match kind % 32 {
                6 => b"{".to_vec(),
                _ => self
                    .token(&request, kind)
                    .to_json(Sender::default())
                    .to_vec(),
            };
            (status, "application/json", body)
        } else if path.starts_with("/ai/") {
            return self.answer_stream(id, &request, kind, ends);
        } else {
            let (status, content, body) = made(kind);
            let unasked = body.contains("dial tcp")
                || body.contains("No capacity")
                || body.contains("Insufficient");
            let lost = body.contains("not able") && !unasked;
            if matches!(status, 200 | 504) || lost {
                self.ran(id, &request);
            } else {
                self.refused.insert(id);
            }
            (status, content, body.into_bytes())
        };
        let head = Response::new(status)
            .header("content-type", content)
            .header("livepeer-balance", "1000000000");
        self.http(id, In::Reply(head));
        if self.open.contains_key(&id) {
            self.http(id, In::Data(body.into()));
        }
        if ends && self.open.remove(&id).is_some() {
            self.http(id, In::End(Headers::new()));
        }
    }

    /// Answers a request about a stream, or one to its channels.
    fn answer_stream(&mut self, id: EffectId, request: &Request, kind: u8, ends: bool) {
        let path = request.url.path();
        let good = kind >= 96;
        let mut head = Response::new(if good {
            200
        } else {
            [200, 400, 402, 404, 500][usize::from(kind % 5)]
        });
        let mut body = Bytes::from_static(b"so be it");
        if path == START_PATH {
            let (job, _) = Self::named(request).expect("a start");
            let wishes = job.wishes().expect("our own");
            let channel = |suffix: &str| {
                let path = format!("/ai/trickle/{}{suffix}", job.id);
                Some(request.url.with_path(&path))
            };
            let mut channels = StreamChannels {
                publish: channel("").filter(|_| wishes.video_in),
                subscribe: channel("-out").filter(|_| wishes.video_out),
                control: channel("-control"),
                events: channel("-events"),
                data: channel("-data").filter(|_| wishes.data_out),
            };
            if !good && kind & 8 != 0 {
                channels.events = None;
            }
            let usable = channels.events.is_some();
            channels.push_headers(&mut head.headers);
            match head.status {
                200 if usable => {}
                200 => self.ran(id, request),
                _ => drop(self.refused.insert(id)),
            }
        } else if let Some(stream) = Self::stream_of(request, STOP_PATH) {
            if head.status == 200 && ends {
                self.uncertain.remove(&stream);
            }
        } else if path.contains("-events/") {
            head.headers.push("lp-trickle-seq", self.told.to_string());
            self.told += 1;
            body = match kind % 4 {
                0 => r#"{"type":"error","message":"out of memory"}"#.into(),
                1 => Bytes::new(),
                _ => r#"{"type":"status","state":"ONLINE"}"#.into(),
            };
        }
        if path.starts_with("/ai/trickle/") && !good && kind & 16 != 0 {
            head.headers.push("lp-trickle-closed", "terminated");
        }
        self.http(id, In::Reply(head));
        if self.open.contains_key(&id) {
            self.http(id, In::Data(body));
        }
        if ends && self.open.remove(&id).is_some() {
            self.http(id, In::End(Headers::new()));
        }
    }

    fn asked_to_sign(request: &Request) -> JobRequest {
        let livepeer_core::http::Body::Full(body) = &request.body else {
            panic!("a signer is asked in full");
        };
        let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
        let text = |name: &str| body[name].as_str().expect("a text").to_owned();
        JobRequest {
            id: text("id"),
            request: text("request"),
            parameters: text("parameters"),
            capability: text("capability"),
            timeout_seconds: u32::try_from(body["timeout_seconds"].as_u64().expect("a number"))
                .expect("small"),
        }
    }

    /// No nonce leaves twice.
    fn check_tickets(&mut self, request: &Request) {
        let Some(header) = request.headers.get(PAYMENT_HEADER) else {
            return;
        };
        let payment = Payment::decode(header).expect("a payment");
        assert!(
            !payment.tickets.is_empty(),
            "the header goes only with tickets"
        );
        let Some(params) = payment.ticket_params else {
            panic!("tickets of no quote");
        };
        let last = self.tickets.entry(params.recipient_rand_hash).or_default();
        for ticket in payment.tickets {
            assert!(ticket.nonce > *last, "nonce {} after {last}", ticket.nonce);
            *last = ticket.nonce;
        }
    }
}

/// A container's answer, or that of its orchestrator.
fn made(kind: u8) -> (u16, &'static str, String) {
    let text = |status, text: &str| (status, "text/plain", text.to_owned());
    let stream = |text: &str| (200, "text/event-stream", text.to_owned());
    let lost =
        "job not able to be processed, removing capability err=Post \"http://10.0.0.2/run\": ";
    match kind % 24 {
        1 => text(503, "No capacity available for capability\n"),
        2 => text(400, "Insufficient balance for request\n"),
        3 => text(400, "Could not verify job creds\n"),
        4 => text(402, "Could not parse payment\n"),
        5 => text(422, "text missing\n"),
        6 => text(429, "slow down\n"),
        7 => text(500, "x\n"),
        8 => text(500, &format!("{lost}context canceled\n")),
        9 => text(500, &format!("{lost}EOF\n")),
        10 => text(500, &format!("{lost}dial tcp 10.0.0.2:80: refused\n")),
        11 => text(504, ""),
        12 => text(301, ""),
        13 => stream("data: 1\n\n"),
        14 => stream(&"\n".repeat(100)),
        15 => stream("data: 1\n\ndata: [DONE]\n\n"),
        16 => stream(""),
        17 => text(200, &"x".repeat(5_000)),
        _ => text(200, "ok"),
    }
}

impl Driven for Player {
    crate::driven!(byoc: Byoc, book);

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(Out::Request(request)) => {
                self.check_tickets(&request);
                if let Some(job) = Self::job_of(&request) {
                    let again = self.may_have_run.contains(&job);
                    assert!(
                        !again || self.repeats.contains(&job),
                        "{job} runs twice without leave"
                    );
                }
                if let Some(stream) = Self::stream_of(&request, START_PATH) {
                    let again = self.uncertain.contains(&stream);
                    assert!(
                        !again || self.repeats.contains(&stream),
                        "{stream} runs twice without leave"
                    );
                }
                self.open.insert(id, request);
            }
            Effect::Http(Out::Abort) => {
                // Who has the request may do the job all the same.
                if let Some(request) = self.open.remove(&id) {
                    self.ran(id, &request);
                }
            }
            Effect::Http(_) => {}
            ours => {
                for input in self.ours.asked(self.now, id, ours) {
                    self.feed(input);
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        *self.seen.entry(first_word(&event)).or_default() += 1;
        match event {
            Event::Trying(id, _) => assert!(self.jobs.contains_key(&id)),
            Event::Head(id, _) => {
                assert!(
                    self.jobs.contains_key(&id) && self.headed.insert(id),
                    "one head"
                );
            }
            Event::Chunk(id, chunk) => {
                assert!(self.jobs.contains_key(&id) && self.headed.contains(&id));
                assert!(chunk.ends_with(b"\n"), "whole lines");
            }
            Event::Done(id, done) => {
                assert!(self.jobs.remove(&id).is_some(), "a job ends once");
                assert_eq!(done.served.stream, self.headed.contains(&id));
            }
            Event::Failed(id, failed) => {
                assert!(self.jobs.remove(&id).is_some(), "a job ends once");
                *self.seen.entry(first_word(&failed)).or_default() += 1;
                let may_follow = matches!(*failed, Failed::Broken { .. } | Failed::Closed);
                assert!(may_follow || !self.headed.contains(&id));
            }
            Event::Stream(id, event) => self.stream_event(id, *event),
            _ => {}
        }
    }
}

impl Player {
    fn stream_event(&mut self, id: JobId, event: StreamEvent) {
        *self.seen.entry(first_word(&event)).or_default() += 1;
        let session = self.streams.get_mut(&id).expect("one that has not ended");
        match event {
            StreamEvent::Begun(begun) => {
                assert!(session.is_none(), "one at a time");
                *session = Some(begun.session);
            }
            StreamEvent::Left(left) => assert_eq!(session.take(), Some(left)),
            StreamEvent::Ended(_) => {
                assert!(session.is_none(), "it was left before");
                self.streams.remove(&id);
            }
            _ => {}
        }
    }
}

/// Plays what a reel says, and ends the play. Tells how often what happened.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) -> BTreeMap<String, u32> {
    let mut reel = Reel::new(data);
    let mut player = Player::new(reel.byte());
    while !reel.is_empty() {
        player.play(&Step::read(&mut reel));
    }
    player.finish();
    player.seen
}
