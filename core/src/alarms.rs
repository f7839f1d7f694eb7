//! When each of many things is looked at next.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::time::Time;

/// The alarms of things that are named by `I`: at most one each.
#[derive(Debug)]
pub struct Alarms<I> {
    set: BTreeMap<I, Time>,
    due: BTreeSet<(Time, I)>,
}

impl<I: Copy + Ord> Default for Alarms<I> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I: Copy + Ord> Alarms<I> {
    /// No alarm is set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            set: BTreeMap::new(),
            due: BTreeSet::new(),
        }
    }

    /// Sets the alarm of `id` to that time and to no other, or takes it away.
    pub fn set(&mut self, id: I, at: Option<Time>) {
        let before = match at {
            Some(at) => self.set.insert(id, at),
            None => self.set.remove(&id),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.due.remove(&(before, id));
        }
        if let Some(at) = at {
            self.due.insert((at, id));
        }
    }

    /// The alarm of `id`.
    #[must_use]
    pub fn of(&self, id: I) -> Option<Time> {
        self.set.get(&id).copied()
    }

    /// The earliest alarm of all.
    #[must_use]
    pub fn next(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes away the earliest alarm that is due, and names the thing that it was for.
    pub fn ring(&mut self, now: Time) -> Option<I> {
        let (_, id) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.set(id, None);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rings_once_in_the_order_of_time() {
        let at = Time::from_secs;
        let mut alarms = Alarms::new();
        alarms.set('a', Some(at(3)));
        alarms.set('b', Some(at(2)));
        alarms.set('c', Some(at(1)));
        alarms.set('c', None);
        alarms.set('a', Some(at(3)));
        assert_eq!((alarms.next(), alarms.of('c')), (Some(at(2)), None));
        assert_eq!(alarms.ring(at(1)), None);
        alarms.set('b', Some(at(4)));
        assert_eq!(alarms.ring(at(4)), Some('a'));
        assert_eq!(alarms.ring(at(4)), Some('b'));
        assert_eq!((alarms.ring(at(4)), alarms.next()), (None, None));
    }
}
