//! Winning tickets: when one can be turned into money, and the call that does it (payments spec 16).

use alloc::vec::Vec;

use num_bigint::{BigInt, BigUint};

use super::ticket::{SignedTicket, Ticket, aux_data, pad32};
use crate::chain::ChainView;
use crate::money::Wei;
use crate::wire::ethereum::{address_word, call};

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

/// Asks the ticket broker to pay a winning ticket.
#[must_use]
pub fn redeem(winner: &SignedTicket) -> Vec<u8> {
    let ticket = &winner.ticket;
    let signature_of = "redeemWinningTicket((address,address,uint256,uint256,uint256,bytes32,bytes),bytes,uint256)";
    let number = |n: usize| pad32(&BigUint::from(n));
    let aux = aux_data(ticket.creation_round, &ticket.creation_round_block_hash);
    // The ticket's own head has seven words; its auxiliary data follow.
    let head = 7 * 32;
    let ticket_bytes = head + 32 + aux.len();
    let mut data = call(
        signature_of,
        &[
            number(3 * 32),
            number(3 * 32 + ticket_bytes),
            winner.recipient_rand,
            address_word(ticket.recipient),
            address_word(ticket.sender),
            pad32(ticket.face_value.as_uint()),
            pad32(&ticket.win_prob),
            pad32(&ticket.sender_nonce.into()),
            ticket.recipient_rand_hash,
            number(head),
            number(aux.len()),
        ],
    );
    data.extend_from_slice(&aux);
    data.extend_from_slice(&number(winner.signature.0.len()));
    data.extend_from_slice(&winner.signature.0);
    data.resize(data.len().next_multiple_of(32) + 4, 0);
    data
}
