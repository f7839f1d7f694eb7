//! The input of a job, for whoever works: see [`media`](livepeer_core::job::live::media).

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_io::AsyncWrite;
use livepeer_core::trickle::{Seq, publisher};
use livepeer_core::{Failure, Time};
#[cfg(feature = "ingest")]
use livepeer_core::{Misuse, job::live::media::Media};

use super::error::Error;
use super::feed::Feed;
use crate::Runtime;

/// The input of a job. There is one; segments are numbered by themselves, and several may be on their way.
///
/// [`Input::publish_ts`] cuts MPEG-TS and publishes it. Segments that are cut already go out with [`Input::publish`],
/// and those that are still being made with [`Input::begin`].
///
/// An input that is dropped is closed in the background.
#[doc(alias = "MediaPublish")]
#[doc(alias = "TricklePublisher")]
pub struct Input<R: Runtime> {
    feed: Feed<R>,
}

/// How the input of live jobs is published unless an application says otherwise: one that falls silent is kept alive.
pub(super) fn publishing() -> publisher::Config {
    publisher::Config {
        idle: Some(publisher::Idle::default()),
        ..publisher::Config::default()
    }
}

impl<R: Runtime> Input<R> {
    pub(super) fn new(feed: Feed<R>, config: publisher::Config) -> Self {
        feed.change(|media, now| media.open(now, config));
        Self { feed }
    }

    /// Begins a segment, as soon as not too many are on their way. Let it begin where a decoder can: with a key frame
    /// and the tables before it.
    ///
    /// # Errors
    /// If the job has ended: why it did.
    pub async fn begin(&mut self) -> Result<Segment<'_, R>, Error> {
        let seq = self.open().await?;
        Ok(Segment { input: self, seq })
    }

    /// Begins a segment, and ends the one before it if that is open.
    pub(super) async fn open(&self) -> Result<Seq, Error> {
        self.handed_over().await?;
        let seq = self.feed.change(|media, now| media.begin(now));
        // A job that ended just now says why.
        self.handed_over().await?;
        Ok(seq?)
    }

    /// Adds to the open segment.
    pub(super) async fn write(&self, data: Bytes) -> Result<(), Error> {
        self.feed.change(|media, now| media.write(now, data));
        self.handed_over().await
    }

    /// Begins a segment, and ends the one before it if that is open, however much is on its way.
    #[cfg(feature = "ingest")]
    pub(crate) fn begin_now(&self) -> Result<Seq, Misuse> {
        self.feed.change(|media, now| media.begin(now))
    }

    /// Adds to the open segment, however much is on its way: look at [`Input::has_room`].
    #[cfg(feature = "ingest")]
    pub(crate) fn write_now(&self, data: Bytes) {
        self.feed.change(|media, now| media.write(now, data));
    }

    /// Whether the orchestrator has been handed everything written so far.
    #[cfg(feature = "ingest")]
    pub(crate) fn has_room(&self) -> bool {
        self.feed.look(Media::is_handed_over)
    }

    /// Ends the open segment, if there is one.
    pub(crate) fn cut(&self) {
        self.feed.change(|media, now| media.end_segment(now));
    }

    pub(super) fn now(&self) -> Time {
        self.feed.driver().now()
    }

    /// Waits until that time has come.
    pub(super) async fn until(&self, due: Time) {
        while self.now() < due {
            self.feed.driver().runtime().sleep_until(due).await;
        }
    }

    /// Publishes one whole segment. It is on its way when this returns; [`Input::flush`] waits for delivery.
    ///
    /// # Errors
    /// If the job has ended: why it did.
    pub async fn publish(&mut self, segment: Bytes) -> Result<Seq, Error> {
        let mut open = self.begin().await?;
        open.write(segment).await?;
        open.end()
    }

    /// Waits until every segment is delivered or given up, and says how many of each there were.
    pub async fn flush(&mut self) -> Flushed {
        self.feed
            .until(|| self.feed.look(|media| media.is_settled().then_some(())))
            .await;
        self.flushed()
    }

    /// Ends the input: waits for delivery, then closes the channel, which tells the orchestrator to finish. Segments
    /// whose output is lost after that with its orchestrator are still done again by another.
    pub async fn close(self) -> Flushed {
        self.feed.change(|media, now| media.close(now));
        self.feed
            .until(|| self.feed.look(|media| media.is_closed().then_some(())))
            .await;
        self.flushed()
    }

    fn flushed(&self) -> Flushed {
        self.feed.look(|media| {
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
        poll_fn(|cx| self.poll_handed_over(cx)).await
    }

    pub(crate) fn poll_handed_over(&self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        self.feed.poll(cx, || {
            if let Some(error) = self.feed.ended() {
                return Some(Err(error));
            }
            self.feed.look(|media| {
                // Media that are over have ended with the job, since only an input can close itself: the reason follows.
                (!media.is_over() && media.is_handed_over()).then_some(Ok(()))
            })
        })
    }
}

impl<R: Runtime> Drop for Input<R> {
    fn drop(&mut self) {
        self.feed.change(|media, now| media.close(now));
    }
}

impl<R: Runtime> fmt::Debug for Input<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("flushed", &self.flushed())
            .finish_non_exhaustive()
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

/// An open segment of the input. The next one begins after its end.
///
/// Implements [`AsyncWrite`], of which closing is the end of the segment; with tokio, wrap it in `compat_write()` of
/// `tokio_util::compat`.
pub struct Segment<'a, R: Runtime> {
    input: &'a mut Input<R>,
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
    /// If the job has ended: why it did.
    pub async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        self.input.write(data).await
    }

    /// Ends the segment: it is complete.
    ///
    /// # Errors
    /// If the job has ended: why it did.
    pub fn end(self) -> Result<Seq, Error> {
        self.input.cut();
        match self.input.feed.ended() {
            Some(error) => Err(error),
            None => Ok(self.seq),
        }
    }
}

impl<R: Runtime> AsyncWrite for Segment<'_, R> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.as_ref().poll_room(cx))?;
        let data = Bytes::copy_from_slice(bytes);
        let feed = &self.input.feed;
        feed.change(|media, now| media.write(now, data));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_ref().poll_room(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_ref().poll_room(cx))?;
        self.input.cut();
        Poll::Ready(Ok(()))
    }
}

impl<R: Runtime> Segment<'_, R> {
    fn poll_room(self: Pin<&Self>, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let room = self.get_ref().input.poll_handed_over(cx);
        room.map_err(io::Error::other)
    }
}

impl<R: Runtime> fmt::Debug for Segment<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}
