//! `demo`: the development network and one paid job through it, checked byte for byte.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use livepeer_runtime::api::{LiveVideoJob, Payer};
use livepeer_runtime::{Driver, Runtime};

use super::files::Late;
use super::job::{self, Plan};
use super::network::{NOOP, Network, Options};
use super::on;
use super::sink::Sink;
use super::source::{self, Input};
use super::stop::Stop;
use crate::args::DemoArgs;
use crate::ui::{self, Failed, Money, Outcome, Summary};

/// Twelve seconds of 640 x 360, H.264 and AAC, a key frame a second.
const CLIP: &[u8] = include_bytes!("../../media/testsrc-360p30-12s.ts");

/// The segments that it makes.
const SEGMENTS: u64 = 12;

pub(super) fn run(args: &DemoArgs) -> Outcome {
    on::run(args.runtime, Demo(args))
}

struct Demo<'a>(&'a DemoArgs);

impl on::Work for Demo<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let same = Arc::new(AtomicUsize::new(0));
        let sink = match &args.output {
            Some(path) => {
                let file = Compare::new(Late::open(path)?, Arc::clone(&same));
                Sink::to(path.display().to_string(), file)
            }
            None => Sink::to(
                "nowhere".to_owned(),
                Compare::new(io::sink(), Arc::clone(&same)),
            ),
        };
        let network = Network::start(
            &driver,
            Options::private(args.join),
            Arc::new(|line| tracing::info!("{line}")),
        )
        .await?;
        let outcome = through(&driver, &network, args, sink, stop).await;
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
        let outcome = outcome.and_then(|()| judge(&summary, same.load(Ordering::Acquire)));
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
    let payer = Payer::Signer {
        urls: vec![network.signer().clone()],
        headers: Default::default(),
    };
    let plan = Plan {
        chain: None,
        model: NOOP.to_owned(),
        speed: args.speed,
        limit: None,
        total: Some(SEGMENTS),
        pays: true,
        whole: false,
    };
    let builder = LiveVideoJob::builder(driver, NOOP)
        .orchestrators(network.orchestrators().cloned())
        .payer(payer);
    let input = source::start(Input::Bytes(CLIP))?;
    job::run(driver, builder, &plan, input, sink, stop).await
}

/// Whether everything came back and was paid for.
fn judge(summary: &Summary, same: usize) -> Outcome {
    let failed = |cause: String| {
        Err(Failed::new(
            cause,
            "This is a fault of the program; please report it",
        ))
    };
    if summary.segments_out != SEGMENTS
        || summary.segments_in != SEGMENTS
        || summary.segments_lost > 0
    {
        return failed(format!(
            "{} of {SEGMENTS} segments went out, {} came back whole, {} were lost",
            summary.segments_out, summary.segments_in, summary.segments_lost
        ));
    }
    if same != CLIP.len() || summary.bytes_in != CLIP.len() as u64 {
        return failed(format!(
            "what came back differs from what went out after {same} bytes"
        ));
    }
    if summary.payments_refused > 0 || summary.payments == 0 {
        return failed(format!(
            "{} payments were accepted and {} refused",
            summary.payments, summary.payments_refused
        ));
    }
    Ok(())
}

/// Passes bytes on and counts how many are, from the first on, those of the clip.
struct Compare<W> {
    to: W,
    at: usize,
    same: Arc<AtomicUsize>,
}

impl<W> Compare<W> {
    const fn new(to: W, same: Arc<AtomicUsize>) -> Self {
        Self { to, at: 0, same }
    }
}

impl<W: Write> Write for Compare<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        if self.same.load(Ordering::Acquire) == self.at {
            let rest = CLIP.get(self.at..).unwrap_or_default();
            let same = bytes[..written]
                .iter()
                .zip(rest)
                .take_while(|(a, b)| a == b)
                .count();
            self.same.fetch_add(same, Ordering::AcqRel);
        }
        self.at += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
