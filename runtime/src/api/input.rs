//! The input of a job, for whoever works: see [`media`](livepeer_core::job::live::media).

use std::sync::Arc;

use bytes::Bytes;
use livepeer_core::Failure;
use livepeer_core::trickle::{Seq, publisher};

use super::Error;
use super::pump::Shared;
use crate::Runtime;

/// The input of a job. Segments are numbered by themselves; several may be on their way.
pub struct Publisher<R: Runtime> {
    shared: Arc<Shared<R>>,
    /// The number of this publisher among the job's: the last one that was opened closes the input.
    turn: u32,
}

impl<R: Runtime> Publisher<R> {
    pub(super) fn new(shared: Arc<Shared<R>>, config: publisher::Config) -> Self {
        shared.media(|media, now| media.open(now, config));
        let turn = shared.with(|state| {
            state.publishers += 1;
            state.publishers
        });
        Self { shared, turn }
    }

    /// Begins a segment, as soon as not too many are on their way. Let it begin where a decoder can: with a key frame
    /// and the tables before it.
    ///
    /// # Errors
    /// If the input is closed, or the job has ended.
    pub async fn begin(&mut self) -> Result<Segment<'_, R>, Error> {
        self.handed_over().await?;
        let seq = self.shared.media(|media, now| media.begin(now))?;
        self.handed_over().await?;
        Ok(Segment {
            publisher: self,
            seq,
        })
    }

    /// Publishes one whole segment. It is on its way when this returns; [`Publisher::flush`] waits for delivery.
    ///
    /// # Errors
    /// If the input is closed, or the job has ended.
    pub async fn publish(&mut self, segment: Bytes) -> Result<Seq, Error> {
        let mut open = self.begin().await?;
        open.write(segment).await?;
        open.end()
    }

    /// Waits until every segment is delivered or given up, and says how many of each there were.
    pub async fn flush(&mut self) -> Flushed {
        self.shared
            .until(|_| self.shared.look(|media| media.is_settled().then_some(())))
            .await;
        self.flushed()
    }

    /// Ends the input: waits for delivery, then closes the channel, which tells the orchestrator to finish. Segments
    /// whose output is lost after that with its orchestrator are still done again by another.
    pub async fn close(self) -> Flushed {
        self.shared.media(|media, now| media.close(now));
        self.shared
            .until(|_| self.shared.look(|media| media.is_closed().then_some(())))
            .await;
        self.flushed()
    }

    fn flushed(&self) -> Flushed {
        self.shared.look(|media| {
            let figures = media.figures();
            let lost = media.lost().iter();
            Flushed {
                begun: figures.begun,
                delivered: figures.delivered,
                resumed: figures.resumed,
                again: figures.again,
                lost: lost
                    .map(|(number, failure)| (Seq::new(*number), failure.clone()))
                    .collect(),
            }
        })
    }

    /// Waits until the orchestrator has been handed everything written so far.
    async fn handed_over(&self) -> Result<(), Error> {
        self.shared
            .until(|state| {
                if let Some(ending) = &state.ended {
                    return Some(Err(Error::of_ending(ending, &state.tried)));
                }
                self.shared.look(|media| {
                    if media.is_over() {
                        return Some(Err(Error::Ended("its input was closed".into())));
                    }
                    media.is_handed_over().then_some(Ok(()))
                })
            })
            .await
    }
}

impl<R: Runtime> Drop for Publisher<R> {
    /// An input that is dropped is closed in the background.
    fn drop(&mut self) {
        if self.shared.with(|state| state.publishers == self.turn) {
            self.shared.media(|media, now| media.close(now));
        }
    }
}

/// The outcome of the segments begun.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Flushed {
    /// Segments begun.
    pub begun: u64,
    /// Segments that the server has whole.
    pub delivered: u64,
    /// Times a segment's connection broke and the rest followed on another.
    pub resumed: u64,
    /// Segments that were done again by another orchestrator.
    pub again: u64,
    /// Segments given up, and why. What the output lacks in the end is told by
    /// [`LiveVideoJob::media_figures`](super::LiveVideoJob::media_figures).
    pub lost: Vec<(Seq, Failure)>,
}

/// An open segment of the input.
pub struct Segment<'a, R: Runtime> {
    publisher: &'a mut Publisher<R>,
    seq: Seq,
}

impl<R: Runtime> Segment<'_, R> {
    /// The segment's number, from zero over all orchestrators.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        self.seq
    }

    /// Writes the next bytes; readers see them at once. Waits while too much is unsent.
    ///
    /// # Errors
    /// If the input is closed, or the job has ended.
    pub async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        let shared = &self.publisher.shared;
        shared.media(|media, now| media.write(now, data));
        self.publisher.handed_over().await
    }

    /// The segment is complete.
    ///
    /// # Errors
    /// If the input is closed, or the job has ended.
    pub fn end(self) -> Result<Seq, Error> {
        let shared = &self.publisher.shared;
        shared.media(|media, now| media.end_segment(now));
        shared.with(|state| match &state.ended {
            Some(ending) => Err(Error::of_ending(ending, &state.tried)),
            None => Ok(self.seq),
        })
    }
}
