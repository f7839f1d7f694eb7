//! A channel on the server's side: its head, its five slots, and the readers and writers of these.
//!
//! A segment's life (trickle spec 11.4); a segment that leaves its slot or whose channel ends is always closed (D25):
//!
//! ```text
//!          POST, or GET at the head          first byte               end of the first POST to end,
//!  (none) ────────────────────────▶ Fresh ─────────────▶ Open ─────▶  DELETE, reset, eviction, channel end,
//!                                     │                                no writer for the orphan grace (D6)
//!                                     └──────── the same ────────────▶ Closed (final; later bytes are dropped, D26)
//! ```

mod blocks;
mod outside;
mod readers;
mod segment;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

pub(super) use self::blocks::Blocks;
pub(super) use self::outside::Outside;
pub(super) use self::readers::Asked;
pub(super) use self::segment::Reader;
use self::segment::{Phase, Segment, Writer};
use super::slab::{Key, Slab};
use super::{Config, Event, ReaderId};
use crate::http::{Body, Out, Response};
use crate::machine::{EffectId, Outbox};
use crate::time::Time;
use crate::trickle::{ContentType, Seq, WINDOW, headers};

/// A publisher without reset that is this far below the head has restarted (D5).
const RESTART_DISTANCE: u64 = WINDOW as u64 + 1;

const TEXT: &str = "text/plain; charset=utf-8";

pub(super) type ChannelKey = Key<Box<Channel>>;
pub(super) type SegmentKey = Key<Segment>;

/// State that all channels of a server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) out: Outbox<Event>,
    pub(super) seats: BTreeMap<EffectId, Seat>,
    pub(super) blocks: Blocks,
    /// When to look at which segment of which channel, whether its publisher came back.
    pub(super) orphans: BTreeSet<(Time, ChannelKey, SegmentKey)>,
    /// Segments that left their window while they were read.
    pub(super) outside: Outside,
    /// Local readers that were let go, and the segment that they had not read to its end.
    pub(super) unseated: Vec<(ReaderId, Seq)>,
    pub(super) config: Config,
}

/// Where a peer's exchange sits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) channel: ChannelKey,
    pub(super) segment: SegmentKey,
    pub(super) place: Place,
}

/// The place of a reader or a writer among those of its segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Reads(Key<Reader>),
    Writes(Key<Writer>),
}

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) name: Arc<str>,
    pub(super) content: ContentType,
    pub(super) head: Seq,
    pub(super) activity: Time,
    pub(super) closed: bool,
    /// Bytes taken in since creation.
    pub(super) received: u64,
    /// How often the head went back.
    pub(super) restarts: u32,
    /// The segment and writer's place of the embedder.
    pub(super) local: Option<(SegmentKey, Key<Writer>)>,
    /// Local readers ahead of the head.
    ahead: Vec<ReaderId>,
    slots: [Option<SegmentKey>; WINDOW],
    segments: Slab<Segment>,
    key: ChannelKey,
    guests: usize,
}

impl Channel {
    pub(super) fn new(now: Time, key: ChannelKey, name: Arc<str>, content: ContentType) -> Self {
        Self {
            name,
            content,
            head: Seq::ZERO,
            activity: now,
            closed: false,
            received: 0,
            restarts: 0,
            local: None,
            ahead: Vec::new(),
            slots: [None; WINDOW],
            segments: Slab::default(),
            key,
            guests: 0,
        }
    }

    /// How many readers and writers it has.
    pub(super) const fn guests(&self) -> usize {
        self.guests
    }

    /// How many readers wait for the first byte of a segment.
    pub(super) fn waiting(&self) -> usize {
        self.slots
            .iter()
            .flatten()
            .filter_map(|key| self.segments.get(*key))
            .filter(|segment| segment.phase == Phase::Fresh)
            .map(|segment| segment.readers.values().count())
            .sum()
    }

    /// Whether it is over and nobody is left who wants to know.
    pub(super) fn is_spent(&self) -> bool {
        self.closed && self.segments.is_empty()
    }

    // ---- publishing ------------------------------------------------------------------------------------------

    /// The head of a POST to a seq (trickle spec 5.4, 5.8).
    pub(super) fn post(
        &mut self,
        now: Time,
        id: Option<EffectId>,
        seq: Seq,
        reset: bool,
        shared: &mut Shared,
    ) {
        let restart = reset && seq < self.head;
        if reset {
            for slot in 0..WINDOW {
                let Some(key) = self.slots[slot] else {
                    continue;
                };
                let Some(segment) = self.segments.get(key) else {
                    continue;
                };
                // Those who wait for the very segment that is to come go on waiting.
                let awaited = segment.seq == seq && segment.phase == Phase::Fresh;
                if segment.seq < seq {
                    self.close_segment(now, key, shared);
                } else if restart && !awaited {
                    self.vacate(now, slot, shared);
                }
            }
        }
        let late = seq < self.head && !restart && seq.plus(RESTART_DISTANCE) > self.head;
        let key = match self.find(seq) {
            Some(key) => key,
            // It comes so late that its slot has a later segment: as if it had been closed when it left (D4).
            None if late && self.is_taken(seq) => {
                if let Some(id) = id {
                    shared.out.http(id, Out::Reply(unwanted(seq)));
                }
                return;
            }
            None => self.install(now, seq, shared),
        };
        let Some(segment) = self.segments.get_mut(key) else {
            return;
        };
        if segment.phase == Phase::Closed {
            // The answer of an empty POST, and the bytes are not wanted (D4).
            if let Some(id) = id {
                self.advance(seq, false, shared);
                shared.out.http(id, Out::Reply(unwanted(seq)));
            }
            return;
        }
        segment.orphan = None;
        let place = segment.writers.insert(Writer {
            id,
            began: false,
            restart,
        });
        self.guests += 1;
        match id {
            Some(id) => {
                shared.seats.insert(
                    id,
                    Seat {
                        channel: self.key,
                        segment: key,
                        place: Place::Writes(place),
                    },
                );
            }
            None => self.local = Some((key, place)),
        }
    }

    /// Body bytes of a writer. False if they were dropped, because the segment is closed or too long.
    pub(super) fn data(
        &mut self,
        now: Time,
        key: SegmentKey,
        place: Key<Writer>,
        bytes: Bytes,
        shared: &mut Shared,
    ) -> bool {
        let Some(segment) = self.segments.get_mut(key) else {
            return false;
        };
        let Some(writer) = segment.writers.get_mut(place) else {
            return false;
        };
        if bytes.is_empty() {
            return true;
        }
        let seq = segment.seq;
        if segment.phase == Phase::Closed {
            // Readers have been told that it is complete. Answering at once tells the publisher (D26).
            if let Some(id) = writer.id {
                shared.out.http(id, Out::Reply(unwanted(seq)));
            }
            self.leave_writing(now, key, place, shared);
            return false;
        }
        if segment.len.saturating_add(bytes.len()) > shared.config.max_segment_bytes {
            if let Some(id) = writer.id {
                let reply = text(413, "Segment too large\n").header(headers::CONNECTION, "close");
                shared.out.http(id, Out::Reply(reply));
            }
            self.leave_writing(now, key, place, shared);
            self.close_segment(now, key, shared);
            return false;
        }
        let by_peer = writer.id.is_some();
        self.activity = now;
        self.received = self.received.saturating_add(bytes.len() as u64);
        if !writer.began {
            writer.began = true;
            let restart = writer.restart;
            self.advance(seq, restart, shared);
            self.overtake(now, seq, shared);
        }
        let Some(segment) = self.segments.get_mut(key) else {
            return false;
        };
        segment.phase = Phase::Open;
        if by_peer {
            segment.copy(&bytes, &mut shared.blocks);
        } else {
            segment.share(bytes);
        }
        self.serve(key, shared);
        true
    }

    /// The clean end of a writer's body.
    pub(super) fn end(
        &mut self,
        now: Time,
        key: SegmentKey,
        place: Key<Writer>,
        shared: &mut Shared,
    ) {
        let Some(segment) = self.segments.get(key) else {
            return;
        };
        let Some(writer) = segment.writers.get(place) else {
            return;
        };
        let (seq, id, began, restart) = (segment.seq, writer.id, writer.began, writer.restart);
        if let Some(id) = id {
            let reply = if began {
                posted(seq)
            } else {
                self.emptied(seq)
            };
            shared.out.http(id, Out::Reply(reply));
        }
        self.stand_up(key, place, shared);
        if !began {
            self.activity = now;
            self.advance(seq, restart, shared);
        }
        self.close_segment(now, key, shared);
        self.release(key, shared);
    }

    /// A writer's body broke off: the segment waits a while for somebody who continues it (D6).
    pub(super) fn broken(
        &mut self,
        now: Time,
        key: SegmentKey,
        place: Key<Writer>,
        shared: &mut Shared,
    ) {
        let Some(writer) = self
            .segments
            .get(key)
            .and_then(|segment| segment.writers.get(place))
        else {
            return;
        };
        if let Some(id) = writer.id {
            // Only half of the connection may be gone.
            let reply = text(500, "Server error\n").header(headers::CONNECTION, "close");
            shared.out.http(id, Out::Reply(reply));
        }
        self.leave_writing(now, key, place, shared);
    }

    /// A timer set for an orphan fired.
    pub(super) fn orphan_due(&mut self, now: Time, key: SegmentKey, shared: &mut Shared) {
        let due = self
            .segments
            .get(key)
            .and_then(|segment| segment.orphan)
            .is_some_and(|until| until <= now);
        if due {
            self.close_segment(now, key, shared);
        }
    }

    // ---- closing ---------------------------------------------------------------------------------------------

    /// DELETE of a seq: whether its slot holds it.
    pub(super) fn delete(&mut self, now: Time, seq: Seq, shared: &mut Shared) -> bool {
        match self.find(seq) {
            Some(key) => {
                self.close_segment(now, key, shared);
                true
            }
            None => false,
        }
    }

    /// The end of the channel: everybody who waits is answered, everybody who reads gets what there is.
    pub(super) fn close(&mut self, now: Time, shared: &mut Shared) {
        self.closed = true;
        for slot in 0..WINDOW {
            self.vacate(now, slot, shared);
        }
        for key in self.segments.keys() {
            self.dismiss(key, shared);
        }
        for id in core::mem::take(&mut self.ahead) {
            shared.out.event(Event::Readable(id));
        }
    }

    // ---- the inside ------------------------------------------------------------------------------------------

    /// Ends the uploads that still run into a closed segment: no waiter survives its channel (trickle spec 12-24).
    fn dismiss(&mut self, key: SegmentKey, shared: &mut Shared) {
        let places = self.segments.get(key).map(|held| held.writers.keys());
        for place in places.into_iter().flatten() {
            let Some(segment) = self.segments.get(key) else {
                return;
            };
            let Some(writer) = segment.writers.get(place) else {
                continue;
            };
            if let Some(id) = writer.id {
                shared.out.http(id, Out::Reply(unwanted(segment.seq)));
            }
            self.stand_up(key, place, shared);
        }
        self.release(key, shared);
    }

    const fn slot(seq: Seq) -> usize {
        (seq.get() % WINDOW as u64) as usize
    }

    fn find(&self, seq: Seq) -> Option<SegmentKey> {
        self.slots[Self::slot(seq)]
            .filter(|key| self.segments.get(*key).is_some_and(|held| held.seq == seq))
    }

    /// Whether a later segment is in this one's slot.
    fn is_taken(&self, seq: Seq) -> bool {
        self.slots[Self::slot(seq)]
            .and_then(|key| self.segments.get(key))
            .is_some_and(|held| held.seq > seq)
    }

    fn install(&mut self, now: Time, seq: Seq, shared: &mut Shared) -> SegmentKey {
        let slot = Self::slot(seq);
        self.vacate(now, slot, shared);
        let key = self.segments.insert(Segment::new(seq));
        self.slots[slot] = Some(key);
        key
    }

    fn vacate(&mut self, now: Time, slot: usize, shared: &mut Shared) {
        let Some(key) = self.slots[slot].take() else {
            return;
        };
        if let Some(segment) = self.segments.get_mut(key) {
            segment.slotted = false;
        }
        self.close_segment(now, key, shared);
        self.release(key, shared);
        self.list_outside(now, key, shared);
    }

    /// The head moves forward, or to where a restarted publisher is (D3, D5).
    fn advance(&mut self, seq: Seq, restart: bool, shared: &mut Shared) {
        let next = seq.next();
        if next > self.head {
            self.head = next;
        } else if restart || seq.plus(RESTART_DISTANCE) <= self.head {
            self.head = next;
            self.restarts += 1;
            self.alarm(shared);
        } else {
            return;
        }
        for id in core::mem::take(&mut self.ahead) {
            shared.out.event(Event::Readable(id));
        }
    }

    /// Tells all local readers that wait on a segment which now may never come.
    fn alarm(&mut self, shared: &mut Shared) {
        for key in self.segments.keys() {
            if let Some(segment) = self.segments.get_mut(key) {
                segment.wake_locals(shared);
            }
        }
    }

    /// A later segment has begun: what was left behind unfinished gets less patience (D6).
    ///
    /// D6 closes it at once. We leave it the time that a publisher with several connections needs to notice that
    /// one of them broke and to continue there, since it may have begun the next segment just before.
    fn overtake(&mut self, now: Time, seq: Seq, shared: &mut Shared) {
        for slot in 0..WINDOW {
            let Some(key) = self.slots[slot] else {
                continue;
            };
            let Some(segment) = self.segments.get_mut(key) else {
                continue;
            };
            if segment.seq < seq
                && let Some(until) = &mut segment.orphan
            {
                *until = (*until).min(now + shared.config.overtaken_grace);
                shared.orphans.insert((*until, self.key, key));
            }
        }
    }

    /// A writer stops before its segment is complete.
    fn leave_writing(
        &mut self,
        now: Time,
        key: SegmentKey,
        place: Key<Writer>,
        shared: &mut Shared,
    ) {
        self.stand_up(key, place, shared);
        let Some(segment) = self.segments.get_mut(key) else {
            return;
        };
        if segment.phase == Phase::Open && segment.writers.is_empty() {
            let grace = if self.head > segment.seq.next() {
                shared
                    .config
                    .overtaken_grace
                    .min(shared.config.orphan_grace)
            } else {
                shared.config.orphan_grace
            };
            segment.orphan = Some(now + grace);
            shared.orphans.insert((now + grace, self.key, key));
        }
        self.release(key, shared);
    }

    fn stand_up(&mut self, key: SegmentKey, place: Key<Writer>, shared: &mut Shared) {
        let Some(writer) = self
            .segments
            .get_mut(key)
            .and_then(|segment| segment.writers.remove(place))
        else {
            return;
        };
        self.guests -= 1;
        match writer.id {
            Some(id) => {
                shared.seats.remove(&id);
            }
            None => self.local = None,
        }
    }

    fn close_segment(&mut self, now: Time, key: SegmentKey, shared: &mut Shared) {
        let Some(segment) = self.segments.get_mut(key) else {
            return;
        };
        if segment.phase == Phase::Closed {
            return;
        }
        let seq = segment.seq;
        segment.phase = Phase::Closed;
        segment.orphan = None;
        for place in segment.writers.keys() {
            let Some(segment) = self.segments.get_mut(key) else {
                return;
            };
            let Some(writer) = segment.writers.get(place) else {
                continue;
            };
            if writer.began {
                continue;
            }
            // It waited for its first byte: as if its body had been empty (trickle spec 5.4-2).
            let (id, restart) = (writer.id, writer.restart);
            segment.writers.remove(place);
            self.guests -= 1;
            self.activity = now;
            self.advance(seq, restart, shared);
            match id {
                Some(id) => {
                    shared.seats.remove(&id);
                    shared.out.http(id, Out::Reply(self.emptied(seq)));
                }
                None => self.local = None,
            }
        }
        self.serve(key, shared);
        self.release(key, shared);
    }

    /// Frees a segment that nobody can reach any more.
    fn release(&mut self, key: SegmentKey, shared: &mut Shared) {
        let Some(segment) = self.segments.get_mut(key) else {
            return;
        };
        if segment.slotted {
            // A reader at a place where nothing came leaves nothing behind.
            let idle = segment.phase == Phase::Fresh
                && segment.readers.is_empty()
                && segment.writers.is_empty()
                && segment.seq != self.head;
            if !idle {
                return;
            }
            self.slots[Self::slot(segment.seq)] = None;
        } else if segment.readers.is_empty() {
            // Only writers are left, whose bytes nobody will see.
            Self::unlist(self.key, key, segment, shared);
            segment.clear(&mut shared.blocks);
        }
        if segment.readers.is_empty() && segment.writers.is_empty() {
            self.segments.remove(key);
        }
    }

    /// The answer to a POST that brought no byte (trickle spec 5.4-4).
    fn emptied(&self, seq: Seq) -> Response {
        let reply = unwanted(seq);
        if self.closed {
            reply.header(headers::CLOSED, "terminated")
        } else {
            reply
        }
    }
}

fn posted(seq: Seq) -> Response {
    Response::new(200).header(headers::SEQ, seq.to_string())
}

/// The answer to a POST whose bytes, if it has any, are dropped (D4, D26).
fn unwanted(seq: Seq) -> Response {
    posted(seq).header(headers::CONNECTION, "close")
}

/// An answer in words.
pub(super) fn text(status: u16, words: &'static str) -> Response {
    Response::new(status)
        .header(headers::CONTENT_TYPE, TEXT)
        .body(Body::Full(Bytes::from_static(words.as_bytes())))
}
