//! The order in which things happen in a simulation.

use std::collections::BTreeMap;

use livepeer_core::Time;

/// Things that are due at some time: the earliest first, and of those due at the same time the one entered first.
#[derive(Debug)]
pub struct Agenda<T> {
    due: BTreeMap<(Time, u64), T>,
    entered: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self {
            due: BTreeMap::new(),
            entered: 0,
        }
    }
}

impl<T> Agenda<T> {
    /// Enters something that is due at that time.
    pub fn enter(&mut self, at: Time, what: T) {
        self.due.insert((at, self.entered), what);
        self.entered += 1;
    }

    /// How many things were entered so far.
    #[must_use]
    pub const fn entered(&self) -> u64 {
        self.entered
    }

    /// The time at which the next thing is due.
    #[must_use]
    pub fn next(&self) -> Option<Time> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    /// Takes the next thing, whenever it is due.
    pub fn pop(&mut self) -> Option<T> {
        self.due.pop_first().map(|(_, what)| what)
    }
}
