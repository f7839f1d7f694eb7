//! The blobs that were signed last.

use alloc::collections::{BTreeMap, VecDeque};

use crate::sign::{Digest, Signature};

/// So many are known: a few hundred bytes for each session that is under way.
const MAX_RECENT: usize = 8_192;

/// Signatures by what they are of; the oldest are forgotten. To recover the signer of a blob costs as much as two
/// signatures, and most blobs come back within seconds.
#[derive(Debug, Default)]
pub(super) struct Recent {
    signatures: BTreeMap<Digest, Signature>,
    order: VecDeque<Digest>,
}

impl Recent {
    pub(super) fn add(&mut self, digest: Digest, signature: Signature) {
        if self.signatures.insert(digest, signature).is_none() {
            self.order.push_back(digest);
        }
        if self.order.len() > MAX_RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.signatures.remove(&oldest);
        }
    }

    /// Whether that very signature was made.
    pub(super) fn has(&self, digest: Digest, signature: &Signature) -> bool {
        self.signatures.get(&digest) == Some(signature)
    }
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
        recent.add(digest(0), one);
        recent.add(digest(0), one);
        assert!(recent.has(digest(0), &one));
        assert!(!recent.has(digest(0), &other) && !recent.has(digest(1), &one));
        for n in 1..=MAX_RECENT {
            recent.add(digest(n), one);
        }
        assert!(!recent.has(digest(0), &one) && recent.has(digest(MAX_RECENT), &one));
        assert_eq!(recent.order.len(), recent.signatures.len());
    }
}
