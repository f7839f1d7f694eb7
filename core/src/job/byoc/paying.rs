//! Payments from one balance at each orchestrator, by the second.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use num_traits::ToPrimitive as _;

use super::Byoc;
use super::job::{Engaged, Offer};
use super::types::{Event, Failed, JobId, Left};
use crate::error::{Advice, Cause, Failure, Party};
use crate::http::Url;
use crate::machine::{Child, Input};
use crate::money::Amount;
use crate::payment::PaymentSession;
use crate::payment::byoc::LOW_WATER_SECONDS;
use crate::payment::session::{self, Delivered, Fee, PaymentId};
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
    pub(super) payment: Option<Child<PaymentSession>>,
    /// The jobs of payments that are awaited, or that went along with requests.
    payments: BTreeMap<PaymentId, JobId>,
    /// Why there will be no more payments.
    ended: Option<Failure>,
    /// Whether it is on the list of those there are.
    pub(super) listed: bool,
    /// Faults in a row.
    faults: u32,
    rests_until: Option<Time>,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            payment: None,
            payments: BTreeMap::new(),
            ended: None,
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
        let seconds = u64::from(job.order.job.timeout_seconds).max(LEAST_SECONDS);
        job.engaged = Some(Engaged {
            url: url.clone(),
            token: token.clone(),
            payment: None,
            tickets: 0,
        });
        if !paid {
            return self.send(id, None);
        }
        self.retain(&url, &token);
        let units = self.units(&url, &token, seconds);
        let now = self.now;
        match self.pay_with(&url, |payment| payment.pay(now, Fee::Units(units))) {
            Some(Ok(payment)) => {
                if let Some(peer) = self.peers.get_mut(&url) {
                    peer.payments.insert(payment, id);
                }
                if let Some(engaged) = self.jobs.get_mut(&id).and_then(|job| job.engaged.as_mut()) {
                    engaged.payment = Some(payment);
                }
            }
            _ => {
                // The session was over as soon as it began, and has said why.
                let ended = self.peers.get(&url).and_then(|peer| peer.ended.clone());
                let gone =
                    || Failure::new(Party::Orchestrator(url.clone()), Cause::Gone("the session"));
                self.unpaid(id, &ended.unwrap_or_else(gone));
            }
        }
    }

    /// How many seconds to have on the balance for a job that may take `seconds`: all of them, but two minutes are enough
    /// where they lie there already, and what one payment cannot hold is not asked for.
    fn units(&self, url: &Url, token: &Token, seconds: u64) -> u64 {
        let balance = self
            .peers
            .get(url)
            .and_then(|peer| peer.payment.as_ref()?.get().balance().cloned());
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
    fn retain(&mut self, url: &Url, token: &Token) {
        let info = Arc::new(token.to_info(&self.capability, self.now + QUOTE_LASTS));
        let now = self.now;
        self.pay_with(url, |payment| payment.renew(now, &info));
        if self
            .peers
            .get(url)
            .is_some_and(|peer| peer.payment.is_none() || peer.ended.is_some())
        {
            self.forget(url);
            let account = self
                .introducing
                .known()
                .flatten()
                .map(|(address, _)| address);
            let session = self.purse.open_as(now, &info, account, |_| ());
            let payment = self.ids.adopt(session);
            if let Some(peer) = self.peers.get_mut(url) {
                (peer.payment, peer.ended) = (Some(payment), None);
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
        let Some(peer) = self.peers.get_mut(url) else {
            return;
        };
        peer.payments.clear();
        if let Some(mut payment) = peer.payment.take() {
            self.purse.learn_nonces(payment.get());
            payment.get_mut().close(self.now);
            payment.drain(&mut self.out, |_| ());
        }
    }

    /// Does something with the payments to an orchestrator.
    pub(super) fn pay_with<T>(
        &mut self,
        url: &Url,
        act: impl FnOnce(&mut PaymentSession) -> T,
    ) -> Option<T> {
        self.with_payment(url, |payment| act(payment.get_mut()))
    }

    fn with_payment<T>(
        &mut self,
        url: &Url,
        act: impl FnOnce(&mut Child<PaymentSession>) -> T,
    ) -> Option<T> {
        let peer = self.peers.get_mut(url)?;
        let payment = peer.payment.as_mut()?;
        let done = act(payment);
        let (news, ended) = (&mut self.news, &mut peer.ended);
        payment.drain(&mut self.out, |event| {
            if let session::Event::Failed(failure) = &event {
                *ended = Some(failure.clone());
            }
            news.push_back((url.clone(), event));
        });
        Some(done)
    }

    /// Takes an input for the payments to an orchestrator.
    pub(super) fn feed(&mut self, url: &Url, input: Input) {
        let now = self.now;
        self.with_payment(url, |payment| payment.handle_input(now, input));
    }

    pub(super) fn on_payment(&mut self, url: &Url, event: session::Event) {
        match event {
            session::Event::Ready(payment, credentials) => {
                let bill = { self.peers.get(url) }
                    .and_then(|peer| peer.payment.as_ref()?.get().bill(payment));
                let tickets = bill.map_or(0, |bill| bill.tickets);
                match self.job_of(url, payment) {
                    Some(id) => {
                        if let Some(engaged) =
                            self.jobs.get_mut(&id).and_then(|job| job.engaged.as_mut())
                        {
                            engaged.tickets = tickets;
                        }
                        // A request without a ticket goes without the header.
                        self.send(id, (tickets > 0).then_some(credentials));
                    }
                    // Whoever wanted it went away.
                    None => self.tell(url, payment, Delivered::Unsent),
                }
            }
            session::Event::Held(payment, failure) => {
                if let Some(id) = self.job_of(url, payment) {
                    self.unpaid(id, &failure);
                }
            }
            session::Event::Skipped(payment) => {
                if let Some(id) = self.job_of(url, payment) {
                    let failure = Failure::new(Party::KeyHolder, Cause::Gone("the payment"));
                    self.unpaid(id, &failure);
                }
            }
            session::Event::NeedQuote(_) => {
                // The token is as new as can be: somebody else's may be better.
                let failure =
                    Failure::new(Party::Orchestrator(url.clone()), Cause::Gone("the quote"));
                let now = self.now;
                self.pay_with(url, |payment| payment.no_quote(now, failure));
            }
            session::Event::Paid(_, paid) => {
                self.out.event(Event::Paid(url.clone(), Box::new(paid)));
            }
            session::Event::Failed(failure) => {
                let waiting = self
                    .peers
                    .get_mut(url)
                    .map(|peer| core::mem::take(&mut peer.payments));
                let waiting: Vec<JobId> = waiting.into_iter().flatten().map(|(_, id)| id).collect();
                for id in waiting {
                    let pays = |job: &super::Job| job.flight.is_none();
                    if self.jobs.get(&id).is_some_and(pays) {
                        self.unpaid(id, &failure);
                    }
                }
            }
            session::Event::Signers(seen) => self.note_signers(&seen),
            session::Event::Requoted(_) | session::Event::Repriced { .. } => {}
        }
    }

    fn job_of(&self, url: &Url, payment: PaymentId) -> Option<JobId> {
        self.peers.get(url)?.payments.get(&payment).copied()
    }

    /// Tells the payments what became of one.
    pub(super) fn tell(&mut self, url: &Url, payment: PaymentId, how: Delivered) {
        if let Some(peer) = self.peers.get_mut(url) {
            peer.payments.remove(&payment);
        }
        let now = self.now;
        self.pay_with(url, |payments| {
            payments.cancel(now, payment);
            payments.delivered(now, payment, how);
        });
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
            self.tell(&engaged.url, payment, how);
        }
    }
}
