//! Quotes of a recipient for a payer: ticket parameters that pay off, and a commitment that only the recipient can open
//! (payments spec 5). Pure functions of configuration, chain and seed.

use num_bigint::{BigInt, BigUint};
use num_integer::Integer as _;
use num_rational::BigRational;
use num_traits::Zero as _;

use super::auth::{Secret, hmac};
use super::ticket::{aux_data, certain};
use crate::chain::SenderInfo;
use crate::money::{Price, Wei};
use crate::sign::Address;

/// How many L1 blocks after their quote tickets expire: about eight minutes.
pub const QUOTE_BLOCKS: u64 = 40;

/// A gas price that has been usual for long: 3 gwei. While the current one is far above, face values that would
/// cover this one are accepted.
const USUAL_GAS_PRICE: u64 = 3_000_000_000;

/// How a recipient wants to be paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Economics {
    /// The expected value that a ticket should have.
    pub ticket_ev: Wei,
    /// The gas that redeeming a winner takes.
    pub redeem_gas: u64,
    /// How many times the cost of redeeming it a face value should be.
    pub tx_cost_multiplier: u64,
    /// The highest face value; zero for no limit.
    pub max_face_value: Wei,
}

impl Default for Economics {
    /// The reference's, for Arbitrum.
    fn default() -> Self {
        Self {
            ticket_ev: Wei::from(8_000_000_000),
            redeem_gas: 1_200_000,
            tx_cost_multiplier: 100,
            max_face_value: Wei::zero(),
        }
    }
}

/// The payer's reserve cannot back a face value worth redeeming. The recipient's own limit may be the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("insufficient sender reserve")]
pub struct InsufficientReserve;

impl Economics {
    /// The face value at a gas price, for a payer with this much float.
    ///
    /// # Errors
    /// If it would be below a ticket's value, or not cover its redemption.
    pub fn face_value(
        &self,
        gas_price: &Wei,
        max_float: &BigInt,
    ) -> Result<Wei, InsufficientReserve> {
        let ev = BigInt::from(self.ticket_ev.as_uint().clone());
        let tx_cost = self.tx_cost(gas_price);
        let mut face = &tx_cost * self.tx_cost_multiplier;
        if face < ev {
            face = &ev * self.tx_cost_multiplier;
        }
        face = face.min(max_float.clone());
        if !self.max_face_value.as_uint().is_zero() {
            face = face.min(BigInt::from(self.max_face_value.as_uint().clone()));
        }
        let usual_cost = BigInt::from(self.redeem_gas) * USUAL_GAS_PRICE;
        if face < ev || (face < tx_cost && face < usual_cost) {
            return Err(InsufficientReserve);
        }
        // Not negative: it is at least the ticket's value.
        face.to_biguint().map(Wei::from).ok_or(InsufficientReserve)
    }

    /// The probability that gives `face_value` the wanted expected value, or just more. Certainty, which payers
    /// refuse, if the two are equal.
    #[must_use]
    pub fn win_prob(&self, face_value: &Wei) -> BigUint {
        let (face, ev) = (face_value.as_uint(), self.ticket_ev.as_uint());
        if face.is_zero() {
            return BigUint::ZERO;
        }
        if face <= ev {
            return certain();
        }
        (ev * certain().div_ceil(face)).min(certain())
    }

    /// The factor by which a face value exceeds the cost of redeeming it; zero if that costs nothing.
    #[must_use]
    pub fn effective_multiplier(&self, gas_price: &Wei, face_value: &Wei) -> BigRational {
        let tx_cost = self.tx_cost(gas_price);
        if tx_cost.is_zero() {
            return BigRational::zero();
        }
        BigRational::new(face_value.as_uint().clone().into(), tx_cost)
    }

    fn tx_cost(&self, gas_price: &Wei) -> BigInt {
        BigInt::from(gas_price.as_uint() * self.redeem_gas)
    }
}

/// The part of a payer's reserve that is ours to claim in this round. Negative if we claimed more.
#[must_use]
pub fn reserve_alloc(info: &SenderInfo, pool_size: u64) -> BigInt {
    if pool_size == 0 {
        return BigInt::ZERO;
    }
    let total = info.reserve_remaining.as_uint() + info.reserve_claimed.as_uint();
    BigInt::from(total / pool_size) - BigInt::from(info.claimed_by_us.as_uint().clone())
}

/// The highest face value that a payer's funds back. What we are redeeming already counts against the reserve,
/// unless the deposit covers it three times over. May be negative.
#[must_use]
pub fn max_float(info: &SenderInfo, pool_size: u64) -> BigInt {
    const SAFE_DEPOSIT: u32 = 3;
    let alloc = reserve_alloc(info, pool_size);
    let pending = info.pending.as_uint();
    if *info.deposit.as_uint() >= pending * SAFE_DEPOSIT {
        alloc
    } else {
        alloc - BigInt::from(pending.clone())
    }
}

/// All that a commitment binds. Changing any of it changes the number behind the commitment.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// Random, big-endian, leading zeros without meaning.
    pub seed: &'a [u8],
    /// The payer that the quote is for.
    pub sender: Address,
    /// The face value of each ticket.
    pub face_value: &'a Wei,
    /// The winning probability of each ticket.
    pub win_prob: &'a BigUint,
    /// The L1 block from which tickets are refused.
    pub expiration_block: &'a BigUint,
    /// The price quoted along.
    pub price: Price,
    /// The round in which tickets count as created.
    pub creation_round: i64,
    /// The block hash of that round.
    pub creation_round_block_hash: &'a [u8; 32],
}

impl Bound<'_> {
    /// The number that the recipient commits to. Needs no memory: whoever has the secret can compute it again
    /// from what a payment carries.
    #[must_use]
    pub fn recipient_rand(&self, secret: &Secret) -> [u8; 32] {
        let price = self.price.of_one().as_ratio().reduced();
        let minimal = |number: &BigUint| Wei::from(number.clone()).to_be_bytes();
        hmac(
            &secret.0,
            &[
                &minimal(&BigUint::from_bytes_be(self.seed)),
                &self.sender.0,
                &self.face_value.to_be_bytes(),
                &minimal(self.win_prob),
                &minimal(self.expiration_block),
                &minimal(price.numer().magnitude()),
                &minimal(price.denom().magnitude()),
                &aux_data(self.creation_round, self.creation_round_block_hash),
            ],
        )
    }
}
