//! Payments from one balance at each orchestrator, by the second.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::time::Duration;

use num_traits::ToPrimitive as _;

use super::Byoc;
use super::job::{Aim, Engaged, Offer};
use super::stream::SECONDS_AHEAD;
use super::types::{Event, Failed, JobId, Left};
use crate::error::{Advice, Cause, Failure};
use crate::http::Url;
use crate::job::account::{Account, Told, gone};
use crate::money::Amount;
use crate::payment::PaymentSession;
use crate::payment::byoc::LOW_WATER_SECONDS;
use crate::payment::session::{self, Delivered, PaymentId};
use crate::payment::ticket::expected_value;
use crate::time::Time;
use crate::wire::byoc::Token;

/// How many seconds' price an orchestrator wants to see before it begins, however little time the job has.
const LEAST_SECONDS: u64 = 60;

/// How long a token stands in for an auth token: as long as those last.
const QUOTE_LASTS: Duration = Duration::from_secs(30 * 60);

/// The first fault rests an orchestrator for this long; each further one for twice as long.
const FIRST_REST: Duration = Duration::from_secs(10);

/// No orchestrator rests for longer.
const LONGEST_REST: Duration = Duration::from_secs(30 * 60);

/// An orchestrator, the payments to it, and how it has been.
pub(super) struct Peer {
    /// `None` where nothing was paid so far.
    pub(super) account: Option<Account<JobId>>,
    /// Whether it is on the list of those there are.
    pub(super) listed: bool,
    /// Faults in a row.
    faults: u32,
    rests_until: Option<Time>,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            account: None,
            listed: true,
            faults: 0,
            rests_until: None,
        }
    }
}

impl Peer {
    pub(super) fn rests(&self, now: Time) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    /// Notes a fault, or that all is well.
    pub(super) fn note(&mut self, now: Time, well: bool) {
        if well {
            (self.faults, self.rests_until) = (0, None);
        } else {
            let rest = FIRST_REST.saturating_mul(1 << self.faults.min(16));
            self.rests_until = Some(now + rest.min(LONGEST_REST));
            self.faults += 1;
        }
    }
}

impl Byoc {
    /// Takes on the orchestrator of a token for a job, and pays for the request.
    pub(super) fn engage(&mut self, id: JobId, offer: Offer) {
        let Offer { url, token, .. } = offer;
        let paid = !token.price.is_free();
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.tried.insert(url.clone());
        let seconds = match job.aim {
            Aim::Request => u64::from(job.order.job.timeout_seconds).max(LEAST_SECONDS),
            Aim::Start(_) => SECONDS_AHEAD,
        };
        job.engaged = Some(Engaged {
            url: url.clone(),
            token: token.clone(),
            payment: None,
            tickets: 0,
            value: Amount::zero(),
        });
        if !paid {
            return self.send(id, None);
        }
        self.retain(&url, &token);
        let units = self.units(&url, &token, seconds);
        let paying = self.with_account(&url, |account, now| account.pay(now, units, id));
        let no_account = || Err(Box::new(gone(&url, "the session")));
        match paying.unwrap_or_else(no_account) {
            Ok(payment) => {
                if let Some(engaged) = self.jobs.get_mut(&id).and_then(|job| job.engaged.as_mut()) {
                    engaged.payment = Some(payment);
                }
            }
            Err(failure) => self.unpaid(id, &failure),
        }
    }

    /// How many seconds to have on the balance for a job that may take `seconds`: all of them, but two minutes are enough
    /// where they lie there already, and what one payment cannot hold is not asked for.
    pub(super) fn units(&self, url: &Url, token: &Token, seconds: u64) -> u64 {
        let balance = self
            .payments(url)
            .and_then(|payments| payments.balance().cloned());
        let low_water = token.price.fee(LOW_WATER_SECONDS);
        if balance.is_some_and(|balance| balance >= low_water) {
            return seconds.min(LOW_WATER_SECONDS);
        }
        let most = token.ticket_params.as_ref().map(|params| {
            let ev = expected_value(&params.face_value, &params.win_prob);
            let tickets = num_bigint::BigInt::from(self.config.payment.max_tickets);
            let most = ev.as_ratio() * tickets / token.price.of_one().as_ratio();
            most.to_integer().to_u64().unwrap_or(u64::MAX)
        });
        seconds.min(most.unwrap_or(u64::MAX).max(LEAST_SECONDS))
    }

    /// Keeps the payments to an orchestrator, with its latest token.
    pub(super) fn retain(&mut self, url: &Url, token: &Token) {
        let info = Arc::new(token.to_info(&self.capability, self.now + QUOTE_LASTS));
        let now = self.now;
        self.pay_with(url, |payment| payment.renew(now, &info));
        let account = self.peers.get(url).and_then(|peer| peer.account.as_ref());
        if account.is_none_or(Account::has_ended) {
            self.forget(url);
            let account = self
                .introducing
                .known()
                .flatten()
                .map(|(address, _)| address);
            let session = self.purse.open_as(now, &info, account, |_| ());
            let payment = self.ids.adopt(session);
            if let Some(peer) = self.peers.get_mut(url) {
                peer.account = Some(Account::new(url.clone(), payment));
            }
            // One that fails says so now.
            self.pay_with(url, |_| ());
        }
        self.count(url, token.balance);
    }

    /// Takes over the orchestrator's own count.
    pub(super) fn count(&mut self, url: &Url, balance: i64) {
        let now = self.now;
        let balance = Amount::ratio(balance.max(0), 1).unwrap_or_default();
        self.pay_with(url, |payment| payment.set_balance(now, balance));
    }

    /// Ends the payments to an orchestrator.
    pub(super) fn forget(&mut self, url: &Url) {
        let account = self.peers.get_mut(url).and_then(|peer| peer.account.take());
        if let Some(account) = account {
            account.close(self.now, &mut self.purse, &mut self.out);
        }
    }

    /// Does something with the payments to an orchestrator.
    pub(super) fn pay_with<T>(
        &mut self,
        url: &Url,
        act: impl FnOnce(&mut PaymentSession) -> T,
    ) -> Option<T> {
        self.with_account(url, |account, _| act(account.payments_mut()))
    }

    /// Does something with the account with an orchestrator.
    pub(super) fn with_account<T>(
        &mut self,
        url: &Url,
        act: impl FnOnce(&mut Account<JobId>, Time) -> T,
    ) -> Option<T> {
        let account = self.peers.get_mut(url)?.account.as_mut()?;
        let done = act(account, self.now);
        account.drain(&mut self.out, &mut self.news);
        Some(done)
    }

    pub(super) fn on_payment(&mut self, url: &Url, event: session::Event) {
        let account = { self.peers.get_mut(url) }.and_then(|peer| peer.account.as_mut());
        match Told::read(account, event) {
            Told::Ready(id, payment, credentials) => {
                let bill = self.payments(url).and_then(|all| all.bill(payment));
                let (tickets, value) = match bill {
                    Some(bill) => (bill.tickets, bill.value.clone()),
                    None => (0, Amount::zero()),
                };
                if self.has_stream(id) {
                    return self.stream_paid(id, payment, tickets, credentials);
                }
                if let Some(engaged) = self.jobs.get_mut(&id).and_then(|job| job.engaged.as_mut()) {
                    (engaged.tickets, engaged.value) = (tickets, value);
                }
                // A request without a ticket goes without the header.
                self.send(id, (tickets > 0).then_some(credentials));
            }
            Told::Unwanted(payment) => self.settle(url, payment, Delivered::Unsent),
            Told::Unpaid(jobs, failure) => {
                for id in jobs {
                    match self.has_stream(id) {
                        true => self.stream_unpaid(id, &failure),
                        false => self.unpaid(id, &failure),
                    }
                }
            }
            // The token is as new as can be: somebody else's may be better.
            Told::NeedQuote => {
                self.with_account(url, |account, now| account.no_quote(now, "the quote"));
            }
            Told::Paid(paid) => self.out.event(Event::Paid(url.clone(), Box::new(paid))),
            Told::Signers(seen) => self.note_signers(&seen),
            Told::Nothing => {}
        }
    }

    /// Tells the payments what became of one.
    pub(super) fn settle(&mut self, url: &Url, payment: PaymentId, how: Delivered) {
        self.with_account(url, |account, now| account.settle(now, payment, how));
    }

    /// The request cannot be paid for at the orchestrator that a job is with.
    fn unpaid(&mut self, id: JobId, failure: &Failure) {
        let engaged = self.jobs.get(&id).and_then(|job| job.engaged.as_ref());
        let Some(url) = engaged.map(|engaged| engaged.url.clone()) else {
            return;
        };
        self.part(id, Delivered::Untouched);
        if failure.advice() == Advice::Stop {
            return self.fail(id, Failed::Ours(Box::new(failure.clone())));
        }
        let left = match failure.cause {
            Cause::TooDear { .. } | Cause::Guard(_) => Left::TooDear,
            _ => Left::Unpaid,
        };
        self.left(id, url, left);
        self.go_on(id);
    }

    /// Leaves the orchestrator that a job is with: what was sent is aborted.
    pub(super) fn part(&mut self, id: JobId, how: Delivered) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if let Some(flight) = job.flight.take()
            && self.effects.remove(&flight.exchange).is_some()
        {
            self.out.abort(flight.exchange);
        }
        let Some(engaged) = job.engaged.take() else {
            return;
        };
        if let Some(payment) = engaged.payment {
            self.settle(&engaged.url, payment, how);
        }
    }
}
