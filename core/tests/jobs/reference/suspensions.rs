//! The reference's book-keeping of suspensions and of when to look for more (handshake spec 10, 11). The pool suspends
//! by time and refills as it goes; the reference counts refreshes and sizes.

use std::collections::BTreeMap;
use std::time::Duration;

/// Suspensions that last for a number of refreshes.
///
/// As in the reference, [`suspend`](Self::suspend) adds to an absolute count that starts from zero, so that a
/// penalty may be over before it began; [`remove`](Self::remove) counts from now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Suspensions<K> {
    count: u64,
    until: BTreeMap<K, u64>,
}

impl<K: Ord> Suspensions<K> {
    /// Starts without suspensions.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self {
            count: 0,
            until: BTreeMap::new(),
        }
    }

    /// The pool is about to be refreshed.
    pub(crate) fn refresh(&mut self) {
        self.count += 1;
    }

    /// Adds a penalty to whatever stands.
    pub(crate) fn suspend(&mut self, who: K, penalty: u64) {
        *self.until.entry(who).or_insert(0) += penalty;
    }

    /// Suspends from now for `penalty` refreshes, whatever stood before.
    pub(crate) fn remove(&mut self, who: K, penalty: u64) {
        self.until.insert(who, self.count + penalty);
    }

    /// How much stands against one: nothing, or the higher the worse.
    pub(crate) fn penalty(&mut self, who: &K) -> u64 {
        match self.until.get(who) {
            Some(until) if *until < self.count => {
                self.until.remove(who);
                0
            }
            Some(until) => *until,
            None => 0,
        }
    }
}

/// The highest number of free sessions below which a pool looks for more.
pub(crate) const MAX_THRESHOLD: usize = 8;

/// The lists of batch pools are this fresh.
pub(crate) const BATCH_TTL: Duration = Duration::from_secs(10 * 60);

/// Whether a video pool looks for more: half of the orchestrators wanted are gone.
#[must_use]
pub(crate) const fn video_needs_more(free: usize, wanted: usize) -> bool {
    free < threshold(wanted)
}

/// Whether a batch pool looks for more: half of those there were at first are gone, or the list is old.
#[must_use]
pub(crate) fn batch_needs_more(
    warm: usize,
    cold: usize,
    known: usize,
    initial: usize,
    age: Duration,
) -> bool {
    warm + cold < threshold(known.min(initial)) || age > BATCH_TTL
}

/// Whether a live pool looks for more between two ticks: both of its halves are empty.
#[must_use]
pub(crate) const fn live_needs_more(warm: usize, cold: usize) -> bool {
    warm == 0 && cold == 0
}

const fn threshold(of: usize) -> usize {
    let half = of.div_ceil(2);
    if half < MAX_THRESHOLD {
        half
    } else {
        MAX_THRESHOLD
    }
}
