//! A gateway that has jobs done in containers and rents apps of an orchestrator, the programs behind them, and runners that register.

mod step;

pub use step::Step;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::chain::ChainView;
use livepeer_core::http::{
    Body, Fault, Headers, In, Method, Out, Request, Response, SWITCHING, Url,
};
use livepeer_core::money::{Amount, Price};
use livepeer_core::payment::{Ticket, Unit};
use livepeer_core::store::StoreFailed;
use livepeer_core::wire::app::SESSION_TOKEN_HEADER;
use livepeer_core::wire::byoc::{
    JOB_HEADER, JobRequest, SENDER_HEADER, Scheme, Sender, SignedBy, Token,
};
use livepeer_core::wire::challenge::{Challenge, PAYER_ADDRESS_HEADER};
use livepeer_core::wire::payment::{PAYMENT_HEADER, SEGMENT_HEADER};
use livepeer_core::wire::runner::Mode;
use livepeer_core::wire::{
    Payment, SegmentCredentials, SenderParams, TicketParams, identity_digest,
};
use livepeer_core::{Effect, EffectId, Input, Time};
use livepeer_orchestrator::{
    App, AppPrice, Config, Container, Event, Orchestrator, Payments, Tempo, Worker,
};

use super::Reel;
use super::answer::Answer;
use super::reel::nth;
use crate::{Driven, Exchanges, Key};
use step::quirks;

/// Plays steps against an orchestrator.
pub struct Player {
    now: Time,
    book: Exchanges,
    machine: Orchestrator,
    payer: Key,
    paid: bool,
    /// The path of each request, and its answer.
    answers: BTreeMap<EffectId, (String, Answer)>,
    open: Vec<EffectId>,
    minted: u64,
    unsaved: Vec<EffectId>,
    /// Requests at programs, with the time when they came, and the secret of each session.
    programs: Vec<(EffectId, Time)>,
    /// Programs that may leave HTTP, and those that did, with the bytes that they have not taken yet.
    may_leave: BTreeSet<EffectId>,
    beyond: BTreeMap<EffectId, usize>,
    secrets: BTreeMap<String, String>,
    tokens: Vec<Token>,
    demands: Vec<Challenge>,
    /// The runner of each session that is rented.
    rented: BTreeMap<String, String>,
    runner_secret: String,
    /// Tickets that were sent with a good signature: commitment and nonce.
    sent: BTreeSet<([u8; 32], u32)>,
    tickets: usize,
    credited: Amount,
    billed: Amount,
    /// Requests for programs that were sent, and those that were handed on.
    asked: (u32, u32),
    /// Whether a place may be lost for ever.
    leaky: bool,
    storing: bool,
    closed: bool,
}

const CONTAINERS: [&str; 2] = ["in", "out"];

/// The apps that the operator set up: persistent ones first.
const APPS: [&str; 4] = ["live", "out", "shot", "timed"];

/// Places of each.
const PLACES: u32 = 2;

const PROGRAM: &str = "http://program:1";

/// All channels that a stream may have.
const WISHES: &str =
    r#"{"enable_video_ingress":true,"enable_video_egress":true,"enable_data_output":true}"#;

impl Player {
    /// An orchestrator; the byte says whether it is paid, and its prices.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_700_000_000);
        let account = Key::named("node").address();
        let paid = flavour & 1 == 1;
        let wei = i64::from(flavour) * 10_000_000 + 1;
        let mut config = Config {
            register_secret: Some("boot".to_owned()),
            idle: Duration::from_secs(20),
            ..Config::new(url("/"), account)
        };
        if paid {
            let price = Price::new(1, 1).expect("a price");
            config = config.on_chain(Payments::new(account, price, ChainView::development()));
        }
        let outside = || Worker::At(Url::parse(PROGRAM).expect("a URL"));
        let tempo = Tempo {
            takes: Duration::from_millis(300),
            pace: Duration::from_millis(50),
        };
        for (name, worker) in CONTAINERS.into_iter().zip([Worker::Echo(tempo), outside()]) {
            let container = Container {
                capacity: PLACES,
                price: Price::new(wei, 1).expect("a price"),
                ..Container::new(worker)
            };
            config = config.with_container(name, container);
        }
        for (name, mode, worker, unit) in [
            (
                APPS[0],
                Mode::Persistent,
                Worker::Live(tempo),
                Unit::Seconds,
            ),
            (APPS[1], Mode::Persistent, outside(), Unit::Seconds),
            (APPS[2], Mode::SingleShot, Worker::Echo(tempo), Unit::Fixed),
            (APPS[3], Mode::SingleShot, outside(), Unit::Seconds),
        ] {
            let app = App {
                capacity: PLACES,
                price: Some(AppPrice { wei, unit }),
                proxy: name == APPS[1],
                ..App::new("x/y", mode, worker)
            };
            config = config.with_app(name, app);
        }
        Self {
            now,
            book: Exchanges::default(),
            machine: Orchestrator::new(now, config, [flavour; 32]),
            payer: Key::named("payer"),
            paid,
            answers: BTreeMap::new(),
            open: Vec::new(),
            minted: 0,
            unsaved: Vec::new(),
            programs: Vec::new(),
            may_leave: BTreeSet::new(),
            beyond: BTreeMap::new(),
            secrets: BTreeMap::new(),
            tokens: Vec::new(),
            demands: Vec::new(),
            rented: BTreeMap::new(),
            runner_secret: String::new(),
            sent: BTreeSet::new(),
            tickets: 0,
            credited: Amount::zero(),
            billed: Amount::zero(),
            asked: (0, 0),
            leaky: false,
            storing: false,
            closed: false,
        }
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match *step {
            Step::Token(container, wrong) => self.token(container, wrong),
            Step::Job(container, path, nonce, wrong) => self.job(container, path, nonce, wrong),
            Step::Rent(app, nonce, wrong) => self.rent(app, nonce, wrong),
            Step::Call(session, path) => {
                let Some((session, runner)) = self.session(session) else {
                    return;
                };
                let what = ["app/x?y", "app/start", "app/events", "app//x", "app"];
                let leaves = path > 160;
                let path = what[usize::from(path) % what.len()];
                self.asked.0 += 1;
                let path = format!("/apps/{runner}/session/{session}/{path}");
                if !leaves {
                    return self.send(&path, &[], "one two");
                }
                let request = Request::new(Method::Get, url(&path))
                    .header("upgrade", "websocket")
                    .header("sec-websocket-key", "a key")
                    .body(Body::Stream);
                let id = self.request(request);
                self.http(id, In::End(Headers::new()));
            }
            Step::Pay(session, nonce) => {
                let Some((session, runner)) = self.session(session) else {
                    return;
                };
                let demand = self
                    .demands
                    .iter()
                    .find(|demand| demand.manifest_id == session);
                let Some(demand) = demand.cloned() else {
                    return;
                };
                let paid = self.pay(&demand, nonce, 0);
                let path = format!("/apps/{runner}/session/{session}/payment");
                self.send(&path, &paid, "");
            }
            Step::Stop(session) => {
                if let Some((session, runner)) = self.session(session) {
                    self.send(&format!("/apps/{runner}/session/{session}/stop"), &[], "");
                }
            }
            Step::Manage(session, what) => self.manage(session, what),
            Step::Beat(what) => self.beat(what),
            Step::Register(what) => {
                let secret = if what > 240 { "wrong" } else { "boot" };
                let name = CONTAINERS[usize::from(what) % 2];
                let fields = [("authorization", secret.to_owned())];
                if what.is_multiple_of(8) {
                    // Its jobs go on, and their places with it.
                    self.leaky = true;
                    self.send("/capability/unregister", &fields, name);
                } else {
                    self.leaky = true;
                    let body = format!(r#"{{"name":"{name}","url":"{PROGRAM}","capacity":2}}"#);
                    self.send("/capability/register", &fields, &body);
                }
            }
            Step::Program(which, what) => self.program(which, what),
            Step::Take(which, less) => {
                if let Some(id) = self.exchange(which)
                    && let Some((_, answer)) = self.answers.get_mut(&id)
                {
                    let taken = answer.taken(usize::from(less));
                    let beyond = answer.status == Some(SWITCHING);
                    self.http(id, In::Sent(taken));
                    if beyond && self.open.contains(&id) {
                        self.say(id, less);
                    }
                }
            }
            Step::Break(which) => {
                if let Some(id) = self.exchange(which) {
                    self.leave(id);
                }
            }
            Step::Quirk(way) => {
                let quirks = quirks(way);
                self.leaky |= quirks.leaky_places;
                self.machine.set_quirks(self.now, quirks);
                self.drain();
            }
            Step::Stored(keeps) => self.stored(keeps),
            Step::Pass(tenths) => {
                // A program that is silent for longer than anybody else may be has died.
                let now = self.now;
                let silent =
                    |(_, since): &&(EffectId, Time)| now.since(*since) > Duration::from_secs(80);
                let silent: Vec<_> = self
                    .programs
                    .iter()
                    .filter(silent)
                    .map(|(id, _)| *id)
                    .collect();
                for id in silent {
                    self.programs.retain(|(program, _)| *program != id);
                    self.http(id, In::Failed(Fault::Broken("gone".into())));
                }
                self.leap(Duration::from_millis(u64::from(tenths) * 100));
            }
        }
    }

    /// Everybody goes home, and nothing may be left.
    ///
    /// # Panics
    /// If something is.
    pub fn finish(mut self) {
        while !self.unsaved.is_empty() {
            self.stored(true);
        }
        for id in std::mem::take(&mut self.open) {
            self.http(id, In::Failed(Fault::Broken("gone".into())));
        }
        for (id, _) in std::mem::take(&mut self.programs) {
            self.http(id, In::Failed(Fault::Broken("gone".into())));
        }
        for _ in 0..80 {
            self.leap(Duration::from_secs(1));
        }
        for container in CONTAINERS {
            let free = self.machine.free_places(container);
            let whole = free == PLACES || self.leaky || free == 0;
            assert!(whole, "{container} has {free} places");
        }
        assert_eq!(
            self.machine.streams().count(),
            0,
            "no stream outlives its channels"
        );
        let singles = APPS[2..].iter().map(|app| self.machine.free_sessions(app));
        assert_eq!(singles.sum::<u32>(), 2 * PLACES, "every call is over");
        let figures = self.machine.figures();
        assert_eq!(
            (figures.credited, figures.billed),
            (self.credited.clone(), self.billed.clone())
        );
        self.machine.close(self.now);
        self.drain();
        assert!(self.closed, "the last event is that it closed");
        assert!(self.rented.is_empty(), "all sessions are over");
    }

    fn token(&mut self, container: u8, wrong: u8) {
        let sender = self.payer.address();
        let mut signature = self.payer.sign(identity_digest(sender));
        signature.0[0] ^= u8::from(wrong > 240);
        let sender = Sender((wrong < 200).then_some(SignedBy { sender, signature }));
        let url = url("/process/token");
        let request = Request::new(Method::Get, url)
            .header(SENDER_HEADER, sender.to_header())
            .header(
                "livepeer-capability",
                CONTAINERS[usize::from(container) % 2],
            )
            .body(Body::Stream);
        let id = self.request(request);
        self.http(id, In::End(Headers::new()));
    }

    fn job(&mut self, container: u8, path: u8, nonce: u8, wrong: u8) {
        let job = JobRequest {
            id: format!("s{}", wrong % 3),
            request: match wrong {
                250 => "x".to_owned(),
                _ => format!(r#"{{"stream_id":"s{}"}}"#, wrong % 3),
            },
            parameters: match wrong {
                255 => String::new(),
                _ => WISHES.to_owned(),
            },
            capability: CONTAINERS[usize::from(container) % 2].to_owned(),
            timeout_seconds: 1 + u32::from(wrong % 8),
        };
        let scheme = if wrong == 251 {
            Scheme::Framed
        } else {
            Scheme::Texts
        };
        let signed = SignedBy {
            sender: self.payer.address(),
            signature: self.payer.sign(job.digest(scheme)),
        };
        let header = job.to_header((self.paid && wrong != 252).then_some(&signed));
        let mut fields = vec![(JOB_HEADER, header)];
        if let Some(token) = nth(wrong, &self.tokens).cloned()
            && let Some(params) = token.ticket_params
        {
            let (payment, _) = self.tickets(&params, Some(token.price), nonce, wrong);
            fields.push((PAYMENT_HEADER, payment.encode()));
        }
        let paths = [
            "/process/request/x",
            "/process/request/events",
            "/process/request/status/422",
            "/process/request/status/401",
            "/process/request/silent",
            "/process/request/",
            "/ai/stream/start",
            "/ai/stream/start",
            "/ai/stream/update",
            "/ai/stream/payment",
            "/ai/stream/stop",
        ];
        let path = paths[usize::from(path) % paths.len()];
        let body = match path.starts_with("/ai/") {
            true => r#"{"params":{"a":1}}"#.to_owned(),
            false => "word ".repeat(usize::from(wrong)),
        };
        self.asked.0 += 1;
        self.send(path, &fields, &body);
    }

    fn rent(&mut self, app: u8, nonce: u8, wrong: u8) {
        let app = APPS[usize::from(app) % APPS.len()];
        let single = app == APPS[2] || app == APPS[3];
        let path = if single { "app/events" } else { "session" };
        let path = format!("/apps/{app}/{path}");
        let begins = format!("/apps/{app}/");
        let demand = self.demands.iter().rev();
        let mut demand = demand.filter(|demand| demand.payment_url.path().starts_with(&begins));
        let demand = demand.nth(usize::from(wrong % 2)).cloned();
        let fields = match demand.filter(|_| !wrong.is_multiple_of(4)) {
            Some(demand) => self.pay(&demand, nonce, wrong),
            None if wrong == 248 => Vec::new(),
            None => vec![(PAYER_ADDRESS_HEADER, self.payer.address().checksummed())],
        };
        self.asked.0 += u32::from(single);
        self.send(&path, &fields, "one two three");
    }

    /// Payment and credentials under a demand, with whatever is wrong with them.
    fn pay(&mut self, demand: &Challenge, nonce: u8, wrong: u8) -> Vec<(&'static str, String)> {
        let Some(params) = demand.info.ticket_params.clone() else {
            return Vec::new();
        };
        let (payment, _) = self.tickets(&params, demand.info.price, nonce, wrong);
        let token = demand.info.auth_token.clone();
        let mut manifest = demand.manifest_id.clone();
        if wrong == 249 {
            manifest.push('x');
        }
        let mut credentials = SegmentCredentials::for_payment(manifest, token, None);
        let signature = self.payer.sign(credentials.digest());
        credentials.signature = Bytes::copy_from_slice(&signature.0);
        vec![
            (PAYMENT_HEADER, payment.encode()),
            (SEGMENT_HEADER, credentials.encode()),
        ]
    }

    /// Two tickets; none if there is something wrong with that.
    fn tickets(
        &mut self,
        params: &TicketParams,
        price: Option<Price>,
        nonce: u8,
        wrong: u8,
    ) -> (Payment, usize) {
        let sender = self.payer.address();
        let first = u32::from(nonce) * 2 + 1;
        let count = if wrong == 253 { 0 } else { 2 };
        let mut tickets = Vec::new();
        for nonce in first..first + count {
            let mut signature = self
                .payer
                .sign(Ticket::new(params, sender, nonce).digest())
                .0;
            if wrong == 254 {
                signature[3] ^= 4;
            } else {
                self.sent.insert((params.recipient_rand_hash, nonce));
            }
            let signature = Bytes::copy_from_slice(&signature);
            tickets.push(SenderParams { nonce, signature });
        }
        let count = tickets.len();
        let payment = Payment {
            sender,
            tickets,
            expected_price: price,
            ticket_params: Some(params.clone()),
        };
        (payment, count)
    }

    fn manage(&mut self, session: u8, what: u8) {
        let Some((session, runner)) = self.session(session) else {
            return;
        };
        let secret = self.secrets.get(&session).cloned().unwrap_or_default();
        let fields = [(SESSION_TOKEN_HEADER, secret)];
        let path = |what: &str| format!("/runner/{runner}/session/{session}/{what}");
        let channels = r#"{"channels":[{"name":"a/b"},{"name":"c","mime_type":"x/y"}]}"#;
        match what % 8 {
            0 => self.send(&path("stop"), &fields, ""),
            1 => self.send(
                &path("proxy"),
                &fields,
                r#"{"target_url":"http://program:1/ui"}"#,
            ),
            2 => self.send(
                &path("proxy"),
                &fields,
                r#"{"target_url":"http://program:1/#x"}"#,
            ),
            3 => {
                let mut request = post(&path("channels"), &fields);
                request.method = Method::Delete;
                let id = self.request(request);
                self.http(id, In::Data(r#"{"channels":["c"]}"#.into()));
                self.http(id, In::End(Headers::new()));
            }
            _ => self.send(&path("channels"), &fields, channels),
        }
    }

    fn beat(&mut self, what: u8) {
        let secret = match what % 4 {
            0 => "boot".to_owned(),
            _ => self.runner_secret.clone(),
        };
        let fields = [("authorization", secret)];
        if what > 220 {
            return self.send("/runners/mine/unregister", &fields, "");
        }
        let status = if what % 16 == 15 { "loading" } else { "ready" };
        let price = r#"{"price":0.5,"currency":"usd","unit":"hour"}"#;
        let body = format!(
            r#"{{"runner_id":"mine","runner_url":"{PROGRAM}","app":"x/y","mode":"persistent","capacity":2,"status":"{status}","price_info":{price}}}"#
        );
        self.send("/runners/heartbeat", &fields, &body);
    }

    /// A peer beyond HTTP says something, or that it says no more.
    fn say(&mut self, id: EffectId, what: u8) {
        let step = match what {
            240.. => In::End(Headers::new()),
            128.. => In::Data(Bytes::from(vec![0x82; 40_000])),
            // An empty ping, and the beginning of some text.
            _ => In::Data(Bytes::from_static(&[0x89, 0x80, 1, 2, 3, 4, 0x81, 0x85, 9])),
        };
        self.http(id, step);
    }

    fn program(&mut self, which: u8, what: u8) {
        let Some(&(id, _)) = nth(which, &self.programs) else {
            return;
        };
        if let Some(untaken) = self.beyond.get_mut(&id) {
            let taken = std::mem::take(untaken);
            self.http(id, In::Sent(taken));
        }
        for (program, since) in &mut self.programs {
            if *program == id {
                *since = self.now;
            }
        }
        let head = |status, content: &str| {
            In::Reply(Response::new(status).header("content-type", content))
        };
        let data = |text: &'static str| In::Data(Bytes::from_static(text.as_bytes()));
        let step = match what % 12 {
            _ if what > 200 && self.may_leave.remove(&id) => {
                self.beyond.insert(id, 0);
                In::Reply(Response::new(SWITCHING).header("upgrade", "websocket"))
            }
            0 => head(200, "text/plain"),
            1 => head(200, "text/event-stream"),
            2 => head(401, "text/plain"),
            3 => head(302, "text/plain"),
            4 | 5 => data("data: x\n\ndata: "),
            6 => data("data: [DONE]\n\n"),
            7 => data("\n\n\n\n"),
            8 => In::Data(Bytes::from(vec![b'x'; 70_000])),
            9 | 10 => In::End(Headers::new()),
            _ => In::Failed(Fault::Connect("refused".into())),
        };
        if matches!(step, In::End(_) | In::Failed(_)) {
            self.programs.retain(|(program, _)| *program != id);
        }
        self.http(id, step);
    }

    fn stored(&mut self, keeps: bool) {
        if self.unsaved.is_empty() {
            return;
        }
        let id = self.unsaved.remove(0);
        self.storing = keeps;
        let answer = if keeps {
            Ok(())
        } else {
            Err(StoreFailed("the disk is full".into()))
        };
        self.input(Input::Stored(id, answer));
        self.storing = false;
    }

    fn session(&self, which: u8) -> Option<(String, String)> {
        let found = nth(which, &self.rented)?;
        Some((found.0.clone(), found.1.clone()))
    }

    fn exchange(&self, which: u8) -> Option<EffectId> {
        nth(which, self.open.iter().copied())
    }

    fn send(&mut self, path: &str, fields: &[(&'static str, String)], body: &str) {
        let id = self.request(post(path, fields));
        self.http(id, In::Data(Bytes::copy_from_slice(body.as_bytes())));
        self.http(id, In::End(Headers::new()));
    }

    fn request(&mut self, request: Request) -> EffectId {
        let id = EffectId::by_peer(self.minted);
        self.minted += 1;
        let path = request.url.path().to_owned();
        self.answers.insert(id, (path, Answer::default()));
        self.open.push(id);
        self.http(id, In::Request(request));
        id
    }

    fn leave(&mut self, id: EffectId) {
        self.open.retain(|open| *open != id);
        self.http(id, In::Failed(Fault::Broken("gone".into())));
    }

    /// The orchestrator says something to a peer.
    fn answer(&mut self, id: EffectId, step: Out) {
        let (_, answer) = self
            .answers
            .get_mut(&id)
            .expect("only who asked is answered");
        match step {
            Out::Abort => answer.over = true,
            step => answer.take(step),
        }
        if answer.over {
            self.open.retain(|open| *open != id);
            self.answered(id);
        }
    }

    fn answered(&mut self, id: EffectId) {
        let Some((path, Answer { status, body, .. })) = self.answers.get(&id) else {
            return;
        };
        match (status, &**path) {
            (Some(200), "/process/token") => {
                let token = Token::from_json(body, &url("/"));
                self.tokens.push(token.expect("what it says can be read"));
            }
            (Some(402), _) => {
                let demand = Challenge::from_json(body).expect("what it says can be read");
                self.demands.extend(demand);
            }
            (Some(200), "/runners/heartbeat") => {
                let told: serde_json::Value = serde_json::from_slice(body).expect("JSON");
                if let Some(secret) = told["heartbeat_secret"].as_str() {
                    secret.clone_into(&mut self.runner_secret);
                }
            }
            _ => {}
        }
    }

    /// The orchestrator says something to a program.
    fn tell_program(&mut self, id: EffectId, step: &Out) {
        match step {
            Out::Request(request) => {
                assert_eq!(request.url.host(), "program");
                let field = |name| request.headers.get(name).map(str::to_owned);
                if let (Some(session), Some(secret)) =
                    (field("livepeer-session-id"), field(SESSION_TOKEN_HEADER))
                {
                    self.secrets.insert(session, secret);
                }
                self.programs.push((id, self.now));
                if request.upgrade().is_some() {
                    self.may_leave.insert(id);
                }
            }
            Out::Data(bytes) if self.beyond.contains_key(&id) => {
                let untaken = self.beyond.entry(id).or_default();
                *untaken += bytes.len();
                assert!(*untaken < 256 << 10, "a peer is held back");
            }
            Out::End(_) | Out::Report if self.beyond.contains_key(&id) => {}
            Out::Abort => self.programs.retain(|(program, _)| *program != id),
            Out::Pause | Out::Resume => {}
            other => panic!("a program is not told {other:?}"),
        }
    }
}

fn url(path: &str) -> Url {
    Url::parse("https://orch:8935")
        .expect("a URL")
        .with_path(path)
}

fn post(path: &str, fields: &[(&'static str, String)]) -> Request {
    let mut request = Request::new(Method::Post, url(path)).body(Body::Stream);
    for (name, value) in fields {
        request.headers.push(name, value.as_str());
    }
    request
}

impl Driven for Player {
    crate::driven!(machine: Orchestrator, book);

    const PATIENT: bool = true;

    fn is_over(&self) -> bool {
        self.closed
    }

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(step) if id.is_by_peer() => self.answer(id, step),
            Effect::Http(step) => self.tell_program(id, &step),
            Effect::Store(_) => self.unsaved.push(id),
            Effect::Spend(_) => panic!("an orchestrator spends nothing"),
            Effect::Sign(_) => panic!("nobody asked for a signature"),
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Credited { tickets, value, .. } => {
                assert!(self.storing, "nothing is credited before it is durable");
                self.tickets += tickets;
                self.credited += &value;
                assert!(self.tickets <= self.sent.len(), "no ticket counts twice");
            }
            Event::Metered { fee, balance, .. } => {
                self.billed += &fee;
                assert!(balance >= Amount::zero(), "metering never overdraws");
            }
            Event::Billed { fee, .. } => self.billed += &fee,
            Event::HandedOn { .. } => {
                self.asked.1 += 1;
                assert!(
                    self.asked.1 <= self.asked.0,
                    "no request is handed on twice"
                );
            }
            Event::Rented {
                runner, session, ..
            } => {
                let before = self.rented.insert(session, runner);
                assert!(before.is_none(), "a session is rented once");
            }
            Event::Released { session, .. } => {
                assert!(self.rented.remove(&session).is_some(), "and released once");
            }
            Event::Closed => self.closed = true,
            _ => {}
        }
    }

    fn idle(&mut self, _: Option<Time>) {
        let most = PLACES as usize * (APPS.len() + 1);
        assert!(self.rented.len() <= most, "no more sessions than places");
    }
}

/// Plays what the bytes say.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) {
    let mut reel = Reel::new(data);
    let mut player = Player::new(reel.byte());
    reel.play(Step::read, |step| player.play(step));
    player.finish();
}
