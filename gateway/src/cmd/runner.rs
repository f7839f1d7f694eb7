//! `runner`: an app of ours that an orchestrator rents out.

use std::time::Duration;

use futures_lite::future;
use livepeer_core::http::Trust;
use livepeer_runtime::api::{Error, Registration, RegistrationConfig, RegistrationEvent};
use livepeer_runtime::{Driver, Runtime};

use super::on;
use super::stop::Stop;
use crate::args::RunnerArgs;
use crate::ui::{self, Failed, Outcome};

/// How long it may take to leave.
const CLOSES_WITHIN: Duration = Duration::from_secs(8);

pub(super) fn run(args: &RunnerArgs) -> Outcome {
    on::run(args.runtime, Host(args))
}

struct Host<'a>(&'a RunnerArgs);

impl on::Work for Host<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let text = super::key::read(&args.secret_file)?;
        let secret = text.lines().next().unwrap_or_default().trim();
        let config = RegistrationConfig {
            trust: match args.ca_trust {
                true => Trust::Public,
                false => Trust::FirstUse,
            },
        };
        let orchestrator = args.orchestrator.clone();
        let runner = Registration::begin(&driver, config, orchestrator, secret, args.heartbeat());
        let mut runner = runner.await.map_err(Failed::from)?;
        stop.in_order(CLOSES_WITHIN);
        ui::print(&runner.name())?;
        let over = future::or(tell(&mut runner), async {
            stop.pressed().await;
            Ok(())
        });
        over.await?;
        runner.close().await;
        ui::tell("stopped");
        Ok(())
    }
}

/// Tells what happens, until nothing more does.
async fn tell<R: Runtime>(runner: &mut Registration<R>) -> Outcome {
    while let Some(event) = runner.next().await {
        match event {
            RegistrationEvent::Registered(name) => ui::tell(&format!("registered as {name}")),
            RegistrationEvent::Reserved(session) => ui::tell(&format!("session {session} began")),
            RegistrationEvent::Released(session) => ui::tell(&format!("session {session} is over")),
            RegistrationEvent::Failed(failure) => {
                ui::tell(&format!("{failure}; the next heartbeat follows"));
            }
            RegistrationEvent::Ended(Err(failure)) => return Err(Error::from(failure).into()),
            _ => {}
        }
    }
    Ok(())
}
