//! Telling one task to stop.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

use crate::lock;

/// How a task is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// Not at all.
    Run = 0,
    /// When what it does is done.
    Finish = 1,
    /// At once.
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
            let waker = lock(&self.waker).take();
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

    /// The level; the task is woken when it rises.
    pub(crate) fn watch(&self, cx: &Context<'_>) -> Stop {
        {
            let mut waker = lock(&self.waker);
            if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        self.level()
    }

    /// Runs `future` until it ends or the signal says [`Stop::Now`].
    pub(crate) async fn unless_stopped<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match self.watch(cx) {
            Stop::Now => Poll::Ready(None),
            _ => future.as_mut().poll(cx).map(Some),
        })
        .await
    }
}
