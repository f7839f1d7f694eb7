//! Answers of language models, whole and in chunks (jobs spec 2.3, 2.8).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::judge::client_text;
use crate::wire::WireError;

/// An answer of a language model, or a chunk of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Names the answer; the same in all of its chunks.
    pub id: String,
    /// The model that wrote it.
    pub model: String,
    /// When it was begun, in seconds since 1970.
    pub created: i64,
    /// The tokens up to here.
    pub usage: Usage,
    /// The alternatives: one as a rule, none in a chunk that tells the usage alone.
    pub choices: Vec<Choice>,
}

/// Tokens read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Tokens written.
    pub completion_tokens: u64,
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Both.
    pub total_tokens: u64,
}

/// An alternative.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The number of the alternative.
    pub index: i64,
    /// The words: all of them, or those that a chunk adds.
    pub content: String,
    /// Why the words end here; empty as long as they do not.
    pub finish_reason: String,
}

impl Completion {
    /// Reads a whole answer, or the payload of a chunk.
    ///
    /// # Errors
    /// If it is no JSON object with `choices`.
    pub(super) fn read(body: &[u8]) -> Result<Self, WireError> {
        let why = |why: &str| WireError::new("an answer", why);
        let raw = Raw::read(body).ok_or_else(|| why("not one of llm"))?;
        Self::of(raw).ok_or_else(|| why("without choices"))
    }

    /// The completion that was read; `None` if it has no `choices`.
    fn of(raw: Raw<'_>) -> Option<Self> {
        let choices = raw.choices?;
        Some(Self {
            id: raw.id.unwrap_or_default(),
            model: raw.model.unwrap_or_default(),
            created: raw.created.unwrap_or_default(),
            usage: raw.usage.unwrap_or_default(),
            choices: choices.into_iter().map(Choice::from).collect(),
        })
    }

    /// Whether this is the last chunk.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.choices
            .iter()
            .any(|choice| !choice.finish_reason.is_empty())
    }
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    choices: Option<Vec<RawChoice>>,
    id: Option<String>,
    model: Option<String>,
    created: Option<i64>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct RawChoice {
    index: Option<i64>,
    delta: Option<RawMessage>,
    message: Option<RawMessage>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct RawMessage {
    content: Option<String>,
}

impl<'a> Raw<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        // Of a text each string in it is known to be one.
        let text = core::str::from_utf8(body).ok()?;
        serde_json::from_str::<Option<Self>>(text).ok().flatten()
    }
}

impl From<RawChoice> for Choice {
    fn from(raw: RawChoice) -> Self {
        let content = |message: Option<RawMessage>| message.and_then(|message| message.content);
        // A runner's whole answer has both, with the same words.
        let words = content(raw.message).or_else(|| content(raw.delta));
        Self {
            index: raw.index.unwrap_or_default(),
            content: words.unwrap_or_default(),
            finish_reason: raw.finish_reason.unwrap_or_default(),
        }
    }
}

/// The payload of one event of a stream, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Words, or usage. The stream is over after a chunk that [is finished](Completion::is_finished).
    Part(Completion),
    /// `[DONE]`. Without a finished chunk before it, it ends nothing.
    Done,
    /// The runner failed; with its words, as far as a client may read them.
    Failed(String),
    /// Nothing that we can read: to be passed over.
    Skipped,
}

/// Understands the payload of one event.
#[must_use]
pub fn read_chunk(payload: &[u8]) -> Chunk {
    if payload.trim_ascii() == b"[DONE]" {
        return Chunk::Done;
    }
    let Some(raw) = Raw::read(payload) else {
        return Chunk::Skipped;
    };
    if let Some(error) = raw.error {
        return Chunk::Failed(error_text(error.get()));
    }
    match Completion::of(raw) {
        Some(completion) => Chunk::Part(completion),
        // A reference orchestrator turns a runner's error into such a chunk.
        None => Chunk::Failed("the runner failed in the middle of its answer".into()),
    }
}

/// The words of an error: a text, or an object with a message.
fn error_text(json: &str) -> String {
    let text = match serde_json::from_str(json) {
        Ok(Value::String(text)) => text,
        Ok(Value::Object(map)) => match map.get("message") {
            Some(Value::String(text)) => text.clone(),
            _ => "the runner failed".to_string(),
        },
        _ => "the runner failed".to_string(),
    };
    client_text(&text)
}

/// The payload of an event, or a whole answer, as clients of the reference get it: without the optional members of
/// choices that are `null`. Everything else stays as it came; mostly that is all of it, and then nothing is copied.
#[must_use]
pub fn native_chunk(payload: &Bytes) -> Bytes {
    const OPTIONAL: [&str; 3] = ["finish_reason", "delta", "message"];
    // What is no text is no JSON either.
    if !core::str::from_utf8(payload).is_ok_and(|text| text.contains("null")) {
        return payload.clone();
    }
    let Ok(Value::Object(mut map)) = serde_json::from_slice::<Value>(payload) else {
        return payload.clone();
    };
    let mut changed = false;
    if let Some(Value::Array(choices)) = map.get_mut("choices") {
        for choice in choices.iter_mut().filter_map(Value::as_object_mut) {
            for name in OPTIONAL {
                if choice.get(name).is_some_and(Value::is_null) {
                    choice.remove(name);
                    changed = true;
                }
            }
        }
    }
    if changed {
        Value::Object(map).to_string().into()
    } else {
        payload.clone()
    }
}

/// The payload of the event that tells a client that its stream is broken.
#[must_use]
pub fn native_error(text: &str) -> Bytes {
    let error = Map::from_iter([("error".to_string(), Value::from(text))]);
    format!("{}", Value::Object(error)).into()
}
