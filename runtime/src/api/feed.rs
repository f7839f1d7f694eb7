//! A job as its input and its output know it: its media, and its end.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use livepeer_core::Time;
use livepeer_core::job::live::media::Media;

use super::Error;
use super::error::Over;
use crate::{Driver, Handle, Runtime};

/// A job with media.
pub(super) trait Feeds<R: Runtime>: Send + Sync {
    /// The media.
    fn media(&self) -> &Handle<Media, R>;

    /// Carries what the media tell to the job, and wakes those who wait for it.
    fn carry(&self);

    /// Tells the job whether somebody reads its output.
    fn set_output_read(&self, read: bool);

    /// How the job ended, once it has.
    fn ended(&self) -> Option<Error>;

    /// Has a task woken by the next change.
    fn enlist(&self, cx: &Context<'_>);
}

/// The media of a job, for its input or its output.
pub(super) struct Feed<R: Runtime>(Arc<dyn Feeds<R>>);

impl<R: Runtime> Feed<R> {
    pub(super) fn of(job: Arc<impl Feeds<R> + 'static>) -> Self {
        Self(job)
    }

    /// Asks the media.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Media) -> T) -> T {
        self.0.media().with(|media, _| look(media))
    }

    /// Does something with the media, and carries what they tell to the job.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Media, Time) -> T) -> T {
        let changed = self.0.media().with(change);
        self.0.carry();
        changed
    }

    pub(super) fn set_output_read(&self, read: bool) {
        self.0.set_output_read(read);
    }

    /// How the job ended, once it has.
    pub(super) fn ended(&self) -> Option<Error> {
        self.0.ended()
    }

    /// Why the job failed, if it has: an end in order is none.
    pub(super) fn failed(&self) -> Option<Error> {
        self.ended()
            .filter(|error| !matches!(error, Error::Ended(Over::Stopped | Over::Complete)))
    }

    pub(super) fn driver(&self) -> &Driver<R> {
        self.0.media().driver()
    }

    /// Waits until `look` finds what it looks for.
    pub(super) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        poll_fn(|cx| self.poll(cx, &mut look)).await
    }

    /// Polls as [`Feed::until`] does, by hand.
    pub(super) fn poll<T>(&self, cx: &Context<'_>, mut look: impl FnMut() -> Option<T>) -> Poll<T> {
        let found = look().or_else(|| {
            self.0.enlist(cx);
            // A change since the first look may have woken nobody.
            look()
        });
        found.map_or(Poll::Pending, Poll::Ready)
    }
}
