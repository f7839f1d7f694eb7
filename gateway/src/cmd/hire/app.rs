//! `app`: runners of an app, single calls, and sessions.

use std::time::{Duration, Instant};

use futures_lite::future;
use livepeer_core::wire::runner::Runner;
use livepeer_runtime::api::{AppAnswer, AppBuilder, AppCall, AppEvent, AppSession, Error};
use livepeer_runtime::{Driver, Runtime};
use serde::Serialize;

use super::report::Report;
use super::{Answer, Desk, body, files, on_terms};
use crate::args::{AppArgs, AppCallArgs, AppCommand, AppListArgs, AppSessionArgs, CallArgs};
use crate::args::{BodyArgs, HireArgs};
use crate::cmd::on;
use crate::cmd::stop::Stop;
use crate::ui::{self, Failed, Outcome, Progress, table};

/// How long it may take to stop a session, or to close a call.
const CLOSES_WITHIN: Duration = Duration::from_secs(8);

pub(in crate::cmd) fn run(args: &AppArgs) -> Outcome {
    match &args.command {
        AppCommand::List(list) => on::run(list.hire.runtime, List(list)),
        AppCommand::Call(call) => on::run(call.hire.runtime, Call(call)),
        AppCommand::Session(session) => on::run(session.hire.runtime, Session(session)),
    }
}

struct List<'a>(&'a AppListArgs);
struct Call<'a>(&'a AppCallArgs);
struct Session<'a>(&'a AppSessionArgs);

/// A runner as it is listed.
#[derive(Serialize)]
struct Listed {
    app: String,
    runner: String,
    mode: Option<&'static str>,
    gpu: Option<String>,
    version: String,
    capacity: u32,
    available: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    price_wei: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
}

impl From<Runner> for Listed {
    fn from(runner: Runner) -> Self {
        Self {
            mode: runner.mode.map(livepeer_core::wire::runner::Mode::name),
            gpu: runner.gpu.map(|gpu| gpu.name),
            version: runner.version,
            capacity: runner.capacity,
            available: runner.available,
            price_wei: runner.price.as_ref().map(|price| price.wei.to_string()),
            unit: runner.price.map(|price| price.unit.advertised()),
            app: runner.app,
            runner: runner.url.to_string(),
        }
    }
}

impl on::Work for List<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let desk = Desk::hired(driver, &args.hire, "app list").await?;
        let asked = builder(&desk, args.app.as_deref(), &args.gpu, &args.hire).list();
        let listed = future::or(async { asked.await.map_err(Failed::from) }, async {
            stop.pressed().await;
            Err(Failed::interrupted())
        });
        let listed = listed.await;
        desk.close(&args.hire.peers)?;
        let listed: Vec<Listed> = listed?.into_iter().map(Listed::from).collect();
        if args.hire.json {
            return ui::print_json(&listed);
        }
        let rows = listed.iter().map(|one| {
            let price = match (&one.price_wei, one.unit) {
                (Some(wei), Some("fixed")) => format!("{wei} wei per call"),
                (Some(wei), Some(unit)) => format!("{wei} wei per {}", unit.trim_end_matches('s')),
                _ => "free".to_owned(),
            };
            vec![
                one.app.clone(),
                one.mode.unwrap_or("any").to_owned(),
                format!("{} of {}", one.available, one.capacity),
                price,
                one.gpu.clone().unwrap_or_default(),
                one.runner.clone(),
            ]
        });
        let heading = ["app", "mode", "free", "price", "gpu", "runner"];
        ui::print(table(&heading, &[], &rows.collect::<Vec<_>>()).trim_end())
    }
}

impl on::Work for Call<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let (hire, output) = (&args.hire, args.call.output(args.hire.json));
        files(hire, &args.call.body, output).are_apart("app call")?;
        let mut call = call(&args.call, "app call")?;
        call.may_repeat = args.may_repeat;
        let desk = Desk::hired(driver, hire, "app call").await?;
        let app = builder(&desk, Some(&args.app), &args.gpu, hire);
        let mut report = Report::of_app(&args.app);
        let began = Instant::now();
        let mut answer = Answer::open(output)?;
        stop.in_order(CLOSES_WITHIN);
        let done = async {
            let _progress = Progress::new("requests", None);
            match app.call(call).await {
                Ok(answered) => deliver(answered, &mut answer, &mut report).await,
                Err(error) => Err(failed(error, &mut report)),
            }
        };
        let outcome = future::or(done, async {
            stop.pressed().await;
            Err(Failed::interrupted())
        })
        .await;
        report.ended(Some(&answer), began.elapsed());
        desk.told(hire, &report, outcome)
    }
}

impl on::Work for Session<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let hire = &args.hire;
        let wants = args.call.path.is_some() || args.call.body.is_some();
        let output = args.call.output(hire.json).filter(|_| wants);
        files(hire, &args.call.body, output).are_apart("app session")?;
        let call = match wants {
            true => Some(call(&args.call, "app session")?),
            false => None,
        };
        let desk = Desk::hired(driver, hire, "app session").await?;
        let app = builder(&desk, Some(&args.app), &args.gpu, hire);
        let mut report = Report::of_app(&args.app);
        let began = Instant::now();
        let mut answer = match wants {
            true => Some(Answer::open(output)?),
            false => None,
        };
        stop.in_order(CLOSES_WITHIN);
        let reserved = future::or(
            async {
                let reserved = app.reserve().await;
                reserved.map_err(|error| failed(error, &mut report))
            },
            async {
                stop.pressed().await;
                Err(Failed::interrupted())
            },
        );
        let outcome = match reserved.await {
            Err(failed) => Err(failed),
            Ok(mut session) => {
                report.served_by = session.runner().to_string();
                report.session(session.session());
                let outcome = match (call, &mut answer) {
                    (Some(call), Some(answer)) => {
                        let done = async {
                            match session.call(call).await {
                                Ok(answered) => deliver(answered, answer, &mut report).await,
                                Err(error) => Err(failed(error, &mut report)),
                            }
                        };
                        let pressed = async {
                            stop.pressed().await;
                            Err(Failed::interrupted())
                        };
                        future::or(done, pressed).await
                    }
                    _ => hold(&mut session, &desk.driver, args, &stop).await,
                };
                report.spent(&session.spent());
                session.stop().await;
                outcome
            }
        };
        report.ended(answer.as_ref(), began.elapsed());
        desk.told(hire, &report, outcome)
    }
}

/// Holds a session until it is enough, and says where its app is.
async fn hold<R: Runtime>(
    session: &mut AppSession<R>,
    driver: &Driver<R>,
    args: &AppSessionArgs,
    stop: &Stop,
) -> Outcome {
    if !args.hire.json {
        ui::print(&session.session().app.to_string())?;
    }
    let until = args.lasts.map(|lasts| driver.now() + lasts);
    let enough = async {
        match until {
            // A sleep may end early.
            Some(until) => {
                while driver.now() < until {
                    driver.runtime().sleep_until(until).await;
                }
            }
            None => future::pending().await,
        }
        Ok(())
    };
    let pressed = async {
        stop.pressed().await;
        Ok(())
    };
    let mut progress = Progress::new("payments", None);
    let held = async {
        let mut payments = 0;
        let mut trouble = None;
        while let Some(event) = session.next().await {
            match event {
                AppEvent::Paid(_) => {
                    payments += 1;
                    progress.set(payments, || "the session is held".to_owned());
                }
                AppEvent::Trouble(failure) => trouble = Some(failure),
                AppEvent::Released => {
                    return Err(Failed::new(
                        "the orchestrator ended the session",
                        "Look into its log, and reserve another",
                    ));
                }
                _ => {}
            }
        }
        Err(match trouble {
            Some(failure) => failure.into(),
            None => Error::Closed.into(),
        })
    };
    future::or(held, future::or(enough, pressed)).await
}

fn builder<R: Runtime>(
    desk: &Desk<R>,
    app: Option<&str>,
    gpus: &[String],
    hire: &HireArgs,
) -> AppBuilder<R> {
    let mut builder = match app {
        Some(app) => desk.gateway.app(app),
        None => desk.gateway.apps(),
    };
    for gpu in gpus {
        builder = builder.gpu(gpu);
    }
    on_terms!(builder, desk, hire)
}

/// The request that the options mean.
fn call(args: &CallArgs, command: &str) -> Result<AppCall, Failed> {
    let BodyArgs { content_type, .. } = &args.body;
    let mut call = AppCall::new(args.method(), args.path.as_deref().unwrap_or_default());
    for header in args.headers(command)? {
        call = call.with_header(&header.name, &header.value);
    }
    Ok(match body(&args.body)? {
        Some(body) => call.with_body(content_type, body),
        None => call,
    })
}

/// Takes the answer to its place, as it comes.
async fn deliver<R: Runtime>(
    mut answered: AppAnswer<R>,
    answer: &mut Answer,
    report: &mut Report,
) -> Outcome {
    report.served_by = answered.runner().to_string();
    report.status = Some(answered.status());
    report.content_type(answered.headers().get("content-type"));
    while let Some(bytes) = answered.next().await {
        let bytes = bytes.map_err(|error| failed(error, report))?;
        report.bytes += bytes.len() as u64;
        answer.take(&bytes)?;
    }
    report.spent(&answered.spent());
    match answered.status() {
        status @ 400.. => Err(Failed::new(
            format_args!("the app refused the request ({status})"),
            "Change the request as its answer says",
        )),
        _ => Ok(()),
    }
}

fn failed(error: Error, report: &mut Report) -> Failed {
    if let Error::App(failed) = &error {
        report.not_rented(failed);
    }
    error.into()
}
