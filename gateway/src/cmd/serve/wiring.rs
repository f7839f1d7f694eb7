//! The wires between the front door and the work: what is wanted is measured and submitted, what comes of it is handed
//! back, and what nobody waits for is cancelled. Nothing is decided here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use livepeer_core::ChainView;
use livepeer_core::entry::Entry;
use livepeer_core::figures::{Endpoints, Jobs, Network};
use livepeer_core::front::route::Page;
use livepeer_core::front::{Call, Event, Front, Object, RequestId, Summary, Work};
use livepeer_core::handshake::PinChange;
use livepeer_core::http::Trust;
use livepeer_core::job::batch::Failed as JobFailed;
use livepeer_core::models::Models;
use livepeer_core::money::Amount;
use livepeer_core::onchain::feed::Reading;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::prefer::Preferences;
use livepeer_core::wire::batch::fields::file_of;
use livepeer_core::wire::batch::{BadRequest, BatchRequest};
use livepeer_runtime::api::{BatchEvent, BatchJob, Error, Gateway, Submission};
use livepeer_runtime::{Handle, Runtime};
use tracing::{info, warn};

use super::config::{Config, Dollar};
use super::folder::Folder;
use super::lock;
use super::pages;
use super::probe::Prober;
use super::reins::{Reins, Turn};
use super::sessions::{Apps, Pace};
use crate::cmd::purse::Purse;
use crate::cmd::socket::sleep_until;

/// Objects that wait to be written, at most; further ones are in memory alone.
const MAX_UNWRITTEN: usize = 64;

/// How often it is seen to that models are warm: before a machine without jobs would be closed.
const WARM_EVERY: Duration = Duration::from_secs(60);

/// How peers are trusted.
pub(super) struct Peers {
    pub(super) trust: Trust,
    pub(super) pin_change: PinChange,
    /// Whether peers may be at private addresses.
    pub(super) open: bool,
}

/// Names the places where orchestrators are found, as the configuration has them. The builders of jobs have these settings
/// alike, and no trait for them.
macro_rules! with_places {
    ($builder:expr, $settings:expr, $peers:expr) => {{
        let endpoints = &$settings.endpoints;
        let mut builder = $builder
            .orchestrators(endpoints.orchestrators.iter().cloned())
            .sources($settings.sources.clone());
        if let Some((url, headers)) = &endpoints.discovery {
            builder = builder.discovery(&url.to_string());
            for header in headers {
                builder = builder.discovery_header(&header.name, &header.value);
            }
        }
        match $peers.open {
            true => builder.allow_private(),
            false => builder,
        }
    }};
}
pub(super) use with_places;

/// Everything that the work of a request needs.
pub(super) struct Wiring<R: Runtime> {
    gateway: Gateway<R>,
    front: Handle<Front, R>,
    config: Mutex<Arc<Config>>,
    models: Mutex<Models>,
    network: Mutex<Network>,
    /// The price of a dollar, as it was read last.
    dollar: Mutex<Option<Reading>>,
    /// Questions for it that failed.
    feed_errors: Mutex<Endpoints>,
    purse: Purse<R>,
    apps: Apps,
    peers: Peers,
    prober: Prober,
    folder: Option<Sender<Kept>>,
    /// Configurations that were refused on reload.
    reloads_failed: AtomicU64,
    /// Requests under way; a word to a request's task, or its end when nobody waits any more.
    running: Mutex<BTreeMap<RequestId, Sender<Pace>>>,
    drained: (Sender<()>, Receiver<()>),
}

/// News for live entry, which knows the live streams.
pub(super) enum ForLive {
    /// A request about one of them.
    Call(RequestId, Box<Call>),
    /// Nobody waits for that answer any more.
    Gone(RequestId),
    /// Another reading of the chain.
    Chain(Box<ChainView>),
}

/// Something for the folder.
enum Kept {
    Keep(Object),
    Fetch(String, Sender<Option<bytes::Bytes>>),
}

impl<R: Runtime> Wiring<R> {
    pub(super) fn new(
        gateway: Gateway<R>,
        front: Handle<Front, R>,
        config: Config,
        purse: Purse<R>,
        peers: Peers,
        folder: Option<Folder>,
    ) -> Self {
        Self {
            gateway,
            front,
            config: Mutex::new(Arc::new(config)),
            models: Mutex::new(Models::new()),
            network: Mutex::default(),
            dollar: Mutex::default(),
            feed_errors: Mutex::default(),
            purse,
            apps: Apps::new(),
            peers,
            prober: Prober::start(),
            folder: folder.map(keeper),
            reloads_failed: AtomicU64::new(0),
            running: Mutex::default(),
            drained: async_channel::bounded(1),
        }
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&lock(&self.config))
    }

    /// Goes by another configuration from now on. Requests that run keep the one they began with.
    pub(super) fn set_config(&self, config: Config) {
        *lock(&self.config) = Arc::new(config);
        self.set_door();
    }

    /// Goes by another price of a dollar from now on, or by none.
    pub(super) fn set_dollar(&self, read: Option<Reading>) {
        *lock(&self.dollar) = read;
        self.set_door();
    }

    /// Notes the questions for the price of a dollar that failed so far.
    pub(super) fn note_feed_errors(&self, errors: Endpoints) {
        *lock(&self.feed_errors) = errors;
    }

    fn set_door(&self) {
        let mut door = self.config().settings.front.clone();
        door.settings.terms.wei_per_usd = self.wei_per_usd();
        let door = Arc::new(door);
        self.front.with(|front, now| front.set_config(now, door));
    }

    /// The price of a dollar in wei, if it is known.
    pub(super) fn wei_per_usd(&self) -> Option<Amount> {
        match &self.config().settings.dollar {
            Dollar::Unknown => None,
            Dollar::Fixed(wei) => Some(wei.clone()),
            Dollar::Feed(_) => lock(&self.dollar)
                .as_ref()
                .map(|read| read.wei_per_usd.clone()),
        }
    }

    /// The most that is paid for a unit of a model, if there is such a limit.
    pub(super) fn ceiling(&self, pipeline: Pipeline, model: &str) -> Option<Amount> {
        let prices = &self.config().settings.prices;
        prices.of(pipeline, model, self.wei_per_usd().as_ref())
    }

    pub(super) fn set_models(&self, models: Models) {
        *lock(&self.models) = models.clone();
        self.front.with(|front, now| front.set_models(now, models));
    }

    pub(super) const fn purse(&self) -> &Purse<R> {
        &self.purse
    }

    pub(super) const fn gateway(&self) -> &Gateway<R> {
        &self.gateway
    }

    pub(super) const fn apps(&self) -> &Apps {
        &self.apps
    }

    pub(super) const fn peers(&self) -> &Peers {
        &self.peers
    }

    pub(super) fn reload_failed(&self) {
        self.reloads_failed.fetch_add(1, Relaxed);
    }

    /// Waits until all work is done, after [`Front::drain`].
    pub(super) async fn drained(&self) {
        let _ = self.drained.1.recv().await;
    }

    /// Has all sessions of apps stopped, also those with calls under way, which are broken off.
    pub(super) async fn end_sessions(&self) {
        self.apps.cut();
        self.apps.end_all().await;
    }

    pub(super) const fn front(&self) -> &Handle<Front, R> {
        &self.front
    }

    /// Carries events until the front door is closed.
    pub(super) async fn run(self: Arc<Self>, live: impl Fn(ForLive) + Clone + Send + 'static) {
        if let Some(views) = self.purse.views() {
            let fed = Arc::clone(&self);
            let live = live.clone();
            self.runtime().spawn(async move {
                while let Ok(view) = views.recv().await {
                    fed.gateway.set_chain(&view);
                    live(ForLive::Chain(Box::new(view.clone())));
                    fed.purse.set_chain(view);
                }
            });
        }
        while let Some(event) = self.front.next().await {
            match event {
                Event::Want(id, work) => {
                    let steered = self.begun(id);
                    self.runtime()
                        .spawn(Arc::clone(&self).work(id, work, steered));
                }
                Event::Order(id, order) => {
                    let steered = self.begun(id);
                    let done = Arc::clone(&self).order(id, *order, steered);
                    self.runtime().spawn(done);
                }
                Event::App(id, request) => {
                    let steered = self.begun(id);
                    let called = Arc::clone(&self).app(id, request, steered);
                    self.runtime().spawn(called);
                }
                Event::EndSession(id) => self.apps.end(id),
                Event::Live(id, call) => live(ForLive::Call(id, call)),
                Event::Gone(id) => {
                    lock(&self.running).remove(&id);
                    live(ForLive::Gone(id));
                }
                Event::Full(id) => self.steer(id, Pace::Stop),
                Event::Room(id) => self.steer(id, Pace::Go),
                Event::Said(id, bytes) => self.steer(id, Pace::Said(bytes)),
                Event::SaidAll(id) => self.steer(id, Pace::SaidAll),
                Event::Page(id, page) => self.page(&self.front, id, page, None),
                Event::Keep(object) => self.keep(object),
                Event::Fetch(id, path) => {
                    self.runtime().spawn(Arc::clone(&self).fetch(id, path));
                }
                Event::Finished(summary) => self.finished(&summary),
                Event::Drained => {
                    let over = Arc::clone(&self);
                    self.runtime().spawn(async move {
                        // Nobody waits for a call that is still under way.
                        over.end_sessions().await;
                        let _ = over.drained.0.try_send(());
                    });
                }
                _ => {}
            }
        }
    }

    /// Answers operators, who get pages and no work. Live entry has figures, too.
    pub(super) async fn answer(self: Arc<Self>, door: Handle<Front, R>, entry: Handle<Entry, R>) {
        while let Some(event) = door.next().await {
            match event {
                Event::Page(id, page) => self.page(&door, id, page, Some(&entry)),
                Event::Want(id, _) => {
                    let text = "this address is for operators; work is taken at serve.listen";
                    let bad = BadRequest::new(text);
                    door.with(|front, now| front.refuse_work(now, id, &bad));
                }
                _ => {}
            }
        }
    }

    fn page(
        &self,
        door: &Handle<Front, R>,
        id: RequestId,
        page: Page,
        entry: Option<&Handle<Entry, R>>,
    ) {
        let (status, kind, body) = match page {
            Page::Health => {
                let states = self.front.with(|front, _| front.states());
                pages::health(&lock(&self.models), &states)
            }
            Page::Metrics => self.metrics(door, entry),
            Page::OpenApi => pages::description(&self.config().settings.front),
            Page::Watch => pages::watch(),
        };
        door.with(|front, now| front.page(now, id, status, kind, body));
    }

    /// The figures, as that door tells them: one for operators counts its own requests, too.
    fn metrics(&self, door: &Handle<Front, R>, entry: Option<&Handle<Entry, R>>) -> pages::Answer {
        let look = |entry: &mut Entry, _| (entry.to_prometheus(), entry.jobs().clone());
        let (live, jobs) = entry.map_or_else(
            || (String::new(), Jobs::of("live")),
            |entry| entry.with(look),
        );
        let front = self.front.with(|front, _| front.to_prometheus(&jobs));
        let now = self.gateway.driver().now();
        let read = lock(&self.dollar).clone();
        let figures = pages::Figures {
            reloads_failed: self.reloads_failed.load(Relaxed),
            feed: read.map(|read| (read.usd_per_eth(), now.since(read.updated_at))),
            operators: door.with(|door, _| door.to_operators_prometheus()),
            network: &lock(&self.network),
            rpc_errors: self.purse.rpc_errors().and(&lock(&self.feed_errors)),
            account: self.purse.chain(),
            prices: &self.config().settings.prices,
            wei_per_usd: self.wei_per_usd(),
            now,
        };
        pages::metrics(front, &live, &figures)
    }

    /// Notes how the orchestrators are.
    pub(super) fn note_network(&self, note: impl FnOnce(&mut Network)) {
        note(&mut lock(&self.network));
    }

    pub(super) fn runtime(&self) -> &R {
        self.gateway.driver().runtime()
    }

    /// Notes that the work of a request begins, which is steered by what comes out here.
    pub(super) fn begun(&self, id: RequestId) -> Receiver<Pace> {
        let (steer, steered) = async_channel::unbounded();
        lock(&self.running).insert(id, steer);
        steered
    }

    fn steer(&self, id: RequestId, pace: Pace) {
        if let Some(request) = lock(&self.running).get(&id) {
            let _ = request.try_send(pace);
        }
    }

    /// Nobody waits for that request any more, or all was said.
    pub(super) fn over(&self, id: RequestId) {
        lock(&self.running).remove(&id);
    }

    /// Does the work of a request, from its file to its last word.
    async fn work(self: Arc<Self>, id: RequestId, work: Box<Work>, steered: Receiver<Pace>) {
        // In a box of its own, which is gone once the job has begun: an answer may last long.
        if let Some(job) = Box::pin(self.begin(id, work)).await {
            self.carry(id, job, Reins::new(steered)).await;
        }
        lock(&self.running).remove(&id);
    }

    /// Begins the job of a request; tells the front door if it cannot.
    async fn begin(&self, id: RequestId, work: Box<Work>) -> Option<BatchJob<R>> {
        let Work {
            mut request,
            preferences,
            ..
        } = *work;
        let refuse = |bad: &BadRequest| {
            self.front
                .with(|front, now| front.refuse_work(now, id, bad));
        };
        if let Err(bad) = self.measure(id, &mut request).await {
            refuse(&bad);
            return None;
        }
        match self.submission(request, preferences).send().await {
            Ok(job) => return Some(job),
            Err(Error::Request(bad)) => refuse(&bad),
            Err(error) => {
                warn!(%id, %error, "a job did not begin");
                self.front
                    .with(|front, now| front.failed(now, id, JobFailed::Closed));
            }
        }
        None
    }

    /// Measures the file of a request, if what is paid depends on it.
    async fn measure(&self, id: RequestId, request: &mut BatchRequest) -> Result<(), BadRequest> {
        let Some(probe) = request.needs() else {
            return Ok(());
        };
        let Some(file) = request.file() else {
            return Ok(());
        };
        let (name, content) = (
            file_of(request.pipeline()).unwrap_or_default(),
            file.content.clone(),
        );
        let measured = self.prober.measure(probe, content).await;
        let media = measured.map_err(|why| BadRequest::of(name, why.to_string()))?;
        request.measured(media)?;
        self.front.with(|front, now| front.measured(now, id, media));
        Ok(())
    }

    /// A job as the configuration has it.
    fn submission(&self, request: BatchRequest, preferences: Preferences) -> Submission<R> {
        let config = self.config();
        let settings = &config.settings;
        let (pipeline, model) = (request.pipeline(), request.model().to_owned());
        let (answer, silence) = (settings.front.answer, settings.front.stream_silence);
        let pools = &settings.pools;
        let submission = with_places!(self.gateway.submit(request), settings, self.peers);
        let mut submission = submission
            .preferences(preferences)
            .payer(self.purse.payer(&settings.endpoints))
            .trust(self.peers.trust)
            .pin_change(self.peers.pin_change)
            .config(|job| {
                // Callers choose among those that these leave, and are not told of them.
                job.limits = settings.limits.clone();
                job.answer_within = answer;
                job.stream_silence = silence;
                job.standby_after = pools.standby;
                job.tries = pools.tries;
                job.pool.ready = pools.size;
                job.pool.extra_nodes = pools.extra_nodes;
            })
            .strengths(pools.strengths);
        if let Some(price) = self.ceiling(pipeline, &model) {
            submission = submission.max_price(price);
        }
        submission
    }

    /// Keeps the orchestrators of the models ready that are to be warm.
    pub(super) async fn keep_warm(self: Arc<Self>) {
        let driver = self.gateway.driver().clone();
        loop {
            for (pipeline, model) in &self.config().settings.pools.warm_up {
                let mut request = BatchRequest::new(*pipeline);
                request.set_model(model.clone());
                let warmed = self.submission(request, Preferences::default()).warm_up();
                if let Err(error) = warmed {
                    warn!(%error, model, "not warmed up");
                }
            }
            sleep_until(&driver, driver.now() + WARM_EVERY).await;
        }
    }

    /// Hands what comes of a job to the front door, until it is over or nobody waits any more.
    async fn carry(&self, id: RequestId, mut job: BatchJob<R>, mut reins: Reins) {
        loop {
            let event = match reins.turn(job.next()).await {
                Turn::Again => continue,
                // Dropping the job cancels it.
                Turn::Gone | Turn::Came(None) => return,
                Turn::Came(Some(event)) => event,
            };
            let last = matches!(event, BatchEvent::Done(_) | BatchEvent::Failed(_));
            self.front.with(|front, now| match event {
                BatchEvent::Head(served) => front.head(now, id, *served),
                BatchEvent::Chunk(payload) => front.chunk(now, id, &payload),
                BatchEvent::Done(finished) => front.done(now, id, *finished),
                BatchEvent::Failed(failed) => front.failed(now, id, *failed),
                _ => {}
            });
            if last {
                return;
            }
        }
    }

    fn keep(&self, object: Object) {
        if let Some(folder) = &self.folder {
            // The front door has it in memory, too; waiting for a slow disk would hold up everybody.
            if folder.len() < MAX_UNWRITTEN {
                let _ = folder.try_send(Kept::Keep(object));
            } else {
                warn!(
                    path = object.path,
                    "the folder is too slow: a result is in memory alone"
                );
            }
        }
    }

    async fn fetch(self: Arc<Self>, id: RequestId, path: String) {
        let (answer, answered) = async_channel::bounded(1);
        let content = match &self.folder {
            Some(folder) => {
                let _ = folder.try_send(Kept::Fetch(path, answer));
                answered.recv().await.ok().flatten()
            }
            None => None,
        };
        self.front.with(|front, now| front.object(now, id, content));
    }

    fn finished(&self, summary: &Summary) {
        if !tracing::enabled!(tracing::Level::INFO) || !self.config().settings.log.access {
            return;
        }
        let (pipeline, model) = match &summary.job {
            Some((pipeline, model)) => (pipeline.name(), model.as_str()),
            None => ("", ""),
        };
        let served = summary.served.as_ref();
        let orchestrator = served.map(|served| served.url.to_string());
        let cost = served.map(|served| served.cost.to_string());
        info!(
            id = %summary.id,
            route = summary.route.map_or("", |route| route.name()),
            status = summary.status.unwrap_or(0),
            error = summary.error.unwrap_or(""),
            pipeline,
            model,
            orchestrator = orchestrator.as_deref().unwrap_or(""),
            cost = cost.as_deref().unwrap_or("0"),
            ms = u64::try_from(summary.took.as_millis()).unwrap_or(u64::MAX),
            "request"
        );
    }
}

/// A thread that writes and reads the folder, in order.
fn keeper(folder: Folder) -> Sender<Kept> {
    let (sender, kept) = async_channel::unbounded();
    thread::spawn(move || {
        while let Ok(one) = kept.recv_blocking() {
            match one {
                Kept::Keep(object) => folder.keep(&object),
                Kept::Fetch(path, answer) => {
                    let _ = answer.try_send(folder.get(&path));
                }
            }
        }
    });
    sender
}
