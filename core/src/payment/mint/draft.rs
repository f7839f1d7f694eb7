//! A payment while it is being decided: one stage of checks after the other.

use alloc::format;
use alloc::string::{String, ToString as _};
use core::time::Duration;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::ToPrimitive as _;

use super::order::{Billed, Order};
use super::{Plan, Policy, Refusal, UNCHECKED, named, refresh, short_id};
use crate::capabilities::Capabilities;
use crate::chain::ChainView;
use crate::money::{Amount, Price};
use crate::payment::auth::TOKEN_RENEWAL;
use crate::payment::ledger::{Minting, min_credit, tickets_for, worth};
use crate::payment::nonce::{RandHash, SenderNonces};
use crate::payment::price::{Ceiling, check_ceilings};
use crate::payment::sender::{BadParams, check_params};
use crate::payment::ticket::expected_value;
use crate::rng::Rng;
use crate::time::Time;
use crate::units::Unit;
use crate::wire::signer::{Quote, STATUS_NO_TICKETS, STATUS_PRICE};
use crate::wire::{SegmentCredentials, SignerState, TicketParams};

/// The facts that a payment is decided from, beside its order and what is remembered of the session.
#[derive(Clone, Copy)]
pub(in crate::payment) struct Facts<'a> {
    pub(in crate::payment) now: Time,
    pub(in crate::payment) policy: &'a Policy,
    pub(in crate::payment) chain: &'a ChainView,
    pub(in crate::payment) quote: &'a Quote,
    /// The last nonce known to be used under the quote.
    pub(in crate::payment) used: u32,
}

/// A payment that is being decided. The stages are called in the order in which they stand here, each once: the first
/// check that fails is the answer (payments spec 12.3).
pub(super) struct Draft<'a> {
    facts: Facts<'a>,
    price: Price,
    params: TicketParams,
    state: SignerState,
    /// Whether the session is new.
    first: bool,
    nonces: SenderNonces,
}

impl<'a> Draft<'a> {
    /// Opens the quote, and the memory of the session if it fits (steps 1, 2 and 4). `recall` yields the memory, `None`
    /// for a new session.
    pub(super) fn open(
        facts: Facts<'a>,
        rng: &mut Rng,
        recall: impl FnOnce() -> Result<Option<SignerState>, Refusal>,
        app: &str,
        job_type: &str,
    ) -> Result<Self, Refusal> {
        let Facts { quote, used, .. } = facts;
        let price = quote
            .price
            .filter(|price| !price.is_free())
            .ok_or_else(|| Refusal::bad("missing or zero priceInfo"))?;
        let params = quote
            .ticket_params
            .clone()
            .ok_or_else(|| Refusal::bad("missing ticketParams in OrchestratorInfo"))?;
        let recalled = recall()?;
        let first = recalled.is_none();
        let state = match recalled {
            None => SignerState {
                state_id: short_id(rng),
                orchestrator: quote.address,
                app: app.into(),
                initial_price_per_unit: price.wei(),
                initial_pixels_per_unit: price.per(),
                job_type: job_type.into(),
                ..SignerState::default()
            },
            Some(state) => continued(state, app, job_type, quote)?,
        };
        let hash = params.recipient_rand_hash;
        let last = if state.pm_session_id == session_id(&hash) {
            state.sender_nonce
        } else {
            0
        };
        Ok(Self {
            facts,
            price,
            params,
            state,
            first,
            nonces: SenderNonces::new(hash, last.max(used)),
        })
    }

    /// Checks that a session that goes on has the job's name (step 3).
    pub(super) fn check_name(&self, manifest_id: &str) -> Result<(), Refusal> {
        if manifest_id.is_empty() && !self.first {
            return Err(Refusal::bad("missing manifestID"));
        }
        Ok(())
    }

    /// Checks whether the quote is still good, or a fresh one has to come first (step 5).
    pub(super) fn check_quote(&self) -> Result<(), Refusal> {
        let Facts {
            now,
            policy,
            chain,
            quote,
            ..
        } = self.facts;
        if self.nonces.worn() {
            return Err(refresh(&quote.transcoder));
        }
        let token = quote
            .auth_token
            .as_ref()
            .ok_or_else(|| Refusal::bad(format!("{UNCHECKED}: missing auth token")))?;
        if now + TOKEN_RENEWAL > token.expiration {
            return Err(refresh(&quote.transcoder));
        }
        match check_params(Some(&self.params), 1, &policy.limits, chain, policy.address) {
            Ok(()) => Ok(()),
            Err(BadParams::Expired) => Err(refresh(&quote.transcoder)),
            Err(err) => Err(Refusal::bad(format!("{UNCHECKED}: {err}"))),
        }
    }

    /// Counts the units to bill (step 6).
    pub(super) fn units(&self, billed: Billed) -> Result<u64, Refusal> {
        let units = match billed {
            // Of a session that was never billed no time counts, but what is paid ahead.
            Billed::Elapsed(unit) if self.state.last_update == Time::ZERO => {
                unit.billable(Duration::ZERO)
            }
            Billed::Elapsed(unit) => unit.billable(self.facts.now.since(self.state.last_update)),
            Billed::Units(units) => units,
        };
        match units {
            0 => Err(Refusal::bad("missing billable unit or job type")),
            units => Ok(units),
        }
    }

    /// Checks the price, and counts and numbers the tickets (steps 7 to 10).
    pub(super) fn finish(self, rng: &mut Rng, units: u64, order: Order) -> Result<Plan, Refusal> {
        let Facts {
            now,
            policy,
            chain,
            quote,
            ..
        } = self.facts;
        let Self {
            price,
            params,
            mut state,
            first,
            mut nonces,
            ..
        } = self;
        let capabilities = order.capabilities.map(Capabilities::in_credentials);
        let manifest_id = named(order.manifest_id, rng);
        let initial = Price::new(state.initial_price_per_unit, state.initial_pixels_per_unit)
            .filter(|price| !price.is_free())
            .ok_or_else(|| Refusal::bad("invalid initial price in state"))?;
        check_price(
            policy,
            price,
            order.ceiling,
            (!first).then_some(initial),
            capabilities.as_ref(),
        )?;

        let fee = initial.fee(units);
        let ev = expected_value(&params.face_value, &params.win_prob);
        let ahead = match order.billed {
            Billed::Elapsed(unit @ (Unit::PixelSeconds | Unit::Seconds)) if !first => {
                let price_of = |time| initial.fee(unit.billable(time));
                Some(Ahead {
                    prepaid: price_of(Duration::ZERO),
                    reserve: price_of(unit.reserve()),
                })
            }
            // What is paid once is not paid ahead, and a first payment is all ahead.
            _ => None,
        };
        let existing = state.balance.clone();
        let tickets = count_tickets(policy, &fee, &existing, &ev, ahead.as_ref())?;
        let params = with_round(params, chain);
        check_params(
            Some(&params),
            tickets,
            &policy.limits,
            chain,
            policy.address,
        )
        .map_err(|err| Refusal::new(500, err.to_string()))?;
        let nonces = u32::try_from(tickets)
            .ok()
            .and_then(|count| nonces.issue(count))
            .ok_or_else(|| refresh(&quote.transcoder))?;

        let value = worth(tickets, &ev);
        state.balance = existing.clone() + value.clone() - fee.clone();
        state.last_update = now;
        state.pm_session_id = session_id(&params.recipient_rand_hash);
        state.sender_nonce = *nonces.end();
        state.job_type = order.billed.job_type().into();
        Ok(Plan {
            state,
            params,
            price,
            nonces,
            fee,
            units,
            value,
            existing,
            credentials: SegmentCredentials::for_payment(
                manifest_id,
                quote.auth_token.clone(),
                capabilities,
            ),
            orchestrator_url: quote.transcoder.clone(),
        })
    }
}

/// The text form of a commitment.
fn session_id(hash: &RandHash) -> String {
    format!("0x{}", hex::encode(hash))
}

fn continued(
    mut state: SignerState,
    app: &str,
    job_type: &str,
    quote: &Quote,
) -> Result<SignerState, Refusal> {
    if state.orchestrator != quote.address {
        return Err(Refusal::bad("orchestratorAddress mismatch"));
    }
    if state.app != app {
        return Err(Refusal::bad("app mismatch"));
    }
    if !state.job_type.is_empty() && state.job_type != job_type {
        return Err(Refusal::bad("job type mismatch"));
    }
    state.sequence_number = state.sequence_number.saturating_add(1);
    Ok(state)
}

fn check_price(
    policy: &Policy,
    quoted: Price,
    requested: Option<BigRational>,
    initial: Option<Price>,
    capabilities: Option<&Capabilities>,
) -> Result<(), Refusal> {
    let ceiling = |name| move |price| Ceiling { name, price };
    let configured = match capabilities {
        Some(wanted) => policy.ceilings.limit(wanted),
        None => policy.ceilings.limit(&Capabilities::default()),
    };
    let most = if policy.may_double { 2 } else { 1 };
    let initial = initial.map(|price| price.of_one().as_ratio() * BigInt::from(most));
    let ceilings = [
        configured
            .map(|price| price.as_ratio().clone())
            .map(ceiling("configured maximum price")),
        requested.map(ceiling("request maxPrice")),
        initial.map(ceiling("initial session price")),
    ];
    check_ceilings(quoted.of_one().as_ratio(), ceilings.into_iter().flatten())
        .map_err(|err| Refusal::new(STATUS_PRICE, err.to_string()))
}

/// The amounts that a metered job has paid ahead.
struct Ahead {
    /// The first payment's fee. A session's balance does not hold it, but the recipient has it.
    prepaid: Amount,
    /// The price of the time that the recipient is to have at hand at least.
    reserve: Amount,
}

/// How many tickets to make; of a job that is paid `ahead`, none while enough is left, if the policy says so.
fn count_tickets(
    policy: &Policy,
    fee: &Amount,
    existing: &Amount,
    ev: &Amount,
    ahead: Option<&Ahead>,
) -> Result<u64, Refusal> {
    let none = || Refusal::new(STATUS_NO_TICKETS, "no tickets");
    let early = match (policy.minting, ahead) {
        (Minting::Early, Some(ahead)) if ev.is_positive() => {
            let left = existing.clone() + ahead.prepaid.clone() - fee.clone();
            let reserve = min_credit(&ahead.reserve, ev);
            if left >= reserve {
                return Err(none());
            }
            // What is made ahead must not break a limit that what is needed keeps.
            let affordable = (policy.limits.max_total_ev.as_ratio() / ev.as_ratio())
                .to_integer()
                .to_u64()
                .unwrap_or(u64::MAX);
            tickets_for(&reserve, &left, ev)
                .min(affordable)
                .min(policy.max_tickets)
        }
        _ => 0,
    };
    let needed = tickets_for(&min_credit(fee, ev), existing, ev);
    if needed > policy.max_tickets {
        return Err(Refusal::bad(format!(
            "numTickets {needed} exceeds maximum of {}",
            policy.max_tickets
        )));
    }
    match needed.max(early) {
        0 => Err(none()),
        tickets => Ok(tickets),
    }
}

/// Fills in the chain's own round if the quote has none.
fn with_round(mut params: TicketParams, chain: &ChainView) -> TicketParams {
    if params.creation_round == 0 || params.creation_round_block_hash == [0; 32] {
        params.creation_round = i64::try_from(chain.round).unwrap_or(i64::MAX);
        params.creation_round_block_hash = chain.round_block_hash;
    }
    params
}
