//! The newest values of a row, for any number of readers.

use std::collections::VecDeque;

/// At most this many values are kept; of more, the oldest are dropped.
pub(super) const MAX_KEPT: usize = 256;

/// Values in the order in which they came. A reader brings the number of the value that it wants next, so no reader
/// takes anything from another.
#[derive(Debug)]
pub(super) struct Ring<T> {
    kept: VecDeque<T>,
    /// The number of the oldest value that is kept.
    first: u64,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self {
            kept: VecDeque::new(),
            first: 0,
        }
    }
}

impl<T: Clone> Ring<T> {
    pub(super) fn push(&mut self, value: T) {
        if self.kept.len() == MAX_KEPT {
            self.kept.pop_front();
            self.first += 1;
        }
        self.kept.push_back(value);
    }

    /// The value with the number `next`, or the oldest one after it that is kept; `next` then names the one after.
    pub(super) fn read(&self, next: &mut u64) -> Option<T> {
        let at = (*next).max(self.first);
        let value = self.kept.get(usize::try_from(at - self.first).ok()?)?;
        *next = at + 1;
        Some(value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reader_gets_everything_that_is_kept() {
        let mut ring = Ring::default();
        let (mut one, mut other) = (0, 0);
        assert_eq!(ring.read(&mut one), None);
        ring.push(0);
        assert_eq!((ring.read(&mut one), ring.read(&mut one)), (Some(0), None));
        for value in 1..=MAX_KEPT {
            ring.push(value);
        }
        assert_eq!(ring.read(&mut one), Some(1));
        // The first was dropped before it was read.
        let read: Vec<_> = std::iter::from_fn(|| ring.read(&mut other)).collect();
        assert_eq!(read, (1..=MAX_KEPT).collect::<Vec<_>>());
    }
}
