//! The classes that applications speak. [`Gateway`] is the entry; from it come [`LiveVideoJob`] with its [`Input`] and
//! [`Output`], [`BatchJob`], [`ByocJob`], [`ByocStream`], [`AppSession`], [`OrchestratorSession`] with its [`PaymentSession`], and [`Search`].
//!
//! These classes hold no protocol decision: each is a handle on machines of `livepeer-core` that a
//! [`Driver`](crate::Driver) runs. The adapters re-export them with their runtime filled in.
//!
//! Answers are state that calls look up, so that calls at the same time each get theirs; events go to everybody who
//! reads them. Everything may be dropped anywhere: jobs stop, inputs close and payments count as refused.

mod account;
mod address;
mod answers;
mod app;
mod batch;
mod board;
mod builder;
mod byoc;
mod error;
mod event;
mod feed;
mod find;
mod fleet;
mod found;
mod gateway;
mod hub;
mod input;
mod live;
mod memory;
mod orchestrator;
mod output;
mod payment;
mod peers;
mod pump;
mod registration;
mod rentals;
mod requests;
mod ring;
mod runner_session;
mod ts;

pub use address::{orchestrator_url, service_url};
pub use answers::{Caption, Images, Masks, Picture, Reply, Speech, Task, TaskAnswer, Transcript};
pub use app::{AppAnswer, AppBuilder, AppSession, AppSpeaker};
pub use batch::{BatchJob, Chunks, Submission};
pub use builder::LiveVideoJobBuilder;
pub use byoc::{
    ByocChunks, ByocData, ByocEvent, ByocJob, ByocStream, ByocStreamBuilder, ByocStreamEvents,
    ByocSubmission,
};
pub use error::{Error, Over};
pub use event::{AppEvent, BatchEvent, JobEvent, Spent, Swapped};
pub use find::{Search, Survey, discover};
pub use found::Discovered;
pub use gateway::Gateway;
pub use input::{Flushed, Input, Segment};
pub use live::{Events, LiveVideoJob};
pub use livepeer_core::job::app::{Call as AppCall, Failed as AppFailed};
pub use livepeer_core::job::batch::{Failed as BatchFailed, Finished, Served};
pub use livepeer_core::job::byoc::stream::{
    Begun as ByocStreamBegun, StreamAnswer as ByocStreamAnswer, StreamEvent as ByocStreamEvent,
};
pub use livepeer_core::job::byoc::{
    Done as ByocDone, Failed as ByocFailed, Order as ByocOrder, Served as ByocServed,
};
pub use livepeer_core::job::live::media::{Figures as MediaFigures, Matching, OutputEvent};
pub use livepeer_core::job::runner::{Config as RegistrationConfig, Event as RegistrationEvent};
pub use livepeer_core::payment::Payer;
pub use livepeer_core::wire::app::registration::{
    ChannelInfo, Heartbeat, Proxy as RunnerProxy, StatedPrice,
};
pub use livepeer_core::wire::batch::fields::Message;
pub use livepeer_core::wire::batch::{Answer, BatchRequest, Completion, FilePart};
pub use orchestrator::{OrchestratorSession, OrchestratorSessionBuilder};
pub use output::{MAX_SEGMENT_BYTES, Output, OutputReader, Segments};
pub use payment::{PaidPayments, Payment, PaymentSession};
pub use registration::Registration;
pub use requests::{
    AudioToText, ImageToImage, ImageToText, ImageToVideo, Llm, SegmentAnything2, TextToImage,
    TextToSpeech, Upscale,
};
pub use runner_session::RunnerSession;
