//! Choosing who does a job, and what happens when nobody is left.

use alloc::vec::Vec;

use super::job::Stage;
use super::types::{Event, Failed, JobId};
use super::{Batch, FIND_WITHIN};
use crate::handshake::Rejection;
use crate::pool::{Candidate, Lease, Selector, Tried, Why, among};
use crate::selection::{Nobody, Preferring};

impl<S: Selector> Batch<S> {
    /// Looks for an orchestrator for a job that has none.
    pub(super) fn select(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.stage = Stage::Selecting;
        let tries = job.config.tries;
        let late = tries
            .within
            .is_some_and(|within| job.trying_since + within < self.now);
        let over =
            job.tries > 0 && (late || job.tries >= tries.tries || job.preferences.is_single_try());
        if over {
            let again = self.standby_at(id);
            if !self.wait_for_silent(id, again) {
                self.nobody_left(id);
            }
            return;
        }
        let within = match tries.within {
            Some(within) if job.tries > 0 => within,
            _ => job.config.select_within,
        };
        let until = job.trying_since + within;
        if let Some(lease) = self.take(id) {
            self.selecting.remove(&id);
            return self.engage(id, lease);
        }
        let again = self.standby_at(id);
        if self.wait_for_silent(id, again) {
            self.selecting.remove(&id);
            return;
        }
        self.selecting.insert(id);
        self.set_wake(
            id,
            Some(until.max(self.now + core::time::Duration::from_nanos(1))),
        );
        if self.found.is_none() && self.finding.is_none() {
            self.look();
        }
        if self.found.is_none()
            && let Some(job) = self.jobs.get_mut(&id)
        {
            job.looked = true;
        }
    }

    /// Tries again for all that wait.
    pub(super) fn select_all(&mut self) {
        for id in self.selecting.iter().copied().collect::<Vec<_>>() {
            if self.selecting.contains(&id) {
                self.select(id);
            }
        }
    }

    pub(super) fn take(&mut self, id: JobId) -> Option<Lease> {
        let job = self.jobs.get(&id)?;
        let now = self.now;
        let mut excluded = None;
        let limits = &job.config.limits;
        let lease = self.pool.get_mut().take_by(now, |selector, rng, from| {
            let mut preferring = Preferring {
                policies: &[limits],
                preferences: &job.preferences,
                size: job.size,
                inner: selector,
            };
            let first = |from: &[Candidate<'_>]| match preferring.first(rng, from) {
                Ok(place) => Some(place),
                Err(Nobody::AtAll) => None,
                Err(Nobody::Fits(counts)) => {
                    excluded = Some(counts);
                    None
                }
            };
            among(from, |one| !job.tried.contains(one.url), first)
        });
        if let Some(job) = self.jobs.get_mut(&id) {
            job.excluded = excluded;
        }
        lease
    }

    /// The pool has nobody else: those that wait may look once, then they fail.
    pub(super) fn exhausted(&mut self) {
        for id in self.selecting.iter().copied().collect::<Vec<_>>() {
            let may_look = self.may_look();
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            if !job.looked && may_look {
                job.looked = true;
                self.look();
            } else if self.finding.is_none() {
                self.nobody_left(id);
            }
        }
    }

    /// Whether orchestrators may be looked for: not while the last answer is remembered.
    pub(super) fn may_look(&self) -> bool {
        let remembered = self.found.map(|at| at + self.config.nobody_for);
        !self.closed && remembered.is_none_or(|until| until <= self.now)
    }

    /// Has the owner look for orchestrators, unless it does so already.
    pub(super) fn look(&mut self) {
        let busy = self
            .finding
            .is_some_and(|since| self.now < since + FIND_WITHIN);
        if !busy && !self.closed {
            self.finding = Some(self.now);
            self.out.event(Event::Find);
        }
    }

    /// The owner has looked.
    pub(super) fn after_search(&mut self) {
        self.finding = None;
        self.found = Some(self.now);
        self.drain_pool();
        self.select_all();
        self.run();
    }

    /// Nobody is left for a job, or there is no more time to try.
    pub(super) fn nobody_left(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let attempts = core::mem::take(&mut job.attempts);
        let tried = self.pool.get().tried();
        let failed = if job.was_late {
            Failed::TimedOut { attempts }
        } else if let Some(excluded) = job.excluded.take().filter(|_| attempts.is_empty()) {
            Failed::NoMatch { excluded }
        } else if attempts.is_empty() && self.pool.get().ready() == 0 && is_unknown(&tried) {
            Failed::UnknownModel
        } else {
            let again = self.pool.get().rests_until();
            Failed::NoOrchestrator {
                attempts,
                tried,
                again,
            }
        };
        self.fail(id, failed);
    }
}

/// Whether nobody was there at all, or nobody that has the model.
fn is_unknown(tried: &[Tried]) -> bool {
    let lacks = |tried: &Tried| {
        matches!(
            &tried.why,
            Why::Rejected(Rejection::Mismatch(_)) | Why::Gone | Why::Same(_)
        )
    };
    tried.iter().all(lacks)
}
