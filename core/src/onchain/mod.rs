//! Machines that speak with the chain, through JSON-RPC endpoints (payments spec 15).

mod watch;

pub use watch::{ChainWatch, Config, Event, FRESH};
