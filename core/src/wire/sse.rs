//! Server-sent events, as far as a stream of answers needs them (jobs spec 2.8).
//!
//! Only the data of events counts; comments and other fields are passed over. An event whose line came in one piece is
//! handed on as a part of that piece.

use alloc::vec::Vec;

use bytes::Bytes;

/// At most this many bytes are in a line of a stream, and in all the data lines of one event.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// The media type of a stream of events.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// The payload that ends a stream of OpenAI's.
pub const DONE: &[u8] = b"[DONE]";

/// At most this many blank lines follow each other.
pub const MAX_BLANK_LINES: usize = 64;

/// A stream that is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStream {
    /// A line, or an event, of more than [`MAX_LINE_BYTES`].
    #[error("a line of the stream is longer than {MAX_LINE_BYTES} bytes")]
    Long,
    /// More than [`MAX_BLANK_LINES`] without anything between.
    #[error("more than {MAX_BLANK_LINES} lines of the stream are blank")]
    Blank,
}

/// Reads events from the pieces of a stream.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// The data lines of the event that is being read.
    event: Option<Data>,
    /// The last piece ended in a carriage return, and a line feed after it belongs to that.
    returned: bool,
    /// A byte order mark may come next.
    begun: bool,
    /// Blank lines in a row.
    blank: usize,
    bad: Option<BadStream>,
}

#[derive(Clone, Debug)]
enum Data {
    /// A line, inside of the piece that it came in.
    Shared(Bytes),
    Joined(Vec<u8>),
}

impl Reader {
    /// A reader at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and tells the payload of each event that is complete with them.
    ///
    /// # Errors
    /// If a line is too long, or too many are blank. The stream is of no more use then, and every later call says the
    /// same.
    pub fn data(&mut self, bytes: &Bytes, mut tell: impl FnMut(Bytes)) -> Result<(), BadStream> {
        let mut rest = 0;
        while self.bad.is_none() && rest < bytes.len() {
            if core::mem::take(&mut self.returned) && bytes[rest] == b'\n' {
                rest += 1;
                continue;
            }
            let Some(length) = bytes[rest..]
                .iter()
                .position(|b| matches!(b, b'\n' | b'\r'))
            else {
                self.hold(&bytes[rest..]);
                break;
            };
            let end = rest + length;
            self.returned = bytes[end] == b'\r';
            if self.line.is_empty() {
                self.line_ends(bytes.slice(rest..end), &mut tell);
            } else {
                self.hold(&bytes[rest..end]);
                let line = core::mem::take(&mut self.line);
                self.line_ends(line.into(), &mut tell);
            }
            rest = end + 1;
        }
        if let Some(bad) = self.bad {
            self.line = Vec::new();
            self.event = None;
            return Err(bad);
        }
        Ok(())
    }

    /// The stream has ended: the payload of an event that lacks its blank line, or even the end of its line, if there
    /// is one. The reference's readers take it too.
    pub fn end(&mut self) -> Option<Bytes> {
        let line = core::mem::take(&mut self.line);
        let mut last = None;
        self.line_ends(line.into(), &mut |payload| last = Some(payload));
        if last.is_none() {
            self.line_ends(Bytes::new(), &mut |payload| last = Some(payload));
        }
        last
    }

    fn hold(&mut self, part: &[u8]) {
        if self.line.len() + part.len() > MAX_LINE_BYTES {
            self.bad = Some(BadStream::Long);
        } else {
            self.line.extend_from_slice(part);
        }
    }

    fn line_ends(&mut self, mut line: Bytes, tell: &mut impl FnMut(Bytes)) {
        const MARK: &[u8] = "\u{feff}".as_bytes();
        if !core::mem::replace(&mut self.begun, true) && line.starts_with(MARK) {
            line = line.slice(MARK.len()..);
        }
        self.blank = if line.is_empty() { self.blank + 1 } else { 0 };
        if self.blank > MAX_BLANK_LINES {
            self.bad = Some(BadStream::Blank);
        }
        if line.len() > MAX_LINE_BYTES {
            self.bad = Some(BadStream::Long);
        } else if line.is_empty() {
            match self.event.take() {
                Some(Data::Shared(payload)) => tell(payload),
                Some(Data::Joined(payload)) => tell(payload.into()),
                None => {}
            }
        } else if let Some(data) = line.strip_prefix(b"data:") {
            let data = data.strip_prefix(b" ").unwrap_or(data);
            let data = line.slice_ref(data);
            self.event = Some(match self.event.take() {
                None => Data::Shared(data),
                Some(before) => self.join(before, &data),
            });
        } else if &line[..] == b"data" {
            self.event = Some(match self.event.take() {
                None => Data::Shared(Bytes::new()),
                Some(before) => self.join(before, b""),
            });
        }
    }

    fn join(&mut self, before: Data, line: &[u8]) -> Data {
        let mut joined = match before {
            Data::Shared(first) => first.to_vec(),
            Data::Joined(lines) => lines,
        };
        if joined.len() + line.len() >= MAX_LINE_BYTES {
            self.bad = Some(BadStream::Long);
        } else {
            joined.push(b'\n');
            joined.extend_from_slice(line);
        }
        Data::Joined(joined)
    }
}

/// An event with this payload, in one piece.
#[must_use]
pub fn event(payload: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(payload.len() + 8);
    for line in payload.split(|b| matches!(b, b'\n' | b'\r')) {
        frame.extend_from_slice(b"data: ");
        frame.extend_from_slice(line);
        frame.push(b'\n');
    }
    frame.push(b'\n');
    frame.into()
}

/// A comment, which readers pass over, in one piece. Line ends in it become blanks.
#[must_use]
pub fn comment(text: &str) -> Bytes {
    let mut frame = Vec::with_capacity(text.len() + 4);
    frame.extend_from_slice(b": ");
    frame.extend(text.bytes().map(|b| match b {
        b'\n' | b'\r' => b' ',
        b => b,
    }));
    frame.extend_from_slice(b"\n\n");
    frame.into()
}
