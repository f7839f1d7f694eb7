//! Pools of sessions that outlive the jobs they serve, so that the next job of a kind need not shake hands anew.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use livepeer_core::capabilities::Capabilities;
use livepeer_core::handshake::PinChange;
use livepeer_core::http::{Reach, Trust, Url};
use livepeer_core::money::Price;
use livepeer_core::pool::SessionPool;
use livepeer_core::selection::Balanced;

use super::account::Account;
use super::board::Board;
use super::hub::Batches;
use crate::{Driver, Handle, Runtime, lock};

/// At most this many pools wait for another job; of more, the one that has waited longest is closed.
const MAX_IDLE: usize = 16;

/// A driver, the machines of batch jobs, and the pools of live jobs that ended well. While a live job runs, its pool is
/// its own: whom it suspends concerns no other. Clones are one fleet.
pub(super) struct Fleet<R: Runtime> {
    driver: Driver<R>,
    idle: Arc<Idle<R>>,
    batches: Arc<Batches<R>>,
}

/// The pools that wait, the oldest first.
struct Idle<R: Runtime>(Mutex<VecDeque<(Kind, Waiting<R>)>>);

/// A pool of sessions for live jobs.
pub(super) type Pool<R> = Handle<SessionPool<Balanced>, R>;

/// A pool that keeps its sessions fresh. Somebody has to take its events meanwhile, or it stops reading.
struct Waiting<R: Runtime> {
    pool: Pool<R>,
    /// Whether a job has the pool, and takes the events itself.
    taken: Arc<Board<bool>>,
}

/// The needs of a job that decide which sessions do for it: jobs of one kind share a pool.
#[derive(Clone, PartialEq)]
pub(super) struct Kind {
    pub(super) wanted: Capabilities,
    pub(super) orchestrators: Vec<(Url, Reach)>,
    pub(super) payer: Account,
    pub(super) trust: Trust,
    pub(super) pin_change: PinChange,
    pub(super) max_price: Option<Price>,
}

impl<R: Runtime> Clone for Fleet<R> {
    fn clone(&self) -> Self {
        Self {
            driver: self.driver.clone(),
            idle: Arc::clone(&self.idle),
            batches: Arc::clone(&self.batches),
        }
    }
}

impl<R: Runtime> Fleet<R> {
    pub(super) fn new(driver: Driver<R>) -> Self {
        let idle = Arc::new(Idle(Mutex::default()));
        let batches = Arc::default();
        Self {
            driver,
            idle,
            batches,
        }
    }

    /// The machines of batch jobs.
    pub(super) fn batches(&self) -> &Batches<R> {
        &self.batches
    }

    pub(super) const fn driver(&self) -> &Driver<R> {
        &self.driver
    }

    /// A pool that an earlier job of this kind left, if there is one.
    pub(super) fn take(&self, kind: &Kind) -> Option<Pool<R>> {
        let waiting = {
            let mut idle = lock(&self.idle.0);
            // The newest: it has seen most of late.
            let at = idle.iter().rposition(|(other, _)| other == kind)?;
            idle.remove(at)?.1
        };
        waiting.taken.change(|taken| *taken = true);
        // News for nobody.
        while waiting.pool.try_next().is_some() {}
        Some(waiting.pool)
    }

    /// Keeps the pool of a job that ended well for the next one of its kind.
    pub(super) fn give_back(&self, kind: Kind, pool: Pool<R>) {
        let taken = Arc::new(Board::new(false));
        let keeping = keep(pool.clone(), Arc::clone(&taken));
        self.driver.runtime().spawn(keeping);
        let oldest = {
            let mut idle = lock(&self.idle.0);
            idle.push_back((kind, Waiting { pool, taken }));
            (idle.len() > MAX_IDLE).then(|| idle.pop_front())
        };
        if let Some(Some((_, oldest))) = oldest {
            oldest.pool.close();
        }
    }

    /// How many pools wait for another job.
    #[cfg(feature = "conformance")]
    pub(super) fn idle(&self) -> usize {
        lock(&self.idle.0).len()
    }
}

/// Takes the events of a pool, which are for nobody, until a job takes the pool or it is closed.
async fn keep<R: Runtime>(pool: Pool<R>, taken: Arc<Board<bool>>) {
    poll_fn(|cx| {
        let waker = cx.waker().clone();
        let mut events = Context::from_waker(&waker);
        // Under the lock of the board: once a job has the pool, no event of it is lost here.
        taken.poll(cx, |taken| {
            if *taken {
                return Some(());
            }
            loop {
                match pool.poll_next(&mut events) {
                    Poll::Ready(Some(_)) => {}
                    Poll::Ready(None) => return Some(()),
                    Poll::Pending => return None,
                }
            }
        })
    })
    .await;
}

impl<R: Runtime> Drop for Idle<R> {
    fn drop(&mut self) {
        for (_, waiting) in lock(&self.0).drain(..) {
            waiting.pool.close();
        }
    }
}

impl<R: Runtime> fmt::Debug for Fleet<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("driver", &self.driver)
            .field("idle", &lock(&self.idle.0).len())
            .finish()
    }
}
