//! `byoc` and `app`: work for containers that operators brought, and for apps that orchestrators rent out.

pub(super) mod app;
pub(super) mod byoc;
mod report;
mod stream;

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use bytes::Bytes;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::http::Url;
use livepeer_core::money::Price;
use livepeer_runtime::api::{Gateway, Payer};
use livepeer_runtime::{Driver, Runtime};

use self::report::Report;
use super::files::Files;
use super::purse::Purse;
use super::{find, peers};
use crate::args::{BodyArgs, Endpoints, HireArgs, PayArgs, PeerArgs, Place};
use crate::ui::{self, Failed, Outcome};

/// The most bytes of an answer that go into the figures.
const MAX_ANSWER: usize = 64 << 20;

/// Names who may do the work, who pays, and the most that is paid, as the options say. The builders of containers' jobs and of
/// apps have these settings alike, and no trait for them.
macro_rules! on_terms {
    ($builder:expr, $desk:expr, $hire:expr) => {{
        let builder = $builder
            .orchestrators($desk.orchestrators.clone())
            .payer($desk.payer.clone())
            .trust($crate::cmd::peers::trust(&$hire.peers));
        match $hire.max_price {
            Some(price) => builder.max_price(price),
            None => builder,
        }
    }};
}
use on_terms;

/// A gateway with a purse, and those whom it may ask.
pub(super) struct Desk<R: Runtime> {
    pub(super) gateway: Gateway<R>,
    pub(super) driver: Driver<R>,
    pub(super) payer: Payer,
    pub(super) orchestrators: Vec<Url>,
}

impl<R: Runtime> Desk<R> {
    /// Opens the purse, looks for orchestrators that offer `wanted`, and keeps the gateway told of the chain.
    ///
    /// # Errors
    /// If the purse cannot be opened, or nobody is found.
    pub(super) async fn open(
        driver: Driver<R>,
        peers: &PeerArgs,
        pay: &PayArgs,
        max_price: Option<Price>,
        endpoints: &Endpoints,
        wanted: &Capabilities,
        command: &str,
    ) -> Result<Self, Failed> {
        let driver = super::peers::with_pins(driver, peers)?;
        let purse = Purse::of_job(driver, pay, max_price, command).await?;
        let driver = purse.driver.clone();
        let orchestrators = find::orchestrators(&driver, endpoints, wanted).await?;
        let gateway = Gateway::from(driver.clone());
        if let Some(chain) = purse.views() {
            let gateway = gateway.clone();
            driver.runtime().spawn(async move {
                while let Ok(view) = chain.recv().await {
                    gateway.set_chain(&view);
                }
            });
        }
        Ok(Self {
            gateway,
            driver,
            payer: purse.payer(endpoints),
            orchestrators,
        })
    }

    async fn hired(driver: Driver<R>, hire: &HireArgs, command: &str) -> Result<Self, Failed> {
        let endpoints = hire.endpoints(command)?;
        // Who offers what is for orchestrators to say.
        let wanted = Capabilities::default();
        let (of, pay, price) = (&hire.peers, &hire.pay, hire.max_price);
        Self::open(driver, of, pay, price, &endpoints, &wanted, command).await
    }

    /// Ends the work, and tells of it as the options say.
    fn told(&self, hire: &HireArgs, report: &Report, outcome: Outcome) -> Outcome {
        self.close(&hire.peers)?;
        if hire.json {
            return ui::print_json_with(report, outcome);
        }
        outcome?;
        ui::tell(&report.to_table());
        Ok(())
    }

    fn close(&self, peers: &PeerArgs) -> Outcome {
        peers::save_pins(&self.driver, peers)
    }
}

/// The files that such a command reads and writes.
fn files(hire: &HireArgs, body: &BodyArgs, output: Option<&Place>) -> Files {
    let files = own_files(hire);
    let files = match &body.file {
        Some(file) => files.input("--file", file),
        None => files,
    };
    match output {
        Some(output) => files.output("--output", output),
        None => files,
    }
}

/// The files that a stream reads and writes.
fn streamed(hire: &HireArgs, input: &Place, output: &Place) -> Files {
    let files = own_files(hire).input("--input", input);
    files.output("--output", output)
}

fn own_files(hire: &HireArgs) -> Files {
    let key = &hire.pay.key;
    Files::default()
        .writes("--store", hire.pay.store.as_deref())
        .writes("--pins", hire.peers.pins.as_deref())
        .reads("--keystore", key.keystore.as_deref())
        .reads("--key-file", key.key_file.as_deref())
        .reads("--password-file", key.password_file.as_deref())
}

/// Reads the body of a request; `None` if there is none.
fn body(args: &BodyArgs) -> Result<Option<Bytes>, Failed> {
    let read = |name: &str, read: io::Result<Vec<u8>>| match read {
        Ok(all) => Ok(Some(Bytes::from(all))),
        Err(error) => Err(Failed::file("cannot read", name, &error)),
    };
    match (&args.data, &args.file) {
        (Some(text), _) => Ok(Some(text.clone().into())),
        (None, Some(Place::File(path))) => read(&path.display().to_string(), std::fs::read(path)),
        (None, Some(Place::Standard)) => {
            let mut all = Vec::new();
            let done = io::stdin().lock().read_to_end(&mut all);
            read("standard input", done.map(|_| all))
        }
        (None, None) => Ok(None),
    }
}

/// The answer on its way to where it belongs.
enum Answer {
    Standard,
    File(String, File),
    /// Kept for the figures.
    Kept(Vec<u8>),
}

impl Answer {
    fn open(place: Option<&Place>) -> Result<Self, Failed> {
        Ok(match place {
            None => Self::Kept(Vec::new()),
            Some(Place::Standard) => Self::Standard,
            Some(Place::File(path)) => {
                let name = path.display().to_string();
                match File::create(path) {
                    Ok(file) => Self::File(name, file),
                    Err(error) => return Err(Failed::file("cannot write", &name, &error)),
                }
            }
        })
    }

    /// Takes bytes of the answer; standard output shows them at once.
    fn take(&mut self, bytes: &[u8]) -> Outcome {
        match self {
            Self::Standard => {
                let mut out = io::stdout().lock();
                match out.write_all(bytes).and_then(|()| out.flush()) {
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                        Err(Failed::file("cannot write to", "standard output", &error))
                    }
                    _ => Ok(()),
                }
            }
            Self::File(name, file) => {
                let written = file.write_all(bytes);
                written.map_err(|error| Failed::file("cannot write", name, &error))
            }
            Self::Kept(kept) if kept.len() + bytes.len() > MAX_ANSWER => Err(Failed::new(
                format_args!("the answer is larger than {} MiB", MAX_ANSWER >> 20),
                "Name a file for it with --output",
            )),
            Self::Kept(kept) => {
                kept.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// The answer for the figures: JSON, or text; `None` if it went elsewhere.
    fn value(&self) -> Option<serde_json::Value> {
        let Self::Kept(kept) = self else { return None };
        let text = || String::from_utf8_lossy(kept).into_owned().into();
        Some(serde_json::from_slice(kept).unwrap_or_else(|_| text()))
    }

    fn file(&self) -> Option<String> {
        match self {
            Self::File(name, _) => Some(name.clone()),
            Self::Standard | Self::Kept(_) => None,
        }
    }
}
