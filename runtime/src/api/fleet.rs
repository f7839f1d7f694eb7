//! Pools of sessions that live jobs share: jobs of one kind have one, at the same time and one after the other.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use livepeer_core::Time;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::chain::ChainView;
use livepeer_core::handshake::PinChange;
use livepeer_core::http::{Reach, Trust, Url};
use livepeer_core::job::batch::Batch;
use livepeer_core::job::byoc::Byoc;
use livepeer_core::money::Amount;
use livepeer_core::pool::{Event, SessionPool};
use livepeer_core::selection::Balanced;

use super::account::Account;
use super::board::Board;
use super::hub::Machines;
use super::peers::Places;
use super::rentals::Rentals;
use crate::{Driver, Handle, Runtime, lock};

/// At most this many pools wait for another job; of more, the one that has waited longest is closed.
const MAX_IDLE: usize = 16;

/// How long orchestrators that were found do for further jobs, before they are looked for again.
const FOUND_FOR: Duration = Duration::from_secs(60);

/// A driver, the pools of live jobs, the machines of other jobs, and apps that are rented. Clones are one fleet.
pub(super) struct Fleet<R: Runtime> {
    driver: Driver<R>,
    pools: Arc<Pools<R>>,
    batches: Arc<Machines<Batch<Balanced>, R>>,
    containers: Arc<Machines<Byoc, R>>,
    rentals: Arc<Rentals<R>>,
}

/// The pools, those that a job joined or left last at the end.
struct Pools<R: Runtime>(Mutex<Vec<Kept<R>>>);

/// A pool and its members.
struct Kept<R: Runtime> {
    kind: Kind,
    pool: Arc<Pool<R>>,
    /// How many jobs have the pool.
    members: usize,
}

/// A pool of sessions, and the jobs that are told of its events.
pub(super) struct Pool<R: Runtime> {
    pub(super) handle: Handle<SessionPool<Balanced>, R>,
    jobs: Mutex<Vec<Weak<dyn Job>>>,
    search: Board<Search>,
    /// Whether a job of the pool failed. The next one begins anew then: nobody has to wait until who is suspended may be
    /// asked again.
    failed: AtomicBool,
}

/// A job of a pool, as the pool knows it.
pub(super) trait Job: Send + Sync {
    /// Takes an event of the pool.
    fn on_pool_event(&self, event: &Event);

    /// Whether the job has ended.
    fn is_over(&self) -> bool;
}

/// Whether orchestrators are looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Search {
    Due,
    UnderWay,
    Done(Time),
}

/// The needs of a job that decide which sessions do for it: jobs of one kind share a pool.
#[derive(Clone, PartialEq)]
pub(super) struct Kind {
    pub(super) wanted: Capabilities,
    /// The orchestrators that are named; none if they are found in those places.
    pub(super) listed: Vec<(Url, Reach)>,
    pub(super) places: Places,
    pub(super) payer: Account,
    pub(super) trust: Trust,
    pub(super) pin_change: PinChange,
    pub(super) max_price: Option<Amount>,
}

impl<R: Runtime> Clone for Fleet<R> {
    fn clone(&self) -> Self {
        Self {
            driver: self.driver.clone(),
            pools: Arc::clone(&self.pools),
            batches: Arc::clone(&self.batches),
            containers: Arc::clone(&self.containers),
            rentals: Arc::clone(&self.rentals),
        }
    }
}

impl<R: Runtime> Fleet<R> {
    pub(super) fn new(driver: Driver<R>) -> Self {
        Self {
            driver,
            pools: Arc::new(Pools(Mutex::default())),
            batches: Arc::default(),
            containers: Arc::default(),
            rentals: Arc::default(),
        }
    }

    /// The machines of batch jobs.
    pub(super) fn batches(&self) -> &Machines<Batch<Balanced>, R> {
        &self.batches
    }

    /// The machines of jobs for containers.
    pub(super) fn containers(&self) -> &Machines<Byoc, R> {
        &self.containers
    }

    /// The apps that are rented.
    pub(super) const fn rentals(&self) -> &Arc<Rentals<R>> {
        &self.rentals
    }

    /// Tells all that pay with an own key of a new reading of the chain.
    pub(super) fn set_chain(&self, view: &ChainView) {
        self.batches.set_chain(view);
        self.containers.set_chain(view);
        self.rentals.set_chain(view);
    }

    pub(super) const fn driver(&self) -> &Driver<R> {
        &self.driver
    }

    /// The pool of that kind, made if there is none.
    pub(super) fn join(
        &self,
        kind: Kind,
        make: impl FnOnce(&Kind) -> Handle<SessionPool<Balanced>, R>,
    ) -> Member<R> {
        let mut pools = lock(&self.pools.0);
        let known = pools
            .iter()
            .position(|kept| kept.kind == kind && !kept.pool.has_failed());
        let mut kept = match known {
            Some(at) => pools.remove(at),
            None => {
                let pool = Arc::new(Pool {
                    handle: make(&kind),
                    jobs: Mutex::default(),
                    search: Board::new(Search::Due),
                    failed: AtomicBool::new(false),
                });
                self.driver.runtime().spawn(Arc::clone(&pool).pump());
                Kept {
                    kind,
                    pool,
                    members: 0,
                }
            }
        };
        kept.members += 1;
        let pool = Arc::clone(&kept.pool);
        pools.push(kept);
        Member {
            pool,
            fleet: self.clone(),
        }
    }

    /// A job leaves its pool.
    fn leave(&self, pool: &Arc<Pool<R>>) {
        let mut pools = lock(&self.pools.0);
        let Some(at) = { pools.iter() }.position(|kept| Arc::ptr_eq(&kept.pool, pool)) else {
            return;
        };
        let mut kept = pools.remove(at);
        kept.members -= 1;
        let mut closed = None;
        if kept.members == 0 && (pool.has_failed() || pool.lent() > 0) {
            closed = Some(kept);
        } else {
            pools.push(kept);
            if idle(&pools) > MAX_IDLE {
                let oldest = pools.iter().position(|kept| kept.members == 0);
                closed = oldest.map(|at| pools.remove(at));
            }
        }
        drop(pools);
        if let Some(closed) = closed {
            closed.pool.handle.close();
        }
    }

    /// How many pools there are, and how many of them wait for another job.
    #[cfg(feature = "conformance")]
    pub(super) fn pools(&self) -> (usize, usize) {
        let pools = lock(&self.pools.0);
        (pools.len(), idle(&pools))
    }
}

/// How many pools wait for another job.
fn idle<R: Runtime>(pools: &[Kept<R>]) -> usize {
    pools.iter().filter(|kept| kept.members == 0).count()
}

impl<R: Runtime> Drop for Pools<R> {
    fn drop(&mut self) {
        for kept in lock(&self.0).drain(..) {
            kept.pool.handle.close();
        }
    }
}

impl<R: Runtime> Pool<R> {
    /// Tells a job of the pool's events from now on.
    pub(super) fn tell(&self, job: Weak<dyn Job>) {
        lock(&self.jobs).push(job);
    }

    /// A job of the pool failed.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn lent(&self) -> usize {
        self.handle.with(|pool, _| pool.lent())
    }

    /// Takes the events of the pool to its jobs, until it is closed. There may be no job, but somebody has to take them,
    /// or the pool stops reading.
    async fn pump(self: Arc<Self>) {
        while let Some(event) = self.handle.next().await {
            // What this pool saw of signers is for others too.
            if let Event::Signers(health) = &event {
                self.handle.driver().learn_signers(health);
            }
            let mut jobs = Vec::new();
            lock(&self.jobs).retain(|job| {
                let job = job.upgrade().filter(|job| !job.is_over());
                let stays = job.is_some();
                jobs.extend(job);
                stays
            });
            // Who came first is served first.
            for job in jobs {
                job.on_pool_event(&event);
            }
        }
    }

    /// Has `find` look for orchestrators, unless that was done lately or another job does so now: then its result is
    /// waited for.
    pub(super) async fn search<E>(
        &self,
        find: impl AsyncFnOnce() -> Result<Vec<Url>, E>,
    ) -> Result<(), E> {
        let now = || self.handle.now();
        let due = self.search.until(|search| match *search {
            Search::UnderWay => None,
            Search::Done(at) if now() < at + FOUND_FOR => Some(false),
            Search::Due | Search::Done(_) => {
                *search = Search::UnderWay;
                Some(true)
            }
        });
        if !due.await {
            return Ok(());
        }
        // However this ends, others do not wait for it for ever.
        let turn = Turn(&self.search);
        let found = find().await?;
        self.handle.with(|pool, now| pool.replace(now, found));
        self.search.with(|search| *search = Search::Done(now()));
        drop(turn);
        Ok(())
    }
}

/// A search under way.
struct Turn<'a>(&'a Board<Search>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.change(|search| {
            if *search == Search::UnderWay {
                *search = Search::Due;
            }
        });
    }
}

/// The place of a job in a pool, which ends when this is dropped.
pub(super) struct Member<R: Runtime> {
    pub(super) pool: Arc<Pool<R>>,
    fleet: Fleet<R>,
}

impl<R: Runtime> Drop for Member<R> {
    fn drop(&mut self) {
        self.fleet.leave(&self.pool);
    }
}

impl<R: Runtime> fmt::Debug for Fleet<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("driver", &self.driver)
            .field("pools", &lock(&self.pools.0).len())
            .finish()
    }
}
