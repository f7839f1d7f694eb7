//! A segment: its bytes, its readers and its writers.

use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use super::Shared;
use super::blocks::{BLOCK_BYTES, Blocks};
use crate::machine::EffectId;
use crate::time::Time;
use crate::trickle::Seq;
use crate::trickle::server::slab::Slab;
use crate::trickle::server::{Event, ReaderId};

/// A segment gets blocks when it is as long as this. Below, where they would be mostly empty, chunks have memory of
/// their own.
const LONG_SEGMENT: usize = 4 * BLOCK_BYTES;
/// Chunks below this are joined: a peer that sends single bytes must not cost an entry each.
const SMALL_CHUNK: usize = 512;
/// Joined chunks grow to about this.
const JOINED_CHUNK: usize = 4 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Fresh,
    Open,
    Closed,
}

#[derive(Debug)]
pub(in crate::trickle::server) struct Segment {
    pub(super) seq: Seq,
    pub(super) phase: Phase,
    pub(super) chunks: Vec<Bytes>,
    /// The rest of the block that the last chunk is in.
    block: BytesMut,
    pub(super) len: usize,
    pub(super) slotted: bool,
    /// The entry among the segments outside the window, if the segment has left it and is read.
    pub(super) outside: Option<Listed>,
    pub(super) readers: Slab<Reader>,
    pub(super) writers: Slab<Writer>,
    /// The time until which it may stay open without a writer.
    pub(super) orphan: Option<Time>,
}

#[derive(Debug)]
pub(in crate::trickle::server) struct Reader {
    pub(super) guest: Guest,
    /// The chunk and the byte in it that comes next.
    pub(super) at: (usize, usize),
    /// Bytes handed to the driver and not yet to the transport.
    pub(super) in_flight: usize,
    pub(super) began: bool,
    /// All has been handed to the driver; the transport has not taken all of it.
    pub(super) ended: bool,
    /// When it last took something.
    pub(super) moved: Time,
}

#[derive(Debug)]
pub(super) enum Guest {
    Remote {
        id: EffectId,
        /// The head when the request arrived (trickle spec 3).
        latest: Seq,
        head_only: bool,
    },
    Local {
        id: ReaderId,
        /// Whether it asked in vain and wants to be told.
        waits: bool,
    },
}

#[derive(Debug)]
pub(in crate::trickle::server) struct Writer {
    /// `None` is the embedder itself.
    pub(super) id: Option<EffectId>,
    pub(super) began: bool,
    /// Whether the writer declared a restart below the head, so that its first byte pulls the head down (D5).
    pub(super) restart: bool,
}

/// How a segment is listed among those outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    pub(super) since: Time,
    pub(super) due: Time,
}

impl Segment {
    pub(super) fn new(seq: Seq) -> Self {
        Self {
            seq,
            phase: Phase::Fresh,
            chunks: Vec::new(),
            block: BytesMut::new(),
            len: 0,
            slotted: true,
            outside: None,
            readers: Slab::default(),
            writers: Slab::default(),
            orphan: None,
        }
    }

    /// Adds what a peer sent.
    pub(super) fn copy(&mut self, bytes: &[u8], blocks: &mut Blocks) {
        let before = self.len;
        self.len += bytes.len();
        if bytes.len() < SMALL_CHUNK {
            self.join(bytes);
        } else if before < LONG_SEGMENT {
            self.chunks.push(Bytes::copy_from_slice(bytes));
        } else {
            let mut rest = bytes;
            while !rest.is_empty() {
                if self.block.capacity() == 0 {
                    self.block = blocks.take();
                }
                let (fits, later) = rest.split_at(rest.len().min(self.block.capacity()));
                self.block.extend_from_slice(fits);
                self.chunks.push(self.block.split().freeze());
                rest = later;
            }
        }
    }

    /// Adds what the embedder wrote, whose memory is its own.
    pub(super) fn share(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        if bytes.len() < SMALL_CHUNK {
            self.join(&bytes);
        } else {
            self.chunks.push(bytes);
        }
    }

    fn join(&mut self, bytes: &[u8]) {
        match self.chunks.last_mut() {
            Some(last) if last.len() + bytes.len() <= JOINED_CHUNK => {
                // Readers inside the last chunk keep their offset: it only grows.
                let mut joined = Vec::with_capacity(last.len() + bytes.len());
                joined.extend_from_slice(last);
                joined.extend_from_slice(bytes);
                *last = joined.into();
            }
            _ => self.chunks.push(Bytes::copy_from_slice(bytes)),
        }
    }

    /// Forgets the bytes, which nobody can ask for any more.
    pub(super) fn clear(&mut self, blocks: &mut Blocks) {
        self.block = BytesMut::new();
        blocks.give_back(core::mem::take(&mut self.chunks));
    }

    pub(super) fn wake_locals(&mut self, shared: &mut Shared) {
        for place in self.readers.keys() {
            if let Some(Reader {
                guest: Guest::Local { id, waits },
                ..
            }) = self.readers.get_mut(place)
                && core::mem::take(waits)
            {
                shared.out.event(Event::Readable(*id));
            }
        }
    }
}

impl Reader {
    pub(super) const fn new(now: Time, guest: Guest) -> Self {
        Self {
            guest,
            at: (0, 0),
            in_flight: 0,
            began: false,
            ended: false,
            moved: now,
        }
    }
}

/// The bytes from a reader's place to the end of the chunk it is in, if there are any.
pub(super) fn next_run(chunks: &[Bytes], at: &mut (usize, usize)) -> Option<Bytes> {
    loop {
        let chunk = chunks.get(at.0)?;
        if at.1 < chunk.len() {
            let run = if at.1 == 0 {
                chunk.clone()
            } else {
                chunk.slice(at.1..)
            };
            at.1 = chunk.len();
            return Some(run);
        }
        if at.0 + 1 >= chunks.len() {
            return None;
        }
        *at = (at.0 + 1, 0);
    }
}
