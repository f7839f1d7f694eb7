//! `runner`: an app of ours that an orchestrator rents out.

mod gpu;
#[cfg(unix)]
pub(super) mod guard;
mod program;

use std::time::Duration;

use futures_lite::future;
use livepeer_core::http::{Trust, Url};
use livepeer_core::wire::app::registration::Heartbeat;
use livepeer_runtime::api::{Error, Registration, RegistrationConfig, RegistrationEvent};
use livepeer_runtime::{Driver, Runtime};

use self::program::Program;
use super::on;
use super::stop::Stop;
use crate::args::RunnerArgs;
use crate::ui::{self, Failed, Outcome};

/// How long it may take to leave, and to end the command.
const CLOSES_WITHIN: Duration = Duration::from_secs(12);

pub(super) fn run(args: &RunnerArgs) -> Outcome {
    on::run(args.runtime, Host(args))
}

struct Host<'a>(&'a RunnerArgs);

impl on::Work for Host<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let text = super::key::read(&args.secret_file)?;
        let secret = text.lines().next().unwrap_or_default().trim();
        let url = match args.url() {
            Some(url) => url,
            None => program::free_place()?,
        };
        if args.command.is_empty() {
            return self.host(&driver, &stop, url, secret, None).await;
        }
        if program::answers(&driver, &url).await {
            return Err(Failed::new(
                format_args!("something listens at {url} already"),
                "End it, name another address with --url, or leave the command away to host what is there",
            ));
        }
        stop.in_order(CLOSES_WITHIN);
        let mut program = Program::start(&args.command, &url, &args.orchestrator)?;
        ui::tell(&format!("waiting until the command listens at {url}"));
        let listens = program.listens(&driver, &url);
        let outcome = match future::or(listens, interrupted(&stop)).await {
            Ok(()) => {
                let program = Some(&mut program);
                self.host(&driver, &stop, url, secret, program).await
            }
            failed => failed,
        };
        program.end(&driver).await;
        outcome
    }
}

impl Host<'_> {
    /// Has the app at that address rented out until Ctrl-C, or until the program that serves it ends.
    async fn host<R: Runtime>(
        &self,
        driver: &Driver<R>,
        stop: &Stop,
        url: Url,
        secret: &str,
        program: Option<&mut Program>,
    ) -> Outcome {
        let args = self.0;
        let config = RegistrationConfig {
            trust: match args.ca_trust {
                true => Trust::Public,
                false => Trust::FirstUse,
            },
        };
        let orchestrator = args.orchestrator.clone();
        let gpu = match args.gpu() {
            Some(named) => named,
            None => gpu::found(driver).await,
        };
        let beat = Heartbeat {
            gpu,
            ..args.heartbeat(url.to_string())
        };
        let begun = Registration::begin(driver, config, orchestrator, secret, beat);
        let begun = async { begun.await.map_err(Failed::from) };
        let mut runner = future::or(begun, interrupted(stop)).await?;
        stop.in_order(CLOSES_WITHIN);
        ui::print(&runner.name())?;
        let pressed = async {
            stop.pressed().await;
            Ok(())
        };
        let dies = async {
            match program {
                Some(program) => Err(program.dies(driver).await),
                None => future::pending().await,
            }
        };
        let outcome = future::or(pressed, future::or(tell(&mut runner), dies)).await;
        // Whatever the reason is: nobody should find the app there any more.
        runner.close().await;
        outcome?;
        ui::tell("stopped");
        Ok(())
    }
}

async fn interrupted<T>(stop: &Stop) -> Result<T, Failed> {
    stop.pressed().await;
    Err(Failed::interrupted())
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
