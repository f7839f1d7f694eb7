//! The token that stands for a whole set of options: whom to ask, who signs (handshake spec 7.2).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::error::WireError;

/// The longest token that is accepted.
pub const MAX_TOKEN_BYTES: usize = 64 << 10;

/// The content of a token. The commands let an option outrank the field of the same name, and treat an empty field as
/// an absent one (handshake spec 7.1, the product's order); the Python client has it the other way round, with empty
/// fields that hide its arguments.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Token {
    /// Orchestrators to use, as written but for blanks around them; none is empty.
    pub orchestrators: Option<Vec<String>>,
    /// The remote signer.
    pub signer: Option<String>,
    /// Where to ask for orchestrators.
    pub discovery: Option<String>,
    /// Header fields for the signer and nobody else. Usually they carry a secret.
    pub signer_headers: Option<BTreeMap<String, String>>,
    /// Header fields for the discovery endpoint and nobody else.
    pub discovery_headers: Option<BTreeMap<String, String>>,
}

impl Token {
    /// Reads a token: standard base64 with padding, of a JSON object. Unknown keys are ignored, `null` is as good
    /// as nothing.
    ///
    /// # Errors
    /// If it is anything else, or a field has another type. The message says what, and never quotes the token.
    #[doc(alias = "parse_token")]
    pub fn decode(text: &str) -> Result<Self, WireError> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(bad("longer than 64 KiB"));
        }
        let json = STANDARD
            .decode(text)
            .map_err(|_| bad("not standard base64 with padding"))?;
        let Ok(Value::Object(map)) = serde_json::from_slice(&json) else {
            return Err(bad("its base64 does not hold a JSON object"));
        };
        Ok(Self {
            orchestrators: list(&map, "orchestrators")?,
            signer: text_of(&map, "signer")?,
            discovery: text_of(&map, "discovery")?,
            signer_headers: headers(&map, "signer_headers")?,
            discovery_headers: headers(&map, "discovery_headers")?,
        })
    }
}

impl fmt::Debug for Token {
    // Header fields are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |headers: &Option<BTreeMap<String, String>>| {
            headers
                .as_ref()
                .map(|headers| headers.keys().cloned().collect::<Vec<_>>())
        };
        f.debug_struct("Token")
            .field("orchestrators", &self.orchestrators)
            .field("signer", &self.signer)
            .field("discovery", &self.discovery)
            .field("signer_headers", &names(&self.signer_headers))
            .field("discovery_headers", &names(&self.discovery_headers))
            .finish()
    }
}

fn bad(why: impl Into<String>) -> WireError {
    WireError::new("the token", why)
}

/// The value of a key, unless it is `null`.
fn present<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key).filter(|value| !value.is_null())
}

fn text_of(map: &Map<String, Value>, key: &str) -> Result<Option<String>, WireError> {
    match present(map, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.trim().to_string())),
        Some(_) => Err(bad(format!("{key} is not text"))),
    }
}

fn list(map: &Map<String, Value>, key: &str) -> Result<Option<Vec<String>>, WireError> {
    let wrong = || bad(format!("{key} is not a list of addresses"));
    match present(map, key) {
        None => Ok(None),
        Some(Value::Array(entries)) => entries
            .iter()
            .map(|entry| match entry.as_str().map(str::trim) {
                Some(text) if !text.is_empty() => Ok(text.to_string()),
                _ => Err(wrong()),
            })
            .collect::<Result<_, _>>()
            .map(Some),
        Some(_) => Err(wrong()),
    }
}

fn headers(
    map: &Map<String, Value>,
    key: &str,
) -> Result<Option<BTreeMap<String, String>>, WireError> {
    let wrong = || bad(format!("{key} does not map names to text"));
    match present(map, key) {
        None => Ok(None),
        Some(Value::Object(fields)) => fields
            .iter()
            .map(|(name, value)| match value {
                Value::String(text) => Ok((name.clone(), text.clone())),
                _ => Err(wrong()),
            })
            .collect::<Result<_, _>>()
            .map(Some),
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let json = r#"{"signer":"https://s","signer_headers":{"Authorization":"Bearer secret"}}"#;
        let token = Token::decode(&STANDARD.encode(json)).expect("a good token");
        let shown = format!("{token:?}");
        assert!(
            shown.contains("Authorization") && !shown.contains("secret"),
            "{shown}"
        );
    }

    #[test]
    fn a_token_without_end_is_refused() {
        let json = format!(r#"{{"signer":"{}"}}"#, "x".repeat(MAX_TOKEN_BYTES));
        assert!(Token::decode(&STANDARD.encode(json)).is_err());
    }
}
