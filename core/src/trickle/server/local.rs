//! Reading a channel in-process: at its own pace, out of the channel's window.

use super::channel::{Asked, Channel, ChannelKey, Reader, SegmentKey, Shared};
use super::slab::Key;
use super::{Read, ReaderId};
use crate::time::Time;
use crate::trickle::Seq;

#[derive(Debug)]
pub(super) struct Local {
    pub(super) channel: ChannelKey,
    /// Segment and place.
    pub(super) seat: Option<(SegmentKey, Key<Reader>)>,
    pub(super) next: Seq,
    /// The channel's restarts when `next` was set.
    pub(super) restarts: u32,
}

impl Local {
    pub(super) fn read(
        &mut self,
        now: Time,
        id: ReaderId,
        channel: &mut Channel,
        shared: &mut Shared,
    ) -> Read {
        if let Some((segment, place)) = self.seat {
            let read = channel.read(now, segment, place);
            match read {
                Read::End(seq) => {
                    channel.leave_reading(segment, place, shared);
                    self.seat = None;
                    self.next = seq.next();
                    return read;
                }
                Read::Pending if channel.restarts != self.restarts => {
                    // Parked where the publisher of before would have written next?
                    let Some((seq, true)) = channel.peek(segment) else {
                        return read;
                    };
                    if seq <= channel.head {
                        return read;
                    }
                    channel.leave_reading(segment, place, shared);
                    self.seat = None;
                }
                _ => return read,
            }
        }
        if channel.closed {
            return Read::Ended;
        }
        match channel.look_up(now, self.next, shared) {
            Asked::Held(segment) => {
                self.seat = channel.sit(now, segment, id).map(|place| (segment, place));
                self.restarts = channel.restarts;
                match self.seat {
                    Some((segment, place)) => channel.read(now, segment, place),
                    None => Read::Pending,
                }
            }
            Asked::Missing if channel.head > self.next => {
                let from = core::mem::replace(&mut self.next, channel.head);
                Read::Gap(from..channel.head)
            }
            Asked::Missing if channel.restarts != self.restarts => {
                self.restarts = channel.restarts;
                self.next = channel.head.minus(1);
                Read::Discontinuity
            }
            Asked::Missing => {
                channel.wait_for_head(id);
                Read::Pending
            }
        }
    }
}
