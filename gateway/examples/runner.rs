//! A runner: an app that an orchestrator rents out by the session. `cargo run -p livepeer-gateway --example runner --
//! https://127.0.0.1:8935 word`, while `livepeer-gateway devnet --register-secret word` runs.
//!
//! `POST /say` answers in capitals. `POST /start` makes two channels of the session: what is published to `in` comes out of
//! `out` in capitals. `POST /stop` ends the session.

use std::error::Error;
use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::pin::Pin;

use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use livepeer_tokio::api::{ChannelInfo, Heartbeat, RegistrationConfig};
use livepeer_tokio::core::http::{Headers, Trust, Url};
use livepeer_tokio::core::trickle::{Publisher, Start, Subscriber, publisher, subscriber};
use livepeer_tokio::{Driver, Registration, RunnerSession, driver};
use tokio::net::TcpListener;

type Failed = Box<dyn Error + Send + Sync>;

/// At most this many bytes of a request, or of a segment, are read.
const MAX_BYTES: usize = 64 << 10;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let usage = "usage: runner ORCHESTRATOR SECRET";
    let mut args = std::env::args().skip(1);
    let orchestrator = args.next().ok_or(usage)?.parse()?;
    let secret = args.next().ok_or(usage)?;
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    host(orchestrator, &secret, stop).await
}

/// Serves the app, and has it rented out until `stop` is over.
pub async fn host(
    orchestrator: Url,
    secret: &str,
    stop: impl Future<Output = ()>,
) -> Result<(), Failed> {
    let driver = driver();
    let socket = TcpListener::bind("127.0.0.1:0").await?;
    let beat = Heartbeat {
        capacity: 2,
        ..Heartbeat::new(
            format!("http://{}", socket.local_addr()?),
            "example/capitals",
        )
    };
    let config = RegistrationConfig::default();
    let serving = tokio::spawn(serve(socket, driver.clone(), orchestrator.clone()));
    let runner = Registration::begin(&driver, config, orchestrator, secret, beat).await?;
    println!("{} is rented out", runner.name());
    stop.await;
    runner.close().await;
    serving.abort();
    Ok(())
}

async fn serve(socket: TcpListener, driver: Driver, orchestrator: Url) {
    while let Ok((stream, _)) = socket.accept().await {
        let (driver, orchestrator) = (driver.clone(), orchestrator.clone());
        let service = service_fn(move |request| {
            let (driver, orchestrator) = (driver.clone(), orchestrator.clone());
            async move {
                let answer = answer(request, &driver, &orchestrator).await;
                let (status, text) =
                    answer.unwrap_or_else(|why| (StatusCode::BAD_REQUEST, why.to_string()));
                Response::builder().status(status).body(text)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new();
        tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    driver: &Driver,
    orchestrator: &Url,
) -> Result<(StatusCode, String), Failed> {
    // The header says of which session a request is, and where that is managed.
    let mut headers = Headers::new();
    for (name, value) in request.headers() {
        headers.push_any(name.as_str(), value.to_str().unwrap_or_default());
    }
    let session = || {
        RunnerSession::of(
            driver,
            RegistrationConfig::default(),
            orchestrator,
            &headers,
        )
    };
    Ok(match request.uri().path() {
        "/say" => (
            StatusCode::OK,
            read(request.into_body()).await?.to_uppercase(),
        ),
        "/start" => {
            let channels = [("in", "text/plain"), ("out", "text/plain")];
            let channels = session()?.create_channels(&channels).await?;
            let [input, output] = <[_; 2]>::try_from(channels).map_err(|_| "two channels")?;
            let mut text = String::new();
            writeln!(text, "{}\n{}", input.url, output.url)?;
            tokio::spawn(capitals(driver.clone(), input, output));
            (StatusCode::OK, text)
        }
        "/stop" => {
            session()?.stop().await?;
            (StatusCode::OK, "over\n".into())
        }
        _ => (StatusCode::NOT_FOUND, "POST /say, /start or /stop\n".into()),
    })
}

async fn read(mut body: Incoming) -> Result<String, Failed> {
    let mut text = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        text.extend_from_slice(&frame?.into_data().unwrap_or_default());
        if text.len() > MAX_BYTES {
            return Err("that is too long".into());
        }
    }
    Ok(String::from_utf8(text)?)
}

/// Passes on what comes in, segment by segment, until the session is over.
async fn capitals(driver: Driver, input: ChannelInfo, output: ChannelInfo) {
    // The orchestrator may be elsewhere for the runner than for those who rent it.
    let at = |channel: ChannelInfo| channel.internal_url.unwrap_or(channel.url);
    let (now, start) = (driver.now(), Start::At(0.into()));
    // Orchestrators sign their own certificates.
    let trust = Trust::FirstUse;
    let config = subscriber::Config {
        trust,
        ..Default::default()
    };
    let reader = Subscriber::new(now, config, at(input), start);
    let config = publisher::Config {
        trust,
        ..Default::default()
    };
    let writer = Publisher::new(now, config, at(output));
    let (reader, writer) = (driver.drive(reader), driver.drive(writer));
    let mut segment = Vec::new();
    while let Some(event) = reader.next().await {
        match event {
            subscriber::Event::Data(_, data) if segment.len() + data.len() <= MAX_BYTES => {
                segment.extend_from_slice(&data);
            }
            subscriber::Event::End(_) => {
                let text = String::from_utf8_lossy(&segment).to_uppercase();
                segment.clear();
                while writer.with(|writer, now| writer.begin(now)).is_err() {
                    match writer.next().await {
                        None | Some(publisher::Event::Closed(_)) => return,
                        _ => {}
                    }
                }
                writer.with(|writer, now| {
                    // A segment that just began takes so little.
                    let _ = writer.write(now, text.into());
                    let _ = writer.end(now);
                });
            }
            subscriber::Event::Closed(_) => break,
            _ => {}
        }
    }
    // Whoever reads is told that no more comes, after what is still under way.
    writer.with(|writer, now| writer.close(now));
    while !matches!(
        writer.next().await,
        None | Some(publisher::Event::Closed(_))
    ) {}
}
