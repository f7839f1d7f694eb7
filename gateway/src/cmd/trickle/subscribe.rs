//! `trickle sub`: a channel to a file or a pipe.

use std::time::{Duration, Instant};

use futures_lite::future;
use livepeer_core::trickle::Ending;
use livepeer_core::trickle::subscriber::{Event, Subscriber};
use livepeer_runtime::{Driver, Handle, Runtime};

use super::failed;
use super::figures::Figures;
use crate::args::{Place, SubArgs};
use crate::cmd::on;
use crate::cmd::sink::Sink;
use crate::cmd::stop::Stop;
use crate::ui::{Failed, Outcome, Progress};

/// The advice for a channel that is not there.
const MISSING: &str = "Check its name, or wait longer for it with --wait";

/// How long what was read may take to be written after Ctrl-C: a pipe may take nothing.
const CLOSES_WITHIN: Duration = Duration::from_secs(3);

pub(super) struct Subscribe<'a>(pub(super) &'a SubArgs);

impl on::Work for Subscribe<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let sink = Sink::open(&args.output)?;
        stop.in_order(CLOSES_WITHIN);
        let channel = Subscriber::new(
            driver.now(),
            args.config(),
            args.channel.clone(),
            args.start,
        );
        let channel = driver.drive(channel);
        let mut figures = Figures::new(args.channel.to_string(), "hand-over p50 / p99");
        let read = future::or(
            async {
                stop.pressed().await;
                Err(Failed::interrupted())
            },
            future::or(read(&channel, &sink, args, &mut figures), async {
                sink.failed().await;
                Ok(())
            }),
        )
        .await;
        channel.close();
        let written = sink.finish(read.is_ok());
        let lost = figures.lost;
        let missed = if lost > 0 {
            Err(Failed::new(
                format_args!("{lost} segments were missed, in whole or in part"),
                "Read faster, or publish slower: a server keeps five segments",
            ))
        } else {
            Ok(())
        };
        let outcome = read.and(written.map(drop)).and(missed);
        figures.show(args.json, args.output != Place::Standard, outcome)
    }
}

async fn read<R: Runtime>(
    channel: &Handle<Subscriber, R>,
    sink: &Sink,
    args: &SubArgs,
    figures: &mut Figures,
) -> Outcome {
    let mut progress = Progress::new("segments", None);
    // When the last segment ended, until the next one has a byte.
    let mut ended: Option<Instant> = None;
    while let Some(event) = channel.next().await {
        match event {
            Event::Data(_, data) => {
                if let Some(ended) = ended.take() {
                    figures.latency.record(ended.elapsed());
                }
                figures.bytes += data.len() as u64;
                if !sink.write(data).await {
                    // What was wrong is said at the end.
                    return Ok(());
                }
            }
            Event::End(_) => {
                figures.segments += 1;
                ended = Some(Instant::now());
                progress.set(figures.segments, || figures.note());
                if args
                    .segments
                    .is_some_and(|most| figures.segments >= most.get() as u64)
                {
                    return Ok(());
                }
            }
            Event::Truncated(..) => figures.lost += 1,
            Event::Gap(missed) => figures.lost += missed.end.get() - missed.start.get(),
            Event::Closed(Ending::Failed(failure)) => return Err(failed(failure, MISSING)),
            Event::Closed(_) => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}
