//! Values of fields, from JSON as Go reads it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::BadRequest;
use super::fields::{Field, Kind, Message, Value};
use crate::wire::json::{self, Members};

/// At most this many members are in a request: many times more than any pipeline knows.
pub(super) const MAX_MEMBERS: usize = 1_000;

/// The value of a field, from JSON.
pub(super) fn typed(field: &Field, json: &str) -> Result<Value, BadRequest> {
    let value = match field.kind {
        Kind::Model | Kind::Text => json::unquoted(json).map(Value::Text),
        // Go takes no fraction and no exponent here.
        Kind::Integer => json.parse().ok().map(Value::Integer),
        Kind::Float => serde_json::from_str(json).ok().map(Value::Float),
        Kind::Flag => serde_json::from_str(json).ok().map(Value::Flag),
        Kind::Messages => return messages(json).map(Value::Messages),
    };
    value.ok_or_else(|| wrong_kind(field))
}

/// A conversation, from JSON: whatever else a message has stays behind.
pub(super) fn messages(json: &str) -> Result<Vec<Message>, BadRequest> {
    let bad = |text: String| BadRequest::of("messages", text);
    let all: Vec<Members<MAX_MEMBERS>> = serde_json::from_str(json)
        .map_err(|_| bad(format!("messages must be {}", Kind::Messages.described())))?;
    let message = |(at, members): (usize, Members<MAX_MEMBERS>)| {
        let text = |name: &str| {
            let found = members.0.iter().rev();
            let found = found.filter(|(key, _)| key.eq_ignore_ascii_case(name));
            match found.map(|(_, value)| value.get()).next() {
                None | Some("null") => Ok(String::new()),
                Some(value) => json::unquoted(value)
                    .ok_or_else(|| bad(format!("messages[{at}].{name} must be a string"))),
            }
        };
        Ok(Message {
            role: text("role")?,
            content: text("content")?,
        })
    };
    all.into_iter().enumerate().map(message).collect()
}

/// The fault of a field of another kind.
pub(super) fn wrong_kind(field: &Field) -> BadRequest {
    let text = format!("{} must be {}", field.name, field.kind.described());
    BadRequest::of(field.name, text)
}
