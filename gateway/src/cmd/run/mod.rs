//! `run`: one batch job, its answer, and what it cost.

mod report;
mod results;

use std::io::Write as _;
use std::time::{Duration, Instant};

use futures_lite::future;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::wire::batch::{Chunk, FilePart, read_chunk};
use livepeer_runtime::api::{Answer, BatchEvent, BatchJob, Finished, Submission};
use livepeer_runtime::{Driver, Runtime};

use super::files::Files;
use super::hire::Desk;
use super::stop::Stop;
use super::{on, peers};
use crate::args::RunArgs;
use crate::args::values::Place;
use crate::ui::{self, Failed, Outcome, Progress};
use report::Report;

/// How long the end of an interrupted job may take.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn run(args: &RunArgs) -> Outcome {
    on::run(args.runtime, Run(args))
}

struct Run<'a>(&'a RunArgs);

impl on::Work for Run<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let endpoints = args.endpoints()?;
        files(args).are_apart("run")?;
        let mut request = args.request().map_err(|bad| Failed::usage(bad, "run"))?;
        if let Some(path) = args.path() {
            let name = path.display().to_string();
            let content =
                std::fs::read(path).map_err(|error| Failed::file("cannot read", &name, &error))?;
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let set = request.set_file(FilePart::new(file, content));
            set.map_err(|bad| Failed::usage(bad, "run"))?;
        }
        let wanted = Capabilities::for_model(args.pipeline.capability(), request.model());
        let (of, pay, price) = (&args.peers, &args.pay, args.max_price);
        let desk = Desk::open(driver, of, pay, price, &endpoints, &wanted, "run").await?;
        let mut report = Report::new(&request);
        let mut submission = desk
            .gateway
            .submit(request)
            .orchestrators(desk.orchestrators.clone())
            .payer(desk.payer.clone())
            .trust(peers::trust(&args.peers))
            .pin_change(peers::pin_change(&args.peers));
        if let Some(price) = args.max_price {
            submission = submission.max_price(price);
        }
        let began = Instant::now();
        // What is told of a job that is interrupted has to be printed.
        stop.in_order(CLOSES_WITHIN);
        // Dropping the job closes it, and there is nothing else to close.
        let done = future::or(done(submission, &mut report), async {
            stop.pressed().await;
            Err(Failed::interrupted())
        })
        .await;
        report.took(began.elapsed());
        peers::save_pins(&desk.driver, &args.peers)?;
        let outcome = done.and_then(|done| deliver(args, done, &mut report));
        if args.json {
            return ui::print_json_with(&report, outcome);
        }
        outcome?;
        ui::tell(&report.to_table());
        Ok(())
    }
}

/// Writes the results of a job to where they belong.
fn deliver(args: &RunArgs, mut done: Finished, report: &mut Report) -> Outcome {
    report.served(&done.served);
    match &args.output {
        Place::File(folder) => {
            report.files = results::write(args.pipeline, &mut done, folder)?;
        }
        Place::Standard => match &results::all(&done)[..] {
            [] => {}
            [one] => return say(one),
            all => {
                return Err(Failed::new(
                    format_args!(
                        "there are {} results, and standard output takes one",
                        all.len()
                    ),
                    "Name a folder with --output",
                ));
            }
        },
    }
    if args.json {
        report.answer = done.answer.as_ref().map(results::json);
        return Ok(());
    }
    show(&done, report)
}

/// The files that a job reads and writes, apart from its results, which are new ones.
fn files(args: &RunArgs) -> Files {
    let key = &args.pay.key;
    Files::default()
        .reads("--file", args.path().map(AsRef::as_ref))
        .writes("--store", args.pay.store.as_deref())
        .writes("--pins", args.peers.pins.as_deref())
        .reads("--keystore", key.keystore.as_deref())
        .reads("--key-file", key.key_file.as_deref())
        .reads("--password-file", key.password_file.as_deref())
}

/// Does the job; the words of a stream go to standard output as they come.
async fn done<R: Runtime>(
    submission: Submission<R>,
    report: &mut Report,
) -> Result<Finished, Failed> {
    let mut job: BatchJob<R> = submission.send().await?;
    let mut progress = Some(Progress::new("orchestrators asked", None));
    let mut spoken = false;
    while let Some(event) = job.next().await {
        match event {
            BatchEvent::Trying(trying) => {
                report.trying(&trying);
                if let Some(progress) = &mut progress {
                    progress.set(trying.attempt.into(), || trying.url.to_string());
                }
            }
            BatchEvent::Head(_) => progress = None,
            BatchEvent::Chunk(chunk) => {
                if let Chunk::Part(part) = read_chunk(&chunk) {
                    let words = part.choices.iter().map(|choice| &choice.content[..]);
                    let words: String = words.collect();
                    spoken |= !words.is_empty();
                    say(words.as_bytes())?;
                }
            }
            BatchEvent::Done(finished) => {
                if spoken {
                    say(b"\n")?;
                }
                return Ok(*finished);
            }
            BatchEvent::Failed(failed) => {
                report.failed(&failed);
                if spoken {
                    say(b"\n")?;
                }
                return Err(livepeer_runtime::api::Error::from(*failed).into());
            }
            _ => {}
        }
    }
    Err(livepeer_runtime::api::Error::Closed.into())
}

/// Writes to standard output at once.
fn say(bytes: &[u8]) -> Outcome {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failed::file("cannot write to", "standard output", &error))
        }
        _ => Ok(()),
    }
}

/// Prints the answer: its words, or the names of the files that it became.
fn show(done: &Finished, report: &Report) -> Outcome {
    match &done.answer {
        Some(Answer::Text { text, .. } | Answer::Caption(text)) => ui::print(text.trim()),
        Some(Answer::Llm { completion, .. }) => {
            let words = completion.choices.iter().map(|choice| &choice.content[..]);
            ui::print(&words.collect::<String>())
        }
        _ if report.files.is_empty() => Ok(()),
        _ => ui::print(&report.files.join("\n")),
    }
}
