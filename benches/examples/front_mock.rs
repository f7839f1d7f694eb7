//! An orchestrator with a fixed answer: real TLS, a real handshake with quotes, and no work.
//!
//! ```text
//! cargo run --release -p livepeer-benches --example front_mock -- 127.0.0.1:18935 free
//! ```
//! The arguments: the address, `free` or the price of a unit in wei, and, if streams are to have another pace than 64
//! chunks 20 ms apart, how many chunks and how many milliseconds. A ticket that a request carries is taken for good.
//! Standard output has a line once it listens.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use livepeer_benches::front;
use livepeer_core::chain::ChainView;
use livepeer_core::http::{Body, Headers, In, Method, Out, Response, Url};
use livepeer_core::machine::earlier;
use livepeer_core::money::Price;
use livepeer_core::{Effect, EffectId, Input, Machine, Outbox, Output, Pipeline, Time};
use livepeer_orchestrator::{BatchModel, Config, Event, Orchestrator, Payments};
use livepeer_runtime::tls::{Identity, server_config};
use livepeer_runtime::{KeyHolder as _, LocalKey, seed};
use livepeer_tokio::{Server, driver};

type Error = Box<dyn std::error::Error>;

/// The pipelines that are answered.
const PIPELINES: [Pipeline; 3] = [Pipeline::Llm, Pipeline::TextToImage, Pipeline::ImageToImage];

/// A request whose body is not all there.
struct Asked {
    pipeline: Pipeline,
    /// Whether the beginning of the body says that the answer is to be streamed.
    stream: bool,
    begun: Vec<u8>,
}

/// At most this much of a body is looked at.
const LOOKED_AT: usize = 64 << 10;

/// Answers batch requests itself; everything else is for the orchestrator.
struct Mock {
    now: Time,
    orchestrator: Orchestrator,
    asked: BTreeMap<EffectId, Asked>,
    /// Streams, and when the chunk of that number is due.
    streams: BTreeMap<EffectId, (Time, u32)>,
    chunks: u32,
    pace: Duration,
    out: Outbox<Event>,
}

impl Mock {
    fn batch(&mut self, id: EffectId, step: In) -> Option<In> {
        match step {
            In::Request(request) if request.method == Method::Post => {
                let path = request.url.path();
                let named = |pipeline: &Pipeline| path.strip_prefix('/') == Some(pipeline.name());
                let Some(pipeline) = PIPELINES.into_iter().find(named) else {
                    return Some(In::Request(request));
                };
                let asked = Asked {
                    pipeline,
                    stream: false,
                    begun: Vec::new(),
                };
                self.asked.insert(id, asked);
            }
            In::Data(data) if self.asked.contains_key(&id) => {
                if let Some(asked) = self.asked.get_mut(&id) {
                    let room = LOOKED_AT - asked.begun.len();
                    asked.begun.extend_from_slice(&data[..data.len().min(room)]);
                    asked.stream = asked.pipeline == Pipeline::Llm;
                }
            }
            In::End(_) if self.asked.contains_key(&id) => {
                if let Some(asked) = self.asked.remove(&id) {
                    self.answer(id, &asked);
                }
            }
            In::Failed(_) if self.streams.remove(&id).is_some() => {}
            In::Failed(_) if self.asked.remove(&id).is_some() => {}
            In::Sent(_) if self.streams.contains_key(&id) => {}
            step => return Some(step),
        }
        None
    }

    fn answer(&mut self, id: EffectId, asked: &Asked) {
        let streams = |text: &[u8]| {
            let said = [&b"\"stream\":true"[..], b"\"stream\": true"];
            said.iter()
                .any(|said| text.windows(said.len()).any(|part| part == *said))
        };
        if asked.stream && streams(&asked.begun) {
            let head = Response::new(200).header("content-type", "text/event-stream");
            self.out.http(id, Out::Reply(head.body(Body::Stream)));
            self.streams.insert(id, (self.now, 0));
            return;
        }
        let body = match asked.pipeline {
            Pipeline::Llm => front::chat(),
            _ => front::picture(),
        };
        let head = Response::new(200).header("content-type", "application/json");
        let body = Body::Full(Bytes::from(body));
        self.out.http(id, Out::Reply(head.body(body)));
    }

    /// Sends the chunks that are due.
    fn go_on(&mut self) {
        let (now, chunks) = (self.now, self.chunks);
        let out = &mut self.out;
        self.streams.retain(|id, (due, number)| {
            while *due <= now {
                let last = *number + 1 == chunks;
                let mut text = front::chunk(*number, now.as_nanos(), last);
                if last {
                    text.push_str("data: [DONE]\n\n");
                }
                out.http(*id, Out::Data(text.into()));
                if last {
                    out.http(*id, Out::End(Headers::new()));
                    return false;
                }
                *number += 1;
                *due = *due + self.pace;
            }
            true
        });
    }
}

impl Machine for Mock {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.now = self.now.max(now);
        let input = match input {
            Input::Http(id, step) => self.batch(id, step).map(|step| Input::Http(id, step)),
            input => Some(input),
        };
        if let Some(input) = input {
            self.orchestrator.handle_input(now, input);
        }
        self.go_on();
    }

    fn poll_output(&mut self) -> Output<Event> {
        if let Some(output) = self.out.pop() {
            return output;
        }
        match self.orchestrator.poll_output() {
            Output::Idle(wake) => {
                let due = self.streams.values().map(|(due, _)| *due).min();
                let due = due.map(|due| due.max(self.now + Duration::from_nanos(1)));
                Output::Idle(earlier(wake, due))
            }
            Output::Effect(id, Effect::Http(step)) => Output::Effect(id, Effect::Http(step)),
            output => output,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (at, price, chunks, pace) = match arguments[..] {
        [at, price] => (at, price, "64", "20"),
        [at, price, chunks, pace] => (at, price, chunks, pace),
        _ => {
            eprintln!("usage: front_mock ADDRESS free|WEI [CHUNKS MILLISECONDS]");
            return ExitCode::from(2);
        }
    };
    match run(at, price, chunks, pace).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(at: &str, price: &str, chunks: &str, pace: &str) -> Result<(), Error> {
    let at: SocketAddr = at.parse()?;
    let driver = driver();
    let now = driver.now();
    let key = LocalKey::new(&seed())?;
    let mut config = Config::new(Url::parse(&format!("https://{at}"))?, key.address());
    if price != "free" {
        let price = Price::new(price.parse()?, 1).ok_or("not a price")?;
        let chain = ChainView::development_at(now);
        config = config.on_chain(Payments::new(key.address(), price, chain));
    }
    for pipeline in PIPELINES {
        let model = BatchModel {
            capacity: 10_000,
            ..BatchModel::default()
        };
        config = config.with_batch_model(pipeline, front::MODEL, model);
    }
    let mock = Mock {
        now,
        orchestrator: Orchestrator::new(now, config, seed()),
        asked: BTreeMap::new(),
        streams: BTreeMap::new(),
        chunks: chunks.parse::<u32>()?.max(1),
        pace: Duration::from_millis(pace.parse()?),
        out: Outbox::default(),
    };
    let identity = Identity::self_signed(&at.ip().to_string(), now)?;
    let handle = driver.with_key(key).drive(mock);
    let server = Server::bind(&handle, at, Some(server_config(&identity)?)).await?;
    println!("listening at https://{}", server.local_addr());
    while handle.next().await.is_some() {}
    Ok(())
}
