//! A live video job: from a leased orchestrator over payment and start to its end, or to the next orchestrator.
//!
//! The job is control only. It hands out the addresses of the media channels in [`Event::Started`]; the [`media`] there
//! tell what they see ([`LiveVideoJob::on_media`]), since that decides whether the orchestrator is alive. The control
//! and events channels are the job's own.
//!
//! ```text
//!                 assign                credentials               200, all four channels
//!  AwaitingLease ───────▶ AwaitingPayment ────────▶ AwaitingStart ─────────────────────▶ Running
//!        ▲  ▲                │      ▲                   │     │                            │   │
//!        │  └── Release ─────┘      └──── renewed ──────┘     │ refused, no answer         │   │ input_closed
//!        │      (refused)    (stale quote, ≤ 3; died, nobody else, once)                   │   ▼
//!        └──────────────────────────────────────────────── Release ◀── died, slow, unpaid ─┘  Draining
//!                                                             │                                │ output_ended, stop, late
//!                                                             ▼ no more leases, too many swaps ▼
//!                                                           Ended ◀───────────────────────── Ended
//! ```

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::chain::ChainView;
use crate::error::{Cause, Failure, Misuse, Party};
use crate::exchange::Exchange;
use crate::http::Url;
use crate::job::SwapLimit;
use crate::job::hire::{Hire, Purse};
use crate::machine::{Child, ChildIds, EffectId, Input, Machine, Outbox, Output};
use crate::payment::{Payer, session};
use crate::pool::{Attempts, Lease, Tried};
use crate::prefer::Limits;
use crate::time::Time;
use crate::trickle::message::Messages;
use crate::trickle::{Publisher, Subscriber};
use crate::wire::{Channels, Params, RunnerEvent, StartRequest};

mod children;
mod leave;
pub mod media;
mod news;
mod standby;
mod start;
mod types;
mod wiring;
mod work;

use media::Owed;
pub use standby::{MIN_SILENCE, STANDBY_REST, STEADY};
pub use types::{Config, Ending, Event, Loss, Started};
pub use wiring::{Readers, Wires};

/// Parameter updates that may wait to be delivered.
pub const MAX_BACKLOG: usize = 32;

/// A live video job. See the [module](self) for its states.
pub struct LiveVideoJob {
    config: Config,
    request: StartRequest,
    purse: Purse,
    now: Time,
    /// The orchestrator at work, or about to be.
    seat: Seat,
    /// An orchestrator whose start died on the wire, and how: it gets one more try if there is nobody else.
    spare: Option<(Lease, Failure)>,
    /// Another orchestrator beside the one at work, which is silent.
    standby: Option<Box<Seat>>,
    /// The standby has the place of the one at work, for the length of a call.
    is_beside: bool,
    no_standby_before: Time,
    /// How often the standby has taken over.
    seats: u32,
    /// Sessions begun, those of standbys included.
    sessions: u32,
    /// The orchestrator at work that was lost last, until another goes on with its work.
    lost: Option<Loss>,
    /// Control channels of orchestrators that were left, being closed.
    leaving: Vec<Child<Publisher>>,
    /// The DELETE of a session that came about after the job was stopped.
    farewell: Option<Exchange>,
    /// How the job will end, once that is decided while a start is under way.
    stopping: Option<Ending>,
    /// How many updates of the parameters were taken: each has the number that this was then.
    updates: u64,
    cached_params: Option<Update>,
    status: Option<RunnerEvent>,
    swap_limit: SwapLimit,
    swaps: u32,
    /// Starts tried since the job ran last.
    attempts: Attempts,
    last_failure: Option<Failure>,
    tried: Vec<Tried>,
    input_open: bool,
    /// Whether somebody reads the output, so that its silence means something.
    output_read: bool,
    /// The answers that the output owes to the input so far.
    owed: Owed,
    children: ChildIds,
    out: Outbox<Event>,
}

impl core::fmt::Debug for LiveVideoJob {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LiveVideoJob")
            .field("now", &self.now)
            .field("request", &self.request)
            .field("swaps", &self.swaps)
            .finish_non_exhaustive()
    }
}

/// An orchestrator's place in a job.
struct Seat {
    hire: Option<Hire>,
    state: State,
}

impl Seat {
    const fn vacant() -> Self {
        Self {
            hire: None,
            state: State::AwaitingLease,
        }
    }

    const fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) => Some(running),
            _ => None,
        }
    }

    /// Whether the answer named `id` is for it.
    fn owns(&self, id: EffectId) -> bool {
        matches!(&self.state, State::AwaitingStart(start) if start.owns(id))
            || self.hire.as_ref().is_some_and(|hire| hire.owns(id))
            || self
                .running()
                .is_some_and(|running| running.control.owns(id) || running.events.owns(id))
    }
}

enum State {
    AwaitingLease,
    AwaitingPayment,
    AwaitingStart(Exchange),
    Running(Box<Running>),
    /// Over, but the farewells are not answered yet.
    Closing(Ending),
    Ended,
}

/// New parameters as a control message.
#[derive(Clone, Debug)]
struct Update {
    number: u64,
    message: Bytes,
}

#[derive(Debug)]
struct Running {
    session: u32,
    channels: Channels,
    control: Child<Publisher>,
    /// Messages that wait for the one before them to be delivered: a burst would push unread ones out of the
    /// server's window (trickle spec 8).
    backlog: VecDeque<Update>,
    keep_alive_due: bool,
    /// The message that the publisher has: parameters, for another try if it loses them, or a keep-alive.
    on_its_way: Option<Option<Update>>,
    /// The number of the last update that the orchestrator has.
    updated: u64,
    events: Child<Subscriber>,
    message: Messages,
    keep_alive_at: Time,
    watch_at: Time,
    last_event: Time,
    last_input: Time,
    last_output: Time,
    /// When the runner last said that its model is loading.
    last_loading: Option<Time>,
    in_flight: usize,
    flow: standby::Flow,
    /// The runner's last complaint.
    last_error: Option<(Time, String)>,
    /// Channels that the orchestrator closed, while it may still say why.
    closing: Option<work::Closing>,
    /// Since when the owner has input that is not taken.
    input_waits: Option<Time>,
    /// Set once the input has ended.
    drain_until: Option<Time>,
}

impl LiveVideoJob {
    /// A job that waits for its first orchestrator. `payer` pays; a signer's account is taken from each lease.
    #[must_use]
    pub fn new(now: Time, config: Config, request: StartRequest, payer: Payer) -> Self {
        let mut out = Outbox::default();
        out.event(Event::NeedLease);
        Self {
            attempts: Attempts::new(config.start_limit),
            last_failure: None,
            tried: Vec::new(),
            swap_limit: config.swap_limit,
            purse: Purse::new(
                payer,
                session::Config {
                    trust: config.trust,
                    ..config.payment.clone()
                },
            ),
            config,
            request,
            now,
            seat: Seat::vacant(),
            spare: None,
            standby: None,
            is_beside: false,
            no_standby_before: now,
            seats: 0,
            sessions: 0,
            lost: None,
            leaving: Vec::new(),
            farewell: None,
            stopping: None,
            output_read: true,
            updates: 0,
            cached_params: None,
            status: None,
            swaps: 0,
            input_open: true,
            owed: Owed::Unknown,
            children: ChildIds::default(),
            out,
        }
    }

    /// Answers [`Event::NeedLease`] with a session of a pool. The job keeps it fresh until it gives it back.
    ///
    /// # Errors
    /// The lease, if none is needed.
    pub fn assign(&mut self, now: Time, lease: Lease) -> Result<(), Lease> {
        self.advance(now);
        if self.expect_lease().is_err() {
            return Err(lease);
        }
        if self.standby_awaits_lease() {
            self.assign_standby(lease);
            self.drain_children();
            return Ok(());
        }
        // There is somebody else, so it had its chance.
        self.release_spare();
        match self.attempts.begin(self.now, lease.url()) {
            Ok(()) => {
                self.begin_with(lease);
                self.drain_children();
            }
            Err(spent) => self.give_up_on(lease, spent),
        }
        Ok(())
    }

    /// Answers [`Event::NeedLease`] with the news that there is none, and why not of whom.
    ///
    /// # Errors
    /// If no lease is needed.
    pub fn no_lease(&mut self, now: Time, tried: Vec<Tried>) -> Result<(), Misuse> {
        self.advance(now);
        self.expect_lease()?;
        for tried in tried {
            // What the job saw itself says more than a pool that lets somebody rest after it.
            if !self.tried.iter().any(|known| known.url == tried.url) {
                self.tried.push(tried);
            }
        }
        if self.standby_awaits_lease() {
            self.end_standby();
        } else if !self.start_again() {
            self.end_with(Ending::NoOrchestrator);
        }
        self.drain_children();
        Ok(())
    }

    /// Changes the model's parameters: at once if the job runs, else with the start; kept for later orchestrators.
    ///
    /// # Errors
    /// After the end, and while [`MAX_BACKLOG`] updates wait to be delivered.
    pub fn update_params(&mut self, now: Time, params: Params) -> Result<(), Misuse> {
        self.advance(now);
        if matches!(self.seat.state, State::Ended) {
            return Err(Misuse::Ended);
        }
        let update = Update {
            number: self.updates + 1,
            message: Bytes::from(params.to_json()),
        };
        if let State::Running(running) = &mut self.seat.state {
            if running.backlog.len() >= MAX_BACKLOG {
                return Err(Misuse::StillOpen);
            }
            running.backlog.push_back(update.clone());
        }
        self.tell_standby(&update);
        self.updates = update.number;
        self.request.params = Some(params);
        self.cached_params = Some(update);
        self.drain_children();
        Ok(())
    }

    /// Pushes a new reading of the chain. Only an own key needs it.
    pub fn set_chain(&mut self, now: Time, view: ChainView) {
        self.advance(now);
        let standby = self.standby.as_mut().and_then(|seat| seat.hire.as_mut());
        for hire in self.seat.hire.iter_mut().chain(standby) {
            hire.payments().set_chain(now, view.clone());
        }
        self.purse.set_chain(view);
        self.drain_children();
    }

    /// Whether somebody reads the output; until this says no, somebody does. Nobody can tell whether output that is
    /// not read is silent.
    pub fn set_output_read(&mut self, now: Time, read: bool) {
        self.advance(now);
        if let State::Running(running) = &mut self.seat.state
            && read
            && !self.output_read
        {
            running.last_output = self.now;
        }
        self.output_read = read;
        if !read {
            self.end_standby();
            self.drain_children();
        }
    }

    /// The application cannot take the output any more: its disk is full, for example. Ends the job as
    /// [`LiveVideoJob::stop`] does, but with that failure; the orchestrator did nothing wrong.
    pub fn output_failed(&mut self, now: Time, why: String) {
        self.advance(now);
        let failure = Failure::new(Party::Sink, Cause::NotWritten(why));
        self.finish(Ending::Failed(failure));
        self.drain_children();
    }

    /// Ends the job in order: no more payments, control channel closed, lease given back.
    pub fn stop(&mut self, now: Time) {
        self.advance(now);
        if !matches!(self.seat.state, State::Ended) {
            self.finish(Ending::Stopped);
        }
        self.drain_children();
    }

    /// The runner's last status report, with what earlier ones said of parameters and restarts.
    #[must_use]
    pub const fn status(&self) -> Option<&RunnerEvent> {
        self.status.as_ref()
    }

    /// The orchestrators that did not take the job or failed at it, and why: of each what was seen last.
    #[must_use]
    pub fn tried(&self) -> &[Tried] {
        &self.tried
    }

    /// Whether [`Event::NeedLease`] is unanswered.
    #[must_use]
    pub fn needs_lease(&self) -> bool {
        matches!(self.seat.state, State::AwaitingLease) || self.standby_awaits_lease()
    }

    /// The orchestrators of which the job has leases. Another one is wanted when it [needs](Self::needs_lease) one.
    #[must_use]
    pub fn orchestrators(&self) -> Vec<Url> {
        let standby = self.standby.as_ref().and_then(|seat| seat.hire.as_ref());
        let hired = self.seat.hire.iter().chain(standby).map(Hire::lease);
        let spare = self.spare.iter().map(|(lease, _)| lease);
        hired
            .chain(spare)
            .map(|lease| lease.url().clone())
            .collect()
    }

    /// The limits on who may do the job.
    #[must_use]
    pub fn limits(&self) -> &[Limits] {
        &self.config.limits
    }

    /// How many parameter updates were taken so far. An update has the number that this is after it.
    #[must_use]
    pub const fn updates(&self) -> u64 {
        self.updates
    }

    /// The number of the last parameter update that the orchestrator at work has; zero while nobody works. Another
    /// orchestrator gets the latest one anew, and has it as soon as [`Event::Updated`] says so.
    #[must_use]
    pub const fn updated(&self) -> u64 {
        match &self.seat.state {
            State::Running(running) => running.updated,
            _ => 0,
        }
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    fn expect_lease(&self) -> Result<(), Misuse> {
        match self.seat.state {
            State::AwaitingLease => Ok(()),
            _ if self.standby_awaits_lease() => Ok(()),
            State::Ended => Err(Misuse::Ended),
            _ => Err(Misuse::StillOpen),
        }
    }

    /// Works with the orchestrator of this lease from now on.
    fn take_on(&mut self, lease: Lease) -> &mut Hire {
        let max_unrenewed = self.config.max_unrenewed;
        let hire = Hire::new(
            self.now,
            lease,
            &mut self.purse,
            max_unrenewed,
            &mut self.children,
        );
        self.seat.hire.insert(hire)
    }

    /// Does what is due.
    fn tick(&mut self) {
        let (now, out) = (self.now, &mut self.out);
        self.farewell
            .take_if(|farewell| farewell.late(out, now).is_some());
        match &mut self.seat.state {
            State::AwaitingStart(start) => {
                if let Some(cause) = start.late(&mut self.out, self.now) {
                    self.refused(cause);
                }
            }
            State::Running(running) => {
                if running.drain_until.is_some_and(|until| until <= self.now) {
                    self.end_drain();
                    return;
                }
                if let Some(closing) = &mut running.closing
                    && closing.is_over(self.now)
                {
                    self.judge_end();
                    return;
                }
                if running.keep_alive_at <= self.now {
                    running.keep_alive_at = self.now + self.config.keep_alive_every;
                    running.keep_alive_due = true;
                }
                let stall = running.stalls_at(self.config.input_stall);
                if stall.is_some_and(|at| at <= self.now) {
                    let after = self.config.input_stall;
                    self.lose(Cause::Silent {
                        what: "progress of the input",
                        after,
                    });
                } else if running.watch_at <= self.now {
                    running.watch_at = self.now + self.config.watch_every;
                    self.watch();
                }
                self.look_for_standby();
            }
            _ => {}
        }
    }
}

impl Machine for LiveVideoJob {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        match self.feed_standby(input).unwrap_or(Input::Tick) {
            Input::Tick => {}
            Input::Http(id, step) if id.owner() == 0 => {
                let out = &mut self.out;
                if matches!(&self.seat.state, State::AwaitingStart(start) if start.owns(id)) {
                    self.on_start_answer(step);
                } else {
                    self.farewell.take_if(|farewell| {
                        farewell.owns(id) && farewell.step(out, step).is_some()
                    });
                }
            }
            input => self.feed_child(input),
        }
        self.drain_children();
        // Every input also advances the clock, so timers may be due.
        if self.wake().is_some_and(|due| due <= self.now) {
            self.tick();
            self.tick_children();
            self.tick_standby();
            self.drain_children();
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        self.out.pop().unwrap_or_else(|| {
            // What a command made due is looked at with the next input.
            let wake = self.wake();
            Output::Idle(wake.map(|at| at.max(self.now + Duration::from_nanos(1))))
        })
    }
}
