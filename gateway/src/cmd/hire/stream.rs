//! `byoc stream`: video through a container, from a file to a file.

use std::time::{Duration, Instant};

use async_channel::Receiver;
use futures_lite::future;
use livepeer_media::Pacer;
use livepeer_runtime::api::{ByocStreamBuilder, Error, Input, Output};
use livepeer_runtime::{Driver, Runtime};

use super::report::Report;
use super::{Desk, on_terms, streamed};
use crate::args::ByocStreamArgs;
use crate::cmd::live::job::{next_cut, send};
use crate::cmd::on;
use crate::cmd::sink::{Sink, Written};
use crate::cmd::socket::sleep_until;
use crate::cmd::source::{self, Cut};
use crate::cmd::stop::Stop;
use crate::ui::{self, Failed, Outcome};

/// How long the end of an interrupted stream may take.
const CLOSES_WITHIN: Duration = Duration::from_secs(15);

pub(super) fn run(args: &ByocStreamArgs) -> Outcome {
    on::run(args.hire.runtime, Stream(args))
}

struct Stream<'a>(&'a ByocStreamArgs);

impl on::Work for Stream<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        streamed(&args.hire, &args.input, &args.output).are_apart("byoc stream")?;
        let cuts = source::start(source::Input::from_place(&args.input, false))?;
        let desk = Desk::hired(driver, &args.hire, "byoc stream").await?;
        let mut job = desk
            .gateway
            .byoc(&args.capability)
            .request(&args.request)
            .parameters(&args.parameters)
            .within(args.within);
        job = on_terms!(job, desk, args.hire);
        if args.may_repeat {
            job = job.may_repeat();
        }
        let mut stream = job.stream();
        if let Some(params) = &args.params {
            stream = stream.params(params.clone());
        }
        let mut report = Report::of_container(&args.capability);
        let began = Instant::now();
        let outcome = done(&desk.driver, stream, cuts, args, &stop, &mut report).await;
        report.ended(None, began.elapsed());
        desk.told(&args.hire, &report, outcome)
    }
}

/// Has the stream run until its input is over and the rest of the output is there.
async fn done<R: Runtime>(
    driver: &Driver<R>,
    builder: ByocStreamBuilder<R>,
    cuts: Receiver<Cut>,
    args: &ByocStreamArgs,
    stop: &Stop,
    report: &mut Report,
) -> Outcome {
    // Nothing is paid for an input that is no good.
    let first = next_cut(&cuts).await?;
    let sink = Sink::open(&args.output)?;
    stop.in_order(CLOSES_WITHIN);
    let starting = async {
        let started = builder.start().await;
        if let Err(Error::Byoc(failed)) = &started {
            report.not_done(failed);
        }
        Ok(started?)
    };
    let (stream, input, output) = future::or(starting, interrupted(stop)).await?;
    let publishing = async {
        match input {
            Some(input) => publish(driver, input, first, &cuts, args).await,
            None => Ok(()),
        }
    };
    let reading = async {
        match output {
            Some(output) => read(output, &sink, &mut report.bytes).await,
            None => Ok(()),
        }
    };
    let carrying = async { future::try_zip(publishing, reading).await.map(drop) };
    let writing = async {
        sink.failed().await;
        Ok(())
    };
    // An end in order is that of the output, too.
    let failing = async {
        stream.wait().await?;
        future::pending().await
    };
    let outcome = future::or(
        future::or(carrying, writing),
        future::or(failing, interrupted(stop)),
    )
    .await;
    if let Some(begun) = stream.begun() {
        report.streamed(&begun, &stream.media_figures());
    }
    // The first cause counts.
    let outcome = outcome.and(stream.stop().await.map(drop).map_err(Failed::from));
    let finished = sink.finish(outcome.is_ok());
    outcome.and(finished.map(|written| {
        if let Written::UntilClosed(name) = written {
            ui::tell(&format!(
                "{name} was closed by its reader, so the stream was ended"
            ));
        }
    }))?;
    report.is_whole()
}

/// Waits for Ctrl-C.
async fn interrupted<T>(stop: &Stop) -> Result<T, Failed> {
    stop.pressed().await;
    Err(Failed::interrupted())
}

/// Publishes the input to its end.
async fn publish<R: Runtime>(
    driver: &Driver<R>,
    mut input: Input<R>,
    first: Cut,
    cuts: &Receiver<Cut>,
    args: &ByocStreamArgs,
) -> Outcome {
    let mut pacer = Pacer::new(args.speed);
    let mut next = first;
    while !matches!(next, Cut::End(_)) {
        sleep_until(driver, pacer.next_due(driver.now())).await;
        let (_, length) = send(driver, &mut input, next, cuts, args.speed).await?;
        pacer.plays(length);
        next = next_cut(cuts).await?;
    }
    input.close().await;
    Ok(())
}

/// Writes whole segments until the output ends, or nobody takes them.
async fn read<R: Runtime>(mut output: Output<R>, sink: &Sink, bytes: &mut u64) -> Outcome {
    while let Some((_, segment)) = output.next_segment().await? {
        *bytes += segment.len() as u64;
        if !sink.write(segment).await {
            // What was wrong is said at the end.
            break;
        }
    }
    Ok(())
}
