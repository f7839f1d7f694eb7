//! The remote signer, server half: holds a payer's key and makes payments for gateways that do not
//! (payments spec 12).
//!
//! An exchange of `POST /generate-live-payment`; every arrow that is not drawn answers with an error and ends:
//!
//! ```text
//!   Reading ── body complete, plan made ──▶ AwaitingWebhook ── 200 ──▶ AwaitingStored ──▶ AwaitingSignatures ──▶ 200
//!      │                (no webhook, or its last answer holds)             ▲
//!      └───────────────────────────────────────────────────────────────────┘
//! ```
//!
//! `POST /sign-byoc-job` goes the same way without plan and nonces: a job for a container is signed, and nothing is paid.
//! `GET /healthz` and `GET /metrics` are answered too, if the configuration says so.
//!
//! A session's state travels in a blob that the server signs, so that any server with the same key can go on with it.
//! (Which blobs it signed last it does know, but only to be spared another look at them.) Beside the blobs it remembers
//! one thing, the last nonce under each commitment: a caller may begin a second session under a quote that it kept, or
//! come back with an old blob, and an orchestrator takes no nonce twice. The webhook
//! is asked before anything is signed, other than the reference does, so that what was refused cannot leak.

mod figures;
mod listing;
mod paying;
mod recent;
mod webhook;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use super::mint::{Plan, Policy, Refusal, plan_knowing};
use super::nonce::SpentNonces;
use crate::chain::ChainView;
use crate::exchange;
use crate::http::{self, Body, Headers, Method, Request, Response};
use crate::intake::{Full, Held, Intake};
use crate::machine::{EffectId, Input, Machine, Outbox, Output};
use crate::money::{Amount, Price};
use crate::rng::{Rng, Seed};
use crate::sign::{Address, Signature};
use crate::store::{Record, StoreFailed};
use crate::time::Time;
use crate::wire::byoc::{JobRequest, SIGN_JOB_PATH, Scheme, SignRequest};
use crate::wire::signer::{
    DISCOVERY_PATH, ListedOrchestrator, MAX_SIGNER_BODY, ORCHESTRATOR_URL_HEADER, PAYMENT_PATH,
    PaymentRequest, SIGN_INFO_PATH, error_json, identity_json, listing_json,
};
use crate::wire::{SignerState, identity_digest};
use bytes::Bytes;

use figures::Gauges;
use recent::Recent;

pub use figures::Figures;
pub use listing::{LeftOut, Listing, listing};
pub use webhook::{Webhook, is_due};

/// Says whether all is well.
pub const HEALTH_PATH: &str = "/healthz";
/// Tells figures, in the text format of Prometheus.
pub const METRICS_PATH: &str = crate::figures::PATH;

/// Methods that read a path: a caller that may read it may also ask how long it is.
const READ: (&[Method], &str) = (&[Method::Get, Method::Head], "GET, HEAD");

/// Exchanges beyond this many are turned away with status 503; of one address, beyond half as many with 429.
pub const MAX_EXCHANGES: usize = 1_024;

/// Requests that would make us hold more than this until they are answered are turned away likewise.
pub const MAX_HELD: usize = 64 << 20;

/// A webhook's answer is not longer.
pub const MAX_WEBHOOK_ANSWER: usize = 64 << 10;

/// How long a request's body may take.
pub const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// How long the webhook may take.
pub const WEBHOOK_DEADLINE: Duration = Duration::from_secs(5);
/// How long the key holder may take.
pub const SIGN_DEADLINE: Duration = Duration::from_secs(30);

/// Settings of a [`SignerServer`].
#[derive(Clone, Debug)]
pub struct Config {
    /// The key that signs, and rules for what it signs.
    pub policy: Policy,
    /// The webhook to ask before anything is signed.
    pub webhook: Option<Webhook>,
    /// Whether orchestrators are listed.
    pub discovery: bool,
    /// Whether `/healthz` and `/metrics` are answered.
    pub figures: bool,
    /// How jobs for containers are signed.
    pub job_scheme: Scheme,
    /// A reading of the chain older than this is unhealthy; `None` if it does not come from the chain.
    pub chain_fresh: Option<Duration>,
}

impl Config {
    /// No webhook, no list, no figures.
    #[must_use]
    pub const fn new(policy: Policy) -> Self {
        Self {
            policy,
            webhook: None,
            discovery: false,
            figures: false,
            job_scheme: Scheme::Texts,
            chain_fresh: None,
        }
    }
}

/// An event of a [`SignerServer`], for logs and figures.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A payment went out.
    Minted {
        /// The orchestrator that it is for.
        orchestrator: Address,
        /// The caller, if known.
        auth_id: String,
        /// The number of tickets.
        tickets: u32,
        /// The value of the tickets.
        value: Amount,
        /// The fee that was billed.
        fee: Amount,
    },
    /// A job for a container was signed.
    JobSigned {
        /// The container.
        capability: String,
        /// The caller, if known.
        auth_id: String,
    },
    /// A request was answered with an error. The message is the unmasked one.
    Refused(Refusal),
}

enum State {
    Reading(Vec<u8>),
    AwaitingWebhook(exchange::Exchange),
    /// The nonces are being made durable: they are spent from here on.
    AwaitingStored,
    AwaitingSignatures {
        signatures: Vec<Option<Signature>>,
        missing: usize,
    },
}

struct Exchange {
    state: State,
    deadline: Time,
    /// The effects that were opened for this exchange.
    opened: Vec<EffectId>,
    /// The caller's.
    headers: Headers,
    wanted: Wanted,
    held: Held,
}

/// The thing that a caller wants signed.
enum Wanted {
    /// The words of who we are.
    Identity,
    /// A payment; `None` before it is planned.
    Payment(Option<Box<Plan>>),
    /// A job for a container; `None` before it is read.
    Job(Option<Box<Job>>),
}

/// A job for a container, and what the webhook is told of it.
struct Job {
    request: JobRequest,
    state: SignerState,
}

impl Wanted {
    /// The state that the webhook is asked about, and the price of a payment.
    fn state(&mut self) -> Option<(&mut SignerState, Option<Price>)> {
        match self {
            Self::Payment(Some(plan)) => Some((&mut plan.state, Some(plan.price))),
            Self::Job(Some(job)) => Some((&mut job.state, None)),
            Self::Identity | Self::Payment(None) | Self::Job(None) => None,
        }
    }
}

/// See the [module](self).
pub struct SignerServer {
    now: Time,
    config: Config,
    chain: ChainView,
    rng: Rng,
    identity: Option<Signature>,
    listed: Vec<ListedOrchestrator>,
    chain_read: Time,
    figures: Figures,
    recent: Recent,
    spent: SpentNonces,
    exchanges: BTreeMap<EffectId, Exchange>,
    intake: Intake,
    /// Records, signatures and webhook calls, and whose they are; of signatures, also which.
    opened: BTreeMap<EffectId, (EffectId, usize)>,
    out: Outbox<Event>,
}

impl core::fmt::Debug for SignerServer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SignerServer")
            .field("now", &self.now)
            .field("figures", &self.figures)
            .field("exchanges", &self.exchanges.len())
            .finish_non_exhaustive()
    }
}

impl SignerServer {
    /// A signer for the account of `config`, whose key answers [`Effect::Sign`](crate::Effect::Sign).
    #[must_use]
    pub fn new(now: Time, config: Config, chain: ChainView, seed: Seed) -> Self {
        Self {
            now,
            config,
            chain,
            rng: Rng::new(seed),
            identity: None,
            listed: Vec::new(),
            chain_read: now,
            figures: Figures::default(),
            recent: Recent::default(),
            spent: SpentNonces::default(),
            exchanges: BTreeMap::new(),
            intake: Intake::new(MAX_EXCHANGES, MAX_HELD),
            opened: BTreeMap::new(),
            out: Outbox::default(),
        }
    }

    /// Takes back a record from before a restart; says whether it was one of ours. Without it a quote that was in
    /// use is not known to be.
    pub fn restore(&mut self, record: &Record) -> bool {
        self.spent.restore(record)
    }

    /// Pushes a new reading of the chain.
    pub fn set_chain(&mut self, now: Time, view: ChainView) {
        self.now = self.now.max(now);
        self.chain_read = self.now;
        self.chain = view;
    }

    /// Replaces the list of orchestrators, such as [`listing`] makes. While it is empty, status 503 is answered.
    pub fn set_listed(&mut self, now: Time, listed: Vec<ListedOrchestrator>) {
        self.now = self.now.max(now);
        self.listed = listed;
    }

    /// How many exchanges are open.
    #[must_use]
    pub fn open_exchanges(&self) -> usize {
        self.exchanges.len()
    }

    /// Counters since the start.
    #[must_use]
    pub const fn figures(&self) -> &Figures {
        &self.figures
    }

    fn on_request(&mut self, id: EffectId, request: Request) {
        let url = request.url.path();
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        self.figures.begin(id, path, self.now);
        let (methods, allow): (&[Method], _) = match path {
            SIGN_INFO_PATH | PAYMENT_PATH | SIGN_JOB_PATH => (&[Method::Post], "POST"),
            DISCOVERY_PATH if self.config.discovery => READ,
            HEALTH_PATH | METRICS_PATH if self.config.figures => READ,
            _ => return self.refuse(id, Refusal::new(404, "not found")),
        };
        if !methods.contains(&request.method) {
            let mut headers = Headers::new();
            headers.push("allow", allow);
            return self.refuse_with(id, Refusal::new(405, "method not allowed"), headers);
        }
        match path {
            DISCOVERY_PATH => {
                let query = String::from(query);
                return self.list(id, &query);
            }
            HEALTH_PATH => return self.tell_health(id),
            METRICS_PATH => return self.tell_figures(id),
            _ => {}
        }
        let wanted = match path {
            SIGN_INFO_PATH => Wanted::Identity,
            SIGN_JOB_PATH => Wanted::Job(None),
            _ => Wanted::Payment(None),
        };
        let asks_who = matches!(wanted, Wanted::Identity);
        let held = match self.intake.admit(&request) {
            Ok(held) => held,
            Err(full) => return self.refuse(id, too_much(full)),
        };
        let exchange = Exchange {
            state: State::Reading(Vec::new()),
            deadline: self.now + BODY_DEADLINE,
            opened: Vec::new(),
            headers: request.headers,
            wanted,
            held,
        };
        self.exchanges.insert(id, exchange);
        if asks_who {
            // Its body, if any, means nothing.
            self.sign_info(id);
        }
    }

    fn sign_info(&mut self, id: EffectId) {
        let Some(signature) = self.identity else {
            return self.sign(id, &[identity_digest(self.config.policy.address)]);
        };
        let body = identity_json(self.config.policy.address, &signature);
        self.reply(id, 200, Headers::new(), body);
    }

    fn list(&mut self, id: EffectId, query: &str) {
        if self.listed.is_empty() {
            return self.refuse(id, Refusal::new(503, "cache empty"));
        }
        let wanted = listing::wanted(query);
        let found = self.listed.iter().filter(|one| {
            wanted.is_empty() || one.capabilities.iter().any(|cap| wanted.contains(cap))
        });
        let body = listing_json(found);
        self.reply(id, 200, Headers::new(), body);
    }

    fn tell_health(&mut self, id: EffectId) {
        let age = self.now.since(self.chain_read);
        if self.config.chain_fresh.is_some_and(|fresh| age > fresh) {
            let message = alloc::format!("the chain was last read {} s ago", age.as_secs());
            return self.reply(id, 503, Headers::new(), error_json(&message));
        }
        self.reply(id, 200, Headers::new(), b"{\"status\":\"ok\"}\n".to_vec());
    }

    fn tell_figures(&mut self, id: EffectId) {
        let gauges = Gauges {
            open: self.exchanges.len(),
            listed: self.listed.len(),
            chain: &self.chain,
            chain_age: self
                .config
                .chain_fresh
                .map(|_| self.now.since(self.chain_read)),
            payer: self.config.policy.address,
        };
        let text = self.figures.to_prometheus(&gauges);
        let mut headers = Headers::new();
        headers.push("content-type", crate::figures::CONTENT_TYPE);
        self.answer(id, 200, headers, text.into_bytes());
    }

    fn on_body(&mut self, id: EffectId, data: &[u8]) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let State::Reading(body) = &mut exchange.state else {
            return;
        };
        if body.len() + data.len() > MAX_SIGNER_BODY {
            return self.refuse(id, Refusal::new(413, "request body larger than 1 MiB"));
        }
        match self.intake.grow(&mut exchange.held, data.len()) {
            Ok(()) => body.extend_from_slice(data),
            Err(full) => self.refuse(id, too_much(full)),
        }
    }

    fn on_body_end(&mut self, id: EffectId) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let State::Reading(body) = &mut exchange.state else {
            return;
        };
        let body = core::mem::take(body);
        let wanted = match exchange.wanted {
            Wanted::Identity => return,
            Wanted::Payment(_) => self.plan(&body),
            Wanted::Job(_) => read_job(&body),
        };
        match wanted {
            Err(refusal) => self.refuse(id, refusal),
            Ok(wanted) => self.authorize(id, wanted, body.len()),
        }
    }

    /// Plans the payment that a request asks for.
    fn plan(&mut self, body: &[u8]) -> Result<Wanted, Refusal> {
        let request = PaymentRequest::from_json(body);
        let request = request.map_err(|err| Refusal::new(400, err.to_string()))?;
        let plan = plan_knowing(
            self.now,
            &self.config.policy,
            &self.chain,
            &mut self.rng,
            &request,
            |digest, signature| self.recent.has(digest, signature),
            |hash| self.spent.last(hash),
        )?;
        Ok(Wanted::Payment(Some(Box::new(plan))))
    }

    fn refuse(&mut self, id: EffectId, refusal: Refusal) {
        self.refuse_with(id, refusal, Headers::new());
    }

    fn refuse_with(&mut self, id: EffectId, refusal: Refusal, mut headers: Headers) {
        if let Some(url) = &refusal.orchestrator_url {
            // What an orchestrator calls its URL must not become a second header.
            if url.bytes().all(|b| (b' '..0x7f).contains(&b)) {
                headers.push(ORCHESTRATOR_URL_HEADER, url.as_str());
            }
        }
        let body = error_json(refusal.public_message());
        let status = refusal.status;
        self.out.event(Event::Refused(refusal));
        self.reply(id, status, headers, body);
    }

    fn reply(&mut self, id: EffectId, status: u16, mut headers: Headers, body: Vec<u8>) {
        headers.push("content-type", "application/json");
        self.answer(id, status, headers, body);
    }

    fn answer(&mut self, id: EffectId, status: u16, headers: Headers, body: Vec<u8>) {
        let response = Response {
            status,
            headers,
            body: Body::Full(Bytes::from(body)),
        };
        self.out.http(id, http::Out::Reply(response));
        self.figures.answered(id, status, self.now);
        self.forget(id);
    }

    /// Drops an exchange and what was opened for it.
    fn forget(&mut self, id: EffectId) {
        let Some(exchange) = self.exchanges.remove(&id) else {
            return;
        };
        self.intake.release(exchange.held);
        if let State::AwaitingWebhook(mut asked) = exchange.state {
            asked.abort(&mut self.out);
        }
        for asked in exchange.opened {
            self.opened.remove(&asked);
        }
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        let late: Vec<EffectId> = self
            .exchanges
            .iter()
            .filter(|(_, exchange)| exchange.deadline <= self.now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            let refusal = match self.exchanges[&id].state {
                State::Reading(_) => Refusal::new(408, "the request's body did not arrive"),
                State::AwaitingWebhook(_) => {
                    Refusal::new(500, "signer auth webhook: no answer in time")
                }
                State::AwaitingStored => Refusal::new(500, StoreFailed::late().to_string()),
                State::AwaitingSignatures { .. } => {
                    Refusal::new(500, "the key holder did not sign in time")
                }
            };
            self.refuse(id, refusal);
        }
    }
}

/// Reads the job that a request wants signed.
fn read_job(body: &[u8]) -> Result<Wanted, Refusal> {
    let SignRequest(request) =
        SignRequest::from_json(body).map_err(|bad| Refusal::new(400, bad.to_string()))?;
    let state = SignerState {
        app: alloc::format!("byoc/{}", request.capability),
        job_type: "byoc".into(),
        ..SignerState::default()
    };
    Ok(Wanted::Job(Some(Box::new(Job { request, state }))))
}

fn too_much(full: Full) -> Refusal {
    let status = match full {
        Full::Total => 503,
        Full::Peer => 429,
    };
    Refusal::new(status, full.to_string())
}

impl Machine for SignerServer {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        match input {
            Input::Tick | Input::Spent(..) => {}
            Input::Stored(asked, answer) => self.on_stored(asked, answer),
            Input::Signed(asked, answer) => self.on_signed(asked, answer),
            Input::Http(id, step) if !id.is_by_peer() => self.on_webhook(id, step),
            Input::Http(id, step) => match step {
                http::In::Request(request) => self.on_request(id, request),
                http::In::Data(data) => self.on_body(id, &data),
                http::In::End(_) => self.on_body_end(id),
                http::In::Failed(_) => {
                    self.figures.left(id);
                    self.forget(id);
                }
                http::In::Reply(_) | http::In::Sent(_) => {}
            },
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        if let Some(output) = self.out.pop() {
            return output;
        }
        Output::Idle(self.exchanges.values().map(|one| one.deadline).min())
    }
}
