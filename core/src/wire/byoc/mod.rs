//! Containers that an operator brought, behind an orchestrator: BYOC (jobs spec 4, 5).
//!
//! A [`JobRequest`] travels in a header of its own beside whatever body the container takes. A [`Token`] is an
//! orchestrator's offer to run one: price, ticket parameters, capacity and what the payer has left. [`judge`] says
//! what an answer other than a good one means, and a [`Relay`] passes on the events of a container that streams.
//! Streams of media are [started, changed and ended](stream) by requests of their own.

mod job;
mod judge;
mod relay;
mod sender;
pub mod stream;
mod token;

pub use job::{
    BadJob, JobRequest, Scheme, SignRequest, Wishes, job_signature_json, read_job_signature,
};
pub use judge::{Grounds, Verdict, judge};
pub use relay::{Relay, Relayed};
pub use sender::{Sender, SignedBy};
pub use token::Token;

use crate::http::Url;

/// The header that carries a [`JobRequest`].
pub const JOB_HEADER: &str = "livepeer";
/// The header by which a payer introduces itself: a [`Sender`].
pub const SENDER_HEADER: &str = "livepeer-eth-address";
/// The header that names the container.
pub const CAPABILITY_HEADER: &str = "livepeer-capability";
/// The header with what the payer has left at the orchestrator, in whole wei.
pub const BALANCE_HEADER: &str = "livepeer-balance";
/// The header with that balance at the head of a stream of events.
pub const STREAM_BALANCE_HEADER: &str = "livepeer-payment-balance";
/// The header with the container's own words about its answer.
pub const METADATA_HEADER: &str = "x-metadata";
/// The header by which a gateway tells its client which orchestrator has the job.
pub const ORCHESTRATOR_HEADER: &str = "x-orchestrator-url";
/// The header by which a client says how long a gateway may look for an orchestrator.
pub const SEARCH_TIMEOUT_HEADER: &str = "livepeer-orch-search-timeout";
/// The header by which a client says how long an orchestrator may take for a token.
pub const TOKEN_TIMEOUT_HEADER: &str = "livepeer-orch-search-resp-timeout";

/// Where an orchestrator gives tokens.
pub const TOKEN_PATH: &str = "/process/token";
/// Where an orchestrator takes requests; the container's own path follows.
pub const REQUEST_PATH: &str = "/process/request";
/// The address of a container's own `path` behind the orchestrator at `service`.
///
/// # Errors
/// If the path does not reach the container as it was written.
pub fn request_url(service: &Url, path: &str) -> Result<Url, super::app::BadPath> {
    super::app::app_url(&service.with_path(REQUEST_PATH), path)
}

/// Where a remote signer signs jobs.
pub const SIGN_JOB_PATH: &str = "/sign-byoc-job";

/// The longest token that is read.
pub const MAX_TOKEN_BYTES: usize = 64 << 10;
