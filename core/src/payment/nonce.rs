//! Nonces under a recipient's commitments: windows at the recipient, counters at the sender (payments spec 6, 7.2).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use core::ops::RangeInclusive;

use crate::store::Record;

/// At most this many distinct nonces are accepted under one commitment.
pub const MAX_NONCES: usize = 600;

/// The nonce from which on a sender asks for a fresh quote.
pub const REFRESH_NONCE: u32 = 500;

/// At most this many commitments are tracked by a recipient at once. Tracking one takes a valid ticket under our own
/// quote.
pub const MAX_WINDOWS: usize = 100_000;

/// At most this many commitments' last nonces are remembered by a sender, in some five megabytes. A quote lasts for
/// minutes, so that is a hundred new ones a second.
pub const MAX_SPENT: usize = 32_768;

/// The beginning of the keys of records of spent nonces.
pub const NONCE_KEY: &str = "nonce:0x";

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
    /// The nonce was used before.
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

/// The last nonce that a sender used under each commitment, whichever session it was for. Of more than
/// [`MAX_SPENT`] commitments those that were used least recently are forgotten.
#[derive(Clone, Debug, Default)]
pub struct SpentNonces {
    /// The last nonce, and when it was used, in turns.
    last: BTreeMap<RandHash, (u32, u64)>,
    order: BTreeMap<u64, RandHash>,
    turns: u64,
}

impl SpentNonces {
    /// The last nonce known to be used; zero for none.
    #[must_use]
    pub fn last(&self, hash: &RandHash) -> u32 {
        self.last.get(hash).map_or(0, |(last, _)| *last)
    }

    /// The record that has to be stored before anything leaves that is signed with nonces up to `last`.
    #[must_use]
    pub fn record(hash: &RandHash, last: u32) -> Record {
        Record {
            key: nonce_key(hash),
            value: Some(last.to_be_bytes().to_vec().into()),
        }
    }

    /// Notes that all nonces up to `last` are used. A failed send never gives any back. What has to be stored is the
    /// end of an older commitment, if one is forgotten for this.
    #[must_use]
    pub fn spend(&mut self, hash: RandHash, last: u32) -> Option<Record> {
        let last = last.max(self.last(&hash));
        self.note(hash, last).map(|hash| Record {
            key: nonce_key(&hash),
            value: None,
        })
    }

    /// Takes in what another sender with the same key has used. The record of a commitment that is forgotten for it
    /// stays where it is stored.
    pub fn learn(&mut self, other: &Self) {
        for hash in other.order.values() {
            let last = other.last(hash);
            if last > self.last(hash) {
                self.note(*hash, last);
            }
        }
    }

    /// Gives back nonces with which nothing was signed, unless later ones were used since.
    pub fn give_back(&mut self, hash: &RandHash, nonces: &RangeInclusive<u32>) {
        if let Some((last, _)) = self.last.get_mut(hash)
            && last == nonces.end()
        {
            *last = nonces.start().saturating_sub(1);
        }
    }

    /// Takes back a record from before a restart; says whether it was one of ours. Without it a quote that was in
    /// use must not be used again.
    pub fn restore(&mut self, record: &Record) -> bool {
        let read = || {
            let hash = hex::decode(record.key.strip_prefix(NONCE_KEY)?).ok()?;
            let last = u32::from_be_bytes((**record.value.as_ref()?).try_into().ok()?);
            Some((hash.try_into().ok()?, last))
        };
        let Some((hash, last)) = read() else {
            return false;
        };
        self.note(hash, last);
        true
    }

    /// Puts a commitment last in line, and hands back the one that is forgotten for it.
    fn note(&mut self, hash: RandHash, last: u32) -> Option<RandHash> {
        self.turns += 1;
        if let Some((_, before)) = self.last.insert(hash, (last, self.turns)) {
            self.order.remove(&before);
        }
        self.order.insert(self.turns, hash);
        if self.last.len() <= MAX_SPENT {
            return None;
        }
        let (_, oldest) = self.order.pop_first()?;
        self.last.remove(&oldest);
        Some(oldest)
    }
}

fn nonce_key(hash: &RandHash) -> String {
    format!("{NONCE_KEY}{}", hex::encode(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: usize) -> RandHash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        hash
    }

    #[test]
    fn the_commitments_used_least_recently_are_forgotten_with_their_records() {
        let mut spent = SpentNonces::default();
        for n in 0..MAX_SPENT {
            assert_eq!(spent.spend(hash(n), 1), None);
        }
        assert_eq!(spent.spend(hash(0), 2), None, "a known one takes no room");
        let forgotten = spent.spend(hash(MAX_SPENT), 1);
        let forgotten = forgotten.expect("there is no more room");
        assert_eq!(
            (forgotten.key, forgotten.value),
            (nonce_key(&hash(1)), None)
        );
        assert_eq!((spent.last(&hash(0)), spent.last(&hash(1))), (2, 0));
        assert_eq!(spent.last.len(), spent.order.len());
    }

    #[test]
    fn nonces_never_go_back_and_survive_as_records() {
        let mut spent = SpentNonces::default();
        for last in [9, 4] {
            assert_eq!(spent.spend(hash(1), last), None);
            assert_eq!(spent.last(&hash(1)), 9);
        }
        let record = SpentNonces::record(&hash(1), 9);
        let mut again = SpentNonces::default();
        assert!(again.restore(&record));
        assert_eq!(again.last(&hash(1)), 9);
        let key = String::from("spent");
        assert!(!again.restore(&Record { key, ..record }));
    }

    #[test]
    fn what_another_session_used_is_used() {
        let (mut ours, mut theirs) = (SpentNonces::default(), SpentNonces::default());
        assert_eq!(ours.spend(hash(1), 5), None);
        for (n, last) in [(1, 3), (2, 7)] {
            assert_eq!(theirs.spend(hash(n), last), None);
        }
        ours.learn(&theirs);
        assert_eq!((ours.last(&hash(1)), ours.last(&hash(2))), (5, 7));
    }

    #[test]
    fn only_the_last_nonces_are_given_back() {
        let mut spent = SpentNonces::default();
        assert_eq!(spent.spend(hash(1), 6), None);
        spent.give_back(&hash(1), &(1..=3));
        assert_eq!(spent.last(&hash(1)), 6, "later ones are under way");
        spent.give_back(&hash(1), &(4..=6));
        assert_eq!(spent.last(&hash(1)), 3);
        spent.give_back(&hash(2), &(1..=3));
        assert_eq!(spent.last(&hash(2)), 0);
    }
}
