//! Batch jobs: one request, one answer or one stream.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use livepeer_core::capabilities::{Capabilities, Ceilings};
use livepeer_core::chain::ChainView;
use livepeer_core::discovery::{self, Origin, Source};
use livepeer_core::handshake::PinChange;
use livepeer_core::http::{Reach, Trust, Url};
use livepeer_core::job::batch::{Batch, Config, Event, Failed, Finished, JobId, Served, Trying};
use livepeer_core::money::Price;
use livepeer_core::payment::guard::Budget;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::pool::Offered;
use livepeer_core::prefer::Preferences;
use livepeer_core::selection::Balanced;
use livepeer_core::wire::batch::BatchRequest;
use livepeer_core::{Misuse, Time};

use super::find::discover;
use super::fleet::{Account, Fleet};
use super::peers::{Peers, Places, peer_settings};
use super::{Error, Payer};
use crate::{Driver, Handle, Runtime, lock, seed};

/// At most this many machines are kept, one for each pipeline, model, payer and set of orchestrators; of more, the idle
/// one that has waited longest is closed.
const MAX_MACHINES: usize = 64;

/// A machine without a job for this long is closed when the next job begins.
const IDLE_FOR: Duration = Duration::from_secs(10 * 60);

/// Chunks of a stream that wait for their reader, at most; then its orchestrator is held back.
const MAX_CHUNKS: usize = 64;

/// A stream goes on once so few chunks wait.
const FEW_CHUNKS: usize = 16;

/// The settings of a batch job. Their order makes no difference; [`Submission::send`] judges them. Made by
/// [`Gateway::submit`](super::Gateway::submit).
///
/// Jobs with the same pipeline, model, orchestrators, payer and limits share sessions and balances with orchestrators;
/// such a set is configured by its first job.
#[must_use = "a job begins when it is sent"]
pub struct Submission<R: Runtime> {
    fleet: Fleet<R>,
    request: BatchRequest,
    preferences: Preferences,
    peers: Peers,
    config: Config,
    max_price: Option<Price>,
}

impl<R: Runtime> Submission<R> {
    pub(super) fn new(fleet: &Fleet<R>, request: BatchRequest) -> Self {
        Self {
            fleet: fleet.clone(),
            request,
            preferences: Preferences::default(),
            peers: Peers::default(),
            config: Config::default(),
            max_price: None,
        }
    }

    peer_settings!();
    peer_settings!(payer);

    /// Sets who may do this job, and in which order.
    pub fn preferences(mut self, preferences: Preferences) -> Self {
        self.preferences = preferences;
        self
    }

    /// Sets which certificates of orchestrators are good enough; by default the first one seen at each.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.config.trust = trust;
        self
    }

    /// Sets what to do when an orchestrator shows another certificate than the one remembered.
    pub fn pin_change(mut self, change: PinChange) -> Self {
        self.config.pool.handshake.pin_change = change;
        self
    }

    /// Sets the most to pay per unit, in wei: pixels, tokens, milliseconds or thousandths of a character, as the
    /// pipeline has it.
    pub fn max_price(mut self, price: Price) -> Self {
        self.max_price = Some(price);
        self.config.pool.handshake.terms.ceilings = Ceilings::of(price);
        self.config.payment.ceilings = Ceilings::of(price);
        self
    }

    /// Limits what may be spent by all jobs that share their orchestrators with this one. With a key, what was spent is
    /// made durable under it before a payment leaves ([`Budget::restore`]).
    pub fn budget(mut self, budget: Budget, key: Option<String>) -> Self {
        self.config.payment.budget = budget;
        self.config.payment.budget_key = key;
        self
    }

    /// Changes any other setting of the jobs that share their orchestrators with this one.
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Begins the job. What becomes of it is told by the [`BatchJob`].
    ///
    /// # Errors
    /// If the request or the settings are no good.
    pub async fn send(mut self) -> Result<BatchJob<R>, Error> {
        self.request.check()?;
        if self.request.units().is_none() {
            return Err(Error::Options(
                "the file of the request was not measured: its size or duration decides what is paid",
            ));
        }
        let request = std::mem::replace(&mut self.request, BatchRequest::new(Pipeline::Llm));
        let preferences = std::mem::take(&mut self.preferences);
        let fleet = self.fleet.clone();
        let hub = self.hub(&request)?;
        let id = hub.submit(&request, preferences)?;
        Ok(BatchJob {
            hub,
            id,
            ended: false,
            _fleet: fleet,
        })
    }

    /// The machine for this job: one that is there already, or a new one.
    fn hub(self, request: &BatchRequest) -> Result<Arc<Hub<R>>, Error> {
        let mut payer = self.peers.payer()?;
        let orchestrators = self.peers.orchestrators()?;
        let kind = Kind {
            pipeline: request.pipeline(),
            model: request.model().to_owned(),
            orchestrators: { orchestrators.iter() }
                .map(|url| (url.clone(), url.reach()))
                .collect(),
            places: self.peers.places(),
            payer: Account::of(&payer),
            trust: self.config.trust,
            pin_change: self.config.pool.handshake.pin_change,
            max_price: self.max_price,
        };
        let driver = self.fleet.driver();
        self.fleet.batches().get(driver.now(), kind, |kind| {
            let capability = kind.pipeline.capability();
            let wanted = Capabilities::for_model(capability, kind.model.as_str());
            let search = if orchestrators.is_empty() {
                Search::Sources(self.peers.sources(&wanted)?)
            } else {
                Search::Named(orchestrators)
            };
            payer.learn(&driver.signer_health());
            Ok(Hub::start(driver, kind, self.config, payer, search))
        })
    }
}

impl<R: Runtime> fmt::Debug for Submission<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission")
            .field("pipeline", &self.request.pipeline())
            .field("model", &self.request.model())
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// News of a batch job. The last one is [`BatchEvent::Done`] or [`BatchEvent::Failed`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum BatchEvent {
    /// An orchestrator gets the request.
    Trying(Trying),
    /// A stream has begun.
    Head(Served),
    /// The payload of an event of a stream, as it came.
    Chunk(Bytes),
    /// The job is done.
    Done(Finished),
    /// The job failed.
    Failed(Failed),
}

/// A batch job under way. Dropping it ends the job; nobody is blamed.
pub struct BatchJob<R: Runtime> {
    hub: Arc<Hub<R>>,
    id: JobId,
    ended: bool,
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
        if self.ended {
            return Poll::Ready(None);
        }
        let event = std::task::ready!(self.hub.poll(self.id, cx));
        self.ended = matches!(
            event,
            None | Some(BatchEvent::Done(_) | BatchEvent::Failed(_))
        );
        Poll::Ready(event)
    }

    /// Waits for the end: the answer, its results as bytes, who gave it and what it cost. Chunks of a stream are passed
    /// over.
    ///
    /// # Errors
    /// If the job failed.
    pub async fn answer(mut self) -> Result<Finished, Error> {
        loop {
            match self.next().await {
                Some(BatchEvent::Done(finished)) => return Ok(finished),
                Some(BatchEvent::Failed(failed)) => return Err(failed.into()),
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

impl<R: Runtime> Drop for BatchJob<R> {
    fn drop(&mut self) {
        self.hub.cancel(self.id);
    }
}

impl<R: Runtime> fmt::Debug for BatchJob<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchJob")
            .field("id", &self.id)
            .field("ended", &self.ended)
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
                Some(BatchEvent::Failed(failed)) => Some(Err(failed.into())),
                Some(BatchEvent::Done(_)) | None => None,
                Some(_) => continue,
            });
        }
    }
}

/// The settings that decide which machine does a job.
#[derive(Clone, PartialEq)]
pub(super) struct Kind {
    pipeline: Pipeline,
    model: String,
    orchestrators: Vec<(Url, Reach)>,
    places: Places,
    payer: Account,
    trust: Trust,
    pin_change: PinChange,
    max_price: Option<Price>,
}

/// The machines of batch jobs, those that were used last at the end.
pub(super) struct Batches<R: Runtime>(Mutex<Vec<(Kind, Time, Arc<Hub<R>>)>>);

impl<R: Runtime> Default for Batches<R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<R: Runtime> Batches<R> {
    /// The machine of that kind, made if there is none. Idle ones that waited for long are closed.
    fn get(
        &self,
        now: Time,
        kind: Kind,
        make: impl FnOnce(&Kind) -> Result<Arc<Hub<R>>, Error>,
    ) -> Result<Arc<Hub<R>>, Error> {
        let mut all = lock(&self.0);
        let known = all.iter().position(|(known, _, _)| *known == kind);
        let hub = match known {
            Some(at) => all.remove(at).2,
            None => make(&kind)?,
        };
        let crowded = all.len() >= MAX_MACHINES;
        let mut closed = Vec::new();
        let mut first = crowded;
        all.retain(|(_, used, hub)| {
            let old = *used + IDLE_FOR <= now || first;
            let stays = !(old && hub.is_idle());
            if !stays {
                first = false;
                closed.push(Arc::clone(hub));
            }
            stays
        });
        all.push((kind, now, Arc::clone(&hub)));
        drop(all);
        for hub in closed {
            hub.close();
        }
        Ok(hub)
    }

    pub(super) fn set_chain(&self, view: &ChainView) {
        for (_, _, hub) in lock(&self.0).iter() {
            hub.machine
                .with(|batch, now| batch.set_chain(now, view.clone()));
        }
    }
}

impl<R: Runtime> Drop for Batches<R> {
    fn drop(&mut self) {
        for (_, _, hub) in lock(&self.0).drain(..) {
            hub.close();
        }
    }
}

/// Where orchestrators come from.
enum Search {
    Named(Vec<Url>),
    Sources(Vec<(Origin, Source)>),
}

/// A machine, and the jobs that wait for its events.
pub(super) struct Hub<R: Runtime> {
    machine: Handle<Batch<Balanced>, R>,
    search: Search,
    inboxes: Mutex<BTreeMap<JobId, Inbox>>,
}

/// The events of one job that it has not taken yet.
#[derive(Default)]
struct Inbox {
    events: VecDeque<BatchEvent>,
    paused: bool,
    waker: Option<Waker>,
}

impl<R: Runtime> Hub<R> {
    fn start(
        driver: &Driver<R>,
        kind: &Kind,
        config: Config,
        payer: Payer,
        search: Search,
    ) -> Arc<Self> {
        let batch = Batch::new(
            driver.now(),
            config,
            kind.pipeline,
            kind.model.as_str(),
            payer.identity(),
            payer,
            Balanced::default(),
            seed(),
        );
        let hub = Arc::new(Self {
            machine: driver.drive(batch),
            search,
            inboxes: Mutex::default(),
        });
        if let Search::Named(urls) = &hub.search {
            hub.machine
                .with(|batch, now| batch.replace(now, urls.clone()));
        }
        driver.runtime().spawn(Arc::clone(&hub).pump());
        hub
    }

    fn submit(&self, request: &BatchRequest, preferences: Preferences) -> Result<JobId, Error> {
        // One lock in the other: events may be there before the call returns.
        let mut inboxes = lock(&self.inboxes);
        let id = self
            .machine
            .with(|batch, now| batch.submit(now, request, preferences));
        let id = id.map_err(|misuse| match misuse {
            Misuse::StillOpen => Error::Options("too many jobs of this model are under way"),
            misuse => misuse.into(),
        })?;
        inboxes.insert(id, Inbox::default());
        Ok(id)
    }

    /// Whether no job is under way.
    fn is_idle(&self) -> bool {
        lock(&self.inboxes).is_empty()
    }

    fn cancel(&self, id: JobId) {
        let mut inboxes = lock(&self.inboxes);
        if inboxes.remove(&id).is_some() {
            self.machine.with(|batch, now| batch.cancel(now, id));
        }
    }

    /// Ends the machine: jobs under way fail.
    fn close(&self) {
        self.machine.with(Batch::close);
        self.machine.close();
        for (_, inbox) in lock(&self.inboxes).iter_mut() {
            inbox.push(BatchEvent::Failed(Failed::Closed));
        }
    }

    fn poll(&self, id: JobId, cx: &Context<'_>) -> Poll<Option<BatchEvent>> {
        let mut inboxes = lock(&self.inboxes);
        let Some(inbox) = inboxes.get_mut(&id) else {
            return Poll::Ready(None);
        };
        let Some(event) = inbox.events.pop_front() else {
            inbox.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if inbox.paused && inbox.events.len() <= FEW_CHUNKS {
            inbox.paused = false;
            self.machine.with(|batch, now| batch.resume(now, id));
        }
        Poll::Ready(Some(event))
    }

    /// Carries events to the jobs, until the machine is closed.
    async fn pump(self: Arc<Self>) {
        let driver = self.machine.driver().clone();
        while let Some(event) = self.machine.next().await {
            match event {
                Event::Find => driver.runtime().spawn(Arc::clone(&self).find()),
                Event::Trying(id, trying) => self.deliver(id, BatchEvent::Trying(*trying)),
                Event::Head(id, served) => self.deliver(id, BatchEvent::Head(*served)),
                Event::Chunk(id, chunk) => self.deliver(id, BatchEvent::Chunk(chunk)),
                Event::Done(id, finished) => self.deliver(id, BatchEvent::Done(*finished)),
                Event::Failed(id, failed) => self.deliver(id, BatchEvent::Failed(*failed)),
                // What handshakes and payments saw of signers is for all.
                Event::Paid(..) | Event::Pool(_) => {
                    let health = self.machine.with(|batch, _| batch.signer_health());
                    driver.learn_signers(&health);
                }
                _ => {}
            }
        }
    }

    fn deliver(&self, id: JobId, event: BatchEvent) {
        let mut inboxes = lock(&self.inboxes);
        let Some(inbox) = inboxes.get_mut(&id) else {
            return;
        };
        inbox.push(event);
        if inbox.events.len() >= MAX_CHUNKS && !inbox.paused {
            inbox.paused = true;
            self.machine.with(|batch, now| batch.pause(now, id));
        }
    }

    /// Looks for orchestrators once.
    async fn find(self: Arc<Self>) {
        let sources = match &self.search {
            Search::Named(urls) => {
                self.machine
                    .with(|batch, now| batch.offer(now, urls.clone()));
                return;
            }
            Search::Sources(sources) => sources.clone(),
        };
        let config = discovery::Config::default();
        let driver = self.machine.driver();
        let found = discover(driver, config, sources, discovery::WITHIN)
            .await
            .found;
        let found: Vec<Offered> = found.iter().map(Offered::from).collect();
        self.machine.with(|batch, now| {
            if found.is_empty() {
                // A place that is silent for a moment ends nothing.
                batch.offer(now, found);
            } else {
                batch.replace(now, found);
            }
        });
    }
}

impl Inbox {
    fn push(&mut self, event: BatchEvent) {
        self.events.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
