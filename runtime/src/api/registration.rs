//! A runner of ours that an orchestrator rents out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use livepeer_core::http::{Headers, Url};
use livepeer_core::job::runner::{self, Config, Event};
use livepeer_core::wire::app::registration::{HEARTBEAT_INTERVAL, HEARTBEAT_TTL, Heartbeat};
use livepeer_core::{Failure, Misuse};

use super::Error;
use super::board::Board;
use super::ring::Ring;
use super::runner_session::RunnerSession;
use crate::{Driver, Handle, Runtime};

/// A runner that is kept registered with an orchestrator: it lists the runner, and hands it the requests of whoever rents
/// it. Dropping it takes the runner away too, as long as the runtime goes on.
///
/// The sessions that a runner has are told as they come and go; what is said in them comes over HTTP, to the address in the
/// heartbeat.
#[doc(alias = "LiveRunnerRegistration")]
pub struct Registration<R: Runtime> {
    owner: Owner<R>,
    seen: u64,
}

struct Registered<R: Runtime> {
    /// Settings of the registration, which those of its sessions are too.
    config: Config,
    machine: Handle<runner::Registration, R>,
    state: Board<State>,
}

#[derive(Default)]
struct State {
    events: Ring<Event>,
    /// Whether an orchestrator has taken it.
    taken: bool,
    over: Option<Result<(), Failure>>,
}

impl<R: Runtime> Registration<R> {
    /// Registers the runner of which `beat` tells with the orchestrator at that address, which shares `secret` with its
    /// runners, and waits until it is listed. A name that the orchestrator still has from an earlier run is waited for.
    ///
    /// # Errors
    /// If the secret or the heartbeat is no good, or the orchestrator does not take it.
    #[doc(alias = "register_runner")]
    pub async fn begin(
        driver: &Driver<R>,
        config: Config,
        orchestrator: Url,
        secret: &str,
        beat: Heartbeat,
    ) -> Result<Self, Error> {
        let now = driver.now();
        let machine = runner::Registration::new(now, config.clone(), orchestrator, secret, beat)?;
        let registered = Arc::new(Registered {
            config,
            machine: driver.drive(machine),
            state: Board::new(State::default()),
        });
        driver.runtime().spawn(Arc::clone(&registered).pump());
        let owner = Owner(registered);
        let taken = owner.0.state.until(|state| match &state.over {
            _ if state.taken => Some(Ok(())),
            Some(Err(failure)) => Some(Err(failure.clone().into())),
            Some(Ok(())) => Some(Err(Error::Closed)),
            None => None,
        });
        taken.await?;
        Ok(Self { owner, seen: 0 })
    }

    /// The runner's name at its orchestrator.
    #[must_use]
    pub fn name(&self) -> String {
        let machine = &self.owner.0.machine;
        machine.with(|runner, _| runner.runner_id().unwrap_or_default().to_owned())
    }

    /// The sessions that the runner has.
    #[doc(alias = "active_session_ids")]
    #[must_use]
    pub fn sessions(&self) -> Vec<String> {
        let machine = &self.owner.0.machine;
        machine.with(|runner, _| runner.sessions().map(str::to_owned).collect())
    }

    /// How often the runner says that it lives, and how long it counts as alive when it is silent.
    #[doc(alias = "heartbeat_interval_s")]
    #[doc(alias = "heartbeat_ttl_s")]
    #[must_use]
    pub fn rhythm(&self) -> (Duration, Duration) {
        let machine = &self.owner.0.machine;
        let rhythm = machine.with(|runner, _| runner.rhythm());
        rhythm.unwrap_or((HEARTBEAT_INTERVAL, HEARTBEAT_TTL))
    }

    /// The session of which a request to the app tells in its header.
    ///
    /// # Errors
    /// [`Error::Input`] if the request is not one of a session.
    pub fn session(&self, headers: &Headers) -> Result<RunnerSession<R>, Error> {
        let registered = &self.owner.0;
        let control = registered
            .machine
            .with(|runner, _| runner.session(headers))?;
        let (driver, config) = (registered.machine.driver(), registered.config.clone());
        Ok(RunnerSession::managed(driver, config, control))
    }

    /// Says whether the runner takes work: `ready`, or why not. The orchestrator hears it with the next heartbeat.
    ///
    /// # Errors
    /// Misuse if it is over.
    pub fn set_status(&self, status: &str) -> Result<(), Misuse> {
        let machine = &self.owner.0.machine;
        machine.with(|runner, now| runner.set_status(now, status))
    }

    /// The next event; `None` after the last one. Of many that nobody reads the oldest are dropped.
    pub async fn next(&mut self) -> Option<Event> {
        let seen = &mut self.seen;
        let next = self.owner.0.state.until(|state| {
            let event = state.events.read(seen);
            match event {
                Some(event) => Some(Some(event)),
                None => state.over.is_some().then_some(None),
            }
        });
        next.await
    }

    /// Takes the runner away, and waits until the orchestrator knows, or a few seconds.
    pub async fn close(self) {
        let registered = &self.owner.0;
        registered.machine.with(runner::Registration::close);
        let over = registered.state.until(|state| state.over.clone());
        // An entry that stays dies by itself.
        over.await.ok();
    }
}

impl<R: Runtime> Registered<R> {
    /// Takes the events until the last one, also when nobody has it any more: it is to be taken away.
    async fn pump(self: Arc<Self>) {
        while let Some(event) = self.machine.next().await {
            let over = match &event {
                Event::Ended(ending) => Some(ending.clone()),
                _ => None,
            };
            let last = over.is_some();
            self.state.change(|state| {
                state.taken |= matches!(event, Event::Registered(_));
                state.events.push(event);
                state.over = over;
            });
            if last {
                break;
            }
        }
        self.machine.close();
    }
}

/// Takes the runner away when it is dropped.
struct Owner<R: Runtime>(Arc<Registered<R>>);

impl<R: Runtime> Drop for Owner<R> {
    fn drop(&mut self) {
        self.0.machine.with(runner::Registration::close);
    }
}

impl<R: Runtime> fmt::Debug for Registration<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("name", &self.name())
            .field("sessions", &self.sessions())
            .finish_non_exhaustive()
    }
}
