//! A live video job, from the list of orchestrators to the last segment.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use livepeer_core::chain::ChainView;
use livepeer_core::http::Url;
use livepeer_core::job::live::media::{self, Media};
use livepeer_core::job::live::{Ending, Started};
use livepeer_core::wire::{Channels, Params, RunnerEvent};

use super::Error;
use super::event::{JobEvent, Spent};
use super::pump::Shared;
use crate::Runtime;

/// A live video job at work: control and figures. Its [`Input`](super::Input) and its [`Output`](super::Output) come
/// with it from [`LiveVideoJobBuilder::start`](super::LiveVideoJobBuilder::start).
///
/// Dropping it stops the job in the background; [`LiveVideoJob::stop`] waits for that.
#[doc(alias = "LiveVideoToVideo")]
pub struct LiveVideoJob<R: Runtime> {
    shared: Arc<Shared<R>>,
    /// The session that the job began with.
    started: Started,
}

impl<R: Runtime> LiveVideoJob<R> {
    pub(super) const fn new(shared: Arc<Shared<R>>, started: Started) -> Self {
        Self { shared, started }
    }

    /// The orchestrator that works, or the last one that did.
    #[must_use]
    pub fn orchestrator(&self) -> Url {
        self.started().orchestrator
    }

    /// The job's name and channels at the orchestrator.
    #[must_use]
    pub fn channels(&self) -> Channels {
        self.started().channels
    }

    fn started(&self) -> Started {
        let now = self.shared.with(|state| state.started.clone());
        now.unwrap_or_else(|| self.started.clone())
    }

    /// Figures of input and output so far. Missing output is reported here and nowhere else.
    #[must_use]
    pub fn media_figures(&self) -> media::Figures {
        self.shared.look(Media::figures)
    }

    /// Changes the model's parameters, and waits until the orchestrator at work has them. Updates at the same time are
    /// sent one after the other, and each call waits for its own.
    ///
    /// # Errors
    /// If the job has ended, or too many updates wait.
    #[doc(alias = "Control")]
    #[doc(alias = "write_control")]
    pub async fn update_params(&self, params: Params) -> Result<(), Error> {
        let number = self
            .shared
            .job
            .with(|job, now| job.update_params(now, params).map(|()| job.updates()))?;
        self.shared
            .until(|state| {
                if state.updated >= number {
                    return Some(Ok(()));
                }
                state
                    .ended
                    .as_ref()
                    .map(|ending| Err(Error::of_ending(ending, &state.tried)))
            })
            .await
    }

    /// The events of the job, from the first on. Whoever asks gets all of them; those that nobody reads are dropped,
    /// the oldest first, once there are more than 256.
    #[must_use]
    #[doc(alias = "ChannelReader")]
    #[doc(alias = "JSONLReader")]
    pub fn events(&self) -> Events<R> {
        Events {
            shared: Arc::clone(&self.shared),
            next: 0,
        }
    }

    /// Pushes a new reading of the chain: for jobs that pay with an own key
    /// ([`Payer::Account`](super::Payer::Account)).
    pub fn set_chain(&self, view: ChainView) {
        self.shared.job.with(|job, now| job.set_chain(now, view));
    }

    /// Payments so far, to all orchestrators.
    #[must_use]
    pub fn spent(&self) -> Spent {
        self.shared.with(|state| state.spent.clone())
    }

    /// The runner's last status report.
    #[must_use]
    pub fn status(&self) -> Option<RunnerEvent> {
        self.shared.job.with(|job, _| job.status().cloned())
    }

    /// Waits for the job's end: of itself after its input was closed and its output read, or by a failure.
    ///
    /// # Errors
    /// If it failed.
    pub async fn wait(&self) -> Result<(), Error> {
        let outcome = self
            .shared
            .until(|state| {
                let ending = state.ended.as_ref()?;
                Some(match ending {
                    Ending::Finished | Ending::Stopped => Ok(()),
                    failed => Err(Error::of_ending(failed, &state.tried)),
                })
            })
            .await;
        self.shared.remembered().await;
        outcome
    }

    /// Ends the job in order: closes the input channel, tells the orchestrator, and waits until that is done.
    ///
    /// # Errors
    /// If it had failed before.
    #[doc(alias = "close")]
    pub async fn stop(self) -> Result<(), Error> {
        self.shared.job.with(|job, now| job.stop(now));
        self.ended().await
    }

    /// Ends the job in order because the application cannot take its output any more: a disk is full, or nobody reads
    /// from a pipe. Nothing more is paid, and nothing is held against the orchestrator.
    ///
    /// # Errors
    /// Always: with `why`, or with the failure that came before.
    pub async fn output_failed(self, why: impl std::fmt::Display) -> Result<(), Error> {
        let why = why.to_string();
        self.shared.job.with(|job, now| job.output_failed(now, why));
        self.ended().await
    }

    async fn ended(&self) -> Result<(), Error> {
        let outcome = self.wait().await;
        // The input channel's DELETE ends the session at the orchestrator.
        self.shared
            .until(|_| self.shared.look(|media| media.is_idle().then_some(())))
            .await;
        outcome
    }
}

impl<R: Runtime> Drop for LiveVideoJob<R> {
    fn drop(&mut self) {
        self.shared.job.with(|job, now| job.stop(now));
    }
}

impl<R: Runtime> fmt::Debug for LiveVideoJob<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveVideoJob")
            .field("orchestrator", &self.orchestrator())
            .field("media", &self.media_figures())
            .finish_non_exhaustive()
    }
}

/// The events of a job: a [`Stream`], which ends with the job. See [`LiveVideoJob::events`].
#[doc(alias = "JSONLReader")]
pub struct Events<R: Runtime> {
    shared: Arc<Shared<R>>,
    /// The number of the event that comes next.
    next: u64,
}

impl<R: Runtime> Events<R> {
    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<JobEvent> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Option<JobEvent>> {
        let next = &mut self.next;
        self.shared.poll(cx, |state| match state.events.read(next) {
            Some(event) => Some(Some(event)),
            None => state.ended.is_some().then_some(None),
        })
    }
}

impl<R: Runtime> Stream for Events<R> {
    type Item = JobEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<JobEvent>> {
        self.poll(cx)
    }
}

impl<R: Runtime> fmt::Debug for Events<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
