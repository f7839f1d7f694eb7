//! How a payment is decided, up to the signatures: a pure function of an [`Order`], memory, chain and clock, in the
//! reference's order of checks (payments spec 12.3). A remote signer and a gateway with its own key decide alike: the
//! one reads its order from a request, stage by stage, because the first fault is the one that is told.

mod draft;
mod order;

use alloc::string::{String, ToString as _};
use core::ops::RangeInclusive;

use super::ledger::Minting;
use super::nonce::{REFRESH_NONCE, RandHash, SenderNonces};
use super::sender::SenderLimits;
use super::ticket::Ticket;
use crate::capabilities::{Capabilities, Ceilings};
use crate::chain::ChainView;
use crate::money::{Amount, Price};
use crate::rng::Rng;
use crate::sign::{Address, Digest, Signature};
use crate::time::Time;
use crate::wire::signer::{PaymentRequest, Quote, STATUS_REFRESH};
use crate::wire::{
    AuthToken, Payment, SegmentCredentials, SenderParams, SignerState, TicketParams,
};
use draft::Draft;

pub(super) use draft::Facts;
pub use order::{Billed, Order};

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
    let facts = Facts {
        now,
        policy,
        chain,
        quote: &quote,
        used,
    };
    let draft = Draft::open(facts, rng, recall, &request.app, &request.job_type)?;
    draft.check_name(&request.manifest_id)?;
    let capabilities = order::capabilities(request)?;
    draft.check_quote()?;
    let billed = order::billed(request)?;
    let units = draft.units(billed)?;
    let ceiling = order::ceiling(request, billed)?;
    let order = Order {
        billed,
        manifest_id: request.manifest_id.clone(),
        app: request.app.clone(),
        capabilities,
        ceiling,
    };
    draft.finish(rng, units, order)
}

/// Decides a payment of an own key. `recalled` is what is remembered of the session, `None` for a new one.
///
/// # Errors
/// The first check that fails.
pub(super) fn decide(
    facts: Facts<'_>,
    rng: &mut Rng,
    recalled: Option<SignerState>,
    order: Order,
) -> Result<Plan, Refusal> {
    let job_type = order.billed.job_type();
    let draft = Draft::open(facts, rng, || Ok(recalled), &order.app, job_type)?;
    draft.check_name(&order.manifest_id)?;
    draft.check_quote()?;
    let units = draft.units(order.billed)?;
    draft.finish(rng, units, order)
}

/// The unsigned credentials for work that costs nothing (payments spec 7.4).
pub(super) fn introduction(
    rng: &mut Rng,
    auth_token: Option<AuthToken>,
    order: Order,
) -> SegmentCredentials {
    SegmentCredentials::for_payment(
        named(order.manifest_id, rng),
        auth_token,
        order.capabilities.map(Capabilities::in_credentials),
    )
}

/// The job's name, or one until it has its own.
fn named(manifest_id: String, rng: &mut Rng) -> String {
    if manifest_id.is_empty() {
        short_id(rng)
    } else {
        manifest_id
    }
}

fn short_id(rng: &mut Rng) -> String {
    hex::encode(&rng.bytes32()[..4])
}

fn refresh(orchestrator_url: &str) -> Refusal {
    Refusal {
        orchestrator_url: Some(orchestrator_url.into()),
        ..Refusal::new(STATUS_REFRESH, "refresh session for remote signer")
    }
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
        self.tickets(payer).chain([self.credentials.digest()])
    }

    /// The digests of the tickets, in order.
    pub(super) fn tickets(&self, payer: Address) -> impl Iterator<Item = Digest> {
        { self.nonces.clone() }.map(move |nonce| Ticket::new(&self.params, payer, nonce).digest())
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
