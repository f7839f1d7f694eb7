//! The job of a live stream while it runs: by a model of the network, or by a container.

use bytes::Bytes;
use livepeer_core::chain::ChainView;
use livepeer_core::entry::{Entry, Job, StreamId};
use livepeer_core::http::Url;
use livepeer_core::job::byoc::Order;
use livepeer_core::job::byoc::stream::StreamAnswer;
use livepeer_core::wire::Params;
use livepeer_core::wire::byoc::JobRequest;
use livepeer_runtime::Runtime;
use livepeer_runtime::api::{
    ByocData, ByocStream, ByocStreamEvent, Error, Input, JobEvent, LiveVideoJob, Output,
};
use tracing::warn;

use super::Live;

/// A job that runs.
pub(super) enum Running<R: Runtime> {
    Model(Box<LiveVideoJob<R>>),
    Container(ByocStream<R>),
}

/// A job that runs, with the ways in and out that it has.
pub(super) type Started<R> = (Running<R>, Option<Input<R>>, Option<Output<R>>);

impl<R: Runtime> Running<R> {
    /// The orchestrator at work.
    pub(super) fn orchestrator(&self) -> Option<Url> {
        match self {
            Self::Model(job) => Some(job.orchestrator()),
            Self::Container(stream) => stream.orchestrator(),
        }
    }

    /// Goes by another reading of the chain. Those of containers have it from the gateway.
    pub(super) fn set_chain(&self, view: ChainView) {
        if let Self::Model(job) = self {
            job.set_chain(view);
        }
    }

    /// Whether any of its input is on its way.
    pub(super) fn has_input(&self) -> bool {
        let figures = match self {
            Self::Model(job) => job.media_figures(),
            Self::Container(stream) => stream.media_figures(),
        };
        figures.begun > 0
    }

    /// Sends parameters. The answer of a container.
    pub(super) async fn update(&self, params: Params) -> Result<Option<StreamAnswer>, Error> {
        match self {
            Self::Model(job) => job.update_params(params).await.map(|()| None),
            Self::Container(stream) => stream.update_params(&params).await.map(Some),
        }
    }

    /// The data that a container says beside its video.
    pub(super) fn data(&self) -> Option<ByocData<R>> {
        match self {
            Self::Model(_) => None,
            Self::Container(stream) => Some(stream.data()),
        }
    }

    /// Ends it, with a last word for a container, whose last words come back.
    pub(super) async fn stop(self, words: Bytes) -> Result<Bytes, Error> {
        match self {
            Self::Model(job) => job.stop().await.map(|()| Bytes::new()),
            Self::Container(stream) => stream.stop_with(words).await,
        }
    }
}

impl<R: Runtime> Live<R> {
    /// Starts a stream through a container.
    pub(super) async fn begin_container(
        &self,
        job: &Job,
        container: &JobRequest,
    ) -> Result<Started<R>, Error> {
        let submission = self.wiring.container(Order::new(container.clone()));
        let mut stream = submission.stream();
        if let Some(params) = &job.params {
            stream = stream.params(params.clone());
        }
        let (stream, input, output) = stream.start().await?;
        Ok((Running::Container(stream), input, output))
    }

    /// Tells what happens to a job, until its end.
    pub(super) async fn tell_events(&self, id: StreamId, job: &Running<R>) -> Result<(), Error> {
        let stream = match job {
            Running::Model(model) => return self.tell_model(id, job, model).await,
            Running::Container(stream) => stream,
        };
        let mut events = stream.events();
        let (mut sent, mut lost) = (false, None);
        while let Some(event) = events.next().await {
            sent = self.tell_input(id, job, sent);
            match event {
                ByocStreamEvent::Runner(event) => {
                    self.entry.with(|entry, now| entry.runner(now, id, event));
                }
                ByocStreamEvent::Lost(_, why) => lost = Some(why),
                ByocStreamEvent::Begun(begun) => {
                    if let Some(why) = lost.take() {
                        let url = begun.url.clone();
                        self.entry
                            .with(|entry, now| entry.swapped(now, id, &why, url));
                    }
                }
                _ => {}
            }
        }
        stream.wait().await.map(drop)
    }

    async fn tell_model(
        &self,
        id: StreamId,
        job: &Running<R>,
        model: &LiveVideoJob<R>,
    ) -> Result<(), Error> {
        let mut events = model.events();
        let mut sent = false;
        while let Some(event) = events.next().await {
            sent = self.tell_input(id, job, sent);
            match event {
                JobEvent::Runner(event) => {
                    self.entry.with(|entry, now| entry.runner(now, id, event));
                }
                JobEvent::Swapped(swap) => {
                    self.entry.with(|entry, now| {
                        entry.swapped(now, id, &swap.why, swap.to.clone());
                    });
                }
                JobEvent::Paid(paid) => {
                    let (tickets, value) = (paid.tickets, &paid.value);
                    self.entry
                        .with(|entry, now| entry.paid(now, tickets, value));
                }
                JobEvent::PaymentHeld(why) => {
                    warn!(%why, "a live job cannot pay for now");
                    self.entry.with(Entry::unpaid);
                }
                _ => {}
            }
        }
        model.wait().await
    }

    /// Tells once that the input is on its way.
    pub(super) fn tell_input(&self, id: StreamId, job: &Running<R>, told: bool) -> bool {
        if told || !job.has_input() {
            return told;
        }
        self.entry.with(|entry, now| entry.input(now, id));
        true
    }
}
