//! The rules of a payer, and how a payment breaks one.

use alloc::string::String;
use core::fmt;

use num_bigint::BigInt;

use crate::money::{Amount, Price};
use crate::sign::Address;

/// A rule that a payment breaks, and by how much. Amounts are wei.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The headers cannot be read.
    #[error("the {what} header is unreadable: {why}")]
    Unreadable {
        /// The header.
        what: &'static str,
        /// How it is wrong.
        why: String,
    },
    /// The tickets pay somebody else than the quote says.
    #[error("the tickets pay {got}, the quote says {quoted}")]
    Recipient {
        /// The recipient in the quote.
        quoted: Address,
        /// The recipient in the payment.
        got: Address,
    },
    /// The payment names another payer.
    #[error("the payer is {got}, not {ours}")]
    Sender {
        /// The account that the signer introduced.
        ours: Address,
        /// The payer in the payment.
        got: Address,
    },
    /// The tickets are under another quote: face value, probability, commitment, seed, expiry or round differ.
    #[error("the tickets are not made from the quote")]
    Quote,
    /// The price that the payment names is not the quoted one.
    #[error("the payment says {got} wei per unit, the quote {quoted}")]
    Price {
        /// The price in the quote.
        quoted: Price,
        /// The price in the payment; `None` if it names none.
        got: NamedPrice,
    },
    /// The quote is above a ceiling.
    #[error("the price of {asked} wei per unit is above the {by} of {ceiling}")]
    Ceiling {
        /// The name of the ceiling.
        by: &'static str,
        /// The price in the quote.
        asked: Price,
        /// Wei per unit.
        ceiling: Amount,
    },
    /// The credentials name another job.
    #[error("the credentials are for job {got:?}, not {ours:?}")]
    Job {
        /// The job's.
        ours: String,
        /// The job in the credentials.
        got: String,
    },
    /// The credentials carry another auth token than the quote's.
    #[error("the credentials do not carry the quote's auth token")]
    Token,
    /// A signature is not the payer's.
    #[error("the signature of {0} is not the payer's")]
    Signature(Signed),
    /// No ticket, or more than we send.
    #[error("{got} tickets, at least one and at most {limit} were due")]
    Count {
        /// The number of tickets in the payment.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// A nonce does not rise.
    #[error("nonce {got} follows {last}")]
    Nonce {
        /// The last one used.
        last: u32,
        /// The next one.
        got: u32,
    },
    /// The tickets are worth more than the work can cost.
    #[error("worth {value} wei, {} more than the work and its rounding explain", whole(&(value.clone() - limit.clone())))]
    Proportion {
        /// The value of the tickets.
        value: Amount,
        /// The most that was to be expected.
        limit: Amount,
    },
    /// A spending limit would be passed.
    #[error("{} wei more would pass the limit of {} wei per {per} by {} wei", whole(value), whole(limit), whole(&(spent.clone() + value.clone() - limit.clone())))]
    Budget {
        /// `job` or `hour`.
        per: &'static str,
        /// The amount spent before.
        spent: Amount,
        /// The amount that this payment would add.
        value: Amount,
        /// The limit.
        limit: Amount,
    },
}

fn whole(amount: &Amount) -> BigInt {
    amount.whole_wei()
}

/// A price in a payment, if it names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedPrice(pub Option<Price>);

impl fmt::Display for NamedPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(price) => fmt::Display::fmt(&price, f),
            None => f.write_str("no price"),
        }
    }
}

/// The part of a payment that carries a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// The ticket with this nonce.
    Ticket(u32),
    /// The segment credentials.
    Credentials,
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ticket(nonce) => write!(f, "ticket {nonce}"),
            Self::Credentials => f.write_str("the credentials"),
        }
    }
}
