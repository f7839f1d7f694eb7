//! Records that a recipient makes durable, and how they are read back.

use alloc::format;
use alloc::string::String;

use bytes::Bytes;
use num_traits::ToPrimitive as _;

use crate::payment::nonce::{NonceWindows, RandHash};
use crate::payment::ticket::{SignedTicket, Ticket};
use crate::sign::Signature;
use crate::store::Record;
use crate::wire::{Payment, SenderParams, TicketParams};

const NONCES: &str = "nonces:0x";
const WINNER: &str = "winner:0x";

/// The key of one payment's nonces, named after the first of them. Each payment has a record of its own, since records
/// may become durable in any order and none may undo another.
pub(super) fn nonces_key(hash: &RandHash, first: u32) -> String {
    format!("{NONCES}{}:{first}", hex::encode(hash))
}

/// The key under which a winning ticket is stored: one ticket has one, however often it is received.
#[must_use]
pub fn winner_key(signature: &Signature) -> String {
    format!("{WINNER}{}", hex::encode(signature.0))
}

impl SignedTicket {
    /// The record of a winner.
    #[must_use]
    pub fn to_record(&self) -> Record {
        let ticket = &self.ticket;
        let payment = Payment {
            sender: ticket.sender,
            ticket_params: Some(TicketParams {
                recipient: ticket.recipient,
                face_value: ticket.face_value.clone(),
                win_prob: ticket.win_prob.clone(),
                recipient_rand_hash: ticket.recipient_rand_hash,
                seed: Bytes::new(),
                expiration_block: self.expiration_block.into(),
                creation_round: ticket.creation_round,
                creation_round_block_hash: ticket.creation_round_block_hash,
            }),
            tickets: [SenderParams {
                nonce: ticket.sender_nonce,
                signature: Bytes::copy_from_slice(&self.signature.0),
            }]
            .into(),
            expected_price: None,
        };
        let mut value = self.recipient_rand.to_vec();
        value.extend(payment.to_protobuf());
        Record {
            key: winner_key(&self.signature),
            value: Some(value.into()),
        }
    }

    /// Reads a stored winner; `None` if the record is something else.
    #[must_use]
    pub fn from_record(record: &Record) -> Option<Self> {
        record.key.strip_prefix(WINNER)?;
        let value = record.value.as_ref()?;
        let (rand, payment) = value.split_at_checked(32)?;
        let payment = Payment::from_protobuf(Bytes::copy_from_slice(payment)).ok()?;
        let params = payment.ticket_params?;
        let sent = payment.tickets.first()?;
        Some(Self {
            ticket: Ticket::new(&params, payment.sender, sent.nonce),
            signature: Signature::from_slice(&sent.signature).ok()?,
            recipient_rand: rand.try_into().ok()?,
            expiration_block: params.expiration_block.to_u64()?,
        })
    }
}

/// The record of the nonces that one payment used.
pub(super) fn nonces_record(hash: &RandHash, expires: u64, nonces: &[u32]) -> Option<Record> {
    let first = nonces.first()?;
    let mut value = expires.to_be_bytes().to_vec();
    value.extend(nonces.iter().flat_map(|nonce| nonce.to_be_bytes()));
    Some(Record {
        key: nonces_key(hash, *first),
        value: Some(value.into()),
    })
}

/// Takes back what was stored of nonces; says which record it was, or that it was something else.
pub(super) fn restore_nonces(
    nonces: &mut NonceWindows,
    record: &Record,
) -> Option<(RandHash, u32)> {
    let (hash, first) = record.key.strip_prefix(NONCES)?.split_once(':')?;
    let hash = RandHash::try_from(hex::decode(hash).ok()?).ok()?;
    let (expires, used) = record.value.as_ref()?.split_at_checked(8)?;
    let expires = u64::from_be_bytes(expires.try_into().ok()?);
    for nonce in used.chunks_exact(4) {
        let nonce = u32::from_be_bytes(nonce.try_into().ok()?);
        // One that is there already is as good as restored.
        let _ = nonces.accept(hash, nonce, expires);
    }
    Some((hash, first.parse().ok()?))
}
