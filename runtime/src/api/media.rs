//! The media channels of a job: the input that it publishes and the output that it reads.

use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use livepeer_core::http::Url;
use livepeer_core::trickle::{self, ContentType, Seq, publisher, subscriber};
use livepeer_core::{Failure, Misuse};

use super::Error;
use super::pump::Shared;
use crate::{Handle, Runtime};

/// A segment collected by [`Output::next_segment`] is refused beyond this.
pub const MAX_SEGMENT_BYTES: usize = 64 << 20;

/// The input of a job. Segments are numbered by themselves; several may be on their way.
pub struct Publisher<R: Runtime> {
    shared: Arc<Shared<R>>,
    handle: Handle<trickle::Publisher, R>,
}

impl<R: Runtime> Publisher<R> {
    pub(super) fn new(shared: Arc<Shared<R>>, config: publisher::Config, channel: Url) -> Self {
        let driver = shared.job.driver().clone();
        let handle = driver.drive(trickle::Publisher::new(driver.now(), config, channel));
        shared.set_media(handle.clone());
        Self { shared, handle }
    }

    /// Begins a segment, as soon as not too many are on their way.
    ///
    /// # Errors
    /// If the channel has ended.
    pub async fn begin(&mut self) -> Result<Segment<'_, R>, Error> {
        loop {
            let turns = self.shared.with(|state| state.input.turns);
            match self.handle.with(|publisher, now| publisher.begin(now)) {
                Ok(seq) => {
                    self.shared.with(|state| state.input.begun += 1);
                    self.shared.job.with(|job, now| job.input_begun(now));
                    return Ok(Segment {
                        publisher: self,
                        seq,
                    });
                }
                Err(publisher::Unbegun::Misuse(misuse)) => return Err(self.why(misuse)),
                Err(_) => self.turn_after(turns).await,
            }
        }
    }

    /// Publishes one whole segment. It is on its way when this returns; [`Publisher::flush`] waits for delivery.
    ///
    /// # Errors
    /// If the channel has ended.
    pub async fn publish(&mut self, segment: Bytes) -> Result<Seq, Error> {
        let mut open = self.begin().await?;
        open.write(segment).await?;
        open.end()
    }

    /// Waits until every segment is delivered or given up, and says how many of each there were.
    pub async fn flush(&mut self) -> Flushed {
        self.shared
            .until(|state| {
                let input = &state.input;
                let settled = input.delivered + input.lost.len() as u64 >= input.begun;
                (settled || input.ended.is_some()).then(|| Flushed {
                    begun: input.begun,
                    delivered: input.delivered,
                    resumed: input.resumed,
                    lost: input.lost.clone(),
                })
            })
            .await
    }

    /// Ends the input: waits for delivery, then closes the channel, which tells the orchestrator to finish.
    pub async fn close(mut self) -> Flushed {
        let flushed = self.flush().await;
        // Before the channel goes: what the orchestrator closes from now on is how it should be.
        self.shared.job.with(|job, now| job.input_closed(now));
        self.handle.with(|publisher, now| publisher.close(now));
        self.shared
            .until(|state| state.input.ended.as_ref().map(|_| ()))
            .await;
        flushed
    }

    async fn turn_after(&self, turns: u64) {
        self.shared
            .until(|state| {
                (state.input.turns != turns || state.input.ended.is_some()).then_some(())
            })
            .await;
    }

    fn why(&self, misuse: Misuse) -> Error {
        let ended = self.shared.with(|state| state.input.ended.clone());
        match ended {
            Some(trickle::Ending::Failed(failure)) => Error::from(failure),
            Some(trickle::Ending::EndOfStream) => {
                Error::Ended("the orchestrator closed the input channel".into())
            }
            Some(_) => Error::Ended("its input was closed".into()),
            None => Error::Misuse(misuse),
        }
    }
}

impl<R: Runtime> Drop for Publisher<R> {
    /// An input that is dropped is closed in the background.
    fn drop(&mut self) {
        self.handle.with(|publisher, now| publisher.close(now));
    }
}

/// What became of the segments begun.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Flushed {
    /// Segments begun.
    pub begun: u64,
    /// Segments that the server has whole.
    pub delivered: u64,
    /// Times a segment's connection broke and the rest followed on another.
    pub resumed: u64,
    /// Segments given up, and why.
    pub lost: Vec<(Seq, Failure)>,
}

/// An open segment of the input.
pub struct Segment<'a, R: Runtime> {
    publisher: &'a mut Publisher<R>,
    seq: Seq,
}

impl<R: Runtime> Segment<'_, R> {
    /// Its number.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        self.seq
    }

    /// Writes the next bytes; readers see them at once. Waits while too much is unsent.
    ///
    /// # Errors
    /// If the channel has ended.
    pub async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        let mut data = data;
        loop {
            let turns = self.publisher.shared.with(|state| state.input.turns);
            match self
                .publisher
                .handle
                .with(|publisher, now| publisher.write(now, data))
            {
                Ok(()) => return Ok(()),
                Err(publisher::Unwritten::Full(back)) => {
                    data = back;
                    self.publisher.turn_after(turns).await;
                }
                Err(publisher::Unwritten::Misuse(misuse)) => {
                    return Err(self.publisher.why(misuse));
                }
                Err(_) => return Err(self.publisher.why(Misuse::Ended)),
            }
        }
    }

    /// The segment is complete.
    ///
    /// # Errors
    /// If the channel has ended.
    pub fn end(self) -> Result<Seq, Error> {
        match self
            .publisher
            .handle
            .with(|publisher, now| publisher.end(now))
        {
            Ok(()) => Ok(self.seq),
            Err(misuse) => Err(self.publisher.why(misuse)),
        }
    }
}

/// What the output brings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OutputEvent {
    /// A segment begins.
    Begin(Seq, ContentType),
    /// Its next bytes.
    Data(Seq, Bytes),
    /// It is complete.
    End(Seq),
    /// The rest of a segment, after that many bytes, is lost.
    Truncated(Seq, u64),
    /// Segments were missed, from the first to before the second.
    Gap(Seq, Seq),
    /// The numbering began anew.
    Discontinuity,
}

/// The output of a job. Not reading it stops the download, and in the end loses segments, which is told.
pub struct Output<R: Runtime> {
    shared: Arc<Shared<R>>,
    handle: Handle<trickle::Subscriber, R>,
    collecting: BytesMut,
}

impl<R: Runtime> Output<R> {
    pub(super) fn new(
        shared: Arc<Shared<R>>,
        config: subscriber::Config,
        channel: Url,
        start: trickle::Start,
    ) -> Self {
        let driver = shared.job.driver().clone();
        let handle = driver.drive(trickle::Subscriber::new(
            driver.now(),
            config,
            channel,
            start,
        ));
        Self {
            shared,
            handle,
            collecting: BytesMut::new(),
        }
    }

    /// What comes next; `None` at the end of the stream.
    ///
    /// # Errors
    /// If the channel cannot be read any more.
    pub async fn next(&mut self) -> Result<Option<OutputEvent>, Error> {
        use subscriber::Event;
        loop {
            let event = match self.next_or_end().await {
                Some(Event::Begin(seq, content)) => OutputEvent::Begin(seq, content),
                Some(Event::Data(seq, data)) => {
                    self.shared.job.with(|job, now| job.output_seen(now));
                    OutputEvent::Data(seq, data)
                }
                Some(Event::End(seq)) => OutputEvent::End(seq),
                Some(Event::Truncated(seq, bytes)) => OutputEvent::Truncated(seq, bytes),
                Some(Event::Gap(range)) => OutputEvent::Gap(range.start, range.end),
                Some(Event::Discontinuity) => OutputEvent::Discontinuity,
                Some(Event::Closed(trickle::Ending::Failed(failure))) => {
                    self.shared
                        .job
                        .with(|job, now| job.media_ended(now, Some(failure.clone())));
                    return Err(failure.into());
                }
                Some(Event::Closed(_)) => {
                    self.shared.job.with(|job, now| job.media_ended(now, None));
                    return Ok(None);
                }
                None => return Ok(None),
                Some(_) => continue,
            };
            return Ok(Some(event));
        }
    }

    /// The next event of the subscriber; `None` if the job ended and nothing more is there.
    async fn next_or_end(&self) -> Option<subscriber::Event> {
        let ended = self.shared.until(|state| state.ended.as_ref().map(|_| ()));
        let mut ended = std::pin::pin!(ended);
        std::future::poll_fn(|cx| match self.handle.poll_next(cx) {
            Poll::Ready(event) => Poll::Ready(event),
            Poll::Pending => ended.as_mut().poll(cx).map(|()| None),
        })
        .await
    }

    /// The next complete segment; `None` at the end of the stream. Truncated and missed segments are passed over:
    /// use [`Output::next`] to learn of them.
    ///
    /// # Errors
    /// As [`Output::next`], and if a segment is larger than [`MAX_SEGMENT_BYTES`].
    pub async fn next_segment(&mut self) -> Result<Option<(Seq, Bytes)>, Error> {
        while let Some(event) = self.next().await? {
            match event {
                OutputEvent::Begin(..) | OutputEvent::Truncated(..) => self.collecting.clear(),
                OutputEvent::Data(_, data) => {
                    if self.collecting.len() + data.len() > MAX_SEGMENT_BYTES {
                        return Err(Error::Ended(
                            "an output segment is larger than 64 MiB".into(),
                        ));
                    }
                    self.collecting.extend_from_slice(&data);
                }
                OutputEvent::End(seq) => return Ok(Some((seq, self.collecting.split().freeze()))),
                OutputEvent::Gap(..) | OutputEvent::Discontinuity => {}
            }
        }
        Ok(None)
    }
}
