//! Work of the development network: its batch models, containers and apps, and the ways in which its orchestrators
//! misbehave.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use livepeer_core::Pipeline;

use super::values;

/// The words for all batch models, and for none.
const ALL: &str = "all";
const NONE: &str = "none";

/// Options of batch work, the same for a network and for an orchestrator of it.
#[derive(Args, Clone, Debug)]
pub(crate) struct BatchArgs {
    /// Batch models to run: all, none, or pipelines such as llm, each with a model if not its default: llm=echo. Repeat
    /// the option or separate with commas.
    #[arg(long, value_name = "PIPELINE[=MODEL]", value_delimiter = ',', default_value = ALL)]
    models: Vec<ModelChoice>,
    /// How many requests an orchestrator takes at once for each batch model.
    #[arg(long, value_name = "N", default_value = "4")]
    pub(crate) capacity: u32,
    /// How long the work on one batch request takes.
    #[arg(long, value_name = "TIME", default_value = "300ms", value_parser = values::duration)]
    pub(crate) work_time: Duration,
    /// How long a token of a streamed answer takes.
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = values::duration)]
    pub(crate) token_time: Duration,
}

impl Default for BatchArgs {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            models: vec![ModelChoice::All],
            capacity: 4,
            work_time: Duration::from_millis(300),
            token_time: Duration::from_millis(20),
        }
    }
}

impl BatchArgs {
    /// The models, each with its pipeline.
    pub(crate) fn models(&self) -> Vec<(Pipeline, &str)> {
        self.models
            .iter()
            .flat_map(|choice| match choice {
                ModelChoice::All => Pipeline::batch()
                    .map(|pipeline| (pipeline, pipeline.default_model()))
                    .collect(),
                ModelChoice::None => Vec::new(),
                ModelChoice::One(pipeline, model) => vec![(*pipeline, model.as_str())],
            })
            .collect()
    }

    /// The options as they are written on a command line.
    pub(crate) fn to_words(&self) -> Vec<String> {
        let models = self
            .models
            .iter()
            .map(|choice| format!("--models={choice}"));
        models
            .chain([
                format!("--capacity={}", self.capacity),
                format!("--work-time={}ms", self.work_time.as_millis()),
                format!("--token-time={}ms", self.token_time.as_millis()),
            ])
            .collect()
    }
}

/// A choice of batch models.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ModelChoice {
    All,
    None,
    One(Pipeline, String),
}

impl FromStr for ModelChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            ALL => return Ok(Self::All),
            NONE => return Ok(Self::None),
            _ => {}
        }
        let (name, model) = text.split_once('=').unwrap_or((text, ""));
        let pipeline = Pipeline::from_name(name)
            .filter(|pipeline| Pipeline::batch().any(|batch| batch == *pipeline))
            .ok_or_else(|| {
                let names: Vec<_> = Pipeline::batch().map(Pipeline::name).collect();
                format!("there are {ALL}, {NONE}, and {}", names.join(", "))
            })?;
        let model = match model {
            "" => pipeline.default_model().to_owned(),
            model => values::model(model)?,
        };
        Ok(Self::One(pipeline, model))
    }
}

impl fmt::Display for ModelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str(ALL),
            Self::None => f.write_str(NONE),
            Self::One(pipeline, model) => write!(f, "{pipeline}={model}"),
        }
    }
}

/// Options of containers and apps, the same for a network and for an orchestrator of it.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProgramArgs {
    /// Containers to offer, each a program that says back what it is told: names, or none. Repeat the option or separate
    /// with commas.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "echo"
    )]
    containers: Vec<String>,
    /// Apps to rent out: echo (single calls, a fixed price), session (sessions, paid by the second), live (sessions with
    /// channels), or none. Repeat the option or separate with commas.
    #[arg(
        long,
        value_enum,
        value_name = "APP",
        value_delimiter = ',',
        default_value = "echo,session,live"
    )]
    apps: Vec<AppChoice>,
    /// Let programs that know this word register as containers and runners.
    #[arg(long, value_name = "WORD")]
    pub(crate) register_secret: Option<String>,
}

impl Default for ProgramArgs {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            containers: vec!["echo".to_owned()],
            apps: vec![AppChoice::Echo, AppChoice::Session, AppChoice::Live],
            register_secret: None,
        }
    }
}

impl ProgramArgs {
    /// The names of the containers.
    pub(crate) fn containers(&self) -> impl Iterator<Item = &str> {
        let names = self.containers.iter().map(String::as_str);
        names.filter(|name| !matches!(*name, NONE | ""))
    }

    /// The apps.
    pub(crate) fn apps(&self) -> impl Iterator<Item = AppChoice> {
        let apps = self.apps.iter().copied();
        apps.filter(|app| *app != AppChoice::None)
    }

    /// The options as they are written on a command line.
    pub(crate) fn to_words(&self) -> Vec<String> {
        let containers = self
            .containers
            .iter()
            .map(|name| format!("--containers={name}"));
        let apps = self.apps.iter().map(|app| format!("--apps={}", app.name()));
        let secret = self.register_secret.iter();
        let secret = secret.map(|word| format!("--register-secret={word}"));
        containers.chain(apps).chain(secret).collect()
    }
}

/// An app of the development network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum AppChoice {
    Echo,
    Session,
    Live,
    None,
}

impl AppChoice {
    /// The name of the app's runner, and the one on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Session => "session",
            Self::Live => "live",
            Self::None => NONE,
        }
    }
}

/// A way to misbehave, and who does so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuirkChoice {
    /// The number of the orchestrator; `None` is all of them.
    pub(crate) who: Option<u8>,
    pub(crate) quirk: Quirk,
}

impl FromStr for QuirkChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (who, name) = match text.split_once(':') {
            None => (None, text),
            Some((who, name)) => {
                let who = who.parse().map_err(|_| {
                    format!("{who:?} is not the number of an orchestrator; the first one is 0")
                })?;
                (Some(who), name)
            }
        };
        let quirk = name.parse()?;
        Ok(Self { who, quirk })
    }
}

/// The quirks of a network of which nothing is said, as the real one has them: ticket parameters expire, containers'
/// streams end in blank lines and their statuses become 200, and every orchestrator but the first, which always takes what
/// the others do not, has no room now and then.
pub(crate) fn usual_quirks(orchestrators: u8) -> Vec<QuirkChoice> {
    let all = [Quirk::StaleAtTimes, Quirk::BlankLines, Quirk::FlatStatus];
    let all = all
        .into_iter()
        .map(|quirk| QuirkChoice { who: None, quirk });
    let others = (1..orchestrators).map(|n| QuirkChoice {
        who: Some(n),
        quirk: Quirk::BusyAtTimes,
    });
    all.chain(others).collect()
}

/// A way in which an orchestrator of the development network misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quirk {
    Silent,
    Busy,
    Gone,
    DataUrls,
    EqualNames,
    StaleTickets,
    PriceLie,
    Overcharge,
    Runner400,
    Runner422,
    Runner500,
    Runner503,
    RunnerGone,
    RunnerSilent,
    NotJson,
    NoChoices,
    ErrorChunk,
    DyingStream,
    BreakingStream,
    BusyAtTimes,
    StaleAtTimes,
    LeakyPlaces,
    BlankLines,
    FlatStatus,
    Refuse0x,
    Elsewhere,
    ForgetRunners,
}

impl Quirk {
    /// All of them, with their names on the command line.
    pub(crate) const ALL: [(Self, &'static str); 27] = [
        (Self::Silent, "silent"),
        (Self::Busy, "busy"),
        (Self::Gone, "gone"),
        (Self::DataUrls, "data-urls"),
        (Self::EqualNames, "equal-names"),
        (Self::StaleTickets, "stale-tickets"),
        (Self::PriceLie, "price-lie"),
        (Self::Overcharge, "overcharge"),
        (Self::Runner400, "runner-400"),
        (Self::Runner422, "runner-422"),
        (Self::Runner500, "runner-500"),
        (Self::Runner503, "runner-503"),
        (Self::RunnerGone, "runner-gone"),
        (Self::RunnerSilent, "runner-silent"),
        (Self::NotJson, "not-json"),
        (Self::NoChoices, "no-choices"),
        (Self::ErrorChunk, "error-chunk"),
        (Self::DyingStream, "dying-stream"),
        (Self::BreakingStream, "breaking-stream"),
        (Self::BusyAtTimes, "busy-at-times"),
        (Self::StaleAtTimes, "stale-at-times"),
        (Self::LeakyPlaces, "leaky-places"),
        (Self::BlankLines, "blank-lines"),
        (Self::FlatStatus, "flat-status"),
        (Self::Refuse0x, "refuse-0x"),
        (Self::Elsewhere, "elsewhere"),
        (Self::ForgetRunners, "forget-runners"),
    ];

    /// The quirks that pass and leave no trace: none that keeps a slot for ever, or leaves a payer in debt; and none that
    /// is usual.
    pub(crate) fn passing() -> impl Iterator<Item = Self> {
        let others = [
            Self::Silent,
            Self::Overcharge,
            Self::Runner503,
            Self::NoChoices,
            Self::BreakingStream,
            Self::BusyAtTimes,
            Self::StaleAtTimes,
            Self::LeakyPlaces,
            Self::BlankLines,
            Self::FlatStatus,
        ];
        let all = Self::ALL.into_iter().map(|(quirk, _)| quirk);
        all.filter(move |quirk| !others.contains(quirk))
    }

    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(quirk, _)| *quirk == self);
        found.map_or("", |(_, name)| name)
    }
}

impl FromStr for Quirk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(quirk, _)| *quirk).ok_or_else(|| {
            let names = Self::ALL.map(|(_, name)| name);
            format!("the quirks are {}", names.join(", "))
        })
    }
}
