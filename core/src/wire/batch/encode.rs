//! Requests as they go to orchestrators: JSON, or a form with the file first (jobs spec 2.2).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use super::fields::{self, Message, Value};
use super::request::BatchRequest;
use crate::http::Body;
use crate::wire::json::{push_number, push_text};
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
            return Encoded {
                content_type: "application/json".into(),
                pieces: [json(self).into()].into(),
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
                    let mut json = Vec::new();
                    push_messages(&mut json, messages);
                    String::from_utf8(json).expect("JSON of texts is text")
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
fn json(request: &BatchRequest) -> Vec<u8> {
    // All that is large are texts, which seldom have much to escape.
    let texts = |value: &Value| match value {
        Value::Text(text) => text.len(),
        Value::Messages(all) => all.iter().map(|one| one.content.len() + 40).sum(),
        _ => 0,
    };
    let room: usize = request.sent().map(|(_, value)| texts(&value) + 40).sum();
    let mut out = Vec::with_capacity(room);
    for (field, value) in request.sent() {
        out.push(if out.is_empty() { b'{' } else { b',' });
        push_text(&mut out, field.name);
        out.push(b':');
        match value.as_ref() {
            Value::Text(text) => push_text(&mut out, text),
            Value::Integer(number) => push_number(&mut out, *number),
            Value::Float(number) => {
                let number = serde_json::to_vec(number).expect("numbers always serialise");
                out.extend_from_slice(&number);
            }
            Value::Flag(true) => out.extend_from_slice(b"true"),
            Value::Flag(false) => out.extend_from_slice(b"false"),
            Value::Messages(messages) => push_messages(&mut out, messages),
        }
    }
    if out.is_empty() {
        out.push(b'{');
    }
    out.push(b'}');
    out
}

fn push_messages(out: &mut Vec<u8>, messages: &[Message]) {
    out.push(b'[');
    for (at, message) in messages.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"{" } else { b",{" });
        out.extend_from_slice(b"\"content\":");
        push_text(out, &message.content);
        out.extend_from_slice(b",\"role\":");
        push_text(out, &message.role);
        out.push(b'}');
    }
    out.push(b']');
}
