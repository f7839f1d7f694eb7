//! The reference's two ways of asking many orchestrators at once (handshake spec 8.1, 8.2).
//!
//! [`SessionPool`](super::SessionPool) has a way of its own: a rolling window that replaces whoever is slow. It
//! borrows [`Patience`] from the Go gateway: how long to wait for more answers before choosing among those at hand.
//! [`Race`] and [`Batches`] are the two loops as they are, for tools that have to do the same, and for comparison.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use crate::time::Time;

/// The longest that a search waits, whatever the patience.
pub const CUT_OFF: Duration = Duration::from_secs(6);

/// How long to wait for more answers: until the timer fires and there is one. A timer that fires too early is set
/// again, for as long again as so far.
///
/// Half a second of patience fires after 0.5, 1, 2 and 4 seconds, and is cut off after 6.
#[derive(Clone, Debug)]
pub struct Patience {
    next: Time,
    step: Duration,
    end: Time,
}

impl Patience {
    /// Starts to wait.
    #[must_use]
    pub fn new(now: Time, first: Duration) -> Self {
        let first = first.max(Duration::from_millis(1));
        Self {
            next: now + first,
            step: first,
            end: now + CUT_OFF,
        }
    }

    /// Whether it is over; `any` says whether there is an answer.
    pub fn is_over(&mut self, now: Time, any: bool) -> bool {
        while self.next <= now && self.next < self.end {
            if any {
                return true;
            }
            self.next = self.next + self.step;
            self.step = (self.step * 2).min(CUT_OFF);
        }
        self.end <= now
    }

    /// The time to look again.
    #[must_use]
    pub fn wake(&self) -> Time {
        self.next.min(self.end)
    }
}

/// The outcome of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<K> {
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
pub struct Race<K> {
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
    pub fn new(now: Time, listed: &[K], wanted: usize, extra: usize, patience: Duration) -> Self {
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
    pub fn answered(&mut self, now: Time, who: K, answer: Answer<K>) -> Vec<K> {
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
    pub fn tick(&mut self, now: Time) {
        self.over = self.over || self.patience.is_over(now, !self.good.is_empty());
    }

    /// Whether it is over.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// The time to look again.
    #[must_use]
    pub fn wake(&self) -> Time {
        self.patience.wake()
    }

    /// The good ones by rising latency, then suspended ones by rising penalty; not more than wanted.
    #[must_use]
    pub fn result(&self) -> Vec<K> {
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
pub struct Batches<K> {
    left: VecDeque<K>,
    size: usize,
    under_way: usize,
    good: VecDeque<K>,
}

/// The next step of a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<K> {
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
    pub const SIZE: usize = 5;

    /// A cursor over `listed`.
    #[must_use]
    pub fn new(listed: Vec<K>, size: usize) -> Self {
        Self {
            left: listed.into(),
            size: size.max(1),
            under_way: 0,
            good: VecDeque::new(),
        }
    }

    /// Takes an answer: whether it is good.
    pub fn answered(&mut self, who: K, good: bool) {
        self.under_way = self.under_way.saturating_sub(1);
        if good {
            self.good.push_back(who);
        }
    }

    /// The next step.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator cannot say that it waits"
    )]
    pub fn next(&mut self) -> Next<K> {
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
