//! What the parts of a running job share, and the one task that carries events between its machines.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use livepeer_core::Failure;
use livepeer_core::job::LiveVideoJob as Machine;
use livepeer_core::job::live::{Ending, Event, Started};
use livepeer_core::pool::{self, Outcome, Quickest, SessionPool, Tried, Why};
use livepeer_core::trickle::{self, Seq, publisher};

use super::live::{JobEvent, Spent};
use crate::{Handle, Runtime, lock};

/// Events that an application has not fetched; of more, the oldest are dropped and counted.
pub(super) const MAX_JOB_EVENTS: usize = 256;

/// A running job's machines, and what its tasks know of them.
pub(super) struct Shared<R: Runtime> {
    pub(super) job: Handle<Machine, R>,
    pool: Handle<SessionPool<Quickest>, R>,
    media: Mutex<Option<Handle<trickle::Publisher, R>>>,
    state: Mutex<State>,
}

/// What changes while a job runs.
#[derive(Default)]
pub(super) struct State {
    pub(super) started: Option<Started>,
    pub(super) ended: Option<Ending>,
    /// Who did not take the job, or failed at it, and why.
    pub(super) tried: Vec<Tried>,
    /// Why nobody could be asked at all.
    pub(super) no_identity: Option<Failure>,
    pub(super) events: VecDeque<JobEvent>,
    pub(super) spent: Spent,
    /// Parameter updates delivered.
    pub(super) updated: u64,
    pub(super) input: Input,
    wakers: Vec<Waker>,
}

/// How the input channel does.
#[derive(Clone, Debug, Default)]
pub(super) struct Input {
    /// Counts the times at which it became worth trying again.
    pub(super) turns: u64,
    pub(super) begun: u64,
    pub(super) delivered: u64,
    pub(super) lost: Vec<(Seq, Failure)>,
    pub(super) resumed: u64,
    pub(super) ended: Option<trickle::Ending>,
}

impl State {
    fn tell(&mut self, event: JobEvent) {
        if self.events.len() == MAX_JOB_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

impl<R: Runtime> Shared<R> {
    pub(super) fn new(
        job: Handle<Machine, R>,
        pool: Handle<SessionPool<Quickest>, R>,
    ) -> Arc<Self> {
        let shared = Arc::new(Self {
            job,
            pool,
            media: Mutex::new(None),
            state: Mutex::new(State::default()),
        });
        let runtime = shared.job.driver().runtime().clone();
        runtime.spawn(Arc::clone(&shared).pump());
        shared
    }

    /// Looks at the state, and changes it.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut lock(&self.state))
    }

    /// Waits until `look` finds what it looks for.
    pub(super) async fn until<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            match look(&mut state) {
                Some(found) => Poll::Ready(found),
                None => {
                    if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                        state.wakers.push(cx.waker().clone());
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The machine that publishes the input, from now on with its events looked after.
    pub(super) fn set_media(&self, media: Handle<trickle::Publisher, R>) {
        *lock(&self.media) = Some(media);
        self.wake();
    }

    pub(super) fn media(&self) -> Option<Handle<trickle::Publisher, R>> {
        lock(&self.media).clone()
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
        self.pool.close();
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
            if let Some(media) = self.media() {
                while let Poll::Ready(Some(event)) = media.poll_next(cx) {
                    moved = true;
                    self.on_media(event);
                }
            }
            if moved {
                self.wake();
                continue;
            }
            let mut state = lock(&self.state);
            let media_ended = state.input.ended.is_some() || lock(&self.media).is_none();
            if state.ended.is_some() && media_ended {
                return Poll::Ready(());
            }
            // A media channel may be opened meanwhile.
            if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.wakers.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
    }

    fn on_job(&self, event: Event) {
        match event {
            Event::NeedLease => self.lend(),
            Event::Started(started) => self.with(|state| state.started = Some(*started)),
            Event::Paid(paid) => self.with(|state| {
                state.spent.payments += 1;
                state.spent.tickets += u64::from(paid.tickets);
                state.spent.expected_value += &paid.value;
                state.tell(JobEvent::Paid(paid));
            }),
            Event::Runner(event) => self.with(|state| state.tell(JobEvent::Runner(event))),
            Event::Updated => self.with(|state| state.updated += 1),
            Event::Lost(url, failure) => self.with(|state| {
                let why = Why::Failed(failure.clone());
                state.tried.retain(|one| one.url != url);
                let one = Tried {
                    url: url.clone(),
                    why,
                };
                state.tried.push(one);
                state.tell(JobEvent::Lost(url, failure));
            }),
            Event::Release(lease, outcome) => {
                self.pool
                    .with(|pool, now| pool.give_back(now, lease, outcome));
            }
            Event::Ended(ending) => {
                // Nobody is left to write to.
                if let Some(media) = self.media() {
                    media.with(|publisher, now| publisher.close(now));
                }
                self.with(|state| state.ended = Some(ending));
            }
            _ => {}
        }
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
            publisher::Event::Ready(_) | publisher::Event::Writable => {
                self.with(|state| state.input.turns += 1);
            }
            publisher::Event::Delivered(_) => {
                self.with(|state| {
                    state.input.turns += 1;
                    state.input.delivered += 1;
                });
                self.job.with(|job, now| job.input_done(now));
            }
            publisher::Event::Resumed(..) => self.with(|state| state.input.resumed += 1),
            publisher::Event::Lost(seq, failure) => {
                self.with(|state| {
                    state.input.turns += 1;
                    state.input.lost.push((seq, failure));
                });
                self.job.with(|job, now| job.input_done(now));
            }
            publisher::Event::Closed(ending) => {
                let failure = match &ending {
                    trickle::Ending::Failed(failure) => Some(failure.clone()),
                    _ => None,
                };
                let ours = matches!(ending, trickle::Ending::Closed);
                self.with(|state| state.input.ended = Some(ending));
                if ours {
                    self.job.with(|job, now| job.input_closed(now));
                } else {
                    self.job.with(|job, now| job.media_ended(now, failure));
                }
            }
            _ => {}
        }
    }
}
