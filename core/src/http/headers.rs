//! Header fields.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Header fields in order. Names are lower case; a name may repeat.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, String)>);

impl Headers {
    /// No fields.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a field with a name known at compile time, in lower case.
    pub fn push(&mut self, name: &'static str, value: impl Into<String>) {
        debug_assert!(
            !name.bytes().any(|b| b.is_ascii_uppercase()),
            "header names are lower case"
        );
        self.0.push((Cow::Borrowed(name), value.into()));
    }

    /// Adds a field as received or configured; the name is lowered.
    pub fn push_any(&mut self, name: &str, value: impl Into<String>) {
        self.0
            .push((Cow::Owned(name.to_ascii_lowercase()), value.into()));
    }

    /// Whether there is no field.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first value of a field; `name` in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(have, _)| *have == name)
            .map(|(_, value)| value)
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, value.as_str()))
    }
}

/// Whether a field of that name, in lower case, is of one connection alone (RFC 9110, 7.6.1), whatever `Connection` names
/// besides.
#[must_use]
pub fn is_of_connection(name: &str) -> bool {
    const OF_CONNECTION: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    OF_CONNECTION.contains(&name)
}

/// Fields whose values are shown in logs. All others may carry a secret: an authorization, a payment, a token.
const SHOWN: [&str; 6] = [
    "accept",
    "allow",
    "connection",
    "content-length",
    "content-type",
    "retry-after",
];

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in self.iter() {
            if SHOWN.contains(&name) || name.starts_with("lp-trickle-") {
                map.entry(&name, &value);
            } else {
                map.entry(&name, &format_args!("{} bytes", value.len()));
            }
        }
        map.finish()
    }
}
