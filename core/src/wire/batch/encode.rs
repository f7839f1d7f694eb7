//! Requests as they go to orchestrators: JSON, or a form with the file first (jobs spec 2.2).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::fields::{self, Message, Value};
use super::request::BatchRequest;
use crate::http::Body;
use crate::wire::multipart;

/// A body, in pieces that follow each other, and its type. A file is a piece of its own, shared and not copied.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The value of `content-type`.
    pub content_type: String,
    /// The body.
    pub pieces: Vec<Bytes>,
}

impl Encoded {
    /// The length of the body in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Whether the body has no bytes, which it never has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The body as it goes out: nothing is copied.
    #[must_use]
    pub fn into_body(self) -> Body {
        Body::Pieces(self.pieces)
    }

    /// The body in one piece: copied, unless it is one piece already.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match &self.pieces[..] {
            [only] => only.clone(),
            pieces => pieces.concat().into(),
        }
    }
}

impl BatchRequest {
    /// Writes the request for an orchestrator. The boundary of forms is `random` in 60 hexadecimal digits.
    #[must_use]
    pub fn encode(&self, random: &[u8; 30]) -> Encoded {
        let Some(part) = fields::file_of(self.pipeline()) else {
            let json = serde_json::to_vec(&Json(self)).expect("texts and numbers always serialise");
            return Encoded {
                content_type: "application/json".into(),
                pieces: [json.into()].into(),
            };
        };
        let mut form = multipart::Writer::new(&hex::encode(random));
        if let Some(file) = self.file() {
            form.file(part, &file.name, file.content.clone());
        }
        for (field, value) in self.sent() {
            let text = match value.as_ref() {
                Value::Text(text) => text.clone(),
                Value::Integer(number) => number.to_string(),
                Value::Float(number) => format!("{number:.6}"),
                Value::Flag(flag) => flag.to_string(),
                Value::Messages(messages) => {
                    serde_json::to_string(messages).expect("texts always serialise")
                }
            };
            form.text(field.name, &text);
        }
        Encoded {
            content_type: form.content_type(),
            pieces: form.end(),
        }
    }
}

/// The fields as one object, sorted by name.
struct Json<'a>(&'a BatchRequest);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (field, value) in self.0.sent() {
            match value.as_ref() {
                Value::Text(text) => map.serialize_entry(field.name, text)?,
                Value::Integer(number) => map.serialize_entry(field.name, number)?,
                Value::Float(number) => map.serialize_entry(field.name, number)?,
                Value::Flag(flag) => map.serialize_entry(field.name, flag)?,
                Value::Messages(messages) => map.serialize_entry(field.name, messages)?,
            }
        }
        map.end()
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("content", &self.content)?;
        map.serialize_entry("role", &self.role)?;
        map.end()
    }
}
