//! State that must survive a crash.

use alloc::string::String;

use core::time::Duration;

use bytes::Bytes;

/// The longest that the store may take for a record. One that takes longer counts as failed: whoever waits for it
/// speaks.
pub const STORE_WITHIN: Duration = Duration::from_secs(30);

/// The store did not make a record durable, or cannot say that it did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store did not keep a record: {0}")]
pub struct StoreFailed(pub String);

impl StoreFailed {
    /// The store did not answer in time.
    pub(crate) fn late() -> Self {
        Self("no answer in time".into())
    }
}

/// A durable fact. A later record with the same key replaces it; no value deletes it.
///
/// A machine says what to keep; where and how is the driver's matter. Records come back through the
/// constructors that accept them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The kind of record, a colon, then what identifies it: `nonce:0x…`.
    pub key: String,
    /// The bytes to keep, or `None` to forget the key.
    pub value: Option<Bytes>,
}
