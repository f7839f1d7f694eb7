//! Comparing what a server holds with what was sent.

use alloc::collections::VecDeque;

use bytes::Bytes;

use crate::trickle::Seq;

/// The bytes of a segment, for comparing.
pub(super) struct View<'a> {
    pub(super) kept: &'a VecDeque<Bytes>,
    pub(super) trimmed: u64,
    pub(super) fingerprint: Fingerprint,
    pub(super) reached: u64,
    /// Whether the segment is complete, so that the server may have closed it.
    pub(super) complete: bool,
    pub(super) seq: Seq,
}

/// Where comparing stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compared {
    pub(super) count: u64,
    fingerprint: Fingerprint,
    /// The kept chunk and the byte in it that come next.
    at: (usize, usize),
    /// The number of bytes trimmed when `at` was right.
    trimmed: u64,
}

impl Compared {
    /// Whether the bytes continue what was sent.
    pub(super) fn matches(&mut self, mut bytes: &[u8], view: &View<'_>) -> bool {
        if self.count + bytes.len() as u64 > view.reached {
            return false;
        }
        if self.count < view.trimmed {
            let take = usize::try_from(view.trimmed - self.count)
                .map_or(bytes.len(), |left| left.min(bytes.len()));
            self.fingerprint.add(&bytes[..take]);
            self.count += take as u64;
            bytes = &bytes[take..];
            if self.count < view.trimmed {
                return true;
            }
            self.at = (0, 0);
            self.trimmed = view.trimmed;
            if self.fingerprint != view.fingerprint {
                return false;
            }
        } else if self.trimmed < view.trimmed {
            // Chunks left at the front meanwhile.
            self.trimmed = view.trimmed;
            let mut skip = self.count - view.trimmed;
            self.at = (0, 0);
            while let Some(chunk) = view.kept.get(self.at.0)
                && chunk.len() as u64 <= skip
            {
                skip -= chunk.len() as u64;
                self.at.0 += 1;
            }
            self.at.1 = skip as usize;
        }
        while !bytes.is_empty() {
            let Some(chunk) = view.kept.get(self.at.0) else {
                return false;
            };
            let ours = &chunk[self.at.1..];
            let take = ours.len().min(bytes.len());
            if ours[..take] != bytes[..take] {
                return false;
            }
            self.count += take as u64;
            self.at.1 += take;
            bytes = &bytes[take..];
            if self.at.1 == chunk.len() {
                self.at = (self.at.0 + 1, 0);
            }
        }
        true
    }
}

/// Recognises bytes that are no longer kept; not a secure hash, since both sides of the comparison are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    hash: u64,
    word: u64,
    filled: u32,
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            word: 0,
            filled: 0,
        }
    }
}

impl Fingerprint {
    pub(super) fn add(&mut self, mut bytes: &[u8]) {
        while self.filled != 0
            && let Some((first, rest)) = bytes.split_first()
        {
            self.byte(*first);
            bytes = rest;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.byte(*byte);
        }
    }

    fn byte(&mut self, byte: u8) {
        self.word |= u64::from(byte) << (8 * self.filled);
        self.filled += 1;
        if self.filled == 8 {
            let word = core::mem::take(&mut self.word);
            self.filled = 0;
            self.mix(word);
        }
    }

    const fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }
}
