//! Jobs for containers that operators brought: one request and one answer (jobs spec 4, 11.3), or a [stream].
//!
//! A [`Byoc`] does the jobs for one container, many at a time. A job looks for its orchestrator and signs itself at once:
//!
//! | state | input | next | output |
//! |---|---|---|---|
//! | new | order, somebody known | looking | a token is asked of each; the payer introduces itself; the job is signed |
//! | new | order, nobody known | looking | [`Event::Find`] |
//! | looking | usable token, signature | paying | what the balance there lacks is paid |
//! | looking | every answer, or the time is over, and no token | end | [`Failed::NoOrchestrator`], or [`Failed::Exhausted`] after tries |
//! | looking | no signature | end | [`Failed::Ours`]: tickets would be spent on a request that must fail |
//! | paying | credentials | forwarding | [`Event::Trying`], the request |
//! | paying | no payment | looking | or [`Failed::Ours`], if our own side failed |
//! | forwarding | good answer, whole | end | [`Event::Done`] |
//! | forwarding | head of a stream of events | relaying | [`Event::Head`] |
//! | forwarding | the request is at fault | end | [`Failed::Caller`] |
//! | forwarding | not reached, refused, no room | looking | the next token |
//! | forwarding | no answer, a broken link, a lost container | end | [`Failed::Undecided`]; with leave to repeat: looking |
//! | relaying | lines | relaying | [`Event::Chunk`], at most one blank line in a row |
//! | relaying | the last event, the end, or a flood of blank lines | end | the exchange is aborted; [`Event::Done`] |
//! | relaying | the time is over, a broken link | end | [`Failed::Broken`]: nobody else goes on with it |
//! | any | cancelled | end | the exchange is aborted |
//!
//! So a job runs and is paid once, unless whoever ordered it allows otherwise. A request may take the job's own time and
//! five seconds more, a stream ten; both end then, whatever the orchestrator does.
//!
//! Work is paid by the second, from one balance at each orchestrator for the container's name. What a job may take at most
//! lies there before it starts; what it took is what the balance goes down by, and the orchestrator's own count is taken
//! over whenever no other job is under way there. Without a chain nothing is signed and nothing is paid.

mod answers;
mod job;
mod paying;
mod signing;
pub mod stream;
mod tokens;
mod types;

pub use types::{
    Attempt, BadOrder, Config, Done, Event, Failed, JobId, Left, Order, Served, Trying,
};

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use self::job::{Aim, Job};
use self::paying::Peer;
use self::stream::Streams;
use super::account::{Account, Notice};
use super::hire::Purse;
use super::introduction::Introducing;
use crate::alarms::Alarms;
use crate::capabilities::{Capabilities, Capability};
use crate::chain::ChainView;
use crate::error::{Failure, Misuse};
use crate::http::{In, Out, Url};
use crate::machine::{ChildIds, EffectId, Input, Machine, Outbox, Output, earlier};
use crate::payment::Payer;
use crate::payment::session;
use crate::rng::{Rng, Seed};
use crate::signers::SignerHealth;
use crate::time::Time;
use crate::wire::byoc::JobRequest;

/// At most this many orchestrators are known; of a longer list the rest is left out.
pub const MAX_PEERS: usize = 1_000;

/// How long the owner has to find orchestrators before a job counts as one that nobody takes.
const FIND_WITHIN: Duration = Duration::from_secs(10);

/// The jobs for one container. See the [module](self).
#[doc(alias = "submit_byoc_job")]
pub struct Byoc {
    config: Config,
    capability: String,
    purse: Purse,
    payer: Payer,
    introducing: Introducing,
    health: SignerHealth,
    peers: BTreeMap<Url, Peer>,
    jobs: BTreeMap<JobId, Job>,
    streams: Streams,
    /// The jobs of exchanges and signatures.
    effects: BTreeMap<EffectId, JobId>,
    timers: Alarms<JobId>,
    /// Until when the owner looks for orchestrators.
    finding: Option<Time>,
    ids: ChildIds,
    submitted: u64,
    rng: Rng,
    news: VecDeque<Notice>,
    closed: bool,
    now: Time,
    out: Outbox<Event>,
}

impl core::fmt::Debug for Byoc {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Byoc")
            .field("capability", &self.capability)
            .field("jobs", &self.jobs.len())
            .finish_non_exhaustive()
    }
}

impl Byoc {
    /// A machine for jobs for the container of that name. `payer` signs and pays.
    #[must_use]
    pub fn new(
        now: Time,
        config: Config,
        capability: impl Into<String>,
        payer: Payer,
        seed: Seed,
    ) -> Self {
        let capability = capability.into();
        let payment = session::Config {
            by_request: true,
            app: alloc::format!("byoc/{capability}"),
            manifest_id: capability.clone(),
            capabilities: Some(Capabilities::for_model(
                Capability::BYOC,
                capability.as_str(),
            )),
            trust: config.trust,
            ..config.payment.clone()
        };
        Self {
            purse: Purse::new(payer.clone(), payment),
            introducing: Introducing::new(payer.clone()),
            payer,
            config,
            capability,
            health: SignerHealth::default(),
            peers: BTreeMap::new(),
            jobs: BTreeMap::new(),
            streams: Streams::default(),
            effects: BTreeMap::new(),
            timers: Alarms::new(),
            finding: None,
            ids: ChildIds::default(),
            submitted: 0,
            rng: Rng::new(seed),
            news: VecDeque::new(),
            closed: false,
            now,
            out: Outbox::default(),
        }
    }

    /// The container's name.
    #[must_use]
    pub fn capability(&self) -> &str {
        &self.capability
    }

    /// How many jobs are under way.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// The payments to the orchestrator at `url`, for questions.
    #[must_use]
    pub fn payments(&self, url: &Url) -> Option<&crate::payment::PaymentSession> {
        Some(self.peers.get(url)?.account.as_ref()?.payments())
    }

    /// Makes orchestrators known: the answer to [`Event::Find`], or whenever there are some.
    pub fn offer(&mut self, now: Time, found: impl IntoIterator<Item = Url>) {
        self.advance(now);
        for url in found {
            if self.peers.len() < MAX_PEERS {
                self.peers.entry(url.with_path("/")).or_default();
            }
        }
        self.finding = None;
        self.look_all();
        self.run();
    }

    /// As [`offer`](Self::offer), for a list that stands for all there are. Those who owe something, or work, are kept.
    pub fn replace(&mut self, now: Time, found: impl IntoIterator<Item = Url>) {
        let found: BTreeSet<Url> = found.into_iter().map(|url| url.with_path("/")).collect();
        for (url, peer) in &mut self.peers {
            peer.listed = found.contains(url);
        }
        self.peers
            .retain(|_, peer| peer.listed || peer.account.is_some());
        self.offer(now, found);
    }

    /// Begins a job.
    ///
    /// # Errors
    /// [`Misuse::Ended`] after the end; [`Misuse::StillOpen`] while [`Config::max_jobs`] are under way;
    /// [`Misuse::NotOpen`] if the order is for another container, or none that can be [sent](Order::check).
    pub fn submit(&mut self, now: Time, mut order: Order) -> Result<JobId, Misuse> {
        self.advance(now);
        self.accept(&order.job)?;
        let (Ok(()), Ok(wishes)) = (order.check(), order.job.wishes()) else {
            return Err(Misuse::NotOpen);
        };
        let id = self.draw_id();
        if order.job.id.is_empty() {
            // Signers want a name, for their logs.
            order.job.id = hex::encode(&self.rng.bytes32()[..4]);
        }
        self.jobs.insert(id, Job::new(self.now, order, wishes));
        self.introducing.ask(self.now, &mut self.out);
        self.introduced();
        self.look(id);
        self.run();
        Ok(id)
    }

    /// Whether a job of that kind can begin now.
    fn accept(&self, job: &JobRequest) -> Result<(), Misuse> {
        if self.closed {
            return Err(Misuse::Ended);
        }
        if self.jobs.len() + self.streams.len() >= self.config.max_jobs {
            return Err(Misuse::StillOpen);
        }
        if job.check().is_err() || job.capability != self.capability {
            return Err(Misuse::NotOpen);
        }
        Ok(())
    }

    const fn draw_id(&mut self) -> JobId {
        let id = JobId(self.submitted);
        self.submitted += 1;
        id
    }

    /// Ends a job without an event: whoever ordered it went away. What the orchestrator does by then is paid. A stream is
    /// [stopped](Self::stop_stream).
    pub fn cancel(&mut self, now: Time, id: JobId) {
        self.advance(now);
        self.finish_stream(id, Bytes::new());
        if self.jobs.contains_key(&id) {
            self.part(id, session::Delivered::Unknown);
            self.remove(id);
        }
        self.run();
    }

    /// Holds back a stream: whoever ordered it does not take what is there. Its time goes on.
    pub fn pause(&mut self, now: Time, id: JobId) {
        self.set_paused(now, id, true);
    }

    /// Lets a stream go on.
    pub fn resume(&mut self, now: Time, id: JobId) {
        self.set_paused(now, id, false);
    }

    fn set_paused(&mut self, now: Time, id: JobId, paused: bool) {
        self.advance(now);
        if let Some(job) = self.jobs.get_mut(&id)
            && core::mem::replace(&mut job.paused, paused) != paused
            && let Some(flight) = &job.flight
            && flight.relay.is_some()
        {
            let step = if paused { Out::Pause } else { Out::Resume };
            self.out.http(flight.exchange, step);
        }
        self.run();
    }

    /// Pushes a new reading of the chain. Only an own key needs it.
    pub fn set_chain(&mut self, now: Time, view: ChainView) {
        self.advance(now);
        for url in self.peers.keys().cloned().collect::<Vec<_>>() {
            let now = self.now;
            self.pay_with(&url, |payment| payment.set_chain(now, view.clone()));
        }
        self.purse.set_chain(view);
        self.run();
    }

    /// Ends everything: jobs under way fail with [`Failed::Closed`].
    pub fn close(&mut self, now: Time) {
        self.advance(now);
        for id in self.jobs.keys().copied().collect::<Vec<_>>() {
            self.part(id, session::Delivered::Unknown);
            self.fail(id, Failed::Closed);
        }
        self.closed = true;
        self.close_streams();
        for url in self.peers.keys().cloned().collect::<Vec<_>>() {
            self.forget(&url);
        }
        self.peers.clear();
        self.introducing.close(&mut self.out);
        self.run();
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// Takes in what payments and streams tell, until they tell nothing more.
    fn run(&mut self) {
        loop {
            while let Some((url, event)) = self.news.pop_front() {
                self.on_payment(&url, event);
            }
            self.drain_streams();
            if self.news.is_empty() {
                return;
            }
        }
    }

    /// News of who pays: jobs that wait for it go on.
    fn introduced(&mut self) {
        if self.introducing.known().is_none() {
            return;
        }
        for id in self.jobs.keys().copied().collect::<Vec<_>>() {
            self.sign(id);
            self.look(id);
            // One that lost its orchestrator while the payer was unknown.
            if self.jobs.get(&id).is_some_and(|job| job.begun) {
                self.go_on(id);
            }
        }
    }

    fn on_introduction(&mut self, told: Option<Result<(), Box<Failure>>>) {
        match told {
            None => {}
            Some(Ok(())) => self.introduced(),
            Some(Err(failure)) => {
                // Whoever is with an orchestrator has all that it needs.
                let waiting = self.jobs.iter().filter(|(_, job)| job.engaged.is_none());
                for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.fail(id, Failed::Ours(failure.clone()));
                }
            }
        }
        if let Some(seen) = self.introducing.news() {
            self.note_signers(&seen);
        }
    }

    fn note_signers(&mut self, seen: &SignerHealth) {
        if self.health.merge(seen) && !self.closed {
            self.out.event(Event::Signers(self.health.clone()));
        }
    }

    // ---- the end of a job ------------------------------------------------------------------------------------

    fn fail(&mut self, id: JobId, failed: Failed) {
        if let Some(job) = self.remove(id) {
            match job.aim {
                Aim::Request => self.out.event(Event::Failed(id, Box::new(failed))),
                Aim::Start(stream) => self.stream_not_started(stream, job, failed),
            }
        }
    }

    /// Forgets a job that has left its orchestrator, and aborts what it still asks.
    fn remove(&mut self, id: JobId) -> Option<Job> {
        self.set_wake(id, None);
        let mut job = self.jobs.remove(&id)?;
        job.stop_asking(&mut self.out);
        self.effects.retain(|_, owner| *owner != id);
        Some(job)
    }

    /// Has a job woken when something of it is due.
    fn arm(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let finding = self.finding.filter(|_| job.waits);
        self.set_wake(id, earlier(job.wake(), finding));
    }

    fn set_wake(&mut self, id: JobId, at: Option<Time>) {
        if self.jobs.contains_key(&id) {
            self.timers.set(id, at);
        }
    }

    fn tick(&mut self) {
        while let Some(id) = self.timers.ring(self.now) {
            self.wake_job(id);
            self.arm(id);
            self.run();
        }
        let told = self.introducing.tick(self.now, &mut self.out);
        self.on_introduction(told);
        let now = self.now;
        let due = |peer: &Peer| peer.account.as_ref().and_then(Account::wake);
        let due = self
            .peers
            .iter()
            .filter(|(_, peer)| due(peer).is_some_and(|at| at <= now));
        for url in due.map(|(url, _)| url.clone()).collect::<Vec<_>>() {
            self.with_account(&url, |account, now| account.feed(now, Input::Tick));
        }
        self.tick_streams();
        self.run();
    }

    /// Does what is due for a job.
    fn wake_job(&mut self, id: JobId) {
        self.late_signature(id);
        self.late_tokens(id);
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if { &job.flight }
            .as_ref()
            .is_some_and(|flight| flight.until <= self.now)
        {
            return self.answer_is_late(id);
        }
        if job.waits && self.finding.is_some_and(|until| until <= self.now) {
            self.finding = None;
            self.look_all();
        }
    }

    fn on_http(&mut self, id: EffectId, step: In) {
        if let Some(job) = self.effects.get(&id).copied() {
            let flies = { self.jobs.get(&job) }
                .and_then(|job| job.flight.as_ref())
                .is_some_and(|flight| flight.exchange == id);
            if flies {
                self.on_answer(job, step);
            } else {
                self.on_asked(job, id, step);
            }
            return self.arm(job);
        }
        let told = self
            .introducing
            .on_http(self.now, &mut self.out, id, step.clone());
        if told.is_some() {
            return self.on_introduction(told);
        }
        self.feed_owner(Input::Http(id, step));
    }

    /// Feeds the stream or the payments that own an input.
    fn feed_owner(&mut self, input: Input) {
        let Some(input) = self.feed_stream(input) else {
            return;
        };
        let Some(id) = input.id() else { return };
        let owns = |peer: &Peer| { peer.account.as_ref() }.is_some_and(|account| account.owns(id));
        let owner = self.peers.iter().find(|(_, peer)| owns(peer));
        if let Some(url) = owner.map(|(url, _)| url.clone()) {
            self.with_account(&url, |account, now| account.feed(now, input));
        }
    }
}

impl Machine for Byoc {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        match input {
            Input::Tick => {}
            Input::Http(id, step) => self.on_http(id, step),
            Input::Signed(id, answer) => {
                let told = self.introducing.on_signed(id, &answer);
                if told.is_some() {
                    self.on_introduction(told);
                } else if let Some(job) = self.effects.remove(&id) {
                    self.on_signature(job, id, answer);
                    self.arm(job);
                } else {
                    self.feed_owner(Input::Signed(id, answer));
                }
            }
            other => self.feed_owner(other),
        }
        self.run();
        self.tick();
    }

    fn poll_output(&mut self) -> Output<Event> {
        if let Some(output) = self.out.pop() {
            return output;
        }
        let timers = self.timers.next();
        let accounts = self.peers.values().filter_map(|peer| peer.account.as_ref());
        let payments = accounts
            .map(Account::wake)
            .fold(self.streams_wake(), earlier);
        let wake = earlier(earlier(timers, payments), self.introducing.wake());
        // What a command made due is looked at with the next input.
        Output::Idle(wake.map(|at| at.max(self.now + Duration::from_nanos(1))))
    }
}
