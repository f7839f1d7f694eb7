//! Jobs for containers that operators brought: one request, one answer or one stream of events; and streams of media.

mod stream;

pub use stream::{ByocData, ByocStream, ByocStreamBuilder, ByocStreamEvents};

use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use livepeer_core::capabilities::{Capabilities, Ceilings};
use livepeer_core::chain::ChainView;
use livepeer_core::http::{Reach, Trust, Url};
use livepeer_core::job::byoc::stream::StreamEvent;
use livepeer_core::job::byoc::{Byoc, Config, Done, Event, Failed, JobId, Order, Served, Trying};
use livepeer_core::money::Amount;
use livepeer_core::pool::Offered;
use livepeer_core::wire::byoc::JobRequest;
use livepeer_core::{Misuse, Time};

use super::Error;
use super::account::{Account, informed};
use super::fleet::Fleet;
use super::hub::{Held, Hub, Jobs, Search, Told};
use super::peers::{Peers, Places, peer_settings};
use crate::{Runtime, seed};

/// How long a container may work, unless the job says otherwise.
const WORKS_WITHIN: Duration = Duration::from_secs(300);

/// News of a job for a container. The last one is [`ByocEvent::Done`] or [`ByocEvent::Failed`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ByocEvent {
    /// An orchestrator gets the request.
    Trying(Trying),
    /// A container answers with a stream of events.
    Head(Served),
    /// Lines of a stream of events, as the container sent them.
    Chunk(Bytes),
    /// The job is done.
    Done(Done),
    /// The job failed.
    Failed(Failed),
}

/// News of a job, or of a stream.
pub(super) enum News {
    Job(ByocEvent),
    Stream(StreamEvent),
    /// Everything was closed.
    Closed,
}

/// The settings that decide which machine does a job.
#[derive(Clone, PartialEq)]
pub(super) struct Kind {
    capability: String,
    listed: Vec<(Url, Reach)>,
    places: Places,
    payer: Account,
    trust: Trust,
    max_price: Option<Amount>,
}

impl Jobs for Byoc {
    type Kind = Kind;
    type Id = JobId;
    type News = News;

    fn told(event: Event) -> Told<JobId, News> {
        let of = |id, event| Told::Of(id, News::Job(event));
        match event {
            Event::Find => Told::Find,
            Event::Trying(id, trying) => of(id, ByocEvent::Trying(*trying)),
            Event::Head(id, served) => of(id, ByocEvent::Head(*served)),
            Event::Chunk(id, chunk) => of(id, ByocEvent::Chunk(chunk)),
            Event::Done(id, done) => of(id, ByocEvent::Done(*done)),
            Event::Failed(id, failed) => of(id, ByocEvent::Failed(*failed)),
            Event::Stream(id, event) => Told::Of(id, News::Stream(*event)),
            Event::Signers(health) => Told::Signers(health),
            _ => Told::Nothing,
        }
    }

    fn closed() -> News {
        News::Closed
    }

    fn is_last(news: &News) -> bool {
        match news {
            News::Job(event) => matches!(event, ByocEvent::Done(_) | ByocEvent::Failed(_)),
            News::Stream(event) => matches!(event, StreamEvent::Ended(_)),
            News::Closed => true,
        }
    }

    fn bytes(news: &News) -> usize {
        match news {
            News::Job(ByocEvent::Chunk(chunk)) => chunk.len(),
            _ => 0,
        }
    }

    fn offer(&mut self, now: Time, found: Vec<Offered>) {
        self.offer(now, found.into_iter().map(|one| one.url));
    }

    fn replace(&mut self, now: Time, found: Vec<Offered>) {
        self.replace(now, found.into_iter().map(|one| one.url));
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

/// The settings of a job for a container. Their order makes no difference; [`ByocSubmission::send`] judges them. Made by
/// [`Gateway::byoc`](super::Gateway::byoc). Awaited as it is, it becomes the whole answer.
///
/// A job is done at most once, unless [`may_repeat`](Self::may_repeat) says otherwise.
#[must_use = "a job begins when it is sent or awaited"]
#[doc(alias = "ByocJobRequest")]
pub struct ByocSubmission<R: Runtime> {
    fleet: Fleet<R>,
    order: Order,
    within: Duration,
    peers: Peers,
    config: Config,
    max_price: Option<Amount>,
}

impl<R: Runtime> ByocSubmission<R> {
    pub(super) fn new(fleet: &Fleet<R>, capability: &str) -> Self {
        Self {
            fleet: fleet.clone(),
            order: Order::new(JobRequest {
                request: "{}".into(),
                capability: capability.into(),
                ..JobRequest::default()
            }),
            within: WORKS_WITHIN,
            peers: Peers::default(),
            config: Config::default(),
            max_price: None,
        }
    }

    /// Takes over an order that was put together already.
    pub(super) fn of(fleet: &Fleet<R>, order: Order) -> Self {
        let within = Duration::from_secs(order.job.timeout_seconds.into());
        Self {
            within,
            order,
            ..Self::new(fleet, "")
        }
    }

    peer_settings!();
    peer_settings!(payer);
    peer_settings!(choice);

    /// Sets the container's own path, with its query.
    pub fn path(mut self, path: &str) -> Self {
        self.order.path = path.into();
        self
    }

    /// Sets the body of the request, and its type.
    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.order.content_type = content_type.into();
        self.order.body = body.into();
        self
    }

    /// Sets the body of the request, which is JSON.
    #[doc(alias = "payload")]
    pub fn json(self, body: impl Into<Bytes>) -> Self {
        self.body("application/json", body)
    }

    /// Sets how long the container may work: whole seconds, rounded up; 300 unless this says otherwise. As long is paid in
    /// advance.
    #[doc(alias = "timeout_seconds")]
    pub const fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }

    /// Names the job, for logs.
    #[doc(alias = "job_id")]
    pub fn id(mut self, id: &str) -> Self {
        self.order.job.id = id.into();
        self
    }

    /// Sets what the orchestrator is told beside the body: a JSON object.
    pub fn request(mut self, json: &str) -> Self {
        self.order.job.request = json.into();
        self
    }

    /// Sets wishes: a JSON object such as `{"orchestrators":{"exclude":["https://one.example:8935"]}}`.
    pub fn parameters(mut self, json: &str) -> Self {
        self.order.job.parameters = json.into();
        self
    }

    /// Lets another orchestrator do the job where one may have done it already: it may run, and be paid, twice.
    pub const fn may_repeat(mut self) -> Self {
        self.order.may_repeat = true;
        self
    }

    /// Sets which certificates of orchestrators are good enough; by default the first one seen at each.
    pub const fn trust(mut self, trust: Trust) -> Self {
        self.config.trust = trust;
        self
    }

    /// Sets the most to pay for a second, in wei.
    pub fn max_price(mut self, price: impl Into<Amount>) -> Self {
        let price = price.into();
        self.config.payment.ceilings = Ceilings::of(price.clone());
        self.max_price = Some(price);
        self
    }

    /// Changes any other setting. Those of payments hold for all jobs of the container with the same peers and payer, as
    /// the first of them sets them.
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Begins the job. What becomes of it is told by the [`ByocJob`].
    ///
    /// # Errors
    /// If the job or the settings are no good.
    pub fn send(mut self) -> Result<ByocJob<R>, Error> {
        self.timed().order.check()?;
        let (fleet, order) = (self.fleet.clone(), self.order.clone());
        let capability = order.job.capability.clone();
        let job = self.hub()?;
        let job = job.submit(|byoc, now| byoc.submit(now, order));
        Ok(ByocJob {
            job: job.map_err(too_many)?,
            capability,
            _fleet: fleet,
        })
    }

    /// Has a stream of media in and out instead of a request: with the same peers, payer and price. Media go in and come out
    /// unless the [parameters](Self::parameters) say otherwise, with `enable_video_ingress` and `enable_video_egress`. Path
    /// and body are not used.
    pub fn stream(self) -> ByocStreamBuilder<R> {
        ByocStreamBuilder::new(self)
    }

    /// Writes down how long the container may work.
    fn timed(&mut self) -> &Self {
        let seconds = self.within.as_nanos().div_ceil(1_000_000_000);
        // More than there is stands for all there is.
        self.order.job.timeout_seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        self
    }

    /// The machine for this job: one that is there already, or a new one.
    fn hub(self) -> Result<Arc<Hub<Byoc, R>>, Error> {
        let payer = self.peers.payer()?;
        let orchestrators = self.peers.orchestrators()?;
        let kind = Kind {
            capability: self.order.job.capability,
            listed: { self.peers.listed()?.into_iter() }
                .map(|url| (url.clone(), url.reach()))
                .collect(),
            places: self.peers.places(),
            payer: Account::of(&payer),
            trust: self.config.trust,
            max_price: self.max_price,
        };
        let driver = self.fleet.driver();
        self.fleet.containers().get(driver.now(), kind, |kind| {
            let search = match orchestrators.is_empty() {
                // Who offers a container is known to orchestrators alone.
                true => Search::Sources(
                    self.peers.combine(),
                    self.peers.sources(&Capabilities::default())?,
                ),
                false => Search::Named(orchestrators),
            };
            let payer = informed(payer, driver)?;
            let name = kind.capability.as_str();
            let byoc = Byoc::new(driver.now(), self.config, name, payer, seed());
            Ok(Hub::start(driver, byoc, search))
        })
    }
}

impl<R: Runtime> IntoFuture for ByocSubmission<R> {
    type Output = Result<Done, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async { self.send()?.answer().await })
    }
}

impl<R: Runtime> fmt::Debug for ByocSubmission<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByocSubmission")
            .field("job", &self.order.job)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

fn too_many(misuse: Misuse) -> Error {
    match misuse {
        Misuse::StillOpen => Error::Options("too many jobs for this container are under way"),
        misuse => misuse.into(),
    }
}

/// A job for a container under way. Dropping it ends the job; what the container did by then is paid.
pub struct ByocJob<R: Runtime> {
    job: Held<Byoc, R>,
    capability: String,
    /// The machines live as long as a gateway or a job does.
    _fleet: Fleet<R>,
}

impl<R: Runtime> ByocJob<R> {
    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<ByocEvent> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Polls for an event as [`ByocJob::next`] does, by hand.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<ByocEvent>> {
        self.job.poll(cx).map(|news| match news? {
            News::Job(event) => Some(event),
            News::Stream(_) | News::Closed => Some(ByocEvent::Failed(Failed::Closed)),
        })
    }

    /// Waits for the end: the answer, who gave it and what went along. Of a stream of events the lines are passed over.
    ///
    /// # Errors
    /// If the job failed.
    #[doc(alias = "ByocJobResponse")]
    pub async fn answer(mut self) -> Result<Done, Error> {
        loop {
            match self.next().await {
                Some(ByocEvent::Done(done)) => return Ok(done),
                Some(ByocEvent::Failed(failed)) => return Err(failed.into()),
                Some(_) => {}
                None => return Err(Error::Closed),
            }
        }
    }

    /// The body of the answer as it comes: lines of a stream of events, or all of it at once.
    #[must_use]
    pub const fn stream(self) -> ByocChunks<R> {
        ByocChunks { job: self }
    }
}

impl<R: Runtime> fmt::Debug for ByocJob<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByocJob")
            .field("capability", &self.capability)
            .field("id", &self.job.id())
            .finish_non_exhaustive()
    }
}

/// The body of an answer: see [`ByocJob::stream`]. Ends after the last part, or with the reason why there is no more.
#[derive(Debug)]
pub struct ByocChunks<R: Runtime> {
    job: ByocJob<R>,
}

impl<R: Runtime> Stream for ByocChunks<R> {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return Poll::Ready(match std::task::ready!(self.job.poll_event(cx)) {
                Some(ByocEvent::Chunk(chunk)) => Some(Ok(chunk)),
                Some(ByocEvent::Failed(failed)) => Some(Err(failed.into())),
                Some(ByocEvent::Done(done)) if !done.body.is_empty() => Some(Ok(done.body)),
                Some(ByocEvent::Done(_)) | None => None,
                Some(_) => continue,
            });
        }
    }
}
