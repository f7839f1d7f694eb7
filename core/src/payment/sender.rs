//! Whether a payer should make tickets from a quote (payments spec 7.1).

use alloc::string::String;

use num_bigint::BigUint;
use num_traits::Zero as _;

use super::ledger::worth;
use super::price::decimal;
use super::ticket::expected_value;
use crate::chain::ChainView;
use crate::money::{Amount, Wei};
use crate::sign::Address;
use crate::wire::TicketParams;

/// Limits on the tickets that a payer accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderLimits {
    /// The highest expected value of a ticket.
    pub max_ev: Amount,
    /// The highest expected value of all tickets of one payment.
    pub max_total_ev: Amount,
    /// The divisor of the deposit that gives the highest face value; zero counts as one.
    pub deposit_multiplier: u64,
}

impl Default for SenderLimits {
    /// The reference's.
    fn default() -> Self {
        Self {
            max_ev: Amount::from(&Wei::from(3_000_000_000_000)),
            max_total_ev: Amount::from(&Wei::from(20_000_000_000_000)),
            deposit_multiplier: 1,
        }
    }
}

/// Why no tickets are made from a quote, displayed as the reference words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadParams {
    /// The quote has no ticket parameters.
    #[error("ticketParams is nil")]
    Missing,
    /// The ticket never expires, which no recipient means.
    #[error("ticketParams expiration block is 0")]
    NoExpiration,
    /// The quote has expired, or will in the next block. A fresh one helps.
    #[error("TicketParams expired")]
    Expired,
    /// Tickets would win for certain.
    #[error("ticket faceValue too low faceValue={0}")]
    FaceTooLow(Wei),
    /// A ticket is worth too much.
    #[error("ticket EV {ev} > max ticket EV {max}")]
    Ev {
        /// The expected value, with five places.
        ev: String,
        /// The limit, with five places.
        max: String,
    },
    /// The chain view does not know the payer.
    #[error("could not get sender info")]
    UnknownSender,
    /// The payer has asked to withdraw its funds.
    #[error("unable to validate sender: deposit and reserve is set to unlock soon")]
    Unlocking,
    /// The payer has no reserve.
    #[error("no sender reserve")]
    NoReserve,
    /// The payer has no deposit.
    #[error("no sender deposit")]
    NoDeposit,
    /// The payment is worth too much.
    #[error("total ticket EV {ev} for {count} tickets > max total ticket EV {max}")]
    TotalEv {
        /// The expected value, with five places.
        ev: String,
        /// The number of tickets.
        count: u64,
        /// The limit, with five places.
        max: String,
    },
    /// A winning ticket would take too much of the deposit.
    #[error("ticket faceValue {face} > max faceValue {max}")]
    FaceTooHigh {
        /// The face value of a ticket.
        face: Wei,
        /// The share of the deposit.
        max: Wei,
    },
}

impl BadParams {
    /// Whether the payer's own funds are the cause: no other quote helps until they change.
    #[must_use]
    pub const fn is_payers(&self) -> bool {
        matches!(
            self,
            Self::UnknownSender | Self::Unlocking | Self::NoReserve | Self::NoDeposit
        )
    }
}

/// A quote is good for tickets while more than one block is left.
#[must_use]
pub fn is_expired(params: &TicketParams, l1_block: u64) -> bool {
    params.expiration_block <= BigUint::from(l1_block) + 1_u32
}

/// Checks a quote in the reference's order, for a payment of `count` tickets by `payer`.
///
/// # Errors
/// The first check that fails.
pub fn check_params(
    params: Option<&TicketParams>,
    count: u64,
    limits: &SenderLimits,
    chain: &ChainView,
    payer: Address,
) -> Result<(), BadParams> {
    let params = params.ok_or(BadParams::Missing)?;
    if params.expiration_block.is_zero() {
        return Err(BadParams::NoExpiration);
    }
    if is_expired(params, chain.l1_block) {
        return Err(BadParams::Expired);
    }
    let ev = expected_value(&params.face_value, &params.win_prob);
    if !ev.is_positive() {
        return Ok(());
    }
    if ev >= Amount::from(&params.face_value) {
        return Err(BadParams::FaceTooLow(params.face_value.clone()));
    }
    if ev > limits.max_ev {
        return Err(BadParams::Ev {
            ev: decimal(ev.as_ratio(), 5),
            max: decimal(limits.max_ev.as_ratio(), 5),
        });
    }
    let info = chain.sender(payer).ok_or(BadParams::UnknownSender)?;
    if info.unlocks_soon(chain.round) {
        return Err(BadParams::Unlocking);
    }
    if info.reserve_remaining == Wei::zero() {
        return Err(BadParams::NoReserve);
    }
    if info.deposit == Wei::zero() {
        return Err(BadParams::NoDeposit);
    }
    let total = worth(count, &ev);
    if total > limits.max_total_ev {
        return Err(BadParams::TotalEv {
            ev: decimal(total.as_ratio(), 5),
            count,
            max: decimal(limits.max_total_ev.as_ratio(), 5),
        });
    }
    let max = Wei::from(info.deposit.as_uint() / limits.deposit_multiplier.max(1));
    if params.face_value > max {
        return Err(BadParams::FaceTooHigh {
            face: params.face_value.clone(),
            max,
        });
    }
    Ok(())
}
