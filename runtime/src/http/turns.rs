//! Letting a connection do all it can before others get their turn.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use crate::lock;

/// How often a connection is polled in a row. Eight chunks of 64 KiB are what a reader's window holds: a publisher that
/// got more out of its turn could outrun its readers.
const TURNS: u32 = 8;

/// Polls a connection again at once as long as it wakes itself.
///
/// hyper hands a body over one chunk per poll, and asks to be polled again for the next, although all of it may be
/// in its buffer. Through the executor's queue, that lets every reader of a channel write each chunk by itself;
/// like this, they find all chunks that one read brought, and write them with one system call.
#[derive(Debug)]
pub(super) struct Turns {
    bell: Arc<Bell>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Bell {
    state: AtomicU8,
    /// Whom to wake between polls.
    task: Mutex<Option<Waker>>,
}

/// The task waits: ringing wakes it.
const WAITING: u8 = 0;
/// The connection is being polled.
const POLLING: u8 = 1;
/// It is being polled and wants to be polled again.
const RUNG: u8 = 2;

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let wakes = |state| (state != RUNG).then_some(if state == POLLING { RUNG } else { state });
        let before = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, wakes);
        if before == Ok(WAITING)
            && let Some(task) = &*lock(&self.task)
        {
            task.wake_by_ref();
        }
    }
}

impl Turns {
    pub(super) fn new() -> Self {
        let bell = Arc::<Bell>::default();
        Self {
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }

    /// Polls until the connection has ended or does not wake itself any more.
    pub(super) fn poll<F: Future>(
        &self,
        mut connection: Pin<&mut F>,
        cx: &Context<'_>,
    ) -> Poll<F::Output> {
        {
            let mut task = lock(&self.bell.task);
            if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
        }
        let state = &self.bell.state;
        for _ in 0..TURNS {
            state.store(POLLING, Ordering::Release);
            let mut cx = Context::from_waker(&self.waker);
            if let Poll::Ready(end) = connection.as_mut().poll(&mut cx) {
                state.store(WAITING, Ordering::Release);
                return Poll::Ready(end);
            }
            if state.swap(WAITING, Ordering::AcqRel) == POLLING {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Wakes itself `left` times before it waits.
    struct Busy {
        left: u32,
        polls: u32,
        waker: Option<Waker>,
    }

    impl Busy {
        const fn new(left: u32) -> Self {
            Self {
                left,
                polls: 0,
                waker: None,
            }
        }
    }

    impl Future for Busy {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            self.polls += 1;
            self.waker = Some(cx.waker().clone());
            if self.left > 0 {
                self.left -= 1;
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        }
    }

    #[test]
    fn what_wakes_itself_is_polled_on_without_the_executor() {
        let task = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&task));
        let cx = Context::from_waker(&waker);
        let turns = Turns::new();
        let mut busy = Busy::new(3);
        assert!(turns.poll(Pin::new(&mut busy), &cx).is_pending());
        assert_eq!((busy.polls, task.0.load(Ordering::Relaxed)), (4, 0));
        // Woken from elsewhere, the executor hears of it, each time.
        for woken in 1..3 {
            busy.waker.as_ref().expect("it was polled").wake_by_ref();
            assert_eq!(task.0.load(Ordering::Relaxed), woken);
        }
    }

    #[test]
    fn others_get_their_turn() {
        let task = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&task));
        let turns = Turns::new();
        let mut busy = Busy::new(u32::MAX);
        let cx = Context::from_waker(&waker);
        assert!(turns.poll(Pin::new(&mut busy), &cx).is_pending());
        assert_eq!((busy.polls, task.0.load(Ordering::Relaxed)), (TURNS, 1));
    }
}
