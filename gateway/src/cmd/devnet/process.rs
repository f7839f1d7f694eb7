//! An orchestrator of the development network in a process of its own: both ends of it.
//!
//! The child gets its secrets on standard input and says on standard output where it is reached. Each further line of
//! standard input names the quirks that it has from then on, and it ends when standard input does, so that it never
//! outlives the network. What it tells goes to standard error, and through the
//! parent to its own.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::future;
use livepeer_core::chain::ChainView;
use livepeer_core::http::Url;
use livepeer_runtime::tls::Identity;
use livepeer_runtime::{Driver, LocalKey, Runtime};
use zeroize::Zeroizing;

use super::network::{
    CLOSES_WITHIN, Node, STOP_WITHIN, Tell, Work, bad_identity, fresh_secret, quirks_of,
};
use super::past::Past;
use crate::args::{DevnetOrchestratorArgs, Listen, Quirk, QuirkChoice};
use crate::cmd::chain::next_block;
use crate::cmd::on;
use crate::cmd::socket::Socket;
use crate::cmd::stop::Stop;
use crate::ui::{self, Failed, Outcome};

/// How long a process that is asked to end is waited for.
pub(super) const ENDS_WITHIN: Duration = CLOSES_WITHIN;

/// The end of the secrets.
const END: &str = ".";

/// Secrets that make an orchestrator the same after a restart: the secret key of its account, and certificate and key.
struct Secrets {
    key: Zeroizing<String>,
    pem: Zeroizing<String>,
}

pub(crate) fn run(args: &DevnetOrchestratorArgs) -> Outcome {
    on::run(args.runtime, Orchestrator(args))
}

struct Orchestrator<'a>(&'a DevnetOrchestratorArgs);

impl on::Work for Orchestrator<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let secrets = Secrets::read()
            .map_err(|error| Failed::file("cannot read", "standard input", &error))?;
        let key = LocalKey::from_hex(&secrets.key).map_err(|_| {
            Failed::new("the first line is no secret key", "Use devnet --processes")
        })?;
        let pem = secrets.pem.as_bytes();
        let identity = Identity::from_pem(pem, pem).map_err(bad_identity)?;
        let chain = ChainView::development_at(driver.now());
        let socket = Socket::open(&driver, args.listen.0, "--listen").await?;
        let tell: Tell = Arc::new(ui::tell);
        stop.in_order(CLOSES_WITHIN);
        let paid = (!args.offchain).then_some(&chain);
        let past = Past {
            key,
            identity,
            books: None,
        };
        let work = Work {
            join: args.join,
            offchain: args.offchain,
            quote_life: args.quote_life,
            batch: args.batch.clone(),
            programs: args.programs.clone(),
        };
        let node = Node::start(&driver, socket, past, paid, &work, tell)?;
        node.misbehave(&args.quirk);
        ui::print(&node.url().to_string())?;
        let (parent, told) = async_channel::unbounded::<Vec<Quirk>>();
        thread::spawn(move || {
            // The channel closes with standard input.
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                let quirks = line.split_whitespace().map_while(|name| name.parse().ok());
                if parent.send_blocking(quirks.collect()).is_err() {
                    return;
                }
            }
        });
        let orphaned = async {
            while let Ok(quirks) = told.recv().await {
                node.misbehave(&quirks);
            }
        };
        let blocks = async {
            loop {
                node.set_chain(next_block(&driver).await);
            }
        };
        future::or(future::or(stop.pressed(), orphaned), blocks).await;
        node.stop(&driver, driver.now() + STOP_WITHIN).await;
        Ok(())
    }
}

impl Secrets {
    fn fresh(host: &str, now: livepeer_core::Time) -> Result<Self, Failed> {
        Ok(Self {
            key: Zeroizing::new(hex::encode(fresh_secret().as_slice())),
            pem: Zeroizing::new(Identity::self_signed_pem(host, now).map_err(bad_identity)?),
        })
    }

    fn read() -> io::Result<Self> {
        let mut lines = io::stdin().lock().lines();
        let key = lines.next().transpose()?.unwrap_or_default();
        let mut pem = Zeroizing::new(String::new());
        for line in lines {
            let line = line?;
            if line == END {
                break;
            }
            pem.push_str(&line);
            pem.push('\n');
        }
        Ok(Self {
            key: Zeroizing::new(key),
            pem,
        })
    }

    fn write(&self, to: &mut impl io::Write) -> io::Result<()> {
        writeln!(to, "{}\n{}\n{END}", *self.key, self.pem.trim_end())?;
        to.flush()
    }
}

/// Settings that all processes of a network have in common.
#[derive(Clone)]
pub(super) struct Kind {
    pub(super) runtime: crate::args::Runtime,
    pub(super) work: Work,
}

/// An orchestrator in a process. Dropping it kills the process.
pub(super) struct Process {
    name: String,
    secrets: Secrets,
    at: SocketAddr,
    kind: Kind,
    quirks: Vec<Quirk>,
    tell: Tell,
    running: Option<(Child, ChildStdin)>,
    url: Option<Url>,
}

impl Process {
    /// Starts it: when this returns, it answers.
    ///
    /// # Errors
    /// If no process can be started, or the address cannot be listened on.
    pub(super) fn start(
        name: String,
        at: SocketAddr,
        kind: Kind,
        quirks: Vec<Quirk>,
        now: livepeer_core::Time,
        tell: Tell,
    ) -> Result<Self, Failed> {
        let mut this = Self {
            secrets: Secrets::fresh(&at.ip().to_string(), now)?,
            name,
            at,
            kind,
            quirks,
            tell,
            running: None,
            url: None,
        };
        this.restart()?;
        Ok(this)
    }

    /// The address of the orchestrator.
    pub(super) fn url(&self) -> &Url {
        self.url.as_ref().expect("it has been started")
    }

    /// The number of the process; `None` while it is dead.
    pub(super) fn id(&self) -> Option<u32> {
        self.running.as_ref().map(|(child, _)| child.id())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Misbehaves in these ways from now on. Without effect on one that is dead.
    pub(super) fn misbehave(&mut self, quirks: &[Quirk]) {
        let names: Vec<_> = quirks.iter().map(|quirk| quirk.name()).collect();
        if let Some((_, stdin)) = &mut self.running {
            // A child that cannot be written to is about to be buried.
            let _ = writeln!(stdin, "{}", names.join(" "));
        }
    }

    /// Misbehaves as it did when it was started.
    pub(super) fn behave(&mut self) {
        let quirks = self.quirks.clone();
        self.misbehave(&quirks);
    }

    /// Ends it as a power cut would.
    pub(super) fn kill(&mut self) {
        if let Some((child, _stdin)) = self.running.take() {
            bury(child);
        }
    }

    /// Asks it to end.
    pub(super) fn ask_to_end(&mut self) {
        if let Some((mut child, stdin)) = self.running.take() {
            drop(stdin);
            let until = Instant::now() + ENDS_WITHIN;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
                thread::sleep(Duration::from_millis(5));
            }
            bury(child);
        }
    }

    /// Starts it again, at the same address and with the same secrets.
    ///
    /// # Errors
    /// If no process can be started, or the address is taken meanwhile.
    pub(super) fn restart(&mut self) -> Result<(), Failed> {
        self.kill();
        let failed = |error: &io::Error| {
            Failed::new(
                format_args!("{}: no process: {error}", self.name),
                "Raise the limits of processes and open files",
            )
        };
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut child = Command::new(program)
            .arg("devnet-orchestrator")
            .args(["--listen", &self.at.to_string()])
            .args(["--runtime", self.kind.runtime.name()])
            .args(["--join", self.kind.work.join.name()])
            .args(self.kind.work.offchain.then_some("--offchain"))
            .arg(format!(
                "--quote-life={}s",
                self.kind.work.quote_life.as_secs().max(1)
            ))
            .args(self.kind.work.batch.to_words())
            .args(self.kind.work.programs.to_words())
            .args(
                self.quirks
                    .iter()
                    .flat_map(|quirk| ["--quirk", quirk.name()]),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&error))?;
        let mut stdin = child.stdin.take().expect("it is piped");
        let told = self.secrets.write(&mut stdin);
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        let said = told.and_then(|()| BufReader::new(stdout).read_line(&mut line));
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (name, tell) = (self.name.clone(), self.tell.clone());
        let url = said.ok().and_then(|_| Url::parse(line.trim()).ok());
        let Some(url) = url else {
            let why = stderr.lines().map_while(Result::ok).last();
            let why = why.unwrap_or_else(|| "it ended at once".to_owned());
            bury(child);
            return Err(Failed::new(
                format_args!("{}: {}", self.name, why.trim_start_matches("error: ")),
                "Choose other ports with --listen",
            ));
        };
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                tell(&format!("{name}: {line}"));
            }
        });
        // Where it was first, it will be again.
        self.at.set_port(url.port());
        self.url = Some(url);
        self.running = Some((child, stdin));
        Ok(())
    }
}

/// Makes sure that a process is dead; one that has ended by itself is as dead.
fn bury(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts as many processes, at addresses that follow on each other.
///
/// # Errors
/// If one cannot be started. None is left running then.
pub(super) fn start_all(
    listen: Listen,
    count: u8,
    kind: &Kind,
    quirks: &[QuirkChoice],
    now: livepeer_core::Time,
    tell: &Tell,
) -> Result<Vec<Process>, Failed> {
    (0..count)
        .map(|n| {
            let at = listen.plus(n).ok_or_else(|| {
                Failed::usage(
                    "there are not enough ports after that of --listen",
                    "devnet",
                )
            })?;
            let name = format!("orchestrator {n}");
            let quirks = quirks_of(n, quirks);
            Process::start(name, at, kind.clone(), quirks, now, tell.clone())
        })
        .collect()
}
