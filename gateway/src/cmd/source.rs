//! The source of segments: a thread that reads the input and cuts it.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use livepeer_media::segmenter::{Config, Segmenter};
use livepeer_media::{Segment, Warnings};

use crate::args::Place;
use crate::ui::Failed;

/// The bundled clip: twelve seconds of 640 x 360, H.264 and AAC, a key frame a second.
pub(super) const CLIP: &[u8] = include_bytes!("../../media/testsrc-360p30-12s.ts");

/// Segments, or pieces of them, that are cut ahead of time. The thread waits when there are so many.
const AHEAD: usize = 2;
/// At most this many bytes are read at once.
const PIECE: usize = 64 << 10;

/// An input to cut.
pub(super) enum Input {
    /// Bytes that are here.
    Bytes(&'static [u8]),
    /// A file, over and over if asked for.
    File(PathBuf, bool),
    /// Standard input.
    Standard,
}

impl Input {
    pub(super) fn from_place(place: &Place, repeat: bool) -> Self {
        match place {
            Place::Standard => Self::Standard,
            Place::File(path) => Self::File(path.clone(), repeat),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Bytes(_) => "the bundled clip".into(),
            Self::File(path, _) => path.display().to_string(),
            Self::Standard => "standard input".into(),
        }
    }

    pub(super) fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::Bytes(bytes) => Box::new(*bytes),
            Self::File(path, _) => Box::new(File::open(path)?),
            Self::Standard => Box::new(io::stdin()),
        })
    }

    pub(super) fn unreadable(&self, error: &io::Error) -> Failed {
        Failed::file("cannot read", &self.name(), error)
    }

    const fn repeats(&self) -> bool {
        matches!(self, Self::File(_, true))
    }
}

/// A message of the thread that cuts.
pub(super) enum Cut {
    /// More of the segment that comes next, from an input that is made as it is read.
    Early(Bytes),
    /// The segment, or what is left of it.
    Segment(Segment),
    /// The last word: the input is over.
    End(Warnings),
    /// The last word: the input is no good.
    Bad(Failed),
}

/// Starts to read and cut. The channel ends after [`Cut::End`] or [`Cut::Bad`].
///
/// # Errors
/// If the input cannot be opened.
pub(super) fn start(input: Input) -> Result<Receiver<Cut>, Failed> {
    let first = input.open().map_err(|error| input.unreadable(&error))?;
    let (sender, receiver) = async_channel::bounded(AHEAD);
    std::thread::spawn(move || {
        let mut segmenter = Segmenter::new(Config::default());
        let last = match feed(&input, first, &mut segmenter, &sender) {
            Ok(true) => Cut::End(segmenter.warnings()),
            // Nobody wants more.
            Ok(false) => return,
            Err(failed) => Cut::Bad(failed),
        };
        let _ = sender.send_blocking(last);
    });
    Ok(receiver)
}

/// Reads to the end and sends the segments; `false` if nobody takes them any more.
fn feed(
    input: &Input,
    first: Box<dyn Read + Send>,
    segmenter: &mut Segmenter,
    to: &Sender<Cut>,
) -> Result<bool, Failed> {
    let mut reader = first;
    let mut piece = vec![0; PIECE];
    loop {
        let read = match reader.read(&mut piece) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(input.unreadable(&error)),
        };
        let fed = if read > 0 {
            segmenter.push(&piece[..read])
        } else if input.repeats() && segmenter.has_video().is_some() {
            // The time stamps jump back; the segmenter takes it as a cut.
            reader = input.open().map_err(|error| input.unreadable(&error))?;
            continue;
        } else {
            segmenter.finish()
        };
        while let Some(segment) = segmenter.next_segment() {
            if to.send_blocking(Cut::Segment(segment)).is_err() {
                return Ok(false);
            }
        }
        // What is live leaves as it comes; a file gains nothing by it.
        if matches!(input, Input::Standard)
            && let Some(early) = segmenter.take_early()
            && to.send_blocking(Cut::Early(early.data)).is_err()
        {
            return Ok(false);
        }
        fed.map_err(|error| Failed::from(error).during(input.name()))?;
        if read == 0 {
            return Ok(true);
        }
    }
}
