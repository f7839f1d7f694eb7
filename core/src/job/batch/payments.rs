//! Orchestrators under contract from job to job: paying for requests, and fresh quotes.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use super::job::{Engaged, Job, Stage};
use super::retained::{MAX_RETAINED, Retained};
use super::types::{Event, Failed, JobId, Left};
use super::{Batch, News};
use crate::error::{Advice, Cause, Failure, Party};
use crate::handshake;
use crate::http::Url;
use crate::job::hire::verdict;
use crate::machine::{Child, Input};
use crate::payment::PaymentSession;
use crate::payment::session::{self, Delivered, Fee, PaymentId};
use crate::pool::{Lease, Outcome, Selector};

impl<S: Selector> Batch<S> {
    /// Takes on the orchestrator of a lease for a job, and pays for the request.
    pub(super) fn engage(&mut self, id: JobId, lease: Lease) {
        let url = lease.url().clone();
        self.retain(&url, &lease);
        let Some(job) = self.jobs.get_mut(&id) else {
            let now = self.now;
            return self.pool.get_mut().give_back(now, lease, Outcome::Unused);
        };
        let took = job.lap(self.now);
        job.selecting += took;
        job.engaged = Some(Engaged {
            lease,
            url,
            payment: None,
            tries: 0,
            renewed: false,
            asked: self.now,
            first: None,
            took: None,
        });
        self.pay(id);
    }

    /// Pays for a job's request to the orchestrator that it is with.
    pub(super) fn pay(&mut self, id: JobId) {
        self.set_wake(id, None);
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.stage = Stage::Paying;
        self.arm_silent(id);
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let units = job.size.units;
        let Some(url) = job.engaged.as_ref().map(|engaged| engaged.url.clone()) else {
            return;
        };
        let now = self.now;
        let paying = self.pay_with(&url, |payment| payment.pay(now, Fee::Units(units)));
        match paying {
            Some(Ok(payment)) => {
                if let Some(retained) = self.retained.get_mut(&url) {
                    retained.payments.insert(payment, id);
                }
                if let Some(engaged) = self.jobs.get_mut(&id).and_then(|job| job.engaged.as_mut()) {
                    engaged.payment = Some(payment);
                }
            }
            _ => {
                // The session was over as soon as it began, and has said why.
                let ended = self
                    .retained
                    .get(&url)
                    .and_then(|known| known.ended.clone());
                let gone = || Failure::new(Party::Orchestrator(url), Cause::Gone("the session"));
                self.engagement_failed(id, ended.unwrap_or_else(gone));
            }
        }
    }

    /// Keeps the payments to an orchestrator, with its latest quote.
    fn retain(&mut self, url: &Url, lease: &Lease) {
        if let Some(retained) = self.retained.get_mut(url)
            && retained.ended.is_none()
        {
            retained.used = self.now;
            if !Arc::ptr_eq(&retained.seen, &lease.info) {
                retained.seen = Arc::clone(&lease.info);
                let (now, info) = (self.now, Arc::clone(&lease.info));
                self.pay_with(url, |payment| payment.renew(now, &info));
            }
            if self
                .retained
                .get(url)
                .is_some_and(|one| one.ended.is_none())
            {
                return;
            }
        }
        self.forget(url);
        if self.retained.len() >= MAX_RETAINED {
            let idle = self.retained.iter().filter(|(_, one)| one.is_idle());
            let oldest = idle.min_by_key(|(_, one)| one.used);
            if let Some(oldest) = oldest.map(|(url, _)| url.clone()) {
                self.forget(&oldest);
            }
        }
        let session = self.purse.open(self.now, lease);
        let retained = Retained {
            payment: self.ids.adopt(session),
            handshake: None,
            seen: Arc::clone(&lease.info),
            payments: BTreeMap::new(),
            ended: None,
            used: self.now,
        };
        self.retained.insert(url.clone(), retained);
        // One that fails says so now.
        self.pay_with(url, |_| ());
    }

    /// Ends the payments to an orchestrator.
    pub(super) fn forget(&mut self, url: &Url) {
        let Some(mut retained) = self.retained.remove(url) else {
            return;
        };
        self.purse.learn_nonces(retained.payment.get());
        retained.payment.get_mut().close(self.now);
        retained.payment.drain(&mut self.out, |_| ());
        if let Some(mut handshake) = retained.handshake {
            handshake.get_mut().close(self.now);
            handshake.drain(&mut self.out, |_| ());
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
        let retained = self.retained.get_mut(url)?;
        let payment = &mut retained.payment;
        let done = act(payment);
        let (news, ended) = (&mut self.news, &mut retained.ended);
        payment.drain(&mut self.out, |event| {
            if let session::Event::Failed(failure) = &event {
                *ended = Some(failure.clone());
            }
            news.push_back(News::Payment(url.clone(), event));
        });
        Some(done)
    }

    /// Takes an input for the payments to an orchestrator, or for its handshake.
    pub(super) fn feed(&mut self, url: &Url, input: Input) {
        let Some(retained) = self.retained.get_mut(url) else {
            return;
        };
        let handshake = input.id().is_none_or(|id| !retained.payment.owns(id));
        if handshake && let Some(handshake) = &mut retained.handshake {
            handshake.handle_input(self.now, input.clone());
            let news = &mut self.news;
            handshake.drain(&mut self.out, |event| {
                news.push_back(News::Quote(url.clone(), event));
            });
        }
        let now = self.now;
        self.with_payment(url, |payment| payment.handle_input(now, input));
    }

    pub(super) fn on_payment(&mut self, url: &Url, event: session::Event) {
        match event {
            session::Event::Ready(payment, credentials) => {
                match self.job_of(url, payment) {
                    Some(id) => self.send(id, &credentials),
                    None => {
                        // Whoever wanted it went away.
                        self.tell(url, payment, Delivered::Unsent);
                    }
                }
            }
            session::Event::Held(payment, failure) => {
                if let Some(id) = self.job_of(url, payment) {
                    self.engagement_failed(id, failure);
                }
            }
            session::Event::Signers(seen) => self.note_signers(&seen),
            session::Event::NeedQuote(_) => self.renew(url),
            session::Event::Paid(_, paid) => {
                self.out.event(Event::Paid(url.clone(), Box::new(paid)))
            }
            session::Event::Failed(failure) => {
                let Some(retained) = self.retained.get(url) else {
                    return;
                };
                for id in retained
                    .payments
                    .values()
                    .copied()
                    .collect::<alloc::vec::Vec<_>>()
                {
                    let is_paid = |job: &Job| {
                        let engaged = job.engaged.as_ref();
                        let here = engaged.is_some_and(|engaged| engaged.url == *url);
                        here && matches!(job.stage, Stage::Paying)
                    };
                    if self.jobs.get(&id).is_some_and(is_paid) {
                        self.engagement_failed(id, failure.clone());
                    }
                }
            }
            session::Event::Skipped(payment) => {
                if let Some(id) = self.job_of(url, payment) {
                    let cause = Cause::Gone("the payment");
                    self.engagement_failed(id, Failure::new(Party::KeyHolder, cause));
                }
            }
            session::Event::Requoted(_) | session::Event::Repriced { .. } => {}
        }
    }

    fn job_of(&self, url: &Url, payment: PaymentId) -> Option<JobId> {
        self.retained.get(url)?.payments.get(&payment).copied()
    }

    /// Tells the payments what became of one.
    pub(super) fn tell(&mut self, url: &Url, payment: PaymentId, how: Delivered) {
        if let Some(retained) = self.retained.get_mut(url) {
            retained.payments.remove(&payment);
        }
        let now = self.now;
        self.pay_with(url, |payments| payments.delivered(now, payment, how));
    }

    /// The payments need a fresh quote: the orchestrator is asked for one.
    fn renew(&mut self, url: &Url) {
        let now = self.now;
        let Some(retained) = self.retained.get_mut(url) else {
            return;
        };
        let jobs = &mut self.jobs;
        let fresh = { retained.payments.values() }
            .find_map(|id| Some(jobs.get_mut(id)?.lease_of(url)?.handshake(now)));
        let Some(fresh) = fresh else {
            let cause = Cause::Gone("the job");
            let failure = Failure::new(Party::Orchestrator(url.clone()), cause);
            self.pay_with(url, |payment| payment.no_quote(now, failure));
            return;
        };
        if retained.handshake.is_none() {
            retained.handshake = Some(self.ids.adopt(fresh));
        }
        if let Some(handshake) = &mut retained.handshake {
            // One that has ended says so.
            let _ = handshake.get_mut().renew(now);
            let news = &mut self.news;
            handshake.drain(&mut self.out, |event| {
                news.push_back(News::Quote(url.clone(), event));
            });
        }
    }

    pub(super) fn on_quote(&mut self, url: &Url, event: handshake::Event) {
        let now = self.now;
        let failure = match event {
            handshake::Event::Renewed(info) => {
                self.end_handshake(url);
                // Those who are with it take the newer info home.
                for job in self.jobs.values_mut() {
                    if let Some(lease) = job.lease_of(url) {
                        lease.info = Arc::clone(&info);
                    }
                }
                self.pay_with(url, |payment| payment.renew(now, &info));
                return;
            }
            handshake::Event::Failed(failure) => failure,
            handshake::Event::Rejected(rejection) => {
                Failure::new(Party::Orchestrator(url.clone()), rejection.into_cause())
            }
            _ => return,
        };
        self.end_handshake(url);
        self.pay_with(url, |payment| payment.no_quote(now, failure));
    }

    fn end_handshake(&mut self, url: &Url) {
        let handshake = self
            .retained
            .get_mut(url)
            .and_then(|one| one.handshake.take());
        if let Some(mut handshake) = handshake {
            handshake.get_mut().close(self.now);
            handshake.drain(&mut self.out, |_| ());
        }
    }

    /// The request cannot be paid for, or not brought to its orchestrator.
    fn engagement_failed(&mut self, id: JobId, failure: Failure) {
        let orchestrator = self.jobs.get(&id).and_then(|job| job.engaged.as_ref());
        let Some(url) = orchestrator.map(|engaged| engaged.url.clone()) else {
            return;
        };
        if failure.advice() == Advice::Stop {
            self.leave(id, Delivered::Untouched, Outcome::Unused);
            // That no standby can be had is no reason to give up those who are at work.
            if !self.wait_for_silent(id, None) {
                self.fail(id, Failed::Ours(Box::new(failure)));
            }
            return;
        }
        self.leave(id, Delivered::Untouched, verdict(&failure));
        if let Some(job) = self.jobs.get_mut(&id) {
            job.left(url, Left::from(&failure.cause));
        }
        self.select(id);
    }

    /// Leaves the orchestrator that a job is with, which has done it.
    pub(super) fn did_well(&mut self, id: JobId) {
        let engaged = self.jobs.get(&id).and_then(|job| job.engaged.as_ref());
        let first_byte = engaged.and_then(|engaged| engaged.first);
        self.leave(id, Delivered::Accepted, Outcome::Done { first_byte });
    }

    /// Leaves the orchestrator that a job is with: what was sent is aborted, and the lease goes home.
    pub(super) fn leave(&mut self, id: JobId, how: Delivered, outcome: Outcome) {
        self.set_wake(id, None);
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let mut over = alloc::vec::Vec::new();
        match core::mem::replace(&mut job.stage, Stage::Selecting) {
            Stage::InFlight(flight) => {
                let took = job.lap(self.now);
                job.upstream += took;
                if self.exchanges.remove(&flight.exchange).is_some() {
                    over.push(flight.exchange);
                }
            }
            Stage::Fetching(mut fetching) => {
                for (exchange, (_, fetch)) in &mut fetching.fetches {
                    self.exchanges.remove(exchange);
                    fetch.abort(&mut self.out);
                }
            }
            Stage::Paying => {
                let took = job.lap(self.now);
                job.paying += took;
            }
            Stage::Selecting => {}
        }
        for exchange in over {
            self.out.abort(exchange);
        }
        let units = job.size.units;
        let Some(engaged) = job.engaged.take() else {
            return;
        };
        if matches!(outcome, Outcome::Done { .. }) {
            let took = { engaged.took }.unwrap_or_else(|| self.now.since(engaged.asked));
            self.pool.get_mut().measured(&engaged.lease, units, took);
        }
        self.part(engaged, how, outcome);
    }

    /// Says to the payments how it went with an orchestrator, and gives its lease back.
    pub(super) fn part(&mut self, engaged: Engaged, how: Delivered, outcome: Outcome) {
        if let Some(payment) = engaged.payment {
            let now = self.now;
            self.pay_with(&engaged.url, |payments| payments.cancel(now, payment));
            self.tell(&engaged.url, payment, how);
        }
        let now = self.now;
        self.pool.get_mut().give_back(now, engaged.lease, outcome);
    }
}
