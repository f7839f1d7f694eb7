//! Versions of nodes and runners, and when one is new enough.

use alloc::string::{String, ToString};
use core::fmt;

/// A version as its owner wrote it, read once.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Version {
    text: String,
    numbers: Option<[u64; 3]>,
}

impl Version {
    /// Takes any text; whether it is a version shows when it is compared.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let numbers = parse(&text);
        Self { text, numbers }
    }

    /// The text as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Major, minor and patch, if the text is a version.
    #[must_use]
    pub const fn numbers(&self) -> Option<[u64; 3]> {
        self.numbers
    }

    /// Whether this is at least `minimum` (handshake spec 5.4). Suffixes do not count: nodes use them for "commits
    /// after".
    ///
    /// # Errors
    /// Why it is not, or cannot be told.
    pub fn meets(&self, minimum: &Self) -> Result<(), TooOld> {
        if minimum.text.is_empty() {
            return Ok(());
        }
        if self.text.is_empty() {
            return Err(TooOld::Untold);
        }
        if self.text == "undefined" {
            return Err(TooOld::Undefined);
        }
        // A minimum that is no version asks for nothing, but only of nodes that tell theirs.
        let Some(minimum) = minimum.numbers else {
            return Ok(());
        };
        match self.numbers {
            None => Err(TooOld::Unreadable),
            Some(have) if have < minimum => Err(TooOld::Lower),
            Some(_) => Ok(()),
        }
    }
}

impl From<&str> for Version {
    fn from(text: &str) -> Self {
        Self::new(text.to_string())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// Why a version does not reach a minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooOld {
    /// The node tells no version.
    Untold,
    /// The node was built without one and says `undefined`.
    Undefined,
    /// The text is no version.
    Unreadable,
    /// The numbers are lower.
    Lower,
}

/// An optional `v`, one to three numbers, an optional `-` with a pre-release and an optional `+` with metadata.
fn parse(text: &str) -> Option<[u64; 3]> {
    let rest = text.strip_prefix('v').unwrap_or(text);
    let (rest, meta) = match rest.split_once('+') {
        Some((rest, meta)) => (rest, Some(meta)),
        None => (rest, None),
    };
    let (core, pre) = match rest.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (rest, None),
    };
    let fine = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if !meta.is_none_or(|meta| meta.split('.').all(fine)) {
        return None;
    }
    let leading_zero = |part: &str| {
        part.len() > 1 && part.starts_with('0') && part.bytes().all(|b| b.is_ascii_digit())
    };
    if !pre.is_none_or(|pre| pre.split('.').all(|part| fine(part) && !leading_zero(part))) {
        return None;
    }
    let mut numbers = [0; 3];
    let mut slots = numbers.iter_mut();
    for part in core.split('.') {
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *slots.next()? = part.parse().ok()?;
    }
    Some(numbers)
}
