//! The remote signer, server half: holds a payer's key and makes payments for gateways that do not
//! (payments spec 12).
//!
//! One exchange of `POST /generate-live-payment`; every arrow that is not drawn answers with an error and ends:
//!
//! ```text
//!   Reading ── body complete, plan made ──▶ AwaitingWebhook ── 200 ──▶ AwaitingSignatures ──▶ 200
//!      │                (no webhook, or its last answer holds)             ▲
//!      └───────────────────────────────────────────────────────────────────┘
//! ```
//!
//! `GET /healthz` and `GET /metrics` are answered too, if the configuration says so.
//!
//! The server remembers nothing between exchanges: a session's state travels in a blob that it signs. (Which blobs it
//! signed last it does know, but only to be spared another look at them.) The webhook
//! is asked before anything is signed, other than the reference does, so that what was refused cannot leak.

mod figures;
mod listing;
mod recent;
mod webhook;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use super::mint::{Plan, Policy, Refusal, plan_knowing};
use crate::chain::ChainView;
use crate::http::{self, Body, Headers, Method, Request, Response};
use crate::machine::{Effect, EffectId, Input, Machine, Outbox, Output};
use crate::money::Amount;
use crate::rng::{Rng, Seed};
use crate::sign::{Address, Digest, SignRefused, Signature};
use crate::time::Time;
use crate::wire::identity_digest;
use crate::wire::signer::{
    DISCOVERY_PATH, ListedOrchestrator, MAX_SIGNER_BODY, ORCHESTRATOR_URL_HEADER, PAYMENT_PATH,
    PaymentRequest, PaymentResponse, SIGN_INFO_PATH, StateBlob, error_json, identity_json,
    listing_json,
};
use bytes::Bytes;

use figures::Gauges;
use recent::Recent;

pub use figures::Figures;
pub use listing::listing;
pub use webhook::{Webhook, is_due};

/// Says whether all is well.
pub const HEALTH_PATH: &str = "/healthz";
/// Tells figures, in the text format of Prometheus.
pub const METRICS_PATH: &str = "/metrics";

/// Exchanges beyond this many are turned away with status 503.
pub const MAX_EXCHANGES: usize = 1_024;

/// How long a request's body may take.
pub const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// How long the webhook may take.
pub const WEBHOOK_DEADLINE: Duration = Duration::from_secs(5);
/// How long the key holder may take.
pub const SIGN_DEADLINE: Duration = Duration::from_secs(30);

/// Settings of a [`SignerServer`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose key signs, and what.
    pub policy: Policy,
    /// Whom to ask before.
    pub webhook: Option<Webhook>,
    /// Whether orchestrators are listed.
    pub discovery: bool,
    /// Whether `/healthz` and `/metrics` are answered.
    pub figures: bool,
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
            chain_fresh: None,
        }
    }
}

/// What a [`SignerServer`] tells, for logs and figures.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A payment went out.
    Minted {
        /// The orchestrator that it is for.
        orchestrator: Address,
        /// Who asked, if known.
        auth_id: String,
        /// How many tickets.
        tickets: u32,
        /// What they are worth.
        value: Amount,
        /// What was billed.
        fee: Amount,
    },
    /// A request was answered with an error. The message is the unmasked one.
    Refused(Refusal),
}

enum State {
    Reading {
        body: Vec<u8>,
        headers: Headers,
    },
    AwaitingWebhook {
        plan: Box<Plan>,
        headers: Headers,
        status: u16,
        body: Vec<u8>,
    },
    AwaitingSignatures {
        plan: Option<Box<Plan>>,
        signatures: Vec<Option<Signature>>,
        missing: usize,
    },
}

struct Exchange {
    state: State,
    deadline: Time,
    /// What we opened for it.
    opened: Vec<EffectId>,
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
    exchanges: BTreeMap<EffectId, Exchange>,
    /// Signatures and webhook calls, and whose they are; of signatures, also which.
    opened: BTreeMap<EffectId, (EffectId, usize)>,
    out: Outbox<Event>,
}

impl SignerServer {
    /// A signer for the account of `config`, whose key answers [`Effect::Sign`].
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
            exchanges: BTreeMap::new(),
            opened: BTreeMap::new(),
            out: Outbox::default(),
        }
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

    /// What was done since the start.
    #[must_use]
    pub const fn figures(&self) -> &Figures {
        &self.figures
    }

    fn on_request(&mut self, id: EffectId, request: Request) {
        let url = request.url.path();
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        self.figures.begin(id, path, self.now);
        let allowed = match path {
            SIGN_INFO_PATH | PAYMENT_PATH => Method::Post,
            DISCOVERY_PATH if self.config.discovery => Method::Get,
            HEALTH_PATH | METRICS_PATH if self.config.figures => Method::Get,
            _ => return self.refuse(id, Refusal::new(404, "not found")),
        };
        if request.method != allowed {
            return self.refuse(id, Refusal::new(405, "method not allowed"));
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
        if self.exchanges.len() >= MAX_EXCHANGES {
            return self.refuse(id, Refusal::new(503, "too many requests at once"));
        }
        if path == SIGN_INFO_PATH {
            // Its body, if any, means nothing.
            return self.sign_info(id);
        }
        self.exchanges.insert(
            id,
            Exchange {
                state: State::Reading {
                    body: Vec::new(),
                    headers: request.headers,
                },
                deadline: self.now + BODY_DEADLINE,
                opened: Vec::new(),
            },
        );
    }

    fn sign_info(&mut self, id: EffectId) {
        let Some(signature) = self.identity else {
            return self.sign(id, None, &[identity_digest(self.config.policy.address)]);
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
        self.reply(id, 200, Headers::new(), br#"{"status":"ok"}"#.to_vec());
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
        headers.push("content-type", figures::CONTENT_TYPE);
        self.answer(id, 200, headers, text.into_bytes());
    }

    fn on_body(&mut self, id: EffectId, data: &[u8]) {
        if let Some(Exchange {
            state: State::Reading { body, .. },
            ..
        }) = self.exchanges.get_mut(&id)
        {
            if body.len() + data.len() > MAX_SIGNER_BODY {
                return self.refuse(id, Refusal::new(413, "request body larger than 1 MiB"));
            }
            body.extend_from_slice(data);
        }
    }

    fn on_body_end(&mut self, id: EffectId) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let State::Reading { body, headers } = &mut exchange.state else {
            return;
        };
        let (body, headers) = (core::mem::take(body), core::mem::take(headers));
        let planned = PaymentRequest::from_json(&body)
            .map_err(|err| Refusal::new(400, err.to_string()))
            .and_then(|request| {
                plan_knowing(
                    self.now,
                    &self.config.policy,
                    &self.chain,
                    &mut self.rng,
                    &request,
                    |digest, signature| self.recent.has(digest, signature),
                )
            });
        match planned {
            Err(refusal) => self.refuse(id, refusal),
            Ok(plan) => self.authorize(id, Box::new(plan), headers),
        }
    }

    fn authorize(&mut self, id: EffectId, mut plan: Box<Plan>, headers: Headers) {
        let Some(hook) = self
            .config
            .webhook
            .as_ref()
            .filter(|_| is_due(&plan.state, self.now))
        else {
            return match webhook::identify(&headers, None, &mut plan.state) {
                Ok(()) => self.sign_plan(id, plan),
                Err(refusal) => self.refuse(id, refusal),
            };
        };
        let body = webhook::question(&headers, &plan.state);
        let mut request = Request::new(Method::Post, hook.url.clone())
            .header("content-type", "application/json")
            .body(Body::Full(body.into()));
        for (name, value) in hook.headers.iter() {
            request.headers.push_any(name, value);
        }
        let asked = self.out.request(request);
        self.opened.insert(asked, (id, 0));
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.deadline = self.now + WEBHOOK_DEADLINE;
            exchange.opened = [asked].into();
            exchange.state = State::AwaitingWebhook {
                plan,
                headers,
                status: 0,
                body: Vec::new(),
            };
        }
    }

    fn on_webhook(&mut self, asked: EffectId, step: http::In) {
        let Some((id, _)) = self.opened.get(&asked).copied() else {
            return;
        };
        let Some(Exchange {
            state: State::AwaitingWebhook { status, body, .. },
            ..
        }) = self.exchanges.get_mut(&id)
        else {
            return;
        };
        match step {
            http::In::Reply(reply) => *status = reply.status,
            http::In::Data(data) if body.len() + data.len() > MAX_SIGNER_BODY => {
                self.refuse(
                    id,
                    Refusal::new(500, "signer auth webhook: answer too long"),
                );
            }
            http::In::Data(data) => body.extend_from_slice(&data),
            http::In::End(_) => self.authorized(id),
            http::In::Failed(fault) => {
                let message = alloc::format!("signer auth webhook: {fault}");
                self.refuse(id, Refusal::new(500, message));
            }
            http::In::Request(_) | http::In::Sent(_) => {}
        }
    }

    fn authorized(&mut self, id: EffectId) {
        let Some(Exchange {
            state:
                State::AwaitingWebhook {
                    mut plan,
                    headers,
                    status,
                    body,
                },
            opened,
            ..
        }) = self.exchanges.remove(&id)
        else {
            return;
        };
        for asked in opened {
            self.opened.remove(&asked);
        }
        let verdict = webhook::apply(status, &body, &mut plan)
            .and_then(|answer| webhook::identify(&headers, Some(&answer), &mut plan.state));
        match verdict {
            Ok(()) => self.sign_plan(id, plan),
            Err(refusal) => self.refuse(id, refusal),
        }
    }

    fn sign_plan(&mut self, id: EffectId, plan: Box<Plan>) {
        let state = Digest::personal(plan.state.to_json().as_bytes());
        let digests: Vec<Digest> = plan
            .digests(self.config.policy.address)
            .chain([state])
            .collect();
        self.sign(id, Some(plan), &digests);
    }

    fn sign(&mut self, id: EffectId, plan: Option<Box<Plan>>, digests: &[Digest]) {
        let mut opened = Vec::with_capacity(digests.len());
        for (slot, digest) in digests.iter().enumerate() {
            let asked = self.out.open(Effect::Sign(*digest));
            self.opened.insert(asked, (id, slot));
            opened.push(asked);
        }
        self.exchanges.insert(
            id,
            Exchange {
                state: State::AwaitingSignatures {
                    plan,
                    signatures: alloc::vec![None; digests.len()],
                    missing: digests.len(),
                },
                deadline: self.now + SIGN_DEADLINE,
                opened,
            },
        );
    }

    fn on_signed(&mut self, asked: EffectId, answer: Result<Signature, SignRefused>) {
        let Some((id, slot)) = self.opened.remove(&asked) else {
            return;
        };
        let Some(Exchange {
            state:
                State::AwaitingSignatures {
                    signatures,
                    missing,
                    ..
                },
            ..
        }) = self.exchanges.get_mut(&id)
        else {
            return;
        };
        match answer {
            Err(refused) => self.refuse(id, Refusal::new(500, refused.to_string())),
            Ok(signature) => {
                signatures[slot] = Some(signature);
                *missing -= 1;
                if *missing == 0 {
                    self.signed(id);
                }
            }
        }
    }

    fn signed(&mut self, id: EffectId) {
        let Some(Exchange {
            state: State::AwaitingSignatures {
                plan, signatures, ..
            },
            ..
        }) = self.exchanges.remove(&id)
        else {
            return;
        };
        let signatures: Vec<Signature> = signatures.into_iter().flatten().collect();
        let Some(plan) = plan else {
            self.identity = signatures.first().copied();
            return self.sign_info(id);
        };
        let minted = Event::Minted {
            orchestrator: plan.state.orchestrator,
            auth_id: plan.state.auth_id.clone(),
            tickets: u32::try_from(plan.nonces.clone().count()).unwrap_or(u32::MAX),
            value: plan.value.clone(),
            fee: plan.fee.clone(),
        };
        let (state_sig, rest) = signatures
            .split_last()
            .expect("one signature was awaited for each digest");
        let (payment, segment) = plan
            .headers(self.config.policy.address, rest)
            .expect("one signature was awaited for each digest");
        let state = plan.state.to_json().into_bytes();
        self.recent.add(Digest::personal(&state), state_sig);
        let response = PaymentResponse {
            payment,
            segment,
            state: StateBlob {
                state: state.into(),
                sig: state_sig.0.to_vec().into(),
            },
        };
        self.figures.minted(&minted);
        self.out.event(minted);
        self.reply(id, 200, Headers::new(), response.to_json());
    }

    fn refuse(&mut self, id: EffectId, refusal: Refusal) {
        let mut headers = Headers::new();
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
        let asks_webhook = matches!(exchange.state, State::AwaitingWebhook { .. });
        for asked in exchange.opened {
            if self.opened.remove(&asked).is_some() && asks_webhook {
                self.out.abort(asked);
            }
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
                State::Reading { .. } => Refusal::new(408, "the request's body did not arrive"),
                State::AwaitingWebhook { .. } => {
                    Refusal::new(500, "signer auth webhook: no answer in time")
                }
                State::AwaitingSignatures { .. } => {
                    Refusal::new(500, "the key holder did not sign in time")
                }
            };
            self.refuse(id, refusal);
        }
    }
}

impl Machine for SignerServer {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        match input {
            Input::Tick | Input::Stored(..) => {}
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
