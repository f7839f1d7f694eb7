//! The streams of a machine, and those of them that something happened to: no event costs a walk over all of them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::Stream;
use crate::alarms::Alarms;
use crate::job::byoc::JobId;
use crate::machine::EffectId;
use crate::time::Time;

/// Names whoever an input is for: an exchange of the machine's own, or the child of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Exchange(EffectId),
    Child(u32),
}

/// The streams that are not over.
#[derive(Default)]
pub(in crate::job::byoc) struct Streams {
    all: BTreeMap<JobId, Stream>,
    /// Streams that may have changed since they were settled.
    touched: BTreeSet<JobId>,
    due: Alarms<JobId>,
    names: BTreeMap<Name, JobId>,
    /// The names that each has among these.
    named: BTreeMap<JobId, Vec<Name>>,
}

impl Streams {
    pub(in crate::job::byoc) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn contains_key(&self, id: &JobId) -> bool {
        self.all.contains_key(id)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &JobId> {
        self.all.keys()
    }

    pub(super) fn get(&self, id: &JobId) -> Option<&Stream> {
        self.all.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &JobId) -> Option<&mut Stream> {
        let stream = self.all.get_mut(id)?;
        self.touched.insert(*id);
        Some(stream)
    }

    pub(super) fn insert(&mut self, id: JobId, stream: Stream) {
        self.touched.insert(id);
        self.all.insert(id, stream);
    }

    pub(super) fn remove(&mut self, id: &JobId) -> Option<Stream> {
        self.touched.insert(*id);
        self.all.remove(id)
    }

    /// A stream that is to be settled.
    pub(super) fn touched(&self) -> Option<JobId> {
        self.touched.first().copied()
    }

    /// Notes when a stream is due, and what is its own, as it is now.
    pub(super) fn settle(&mut self, id: JobId) {
        self.touched.remove(&id);
        let stream = self.all.get(&id);
        self.due.set(id, stream.and_then(Stream::wake));
        let names = stream.map(Stream::names).unwrap_or_default();
        let before = match names.is_empty() {
            true => self.named.remove(&id),
            false => self.named.insert(id, names.clone()),
        };
        for name in before.into_iter().flatten() {
            self.names.remove(&name);
        }
        self.names.extend(names.into_iter().map(|name| (name, id)));
    }

    /// When the first of them is due.
    pub(super) fn wake(&self) -> Option<Time> {
        self.due.next()
    }

    /// Streams that are due; they are to be settled again.
    pub(super) fn due(&mut self, now: Time) -> Vec<JobId> {
        let due: Vec<_> = core::iter::from_fn(|| self.due.ring(now)).collect();
        // Whoever does nothing is looked at again all the same.
        self.touched.extend(&due);
        due
    }

    /// The stream that an input is for.
    pub(super) fn owner(&self, id: EffectId) -> Option<JobId> {
        let name = match id.owner() {
            0 => Name::Exchange(id),
            child => Name::Child(child),
        };
        self.names.get(&name).copied()
    }
}
