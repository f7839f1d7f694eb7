//! Files of requests are measured on threads of their own: a long one must not hold up those who serve.

use std::thread;

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use livepeer_core::wire::batch::{Media, Probe};
use livepeer_media::probe::{self, Unreadable};

/// Threads that measure.
const THREADS: usize = 2;

/// A file to measure, and where its measures go.
struct Job {
    probe: Probe,
    file: Bytes,
    answer: Sender<Result<Media, Unreadable>>,
}

/// Measures files.
pub(super) struct Prober(Sender<Job>);

impl Prober {
    /// Starts its threads. They end with it.
    pub(super) fn start() -> Self {
        // As many as the front door lets in.
        let (sender, jobs) = async_channel::unbounded();
        for _ in 0..THREADS {
            let jobs: Receiver<Job> = jobs.clone();
            thread::spawn(move || {
                while let Ok(job) = jobs.recv_blocking() {
                    let _ = job.answer.try_send(measure(job.probe, &job.file));
                }
            });
        }
        Self(sender)
    }

    /// The measures of a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) async fn measure(&self, probe: Probe, file: Bytes) -> Result<Media, Unreadable> {
        let (answer, answered) = async_channel::bounded(1);
        let job = Job {
            probe,
            file,
            answer,
        };
        let gone = || Unreadable::Damaged("nobody could look at it".to_owned());
        self.0.send(job).await.map_err(|_| gone())?;
        answered.recv().await.map_err(|_| gone())?
    }
}

fn measure(kind: Probe, file: &[u8]) -> Result<Media, Unreadable> {
    Ok(match kind {
        Probe::Image => {
            let image = probe::image(file)?;
            Media::Image {
                width: image.width,
                height: image.height,
            }
        }
        Probe::Audio => Media::Audio {
            duration: probe::sound(file)?.duration,
        },
    })
}
