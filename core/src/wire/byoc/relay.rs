//! The events of a container, line by line, on their way to whoever asked for them.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::wire::sse::{BadStream, DONE, MAX_BLANK_LINES, MAX_LINE_BYTES};

/// Passes on the lines of a stream of events: all of them, but of blank ones in a row only the first. Orchestrators write
/// blank lines as fast as they can once their container's stream has ended (jobs spec 4.3), so a row of more than
/// [`MAX_BLANK_LINES`] is an end as well.
#[derive(Debug, Default)]
pub struct Relay {
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// Whether the last piece ended in a carriage return, to which a line feed may belong.
    returned: bool,
    /// Blank lines in a row.
    blank: usize,
    /// Whether any line went out.
    begun: bool,
    /// Whether the last event went out.
    done: bool,
}

/// The outcome of a piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// The bytes to pass on; may be empty.
    pub bytes: Bytes,
    /// Whether that was the last of it.
    pub ended: bool,
}

impl Relay {
    /// A relay at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes. After the end nothing more comes out.
    ///
    /// # Errors
    /// If a line has more than [`MAX_LINE_BYTES`]: nothing more comes of the stream.
    pub fn data(&mut self, bytes: &[u8]) -> Result<Relayed, BadStream> {
        let mut out = Vec::with_capacity(bytes.len() + 1);
        let mut rest = bytes;
        let mut ended = self.done;
        while !ended && !rest.is_empty() {
            if core::mem::take(&mut self.returned) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(length) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
                if self.line.len() + rest.len() > MAX_LINE_BYTES {
                    return Err(BadStream::Long);
                }
                self.line.extend_from_slice(rest);
                break;
            };
            if self.line.len() + length > MAX_LINE_BYTES {
                return Err(BadStream::Long);
            }
            self.returned = rest[length] == b'\r';
            self.line.extend_from_slice(&rest[..length]);
            rest = &rest[length + 1..];
            ended = self.line_ends(&mut out);
        }
        self.done = ended;
        Ok(Relayed {
            bytes: out.into(),
            ended,
        })
    }

    /// The stream has ended: a line that lacks its end, and the blank line that completes its event.
    pub fn end(&mut self) -> Bytes {
        let mut out = Vec::new();
        if !self.done {
            if !self.line.is_empty() {
                self.line_ends(&mut out);
            }
            if self.begun && self.blank == 0 && !self.done {
                out.push(b'\n');
            }
        }
        self.done = true;
        out.into()
    }

    /// Passes on the line that has come. Whether that was the last.
    fn line_ends(&mut self, out: &mut Vec<u8>) -> bool {
        let line = core::mem::take(&mut self.line);
        if line.is_empty() {
            self.blank += 1;
            if self.blank == 1 && self.begun {
                out.push(b'\n');
            }
            return self.blank > MAX_BLANK_LINES;
        }
        (self.blank, self.begun) = (0, true);
        out.extend_from_slice(&line);
        out.push(b'\n');
        let last = { line.strip_prefix(b"data:") }.is_some_and(|data| data.trim_ascii() == DONE);
        if last {
            // Whoever ends its stream here often forgets this one.
            out.push(b'\n');
            self.done = true;
        }
        last
    }
}
