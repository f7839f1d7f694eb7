//! `byoc`: `run`, one job for a container, its answer, and who did it.

use std::time::{Duration, Instant};

use futures_lite::future;
use livepeer_runtime::api::{ByocEvent, ByocSubmission, Error};
use livepeer_runtime::{Driver, Runtime};

use super::report::Report;
use super::{Answer, Desk, body, files, on_terms, stream};
use crate::args::{ByocArgs, ByocCommand, ByocRunArgs};
use crate::cmd::on;
use crate::cmd::stop::Stop;
use crate::ui::{Failed, Outcome, Progress};

/// How long the end of an interrupted job may take.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);

pub(in crate::cmd) fn run(args: &ByocArgs) -> Outcome {
    match &args.command {
        ByocCommand::Run(run) => on::run(run.hire.runtime, Run(run)),
        ByocCommand::Stream(args) => stream::run(args),
    }
}

struct Run<'a>(&'a ByocRunArgs);

impl on::Work for Run<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        files(&args.hire, &args.body, args.output()).are_apart("byoc run")?;
        let body = body(&args.body)?;
        let desk = Desk::hired(driver, &args.hire, "byoc run").await?;
        let mut job = desk
            .gateway
            .byoc(&args.capability)
            .path(&args.path)
            .request(&args.request)
            .parameters(&args.parameters)
            .within(args.within);
        job = on_terms!(job, desk, args.hire);
        if let Some(body) = body {
            job = job.body(&args.body.content_type, body);
        }
        if args.may_repeat {
            job = job.may_repeat();
        }
        let mut report = Report::of_container(&args.capability);
        let began = Instant::now();
        let mut answer = Answer::open(args.output())?;
        stop.in_order(CLOSES_WITHIN);
        // Dropping the job closes it, and there is nothing else to close.
        let outcome = future::or(done(job, &mut answer, &mut report), async {
            stop.pressed().await;
            Err(Failed::interrupted())
        })
        .await;
        report.ended(Some(&answer), began.elapsed());
        desk.told(&args.hire, &report, outcome)
    }
}

/// Does the job; the answer goes to its place as it comes.
async fn done<R: Runtime>(
    job: ByocSubmission<R>,
    answer: &mut Answer,
    report: &mut Report,
) -> Outcome {
    let mut job = job.send()?;
    let mut progress = Some(Progress::new("orchestrators asked", None));
    while let Some(event) = job.next().await {
        match event {
            ByocEvent::Trying(trying) => {
                report.served_by = trying.url.to_string();
                report.tries = trying.attempt;
                if let Some(progress) = &mut progress {
                    progress.set(trying.attempt.into(), || trying.url.to_string());
                }
            }
            ByocEvent::Head(served) => {
                report.served(&served);
                progress = None;
            }
            ByocEvent::Chunk(chunk) => {
                report.bytes += chunk.len() as u64;
                answer.take(&chunk)?;
            }
            ByocEvent::Done(done) => {
                drop(progress);
                report.served(&done.served);
                report.bytes += done.body.len() as u64;
                return answer.take(&done.body);
            }
            ByocEvent::Failed(failed) => {
                report.not_done(&failed);
                return Err(Error::from(failed).into());
            }
            _ => {}
        }
    }
    Err(Error::Closed.into())
}
