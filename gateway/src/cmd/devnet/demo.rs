//! `demo`: the development network, one paid live job through it, checked byte for byte, and one paid picture.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use livepeer_core::wire::batch::{BadRequest, BatchRequest};
use livepeer_core::{Pipeline, Signers};
use livepeer_runtime::api::{Gateway, Payer};
use livepeer_runtime::{Driver, Runtime};

use super::network::{NOOP, Network, Options};
use crate::args::{DemoArgs, Join};
use crate::cmd::files::Late;
use crate::cmd::live::job::{self, Origin, Plan};
use crate::cmd::on;
use crate::cmd::sink::Sink;
use crate::cmd::source::{self, CLIP, Input};
use crate::cmd::stop::Stop;
use crate::ui::{self, BatchSummary, Failed, Money, Outcome, Summary};

/// The segments that it makes.
const SEGMENTS: u64 = 12;

/// The side of the picture, in pixels.
const SIDE: u32 = 512;

pub(crate) fn run(args: &DemoArgs) -> Outcome {
    on::run(args.runtime, Demo(args))
}

struct Demo<'a>(&'a DemoArgs);

impl on::Work for Demo<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let back = Back::default();
        let sink = match &args.output {
            Some(path) => {
                let file = Keep(Late::open(path)?, back.clone());
                Sink::to(path.display().to_string(), file)
            }
            None => Sink::to("nowhere".to_owned(), Keep(io::sink(), back.clone())),
        };
        let network = Network::start(
            &driver,
            Options::private(args.join),
            Arc::new(|line| tracing::info!("{line}")),
        )
        .await?;
        let mut outcome = through(&driver, &network, args, sink, stop).await;
        if let Ok((summary, Ok(()))) = &mut outcome {
            match picture(&driver, &network).await {
                Ok(batch) => summary.batch = Some(batch),
                Err(failed) => outcome = Err(failed),
            }
        }
        let (payments_refused, balance) = match &outcome {
            Ok((summary, _)) => (
                network.figures().refused,
                network.balance(&summary.manifest_id),
            ),
            Err(_) => (0, None),
        };
        network.stop().await;
        let (summary, outcome) = outcome?;
        let summary = Summary {
            payments_refused,
            balance: balance.map(Money),
            ..summary
        };
        let outcome = outcome.and_then(|()| judge(&summary, &back.bytes(), args.join));
        if args.json {
            return ui::print_json_with(&summary, outcome);
        }
        ui::print(&summary.to_table())?;
        outcome
    }
}

async fn through<R: Runtime>(
    driver: &Driver<R>,
    network: &Network<R>,
    args: &DemoArgs,
    sink: Sink,
    stop: Stop,
) -> Result<(Summary, Outcome), Failed> {
    let payer = Payer::Remote(Signers::new(network.signer().clone()));
    let plan = Plan {
        chain: None,
        model: NOOP.to_owned(),
        speed: args.speed,
        limit: None,
        total: Some(SEGMENTS),
        pays: true,
        whole: false,
    };
    let builder = Gateway::from(driver.clone())
        .live_video(NOOP)
        .orchestrators(network.orchestrators().cloned())
        .payer(payer);
    let input = source::start(Input::Bytes(CLIP))?;
    job::run(
        driver,
        builder,
        &plan,
        Origin::Cuts(input, None),
        sink,
        stop,
    )
    .await
}

/// Has a picture made from a text.
async fn picture<R: Runtime>(
    driver: &Driver<R>,
    network: &Network<R>,
) -> Result<BatchSummary, Failed> {
    let request = || -> Result<BatchRequest, BadRequest> {
        let mut request = BatchRequest::new(Pipeline::TextToImage);
        request.set("prompt", "a coffee shop at sunset")?;
        request.set("width", i64::from(SIDE))?;
        request.set("height", i64::from(SIDE))?;
        Ok(request)
    };
    let request = request().map_err(|bad| fault(&bad.to_string()))?;
    let model = request.model().to_owned();
    let job = Gateway::from(driver.clone())
        .submit(request)
        .orchestrators(network.orchestrators().cloned())
        .payer(Payer::Remote(Signers::new(network.signer().clone())))
        .send()
        .await
        .map_err(|error| fault(&error.to_string()))?;
    let finished = job
        .answer()
        .await
        .map_err(|error| fault(&error.to_string()))?;
    let side = SIDE.to_be_bytes();
    let [file] = &finished.files[..] else {
        return Err(fault(&format!(
            "{} pictures came back",
            finished.files.len()
        )));
    };
    // The size of a PNG is behind its signature and the head of its first chunk.
    if file.content.get(16..24) != Some(&[side, side].concat()[..]) {
        return Err(fault("the picture has another size than was asked for"));
    }
    let served = finished.served;
    Ok(BatchSummary {
        pipeline: Pipeline::TextToImage.name(),
        model,
        bytes: file.content.len() as u64,
        units: served.units,
        unit: Pipeline::TextToImage.work_unit().name(),
        cost: Money(served.cost),
        tickets: served.tickets.into(),
        waited: served.waited,
    })
}

fn fault(cause: &str) -> Failed {
    Failed::new(cause, "This is a fault of the program; please report it")
}

/// Whether everything came back and was paid for.
fn judge(summary: &Summary, back: &[u8], join: Join) -> Outcome {
    let failed = |cause: String| Err(fault(&cause));
    let payments_refused = summary.payments_refused > 0 || summary.payments == 0;
    if join == Join::Next
        && !payments_refused
        && summary.segments_out == SEGMENTS
        && summary.segments_lost > 0
        && !back.is_empty()
        && CLIP.ends_with(back)
    {
        return Err(Failed::new(
            format_args!(
                "the first {} of {SEGMENTS} segments did not come back: the runner began to read \
                 with the segment after them",
                summary.segments_lost
            ),
            "Runners do so with --join next, and no gateway can help it; with --join late or \
             at-once nothing is lost",
        ));
    }
    if summary.segments_out != SEGMENTS
        || summary.segments_in != SEGMENTS
        || summary.segments_lost > 0
    {
        return failed(format!(
            "{} of {SEGMENTS} segments went out, {} came back whole, {} were lost",
            summary.segments_out, summary.segments_in, summary.segments_lost
        ));
    }
    if back != CLIP {
        let same = back.iter().zip(CLIP).take_while(|(a, b)| a == b).count();
        return failed(format!(
            "what came back differs from what went out after {same} bytes"
        ));
    }
    if payments_refused {
        return failed(format!(
            "{} payments were accepted and {} refused",
            summary.payments, summary.payments_refused
        ));
    }
    Ok(())
}

/// The output that came back, cut off one byte after the length of the input.
#[derive(Clone, Default)]
struct Back(Arc<Mutex<Vec<u8>>>);

impl Back {
    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = CLIP.len() + 1 - kept.len();
        kept.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    fn bytes(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clone()
    }
}

/// Passes bytes on and keeps a copy.
struct Keep<W>(W, Back);

impl<W: Write> Write for Keep<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1.keep(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(lost: u64) -> Summary {
        Summary {
            segments_out: SEGMENTS,
            segments_in: SEGMENTS - lost,
            segments_lost: lost,
            payments: 1,
            ..Summary::default()
        }
    }

    fn told(summary: &Summary, back: &[u8], join: Join) -> String {
        match judge(summary, back, join) {
            Ok(()) => String::new(),
            Err(failed) => failed.line(),
        }
    }

    #[test]
    fn what_a_runner_misses_by_joining_late_is_no_fault_of_the_program() {
        let tail = &CLIP[188 * 100..];
        assert_eq!(told(&summary(0), CLIP, Join::Next), "");
        let joined = told(&summary(1), tail, Join::Next);
        assert!(joined.contains("--join next"), "{joined}");
        // Neither a loss in the middle nor one of a runner that joins with the open segment.
        let middle = [&CLIP[..188], tail].concat();
        for (back, join) in [(&middle[..], Join::Next), (tail, Join::Late)] {
            let fault = told(&summary(1), back, join);
            assert!(fault.contains("fault of the program"), "{fault}");
        }
    }
}
