//! A session with one orchestrator.

use livepeer_core::capabilities::Capabilities;
use livepeer_core::handshake::{Config, Event, Handshake, PinChange};
use livepeer_core::http::{Trust, Url};
use livepeer_core::wire::OrchestratorInfo;

use super::{Error, Payer, orchestrator_url, service_url};
use crate::{Driver, Handle, Runtime};

/// A session with one orchestrator: its word on capabilities, price and ticket parameters, kept fresh until dropped.
pub struct OrchestratorSession<R: Runtime> {
    handle: Handle<Handshake, R>,
    url: Url,
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
        // Renewals are events; what they say is in the machine already.
        while self.handle.try_next().is_some() {}
        self.handle
            .with(|handshake, _| handshake.info().cloned())
            .expect("a session exists only after the first word")
    }

    pub(super) const fn handle(&self) -> &Handle<Handshake, R> {
        &self.handle
    }

    /// What it can do; `None` from very old nodes.
    pub fn capabilities(&self) -> Option<Capabilities> {
        self.info().capabilities
    }

    /// Gets a fresh word now.
    ///
    /// # Errors
    /// If the orchestrator does not answer or no longer fits. The session has then ended.
    pub async fn renew(&self) -> Result<OrchestratorInfo, Error> {
        self.handle.with(|handshake, now| handshake.renew(now))?;
        loop {
            if let Event::Renewed(info) = self.next().await? {
                return Ok(*info);
            }
        }
    }

    async fn next(&self) -> Result<Event, Error> {
        match self.handle.next().await {
            Some(Event::Failed(failure)) => Err(failure.into()),
            Some(Event::Rejected(rejection)) => {
                Err(Error::Rejected(self.url.clone(), Box::new(rejection)))
            }
            Some(Event::Closed) | None => Err(Error::Ended("it was closed".into())),
            Some(event) => Ok(event),
        }
    }
}

impl<R: Runtime> OrchestratorSessionBuilder<R> {
    /// Introduces us with what the remote signer at `url` says. Without one the session is off-chain.
    pub fn signer(mut self, url: &str) -> Self {
        match service_url(url) {
            Ok(url) => self.payer.add_signer(url),
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

    /// Which certificate is good enough; by default the first one seen.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.config.trust = trust;
        self
    }

    /// What to do when the certificate is not the one remembered.
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
    pub async fn connect(self) -> Result<OrchestratorSession<R>, Error> {
        let url = self.url?;
        if let Some(err) = self.error {
            return Err(err);
        }
        let config = Config {
            ignore_capacity: true,
            ..self.config
        };
        let handshake = Handshake::new(
            self.driver.now(),
            config,
            url.clone(),
            self.payer.identity(self.driver.signer_health()),
            self.wanted,
        );
        let session = OrchestratorSession {
            handle: self.driver.drive(handshake),
            url,
        };
        loop {
            let event = session.next().await;
            session.handle.with(|handshake, _| {
                self.driver.learn_signers(handshake.signer_health());
            });
            if let Event::Ready(_) = event? {
                return Ok(session);
            }
        }
    }
}
