//! The three classes that applications speak: [`OrchestratorSession`], [`PaymentSession`] and [`LiveVideoJob`].
//!
//! They hold no protocol decision: each is a handle on machines of `livepeer-core` that a [`Driver`](crate::Driver)
//! runs. The adapters re-export them with their runtime filled in.

mod board;
mod error;
mod find;
mod input;
mod live;
mod media;
mod orchestrator;
mod payer;
mod payment;
mod pump;

pub use error::Error;
pub use find::{Discovered, Survey, discover};
pub use live::{JobEvent, LiveVideoJob, LiveVideoJobBuilder, Spent};
pub use media::{Flushed, MAX_SEGMENT_BYTES, Output, OutputEvent, Publisher, Segment};
pub use orchestrator::{OrchestratorSession, OrchestratorSessionBuilder};
pub use payer::{Payer, orchestrator_url, service_url};
pub use payment::{Payment, PaymentSession};
pub use pump::Swapped;
