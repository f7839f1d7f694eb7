//! The development network: orchestrators with self-signed certificates and a remote signer with a real key, in
//! this process and on real sockets.
//!
//! The chain is a fixed view in which everybody is funded, but its blocks go by, as the clock says, so that quotes
//! expire as they do outside. Nothing is redeemed.

use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures_lite::future;
use livepeer_core::chain::{BLOCK_TIME, ChainView};
use livepeer_core::http::Url;
use livepeer_core::money::{Amount, Price};
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::quote::QUOTE_BLOCKS;
use livepeer_core::payment::remote::{self, SignerServer};
use livepeer_core::trickle::Start;
use livepeer_core::wire::runner::Runner;
use livepeer_core::wire::signer::ListedOrchestrator;
use livepeer_core::{Address, Pipeline, Time};
use livepeer_media::{Overlay, Retimer};
use livepeer_orchestrator::{
    EndReason, Event, Figures, ModelConfig, Orchestrator, Payments, PipelineFactory,
};
use livepeer_runtime::http::{Limits, Server};
use livepeer_runtime::tls::{BadIdentity, Identity, server_config};
use livepeer_runtime::{
    Drivable, Driver, Handle, KeyHolder as _, LocalKey, MemoryStore, Runtime, seed,
};
use zeroize::Zeroizing;

use super::past::Past;
use super::{batch, programs};
use crate::args::{BatchArgs, Join, Listen, ProgramArgs, Quirk, QuirkChoice};
use crate::cmd::chain::next_block;
use crate::cmd::socket::{Socket, sleep_until};
use crate::ui::{Failed, Wei};

/// The model that returns its input.
pub(super) const NOOP: &str = "noop";
/// The model that shifts every time stamp, so that its output can be told from its input.
pub(super) const RETIME: &str = "retime";
/// The model that draws a clock into every picture, so that its output can be seen to come from it.
pub(super) const CLOCK: &str = "clock";
/// The models of live video.
pub(super) const LIVE: [&str; 3] = [NOOP, RETIME, CLOCK];
/// The shift of the time stamps, in ticks of 90 kHz: an hour.
const SHIFT: i64 = 3600 * 90_000;

/// How long running exchanges may take when the network stops.
pub(super) const STOP_WITHIN: Duration = Duration::from_secs(1);

/// How long all of it may take to stop.
pub(super) const CLOSES_WITHIN: Duration = Duration::from_secs(3);

/// Where the network listens, and whose key signs.
pub(super) struct Options {
    /// The first orchestrator; the others have the ports after it. Port 0 is any.
    pub(super) listen: Listen,
    /// The signer.
    pub(super) signer_listen: Listen,
    /// How many orchestrators.
    pub(super) orchestrators: NonZeroU8,
    /// Where they keep what must survive a crash; `None` forgets it.
    pub(super) data: Option<PathBuf>,
    /// The payer's key.
    pub(super) key: LocalKey,
    /// Work that orchestrators do, and how they do it.
    pub(super) work: Work,
    /// How single orchestrators misbehave.
    pub(super) quirks: Vec<QuirkChoice>,
    /// Orchestrators that run elsewhere, instead of such here.
    pub(super) elsewhere: Vec<Url>,
}

/// Work that an orchestrator does, and how.
#[derive(Clone, Debug)]
pub(super) struct Work {
    /// When runners begin to read.
    pub(super) join: Join,
    /// Whether nobody pays.
    pub(super) offchain: bool,
    /// How long ticket parameters last.
    pub(super) quote_life: Duration,
    /// The batch models.
    pub(super) batch: BatchArgs,
    /// The containers and apps.
    pub(super) programs: ProgramArgs,
}

impl Work {
    /// The models, as `pipeline/model`.
    fn listed(&self) -> Vec<String> {
        let live = LIVE.map(|model| (Pipeline::LiveVideoToVideo, model));
        live.into_iter()
            .chain(self.batch.models())
            .map(|(pipeline, model)| format!("{pipeline}/{model}"))
            .collect()
    }
}

/// The quirks of the orchestrator of that number.
pub(super) fn quirks_of(number: u8, all: &[QuirkChoice]) -> Vec<Quirk> {
    all.iter()
        .filter(|choice| choice.who.is_none_or(|who| who == number))
        .map(|choice| choice.quirk)
        .collect()
}

impl Options {
    /// A network of one orchestrator and a signer with a fresh key, on free ports of loopback.
    pub(super) fn private(join: Join) -> Self {
        let any = Listen((Ipv4Addr::LOCALHOST, 0).into());
        Self {
            listen: any,
            signer_listen: any,
            orchestrators: NonZeroU8::MIN,
            data: None,
            key: fresh_key(),
            work: Work {
                join,
                offchain: false,
                quote_life: BLOCK_TIME * QUOTE_BLOCKS as u32,
                batch: BatchArgs::default(),
                programs: ProgramArgs::default(),
            },
            quirks: Vec::new(),
            elsewhere: Vec::new(),
        }
    }
}

/// A key that nobody had before.
pub(super) fn fresh_key() -> LocalKey {
    LocalKey::new(&fresh_secret()).expect("it is the secret of a key")
}

/// The secret of a key that nobody had before.
pub(super) fn fresh_secret() -> Zeroizing<[u8; 32]> {
    loop {
        // All but one in 2^127 numbers are keys.
        let secret = Zeroizing::new(seed());
        if LocalKey::new(&secret).is_ok() {
            return secret;
        }
    }
}

/// Says what happens, a line at a time.
pub(super) type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// A running network. Dropping it ends it at once.
pub(super) struct Network<R: Runtime> {
    orchestrators: Vec<Node<R>>,
    signer: Owned<SignerServer, R>,
    signer_url: Url,
    signer_server: Server<R>,
    payer: Address,
    driver: Driver<R>,
    /// Closes with the network.
    running: Sender<()>,
}

/// An orchestrator of the network.
pub(super) struct Node<R: Runtime> {
    url: Url,
    handle: Owned<Orchestrator, R>,
    server: Server<R>,
    /// Closes when the machine has ended.
    ended: Receiver<()>,
}

impl<R: Runtime> Network<R> {
    /// Starts it: when this returns, everybody answers.
    ///
    /// # Errors
    /// If an address cannot be listened on. Nothing is left running then.
    pub(super) async fn start(
        driver: &Driver<R>,
        options: Options,
        tell: Tell,
    ) -> Result<Self, Failed> {
        let chain = ChainView::development_at(driver.now());
        let payer = options.key.address();
        // All sockets first: one that is taken should leave no trace of the others.
        let signer_socket =
            Socket::open(driver, options.signer_listen.0, "--signer-listen").await?;
        let mut sockets = Vec::new();
        let here = if options.elsewhere.is_empty() {
            options.orchestrators.get()
        } else {
            0
        };
        for n in 0..here {
            let at = options.listen.plus(n).ok_or_else(|| {
                Failed::usage(
                    "there are not enough ports after that of --listen",
                    "devnet",
                )
            })?;
            sockets.push(Socket::open(driver, at, "--listen").await?);
        }
        let paid = (!options.work.offchain).then_some(&chain);
        let mut orchestrators = Vec::new();
        for (n, socket) in sockets.into_iter().enumerate() {
            let name = if here > 1 {
                format!("orchestrator {n}: ")
            } else {
                String::new()
            };
            let tell = tell.clone();
            let tell = Arc::new(move |line: &str| tell(&format!("{name}{line}")));
            let url = socket.url("https")?;
            let past = match (&options.data, u8::try_from(n)) {
                (Some(folder), Ok(n)) => Past::open(folder, n, url.host(), driver.now()).await?,
                _ => Past {
                    key: fresh_key(),
                    identity: Identity::self_signed(url.host(), driver.now())
                        .map_err(bad_identity)?,
                    books: None,
                },
            };
            let node = Node::start(driver, socket, past, paid, &options.work, tell)?;
            let number = u8::try_from(n).unwrap_or(u8::MAX);
            node.misbehave(&quirks_of(number, &options.quirks));
            orchestrators.push(node);
        }
        let config = remote::Config {
            discovery: true,
            ..remote::Config::new(Policy::new(payer))
        };
        let mut machine = SignerServer::new(driver.now(), config, chain.clone(), seed());
        machine.set_listed(
            driver.now(),
            orchestrators
                .iter()
                .map(|node| (&node.url, node.runners()))
                .chain(options.elsewhere.iter().map(|url| (url, Vec::new())))
                .map(|(url, runners)| ListedOrchestrator {
                    address: url.to_string(),
                    capabilities: options.work.listed(),
                    runners,
                })
                .collect(),
        );
        let signer = driver
            .clone()
            .with_key(options.key)
            .with_store(MemoryStore::default())
            .drive(machine);
        let signer_url = signer_socket.url("http")?;
        let signer_server = signer_socket.serve(&signer, None, Limits::default())?;
        let (running, ended) = async_channel::bounded(1);
        let network = Self {
            orchestrators,
            signer: Owned(signer),
            signer_url,
            signer_server,
            payer,
            driver: driver.clone(),
            running,
        };
        network.keep_going(ended);
        Ok(network)
    }

    /// The addresses of the orchestrators.
    pub(super) fn orchestrators(&self) -> impl Iterator<Item = &Url> {
        self.orchestrators.iter().map(|node| &node.url)
    }

    /// The address of the signer.
    pub(super) const fn signer(&self) -> &Url {
        &self.signer_url
    }

    /// The account whose money is spent.
    pub(super) const fn payer(&self) -> Address {
        self.payer
    }

    /// The figures of all orchestrators together.
    pub(super) fn figures(&self) -> Figures {
        self.orchestrators
            .iter()
            .map(|node| node.handle.with(|machine, _| machine.figures()))
            .sum()
    }

    /// The payer's balance for a job, if any orchestrator knows it.
    pub(super) fn balance(&self, manifest_id: &str) -> Option<Amount> {
        self.orchestrators.iter().find_map(|node| {
            node.handle
                .with(|machine, _| machine.balance(self.payer, manifest_id).cloned())
        })
    }

    /// Ends all sessions, answers who still asks, and closes the sockets.
    pub(super) async fn stop(self) {
        let deadline = self.driver.now() + STOP_WITHIN;
        let Self {
            orchestrators,
            signer_server,
            driver,
            running,
            ..
        } = self;
        for node in &orchestrators {
            node.handle.with(Orchestrator::close);
        }
        for node in orchestrators {
            node.stop(&driver, deadline).await;
        }
        signer_server.shutdown(deadline).await;
        drop(running);
    }

    /// Lets blocks go by, and takes the signer's events, which nobody wants.
    fn keep_going(&self, ended: Receiver<()>) {
        let signer = self.signer.0.clone();
        self.driver
            .runtime()
            .spawn(async move { while signer.next().await.is_some() {} });
        let handles: Vec<_> = self
            .orchestrators
            .iter()
            .map(|node| node.handle.0.clone())
            .collect();
        let (driver, signer) = (self.driver.clone(), self.signer.0.clone());
        self.driver.runtime().spawn(async move {
            while !ended.is_closed() {
                let chain = next_block(&driver).await;
                for handle in &handles {
                    handle.with(|machine, now| machine.set_chain(now, chain.clone()));
                }
                signer.with(|machine, now| machine.set_chain(now, chain.clone()));
            }
        });
    }
}

impl<R: Runtime> Node<R> {
    /// Starts an orchestrator behind a socket. Without a chain nobody pays it.
    ///
    /// # Errors
    /// If the certificate or the socket cannot be used.
    pub(super) fn start(
        driver: &Driver<R>,
        socket: Socket<R>,
        past: Past,
        chain: Option<&ChainView>,
        work: &Work,
        tell: Tell,
    ) -> Result<Self, Failed> {
        let Past {
            key,
            identity,
            books,
        } = past;
        let url = socket.url("https")?;
        let tls = server_config(&identity).map_err(bad_identity)?;
        let mut config = livepeer_orchestrator::Config::new(url.clone(), key.address())
            .with_model(NOOP, ModelConfig::default())
            .with_model(
                RETIME,
                ModelConfig::default().running(PipelineFactory::new(Retime::default)),
            )
            .with_model(
                CLOCK,
                ModelConfig::default().running(PipelineFactory::new(Clock::default)),
            );
        config = batch::with_models(config, &work.batch);
        config = programs::with_programs(config, &work.programs, &work.batch);
        config.join = match work.join {
            Join::Late => livepeer_orchestrator::Join::late(),
            Join::Next => livepeer_orchestrator::Join {
                from: Start::Next,
                ..livepeer_orchestrator::Join::late()
            },
            Join::AtOnce => livepeer_orchestrator::Join::default(),
        };
        if let Some(chain) = chain {
            let price = Price::new(batch::LIVE_PRICE, 1).expect("a positive number is a price");
            let blocks = work.quote_life.as_secs() / BLOCK_TIME.as_secs();
            config = config.on_chain(Payments {
                quote_blocks: blocks.max(1),
                ..Payments::new(key.address(), price, chain.clone())
            });
        }
        let driver = driver.clone().with_key(key);
        let (driver, records) = match books {
            None => (driver.with_store(MemoryStore::default()), Vec::new()),
            Some(books) => {
                config.secret = Some(books.secret);
                (driver.with_store(books.store), books.records)
            }
        };
        let mut machine = Orchestrator::new(driver.now(), config, seed());
        for record in &records {
            machine.restore(record);
        }
        let handle = driver.drive(machine);
        let server = socket.serve(&handle, Some(tls), Limits::default())?;
        let (running, ended) = async_channel::bounded(1);
        let events = handle.clone();
        driver.runtime().spawn(async move {
            let _running: async_channel::Sender<()> = running;
            while let Some(event) = events.next().await {
                if let Some(line) = line(&event) {
                    tell(&line);
                }
                if matches!(event, Event::Closed) {
                    return;
                }
            }
        });
        Ok(Self {
            url,
            handle: Owned(handle),
            server,
            ended,
        })
    }

    /// The address of the orchestrator.
    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    /// The runners of the orchestrator.
    fn runners(&self) -> Vec<Runner> {
        self.handle.with(|machine, now| machine.runners(now))
    }

    /// Misbehaves in these ways from now on.
    pub(super) fn misbehave(&self, quirks: &[Quirk]) {
        let quirks = batch::quirks(quirks);
        self.handle
            .with(|machine, now| machine.set_quirks(now, quirks));
    }

    /// A block went by.
    pub(super) fn set_chain(&self, chain: ChainView) {
        self.handle
            .with(|machine, now| machine.set_chain(now, chain));
    }

    /// Ends its sessions, answers who still asks, and closes the socket.
    pub(super) async fn stop(self, driver: &Driver<R>, deadline: Time) {
        self.handle.with(Orchestrator::close);
        // Nothing is ever sent: it ends when the other half is dropped.
        let ended = async {
            let _ = self.ended.recv().await;
        };
        future::or(ended, sleep_until(driver, deadline)).await;
        self.server.shutdown(deadline).await;
    }
}

/// Certificates made here are good, unless the host of `--listen` is strange.
pub(super) fn bad_identity(error: BadIdentity) -> Failed {
    Failed::new(format_args!("no certificate: {error}"), "Report it")
}

/// A machine that ends when this is dropped, whoever else holds on to it.
struct Owned<M: Drivable, R: Runtime>(Handle<M, R>);

impl<M: Drivable, R: Runtime> Deref for Owned<M, R> {
    type Target = Handle<M, R>;

    fn deref(&self) -> &Handle<M, R> {
        &self.0
    }
}

impl<M: Drivable, R: Runtime> Drop for Owned<M, R> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The line to show for an event, if it is worth one.
fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::SessionStarted {
            manifest_id, model, ..
        } => format!("session {manifest_id} runs {model}"),
        Event::SessionEnded { manifest_id, why } => match why {
            EndReason::InputClosed => format!("session {manifest_id} ended: its input is over"),
            EndReason::Idle => format!("session {manifest_id} ended: nothing came in any more"),
            EndReason::Unpaid(text) => format!("session {manifest_id} cut off: {text}"),
            EndReason::OutputClosed => {
                format!("session {manifest_id} ended: its output was deleted")
            }
            _ => format!("session {manifest_id} ended"),
        },
        Event::Credited {
            manifest_id,
            tickets,
            value,
            balance,
            ..
        } => {
            let s = if *tickets == 1 { "" } else { "s" };
            format!(
                "{manifest_id} paid {tickets} ticket{s} worth {}, {} on account",
                Wei(value),
                Wei(balance)
            )
        }
        Event::Worked {
            pipeline,
            model,
            units,
            fee,
            balance,
            ..
        } => {
            let paid = balance.as_ref().map_or_else(String::new, |balance| {
                format!(" for {}, {} left on account", Wei(fee), Wei(balance))
            });
            let unit = pipeline.work_unit();
            format!("{pipeline}: {units} {unit}s of {model}{paid}")
        }
        Event::HandedOn { to, path, .. } => format!("{to} is asked for {path:?}"),
        Event::Billed {
            to,
            fee,
            balance: Some(balance),
            ..
        } => format!("{to} for {}, {} left on account", Wei(fee), Wei(balance)),
        Event::Rented {
            runner, session, ..
        } => format!("{runner} is rented as {session}"),
        Event::Released { runner, session } => format!("{runner} is free of {session}"),
        Event::StreamStarted {
            container, stream, ..
        } => format!("{container} has the stream {stream}"),
        Event::StreamEnded { container, stream } => {
            format!("{container}: the stream {stream} is over")
        }
        Event::Registered(runner) => format!("the runner {runner} registered"),
        Event::Rejected { status, text, .. } => format!("refused with status {status}: {text}"),
        Event::Won { payer, face_value } => {
            format!("a ticket of {payer} won {}", Wei(&Amount::from(face_value)))
        }
        _ => return None,
    })
}

/// The pipeline of [`RETIME`].
struct Retime(Retimer);

impl Default for Retime {
    fn default() -> Self {
        Self(Retimer::new(SHIFT))
    }
}

impl livepeer_orchestrator::Pipeline for Retime {
    fn data(&mut self, bytes: &Bytes) -> Bytes {
        self.0.push(bytes)
    }

    fn end(&mut self) -> Bytes {
        self.0.finish()
    }
}

/// The pipeline of [`CLOCK`].
#[derive(Default)]
struct Clock(Overlay);

impl livepeer_orchestrator::Pipeline for Clock {
    fn data(&mut self, bytes: &Bytes) -> Bytes {
        self.0.push(bytes)
    }

    fn end(&mut self) -> Bytes {
        self.0.finish()
    }
}
