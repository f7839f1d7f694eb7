//! Watching the chain through JSON-RPC endpoints, each standing in for the others (payments spec 15).
//!
//! ```text
//!            ┌──────────────── every ────────────────┐
//!            ▼                                       │
//!  new ─▶ Asking: contracts ─▶ block, round, funds ─▶ (a new round: its hashes) ─▶ View, Resting
//!            ▲       │ fails
//!            │       ▼
//!            └── EndpointFailed: the next endpoint; after a full circle Down, then Resting
//! ```
//! An endpoint that refuses so many questions at a time is asked fewer, and one that is asked too often rests.
//!
//! An endpoint is believed once it has shown that it serves the right chain; after a failure it has to show it
//! again. The contracts' addresses come from the controller.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::chain::ChainView;
use crate::error::{Cause, Failure};
use crate::exchange::{Exchange, Reply};
use crate::figures::Endpoints;
use crate::http::{In, Trust, Url};
use crate::machine::{EffectId, Input, Machine, Outbox, Output, earlier};
use crate::sign::Address;
use crate::time::Time;
use crate::wire::WireError;
use crate::wire::ethereum::{
    CHAIN_ID, CONTROLLER, call, get_contract, get_sender_info, read_contract, read_hash,
    read_sender_info, read_u64,
};
use crate::wire::jsonrpc::{self, Ask, Asking, BatchLimit, Told};

/// A reading older than this is not news any more: a few blocks have gone by unseen.
pub const FRESH: Duration = Duration::from_secs(60);

/// How long an endpoint that says it is asked too often is left alone, at most, if it does not say for how long.
const MAX_BACK_OFF: Duration = Duration::from_secs(5 * 60);

/// How far endpoints may lag behind each other: a quarter of an hour, or a round.
const LAG_BLOCKS: u64 = 75;
const LAG_ROUNDS: u64 = 1;

/// Settings of a [`ChainWatch`]: the contracts and the payer to watch, and the endpoints to ask.
#[derive(Clone, Debug)]
pub struct Config {
    /// JSON-RPC endpoints, in order of preference. Their paths may be secret and are never told.
    pub endpoints: Vec<Url>,
    /// The chain that they must serve.
    pub chain_id: u64,
    /// Knows the other contracts.
    pub controller: Address,
    /// The account whose funds are read.
    pub payer: Address,
    /// How often it is read.
    pub every: Duration,
    /// How long one answer may take.
    pub within: Duration,
    /// Certificates that are good enough for endpoints.
    pub trust: Trust,
}

impl Config {
    /// Livepeer on Arbitrum One, read every five seconds.
    #[must_use]
    pub const fn arbitrum(endpoints: Vec<Url>, payer: Address) -> Self {
        Self {
            endpoints,
            chain_id: CHAIN_ID,
            controller: CONTROLLER,
            payer,
            every: Duration::from_secs(5),
            within: Duration::from_secs(5),
            trust: Trust::Public,
        }
    }
}

/// An event of a [`ChainWatch`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A reading, whether or not anything changed.
    View(Box<ChainView>),
    /// An endpoint did not do; the next one is asked.
    EndpointFailed(Failure),
    /// None did; the first one is asked again in a while. The last reading stands.
    Down,
    /// The last reading is so old, and stands all the same: told when it is older than [`FRESH`], and each time that
    /// has passed again.
    Stale(Duration),
}

/// An endpoint, and what is known of it.
#[derive(Debug)]
struct Endpoint {
    url: Url,
    limit: BatchLimit,
    /// The time before which the endpoint is not asked: it said that it is asked too often.
    rests_until: Time,
    /// How often in a row it said so.
    strikes: u32,
}

impl Endpoint {
    fn new(url: Url) -> Self {
        Self {
            url: url.hide_path(),
            limit: BatchLimit::default(),
            rests_until: Time::ZERO,
            strikes: 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Contracts {
    broker: Address,
    rounds: Address,
}

#[derive(Clone, Debug)]
enum Question {
    Contracts,
    Now(Contracts),
    Hashes(Contracts, Box<ChainView>),
}

#[derive(Debug)]
enum State {
    Resting {
        until: Time,
    },
    Asking {
        question: Question,
        asking: Asking,
        exchange: Exchange,
    },
}

/// Reads the chain from time to time.
#[derive(Debug)]
pub struct ChainWatch {
    now: Time,
    config: Config,
    endpoints: Vec<Endpoint>,
    at: usize,
    /// Failures in a row.
    failed: usize,
    errors: Endpoints,
    /// The contract addresses that the endpoint in use gave, once it has shown its chain.
    contracts: Option<Contracts>,
    view: ChainView,
    /// When the age of the view is told next.
    stale_at: Time,
    state: State,
    out: Outbox<Event>,
}

impl ChainWatch {
    /// Starts to watch.
    #[must_use]
    pub fn new(now: Time, config: Config) -> Self {
        let endpoints = config.endpoints.iter().cloned().map(Endpoint::new);
        let mut this = Self {
            now,
            endpoints: endpoints.collect(),
            config,
            at: 0,
            failed: 0,
            errors: Endpoints::default(),
            contracts: None,
            view: ChainView::default(),
            stale_at: Time::MAX,
            state: State::Resting { until: now },
            out: Outbox::default(),
        };
        this.begin();
        this
    }

    /// Questions that failed so far.
    #[must_use]
    pub const fn errors(&self) -> &Endpoints {
        &self.errors
    }

    /// Asks these endpoints from now on, the first one at once. The last reading stands until one of them answers, and
    /// what is known of an endpoint that is among both stays known.
    pub fn set_endpoints(&mut self, now: Time, endpoints: Vec<Url>) {
        self.advance(now);
        let urls = self.endpoints.iter().map(|endpoint| &endpoint.url);
        if urls.eq(&endpoints) {
            return;
        }
        if let State::Asking { exchange, .. } = &mut self.state {
            exchange.abort(&mut self.out);
        }
        let mut before = core::mem::take(&mut self.endpoints);
        let endpoints = endpoints.into_iter().map(|url| {
            let known = before.iter().position(|endpoint| endpoint.url == url);
            known.map_or_else(|| Endpoint::new(url), |at| before.swap_remove(at))
        });
        self.endpoints = endpoints.collect();
        (self.at, self.failed, self.contracts) = (0, 0, None);
        self.begin();
    }

    /// Asks the endpoint in use, or the next one that does not rest; whether there is one.
    fn begin(&mut self) -> bool {
        let count = self.endpoints.len();
        let mut order = (0..count).map(|step| (self.at + step) % count);
        let awake = |at: &usize| self.endpoints[*at].rests_until <= self.now;
        let Some(at) = order.find(awake) else {
            self.rest();
            return false;
        };
        if at != self.at {
            self.at = at;
            self.contracts = None;
        }
        self.ask(self.contracts.map_or(Question::Contracts, Question::Now));
        true
    }

    fn rest(&mut self) {
        let next = self.now + self.config.every.max(Duration::from_millis(1));
        let awake = self.endpoints.iter().map(|endpoint| endpoint.rests_until);
        let until = next.max(awake.min().unwrap_or(next));
        self.state = State::Resting { until };
    }

    fn asks(&self, question: &Question) -> Vec<Ask> {
        let ask = |to: Address, data: Vec<u8>| Ask::Call { to, data };
        let hash = |rounds: Address, round: u64| {
            let mut word = [0; 32];
            word[24..].copy_from_slice(&round.to_be_bytes());
            ask(rounds, call("blockHashForRound(uint256)", &[word]))
        };
        match question {
            Question::Contracts => {
                let controller = self.config.controller;
                vec![
                    Ask::ChainId,
                    ask(controller, get_contract("TicketBroker")),
                    ask(controller, get_contract("RoundsManager")),
                ]
            }
            Question::Now(of) => vec![
                Ask::Block,
                ask(of.rounds, call("lastInitializedRound()", &[])),
                ask(of.broker, get_sender_info(self.config.payer)),
            ],
            Question::Hashes(of, view) => vec![
                hash(of.rounds, view.round),
                hash(of.rounds, view.round.saturating_sub(1)),
            ],
        }
    }

    fn ask(&mut self, question: Question) {
        let asking = Asking::new(self.asks(&question));
        self.ask_on(question, asking);
    }

    /// Asks what is left to ask.
    fn ask_on(&mut self, question: Question, asking: Asking) {
        let Endpoint { url, limit, .. } = &self.endpoints[self.at];
        let to = (url, self.config.trust, self.config.within);
        let exchange = super::ask(&mut self.out, self.now, to, &asking, *limit);
        self.state = State::Asking {
            question,
            asking,
            exchange,
        };
    }

    fn answered(&mut self, question: Question, mut asking: Asking, body: &[u8]) {
        let limit = &mut self.endpoints[self.at].limit;
        let taken = match asking.answered(limit, body) {
            Ok(None) => return self.ask_on(question, asking),
            Ok(Some(told)) => self.take(question, &told),
            Err(err) => Err(err.into()),
        };
        match taken {
            Ok(Some(next)) => self.ask(next),
            Ok(None) => {
                self.failed = 0;
                self.endpoints[self.at].strikes = 0;
                self.view.read_at = Some(self.now);
                self.stale_at = self.now + FRESH;
                self.out.event(Event::View(Box::new(self.view.clone())));
                self.rest();
            }
            Err(cause) => self.failed(cause),
        }
    }

    /// An answer that is no success.
    fn refused(&mut self, question: Question, asking: Asking, reply: &Reply) {
        let (status, retry_after) = (reply.status, jsonrpc::retry_after(&reply.headers));
        let endpoint = &mut self.endpoints[self.at];
        if asking.refused(&mut endpoint.limit, status) {
            return self.ask_on(question, asking);
        }
        if status == 429 || retry_after.is_some() {
            let doubled = self
                .config
                .every
                .saturating_mul(2 << endpoint.strikes.min(16));
            endpoint.strikes = endpoint.strikes.saturating_add(1);
            let pause = retry_after.unwrap_or(doubled.min(MAX_BACK_OFF));
            endpoint.rests_until = self.now + pause;
        }
        self.failed(super::refusal(reply));
    }

    /// Takes an answer; the next question, or `None` if the view is complete.
    fn take(&mut self, question: Question, told: &[Told]) -> Result<Option<Question>, Cause> {
        match (question, told) {
            (
                Question::Contracts,
                [
                    Told::Number(chain_id),
                    Told::Data(broker),
                    Told::Data(rounds),
                ],
            ) => {
                let wanted = self.config.chain_id;
                if *chain_id != wanted {
                    return Err(Cause::WrongChain {
                        is: *chain_id,
                        wanted,
                    });
                }
                let contract = |told: &[u8], name| {
                    read_contract(told, self.config.controller, name).map_err(Cause::from)
                };
                let contracts = Contracts {
                    broker: contract(broker, "TicketBroker")?,
                    rounds: contract(rounds, "RoundsManager")?,
                };
                self.contracts = Some(contracts);
                Ok(Some(Question::Now(contracts)))
            }
            (Question::Now(of), [Told::Block(block), Told::Data(round), Told::Data(info)]) => {
                let mut view = self.view.clone();
                view.l1_block = onward(view.l1_block, block.l1_block, LAG_BLOCKS);
                view.senders
                    .insert(self.config.payer, read_sender_info(info)?);
                let round = onward(view.round, read_u64(round, 0)?, LAG_ROUNDS);
                if round == view.round && view.round_block_hash != [0; 32] {
                    self.view = view;
                    return Ok(None);
                }
                view.round = round;
                Ok(Some(Question::Hashes(of, Box::new(view))))
            }
            (Question::Hashes(_, mut view), [Told::Data(this), Told::Data(previous)]) => {
                view.round_block_hash = read_hash(this, 0)?;
                view.previous_round_block_hash = read_hash(previous, 0)?;
                self.view = *view;
                Ok(None)
            }
            _ => {
                let why = "it answers other questions";
                Err(WireError::new("the JSON-RPC answer", why).into())
            }
        }
    }

    fn failed(&mut self, cause: Cause) {
        self.errors.failed(&self.endpoints[self.at].url, &cause);
        let failure = super::failure(&self.endpoints[self.at].url, cause);
        self.out.event(Event::EndpointFailed(failure));
        self.contracts = None;
        self.failed += 1;
        self.at = (self.at + 1) % self.endpoints.len();
        if self.failed < self.endpoints.len() && self.begin() {
            return;
        }
        self.failed = 0;
        self.out.event(Event::Down);
        self.rest();
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        if self.stale_at <= self.now {
            self.stale_at = self.now + FRESH;
            let age = self.view.age(self.now).unwrap_or_default();
            self.out.event(Event::Stale(age));
        }
        match &mut self.state {
            State::Resting { until } if *until <= self.now => {
                self.begin();
            }
            State::Resting { .. } => {}
            State::Asking { exchange, .. } => {
                if let Some(cause) = exchange.late(&mut self.out, self.now) {
                    self.failed(cause);
                }
            }
        }
    }

    fn on_step(&mut self, id: EffectId, step: In) {
        let State::Asking { exchange, .. } = &mut self.state else {
            return;
        };
        if !exchange.owns(id) {
            return;
        }
        let reply = match exchange.step(&mut self.out, step) {
            None => return,
            Some(Err(cause)) => return self.failed(cause),
            Some(Ok(reply)) => reply,
        };
        let until = self.now;
        let state = core::mem::replace(&mut self.state, State::Resting { until });
        if let State::Asking {
            question, asking, ..
        } = state
        {
            if reply.is_success() {
                self.answered(question, asking, &reply.body);
            } else {
                self.refused(question, asking, &reply);
            }
        }
    }
}

/// The later of two readings. An endpoint may lag behind the one before it, and what has expired stays expired; but
/// if the difference is large, it was the earlier reading that was wrong.
const fn onward(before: u64, read: u64, lag: u64) -> u64 {
    if read < before && before - read <= lag {
        before
    } else {
        read
    }
}

impl Machine for ChainWatch {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        if let Input::Http(id, step) = input {
            self.on_step(id, step);
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        if let Some(output) = self.out.pop() {
            return output;
        }
        // With nobody to ask, nothing ever comes of it.
        if self.endpoints.is_empty() {
            return Output::Idle(None);
        }
        let until = match &self.state {
            State::Resting { until } => Some(*until),
            State::Asking { exchange, .. } => exchange.wake(),
        };
        Output::Idle(earlier(until, Some(self.stale_at)))
    }
}
