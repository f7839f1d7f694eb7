//! Machines that speak with the chain, through JSON-RPC endpoints (payments spec 15).

pub mod feed;
mod watch;

pub use feed::PriceFeed;
pub use watch::{ChainWatch, Config, Event, FRESH};

const DOING: &str = "a question to the chain";
