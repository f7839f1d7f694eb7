//! Live streams at the gateway's door: their names, the requests about them, and what these are answered
//! (jobs spec 3.1, 3.5, 8.2, 13).
//!
//! All of this is values; the routes and the jobs behind them are elsewhere.

mod auth;
mod hook;
mod name;
mod place;
mod query;
mod report;
mod requests;

pub use self::auth::{AuthAnswer, AuthQuestion, Denied};
pub use self::hook::{MAX_QUERY_BYTES, MediaSource, SourceKind, StartHook};
pub use self::name::{BadStreamName, MAX_NAME_BYTES, OutputName, Publication, StreamName};
pub use self::place::{Place, rtmp_server};
pub use self::query::{BadEscape, JobQuery};
pub use self::report::{
    GatewayStatus, IngestMetrics, TraceContext, TraceKind, TrackMetrics, batch, draining_event,
    envelope, error_event, ingest_metrics_event, params_event,
};
pub use self::requests::{
    DEFAULT_SMOKE_TEST, MAX_SMOKE_TEST, SmokeTest, basic_credentials, heartbeat, read_change,
    read_heartbeat, read_update,
};

use alloc::borrow::Cow;
use alloc::string::ToString as _;

/// The two doors of WebRTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// Senders come in.
    Whip,
    /// Viewers come in.
    Whep,
}

/// A request that is answered with a status and one line of plain text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// The text, without its line end.
    pub text: Cow<'static, str>,
}

impl From<BadStreamName> for Refusal {
    fn from(bad: BadStreamName) -> Self {
        Self {
            status: 400,
            text: bad.to_string().into(),
        }
    }
}

impl Refusal {
    /// A stream that is not known by this name or id.
    pub const UNKNOWN_STREAM: Self = Self::new(404, "Stream not found");
    /// There is no such part of a stream for players of HLS.
    pub const NO_MEDIA: Self = Self::new(404, "ErrNotFound");
    /// An output's name that cannot be read.
    pub const MALFORMED_OUTPUT: Self = Self::new(404, "Malformed stream ID");
    /// A stream that the webhook or the key check refused.
    pub const FORBIDDEN: Self = Self::new(403, "Forbidden");
    /// Parameters of a model that are not a JSON object.
    pub const BAD_PARAMS: Self = Self::new(400, "Invalid model params");

    const fn new(status: u16, text: &'static str) -> Self {
        Self {
            status,
            text: Cow::Borrowed(text),
        }
    }
}
