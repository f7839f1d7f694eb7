//! Chance for simulations, in the words of games.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use livepeer_core::{Rng, Seed};

use crate::seeds;

/// A source of chance that depends on nothing but its seed: an [`Rng`] with a few more words.
#[derive(Clone, Debug)]
pub struct Dice(Rng);

impl Dice {
    /// The source of the seed of that number.
    #[must_use]
    pub fn new(number: u64) -> Self {
        seeds::seed(number).into()
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Whether something that happens so often in a hundred cases happens now.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// Draws that many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let blocks = (0..count.div_ceil(32)).flat_map(|_| self.bytes32());
        blocks.take(count).collect()
    }

    /// A time span between so many milliseconds.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }
}

impl From<Seed> for Dice {
    fn from(seed: Seed) -> Self {
        Self(Rng::new(seed))
    }
}

impl Deref for Dice {
    type Target = Rng;

    fn deref(&self) -> &Rng {
        &self.0
    }
}

impl DerefMut for Dice {
    fn deref_mut(&mut self) -> &mut Rng {
        &mut self.0
    }
}
