//! The orchestrator behind the gateway: that of the development network, with a model that returns every byte and notes
//! which pictures it has whole. A thread of its own runs it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

use bytes::Bytes;
use livepeer_core::http::Url;
use livepeer_media::demux::{Demux, Event};
use livepeer_orchestrator::{Config, ModelConfig, Orchestrator, Pipeline, PipelineFactory};
use livepeer_runtime::tls::{Identity, server_config};
use livepeer_runtime::{KeyHolder as _, LocalKey, seed};
use livepeer_tokio::{Server, driver};

use super::clip::Stamp;
use super::tally::{Stream, lock};
use crate::Error;

/// The model's name.
pub(crate) const MODEL: &str = "noop";
/// Sessions that run at once at most.
const CAPACITY: u32 = 1_000;

/// Returns every byte, and looks at it.
struct Watched {
    streams: Arc<Vec<Stream>>,
    demux: Demux,
}

impl Pipeline for Watched {
    fn data(&mut self, bytes: &Bytes) -> Bytes {
        // What cannot be read shows as pictures that are missing.
        let _ = self.demux.push(bytes);
        while let Some(event) = self.demux.next_event() {
            if let Event::Video(unit) = event
                && let Some(stamp) = Stamp::find(&unit.data)
                && let Some(stream) = self.streams.get(stamp.stream)
            {
                lock(&stream.wire).see(stamp);
            }
        }
        bytes.clone()
    }
}

/// Starts the orchestrator. Returns its address; it ends with the program.
pub(crate) fn start(streams: &Arc<Vec<Stream>>) -> Result<SocketAddr, Error> {
    let (tell, told) = channel();
    let streams = Arc::clone(streams);
    thread::spawn(move || {
        let failed = tell.clone();
        let outcome = run(streams, |at| drop(tell.send(Ok(at))));
        if let Err(error) = outcome {
            drop(failed.send(Err(error)));
        }
    });
    told.recv()?
}

#[tokio::main(flavor = "current_thread")]
async fn run(streams: Arc<Vec<Stream>>, ready: impl FnOnce(SocketAddr)) -> Result<(), Error> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    drop(listener);
    let driver = driver();
    let now = driver.now();
    let key = LocalKey::new(&seed())?;
    let watched = PipelineFactory::new(move || Watched {
        streams: Arc::clone(&streams),
        demux: Demux::new(),
    });
    let mut model = ModelConfig::default().running(watched);
    model.capacity = CAPACITY;
    let config = Config::new(Url::parse(&format!("https://{at}"))?, key.address());
    let config = config.with_model(MODEL, model);
    let machine = Orchestrator::new(now, config, seed());
    let identity = Identity::self_signed(&at.ip().to_string(), now)?;
    let handle = driver.with_key(key).drive(machine);
    let server = Server::bind(&handle, at, Some(server_config(&identity)?)).await?;
    ready(server.local_addr());
    while handle.next().await.is_some() {}
    Ok(())
}
