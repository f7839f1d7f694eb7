//! A thread that reads the input and cuts it.

use std::io::{self, Read};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use bytes::{Bytes, BytesMut};
use livepeer_core::wire::MAX_MESSAGE_BYTES;
use livepeer_media::segmenter::{Config, Segmenter};

use crate::args::{Cut, Place};
use crate::cmd::source::Input;
use crate::ui::Failed;

/// Pieces that wait to be published. The thread waits when there are so many.
const WAITING: usize = 8;
/// At most this many bytes are read at once.
const PIECE: usize = 64 << 10;

/// A message of the thread that cuts.
pub(super) enum Piece {
    /// A whole segment that plays for so long.
    Whole(Bytes, Duration),
    /// More of the open segment, or of the next one if none is open.
    Part(Bytes),
    /// The open segment is complete.
    Cut,
    /// The last word: the input is over.
    End,
    /// The last word: the input is no good.
    Bad(Failed),
}

/// Nobody wants more.
struct Unwanted;

/// Starts to read and cut. The channel ends after [`Piece::End`] or [`Piece::Bad`]. A [`Cut::Time`] is left to the
/// receiver, who has the clock.
///
/// # Errors
/// If the input cannot be opened.
pub(super) fn start(place: &Place, cut: Cut) -> Result<Receiver<Piece>, Failed> {
    let input = Input::from_place(place, false);
    let reader = input.open().map_err(|error| input.unreadable(&error))?;
    let (sender, receiver) = async_channel::bounded(WAITING);
    let mut cutter: Box<dyn Cutter + Send> = match cut {
        Cut::KeyFrame => Box::new(KeyFrames {
            segmenter: Segmenter::new(Config::default()),
            live: *place == Place::Standard,
        }),
        Cut::Line => Box::new(Lines::default()),
        Cut::Size(size) => Box::new(Sizes {
            size: size.get(),
            left: size.get(),
        }),
        Cut::Time(_) => Box::new(Whatever),
    };
    std::thread::spawn(move || {
        let last = match feed(&input, reader, &mut *cutter, &sender) {
            Ok(Ok(())) => Piece::End,
            Ok(Err(Unwanted)) => return,
            Err(failed) => Piece::Bad(failed),
        };
        let _ = sender.send_blocking(last);
    });
    Ok(receiver)
}

fn feed(
    input: &Input,
    mut reader: Box<dyn Read + Send>,
    cutter: &mut dyn Cutter,
    to: &Sender<Piece>,
) -> Result<Result<(), Unwanted>, Failed> {
    let mut buffer = vec![0; PIECE];
    let mut pieces = Vec::new();
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(input.unreadable(&error)),
        };
        let cut = if read > 0 {
            cutter.push(&buffer[..read], &mut pieces)
        } else {
            cutter.finish(&mut pieces)
        };
        // What came before the fault is as good as ever.
        for piece in pieces.drain(..) {
            if to.send_blocking(piece).is_err() {
                return Ok(Err(Unwanted));
            }
        }
        cut?;
        if read == 0 {
            return Ok(Ok(()));
        }
    }
}

/// Turns bytes into pieces.
trait Cutter {
    fn push(&mut self, data: &[u8], to: &mut Vec<Piece>) -> Result<(), Failed>;

    /// The input is over. An open segment ends by itself.
    fn finish(&mut self, _to: &mut Vec<Piece>) -> Result<(), Failed> {
        Ok(())
    }
}

/// Somebody else cuts.
struct Whatever;

impl Cutter for Whatever {
    fn push(&mut self, data: &[u8], to: &mut Vec<Piece>) -> Result<(), Failed> {
        to.push(Piece::Part(Bytes::copy_from_slice(data)));
        Ok(())
    }
}

struct Sizes {
    size: usize,
    left: usize,
}

impl Cutter for Sizes {
    fn push(&mut self, data: &[u8], to: &mut Vec<Piece>) -> Result<(), Failed> {
        let mut data = Bytes::copy_from_slice(data);
        while !data.is_empty() {
            let part = data.split_to(self.left.min(data.len()));
            self.left -= part.len();
            to.push(Piece::Part(part));
            if self.left == 0 {
                self.left = self.size;
                to.push(Piece::Cut);
            }
        }
        Ok(())
    }
}

/// A line that readers take has a bound (trickle spec 9), and so has our memory.
#[derive(Default)]
struct Lines {
    begun: BytesMut,
}

impl Lines {
    fn send(&mut self, to: &mut Vec<Piece>) {
        if !self.begun.is_empty() {
            let line = self.begun.split().freeze();
            to.push(Piece::Whole(line, Duration::ZERO));
        }
    }
}

impl Cutter for Lines {
    fn push(&mut self, data: &[u8], to: &mut Vec<Piece>) -> Result<(), Failed> {
        for line in data.split_inclusive(|b| *b == b'\n') {
            if self.begun.len() + line.len() > MAX_MESSAGE_BYTES {
                return Err(Failed::new(
                    format_args!("a line of the input is longer than {MAX_MESSAGE_BYTES} bytes"),
                    "Cut it by size or by time",
                ));
            }
            self.begun.extend_from_slice(line);
            if line.ends_with(b"\n") {
                self.send(to);
            }
        }
        Ok(())
    }

    fn finish(&mut self, to: &mut Vec<Piece>) -> Result<(), Failed> {
        self.send(to);
        Ok(())
    }
}

struct KeyFrames {
    segmenter: Segmenter,
    /// The input comes as it is made: what is sure to belong to the open segment leaves at once.
    live: bool,
}

impl KeyFrames {
    fn send(&mut self, to: &mut Vec<Piece>) {
        while let Some(segment) = self.segmenter.next_segment() {
            if self.live {
                to.push(Piece::Part(segment.data));
                to.push(Piece::Cut);
            } else {
                to.push(Piece::Whole(segment.data, segment.duration));
            }
        }
        if self.live
            && let Some(early) = self.segmenter.take_early()
        {
            to.push(Piece::Part(early.data));
        }
    }
}

impl Cutter for KeyFrames {
    fn push(&mut self, data: &[u8], to: &mut Vec<Piece>) -> Result<(), Failed> {
        let cut = self.segmenter.push(data);
        self.send(to);
        Ok(cut?)
    }

    fn finish(&mut self, to: &mut Vec<Piece>) -> Result<(), Failed> {
        let cut = self.segmenter.finish();
        self.send(to);
        Ok(cut?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments, after every piece of the input.
    fn cut(cutter: &mut dyn Cutter, input: &[&str]) -> Vec<String> {
        let mut pieces = Vec::new();
        for data in input {
            cutter.push(data.as_bytes(), &mut pieces).expect("good");
        }
        cutter.finish(&mut pieces).expect("good");
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("text");
        let (mut segments, mut open) = (Vec::new(), String::new());
        for piece in pieces {
            match piece {
                Piece::Whole(data, _) => segments.push(text(&data)),
                Piece::Part(data) => open.push_str(&text(&data)),
                Piece::Cut => segments.push(std::mem::take(&mut open)),
                Piece::End | Piece::Bad(_) => unreachable!("cutters do not say that"),
            }
        }
        segments.extend((!open.is_empty()).then_some(open));
        segments
    }

    #[test]
    fn sizes_are_kept_however_the_input_comes() {
        for input in [&["abcdefg"][..], &["a", "bcd", "efg"], &["abc", "def", "g"]] {
            let mut sizes = Sizes { size: 3, left: 3 };
            assert_eq!(cut(&mut sizes, input), ["abc", "def", "g"]);
        }
    }

    #[test]
    fn a_line_is_a_segment_with_its_line_feed() {
        for input in [&["a\n\nbc\nd"][..], &["a", "\n\nb", "c\n", "d"]] {
            assert_eq!(
                cut(&mut Lines::default(), input),
                ["a\n", "\n", "bc\n", "d"]
            );
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        let mut pieces = Vec::new();
        lines
            .push(&vec![b'x'; MAX_MESSAGE_BYTES], &mut pieces)
            .expect("as long as may be");
        assert!(lines.push(b"x", &mut pieces).is_err());
    }
}
