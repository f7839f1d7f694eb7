//! `live`: a stream through a live video job, from a file or from a sender that comes, to a file or a page.

pub(super) mod job;
mod stage;

use livepeer_core::capabilities::Capabilities;
use livepeer_runtime::api::Gateway;
use livepeer_runtime::{Driver, Runtime};

use super::files::Files;
use super::purse::Purse;
use super::sink::Sink;
use super::source::{self, Input};
use super::stop::Stop;
use super::{find, on, peers};
use crate::args::{LiveArgs, Place, Source};
use crate::ui::{self, Failed, Outcome};
use job::{Origin, Plan};
use stage::Stage;

pub(super) fn run(args: &LiveArgs) -> Outcome {
    on::run(args.runtime, Live(args))
}

struct Live<'a>(&'a LiveArgs);

impl on::Work for Live<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let endpoints = args.endpoints()?;
        files(args).are_apart("live")?;
        let input = match &args.input {
            Source::Place(place) => Some(source::start(Input::from_place(place, args.repeat))?),
            Source::Rtmp { .. } | Source::Whip { .. } => None,
        };
        let driver = peers::with_pins(driver, &args.peers)?;
        let purse = Purse::of_job(driver, &args.pay, args.max_price, "live").await?;
        let driver = purse.driver.clone();
        let wanted = Capabilities::live_video(args.model_id.as_str());
        let orchestrators = find::orchestrators(&driver, &endpoints, &wanted).await?;
        let payer = purse.payer(&endpoints);
        let plan = Plan {
            model: args.model_id.clone(),
            speed: args.speed,
            limit: args.duration,
            total: None,
            pays: payer.pays(),
            whole: orchestrators.len() > 1,
            chain: purse.views(),
        };
        let mut builder = Gateway::from(driver.clone())
            .live_video(&args.model_id)
            .orchestrators(orchestrators)
            .payer(payer)
            .output_within(args.output_timeout)
            .loading_within(args.loading_timeout)
            .trust(peers::trust(&args.peers))
            .pin_change(peers::pin_change(&args.peers));
        if let Some(params) = &args.params {
            builder = builder.params(params.clone());
        }
        if let Some(price) = args.max_price {
            builder = builder.max_price(price);
        }
        // Only now: no file is made for a command line that is no good.
        let sink = match &args.output {
            Some(place) => Sink::open(place)?,
            None => Sink::to("nowhere".to_owned(), std::io::sink()),
        };
        let origin = match input {
            None => Origin::Sender(Stage::open(&driver, args).await?),
            Some(cuts) if !args.is_shown() => Origin::Cuts(cuts, None),
            Some(cuts) => Origin::Cuts(cuts, Some(Stage::open(&driver, args).await?)),
        };
        let ran = job::run(&driver, builder, &plan, origin, sink, stop).await;
        peers::save_pins(&driver, &args.peers)?;
        let (summary, outcome) = ran?;
        let outcome = outcome.and(if summary.segments_lost > 0 {
            Err(Failed::new(
                format_args!("{} segments were lost", summary.segments_lost),
                "See the log with --log info; the output has all the others",
            ))
        } else {
            Ok(())
        });
        // Also of a job that failed: it may have cost money.
        match (args.json, &args.output) {
            (true, _) => return ui::print_json_with(&summary, outcome),
            (false, Some(Place::Standard)) => ui::tell(&summary.to_table()),
            (false, _) => ui::print(&summary.to_table())?,
        }
        outcome
    }
}

/// The files that a job reads and writes.
fn files(args: &LiveArgs) -> Files {
    let key = &args.pay.key;
    let mut files = Files::default();
    if let Source::Place(place) = &args.input {
        files = files.input("--input", place);
    }
    if let Some(place) = &args.output {
        files = files.output("--output", place);
    }
    files
        .writes("--store", args.pay.store.as_deref())
        .writes("--pins", args.peers.pins.as_deref())
        .reads("--keystore", key.keystore.as_deref())
        .reads("--key-file", key.key_file.as_deref())
        .reads("--password-file", key.password_file.as_deref())
}
