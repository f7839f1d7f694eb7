//! The price of a dollar, from a contract that publishes that of ETH (operations spec 2.3 and 8.3).
//!
//! ```text
//!   Off ── follow ──▶ Asking ── a newer price: Priced; one that is none: Bad ──▶ Resting until the next full hour
//!    ▲                 ▲  │ no endpoint answers
//!    │                 └──┤ after 30, 60, 120 and 240 s
//!   stop                  ├── the fifth time: GaveUp ──▶ Resting
//!                         └── the contract is none for ETH and dollars: Unfit ──▶ Off
//! ```
//! Gateways read at the full hour so that they change together. The last good price stays, however old: [`Event::Stale`]
//! says that it is.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::ToPrimitive as _;

use crate::currency::{Feed, WEI_PER_ETH};
use crate::error::{Cause, Failure};
use crate::exchange::{Exchange, Reply};
use crate::figures::Endpoints;
use crate::http::{In, Trust, Url};
use crate::machine::{EffectId, Input, Machine, Outbox, Output, earlier};
use crate::money::Amount;
use crate::sign::Address;
use crate::time::Time;
use crate::wire::WireError;
use crate::wire::ethereum::{call, read_feed_round, read_text, read_u64};
use crate::wire::jsonrpc::{Ask, Asking, BatchLimit, Told};

/// A price that is older than this is told to be stale: feeds are silent for a day at most.
pub const STALE: Duration = Duration::from_secs(24 * 3600);

/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(5);
/// How long after a reading that failed the first one follows; each further one takes twice as long.
const AGAIN: Duration = Duration::from_secs(30);
/// At most this many readings in a row that fail.
const MAX_TRIES: u32 = 5;
/// At most this many places behind the point.
const MAX_DECIMALS: u64 = 77;
/// How far the clock of a contract may be ahead of ours.
const AHEAD: Duration = Duration::from_secs(3600);

/// Settings of a [`PriceFeed`].
#[derive(Clone, Debug)]
pub struct Config {
    /// JSON-RPC endpoints, in order of preference. Their paths may be secret and are never told.
    pub endpoints: Vec<Url>,
    /// The chain that they must serve.
    pub chain_id: u64,
    /// Certificates that are good enough for endpoints.
    pub trust: Trust,
}

/// A price that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The price of a dollar in wei, exactly.
    pub wei_per_usd: Amount,
    /// When the contract got it.
    pub updated_at: Time,
}

impl Reading {
    /// The price of an ETH in dollars, for people to look at.
    #[must_use]
    pub fn usd_per_eth(&self) -> f64 {
        let wei = BigRational::from_integer(WEI_PER_ETH.into());
        (wei / self.wei_per_usd.as_ratio())
            .to_f64()
            .unwrap_or_default()
    }
}

/// An event of a [`PriceFeed`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Another price.
    Priced(Reading),
    /// The contract says no price of ETH in dollars; it is not asked again.
    Unfit(String),
    /// The contract's answer cannot be a price; the last one stays.
    Bad(String),
    /// An endpoint did not do; the next one is asked.
    EndpointFailed(Failure),
    /// No endpoint answered for a while; the last price stays until the next full hour.
    GaveUp,
    /// The last price is so old, and stays. Told once for each price.
    Stale(Duration),
}

#[derive(Debug)]
enum State {
    Off,
    Resting { until: Time },
    Asking { asking: Asking, exchange: Exchange },
}

/// Reads a price from time to time. See the [module](self).
#[derive(Debug)]
pub struct PriceFeed {
    now: Time,
    config: Config,
    limits: Vec<BatchLimit>,
    /// The endpoint in use.
    at: usize,
    /// Endpoints in a row that failed.
    failed: usize,
    errors: Endpoints,
    /// Readings in a row that failed.
    tries: u32,
    contract: Option<Address>,
    reading: Option<Reading>,
    stale_at: Option<Time>,
    state: State,
    out: Outbox<Event>,
}

impl PriceFeed {
    /// A feed that follows nothing yet.
    #[must_use]
    pub fn new(now: Time, mut config: Config) -> Self {
        let endpoints = config.endpoints.into_iter().map(Url::hide_path);
        config.endpoints = endpoints.collect();
        Self {
            now,
            limits: vec![BatchLimit::default(); config.endpoints.len()],
            config,
            at: 0,
            failed: 0,
            errors: Endpoints::default(),
            tries: 0,
            contract: None,
            reading: None,
            stale_at: None,
            state: State::Off,
            out: Outbox::default(),
        }
    }

    /// Reads that contract from now on. The price of another one is forgotten.
    pub fn follow(&mut self, now: Time, contract: Address) {
        self.advance(now);
        if self.contract == Some(contract) {
            return;
        }
        self.stop(now);
        self.contract = Some(contract);
        self.ask();
    }

    /// Reads nothing any more, and forgets the price.
    pub fn stop(&mut self, now: Time) {
        self.advance(now);
        if let State::Asking { exchange, .. } = &mut self.state {
            exchange.abort(&mut self.out);
        }
        (self.failed, self.tries) = (0, 0);
        (self.contract, self.reading, self.stale_at) = (None, None, None);
        self.state = State::Off;
    }

    /// Questions that failed so far.
    #[must_use]
    pub const fn errors(&self) -> &Endpoints {
        &self.errors
    }

    /// Asks these endpoints from now on, the first one at once. The last good price stays.
    pub fn set_endpoints(&mut self, now: Time, endpoints: Vec<Url>) {
        self.advance(now);
        if self.config.endpoints == endpoints {
            return;
        }
        if let State::Asking { exchange, .. } = &mut self.state {
            exchange.abort(&mut self.out);
        }
        self.state = State::Off;
        self.limits = vec![BatchLimit::default(); endpoints.len()];
        self.config.endpoints = endpoints.into_iter().map(Url::hide_path).collect();
        (self.at, self.failed, self.tries) = (0, 0, 0);
        self.ask();
    }

    /// The last good price.
    #[must_use]
    pub const fn reading(&self) -> Option<&Reading> {
        self.reading.as_ref()
    }

    /// Asks the endpoint in use, if there is one, about the contract, if there is one.
    fn ask(&mut self) {
        let Some(to) = self.contract.filter(|_| !self.config.endpoints.is_empty()) else {
            return;
        };
        let read = |signature: &str| Ask::Call {
            to,
            data: call(signature, &[]),
        };
        self.ask_on(Asking::new(vec![
            Ask::ChainId,
            read("description()"),
            read("decimals()"),
            read("latestRoundData()"),
        ]));
    }

    /// Asks what is left to ask.
    fn ask_on(&mut self, asking: Asking) {
        let to = (&self.config.endpoints[self.at], self.config.trust, WITHIN);
        let limit = self.limits[self.at];
        let exchange = super::ask(&mut self.out, self.now, to, &asking, limit);
        self.state = State::Asking { asking, exchange };
    }

    fn answered(&mut self, mut asking: Asking, reply: &Reply) {
        let limit = &mut self.limits[self.at];
        if !reply.is_success() {
            if asking.refused(limit, reply.status) {
                return self.ask_on(asking);
            }
            return self.endpoint_failed(super::refusal(reply));
        }
        match asking.answered(limit, &reply.body) {
            Ok(None) => self.ask_on(asking),
            Ok(Some(told)) => match self.take(&told) {
                Ok(()) => (self.failed, self.tries) = (0, 0),
                Err(cause) => self.endpoint_failed(cause),
            },
            Err(err) => self.endpoint_failed(err.into()),
        }
    }

    /// Takes the answers; it fails if they are the endpoint's fault.
    fn take(&mut self, told: &[Told]) -> Result<(), Cause> {
        let [
            Told::Number(chain_id),
            Told::Data(description),
            Told::Data(decimals),
            Told::Data(round),
        ] = told
        else {
            let why = "it answers other questions";
            return Err(WireError::new("the JSON-RPC answer", why).into());
        };
        let wanted = self.config.chain_id;
        if *chain_id != wanted {
            return Err(Cause::WrongChain {
                is: *chain_id,
                wanted,
            });
        }
        let about = read_text(description).and_then(|text| Ok((text, read_u64(decimals, 0)?)));
        let pair = match about {
            Ok((text, decimals)) => Pair::read(&text, decimals),
            // What a call to an address without code comes back with.
            Err(_) => Err("there is no price feed at that address".into()),
        };
        let pair = match pair {
            Ok(pair) => pair,
            Err(why) => {
                self.state = State::Off;
                self.out.event(Event::Unfit(why));
                return Ok(());
            }
        };
        let round = read_feed_round(round)?;
        self.rest();
        let updated_at = Time::from_secs(round.updated_at);
        let price = round.answer.as_ref();
        let why = match price.and_then(|answer| pair.price(answer).wei_per_usd()) {
            None => "its answer is not above zero",
            Some(_) if round.answered_in < round.round => "its answer is of an earlier round",
            Some(_) if updated_at > self.now + AHEAD => "its answer is of a time to come",
            Some(wei_per_usd) => {
                let last = self.reading.as_ref();
                if last.is_none_or(|last| last.updated_at < updated_at) {
                    self.priced(Reading {
                        wei_per_usd,
                        updated_at,
                    });
                }
                return Ok(());
            }
        };
        self.out.event(Event::Bad(why.into()));
        Ok(())
    }

    fn priced(&mut self, reading: Reading) {
        self.stale_at = Some(reading.updated_at + STALE);
        self.reading = Some(reading.clone());
        self.out.event(Event::Priced(reading));
        self.tell_stale();
    }

    fn tell_stale(&mut self) {
        if let (Some(at), Some(reading)) = (self.stale_at, &self.reading)
            && at <= self.now
        {
            self.stale_at = None;
            let age = self.now.since(reading.updated_at);
            self.out.event(Event::Stale(age));
        }
    }

    /// Rests until the next full hour.
    fn rest(&mut self) {
        const HOUR: u64 = 3_600;
        let next = self.now.as_secs() / HOUR + 1;
        self.state = State::Resting {
            until: Time::from_secs(next * HOUR),
        };
    }

    fn endpoint_failed(&mut self, cause: Cause) {
        self.errors.failed(&self.config.endpoints[self.at], &cause);
        let failure = super::failure(&self.config.endpoints[self.at], cause);
        self.out.event(Event::EndpointFailed(failure));
        self.at = (self.at + 1) % self.config.endpoints.len();
        self.failed += 1;
        if self.failed < self.config.endpoints.len() {
            return self.ask();
        }
        self.failed = 0;
        self.tries += 1;
        if self.tries < MAX_TRIES {
            let until = self.now + AGAIN * (1 << (self.tries - 1));
            self.state = State::Resting { until };
        } else {
            self.tries = 0;
            self.out.event(Event::GaveUp);
            self.rest();
        }
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.tell_stale();
        match &mut self.state {
            State::Resting { until } if *until <= self.now => self.ask(),
            State::Resting { .. } | State::Off => {}
            State::Asking { exchange, .. } => {
                if let Some(cause) = exchange.late(&mut self.out, self.now) {
                    self.endpoint_failed(cause);
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
            Some(Err(cause)) => return self.endpoint_failed(cause),
            Some(Ok(reply)) => reply,
        };
        let state = core::mem::replace(&mut self.state, State::Off);
        if let State::Asking { asking, .. } = state {
            self.answered(asking, &reply);
        }
    }
}

impl Machine for PriceFeed {
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
        let until = match &self.state {
            State::Off => None,
            State::Resting { until } => Some(*until),
            State::Asking { exchange, .. } => exchange.wake(),
        };
        Output::Idle(earlier(until, self.stale_at))
    }
}

/// The meaning of a contract's numbers.
#[derive(Clone, Copy, Debug)]
struct Pair {
    /// Whether it says the price of a dollar in ETH, and not the other way round.
    of_a_dollar: bool,
    decimals: u32,
}

impl Pair {
    /// Reads a description, such as `ETH / USD`.
    fn read(description: &str, decimals: u64) -> Result<Self, String> {
        let unfit = || format!("it says the price of {description:?}, not of ETH / USD");
        let (one, other) = description.split_once('/').ok_or_else(unfit)?;
        let is = |text: &str, word: &str| text.trim().eq_ignore_ascii_case(word);
        let of_a_dollar = match () {
            () if is(one, "ETH") && is(other, "USD") => false,
            () if is(one, "USD") && is(other, "ETH") => true,
            () => return Err(unfit()),
        };
        match u32::try_from(decimals) {
            Ok(places) if decimals <= MAX_DECIMALS => Ok(Self {
                of_a_dollar,
                decimals: places,
            }),
            _ => Err(format!("it has {decimals} places behind the point")),
        }
    }

    /// The price that an answer says.
    fn price(self, answer: &BigInt) -> Feed {
        let price = BigRational::new(answer.clone(), BigInt::from(10).pow(self.decimals));
        if self.of_a_dollar {
            Feed::EthPerUsd(price)
        } else {
            Feed::UsdPerEth(price)
        }
    }
}
