//! Jobs: the only room where handshake, payment and trickle meet.

mod account;
pub mod app;
pub mod batch;
pub mod byoc;
mod hire;
mod introduction;
pub mod live;
pub mod runner;
mod swaps;

pub use live::LiveVideoJob;
pub use swaps::{MAX_SWAPS, SWAP_SPACING, SwapLimit};
