//! Typed messages that hold only legal states. The only room that reads protobuf, JSON and base64.

pub mod app;
pub mod batch;
pub mod byoc;
mod capabilities;
pub mod challenge;
mod changefeed;
pub mod entry;
mod error;
pub mod ethereum;
pub mod grpc;
mod identity;
mod info;
mod json;
pub mod jsonrpc;
pub mod keystore;
pub mod listing;
mod live;
pub mod multipart;
pub mod openai;
pub mod payment;
pub mod preferences;
pub mod price_list;
mod reason;
pub mod refused;
pub mod replies;
pub mod runner;
pub mod signer;
pub mod signer_state;
pub mod sse;
mod strict;
mod token;
mod track_record;
pub mod webhook;

pub use capabilities::{MAX_MODELS, MAX_PRICES, MAX_VERSION_BYTES};
pub(crate) use changefeed::channel_change;
pub use error::WireError;
pub(crate) use error::cut;
pub use identity::{
    MAX_IDENTITY_BYTES, check_identity, error_words, identity_digest, read_identity,
};
pub(crate) use info::info_request;
pub use info::{AuthToken, MAX_NODES, OrchestratorAnswer, OrchestratorInfo, TicketParams};
pub use live::{
    Channels, DEFAULT_MODEL, EventContext, KEEP_ALIVE, MAX_CONTAINER_PARAMS, MAX_MESSAGE_BYTES,
    MAX_START_ANSWER_BYTES, Params, RunnerEvent, ScopeChannels, StartRequest,
};
pub use payment::{BadCredentials, Payment, SegmentCredentials, SenderParams};
pub use reason::{named_ceiling, reason, says_already_seen};
pub use signer_state::SignerState;
pub use token::{MAX_TOKEN_BYTES, Token};
pub use track_record::{read_track_record, track_record_bytes};
