//! Chance, from a seed that the embedder supplies.

use sha3::{Digest as _, Keccak256};

/// Thirty-two bytes from a good entropy source, or any fixed bytes for a run that must replay.
pub type Seed = [u8; 32];

/// A deterministic stream of bytes: `keccak256(seed ‖ counter)`, block after block.
///
/// With a secret seed the stream is unpredictable, which ticket seeds and session ids need.
#[derive(Clone)]
pub struct Rng {
    seed: Seed,
    counter: u64,
}

impl Rng {
    /// A stream that depends on nothing but `seed`.
    #[must_use]
    pub const fn new(seed: Seed) -> Self {
        Self { seed, counter: 0 }
    }

    /// The next 32 bytes.
    pub fn bytes32(&mut self) -> [u8; 32] {
        let mut hash = Keccak256::new();
        hash.update(self.seed);
        hash.update(self.counter.to_be_bytes());
        self.counter += 1;
        hash.finalize().into()
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let block = self.bytes32();
        u64::from_be_bytes(block[..8].try_into().expect("eight of thirty-two bytes"))
    }

    /// A number below `bound`, without bias worth speaking of; zero if `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Multiply-shift: the bias is below bound / 2^64.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A seed for a child, independent of everything drawn before and after.
    pub fn fork(&mut self) -> Seed {
        self.bytes32()
    }
}

impl core::fmt::Debug for Rng {
    // The seed may be secret.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Rng")
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}
