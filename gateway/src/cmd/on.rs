//! The two executors. Everything above is generic over which one runs.

use std::io;
use std::num::NonZeroUsize;

use livepeer_runtime::{Driver, Runtime};
use tokio::runtime::Builder;

use super::stop::Stop;
use crate::ui::{Failed, Outcome};

/// A command's work, on whichever executor it is given.
pub(super) trait Work {
    /// Does it, and closes what it opened when `stop` says so.
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome;
}

/// After so many tasks the sockets are looked at again. A task may carry half a megabyte here; after tokio's 61 of
/// them, readers that have room again would have waited for a whole segment.
const EVENT_INTERVAL: u32 = 16;

/// Does `work` on the executor of that name.
pub(super) fn run(runtime: crate::args::Runtime, work: impl Work) -> Outcome {
    run_with(runtime, None, work)
}

/// Runs as [`run`] does, with that many threads if it is tokio; `None` is one per core. A single one spares the handing
/// over between threads, which costs more than it brings until that one is busy.
pub(super) fn run_with(
    runtime: crate::args::Runtime,
    threads: Option<NonZeroUsize>,
    work: impl Work,
) -> Outcome {
    let stop = Stop::listen()?;
    match runtime {
        crate::args::Runtime::Tokio => match threads.map(NonZeroUsize::get) {
            Some(1) => Builder::new_current_thread(),
            Some(threads) => {
                let mut builder = Builder::new_multi_thread();
                builder.worker_threads(threads);
                builder
            }
            None => Builder::new_multi_thread(),
        }
        .event_interval(EVENT_INTERVAL)
        .enable_all()
        .build()
        .map_err(|error: io::Error| {
            Failed::new(
                format_args!("cannot start the tokio runtime: {error}"),
                "Raise the limits of threads and open files",
            )
        })?
        .block_on(async { work.on(livepeer_tokio::driver(), stop).await }),
        crate::args::Runtime::Smol => {
            smol::block_on(async { work.on(livepeer_smol::driver(), stop).await })
        }
    }
}
