//! How often a job may try before it gives up (handshake spec 12).

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::http::Url;
use crate::time::Time;

/// Limits on the tries of a kind of job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TryLimit {
    /// At most this many tries in all.
    pub tries: u32,
    /// At most this many tries with one orchestrator.
    pub per_orchestrator: u32,
    /// No try begins later than this after the first one began.
    pub within: Option<Duration>,
}

impl TryLimit {
    /// Limits for a segment of a video.
    pub const VIDEO_SEGMENT: Self = Self {
        tries: 3,
        per_orchestrator: 3,
        within: None,
    };
    /// Limits for a request of a batch pipeline.
    pub const BATCH: Self = Self {
        tries: 20,
        per_orchestrator: 3,
        within: Some(Duration::from_secs(2)),
    };
    /// The start of a live stream.
    pub const LIVE_START: Self = Self {
        tries: 20,
        per_orchestrator: 3,
        within: Some(Duration::from_secs(2)),
    };
}

/// The tries of one job.
#[derive(Clone, Debug)]
pub struct Attempts {
    limit: TryLimit,
    began: Option<Time>,
    tries: u32,
    per: BTreeMap<Url, u32>,
}

/// Why there is no further try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMoreTries {
    /// All tries are used up.
    #[error("all {0} tries are used up")]
    Tries(u32),
    /// The time for tries is over.
    #[error("it was tried for {0:?}, which is long enough")]
    Time(Duration),
    /// The tries with this orchestrator are used up; another one may have more.
    #[error("this orchestrator had its {0} tries")]
    Orchestrator(u32),
}

impl Attempts {
    /// Nothing is spent.
    #[must_use]
    pub const fn new(limit: TryLimit) -> Self {
        Self {
            limit,
            began: None,
            tries: 0,
            per: BTreeMap::new(),
        }
    }

    /// Begins a try with `orchestrator`.
    ///
    /// # Errors
    /// If there is none left; nothing is spent then.
    pub fn begin(&mut self, now: Time, orchestrator: &Url) -> Result<(), NoMoreTries> {
        let TryLimit {
            tries,
            per_orchestrator,
            within,
        } = self.limit;
        if self.tries >= tries {
            return Err(NoMoreTries::Tries(tries));
        }
        if let Some((began, within)) = self.began.zip(within)
            && now.since(began) > within
        {
            return Err(NoMoreTries::Time(within));
        }
        let per = self.per.entry(orchestrator.clone()).or_insert(0);
        if *per >= per_orchestrator {
            return Err(NoMoreTries::Orchestrator(per_orchestrator));
        }
        *per += 1;
        self.tries += 1;
        self.began.get_or_insert(now);
        Ok(())
    }

    /// How many tries began.
    #[must_use]
    pub const fn tries(&self) -> u32 {
        self.tries
    }
}
