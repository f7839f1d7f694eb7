//! Options of `runner`.

use std::path::PathBuf;

use clap::Args;
use livepeer_core::http::Url;
use livepeer_core::wire::app::registration::{Heartbeat, StatedPrice};
use livepeer_core::wire::runner::{Gpu, Mode};

use super::{Runtime, values};
use crate::ui::Failed;

/// Options of `runner`.
#[derive(Args, Debug)]
pub(crate) struct RunnerArgs {
    /// The orchestrator that rents the app out. Without a scheme, https is meant.
    #[arg(long, value_name = "URL", value_parser = values::required_orchestrator)]
    pub(crate) orchestrator: Url,
    /// The file whose first line is the secret that the orchestrator shares with its runners.
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: PathBuf,
    /// The address of the app, at which the orchestrator reaches it: http://127.0.0.1:8000. A command may do without: it is
    /// given a free port of this machine.
    #[arg(long, value_name = "URL", required_unless_present = "command")]
    url: Option<String>,
    /// The app, such as my/painter.
    #[arg(long, value_name = "APP")]
    app: String,
    /// Take single calls in place of sessions.
    #[arg(long)]
    single_shot: bool,
    /// How many sessions, or calls, at a time.
    #[arg(long, value_name = "N", default_value_t = 1)]
    capacity: u32,
    /// The price of a unit of work; the orchestrator turns it into wei. Nothing is free.
    #[arg(long, value_name = "NUMBER", default_value = "0")]
    price: String,
    /// The currency of the price.
    #[arg(long, value_name = "CURRENCY", default_value = "usd", value_parser = ["usd", "wei"])]
    currency: String,
    /// The unit of work: an hour, an hour of pixels at 720p, or a session or call however long.
    #[arg(long, value_name = "UNIT", default_value = "hour", value_parser = ["hour", "720p", "fixed"])]
    unit: String,
    /// The name of the runner at its orchestrator, which makes one up otherwise. After a crash the same name is free again
    /// only after 25 s, and is waited for.
    #[arg(long, value_name = "NAME", default_value = "")]
    name: String,
    /// The model of GPU that the app runs on, by which people choose it; `none` tells of none. Otherwise it is the one that
    /// nvidia-smi tells of.
    #[arg(long, value_name = "NAME")]
    gpu: Option<String>,
    /// Accept only a certificate that public authorities vouch for.
    #[arg(long)]
    pub(crate) ca_trust: bool,
    /// The runtime that drives it.
    #[arg(long, value_enum, default_value_t = Runtime::Tokio)]
    pub(crate) runtime: Runtime,
    /// A command that serves the app. It is started first, told the port as PORT in its environment and where an argument
    /// says {port}, and registered once it listens there; it ends with this program, and this program with it.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

impl RunnerArgs {
    /// The address of the app, unless a command is to be given one.
    pub(crate) fn url(&self) -> Option<Url> {
        // It was judged with the rest of the command line.
        self.url.as_deref().and_then(|url| Url::parse(url).ok())
    }

    /// The GPU, if the command line says which it is, or that there is none.
    pub(crate) fn gpu(&self) -> Option<Option<Gpu>> {
        let name = self.gpu.as_deref()?;
        Some((!matches!(name, "none" | "")).then(|| Gpu {
            name: name.to_owned(),
            ..Gpu::default()
        }))
    }

    /// The runner at that address, as its orchestrator hears of it.
    pub(crate) fn heartbeat(&self, url: String) -> Heartbeat {
        Heartbeat {
            mode: match self.single_shot {
                true => Mode::SingleShot,
                false => Mode::Persistent,
            },
            capacity: self.capacity,
            price: StatedPrice {
                price: self.price.clone(),
                currency: self.currency.clone(),
                unit: self.unit.clone(),
            },
            runner_id: self.name.clone(),
            ..Heartbeat::new(url, &*self.app)
        }
    }

    pub(super) fn validate(&self) -> Result<(), Failed> {
        let place = self.url.as_deref().unwrap_or("http://127.0.0.1");
        let checked = self.heartbeat(place.to_owned()).check();
        checked.map_err(|why| Failed::usage(why, "runner"))
    }
}
