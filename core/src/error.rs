//! Errors that name the guilty party.
//!
//! [`Misuse`] is ours to fix by reading the caller. A [`Failure`] is what a peer, a link or the chain did; it
//! comes inside an event and carries advice that is derived from its cause.

mod broken;

pub use broken::{Broken, NamedPrice, Signed};

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::capabilities::Mismatch;
use crate::http::{Fault, Url};

/// The call does not fit the state that earlier calls made. It changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// The machine has ended or was closed.
    #[error("this has ended; start a new one")]
    Ended,
    /// The call needs something that has not begun.
    #[error("nothing is open that this call could apply to")]
    NotOpen,
    /// The call needs something to end first.
    #[error("the previous one is still open; end it first")]
    StillOpen,
}

/// The party that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Party {
    /// The orchestrator at this URL.
    Orchestrator(Url),
    /// The remote signer at this URL.
    Signer(Url),
    /// Each of several remote signers.
    Signers,
    /// The trickle server of this channel.
    Channel(Url),
    /// A list of orchestrators at this URL.
    Discovery(Url),
    /// The JSON-RPC endpoint at this URL.
    Chain(Url),
    /// The holder of the account's own key.
    KeyHolder,
    /// The store of our own records.
    Store,
    /// Where the application puts its output.
    Sink,
}

impl Party {
    /// Whether it is part of our own side: no peer is to blame.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::KeyHolder | Self::Store | Self::Sink)
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Orchestrator(url) => write!(f, "orchestrator {url}"),
            Self::Signer(url) => write!(f, "signer {url}"),
            Self::Signers => f.write_str("no signer gave what was asked for"),
            Self::Channel(url) => write!(f, "trickle channel {url}"),
            Self::Discovery(url) => write!(f, "discovery endpoint {url}"),
            Self::Chain(url) => write!(f, "chain endpoint {url}"),
            Self::KeyHolder => f.write_str("the key holder"),
            Self::Store => f.write_str("our own store"),
            Self::Sink => f.write_str("our own output"),
        }
    }
}

/// A failure: the party that caused it, its cause, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{who}: {cause}")]
pub struct Failure {
    /// The guilty party.
    pub who: Party,
    /// The cause of the failure.
    pub cause: Cause,
}

impl Failure {
    /// Names `who` and `cause`.
    #[must_use]
    pub const fn new(who: Party, cause: Cause) -> Self {
        Self { who, cause }
    }

    /// The next step that the caller should take; follows from the cause alone.
    #[must_use]
    pub fn advice(&self) -> Advice {
        self.cause.advice(&self.who)
    }
}

/// The next step after a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Stop: nothing helps until a person changes something.
    Stop,
    /// Try the same again, later.
    Retry,
    /// Get fresh orchestrator info, then the same again.
    Renew,
    /// Another orchestrator.
    GoElsewhere,
}

/// The reasons that a peer's refusal is known to have, from its error text. Only `wire::reason` reads such texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Ticket parameters are past their block.
    ParamsExpired,
    /// A nonce was used before, or too many were.
    Nonce,
    /// Price and ticket parameters do not belong together, or the orchestrator restarted.
    RecipientRand,
    /// A signature does not fit.
    Signature,
    /// The auth token is missing, wrong or expired.
    AuthToken,
    /// No capacity.
    Capacity,
    /// The balance does not cover the work.
    Balance,
    /// The payer's deposit or reserve is missing.
    PayerFunds,
    /// The payer asked for its deposit and reserve back, so nobody takes tickets on them.
    PayerUnlocking,
    /// The orchestrator cannot take this payer's reserve.
    SenderReserve,
    /// The orchestrator is not active in this round.
    Inactive,
    /// The price has more than doubled.
    PriceDoubled,
    /// The operator does not serve this payer.
    Denied,
    /// The orchestrator's own settings are broken.
    Misconfigured,
    /// The payer's limits do not allow the tickets that this orchestrator wants.
    PayerLimits,
    /// A meaning other than the known ones.
    Other,
}

/// The cause of a [`Failure`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The exchange broke.
    #[error("{0}")]
    Link(Fault),
    /// No answer within the deadline.
    #[error("no answer to {doing} within {after:?}")]
    TimedOut {
        /// The answer that we were waiting for.
        doing: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// An error answer. `text` is the peer's, cut to a bounded length.
    #[error("refused {doing} with status {status}{}", Said(text))]
    Refused {
        /// The request that was refused.
        doing: &'static str,
        /// HTTP or gRPC status.
        status: u16,
        /// The known meaning of the text.
        reason: Reason,
        /// The peer's words.
        text: String,
    },
    /// A refusal of our own side, which speaks no protocol and so has no status.
    #[error("declined {doing}{}", Said(text))]
    Declined {
        /// The request that was declined.
        doing: &'static str,
        /// The known meaning of the text.
        reason: Reason,
        /// The reason.
        text: String,
    },
    /// An answer that cannot be what it should be.
    #[error("sent nonsense as {what}: {why}")]
    Nonsense {
        /// The thing that the answer should have been.
        what: &'static str,
        /// How the answer is wrong.
        why: String,
    },
    /// The party serves another chain.
    #[error("serves chain {is}, not {wanted}")]
    WrongChain {
        /// The id of its chain.
        is: u64,
        /// The id of ours.
        wanted: u64,
    },
    /// The orchestrator cannot do what the job asks for.
    #[error("does not fit the job: {0}")]
    Incompatible(Box<Mismatch>),
    /// The orchestrator asks more than we pay.
    #[error("asks {asked} wei per unit, above the ceiling of {ceiling}")]
    TooDear {
        /// The price asked, as decimal text.
        asked: String,
        /// Our ceiling, as decimal text.
        ceiling: String,
    },
    /// The orchestrator asks nothing, and a remote signer makes no payment of nothing (payments spec 7.4).
    #[error(
        "asks no price, and a remote signer makes no payment of nothing: use a key of your own, or another orchestrator"
    )]
    Free,
    /// A rule of ours that protects the payer was broken; nothing was sent.
    #[error("payment refused by our own guard: {0}")]
    Guard(Box<Broken>),
    /// The peer sent nothing for too long.
    #[error("no {what} for {after:?}")]
    Silent {
        /// The thing that should have come.
        what: &'static str,
        /// How long we waited.
        after: Duration,
    },
    /// A record that has to survive a crash was not made durable. The text is the store's.
    #[error("did not keep {what}: {text}")]
    NotStored {
        /// The subject of the record.
        what: &'static str,
        /// The store's words.
        text: String,
    },
    /// Data could not be put where the application wants it. The text is the application's.
    #[error("cannot be written: {0}")]
    NotWritten(String),
    /// The channel or session is gone.
    #[error("{0} is gone")]
    Gone(&'static str),
    /// The peer ended the session; the text is the peer's, cut to a bounded length.
    #[error("ended the session: {0}")]
    Ended(String),
    /// More of something than we hold.
    #[error("{what} exceeds the limit of {limit}")]
    TooMuch {
        /// The thing of which there is too much.
        what: &'static str,
        /// Our bound.
        limit: usize,
    },
    /// A step failed too often in a row; the text is the last failure.
    #[error("{what} failed {times} times in a row, last: {last}")]
    GaveUp {
        /// The step that failed.
        what: &'static str,
        /// The number of failures in a row.
        times: u32,
        /// The last failure.
        last: String,
    },
    /// Each of several parties failed in its own way.
    #[error("{}", Listed(.0))]
    EachFailed(Vec<Failure>),
}

/// A peer's words, if there are any.
struct Said<'a>(&'a str);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.0)
    }
}

/// Failures in one line.
struct Listed<'a>(&'a [Failure]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, failure) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { "; " };
            write!(f, "{between}{failure}")?;
        }
        Ok(())
    }
}

impl Cause {
    /// Whether a spending limit of ours would be passed.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::Guard(broken) if matches!(**broken, Broken::Budget { .. }))
    }

    /// The kind of cause in a word, for figures: one of few, whatever peers say.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Link(Fault::CertificateChanged { .. } | Fault::Untrusted(_)) => "certificate",
            Self::Link(_) => "unreachable",
            Self::TimedOut { .. } => "timeout",
            Self::Silent { .. } => "silent",
            Self::Refused { .. } | Self::Declined { .. } => "refused",
            Self::TooDear { .. } | Self::Free | Self::Guard(_) => "price",
            Self::Incompatible(_) => "incompatible",
            Self::Gone(_) | Self::Ended(_) => "ended",
            Self::NotStored { .. } | Self::NotWritten(_) => "not_stored",
            Self::GaveUp { .. } | Self::EachFailed(_) => "gave_up",
            Self::Nonsense { .. } | Self::WrongChain { .. } | Self::TooMuch { .. } => {
                "invalid_answer"
            }
        }
    }

    fn advice(&self, who: &Party) -> Advice {
        let elsewhere = match who {
            // There is nowhere else to go for a signature or a record, and nobody else takes our output.
            Party::Signer(_)
            | Party::Signers
            | Party::KeyHolder
            | Party::Store
            | Party::Sink
            | Party::Discovery(_)
            | Party::Chain(_) => Advice::Stop,
            Party::Orchestrator(_) | Party::Channel(_) => Advice::GoElsewhere,
        };
        match self {
            Self::Refused { reason, .. } | Self::Declined { reason, .. } => match reason {
                Reason::ParamsExpired
                | Reason::Nonce
                | Reason::RecipientRand
                | Reason::AuthToken => Advice::Renew,
                Reason::PayerFunds | Reason::PayerUnlocking => Advice::Stop,
                Reason::PayerLimits => Advice::GoElsewhere,
                _ => elsewhere,
            },
            limit if limit.is_limit() => Advice::Stop,
            Self::TooDear { .. } => Advice::GoElsewhere,
            _ => elsewhere,
        }
    }
}
