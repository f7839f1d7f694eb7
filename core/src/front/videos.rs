//! Videos that are made in the background, for callers that come back for the result (jobs spec 2.1).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;

use bytes::Bytes;

use super::types::MAX_VIDEOS;
use crate::time::Time;

/// The videos that are being made, and the results of those that are done.
#[derive(Debug, Default)]
pub(super) struct Videos {
    /// The result, once there is one.
    all: BTreeMap<String, Option<Bytes>>,
    /// Videos that are done, and when they are forgotten.
    done: VecDeque<(Time, String)>,
}

impl Videos {
    pub(super) fn has(&self, id: &str) -> bool {
        self.all.contains_key(id)
    }

    /// Begins a video; false if there are too many that are being made.
    pub(super) fn begin(&mut self, id: &str) -> bool {
        if self.all.len() >= MAX_VIDEOS {
            let Some((_, oldest)) = self.done.pop_front() else {
                return false;
            };
            self.all.remove(&oldest);
        }
        self.all.insert(id.into(), None);
        true
    }

    /// Notes the result, which is kept until then.
    pub(super) fn finish(&mut self, id: &str, result: Bytes, until: Time) {
        self.all.insert(id.into(), Some(result));
        self.done.push_back((until, id.into()));
    }

    /// The state of a video: no result while it is being made.
    pub(super) fn get(&self, id: &str) -> Option<&Option<Bytes>> {
        self.all.get(id)
    }

    /// Forgets results that are over.
    pub(super) fn tick(&mut self, now: Time) {
        while self.next().is_some_and(|until| until <= now) {
            if let Some((_, id)) = self.done.pop_front() {
                self.all.remove(&id);
            }
        }
    }

    /// When a result is forgotten next.
    pub(super) fn next(&self) -> Option<Time> {
        self.done.front().map(|(until, _)| *until)
    }
}
