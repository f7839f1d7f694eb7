//! Standbys: another orchestrator is asked beside one that is silent.
//!
//! A request under way is never cut (jobs spec 2.5): nobody can tell an orchestrator that is at work from one that will
//! never answer. So one that takes longer than work of that size usually does keeps its request, and another gets it too.
//! The first good answer counts. The exchanges with the others are aborted, upon which an orchestrator drops the work and
//! charges nothing for it; the tickets that it took stay on account for the next job.

use alloc::vec::Vec;
use core::time::Duration;

use super::Batch;
use super::answers::is_late;
use super::job::{Job, Silent, Stage};
use super::types::{JobId, Left};
use crate::error::{Cause, Failure, Party};
use crate::http::{In, Url};
use crate::machine::{EffectId, earlier};
use crate::payment::session::Delivered;
use crate::pipeline::Pipeline;
use crate::pool::{Outcome, Selector};
use crate::time::Time;

/// At most this many silent orchestrators have the request of a job while another one gets it.
pub(super) const MAX_SILENT: usize = 3;

/// Nanoseconds for a unit of work where that is slow, yet usual: what a small machine needs for it.
const fn usual(pipeline: Pipeline) -> u64 {
    match pipeline {
        // 20 s for a picture of a million pixels.
        Pipeline::TextToImage | Pipeline::ImageToImage => 20_000,
        // A minute for a clip of the usual size.
        Pipeline::ImageToVideo => 4_000,
        Pipeline::Upscale => 40_000,
        Pipeline::SegmentAnything2 | Pipeline::ImageToText => 5_000,
        // A quarter of the time that the sound plays; as long as the speech plays.
        Pipeline::AudioToText => 250_000,
        Pipeline::TextToSpeech => 100_000,
        // 20 tokens a second.
        Pipeline::Llm => 50_000_000,
        Pipeline::LiveVideoToVideo => 0,
    }
}

impl<S: Selector> Batch<S> {
    /// When another orchestrator is to be asked beside the one that gets the request of a job now.
    pub(super) fn standby_at(&self, id: JobId) -> Option<Time> {
        let job = self.jobs.get(&id)?;
        let patience = job.config.standby_after?;
        // The head of a stream comes before the work.
        let units = if job.stream { 0 } else { job.size.units };
        let work = Duration::from_nanos(units.saturating_mul(usual(self.pipeline)));
        // However much there is to do, the standby has the longer part of the time for an answer.
        let most = job.config.answer_within / 3;
        Some(self.now + patience.saturating_add(work).min(most))
    }

    /// Waits for the head of the answer to a request that was just sent.
    pub(super) fn await_head(&mut self, id: JobId) {
        let standby = self.standby_at(id);
        if let Some(Stage::InFlight(flight)) = self.jobs.get_mut(&id).map(|job| &mut job.stage) {
            flight.standby = standby;
        }
        self.arm_flight(id);
    }

    /// Does what is due for a job whose request is under way.
    pub(super) fn flight_is_due(&mut self, id: JobId) {
        let now = self.now;
        self.lose_late(id);
        let Some(Stage::InFlight(flight)) = self.jobs.get(&id).map(|job| &job.stage) else {
            return;
        };
        let (until, standby) = (flight.until, flight.standby);
        if until <= now {
            return self.answer_is_late(id);
        }
        if standby.is_some_and(|at| at <= now) && self.ask_another(id) {
            return;
        }
        self.arm_flight(id);
    }

    /// Leaves those of the silent ones whose time is over, also while another orchestrator is paid.
    pub(super) fn lose_late(&mut self, id: JobId) {
        let now = self.now;
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let cause = is_late(job.stream, &job.config);
        let is_late = |silent: &Silent| silent.flight.until <= now;
        let (late, silent): (Vec<_>, _) =
            { core::mem::take(&mut job.silent).into_iter() }.partition(is_late);
        job.silent = silent;
        for silent in late {
            self.lose(id, silent, Left::Timeout, cause.clone());
        }
        self.arm_silent(id);
    }

    /// Has a job that pays woken when the time of a silent one is over.
    pub(super) fn arm_silent(&mut self, id: JobId) {
        if let Some(job) = self
            .jobs
            .get(&id)
            .filter(|job| matches!(job.stage, Stage::Paying))
        {
            let wake = job.silent.iter().map(|silent| silent.flight.until).min();
            self.set_wake(id, wake);
        }
    }

    /// Has a job woken when something is due for its request.
    pub(super) fn arm_flight(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if let Stage::InFlight(flight) = &job.stage {
            let others = job.silent.iter().map(|silent| silent.flight.until).min();
            let wake = earlier(Some(flight.until), earlier(flight.standby, others));
            self.set_wake(id, wake);
        }
    }

    /// Asks another orchestrator beside the one that is silent; false if there is nobody else for now.
    fn ask_another(&mut self, id: JobId) -> bool {
        let again = self.standby_at(id);
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        let (Stage::InFlight(flight), Some(engaged)) = (&mut job.stage, &job.engaged) else {
            return false;
        };
        flight.standby = again;
        let url = engaged.url.clone();
        if job.silent.len() >= MAX_SILENT
            || job.tries >= job.config.tries.tries
            || job.preferences.is_single_try()
        {
            flight.standby = None;
            return false;
        }
        job.exclude(&url);
        let Some(lease) = self.take(id) else {
            return false;
        };
        if let Some(job) = self.jobs.get_mut(&id) {
            let took = job.lap(self.now);
            job.upstream += took;
            // Silence costs no tries.
            job.trying_since = self.now;
            job.set_silent();
        }
        self.engage(id, lease);
        true
    }

    /// Goes back to the last of those who are silent, since there is nobody else until `again`; false if there are none.
    pub(super) fn wait_for_silent(&mut self, id: JobId, again: Option<Time>) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        let Some(Silent {
            engaged,
            mut flight,
        }) = job.silent.pop()
        else {
            return false;
        };
        flight.standby = again;
        job.engaged = Some(engaged);
        job.stage = Stage::InFlight(flight);
        self.arm_flight(id);
        true
    }

    /// A silent orchestrator says something after all.
    pub(super) fn on_silent(&mut self, id: JobId, exchange: EffectId, step: In) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let place = job
            .silent
            .iter()
            .position(|one| one.flight.exchange == exchange);
        let Some(place) = place else {
            return;
        };
        match step {
            In::Reply(head) if head.status == 200 => {
                let Silent { engaged, flight } = job.silent.remove(place);
                // Nothing against the standby: it had less time.
                self.leave(id, Delivered::Unknown, Outcome::Unused);
                self.selecting.remove(&id);
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.engaged = Some(engaged);
                    job.stage = Stage::InFlight(flight);
                }
                self.on_answer(id, In::Reply(head));
            }
            In::Reply(head) => {
                // The standby's answer will say what is to be said of the request.
                let silent = job.silent.remove(place);
                let left = Left::Status(head.status);
                let url = silent.engaged.url.clone();
                self.let_go(silent, Delivered::Unknown, Outcome::Unused);
                self.note_left(id, url, left);
            }
            In::Failed(fault) => {
                let silent = job.silent.remove(place);
                self.exchanges.remove(&exchange);
                let cause = Cause::Link(fault);
                self.lose(id, silent, Left::from(&cause), cause);
            }
            In::Data(_) | In::End(_) | In::Sent(_) | In::Request(_) => {}
        }
    }

    /// A good answer has begun: the others are not waited for any more. Those who had more than twice the time are at
    /// fault; of the others nobody knows.
    pub(super) fn outdo(&mut self, id: JobId) {
        let now = self.now;
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let silent = core::mem::take(&mut job.silent);
        let Some(took) = job.engaged.as_ref().map(|engaged| now.since(engaged.asked)) else {
            return;
        };
        for one in silent {
            let after = now.since(one.engaged.asked);
            if after > took * 2 {
                let cause = Cause::Silent {
                    what: "answer",
                    after,
                };
                self.lose(id, one, Left::Timeout, cause);
            } else {
                let url = one.engaged.url.clone();
                self.let_go(one, Delivered::Unknown, Outcome::Unused);
                self.note_left(id, url, Left::Timeout);
            }
        }
    }

    /// A silent orchestrator has failed.
    fn lose(&mut self, id: JobId, silent: Silent, left: Left, cause: Cause) {
        let url = silent.engaged.url.clone();
        let failure = Failure::new(Party::Orchestrator(url.clone()), cause);
        self.let_go(silent, Delivered::Unknown, Outcome::Failed(failure));
        self.note_left(id, url, left);
    }

    fn note_left(&mut self, id: JobId, url: Url, left: Left) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.left(url, left);
        }
    }

    /// Waits no more for a silent orchestrator: its exchange is aborted, and its lease goes home.
    pub(super) fn let_go(&mut self, silent: Silent, how: Delivered, outcome: Outcome) {
        let Silent { engaged, flight } = silent;
        if self.exchanges.remove(&flight.exchange).is_some() {
            self.out.abort(flight.exchange);
        }
        self.part(engaged, how, outcome);
    }
}

impl Job {
    /// Puts the orchestrator that the job is with among those who are silent.
    fn set_silent(&mut self) {
        let stage = core::mem::replace(&mut self.stage, Stage::Selecting);
        if let (Stage::InFlight(flight), Some(engaged)) = (stage, self.engaged.take()) {
            self.silent.push(Silent { engaged, flight });
        }
    }
}
