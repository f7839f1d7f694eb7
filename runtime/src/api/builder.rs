//! The settings of a live video job, and its start.

use std::fmt;
use std::time::Duration;

use livepeer_core::capabilities::{Capabilities, Ceilings};
use livepeer_core::discovery;
use livepeer_core::handshake::{Identity, PinChange};
use livepeer_core::http::{Trust, Url};
use livepeer_core::job::LiveVideoJob as Machine;
use livepeer_core::job::live::media::{self, Media};
use livepeer_core::job::live::{Config, Ending};
use livepeer_core::job::{MAX_SWAPS, SWAP_SPACING, SwapLimit};
use livepeer_core::money::Amount;
use livepeer_core::pool::{self, SessionPool};
use livepeer_core::prefer::Limits;
use livepeer_core::selection::Balanced;
use livepeer_core::trickle::{publisher, subscriber};
use livepeer_core::wire::{Params, StartRequest};

use super::Error;
use super::account::{Account, informed};
use super::feed::Feed;
use super::find::discover;
use super::fleet::{Fleet, Kind};
use super::input::{Input, publishing};
use super::live::LiveVideoJob;
use super::memory::recall;
use super::output::Output;
use super::peers::{Peers, peer_settings};
use super::pump::Shared;
use crate::{Runtime, seed};

/// The settings of a live video job. Their order makes no difference; [`LiveVideoJobBuilder::start`] judges them.
/// Made by [`Gateway::live_video`](super::Gateway::live_video) and by
/// [`OrchestratorSession::live_video`](super::OrchestratorSession::live_video).
#[must_use = "a job begins with its start"]
pub struct LiveVideoJobBuilder<R: Runtime> {
    fleet: Fleet<R>,
    request: StartRequest,
    pub(super) peers: Peers,
    /// The payer's introduction, if it is known already.
    pub(super) identity: Option<Identity>,
    config: Config,
    pool: pool::Config,
    max_price: Option<Amount>,
    input: publisher::Config,
    output: subscriber::Config,
}

impl<R: Runtime> LiveVideoJobBuilder<R> {
    pub(super) fn new(fleet: &Fleet<R>, model: &str) -> Self {
        Self {
            fleet: fleet.clone(),
            request: StartRequest {
                model_id: model.to_string(),
                ..StartRequest::default()
            },
            peers: Peers::default(),
            identity: None,
            // Our publisher waits by itself when too much is in flight, so that is no sign of a slow orchestrator.
            config: Config {
                max_in_flight: usize::MAX,
                ..Config::default()
            },
            pool: pool::Config {
                // Each has a quote of its own.
                share: u32::MAX,
                // In the driver's store, if it has one that lasts.
                remember: true,
                ..pool::Config::default()
            },
            max_price: None,
            input: publishing(),
            output: subscriber::Config::default(),
        }
    }

    peer_settings!();
    peer_settings!(payer);
    peer_settings!(choice);

    /// Sets the model's first parameters.
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

    /// Sets what to do when an orchestrator shows another certificate than the one remembered.
    pub fn pin_change(mut self, change: PinChange) -> Self {
        self.pool.handshake.pin_change = change;
        self
    }

    /// Sets the most to pay per pixel, in wei.
    pub fn max_price(mut self, price: impl Into<Amount>) -> Self {
        let price = price.into();
        let ceilings = Ceilings::of(price.clone());
        self.pool.handshake.terms.ceilings = ceilings.clone();
        self.config.payment.ceilings = ceilings;
        self.max_price = Some(price);
        self
    }

    /// Adds limits on who may do the job. All that are added hold.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits.push(limits);
        self
    }

    /// Sets how long nothing may come back while input flows, before the orchestrator is left; 30 s unless this says
    /// otherwise.
    pub fn output_within(mut self, limit: Duration) -> Self {
        self.config.output_silence = limit;
        self
    }

    /// Sets how long nothing may come back while the runner says that its model is loading, before the orchestrator is
    /// left; 180 s unless this says otherwise.
    pub fn loading_within(mut self, limit: Duration) -> Self {
        self.config.loading_silence = limit;
        self
    }

    /// Changes any other setting of the job.
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Changes how the input is published; its certificate rule is the job's.
    pub fn input(mut self, change: impl FnOnce(&mut publisher::Config)) -> Self {
        change(&mut self.input);
        self
    }

    /// Changes how the output is read; its certificate rule is the job's.
    pub fn output(mut self, change: impl FnOnce(&mut subscriber::Config)) -> Self {
        change(&mut self.output);
        self
    }

    /// Finds an orchestrator, pays it and starts the job. Its input and output are handed out here and nowhere else.
    ///
    /// # Errors
    /// If the settings are no good, the signer fails, or no orchestrator takes the job.
    #[doc(alias = "start_lv2v")]
    pub async fn start(mut self) -> Result<(LiveVideoJob<R>, Input<R>, Output<R>), Error> {
        if self.request.model_id.is_empty() {
            return Err(Error::Options("a job needs a model, such as noop"));
        }
        let payer = informed(self.peers.payer()?, self.fleet.driver())?;
        let wanted = Capabilities::live_video(self.request.model_id.as_str());
        let orchestrators = self.peers.orchestrators()?;
        self.pool.handshake.terms.paying = payer.paying();
        // What matters is whether the start is taken, and that is asked right after.
        self.pool.handshake.ignore_capacity = true;
        let kind = Kind {
            wanted: wanted.clone(),
            listed: { self.peers.listed()?.into_iter() }
                .map(|url| (url.clone(), url.reach()))
                .collect(),
            places: self.peers.places(),
            payer: Account::of(&payer),
            trust: self.config.trust,
            pin_change: self.pool.handshake.pin_change,
            max_price: self.max_price.take(),
        };
        let driver = self.fleet.driver();
        let now = driver.now();
        let (settings, identity) = (self.pool.clone(), self.identity.take());
        let member = self.fleet.join(kind, |kind| {
            let pool = SessionPool::new(
                now,
                settings,
                identity.unwrap_or_else(|| payer.identity()),
                kind.wanted.clone(),
                Balanced::default(),
                seed(),
            );
            let pool = driver.drive(pool);
            recall(&pool);
            pool
        });
        if orchestrators.is_empty() {
            let find = async || self.find(&wanted).await;
            member.pool.search(find).await?;
        }
        let known = member.pool.handle.with(|pool, now| {
            if !orchestrators.is_empty() {
                pool.offer(now, orchestrators);
            }
            pool.records().count()
        });
        self.config.leave_dead |= known > 1;
        if let Some(others) = known.checked_sub(1) {
            // As often as it takes to have tried everybody once.
            let most = u32::try_from(others).unwrap_or(u32::MAX).max(MAX_SWAPS);
            self.config.swap_limit = SwapLimit::new(most, SWAP_SPACING);
        }
        self.input.trust = self.config.trust;
        self.output.trust = self.config.trust;
        self.output.leave_dead |= self.config.leave_dead;
        let now = driver.now();
        let job = driver.drive(Machine::new(now, self.config, self.request, payer));
        let media = driver.drive(Media::new(now, media::Config::default()));
        let shared = Shared::new(job, media, member);
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
        // The output first: none of it may be missed.
        let output = Output::new(Feed::of(shared.clone()), self.output);
        let input = Input::new(Feed::of(shared.clone()), self.input);
        Ok((LiveVideoJob::new(shared, started), input, output))
    }

    /// Asks the sources for orchestrators.
    async fn find(&self, wanted: &Capabilities) -> Result<Vec<Url>, Error> {
        let sources = self.peers.sources(wanted)?;
        let config = discovery::Config {
            combine: self.peers.combine(),
            ..discovery::Config::default()
        };
        let discovered = discover(self.fleet.driver(), config, sources, discovery::WITHIN).await;
        if discovered.found.is_empty() {
            return Err(Error::NothingFound(Box::new(discovered)));
        }
        let found = discovered.found.into_iter();
        Ok(found.map(|one| one.url).collect())
    }
}

impl<R: Runtime> fmt::Debug for LiveVideoJobBuilder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveVideoJobBuilder")
            .field("request", &self.request)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// Stops a job whose start nobody waits for any more.
struct StopOnDrop<'a, R: Runtime>(&'a Shared<R>);

impl<R: Runtime> Drop for StopOnDrop<'_, R> {
    fn drop(&mut self) {
        self.0.job.with(|job, now| job.stop(now));
    }
}
