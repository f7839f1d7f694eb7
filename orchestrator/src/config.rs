//! How an orchestrator is set up, and how it can be made to misbehave.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use livepeer_core::chain::ChainView;
use livepeer_core::http::Url;
use livepeer_core::money::{Price, Wei};
use livepeer_core::payment::Secret;
use livepeer_core::payment::quote::QUOTE_BLOCKS;
use livepeer_core::trickle::Start;
use livepeer_core::wire::byoc::Scheme;
use livepeer_core::{Address, Pipeline};

use super::apps::App;
use super::batch::{BatchModel, Measure, Mishap, Models, measure_simple};
use super::byoc::Container;
use super::pipeline::PipelineFactory;

/// How an orchestrator is set up. [`Config::new`] has production's numbers.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address that the orchestrator tells its callers: the base of every URL it hands out.
    pub service: Url,
    /// The node's own account, which signs pings and is told as `address` on-chain.
    pub account: Address,
    /// How it is paid; `None` is off-chain: any signature will do, and work costs nothing (payments spec 14).
    pub payments: Option<Payments>,
    /// The models of live video that the node runs, by name.
    pub models: BTreeMap<String, ModelConfig>,
    /// The models of batch work, by pipeline and name.
    pub batch: BTreeMap<Pipeline, BTreeMap<String, BatchModel>>,
    /// The containers that an operator brought, by name.
    pub containers: BTreeMap<String, Container>,
    /// The ways in which jobs may be signed. Orchestrators of today know the first one.
    pub job_schemes: Vec<Scheme>,
    /// The apps that are rented out, by the name of their runner in addresses.
    pub apps: BTreeMap<String, App>,
    /// The word by which programs may register as containers and runners; `None` lets none do so.
    pub register_secret: Option<String>,
    /// How many wei a dollar is, for runners that state their price in dollars; `None` leaves those without a price.
    pub wei_per_usd: Option<u64>,
    /// The node's software version, as gateways compare it.
    pub version: String,
    /// Further instances to name in answers.
    pub nodes: Vec<String>,
    /// A channel into which nobody writes for this long ends, and an input channel takes its session along.
    pub idle: Duration,
    /// The secret that those behind quotes and auth tokens are derived from; `None` takes a fresh one from the seed.
    /// Keep the secret and the records across a restart, and open quotes and tokens stay good.
    pub secret: Option<Secret>,
    /// When and where its runners begin to read the input of a session.
    pub join: Join,
    /// The decoder that measures the files of batch requests.
    pub measure: Measure,
    /// How it misbehaves.
    pub quirks: Quirks,
}

impl Config {
    /// An off-chain orchestrator with the model `noop`.
    #[must_use]
    pub fn new(service: Url, account: Address) -> Self {
        Self {
            service,
            account,
            payments: None,
            models: BTreeMap::new(),
            batch: Models::new(),
            containers: BTreeMap::new(),
            job_schemes: vec![Scheme::default()],
            apps: BTreeMap::new(),
            register_secret: None,
            wei_per_usd: Some(WEI_PER_USD),
            version: "0.9.1".to_owned(),
            nodes: Vec::new(),
            idle: Duration::from_secs(300),
            secret: None,
            join: Join::default(),
            measure: measure_simple,
            quirks: Quirks::default(),
        }
        .with_model("noop", ModelConfig::default())
    }

    /// Makes it take payments.
    #[must_use]
    pub fn on_chain(mut self, payments: Payments) -> Self {
        self.payments = Some(payments);
        self
    }

    /// Adds a model, or replaces the one of that name.
    #[must_use]
    pub fn with_model(mut self, name: impl Into<String>, model: ModelConfig) -> Self {
        self.models.insert(name.into(), model);
        self
    }

    /// Adds a model of a batch pipeline, or replaces the one of that name.
    #[must_use]
    pub fn with_batch_model(
        mut self,
        pipeline: Pipeline,
        name: impl Into<String>,
        model: BatchModel,
    ) -> Self {
        let models = self.batch.entry(pipeline).or_default();
        models.insert(name.into(), model);
        self
    }

    /// Adds a container, or replaces the one of that name.
    #[must_use]
    pub fn with_container(mut self, name: impl Into<String>, container: Container) -> Self {
        self.containers.insert(name.into(), container);
        self
    }

    /// Adds an app under that name of its runner, or replaces the one there.
    #[must_use]
    pub fn with_app(mut self, runner: impl Into<String>, app: App) -> Self {
        self.apps.insert(runner.into(), app);
        self
    }
}

/// The wei of a dollar when an ether is 2,500 of them.
const WEI_PER_USD: u64 = 400_000_000_000_000;

/// When and where a runner begins to read the input of its session.
///
/// Real runners load their model first, and then ask for the open segment; older ones ask for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// The longest time between the start of a session and its runner's first read; drawn anew for each session.
    pub within: Duration,
    /// The segment it asks for first.
    pub from: Start,
}

impl Default for Join {
    /// At once, from the open segment on: nothing is missed.
    fn default() -> Self {
        Self {
            within: Duration::ZERO,
            from: Start::Current,
        }
    }
}

impl Join {
    /// The habit of the reference's runners: up to half a second late, from the open segment on.
    #[must_use]
    pub const fn late() -> Self {
        Self {
            within: Duration::from_millis(500),
            from: Start::Current,
        }
    }
}

/// How an orchestrator is paid.
#[derive(Clone, Debug)]
pub struct Payments {
    /// The account that tickets pay; may differ from the node's own.
    pub recipient: Address,
    /// The price of work for which no model has a price of its own.
    pub price: Price,
    /// The expected value that a ticket should have, in wei.
    pub ticket_ev: Wei,
    /// Tickets never pay more than this; zero is no limit.
    pub max_face_value: Wei,
    /// A running session is billed this often.
    pub interval: Duration,
    /// How many blocks go by before ticket parameters expire.
    pub quote_blocks: u64,
    /// The chain as of now; later views come with [`Orchestrator::set_chain`](super::Orchestrator::set_chain).
    pub chain: ChainView,
}

impl Payments {
    /// Production's ticket value, interval and expiry.
    #[must_use]
    pub fn new(recipient: Address, price: Price, chain: ChainView) -> Self {
        Self {
            recipient,
            price,
            ticket_ev: Wei::from(8_000_000_000),
            max_face_value: Wei::zero(),
            interval: Duration::from_secs(5),
            quote_blocks: QUOTE_BLOCKS,
            chain,
        }
    }
}

/// A model that is run.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// How many sessions at once.
    pub capacity: u32,
    /// Whether it is loaded.
    pub warm: bool,
    /// The model's price; `None` is the node's own price.
    pub price: Option<Price>,
    /// The pipeline that does the work.
    pub pipeline: PipelineFactory,
}

impl Default for ModelConfig {
    /// Loaded, eight at once, for the node's own price, returning the input.
    fn default() -> Self {
        Self {
            capacity: 8,
            warm: true,
            price: None,
            pipeline: PipelineFactory::default(),
        }
    }
}

impl ModelConfig {
    /// Replaces the pipeline.
    #[must_use]
    pub fn running(mut self, pipeline: PipelineFactory) -> Self {
        self.pipeline = pipeline;
        self
    }
}

/// The ways in which this orchestrator can be told to misbehave. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// Leave this field out of the answer to a start request, such as `publish_url`.
    pub leave_out: Option<String>,
    /// Tell of this model in place of the ones there are.
    pub other_model: Option<String>,
    /// After so many quotes, every later one is dearer by this factor.
    pub price_jump: Option<(u32, u16)>,
    /// Quote this price from now on, as when the price of gas has moved. Sessions keep the price that they began with.
    pub price: Option<Price>,
    /// Answer every payment with this status and text.
    pub refuse_payments: Option<(u16, String)>,
    /// Take the next payment of a running session, and answer it with this status, as a proxy that lost patience.
    pub hide_credit: Option<u16>,
    /// Know nothing of `/refresh-payment`.
    pub no_refresh: bool,
    /// Take every handshake for one too many (`OrchestratorCapped`).
    pub capped: bool,
    /// Answer the handshake without an auth token.
    pub no_auth_token: bool,
    /// Answer nothing at all any more. Channels go on.
    pub silent: bool,
    /// Publish no output.
    pub no_output: bool,
    /// Publish no events.
    pub no_events: bool,
    /// How the runners of batch work misbehave.
    pub runner: Option<Mishap>,
    /// Write results into the answer as data URLs, as old nodes did, also where they can be downloaded.
    pub data_urls: bool,
    /// Give all pictures of a request one name, as nodes with a runner of their own do: all but the last are lost.
    pub equal_names: bool,
    /// Have no room for batch work.
    pub busy: bool,
    /// Have no room for every batch request of that number, such as every fifth one.
    pub busy_every: Option<NonZeroU32>,
    /// Know batch work no more: answer 410.
    pub no_batch: bool,
    /// Tell this price for every model in handshakes that ask for all of them, and quote another.
    pub told_price: Option<Price>,
    /// Take every payment of that number, such as every second one, for one under ticket parameters that have expired.
    pub stale_every: Option<NonZeroU32>,
    /// Charge batch work this many times over.
    pub overcharge: Option<u16>,
    /// Keep a container's place for ever when whoever asked leaves, when the time for a job is over, and when its request is
    /// not JSON.
    pub leaky_places: bool,
    /// Write blank lines after a container's stream has ended, until the time for the job is over.
    pub flood: bool,
    /// Turn every status of a container below 400 into 200.
    pub flat_status: bool,
    /// Refuse the signature `0x`, which gateways without a chain send.
    pub refuse_0x: bool,
    /// Name in tokens an address of this host at which nobody listens, as one behind a router does.
    pub elsewhere: bool,
    /// Say of every known runner's sign of life of that number that there is no such runner.
    pub forget_every: Option<NonZeroU32>,
    /// Every answer comes later by this. Channels are not slowed.
    pub delay: Duration,
}
