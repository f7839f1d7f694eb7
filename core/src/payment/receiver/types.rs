//! Settings, events and results of a recipient.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use crate::money::Amount;
use crate::payment::ledger::{AccountId, Shortfall};
use crate::payment::nonce::BadNonce;
use crate::payment::quote::{Economics, InsufficientReserve, QUOTE_BLOCKS};
use crate::payment::ticket::SignedTicket;
use crate::sign::Address;

/// At most this many receipts wait for their records at once.
pub const MAX_PENDING_RECEIPTS: usize = 10_000;

/// Shorter meter intervals and times to live are read as this: a unit may be a second.
pub(super) const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Settings of a [`TicketReceiver`](super::TicketReceiver).
#[derive(Clone, Debug)]
pub struct Config {
    /// The account that tickets pay.
    pub recipient: Address,
    /// The economics of the tickets that are quoted.
    pub economics: Economics,
    /// Whether prices rise with the cost of redeeming.
    pub auto_adjust_price: bool,
    /// How long an idle balance is kept.
    pub balance_ttl: Duration,
    /// How often a live job is metered.
    pub meter_interval: Duration,
    /// How many blocks of the first layer go by before a quote expires.
    pub quote_blocks: u64,
}

impl Config {
    /// The reference's defaults.
    #[must_use]
    pub fn new(recipient: Address) -> Self {
        Self {
            recipient,
            economics: Economics::default(),
            auto_adjust_price: true,
            balance_ttl: Duration::from_secs(600),
            meter_interval: Duration::from_secs(5),
            quote_blocks: QUOTE_BLOCKS,
        }
    }
}

/// Names one call of [`receive`](super::TicketReceiver::receive).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiptId(pub(super) u64);

/// An event of a [`TicketReceiver`](super::TicketReceiver).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A payment was accepted whole. Its credit is on the balance.
    Credited(ReceiptId, Credit),
    /// A payment was refused, perhaps after some of its tickets were credited.
    Rejected(ReceiptId, Box<Rejection>),
    /// A ticket won. It is in the store under [`winner_key`](super::winner_key); redeem it once its parameters have expired.
    Won(Box<SignedTicket>),
    /// A metered job was debited.
    Metered(AccountId, Amount),
    /// A metered job's balance does not cover its interval: end the job. The meter has stopped.
    Exhausted(AccountId, Box<Shortfall>),
    /// A payer is not in the chain view: look it up and push a view that has it.
    WantSender(Address),
}

/// The credit that a payment brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credit {
    /// How many tickets counted.
    pub tickets: usize,
    /// The value of the tickets.
    pub value: Amount,
    /// The balance afterwards.
    pub balance: Amount,
}

/// A payment that was not accepted whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The first thing wrong with it.
    pub why: Refused,
    /// The credit given before that.
    pub credit: Credit,
    /// The outcome of each ticket, in order; tickets after a fatal one are missing.
    pub tickets: Vec<TicketOutcome>,
}

/// The outcome of one ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketOutcome {
    /// The ticket's nonce.
    pub nonce: u32,
    /// The reason why the ticket was refused, if it was.
    pub refused: Option<Refused>,
    /// Whether its value was credited.
    pub credited: bool,
    /// Whether it won and will be redeemed.
    pub won: bool,
}

/// Why a payment or a ticket is refused, displayed as the reference words it. Answered with [`Refused::status`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Tickets, but no payer.
    #[error("invalid ticket sender: the payment names none")]
    NoSender,
    /// The recipient is no active orchestrator in this round.
    #[error("orchestrator {0} is inactive in round {1}, cannot process payments")]
    Inactive(Address, u64),
    /// The expected price is missing or malformed.
    #[error("invalid expected price sent with payment")]
    NoPrice,
    /// The chain view does not know the payer.
    #[error("could not get sender info for {0}")]
    UnknownSender(Address),
    /// The payer's funds may be withdrawn soon.
    #[error("deposit and reserve for sender {0} is set to unlock soon")]
    Unlocking(Address),
    /// The tickets pay somebody else.
    #[error("invalid ticket recipient")]
    Recipient,
    /// The payer is nobody.
    #[error("invalid ticket sender")]
    Sender,
    /// The tickets are not under a quote of ours, for this payer at this price.
    #[error("invalid recipientRand for ticket recipientRandHash")]
    RecipientRand,
    /// The signature is not the payer's.
    #[error("invalid ticket signature")]
    Signature,
    /// A used nonce, or too many.
    #[error("{0} sender={1} nonce={2}")]
    Nonce(BadNonce, Address, u32),
    /// The quote has expired.
    #[error("TicketParams expired")]
    Expired,
    /// Balances or unsaved receipts are as many as may be held.
    #[error("OrchestratorBusy")]
    Busy,
    /// Our store did not keep what we would have to remember, or has not kept it yet. Nothing was credited for it, and the
    /// same tickets may come again.
    #[error("the payment could not be recorded")]
    NotStored,
}

impl Refused {
    /// The HTTP status that tells a payer of it: its fault or ours.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::NotStored => 500,
            _ => 400,
        }
    }

    /// Whether the tickets after this one are not even looked at.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        !matches!(self, Self::Signature | Self::Nonce(..) | Self::Expired)
    }
}

/// Why there is no quote for a payer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoQuote {
    /// The chain view does not know the payer; [`Event::WantSender`] follows.
    #[error("could not get sender info for {0}")]
    UnknownSender(Address),
    /// The payer's funds do not do.
    #[error(transparent)]
    Reserve(#[from] InsufficientReserve),
}

/// When a job's meter is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// By time alone.
    Ticker,
    /// When the owner reports input by [`input_seen`](super::TicketReceiver::input_seen).
    Input,
}
