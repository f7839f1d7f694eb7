//! When a winner can be turned into money (payments spec 16).

use num_bigint::BigInt;

use super::ticket::{SignedTicket, Ticket};
use crate::chain::ChainView;
use crate::money::Wei;

/// Whether the contract takes a ticket in `current_round`: its block hash is that round's, and the round is not
/// longer ago than tickets stay valid. `block_hash` is what the chain says of the ticket's round.
#[must_use]
pub fn is_valid(
    ticket: &Ticket,
    current_round: u64,
    validity_period: u64,
    block_hash: &[u8; 32],
) -> bool {
    let created = u64::try_from(ticket.creation_round).unwrap_or(0);
    *block_hash != [0; 32]
        && *block_hash == ticket.creation_round_block_hash
        && created.saturating_add(validity_period) > current_round
}

/// Whether it is time to redeem: the parameters have expired, so that revealing the number behind the commitment
/// gives nothing away, and the round is recent.
#[must_use]
pub fn is_due(winner: &SignedTicket, chain: &ChainView) -> bool {
    const ROUNDS: u64 = 2;
    let created = u64::try_from(winner.ticket.creation_round).unwrap_or(0);
    winner.expiration_block <= chain.l1_block
        && chain.active
        && created.saturating_add(ROUNDS) >= chain.round
}

/// Whether redeeming is worth its cost: both the face value and the funds that back it exceed it.
#[must_use]
pub fn pays_off(ticket: &Ticket, available: &BigInt, tx_cost: &Wei) -> bool {
    *available > BigInt::from(tx_cost.as_uint().clone()) && ticket.face_value > *tx_cost
}
