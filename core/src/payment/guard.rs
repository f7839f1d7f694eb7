//! The payer's own eyes: what is paid is read before it is sent, whoever signed it.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::{String, ToString as _};
use core::time::Duration;

use num_rational::BigRational;

use super::ledger::worth;
use super::nonce::{MAX_NONCES, SenderNonces};
use super::ticket::{Ticket, expected_value};
use crate::error::{Broken, NamedPrice, Signed};
use crate::money::{Amount, Price};
use crate::sign::Address;
use crate::store::Record;
use crate::time::Time;
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
}

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
    let mut verified = check_tickets(&payment, expected)?;
    check_credentials(&credentials, expected)?;
    verified.manifest_id = credentials.manifest_id;
    Ok(verified)
}

fn check_tickets(payment: &Payment, expected: &Expected<'_>) -> Result<Verified, Box<Broken>> {
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
    Ok(Verified {
        // Bounded above.
        tickets: payment.tickets.len() as u32,
        value: worth(payment.tickets.len() as u64, &ev),
        ev,
        nonces,
        manifest_id: String::new(),
    })
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
) -> Result<(), Box<Broken>> {
    if !expected.manifest_id.is_empty() && credentials.manifest_id != expected.manifest_id {
        return Err(Box::new(Broken::Job {
            ours: expected.manifest_id.into(),
            got: credentials.manifest_id.clone(),
        }));
    }
    if credentials.auth_token.as_ref() != expected.auth_token {
        return Err(Box::new(Broken::Token));
    }
    credentials
        .verify(expected.sender)
        .map_err(|_| Box::new(Broken::Signature(Signed::Credentials)))
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

/// Limits on spending, and the amount spent. Counts tickets at their expected value from the moment they may leave, so
/// a payment that was lost on the way counts as spent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// The limit for the job; `None` for no limit.
    pub per_job: Option<Amount>,
    /// The limit for any sixty minutes; `None` for no limit.
    pub per_hour: Option<Amount>,
    spent: Amount,
    recent: VecDeque<(Time, Amount)>,
}

/// The window of [`Budget::per_hour`].
const HOUR: Duration = Duration::from_secs(3600);

/// Payments within this time of each other may count as one, at the later time: an hour has at most 361 such times.
const SLOT: Duration = Duration::from_secs(10);

const fn slot(at: Time) -> u64 {
    at.as_nanos() / SLOT.as_nanos() as u64
}

impl Budget {
    /// No limit, only the count.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::default()
    }

    /// Sets the limit for all payments.
    #[must_use]
    pub fn per_job(mut self, limit: Amount) -> Self {
        self.per_job = Some(limit);
        self
    }

    /// Sets the limit for any sixty minutes.
    #[must_use]
    pub fn per_hour(mut self, limit: Amount) -> Self {
        self.per_hour = Some(limit);
        self
    }

    /// The amount spent in all.
    #[must_use]
    pub const fn spent(&self) -> &Amount {
        &self.spent
    }

    /// The amount spent in the last sixty minutes.
    #[must_use]
    pub fn spent_in_hour(&self, now: Time) -> Amount {
        self.recent
            .iter()
            .filter(|(at, _)| *at + HOUR > now)
            .map(|(_, value)| value.clone())
            .sum()
    }

    /// Whether `value` more may be spent.
    ///
    /// # Errors
    /// The limit that it would pass.
    pub fn check(&self, now: Time, value: &Amount) -> Result<(), Box<Broken>> {
        let in_all = |_| self.spent.clone();
        let in_hour = |now| self.spent_in_hour(now);
        // Summing up an hour costs more than a signature, so it is left where there is no limit.
        let limits: [(_, _, &dyn Fn(Time) -> Amount); 2] = [
            ("job", &self.per_job, &in_all),
            ("hour", &self.per_hour, &in_hour),
        ];
        for (per, limit, spent) in limits {
            let Some(limit) = limit else { continue };
            let spent = spent(now);
            if spent.clone() + value.clone() > *limit {
                return Err(Box::new(Broken::Budget {
                    per,
                    spent,
                    value: value.clone(),
                    limit: limit.clone(),
                }));
            }
        }
        Ok(())
    }

    /// Counts `value` as spent.
    pub fn spend(&mut self, now: Time, value: &Amount) {
        self.spent += value;
        while self.recent.front().is_some_and(|(at, _)| *at + HOUR <= now) {
            self.recent.pop_front();
        }
        match self.recent.back_mut() {
            Some((at, sum)) if slot(*at) == slot(now) => {
                *at = now.max(*at);
                *sum += value;
            }
            _ => self.recent.push_back((now, value.clone())),
        }
    }

    /// Counts `value` as spent no more: it was counted at that time, and never left.
    pub fn give_back(&mut self, at: Time, value: &Amount) {
        self.spent -= value;
        let counted = { self.recent.iter_mut() }.find(|(when, _)| slot(*when) == slot(at));
        if let Some((_, sum)) = counted.filter(|(_, sum)| *sum >= *value) {
            *sum -= value;
        }
    }

    /// The record, under `key`, of the spending that has to survive a crash.
    #[must_use]
    pub fn to_record(&self, key: String) -> Record {
        let mut text = self.spent.to_string();
        for (at, value) in &self.recent {
            text.push_str(&alloc::format!("\n{} {value}", at.as_nanos()));
        }
        Record {
            key,
            value: Some(text.into_bytes().into()),
        }
    }

    /// Begins another job: what was spent before counts for the hour only.
    #[must_use]
    pub fn next_job(mut self) -> Self {
        self.spent = Amount::zero();
        self
    }

    /// Takes back what survived; says whether the record was readable. Limits stay as they are.
    pub fn restore(&mut self, record: &Record) -> bool {
        let read = || {
            let text = core::str::from_utf8(record.value.as_ref()?).ok()?;
            let mut lines = text.lines();
            let spent: BigRational = lines.next()?.parse().ok()?;
            let recent = lines
                .map(|line| {
                    let (at, value) = line.split_once(' ')?;
                    let value: BigRational = value.parse().ok()?;
                    Some((Time::from_nanos(at.parse().ok()?), Amount::from(value)))
                })
                .collect::<Option<VecDeque<_>>>()?;
            Some((Amount::from(spent), recent))
        };
        match read() {
            Some((spent, recent)) => {
                self.spent = spent;
                self.recent = recent;
                true
            }
            None => false,
        }
    }
}
