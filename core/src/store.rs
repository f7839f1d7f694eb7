//! What must survive a crash.

use alloc::string::String;

use bytes::Bytes;

/// One durable fact. A later record with the same key replaces it; no value deletes it.
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
