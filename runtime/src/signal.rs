//! Telling tasks: one to stop, several that something happened.

use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

use crate::lock;

/// How a task is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// The task is not to stop.
    Run = 0,
    /// The task is to stop when what it does is done.
    Finish = 1,
    /// The task is to stop at once.
    Now = 2,
}

/// A flag that one task looks at and others raise.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    level: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

impl Signal {
    pub(crate) fn raise(&self, to: Stop) {
        if self.level.fetch_max(to as u8, Ordering::AcqRel) < to as u8 {
            let waker = lock(&self.waker).clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    pub(crate) fn level(&self) -> Stop {
        match self.level.load(Ordering::Acquire) {
            0 => Stop::Run,
            1 => Stop::Finish,
            _ => Stop::Now,
        }
    }

    // Both take what is pinned already: an async function keeps a future that it is given twice.

    /// Runs `future` until it ends or the signal says [`Stop::Now`].
    pub(crate) fn unless_stopped<T>(
        &self,
        future: Pin<&mut impl Future<Output = T>>,
    ) -> impl Future<Output = Option<T>> {
        self.below(Stop::Now, future)
    }

    /// Runs `future` until it ends or the signal says anything.
    pub(crate) fn unless_asked<T>(
        &self,
        future: Pin<&mut impl Future<Output = T>>,
    ) -> impl Future<Output = Option<T>> {
        self.below(Stop::Finish, future)
    }

    fn below<T>(
        &self,
        limit: Stop,
        mut future: Pin<&mut impl Future<Output = T>>,
    ) -> impl Future<Output = Option<T>> {
        // Whom the signal wakes, looked at without its lock.
        let mut task: Option<Waker> = None;
        std::future::poll_fn(move |cx| {
            if !task.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                task = Some(cx.waker().clone());
                lock(&self.waker).clone_from(&task);
            }
            if self.level() >= limit {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
    }
}

/// Adds a task to those that are woken next time, unless it is among them.
///
/// Clones are compared: `will_wake` knows a waker by its table too, and the one that a task is polled with may have
/// another than its clones have (tokio's does where a task blocks on a future).
pub(crate) fn enlist(waiting: &mut Vec<Waker>, cx: &Context<'_>) {
    let task = cx.waker().clone();
    if !waiting.iter().any(|other| other.will_wake(&task)) {
        waiting.push(task);
    }
}
