//! Where the output goes: a thread that writes, so that a slow disk or pipe holds up the download and nothing else.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::thread::JoinHandle;

use async_channel::Sender;
use bytes::Bytes;

use crate::args::Place;
use crate::ui::Failed;

/// Pieces that wait to be written.
const WAITING: usize = 16;

/// Creates a file to write to, or empties it.
///
/// # Errors
/// If that cannot be done.
pub(super) fn create(path: &Path) -> Result<File, Failed> {
    File::create(path)
        .map_err(|error| Failed::file("cannot create", &path.display().to_string(), &error))
}

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
    /// Creates the file, or takes standard output.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub(super) fn open(place: &Place) -> Result<Self, Failed> {
        Ok(match place {
            Place::Standard => Self::to("standard output".into(), io::stdout()),
            Place::File(path) => Self::to(path.display().to_string(), create(path)?),
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
            target.flush()
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

    /// Waits until everything is written.
    ///
    /// # Errors
    /// If something could not be written.
    pub(super) fn finish(self) -> Result<Written, Failed> {
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
