//! Orchestrators under contract from job to job: paying for requests, and fresh quotes.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::job::{Engaged, Stage};
use super::retained::{MAX_RETAINED, Retained};
use super::types::{Event, Failed, JobId, Left};
use super::{Batch, News};
use crate::error::{Advice, Failure, Party};
use crate::handshake;
use crate::http::Url;
use crate::job::account::{Account, Told, gone};
use crate::job::hire::verdict;
use crate::machine::Input;
use crate::payment::PaymentSession;
use crate::payment::session::{self, Delivered, PaymentId};
use crate::pool::{Lease, Outcome, Selector};
use crate::time::Time;

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
        let paying = self.with_account(&url, |account, now| account.pay(now, units, id));
        let no_account = || Err(Box::new(gone(&url, "the session")));
        match paying.unwrap_or_else(no_account) {
            Ok(payment) => {
                if let Some(engaged) = self.jobs.get_mut(&id).and_then(|job| job.engaged.as_mut()) {
                    engaged.payment = Some(payment);
                }
            }
            Err(failure) => self.engagement_failed(id, *failure),
        }
    }

    /// Keeps the payments to an orchestrator, with its latest quote.
    fn retain(&mut self, url: &Url, lease: &Lease) {
        if let Some(retained) = self.retained.get_mut(url)
            && !retained.account.has_ended()
        {
            retained.used = self.now;
            if !Arc::ptr_eq(&retained.seen, &lease.info) {
                retained.seen = Arc::clone(&lease.info);
                let (now, info) = (self.now, Arc::clone(&lease.info));
                self.pay_with(url, |payment| payment.renew(now, &info));
            }
            let known = self.retained.get(url);
            if known.is_some_and(|one| !one.account.has_ended()) {
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
            account: Account::new(url.clone(), self.ids.adopt(session)),
            handshake: None,
            seen: Arc::clone(&lease.info),
            used: self.now,
        };
        self.retained.insert(url.clone(), retained);
        // One that fails says so now.
        self.pay_with(url, |_| ());
    }

    /// Ends the payments to an orchestrator.
    pub(super) fn forget(&mut self, url: &Url) {
        let Some(retained) = self.retained.remove(url) else {
            return;
        };
        let account = retained.account;
        account.close(self.now, &mut self.purse, &mut self.out);
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
        self.with_account(url, |account, _| act(account.payments_mut()))
    }

    /// Does something with the account with an orchestrator.
    fn with_account<T>(
        &mut self,
        url: &Url,
        act: impl FnOnce(&mut Account<JobId>, Time) -> T,
    ) -> Option<T> {
        let account = &mut self.retained.get_mut(url)?.account;
        let done = act(account, self.now);
        account.drain(&mut self.out, &mut self.news);
        Some(done)
    }

    /// Takes an input for the payments to an orchestrator, or for its handshake.
    pub(super) fn feed(&mut self, url: &Url, input: Input) {
        let Some(retained) = self.retained.get_mut(url) else {
            return;
        };
        let handshake = input.id().is_none_or(|id| !retained.account.owns(id));
        if handshake && let Some(handshake) = &mut retained.handshake {
            handshake.handle_input(self.now, input.clone());
            let news = &mut self.news;
            handshake.drain(&mut self.out, |event| {
                news.push_back(News::Quote(url.clone(), event));
            });
        }
        self.with_account(url, |account, now| account.feed(now, input));
    }

    pub(super) fn on_payment(&mut self, url: &Url, event: session::Event) {
        let account = self.retained.get_mut(url).map(|one| &mut one.account);
        match Told::read(account, event) {
            Told::Ready(id, _, credentials) => self.send(id, &credentials),
            Told::Unwanted(payment) => self.settle(url, payment, Delivered::Unsent),
            Told::Unpaid(jobs, failure) => {
                for id in jobs {
                    self.engagement_failed(id, failure.clone());
                }
            }
            Told::NeedQuote => self.renew(url),
            Told::Paid(paid) => self.out.event(Event::Paid(url.clone(), Box::new(paid))),
            Told::Signers(seen) => self.note_signers(&seen),
            Told::Nothing => {}
        }
    }

    /// Tells the payments what became of one.
    pub(super) fn settle(&mut self, url: &Url, payment: PaymentId, how: Delivered) {
        self.with_account(url, |account, now| account.settle(now, payment, how));
    }

    /// The payments need a fresh quote: the orchestrator is asked for one.
    fn renew(&mut self, url: &Url) {
        let now = self.now;
        let Some(retained) = self.retained.get_mut(url) else {
            return;
        };
        let jobs = &mut self.jobs;
        let fresh = { retained.account.jobs() }
            .find_map(|id| Some(jobs.get_mut(&id)?.lease_of(url)?.handshake(now)));
        let Some(fresh) = fresh else {
            self.with_account(url, |account, now| account.no_quote(now, "the job"));
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
            self.settle(&engaged.url, payment, how);
        }
        let now = self.now;
        self.pool.get_mut().give_back(now, engaged.lease, outcome);
    }
}
