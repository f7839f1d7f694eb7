//! Settings, events and results of a session.

use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

use super::pace::Charge;
use crate::capabilities::{Capabilities, Ceilings};
use crate::error::Failure;
use crate::http::{Trust, Url};
use crate::money::{Amount, Price};
use crate::payment::mint::MAX_TICKETS;
use crate::signers::SignerHealth;
use crate::time::Time;
use crate::units::Unit;
use crate::wire::OrchestratorInfo;
use crate::wire::payment::Credentials;

/// How long the owner has to answer [`Event::NeedQuote`], at most.
pub const QUOTE_DEADLINE: Duration = Duration::from_secs(30);
/// At most this many fresh quotes are asked for in a row.
pub const MAX_REFRESHES: u32 = 3;
/// How many times all signers are asked, at least, before a payment is given up.
pub const MINT_ROUNDS: u32 = 3;
/// How many times the key holder and the store are asked, at least, before a payment is given up.
pub const OWN_TRIES: u32 = 3;
/// How many times a payment is sent, at least, before it is given up.
pub const DELIVERY_TRIES: u32 = 4;
/// The shortest pause between tries; pauses double from this.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause between tries.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Settings of a [`PaymentSession`](super::PaymentSession).
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The unit that the job is billed by.
    pub unit: Unit,
    /// The model that the job runs, for the signer's books: `live-video-to-video/<model>`. May be empty.
    pub app: String,
    /// The job's name at the orchestrator, if it is known before the first payment.
    pub manifest_id: String,
    /// The capabilities that the job needs; they go into the credentials.
    pub capabilities: Option<Capabilities>,
    /// Where further payments go; `{transcoder}/payment` if `None`.
    pub payment_url: Option<Url>,
    /// Certificates that are good enough for the orchestrator.
    pub trust: Trust,
    /// The most that is paid.
    pub ceilings: Ceilings,
    /// The most tickets in one payment.
    pub max_tickets: usize,
    /// Whether requests pay for themselves, many at a time, from one balance under the name of the session: batch jobs.
    /// Such requests are paid for by [`Fee::Units`].
    pub by_request: bool,
}

impl Config {
    /// A job billed by `unit`: no ceilings, but every payment is read, and counted ([`Effect::Spend`](crate::Effect::Spend)),
    /// before it is sent.
    #[must_use]
    pub fn new(unit: Unit) -> Self {
        Self {
            unit,
            app: String::new(),
            manifest_id: String::new(),
            capabilities: None,
            payment_url: None,
            trust: Trust::FirstUse,
            ceilings: Ceilings::default(),
            max_tickets: MAX_TICKETS as usize,
            by_request: false,
        }
    }
}

/// The work that a payment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fee {
    /// The preload at first, then the time since the last payment, in the session's unit.
    Elapsed,
    /// A number of units.
    Units(u64),
}

/// Names one payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaymentId(pub(super) u64);

/// The outcome of a payment that the owner delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The orchestrator took it.
    Accepted,
    /// The orchestrator did not take it, or the outcome is unknown.
    ///
    /// Where requests pay for themselves, this says that the quote or the token was refused, and no further payment is
    /// made from it; the outcomes below differ from this one for such requests alone.
    Refused,
    /// The orchestrator took it, and charges these units in place of those that were paid for: where work is charged by the
    /// time that it took.
    Used(u64),
    /// The orchestrator took the tickets and did no work: it failed.
    Credited,
    /// The orchestrator looked at no ticket: it had no capacity, or did not understand the request.
    Untouched,
    /// The payment never left: nobody wanted it any more. As [`Untouched`](Self::Untouched), and it is not spent.
    Unsent,
    /// The outcome is unknown: no answer came.
    Unknown,
    /// The orchestrator says that the balance does not cover the fee: nothing is relied on any more.
    Short,
}

/// A payment that an orchestrator took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paid {
    /// The number of tickets.
    pub tickets: u32,
    /// The value of the tickets.
    pub value: Amount,
    /// All that this session paid.
    pub total: Amount,
    /// When that is used up, for metered jobs.
    pub covered_until: Option<Time>,
    /// The work that it is for.
    pub charge: Charge,
}

/// An event of a [`PaymentSession`](super::PaymentSession).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// How remote signers have been, whenever that has changed: take it along to the next session.
    Signers(SignerHealth),
    /// Send these along with the request that the payment is for, then call [`delivered`](super::PaymentSession::delivered).
    Ready(PaymentId, Credentials),
    /// The orchestrator took a payment.
    Paid(PaymentId, Paid),
    /// No payment is due yet; nothing was sent.
    Skipped(PaymentId),
    /// Get fresh orchestrator info, ignoring capacity, and call [`renew`](super::PaymentSession::renew) within
    /// [`QUOTE_DEADLINE`]. The signer may say where.
    NeedQuote(Option<Url>),
    /// The orchestrator sent a fresh quote along with its answer, and it is in use now.
    Requoted(Arc<OrchestratorInfo>),
    /// A payment cannot be made, and why. The job runs on with what was paid for it: the session tries again at its
    /// pace, and tells only when the reason is another one, or a payment was made meanwhile.
    Held(PaymentId, Failure),
    /// The orchestrator asks more than it did, what was paid is about to run out, and the ceiling allows the new price:
    /// a new payer session begins, and prepays once more.
    Repriced {
        /// The price paid until now.
        from: Price,
        /// The price paid from now on.
        to: Price,
    },
    /// The last event: there will be no more payments.
    Failed(Failure),
}
