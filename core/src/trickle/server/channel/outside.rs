//! Segments held outside the windows: they left theirs while somebody read them.
//!
//! A segment in the window is there for everybody. One that has left it is there for its readers alone, who get it to
//! its end (trickle spec 5.4), and so does whoever takes nothing hold all of it. Such readers are let go after
//! [`Config::stall_within`](crate::trickle::server::Config::stall_within), and all segments outside have room in
//! [`Config::max_outside_bytes`](crate::trickle::server::Config::max_outside_bytes): beyond, the one whose readers
//! have waited longest goes first.

use alloc::collections::BTreeSet;

use super::segment::{Guest, Listed, Segment};
use super::{Channel, ChannelKey, SegmentKey, Shared};
use crate::time::Time;

/// The segments outside the windows of all channels.
#[derive(Debug, Default)]
pub(in crate::trickle) struct Outside {
    bytes: usize,
    /// When to look at the readers of which segment of which channel.
    due: BTreeSet<(Time, ChannelKey, SegmentKey)>,
}

impl Outside {
    /// How many bytes they have.
    pub(in crate::trickle) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The segment to look at next: when, of which channel, and which one.
    pub(in crate::trickle) fn first(&self) -> Option<(Time, ChannelKey, SegmentKey)> {
        self.due.first().copied()
    }
}

impl Channel {
    /// Lists a segment that has left the window, if somebody still reads it.
    pub(super) fn list_outside(&mut self, now: Time, key: SegmentKey, shared: &mut Shared) {
        let Some(segment) = self.segments.get_mut(key) else {
            return;
        };
        if segment.slotted || segment.readers.is_empty() || segment.outside.is_some() {
            return;
        }
        let due = now + shared.config.stall_within;
        segment.outside = Some(Listed { since: now, due });
        shared.outside.bytes += segment.len;
        shared.outside.due.insert((due, self.key, key));
    }

    /// Strikes a segment off that nobody reads any more.
    pub(super) fn unlist(
        channel: ChannelKey,
        key: SegmentKey,
        segment: &mut Segment,
        shared: &mut Shared,
    ) {
        if let Some(listed) = segment.outside.take() {
            shared.outside.bytes -= segment.len;
            shared.outside.due.remove(&(listed.due, channel, key));
        }
    }

    /// Lets go of a segment's readers that have taken nothing for too long; of all of them, if `full` says that there
    /// is no room for the segment and none has taken anything since the last look.
    pub(in crate::trickle) fn let_go(
        &mut self,
        now: Time,
        key: SegmentKey,
        full: bool,
        shared: &mut Shared,
    ) {
        let channel = self.key;
        let Some(segment) = self.segments.get_mut(key) else {
            return;
        };
        let Some(listed) = segment.outside else {
            return;
        };
        let stall_within = shared.config.stall_within;
        let until = |moved: Time| moved.max(listed.since) + stall_within;
        let readers = segment.readers.values();
        let first = readers.map(|reader| until(reader.moved)).min();
        let all = full && first == Some(listed.due);
        let mut next = None;
        for place in segment.readers.keys() {
            let Some(reader) = segment.readers.get(place) else {
                continue;
            };
            let until = until(reader.moved);
            if until > now && !all {
                next = crate::machine::earlier(next, Some(until));
                continue;
            }
            match reader.guest {
                Guest::Remote { id, .. } => {
                    shared.out.abort(id);
                    shared.seats.remove(&id);
                }
                Guest::Local { id, .. } => shared.unseated.push((id, segment.seq)),
            }
            self.guests -= usize::from(!reader.ended);
            segment.readers.remove(place);
        }
        if let Some(due) = next {
            shared.outside.due.remove(&(listed.due, channel, key));
            shared.outside.due.insert((due, channel, key));
            segment.outside = Some(Listed { due, ..listed });
        }
        self.release(key, shared);
    }
}
