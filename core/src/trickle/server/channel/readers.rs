//! Readers of a channel, and the bytes that they get (trickle spec 5.5).

use alloc::string::ToString;

use bytes::Bytes;

use super::segment::{Guest, Phase, Reader, next_run};
use super::{Channel, Place, Seat, SegmentKey, Shared, TEXT};
use crate::http::{Body, Headers, Out, Response};
use crate::machine::EffectId;
use crate::time::Time;
use crate::trickle::server::slab::Key;
use crate::trickle::server::{Event, Read, ReaderId};
use crate::trickle::{STATUS_NOT_IN_WINDOW, Seq, headers};

/// The result of looking up a segment: held, with its key, or missing.
#[derive(Clone, Copy, Debug)]
pub(in crate::trickle) enum Asked {
    Held(SegmentKey),
    Missing,
}

impl Channel {
    /// Finds what a reader asked for, precreating it at the head (trickle spec 5.2).
    pub(in crate::trickle) fn look_up(
        &mut self,
        now: Time,
        seq: Seq,
        shared: &mut Shared,
    ) -> Asked {
        if let Some(key) = self.find(seq) {
            return Asked::Held(key);
        }
        let at_head = seq == self.head || (self.head == Seq::ZERO && seq == Seq::new(1));
        if at_head && !self.closed {
            return Asked::Held(self.install(now, seq, shared));
        }
        Asked::Missing
    }

    /// A GET or HEAD of a seq; `asked` is the index as it came (trickle spec 5.5).
    pub(in crate::trickle) fn get(
        &mut self,
        now: Time,
        id: EffectId,
        asked: i64,
        head_only: bool,
        shared: &mut Shared,
    ) {
        let seq = match asked {
            -1 => self.head,
            -2 => self.head.minus(1),
            index => Seq::new(u64::try_from(index).unwrap_or(0)),
        };
        match self.look_up(now, seq, shared) {
            Asked::Missing => {
                let reply = Response::new(STATUS_NOT_IN_WINDOW)
                    .header(headers::LATEST, self.head.to_string())
                    .header(headers::SEQ, asked.to_string())
                    .header(headers::CONTENT_TYPE, TEXT)
                    .body(Body::Full(Bytes::from_static(b"Entry not found")));
                shared.out.http(id, Out::Reply(reply));
            }
            Asked::Held(key) => {
                let guest = Guest::Remote {
                    id,
                    latest: self.head,
                    head_only,
                };
                let Some(segment) = self.segments.get_mut(key) else {
                    return;
                };
                let place = segment.readers.insert(Reader::new(now, guest));
                self.guests += 1;
                shared.seats.insert(
                    id,
                    Seat {
                        channel: self.key,
                        segment: key,
                        place: Place::Reads(place),
                    },
                );
                self.serve_one(key, place, shared);
                self.release(key, shared);
            }
        }
    }

    /// The transport took that many bytes of a reader's.
    pub(in crate::trickle) fn sent(
        &mut self,
        now: Time,
        id: EffectId,
        key: SegmentKey,
        place: Key<Reader>,
        count: usize,
        shared: &mut Shared,
    ) {
        let Some(segment) = self.segments.get_mut(key) else {
            return;
        };
        let Some(reader) = segment.readers.get_mut(place) else {
            return;
        };
        let was = reader.in_flight;
        reader.in_flight = was.saturating_sub(count);
        reader.moved = now;
        if reader.ended {
            if reader.in_flight == 0 {
                segment.readers.remove(place);
                shared.seats.remove(&id);
                self.release(key, shared);
            }
        } else if was >= shared.config.reader_window {
            self.serve_one(key, place, shared);
            self.release(key, shared);
        }
    }

    /// A reader's connection is gone (D7).
    pub(in crate::trickle) fn leave_reading(
        &mut self,
        key: SegmentKey,
        place: Key<Reader>,
        shared: &mut Shared,
    ) {
        let Some(segment) = self.segments.get_mut(key) else {
            return;
        };
        if let Some(reader) = segment.readers.remove(place) {
            self.guests -= usize::from(!reader.ended);
        }
        self.release(key, shared);
    }

    /// Takes a seat for an embedder's reader at a segment that [`Channel::look_up`] found.
    pub(in crate::trickle) fn sit(
        &mut self,
        now: Time,
        key: SegmentKey,
        id: ReaderId,
    ) -> Option<Key<Reader>> {
        let segment = self.segments.get_mut(key)?;
        let place = segment
            .readers
            .insert(Reader::new(now, Guest::Local { id, waits: false }));
        self.guests += 1;
        Some(place)
    }

    /// The next bytes of a segment for a local reader; [`Read::Pending`] sets the alarm.
    pub(in crate::trickle) fn read(
        &mut self,
        now: Time,
        key: SegmentKey,
        place: Key<Reader>,
    ) -> Read {
        let content = self.content.clone();
        let Some(segment) = self.segments.get_mut(key) else {
            return Read::Pending;
        };
        let seq = segment.seq;
        let Some(reader) = segment.readers.get_mut(place) else {
            return Read::Pending;
        };
        reader.moved = now;
        if !reader.began && self.closed && segment.len == 0 {
            // It never came, because the channel ended.
            return Read::Ended;
        }
        if !reader.began && segment.phase != Phase::Fresh {
            reader.began = true;
            return Read::Begin(seq, content);
        }
        if let Some(bytes) = next_run(&segment.chunks, &mut reader.at) {
            return Read::Data(seq, bytes);
        }
        if segment.phase == Phase::Closed {
            return Read::End(seq);
        }
        if let Guest::Local { waits, .. } = &mut reader.guest {
            *waits = true;
        }
        Read::Pending
    }

    /// The seq of a segment, and whether nobody has written to it.
    pub(in crate::trickle) fn peek(&self, key: SegmentKey) -> Option<(Seq, bool)> {
        self.segments
            .get(key)
            .map(|segment| (segment.seq, segment.phase == Phase::Fresh))
    }

    /// Wakes a local reader when the head moves.
    pub(in crate::trickle) fn wait_for_head(&mut self, id: ReaderId) {
        if !self.ahead.contains(&id) {
            self.ahead.push(id);
        }
    }

    /// Gives every reader of a segment what it may have.
    pub(super) fn serve(&mut self, key: SegmentKey, shared: &mut Shared) {
        let places = self.segments.get(key).map(|held| held.readers.keys());
        for place in places.into_iter().flatten() {
            self.serve_one(key, place, shared);
        }
    }

    pub(super) fn serve_one(&mut self, key: SegmentKey, place: Key<Reader>, shared: &mut Shared) {
        let Some(segment) = self.segments.get_mut(key) else {
            return;
        };
        let Some(reader) = segment.readers.get_mut(place) else {
            return;
        };
        if reader.ended {
            return;
        }
        let (id, latest, head_only) = match &mut reader.guest {
            Guest::Remote {
                id,
                latest,
                head_only,
            } => (*id, *latest, *head_only),
            Guest::Local { id, waits } => {
                if core::mem::take(waits) {
                    shared.out.event(Event::Readable(*id));
                }
                return;
            }
        };
        let closed = segment.phase == Phase::Closed;
        let mut done = false;
        if !reader.began {
            if segment.len == 0 {
                if !closed {
                    return;
                }
                let mut reply = Response::new(200)
                    .header(headers::SEQ, segment.seq.to_string())
                    .header(headers::LATEST, self.head.to_string());
                if self.closed {
                    reply = reply.header(headers::CLOSED, "terminated");
                }
                shared.out.http(id, Out::Reply(reply));
                done = true;
            } else {
                let mut reply = Response::new(200).header(headers::SEQ, segment.seq.to_string());
                if latest != segment.seq {
                    reply = reply.header(headers::LATEST, latest.to_string());
                }
                reply = reply.header(headers::CONTENT_TYPE, self.content.as_str());
                if head_only {
                    shared.out.http(id, Out::Reply(reply));
                    done = true;
                } else {
                    reader.began = true;
                    shared.out.http(id, Out::Reply(reply.body(Body::Stream)));
                }
            }
        }
        if !done {
            loop {
                if reader.in_flight >= shared.config.reader_window {
                    return;
                }
                match next_run(&segment.chunks, &mut reader.at) {
                    Some(bytes) => {
                        reader.in_flight += bytes.len();
                        shared.out.http(id, Out::Data(bytes));
                        if reader.in_flight >= shared.config.reader_window {
                            shared.out.http(id, Out::Report);
                        }
                    }
                    None if closed => break,
                    None => return,
                }
            }
            shared.out.http(id, Out::End(Headers::new()));
            reader.ended = reader.in_flight > 0;
        }
        self.guests -= 1;
        if !reader.ended {
            segment.readers.remove(place);
            shared.seats.remove(&id);
        }
    }
}
