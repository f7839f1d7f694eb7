//! `live`: an MPEG-TS stream through a live video job.

use livepeer_core::capabilities::Capabilities;
use livepeer_runtime::api::LiveVideoJob;
use livepeer_runtime::{Driver, Runtime};

use super::job::{self, Plan};
use super::sink::Sink;
use super::source::{self, Input};
use super::stop::Stop;
use super::{find, on, peers};
use crate::args::{LiveArgs, Place};
use crate::ui::{self, Failed, Outcome};

pub(super) fn run(args: &LiveArgs) -> Outcome {
    on::run(args.runtime, Live(args))
}

struct Live<'a>(&'a LiveArgs);

impl on::Work for Live<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>) -> Outcome {
        let args = self.0;
        let endpoints = args.endpoints()?;
        let stop = Stop::listen()?;
        let input = source::start(Input::from_place(&args.input, args.repeat))?;
        let driver = peers::with_pins(driver, &args.peers)?;
        let wanted = Capabilities::live_video(args.model_id.as_str());
        let orchestrators = find::orchestrators(&driver, &endpoints, &wanted).await?;
        let payer = peers::payer(&endpoints);
        let plan = Plan {
            model: args.model_id.clone(),
            speed: args.speed,
            limit: args.duration,
            total: None,
            pays: payer.pays(),
            whole: orchestrators.len() > 1,
        };
        let mut builder = LiveVideoJob::builder(&driver, &args.model_id)
            .orchestrators(orchestrators)
            .payer(payer)
            .trust(peers::trust(&args.peers))
            .pin_change(peers::PIN_CHANGE);
        if let Some(params) = &args.params {
            builder = builder.params(params.clone());
        }
        if let Some(price) = args.max_price {
            builder = builder.max_price(price);
        }
        // Only now: a file is not emptied for a command line that is no good.
        let sink = Sink::open(&args.output)?;
        let summary = job::run(&driver, builder, &plan, input, sink, stop).await;
        peers::save_pins(&driver, &args.peers)?;
        let summary = summary?;
        match (args.json, &args.output) {
            (true, _) => ui::print_json(&summary)?,
            (false, Place::Standard) => ui::tell(&summary.to_table()),
            (false, Place::File(_)) => ui::print(&summary.to_table())?,
        }
        if summary.segments_lost > 0 {
            return Err(Failed::new(
                format_args!("{} segments were lost", summary.segments_lost),
                "See the log with --log info; the output has all the others",
            ));
        }
        Ok(())
    }
}
