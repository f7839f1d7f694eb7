//! Output for people: progress and logs on stderr, results on stdout, one line for a failure.
//!
//! Standard output carries results only (tables, or JSON with `--json`), so that it can be piped. Nothing here
//! decides anything.

mod fail;
mod format;
mod latency;
pub(crate) mod log;
mod output;
mod progress;
mod summary;
mod table;

pub(crate) use fail::{Failed, Outcome};
pub(crate) use format::{Wei, bytes, count, duration};
pub(crate) use latency::Latencies;
pub(crate) use output::{json, print, print_json, print_json_error, print_json_with, report, tell};
pub(crate) use progress::Progress;
pub(crate) use summary::{BatchSummary, Money, Summary, wei};
pub(crate) use table::{facts, table};
