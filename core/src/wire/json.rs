//! JSON as Go reads it: keys in any case, numbers as written, bytes after the first value ignored.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The members of one JSON object, as written. `null` is an object without members.
pub(crate) struct Fields(Vec<(String, Box<RawValue>)>);

/// More members than any message of this protocol has.
const MAX_MEMBERS: usize = 1_000;

impl Fields {
    /// Reads the first value of `bytes`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Option<Self>>();
        match values.next() {
            Some(Ok(fields)) => Ok(fields.unwrap_or(Self(Vec::new()))),
            Some(Err(err)) => Err(alloc::format!("{err}")),
            None => Err("EOF".into()),
        }
    }

    /// The last member of that name in any case, unless it is `null`.
    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.get())
            .filter(|value| *value != "null")
    }

    fn typed<'a, T: Deserialize<'a>>(
        &'a self,
        name: &str,
        kind: &str,
    ) -> Result<Option<T>, String> {
        self.get(name)
            .map(|value| {
                serde_json::from_str(value).map_err(|_| alloc::format!("{name} must be {kind}"))
            })
            .transpose()
    }

    /// A text; empty if absent.
    pub(crate) fn text(&self, name: &str) -> Result<String, String> {
        Ok(self.typed(name, "a string")?.unwrap_or_default())
    }

    /// A whole number written without fraction and exponent; zero if absent.
    pub(crate) fn integer(&self, name: &str) -> Result<i64, String> {
        self.get(name).map_or(Ok(0), |value| {
            value
                .parse()
                .map_err(|_| alloc::format!("{name} must be an integer"))
        })
    }

    /// Padded standard base64; `None` if absent.
    pub(crate) fn bytes(&self, name: &str) -> Result<Option<Bytes>, String> {
        let text: Option<String> = self.typed(name, "a string")?;
        text.map(|text| {
            STANDARD
                .decode(text)
                .map(Bytes::from)
                .map_err(|err| alloc::format!("{name} must be base64: {err}"))
        })
        .transpose()
    }

    /// A number as written, or the content of a string in its place.
    pub(crate) fn number(&self, name: &str) -> Result<String, String> {
        let bad = || alloc::format!("{name} must be a number");
        match self.get(name) {
            None => Ok(String::new()),
            Some(value) if value.starts_with('"') => serde_json::from_str(value).map_err(|_| bad()),
            Some(value) if value.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                Ok(value.into())
            }
            Some(_) => Err(bad()),
        }
    }

    /// A nested object; `None` if absent.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Self>, String> {
        self.typed(name, "an object")
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fields, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    if members.len() == MAX_MEMBERS {
                        return Err(serde::de::Error::custom("too many members"));
                    }
                    members.push(member);
                }
                Ok(Fields(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Appends a JSON string as Go writes it: besides what JSON demands, `<`, `>`, `&` and two line separators are
/// escaped. Signed blobs are compared byte by byte.
pub(crate) fn push_go_string(out: &mut String, text: &str) {
    use core::fmt::Write as _;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes everything");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_member_of_a_name_counts_in_any_case() {
        let fields = Fields::parse(br#"{"a":1,"A":2,"b":null} trailing"#).unwrap();
        assert_eq!(fields.integer("a"), Ok(2));
        assert_eq!(fields.integer("b"), Ok(0));
        assert_eq!(fields.integer("c"), Ok(0));
        assert!(Fields::parse(b"null").is_ok());
        assert!(Fields::parse(b"[]").is_err());
        assert!(Fields::parse(b"").is_err());
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let mut out = String::new();
        push_go_string(&mut out, "a<b>&\"\\\n\u{1}\u{2028}é");
        assert_eq!(out, "\"a\\u003cb\\u003e\\u0026\\\"\\\\\\n\\u0001\\u2028é\"");
    }
}
