//! The payer's own eyes: what is paid is read before it is sent, whoever signed it.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use core::time::Duration;

use bytes::Bytes;

use super::ledger::worth;
use super::nonce::{MAX_NONCES, SenderNonces};
use super::ticket::{Ticket, expected_value};
use crate::error::{Broken, NamedPrice, Signed};
use crate::money::{Amount, Price};
use crate::sign::{Address, Digest};
use crate::units::Unit;
use crate::wire::{AuthToken, Payment, SegmentCredentials, TicketParams};

/// The properties that a payment has to have.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The quote that it was asked for.
    pub params: &'a TicketParams,
    /// The quote's price.
    pub price: Price,
    /// The quote's token.
    pub auth_token: Option<&'a AuthToken>,
    /// The payer.
    pub sender: Address,
    /// The job; empty if it is not known yet.
    pub manifest_id: &'a str,
    /// The nonces used so far.
    pub nonces: SenderNonces,
    /// The most tickets that we send at once.
    pub max_tickets: usize,
    /// Credentials whose signature was checked before: those of one job are all alike.
    pub known: Option<&'a SignedCredentials>,
}

/// The signature under credentials: their digest, and the bytes of the signature.
pub type SignedCredentials = (Digest, Bytes);

/// The result of checking a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The number of tickets.
    pub tickets: u32,
    /// The value of all tickets.
    pub value: Amount,
    /// The expected value of one ticket.
    pub ev: Amount,
    /// The nonces used afterwards.
    pub nonces: SenderNonces,
    /// The job that the credentials name.
    pub manifest_id: String,
    /// The signature under them.
    pub credentials: SignedCredentials,
}

/// Reads both headers of a payment and compares them with what was asked for.
///
/// # Errors
/// The first rule that is broken.
pub fn verify(
    payment: &str,
    segment: &str,
    expected: &Expected<'_>,
) -> Result<Verified, Box<Broken>> {
    let payment = Payment::decode(payment).map_err(|err| Broken::Unreadable {
        what: "payment",
        why: err.to_string(),
    })?;
    let credentials = SegmentCredentials::decode(segment).map_err(|err| Broken::Unreadable {
        what: "segment",
        why: err.to_string(),
    })?;
    let (ev, nonces) = check_tickets(&payment, expected)?;
    let signed = check_credentials(&credentials, expected)?;
    // Bounded by the check.
    let tickets = payment.tickets.len() as u32;
    Ok(Verified {
        tickets,
        value: worth(tickets.into(), &ev),
        ev,
        nonces,
        manifest_id: credentials.manifest_id,
        credentials: signed,
    })
}

/// The expected value of a ticket, and the nonces used afterwards.
fn check_tickets(
    payment: &Payment,
    expected: &Expected<'_>,
) -> Result<(Amount, SenderNonces), Box<Broken>> {
    if payment.sender != expected.sender {
        return Err(Box::new(Broken::Sender {
            ours: expected.sender,
            got: payment.sender,
        }));
    }
    if payment.expected_price != Some(expected.price) {
        return Err(Box::new(Broken::Price {
            quoted: expected.price,
            got: NamedPrice(payment.expected_price),
        }));
    }
    let limit = expected.max_tickets.min(MAX_NONCES);
    let count = Broken::Count {
        got: payment.tickets.len(),
        limit,
    };
    let Some(params) = payment.ticket_params.as_ref() else {
        return Err(Box::new(count));
    };
    if payment.tickets.is_empty() || payment.tickets.len() > limit {
        return Err(Box::new(count));
    }
    if params.recipient != expected.params.recipient {
        return Err(Box::new(Broken::Recipient {
            quoted: expected.params.recipient,
            got: params.recipient,
        }));
    }
    if !same_quote(params, expected.params) {
        return Err(Box::new(Broken::Quote));
    }
    let mut nonces = expected.nonces;
    nonces.turn_to(params.recipient_rand_hash);
    for sent in &payment.tickets {
        if sent.nonce <= nonces.last() || sent.nonce as usize > MAX_NONCES {
            return Err(Box::new(Broken::Nonce {
                last: nonces.last(),
                got: sent.nonce,
            }));
        }
        Ticket::new(params, payment.sender, sent.nonce)
            .verify(&sent.signature)
            .map_err(|_| Box::new(Broken::Signature(Signed::Ticket(sent.nonce))))?;
        nonces = SenderNonces::new(params.recipient_rand_hash, sent.nonce);
    }
    let ev = expected_value(&params.face_value, &params.win_prob);
    Ok((ev, nonces))
}

/// Whether tickets are made from a quote. A signer fills in the round if the orchestrator left it out.
fn same_quote(params: &TicketParams, quote: &TicketParams) -> bool {
    let open = quote.creation_round == 0 || quote.creation_round_block_hash == [0; 32];
    let mut quote = quote.clone();
    if open {
        quote.creation_round = params.creation_round;
        quote.creation_round_block_hash = params.creation_round_block_hash;
    }
    *params == quote
}

fn check_credentials(
    credentials: &SegmentCredentials,
    expected: &Expected<'_>,
) -> Result<SignedCredentials, Box<Broken>> {
    if !expected.manifest_id.is_empty() && credentials.manifest_id != expected.manifest_id {
        return Err(Box::new(Broken::Job {
            ours: expected.manifest_id.into(),
            got: credentials.manifest_id.clone(),
        }));
    }
    if credentials.auth_token.as_ref() != expected.auth_token {
        return Err(Box::new(Broken::Token));
    }
    let signed = (credentials.digest(), credentials.signature.clone());
    if expected.known != Some(&signed) {
        credentials
            .verify(expected.sender)
            .map_err(|_| Box::new(Broken::Signature(Signed::Credentials)))?;
    }
    Ok(signed)
}

/// Whether a payment's value fits the work it is for.
///
/// The signer's clock and rounding are not ours; what it may not do is ask for more than these explain, payment after
/// payment. A signer that mints ahead does so by one ticket at most, since the first payment is all ahead.
#[derive(Clone, Debug, Default)]
pub struct Proportion {
    /// The amount paid beyond the fees that we expected, never below zero.
    carried: Amount,
}

/// How much longer than ours a signer may have found a payment's interval.
const CLOCK_SLACK: Duration = Duration::from_secs(10);

impl Proportion {
    /// Whether tickets of one `value` fit a payment for `units`, or, if `None`, for the time since the last one
    /// (`None` for the first), at `price`.
    ///
    /// # Errors
    /// If they are worth more.
    pub fn check(
        &self,
        value: &Amount,
        ev: &Amount,
        unit: Unit,
        units: Option<u64>,
        elapsed: Option<Duration>,
        price: Price,
    ) -> Result<(), Box<Broken>> {
        let billable = match (units, elapsed) {
            (Some(units), _) => units,
            (None, None) => unit.billable(Duration::ZERO),
            // A clock that finds no time gone by, or less than none, bills the preload again (payments spec 12.4).
            (None, Some(elapsed)) if elapsed <= CLOCK_SLACK => unit
                .billable(Duration::ZERO)
                .max(unit.billable(elapsed + CLOCK_SLACK)),
            (None, Some(elapsed)) => unit.billable(elapsed + CLOCK_SLACK),
        };
        // One ticket for the rounding, and one ahead.
        let limit = price.fee(billable) + worth(2, ev) - self.carried.clone();
        if *value > limit {
            return Err(Box::new(Broken::Proportion {
                value: value.clone(),
                limit,
            }));
        }
        Ok(())
    }

    /// Remembers a payment that was accepted, for a fee as we see it.
    pub fn paid(&mut self, value: &Amount, fee: &Amount) {
        let carried = core::mem::take(&mut self.carried) + value.clone() - fee.clone();
        if carried.is_positive() {
            self.carried = carried;
        }
    }
}
