//! The output of a job, from whoever works: see [`media`](livepeer_core::job::live::media).

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use livepeer_core::job::live::media::OutputEvent;
use livepeer_core::job::live::{Ending, Readers};
use livepeer_core::trickle::{Seq, Subscriber, subscriber};

use super::Error;
use super::pump::Shared;
use crate::{Handle, Runtime};

/// A segment collected by [`Output::next_segment`] is refused beyond this.
pub const MAX_SEGMENT_BYTES: usize = 64 << 20;

/// The output of a job. Not reading it stops the download, and in the end loses segments, which is told.
pub struct Output<R: Runtime> {
    shared: Arc<Shared<R>>,
    readers: Readers<Handle<Subscriber, R>>,
    config: subscriber::Config,
    /// The number of this reader among the job's: only the one that was opened last reads.
    turn: u32,
    told: VecDeque<OutputEvent>,
    collecting: BytesMut,
}

/// The next thing on a channel, or why there is none.
enum Next {
    Event(u32, subscriber::Event),
    /// Other channels are to be read.
    Elsewhere,
    /// Another reader was opened.
    Taken,
    /// The job has ended, and nothing more is there.
    Over,
}

impl<R: Runtime> Output<R> {
    pub(super) fn new(shared: Arc<Shared<R>>, config: subscriber::Config) -> Self {
        shared.media(|media, now| media.expect_output(now, true));
        shared.job.with(|job, now| job.set_output_read(now, true));
        let turn = shared.with(|state| {
            state.outputs += 1;
            state.outputs
        });
        let mut output = Self {
            shared,
            readers: Readers::default(),
            config,
            turn,
            told: VecDeque::new(),
            collecting: BytesMut::new(),
        };
        output.follow();
        output
    }

    /// The next event; `None` at the end of the stream.
    ///
    /// # Errors
    /// If the job has failed, or another reader of its output was opened.
    pub async fn next(&mut self) -> Result<Option<OutputEvent>, Error> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Ok(Some(event));
            }
            match self.poll_one().await {
                Next::Event(session, event) => self.take(session, event),
                Next::Elsewhere => {
                    self.follow();
                    self.collect_told();
                }
                Next::Taken => {
                    return Err(Error::Ended("its output is read by another reader".into()));
                }
                Next::Over => {
                    // What is missing in the end.
                    self.collect_told();
                    if self.told.is_empty() {
                        return self.over();
                    }
                }
            }
        }
    }

    /// Reads from whoever works, and from a standby.
    fn follow(&mut self) {
        let outputs = self.shared.look(|media| {
            let outputs = media.outputs();
            outputs
                .map(|(session, channel)| (session, channel.clone()))
                .collect()
        });
        let driver = self.shared.job.driver();
        self.readers
            .follow(driver.now(), &self.config, outputs, |reader| {
                driver.drive(reader)
            });
    }

    /// Hands an event of a channel to the job's media, and takes what comes of it.
    fn take(&mut self, session: u32, event: subscriber::Event) {
        let told = &mut self.told;
        self.shared.media(|media, now| {
            media.output(now, session, event);
            told.extend(std::iter::from_fn(|| media.next_output()));
        });
    }

    fn collect_told(&mut self) {
        let told = &mut self.told;
        self.shared
            .media(|media, _| told.extend(std::iter::from_fn(|| media.next_output())));
    }

    /// The next event of a channel, as long as it is one that is to be read.
    async fn poll_one(&self) -> Next {
        let left = self.shared.until(|state| {
            if state.outputs != self.turn {
                return Some(Next::Taken);
            }
            if !self.shared.look(|media| self.readers.fit(media)) {
                return Some(Next::Elsewhere);
            }
            state.ended.as_ref().map(|_| Next::Over)
        });
        let mut left = std::pin::pin!(left);
        std::future::poll_fn(|cx| {
            let left = left.as_mut().poll(cx);
            if let Poll::Ready(Next::Taken | Next::Elsewhere) = left {
                return left;
            }
            // What came before the end is still to be had.
            for (session, reader) in self.readers.iter() {
                if let Poll::Ready(Some(event)) = reader.poll_next(cx) {
                    return Poll::Ready(Next::Event(session, event));
                }
            }
            left
        })
        .await
    }

    /// How the output ended, with the job.
    fn over(&self) -> Result<Option<OutputEvent>, Error> {
        self.shared.with(|state| match &state.ended {
            Some(ending @ (Ending::Failed(_) | Ending::NoOrchestrator)) => {
                Err(Error::of_ending(ending, &state.tried))
            }
            _ => Ok(None),
        })
    }

    /// The next complete segment; `None` at the end of the stream. Truncated and missing segments are passed over:
    /// use [`Output::next`] to learn of them.
    ///
    /// # Errors
    /// As [`Output::next`], and if a segment is larger than [`MAX_SEGMENT_BYTES`].
    pub async fn next_segment(&mut self) -> Result<Option<(Seq, Bytes)>, Error> {
        while let Some(event) = self.next().await? {
            match event {
                OutputEvent::Begin(..) | OutputEvent::Truncated(..) | OutputEvent::Anew(..) => {
                    self.collecting.clear();
                }
                OutputEvent::Data(_, data) => {
                    if self.collecting.len() + data.len() > MAX_SEGMENT_BYTES {
                        return Err(Error::Ended(
                            "an output segment is larger than 64 MiB".into(),
                        ));
                    }
                    self.collecting.extend_from_slice(&data);
                }
                OutputEvent::End(seq) => return Ok(Some((seq, self.collecting.split().freeze()))),
                _ => {}
            }
        }
        Ok(None)
    }
}

impl<R: Runtime> Drop for Output<R> {
    /// Output that nobody reads is not missed.
    fn drop(&mut self) {
        if self.shared.with(|state| state.outputs == self.turn) {
            let shared = &self.shared;
            shared.media(|media, now| media.expect_output(now, false));
            shared.job.with(|job, now| job.set_output_read(now, false));
        }
    }
}
