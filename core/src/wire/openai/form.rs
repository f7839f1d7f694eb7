//! Forms as the front door reads them from callers.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::wire::multipart::{self, BadForm, Part};
use crate::wire::refused::{Code, Refused};
use crate::wire::strict::{missing, within};

/// The parts of a form, by name.
pub(super) struct Form(Vec<Part>);

impl Form {
    pub(super) fn read(content_type: &str, body: &Bytes) -> Result<Self, Refused> {
        multipart::read(content_type, body)
            .map(Self)
            .map_err(|bad| match bad {
                BadForm::ContentType => Refused::new(
                    Code::InvalidContentType,
                    "The request must be multipart/form-data with a boundary.",
                ),
                BadForm::Cut => Refused::new(
                    Code::InvalidMultipart,
                    "The multipart body ends before its closing boundary.",
                ),
                other => Refused::new(
                    Code::InvalidMultipart,
                    format!("The multipart body cannot be read: {other}."),
                ),
            })
    }

    /// The parts in their order: names without the brackets of lists, and contents.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Part)> {
        self.0
            .iter()
            .map(|part| (part.name.strip_suffix("[]").unwrap_or(&part.name), part))
    }

    /// All parts of a name.
    pub(super) fn all<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a Part> {
        self.iter()
            .filter(move |(have, _)| *have == name)
            .map(|(_, part)| part)
    }

    /// The text of a part, if it is there; the last of several counts, as in a form that was filled in twice.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Refused> {
        let parts = self.iter().filter(|(have, _)| *have == name);
        parts.last().map(|(_, part)| text(name, part)).transpose()
    }

    /// The text of a part that must be there.
    pub(super) fn need(&self, name: &str) -> Result<&str, Refused> {
        self.text(name)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| missing(name))
    }

    /// A whole number.
    pub(super) fn integer(
        &self,
        name: &str,
        least: i64,
        most: i64,
    ) -> Result<Option<i64>, Refused> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let value = text
            .trim()
            .parse()
            .map_err(|_| not(name, "an integer", text))?;
        within(name, value, least, most)?;
        Ok(Some(value))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Refused> {
        match self.text(name)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(not(name, "a boolean", other)),
        }
    }
}

/// A part as text.
pub(super) fn text<'a>(name: &str, part: &'a Part) -> Result<&'a str, Refused> {
    core::str::from_utf8(&part.content).map_err(|_| not(name, "a text", "bytes that are not UTF-8"))
}

/// A part of another type.
pub(super) fn not(name: &str, expected: &str, text: &str) -> Refused {
    let shown: String = text.chars().take(64).collect();
    Refused::new(
        Code::InvalidType,
        format!("Invalid type for '{name}': expected {expected}, but got '{shown}' instead."),
    )
    .at(name)
}
