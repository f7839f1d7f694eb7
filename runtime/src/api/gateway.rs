//! The entry for applications.

use livepeer_core::chain::ChainView;
use livepeer_core::job::byoc::Order;

use super::answers::Task;
use super::app::AppBuilder;
use super::batch::Submission;
use super::builder::LiveVideoJobBuilder;
use super::byoc::ByocSubmission;
use super::find::Search;
use super::fleet::Fleet;
use super::orchestrator::OrchestratorSessionBuilder;
use crate::{Driver, Runtime};

/// A gateway: finds orchestrators, pays them and sends them work. An application has one.
///
/// | call | what comes of it |
/// |---|---|
/// | [`Gateway::live_video`] | a [`LiveVideoJob`](super::LiveVideoJob), its [`Input`](super::Input) and its [`Output`](super::Output) |
/// | [`Gateway::submit`] | a [`BatchJob`](super::BatchJob): pictures, transcripts, answers of language models |
/// | [`Gateway::byoc`] | a [`ByocJob`](super::ByocJob): whatever a container does that an operator brought |
/// | [`Gateway::app`] | an [`AppAnswer`](super::AppAnswer), or an [`AppSession`](super::AppSession) with an app that an orchestrator rents out |
/// | [`Gateway::orchestrator`] | an [`OrchestratorSession`](super::OrchestratorSession), from which a [`PaymentSession`](super::PaymentSession) and live video jobs are made |
/// | [`Gateway::discover`] | a list of orchestrators |
///
/// Cheap to clone. All work of a gateway and of its clones shares connections, certificates seen, what is known of
/// signers, and sessions with orchestrators: live jobs of the same model, orchestrators and payer have one pool of them,
/// at the same time and one after the other, and each its own quote.
///
/// Keys, stores and certificates are settings of the [`Driver`] below it: `Gateway::from(driver)`.
#[derive(Clone, Debug)]
pub struct Gateway<R: Runtime> {
    fleet: Fleet<R>,
}

impl<R: Runtime + Default> Gateway<R> {
    /// A gateway without a key, with records in memory, on the runtime that runs now.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl<R: Runtime + Default> Default for Gateway<R> {
    fn default() -> Self {
        Driver::new(R::default()).into()
    }
}

impl<R: Runtime> From<Driver<R>> for Gateway<R> {
    /// A gateway on what `driver` has: its key, its store, its certificates.
    fn from(driver: Driver<R>) -> Self {
        let fleet = Fleet::new(driver);
        Self { fleet }
    }
}

impl<R: Runtime> Gateway<R> {
    /// Configures a live video job for `model`, such as `noop`: live video in, live video out.
    #[doc(alias = "start_lv2v")]
    #[doc(alias = "StartJobRequest")]
    #[doc(alias = "submit_job")]
    pub fn live_video(&self, model: &str) -> LiveVideoJobBuilder<R> {
        LiveVideoJobBuilder::new(&self.fleet, model)
    }

    /// Configures a batch job: one request, one answer or a stream. A request is a struct such as
    /// [`TextToImage`](super::TextToImage), whose answer is a struct too, or a [`BatchRequest`](super::BatchRequest) that
    /// is made field by field.
    ///
    /// ```no_run
    /// # use livepeer_runtime::api::{Error, Gateway};
    /// # async fn draw<R: livepeer_runtime::Runtime>(gateway: Gateway<R>) -> Result<(), Error> {
    /// use livepeer_runtime::api::TextToImage;
    ///
    /// let request = TextToImage {
    ///     prompt: "a coffee shop at sunset".into(),
    ///     ..TextToImage::default()
    /// };
    /// let done = gateway.submit(request).signer("http://127.0.0.1:7936").await?;
    /// for picture in &done.images {
    ///     println!("seed {}: {} bytes", picture.seed, picture.content.len());
    /// }
    /// println!("{} was paid {} wei", done.served.url, done.served.cost);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "submit_job")]
    pub fn submit<T: Task>(&self, request: T) -> Submission<R, T::Answer> {
        Submission::new(&self.fleet, request.into())
    }

    /// Configures a job for the container that orchestrators know by that name: one request, and its answer or a stream of
    /// events.
    ///
    /// ```no_run
    /// # use livepeer_runtime::api::{Error, Gateway};
    /// # async fn turn<R: livepeer_runtime::Runtime>(gateway: Gateway<R>) -> Result<(), Error> {
    /// let job = gateway.byoc("text-reversal").path("text-reverse");
    /// let done = job.json(r#"{"text":"abc"}"#).signer("http://127.0.0.1:7936").await?;
    /// println!("{} answered {} bytes", done.served.url, done.body.len());
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "submit_byoc_job")]
    #[doc(alias = "capability")]
    pub fn byoc(&self, capability: &str) -> ByocSubmission<R> {
        ByocSubmission::new(&self.fleet, capability)
    }

    /// As [`Gateway::byoc`], for an order that was put together elsewhere: it is sent as it is.
    pub fn order(&self, order: Order) -> ByocSubmission<R> {
        ByocSubmission::of(&self.fleet, order)
    }

    /// Configures the rent of an app, such as `live-video-to-video/scope`, for a single call or for a session.
    ///
    /// ```no_run
    /// # use livepeer_runtime::api::{AppCall, Error, Gateway};
    /// # async fn draw<R: livepeer_runtime::Runtime>(gateway: Gateway<R>) -> Result<(), Error> {
    /// let app = gateway.app("my/painter").signer("http://127.0.0.1:7936");
    /// let session = app.reserve().await?;
    /// let call = AppCall::post("v1/draw".into(), r#"{"prompt":"a coffee shop"}"#.into());
    /// let answer = session.call(call).await?.bytes(1 << 20).await?;
    /// session.stop().await;
    /// println!("{} bytes", answer.len());
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "reserve_session")]
    #[doc(alias = "call_runner")]
    #[doc(alias = "runner_selector")]
    #[doc(alias = "discover_runners")]
    #[doc(alias = "start_scope")]
    pub fn app(&self, name: &str) -> AppBuilder<R> {
        AppBuilder::new(&self.fleet, name)
    }

    /// As [`Gateway::app`], for any app: to list them.
    pub fn apps(&self) -> AppBuilder<R> {
        AppBuilder::any(&self.fleet)
    }

    /// Pushes a new reading of the chain to batch jobs, jobs for containers and rented apps: for those that pay with an own
    /// key ([`Payer::Account`](super::Payer::Account)).
    pub fn set_chain(&self, view: &ChainView) {
        self.fleet.set_chain(view);
    }

    /// Configures a session with the orchestrator at `url` (`HOST:PORT` or a URL).
    #[doc(alias = "get_orch_info")]
    #[doc(alias = "get_orchestrator_info")]
    pub fn orchestrator(&self, url: &str) -> OrchestratorSessionBuilder<R> {
        OrchestratorSessionBuilder::new(&self.fleet, url)
    }

    /// Configures a search for orchestrators.
    #[doc(alias = "discover_orchestrators")]
    #[doc(alias = "orchestrator_selector")]
    pub fn discover(&self) -> Search<R> {
        Search::new(self.driver())
    }

    /// How many pools of sessions there are, and how many of them wait for another job.
    #[cfg(feature = "conformance")]
    pub(crate) fn pools(&self) -> (usize, usize) {
        self.fleet.pools()
    }

    /// The driver below, for machines that the gateway has no call for.
    #[must_use]
    pub const fn driver(&self) -> &Driver<R> {
        self.fleet.driver()
    }
}
