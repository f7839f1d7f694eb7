//! A ticket: a signed promise that pays its face value with a known probability (payments spec 4).

use alloc::vec::Vec;

use num_bigint::{BigInt, BigUint};

use crate::money::{Amount, Wei};
use crate::sign::{Address, BadSignature, Digest, Signature, keccak};
use crate::wire::TicketParams;

/// The denominator of every win probability: `2^256 - 1`.
#[must_use]
pub fn certain() -> BigUint {
    BigUint::from_bytes_be(&[0xff; 32])
}

/// The expected value of one ticket: `face_value x win_prob / (2^256 - 1)`, exactly.
#[must_use]
pub fn expected_value(face_value: &Wei, win_prob: &BigUint) -> Amount {
    Amount::ratio(
        BigInt::from(face_value.as_uint() * win_prob),
        BigInt::from(certain()),
    )
    .expect("2^256 - 1 is not zero")
}

/// Whether a ticket with this signature pays: `uint256(keccak(sig ‖ rand)) < win_prob`, strictly.
///
/// Only the recipient knows `recipient_rand` before redemption, so a sender cannot tell winners from the rest.
#[must_use]
pub fn wins(signature: &[u8], recipient_rand: &[u8; 32], win_prob: &BigUint) -> bool {
    draw(signature, recipient_rand) < *win_prob
}

/// The number that is compared with the win probability.
#[must_use]
pub fn draw(signature: &[u8], recipient_rand: &[u8; 32]) -> BigUint {
    BigUint::from_bytes_be(&keccak(&[signature, recipient_rand]))
}

/// The commitment to a recipient's number.
#[must_use]
pub fn recipient_rand_hash(recipient_rand: &[u8; 32]) -> [u8; 32] {
    keccak(&[recipient_rand])
}

/// An unsigned integer on the left-padded 32 bytes that hashes take. Of longer ones the last 32 bytes count; the
/// decoders refuse those before they get here.
#[must_use]
pub fn pad32(number: &BigUint) -> [u8; 32] {
    let bytes = number.to_bytes_be();
    let tail = &bytes[bytes.len().saturating_sub(32)..];
    let mut padded = [0; 32];
    padded[32 - tail.len()..].copy_from_slice(tail);
    padded
}

/// The auxiliary data of a ticket: round and block hash, or nothing if both are zero (payments spec 4.1).
#[must_use]
pub fn aux_data(creation_round: i64, block_hash: &[u8; 32]) -> Vec<u8> {
    if creation_round == 0 && *block_hash == [0; 32] {
        return Vec::new();
    }
    let mut data = Vec::with_capacity(64);
    data.extend_from_slice(&pad32(&BigUint::from(creation_round.unsigned_abs())));
    data.extend_from_slice(block_hash);
    data
}

/// An unsigned ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The account that is paid.
    pub recipient: Address,
    /// The account that pays.
    pub sender: Address,
    /// The amount that the ticket pays if it wins.
    pub face_value: Wei,
    /// The winning probability, as a fraction of `2^256 - 1`.
    pub win_prob: BigUint,
    /// Distinct for every ticket under one commitment, from 1.
    pub sender_nonce: u32,
    /// The recipient's commitment.
    pub recipient_rand_hash: [u8; 32],
    /// The protocol round in which it counts as created.
    pub creation_round: i64,
    /// The block hash of that round.
    pub creation_round_block_hash: [u8; 32],
}

impl Ticket {
    /// The ticket number `sender_nonce` of `sender` under a quote.
    #[must_use]
    pub fn new(params: &TicketParams, sender: Address, sender_nonce: u32) -> Self {
        Self {
            recipient: params.recipient,
            sender,
            face_value: params.face_value.clone(),
            win_prob: params.win_prob.clone(),
            sender_nonce,
            recipient_rand_hash: params.recipient_rand_hash,
            creation_round: params.creation_round,
            creation_round_block_hash: params.creation_round_block_hash,
        }
    }

    /// The tight concatenation that is hashed: 168 or 232 bytes.
    #[must_use]
    pub fn packed(&self) -> Vec<u8> {
        let mut packed = Vec::with_capacity(232);
        packed.extend_from_slice(&self.recipient.0);
        packed.extend_from_slice(&self.sender.0);
        packed.extend_from_slice(&pad32(self.face_value.as_uint()));
        packed.extend_from_slice(&pad32(&self.win_prob));
        packed.extend_from_slice(&pad32(&self.sender_nonce.into()));
        packed.extend_from_slice(&self.recipient_rand_hash);
        packed.extend_from_slice(&aux_data(
            self.creation_round,
            &self.creation_round_block_hash,
        ));
        packed
    }

    /// The ticket's hash, as the contract computes it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        keccak(&[&self.packed()])
    }

    /// The digest that the sender signs.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::personal(&self.hash())
    }

    /// Whether the sender signed it.
    ///
    /// # Errors
    /// As [`Signature::verify`], and if there are not 65 bytes.
    pub fn verify(&self, signature: &[u8]) -> Result<(), BadSignature> {
        Signature::from_slice(signature)?.verify(self.digest(), self.sender)
    }

    /// The expected value of the ticket.
    #[must_use]
    pub fn expected_value(&self) -> Amount {
        expected_value(&self.face_value, &self.win_prob)
    }
}

/// A winning ticket with all that redemption needs. Keep `recipient_rand` secret until the ticket's parameters
/// have expired: it tells the sender which further tickets would lose (payments spec 16).
#[derive(Clone, PartialEq, Eq)]
pub struct SignedTicket {
    /// The ticket.
    pub ticket: Ticket,
    /// The sender's signature.
    pub signature: Signature,
    /// The number that the recipient committed to.
    pub recipient_rand: [u8; 32],
    /// The L1 block from which it may be redeemed.
    pub expiration_block: u64,
}

impl core::fmt::Debug for SignedTicket {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SignedTicket")
            .field("ticket", &self.ticket)
            .field("signature", &self.signature)
            .field("expiration_block", &self.expiration_block)
            .finish_non_exhaustive()
    }
}
