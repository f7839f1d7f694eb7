//! Nonces under a recipient's commitments: windows at the recipient, counters at the sender (payments spec 6, 7.2).

use alloc::collections::{BTreeMap, BTreeSet};
use core::ops::RangeInclusive;

/// So many distinct nonces are accepted under one commitment.
pub const MAX_NONCES: usize = 600;

/// From this nonce on a sender asks for a fresh quote.
pub const REFRESH_NONCE: u32 = 500;

/// A recipient tracks at most so many commitments at once. Tracking one takes a valid ticket under our own quote.
pub const MAX_WINDOWS: usize = 100_000;

/// A hash that names a commitment, and with it a space of nonces.
pub type RandHash = [u8; 32];

#[derive(Clone, Debug)]
struct Window {
    seen: BTreeSet<u32>,
    expires: u64,
}

/// The nonces that a recipient has seen.
#[derive(Clone, Debug, Default)]
pub struct NonceWindows {
    windows: BTreeMap<RandHash, Window>,
}

/// Why a nonce does not count. Displayed as the reference begins to say it; whose nonce and which one follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNonce {
    /// It was used before.
    #[error("invalid ticket senderNonce: already seen")]
    Seen,
    /// The commitment, or the recipient, tracks no more.
    #[error("invalid ticket senderNonce: too many values")]
    TooMany,
}

impl NonceWindows {
    /// Accepts a nonce once. `expires` is the L1 block from which tickets of this commitment are refused anyway.
    ///
    /// # Errors
    /// If the nonce was accepted before, or the limits are reached. Nothing is recorded then.
    pub fn accept(&mut self, hash: RandHash, nonce: u32, expires: u64) -> Result<(), BadNonce> {
        if !self.windows.contains_key(&hash) && self.windows.len() >= MAX_WINDOWS {
            return Err(BadNonce::TooMany);
        }
        let window = self.windows.entry(hash).or_insert_with(|| Window {
            seen: BTreeSet::new(),
            expires,
        });
        if window.seen.contains(&nonce) {
            return Err(BadNonce::Seen);
        }
        if window.seen.len() >= MAX_NONCES {
            return Err(BadNonce::TooMany);
        }
        window.seen.insert(nonce);
        Ok(())
    }

    /// Gives back nonces whose acceptance was not made durable: nothing was credited for them.
    pub fn release(&mut self, hash: &RandHash, nonces: &[u32]) {
        if let Some(window) = self.windows.get_mut(hash) {
            for nonce in nonces {
                window.seen.remove(nonce);
            }
        }
    }

    /// Forgets commitments whose parameters are expired at `block`, and names them. No replay becomes possible:
    /// their tickets are refused as expired. A chain that goes back must not be shown to this.
    pub fn clean(&mut self, block: u64) -> impl Iterator<Item = RandHash> + use<> {
        let expired: alloc::vec::Vec<RandHash> = self
            .windows
            .iter()
            .filter(|(_, window)| window.expires <= block)
            .map(|(hash, _)| *hash)
            .collect();
        for hash in &expired {
            self.windows.remove(hash);
        }
        expired.into_iter()
    }

    /// The nonces seen under a commitment, ascending, with the block of its expiry.
    pub fn seen(&self, hash: &RandHash) -> Option<(u64, impl Iterator<Item = u32>)> {
        self.windows
            .get(hash)
            .map(|window| (window.expires, window.seen.iter().copied()))
    }

    /// How many commitments are tracked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether none is tracked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }
}

/// A sender's counter under one commitment. Nonces only rise, and failed sends never give any back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderNonces {
    hash: RandHash,
    last: u32,
}

impl SenderNonces {
    /// A counter that has issued nothing, or goes on after `last` for a commitment that was in use.
    #[must_use]
    pub const fn new(hash: RandHash, last: u32) -> Self {
        Self { hash, last }
    }

    /// The commitment.
    #[must_use]
    pub const fn hash(&self) -> RandHash {
        self.hash
    }

    /// The last nonce issued; zero for none.
    #[must_use]
    pub const fn last(&self) -> u32 {
        self.last
    }

    /// Turns to a commitment: a new one starts at zero, the same one goes on.
    pub fn turn_to(&mut self, hash: RandHash) {
        if self.hash != hash {
            *self = Self::new(hash, 0);
        }
    }

    /// Whether a fresh quote is due before more are issued.
    #[must_use]
    pub const fn worn(&self) -> bool {
        self.last >= REFRESH_NONCE
    }

    /// Issues the next `count` nonces; `None` if the recipient would not take them all.
    pub fn issue(&mut self, count: u32) -> Option<RangeInclusive<u32>> {
        let last = self.last.checked_add(count)?;
        if last as usize > MAX_NONCES {
            return None;
        }
        let first = self.last + 1;
        self.last = last;
        Some(first..=last)
    }
}
