//! Leaving an orchestrator, for another or for good.

use alloc::string::ToString as _;
use core::time::Duration;

use super::media::Owed;
use super::{Ending, Event, LiveVideoJob, Loss, Running, State};
use crate::error::{Advice, Cause, Failure, Party};
use crate::http::Url;
use crate::job::hire::{Hire, verdict};
use crate::pool::{Lease, NoMoreTries, Outcome, Tried, Why};

/// Input that has been silent for this long is asleep: a server removes channels after five minutes.
const ASLEEP: Duration = Duration::from_secs(240);

impl LiveVideoJob {
    /// The orchestrator at work is given up for `cause`: the job goes on with another, if it may.
    pub(super) fn lose(&mut self, cause: Cause) {
        if let Some(hire) = &self.seat.hire {
            let failure = Failure::new(hire.party(), cause);
            self.release(failure);
        }
    }

    /// Leaves the orchestrator and looks for another, or ends.
    pub(super) fn release(&mut self, failure: Failure) {
        if self.is_beside {
            // The one at work goes on.
            self.give_up_session();
            self.leave(verdict(&failure));
            self.seat.state = State::Ended;
            return;
        }
        let was_running = matches!(self.seat.state, State::Running(_));
        self.last_failure = Some(failure.clone());
        self.tell_lost(&failure);
        let overslept = self.has_overslept(&failure.cause);
        self.leave(if overslept {
            Outcome::Stale
        } else {
            verdict(&failure)
        });
        let wanted = self.input_open || self.owed == Owed::Something;
        let may_go_on = self.stopping.is_none()
            && failure.advice() != Advice::Stop
            && (!was_running || (wanted && (overslept || self.swap_limit.allow(self.now))));
        if may_go_on {
            self.swaps += u32::from(was_running);
            if !self.promote_standby() {
                self.seat.state = State::AwaitingLease;
                self.out.event(Event::NeedLease);
            }
        } else {
            let ending = self.stopping.take().unwrap_or(Ending::Failed(failure));
            self.end_with(ending);
        }
    }

    /// Tells that the orchestrator is lost.
    pub(super) fn tell_lost(&mut self, failure: &Failure) {
        let Some(url) = self.seat.hire.as_ref().map(|hire| hire.lease().url()) else {
            return;
        };
        let url = url.clone();
        if matches!(self.seat.state, State::Running(_)) {
            self.lost = Some(Loss {
                orchestrator: url.clone(),
                why: failure.clone(),
                at: self.now,
            });
        }
        self.give_up_session();
        if !failure.who.is_ours() {
            self.note_lost(url, failure.clone());
        }
    }

    /// Tells that an orchestrator failed, and remembers it: the last word on each counts.
    fn note_lost(&mut self, url: Url, failure: Failure) {
        self.tried.retain(|tried| tried.url != url);
        self.tried.push(Tried {
            url: url.clone(),
            why: Why::Failed(failure.clone()),
        });
        self.out.event(Event::Lost(url, failure));
    }

    /// Has the media give nothing more to the orchestrator, if it was given anything.
    pub(super) fn give_up_session(&mut self) {
        if let State::Running(running) = &self.seat.state {
            self.out.event(Event::Left(running.session));
        }
    }

    /// Whether the session has ended because its input was silent for so long that no output came either: servers
    /// remove such channels (trickle spec 5.9). Nobody is to blame, and the same orchestrator may begin another one.
    fn has_overslept(&self, cause: &Cause) -> bool {
        let State::Running(running) = &self.seat.state else {
            return false;
        };
        matches!(cause, Cause::Gone(_)) && self.now.since(running.last_input) >= ASLEEP
    }

    /// Looks for somebody else, and keeps the lease of the orchestrator at hand in case there is nobody.
    pub(super) fn spare_for_later(&mut self, failure: Failure) {
        if let Some(lease) = self.part() {
            self.last_failure = Some(failure.clone());
            self.spare = Some((lease, failure));
            self.seat.state = State::AwaitingLease;
            self.out.event(Event::NeedLease);
        }
    }

    /// The orchestrator that was kept in case there is nobody else is not needed.
    pub(super) fn release_spare(&mut self) {
        if let Some((lease, failure)) = self.spare.take() {
            self.note_lost(lease.url().clone(), failure.clone());
            self.out.event(Event::Release(lease, verdict(&failure)));
        }
    }

    /// Gives the start up: it was tried often enough, with this orchestrator or in all.
    pub(super) fn give_up_on(&mut self, lease: Lease, spent: NoMoreTries) {
        let failure = self.last_failure.clone().unwrap_or_else(|| {
            let party = Party::Orchestrator(lease.url().clone());
            let times = self.attempts.tries();
            let last = spent.to_string();
            Failure::new(
                party,
                Cause::GaveUp {
                    what: "the start of the job",
                    times,
                    last,
                },
            )
        });
        let outcome = match spent {
            NoMoreTries::Orchestrator(_) => Outcome::Failed(failure.clone()),
            NoMoreTries::Tries(_) | NoMoreTries::Time(_) => Outcome::Unused,
        };
        self.out.event(Event::Release(lease, outcome));
        match spent {
            NoMoreTries::Orchestrator(_) => self.out.event(Event::NeedLease),
            NoMoreTries::Tries(_) | NoMoreTries::Time(_) => self.end_with(Ending::Failed(failure)),
        }
    }

    /// The job is over by intention.
    pub(super) fn finish(&mut self, ending: Ending) {
        match &self.seat.state {
            State::Ended | State::Closing(_) => return,
            // The orchestrator may take the job all the same; its session must not be left behind.
            State::AwaitingStart(_) => {
                self.stopping.get_or_insert(ending);
                return;
            }
            State::AwaitingLease => self.release_spare(),
            State::AwaitingPayment | State::Running(_) => {
                let done = self.seat.hire.as_ref().map(Hire::done);
                self.leave(done.unwrap_or(Outcome::Unused));
            }
        }
        self.end_with(ending);
    }

    /// Takes leave of the orchestrator: nothing of it stays open but the farewell of its control channel.
    pub(super) fn leave(&mut self, outcome: Outcome) {
        if let Some(lease) = self.part() {
            self.out.event(Event::Release(lease, outcome));
        }
        if let State::Running(running) =
            core::mem::replace(&mut self.seat.state, State::AwaitingLease)
        {
            let Running {
                mut control,
                mut events,
                ..
            } = *running;
            events.get_mut().close(self.now);
            events.drain(&mut self.out, |_| ());
            control.get_mut().close(self.now);
            self.leaving.push(control);
        }
    }

    /// Ends payments to the orchestrator and its handshake. Its lease is left.
    fn part(&mut self) -> Option<Lease> {
        let hire = self.seat.hire.take()?;
        Some(hire.end(self.now, &mut self.purse, &mut self.out))
    }

    pub(super) fn end_with(&mut self, ending: Ending) {
        self.end_standby();
        self.seat.state = State::Closing(ending);
        self.end_if_closed();
    }

    pub(super) fn end_if_closed(&mut self) {
        if !self.leaving.is_empty() || self.farewell.is_some() {
            return;
        }
        match core::mem::replace(&mut self.seat.state, State::Ended) {
            State::Closing(ending) => self.out.event(Event::Ended(ending)),
            other => self.seat.state = other,
        }
    }
}
