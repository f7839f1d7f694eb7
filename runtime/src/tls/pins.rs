//! Certificates that were there first.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use livepeer_core::http::Fault;

use crate::lock;

/// The SHA-256 of the certificate first seen at each `host:port`, for all connections to it alike: gRPC, payments
/// and trickle (handshake spec 1.2). Clones share what they remember.
///
/// As text it is one line each, `host:port` and 64 hex digits with a blank between, so that a caller can keep it
/// in a file: [`fmt::Display`] writes it, [`FromStr`] reads it. Empty lines and lines that start with `#` mean
/// nothing.
#[derive(Clone, Default)]
pub struct Pins(Arc<Mutex<BTreeMap<String, [u8; 32]>>>);

impl Pins {
    /// A memory that holds no certificate yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The certificate remembered for `host:port`.
    pub fn get(&self, authority: &str) -> Option<[u8; 32]> {
        lock(&self.0).get(authority).copied()
    }

    /// Remembers, in place of whatever was there.
    pub fn set(&self, authority: &str, sha256: [u8; 32]) {
        lock(&self.0).insert(authority.to_owned(), sha256);
    }

    /// Forgets.
    pub fn forget(&self, authority: &str) {
        lock(&self.0).remove(authority);
    }

    /// How many hosts and ports are remembered.
    pub fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Compares; with nothing to compare to, all is well.
    pub(crate) fn check(&self, authority: &str, seen: [u8; 32]) -> Result<(), Fault> {
        match self.get(authority) {
            Some(remembered) if remembered != seen => {
                Err(Fault::CertificateChanged { remembered, seen })
            }
            _ => Ok(()),
        }
    }

    /// Remembers what a completed handshake showed, in place of whatever was there; that, if it was something else.
    pub(crate) fn replace(&self, authority: &str, seen: [u8; 32]) -> Option<[u8; 32]> {
        let before = lock(&self.0).insert(authority.to_owned(), seen);
        before.filter(|before| *before != seen)
    }

    /// Remembers what a completed handshake showed, unless another connection was first with something else.
    pub(crate) fn remember(&self, authority: &str, seen: [u8; 32]) -> Result<(), Fault> {
        let remembered = *lock(&self.0).entry(authority.to_owned()).or_insert(seen);
        if remembered == seen {
            Ok(())
        } else {
            Err(Fault::CertificateChanged { remembered, seen })
        }
    }
}

impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (authority, sha256) in &*lock(&self.0) {
            writeln!(f, "{authority} {}", hex(sha256))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pins").field("len", &self.len()).finish()
    }
}

impl FromStr for Pins {
    type Err = BadPins;

    fn from_str(text: &str) -> Result<Self, BadPins> {
        let pins = Self::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (authority, digest) = line
                .split_once(char::is_whitespace)
                .and_then(|(authority, digest)| Some((authority, unhex(digest.trim())?)))
                .ok_or(BadPins { line: i + 1 })?;
            pins.set(authority, digest);
        }
        Ok(pins)
    }
}

/// The text does not remember certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not a host and port and 64 hex digits")]
pub struct BadPins {
    /// The first line that is wrong, counted from 1.
    pub line: usize,
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_survives_as_text() {
        let pins = Pins::new();
        pins.set("127.0.0.1:8935", [0xab; 32]);
        pins.set("[::1]:8935", [1; 32]);
        let text = format!("# kept by the gateway\n\n{pins}");
        let back: Pins = text.parse().expect("own text is read back");
        assert_eq!(back.get("127.0.0.1:8935"), Some([0xab; 32]));
        assert_eq!(back.get("[::1]:8935"), Some([1; 32]));
        assert_eq!(back.len(), 2);
    }

    #[test]
    fn a_damaged_line_is_named() {
        for text in ["x", "a:1 00", "a:1 ", &format!("a:1 {}zz", "0".repeat(62))] {
            let text = format!("# fine\n{text}\n");
            assert_eq!(
                text.parse::<Pins>().err(),
                Some(BadPins { line: 2 }),
                "{text}"
            );
        }
    }

    #[test]
    fn the_first_certificate_stays() {
        let pins = Pins::new();
        assert_eq!(pins.check("a:1", [1; 32]), Ok(()));
        assert_eq!(pins.remember("a:1", [1; 32]), Ok(()));
        assert!(pins.check("a:1", [2; 32]).is_err());
        assert!(pins.remember("a:1", [2; 32]).is_err());
        assert_eq!(pins.get("a:1"), Some([1; 32]));
        pins.forget("a:1");
        assert_eq!(pins.remember("a:1", [2; 32]), Ok(()));
        assert_eq!(pins.replace("a:1", [3; 32]), Some([2; 32]));
        assert_eq!(pins.replace("a:1", [3; 32]), None);
        assert_eq!(pins.get("a:1"), Some([3; 32]));
    }
}
