//! Whole answers of backends: checked, and brought into the form that the client asked for.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Surface, Wanted};
use crate::wire::refused::{Code, Refused};
use crate::wire::strict::{Field, Object, object};

/// At most this many vectors are in an answer whose numbers are packed: four times as many as OpenAI makes at once.
const MAX_VECTORS: usize = 8_192;

/// A whole answer in the form that is wanted.
///
/// # Errors
/// If it has another form.
pub fn answer(wanted: Wanted, surface: Surface, body: &Bytes) -> Result<Bytes, Refused> {
    let good = match wanted {
        Wanted::Any => Some(body.clone()),
        Wanted::Json => object(body).ok().map(|_| body.clone()),
        Wanted::Packed => packed(body),
        Wanted::Events => None,
    };
    good.ok_or_else(|| not_one_of(surface))
}

/// The refusal of an answer of another form.
#[must_use]
pub fn not_one_of(surface: Surface) -> Refused {
    Refused::new(
        Code::UpstreamInvalid,
        format!("The backend's answer is not one of {}.", surface.name()),
    )
}

/// An answer with each vector of numbers as base64 of its bytes: clients that ask for these turn numbers into garbage
/// without an error. `None` if it has no such vectors.
fn packed(body: &[u8]) -> Option<Bytes> {
    let all = object(body).ok()?;
    let mut out = String::from("{");
    member(&mut out, &all, "data", |out, data| {
        out.push('[');
        let Listed(vectors) = serde_json::from_str(data.raw()).ok()?;
        for (at, vector) in vectors.into_iter().enumerate() {
            out.push_str(if at == 0 { "{" } else { ",{" });
            let vector = Field::new("", vector.get()).object().ok()?;
            member(out, &vector, "embedding", |out, vector| {
                if vector.is_text() {
                    out.push_str(vector.raw());
                    return Some(());
                }
                let numbers: Vec<f32> = serde_json::from_str(vector.raw()).ok()?;
                if numbers.iter().any(|number| !number.is_finite()) {
                    return None;
                }
                let bytes: Vec<u8> = numbers.iter().flat_map(|one| one.to_le_bytes()).collect();
                out.push('"');
                STANDARD.encode_string(&bytes, out);
                out.push('"');
                Some(())
            })?;
            out.push('}');
        }
        out.push(']');
        Some(())
    })?;
    out.push('}');
    Some(out.into())
}

/// The elements of an array, of which each costs more memory than it takes in an answer.
struct Listed<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Listed<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Listed<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut listed = Vec::new();
                while let Some(item) = items.next_element()? {
                    if listed.len() == MAX_VECTORS {
                        return Err(A::Error::custom("too many elements"));
                    }
                    listed.push(item);
                }
                Ok(Listed(listed))
            }
        }
        deserializer.deserialize_seq(Reading)
    }
}

/// Writes the members of an object, that of a name in another way; `None` if it lacks that one.
fn member(
    out: &mut String,
    all: &Object<'_>,
    name: &str,
    write: impl FnOnce(&mut String, &Field<'_>) -> Option<()>,
) -> Option<()> {
    let mut write = Some(write);
    for (at, (have, field)) in all.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&Value::from(have).to_string());
        out.push(':');
        match write.take_if(|_| have == name) {
            Some(write) => write(out, &field)?,
            None => out.push_str(field.raw()),
        }
    }
    write.is_none().then_some(())
}

/// The refusal of a backend: its own words, if these are an error in OpenAI's form, and otherwise ours.
///
/// # Errors
/// The error in our words.
pub fn refusal(status: u16, body: &Bytes) -> Result<Bytes, Refused> {
    let error = object(body).ok().and_then(|all| all.get("error"));
    if status >= 400 && error.is_some_and(|error| error.is_object()) {
        return Ok(body.clone());
    }
    Err(match status {
        408 | 429 => Refused::new(Code::NoOrchestrator, "The backend is busy; try again."),
        400..=499 => Refused::peer(Code::RunnerRefused, &String::from_utf8_lossy(body)),
        _ => Refused::new(
            Code::UpstreamInvalid,
            format!("The backend failed with status {status}."),
        ),
    })
}
