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
    /// Rings the bell.
    waker: Waker,
    /// The task that the bell wakes, as last seen: looked at without its lock.
    task: Option<Waker>,
}

#[derive(Debug)]
struct Bell {
    state: AtomicU8,
    /// The task to wake between polls.
    task: Mutex<Option<Waker>>,
}

/// The connection waits: ringing wakes its task.
const WAITING: u8 = 0;
/// The connection is being polled.
const POLLING: u8 = 1;
/// The connection wants to be polled again.
const RUNG: u8 = 2;

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, Ordering::AcqRel) == WAITING
            && let Some(task) = &*lock(&self.task)
        {
            task.wake_by_ref();
        }
    }
}

impl Turns {
    pub(super) fn new() -> Self {
        let bell = Arc::new(Bell {
            state: AtomicU8::new(RUNG),
            task: Mutex::new(None),
        });
        Self {
            waker: Waker::from(Arc::clone(&bell)),
            bell,
            task: None,
        }
    }

    /// Has the connection polled, for a reason that it does not know of.
    pub(super) fn ring(&self) {
        self.bell.state.store(RUNG, Ordering::Release);
    }

    /// Polls until the connection has ended or does not wake itself any more; not at all if nothing woke it.
    pub(super) fn poll<F: Future>(
        &mut self,
        mut connection: Pin<&mut F>,
        cx: &Context<'_>,
    ) -> Poll<F::Output> {
        if !self.task.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
            lock(&self.bell.task).clone_from(&self.task);
        }
        let state = &self.bell.state;
        if state.load(Ordering::Acquire) == WAITING {
            return Poll::Pending;
        }
        for _ in 0..TURNS {
            state.store(POLLING, Ordering::Release);
            let mut cx = Context::from_waker(&self.waker);
            if let Poll::Ready(end) = connection.as_mut().poll(&mut cx) {
                return Poll::Ready(end);
            }
            let waits =
                state.compare_exchange(POLLING, WAITING, Ordering::AcqRel, Ordering::Acquire);
            if waits.is_ok() {
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
        let mut turns = Turns::new();
        let mut busy = Busy::new(3);
        assert!(turns.poll(Pin::new(&mut busy), &cx).is_pending());
        assert_eq!((busy.polls, task.0.load(Ordering::Relaxed)), (4, 0));
        // Woken from elsewhere, the executor hears of it: once for each poll.
        for woken in 1..3 {
            for _ in 0..2 {
                busy.waker.as_ref().expect("it was polled").wake_by_ref();
                assert_eq!(task.0.load(Ordering::Relaxed), woken);
            }
            assert!(turns.poll(Pin::new(&mut busy), &cx).is_pending());
        }
    }

    #[test]
    fn what_nothing_woke_is_polled_only_if_rung() {
        let cx = Context::from_waker(Waker::noop());
        let mut turns = Turns::new();
        let mut busy = Busy::new(0);
        for polls in [1, 1] {
            assert!(turns.poll(Pin::new(&mut busy), &cx).is_pending());
            assert_eq!(busy.polls, polls);
        }
        turns.ring();
        assert!(turns.poll(Pin::new(&mut busy), &cx).is_pending());
        assert_eq!(busy.polls, 2);
    }

    #[test]
    fn others_get_their_turn() {
        let task = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&task));
        let mut turns = Turns::new();
        let mut busy = Busy::new(u32::MAX);
        let cx = Context::from_waker(&waker);
        assert!(turns.poll(Pin::new(&mut busy), &cx).is_pending());
        assert_eq!((busy.polls, task.0.load(Ordering::Relaxed)), (TURNS, 1));
    }
}
