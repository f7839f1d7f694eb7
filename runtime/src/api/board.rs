//! State that tasks change and calls wait for: answers are looked up, so nobody can miss one or take another's.

use std::future::poll_fn;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use crate::lock;
use crate::signal::enlist;

/// A value behind a lock, with those who wait for it to change.
///
/// A machine may be locked while the board is, never the other way round.
#[derive(Debug)]
pub(super) struct Board<T> {
    state: Mutex<T>,
    waiting: Mutex<Vec<Waker>>,
}

impl<T> Board<T> {
    pub(super) const fn new(state: T) -> Self {
        Self {
            state: Mutex::new(state),
            waiting: Mutex::new(Vec::new()),
        }
    }

    /// Looks at the state, or changes something that nobody waits for.
    pub(super) fn with<U>(&self, look: impl FnOnce(&mut T) -> U) -> U {
        look(&mut lock(&self.state))
    }

    /// Changes something that others may wait for.
    pub(super) fn change<U>(&self, change: impl FnOnce(&mut T) -> U) -> U {
        let changed = self.with(change);
        self.wake();
        changed
    }

    /// Has those who wait look again.
    pub(super) fn wake(&self) {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        for waker in waiting {
            waker.wake();
        }
    }

    /// Has a task woken by the next change.
    pub(super) fn enlist(&self, cx: &Context<'_>) {
        enlist(&mut lock(&self.waiting), cx);
    }

    /// Waits until `look` finds what it looks for.
    pub(super) async fn until<U>(&self, mut look: impl FnMut(&mut T) -> Option<U>) -> U {
        poll_fn(|cx| self.poll(cx, &mut look)).await
    }

    /// Polls as [`Board::until`] does, by hand.
    pub(super) fn poll<U>(
        &self,
        cx: &Context<'_>,
        look: impl FnOnce(&mut T) -> Option<U>,
    ) -> Poll<U> {
        let mut state = lock(&self.state);
        match look(&mut state) {
            Some(found) => Poll::Ready(found),
            None => {
                // Still under the lock of the state: no change slips in between.
                enlist(&mut lock(&self.waiting), cx);
                Poll::Pending
            }
        }
    }
}
