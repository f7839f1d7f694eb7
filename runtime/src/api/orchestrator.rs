//! A session with one orchestrator.

use std::fmt;
use std::sync::Arc;

use livepeer_core::capabilities::Capabilities;
use livepeer_core::handshake::{Config, Event, Handshake, PinChange};
use livepeer_core::http::{Trust, Url};
use livepeer_core::wire::OrchestratorInfo;

use super::board::Board;
use super::payer::add_signer;
use super::{Error, Payer, orchestrator_url, service_url};
use crate::{Driver, Handle, Runtime};

/// A session with one orchestrator: its word on capabilities, price and ticket parameters, kept fresh until dropped.
pub struct OrchestratorSession<R: Runtime> {
    shared: Arc<Shared<R>>,
    url: Url,
    payer: Payer,
}

/// The machine, and why it ended, if it did. What else there is to know the machine knows.
struct Shared<R: Runtime> {
    handle: Handle<Handshake, R>,
    ended: Board<Option<Error>>,
}

/// How to connect. See [`OrchestratorSession::builder`].
#[derive(Clone)]
#[must_use]
pub struct OrchestratorSessionBuilder<R: Runtime> {
    driver: Driver<R>,
    url: Result<Url, Error>,
    payer: Payer,
    wanted: Capabilities,
    config: Config,
    error: Option<Error>,
}

impl<R: Runtime> Shared<R> {
    /// Carries events until there are no more.
    async fn pump(self: Arc<Self>) {
        let driver = self.handle.driver();
        loop {
            let event = self.handle.next().await;
            self.handle
                .with(|handshake, _| driver.learn_signers(handshake.signer_health()));
            let ended = match event {
                Some(Event::Failed(failure)) => Some(failure.into()),
                Some(Event::Rejected(rejection)) => {
                    let url = self.handle.with(|handshake, _| handshake.to().clone());
                    Some(Error::Rejected(url, Box::new(rejection)))
                }
                Some(Event::Closed) | None => Some(Error::Ended("it was closed".into())),
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

    /// Waits until the machine has a word and fetches no other.
    async fn settled(&self) -> Result<OrchestratorInfo, Error> {
        self.ended
            .until(|ended| {
                if let Some(error) = ended {
                    return Some(Err(error.clone()));
                }
                self.handle.with(|handshake, _| {
                    let word = handshake.info().filter(|_| handshake.is_settled());
                    word.cloned().map(Ok)
                })
            })
            .await
    }
}

impl<R: Runtime> OrchestratorSession<R> {
    /// Begins to configure a session with the orchestrator at `url` (`HOST:PORT` or a URL).
    pub fn builder(driver: &Driver<R>, url: &str) -> OrchestratorSessionBuilder<R> {
        OrchestratorSessionBuilder {
            driver: driver.clone(),
            url: orchestrator_url(url),
            payer: Payer::default(),
            wanted: Capabilities::default(),
            config: Config::default(),
            error: None,
        }
    }

    /// The address that was asked.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// The orchestrator's last word.
    pub fn info(&self) -> OrchestratorInfo {
        self.shared
            .handle
            .with(|handshake, _| handshake.info().cloned())
            .expect("a session exists only after the first word")
    }

    pub(crate) fn handle(&self) -> &Handle<Handshake, R> {
        &self.shared.handle
    }

    pub(super) const fn payer(&self) -> &Payer {
        &self.payer
    }

    /// The orchestrator's capabilities; `None` from very old nodes.
    pub fn capabilities(&self) -> Option<Capabilities> {
        self.info().capabilities
    }

    /// Gets a fresh word now: one that comes after the call. Calls at the same time share it.
    ///
    /// # Errors
    /// If the orchestrator does not answer or no longer fits. The session has then ended, and every later call says
    /// the same.
    pub async fn renew(&self) -> Result<OrchestratorInfo, Error> {
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
    /// Introduces us with what the remote signer at `url` says. Without one the session is off-chain.
    pub fn signer(mut self, url: &str) -> Self {
        match service_url(url) {
            Ok(url) => add_signer(&mut self.payer, url),
            Err(err) => self.error = Some(err),
        }
        self
    }

    /// Sets who pays.
    pub fn payer(mut self, payer: Payer) -> Self {
        self.payer = payer;
        self
    }

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

    /// Lets the orchestrator name private addresses and lead from `https` to `http`: see [`Url::opened`].
    pub fn allow_private(mut self) -> Self {
        self.url = self.url.map(Url::opened);
        self
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// If the address is none, nobody answers, or the orchestrator does not fit.
    pub async fn connect(mut self) -> Result<OrchestratorSession<R>, Error> {
        let url = self.url?;
        if let Some(err) = self.error {
            return Err(err);
        }
        let config = Config {
            ignore_capacity: true,
            ..self.config
        };
        self.payer.learn(&self.driver.signer_health());
        let handshake = Handshake::new(
            self.driver.now(),
            config,
            url.clone(),
            self.payer.identity(),
            self.wanted,
        );
        let shared = Arc::new(Shared {
            handle: self.driver.drive(handshake),
            ended: Board::new(None),
        });
        self.driver.runtime().spawn(Arc::clone(&shared).pump());
        // Dropped here if it does not come about, or nobody waits for it any more.
        let session = OrchestratorSession {
            shared,
            url,
            payer: self.payer,
        };
        session.shared.settled().await?;
        Ok(session)
    }
}
