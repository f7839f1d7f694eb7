//! The memory of long segments: blocks of one size that the next segment uses again.
//!
//! A peer's bytes arrive as slices of the buffer that a driver reads into. Keeping them would keep all of that buffer,
//! however little of it is theirs, and cost the driver a new one for every read. Copied once, into blocks that
//! readers share, they take the room that they need, and a channel that goes on takes no new memory at all.

use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

/// How large a block is.
pub(super) const BLOCK_BYTES: usize = 256 << 10;
/// How many free blocks are kept: one segment of 32 MiB makes room for the next.
const MAX_FREE: usize = 128;

/// Blocks that nobody uses at present.
#[derive(Debug, Default)]
pub(in crate::trickle) struct Blocks {
    free: Vec<BytesMut>,
    /// The fewest free blocks since the last [`Blocks::trim`]: that many were never needed.
    spare: usize,
}

impl Blocks {
    pub(in crate::trickle) const fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// An empty block.
    pub(super) fn take(&mut self) -> BytesMut {
        let block = self.free.pop();
        self.spare = self.spare.min(self.free.len());
        block.unwrap_or_else(|| BytesMut::with_capacity(BLOCK_BYTES))
    }

    /// Takes back the blocks behind these pieces, as far as nobody else holds a piece of the same block.
    pub(super) fn give_back(&mut self, pieces: Vec<Bytes>) {
        for piece in pieces {
            if self.free.len() == MAX_FREE {
                return;
            }
            // The last piece of a block is the only one that is alone with it. What was no block of ours is smaller,
            // or an embedder's.
            let Ok(mut block) = piece.try_into_mut() else {
                continue;
            };
            block.clear();
            if block.try_reclaim(BLOCK_BYTES) && block.capacity() == BLOCK_BYTES {
                self.free.push(block);
            }
        }
    }

    /// Lets go of what was not needed since the last time.
    pub(in crate::trickle) fn trim(&mut self) {
        self.free.truncate(self.free.len() - self.spare);
        self.free.shrink_to_fit();
        self.spare = self.free.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A full block in pieces of that size.
    fn pieces(mut block: BytesMut, size: usize) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        while block.capacity() > 0 {
            block.resize(size.min(block.capacity()), 7);
            pieces.push(block.split().freeze());
        }
        pieces
    }

    #[test]
    fn a_block_is_used_again_when_its_last_piece_is_given_back() {
        let mut blocks = Blocks::default();
        let block = blocks.take();
        let address = block.as_ptr();
        let mut pieces = pieces(block, 10_000);
        let held = pieces[3].clone();
        blocks.give_back(pieces.clone());
        assert!(blocks.is_empty(), "pieces are in use");
        let last = pieces.split_off(4);
        drop((pieces, held));
        blocks.give_back(last);
        let again = blocks.take();
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        assert_eq!(again.capacity(), BLOCK_BYTES);
    }

    #[test]
    fn what_a_reader_holds_is_never_written_over() {
        let mut blocks = Blocks::default();
        let pieces = pieces(blocks.take(), BLOCK_BYTES / 2);
        let held = pieces[0].clone();
        blocks.give_back(pieces);
        let mut other = blocks.take();
        other.extend_from_slice(&[1; BLOCK_BYTES]);
        assert!(held.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn only_blocks_are_kept_and_not_too_many() {
        let mut blocks = Blocks::default();
        blocks.give_back(alloc::vec![
            Bytes::from(alloc::vec![0; 100]),
            Bytes::from(alloc::vec![0; 4 * BLOCK_BYTES]),
        ]);
        assert!(blocks.is_empty());
        let full = (0..2 * MAX_FREE).flat_map(|_| {
            let block = BytesMut::with_capacity(BLOCK_BYTES);
            pieces(block, BLOCK_BYTES)
        });
        blocks.give_back(full.collect());
        assert_eq!(blocks.free.len(), MAX_FREE);
    }

    #[test]
    fn what_is_not_needed_between_two_looks_is_let_go() {
        let mut blocks = Blocks::default();
        let full = (0..10).flat_map(|_| pieces(BytesMut::with_capacity(BLOCK_BYTES), BLOCK_BYTES));
        blocks.give_back(full.collect());
        blocks.trim();
        assert_eq!(blocks.free.len(), 10, "they came only now");
        let used: Vec<_> = (0..4).map(|_| blocks.take()).collect();
        blocks.give_back(
            used.into_iter()
                .flat_map(|block| pieces(block, BLOCK_BYTES))
                .collect(),
        );
        blocks.trim();
        assert_eq!(blocks.free.len(), 4);
        blocks.trim();
        assert!(blocks.is_empty());
    }
}
