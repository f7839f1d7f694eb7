//! Bytes of peers that cannot be read.

use alloc::string::String;

use crate::error::Cause;

/// A peer's bytes that cannot be what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct WireError {
    /// The thing that it should have been.
    pub what: &'static str,
    /// How it is wrong.
    pub why: String,
}

impl WireError {
    /// Names what is wrong with what.
    pub fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self {
            what,
            why: why.into(),
        }
    }
}

impl From<WireError> for Cause {
    fn from(WireError { what, why }: WireError) -> Self {
        Self::Nonsense { what, why }
    }
}

/// The beginning of a peer's text, short enough for an error line.
pub(crate) fn cut(text: &str) -> &str {
    const SHOWN: usize = 200;
    let mut end = text.len().min(SHOWN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
