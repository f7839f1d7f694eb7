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

/// A flag that tasks look at while they do something else, and others raise.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    level: AtomicU8,
    /// The tasks that look at it now, one entry for each future that does.
    watching: Mutex<Vec<Waker>>,
}

impl Signal {
    pub(crate) fn raise(&self, to: Stop) {
        if self.level.fetch_max(to as u8, Ordering::AcqRel) < to as u8 {
            let watching = lock(&self.watching).clone();
            watching.into_iter().for_each(Waker::wake);
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
        let mut watch = Watch {
            signal: self,
            task: None,
        };
        std::future::poll_fn(move |cx| {
            watch.with(cx);
            if self.level() >= limit {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
    }
}

/// A task's place among those that a signal wakes.
struct Watch<'a> {
    signal: &'a Signal,
    /// The task, looked at without the signal's lock.
    task: Option<Waker>,
}

impl Watch<'_> {
    fn with(&mut self, cx: &Context<'_>) {
        if !self.task.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            let task = cx.waker().clone();
            let mut watching = lock(&self.signal.watching);
            self.leave(&mut watching);
            watching.push(task.clone());
            drop(watching);
            self.task = Some(task);
        }
    }

    /// Takes back the entry of this future; another future of the same task has its own.
    fn leave(&self, watching: &mut Vec<Waker>) {
        if let Some(task) = &self.task
            && let Some(own) = watching.iter().position(|other| other.will_wake(task))
        {
            watching.swap_remove(own);
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.leave(&mut lock(&self.signal.watching));
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
