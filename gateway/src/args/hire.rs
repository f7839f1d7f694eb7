//! Options of commands that give work to containers and apps.

use std::time::Duration;

use clap::{Args, Subcommand};
use livepeer_core::http::{Method, Url};
use livepeer_core::money::Price;
use livepeer_core::wire::Params;
use livepeer_core::wire::byoc::JobRequest;
use livepeer_media::Speed;

use super::values::{self, Header, Place, Secret};
use super::{Endpoints, PayArgs, PeerArgs, Runtime, endpoints};
use crate::ui::Failed;

/// Options of who does the work, and who pays.
#[derive(Args, Debug)]
pub(crate) struct HireArgs {
    /// Orchestrators that may do it; repeat the option or separate with commas. Without a scheme, https is meant.
    /// Without this option the token, or else the signer, is asked for a list.
    #[arg(long, value_name = "URL", value_delimiter = ',', value_parser = values::orchestrator)]
    orchestrator: Vec<Option<Url>>,
    /// The most to pay, in wei per unit: of a container a second, of an app whatever its runner says. 1200, 0.5 or 1/3.
    #[arg(long, value_name = "WEI_PER_UNIT", value_parser = values::price)]
    pub(crate) max_price: Option<Price>,
    /// The runtime that drives the work.
    #[arg(long, value_enum, default_value_t = Runtime::Tokio)]
    pub(crate) runtime: Runtime,
    /// Print answer and figures as JSON, also of work that fails or is interrupted.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) peers: PeerArgs,
    #[command(flatten)]
    pub(crate) pay: PayArgs,
}

impl HireArgs {
    /// The orchestrators to ask and the signer, as `live` finds them.
    ///
    /// # Errors
    /// If token or header fields are malformed, or nobody is named to do the work or to sign for it.
    pub(crate) fn endpoints(&self, command: &str) -> Result<Endpoints, Failed> {
        endpoints::of_job(&self.orchestrator, &self.peers, &self.pay, command)
    }

    fn validate(&self, output: Option<&Place>, command: &str) -> Result<(), Failed> {
        if self.json && output == Some(&Place::Standard) {
            let cause = "--json and --output - would both write to standard output: name a file";
            return Err(Failed::usage(cause, command));
        }
        super::one_payer(&self.peers, &self.pay, command)?;
        self.endpoints(command).map(drop)
    }
}

/// The body of a request.
#[derive(Args, Debug)]
pub(crate) struct BodyArgs {
    /// The body of the request, as text.
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    pub(crate) data: Option<String>,
    /// The file that is the body of the request; - for standard input.
    #[arg(long, value_name = "FILE|-")]
    pub(crate) file: Option<Place>,
    /// The type of the body.
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    pub(crate) content_type: String,
}

impl BodyArgs {
    /// Whether there is one.
    pub(crate) const fn is_some(&self) -> bool {
        self.data.is_some() || self.file.is_some()
    }
}

/// Options of `byoc`.
#[derive(Args, Debug)]
pub(crate) struct ByocArgs {
    /// The command.
    #[command(subcommand)]
    pub(crate) command: ByocCommand,
}

/// The commands of `byoc`.
#[derive(Debug, Subcommand)]
pub(crate) enum ByocCommand {
    /// Do one job: a request, and its answer or a stream of events.
    Run(Box<ByocRunArgs>),
    /// Send a stream of video through a container, and write what comes back.
    Stream(Box<ByocStreamArgs>),
}

/// Options of `byoc run`.
#[derive(Args, Debug)]
pub(crate) struct ByocRunArgs {
    /// The container, by the name that orchestrators know it by.
    #[arg(value_name = "CAPABILITY")]
    pub(crate) capability: String,
    /// The container's own path, with its query.
    #[arg(value_name = "PATH", default_value = "")]
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) body: BodyArgs,
    /// A JSON object for the orchestrator beside the body.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(crate) request: String,
    /// A JSON object with wishes, such as {"orchestrators":{"exclude":["URL"]}}.
    #[arg(long, value_name = "JSON", default_value = "")]
    pub(crate) parameters: String,
    /// How long the container may work, which is paid in advance: 90s, 5m.
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = values::duration)]
    pub(crate) within: Duration,
    /// Give the job to another orchestrator where one may have done it already: it may run, and be paid, twice.
    #[arg(long)]
    pub(crate) may_repeat: bool,
    /// The file for the answer, or - for standard output, to which a stream of events goes as it comes.
    #[arg(long, value_name = "FILE|-")]
    output: Option<Place>,
    #[command(flatten)]
    pub(crate) hire: HireArgs,
}

impl ByocRunArgs {
    /// The place for the answer: standard output, unless that takes the figures.
    pub(crate) fn output(&self) -> Option<&Place> {
        output(self.output.as_ref(), self.hire.json)
    }
}

/// Options of `byoc stream`.
#[derive(Args, Debug)]
pub(crate) struct ByocStreamArgs {
    /// The container, by the name that orchestrators know it by.
    #[arg(value_name = "CAPABILITY")]
    pub(crate) capability: String,
    /// The stream to send, MPEG-TS: a file, or - for standard input.
    #[arg(long, value_name = "FILE|-")]
    pub(crate) input: Place,
    /// The file for what comes back, or - for standard output.
    #[arg(long, value_name = "FILE|-")]
    pub(crate) output: Place,
    /// The container's first parameters, a JSON object.
    #[arg(long, value_name = "JSON", value_parser = values::params)]
    pub(crate) params: Option<Params>,
    /// A JSON object for the orchestrator beside the parameters.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(crate) request: String,
    /// A JSON object with wishes, such as {"orchestrators":{"exclude":["URL"]}}.
    #[arg(long, value_name = "JSON", default_value = "")]
    pub(crate) parameters: String,
    /// How fast to publish: real, max, or a factor of real time such as 2 or 0.5.
    #[arg(long, value_name = "SPEED", default_value_t = Speed::REAL)]
    pub(crate) speed: Speed,
    /// How long an orchestrator may take to start the stream: 90s, 5m.
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = values::duration)]
    pub(crate) within: Duration,
    /// Start the stream at another orchestrator where one may run it already: it may run, and be paid, twice.
    #[arg(long)]
    pub(crate) may_repeat: bool,
    #[command(flatten)]
    pub(crate) hire: HireArgs,
}

impl ByocStreamArgs {
    fn validate(&self) -> Result<(), Failed> {
        let job = JobRequest {
            parameters: self.parameters.clone(),
            ..JobRequest::default()
        };
        let wishes = job.with_media().wishes();
        let wishes = wishes.map_err(|bad| Failed::usage(bad, "byoc stream"))?;
        if !(wishes.video_in && wishes.video_out) {
            let cause =
                "--parameters switches video in or out off, but --input and --output need both";
            return Err(Failed::usage(cause, "byoc stream"));
        }
        self.hire.validate(Some(&self.output), "byoc stream")
    }
}

/// Options of `app`.
#[derive(Args, Debug)]
pub(crate) struct AppArgs {
    /// The command.
    #[command(subcommand)]
    pub(crate) command: AppCommand,
}

/// The commands of `app`.
#[derive(Debug, Subcommand)]
pub(crate) enum AppCommand {
    /// List the runners of an app, or of all apps: where they are, how one works with them, their price and room.
    List(Box<AppListArgs>),
    /// Make a single request to an app, and print its answer.
    Call(Box<AppCallArgs>),
    /// Hold a session with an app until Ctrl-C, and pay for it; or make a request in it, and stop it.
    Session(Box<AppSessionArgs>),
}

/// Options of `app list`.
#[derive(Args, Debug)]
pub(crate) struct AppListArgs {
    /// The app, such as live-video-to-video/scope; without this all.
    #[arg(value_name = "APP")]
    pub(crate) app: Option<String>,
    /// Only runners on this model of GPU; may repeat.
    #[arg(long, value_name = "NAME")]
    pub(crate) gpu: Vec<String>,
    #[command(flatten)]
    pub(crate) hire: HireArgs,
}

/// Options of `app call`.
#[derive(Args, Debug)]
pub(crate) struct AppCallArgs {
    /// The app, such as my/painter.
    #[arg(value_name = "APP")]
    pub(crate) app: String,
    #[command(flatten)]
    pub(crate) call: CallArgs,
    /// Only runners on this model of GPU; may repeat.
    #[arg(long, value_name = "NAME")]
    pub(crate) gpu: Vec<String>,
    /// Make the request to another runner where an app may have worked on it: it may run, and be paid, twice.
    #[arg(long)]
    pub(crate) may_repeat: bool,
    #[command(flatten)]
    pub(crate) hire: HireArgs,
}

/// Options of `app session`.
#[derive(Args, Debug)]
pub(crate) struct AppSessionArgs {
    /// The app, such as live-video-to-video/scope.
    #[arg(value_name = "APP")]
    pub(crate) app: String,
    #[command(flatten)]
    pub(crate) call: CallArgs,
    /// Only runners on this model of GPU; may repeat.
    #[arg(long, value_name = "NAME")]
    pub(crate) gpu: Vec<String>,
    /// Stop the session after this time; otherwise at Ctrl-C, or after the answer to a request.
    #[arg(long = "for", value_name = "TIME", value_parser = values::duration)]
    pub(crate) lasts: Option<Duration>,
    #[command(flatten)]
    pub(crate) hire: HireArgs,
}

/// A request to an app.
#[derive(Args, Debug)]
pub(crate) struct CallArgs {
    /// The app's own path, with its query.
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// The method; POST where there is a body, GET otherwise.
    #[arg(long, value_name = "METHOD", value_parser = method)]
    method: Option<Method>,
    /// A header field for the app, such as "Accept: text/event-stream"; may repeat.
    #[arg(long, value_name = "NAME:VALUE")]
    header: Vec<Secret>,
    #[command(flatten)]
    pub(crate) body: BodyArgs,
    /// The file for the answer, or - for standard output, to which it goes as it comes.
    #[arg(long, value_name = "FILE|-")]
    output: Option<Place>,
}

impl CallArgs {
    /// The header fields.
    ///
    /// # Errors
    /// If one is malformed.
    pub(crate) fn headers(&self, command: &str) -> Result<Vec<Header>, Failed> {
        let fields = self.header.iter().map(|text| text.0.parse());
        let fields: Result<_, _> = fields.collect();
        fields.map_err(|why: &str| Failed::usage(format_args!("--header: {why}"), command))
    }

    /// The method.
    pub(crate) fn method(&self) -> Method {
        self.method.unwrap_or(match self.body.is_some() {
            true => Method::Post,
            false => Method::Get,
        })
    }

    /// The place for the answer: standard output, unless that takes the figures.
    pub(crate) fn output(&self, json: bool) -> Option<&Place> {
        output(self.output.as_ref(), json)
    }
}

fn output(named: Option<&Place>, json: bool) -> Option<&Place> {
    named.or((!json).then_some(&Place::Standard))
}

fn method(text: &str) -> Result<Method, String> {
    let all = [
        Method::Get,
        Method::Head,
        Method::Post,
        Method::Put,
        Method::Patch,
        Method::Delete,
        Method::Options,
    ];
    let found = all
        .into_iter()
        .find(|method| method.as_str().eq_ignore_ascii_case(text));
    found.ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|method| method.as_str()).collect();
        format!("the methods are {}", names.join(", "))
    })
}

impl ByocArgs {
    pub(super) fn validate(&self) -> Result<(), Failed> {
        match &self.command {
            ByocCommand::Run(run) => run.hire.validate(run.output.as_ref(), "byoc run"),
            ByocCommand::Stream(stream) => stream.validate(),
        }
    }

    pub(super) fn wants_json(&self) -> bool {
        match &self.command {
            ByocCommand::Run(run) => run.hire.json,
            ByocCommand::Stream(stream) => stream.hire.json,
        }
    }
}

impl AppArgs {
    pub(super) fn validate(&self) -> Result<(), Failed> {
        match &self.command {
            AppCommand::List(list) => list.hire.validate(None, "app list"),
            AppCommand::Call(args) => {
                let (call, hire) = (&args.call, &args.hire);
                call.headers("app call")?;
                hire.validate(call.output.as_ref(), "app call")
            }
            AppCommand::Session(session) => {
                let call = &session.call;
                let made = call.path.is_some() || call.body.is_some();
                if !made && (call.method.is_some() || !call.header.is_empty()) {
                    let cause = "without a path or a body no request is made: name the path";
                    return Err(Failed::usage(cause, "app session"));
                }
                call.headers("app session")?;
                session.hire.validate(call.output.as_ref(), "app session")
            }
        }
    }

    pub(super) fn wants_json(&self) -> bool {
        match &self.command {
            AppCommand::List(list) => list.hire.json,
            AppCommand::Call(call) => call.hire.json,
            AppCommand::Session(session) => session.hire.json,
        }
    }
}
