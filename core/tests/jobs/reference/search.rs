//! The reference's two ways of asking many orchestrators at once (handshake spec 8.1, 8.2). The pool has a way of its
//! own, a rolling window that replaces whoever is slow, and shares the patience of the first.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use livepeer_core::Time;
use livepeer_core::pool::Patience;

/// The outcome of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer<K> {
    /// The node fits. The answer names further nodes.
    Good {
        /// The time that the probe took.
        latency: Duration,
        /// Further nodes that the answer names.
        nodes: Vec<K>,
    },
    /// The node fits and is suspended.
    Suspended {
        /// The higher, the worse.
        penalty: u64,
    },
    /// The node does not fit, or failed.
    Bad,
}

/// The Go gateway's loop: everybody at once, the quickest win, suspended ones fill up.
#[derive(Clone, Debug)]
pub(crate) struct Race<K> {
    wanted: usize,
    cap: usize,
    extra: usize,
    patience: Patience,
    listed: BTreeSet<K>,
    seen: BTreeSet<K>,
    answers: usize,
    good: Vec<(Duration, K)>,
    suspended: Vec<(u64, K)>,
    over: bool,
}

impl<K: Ord + Clone> Race<K> {
    /// Probe all of `listed` now. It ends with `wanted` good answers; of the nodes that one of `listed` names, the
    /// first `extra` are probed too.
    #[must_use]
    pub(crate) fn new(
        now: Time,
        listed: &[K],
        wanted: usize,
        extra: usize,
        patience: Duration,
    ) -> Self {
        let cap = listed.len() * (extra + 1);
        let wanted = wanted.min(cap);
        Self {
            wanted,
            cap,
            extra,
            patience: Patience::new(now, patience),
            listed: listed.iter().cloned().collect(),
            seen: listed.iter().cloned().collect(),
            answers: 0,
            good: Vec::new(),
            suspended: Vec::new(),
            over: wanted == 0,
        }
    }

    /// Takes an answer; whom to probe further.
    pub(crate) fn answered(&mut self, now: Time, who: K, answer: Answer<K>) -> Vec<K> {
        self.tick(now);
        if self.over {
            return Vec::new();
        }
        self.answers += 1;
        let mut further = Vec::new();
        match answer {
            Answer::Good { latency, nodes } => {
                // Named nodes are not asked for further ones. Those seen before count among the first.
                if self.listed.contains(&who) {
                    let some = nodes.into_iter().take(self.extra);
                    further = some.filter(|node| self.seen.insert(node.clone())).collect();
                }
                self.good.push((latency, who));
            }
            Answer::Suspended { penalty } => self.suspended.push((penalty, who)),
            Answer::Bad => {}
        }
        self.over = self.good.len() >= self.wanted || self.answers >= self.cap;
        further
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now: Time) {
        self.over = self.over || self.patience.is_over(now, !self.good.is_empty());
    }

    /// Whether it is over.
    #[must_use]
    pub(crate) const fn is_over(&self) -> bool {
        self.over
    }

    /// The time to look again.
    #[must_use]
    pub(crate) fn wake(&self) -> Time {
        self.patience.wake()
    }

    /// The good ones by rising latency, then suspended ones by rising penalty; not more than wanted.
    #[must_use]
    pub(crate) fn result(&self) -> Vec<K> {
        let mut good = self.good.clone();
        good.sort_by_key(|(latency, _)| *latency);
        let mut suspended = self.suspended.clone();
        suspended.sort_by_key(|(penalty, _)| *penalty);
        let good = good.into_iter().map(|(_, who)| who);
        let suspended = suspended.into_iter().map(|(_, who)| who);
        good.chain(suspended).take(self.wanted).collect()
    }
}

/// The python client's cursor: a few at a time, each few awaited whole, handed out in the order of completion.
#[derive(Clone, Debug)]
pub(crate) struct Batches<K> {
    left: VecDeque<K>,
    size: usize,
    under_way: usize,
    good: VecDeque<K>,
}

/// The next step of a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next<K> {
    /// Probe these, then ask again.
    Probe(Vec<K>),
    /// The last few probes have not all answered.
    Wait,
    /// Use this one.
    Use(K),
    /// All candidates are used up.
    Exhausted,
}

impl<K> Batches<K> {
    /// At most this many of the client's probes run at a time.
    pub(crate) const SIZE: usize = 5;

    /// A cursor over `listed`.
    #[must_use]
    pub(crate) fn new(listed: Vec<K>, size: usize) -> Self {
        Self {
            left: listed.into(),
            size: size.max(1),
            under_way: 0,
            good: VecDeque::new(),
        }
    }

    /// Takes an answer: whether it is good.
    pub(crate) fn answered(&mut self, who: K, good: bool) {
        self.under_way = self.under_way.saturating_sub(1);
        if good {
            self.good.push_back(who);
        }
    }

    /// The next step.
    pub(crate) fn next(&mut self) -> Next<K> {
        if self.under_way > 0 {
            return Next::Wait;
        }
        if let Some(who) = self.good.pop_front() {
            return Next::Use(who);
        }
        let some: Vec<K> = self.left.drain(..self.size.min(self.left.len())).collect();
        if some.is_empty() {
            return Next::Exhausted;
        }
        self.under_way = some.len();
        Next::Probe(some)
    }
}
