//! A session of a runner of ours, as its app manages it.

use std::fmt;

use livepeer_core::http::{Headers, Url};
use livepeer_core::job::runner::{Ask, Config, SessionCall, SessionEvent, Told};
use livepeer_core::wire::app::ROUTE_HEADER;
use livepeer_core::wire::app::registration::{ChannelInfo, Proxy, SessionControl};

use super::Error;
use crate::{Driver, Runtime};

/// A session of which a request to an app told in its header: channels and addresses for it, and its end.
///
/// [`Registration::session`](super::Registration::session) gives it to an app that registered itself. An app that somebody else registered, as the
/// command `runner` does, makes it [`of`](Self::of) the request alone.
pub struct RunnerSession<R: Runtime> {
    driver: Driver<R>,
    config: Config,
    control: SessionControl,
}

impl<R: Runtime> RunnerSession<R> {
    /// Reads the session from the header of a request. Where the request says that the session is managed is believed as far
    /// as the orchestrator at that address may lead: anybody who reaches the app may have sent it.
    ///
    /// # Errors
    /// [`Error::Input`] if the request is not one of a session.
    pub fn of(
        driver: &Driver<R>,
        config: Config,
        orchestrator: &Url,
        headers: &Headers,
    ) -> Result<Self, Error> {
        // A request without the address of its session names the runner by its route.
        let runner = headers.get(ROUTE_HEADER).unwrap_or_default();
        let control = SessionControl::from_headers(headers, orchestrator, runner)?;
        Ok(Self::managed(driver, config, control))
    }

    pub(super) fn managed(driver: &Driver<R>, config: Config, control: SessionControl) -> Self {
        Self {
            driver: driver.clone(),
            config,
            control,
        }
    }

    /// Makes channels of these names and types, 25 at most: readers and writers of the session reach them at the
    /// orchestrator. A name that the session has already is the same channel.
    ///
    /// # Errors
    /// [`Error::Session`] for names that are no good; [`Error::Failed`] if the orchestrator refuses or fails.
    #[doc(alias = "create_trickle_channels")]
    pub async fn create_channels(
        &self,
        channels: &[(&str, &str)],
    ) -> Result<Vec<ChannelInfo>, Error> {
        let channels = channels.iter();
        let channels = channels.map(|(name, mime_type)| ((*name).into(), (*mime_type).into()));
        match self.ask(Ask::Channels(channels.collect())).await? {
            Told::Channels(channels) => Ok(channels),
            _ => Err(Error::Closed),
        }
    }

    /// Removes the channels of these names, and tells which are gone.
    ///
    /// # Errors
    /// As [`create_channels`](Self::create_channels).
    #[doc(alias = "remove_trickle_channels")]
    pub async fn remove_channels(&self, names: &[&str]) -> Result<Vec<String>, Error> {
        let names = names.iter().map(|name| (*name).into());
        match self.ask(Ask::NoChannels(names.collect())).await? {
            Told::NoChannels(names) => Ok(names),
            _ => Err(Error::Closed),
        }
    }

    /// Makes an address at the orchestrator that nobody guesses: it leads to `target`, a program on the runner's host, or to
    /// the runner.
    ///
    /// # Errors
    /// As [`create_channels`](Self::create_channels).
    pub async fn create_proxy(&self, target: Option<&str>) -> Result<Proxy, Error> {
        match self.ask(Ask::Proxy(target.map(str::to_owned))).await? {
            Told::Proxy(proxy) => Ok(proxy),
            _ => Err(Error::Closed),
        }
    }

    /// Ends the session.
    ///
    /// # Errors
    /// [`Error::Failed`] if the orchestrator refuses or fails: a session that is over is refused.
    #[doc(alias = "stop_runner_session")]
    pub async fn stop(&self) -> Result<(), Error> {
        self.ask(Ask::Stop).await.map(drop)
    }

    async fn ask(&self, ask: Ask) -> Result<Told, Error> {
        let now = self.driver.now();
        let call = SessionCall::new(now, &self.config, &self.control, ask)?;
        match self.driver.drive(call).next().await {
            Some(SessionEvent::Done(told)) => Ok(told),
            Some(SessionEvent::Failed(failure)) => Err(failure.into()),
            _ => Err(Error::Closed),
        }
    }
}

impl<R: Runtime> fmt::Debug for RunnerSession<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerSession")
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}
