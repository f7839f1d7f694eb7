//! Apps that are rented, and what their runners were like.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;

use livepeer_core::chain::ChainView;
use livepeer_core::http::Url;
use livepeer_core::job::app::{Event, Failed, History, Rental};
use livepeer_core::wire::app::Session;

use super::board::Board;
use super::event::{AppEvent, Spent};
use super::ring::Ring;
use crate::{Driver, Handle, Runtime, lock};

/// The apps that are rented, and how runners have been.
pub(super) struct Rentals<R: Runtime> {
    history: Mutex<History>,
    live: Mutex<Vec<Weak<Rented<R>>>>,
}

impl<R: Runtime> Default for Rentals<R> {
    fn default() -> Self {
        Self {
            history: Mutex::default(),
            live: Mutex::default(),
        }
    }
}

impl<R: Runtime> Rentals<R> {
    pub(super) fn set_chain(&self, view: &ChainView) {
        let live: Vec<_> = lock(&self.live).iter().filter_map(Weak::upgrade).collect();
        for rented in live {
            rented
                .machine
                .with(|rental, now| rental.set_chain(now, view.clone()));
        }
    }

    fn join(&self, rented: &Arc<Rented<R>>) {
        let mut live = lock(&self.live);
        live.retain(|one| one.strong_count() > 0);
        live.push(Arc::downgrade(rented));
    }
}

/// An app that is rented.
pub(super) struct Rented<R: Runtime> {
    pub(super) machine: Handle<Rental, R>,
    pub(super) rentals: Arc<Rentals<R>>,
    pub(super) state: Board<State>,
}

/// The outcome of a rental so far.
#[derive(Default)]
pub(super) struct State {
    pub(super) session: Option<(Session, Url)>,
    pub(super) events: Ring<AppEvent>,
    pub(super) spent: Spent,
    pub(super) over: Option<Result<(), Failed>>,
}

impl<R: Runtime> Rented<R> {
    pub(super) fn start(
        rentals: &Arc<Rentals<R>>,
        driver: &Driver<R>,
        rental: impl FnOnce(History) -> Rental,
    ) -> Arc<Self> {
        let rental = rental(lock(&rentals.history).clone());
        let rented = Arc::new(Self {
            machine: driver.drive(rental),
            rentals: Arc::clone(rentals),
            state: Board::new(State::default()),
        });
        rentals.join(&rented);
        rented
    }

    /// Takes note of an event that no answer is made of.
    pub(super) fn note(&self, event: Event) {
        let over = match event {
            Event::Signers(health) => return self.machine.driver().learn_signers(&health),
            Event::Trying(url) => return self.tell(AppEvent::Trying(url)),
            Event::Trouble(failure) => {
                self.state.with(|state| state.spent.fail(&failure));
                return self.tell(AppEvent::Trouble(*failure));
            }
            Event::Paid(paid) => {
                self.state.with(|state| state.spent.add(&paid));
                return self.tell(AppEvent::Paid(*paid));
            }
            Event::Reserved { session, runner } => {
                return self
                    .state
                    .change(|state| state.session = Some((session, runner)));
            }
            Event::Released => {
                self.tell(AppEvent::Released);
                Ok(())
            }
            // Whoever waits for it looks again.
            Event::Room => return self.state.wake(),
            Event::Closed | Event::Done => Ok(()),
            Event::Failed(failed) => Err(*failed),
            _ => return,
        };
        let seen = self.machine.with(|rental, _| rental.history().clone());
        lock(&self.rentals.history).merge(&seen);
        self.state.change(|state| state.over = Some(over));
    }

    fn tell(&self, event: AppEvent) {
        self.state.change(|state| state.events.push(event));
    }

    /// Nobody has it any more: what it would still tell is nobody's.
    pub(super) fn leave(&self) {
        self.state.change(|state| {
            state.over.get_or_insert(Ok(()));
        });
    }

    /// Ends a call when this session is over, if it goes on so long.
    pub(super) async fn end_with(self: Arc<Self>, call: Arc<Self>) {
        let over = |state: &mut State| state.over.is_some().then_some(());
        poll_fn(|cx| {
            if self.state.poll(cx, over).is_ready() {
                call.machine.with(Rental::close);
                return Poll::Ready(());
            }
            call.state.poll(cx, over)
        })
        .await;
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.with(|state| state.over.is_some())
    }

    /// Takes the events of a session until its end, also when nobody has it any more: it is to be stopped.
    pub(super) async fn pump(self: Arc<Self>) {
        while !self.is_over()
            && let Some(event) = self.machine.next().await
        {
            self.note(event);
        }
        self.machine.close();
    }
}
