//! Batch jobs: one request, one answer, whoever gives it (jobs spec 2, 11.1).
//!
//! A [`Batch`] does the jobs of one pipeline and model, many at a time. Each job goes through these states:
//!
//! ```text
//!              session           Ready            200, whole          fetched
//!   Selecting ─────────▶ Paying ───────▶ InFlight ──────────▶ Fetching ──────▶ Done
//!     ▲   │                ▲ │              │ │ └ 200 stream ▶ Head, Chunk … ─▶ Done, or broken: Failed
//!     │   │ nobody, late   │ └── refused ─┐ │ └ the request is at fault ─▶ Failed
//!     │   ▼                └ fresh quote ─┼─┘ refresh, renew
//!     │ Failed                            │
//!     └───────────────── others ◀─────────┘ every other refusal, silence, a broken link
//! ```
//!
//! An orchestrator is asked once for a job; again only where a fresh quote may mend its refusal. The time that a job may
//! take for tries is looked at between them: a request under way is never cut by it. Beside an orchestrator that is silent
//! for long a standby is asked, and the first good answer counts. Nobody is blamed for a request that
//! is at fault, nor for a caller that went away.
//!
//! Orchestrators are paid from one balance each, which lasts from job to job
//! ([`Config::by_request`](crate::payment::session::Config::by_request)): a request without a ticket due costs neither a
//! handshake nor a signature. The fee is charged when the head of a good answer arrives.
//!
//! The owner finds orchestrators when it is asked to ([`Event::Find`]), at most once for a job, and not again while it is
//! remembered that nobody was found.

mod answers;
mod choice;
mod job;
mod payments;
mod results;
mod retained;
mod standby;
mod stream;
mod types;

pub use types::{
    Attempt, Config, Event, Failed, File, Finished, JobId, Left, RefusedBy, Served, Trying,
};

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use self::job::{Job, Stage};
use self::retained::Retained;
use super::account::Notice;
use super::hire::Purse;
use crate::alarms::Alarms;
use crate::capabilities::Capabilities;
use crate::chain::ChainView;
use crate::error::{Failure, Misuse};
use crate::handshake::{self, Identity};
use crate::http::{In, Out, Url};
use crate::machine::{ChildIds, EffectId, Input, Machine, Nested, Outbox, Output, earlier};
use crate::payment::session::{self, Delivered};
use crate::payment::{Payer, PaymentSession};
use crate::pipeline::Pipeline;
use crate::pool::{self, Offered, Outcome, Selector, SessionPool};
use crate::prefer::Preferences;
use crate::rng::{Rng, Seed};
use crate::selection::Size;
use crate::signers::SignerHealth;
use crate::time::Time;
use crate::wire::batch::BatchRequest;

/// How long the owner has to find orchestrators before it is asked again.
const FIND_WITHIN: Duration = Duration::from_secs(10);

/// The jobs of one pipeline and model. See the [module](self).
pub struct Batch<S> {
    config: Arc<Config>,
    pipeline: Pipeline,
    model: String,
    pool: Nested<SessionPool<S>>,
    purse: Purse,
    /// How remote signers have been, as far as handshakes and payments know.
    health: SignerHealth,
    retained: BTreeMap<Url, Retained>,
    jobs: BTreeMap<JobId, Job>,
    /// The jobs of exchanges with orchestrators, and of downloads.
    exchanges: BTreeMap<EffectId, JobId>,
    /// Jobs without an orchestrator.
    selecting: BTreeSet<JobId>,
    timers: Alarms<JobId>,
    /// Since when the owner looks for orchestrators.
    finding: Option<Time>,
    /// When the owner last found some, or nobody.
    found: Option<Time>,
    ids: ChildIds,
    submitted: u64,
    rng: Rng,
    closed: bool,
    news: VecDeque<News>,
    now: Time,
    out: Outbox<Event>,
}

/// News of the machines inside.
enum News {
    Pool(pool::Event),
    Payment(Url, session::Event),
    Quote(Url, handshake::Event),
}

impl From<Notice> for News {
    fn from((url, event): Notice) -> Self {
        Self::Payment(url, event)
    }
}

impl<S> core::fmt::Debug for Batch<S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Batch")
            .field("pipeline", &self.pipeline)
            .field("model", &self.model)
            .field("jobs", &self.jobs.len())
            .finish_non_exhaustive()
    }
}

impl<S: Selector> Batch<S> {
    /// A machine for jobs of `pipeline` with `model`. `payer` pays, and `identity` says so to orchestrators.
    #[must_use]
    #[allow(
        clippy::too_many_arguments,
        reason = "each is one decision of the owner's"
    )]
    pub fn new(
        now: Time,
        config: Config,
        pipeline: Pipeline,
        model: impl Into<String>,
        identity: Identity,
        payer: Payer,
        selector: S,
        seed: Seed,
    ) -> Self {
        let model = model.into();
        let mut rng = Rng::new(seed);
        let capability = pipeline.capability();
        let wanted = Capabilities::for_model(capability, model.as_str());
        let mut terms = pool::Config {
            share: u32::MAX,
            one_account: true,
            ..config.pool.clone()
        };
        // Whether a request is taken is asked right after.
        terms.handshake.ignore_capacity = true;
        terms.handshake.trust = config.trust;
        terms.handshake.terms.paying = payer.paying();
        let pool = SessionPool::new(now, terms, identity, wanted, selector, rng.fork());
        let payment = session::Config {
            by_request: true,
            app: alloc::format!("{pipeline}/{model}"),
            // The balance, as the orchestrator calls it.
            manifest_id: alloc::format!("{}_{model}", capability.id()),
            trust: config.trust,
            ..config.payment.clone()
        };
        Self {
            config: Arc::new(config),
            pipeline,
            model,
            pool: Nested::new(pool),
            purse: Purse::new(payer, payment),
            health: SignerHealth::default(),
            retained: BTreeMap::new(),
            jobs: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            selecting: BTreeSet::new(),
            timers: Alarms::new(),
            finding: None,
            found: None,
            ids: ChildIds::beside(),
            submitted: 0,
            rng,
            closed: false,
            news: VecDeque::new(),
            now,
            out: Outbox::default(),
        }
    }

    /// The pipeline.
    #[must_use]
    pub const fn pipeline(&self) -> Pipeline {
        self.pipeline
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Sets how further jobs are done; those under way go on by the settings that they began with. What concerns
    /// handshakes and payments stays as it was, since sessions and balances live on.
    pub fn set_config(&mut self, now: Time, config: Config, selector: S) {
        self.advance(now);
        let now = self.now;
        let (ready, extra_nodes) = (config.pool.ready, config.pool.extra_nodes);
        let pool = self.pool.get_mut();
        pool.set_ready(now, ready, extra_nodes);
        pool.set_selector(selector);
        let config = Config {
            trust: self.config.trust,
            ..config
        };
        // Jobs with the same settings share them.
        if *self.config != config {
            self.config = Arc::new(config);
        }
        self.run();
    }

    /// How many jobs are under way.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// The sessions with orchestrators, for questions.
    #[must_use]
    pub const fn pool(&self) -> &SessionPool<S> {
        self.pool.get()
    }

    /// The payments to the orchestrator at `url`, for questions.
    #[must_use]
    pub fn payments(&self, url: &Url) -> Option<&PaymentSession> {
        Some(self.retained.get(url)?.account.payments())
    }

    /// Makes orchestrators known: the answer to [`Event::Find`], or whenever there are some.
    pub fn offer(&mut self, now: Time, found: Vec<impl Into<Offered>>) {
        self.advance(now);
        let now = self.now;
        self.pool.get_mut().offer(now, found);
        self.after_search();
    }

    /// As [`offer`](Self::offer), for a list that stands for all there are.
    pub fn replace(&mut self, now: Time, found: Vec<impl Into<Offered>>) {
        self.advance(now);
        let now = self.now;
        self.pool.get_mut().replace(now, found);
        self.after_search();
    }

    /// Begins a job. The request has been checked, and its file measured.
    ///
    /// # Errors
    /// [`Misuse::Ended`] after the end; [`Misuse::StillOpen`] while [`Config::max_jobs`] are under way;
    /// [`Misuse::NotOpen`] if the file of the request was not measured.
    pub fn submit(
        &mut self,
        now: Time,
        request: &BatchRequest,
        preferences: Preferences,
    ) -> Result<JobId, Misuse> {
        self.advance(now);
        if self.closed {
            return Err(Misuse::Ended);
        }
        if self.jobs.len() >= self.config.max_jobs {
            return Err(Misuse::StillOpen);
        }
        let size = Size::of(request).ok_or(Misuse::NotOpen)?;
        let mut boundary = [0; 30];
        if request.file().is_some() {
            boundary.copy_from_slice(&self.rng.bytes32()[..30]);
        }
        let encoded = request.encode(&boundary);
        let id = JobId(self.submitted);
        self.submitted += 1;
        let job = Job {
            config: Arc::clone(&self.config),
            content_type: encoded.content_type.clone(),
            body: encoded.into_body(),
            size,
            stream: request.is_stream(),
            takes_empty: request.takes_empty(),
            preferences,
            began: self.now,
            since: self.now,
            selecting: Duration::ZERO,
            paying: Duration::ZERO,
            upstream: Duration::ZERO,
            tries: 0,
            trying_since: self.now,
            tried: Vec::new(),
            attempts: Vec::new(),
            excluded: None,
            looked: false,
            was_late: false,
            paused: false,
            engaged: None,
            silent: Vec::new(),
            served: None,
            stage: Stage::Selecting,
        };
        self.jobs.insert(id, job);
        self.select(id);
        self.run();
        Ok(id)
    }

    /// Ends a job without an event: its caller went away. What the orchestrator does by then is paid, and nobody is
    /// blamed.
    pub fn cancel(&mut self, now: Time, id: JobId) {
        self.advance(now);
        if self.jobs.contains_key(&id) {
            self.leave(id, Delivered::Unknown, Outcome::Unused);
            self.remove(id);
        }
        self.run();
    }

    /// Holds back a stream: its caller does not take what is there.
    pub fn pause(&mut self, now: Time, id: JobId) {
        self.advance(now);
        self.set_paused(id, true);
        self.run();
    }

    /// Lets a stream go on.
    pub fn resume(&mut self, now: Time, id: JobId) {
        self.advance(now);
        self.set_paused(id, false);
        self.run();
    }

    /// Pushes a new reading of the chain. Only an own key needs it.
    pub fn set_chain(&mut self, now: Time, view: ChainView) {
        self.advance(now);
        for url in self.retained.keys().cloned().collect::<Vec<_>>() {
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
            self.leave(id, Delivered::Unknown, Outcome::Unused);
            self.fail(id, Failed::Closed);
        }
        self.closed = true;
        self.pool.get_mut().replace(now, Vec::<Offered>::new());
        for url in self.retained.keys().cloned().collect::<Vec<_>>() {
            self.forget(&url);
        }
        self.run();
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// Takes in what the machines inside tell, until they tell nothing more.
    fn run(&mut self) {
        self.drain_pool();
        while let Some(news) = self.news.pop_front() {
            match news {
                News::Pool(event) => self.on_pool(event),
                News::Payment(url, event) => self.on_payment(&url, event),
                News::Quote(url, event) => self.on_quote(&url, event),
            }
            self.drain_pool();
        }
    }

    fn drain_pool(&mut self) {
        let news = &mut self.news;
        self.pool
            .drain(&mut self.out, |event| news.push_back(News::Pool(event)));
    }

    fn on_pool(&mut self, event: pool::Event) {
        match &event {
            pool::Event::Available(_) => self.select_all(),
            pool::Event::Exhausted(_) => self.exhausted(),
            pool::Event::Refresh => {
                if self.may_look() {
                    self.look();
                }
                return;
            }
            pool::Event::Renewed(info) => {
                let url = info.transcoder.clone();
                if let Some(retained) = self.retained.get_mut(&url) {
                    retained.seen = alloc::sync::Arc::clone(info);
                    let (now, info) = (self.now, alloc::sync::Arc::clone(info));
                    self.pay_with(&url, |payment| payment.renew(now, &info));
                }
            }
            pool::Event::NoIdentity(failure) => {
                let failure = failure.clone();
                self.nobody_pays(&failure);
            }
            pool::Event::Signers(seen) => return self.note_signers(seen),
            _ => {}
        }
        if !self.closed {
            self.out.event(Event::Pool(event));
        }
    }

    /// Notes how signers have been, as handshakes and payments see it.
    fn note_signers(&mut self, seen: &SignerHealth) {
        self.purse.learn_signers(seen);
        if self.health.merge(seen) && !self.closed {
            self.out.event(Event::Signers(self.health.clone()));
        }
    }

    /// The payer is unknown, so that nobody can be asked.
    fn nobody_pays(&mut self, failure: &Failure) {
        for id in core::mem::take(&mut self.selecting) {
            self.fail(id, Failed::Ours(Box::new(failure.clone())));
        }
    }

    // ---- the end of a job ------------------------------------------------------------------------------------

    fn fail(&mut self, id: JobId, failed: Failed) {
        if self.remove(id).is_some() {
            self.out.event(Event::Failed(id, Box::new(failed)));
        }
    }

    /// Forgets a job that has left its orchestrator.
    fn remove(&mut self, id: JobId) -> Option<Job> {
        self.set_wake(id, None);
        self.selecting.remove(&id);
        let mut job = self.jobs.remove(&id)?;
        for silent in core::mem::take(&mut job.silent) {
            self.let_go(silent, Delivered::Unknown, Outcome::Unused);
        }
        Some(job)
    }

    /// Has a job woken then, and at no other time.
    fn set_wake(&mut self, id: JobId, at: Option<Time>) {
        if self.jobs.contains_key(&id) {
            self.timers.set(id, at);
        }
    }

    /// Does what is due.
    fn tick(&mut self) {
        while let Some(id) = self.timers.ring(self.now) {
            self.wake_job(id);
            self.run();
        }
        if self.pool.wake().is_some_and(|at| at <= self.now) {
            self.pool.handle_input(self.now, Input::Tick);
        }
        let due = self.retained.iter();
        let due = due.filter(|(_, retained)| retained.wake().is_some_and(|at| at <= self.now));
        for url in due.map(|(url, _)| url.clone()).collect::<Vec<_>>() {
            self.feed(&url, Input::Tick);
        }
        self.run();
    }

    fn wake_job(&mut self, id: JobId) {
        match self.jobs.get(&id).map(|job| &job.stage) {
            Some(Stage::Selecting) => self.nobody_left(id),
            Some(Stage::InFlight(_)) => self.flight_is_due(id),
            Some(Stage::Fetching(_)) => self.result_is_late(id),
            Some(Stage::Paying) => self.lose_late(id),
            None => {}
        }
    }

    fn wake(&self) -> Option<Time> {
        let job = self.timers.next();
        let retained = self.retained.values().filter_map(Retained::wake).min();
        earlier(earlier(job, retained), self.pool.wake())
    }

    fn on_http(&mut self, id: EffectId, step: In) {
        let Some(job) = self.exchanges.get(&id).copied() else {
            return;
        };
        match self.jobs.get(&job).map(|job| &job.stage) {
            Some(Stage::InFlight(flight)) if flight.exchange == id => self.on_answer(job, step),
            Some(Stage::Fetching(_)) => self.on_result(job, id, step),
            Some(Stage::InFlight(_) | Stage::Paying) => self.on_silent(job, id, step),
            _ => {}
        }
    }

    fn set_paused(&mut self, id: JobId, paused: bool) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if job.paused == paused {
            return;
        }
        job.paused = paused;
        // Of what is no stream, or none yet, nothing goes to the caller.
        let Stage::InFlight(flight) = &mut job.stage else {
            return;
        };
        let Some(events) = &flight.events else {
            return;
        };
        let step = if paused { Out::Pause } else { Out::Resume };
        self.out.http(flight.exchange, step);
        if !events.finished {
            // What is not read is not silent.
            let until = self.now + job.config.stream_silence;
            flight.until = until;
            self.set_wake(id, (!paused).then_some(until));
        }
    }
}

impl<S: Selector> Machine for Batch<S> {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        match (input.id(), input) {
            (Some(id), Input::Http(_, step)) if id.owner() == 0 => self.on_http(id, step),
            (Some(id), input) if self.pool.owns(id) => self.pool.handle_input(self.now, input),
            (Some(id), input) => {
                let mut all = self.retained.iter();
                let url = all.find(|(_, retained)| retained.owns(id));
                if let Some(url) = url.map(|(url, _)| url.clone()) {
                    self.feed(&url, input);
                }
            }
            (None, _) => {}
        }
        self.run();
        if self.wake().is_some_and(|at| at <= self.now) {
            self.tick();
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
