//! The command line: options, their help, and their validation. What passes here can be meant; whether it works
//! is for the commands to find out.

mod devnet;
mod endpoints;
mod find;
mod hire;
mod live;
mod pay;
mod run;
mod runner;
mod serve;
mod signer;
mod trickle;
pub(crate) mod values;

use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Styles;
use clap::{Args, Parser, Subcommand, ValueEnum};
use livepeer_core::http::Url;
use livepeer_core::money::Price;
use livepeer_core::wire::{DEFAULT_MODEL, Params};
use livepeer_media::Speed;
use livepeer_runtime::ingest::machines::rtmp::push::Target;

use crate::ui::Failed;

pub(crate) use devnet::{AppChoice, BatchArgs, ProgramArgs, Quirk, QuirkChoice};
pub(crate) use endpoints::{Endpoints, Signer};
pub(crate) use find::{DiscoverArgs, FindArgs, SelectArgs};
pub(crate) use hire::{
    AppArgs, AppCallArgs, AppCommand, AppListArgs, AppSessionArgs, BodyArgs, ByocArgs, ByocCommand,
    ByocRunArgs, ByocStreamArgs, CallArgs, HireArgs,
};
pub(crate) use live::{DOOR, Source};
pub(crate) use pay::PayArgs;
pub(crate) use run::RunArgs;
pub(crate) use runner::RunnerArgs;
pub(crate) use serve::{Flag, FrontArgs};
pub(crate) use signer::{ChainArgs, KeyArgs, ListingArgs, SignerArgs};
pub(crate) use trickle::{Cut, PubArgs, ServeArgs, SubArgs, TrickleArgs, TrickleCommand};
use values::Secret;
pub(crate) use values::{Listen, Place};

/// A small, fast Livepeer gateway.
///
/// Without a command it runs the demonstration: an orchestrator and a signer of its own on loopback, and one paid
/// live video job through them.
#[derive(Debug, Parser)]
#[command(
    name = "livepeer-gateway",
    version,
    styles = Styles::plain(),
    subcommand_negates_reqs = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// Level of the log on stderr: error, warn, info, debug, trace, off, or a filter such as livepeer_core=trace,warn;
    /// warn if nothing is said.
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "LIVEPEER_LOG",
        help_heading = "Logging"
    )]
    log: Option<String>,

    #[command(subcommand)]
    command: Option<Command>,
}

impl Cli {
    /// The level of the log.
    pub(crate) fn log_level(&self) -> &str {
        self.log.as_deref().unwrap_or("warn")
    }

    /// The command to run.
    pub(crate) fn command(self) -> Command {
        match self.command {
            // A level that is said goes over that of the configuration.
            Some(Command::Serve(mut args)) => {
                args.log = self.log;
                Command::Serve(args)
            }
            Some(command) => command,
            None => Command::Demo(DemoArgs::default()),
        }
    }
}

/// The command to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one paid live video job against a network inside this process, and check it byte for byte.
    Demo(DemoArgs),
    /// Run that network as a service: orchestrators and a remote signer, with real keys, tickets and metering.
    Devnet(DevnetArgs),
    /// Run a remote signer: it holds the key of the account that pays, and makes payments for gateways that have none.
    Signer(Box<SignerArgs>),
    #[command(hide = true)]
    DevnetOrchestrator(DevnetOrchestratorArgs),
    /// Send an MPEG-TS stream through a live video job and write what comes back.
    Live(Box<LiveArgs>),
    /// Do one batch job: draw, transcribe, describe, speak, or ask a language model.
    Run(Box<RunArgs>),
    /// Do a job in a container that operators brought.
    Byoc(ByocArgs),
    /// Use an app that orchestrators rent out: list its runners, call it, or hold a session with it.
    App(AppArgs),
    /// Have an orchestrator rent out an app of yours, until Ctrl-C.
    Runner(Box<RunnerArgs>),
    #[cfg(unix)]
    #[command(hide = true)]
    RunnerGuard,
    /// Serve Livepeer's batch routes and those of OpenAI to applications, and have orchestrators do the work.
    Serve(Box<FrontArgs>),
    /// Ask an orchestrator for its capabilities, models, price and ticket parameters.
    Info(InfoArgs),
    /// Look for orchestrators and ask each for models, price and version; say why others are of no use.
    Discover(Box<DiscoverArgs>),
    /// Choose one orchestrator as jobs do; with --explain, show how likely each is and why.
    Select(Box<SelectArgs>),
    /// Serve, publish or read trickle channels.
    Trickle(Box<TrickleArgs>),
}

impl Command {
    /// Whether the result goes to standard output as JSON.
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            Self::Demo(args) => args.json,
            Self::Live(args) => args.json,
            Self::Run(args) => args.json,
            Self::Byoc(args) => args.wants_json(),
            Self::App(args) => args.wants_json(),
            Self::Info(args) => args.json,
            Self::Discover(args) => args.find.json,
            Self::Select(args) => args.find.json,
            Self::Trickle(args) => match &args.command {
                TrickleCommand::Pub(args) => args.json,
                TrickleCommand::Sub(args) => args.json,
                TrickleCommand::Serve(_) => false,
            },
            Self::Devnet(_)
            | Self::Signer(_)
            | Self::Serve(_)
            | Self::Runner(_)
            | Self::DevnetOrchestrator(_) => false,
            #[cfg(unix)]
            Self::RunnerGuard => false,
        }
    }
}

/// The executor that drives the job. The protocol is the same code on both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// The tokio runtime.
    #[default]
    Tokio,
    /// The smol runtime.
    Smol,
}

impl Runtime {
    /// The name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tokio => "tokio",
            Self::Smol => "smol",
        }
    }
}

/// When and where runners of the development network begin to read their input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Join {
    /// Up to half a second after the start, with the open segment, as real runners do.
    #[default]
    Late,
    /// As late, with the next segment, as older runners do.
    Next,
    /// At the start, so that nothing can be missed.
    AtOnce,
}

impl Join {
    /// The name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Next => "next",
            Self::AtOnce => "at-once",
        }
    }
}

/// Options of `demo`.
#[derive(Args, Debug, Default)]
pub(crate) struct DemoArgs {
    /// How fast to publish: real, max, or a factor of real time such as 2 or 0.5.
    #[arg(long, value_name = "SPEED", default_value_t = Speed::REAL)]
    pub(crate) speed: Speed,
    /// The runtime that drives the job.
    #[arg(long, value_enum, default_value_t = Runtime::Tokio)]
    pub(crate) runtime: Runtime,
    /// When the runner begins to read.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) join: Join,
    /// Write what came back to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `devnet`.
#[derive(Args, Debug)]
pub(crate) struct DevnetArgs {
    /// Where the first orchestrator listens; further ones take the ports after it. ADDR is ip:port, or a port
    /// on loopback.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8935")]
    pub(crate) listen: Listen,
    /// Where the remote signer listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7936")]
    pub(crate) signer_listen: Listen,
    /// How many orchestrators to run: 1 to 16.
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::orchestrators)]
    pub(crate) orchestrators: NonZeroU8,
    /// Run each orchestrator as a process of its own, so that it can be killed.
    #[arg(long)]
    pub(crate) processes: bool,
    /// Kill and restart, or stop for a while, one orchestrator after the other, at random; processes are implied.
    /// The same seed does the same.
    #[arg(long, value_name = "SEED", num_args = 0..=1, require_equals = true)]
    pub(crate) chaos: Option<Option<u64>>,
    /// When the runners begin to read.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) join: Join,
    /// Run them off-chain: they have no account, name no price, and work for nobody's money. For gateways that pay
    /// nothing, such as go-livepeer's without -network.
    #[arg(long)]
    pub(crate) offchain: bool,
    /// How long ticket parameters last, in blocks of twelve seconds.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "8m",
        value_parser = values::duration,
        conflicts_with = "offchain"
    )]
    pub(crate) quote_life: Duration,
    /// Remember in this folder, through crashes, who the orchestrators are and which tickets they have seen and won.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["processes", "chaos"])]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    #[command(flatten)]
    pub(crate) programs: ProgramArgs,
    /// Let orchestrators misbehave: all of them, or the one of a number, the first being 0. Repeat the
    /// option or separate with commas. A wrong name is answered with all there are.
    #[arg(long, value_name = "[N:]QUIRK", value_delimiter = ',')]
    quirk: Vec<QuirkChoice>,
    /// Have orchestrators that never misbehave. Otherwise, where no quirk is named, they refuse ticket parameters as expired
    /// and have no room now and then, end containers' streams in blank lines and turn their statuses into 200, as those of the
    /// real network.
    #[arg(long, conflicts_with = "quirk")]
    polite: bool,
    /// The runtime that drives the network.
    #[arg(long, value_enum, default_value_t = Runtime::Tokio)]
    pub(crate) runtime: Runtime,
}

impl DevnetArgs {
    /// The quirks that orchestrators begin with: those that are named, or else what is usual.
    pub(crate) fn quirks(&self) -> Vec<QuirkChoice> {
        if self.polite || !self.quirk.is_empty() {
            return self.quirk.clone();
        }
        devnet::usual_quirks(self.orchestrators.get())
    }
}

/// Options of one orchestrator of a `devnet`, in a process of its own.
#[derive(Args, Debug)]
pub(crate) struct DevnetOrchestratorArgs {
    /// Where the orchestrator listens.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Listen,
    /// When the orchestrator's runners begin to read.
    #[arg(long, value_enum)]
    pub(crate) join: Join,
    /// Whether the orchestrator works for nobody's money.
    #[arg(long)]
    pub(crate) offchain: bool,
    /// How long ticket parameters last.
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) quote_life: Duration,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    #[command(flatten)]
    pub(crate) programs: ProgramArgs,
    /// How the orchestrator misbehaves.
    #[arg(long, value_delimiter = ',')]
    pub(crate) quirk: Vec<Quirk>,
    /// The runtime that drives the orchestrator.
    #[arg(long, value_enum, default_value_t = Runtime::Tokio)]
    pub(crate) runtime: Runtime,
}

/// Options of `live`.
#[derive(Args, Debug)]
pub(crate) struct LiveArgs {
    /// Orchestrators to ask, a few at a time from the first one on; the first that fits gets the job. Repeat the option
    /// or separate with commas. Without a scheme, https is meant.
    /// Without this option the token, or else the signer, is asked for a list.
    #[arg(long, value_name = "URL", value_delimiter = ',', value_parser = values::orchestrator)]
    orchestrator: Vec<Option<Url>>,
    /// Model that the orchestrator runs on the video.
    #[arg(long, value_name = "MODEL", default_value = DEFAULT_MODEL, value_parser = values::model)]
    pub(crate) model_id: String,
    /// The stream to send: a file of MPEG-TS, - for standard input, rtmp://ADDR/live/NAME to listen there for a publisher
    /// such as OBS or ffmpeg, or whip[://ADDR[/NAME]] to listen for a browser or another sender by WHIP. The job begins
    /// with the sender and ends with it.
    #[arg(long, value_name = "FILE|URL")]
    pub(crate) input: Source,
    /// Where to write the stream that comes back: a file, or - for standard output.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["watch", "push"])]
    pub(crate) output: Option<Place>,
    /// Show the stream that comes back on a page at this address, or at that of --input whip; a browser watches it by
    /// WHEP, and with --input whip sends its camera from there.
    #[arg(long, value_name = "ADDR", num_args = 0..=1, require_equals = true)]
    watch: Option<Option<Listen>>,
    /// Let web pages of that origin send by WHIP and watch by WHEP too, such as `https://app.example`, or * for all of them;
    /// may repeat.
    #[arg(long, value_name = "ORIGIN", value_parser = values::origin)]
    pub(crate) cors: Vec<String>,
    /// Send the stream that comes back to another server by RTMP, such as rtmps://live.example/app/KEY; may repeat. Sound
    /// other than AAC is replaced by silence, since most servers take no other.
    #[arg(long, value_name = "URL", value_parser = Target::parse)]
    pub(crate) push: Vec<Target>,
    /// Parameters of the model, a JSON object such as {"prompt":"a cat"}.
    #[arg(long, value_name = "JSON", value_parser = values::params)]
    pub(crate) params: Option<Params>,
    /// The runtime that drives the job.
    #[arg(long, value_enum, default_value_t = Runtime::Tokio)]
    pub(crate) runtime: Runtime,
    /// Start the input file over at its end, until --duration or Ctrl-C.
    #[arg(long = "loop")]
    pub(crate) repeat: bool,
    /// Stop after this much time: 90s, 10m, 1h30m. A bare number is seconds.
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) duration: Option<Duration>,
    /// How fast to publish: real, max, or a factor of real time such as 2 or 0.5.
    #[arg(long, value_name = "SPEED", default_value_t = Speed::REAL)]
    pub(crate) speed: Speed,
    /// Leave an orchestrator from which nothing comes back for this long while input flows.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    pub(crate) output_timeout: Duration,
    /// Leave an orchestrator from which nothing comes back for this long while its model says that it is loading.
    #[arg(long, value_name = "TIME", default_value = "180s", value_parser = values::duration)]
    pub(crate) loading_timeout: Duration,
    /// The most to pay, in wei per pixel: 1200, 0.5 or 1/3.
    #[arg(long, value_name = "WEI_PER_PIXEL", value_parser = values::price)]
    pub(crate) max_price: Option<Price>,
    /// Print the figures as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) peers: PeerArgs,
    #[command(flatten)]
    pub(crate) pay: PayArgs,
}

impl LiveArgs {
    /// The orchestrators to ask and the signer, from options and token together.
    ///
    /// # Errors
    /// If token or header fields are malformed, or nobody is named to do the work or to sign for it.
    pub(crate) fn endpoints(&self) -> Result<Endpoints, Failed> {
        endpoints::of_job(&self.orchestrator, &self.peers, &self.pay, "live")
    }

    /// Whether the result goes elsewhere than to a file.
    pub(crate) const fn is_shown(&self) -> bool {
        self.watch.is_some() || !self.push.is_empty()
    }

    /// Where the page is that shows the result, if there is to be one.
    pub(crate) fn watch(&self) -> Option<SocketAddr> {
        let at = match &self.input {
            Source::Whip { listen, .. } => *listen,
            Source::Rtmp { .. } | Source::Place(_) => DOOR,
        };
        Some(self.watch?.map_or(at, |Listen(at)| at))
    }

    /// Checks what options say together.
    ///
    /// # Errors
    /// If they contradict each other or leave something open.
    fn validate(&self) -> Result<(), Failed> {
        let usage = |cause: &str| Err(Failed::usage(cause, "live"));
        if self.repeat && !matches!(self.input, Source::Place(Place::File(_))) {
            return usage("--loop needs a file: nothing else can be started over");
        }
        if self.json && self.output == Some(Place::Standard) {
            return usage("--json and --output - would both write to standard output");
        }
        let is_web = matches!(self.input, Source::Whip { .. }) || self.watch.is_some();
        if !self.cors.is_empty() && !is_web {
            return usage("--cors is for the page of --watch and for --input whip");
        }
        if let (Source::Whip { listen, .. }, Some(watch)) = (&self.input, self.watch())
            && *listen != watch
        {
            return usage("the page of --watch is at the address of --input whip: name only that");
        }
        one_payer(&self.peers, &self.pay, "live")?;
        self.endpoints().map(drop)
    }
}

/// Checks that who pays is said once, and completely.
fn one_payer(peers: &PeerArgs, pay: &PayArgs, command: &str) -> Result<(), Failed> {
    if pay.own_key() && (peers.offchain || !peers.signer.is_empty()) {
        return Err(Failed::usage(
            "who pays is said twice: an own key, a --signer and --offchain exclude each other",
            command,
        ));
    }
    pay.validate(command)
}

/// Options of `info`.
#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    /// The orchestrator. Without a scheme, https is meant.
    #[arg(value_name = "URL", value_parser = values::required_orchestrator)]
    pub(crate) orchestrator: Url,
    /// Ask for the terms of this model of live video only.
    #[arg(long, value_name = "MODEL", value_parser = values::model)]
    pub(crate) model_id: Option<String>,
    /// The runtime that drives the call.
    #[arg(long, value_enum, default_value_t = Runtime::Tokio)]
    pub(crate) runtime: Runtime,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) peers: PeerArgs,
}

impl InfoArgs {
    /// The signer, with the named orchestrator as the only one.
    ///
    /// # Errors
    /// If token or header fields are malformed. Without a signer the call is made as nobody.
    pub(crate) fn endpoints(&self) -> Result<Endpoints, Failed> {
        endpoints::resolve(vec![self.orchestrator.clone()], &self.peers, "info")
    }
}

/// Options about signer and trust.
#[derive(Args, Debug)]
#[command(next_help_heading = "Signer and trust")]
pub(crate) struct PeerArgs {
    /// The remote signer, which holds the key that pays; repeat the option or separate with commas, and each stands
    /// in for those before it. They have to pay from one account.
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        value_parser = values::peer,
        conflicts_with = "offchain"
    )]
    signer: Vec<Url>,
    /// A header field for the signers, such as "Authorization: Bearer …"; may repeat.
    #[arg(long, value_name = "NAME:VALUE")]
    signer_header: Vec<Secret>,
    /// Base64 of a JSON object with signer, signer_headers, discovery, discovery_headers, orchestrators.
    #[arg(long, hide_env_values = true, env = "LIVEPEER_TOKEN")]
    token: Option<Secret>,
    /// Nobody pays: for orchestrators that run off-chain.
    #[arg(long)]
    offchain: bool,
    /// Remember the certificates of orchestrators in this file from one run to the next.
    #[arg(long, value_name = "FILE", conflicts_with = "ca_trust")]
    pub(crate) pins: Option<PathBuf>,
    /// Refuse an orchestrator that shows another certificate than before. Otherwise the new one is accepted once, with a
    /// warning, and remembered: orchestrators make a new one at every start.
    #[arg(long, conflicts_with = "ca_trust")]
    pub(crate) pins_strict: bool,
    /// Accept only certificates that public authorities vouch for, instead of the first one seen.
    #[arg(long)]
    pub(crate) ca_trust: bool,
    /// Let those who are named here lead to addresses on this machine and in private networks, and from https to
    /// http. Otherwise only those do that are named on such an address themselves, and only to that one.
    #[arg(long)]
    pub(crate) allow_private: bool,
}

impl PeerArgs {
    /// The address as one that our user named.
    pub(crate) fn own(&self, url: Url) -> Url {
        if self.allow_private {
            url.opened()
        } else {
            url
        }
    }
}

/// Parses the command line; `Ok(Err(text))` is text to show instead, such as the help.
///
/// # Errors
/// If it cannot be meant.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<Result<Cli, String>, Failed> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => {
            match &cli.command {
                Some(Command::Live(live)) => live.validate()?,
                Some(Command::Run(run)) => run.validate()?,
                Some(Command::Byoc(byoc)) => byoc.validate()?,
                Some(Command::App(app)) => app.validate()?,
                Some(Command::Runner(runner)) => runner.validate()?,
                Some(Command::Signer(signer)) => signer.validate()?,
                Some(Command::Trickle(trickle)) => trickle.validate()?,
                Some(Command::Info(info)) => drop(info.endpoints()?),
                Some(Command::Discover(discover)) => drop(discover.find.sources("discover")?),
                Some(Command::Select(select)) => drop(select.find.sources("select")?),
                Some(Command::Devnet(devnet)) => {
                    values::enough_ports(devnet.listen, devnet.orchestrators)
                        .map_err(|cause| Failed::usage(cause, "devnet"))?;
                }
                _ => {}
            }
            Ok(Ok(cli))
        }
        Err(error) if !error.use_stderr() => Ok(Err(error.render().to_string())),
        Err(error) => Err(Failed::usage(
            cause_of(&error.render().to_string()),
            command_in(&arguments),
        )),
    }
}

/// The sentences of a parser's message, without its usage and hints.
fn cause_of(message: &str) -> String {
    message
        .strip_prefix("error: ")
        .unwrap_or(message)
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .replace(" tip: ", "; ")
}

fn command_in(arguments: &[std::ffi::OsString]) -> &'static str {
    arguments
        .iter()
        .find_map(|argument| {
            [
                "demo", "devnet", "signer", "serve", "live", "run", "byoc", "app", "info",
                "discover", "select", "trickle",
            ]
            .into_iter()
            .find(|command| argument == command)
        })
        .unwrap_or("")
}

#[cfg(test)]
pub(crate) mod tests;
