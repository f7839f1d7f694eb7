//! Bytes as a source of decisions.

use std::collections::BTreeMap;

/// Steps that are played with a machine that has ended.
const AFTER_THE_END: u32 = 4;

/// Reads small numbers off bytes; after the last one come zeros.
#[derive(Clone, Debug)]
pub struct Reel<'a>(&'a [u8]);

impl<'a> Reel<'a> {
    /// Reads from these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte, or zero.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    /// Reads step after step until nothing is left, and plays each.
    pub(super) fn play<S>(mut self, read: fn(&mut Self) -> S, mut play: impl FnMut(&S)) {
        while !self.is_empty() {
            play(&read(&mut self));
        }
    }

    /// Plays with one player after the other until nothing is left, each a few steps beyond its end. `play` plays a step
    /// and says whether that player has ended; without a reel it finishes the player.
    pub(super) fn play_each<P>(
        mut self,
        new: fn(u8) -> P,
        mut play: impl FnMut(&mut P, Option<&mut Self>) -> bool,
    ) {
        loop {
            let mut player = new(self.byte());
            let mut after = 0;
            while !self.is_empty() && after < AFTER_THE_END {
                after += u32::from(play(&mut player, Some(&mut self)));
            }
            play(&mut player, None);
            if self.is_empty() {
                return;
            }
        }
    }
}

/// Adds to counts.
pub(super) fn count_all(all: &mut BTreeMap<String, u32>, more: &BTreeMap<String, u32>) {
    for (kind, count) in more {
        *all.entry(kind.clone()).or_default() += count;
    }
}

/// The n-th of these, counted round and round.
pub(super) fn nth<T>(n: u8, of: impl IntoIterator<Item = T>) -> Option<T> {
    let mut of: Vec<T> = of.into_iter().collect();
    let at = usize::from(n).checked_rem(of.len())?;
    Some(of.swap_remove(at))
}
