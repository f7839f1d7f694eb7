//! An orchestrator to talk to: every surface that live and batch jobs need, the recipient's side of payments with all
//! its checks, a trickle server, and runners that need no GPU.
//!
//! The orchestrator is a machine like those of the core, so the same one serves tests under virtual time, fuzzers and,
//! behind sockets, the development network. Peers' exchanges come in under ids that the driver mints with
//! [`EffectId::by_peer`]; of its own it opens those with the programs of containers and runners that are elsewhere.
//!
//! The stages of a request:
//!
//! ```text
//!            no such path, too many                            refused (402, 403, 400, 503, gRPC status)
//!  Request ──────────────────────────▶ answered ◀──────────────────────────┬──────────────────────────┐
//!     │                                   ▲                                │                          │
//!     │ /ai/trickle/                      │ nothing to wait for            │                          │
//!     ├──────────▶ trickle::Server        │                                │                          │
//!     └──────────▶ AwaitingBody ── End ── checks ──▶ AwaitingReceipt ── Credited ──▶ session, answer   │
//!                       │                    └─────▶ AwaitingSignature ── Signed ──▶ answer            │
//!                       └── READ_WITHIN, too long ──────────────────────────────────────────────▶ ────┘
//! ```
//!
//! A session's own diagram is in `session.rs`, those of batch work, containers and apps in `batch`, `byoc`, `apps` and
//! `works`, a receipt's in
//! [`livepeer_core::payment::receiver`].
//!
//! Deviations from the reference, on purpose: an unknown model is refused before the payment is taken; metering runs
//! on time from the first input segment on, not on input alone; the output channel outlives the input until its
//! readers have had it; a gateway that is cut off for want of money is told so in a last event.

mod apps;
mod batch;
mod byoc;
mod config;
mod copies;
mod event;
mod info;
mod paid;
mod pipeline;
mod receipts;
mod session;
mod surface;
mod wire;
mod workers;
mod works;

use std::collections::BTreeMap;
use std::time::Duration;

use livepeer_core::chain::ChainView;
use livepeer_core::http::{In, Out, Request};
use livepeer_core::intake::Intake;
use livepeer_core::machine::earlier;
use livepeer_core::money::{Amount, Price};
use livepeer_core::payment::ledger::AccountId;
use livepeer_core::payment::quote::Economics;
use livepeer_core::payment::receiver::{self, ReceiptId, Trigger};
use livepeer_core::payment::{Secret, TicketReceiver, Unit};
use livepeer_core::sign::keccak;
use livepeer_core::store::Record;
use livepeer_core::trickle::Server;
use livepeer_core::trickle::server::{self, ReaderId, Removal};
use livepeer_core::wire::Params;
use livepeer_core::{Address, Child, EffectId, Input, Machine, Outbox, Output, Rng, Seed, Time};

pub use apps::{App, AppPrice, MAX_RUNNERS, MAX_SESSIONS};
pub use batch::{
    BatchModel, MAX_BATCH_BYTES, MAX_FILE_BYTES, MAX_FILES, MAX_PIXELS, MAX_SIDE, Measure, Mishap,
    measure_simple,
};
pub use byoc::{Container, MAX_CONTAINERS};
pub use config::{Config, Join, ModelConfig, Payments, Quirks};
pub use event::{EndReason, Event, Figures, Surface};
pub use pipeline::{Noop, Pipeline, PipelineFactory};
pub use session::{DRAINED_AFTER, LINGER, MAX_LINGER, STATUS_EVERY};

pub use workers::{MAX_WORK_BYTES, Tempo, Worker};

use apps::Apps;
use batch::Batch;
use byoc::{Containers, Streams};
use copies::Copying;
use receipts::Waiting;
use session::{Plan, Session};
use surface::Exchange;
use works::Works;

/// The path of the channels.
pub const TRICKLE: &str = "/ai/trickle/";

/// A request whose body or answer is not there after this is given up.
pub const READ_WITHIN: Duration = Duration::from_secs(30);

/// More unanswered requests are turned away; of one address, half as many.
pub const MAX_EXCHANGES: usize = 10_000;

/// Requests that would make us hold more than this until they are answered are turned away likewise.
pub const MAX_HELD: usize = 512 << 20;

/// The longest segment that a channel takes.
pub const MAX_SEGMENT_BYTES: usize = 64 << 20;

/// The only child that opens effects.
const TILL: u32 = 1;

/// See the [module](self).
pub struct Orchestrator {
    now: Time,
    config: Config,
    rng: Rng,
    /// Behind auth tokens.
    tokens: Secret,
    till: Option<Child<TicketReceiver>>,
    server: Server,
    server_wake: Option<Time>,
    sessions: BTreeMap<String, Session>,
    /// The session that has the channel of that name as input or output.
    media: BTreeMap<String, String>,
    exchanges: BTreeMap<EffectId, Exchange>,
    intake: Intake,
    receipts: BTreeMap<ReceiptId, Waiting>,
    batch: Batch,
    containers: Containers,
    apps: Apps,
    works: Works,
    streams: Streams,
    copies: BTreeMap<ReaderId, Copying>,
    /// Answers that [`Quirks::delay`] holds back.
    late: BTreeMap<(Time, u64), (EffectId, Vec<Out>)>,
    held_back: u64,
    quotes: u32,
    figures: Figures,
    closing: bool,
    closed: bool,
    out: Outbox<Event>,
}

impl core::fmt::Debug for Orchestrator {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Orchestrator")
            .field("now", &self.now)
            .field("figures", &self.figures)
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

impl Orchestrator {
    /// An orchestrator without sessions.
    #[must_use]
    pub fn new(now: Time, config: Config, seed: Seed) -> Self {
        let mut rng = Rng::new(seed);
        let root = match &config.secret {
            Some(secret) => secret.0,
            None => rng.fork(),
        };
        let secret = |what: &[u8]| Secret(keccak(&[&root, what]));
        let till = config.payments.as_ref().map(|payments| {
            let settings = receiver::Config {
                economics: Economics {
                    ticket_ev: payments.ticket_ev.clone(),
                    max_face_value: payments.max_face_value.clone(),
                    ..Economics::default()
                },
                auto_adjust_price: false,
                meter_interval: payments.interval,
                quote_blocks: payments.quote_blocks,
                ..receiver::Config::new(payments.recipient)
            };
            let machine = TicketReceiver::new(
                now,
                settings,
                secret(b"quotes"),
                payments.chain.clone(),
                rng.fork(),
            );
            Child::new(TILL, machine)
        });
        let server = Server::new(
            now,
            server::Config {
                base: TRICKLE.to_owned(),
                idle: config.idle,
                sweep: (config.idle / 5).max(Duration::from_millis(1)),
                max_segment_bytes: MAX_SEGMENT_BYTES,
                ..server::Config::default()
            },
        );
        let tokens = secret(b"tokens");
        let apps = Apps::new(&config.apps, || rng.fork());
        Self {
            now,
            rng,
            tokens,
            till,
            server,
            server_wake: None,
            sessions: BTreeMap::new(),
            media: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            intake: Intake::new(MAX_EXCHANGES, MAX_HELD),
            receipts: BTreeMap::new(),
            batch: Batch::default(),
            containers: Containers::new(&config.containers),
            apps,
            works: Works::default(),
            streams: Streams::default(),
            copies: BTreeMap::new(),
            late: BTreeMap::new(),
            held_back: 0,
            quotes: 0,
            figures: Figures::default(),
            closing: false,
            closed: false,
            out: Outbox::default(),
            config,
        }
    }

    /// Takes back a record from before a restart; says whether it was one of ours. Of use only with
    /// [`Config::secret`], without which everything from before is void anyway.
    pub fn restore(&mut self, record: &Record) -> bool {
        self.till
            .as_mut()
            .is_some_and(|till| till.get_mut().restore(record))
    }

    /// Pushes a new reading of the chain. Without effect off-chain.
    pub fn set_chain(&mut self, now: Time, view: ChainView) {
        let now = self.advance(now);
        if let Some(till) = &mut self.till {
            till.get_mut().set_chain(now, view);
        }
        self.settle(now);
    }

    /// Misbehaves differently from now on.
    pub fn set_quirks(&mut self, now: Time, quirks: Quirks) {
        let now = self.advance(now);
        self.config.quirks = quirks;
        self.settle(now);
    }

    /// Ends a session. False if none of that name runs.
    pub fn end_session(&mut self, now: Time, manifest_id: &str) -> bool {
        let now = self.advance(now);
        let ended = self.end(now, manifest_id, EndReason::ByOwner);
        self.settle(now);
        ended
    }

    /// Ends all sessions at once, refuses new requests, and tells [`Event::Closed`] when all are answered.
    pub fn close(&mut self, now: Time) {
        let now = self.advance(now);
        self.closing = true;
        let all: Vec<String> = self.sessions.keys().cloned().collect();
        for manifest_id in all {
            self.end(now, &manifest_id, EndReason::ByOwner);
        }
        let unanswered: Vec<EffectId> = self.exchanges.keys().copied().collect();
        for id in unanswered {
            self.give_up(now, id);
        }
        self.close_batch();
        self.close_apps(now);
        self.close_streams(now);
        self.close_works();
        self.server.close(now);
        self.settle(now);
    }

    /// The sessions that run, by name.
    pub fn sessions(&self) -> impl Iterator<Item = &str> {
        self.sessions
            .values()
            .filter(|session| session.is_running())
            .map(|session| session.manifest_id.as_str())
    }

    /// Figures of the orchestrator so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            running: self.sessions().count() as u64,
            ..self.figures.clone()
        }
    }

    /// The balance of a payer for a session.
    #[must_use]
    pub fn balance(&self, payer: Address, manifest_id: &str) -> Option<&Amount> {
        self.till
            .as_ref()?
            .get()
            .balance(&account(payer, manifest_id))
    }

    /// How it is set up.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    // ---- sessions --------------------------------------------------------------------------------------------

    /// How many places of a model are taken, those of requests that wait for their receipt included.
    fn busy(&self, model: &str) -> u32 {
        let running = self
            .sessions
            .values()
            .filter(|session| session.is_running() && session.model == model)
            .count();
        let starting = self
            .receipts
            .values()
            .filter(|waiting| waiting.model() == Some(model))
            .count();
        u32::try_from(running + starting).unwrap_or(u32::MAX)
    }

    fn idle(&self, model: &str) -> u32 {
        self.config
            .models
            .get(model)
            .map_or(0, |known| known.capacity.saturating_sub(self.busy(model)))
    }

    /// Makes a session and its channels. The caller has checked that the model exists.
    fn start(
        &mut self,
        now: Time,
        manifest_id: String,
        payer: Address,
        model: String,
        params: Option<Params>,
    ) -> Result<(), server::Refused> {
        let pipeline = self.config.models.get(&model).map_or_else(
            || PipelineFactory::default().make(),
            |known| known.pipeline.make(),
        );
        let join = self.config.join;
        let late = u64::try_from(join.within.as_nanos()).unwrap_or(u64::MAX);
        let late = match late {
            0 => Duration::ZERO,
            most => Duration::from_nanos(self.rng.below(most)),
        };
        let plan = Plan {
            joins: (now + late, join.from),
            manifest_id: manifest_id.clone(),
            payer,
            model: model.clone(),
            params,
            pipeline,
        };
        let session = Session::begin(now, plan, &mut self.server)?;
        for name in [&session.names().input, &session.names().output] {
            self.media.insert(name.clone(), manifest_id.clone());
        }
        self.sessions.insert(manifest_id.clone(), session);
        self.figures.sessions += 1;
        if let Some(session) = self.sessions.get_mut(&manifest_id) {
            session.join(now, &mut self.server);
        }
        // A reader is told of news only after it asked in vain.
        self.attend(now, &manifest_id);
        self.out.event(Event::SessionStarted {
            manifest_id,
            model,
            payer,
        });
        Ok(())
    }

    fn end(&mut self, now: Time, manifest_id: &str, why: EndReason) -> bool {
        let Some(session) = self.sessions.get_mut(manifest_id) else {
            return false;
        };
        if !session.is_running() {
            return false;
        }
        session.end(now, &why, &mut self.server, &self.config.quirks);
        if let Some(till) = &mut self.till {
            till.get_mut()
                .stop_meter(&account(session.payer, manifest_id));
        }
        self.out.event(Event::SessionEnded {
            manifest_id: manifest_id.to_owned(),
            why,
        });
        true
    }

    /// Takes in all that is new for a session.
    fn attend(&mut self, now: Time, manifest_id: &str) {
        self.pump(now, manifest_id);
        if let Some(session) = self.sessions.get_mut(manifest_id) {
            session.listen(now, &mut self.server, &self.config.quirks);
        }
    }

    /// Sends new media of a session through its pipeline.
    fn pump(&mut self, now: Time, manifest_id: &str) -> bool {
        let Some(session) = self.sessions.get_mut(manifest_id) else {
            return false;
        };
        let fed = session.is_fed();
        let over = session.pump(now, &mut self.server, &self.config.quirks);
        if !fed
            && session.is_fed()
            && let Some(till) = &mut self.till
        {
            let account = account(session.payer, manifest_id);
            // A job for nothing has no account that a meter could look at.
            let priced = till.get().session_price(&account);
            if priced.is_some_and(|price: Price| !price.is_free()) {
                till.get_mut()
                    .start_meter(now, account, Unit::PixelSeconds, Trigger::Ticker);
            }
        }
        over
    }

    fn on_server(&mut self, now: Time, event: server::Event) {
        match event {
            server::Event::Readable(reader) => {
                // There are few sessions, and a look at one that has nothing new is cheap.
                let found = self
                    .sessions
                    .iter()
                    .find(|(_, session)| session.reads(reader))
                    .map(|(manifest_id, _)| manifest_id.clone());
                match found {
                    Some(manifest_id) => self.attend(now, &manifest_id),
                    None => self.copy(now, reader),
                }
            }
            server::Event::Removed(name, how) => {
                let Some(manifest_id) = self.media.remove(&*name) else {
                    return;
                };
                let why = match how {
                    Removal::Idle => EndReason::Idle,
                    Removal::ByPeer if *name != *manifest_id => EndReason::OutputClosed,
                    Removal::ByPeer => EndReason::InputClosed,
                    _ => EndReason::ByOwner,
                };
                // What came in before the end goes out before the end.
                self.pump(now, &manifest_id);
                self.end(now, &manifest_id, why);
            }
            server::Event::Closed(_) => self.closed = true,
            _ => {}
        }
    }

    fn on_till(&mut self, now: Time, event: receiver::Event) {
        match event {
            receiver::Event::Credited(receipt, credit) => {
                self.receipt(now, receipt, credit, None);
            }
            receiver::Event::Rejected(receipt, rejection) => {
                self.receipt(now, receipt, rejection.credit, Some(&rejection.why));
            }
            receiver::Event::Won(ticket) => {
                self.figures.won += 1;
                self.out.event(Event::Won {
                    payer: ticket.ticket.sender,
                    face_value: ticket.ticket.face_value,
                });
            }
            receiver::Event::Metered(account, fee) => {
                self.figures.billed += &fee;
                let balance = self.balance(account.sender, &account.session).cloned();
                self.out.event(Event::Metered {
                    manifest_id: account.session,
                    fee,
                    balance: balance.unwrap_or_default(),
                });
            }
            receiver::Event::Exhausted(account, shortfall) => {
                let text = shortfall.to_string();
                if !self.session_exhausted(now, account.sender, &account.session) {
                    self.end(now, &account.session, EndReason::Unpaid(text));
                }
            }
            receiver::Event::WantSender(payer) => self.out.event(Event::PayerUnknown(payer)),
            _ => {}
        }
    }

    // ---- the inside ------------------------------------------------------------------------------------------

    fn advance(&mut self, now: Time) -> Time {
        self.now = self.now.max(now);
        self.now
    }

    fn do_what_is_due(&mut self, now: Time) {
        while self.batch_due(now)
            || self.works_due(now)
            || self.apps_due(now)
            || self.streams_due(now)
        {}
    }

    /// Does what is due, then lets the children speak until they have nothing more to say.
    fn settle(&mut self, now: Time) {
        while let Some(((due, _), _)) = self.late.first_key_value() {
            if *due > now {
                break;
            }
            if let Some((_, (id, steps))) = self.late.pop_first() {
                self.send(id, steps);
            }
        }
        let overdue: Vec<EffectId> = self
            .exchanges
            .iter()
            .filter(|(_, exchange)| exchange.until <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in overdue {
            self.give_up(now, id);
        }
        self.do_what_is_due(now);
        if self.server_wake.is_some_and(|due| due <= now) {
            self.server.handle_input(now, Input::Tick);
        }
        if let Some(till) = &mut self.till
            && till.wake().is_some_and(|due| due <= now)
        {
            till.handle_input(now, Input::Tick);
        }
        loop {
            let (server, quirks) = (&mut self.server, &self.config.quirks);
            let behind: Vec<String> = self
                .sessions
                .values_mut()
                .filter_map(|session| {
                    let joined = session.join(now, server);
                    let behind = session.speak(now, server, quirks);
                    (joined || behind).then(|| session.manifest_id.clone())
                })
                .collect();
            for manifest_id in behind {
                self.attend(now, &manifest_id);
            }
            let mut told = Vec::new();
            loop {
                match self.server.poll_output() {
                    Output::Effect(id, effect) => self.out.forward(id, effect),
                    Output::Event(event) => told.push(event),
                    Output::Idle(wake) => {
                        self.server_wake = wake;
                        break;
                    }
                }
            }
            let mut paid = Vec::new();
            if let Some(till) = &mut self.till {
                till.drain(&mut self.out, |event| paid.push(event));
            }
            if told.is_empty() && paid.is_empty() && !self.bury(now) {
                break;
            }
            for event in told {
                self.on_server(now, event);
            }
            for event in paid {
                self.on_till(now, event);
            }
            // A receipt may have let work begin that takes no time.
            self.do_what_is_due(now);
        }
        if self.closed && self.closing && self.late.is_empty() {
            self.closing = false;
            self.out.event(Event::Closed);
        }
    }

    /// Forgets sessions whose output nobody wants any more.
    fn bury(&mut self, now: Time) -> bool {
        let before = self.sessions.len();
        let (sessions, server) = (&mut self.sessions, &mut self.server);
        sessions.retain(|_, session| {
            session.is_running() || session.wake() > now || !session.drained(now, server)
        });
        self.sessions.len() < before
    }

    fn send(&mut self, id: EffectId, steps: Vec<Out>) {
        for step in steps {
            self.out.http(id, step);
        }
    }

    /// Answers an exchange, now or as late as the quirks want.
    fn answer(&mut self, now: Time, id: EffectId, steps: Vec<Out>) {
        self.forget_exchange(id);
        if self.config.quirks.delay.is_zero() || self.closing {
            return self.send(id, steps);
        }
        let due = now + self.config.quirks.delay;
        self.late.insert((due, self.held_back), (id, steps));
        self.held_back += 1;
    }

    fn request(&mut self, now: Time, id: EffectId, request: Request) {
        if self.config.quirks.silent {
            return;
        }
        let path = request.url.path().split('?').next().unwrap_or("");
        if path.starts_with(TRICKLE) {
            return self
                .server
                .handle_input(now, Input::Http(id, In::Request(request)));
        }
        let unavailable = || vec![wire::text_reply(503, "Service Unavailable")];
        if self.closing || self.closed {
            return self.send(id, unavailable());
        }
        if path.starts_with(batch::DOWNLOADS) {
            let path = path.to_owned();
            return self.download(id, &request, &path);
        }
        let opened = match Exchange::of_program(now, &request, self.has_apps()) {
            Some(Err(answer)) => return self.answer(now, id, vec![answer]),
            Some(Ok(exchange)) => Ok(exchange),
            None => Exchange::open(now, &request, self.config.quirks.no_refresh),
        };
        match opened {
            Ok(mut exchange) => match self.intake.admit(&request) {
                Ok(held) => {
                    exchange.held = Some(held);
                    self.exchanges.insert(id, exchange);
                }
                Err(_) => self.send(id, unavailable()),
            },
            Err(no) => self.refuse(now, id, no),
        }
    }

    fn forget_exchange(&mut self, id: EffectId) {
        if let Some(held) = self
            .exchanges
            .remove(&id)
            .and_then(|exchange| exchange.held)
        {
            self.intake.release(held);
        }
    }
}

fn account(payer: Address, session: &str) -> AccountId {
    AccountId {
        sender: payer,
        session: session.to_owned(),
    }
}

impl Machine for Orchestrator {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        let now = self.advance(now);
        match input {
            Input::Http(id, In::Request(request)) if id.is_by_peer() => {
                self.request(now, id, request);
            }
            Input::Http(id, step) if id.is_by_peer() => {
                if self.exchanges.contains_key(&id) {
                    self.exchange(now, id, step);
                } else if self.batch.has(id) {
                    self.batch_step(now, id, &step);
                } else if self.works.has(id) {
                    self.task_step(now, id, &step);
                } else {
                    self.server.handle_input(now, Input::Http(id, step));
                }
            }
            Input::Http(id, step) if id.owner() == 0 => self.program_step(now, id, step),
            Input::Signed(id, answer) if id.owner() == 0 => self.signed(now, id, answer),
            other => {
                if let Some(till) = &mut self.till {
                    till.handle_input(now, other);
                }
            }
        }
        self.settle(now);
    }

    fn poll_output(&mut self) -> Output<Event> {
        if let Some(output) = self.out.pop() {
            return output;
        }
        let till = self.till.as_ref().and_then(Child::wake);
        let sessions = self.sessions.values().map(Session::wake).min();
        let exchanges = self.exchanges.values().map(|exchange| exchange.until).min();
        let late = self.late.keys().next().map(|(due, _)| *due);
        Output::Idle(
            [
                till,
                sessions,
                exchanges,
                late,
                self.batch.wake(),
                self.works.wake(),
                self.apps.wake(),
                self.streams.wake(),
            ]
            .into_iter()
            .fold(self.server_wake, earlier),
        )
    }
}
