//! `discover`: which orchestrators there are, and what each has to offer.

use std::collections::BTreeMap;

use livepeer_core::capabilities::{Capabilities, Capability};
use livepeer_core::discovery::Origin;
use livepeer_core::http::{Fault, Url};
use livepeer_core::pipeline::Pipeline;
use livepeer_core::pool::{Candidate, Tried, Why};
use livepeer_core::wire::OrchestratorInfo;
use livepeer_core::wire::listing::Found;
use livepeer_core::{Cause, capabilities, discovery, pool};
use livepeer_runtime::api::{Discovered, Survey, discover};
use livepeer_runtime::store::Sqlite;
use livepeer_runtime::{Driver, Runtime};
use serde::Serialize;

use crate::args::{DiscoverArgs, FindArgs};
use crate::cmd::files::Files;
use crate::cmd::stop::Stop;
use crate::cmd::{on, peers};
use crate::ui::{self, Failed, Outcome, duration};

/// Models shown in a cell of the table; JSON has them all.
const SHOWN: usize = 2;

pub(crate) fn run(args: &DiscoverArgs) -> Outcome {
    on::run(args.find.runtime, Discover(args))
}

struct Discover<'a>(&'a DiscoverArgs);

impl on::Work for Discover<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, _: Stop) -> Outcome {
        let args = &self.0.find;
        let (driver, discovered) = search(driver, args, "discover").await?;
        let survey = survey(&driver, args, &discovered, "discover").await?;
        let report =
            survey.look(|pool| Report::new(&discovered, &pool.sessions(), &pool.tried(), args));
        peers::save_pins(&driver, &args.peers)?;
        let verdict = report.verdict();
        if args.json {
            return ui::print_json_with(&report, verdict);
        }
        report.print()?;
        verdict
    }
}

/// Asks the sources.
///
/// # Errors
/// If none of them names anybody.
pub(super) async fn search<R: Runtime>(
    driver: Driver<R>,
    args: &FindArgs,
    command: &str,
) -> Result<(Driver<R>, Discovered), Failed> {
    let sources = args.sources(command)?;
    Files::default()
        .writes("--store", args.store.as_deref())
        .writes("--pins", args.peers.pins.as_deref())
        .are_apart(command)?;
    let mut driver = peers::with_pins(driver, &args.peers)?;
    if let Some(path) = &args.store {
        driver =
            driver.with_store(Sqlite::open(path).map_err(|error| Failed::store(path, &error))?);
    }
    let config = discovery::Config {
        combine: if args.all {
            discovery::Combine::All
        } else {
            discovery::Combine::First
        },
        ..discovery::Config::default()
    };
    let discovered = discover(&driver, config, sources, args.within).await;
    if discovered.found.is_empty() {
        return Err(nobody(&discovered));
    }
    Ok((driver, discovered))
}

/// Asks everybody who was found.
///
/// # Errors
/// If the signer does not introduce us.
pub(super) async fn survey<R: Runtime>(
    driver: &Driver<R>,
    args: &FindArgs,
    discovered: &Discovered,
    command: &str,
) -> Result<Survey<R>, Failed> {
    let signer = args.signer(command)?;
    let mut config = pool::Config::default();
    config.handshake.trust = peers::trust(&args.peers);
    config.handshake.pin_change = peers::pin_change(&args.peers);
    config.handshake.ignore_capacity = true;
    if let Some(price) = args.max_price {
        config.handshake.terms.ceilings = capabilities::Ceilings::of(price);
    }
    config.handshake.terms.any_recipient = args.any_recipient;
    let found = discovered.found.iter().map(pool::Offered::from);
    let payer = peers::pays(signer.as_ref());
    let (wanted, found) = (args.wanted(), found.collect());
    Ok(Survey::take(driver, config, &payer, wanted, found, args.within).await?)
}

/// The failure to report when no orchestrator was found.
pub(super) fn nobody(discovered: &Discovered) -> Failed {
    let failures = discovered
        .failed
        .iter()
        .map(|(origin, failure)| format!("{origin}: {failure}"));
    let skipped = discovered
        .skipped
        .iter()
        .map(|(origin, skipped)| format!("{origin}, {skipped}"));
    let told: Vec<String> = failures.chain(skipped).collect();
    let causes = discovered.failed.iter().map(|(_, failure)| &failure.cause);
    let forbidden = { causes }.any(|cause| matches!(cause, Cause::Link(Fault::Forbidden(_))));
    match (&told[..], discovered.failed.is_empty()) {
        ([], _) => Failed::new(
            "the sources know no orchestrator",
            "Ask for another model, or name another source; --all asks all that are named",
        ),
        (told, true) => Failed::new(
            format_args!("no orchestrator was found: {}", told.join("; ")),
            "Correct the entries; an address is HOST:PORT, or https://HOST:PORT",
        ),
        (told, false) => Failed::new(
            format_args!("no orchestrator was found: {}", told.join("; ")),
            if forbidden {
                "Name another source; if its network is private on purpose, say --allow-private"
            } else {
                "Check the addresses of the sources, or name another one"
            },
        ),
    }
}

/// The report of a discovery.
#[derive(Serialize)]
struct Report {
    orchestrators: Vec<Row>,
    /// Entries of the lists that were left out.
    skipped: Vec<Note>,
    /// Sources that gave no answer.
    failed: Vec<Note>,
}

#[derive(Serialize)]
struct Note {
    source: String,
    why: String,
}

/// An orchestrator. Everything is its own claim, but for the latency and the source's words.
#[derive(Serialize)]
struct Row {
    address: String,
    /// The address that the orchestrator's work goes to, if that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    transcoder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    /// The stake in hundred-thousandths of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    stake: Option<u64>,
    /// How far the source trusts it.
    score: f64,
    /// `None` off-chain.
    wei_per_unit: Option<String>,
    models: Vec<Model>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runners: Vec<Runner>,
    latency_ms: Option<f64>,
    version: Option<String>,
    /// `None`: it can be worked with.
    rejected: Option<String>,
}

#[derive(Serialize)]
struct Model {
    name: String,
    warm: bool,
    idle: u32,
    wei_per_unit: Option<String>,
}

#[derive(Serialize)]
struct Runner {
    url: String,
    app: String,
    version: String,
    available: u32,
}

impl Report {
    fn new(
        discovered: &Discovered,
        sessions: &[(&Url, Candidate<'_>)],
        tried: &[Tried],
        args: &FindArgs,
    ) -> Self {
        let (wanted, within) = (&args.wanted(), args.within);
        let sessions: BTreeMap<&Url, &Candidate<'_>> = sessions
            .iter()
            .map(|(url, session)| (*url, session))
            .collect();
        let tried: BTreeMap<&Url, &Why> = tried.iter().map(|one| (&one.url, &one.why)).collect();
        let rows = discovered.found.iter().map(|found| {
            let asked = found.url.with_path("/");
            match (sessions.get(&asked), tried.get(&asked)) {
                (Some(session), _) => Row::serving(found, session, wanted),
                // That it would be left alone for a while is of no interest: this pool ends here.
                (None, Some(Why::Suspended { failure, .. })) => {
                    Row::rejected(found, failure.cause.to_string())
                }
                (None, Some(why)) => Row::rejected(found, why.to_string()),
                (None, None) => {
                    let why = format!("no answer within {}", duration(within));
                    Row::rejected(found, why)
                }
            }
        });
        // Those who can be worked with first, otherwise in the sources' order.
        let mut rows: Vec<Row> = rows.collect();
        rows.sort_by_key(|row| row.rejected.is_some());
        let note = |origin: &Origin, why: String| Note {
            source: origin.to_string(),
            why,
        };
        Self {
            orchestrators: rows,
            skipped: discovered
                .skipped
                .iter()
                .map(|(origin, skipped)| note(origin, skipped.to_string()))
                .collect(),
            failed: discovered
                .failed
                .iter()
                .map(|(origin, failure)| note(origin, failure.to_string()))
                .collect(),
        }
    }

    fn print(&self) -> Outcome {
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let rows: Vec<Vec<String>> = self
            .orchestrators
            .iter()
            .map(|row| {
                vec![
                    row.address.clone(),
                    or(&row.wei_per_unit),
                    row.models(),
                    row.latency_ms
                        .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms")),
                    or(&row.version),
                    row.rejected.clone().unwrap_or_default(),
                ]
            })
            .collect();
        let heading = [
            "address", "wei/unit", "models", "latency", "version", "rejected",
        ];
        ui::print(&ui::table(&heading, &[1, 3], &rows))?;
        for (what, notes) in [("left out", &self.skipped), ("no answer", &self.failed)] {
            for note in notes {
                ui::tell(&format!("{what}: {}: {}", note.source, note.why));
            }
        }
        Ok(())
    }

    /// Fails if no orchestrator found can be worked with, for scripts.
    fn verdict(&self) -> Outcome {
        let rejected = |row: &&Row| row.rejected.is_some();
        let count = self.orchestrators.iter().filter(rejected).count();
        if count < self.orchestrators.len() {
            return Ok(());
        }
        Err(Failed::new(
            match count {
                1 => "the only orchestrator found cannot be worked with".to_owned(),
                count => format!("none of the {count} orchestrators found can be worked with"),
            },
            "The last column says why; ask for another model, raise --max-price, or name another \
             source",
        ))
    }
}

impl Row {
    fn rejected(found: &Found, why: String) -> Self {
        Self {
            address: found.url.to_string(),
            transcoder: None,
            account: found.account.map(|account| account.to_string()),
            stake: found.stake,
            score: found.score,
            wei_per_unit: None,
            models: Vec::new(),
            runners: runners(found),
            latency_ms: None,
            version: None,
            rejected: Some(why),
        }
    }

    fn serving(found: &Found, session: &Candidate<'_>, wanted: &Capabilities) -> Self {
        let info = session.info;
        let elsewhere = info.transcoder.with_path("/") != found.url.with_path("/");
        Self {
            transcoder: elsewhere.then(|| info.transcoder.to_string()),
            wei_per_unit: info.price.map(|price| price.to_string()),
            models: models(info, wanted),
            latency_ms: Some(session.latency.as_secs_f64() * 1000.0),
            version: info
                .capabilities
                .as_ref()
                .map(|offered| offered.version.to_string()),
            rejected: None,
            ..Self::rejected(found, String::new())
        }
    }

    /// A few of its models, those of live video first, since the price beside them is theirs.
    fn models(&self) -> String {
        let all = self
            .models
            .iter()
            .map(|model| &model.name)
            .chain(self.runners.iter().map(|runner| &runner.app));
        let mut names: Vec<String> = all.cloned().collect();
        names.dedup();
        names.sort_by_key(|name| !name.starts_with(Pipeline::LiveVideoToVideo.name()));
        if names.is_empty() {
            return "-".to_owned();
        }
        let more = names.len().saturating_sub(SHOWN);
        names.truncate(SHOWN);
        let names = names.join(", ");
        match more {
            0 => names,
            more => format!("{names} and {more} more"),
        }
    }
}

fn models(info: &OrchestratorInfo, wanted: &Capabilities) -> Vec<Model> {
    let prices = info.prices(wanted);
    let Some(offered) = &info.capabilities else {
        return Vec::new();
    };
    let slug = |capability: Capability| {
        capability
            .slug()
            .map_or_else(|| capability.id().to_string(), str::to_owned)
    };
    offered
        .models()
        .map(|(capability, name, model)| Model {
            name: format!("{}/{name}", slug(capability)),
            warm: model.warm,
            idle: model.capacity,
            wei_per_unit: prices(capability, name).map(|price| price.to_string()),
        })
        .collect()
}

fn runners(found: &Found) -> Vec<Runner> {
    let all = found.runners.iter();
    all.map(|runner| Runner {
        url: runner.url.to_string(),
        app: runner.app.clone(),
        version: runner.version.clone(),
        available: runner.available,
    })
    .collect()
}
