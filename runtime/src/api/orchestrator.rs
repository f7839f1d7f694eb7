//! A session with one orchestrator.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::handshake::{Config, Event, Handshake, Identity, PinChange};
use livepeer_core::http::{Trust, Url};
use livepeer_core::job::batch::Finished;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::wire::OrchestratorInfo;
use livepeer_core::wire::batch::{BadRequest, BatchRequest};

use super::account::informed;
use super::answers::Task;
use super::batch::Submission;
use super::board::Board;
use super::builder::LiveVideoJobBuilder;
use super::fleet::Fleet;
use super::peers::{Peers, peer_settings};
use super::{Error, Payer, orchestrator_url};
use crate::{Handle, Runtime};

/// A session with one orchestrator: its info on capabilities, price and ticket parameters, kept fresh until dropped.
///
/// A session has a [`PaymentSession`](super::PaymentSession), for requests that you send yourself. Live video jobs run
/// with its orchestrator ([`OrchestratorSession::live_video`]), and so do batch jobs ([`OrchestratorSession::submit_job`]).
#[doc(alias = "LiveRunnerSession")]
pub struct OrchestratorSession<R: Runtime> {
    shared: Arc<Shared<R>>,
    fleet: Fleet<R>,
    url: Url,
    payer: Payer,
    trust: Trust,
    pin_change: PinChange,
}

/// The machine, and why it ended, if it did. What else there is to know the machine knows.
struct Shared<R: Runtime> {
    handle: Handle<Handshake, R>,
    ended: Board<Option<Error>>,
}

/// The settings of a session. Their order makes no difference; [`OrchestratorSessionBuilder::connect`] judges them.
/// Made by [`Gateway::orchestrator`](super::Gateway::orchestrator).
#[derive(Clone)]
#[must_use = "a session begins with `connect`"]
pub struct OrchestratorSessionBuilder<R: Runtime> {
    fleet: Fleet<R>,
    url: String,
    peers: Peers,
    wanted: Capabilities,
    config: Config,
}

impl<R: Runtime> Shared<R> {
    /// Carries events until there are no more.
    async fn pump(self: Arc<Self>) {
        let driver = self.handle.driver();
        loop {
            let ended = match self.handle.next().await {
                Some(Event::Signers(health)) => {
                    driver.learn_signers(&health);
                    None
                }
                Some(Event::Failed(failure)) => Some(failure.into()),
                Some(Event::Rejected(rejection)) => {
                    let url = self.handle.with(|handshake, _| handshake.to().clone());
                    Some(Error::Rejected(url, Box::new(rejection)))
                }
                Some(Event::Closed) | None => Some(Error::Closed),
                Some(_) => None,
            };
            let over = ended.is_some();
            self.ended.change(|state| {
                if over {
                    *state = ended;
                }
            });
            if over {
                return;
            }
        }
    }

    /// Waits until the machine has its info and fetches no other.
    async fn settled(&self) -> Result<Arc<OrchestratorInfo>, Error> {
        self.ended
            .until(|ended| {
                if let Some(error) = ended {
                    return Some(Err(error.clone()));
                }
                self.handle.with(|handshake, _| {
                    let info = handshake.info().filter(|_| handshake.is_settled());
                    info.cloned().map(Ok)
                })
            })
            .await
    }
}

impl<R: Runtime> OrchestratorSession<R> {
    /// The address that was asked.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// The orchestrator's latest info.
    #[doc(alias = "OrchestratorInfo")]
    pub fn info(&self) -> Arc<OrchestratorInfo> {
        self.shared
            .handle
            .with(|handshake, _| handshake.info().cloned())
            .expect("a session exists only after the first info")
    }

    pub(crate) fn handle(&self) -> &Handle<Handshake, R> {
        &self.shared.handle
    }

    pub(super) const fn payer(&self) -> &Payer {
        &self.payer
    }

    /// The orchestrator's capabilities; `None` from very old nodes.
    pub fn capabilities(&self) -> Option<Capabilities> {
        self.info().capabilities.clone()
    }

    /// Configures a live video job for `model` with this orchestrator and this payer. The session stays as it is: the
    /// job has a quote of its own.
    pub fn live_video(&self, model: &str) -> LiveVideoJobBuilder<R> {
        let mut builder = LiveVideoJobBuilder::new(&self.fleet, model)
            .trust(self.trust)
            .pin_change(self.pin_change)
            .payer(self.payer.clone())
            .orchestrators([self.url.clone()]);
        let payer = self.shared.handle.with(|handshake, _| handshake.payer());
        builder.identity =
            payer.map(|(address, signature)| Identity::Static { address, signature });
        builder
    }

    /// Configures a batch job with this orchestrator and this payer.
    pub fn submit<T: Task>(&self, request: T) -> Submission<R, T::Answer> {
        Submission::new(&self.fleet, request.into())
            .trust(self.trust)
            .pin_change(self.pin_change)
            .payer(self.payer.clone())
            .orchestrators([self.url.clone()])
    }

    /// Does a job of any batch pipeline with this orchestrator, and waits for its answer. `request` is a JSON object of
    /// the pipeline's fields, `model_id` and `prompt` among them; a file is its member `image` or `audio`, in base64.
    /// Streams and events are to be had with [`OrchestratorSession::submit`].
    ///
    /// # Errors
    /// If there is no such pipeline, the request is no good, or the job fails.
    pub async fn submit_job(&self, pipeline: &str, request: &str) -> Result<Finished, Error> {
        let known = Pipeline::from_name(pipeline).ok_or_else(|| {
            let names: Vec<_> = Pipeline::batch().map(Pipeline::name).collect();
            let text = format!(
                "{pipeline:?} is no pipeline; there are {}",
                names.join(", ")
            );
            BadRequest::of("pipeline", text)
        })?;
        let body = Bytes::copy_from_slice(request.as_bytes());
        let mut request = BatchRequest::read_object(known, &body)?;
        request.complete();
        self.submit(request).await
    }

    /// Gets fresh info now, which comes after the call. Calls at the same time share it.
    ///
    /// # Errors
    /// If the orchestrator does not answer or no longer fits. The session has then ended, and every later call says
    /// the same.
    pub async fn renew(&self) -> Result<Arc<OrchestratorInfo>, Error> {
        // A session that has ended says why, now or as soon as that is known.
        let _ = self
            .shared
            .handle
            .with(|handshake, now| handshake.renew(now));
        self.shared.settled().await
    }
}

impl<R: Runtime> fmt::Debug for OrchestratorSession<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrchestratorSession")
            .field("url", &self.url)
            .field("payer", &self.payer)
            .finish_non_exhaustive()
    }
}

impl<R: Runtime> Drop for OrchestratorSession<R> {
    fn drop(&mut self) {
        self.shared.handle.close();
    }
}

impl<R: Runtime> OrchestratorSessionBuilder<R> {
    pub(super) fn new(fleet: &Fleet<R>, url: &str) -> Self {
        Self {
            fleet: fleet.clone(),
            url: url.to_owned(),
            peers: Peers::default(),
            wanted: Capabilities::default(),
            config: Config::default(),
        }
    }

    peer_settings!(payer);

    /// Asks for live video with this model only, and insists on it. Without a model the orchestrator tells all.
    pub fn model(mut self, model: &str) -> Self {
        self.wanted = Capabilities::live_video(model);
        self
    }

    /// Sets which certificate is good enough; by default the first one seen.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.config.trust = trust;
        self
    }

    /// Sets what to do when the certificate is not the one remembered.
    pub fn pin_change(mut self, change: PinChange) -> Self {
        self.config.pin_change = change;
        self
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// If the settings are no good, nobody answers, or the orchestrator does not fit.
    #[doc(alias = "get_orch_info")]
    pub async fn connect(self) -> Result<OrchestratorSession<R>, Error> {
        let url = self.peers.own(orchestrator_url(&self.url)?);
        let payer = informed(self.peers.payer()?, self.fleet.driver())?;
        let (trust, pin_change) = (self.config.trust, self.config.pin_change);
        let config = Config {
            ignore_capacity: true,
            ..self.config
        };
        let handshake = Handshake::new(
            self.fleet.driver().now(),
            config,
            url.clone(),
            payer.identity(),
            self.wanted,
        );
        let shared = Arc::new(Shared {
            handle: self.fleet.driver().drive(handshake),
            ended: Board::new(None),
        });
        self.fleet
            .driver()
            .runtime()
            .spawn(Arc::clone(&shared).pump());
        // Dropped here if it does not come about, or nobody waits for it any more.
        let session = OrchestratorSession {
            shared,
            fleet: self.fleet,
            url,
            payer,
            trust,
            pin_change,
        };
        session.shared.settled().await?;
        Ok(session)
    }
}

impl<R: Runtime> fmt::Debug for OrchestratorSessionBuilder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrchestratorSessionBuilder")
            .field("url", &self.url)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}
