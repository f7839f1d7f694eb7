//! Pictures of a stream as they were seen somewhere: how many, whether one is missing, and how late they came.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clip::Stamp;

/// The pictures of one stream at one place.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) seen: u64,
    /// Pictures between others that did not come, or not in their turn.
    pub(crate) missing: u64,
    last: Option<u64>,
    /// How old pictures were that were sent at that time or later.
    late: Vec<Duration>,
    since: Option<u64>,
}

impl Tally {
    /// From now on the age of pictures counts that are sent at that time, in nanoseconds since 1970, or later.
    pub(crate) fn measure(&mut self, since: u64) {
        self.since = Some(since);
        self.late.clear();
    }

    /// A picture is there.
    pub(crate) fn see(&mut self, stamp: Stamp) {
        self.seen += 1;
        let next = self.last.map_or(stamp.number, |last| last + 1);
        self.missing += stamp.number.abs_diff(next);
        self.last = Some(stamp.number);
        if self.since.is_some_and(|since| stamp.nanos >= since) {
            self.late.push(stamp.age());
        }
    }

    /// The number of the last picture; `None` if there was none.
    pub(crate) const fn last(&self) -> Option<u64> {
        self.last
    }

    pub(crate) fn take_late(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.late)
    }
}

/// A stream from its sender to its viewer.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Pictures that were given to the sender.
    pub(crate) sent: Mutex<u64>,
    /// Pictures that the model has whole.
    pub(crate) wire: Mutex<Tally>,
    /// Pictures that the viewer has whole.
    pub(crate) shown: Mutex<Tally>,
}

/// Locks a value that stays good whatever its users did.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
