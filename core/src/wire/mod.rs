//! Typed messages that hold only legal states. The only room that reads protobuf, JSON and base64.

mod info;
mod live;

pub use info::{AuthToken, OrchestratorInfo, TicketParams, WireError};
pub use live::{
    Channels, DEFAULT_MODEL, EventContext, KEEP_ALIVE, MAX_MESSAGE_BYTES, MAX_START_ANSWER_BYTES,
    Params, RunnerEvent, ScopeChannels, StartRequest,
};
