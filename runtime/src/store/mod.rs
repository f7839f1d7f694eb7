//! Stores: where records go, and where they come from after a restart.
//!
//! | store | survives | for |
//! |---|---|---|
//! | [`MemoryStore`] | nothing | tests, development, machines that store nothing of value |
//! | [`Sqlite`], with the feature `sqlite` | crash and power loss | whatever would lose money if forgotten |
//!
//! A driver is given one with [`Driver::with_store`](crate::Driver::with_store); what an earlier run stored is
//! read with [`Store::load`] and handed to the machines' constructors before they are driven.

#[cfg(feature = "sqlite")]
mod sqlite;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use livepeer_core::store::Record;

use crate::keys::Pending;
use crate::lock;

#[cfg(feature = "sqlite")]
pub use sqlite::{OpenError, Sqlite};

/// Keeps records through crashes.
pub trait Store: Send + Sync + 'static {
    /// Makes all of these durable, in order. A machine's next records come when this has ended.
    ///
    /// If it fails, all of them count as not stored, and the machine that asked decides what that means: it speaks of
    /// none of them, and asks again if that helps. Later calls must be able to succeed.
    fn put(&self, records: Vec<Record>) -> Pending<'_, io::Result<()>>;

    /// Reads all records whose key begins with `prefix`, by key; the empty prefix means all. Waits for the disk, so it
    /// is for the start of a program.
    ///
    /// # Errors
    /// If they cannot be read.
    fn load(&self, prefix: &str) -> io::Result<Vec<Record>>;
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
        self.beginning_with("")
    }

    fn beginning_with(&self, prefix: &str) -> Vec<Record> {
        lock(&self.0)
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
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

    fn load(&self, prefix: &str) -> io::Result<Vec<Record>> {
        Ok(self.beginning_with(prefix))
    }
}
