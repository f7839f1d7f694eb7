//! The blobs that were signed last.

use alloc::collections::{BTreeSet, VecDeque};

use crate::sign::{Digest, Signature, keccak};

/// At most this many blobs are remembered, in some two megabytes: enough for sessions that pay every five seconds,
/// 5,000 a second.
const MAX_RECENT: usize = 32_768;

/// A blob and its signature: half a hash of both, which nobody can find a second pair for.
type Key = [u8; 16];

/// Blobs by their hash; the oldest are forgotten. To recover the signer of a blob costs as much as two signatures, and
/// most blobs come back within seconds.
#[derive(Debug, Default)]
pub(super) struct Recent {
    known: BTreeSet<Key>,
    order: VecDeque<Key>,
}

impl Recent {
    pub(super) fn add(&mut self, digest: Digest, signature: &Signature) {
        let key = key(digest, signature);
        if self.known.insert(key) {
            self.order.push_back(key);
        }
        if self.order.len() > MAX_RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether that very signature was made.
    pub(super) fn has(&self, digest: Digest, signature: &Signature) -> bool {
        self.known.contains(&key(digest, signature))
    }
}

fn key(digest: Digest, signature: &Signature) -> Key {
    let hash = keccak(&[&digest.0, &signature.0]);
    let mut key = [0; 16];
    key.copy_from_slice(&hash[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: usize) -> Digest {
        Digest::personal(&n.to_be_bytes())
    }

    #[test]
    fn only_the_very_signature_is_known_and_only_for_a_while() {
        let mut recent = Recent::default();
        let (one, other) = (Signature([1; 65]), Signature([2; 65]));
        recent.add(digest(0), &one);
        recent.add(digest(0), &one);
        assert!(recent.has(digest(0), &one));
        assert!(!recent.has(digest(0), &other) && !recent.has(digest(1), &one));
        for n in 1..=MAX_RECENT {
            recent.add(digest(n), &one);
        }
        assert!(!recent.has(digest(0), &one) && recent.has(digest(MAX_RECENT), &one));
        assert_eq!(recent.order.len(), recent.known.len());
    }
}
