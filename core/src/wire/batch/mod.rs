//! Batch AI on the wire: nine pipelines of one request and one answer, as data (jobs spec 2).
//!
//! A [`BatchRequest`] is read from a client's JSON or form, or set field by field; [`BatchRequest::check`] finds what is
//! the client's fault without a decoder, [`BatchRequest::measured`] takes what a decoder says about the file, and
//! [`BatchRequest::encode`] writes what an orchestrator gets. Back comes a status and a body: [`judge()`] says whose turn it
//! is, and [`read_answer`] reads a success. What differs between pipelines is in the tables of [`fields`] and nowhere else.

mod answer;
mod encode;
pub mod fields;
mod judge;
mod llm;
mod read;
mod request;
mod value;

pub use answer::{Answer, Image, MAX_IMAGES, NoAnswer, TextChunk, data_url, read_answer};
pub use encode::Encoded;
pub use judge::{Grounds, MAX_CLIENT_TEXT, Verdict, client_text, judge};
pub use llm::{Choice, Chunk, Completion, Usage, native_chunk, native_error, read_chunk};
pub use request::{BatchRequest, FRAMES_PAID, FilePart, MAX_PIXELS, Media, Probe};

use alloc::string::String;

/// At most this many bytes of a JSON request are read: the limit that a front door sets.
pub const MAX_JSON_BYTES: usize = 4 << 20;

/// At most this many brackets of a JSON request are open at once.
pub const MAX_NESTING: usize = 64;

/// At most this many messages are in a request to a language model.
pub const MAX_MESSAGES: usize = 2_048;

/// A request that is the client's to mend; displays as the sentence that the client gets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct BadRequest {
    /// The sentence: what is wrong, and what would be right.
    pub text: String,
    /// The field that it is about.
    pub param: Option<String>,
}

impl BadRequest {
    /// A fault of the request as a whole.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            param: None,
        }
    }

    /// A fault of one field.
    #[must_use]
    pub fn of(param: &str, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            param: Some(param.into()),
        }
    }
}
