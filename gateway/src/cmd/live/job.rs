//! A live video job: segments out, segments in, and the figures of both.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_channel::Receiver;
use bytes::BytesMut;
use futures_lite::future;
use livepeer_core::chain::ChainView;
use livepeer_media::{Pacer, Speed, pace};
use livepeer_runtime::api::{
    Input, JobEvent, LiveVideoJob, LiveVideoJobBuilder, MAX_SEGMENT_BYTES, Matching, Output,
    OutputEvent,
};
use livepeer_runtime::ingest::Show;
use livepeer_runtime::{Driver, Runtime};

use super::stage::Stage;
use crate::cmd::sink::{Sink, Written};
use crate::cmd::socket::sleep_until;
use crate::cmd::source::Cut;
use crate::cmd::stop::Stop;
use crate::ui::{self, Failed, Money, Outcome, Progress, Summary, duration};

/// After Ctrl-C, output that is on its way is waited for this long,
const GRACE: Duration = Duration::from_secs(2);
/// and the end of everything this long.
const CLOSES_WITHIN: Duration = Duration::from_secs(8);

/// Settings of a run, beside the job itself.
pub(crate) struct Plan {
    pub(crate) model: String,
    pub(crate) speed: Speed,
    /// Stop publishing after this much time.
    pub(crate) limit: Option<Duration>,
    /// Segments of the input, if that is known.
    pub(crate) total: Option<u64>,
    pub(crate) pays: bool,
    /// Write whole segments only: of one that is lost with its orchestrator nothing can be taken back.
    pub(crate) whole: bool,
    /// News of the chain, for those who pay with a key of their own.
    pub(crate) chain: Option<Receiver<ChainView>>,
}

/// The origin of a job's input.
pub(crate) enum Origin<R: Runtime> {
    /// A stream that is cut as it is read, and the stage on which its output is shown too, if it is.
    Cuts(Receiver<Cut>, Option<Stage<R>>),
    /// A sender that comes to a stage.
    Sender(Stage<R>),
}

impl<R: Runtime> Origin<R> {
    const fn show(&self) -> Option<&Show<R>> {
        match self {
            Self::Sender(stage) | Self::Cuts(_, Some(stage)) => Some(stage.show()),
            Self::Cuts(_, None) => None,
        }
    }
}

/// Figures of the job so far, as both directions write them down.
struct Figures {
    summary: Summary,
    progress: Progress,
    /// The times when the segments left whose return is awaited.
    left: VecDeque<Instant>,
    /// How many are not awaited any more.
    settled: u64,
    first_out: Option<Instant>,
}

/// The reason why the job was ended.
enum Ended {
    /// The input is over, or the time limit is.
    Input,
    Interrupted,
    /// The output could not be written any more.
    Sink,
}

/// Starts the job, carries segments until the input is over, and waits for the rest of the output. The figures come
/// with whether it failed or was interrupted; it is closed in order then.
///
/// # Errors
/// If the job does not start.
pub(crate) async fn run<R: Runtime>(
    driver: &Driver<R>,
    builder: LiveVideoJobBuilder<R>,
    plan: &Plan,
    origin: Origin<R>,
    sink: Sink,
    stop: Stop,
) -> Result<(Summary, Outcome), Failed> {
    // Nothing is paid for an input that is no good, or that does not come.
    let first = match &origin {
        Origin::Cuts(input, _) => Some(next_cut(input).await?),
        Origin::Sender(stage) => {
            stage.begun().await;
            None
        }
    };
    let began = Instant::now();
    stop.in_order(CLOSES_WITHIN);
    let (job, publisher, mut output) = future::or(
        async { builder.start().await.map_err(Failed::from).map(Some) },
        async {
            stop.pressed().await;
            Ok(None)
        },
    )
    .await?
    .ok_or_else(Failed::interrupted)?;
    let figures = Mutex::new(Figures {
        summary: Summary {
            orchestrator: job.orchestrator().to_string(),
            model: plan.model.clone(),
            manifest_id: job.channels().manifest_id.clone(),
            ..Summary::default()
        },
        progress: Progress::new("segments", plan.total),
        left: VecDeque::new(),
        settled: 0,
        first_out: None,
    });
    let show = || {
        let spent = job.spent();
        note(&figures, |figures| {
            let summary = &figures.summary;
            figures.progress.set(summary.segments_out, || {
                let latency = summary
                    .latency
                    .p50()
                    .map_or_else(String::new, |p50| format!(", {} p50", duration(p50)));
                format!(
                    "{} back{latency}, {} payments",
                    summary.segments_in, spent.payments
                )
            });
        });
    };
    let publishing = async {
        match (&origin, first) {
            (Origin::Cuts(input, _), Some(first)) => {
                publish(
                    driver, publisher, first, input, plan, &figures, &stop, &show,
                )
                .await
            }
            _ => feed(driver, publisher, origin.show(), plan, &figures, &stop).await,
        }
    };
    let reading = read(
        &job,
        (&mut output, origin.show()),
        &sink,
        plan.whole,
        &figures,
        &show,
    );
    let carrying = async {
        let (ended, ()) = future::try_zip(publishing, reading).await?;
        Ok(ended)
    };
    // Nothing more is sent or paid for then, whoever may still have something to say.
    let writing = async {
        sink.failed().await;
        Ok(Ended::Sink)
    };
    let failing = async { Err(Failed::from(failure_of(&job).await)) };
    let chained = async {
        if let Some(chain) = &plan.chain {
            while let Ok(view) = chain.recv().await {
                job.set_chain(view);
            }
        }
        future::pending().await
    };
    let watching = future::or(watch(&job, &figures), chained);
    let carrying = future::or(carrying, writing);
    let lingering = async {
        let ended = interrupted(&stop).await;
        sleep_until(driver, driver.now() + GRACE).await;
        ended
    };
    let outcome = future::or(
        future::or(carrying, lingering),
        future::or(failing, watching),
    )
    .await;
    let Figures {
        mut summary,
        progress,
        ..
    } = figures.into_inner().unwrap_or_else(PoisonError::into_inner);
    drop(progress);
    let spent = job.spent();
    let outcome = match outcome {
        Ok(Ended::Input) => future::or(end_of(&job), interrupted(&stop)).await,
        outcome => outcome,
    };
    let ending = match outcome {
        Ok(Ended::Input) => {
            // What the application got, and nothing else, says what was lost.
            let media = job.media_figures();
            summary.segments_in = media.answered;
            summary.segments_lost = media.missing;
            summary.matched_by = media.matching.map(Matching::as_str);
            Ok(())
        }
        Ok(Ended::Interrupted) => job
            .stop()
            .await
            .map_err(Failed::from)
            .and(Err(Failed::interrupted())),
        Ok(Ended::Sink) => {
            // The sink says it better.
            let _ = job.output_failed("writing failed").await;
            Ok(())
        }
        Err(failed) => {
            // The first cause counts.
            let _ = job.stop().await;
            Err(failed)
        }
    };
    if let Some(show) = origin.show() {
        show.close();
        show.left().await;
        let shown = show.figures();
        summary.pictures_in = Some(shown.pictures);
        if matches!(origin, Origin::Sender(_)) {
            summary.pictures_out = Some(shown.input.pictures);
            summary.segments_out = shown.input.segments;
            summary.bytes_out = shown.input.bytes;
        }
    }
    let finished = sink.finish(ending.is_ok());
    let outcome = ending.and(finished.map(|written| {
        if let Written::UntilClosed(name) = written {
            ui::tell(&format!(
                "{name} was closed by its reader, so the job was ended"
            ));
        }
    }));
    summary.elapsed = began.elapsed();
    summary.payments = spent.payments;
    summary.tickets = spent.tickets;
    summary.paid = plan.pays.then_some(Money(spent.expected_value));
    summary.charge = plan.pays.then_some(spent.charge);
    Ok((summary, outcome))
}

/// Waits for the job to end in order, after its input and output have.
async fn end_of<R: Runtime>(job: &LiveVideoJob<R>) -> Result<Ended, Failed> {
    job.wait().await?;
    Ok(Ended::Input)
}

/// Waits for Ctrl-C.
async fn interrupted(stop: &Stop) -> Result<Ended, Failed> {
    stop.pressed().await;
    Ok(Ended::Interrupted)
}

/// Waits for the job to fail, and only that.
async fn failure_of<R: Runtime>(job: &LiveVideoJob<R>) -> livepeer_runtime::api::Error {
    match job.wait().await {
        Err(err) => err,
        // It ends well when its output does, which the reader sees.
        Ok(()) => future::pending().await,
    }
}

/// Says who was lost and who went on. It never ends.
async fn watch<R: Runtime, T>(job: &LiveVideoJob<R>, figures: &Mutex<Figures>) -> T {
    let mut events = job.events();
    while let Some(event) = events.next().await {
        match event {
            JobEvent::PaymentHeld(why) => ui::tell(&format!(
                "cannot pay for now: {why}; the job runs on with what is paid, and it is tried again"
            )),
            JobEvent::Repriced { from, to } => ui::tell(&format!(
                "the orchestrator asks {to} wei per unit instead of {from}, and is paid so from now on"
            )),
            JobEvent::Swapped(swap) => {
                note(figures, |figures| {
                    figures.summary.swaps += 1;
                    figures.summary.segments_again += swap.again as u64;
                    figures.summary.orchestrator = swap.to.to_string();
                });
                ui::tell(&format!(
                    "{} was lost: {}; {} went on after {}, with {} segments again",
                    swap.from,
                    swap.why.cause,
                    swap.to,
                    duration(swap.after),
                    swap.again
                ));
            }
            _ => {}
        }
    }
    future::pending().await
}

/// The next of the input.
///
/// # Errors
/// If it is no good.
pub(in crate::cmd) async fn next_cut(input: &Receiver<Cut>) -> Result<Cut, Failed> {
    match input.recv().await {
        Ok(Cut::Bad(failed)) => Err(failed),
        Ok(cut) => Ok(cut),
        // It has always a last word, unless the program ends.
        Err(_) => Err(Failed::interrupted()),
    }
}

#[allow(clippy::too_many_arguments, reason = "they are the ends of one pipe")]
async fn publish<R: Runtime>(
    driver: &Driver<R>,
    mut publisher: Input<R>,
    first: Cut,
    input: &Receiver<Cut>,
    plan: &Plan,
    figures: &Mutex<Figures>,
    stop: &Stop,
    show: &impl Fn(),
) -> Result<Ended, Failed> {
    let until = plan.limit.map(|limit| driver.now() + limit);
    let mut pacer = Pacer::new(plan.speed);
    let mut next = first;
    let ended = future::or(
        async {
            loop {
                if let Cut::End(warnings) = next {
                    note(figures, |figures| figures.summary.warnings = warnings);
                    break;
                }
                let due = pacer.next_due(driver.now());
                if until.is_some_and(|until| due >= until) {
                    break;
                }
                sleep_until(driver, due).await;
                note(figures, |figures| {
                    figures.first_out.get_or_insert_with(Instant::now);
                });
                let (bytes, length) = send(driver, &mut publisher, next, input, plan.speed).await?;
                pacer.plays(length);
                note(figures, |figures| {
                    figures.left.push_back(Instant::now());
                    figures.summary.segments_out += 1;
                    figures.summary.bytes_out += bytes;
                    figures.summary.media += length;
                });
                show();
                next = next_cut(input).await?;
            }
            Ok::<_, Failed>(Ended::Input)
        },
        interrupted(stop),
    )
    .await?;
    publisher.close().await;
    Ok(ended)
}

/// Has the sender's stream go into the job, until it is over.
async fn feed<R: Runtime>(
    driver: &Driver<R>,
    publisher: Input<R>,
    show: Option<&Show<R>>,
    plan: &Plan,
    figures: &Mutex<Figures>,
    stop: &Stop,
) -> Result<Ended, Failed> {
    let Some(show) = show else {
        return Ok(Ended::Input);
    };
    let began = Instant::now();
    note(figures, |figures| figures.first_out = Some(began));
    let limit = async {
        if let Some(limit) = plan.limit {
            sleep_until(driver, driver.now() + limit).await;
            show.end();
        }
        future::pending().await
    };
    let feeding = async {
        show.feed(publisher).await?;
        Ok(Ended::Input)
    };
    let ended = future::or(feeding, future::or(limit, interrupted(stop))).await;
    note(figures, |figures| figures.summary.media = began.elapsed());
    ended
}

/// Publishes one segment that begins with `first`: how many bytes it had, and how long it plays. What is there at once
/// leaves at the pace of its time stamps.
pub(in crate::cmd) async fn send<R: Runtime>(
    driver: &Driver<R>,
    publisher: &mut Input<R>,
    first: Cut,
    input: &Receiver<Cut>,
    speed: Speed,
) -> Result<(u64, Duration), Failed> {
    let mut open = publisher.begin().await?;
    let began = driver.now();
    let whole = matches!(first, Cut::Segment(_));
    let mut cut = first;
    loop {
        match cut {
            Cut::Early(data) => open.write(data).await?,
            Cut::Segment(segment) => {
                // What came early was on time.
                let speed = if whole { speed } else { Speed::Max };
                for (offset, piece) in pace::pieces(&segment, speed) {
                    sleep_until(driver, began + offset).await;
                    open.write(piece).await?;
                }
                open.end()?;
                return Ok((segment.len as u64, segment.duration));
            }
            // Whatever comes early, its segment follows.
            Cut::Bad(_) | Cut::End(_) => return Err(Failed::interrupted()),
        }
        cut = next_cut(input).await?;
    }
}

async fn read<R: Runtime>(
    job: &LiveVideoJob<R>,
    (output, shown): (&mut Output<R>, Option<&Show<R>>),
    sink: &Sink,
    whole: bool,
    figures: &Mutex<Figures>,
    show: &impl Fn(),
) -> Result<(), Failed> {
    let mut held = BytesMut::new();
    loop {
        let next = match shown {
            Some(shown) => shown.next(output).await?,
            None => output.next().await?,
        };
        let Some(event) = next else {
            return Ok(());
        };
        match event {
            OutputEvent::Data(_, data) => {
                note(figures, |figures| {
                    let summary = &mut figures.summary;
                    if summary.bytes_in == 0 {
                        summary.first_output = figures.first_out.map(|first| first.elapsed());
                    }
                    summary.bytes_in += data.len() as u64;
                });
                if whole {
                    if held.len() + data.len() > MAX_SEGMENT_BYTES {
                        return Err(Failed::new(
                            "an output segment is larger than 64 MiB",
                            "Name one orchestrator only, then segments need not be held",
                        ));
                    }
                    held.extend_from_slice(&data);
                } else if !sink.write(data).await {
                    // What was wrong is said at the end.
                    return Ok(());
                }
            }
            OutputEvent::End(_) => {
                if !held.is_empty() && !sink.write(held.split().freeze()).await {
                    return Ok(());
                }
                let media = job.media_figures();
                note(figures, |figures| {
                    if let Some(shown) = shown {
                        let out = &mut figures.summary.segments_out;
                        *out = shown.figures().input.segments.max(*out);
                    }
                    figures.summary.segments_in = media.answered;
                    while figures.settled < media.answered + media.missing {
                        figures.settled += 1;
                        if let Some(left) = figures.left.pop_front() {
                            figures.summary.latency.record(left.elapsed());
                        }
                    }
                });
                show();
            }
            OutputEvent::Truncated(..) => held.clear(),
            OutputEvent::Anew(_, bytes) => {
                held.clear();
                note(figures, |figures| figures.summary.bytes_in -= bytes);
            }
            OutputEvent::Gap(gap) => {
                let (first, last) = (gap.start, gap.end.minus(1));
                ui::tell(&if first == last {
                    format!("nothing came back for segment {first}")
                } else {
                    format!("nothing came back for segments {first} to {last}")
                });
            }
            OutputEvent::Repeated(numbers) => ui::tell(&format!(
                "the beginning of segment {} came back twice",
                numbers.start
            )),
            _ => {}
        }
    }
}

fn note<R>(figures: &Mutex<Figures>, change: impl FnOnce(&mut Figures) -> R) -> R {
    change(&mut figures.lock().unwrap_or_else(PoisonError::into_inner))
}
