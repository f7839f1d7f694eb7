//! Batch work of the development network: prices, and what each quirk of the command line is.

use std::num::NonZeroU32;

use livepeer_core::Pipeline;
use livepeer_core::money::Price;
use livepeer_core::wire::batch::{Media, Probe};
use livepeer_orchestrator::{BatchModel, Config, Mishap, Quirks};

use crate::args::{BatchArgs, Quirk};

/// Wei per pixel. A second costs 2,764,800,000 wei, about a third of the usual ticket.
pub(super) const LIVE_PRICE: i64 = 100;

/// Wei for a unit of each pipeline: a picture of 512 by 512 costs a sixth of the usual ticket.
const fn price(pipeline: Pipeline) -> i64 {
    match pipeline {
        Pipeline::TextToImage | Pipeline::ImageToImage => 4_800,
        Pipeline::ImageToVideo => 480,
        Pipeline::Upscale => 1_200,
        Pipeline::SegmentAnything2 | Pipeline::ImageToText => 800,
        Pipeline::AudioToText | Pipeline::TextToSpeech => 12_000,
        Pipeline::Llm => 250_000,
        Pipeline::LiveVideoToVideo => LIVE_PRICE,
    }
}

/// Adds the batch models to an orchestrator.
pub(super) fn with_models(mut config: Config, args: &BatchArgs) -> Config {
    config.measure = measure;
    args.models()
        .into_iter()
        .fold(config, |config, (pipeline, name)| {
            let model = BatchModel {
                capacity: args.capacity,
                price: Price::new(price(pipeline), 1),
                takes: args.work_time,
                pace: args.token_time,
                ..BatchModel::default()
            };
            config.with_batch_model(pipeline, name, model)
        })
}

/// Measures a file as gateways do before they pay for it.
fn measure(probe: Probe, file: &[u8]) -> Option<Media> {
    Some(match probe {
        Probe::Image => {
            let image = livepeer_media::probe::image(file).ok()?;
            Media::Image {
                width: image.width,
                height: image.height,
            }
        }
        Probe::Audio => Media::Audio {
            duration: livepeer_media::probe::sound(file).ok()?.duration,
        },
    })
}

/// All these quirks together.
pub(super) fn quirks(names: &[Quirk]) -> Quirks {
    let mut quirks = Quirks::default();
    let runner = |status, detail: &str| Some(Mishap::Answers(status, detail.to_owned()));
    for name in names {
        match name {
            Quirk::Silent => quirks.silent = true,
            Quirk::Busy => quirks.busy = true,
            Quirk::Gone => quirks.no_batch = true,
            Quirk::DataUrls => quirks.data_urls = true,
            Quirk::EqualNames => quirks.equal_names = true,
            Quirk::StaleTickets => quirks.stale_every = NonZeroU32::new(2),
            Quirk::PriceLie => quirks.told_price = Price::new(1, 1),
            Quirk::Overcharge => quirks.overcharge = Some(10),
            Quirk::Runner400 => quirks.runner = runner(400, "the runner refuses this prompt"),
            Quirk::Runner422 => {
                let detail = r#"{"detail":[{"loc":["body","prompt"],"msg":"the runner refuses this prompt","type":"value_error"}]}"#;
                quirks.runner = runner(422, detail);
            }
            Quirk::Runner500 => quirks.runner = runner(500, "out of memory"),
            Quirk::Runner503 => quirks.runner = runner(503, "loading"),
            Quirk::RunnerGone => quirks.runner = Some(Mishap::Gone),
            Quirk::RunnerSilent => quirks.runner = Some(Mishap::Silent),
            Quirk::NotJson => quirks.runner = Some(Mishap::NotJson),
            Quirk::NoChoices => quirks.runner = Some(Mishap::NoChoices),
            Quirk::ErrorChunk => quirks.runner = Some(Mishap::ErrorChunk),
            Quirk::DyingStream => quirks.runner = Some(Mishap::Dies),
            Quirk::BreakingStream => quirks.runner = Some(Mishap::Breaks),
            Quirk::BusyAtTimes => quirks.busy_every = NonZeroU32::new(5),
            Quirk::StaleAtTimes => quirks.stale_every = NonZeroU32::new(8),
            Quirk::LeakyPlaces => quirks.leaky_places = true,
            Quirk::BlankLines => quirks.flood = true,
            Quirk::FlatStatus => quirks.flat_status = true,
            Quirk::Refuse0x => quirks.refuse_0x = true,
            Quirk::Elsewhere => quirks.elsewhere = true,
            Quirk::ForgetRunners => quirks.forget_every = NonZeroU32::new(3),
        }
    }
    quirks
}
