//! Where records go.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use livepeer_core::store::Record;

use crate::keys::Pending;
use crate::lock;

/// Keeps records through crashes.
pub trait Store: Send + Sync + 'static {
    /// Makes all of these durable, in order. A machine's next records come when this has ended.
    ///
    /// If it fails, the machine is never told that they are stored, and so never speaks of them.
    fn put(&self, records: Vec<Record>) -> Pending<'_, io::Result<()>>;
}

/// Keeps records until the process ends: for tests, and for machines that store nothing of value. Clones share
/// their records.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<BTreeMap<String, Bytes>>>);

impl MemoryStore {
    /// The value kept under `key`.
    pub fn get(&self, key: &str) -> Option<Bytes> {
        lock(&self.0).get(key).cloned()
    }

    /// All records, by key.
    pub fn records(&self) -> Vec<Record> {
        lock(&self.0)
            .iter()
            .map(|(key, value)| Record {
                key: key.clone(),
                value: Some(value.clone()),
            })
            .collect()
    }
}

impl Store for MemoryStore {
    fn put(&self, records: Vec<Record>) -> Pending<'_, io::Result<()>> {
        let mut kept = lock(&self.0);
        for Record { key, value } in records {
            match value {
                Some(value) => kept.insert(key, value),
                None => kept.remove(&key),
            };
        }
        Box::pin(std::future::ready(Ok(())))
    }
}
