//! Update, smoke test and heartbeat.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::Refusal;
use crate::http::Reach;
use crate::wire::{MAX_MESSAGE_BYTES, Params, WireError};

/// How long a smoke test takes if it does not say.
pub const DEFAULT_SMOKE_TEST: Duration = Duration::from_secs(300);
/// How long a smoke test may take.
pub const MAX_SMOKE_TEST: Duration = Duration::from_secs(3600);

/// Reads new parameters for a running job. They go on byte by byte.
///
/// # Errors
/// 413 if they are longer than [`MAX_MESSAGE_BYTES`], 400 if they are not a JSON object.
pub fn read_update(body: &Bytes) -> Result<Bytes, Refusal> {
    if body.len() > MAX_MESSAGE_BYTES {
        return Err(Refusal::new(413, "parameters of more than 1 MiB"));
    }
    read(body, Params::parse)
}

/// Reads new parameters for a container, which may be longer.
///
/// # Errors
/// 400 if they are not a JSON object, or too long.
pub fn read_change(body: &Bytes) -> Result<Bytes, Refusal> {
    read(body, Params::for_container)
}

fn read(body: &Bytes, parse: fn(&str) -> Result<Params, WireError>) -> Result<Bytes, Refusal> {
    let bad = |text: String| Refusal {
        status: 400,
        text: text.into(),
    };
    let text =
        core::str::from_utf8(body).map_err(|_| bad("parameters are not UTF-8".to_string()))?;
    parse(text).map_err(|err| bad(err.to_string()))?;
    Ok(body.clone())
}

/// A request to push a test stream for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmokeTest {
    /// Where to.
    pub stream_url: String,
    /// How long.
    pub duration: Duration,
    /// Where that place may be: a caller named it.
    pub named: Reach,
}

impl SmokeTest {
    /// Reads the body.
    ///
    /// # Errors
    /// 400 if it is not JSON, names no stream, or takes no time or too much.
    pub fn read(body: &[u8], named: Reach) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Body {
            stream_url: Option<String>,
            duration_secs: Option<i64>,
        }
        let refused = |text: &'static str| Refusal::new(400, text);
        let body: Body =
            serde_json::from_slice(body).map_err(|_| refused("Failed to parse request body"))?;
        let stream_url = body.stream_url.filter(|url| !url.is_empty());
        let stream_url = stream_url.ok_or(refused("Missing stream url"))?;
        let duration = match body.duration_secs.unwrap_or(0) {
            0 => DEFAULT_SMOKE_TEST,
            secs => {
                let secs =
                    u64::try_from(secs).map_err(|_| refused("duration_secs must be positive"))?;
                Duration::from_secs(secs)
            }
        };
        if duration > MAX_SMOKE_TEST {
            return Err(refused("Request exceeds max duration 1h0m0s"));
        }
        Ok(Self {
            stream_url,
            duration,
            named,
        })
    }
}

/// Credentials for the field `Authorization` of whoever asks for a name and a password.
#[must_use]
pub fn basic_credentials(user: &str, password: &str) -> String {
    let pair = alloc::format!("{user}:{password}");
    alloc::format!("Basic {}", STANDARD.encode(pair))
}

/// The body of a heartbeat: the ids of the streams that run.
pub fn heartbeat<'a>(ids: impl Iterator<Item = &'a str>) -> Bytes {
    let ids: Vec<_> = ids.collect();
    json!({ "ids": ids }).to_string().into()
}

/// The ids of the streams that a heartbeat's answer ends. Whatever cannot be read ends none.
#[must_use]
pub fn read_heartbeat(status: u16, body: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        terminated_stream_ids: Option<Vec<String>>,
    }
    if !(200..300).contains(&status) {
        return Vec::new();
    }
    let body: Option<Body> = serde_json::from_slice(body).ok();
    body.and_then(|body| body.terminated_stream_ids)
        .unwrap_or_default()
}
