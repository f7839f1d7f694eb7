//! The thread that writes the output, so that a slow disk or pipe holds up the download and nothing else.

use std::io::{self, BufWriter, Write};
use std::thread::JoinHandle;

use async_channel::Sender;
use bytes::Bytes;

use super::files::Late;
use crate::args::Place;
use crate::ui::Failed;

/// Pieces that wait to be written.
const WAITING: usize = 16;

/// How writing ended well.
pub(super) enum Written {
    /// With the last byte.
    Whole,
    /// With the reader of the pipe of that name, which had read enough, as `head` does.
    UntilClosed(String),
}

/// Writes in order. [`Sink::finish`] says how it went.
pub(super) struct Sink {
    name: String,
    pieces: Sender<Bytes>,
    thread: JoinHandle<io::Result<()>>,
}

impl Sink {
    /// Opens the file, or takes standard output. What the file holds is lost with the first byte, not before.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(super) fn open(place: &Place) -> Result<Self, Failed> {
        Ok(match place {
            Place::Standard => Self::to("standard output".into(), io::stdout()),
            Place::File(path) => Self::to(path.display().to_string(), Late::open(path)?),
        })
    }

    /// Writes to `target`, which errors call `name`.
    pub(super) fn to(name: String, target: impl Write + Send + 'static) -> Self {
        let (pieces, waiting) = async_channel::bounded::<Bytes>(WAITING);
        let thread = std::thread::spawn(move || {
            let mut target = BufWriter::new(target);
            while let Ok(piece) = waiting.recv_blocking() {
                target.write_all(&piece)?;
                // Whoever reads along sees the stream at once.
                if waiting.is_empty() {
                    target.flush()?;
                }
            }
            Ok(())
        });
        Self {
            name,
            pieces,
            thread,
        }
    }

    /// Writes the next bytes, after those before them. `false` once writing failed: [`Sink::finish`] says why.
    pub(super) async fn write(&self, piece: Bytes) -> bool {
        self.pieces.send(piece).await.is_ok()
    }

    /// Waits until writing has failed, and only that.
    pub(super) async fn failed(&self) {
        self.pieces.closed().await;
    }

    /// Waits until everything is written. If that is `complete`, it is all of the output, even without a byte.
    ///
    /// # Errors
    /// If something could not be written.
    pub(super) fn finish(self, complete: bool) -> Result<Written, Failed> {
        if complete {
            // Where writing failed, that is told below.
            let _ = self.pieces.send_blocking(Bytes::new());
        }
        drop(self.pieces);
        match self.thread.join() {
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                Ok(Written::UntilClosed(self.name))
            }
            Ok(Err(error)) => Err(Failed::file("cannot write to", &self.name, &error)),
            _ => Ok(Written::Whole),
        }
    }
}
