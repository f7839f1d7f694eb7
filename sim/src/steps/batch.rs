//! Batch jobs whose orchestrators, signer and callers do as they like.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use livepeer_core::capabilities::Capabilities;
use livepeer_core::chain::ChainView;
use livepeer_core::http::{Headers, In, Out, Request, Response, Url};
use livepeer_core::job::batch::{Batch, Config, Event, Failed, JobId};
use livepeer_core::money::{Amount, Wei};
use livepeer_core::payment::Budget;
use livepeer_core::payment::ledger::worth;
use livepeer_core::payment::ticket::expected_value;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::pool::Quickest;
use livepeer_core::prefer::Preferences;
use livepeer_core::wire::Payment;
use livepeer_core::wire::batch::BatchRequest;
use livepeer_core::wire::payment::PAYMENT_HEADER;
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
    /// A caller submits a request.
    Submit(u8),
    /// The n-th caller goes away.
    Cancel(u8),
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
    /// Other settings hold from now on.
    Configure(u8),
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
            2..=7 => Self::Submit(reel.byte()),
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
            29 => Self::Pass(reel.byte()),
            30 => Self::Configure(reel.byte()),
            _ if reel.below(16) == 0 => Self::Close,
            _ => Self::Pass(reel.byte()),
        }
    }
}

/// The side that plays.
pub struct Player {
    now: Time,
    book: Exchanges,
    batch: Batch<Quickest>,
    pipeline: Pipeline,
    ours: Ours,
    chain: ChainView,
    open: BTreeMap<EffectId, Request>,
    /// The worth of all tickets that left.
    worth: Amount,
    quotes: u32,
    /// Jobs that have not ended.
    jobs: BTreeSet<JobId>,
    /// Streams that somebody answers with.
    headed: BTreeSet<JobId>,
    /// Streams of which a chunk came.
    begun: BTreeSet<JobId>,
    /// The nonces of all tickets that left, by commitment.
    tickets: BTreeMap<[u8; 32], u32>,
    closed: bool,
    /// How often each event was told.
    seen: BTreeMap<String, u32>,
}

const MODEL: &str = "m";
/// The limit in wei, of a few tickets.
const LIMIT: u64 = 100_000_000_000;

/// How long a job without a word from anybody goes on, at most.
const PATIENCE: Duration = Duration::from_secs(900);

fn orchestrator(n: u8) -> Url {
    Url::parse(&format!("https://o{}:8935", n % 4)).expect("a URL")
}

fn some(bits: u8) -> Vec<Url> {
    let named = (0..4).filter(|n| bits & (1 << n) != 0);
    named.map(orchestrator).collect()
}

fn config() -> Config {
    Config {
        // No exchange is left alone for longer than the book allows.
        answer_within: Duration::from_secs(100),
        stream_silence: Duration::from_secs(100),
        max_jobs: 64,
        ..Config::default()
    }
}

impl Player {
    /// A machine without a job; the byte picks the pipeline and who pays.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_790_000_000);
        let key = Key::named("payer");
        let chain = ChainView::development();
        let (payer, identity) = payer(flavour, &key, &chain);
        let pipeline = match flavour & 4 {
            0 => Pipeline::Llm,
            _ => Pipeline::TextToImage,
        };
        let config = config();
        let mut limits = Budget::unlimited();
        limits.per_job = (flavour & 32 != 0).then(|| Amount::from(&Wei::from(LIMIT)));
        let batch = Batch::new(
            now,
            config,
            pipeline,
            MODEL,
            identity,
            payer,
            Quickest,
            [flavour; 32],
        );
        let mut player = Self {
            now,
            book: Exchanges::default(),
            batch,
            pipeline,
            ours: Ours::new(now, key, limits, flavour & 8 != 0),
            chain,
            open: BTreeMap::new(),
            worth: Amount::zero(),
            quotes: 0,
            jobs: BTreeSet::new(),
            headed: BTreeSet::new(),
            begun: BTreeSet::new(),
            tickets: BTreeMap::new(),
            closed: false,
            seen: BTreeMap::new(),
        };
        if flavour & 16 != 0 {
            player.play(&Step::Offer(15));
            player.play(&Step::Serve);
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
            Step::Offer(bits) => self.batch.offer(now, some(bits)),
            Step::Replace(bits) => self.batch.replace(now, some(bits)),
            Step::Submit(kind) => {
                let request = self.request(kind);
                let preferences = Preferences {
                    allow_fallbacks: kind < 240,
                    ..Preferences::default()
                };
                match self.batch.submit(now, &request, preferences) {
                    Ok(id) => assert!(!self.closed && self.jobs.insert(id)),
                    Err(_) => assert!(self.closed || self.jobs.len() >= 64),
                }
            }
            Step::Cancel(pick) => {
                if let Some(id) = nth(pick, self.jobs.iter().copied()) {
                    self.jobs.remove(&id);
                    self.batch.cancel(now, id);
                }
            }
            Step::Hold(pick, hold) => {
                if let Some(id) = nth(pick, self.jobs.iter().copied()) {
                    match hold {
                        true => self.batch.pause(now, id),
                        false => self.batch.resume(now, id),
                    }
                }
            }
            Step::Answer(pick, kind) => self.answer(pick, kind, true),
            Step::Begin(pick, kind) => self.answer(pick, kind, false),
            Step::Fail(pick, connected) => {
                if let Some(id) = nth(pick, self.open.keys().copied()) {
                    self.open.remove(&id);
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
                self.batch.set_chain(now, self.chain.clone());
            }
            Step::Configure(how) => {
                let mut config = config();
                config.pool.ready = usize::from(how % 8);
                config.pool.extra_nodes = usize::from(how >> 3 & 1);
                config.tries.tries = 1 + u32::from(how >> 4 & 3);
                config.answer_within = Duration::from_secs(1 + u64::from(how % 100));
                config.standby_after = (how & 64 != 0).then(|| Duration::from_secs(1));
                self.batch.set_config(now, config, Quickest);
            }
            Step::Serve => self.serve(),
            Step::Pass(tens) => {
                let tens = u64::from(tens);
                self.pass(Duration::from_millis(tens * tens * 10));
            }
            Step::Close => {
                self.closed = true;
                self.batch.close(now);
            }
        }
        self.drain();
        assert_eq!(self.batch.jobs(), self.jobs.len(), "a job was lost");
    }

    /// Ends the play: nobody answers any more, and all jobs end.
    ///
    /// # Panics
    /// If one does not.
    pub fn finish(&mut self) {
        for id in self.jobs.clone() {
            self.batch.resume(self.now, id);
        }
        self.drain();
        self.pass(PATIENCE);
        assert!(self.jobs.is_empty(), "{:?} wait for ever", self.jobs);
        let now = self.now;
        self.batch.close(now);
        self.closed = true;
        self.drain();
        assert!(self.open.is_empty(), "{:?} are open at the end", self.open);
        self.ours.forsake(self.now);
        assert_eq!(
            self.ours.budget().spent(),
            self.worth,
            "what left, and no more"
        );
    }

    fn request(&self, kind: u8) -> BatchRequest {
        let mut request = BatchRequest::new(self.pipeline);
        request.set_model(MODEL);
        let number = i64::from(kind) + 1;
        let fields = match self.pipeline {
            Pipeline::Llm => {
                request.set("stream", kind & 1 != 0).expect("a field");
                let messages = r#"[{"role":"user","content":"hi"}]"#;
                request.set_text("messages", messages).expect("messages");
                // Some cost more than a ticket is worth.
                [("max_tokens", number << (kind % 4 * 9)); 2]
            }
            _ => {
                request.set("prompt", "p").expect("a field");
                [("width", number * 64), ("height", 64 << (kind % 4 * 2))]
            }
        };
        for (name, value) in fields {
            request.set(name, value).expect("a field");
        }
        request
    }

    fn quote(&mut self, of: &Url, kind: u8) -> livepeer_proto::net::OrchestratorInfo {
        self.quotes += 1;
        let mut info = quote(self.now, 0, kind);
        info.transcoder = of.origin();
        let wanted = Capabilities::for_model(self.pipeline.capability(), MODEL);
        info.capabilities = Some(wanted.to_wire());
        if let Some(params) = &mut info.ticket_params {
            let mut hash = [1; 32];
            hash[..4].copy_from_slice(&self.quotes.to_be_bytes());
            params.recipient_rand_hash = hash.to_vec().into();
        }
        if let Some(token) = &mut info.auth_token {
            token.session_id = format!("session-{}", self.quotes);
        }
        info
    }

    /// Lets everybody answer well, until nobody is asked any more.
    fn serve(&mut self) {
        for _ in 0..200 {
            if let Some(done) = self.ours.serve(self.now) {
                done.into_iter().for_each(|input| self.input(input));
            } else if !self.open.is_empty() {
                self.answer(0, 255, true);
            } else {
                return;
            }
        }
    }

    fn answer(&mut self, pick: u8, kind: u8, ends: bool) {
        let Some(id) = nth(pick, self.open.keys().copied()) else {
            return;
        };
        let request = self.open[&id].clone();
        let path = request.url.path();
        let kind = if kind < 128 { kind } else { 128 };
        if path.contains("GetOrchestrator") {
            self.open.remove(&id);
            let kind = if kind == 128 { GOOD } else { kind };
            let info = self.quote(&request.url, kind);
            return self.inform(id, &info);
        }
        let (status, content, body) = if request.url.host() == "signer" {
            let kind = if kind == 128 { GOOD } else { kind };
            let (status, body) =
                signers_answer(self.now, self.ours.key(), &self.chain, &request, kind);
            (status, "application/json", body)
        } else if path.starts_with("/stream/") {
            let status = if kind % 8 == 1 { 404 } else { 200 };
            (status, "image/png", b"PNG".to_vec())
        } else {
            let (status, content, body) = self.made(kind);
            (status, content, body.into_bytes())
        };
        self.http(
            id,
            In::Reply(Response::new(status).header("content-type", content)),
        );
        if self.open.contains_key(&id) {
            self.http(id, In::Data(body.into()));
        }
        if ends && self.open.remove(&id).is_some() {
            self.http(id, In::End(Headers::new()));
        }
    }

    /// An orchestrator's answer to a request.
    fn made(&self, kind: u8) -> (u16, &'static str, String) {
        let text = |status, text: &str| (status, "text/plain", text.to_owned());
        let stream = "text/event-stream";
        let chunk = r#"data: {"choices":[{"delta":{"content":"x"}}]}"#;
        let last = r#"data: {"choices":[{"delta":{"content":""},"finish_reason":"stop"}]}"#;
        match kind % 32 {
            1 => text(503, "insufficient capacity"),
            2 => text(400, "TicketParams expired"),
            3 => text(400, "invalid ticket senderNonce: already seen"),
            4 => text(400, "Insufficient balance"),
            5 => text(403, "expired auth token"),
            6 => text(402, "no payment"),
            7 => text(410, "gone"),
            8 => text(500, "LLM container returned 400: bad"),
            9 => text(500, "boom"),
            10 => text(502, ""),
            11 => (200, "application/json", "null".into()),
            12 => (200, stream, format!("{chunk}\n\n")),
            13 => (
                200,
                stream,
                format!("{chunk}\n\ndata: {{\"error\":\"oom\"}}\n\n"),
            ),
            14 => (200, stream, String::new()),
            15 => text(400, "ErrorBadRequest"),
            16..=20 => (200, stream, format!("{chunk}\n\n{last}\n\n")),
            _ if self.pipeline == Pipeline::Llm => (
                200,
                "application/json",
                r#"{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}"#.into(),
            ),
            21 => (
                200,
                "application/json",
                r#"{"images":[{"url":"data:image/png;base64,UE5H","seed":1,"nsfw":false}]}"#.into(),
            ),
            22 => (
                200,
                "application/json",
                r#"{"images":[{"url":"http://127.0.0.1:1/x","seed":1,"nsfw":false}]}"#.into(),
            ),
            _ => (
                200,
                "application/json",
                r#"{"images":[{"url":"/stream/x/0.png","seed":1,"nsfw":false}]}"#.into(),
            ),
        }
    }

    /// No nonce leaves twice.
    fn check_tickets(&mut self, request: &Request) {
        let Some(header) = request.headers.get(PAYMENT_HEADER) else {
            return;
        };
        let payment = Payment::decode(header).expect("a payment");
        let Some(params) = payment.ticket_params else {
            assert!(payment.tickets.is_empty());
            return;
        };
        let ev = expected_value(&params.face_value, &params.win_prob);
        self.worth += &worth(payment.tickets.len() as u64, &ev);
        assert!(self.worth <= self.ours.budget().spent());
        let last = self.tickets.entry(params.recipient_rand_hash).or_default();
        for ticket in payment.tickets {
            assert!(ticket.nonce > *last, "nonce {} after {last}", ticket.nonce);
            *last = ticket.nonce;
        }
    }
}

impl Driven for Player {
    crate::driven!(batch: Batch<Quickest>, book);

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(Out::Request(request)) => {
                self.check_tickets(&request);
                self.open.insert(id, request);
            }
            Effect::Http(Out::Abort) => {
                self.open.remove(&id);
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
            Event::Trying(id, _) => assert!(self.jobs.contains(&id)),
            Event::Head(id, _) => {
                assert!(self.jobs.contains(&id) && !self.begun.contains(&id));
                self.headed.insert(id);
            }
            Event::Chunk(id, _) => {
                assert!(self.jobs.contains(&id) && self.headed.contains(&id));
                self.begun.insert(id);
            }
            Event::Done(id, finished) => {
                assert!(self.jobs.remove(&id), "a job ends once");
                assert_eq!(finished.answer.is_none(), self.begun.contains(&id));
                let urls = finished.answer.iter().flat_map(|answer| answer.urls());
                for url in urls {
                    assert!(finished.files.iter().any(|file| file.url == *url));
                }
            }
            Event::Failed(id, failed) => {
                assert!(self.jobs.remove(&id), "a job ends once");
                *self.seen.entry(first_word(&failed)).or_default() += 1;
                let broke = matches!(*failed, Failed::Broken { .. });
                let closed = matches!(*failed, Failed::Closed);
                assert!(broke == self.begun.contains(&id) || closed);
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
