//! Looking for orchestrators once: what the sources say of them, and what they say themselves.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::task::Poll;
use std::time::Duration;

use livepeer_core::Time;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::discovery::{self, Combine, Config, Discovery, Origin, Source};
use livepeer_core::pool::{self, Offered, SessionPool};
use livepeer_core::selection::Balanced;

use super::found::Discovered;
use super::memory::{REMEMBER_WITHIN, recall};
use super::peers::{Peers, peer_settings};
use super::{Error, Payer};
use crate::{Drivable, Driver, Handle, Runtime, seed};

/// At most this many orchestrators are asked at a time.
const AT_A_TIME: usize = 16;

/// The settings of a search for orchestrators. Their order makes no difference; [`Search::find`] judges them. Made by
/// [`Gateway::discover`](super::Gateway::discover).
#[must_use = "nobody is asked before `find`"]
pub struct Search<R: Runtime> {
    driver: Driver<R>,
    peers: Peers,
    wanted: Capabilities,
    config: Config,
    within: Duration,
}

impl<R: Runtime> Search<R> {
    pub(super) fn new(driver: &Driver<R>) -> Self {
        Self {
            driver: driver.clone(),
            peers: Peers::default(),
            wanted: Capabilities::default(),
            config: Config::default(),
            within: discovery::WITHIN,
        }
    }

    peer_settings!();
    peer_settings!(payer);
    peer_settings!(choice);

    /// Asks for orchestrators that offer live video with this model.
    pub fn model(mut self, model: &str) -> Self {
        self.wanted = Capabilities::live_video(model);
        self
    }

    /// Asks for orchestrators with these capabilities.
    #[doc(alias = "build_capabilities")]
    pub fn capabilities(mut self, wanted: Capabilities) -> Self {
        self.wanted = wanted;
        self
    }

    /// Asks all places and puts their answers together. Otherwise the first place that knows somebody is enough.
    pub fn all(mut self) -> Self {
        self.config.combine = Combine::All;
        self
    }

    /// Sets how long the search may take, at most; [`discovery::WITHIN`] unless this says otherwise.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }

    /// Asks. Places that do not answer are named in what is returned; no orchestrator is asked itself.
    ///
    /// # Errors
    /// If the settings are no good.
    pub async fn find(mut self) -> Result<Discovered, Error> {
        let sources = self.peers.sources(&self.wanted)?;
        if self.peers.combine() == Combine::All {
            self.config.combine = Combine::All;
        }
        Ok(discover(&self.driver, self.config, sources, self.within).await)
    }
}

impl<R: Runtime> fmt::Debug for Search<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Search")
            .field("peers", &self.peers)
            .field("within", &self.within)
            .finish_non_exhaustive()
    }
}

/// Asks the sources once, and waits for them no longer than `within` in all. It never fails: what went wrong is in
/// the answer.
pub async fn discover<R: Runtime>(
    driver: &Driver<R>,
    config: Config,
    sources: Vec<(Origin, Source)>,
    within: Duration,
) -> Discovered {
    let once = Config {
        refresh: None,
        ..config
    };
    let asking = driver.drive(Discovery::new(driver.now(), once, sources));
    let deadline = driver.now() + within;
    let mut all = Discovered::default();
    loop {
        let Some(event) = next_before(driver, &asking, deadline).await else {
            // It settles at once, with what there is.
            asking.with(Discovery::give_up);
            while let Some(event) = asking.try_next() {
                all.take(event);
            }
            break;
        };
        if all.take(event) {
            break;
        }
    }
    asking.with(Discovery::close);
    all
}

/// Orchestrators that were asked, and those that could be worked with.
#[doc(alias = "SelectionCursor")]
pub struct Survey<R: Runtime> {
    pool: Handle<SessionPool<Balanced>, R>,
}

impl<R: Runtime> fmt::Debug for Survey<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Survey")
            .field("ready", &self.look(|pool| pool.ready()))
            .finish_non_exhaustive()
    }
}

impl<R: Runtime> Survey<R> {
    /// Shakes hands with all of `found`, many at a time, for at most `within`. What earlier runs saw is in the driver's
    /// store, and so will be what this one sees.
    ///
    /// # Errors
    /// If the signer does not introduce us.
    pub async fn take(
        driver: &Driver<R>,
        config: pool::Config,
        payer: &Payer,
        wanted: Capabilities,
        found: Vec<Offered>,
        within: Duration,
    ) -> Result<Self, Error> {
        let mut config = pool::Config {
            // Everybody, at once; but the ports of this machine are not ours alone.
            ready: usize::MAX,
            in_flight: AT_A_TIME,
            patience: None,
            remember: true,
            ..config
        };
        config.handshake.terms.paying = payer.paying();
        let mut payer = payer.clone();
        payer.learn(&driver.signer_health());
        let pool = SessionPool::new(
            driver.now(),
            config,
            payer.identity(),
            wanted,
            Balanced::default(),
            seed(),
        );
        let pool = driver.drive(pool);
        recall(&pool);
        let deadline = driver.now() + within;
        pool.with(|pool, now| pool.offer(now, found));
        loop {
            let event = next_before(driver, &pool, deadline).await;
            match event {
                Some(pool::Event::Signers(health)) => driver.learn_signers(&health),
                Some(pool::Event::NoIdentity(failure)) => return Err(failure.into()),
                // It asks for more: everybody was asked.
                Some(pool::Event::Refresh) | None => break,
                Some(_) => {}
            }
        }
        // What was seen is for the next run too; but nothing depends on it.
        let deadline = driver.now() + REMEMBER_WITHIN;
        while pool.with(|pool, _| pool.is_storing()) {
            match next_before(driver, &pool, deadline).await {
                Some(pool::Event::Stored) | None => break,
                Some(_) => {}
            }
        }
        Ok(Self { pool })
    }

    /// Looks at the sessions and at who was tried in vain.
    pub fn look<T>(&self, look: impl FnOnce(&mut SessionPool<Balanced>) -> T) -> T {
        self.pool.with(|pool, _| look(pool))
    }
}

impl<R: Runtime> Drop for Survey<R> {
    fn drop(&mut self) {
        self.pool.close();
    }
}

/// The next event, or `None` at the deadline.
async fn next_before<M: Drivable, R: Runtime>(
    driver: &Driver<R>,
    handle: &Handle<M, R>,
    deadline: Time,
) -> Option<M::Event> {
    loop {
        let mut sleep = std::pin::pin!(driver.runtime().sleep_until(deadline));
        let event = poll_fn(|cx| match handle.poll_next(cx) {
            Poll::Ready(event) => Poll::Ready(event),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
        })
        .await;
        // A sleep may end early.
        if event.is_some() || driver.now() >= deadline {
            return event;
        }
    }
}
