//! Forms, `multipart/form-data`: read from a complete body, and written piece by piece (jobs spec 2.2).
//!
//! A part's content is a part of the body it came in: nothing is copied. A delimiter is looked for in one pass, whatever
//! the boundary and the content are.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

/// At most this many bytes are in the body of a form.
pub const MAX_FORM_BYTES: usize = 256 << 20;

/// At most this many parts are in a form.
pub const MAX_PARTS: usize = 64;

/// At most this many bytes are in the name of a part.
pub const MAX_NAME_BYTES: usize = 256;

/// At most this many bytes are in a part that is not a file.
pub const MAX_TEXT_BYTES: usize = 64 << 10;

/// At most this many bytes are in the header of a part.
pub const MAX_HEADER_BYTES: usize = 8 << 10;

/// At most this many bytes are in a boundary, as RFC 2046 has it.
pub const MAX_BOUNDARY_BYTES: usize = 70;

/// A part of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The name of the field.
    pub name: String,
    /// The name of the file, as the client wrote it; `None` if the part is text.
    pub file_name: Option<String>,
    /// The media type, if the client said one.
    pub content_type: Option<String>,
    /// The content.
    pub content: Bytes,
}

/// A body that is not a form, or a larger one than we read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadForm {
    /// The content type names no form, or no boundary.
    #[error("the content-type must be multipart/form-data with a boundary")]
    ContentType,
    /// The body ends before the form does, or does not begin with one.
    #[error("the form ends before its closing boundary")]
    Cut,
    /// A part's header cannot be read.
    #[error("a part of the form has a header that {0}")]
    Header(&'static str),
    /// Something is longer, or more, than we take.
    #[error("{what} must be at most {limit}")]
    TooMuch {
        /// The thing, with its unit.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
}

const fn too_much(what: &'static str, limit: usize) -> BadForm {
    BadForm::TooMuch { what, limit }
}

/// Reads a form. Parts may come in any order, and in any number up to [`MAX_PARTS`].
///
/// # Errors
/// If the content type or the body is not that of a form, or a bound is passed.
pub fn read(content_type: &str, body: &Bytes) -> Result<Vec<Part>, BadForm> {
    if body.len() > MAX_FORM_BYTES {
        return Err(too_much("the bytes of a form", MAX_FORM_BYTES));
    }
    let boundary = boundary(content_type)?;
    let mut parts = Vec::new();
    let (mut at, line_end) = first_delimiter(body, &boundary).ok_or(BadForm::Cut)?;
    let delimiter = [line_end, b"--", boundary.as_bytes()].concat();
    loop {
        // `at` is behind a delimiter.
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        at += delimited(rest, line_end).ok_or(BadForm::Cut)?;
        if parts.len() == MAX_PARTS {
            return Err(too_much("the parts of a form", MAX_PARTS));
        }
        let (header, length) = Header::read(&body[at..], line_end)?;
        at += length;
        let end = find(body, at, &delimiter, line_end).ok_or(BadForm::Cut)?;
        let content = body.slice(at..end);
        if header.file_name.is_none() && content.len() > MAX_TEXT_BYTES {
            let what = "the bytes of a part of a form that is not a file";
            return Err(too_much(what, MAX_TEXT_BYTES));
        }
        parts.push(Part {
            name: header.name.ok_or(BadForm::Header("names no field"))?,
            file_name: header.file_name,
            content_type: header.content_type,
            content,
        });
        at = end + delimiter.len();
    }
}

/// The boundary that a content type names.
fn boundary(content_type: &str) -> Result<String, BadForm> {
    let (kind, rest) = content_type.split_once(';').ok_or(BadForm::ContentType)?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Err(BadForm::ContentType);
    }
    let params = params(rest).ok_or(BadForm::ContentType)?;
    match params.into_iter().find(|(name, _)| name == "boundary") {
        Some((_, value)) if value.is_empty() || value.contains(['\r', '\n']) => {
            Err(BadForm::ContentType)
        }
        Some((_, value)) if value.len() > MAX_BOUNDARY_BYTES => {
            Err(too_much("the bytes of a boundary", MAX_BOUNDARY_BYTES))
        }
        Some((_, value)) => Ok(value),
        None => Err(BadForm::ContentType),
    }
}

/// Where the first delimiter ends, and how its line ends: lines end in a line feed alone where the first one does.
fn first_delimiter(body: &[u8], boundary: &str) -> Option<(usize, &'static [u8])> {
    let dashes = [b"--", boundary.as_bytes()].concat();
    let mut at = 0;
    // What comes before the first delimiter means nothing.
    loop {
        let rest = &body[at..];
        if let Some(after) = rest.strip_prefix(&dashes[..]) {
            for line_end in [&b"\r\n"[..], b"\n"] {
                if after.starts_with(b"--") || delimited(after, line_end).is_some() {
                    return Some((at + dashes.len(), line_end));
                }
            }
        }
        at += rest.iter().position(|b| *b == b'\n')? + 1;
    }
}

/// The length of what is between a delimiter and the next line: blanks and the end of its line.
fn delimited(rest: &[u8], line_end: &[u8]) -> Option<usize> {
    let blanks = rest
        .iter()
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count();
    rest[blanks..]
        .starts_with(line_end)
        .then_some(blanks + line_end.len())
}

/// Where a delimiter begins, at `from` or later. Each byte is looked at twice at most: a delimiter begins with the end of
/// a line, and has no other inside.
fn find(body: &[u8], from: usize, delimiter: &[u8], line_end: &[u8]) -> Option<usize> {
    let mut at = from;
    while let Some(next) = position(&body[at..], line_end[0]) {
        at += next;
        let rest = &body[at..];
        let same = rest.iter().zip(delimiter).take_while(|(a, b)| a == b);
        let same = same.count();
        let after = &rest[same..];
        if same == delimiter.len()
            && (after.starts_with(b"--") || delimited(after, line_end).is_some())
        {
            return Some(at);
        }
        at += same.max(1);
    }
    None
}

/// Where the first such byte is. Blocks without one are passed over by instructions that look at many bytes at once.
fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    const BLOCK: usize = 64;
    let has = |block: &[u8]| {
        let found = block
            .iter()
            .fold(0, |found, b| found | u8::from(*b == wanted));
        found != 0
    };
    let before = bytes.chunks(BLOCK).take_while(|block| !has(block)).count() * BLOCK;
    let rest = bytes.get(before..)?;
    Some(before + rest.iter().position(|b| *b == wanted)?)
}

/// The header of a part.
#[derive(Default)]
struct Header {
    name: Option<String>,
    file_name: Option<String>,
    content_type: Option<String>,
}

impl Header {
    /// Reads a header up to its empty line, and says how long it is.
    fn read(bytes: &[u8], line_end: &[u8]) -> Result<(Self, usize), BadForm> {
        let mut header = Self::default();
        let mut at = 0;
        loop {
            let rest = &bytes[at..bytes.len().min(MAX_HEADER_BYTES)];
            let Some(length) = rest.windows(line_end.len()).position(|end| end == line_end) else {
                return Err(if bytes.len() > MAX_HEADER_BYTES {
                    too_much("the bytes of the header of a part", MAX_HEADER_BYTES)
                } else {
                    BadForm::Cut
                });
            };
            at += length + line_end.len();
            if length == 0 {
                return Ok((header, at));
            }
            let line = core::str::from_utf8(&rest[..length])
                .map_err(|_| BadForm::Header("is not UTF-8"))?;
            if line.contains(|c: char| c.is_control() && c != '\t') {
                return Err(BadForm::Header("has a control character"));
            }
            let (name, value) = line
                .split_once(':')
                .ok_or(BadForm::Header("has a line without a colon"))?;
            header.field(name.trim(), value.trim())?;
        }
    }

    fn field(&mut self, name: &str, value: &str) -> Result<(), BadForm> {
        if name.eq_ignore_ascii_case("content-disposition") {
            let (kind, rest) = value.split_once(';').unwrap_or((value, ""));
            if !kind.trim().eq_ignore_ascii_case("form-data") {
                return Err(BadForm::Header("is not that of form-data"));
            }
            let params = params(rest).ok_or(BadForm::Header("has names that cannot be read"))?;
            for (name, value) in params {
                match &name[..] {
                    "name" if value.len() > MAX_NAME_BYTES => {
                        return Err(too_much("the bytes of the name of a part", MAX_NAME_BYTES));
                    }
                    "name" => self.name = Some(value),
                    "filename" => self.file_name = Some(value),
                    _ => {}
                }
            }
        } else if name.eq_ignore_ascii_case("content-type") {
            self.content_type = Some(value.to_string());
        } else if name.eq_ignore_ascii_case("content-transfer-encoding")
            && !["7bit", "8bit", "binary"]
                .iter()
                .any(|plain| value.eq_ignore_ascii_case(plain))
        {
            return Err(BadForm::Header(
                "asks for a transfer encoding; send the bytes as they are",
            ));
        }
        Ok(())
    }
}

/// The parameters of a header field: `; name="value"`, where a backslash stands before a quote or another one. `None` if
/// they cannot be read, as with a quote that is not closed.
fn params(text: &str) -> Option<Vec<(String, String)>> {
    let mut params = Vec::new();
    let mut rest = text.trim_start_matches([';', ' ', '\t']);
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = value(after.trim_start_matches([' ', '\t']))?;
        let after = after.trim_start_matches([' ', '\t']);
        if !after.is_empty() && !after.starts_with(';') {
            return None;
        }
        let name = name.trim_end_matches([' ', '\t']);
        if !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_*.".contains(&b))
        {
            return None;
        }
        params.push((name.to_ascii_lowercase(), value));
        rest = after.trim_start_matches([';', ' ', '\t']);
    }
    Some(params)
}

/// The value of a parameter, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ' ', '\t', '"']).unwrap_or(text.len());
        return Some((text[..end].into(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            // Old browsers write the backslashes of paths as they are.
            '\\' if matches!(chars.peek(), Some((_, '"' | '\\'))) => {
                value.extend(chars.next().map(|(_, c)| c));
            }
            c => value.push(c),
        }
    }
    None
}

/// Writes a form.
#[derive(Clone, Debug)]
pub struct Writer {
    boundary: String,
    /// Bytes that are written and belong to no file.
    open: Vec<u8>,
    pieces: Vec<Bytes>,
}

impl Writer {
    /// A form without parts. The boundary must occur in none of the contents: take a long one of random digits.
    #[must_use]
    pub fn new(boundary: &str) -> Self {
        Self {
            boundary: boundary.into(),
            open: Vec::new(),
            pieces: Vec::new(),
        }
    }

    /// The value of `content-type`.
    #[must_use]
    pub fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, file_name: &str, content: Bytes) {
        self.begin(name);
        self.push(&format!("; filename=\"{}\"", escaped(file_name)));
        self.push("\r\nContent-Type: application/octet-stream\r\n\r\n");
        self.pieces.push(core::mem::take(&mut self.open).into());
        self.pieces.push(content);
    }

    /// Adds a text.
    pub fn text(&mut self, name: &str, value: &str) {
        self.begin(name);
        self.push("\r\n\r\n");
        self.push(value);
    }

    /// Ends the form: all of it, in pieces that follow each other. A file's content is a piece of its own.
    #[must_use]
    pub fn end(mut self) -> Vec<Bytes> {
        let end = format!("\r\n--{}--\r\n", self.boundary);
        self.push(&end);
        self.pieces.push(self.open.into());
        self.pieces
    }

    fn begin(&mut self, name: &str) {
        let first = self.open.is_empty() && self.pieces.is_empty();
        let line_end = if first { "" } else { "\r\n" };
        let head = format!(
            "{line_end}--{}\r\nContent-Disposition: form-data; name=\"{}\"",
            self.boundary,
            escaped(name)
        );
        self.push(&head);
    }

    fn push(&mut self, text: &str) {
        self.open.extend_from_slice(text.as_bytes());
    }
}

/// A text between quotes: escaped as Go does.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\r' => escaped.push_str("%0D"),
            '\n' => escaped.push_str("%0A"),
            c => escaped.push(c),
        }
    }
    escaped
}
