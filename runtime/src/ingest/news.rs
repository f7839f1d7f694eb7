//! News that wait for the owner.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Mutex;
use std::task::{Poll, Waker};

use crate::lock;
use crate::signal::enlist;

/// At most this many news wait for the owner; beyond it, whoever wants something new is refused.
pub(super) const MAX_NEWS: usize = 1_024;

/// A queue of news, until it is closed.
#[derive(Debug)]
pub(super) struct News<E>(Mutex<State<E>>);

#[derive(Debug)]
struct State<E> {
    waiting: VecDeque<E>,
    listeners: Vec<Waker>,
    closed: bool,
}

impl<E> Default for News<E> {
    fn default() -> Self {
        Self(Mutex::new(State {
            waiting: VecDeque::new(),
            listeners: Vec::new(),
            closed: false,
        }))
    }
}

impl<E> News<E> {
    /// Adds one, whatever waits.
    pub(super) fn push(&self, event: E) {
        self.change(|state| state.waiting.push_back(event));
    }

    /// Whether so much waits that nothing new should be begun.
    pub(super) fn is_full(&self) -> bool {
        lock(&self.0).waiting.len() >= MAX_NEWS
    }

    pub(super) fn close(&self) {
        self.change(|state| state.closed = true);
    }

    fn change(&self, change: impl FnOnce(&mut State<E>)) {
        let listeners = {
            let mut state = lock(&self.0);
            change(&mut state);
            std::mem::take(&mut state.listeners)
        };
        listeners.into_iter().for_each(Waker::wake);
    }

    /// The next one; `None` once it is closed and all are fetched.
    pub(super) async fn next(&self) -> Option<E> {
        poll_fn(|cx| {
            let mut state = lock(&self.0);
            match state.waiting.pop_front() {
                None if !state.closed => {
                    enlist(&mut state.listeners, cx);
                    Poll::Pending
                }
                event => Poll::Ready(event),
            }
        })
        .await
    }
}
