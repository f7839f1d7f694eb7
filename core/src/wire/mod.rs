//! Typed messages that hold only legal states. The only room that reads protobuf, JSON and base64.

mod info;

pub use info::{AuthToken, OrchestratorInfo, TicketParams, WireError};
