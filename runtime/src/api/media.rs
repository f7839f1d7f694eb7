//! The media channels of a job: the input that it publishes and the output that it reads.
//!
//! Both outlive the orchestrator. When the job goes on with another one, that one gets the input segments again for
//! which no output has come back, the open one included, and the output goes on where it was:
//!
//! - Segments are numbered on, without a gap and without a number twice.
//! - One that was being read is told to begin anew ([`OutputEvent::Anew`]): pictures of two encoders cannot be
//!   joined in the middle. Whoever cannot take back what it has of it collects whole segments, as
//!   [`Output::next_segment`] does.
//! - The n-th output segment is held to answer the n-th input segment. For a model that returns as many as it gets,
//!   nothing is missing and nothing comes twice; see [`replay`](livepeer_core::job::live::replay) for others.

use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use livepeer_core::Failure;
use livepeer_core::http::Url;
use livepeer_core::job::live::Ending;
use livepeer_core::trickle::{self, ContentType, Seq, publisher, subscriber};

use super::Error;
use super::live::why;
use super::pump::Shared;
use crate::{Handle, Runtime};

/// A segment collected by [`Output::next_segment`] is refused beyond this.
pub const MAX_SEGMENT_BYTES: usize = 64 << 20;

/// The input of a job. Segments are numbered by themselves; several may be on their way.
pub struct Publisher<R: Runtime> {
    shared: Arc<Shared<R>>,
}

impl<R: Runtime> Publisher<R> {
    pub(super) fn new(shared: Arc<Shared<R>>, config: publisher::Config, channel: &Url) -> Self {
        shared.change(|state| {
            // The job may be with another orchestrator by now.
            let now = state
                .started
                .as_ref()
                .map_or(channel, |started| &started.channels.publish)
                .clone();
            state.input.open(&shared.job, config, &now);
        });
        Self { shared }
    }

    /// Begins a segment, as soon as not too many are on their way.
    ///
    /// # Errors
    /// If the input is closed, or the job has ended.
    pub async fn begin(&mut self) -> Result<Segment<'_, R>, Error> {
        self.handed_over().await?;
        let number = self.shared.change(|state| {
            let number = state.input.replay.begin();
            state.input.feed(&self.shared.job);
            number
        });
        self.handed_over().await?;
        Ok(Segment {
            publisher: self,
            seq: Seq::new(number),
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
            .until(|state| state.input.is_settled().then(|| state.input.flushed()))
            .await
    }

    /// Ends the input: waits for delivery, then closes the channel, which tells the orchestrator to finish. Segments
    /// whose output is lost after that with its orchestrator are still done again by another.
    pub async fn close(self) -> Flushed {
        self.shared
            .change(|state| state.input.close(&self.shared.job));
        self.shared
            .until(|state| state.input.is_closed().then(|| state.input.flushed()))
            .await
    }

    /// Waits until the orchestrator has been handed everything written so far.
    async fn handed_over(&self) -> Result<(), Error> {
        self.shared
            .until(|state| {
                if let Some(ending) = &state.ended {
                    return Some(Err(why(ending, &state.tried)));
                }
                if state.input.is_over() {
                    return Some(Err(Error::Ended("its input was closed".into())));
                }
                state.input.is_handed_over().then_some(Ok(()))
            })
            .await
    }
}

impl<R: Runtime> Drop for Publisher<R> {
    /// An input that is dropped is closed in the background.
    fn drop(&mut self) {
        self.shared
            .change(|state| state.input.close(&self.shared.job));
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
    /// Segments that were done again by another orchestrator.
    pub again: u64,
    /// Segments given up, and why.
    pub lost: Vec<(Seq, Failure)>,
}

/// An open segment of the input.
pub struct Segment<'a, R: Runtime> {
    publisher: &'a mut Publisher<R>,
    seq: Seq,
}

impl<R: Runtime> Segment<'_, R> {
    /// Its number, from zero over all orchestrators.
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
        shared.change(|state| {
            state.input.replay.write(data);
            state.input.feed(&shared.job);
        });
        self.publisher.handed_over().await
    }

    /// The segment is complete.
    ///
    /// # Errors
    /// If the input is closed, or the job has ended.
    pub fn end(self) -> Result<Seq, Error> {
        let shared = &self.publisher.shared;
        shared.change(|state| {
            state.input.replay.end();
            state.input.feed(&shared.job);
            match &state.ended {
                Some(ending) => Err(why(ending, &state.tried)),
                None => Ok(self.seq),
            }
        })
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
    /// The orchestrator was lost inside this segment, after that many bytes of it. Another makes it anew: drop what
    /// there is of it; the next [`OutputEvent::Begin`] has the same number.
    Anew(Seq, u64),
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
    config: subscriber::Config,
    /// Which of the job's orchestrators this reads from.
    session: u32,
    /// The number of the next segment, once there was one.
    next: Option<Seq>,
    /// What the channel calls the segment that we call [`Output::base`]; `None` until the channel has said.
    first: Option<Seq>,
    base: Option<Seq>,
    /// The segment being read, and how much of it there was.
    open: Option<(Seq, u64)>,
    collecting: BytesMut,
}

/// What is next on the channel.
enum Next {
    Event(subscriber::Event),
    /// The job is with another orchestrator.
    Elsewhere,
    /// The job has ended, and nothing more is there.
    Over,
}

impl<R: Runtime> Output<R> {
    pub(super) fn new(
        shared: Arc<Shared<R>>,
        config: subscriber::Config,
        channel: &Url,
        start: trickle::Start,
    ) -> Self {
        let (session, channel) = shared.with(|state| {
            state.input.replay.expect_answers();
            // The job may be with another orchestrator by now.
            let now = state.started.as_ref();
            let now = now.map_or(channel, |started| &started.channels.subscribe);
            state.readers += 1;
            (state.session(), now.clone())
        });
        shared.job.with(|job, now| job.set_output_read(now, true));
        Self {
            handle: drive(&shared, &config, channel, start),
            shared,
            config,
            session,
            next: None,
            first: None,
            base: None,
            open: None,
            collecting: BytesMut::new(),
        }
    }

    /// What comes next; `None` at the end of the stream.
    ///
    /// # Errors
    /// If the job has failed.
    pub async fn next(&mut self) -> Result<Option<OutputEvent>, Error> {
        use subscriber::Event;
        loop {
            let event = match self.poll_one().await {
                Next::Event(event) => event,
                Next::Elsewhere => match self.follow() {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                },
                Next::Over => return self.over(),
            };
            let event = match event {
                Event::Begin(seq, content) => {
                    let seq = self.number(seq);
                    self.open = Some((seq, 0));
                    OutputEvent::Begin(seq, content)
                }
                Event::Data(seq, data) => {
                    self.shared.job.with(|job, now| job.output_seen(now));
                    if let Some((_, bytes)) = &mut self.open {
                        *bytes += data.len() as u64;
                    }
                    OutputEvent::Data(self.number(seq), data)
                }
                Event::End(seq) => {
                    let seq = self.number(seq);
                    if !self.done(seq, 1) {
                        continue;
                    }
                    OutputEvent::End(seq)
                }
                Event::Truncated(seq, bytes) => {
                    let seq = self.number(seq);
                    if !self.done(seq, 1) {
                        continue;
                    }
                    OutputEvent::Truncated(seq, bytes)
                }
                Event::Gap(range) => {
                    let (from, to) = (self.number(range.start), self.number(range.end));
                    let missed = to.get().saturating_sub(from.get());
                    if !self.done(to.minus(1), missed) {
                        continue;
                    }
                    OutputEvent::Gap(from, to)
                }
                Event::Discontinuity => {
                    // Its numbers mean something else from now on; ours go on.
                    self.first = None;
                    self.base = self.next;
                    OutputEvent::Discontinuity
                }
                Event::Closed(ending) => {
                    let failure = match ending {
                        trickle::Ending::Failed(failure) => Some(failure),
                        _ => None,
                    };
                    let job = &self.shared.job;
                    job.with(|job, now| job.media_ended(now, failure));
                    // The job goes elsewhere, or ends.
                    let session = self.session;
                    let gone = |state: &mut super::pump::State<R>| {
                        (state.session() != session || state.ended.is_some()).then_some(())
                    };
                    self.shared.until(gone).await;
                    continue;
                }
                _ => continue,
            };
            return Ok(Some(event));
        }
    }

    /// The next event of the channel, unless the job has left it.
    async fn poll_one(&self) -> Next {
        let left = self.shared.until(|state| {
            if state.session() != self.session {
                return Some(Next::Elsewhere);
            }
            state.ended.as_ref().map(|_| Next::Over)
        });
        let mut left = std::pin::pin!(left);
        std::future::poll_fn(|cx| match left.as_mut().poll(cx) {
            Poll::Ready(Next::Elsewhere) => Poll::Ready(Next::Elsewhere),
            // What came before the end is still to be had.
            Poll::Ready(over) => match self.handle.poll_next(cx) {
                Poll::Ready(Some(event)) => Poll::Ready(Next::Event(event)),
                _ => Poll::Ready(over),
            },
            Poll::Pending => match self.handle.poll_next(cx) {
                Poll::Ready(Some(event)) => Poll::Ready(Next::Event(event)),
                Poll::Ready(None) => Poll::Ready(Next::Over),
                Poll::Pending => Poll::Pending,
            },
        })
        .await
    }

    /// Reads from the orchestrator that works now, from its first segment on. A segment that was open begins anew.
    fn follow(&mut self) -> Option<OutputEvent> {
        let (session, channel) = self.shared.with(|state| {
            let started = state.started.as_ref();
            let started = started.expect("a session that changed has started");
            (started.swaps, started.channels.subscribe.clone())
        });
        self.session = session;
        // Its channels are new, and nothing of them may be missed.
        let start = trickle::Start::At(Seq::ZERO);
        self.handle = drive(&self.shared, &self.config, channel, start);
        self.first = None;
        self.base = self.next;
        self.collecting.clear();
        let (seq, bytes) = self.open.take()?;
        Some(OutputEvent::Anew(seq, bytes))
    }

    /// Our number for a segment of the channel.
    fn number(&mut self, seq: Seq) -> Seq {
        let first = *self.first.get_or_insert(seq);
        let base = *self.base.get_or_insert(first);
        self.next.get_or_insert(base);
        base.plus(seq.get().saturating_sub(first.get()))
    }

    /// A segment is over, and answers some of the input; unless the job has left its orchestrator meanwhile, which
    /// then does it again.
    fn done(&mut self, seq: Seq, answers: u64) -> bool {
        let current = self.shared.change(|state| {
            if state.session() != self.session {
                return false;
            }
            let replay = &mut state.input.replay;
            for _ in 0..answers.min(replay.unanswered().max(1) as u64) {
                replay.answered();
            }
            let owed = replay.owed();
            self.shared.job.with(|job, now| job.set_owed(now, owed));
            true
        });
        if current {
            self.open = None;
            self.next = Some(seq.next());
        }
        current
    }

    /// How the output ended, with the job.
    fn over(&self) -> Result<Option<OutputEvent>, Error> {
        self.shared.with(|state| match &state.ended {
            Some(ending @ (Ending::Failed(_) | Ending::NoOrchestrator)) => {
                Err(why(ending, &state.tried))
            }
            _ => Ok(None),
        })
    }

    /// The next complete segment; `None` at the end of the stream. Truncated and missed segments are passed over:
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
                OutputEvent::Gap(..) | OutputEvent::Discontinuity => {}
            }
        }
        Ok(None)
    }
}

impl<R: Runtime> Drop for Output<R> {
    /// Output that nobody reads is not missed.
    fn drop(&mut self) {
        let deserted = self.shared.with(|state| {
            state.readers -= 1;
            state.readers == 0
        });
        if deserted {
            let job = &self.shared.job;
            job.with(|job, now| job.set_output_read(now, false));
        }
    }
}

fn drive<R: Runtime>(
    shared: &Shared<R>,
    config: &subscriber::Config,
    channel: Url,
    start: trickle::Start,
) -> Handle<trickle::Subscriber, R> {
    let driver = shared.job.driver();
    let subscriber = trickle::Subscriber::new(driver.now(), config.clone(), channel, start);
    driver.drive(subscriber)
}
