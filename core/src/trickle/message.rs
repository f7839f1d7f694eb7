//! Framings on top of segments: one JSON object per segment, and JSON lines (trickle spec 8).
//!
//! The framings take bytes and give bytes: interpreting a message is for its reader. Feed them with the events of a
//! [`Subscriber`](super::Subscriber).

use alloc::vec::Vec;

use bytes::Bytes;

use crate::time::Time;
use crate::wire::{KEEP_ALIVE, MAX_MESSAGE_BYTES};

/// The longest line that every peer reads: a longer one makes the Go reader read the same segment for ever.
pub const MAX_LINE: usize = 64 << 10;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadMessage {
    /// The message is longer than the bound; the rest is skipped.
    #[error("longer than {limit} bytes")]
    TooLong {
        /// The bound.
        limit: usize,
    },
    /// The message has a line feed inside.
    #[error("more than one line")]
    ManyLines,
    /// The segment was cut off inside it.
    #[error("cut off after {held} bytes")]
    CutOff {
        /// The number of bytes that arrived.
        held: usize,
    },
}

/// Puts segments together that hold one message each.
#[derive(Clone, Debug)]
pub struct Messages {
    limit: usize,
    held: Vec<u8>,
    too_long: bool,
}

impl Default for Messages {
    fn default() -> Self {
        Self::new(MAX_MESSAGE_BYTES)
    }
}

impl Messages {
    /// A reader of messages of at most `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            held: Vec::new(),
            too_long: false,
        }
    }

    /// A segment begins; what is left of an unfinished one is forgotten.
    pub fn begin(&mut self) {
        self.held.clear();
        self.too_long = false;
    }

    /// Bytes of the segment.
    pub fn data(&mut self, bytes: &[u8]) {
        if self.too_long || self.held.len() + bytes.len() > self.limit {
            self.too_long = true;
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(bytes);
        }
    }

    /// The segment is complete: its message, or `None` if it is empty or a keep-alive, which readers skip.
    ///
    /// # Errors
    /// If it was too long.
    pub fn end(&mut self) -> Result<Option<Bytes>, BadMessage> {
        if core::mem::take(&mut self.too_long) {
            return Err(BadMessage::TooLong { limit: self.limit });
        }
        let held = core::mem::take(&mut self.held);
        if held.trim_ascii().is_empty() || is_keep_alive(&held) {
            return Ok(None);
        }
        Ok(Some(held.into()))
    }

    /// The segment was cut off.
    ///
    /// # Errors
    /// Unless nothing had come of it.
    pub fn truncated(&mut self) -> Result<(), BadMessage> {
        let held = self.held.len();
        let cut = held > 0 || self.too_long;
        self.begin();
        if cut {
            Err(BadMessage::CutOff { held })
        } else {
            Ok(())
        }
    }
}

/// How long a segment of JSON lines takes more of them, as the python writer's do (trickle spec 9).
pub const ROTATE_EVERY: core::time::Duration = core::time::Duration::from_secs(10);

/// Puts JSON lines into segments: readers get each line at once, and segments end often enough for servers and
/// readers with timeouts.
#[derive(Clone, Debug, Default)]
pub struct LineWriter {
    /// Since when the open segment is.
    since: Option<Time>,
}

/// The steps that write a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// End the open segment first.
    pub end: bool,
    /// Begin a segment next.
    pub begin: bool,
    /// Then write this, in one piece.
    pub bytes: Bytes,
}

impl LineWriter {
    /// Frames the next line, which comes without a line feed.
    ///
    /// # Errors
    /// If not every peer could read it: it is longer than [`MAX_LINE`], or more than one line. Nothing changes then.
    pub fn line(&mut self, now: Time, line: &[u8]) -> Result<Write, BadMessage> {
        if line.len() > MAX_LINE {
            return Err(BadMessage::TooLong { limit: MAX_LINE });
        }
        if line.contains(&b'\n') {
            return Err(BadMessage::ManyLines);
        }
        let end = self.rotate(now);
        let begin = self.since.is_none();
        self.since.get_or_insert(now);
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
        Ok(Write {
            end,
            begin,
            bytes: bytes.into(),
        })
    }

    /// Whether the open segment is to end now, also without another line.
    pub fn rotate(&mut self, now: Time) -> bool {
        let over = self.due().is_some_and(|due| due <= now);
        if over {
            self.since = None;
        }
        over
    }

    /// When to ask [`LineWriter::rotate`]; `None` while no segment is open.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        self.since.map(|since| since + ROTATE_EVERY)
    }
}

/// Whether these bytes are the keep-alive object, blanks aside.
#[must_use]
pub fn is_keep_alive(bytes: &[u8]) -> bool {
    let mut want = KEEP_ALIVE.bytes();
    bytes
        .iter()
        .filter(|b| !b.is_ascii_whitespace())
        .all(|b| want.next() == Some(*b))
        && want.next().is_none()
}

/// Cuts a stream of bytes into lines, across segments' chunks but not across segments.
#[derive(Clone, Debug)]
pub struct Lines {
    limit: usize,
    held: Vec<u8>,
    too_long: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self::new(MAX_LINE)
    }
}

impl Lines {
    /// A reader of lines of at most `limit` bytes, without the line feed.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            held: Vec::new(),
            too_long: false,
        }
    }

    /// Bytes of a segment. Each line that they complete goes to `line`, without its line end; empty ones do not.
    pub fn data(&mut self, bytes: &[u8], mut line: impl FnMut(Result<&[u8], BadMessage>)) {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|b| *b == b'\n') {
            let (part, after) = rest.split_at(at);
            self.hold(part);
            self.flush(&mut line);
            rest = &after[1..];
        }
        self.hold(rest);
    }

    /// The segment is over: its last line may lack the line feed.
    pub fn end(&mut self, mut line: impl FnMut(Result<&[u8], BadMessage>)) {
        self.flush(&mut line);
    }

    fn hold(&mut self, part: &[u8]) {
        if self.too_long || self.held.len() + part.len() > self.limit {
            self.too_long = true;
            self.held.clear();
        } else {
            self.held.extend_from_slice(part);
        }
    }

    fn flush(&mut self, line: &mut impl FnMut(Result<&[u8], BadMessage>)) {
        if core::mem::take(&mut self.too_long) {
            line(Err(BadMessage::TooLong { limit: self.limit }));
        } else {
            let text = self.held.trim_ascii();
            if !text.is_empty() {
                line(Ok(text));
            }
        }
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    #[test]
    fn a_segment_is_one_message_however_it_is_cut() {
        let text = br#"{"a": 1}"#;
        for cut in 0..=text.len() {
            let mut messages = Messages::default();
            messages.begin();
            messages.data(&text[..cut]);
            messages.data(&text[cut..]);
            assert_eq!(messages.end().unwrap().unwrap(), &text[..]);
        }
    }

    #[test]
    fn empty_segments_and_keep_alives_are_no_messages() {
        for text in [
            "",
            " \n",
            "{\"keep\":\"alive\"}",
            "{ \"keep\": \"alive\" }\n",
        ] {
            let mut messages = Messages::default();
            messages.data(text.as_bytes());
            assert_eq!(messages.end(), Ok(None), "{text:?}");
        }
        let mut messages = Messages::default();
        messages.data(b"{\"keep\":\"alive\",\"x\":1}");
        assert!(messages.end().unwrap().is_some());
    }

    #[test]
    fn too_long_a_message_is_told_and_the_next_is_whole() {
        let mut messages = Messages::new(4);
        messages.begin();
        messages.data(b"123");
        messages.data(b"45");
        messages.data(b"6");
        assert_eq!(messages.end(), Err(BadMessage::TooLong { limit: 4 }));
        messages.begin();
        messages.data(b"1234");
        assert_eq!(messages.end().unwrap().unwrap(), &b"1234"[..]);
        messages.begin();
        messages.data(b"12");
        assert_eq!(messages.truncated(), Err(BadMessage::CutOff { held: 2 }));
        assert_eq!(messages.truncated(), Ok(()));
    }

    #[test]
    fn lines_come_whole_byte_by_byte_and_with_a_tail() {
        let text = b"one\r\n\ntwo\nthree";
        for step in [1, 2, 3, text.len()] {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            let mut keep = |line: Result<&[u8], _>| {
                seen.push(String::from_utf8(line.unwrap().to_vec()).unwrap())
            };
            for part in text.chunks(step) {
                lines.data(part, &mut keep);
            }
            lines.end(&mut keep);
            assert_eq!(seen, ["one", "two", "three"]);
        }
    }

    #[test]
    fn too_long_a_line_is_told_and_the_next_is_whole() {
        let mut lines = Lines::new(3);
        let mut seen = Vec::new();
        lines.data(b"1234\nabc\n", |line| seen.push(line.map(<[u8]>::to_vec)));
        assert_eq!(
            seen,
            [Err(BadMessage::TooLong { limit: 3 }), Ok(b"abc".to_vec())]
        );
    }

    #[test]
    fn lines_share_a_segment_until_it_is_time_for_the_next() {
        let at = |secs: u64| Time::from_secs(1_000 + secs);
        let mut writer = LineWriter::default();
        assert_eq!((writer.due(), writer.rotate(at(0))), (None, false));
        let mut said = |secs, line: &str| {
            let write = writer.line(at(secs), line.as_bytes()).unwrap();
            (write.end, write.begin, write.bytes)
        };
        assert_eq!(said(0, "{}"), (false, true, Bytes::from_static(b"{}\n")));
        assert_eq!(said(9, "[]"), (false, false, Bytes::from_static(b"[]\n")));
        assert_eq!(said(10, ""), (true, true, Bytes::from_static(b"\n")));
        assert_eq!(writer.due(), Some(at(20)));
        assert_eq!(writer.line(at(30), b"a\nb"), Err(BadMessage::ManyLines));
        let long = [b'x'; MAX_LINE + 1];
        assert!(writer.line(at(30), &long).is_err());
        assert!(writer.rotate(at(30)) && !writer.rotate(at(30)));
    }
}
