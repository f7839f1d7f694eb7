//! The walk through the contracts, question by question (handshake spec 7.2).
//!
//! ```text
//!   Changed? ──no──▶ done (as last time)
//!      │ yes, or the first time
//!      ▼
//!   Resolve ──▶ First ──▶ Next ─▶ … ─▶ Next ──▶ Details ─▶ … ─▶ Details ──▶ done
//!   controller  the pool, by falling stake,     URIs, stake and activity,
//!               one by one                      many at a time
//! ```

use alloc::collections::BTreeSet;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::contracts::{
    self, AI_SERVICE_REGISTRY, CONTROLLER, Contract, fixed_point, read_address, read_bool,
    read_number, read_text,
};
use crate::http::{Reach, Url};
use crate::sign::Address;
use crate::wire::WireError;
use crate::wire::ethereum::read_contract;
use crate::wire::jsonrpc::{Ask, BatchLimit, Told};
use crate::wire::listing::{self, Found, Listed, MAX_SKIPPED, Skipped};

/// At most this many orchestrators are in a pool; a walk that finds more goes in circles.
pub const MAX_POOL: usize = 1_000;

/// At most this many orchestrators' details are asked for at a time.
const DETAILS: usize = 25;

/// How many blocks of logs are looked at again: the two answers of a batch may be of different blocks, and another
/// endpoint may be behind. Looking twice costs a walk at most, missing one a stale list.
const OVERLAP: u64 = 50;

/// How to read the contracts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSource {
    /// A JSON-RPC endpoint of the chain.
    pub endpoint: Url,
    /// Further ones, the next one asked when one gives nothing.
    pub others: Vec<Url>,
    /// Where the contracts' addresses are read.
    pub controller: Address,
    /// The registry whose URI is preferred to the main one's; `None` for video gateways.
    pub ai_registry: Option<Address>,
}

impl ChainSource {
    /// Arbitrum One through this endpoint; `ai` says whether AI services are looked for.
    #[must_use]
    pub fn arbitrum(endpoint: Url, ai: bool) -> Self {
        Self {
            endpoint,
            others: Vec::new(),
            controller: CONTROLLER,
            ai_registry: ai.then_some(AI_SERVICE_REGISTRY),
        }
    }

    /// Reads another deployment, the one of `controller`. If that is not this one, the registry of AI services is
    /// dropped, since none is known there.
    #[must_use]
    pub fn of(mut self, controller: Address) -> Self {
        if controller != self.controller {
            self.controller = controller;
            self.ai_registry = None;
        }
        self
    }
}

/// The result of a walk that the next walk can build on.
#[derive(Clone, Debug)]
pub(super) struct Known {
    block: u64,
    bonding: Address,
    registry: Address,
    listed: Listed<Found>,
    limit: BatchLimit,
}

/// A walk under way.
#[derive(Debug)]
pub(super) struct Walk {
    source: ChainSource,
    state: State,
    known: Option<Known>,
    block: u64,
    bonding: Address,
    registry: Address,
    pool: Vec<Address>,
    seen: BTreeSet<Address>,
    listed: Listed<Found>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Changed,
    Resolve,
    First,
    Next,
    /// From that one on.
    Details(usize),
}

/// The next step of a walk.
pub(super) enum Step {
    Ask,
    Done,
}

impl Walk {
    pub(super) fn new(source: ChainSource, known: Option<Known>) -> Self {
        Self {
            source,
            state: if known.is_some() {
                State::Changed
            } else {
                State::Resolve
            },
            known,
            block: 0,
            bonding: Address::ZERO,
            registry: Address::ZERO,
            pool: Vec::new(),
            seen: BTreeSet::new(),
            listed: (Vec::new(), Vec::new()),
        }
    }

    /// How many questions the first endpoint took at a time.
    pub(super) fn limit(&self) -> BatchLimit {
        self.known
            .as_ref()
            .map(|known| known.limit)
            .unwrap_or_default()
    }

    /// Ends the walk: returns the orchestrators found and the knowledge for the next walk. `limit` is how many
    /// questions the endpoint took at a time.
    pub(super) fn finish(&mut self, limit: BatchLimit) -> (Listed<Found>, Option<Known>) {
        if let (State::Changed, Some(known)) = (self.state, self.known.take()) {
            return (known.listed.clone(), Some(Known { limit, ..known }));
        }
        let listed = core::mem::take(&mut self.listed);
        let known = Known {
            block: self.block,
            bonding: self.bonding,
            registry: self.registry,
            listed: listed.clone(),
            limit,
        };
        (listed, Some(known))
    }

    /// The questions of this step.
    pub(super) fn asks(&self) -> Vec<Ask> {
        let call = |to: Address, data: Vec<u8>| Ask::Call { to, data };
        match self.state {
            State::Changed => {
                let known = self
                    .known
                    .as_ref()
                    .expect("only a second walk asks for changes");
                let mut of = alloc::vec![known.bonding, known.registry];
                of.extend(self.source.ai_registry);
                let topics = contracts::topics().to_vec();
                let from = known.block + 1;
                alloc::vec![Ask::BlockNumber, Ask::Logs { from, of, topics }]
            }
            State::Resolve => {
                let of = |which| call(self.source.controller, contracts::get_contract(which));
                alloc::vec![
                    Ask::BlockNumber,
                    of(Contract::BondingManager),
                    of(Contract::ServiceRegistry)
                ]
            }
            State::First => alloc::vec![call(self.bonding, contracts::get_first_in_pool())],
            State::Next => {
                let last = self.pool.last().copied().unwrap_or_default();
                alloc::vec![call(self.bonding, contracts::get_next_in_pool(last))]
            }
            State::Details(from) => {
                let some = self.pool.iter().skip(from).take(DETAILS);
                let mut asks = Vec::new();
                for who in some {
                    asks.push(call(self.bonding, contracts::is_active(*who)));
                    asks.push(call(self.bonding, contracts::total_stake(*who)));
                    asks.push(call(self.registry, contracts::get_service_uri(*who)));
                    if let Some(ai) = self.source.ai_registry {
                        asks.push(call(ai, contracts::get_service_uri(*who)));
                    }
                }
                asks
            }
        }
    }

    /// Takes the answers to this step's questions, in their order.
    pub(super) fn told(&mut self, told: &[Told]) -> Result<Step, WireError> {
        match self.state {
            State::Changed => {
                let [Told::Number(block), Told::Logs(logs)] = told else {
                    return Err(short());
                };
                if *logs > 0 {
                    self.state = State::Resolve;
                    return Ok(Step::Ask);
                }
                if let Some(known) = &mut self.known {
                    known.block = known.block.max(block.saturating_sub(OVERLAP));
                }
                Ok(Step::Done)
            }
            State::Resolve => {
                let [
                    Told::Number(block),
                    Told::Data(bonding),
                    Told::Data(registry),
                ] = told
                else {
                    return Err(short());
                };
                self.block = block.saturating_sub(OVERLAP);
                let controller = self.source.controller;
                self.bonding = read_contract(bonding, controller, "BondingManager")?;
                self.registry = read_contract(registry, controller, "ServiceRegistry")?;
                self.state = State::First;
                Ok(Step::Ask)
            }
            State::First | State::Next => {
                let [Told::Data(who)] = told else {
                    return Err(short());
                };
                let who = read_address(who)?;
                self.state = if who.is_zero() {
                    State::Details(0)
                } else {
                    State::Next
                };
                if who.is_zero() {
                    return Ok(if self.pool.is_empty() {
                        Step::Done
                    } else {
                        Step::Ask
                    });
                }
                // The pool may be sorted anew between two questions, and then the walk meets somebody again.
                if !self.seen.insert(who) || self.pool.len() == MAX_POOL {
                    self.state = State::Details(0);
                } else {
                    self.pool.push(who);
                }
                Ok(Step::Ask)
            }
            State::Details(from) => {
                let each = if self.source.ai_registry.is_some() {
                    4
                } else {
                    3
                };
                for (offset, told) in told.chunks(each).enumerate() {
                    let at = from + offset;
                    let who = self.pool.get(at).copied().ok_or_else(short)?;
                    match details(who, told, &self.source) {
                        Ok(None) => {}
                        Ok(Some(found)) => self.listed.0.push(found),
                        Err(why) if self.listed.1.len() < MAX_SKIPPED => {
                            self.listed.1.push(Skipped { at, why });
                        }
                        Err(_) => {}
                    }
                }
                let next = from + DETAILS;
                if next >= self.pool.len() {
                    return Ok(Step::Done);
                }
                self.state = State::Details(next);
                Ok(Step::Ask)
            }
        }
    }
}

/// Reads the details of an orchestrator; `None` if it is inactive or registered nowhere.
fn details(
    who: Address,
    told: &[Told],
    source: &ChainSource,
) -> Result<Option<Found>, alloc::string::String> {
    let mut data = told.iter().map(|told| match told {
        Told::Data(data) => Ok(data.as_slice()),
        _ => Err(short().to_string()),
    });
    let mut next = || data.next().unwrap_or_else(|| Err(short().to_string()));
    let words = |err: WireError| err.to_string();
    let active = read_bool(next()?).map_err(words)?;
    let stake = read_number(next()?).map_err(words)?;
    let main = read_text(next()?).map_err(words)?;
    let ai = match told.len() {
        4 => read_text(next()?).map_err(words)?,
        _ => alloc::string::String::new(),
    };
    let uri = if ai.trim().is_empty() { main } else { ai };
    if !active || uri.trim().is_empty() {
        return Ok(None);
    }
    // Whoever registered it named it, and not the endpoint that shows it, be that a node of our own. Another deployment
    // than the public one is as private as its endpoint.
    let url = listing::read_address(&uri)?.told();
    let public = source.controller == CONTROLLER && source.endpoint.reach() != Reach::Open;
    let url = if public {
        url.as_written()
    } else {
        url.named_by(&source.endpoint)
    };
    let mut found = Found::at(url.map_err(|forbidden| forbidden.to_string())?);
    found.account = Some(who);
    found.stake = Some(fixed_point(&stake));
    Ok(Some(found))
}

fn short() -> WireError {
    WireError::new("the JSON-RPC answer", "it answers other questions")
}
