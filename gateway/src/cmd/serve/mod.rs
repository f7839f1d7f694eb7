//! `serve`: the front door that applications call, and the work behind it.

mod apps;
mod catalogue;
mod config;
mod containers;
mod dollar;
mod door;
mod folder;
mod live;
pub(super) mod pages;
mod probe;
mod reins;
mod sessions;
mod wiring;

use std::sync::Arc;
use std::time::Duration;

use async_channel::Receiver;
use futures_lite::future;
use livepeer_core::front::Front;
use livepeer_core::handshake::PinChange;
use livepeer_core::http::Trust;
use livepeer_core::payment::Budget;
use livepeer_runtime::api::Gateway;
use livepeer_runtime::http::{Limits, Server};
use livepeer_runtime::tls::CurrentIdentity;
use livepeer_runtime::{Driver, Handle, Runtime, seed};
use tracing::{info, warn};

use super::files::Files;
use super::purse::{Purse, Terms};
use super::socket::sleep_until;
use super::stop::Stop;
use super::{lock, on, peers};
use crate::args::FrontArgs;
use crate::ui::{self, Failed, Outcome};
use catalogue::Catalogue;
use config::{Config, Drain};
use dollar::Dollar;
use live::{Bound, Live};
use wiring::Wiring;

/// How long sessions of apps are given to stop when the time of requests is over, and then live streams and connections to
/// close.
const SPARE: Duration = Duration::from_secs(2);
/// How long closing may take beyond the times that requests are given: what is closed in order ends before that.
const CLOSING: Duration = Duration::from_secs(5);

/// The mode of the files of unix sockets for operators: whoever may use one is an operator.
const OPS_MODE: u32 = 0o600;

pub(super) fn run(args: &FrontArgs) -> Outcome {
    let config =
        Config::load(args).map_err(|problems| problems.into_failed(args.config.as_ref()))?;
    if args.print_config {
        return ui::print(&config.with_origins());
    }
    if args.check {
        config.tell_warnings();
        return ui::print("the configuration can be used");
    }
    config.tell_warnings();
    let settings = &config.settings;
    ui::log::set(&settings.log.level, settings.log.form)?;
    let (runtime, threads) = (settings.runtime, settings.threads);
    on::run_with(runtime, threads, Serve { args, config })
}

struct Serve<'a> {
    args: &'a FrontArgs,
    config: Config,
}

impl on::Work for Serve<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let Self { args, config } = self;
        let settings = &config.settings;
        files(settings).are_apart("serve")?;
        // Before the key: a port that is taken needs no password.
        let places = &settings.doors;
        let doors = door::open(&driver, &places.listen, places.mode, "--listen").await?;
        let ops = door::open(&driver, &places.ops, OPS_MODE, "--ops").await?;
        let shown = { places.tls.as_ref() }
            .map(CurrentIdentity::new)
            .transpose()
            .map_err(|why| Failed::new(why, "Correct serve.tls.cert and serve.tls.key"))?;
        let limits = Limits {
            max_connections: places.connections,
            ..Limits::front_door()
        };
        let ingest = Bound::open(&driver, &settings.ingest).await?;
        let driver = peers::with_pins_of(driver, settings.pins.as_deref())?;
        let terms = Terms {
            store: settings.store.as_deref(),
            key: &settings.key,
            chain: &settings.chain,
            budget: budget(args, settings),
            one_job: false,
            policy: &|address| args.pay.policy(address, None),
            command: "serve",
        };
        let purse = Purse::open(driver, terms).await?;
        let driver = purse.driver.clone();
        let trust = if settings.ca_trust {
            Trust::Public
        } else {
            Trust::FirstUse
        };
        let pin_change = if args.peers.pins_strict {
            PinChange::Refuse
        } else {
            PinChange::AcceptOnce
        };
        let (drain, pins) = (settings.drain, settings.pins.clone());
        let objects = settings
            .objects
            .as_deref()
            .map(folder::Folder::open)
            .transpose()?;
        let reloads = stop.reloads();
        let last = drain.work.max(drain.live);
        stop.in_order(settings.front.drain_grace + last + CLOSING);
        let door = Arc::new(settings.front.clone());
        let front = driver.drive(Front::new(driver.now(), Arc::clone(&door), seed()));
        let operators = driver.drive(Front::new(
            driver.now(),
            Arc::new(pages::operators(&door)),
            seed(),
        ));
        let gateway = Gateway::from(driver.clone());
        let wiring = Arc::new(Wiring::new(
            gateway,
            front.clone(),
            config,
            purse,
            wiring::Peers {
                trust,
                pin_change,
                open: args.peers.allow_private,
            },
            objects,
        ));
        let mut urls = Vec::new();
        let mut servers = Vec::new();
        for door in doors {
            urls.push(door.address(shown.is_some())?);
            servers.push(door.serve(&front, shown.as_ref(), limits)?);
        }
        let bound = urls.iter().find(|url| url.starts_with("http"));
        let bound = bound.cloned().unwrap_or_default();
        let ways = ingest.serve(&driver, &wiring.config().settings.ingest, bound)?;
        let live = Arc::new(Live::new(Arc::clone(&wiring), ways));
        let mut pages = Vec::new();
        for door in ops {
            pages.push(door.address(false)?);
            servers.push(door.serve(&operators, None, limits)?);
        }
        let told = Arc::clone(&live);
        let tell = move |news| told.hear(news);
        driver.runtime().spawn(Arc::clone(&wiring).run(tell));
        driver.runtime().spawn(Arc::clone(&live).run());
        driver
            .runtime()
            .spawn(Arc::clone(&wiring).answer(operators.clone(), live.entry().clone()));
        driver.runtime().spawn(Arc::clone(&wiring).keep_warm());
        let (look, looking) = async_channel::bounded(1);
        let dollar = Arc::new(Dollar::new(Arc::clone(&wiring), look));
        driver.runtime().spawn(Arc::clone(&dollar).run());
        driver
            .runtime()
            .spawn(Catalogue::new(Arc::clone(&wiring)).keep(looking));
        let ways = live.places();
        ui::print(&started(&urls, &pages, &ways, &wiring))?;
        let reloading = reload(
            &wiring,
            &live,
            &dollar,
            args,
            shown.as_ref(),
            &servers,
            reloads,
        );
        future::or(stop.pressed(), reloading).await;
        end(&driver, &front, servers, &wiring, &live, drain).await;
        peers::save_pins_to(&driver, pins.as_deref())?;
        ui::tell("stopped");
        Ok(())
    }
}

/// The limits on what all work spends together.
fn budget(args: &FrontArgs, settings: &config::Settings) -> Budget {
    let mut budget = args.pay.budget();
    budget.per_hour.clone_from(&settings.max_spend_per_hour);
    budget
}

/// The files that a gateway reads and writes.
fn files(settings: &config::Settings) -> Files {
    Files::default()
        .writes("store.path", settings.store.as_deref())
        .writes("orchestrators.pins", settings.pins.as_deref())
        .reads("payer.keystore", settings.key.keystore.as_deref())
        .reads("payer.key_file", settings.key.key_file.as_deref())
        .reads("payer.password_file", settings.key.password_file.as_deref())
}

fn started<R: Runtime>(
    urls: &[String],
    pages: &[String],
    ways: &[String],
    wiring: &Wiring<R>,
) -> String {
    let payer = wiring.purse().address();
    let pays = payer.map_or_else(String::new, |address| format!("  pays as {address}"));
    let doors = urls.iter().map(|url| format!("serve   {url}{pays}\n"));
    let ways = ways.iter().map(|way| format!("{way}\n"));
    let ops = pages.iter().map(|url| match url.starts_with("unix:") {
        true => format!("ops     {url}\n"),
        false => format!("ops     {url}/metrics\n"),
    });
    doors.chain(ways).chain(ops).collect()
}

/// Reads the configuration anew whenever the process is told to, and the certificate with it. Nothing is taken of one that is wrong, or that needs a
/// restart.
async fn reload<R: Runtime>(
    wiring: &Wiring<R>,
    live: &Live<R>,
    dollar: &Dollar<R>,
    args: &FrontArgs,
    shown: Option<&CurrentIdentity>,
    servers: &[Server<R>],
    asked: Receiver<()>,
) {
    while asked.recv().await.is_ok() {
        let config = match Config::load(args) {
            Ok(config) => config,
            Err(problems) => {
                wiring.reload_failed();
                for line in problems.lines() {
                    warn!("configuration: {line}");
                    ui::tell(&format!("error: {line}"));
                }
                ui::tell("the configuration stays as it was");
                continue;
            }
        };
        let mut changes = wiring.config().changes(&config);
        let places = &config.settings.doors;
        if shown.is_some() != places.tls.is_some() {
            // Ports that speak HTTP go on speaking it.
            changes.live.retain(|key| !key.starts_with("serve.tls."));
            changes.fixed.push("serve.tls".to_owned());
        }
        if !changes.fixed.is_empty() {
            wiring.reload_failed();
            ui::tell(&format!(
                "error: {} cannot change without a restart; the configuration stays as it was",
                changes.fixed.join(", ")
            ));
            continue;
        }
        if let (Some(shown), Some(identity)) = (shown, &places.tls) {
            // The files may have another certificate under the same names.
            match shown.replace(identity) {
                Ok(true) => changes.live.push("the certificate of serve.tls".to_owned()),
                Ok(false) => {}
                // It was seen to fit when it was read.
                Err(why) => warn!(%why, "the certificate stays as it was"),
            }
        }
        for server in servers {
            server.set_max_connections(places.connections);
        }
        config.tell_warnings();
        if changes.live.is_empty() {
            ui::tell("the configuration is read anew: nothing changed");
            continue;
        }
        info!(keys = changes.live.join(", "), "the configuration changed");
        let log = &config.settings.log;
        if let Err(failed) = ui::log::set(&log.level, log.form) {
            warn!("{}", failed.line());
        }
        let limits = budget(args, &config.settings);
        if let Some(limit) = wiring.gateway().driver().limit() {
            limit.with(|spending, _| spending.set_limits(limits.per_job, limits.per_hour));
        }
        wiring.purse().set_endpoints(&config.settings.chain.rpc);
        wiring.set_config(config);
        live.set_config();
        dollar.set_config();
        ui::tell(&format!(
            "the configuration changed: {}",
            changes.live.join(", ")
        ));
        // Names, prices and places may be others now.
        dollar.look();
    }
    // Nobody can ask any more.
    future::pending().await
}

/// Ends in order: new work is refused, what runs may finish, then the sockets close.
async fn end<R: Runtime>(
    driver: &Driver<R>,
    front: &Handle<Front, R>,
    servers: Vec<Server<R>>,
    wiring: &Wiring<R>,
    live: &Live<R>,
    drain: Drain,
) {
    // Balancers and senders that know of nothing yet are served so long.
    let taken = driver.now() + wiring.config().settings.front.drain_grace;
    front.with(Front::drain);
    live.drain(taken, taken + drain.live);
    let working = async {
        future::or(wiring.drained(), sleep_until(driver, taken + drain.work)).await;
        // Whatever goes on still: sessions that nobody stops stay occupied, and paid for.
        let stopped = driver.now() + SPARE;
        future::or(wiring.end_sessions(), sleep_until(driver, stopped)).await;
    };
    let showing = async {
        sleep_until(driver, taken).await;
        future::or(live.drained(), sleep_until(driver, taken + drain.live)).await;
    };
    future::zip(working, showing).await;
    let closing = driver.now() + SPARE;
    future::or(live.end(), sleep_until(driver, closing)).await;
    for server in servers {
        server.shutdown(closing.max(taken + drain.work)).await;
    }
}
