//! What the parts of a running job share, and the one task that carries events between its machines.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use livepeer_core::http::Url;
use livepeer_core::job::LiveVideoJob as Machine;
use livepeer_core::job::live::{Ending, Event, Started};
use livepeer_core::pool::{self, Outcome, SessionPool, Tried, Why};
use livepeer_core::selection::Balanced;
use livepeer_core::trickle::{self, publisher};
use livepeer_core::{Failure, Time};

use super::input::Input;
use super::live::{JobEvent, Spent};
use crate::signal::enlist;
use crate::{Handle, Runtime, lock};

/// Events that an application has not fetched; of more, the oldest are dropped and counted.
pub(super) const MAX_JOB_EVENTS: usize = 256;

/// How long an ended job waits for its store, and how often it looks.
pub(super) const REMEMBER_WITHIN: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_millis(1);

/// A running job's machines, and what its tasks know of them.
pub(super) struct Shared<R: Runtime> {
    pub(super) job: Handle<Machine, R>,
    pool: Handle<SessionPool<Balanced>, R>,
    state: Mutex<State<R>>,
}

/// What changes while a job runs.
pub(super) struct State<R: Runtime> {
    /// Who works, and how many came before: media channels belong to one of them.
    pub(super) started: Option<Started>,
    pub(super) ended: Option<Ending>,
    /// Who did not take the job, or failed at it, and why.
    pub(super) tried: Vec<Tried>,
    /// Why nobody could be asked at all.
    pub(super) no_identity: Option<Failure>,
    pub(super) events: VecDeque<JobEvent>,
    pub(super) spent: Spent,
    /// Parameter updates delivered, and how many somebody waits for.
    pub(super) updated: u64,
    pub(super) promised: u64,
    pub(super) input: Input<R>,
    /// How many outputs the application has open.
    pub(super) readers: usize,
    /// Whether somebody works.
    at_work: bool,
    /// Who was lost, why and when, while nobody works.
    lost: Option<(Url, Failure, Time)>,
    wakers: Vec<Waker>,
}

impl<R: Runtime> State<R> {
    fn tell(&mut self, event: JobEvent) {
        if self.events.len() == MAX_JOB_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Which of its orchestrators the job has, from zero.
    pub(super) fn session(&self) -> u32 {
        self.started.as_ref().map_or(0, |started| started.swaps)
    }

    /// The last word on each orchestrator counts.
    fn note(&mut self, tried: Tried) {
        self.tried.retain(|one| one.url != tried.url);
        self.tried.push(tried);
    }
}

impl<R: Runtime> Shared<R> {
    pub(super) fn new(
        job: Handle<Machine, R>,
        pool: Handle<SessionPool<Balanced>, R>,
    ) -> Arc<Self> {
        let shared = Arc::new(Self {
            job,
            pool,
            state: Mutex::new(State {
                started: None,
                ended: None,
                tried: Vec::new(),
                no_identity: None,
                events: VecDeque::new(),
                spent: Spent::default(),
                updated: 0,
                promised: 0,
                input: Input::default(),
                readers: 0,
                at_work: false,
                lost: None,
                wakers: Vec::new(),
            }),
        });
        let runtime = shared.job.driver().runtime().clone();
        runtime.spawn(Arc::clone(&shared).pump());
        shared
    }

    /// Looks at the state, and changes it.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State<R>) -> T) -> T {
        look(&mut lock(&self.state))
    }

    /// Waits until `look` finds what it looks for.
    pub(super) async fn until<T>(&self, mut look: impl FnMut(&mut State<R>) -> Option<T>) -> T {
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            match look(&mut state) {
                Some(found) => Poll::Ready(found),
                None => {
                    enlist(&mut state.wakers, cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Changes something that others may wait for.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State<R>) -> T) -> T {
        let changed = self.with(change);
        self.wake();
        changed
    }

    fn wake(&self) {
        let wakers = std::mem::take(&mut lock(&self.state).wakers);
        for waker in wakers {
            waker.wake();
        }
    }

    /// Carries events until job and input have ended.
    async fn pump(self: Arc<Self>) {
        poll_fn(|cx| self.poll_pump(cx)).await;
        self.remembered().await;
        self.pool.close();
    }

    /// Waits until what was seen of orchestrators is in the store, but not for ever: nothing depends on it.
    pub(super) async fn remembered(&self) {
        let driver = self.job.driver();
        let until = driver.now() + REMEMBER_WITHIN;
        while self.pool.with(|pool, _| pool.is_storing()) && driver.now() < until {
            driver.runtime().sleep_until(driver.now() + GLANCE).await;
        }
    }

    fn poll_pump(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut moved = false;
            while let Poll::Ready(Some(event)) = self.job.poll_next(cx) {
                moved = true;
                self.on_job(event);
            }
            while let Poll::Ready(Some(event)) = self.pool.poll_next(cx) {
                moved = true;
                self.on_pool(event);
            }
            while let Some(media) = self.with(|state| state.input.media())
                && let Poll::Ready(Some(event)) = media.poll_next(cx)
            {
                moved = true;
                self.on_media(event);
            }
            if moved {
                self.learn();
                self.wake();
                continue;
            }
            let mut state = lock(&self.state);
            if state.ended.is_some() && !state.input.is_at_work() {
                return Poll::Ready(());
            }
            // A media channel may be opened meanwhile.
            enlist(&mut state.wakers, cx);
            return Poll::Pending;
        }
    }

    /// What was seen of remote signers is for other jobs too.
    fn learn(&self) {
        let driver = self.job.driver();
        self.pool
            .with(|pool, _| driver.learn_signers(pool.signer_health()));
        self.job.with(|job, _| {
            if let Some(health) = job.signer_health() {
                driver.learn_signers(health);
            }
        });
    }

    fn on_job(&self, event: Event) {
        match event {
            Event::NeedLease => self.lend(),
            Event::Started(started) => self.on_started(*started),
            Event::Paid(paid) => self.with(|state| {
                state.spent.payments += 1;
                state.spent.tickets += u64::from(paid.tickets);
                state.spent.expected_value += &paid.value;
                state.tell(JobEvent::Paid(paid));
            }),
            Event::PaymentHeld(why) => self.with(|state| state.tell(JobEvent::PaymentHeld(why))),
            Event::Repriced { from, to } => {
                self.with(|state| state.tell(JobEvent::Repriced { from, to }));
            }
            Event::Runner(event) => self.with(|state| state.tell(JobEvent::Runner(event))),
            Event::Updated => self.with(|state| state.updated += 1),
            Event::Lost(url, failure) => self.with(|state| {
                // One that did not even start is no loss.
                if std::mem::take(&mut state.at_work) {
                    state.lost = Some((url.clone(), failure.clone(), self.job.now()));
                }
                let why = Why::Failed(failure.clone());
                state.note(Tried {
                    url: url.clone(),
                    why,
                });
                state.tell(JobEvent::Lost(url, failure));
            }),
            Event::Release(lease, outcome) => {
                self.pool
                    .with(|pool, now| pool.give_back(now, lease, outcome));
            }
            Event::Ended(ending) => self.with(|state| {
                // Nobody is left to write to.
                state.input.abandon();
                state.ended = Some(ending);
            }),
            _ => {}
        }
    }

    /// Somebody works: media goes there from now on, beginning with what was not answered yet.
    fn on_started(&self, started: Started) {
        self.with(|state| {
            let again = state.input.point_at(&self.job, &started.channels.publish);
            if let Some((from, why, at)) = state.lost.take() {
                // The next one got the latest parameters with its start.
                state.updated = state.updated.max(state.promised);
                state.tell(JobEvent::Swapped(Box::new(Swapped {
                    from,
                    why,
                    to: started.orchestrator.clone(),
                    after: self.job.now().since(at),
                    again,
                })));
            }
            state.at_work = true;
            state.started = Some(started);
            state.input.feed(&self.job);
        });
    }

    fn on_pool(&self, event: pool::Event) {
        match event {
            pool::Event::Available(_) => self.lend(),
            pool::Event::Exhausted(tried) => {
                self.with(|state| {
                    // What we saw ourselves says more than the pool's rest after it.
                    let known: Vec<_> = state.tried.iter().map(|one| one.url.clone()).collect();
                    state
                        .tried
                        .extend(tried.into_iter().filter(|one| !known.contains(&one.url)));
                });
                // Only a job that waits is told; otherwise the call is refused and nothing happens.
                let _ = self.job.with(|job, now| job.no_lease(now));
            }
            pool::Event::NoIdentity(failure) => {
                self.with(|state| state.no_identity = Some(failure));
                let _ = self.job.with(|job, now| job.no_lease(now));
            }
            _ => {}
        }
    }

    /// Lends the job a session, if it waits for one and there is one.
    fn lend(&self) {
        if !self.job.with(|job, _| job.needs_lease()) {
            return;
        }
        let Some(lease) = self.pool.with(|pool, now| pool.take(now)) else {
            return;
        };
        if let Err(lease) = self.job.with(|job, now| job.assign(now, lease)) {
            self.pool
                .with(|pool, now| pool.give_back(now, lease, Outcome::Unused));
        }
    }

    fn on_media(&self, event: publisher::Event) {
        match event {
            publisher::Event::Ready(_) | publisher::Event::Writable => {}
            publisher::Event::Delivered(seq) => {
                self.with(|state| state.input.delivered(seq));
                self.job.with(|job, now| job.input_done(now));
            }
            publisher::Event::Resumed(..) => self.with(|state| state.input.resumed += 1),
            publisher::Event::Lost(seq, failure) => {
                self.with(|state| state.input.lost(seq, failure));
                self.job.with(|job, now| job.input_done(now));
            }
            publisher::Event::Closed(ending) => {
                if self.with(|state| state.input.on_closed()) {
                    self.job.with(|job, now| job.input_closed(now));
                } else {
                    let failure = match ending {
                        trickle::Ending::Failed(failure) => Some(failure),
                        _ => None,
                    };
                    self.job.with(|job, now| job.media_ended(now, failure));
                }
                return;
            }
            _ => {}
        }
        self.with(|state| state.input.feed(&self.job));
    }
}

/// The job went on with another orchestrator.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Swapped {
    /// Who was lost.
    pub from: Url,
    /// Why.
    pub why: Failure,
    /// Who works now.
    pub to: Url,
    /// How long nobody did.
    pub after: Duration,
    /// Segments of the input that it gets although the one before had them.
    pub again: usize,
}
