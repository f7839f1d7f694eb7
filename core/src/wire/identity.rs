//! The remote signer's answer on the identity of the payer.

use alloc::format;
use alloc::string::{String, ToString};

use serde::Deserialize;

use super::error::WireError;
use super::error::cut;
use crate::sign::{Address, Digest, Signature};

/// The longest answer that is accepted.
pub const MAX_IDENTITY_BYTES: usize = 64 << 10;

const WHAT: &str = "identity";

#[derive(Deserialize)]
struct Answer {
    address: String,
    signature: String,
}

/// Reads `{"address", "signature"}`, hex with or without `0x` (handshake spec 3), and checks that the one signed
/// the text of the other.
///
/// # Errors
/// If it is anything else.
pub fn read_identity(body: &[u8]) -> Result<(Address, Signature), WireError> {
    let bad = |why| WireError::new(WHAT, why);
    let answer: Answer =
        serde_json::from_slice(body).map_err(|err| bad(format!("not the JSON object: {err}")))?;
    let address: Address = answer
        .address
        .parse()
        .map_err(|err| bad(format!("address {:?}: {err}", cut(&answer.address))))?;
    let signature = hex_of(&answer.signature)
        .and_then(|bytes| Signature::from_slice(&bytes).map_err(|err| err.to_string()))
        .map_err(bad)?;
    check_identity(address, &signature)?;
    Ok((address, signature))
}

/// Whether `signature` is the node signature of `address` over its own text.
///
/// # Errors
/// If it is not; no orchestrator with a chain would answer it.
pub fn check_identity(address: Address, signature: &Signature) -> Result<(), WireError> {
    signature
        .verify(identity_digest(address), address)
        .map_err(|err| WireError::new(WHAT, err.to_string()))
}

/// The digest that a payer signs to introduce itself: of its own EIP-55 text (handshake spec 3).
#[must_use]
pub fn identity_digest(address: Address) -> Digest {
    Digest::node(address.checksummed().as_bytes())
}

pub(super) fn hex_of(text: &str) -> Result<alloc::vec::Vec<u8>, String> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text);
    hex::decode(digits).map_err(|err| format!("signature {:?}: {err}", cut(text)))
}

/// The words of an error answer: what JSON of the usual shapes says, else the text itself, cut.
#[must_use]
pub fn error_words(body: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Shape {
        Nested { error: Message },
        Flat { error: String },
        Bare(Message),
    }
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    let text = String::from_utf8_lossy(body);
    let words = match serde_json::from_slice(body) {
        Ok(Shape::Nested { error } | Shape::Bare(error)) => error.message,
        Ok(Shape::Flat { error }) => error,
        Err(_) => text.trim().to_string(),
    };
    cut(&words).to_string()
}
