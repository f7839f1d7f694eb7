//! The three classes that applications speak: [`OrchestratorSession`], [`PaymentSession`] and [`LiveVideoJob`].
//!
//! These classes hold no protocol decision: each is a handle on machines of `livepeer-core` that a
//! [`Driver`](crate::Driver) runs. The adapters re-export them with their runtime filled in.

mod board;
mod error;
mod event;
mod find;
mod input;
mod live;
mod memory;
mod orchestrator;
mod output;
mod payer;
mod payment;
mod pump;

pub use error::Error;
pub use event::{JobEvent, Spent, Swapped};
pub use find::{Discovered, Survey, discover};
pub use input::{Flushed, Publisher, Segment};
pub use live::{LiveVideoJob, LiveVideoJobBuilder};
pub use livepeer_core::job::live::media::{Figures as MediaFigures, Matching, OutputEvent};
pub use livepeer_core::payment::Payer;
pub use orchestrator::{OrchestratorSession, OrchestratorSessionBuilder};
pub use output::{MAX_SEGMENT_BYTES, Output};
pub use payer::{orchestrator_url, service_url};
pub use payment::{Payment, PaymentSession};
