//! A second orchestrator beside the one at work, while that one is silent.
//!
//! A runner may die while its orchestrator lives. Nothing says so for half a minute, and as much live video is gone.
//! But where output has flowed steadily, its silence is a sign: another orchestrator is then paid and started beside
//! the one at work, and gets all input that is not answered, as the one at work goes on to get it. Whichever gives
//! output first goes on; the other is ended. [`Media`](super::media::Media) see to it that nothing is doubled or lost.
//!
//! ```text
//!              silence               lease, payment, start                   output
//!   no standby ───────▶ AwaitingLease ─ ─ ─ ─ ─ ─ ─ ─ ─ ▶ Running, with input ──────▶ at work; the other is Lost
//!       ▲                     │                              │
//!       └─────────────────────┴── output of the other, refusal, nobody: rests STANDBY_REST
//! ```
//!
//! A standby is a [`Seat`] like that of the orchestrator at work, and lives the same life:
//! [`LiveVideoJob::beside`] lets it take the place of the other for the length of one call.

use alloc::boxed::Box;
use core::time::Duration;

use super::work::LATE;
use super::{Event, LiveVideoJob, MAX_BACKLOG, Seat, State, Update};
use crate::error::{Cause, Failure};
use crate::job::hire::verdict;
use crate::machine::Input;
use crate::pool::{Lease, Outcome};
use crate::time::Time;

/// Output has to flow for this long before its silence is a sign.
pub const STEADY: Duration = Duration::from_secs(10);

/// The shortest silence that is a sign, however short the segments are.
pub const MIN_SILENCE: Duration = Duration::from_secs(2);

/// Silence is a sign once it has lasted as long as this many segments of the input.
const SILENT_SEGMENTS: u32 = 3;

/// How many times the longest earlier pause of the output silence has to last to be a sign.
const LONGEST_PAUSES: u32 = 2;

/// Segments of the input that have to begin after the last output, before output is missed.
const UNANSWERED: u32 = 2;

/// How long after a standby was of no use, or there was none, another one may be looked for.
pub const STANDBY_REST: Duration = Duration::from_secs(60);

/// How input and output of the orchestrator at work flow.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// When output came first, and last.
    first: Option<Time>,
    last: Option<Time>,
    /// The longest time between two signs of output.
    pause: Duration,
    /// When a segment of the input began last, the longest of late, and how many began since the last output.
    begun: Option<Time>,
    segment: Duration,
    unanswered: u32,
}

impl Flow {
    pub(super) fn input_begun(&mut self, now: Time) {
        if let Some(before) = self.begun.replace(now) {
            // The longest counts, and is slowly forgotten.
            self.segment = now.since(before).max(self.segment * 3 / 4);
        }
        self.unanswered = self.unanswered.saturating_add(1);
    }

    pub(super) fn output_seen(&mut self, now: Time) {
        self.first.get_or_insert(now);
        if let Some(before) = self.last.replace(now) {
            self.pause = self.pause.max(now.since(before));
        }
        self.unanswered = 0;
    }

    /// The time at which silence of this flow will have lasted long enough to be a sign; `None` if it is no sign at
    /// all.
    fn silent_at(&self) -> Option<Time> {
        let (first, last) = (self.first?, self.last?);
        if last.since(first) < STEADY || self.unanswered < UNANSWERED {
            return None;
        }
        let limit = (self.segment * SILENT_SEGMENTS)
            .max(self.pause * LONGEST_PAUSES)
            .max(MIN_SILENCE);
        Some(last + limit)
    }
}

impl LiveVideoJob {
    /// When a standby is to be looked for, if nothing comes before.
    pub(super) fn standby_at(&self) -> Option<Time> {
        let State::Running(running) = &self.seat.state else {
            return None;
        };
        let wanted = self.standby.is_none()
            && self.input_open
            && self.output_read
            && running.closing.is_none()
            && self.swap_limit.allows(self.now);
        let at = running.flow.silent_at().filter(|_| wanted)?;
        Some(at.max(self.no_standby_before))
    }

    /// Looks for another orchestrator beside the one at work, if it is time to.
    pub(super) fn look_for_standby(&mut self) {
        let Some(at) = self.standby_at().filter(|at| *at <= self.now) else {
            return;
        };
        if self.now.since(at) >= LATE {
            // This side was held up: output that came meanwhile is still to be read.
            self.no_standby_before = self.now + MIN_SILENCE;
            return;
        }
        self.standby = Some(Box::new(Seat::vacant()));
        self.out.event(Event::NeedLease);
    }

    pub(super) fn standby_awaits_lease(&self) -> bool {
        let awaits = |seat: &Seat| matches!(seat.state, State::AwaitingLease);
        self.standby.as_deref().is_some_and(awaits)
    }

    /// New parameters are for the standby too.
    pub(super) fn tell_standby(&mut self, update: &Update) {
        if let Some(seat) = &mut self.standby
            && let State::Running(running) = &mut seat.state
            && running.backlog.len() < MAX_BACKLOG
        {
            running.backlog.push_back(update.clone());
        }
    }

    /// Takes a lease for the standby.
    pub(super) fn assign_standby(&mut self, lease: Lease) {
        let at_work = self.seat.hire.as_ref().map(|hire| hire.lease().url());
        if at_work == Some(lease.url()) {
            self.out.event(Event::Release(lease, Outcome::Unused));
            return self.end_standby();
        }
        self.beside(|job| job.begin_with(lease));
    }

    /// Lets the standby take the place of the orchestrator at work while `act` runs.
    pub(super) fn beside(&mut self, act: impl FnOnce(&mut Self)) {
        if self.standby.is_none() {
            return;
        }
        self.change_places();
        self.is_beside = true;
        act(self);
        self.is_beside = false;
        self.change_places();
        let over = |seat: &Seat| matches!(seat.state, State::Ended);
        if self.standby.as_deref().is_some_and(over) {
            self.rest_standby();
        }
    }

    /// The session of the standby, if it has one.
    pub(super) fn standby_session(&self) -> Option<u32> {
        let seat = self.standby.as_deref()?;
        Some(seat.running()?.session)
    }

    /// Seats change places.
    fn change_places(&mut self) {
        if let Some(seat) = &mut self.standby {
            core::mem::swap(&mut self.seat, seat);
        }
    }

    /// The standby gave output, and the orchestrator at work is still silent.
    pub(super) fn take_over(&mut self) {
        let (State::Running(running), Some(hire)) = (&self.seat.state, &self.seat.hire) else {
            return;
        };
        let since = running.flow.last.unwrap_or(running.last_output);
        let millis = self.now.since(since).as_millis();
        let cause = Cause::Silent {
            what: "output",
            after: Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)),
        };
        let failure = Failure::new(hire.party(), cause);
        self.tell_lost(&failure);
        self.leave(verdict(&failure));
        self.swap_limit.allow(self.now);
        self.swaps += 1;
        self.promote_standby();
    }

    /// The orchestrator at work is gone: the standby takes its place, however far it is. False if there is none.
    pub(super) fn promote_standby(&mut self) -> bool {
        let Some(seat) = self.standby.take() else {
            return false;
        };
        self.seat = *seat;
        self.seats += 1;
        self.go_to_work();
        true
    }

    /// Ends the standby, if there is one: it is not needed. A start under way is broken off: an orchestrator ends a
    /// session that gets no input.
    pub(super) fn end_standby(&mut self) {
        self.beside(|job| {
            if let State::AwaitingStart(start) = &mut job.seat.state {
                start.abort(&mut job.out);
            }
            job.give_up_session();
            job.leave(Outcome::Unused);
            job.seat.state = State::Ended;
        });
    }

    fn rest_standby(&mut self) {
        self.standby = None;
        self.no_standby_before = self.now + STANDBY_REST;
    }

    /// Hands an input to the standby; returns it if it is for somebody else.
    pub(super) fn feed_standby(&mut self, input: Input) -> Option<Input> {
        let Some(id) = input.id() else {
            return Some(input);
        };
        if !self.standby.as_ref().is_some_and(|seat| seat.owns(id)) {
            return Some(input);
        }
        self.beside(|job| match input {
            Input::Http(id, step) if id.owner() == 0 => job.on_start_answer(step),
            input => job.feed_child(input),
        });
        None
    }

    /// Lets the standby look at the time.
    pub(super) fn tick_standby(&mut self) {
        self.beside(|job| {
            job.tick();
            job.tick_children();
        });
    }
}
