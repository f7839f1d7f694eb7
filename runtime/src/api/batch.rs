//! Batch jobs: one request, one answer or one stream.

use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use livepeer_core::capabilities::{Capabilities, Ceilings};
use livepeer_core::chain::ChainView;
use livepeer_core::handshake::PinChange;
use livepeer_core::http::{Reach, Trust, Url};
use livepeer_core::job::batch::{Batch, Config, Event, Failed, Finished, JobId};
use livepeer_core::money::Amount;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::pool::Offered;
use livepeer_core::prefer::Preferences;
use livepeer_core::selection::{Balanced, Strengths};
use livepeer_core::wire::batch::BatchRequest;
use livepeer_core::{Misuse, Time};

use super::Error;
use super::account::{Account, informed};
use super::answers::TaskAnswer;
use super::event::BatchEvent;
use super::fleet::Fleet;
use super::hub::{Held, Hub, Jobs, Search, Told};
use super::peers::{Peers, Places, peer_settings};
use super::requests::measure;
use crate::{Runtime, seed};

/// The settings that decide which machine does a job.
#[derive(Clone, PartialEq)]
pub(super) struct Kind {
    pipeline: Pipeline,
    model: String,
    listed: Vec<(Url, Reach)>,
    places: Places,
    payer: Account,
    trust: Trust,
    pin_change: PinChange,
    max_price: Option<Amount>,
}

/// How jobs are done, as far as it decides no machine.
#[derive(Clone, Debug, Default)]
struct Settings {
    config: Config,
    selector: Balanced,
}

impl Jobs for Batch<Balanced> {
    type Kind = Kind;
    type Id = JobId;
    type News = BatchEvent;

    fn told(event: Event) -> Told<JobId, BatchEvent> {
        match event {
            Event::Find => Told::Find,
            Event::Trying(id, trying) => Told::Of(id, BatchEvent::Trying(trying)),
            Event::Head(id, served) => Told::Of(id, BatchEvent::Head(served)),
            Event::Chunk(id, chunk) => Told::Of(id, BatchEvent::Chunk(chunk)),
            Event::Done(id, finished) => Told::Of(id, BatchEvent::Done(finished)),
            Event::Failed(id, failed) => Told::Of(id, BatchEvent::Failed(failed)),
            Event::Signers(health) => Told::Signers(health),
            _ => Told::Nothing,
        }
    }

    fn closed() -> BatchEvent {
        BatchEvent::Failed(Box::new(Failed::Closed))
    }

    fn is_last(news: &BatchEvent) -> bool {
        matches!(news, BatchEvent::Done(_) | BatchEvent::Failed(_))
    }

    fn bytes(news: &BatchEvent) -> usize {
        match news {
            BatchEvent::Chunk(chunk) => chunk.len(),
            _ => 0,
        }
    }

    fn offer(&mut self, now: Time, found: Vec<Offered>) {
        self.offer(now, found);
    }

    fn replace(&mut self, now: Time, found: Vec<Offered>) {
        self.replace(now, found);
    }

    fn cancel(&mut self, now: Time, id: JobId) {
        self.cancel(now, id);
    }

    fn hold(&mut self, now: Time, id: JobId, held: bool) {
        match held {
            true => self.pause(now, id),
            false => self.resume(now, id),
        }
    }

    fn set_chain(&mut self, now: Time, view: ChainView) {
        self.set_chain(now, view);
    }

    fn close(&mut self, now: Time) {
        self.close(now);
    }
}

/// The settings of a batch job. Their order makes no difference; [`Submission::send`] judges them. Made by
/// [`Gateway::submit`](super::Gateway::submit).
///
/// Awaited as it is, a submission becomes the answer, in the kind that its request has. A language model is asked for
/// the whole answer at once then; [`Submission::send`] is for streams and events.
///
/// What all jobs may spend together is the driver's matter ([`Driver::with_limit`](crate::Driver::with_limit)).
///
/// Jobs with the same pipeline, model, orchestrators, payer and limits share sessions and balances with orchestrators,
/// so that handshakes and payments are configured by the first of them.
#[must_use = "a job begins when it is sent or awaited"]
pub struct Submission<R: Runtime, A = Finished> {
    fleet: Fleet<R>,
    request: BatchRequest,
    preferences: Preferences,
    peers: Peers,
    settings: Settings,
    max_price: Option<Amount>,
    answer: PhantomData<fn() -> A>,
}

impl<R: Runtime, A: TaskAnswer> Submission<R, A> {
    pub(super) fn new(fleet: &Fleet<R>, request: BatchRequest) -> Self {
        Self {
            fleet: fleet.clone(),
            request,
            preferences: Preferences::default(),
            peers: Peers::default(),
            settings: Settings::default(),
            max_price: None,
            answer: PhantomData,
        }
    }

    peer_settings!();
    peer_settings!(payer);
    peer_settings!(choice);

    /// Sets who may do this job, and in which order.
    pub fn preferences(mut self, preferences: Preferences) -> Self {
        self.preferences = preferences;
        self
    }

    /// Sets which certificates of orchestrators are good enough; by default the first one seen at each.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.settings.config.trust = trust;
        self
    }

    /// Sets what to do when an orchestrator shows another certificate than the one remembered.
    pub fn pin_change(mut self, change: PinChange) -> Self {
        self.settings.config.pool.handshake.pin_change = change;
        self
    }

    /// Sets the most to pay per unit, in wei: pixels, tokens, milliseconds or thousandths of a character, as the
    /// pipeline has it.
    pub fn max_price(mut self, price: impl Into<Amount>) -> Self {
        let price = price.into();
        let ceilings = Ceilings::of(price.clone());
        self.settings.config.pool.handshake.terms.ceilings = ceilings.clone();
        self.settings.config.payment.ceilings = ceilings;
        self.max_price = Some(price);
        self
    }

    /// Sets how strongly price, latency, reliability and spread tell in the choice of an orchestrator.
    pub fn strengths(mut self, strengths: Strengths) -> Self {
        self.settings.selector = Balanced { strengths };
        self
    }

    /// Changes any other setting. It holds for this job, and for what is asked beside it.
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.settings.config);
        self
    }

    /// Begins the job. The file of the request is measured first, unless it was already: its pixels or its duration are
    /// what is paid for. What becomes of it is told by the [`BatchJob`].
    ///
    /// # Errors
    /// If the request or the settings are no good.
    pub async fn send(mut self) -> Result<BatchJob<R>, Error> {
        self.request.check()?;
        measure(&mut self.request)?;
        let request = std::mem::replace(&mut self.request, BatchRequest::new(Pipeline::Llm));
        let preferences = std::mem::take(&mut self.preferences);
        let (fleet, settings) = (self.fleet.clone(), self.settings.clone());
        let hub = self.hub(&request)?;
        let job = hub.submit(|batch, now| {
            batch.set_config(now, settings.config, settings.selector);
            batch.submit(now, &request, preferences)
        });
        let job = job.map_err(|misuse| match misuse {
            Misuse::StillOpen => Error::Options("too many jobs of this model are under way"),
            misuse => misuse.into(),
        })?;
        Ok(BatchJob { job, _fleet: fleet })
    }

    /// Makes orchestrators ready for jobs like this one, and begins none: they are looked for, unless they are named, and
    /// shake hands. They stay so for ten minutes; said again by then, they are kept ready.
    ///
    /// # Errors
    /// If the settings are no good.
    pub fn warm_up(mut self) -> Result<(), Error> {
        let request = std::mem::replace(&mut self.request, BatchRequest::new(Pipeline::Llm));
        let settings = self.settings.clone();
        self.hub(&request)?.warm_up(|batch, now| {
            batch.set_config(now, settings.config, settings.selector);
            batch.pool().sessions().is_empty()
        });
        Ok(())
    }

    /// The machine for this job: one that is there already, or a new one.
    fn hub(self, request: &BatchRequest) -> Result<Arc<Hub<Batch<Balanced>, R>>, Error> {
        let payer = self.peers.payer()?;
        let orchestrators = self.peers.orchestrators()?;
        let kind = Kind {
            pipeline: request.pipeline(),
            model: request.model().to_owned(),
            listed: { self.peers.listed()?.into_iter() }
                .map(|url| (url.clone(), url.reach()))
                .collect(),
            places: self.peers.places(),
            payer: Account::of(&payer),
            trust: self.settings.config.trust,
            pin_change: self.settings.config.pool.handshake.pin_change,
            max_price: self.max_price,
        };
        let driver = self.fleet.driver();
        self.fleet.batches().get(driver.now(), kind, |kind| {
            let capability = kind.pipeline.capability();
            let wanted = Capabilities::for_model(capability, kind.model.as_str());
            let search = if orchestrators.is_empty() {
                Search::Sources(self.peers.combine(), self.peers.sources(&wanted)?)
            } else {
                Search::Named(orchestrators)
            };
            let payer = informed(payer, driver)?;
            let Settings { config, selector } = self.settings;
            let batch = Batch::new(
                driver.now(),
                config,
                kind.pipeline,
                kind.model.as_str(),
                payer.identity(),
                payer,
                selector,
                seed(),
            );
            Ok(Hub::start(driver, batch, search))
        })
    }
}

impl<R: Runtime, A: TaskAnswer + 'static> IntoFuture for Submission<R, A> {
    type Output = Result<A, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(mut self) -> Self::IntoFuture {
        if self.request.is_stream() {
            let set = self.request.set("stream", false);
            set.expect("what streams may be whole");
        }
        Box::pin(async { A::take(self.send().await?.answer().await?) })
    }
}

impl<R: Runtime, A> fmt::Debug for Submission<R, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission")
            .field("pipeline", &self.request.pipeline())
            .field("model", &self.request.model())
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// A batch job under way. Dropping it ends the job; nobody is blamed.
pub struct BatchJob<R: Runtime> {
    job: Held<Batch<Balanced>, R>,
    /// The machines live as long as a gateway or a job does.
    _fleet: Fleet<R>,
}

impl<R: Runtime> BatchJob<R> {
    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<BatchEvent> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Polls for an event as [`BatchJob::next`] does, by hand.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<BatchEvent>> {
        self.job.poll(cx)
    }

    /// Waits for the end: the answer, its results as bytes, who gave it and what it cost. Chunks of a stream are passed
    /// over.
    ///
    /// # Errors
    /// If the job failed.
    pub async fn answer(mut self) -> Result<Finished, Error> {
        loop {
            match self.next().await {
                Some(BatchEvent::Done(finished)) => return Ok(*finished),
                Some(BatchEvent::Failed(failed)) => return Err((*failed).into()),
                Some(_) => {}
                None => return Err(Error::Closed),
            }
        }
    }

    /// The chunks of a stream, each the payload of an event as the orchestrator sent it.
    #[must_use]
    pub const fn stream(self) -> Chunks<R> {
        Chunks { job: self }
    }
}

impl<R: Runtime> fmt::Debug for BatchJob<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchJob")
            .field("id", &self.job.id())
            .finish_non_exhaustive()
    }
}

/// The chunks of a stream: see [`BatchJob::stream`]. Ends after the last one, or with the reason why there is no more.
#[derive(Debug)]
pub struct Chunks<R: Runtime> {
    job: BatchJob<R>,
}

impl<R: Runtime> Stream for Chunks<R> {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return Poll::Ready(match std::task::ready!(self.job.poll_event(cx)) {
                Some(BatchEvent::Chunk(chunk)) => Some(Ok(chunk)),
                Some(BatchEvent::Failed(failed)) => Some(Err((*failed).into())),
                Some(BatchEvent::Done(_)) | None => None,
                Some(_) => continue,
            });
        }
    }
}
