//! State that the parts of a running job share, and the one task that carries events between its machines.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use livepeer_core::job::LiveVideoJob as Machine;
use livepeer_core::job::live::media::{self, Media};
use livepeer_core::job::live::{Ending, Event, Started, Wires};
use livepeer_core::pool::{self, SessionPool, Tried};
use livepeer_core::selection::Balanced;
use livepeer_core::{Failure, Time};

use super::Error;
use super::event::{JobEvent, Spent, Swapped};
use super::feed::Feeds;
use super::fleet::{Job, Member, Pool};
use super::memory::REMEMBER_WITHIN;
use super::ring::Ring;
use crate::signal::enlist;
use crate::{Handle, Runtime, lock};

/// How often an ended job looks whether its store is done.
const GLANCE: Duration = Duration::from_millis(1);

/// A running job's machines, and what its tasks know of them.
pub(super) struct Shared<R: Runtime> {
    pub(super) job: Handle<Machine, R>,
    media: Handle<Media, R>,
    pool: Arc<Pool<R>>,
    state: Mutex<State>,
    /// Held while an event goes from one machine to another: those of the media have to arrive in their order, and of
    /// two events one takes the lease that is wanted.
    carrying: Mutex<()>,
}

/// State that changes while a job runs.
pub(super) struct State {
    /// The orchestrator that works, and how many came before.
    pub(super) started: Option<Started>,
    pub(super) ended: Option<Ending>,
    /// Orchestrators that did not take the job, or failed at it, and why, once the job has ended.
    pub(super) tried: Vec<Tried>,
    /// The reason why no orchestrator could be asked at all.
    pub(super) no_identity: Option<Failure>,
    pub(super) events: Ring<JobEvent>,
    pub(super) spent: Spent,
    /// The number of the last parameter update that the orchestrator has.
    pub(super) updated: u64,
    wakers: Vec<Waker>,
}

impl<R: Runtime> Shared<R> {
    pub(super) fn new(
        job: Handle<Machine, R>,
        media: Handle<Media, R>,
        member: Member<R>,
    ) -> Arc<Self> {
        let shared = Arc::new(Self {
            job,
            media,
            pool: Arc::clone(&member.pool),
            carrying: Mutex::new(()),
            state: Mutex::new(State {
                started: None,
                ended: None,
                tried: Vec::new(),
                no_identity: None,
                events: Ring::default(),
                spent: Spent::default(),
                updated: 0,
                wakers: Vec::new(),
            }),
        });
        let runtime = shared.job.driver().runtime().clone();
        let job: Arc<dyn Job> = shared.clone();
        shared.pool.tell(Arc::downgrade(&job));
        runtime.spawn(Arc::clone(&shared).pump(member));
        shared
    }

    /// Looks at the state, and changes it.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut lock(&self.state))
    }

    /// Asks the media.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Media) -> T) -> T {
        self.media.with(|media, _| look(media))
    }

    /// Carries what the media tell to the job. Returns whether that was anything.
    fn carry_news(mut self: &Self, mut next: impl FnMut() -> Option<media::News>) -> bool {
        let _turn = lock(&self.carrying);
        let mut told = false;
        while let Some(news) = next() {
            told = true;
            self.on_media(news);
        }
        told
    }

    /// Waits until `look` finds what it looks for.
    pub(super) async fn until<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        poll_fn(|cx| self.poll(cx, &mut look)).await
    }

    /// Polls as [`Shared::until`] does, by hand.
    pub(super) fn poll<T>(
        &self,
        cx: &Context<'_>,
        look: impl FnOnce(&mut State) -> Option<T>,
    ) -> Poll<T> {
        let mut state = lock(&self.state);
        match look(&mut state) {
            Some(found) => Poll::Ready(found),
            None => {
                enlist(&mut state.wakers, cx);
                Poll::Pending
            }
        }
    }

    fn wake(&self) {
        let wakers = std::mem::take(&mut lock(&self.state).wakers);
        for waker in wakers {
            waker.wake();
        }
    }

    /// Carries events until job and input have ended.
    async fn pump(self: Arc<Self>, member: Member<R>) {
        poll_fn(|cx| self.poll_pump(cx)).await;
        self.remembered().await;
        drop(member);
    }

    /// Waits until what was seen of orchestrators is in the store, but not for ever: nothing depends on it.
    pub(super) async fn remembered(&self) {
        let driver = self.job.driver();
        let until = driver.now() + REMEMBER_WITHIN;
        let storing = || self.pool.handle.with(|pool, _| pool.is_storing());
        while storing() && driver.now() < until {
            driver.runtime().sleep_until(driver.now() + GLANCE).await;
        }
    }

    fn poll_pump(mut self: &Self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut moved = false;
            while let Poll::Ready(Some(event)) = self.job.poll_next(cx) {
                moved = true;
                let turn = lock(&self.carrying);
                let event = self.on_job(event);
                drop(turn);
                if let Some(event) = event {
                    self.note(event);
                }
            }
            moved |= self.carry_news(|| match self.media.poll_next(cx) {
                Poll::Ready(event) => event,
                Poll::Pending => None,
            });
            if moved {
                self.wake();
                continue;
            }
            let over = self.is_over() && self.look(Media::is_idle);
            return if over { Poll::Ready(()) } else { Poll::Pending };
        }
    }

    /// Takes note of what the application may want to know.
    fn note(&self, event: Event) {
        match event {
            Event::Started(started) => self.on_started(*started),
            Event::Paid(paid) => self.with(|state| {
                state.spent.add(&paid);
                state.events.push(JobEvent::Paid(paid));
            }),
            Event::PaymentHeld(why) => self.with(|state| {
                state.spent.fail(&why);
                state.events.push(JobEvent::PaymentHeld(why));
            }),
            Event::Repriced { from, to } => {
                self.with(|state| state.events.push(JobEvent::Repriced { from, to }));
            }
            Event::Signers(health) => self.job.driver().learn_signers(&health),
            Event::Runner(event) => self.with(|state| state.events.push(JobEvent::Runner(event))),
            Event::Updated => self.note_updated(),
            Event::Lost(url, failure) => {
                self.with(|state| state.events.push(JobEvent::Lost(url, failure)));
            }
            Event::Ended(ending) => {
                if !matches!(ending, Ending::Finished | Ending::Stopped) {
                    self.pool.fail();
                }
                let tried = self.job.with(|job, _| job.tried().to_vec());
                self.with(|state| (state.ended, state.tried) = (Some(ending), tried));
            }
            _ => {}
        }
    }

    fn on_started(&self, started: Started) {
        let again = self.look(Media::given_again);
        self.with(|state| {
            if let Some(loss) = &started.instead_of {
                state.events.push(JobEvent::Swapped(Box::new(Swapped {
                    from: loss.orchestrator.clone(),
                    why: loss.why.clone(),
                    to: started.orchestrator.clone(),
                    after: self.job.now().since(loss.at),
                    again,
                })));
            }
            state.started = Some(started);
        });
        // A standby may have had updates before it took over.
        self.note_updated();
    }

    fn note_updated(&self) {
        let updated = self.job.with(|job, _| job.updated());
        self.with(|state| state.updated = updated);
    }
}

impl<R: Runtime> Feeds<R> for Shared<R> {
    fn media(&self) -> &Handle<Media, R> {
        &self.media
    }

    fn carry(&self) {
        if self.carry_news(|| self.media.try_next()) {
            self.wake();
        }
    }

    fn set_output_read(&self, read: bool) {
        self.job.with(|job, now| job.set_output_read(now, read));
    }

    fn ended(&self) -> Option<Error> {
        self.with(|state| {
            let ending = state.ended.as_ref()?;
            Some(Error::of_ending(ending, &state.tried))
        })
    }

    fn enlist(&self, cx: &Context<'_>) {
        self.with(|state| enlist(&mut state.wakers, cx));
    }
}

impl<R: Runtime> Job for Shared<R> {
    fn on_pool_event(mut self: &Self, event: &pool::Event) {
        if let pool::Event::NoIdentity(failure) = event {
            self.with(|state| state.no_identity = Some(failure.clone()));
        }
        let _turn = lock(&self.carrying);
        self.on_pool(event.clone());
    }

    fn is_over(&self) -> bool {
        self.with(|state| state.ended.is_some())
    }
}

impl<R: Runtime> Wires for &Shared<R> {
    type Choice = Balanced;

    fn with_job<T>(&mut self, act: impl FnOnce(&mut Machine, Time) -> T) -> T {
        self.job.with(act)
    }

    fn with_media<T>(&mut self, act: impl FnOnce(&mut Media, Time) -> T) -> T {
        self.media.with(act)
    }

    fn with_pool<T>(&mut self, act: impl FnOnce(&mut SessionPool<Balanced>, Time) -> T) -> T {
        self.pool.handle.with(act)
    }
}
