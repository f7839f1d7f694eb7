//! How a payment is decided, up to the signatures: a pure function of request, memory, chain and clock, in the
//! reference's order of checks (payments spec 12.3). A remote signer and a gateway with its own key decide alike.

use alloc::format;
use alloc::string::{String, ToString as _};
use core::ops::RangeInclusive;
use core::time::Duration;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::ToPrimitive as _;

use super::auth::TOKEN_RENEWAL;
use super::ledger::{Minting, min_credit, tickets_for, worth};
use super::nonce::{REFRESH_NONCE, RandHash, SenderNonces};
use super::price::{Ceiling, check_ceilings};
use super::sender::{BadParams, SenderLimits, check_params};
use super::ticket::{Ticket, expected_value};
use crate::capabilities::{Capabilities, Ceilings};
use crate::chain::ChainView;
use crate::money::{Amount, Price};
use crate::rng::Rng;
use crate::sign::{Address, Digest, Signature};
use crate::time::Time;
use crate::units::Unit;
use crate::wire::signer::{
    PaymentRequest, Quote, STATUS_NO_TICKETS, STATUS_PRICE, STATUS_REFRESH, credential_capabilities,
};
use crate::wire::{Payment, SegmentCredentials, SenderParams, SignerState, TicketParams};

/// A remote signer makes no more tickets in one payment.
pub const MAX_TICKETS: u64 = 100;

/// At most this many tickets are in one payment of an own key: after that a fresh quote is due. Their value is limited
/// too (payments spec 7.3).
pub const OWN_KEY_TICKETS: u64 = REFRESH_NONCE as u64;

/// The words that a remote signer puts before the cause when a quote is no good.
const UNCHECKED: &str = "remote signer could not check whether to refresh session";

/// An answer other than a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The message for the log. Callers see it too, except with status 500 and 503.
    pub message: String,
    /// The URL to get a fresh quote from, if the refusal asks for one.
    pub orchestrator_url: Option<String>,
}

impl Refusal {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            orchestrator_url: None,
        }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// The message without the words in which a remote signer speaks of itself.
    #[must_use]
    pub fn own_words(&self) -> &str {
        let words = self.message.strip_prefix(UNCHECKED);
        words.map_or(&*self.message, |words| words.trim_start_matches(": "))
    }

    /// The message that the caller is told.
    #[must_use]
    pub fn public_message(&self) -> &str {
        match self.status {
            500 => "Internal Server Error",
            503 => "Service Unavailable Error",
            _ => &self.message,
        }
    }
}

/// A payment that is decided, but not signed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The state that the session's next request has to bring back. The identity of the caller is still the old one.
    pub state: SignerState,
    /// The quote, with the round filled in if the orchestrator left it out.
    pub params: TicketParams,
    /// The price quoted.
    pub price: Price,
    /// The nonces of the tickets.
    pub nonces: RangeInclusive<u32>,
    /// The fee that is billed.
    pub fee: Amount,
    /// How many units that are.
    pub units: u64,
    /// The value of the tickets.
    pub value: Amount,
    /// The balance before the payment.
    pub existing: Amount,
    /// The credentials to sign.
    pub credentials: SegmentCredentials,
    /// Where to get a fresh quote.
    pub orchestrator_url: String,
}

/// Rules for the payments that a payer is willing to sign.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The account that pays.
    pub address: Address,
    /// Limits on the tickets.
    pub limits: SenderLimits,
    /// At most this many tickets are made in one payment.
    pub max_tickets: u64,
    /// Prices above which no quote is taken.
    pub ceilings: Ceilings,
    /// When tickets are made.
    pub minting: Minting,
    /// Whether a session goes on under a quote that asks up to twice its first price. Billed is the first price.
    pub may_double: bool,
}

impl Policy {
    /// As [`Policy::new`], for a gateway that pays with its own key. The reference has no limit on the number of tickets
    /// there, and lets later quotes ask up to twice the first price, which stays the one that is billed.
    #[must_use]
    pub fn own_key(address: Address) -> Self {
        Self {
            max_tickets: OWN_KEY_TICKETS,
            may_double: true,
            ..Self::new(address)
        }
    }

    /// The reference's limits for an account with a remote signer, no ceilings, early minting.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self {
            address,
            limits: SenderLimits::default(),
            max_tickets: MAX_TICKETS,
            ceilings: Ceilings::default(),
            minting: Minting::default(),
            may_double: false,
        }
    }
}

/// Decides a request to a remote signer, whose memory comes along in a blob that it signed.
///
/// # Errors
/// The first check that fails.
pub fn plan(
    now: Time,
    policy: &Policy,
    chain: &ChainView,
    rng: &mut Rng,
    request: &PaymentRequest,
) -> Result<Plan, Refusal> {
    plan_knowing(now, policy, chain, rng, request, |_, _| false, |_| 0)
}

/// As [`plan`], for a signer that may know by itself that it made the signature of a blob with that digest, and so
/// spares looking at it again, and which nonce it used last under a quote.
pub(super) fn plan_knowing(
    now: Time,
    policy: &Policy,
    chain: &ChainView,
    rng: &mut Rng,
    request: &PaymentRequest,
    knows: impl FnOnce(Digest, &Signature) -> bool,
    used: impl FnOnce(&RandHash) -> u32,
) -> Result<Plan, Refusal> {
    let raw = request
        .orchestrator
        .as_ref()
        .ok_or_else(|| Refusal::bad("missing orchestrator"))?;
    let quote = Quote::decode(raw).map_err(|err| Refusal::bad(err.to_string()))?;
    let recall = || {
        if request.state.is_empty() {
            return Ok(None);
        }
        let digest = Digest::personal(&request.state.state);
        Signature::from_slice(&request.state.sig)
            .and_then(|sig| match knows(digest, &sig) {
                true => Ok(()),
                false => sig.verify(digest, policy.address),
            })
            .map_err(|_| Refusal::bad("invalid sig"))?;
        SignerState::from_json(&request.state.state)
            .map(Some)
            .map_err(|_| Refusal::bad("invalid state"))
    };
    let used = quote
        .ticket_params
        .as_ref()
        .map_or(0, |params| used(&params.recipient_rand_hash));
    decide(now, policy, chain, rng, &quote, used, recall, request)
}

/// Decides a payment. `used` is the last nonce known to be used under the quote, `recall` yields what is remembered
/// of the session, `None` for a new one; of `request` the quote and the blob are not looked at.
///
/// # Errors
/// The first check that fails.
#[allow(
    clippy::too_many_arguments,
    reason = "each is a fact of its own, and there are two callers"
)]
pub fn decide(
    now: Time,
    policy: &Policy,
    chain: &ChainView,
    rng: &mut Rng,
    quote: &Quote,
    used: u32,
    recall: impl FnOnce() -> Result<Option<SignerState>, Refusal>,
    request: &PaymentRequest,
) -> Result<Plan, Refusal> {
    let price = quote
        .price
        .and_then(|(wei, per)| Price::new(wei, per))
        .filter(|price| !price.is_free())
        .ok_or_else(|| Refusal::bad("missing or zero priceInfo"))?;
    let params = quote
        .ticket_params
        .clone()
        .ok_or_else(|| Refusal::bad("missing ticketParams in OrchestratorInfo"))?;

    let recalled = recall()?;
    let first = recalled.is_none();
    let mut state = match recalled {
        None => new_state(request, quote, price, rng),
        Some(state) => continued(state, request, quote)?,
    };

    if request.manifest_id.is_empty() && !first {
        return Err(Refusal::bad("missing manifestID"));
    }
    let manifest_id = manifest_id(request, rng);
    let capabilities = wanted(request)?;

    let session = session_id(&params.recipient_rand_hash);
    let last = if state.pm_session_id == session {
        state.sender_nonce
    } else {
        0
    };
    let mut nonces = SenderNonces::new(params.recipient_rand_hash, last.max(used));
    check_session(now, policy, chain, quote, &nonces)?;

    let unit = Unit::from_signer_type(&request.job_type);
    let units = match unit {
        // Of a session that was never billed no time counts, but what is paid ahead.
        Some(unit) if state.last_update == Time::ZERO => unit.billable(Duration::ZERO),
        Some(unit) => unit.billable(now.since(state.last_update)),
        None if request.job_type.is_empty() => u64::try_from(request.in_pixels).unwrap_or(0),
        None => return Err(Refusal::bad("invalid job type")),
    };
    if units == 0 {
        return Err(Refusal::bad("missing billable unit or job type"));
    }

    let requested = request
        .max_price
        .as_ref()
        .map(|max| max.parse(unit))
        .transpose()
        .map_err(|err| Refusal::bad(err.to_string()))?;
    let initial = Price::new(state.initial_price_per_unit, state.initial_pixels_per_unit)
        .filter(|price| !price.is_free())
        .ok_or_else(|| Refusal::bad("invalid initial price in state"))?;
    check_price(
        policy,
        price,
        requested,
        (!first).then_some(initial),
        capabilities.as_ref(),
    )?;

    let fee = initial.fee(units);
    let ev = expected_value(&params.face_value, &params.win_prob);
    let ahead = match unit {
        Some(unit @ (Unit::PixelSeconds | Unit::Seconds)) if !first => {
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
    state.pm_session_id = session;
    state.sender_nonce = *nonces.end();
    state.job_type.clone_from(&request.job_type);
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

/// The unsigned credentials for work that costs nothing (payments spec 7.4).
///
/// # Errors
/// If the capabilities of the request are unreadable.
pub(super) fn introduction(
    rng: &mut Rng,
    quote: &Quote,
    request: &PaymentRequest,
) -> Result<SegmentCredentials, Refusal> {
    Ok(SegmentCredentials::for_payment(
        manifest_id(request, rng),
        quote.auth_token.clone(),
        wanted(request)?,
    ))
}

/// The job's name, or one until it has its own.
fn manifest_id(request: &PaymentRequest, rng: &mut Rng) -> String {
    match &*request.manifest_id {
        "" => short_id(rng),
        id => id.into(),
    }
}

/// The capabilities that the job needs, as the credentials tell them.
fn wanted(request: &PaymentRequest) -> Result<Option<Capabilities>, Refusal> {
    let raw = request.capabilities.as_ref().filter(|raw| !raw.is_empty());
    raw.map(|raw| credential_capabilities(raw))
        .transpose()
        .map_err(|err| Refusal::bad(err.to_string()))
}

/// The text form of a commitment.
fn session_id(hash: &RandHash) -> String {
    format!("0x{}", hex::encode(hash))
}

fn short_id(rng: &mut Rng) -> String {
    hex::encode(&rng.bytes32()[..4])
}

fn new_state(request: &PaymentRequest, quote: &Quote, price: Price, rng: &mut Rng) -> SignerState {
    SignerState {
        state_id: short_id(rng),
        orchestrator: quote.address,
        app: request.app.clone(),
        initial_price_per_unit: price.wei(),
        initial_pixels_per_unit: price.per(),
        job_type: request.job_type.clone(),
        ..SignerState::default()
    }
}

fn continued(
    mut state: SignerState,
    request: &PaymentRequest,
    quote: &Quote,
) -> Result<SignerState, Refusal> {
    if state.orchestrator != quote.address {
        return Err(Refusal::bad("orchestratorAddress mismatch"));
    }
    if state.app != request.app {
        return Err(Refusal::bad("app mismatch"));
    }
    if !state.job_type.is_empty() && state.job_type != request.job_type {
        return Err(Refusal::bad("job type mismatch"));
    }
    state.sequence_number = state.sequence_number.saturating_add(1);
    Ok(state)
}

fn refresh(orchestrator_url: &str) -> Refusal {
    Refusal {
        orchestrator_url: Some(orchestrator_url.into()),
        ..Refusal::new(STATUS_REFRESH, "refresh session for remote signer")
    }
}

/// Whether the quote is still good, or a fresh one has to come first.
fn check_session(
    now: Time,
    policy: &Policy,
    chain: &ChainView,
    quote: &Quote,
    nonces: &SenderNonces,
) -> Result<(), Refusal> {
    if nonces.worn() {
        return Err(refresh(&quote.transcoder));
    }
    let token = quote
        .auth_token
        .as_ref()
        .ok_or_else(|| Refusal::bad(format!("{UNCHECKED}: missing auth token")))?;
    if now + TOKEN_RENEWAL > token.expiration {
        return Err(refresh(&quote.transcoder));
    }
    match check_params(
        quote.ticket_params.as_ref(),
        1,
        &policy.limits,
        chain,
        policy.address,
    ) {
        Ok(()) => Ok(()),
        Err(BadParams::Expired) => Err(refresh(&quote.transcoder)),
        Err(err) => Err(Refusal::bad(format!("{UNCHECKED}: {err}"))),
    }
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

impl Plan {
    /// Takes later nonces if others were used up to `used` since the plan was made.
    ///
    /// # Errors
    /// If the quote has not as many left.
    pub(super) fn number_after(&mut self, used: u32) -> Result<(), Refusal> {
        if used < *self.nonces.start() {
            return Ok(());
        }
        let hash = self.params.recipient_rand_hash;
        let count = u32::try_from(self.nonces.clone().count()).unwrap_or(u32::MAX);
        self.nonces = SenderNonces::new(hash, used)
            .issue(count)
            .ok_or_else(|| refresh(&self.orchestrator_url))?;
        self.state.sender_nonce = *self.nonces.end();
        Ok(())
    }

    /// The digests to sign for the payment itself, in order: each ticket, then the credentials.
    pub fn digests(&self, payer: Address) -> impl Iterator<Item = Digest> {
        self.nonces
            .clone()
            .map(move |nonce| Ticket::new(&self.params, payer, nonce).digest())
            .chain([self.credentials.digest()])
    }

    /// The values of the payment header and the segment header, once all is signed. `None` if the number of
    /// signatures is not that of the digests.
    #[must_use]
    pub fn headers(&self, payer: Address, signatures: &[Signature]) -> Option<(String, String)> {
        let (segment_sig, tickets) = signatures.split_last()?;
        if tickets.len() != self.nonces.clone().count() {
            return None;
        }
        let payment = Payment {
            sender: payer,
            ticket_params: Some(self.params.clone()),
            tickets: self
                .nonces
                .clone()
                .zip(tickets)
                .map(|(nonce, signature)| SenderParams {
                    nonce,
                    signature: signature.0.to_vec().into(),
                })
                .collect(),
            expected_price: Some(self.price),
        };
        let credentials = SegmentCredentials {
            signature: segment_sig.0.to_vec().into(),
            ..self.credentials.clone()
        };
        Some((payment.encode(), credentials.encode()))
    }
}
