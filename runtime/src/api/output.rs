//! The output of a job, from whoever works: see [`media`](livepeer_core::job::live::media).

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_core::Stream;
use futures_io::AsyncRead;
use livepeer_core::job::live::Readers;
use livepeer_core::job::live::media::OutputEvent;
use livepeer_core::trickle::{Seq, Subscriber, subscriber};

use super::Error;
use super::feed::Feed;
use crate::{Handle, Runtime};

/// At most this many bytes are collected of a segment by [`Output::next_segment`].
pub const MAX_SEGMENT_BYTES: usize = 64 << 20;

/// The output of a job. There is one. Not reading it stops the download, and in the end loses segments, which is told;
/// an application that wants no output drops it.
///
/// | call | what it yields |
/// |---|---|
/// | [`Output::next`], or the [`Stream`] that an output is | everything as it comes: pieces of segments, and what is missing |
/// | [`Output::next_segment`], or the [`Stream`] of [`Output::segments`] | whole segments |
/// | [`Output::into_reader`] | the bytes of whole segments, as [`AsyncRead`] |
#[doc(alias = "MediaOutput")]
#[doc(alias = "TrickleSubscriber")]
pub struct Output<R: Runtime> {
    feed: Feed<R>,
    readers: Readers<Handle<Subscriber, R>>,
    config: subscriber::Config,
    /// The stream has yielded its last item.
    done: bool,
    told: VecDeque<OutputEvent>,
    collecting: BytesMut,
    /// A segment that is too large: what comes of it is passed over.
    oversized: Option<Seq>,
}

/// The next thing on a channel, or why there is none.
enum Next {
    Event(u32, subscriber::Event),
    /// Other channels are to be read.
    Elsewhere,
    /// The job has ended, and nothing more is there.
    Over,
}

impl<R: Runtime> Output<R> {
    pub(super) fn new(feed: Feed<R>, config: subscriber::Config) -> Self {
        feed.change(|media, now| media.expect_output(now, true));
        feed.set_output_read(true);
        let mut output = Self {
            feed,
            readers: Readers::default(),
            config,
            done: false,
            told: VecDeque::new(),
            collecting: BytesMut::new(),
            oversized: None,
        };
        output.follow();
        output
    }

    /// The next event; `None` at the end of the stream.
    ///
    /// # Errors
    /// If the job has failed.
    pub async fn next(&mut self) -> Result<Option<OutputEvent>, Error> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    pub(crate) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<OutputEvent>, Error>> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Poll::Ready(Ok(Some(event)));
            }
            match ready!(self.poll_one(cx)) {
                Next::Event(session, event) => self.take(session, event),
                Next::Elsewhere => {
                    self.follow();
                    self.collect_told();
                }
                Next::Over => {
                    // What is missing in the end.
                    self.feed.change(|media, now| media.output_over(now));
                    self.collect_told();
                    if self.told.is_empty() {
                        return Poll::Ready(self.over());
                    }
                }
            }
        }
    }

    /// Reads from whoever works, and from a standby.
    fn follow(&mut self) {
        let outputs = self.feed.look(|media| {
            let outputs = media.outputs();
            outputs
                .map(|(session, channel)| (session, channel.clone()))
                .collect()
        });
        let driver = self.feed.driver();
        self.readers
            .follow(driver.now(), &self.config, outputs, |reader| {
                driver.drive(reader)
            });
    }

    /// Hands an event of a channel to the job's media, and takes what comes of it.
    fn take(&mut self, session: u32, event: subscriber::Event) {
        let told = &mut self.told;
        self.feed.change(|media, now| {
            media.output(now, session, event);
            told.extend(std::iter::from_fn(|| media.next_output()));
        });
    }

    fn collect_told(&mut self) {
        let told = &mut self.told;
        self.feed
            .change(|media, _| told.extend(std::iter::from_fn(|| media.next_output())));
    }

    /// The next event of a channel, as long as it is one that is to be read.
    fn poll_one(&self, cx: &mut Context<'_>) -> Poll<Next> {
        let left = self.feed.poll(cx, || {
            if !self.feed.look(|media| self.readers.fit(media)) {
                return Some(Next::Elsewhere);
            }
            self.feed.ended().map(|_| Next::Over)
        });
        if matches!(left, Poll::Ready(Next::Elsewhere)) {
            return left;
        }
        // What came before the end is still to be had.
        for (session, reader) in self.readers.iter() {
            if let Poll::Ready(Some(event)) = reader.poll_next(cx) {
                return Poll::Ready(Next::Event(session, event));
            }
        }
        left
    }

    /// How the output ended, with the job.
    fn over(&self) -> Result<Option<OutputEvent>, Error> {
        match self.feed.failed() {
            Some(error) => Err(error),
            None => Ok(None),
        }
    }

    /// The next complete segment; `None` at the end of the stream. Truncated and missing segments are passed over:
    /// use [`Output::next`] to learn of them.
    ///
    /// # Errors
    /// As [`Output::next`], and [`Error::SegmentTooLarge`] for a segment of more than [`MAX_SEGMENT_BYTES`], which is
    /// passed over too.
    pub async fn next_segment(&mut self) -> Result<Option<(Seq, Bytes)>, Error> {
        poll_fn(|cx| self.poll_segment(cx)).await
    }

    fn poll_segment(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<(Seq, Bytes)>, Error>> {
        while let Some(event) = ready!(self.poll_event(cx))? {
            match event {
                OutputEvent::Begin(..) | OutputEvent::Truncated(..) | OutputEvent::Anew(..) => {
                    self.oversized = None;
                    self.collecting.clear();
                }
                OutputEvent::Data(seq, data) if self.oversized != Some(seq) => {
                    if self.collecting.len() + data.len() > MAX_SEGMENT_BYTES {
                        self.oversized = Some(seq);
                        self.collecting = BytesMut::new();
                        let limit = MAX_SEGMENT_BYTES;
                        return Poll::Ready(Err(Error::SegmentTooLarge { seq, limit }));
                    }
                    self.collecting.extend_from_slice(&data);
                }
                OutputEvent::End(seq) if self.oversized != Some(seq) => {
                    return Poll::Ready(Ok(Some((seq, self.collecting.split().freeze()))));
                }
                _ => {}
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Whole segments as a stream, as [`Output::next_segment`] yields them. The stream ends after an error.
    pub fn segments(&mut self) -> Segments<'_, R> {
        Segments { output: self }
    }

    /// The bytes of the output as [`AsyncRead`], with nothing between the segments. Only whole segments are handed out:
    /// of one that is begun anew by another orchestrator nothing could be taken back. With tokio, wrap the reader in
    /// `compat()` of `tokio_util::compat`.
    #[must_use]
    pub fn into_reader(self) -> OutputReader<R> {
        OutputReader {
            output: self,
            rest: Bytes::new(),
        }
    }
}

/// Passes items on until the end or the first error, which is the last item.
fn until_error<T>(
    done: &mut bool,
    next: Poll<Result<Option<T>, Error>>,
) -> Poll<Option<Result<T, Error>>> {
    next.map(|next| {
        let next = next.transpose();
        *done = !matches!(next, Some(Ok(_)));
        next
    })
}

impl<R: Runtime> Stream for Output<R> {
    type Item = Result<OutputEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let next = self.poll_event(cx);
        until_error(&mut self.done, next)
    }
}

/// The whole segments of an output, as a [`Stream`]. See [`Output::segments`].
#[derive(Debug)]
pub struct Segments<'a, R: Runtime> {
    output: &'a mut Output<R>,
}

impl<R: Runtime> Stream for Segments<'_, R> {
    type Item = Result<(Seq, Bytes), Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.output.done {
            return Poll::Ready(None);
        }
        let next = self.output.poll_segment(cx);
        until_error(&mut self.output.done, next)
    }
}

/// The bytes of an output, as [`AsyncRead`]. See [`Output::into_reader`].
#[derive(Debug)]
pub struct OutputReader<R: Runtime> {
    output: Output<R>,
    /// The part of a segment that is not read yet.
    rest: Bytes,
}

impl<R: Runtime> AsyncRead for OutputReader<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        while self.rest.is_empty() {
            match ready!(self.output.poll_segment(cx)).map_err(io::Error::other)? {
                Some((_, segment)) => self.rest = segment,
                None => return Poll::Ready(Ok(0)),
            }
        }
        let bytes = self.rest.len().min(into.len());
        self.rest.copy_to_slice(&mut into[..bytes]);
        Poll::Ready(Ok(bytes))
    }
}

impl<R: Runtime> fmt::Debug for Output<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("told", &self.told)
            .field("collecting", &self.collecting.len())
            .finish_non_exhaustive()
    }
}

impl<R: Runtime> Drop for Output<R> {
    /// Output that nobody reads is not missed.
    fn drop(&mut self) {
        self.feed
            .change(|media, now| media.expect_output(now, false));
        self.feed.set_output_read(false);
    }
}
