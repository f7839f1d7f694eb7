//! Sets of capabilities as the bit words that the protocol carries.

use alloc::vec::Vec;
use core::fmt;

use super::id::{Capability, MAX_WORDS};

/// A set of capabilities: bit `id % 64` of word `id / 64` (handshake spec 5.2).
///
/// The number of words is part of the value, since the reference's subset rule looks at it.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// No capability and no word.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes the words as they are, of a longer list the first [`MAX_WORDS`].
    #[must_use]
    pub fn from_words(words: &[u64]) -> Self {
        Self(words[..words.len().min(MAX_WORDS)].to_vec())
    }

    /// The words, the one with the lowest ids first.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.0
    }

    /// Adds one, with the words that it takes.
    pub fn insert(&mut self, capability: Capability) {
        let (word, bit) = place(capability);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit;
    }

    /// Takes one out. Words stay, as in the reference.
    pub fn remove(&mut self, capability: Capability) {
        let (word, bit) = place(capability);
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
    }

    /// Whether it is in the set.
    #[must_use]
    pub fn contains(&self, capability: Capability) -> bool {
        let (word, bit) = place(capability);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether no capability is in the set, however many words there are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The members by rising id.
    pub fn iter(&self) -> impl Iterator<Item = Capability> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            (0..64u32).filter_map(move |bit| {
                (word >> bit & 1 == 1)
                    .then(|| Capability::new(at as u32 * 64 + bit))
                    .flatten()
            })
        })
    }

    /// Whether all of these are in `other`, by the reference's rule: a longer list is never a subset, even if the
    /// words too many are zero.
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.0.len() <= other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| a & b == *a)
    }

    /// The capabilities of these that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let theirs = other.0.iter().copied().chain(core::iter::repeat(0));
        Self(self.0.iter().zip(theirs).map(|(a, b)| a & !b).collect())
    }
}

const fn place(capability: Capability) -> (usize, u64) {
    let id = capability.id();
    (id as usize / 64, 1 << (id % 64))
}

impl FromIterator<Capability> for Bits {
    fn from_iter<I: IntoIterator<Item = Capability>>(all: I) -> Self {
        let mut bits = Self::new();
        for capability in all {
            bits.insert(capability);
        }
        bits
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, capability) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            fmt::Display::fmt(&capability, f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()?;
        write!(f, " in {} words", self.0.len())
    }
}
