//! A live video job, from the list of orchestrators to the last segment.

use std::sync::Arc;
use std::time::Duration;

use livepeer_core::capabilities::{Capabilities, Ceilings};
use livepeer_core::chain::ChainView;
use livepeer_core::handshake::PinChange;
use livepeer_core::http::{Trust, Url};
use livepeer_core::job::LiveVideoJob as Machine;
use livepeer_core::job::live::media::{self, Media};
use livepeer_core::job::live::{Config, Ending, Started};
use livepeer_core::job::{MAX_SWAPS, SWAP_SPACING, SwapLimit};
use livepeer_core::money::Price;
use livepeer_core::payment::guard::Budget;
use livepeer_core::pool::{self, SessionPool};
use livepeer_core::selection::Balanced;
use livepeer_core::trickle::{publisher, subscriber};
use livepeer_core::wire::{Channels, Params, RunnerEvent, StartRequest, Token};

use super::event::{JobEvent, Spent};
use super::input::Publisher;
use super::memory::recall;
use super::output::Output;
use super::payer::{add_header, add_signer};
use super::pump::Shared;
use super::{Error, Payer, orchestrator_url, service_url};
use crate::{Driver, Runtime, seed};

/// A live video job at work. Dropping it stops it in the background; [`LiveVideoJob::stop`] waits for that.
pub struct LiveVideoJob<R: Runtime> {
    shared: Arc<Shared<R>>,
    /// The session that the job began with.
    started: Started,
    trust: Trust,
    leave_dead: bool,
}

/// How to start a job. See [`LiveVideoJob::builder`].
#[must_use]
pub struct LiveVideoJobBuilder<R: Runtime> {
    driver: Driver<R>,
    request: StartRequest,
    orchestrators: Vec<Url>,
    payer: Payer,
    config: Config,
    pool: pool::Config,
    error: Option<Error>,
}

impl<R: Runtime> LiveVideoJob<R> {
    /// Begins to configure a job for `model`.
    pub fn builder(driver: &Driver<R>, model: &str) -> LiveVideoJobBuilder<R> {
        LiveVideoJobBuilder {
            driver: driver.clone(),
            request: StartRequest {
                model_id: model.to_string(),
                ..StartRequest::default()
            },
            orchestrators: Vec::new(),
            payer: Payer::default(),
            // Our publisher waits by itself when too much is in flight, so that is no sign of a slow orchestrator.
            config: Config {
                max_in_flight: usize::MAX,
                ..Config::default()
            },
            pool: pool::Config {
                ready: 1,
                // In the driver's store, if it has one that lasts.
                remember: true,
                ..pool::Config::default()
            },
            error: None,
        }
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

    /// Opens the input. An input that falls silent is kept alive: see [`publisher::Idle`].
    #[must_use]
    pub fn publisher(&self) -> Publisher<R> {
        self.publisher_with(publisher::Config {
            idle: Some(publisher::Idle::default()),
            ..publisher::Config::default()
        })
    }

    /// Opens the input with settings of your own; its certificate rule is the job's. There is one input: dropping the
    /// publisher that was opened last closes it.
    #[must_use]
    pub fn publisher_with(&self, config: publisher::Config) -> Publisher<R> {
        let config = publisher::Config {
            trust: self.trust,
            ..config
        };
        Publisher::new(Arc::clone(&self.shared), config)
    }

    /// Opens the output, from its first segment on. Open it before the input, or some of it may be missed.
    #[must_use]
    pub fn output(&self) -> Output<R> {
        self.output_with(subscriber::Config::default())
    }

    /// Opens the output with settings of your own; its certificate rule is the job's. There is one reader: opening
    /// another ends the one before.
    #[must_use]
    pub fn output_with(&self, config: subscriber::Config) -> Output<R> {
        let config = subscriber::Config {
            trust: self.trust,
            leave_dead: config.leave_dead || self.leave_dead,
            ..config
        };
        Output::new(Arc::clone(&self.shared), config)
    }

    /// Figures of input and output so far. Missing output is reported here and nowhere else.
    #[must_use]
    pub fn media_figures(&self) -> media::Figures {
        self.shared.look(Media::figures)
    }

    /// Changes the model's parameters, and waits until the orchestrator has them.
    ///
    /// # Errors
    /// If the job has ended, or too many updates wait.
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

    /// The next event; `None` after the last one. Events that nobody fetches are dropped, the oldest first.
    pub async fn next_event(&self) -> Option<JobEvent> {
        self.shared
            .until(|state| match state.events.pop_front() {
                Some(event) => Some(Some(event)),
                None => state.ended.is_some().then_some(None),
            })
            .await
    }

    /// Pushes a new reading of the chain: for jobs that pay with an own key ([`Payer::Account`]).
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

impl<R: Runtime> LiveVideoJobBuilder<R> {
    /// Adds an orchestrator (`HOST:PORT` or a URL); those added first are asked first.
    pub fn orchestrator(mut self, url: &str) -> Self {
        match orchestrator_url(url) {
            Ok(url) => self.orchestrators.push(url),
            Err(err) => self.fail(err),
        }
        self
    }

    /// Adds orchestrators whose addresses are read already.
    pub fn orchestrators(mut self, urls: impl IntoIterator<Item = Url>) -> Self {
        self.orchestrators.extend(urls);
        self
    }

    /// Sets who pays, with everything about it. An own account signs with the key of the driver
    /// ([`Driver::with_signer`]), which then wants a store that survives ([`Driver::with_store`]), and a job that lasts
    /// wants news of the chain ([`LiveVideoJob::set_chain`]).
    pub fn payer(mut self, payer: Payer) -> Self {
        self.payer = payer;
        self
    }

    /// Pays through the remote signer at `url`; of several, a later one is asked when those before it do not answer
    /// soon, and first while they rest ([`Driver::signer_health`]).
    /// Without a signer the job is off-chain.
    pub fn signer(mut self, url: &str) -> Self {
        match service_url(url) {
            Ok(url) => add_signer(&mut self.payer, url),
            Err(err) => self.fail(err),
        }
        self
    }

    /// Adds a header field for the signer, such as an authorization. Name a signer first.
    pub fn signer_header(mut self, name: &str, value: &str) -> Self {
        if !self.payer.pays() {
            self.fail(Error::Missing(
                "a signer header needs a signer; name the signer first",
            ));
        }
        add_header(&mut self.payer, name, value);
        self
    }

    /// Takes orchestrators, signer and its headers from a token. What the token has outranks what was set before.
    pub fn token(mut self, token: &Token) -> Self {
        if let Some(list) = &token.orchestrators {
            self.orchestrators.clear();
            for url in list {
                self = self.orchestrator(url);
            }
        }
        if let Some(signer) = &token.signer {
            self.payer = Payer::Offchain;
            if !signer.is_empty() {
                self = self.signer(signer);
            }
        }
        for (name, value) in token.signer_headers.iter().flatten() {
            self = self.signer_header(name, value);
        }
        self
    }

    /// The model's first parameters.
    pub fn params(mut self, params: Params) -> Self {
        self.request.params = Some(params);
        self
    }

    /// Names the request in the orchestrator's logs and in events.
    pub fn request_id(mut self, id: &str) -> Self {
        self.request.request_id = Some(id.to_string());
        self
    }

    /// Names the stream in the orchestrator's logs and in events.
    pub fn stream_id(mut self, id: &str) -> Self {
        self.request.stream_id = Some(id.to_string());
        self
    }

    /// Sets which certificates of orchestrators are good enough; by default the first one seen at each.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.config.trust = trust;
        self.pool.handshake.trust = trust;
        self
    }

    /// Lets the orchestrators added so far name private addresses and lead from `https` to `http`: see
    /// [`Url::opened`].
    pub fn allow_private(mut self) -> Self {
        for url in &mut self.orchestrators {
            *url = url.clone().opened();
        }
        self
    }

    /// Sets what to do when an orchestrator shows another certificate than the one remembered.
    pub fn pin_change(mut self, change: PinChange) -> Self {
        self.pool.handshake.pin_change = change;
        self
    }

    /// The most to pay per pixel.
    pub fn max_price(mut self, price: Price) -> Self {
        self.pool.handshake.terms.ceilings = Ceilings::of(price);
        self.config.payment.ceilings = Ceilings::of(price);
        self
    }

    /// Limits what may be spent. With a key, what was spent is made durable under it before a payment leaves
    /// ([`Budget::restore`]).
    pub fn budget(mut self, budget: Budget, key: Option<String>) -> Self {
        self.config.payment.budget = budget;
        self.config.payment.budget_key = key;
        self
    }

    /// How long nothing may come back while input flows, before the orchestrator is left; 30 s unless this says
    /// otherwise.
    pub fn output_within(mut self, limit: Duration) -> Self {
        self.config.output_silence = limit;
        self
    }

    /// How long nothing may come back while the runner says that its model is loading, before the orchestrator is left;
    /// 180 s unless this says otherwise.
    pub fn loading_within(mut self, limit: Duration) -> Self {
        self.config.loading_silence = limit;
        self
    }

    /// Changes any other setting of the job.
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    fn fail(&mut self, err: Error) {
        self.error.get_or_insert(err);
    }

    /// Finds an orchestrator, pays it and starts the job.
    ///
    /// # Errors
    /// If the configuration is no good, the signer fails, or no orchestrator takes the job.
    pub async fn start(mut self) -> Result<LiveVideoJob<R>, Error> {
        if let Some(err) = self.error {
            return Err(err);
        }
        if self.request.model_id.is_empty() {
            return Err(Error::Missing("a job needs a model, such as noop"));
        }
        if self.orchestrators.is_empty() {
            return Err(Error::Missing(
                "a job needs an orchestrator: name at least one",
            ));
        }
        self.pool.handshake.terms.paying = self.payer.paying();
        // What matters is whether the start is taken, and that is asked right after.
        self.pool.handshake.ignore_capacity = true;
        let (trust, leave_dead) = (self.config.trust, self.orchestrators.len() > 1);
        self.config.leave_dead |= leave_dead;
        if let Some(others) = self.orchestrators.len().checked_sub(1) {
            // As often as it takes to have tried everybody once.
            let most = u32::try_from(others).unwrap_or(u32::MAX).max(MAX_SWAPS);
            self.config.swap_limit = SwapLimit::new(most, SWAP_SPACING);
        }
        let now = self.driver.now();
        let wanted = Capabilities::live_video(self.request.model_id.as_str());
        let mut payer = self.payer;
        payer.learn(&self.driver.signer_health());
        let pool = SessionPool::new(
            now,
            self.pool,
            payer.identity(),
            wanted,
            Balanced::default(),
            seed(),
        );
        let pool = self.driver.drive(pool);
        recall(&pool);
        pool.with(|pool, now| pool.offer(now, self.orchestrators));
        let mut job = Machine::new(now, self.config, self.request, payer);
        // Until somebody opens it.
        job.set_output_read(now, false);
        let job = self.driver.drive(job);
        let media = self.driver.drive(Media::new(now, media::Config::default()));
        let shared = Shared::new(job, media, pool);
        let guard = StopOnDrop(&shared);
        let started = shared
            .until(|state| match (&state.started, &state.ended) {
                (Some(started), _) => Some(Ok(started.clone())),
                (None, Some(ending)) => {
                    let silent_signer = state.no_identity.take().map(Error::from);
                    Some(Err(silent_signer.unwrap_or_else(|| match ending {
                        Ending::Failed(failure) => Error::from(failure.clone()),
                        _ => Error::NoOrchestrator(std::mem::take(&mut state.tried)),
                    })))
                }
                _ => None,
            })
            .await?;
        std::mem::forget(guard);
        Ok(LiveVideoJob {
            shared,
            started,
            trust,
            leave_dead,
        })
    }
}

/// Stops a job whose start nobody waits for any more.
struct StopOnDrop<'a, R: Runtime>(&'a Shared<R>);

impl<R: Runtime> Drop for StopOnDrop<'_, R> {
    fn drop(&mut self) {
        self.0.job.with(|job, now| job.stop(now));
    }
}
