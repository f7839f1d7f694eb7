//! Messages between a remote signer and its webhook (payments spec 12.5).

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use serde_json::{Map, Value};

use super::error::WireError;
use super::json::Fields;
use super::signer::MaxPrice;
use super::signer_state::SignerState;
use crate::http::Headers;

/// The body of the question: the caller's headers and the state as it will be. The length of the caller's body is
/// among the headers; a driver takes it off, as it does with all that belongs to framing.
pub(crate) fn webhook_question(headers: &Headers, length: usize, state: &SignerState) -> String {
    let mut grouped = Map::new();
    let length = length.to_string();
    for (name, value) in headers.iter().chain([("content-length", &*length)]) {
        let values = grouped
            .entry(canonical(name))
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = values {
            values.push(value.into());
        }
    }
    format!(
        "{{\"headers\":{},\"state\":{}}}",
        Value::Object(grouped),
        state.to_json()
    )
}

/// A header's name with capital letters where Go writes them.
fn canonical(name: &str) -> String {
    let mut start = true;
    name.chars()
        .map(|c| {
            let c = if start {
                c.to_ascii_uppercase()
            } else {
                c.to_ascii_lowercase()
            };
            start = c == '-';
            c
        })
        .collect()
}

/// The answer of an auth webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookAnswer {
    /// The status to answer the caller with; 200 to go on. Zero if absent.
    pub status: i64,
    /// Words for the caller.
    pub reason: String,
    /// Unix seconds until which the webhook need not be asked again.
    pub expiry: i64,
    /// The caller.
    pub auth_id: String,
    /// The caller's ceiling.
    pub max_price: Option<MaxPrice>,
}

impl WebhookAnswer {
    /// Reads the answer's body.
    ///
    /// # Errors
    /// If it is not the JSON object expected.
    pub fn from_json(body: &[u8]) -> Result<Self, WireError> {
        Self::read(body).map_err(|why| WireError::new("auth webhook's answer", why))
    }

    fn read(body: &[u8]) -> Result<Self, String> {
        let fields = Fields::only(body)?;
        Ok(Self {
            status: fields.integer("status")?,
            reason: fields.text("reason")?,
            expiry: fields.integer("expiry")?,
            auth_id: fields.text("auth_id")?,
            max_price: fields
                .object("maxPrice")?
                .as_ref()
                .map(MaxPrice::from_fields)
                .transpose()?,
        })
    }
}
