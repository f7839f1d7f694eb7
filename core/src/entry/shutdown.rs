//! The end of a gateway, as its streams see it.

use alloc::vec::Vec;

use super::{Entry, StreamId};
use crate::time::Time;
use crate::wire::entry::draining_event;

/// A shutdown that was begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shutdown {
    /// From then on no new stream is taken in.
    pub(super) closes: Time,
    /// Streams that are left are ended then.
    pub(super) ends: Time,
}

impl Entry {
    /// Begins to shut down, which is told of every stream, so that its publisher goes elsewhere in time. No new stream is
    /// taken in from `closes` on. Those that there are go on, with a sender that comes back, too, until `ends`.
    pub fn drain(&mut self, now: Time, closes: Time, ends: Time) {
        self.shutdown = Some(Shutdown { closes, ends });
        self.advance(now);
        let all: Vec<_> = self.streams.keys().copied().collect();
        for id in all {
            self.tell_shutdown(id);
        }
    }

    /// Ends all streams, and takes in no others.
    pub fn stop_all(&mut self, now: Time) {
        let (closes, ends) = (self.now.max(now), self.now.max(now));
        self.shutdown = Some(Shutdown { closes, ends });
        self.advance(now);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.shutdown.is_some_and(|down| down.closes <= self.now)
    }

    /// Tells the publisher of a stream that we shut down, if we do.
    pub(super) fn tell_shutdown(&mut self, id: StreamId) {
        if let (Some(down), Some(stream)) = (self.shutdown, self.streams.get(&id)) {
            let event = draining_event(&stream.context(), self.now, down.ends);
            self.report("ai_stream_events", event);
        }
    }
}
