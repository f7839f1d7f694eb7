//! The command that serves an app: started, waited for until it listens, and ended.

use std::io;
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use livepeer_core::http::Url;
use livepeer_runtime::{Driver, Runtime};

#[cfg(unix)]
use super::guard::Guard;
use crate::cmd::socket::sleep_until;
use crate::ui::{self, Failed, Outcome};

/// How long it may take until the command listens: some load models for minutes first.
const LISTENS_WITHIN: Duration = Duration::from_secs(600);
/// How long the command may take to end when it is asked to. Then it is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// How often the command is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The place in the arguments for the port.
const PLACE: &str = "{port}";

/// A command that runs. Dropping this kills it, with all that it started, and so does the end of this program.
pub(super) struct Program {
    child: Child,
    /// Set once it has ended.
    ended: Option<ExitStatus>,
    name: String,
    /// Dropped after all others are gone.
    #[cfg(unix)]
    _guard: Guard,
}

/// The address of an app that a command is to serve: a free port of this machine.
pub(super) fn free_place() -> Result<Url, Failed> {
    let at = TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr());
    let at = at.map_err(|error| {
        Failed::new(
            format_args!("cannot find a free port: {error}"),
            "Name an address with --url",
        )
    })?;
    Ok(Url::parse(&format!("http://{at}")).expect("the address of a socket makes a URL"))
}

impl Program {
    /// Starts the command. The port of the app's address stands in its environment as `PORT`, and where its arguments say
    /// `{port}`; `LIVEPEER_ORCHESTRATOR` is who rents it out. It writes to standard error: standard output is ours.
    pub(super) fn start(words: &[String], app: &Url, orchestrator: &Url) -> Result<Self, Failed> {
        let port = app.port().to_string();
        let mut words = words.iter().map(|word| word.replace(PLACE, &port));
        let name = words.next().unwrap_or_default();
        let mut command = Command::new(&name);
        command
            .args(words)
            .env("PORT", &port)
            .env("LIVEPEER_ORCHESTRATOR", orchestrator.to_string())
            .stdin(Stdio::null())
            .stdout(io::stderr());
        // Ctrl-C in the terminal is for us: the app is taken from its orchestrator before the command ends.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        #[cfg(unix)]
        let mut guard = Guard::start()?;
        let child = command.spawn().map_err(|error| {
            let remedy = match error.kind() {
                io::ErrorKind::NotFound => "Check its name, and that it is on the path",
                io::ErrorKind::PermissionDenied => "Check that it may be run",
                _ => "Check that it runs by itself",
            };
            Failed::new(format_args!("cannot start {name}: {error}"), remedy)
        })?;
        #[cfg(unix)]
        guard.watch(group_of(&child));
        Ok(Self {
            child,
            ended: None,
            name,
            #[cfg(unix)]
            _guard: guard,
        })
    }

    /// Waits until the command listens at the app's address.
    pub(super) async fn listens<R: Runtime>(&mut self, driver: &Driver<R>, app: &Url) -> Outcome {
        let late = driver.now() + LISTENS_WITHIN;
        loop {
            if let Some(status) = self.status()? {
                return Err(self.died(status));
            }
            if answers(driver, app).await {
                return Ok(());
            }
            if driver.now() >= late {
                let name = &self.name;
                return Err(Failed::new(
                    format_args!(
                        "{name} does not listen at {app} after {}",
                        ui::duration(LISTENS_WITHIN)
                    ),
                    "Have it listen at the port that PORT in its environment says, or {port} in its arguments",
                ));
            }
            sleep_until(driver, driver.now() + LOOK).await;
        }
    }

    /// Waits until the command ends, which it should not.
    pub(super) async fn dies<R: Runtime>(&mut self, driver: &Driver<R>) -> Failed {
        loop {
            match self.status() {
                Ok(Some(status)) => return self.died(status),
                Ok(None) => sleep_until(driver, driver.now() + LOOK).await,
                Err(failed) => return failed,
            }
        }
    }

    /// Ends the command: asks it to, and kills it if it does not.
    pub(super) async fn end<R: Runtime>(mut self, driver: &Driver<R>) {
        let late = driver.now() + ENDS_WITHIN;
        self.ask();
        while self.is_left() && driver.now() < late {
            sleep_until(driver, driver.now() + LOOK).await;
        }
    }

    /// Whether the command still runs, or something that it started.
    fn is_left(&mut self) -> bool {
        if matches!(self.status(), Ok(None)) {
            return true;
        }
        #[cfg(unix)]
        return self
            .group()
            .is_some_and(|group| rustix::process::test_kill_process_group(group).is_ok());
        #[cfg(not(unix))]
        false
    }

    /// Whether it has ended, and how.
    fn status(&mut self) -> Result<Option<ExitStatus>, Failed> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().map_err(|error| {
                Failed::new(
                    format_args!("cannot tell whether {} runs: {error}", self.name),
                    "Start it again",
                )
            })?;
        }
        Ok(self.ended)
    }

    fn died(&self, status: ExitStatus) -> Failed {
        Failed::new(
            format_args!("{} ended with {status}", self.name),
            "See what it said, and start it again",
        )
    }

    /// Asks the command and all that it started to end.
    #[cfg(unix)]
    fn ask(&mut self) {
        self.signal(rustix::process::Signal::TERM);
    }

    #[cfg(not(unix))]
    fn ask(&mut self) {
        // Nothing gentler is known there. If it has ended there is nothing to be done.
        let _ = self.child.kill();
    }

    #[cfg(unix)]
    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(group) = self.group() {
            // A group that has ended takes no signal.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }

    /// The group of the command and of all that it started.
    #[cfg(unix)]
    fn group(&self) -> Option<rustix::process::Pid> {
        group_of(&self.child)
    }
}

/// The group of a child that begins one.
#[cfg(unix)]
fn group_of(child: &Child) -> Option<rustix::process::Pid> {
    let id = i32::try_from(child.id()).ok();
    id.and_then(rustix::process::Pid::from_raw)
}

impl Drop for Program {
    fn drop(&mut self) {
        // A command may have ended and left something behind that it started.
        #[cfg(unix)]
        self.signal(rustix::process::Signal::KILL);
        #[cfg(not(unix))]
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether somebody takes connections at that address.
pub(super) async fn answers<R: Runtime>(driver: &Driver<R>, at: &Url) -> bool {
    let runtime = driver.runtime();
    let Ok(places) = runtime.resolve(at.host(), at.port()).await else {
        return false;
    };
    for place in places {
        if runtime.connect(place).await.is_ok() {
            return true;
        }
    }
    false
}
