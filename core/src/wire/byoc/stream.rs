//! Streams of media through a container: the requests that start, change, pay for and end one (jobs spec 5).

use alloc::format;
use alloc::string::{String, ToString as _};

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use crate::http::{Headers, Url};
use crate::wire::error::WireError;
use crate::wire::json::Fields;
use crate::wire::live::{MAX_CONTAINER_PARAMS, Params};

/// Where an orchestrator starts a stream.
pub const START_PATH: &str = "/ai/stream/start";
/// Where an orchestrator passes parameters on to a stream's container.
pub const UPDATE_PATH: &str = "/ai/stream/update";
/// Where an orchestrator takes payments for a stream.
pub const PAYMENT_PATH: &str = "/ai/stream/payment";
/// Where an orchestrator ends a stream.
pub const STOP_PATH: &str = "/ai/stream/stop";

/// The longest body of a request about a stream.
pub const MAX_BODY_BYTES: usize = MAX_CONTAINER_PARAMS;

/// A caller's request for a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamRequest {
    /// The stream's name; may be empty.
    pub name: String,
    /// Where video out goes besides, as a list with commas; may be empty.
    pub rtmp_output: String,
    /// The stream's id; may be empty.
    pub id: String,
    /// The container's first parameters.
    pub params: Option<Params>,
}

impl StreamRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// If it is not the JSON object, the parameters are not an object, or the name is that of a channel.
    pub fn from_json(body: &[u8]) -> Result<Self, WireError> {
        let bad = |why: String| WireError::new("stream request", why);
        let fields = Fields::first(body).map_err(bad)?;
        let text = |name| fields.text(name).map_err(bad);
        let params = text("params")?;
        let params = match params.as_str() {
            "" | "null" => None,
            params => Some(Params::for_container(params).map_err(|err| {
                WireError::new("stream request", format!("invalid model params: {err}"))
            })?),
        };
        let request = Self {
            name: text("stream_name")?,
            rtmp_output: text("rtmp_output")?,
            id: text("stream_id")?,
            params,
        };
        if request.name.ends_with("-out") || request.id.ends_with("-out") {
            return Err(bad("a name ending in -out is that of a channel".into()));
        }
        Ok(request)
    }

    /// The id that callers know the stream by. `random` stands for one that the caller did not choose.
    #[must_use]
    pub fn stream_id(&self, random: u32) -> String {
        let id = match self.id.as_str() {
            "" => format!("{random:08x}"),
            id => id.to_string(),
        };
        match self.name.as_str() {
            "" => id,
            name => format!("{name}-{id}"),
        }
    }
}

/// Addresses for a caller; an empty one leads nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are the meaning")]
pub struct StreamUrls {
    pub stream_id: String,
    pub whip_url: String,
    pub whep_url: String,
    pub rtmp_url: String,
    pub rtmp_output_url: String,
    pub update_url: String,
    pub status_url: String,
    pub data_url: String,
    pub stop_url: String,
}

impl StreamUrls {
    /// The JSON object.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let json = serde_json::to_vec(self).expect("strings always serialise");
        json.into()
    }
}

/// The body that starts a stream at an orchestrator.
#[must_use]
pub fn start_body(params: Option<&Params>) -> Bytes {
    let params = params.map_or_else(|| "null".to_string(), Params::to_json);
    format!(r#"{{"params":{params}}}"#).into()
}

/// The text for the orchestrator in a job that is about a stream.
#[must_use]
pub fn about(stream_id: &str) -> String {
    json!({"stream_id": stream_id}).to_string()
}

/// A text for the orchestrator, so that its job is about a stream.
#[must_use]
pub fn also_about(text: &str, stream_id: &str) -> String {
    match serde_json::from_str(text) {
        Ok(Value::Object(mut fields)) => {
            fields.insert("stream_id".into(), stream_id.into());
            Value::Object(fields).to_string()
        }
        _ => about(stream_id),
    }
}

/// The event that ends a stream of data.
#[must_use]
pub fn data_ended() -> Bytes {
    Bytes::from_static(b"event: end\ndata: {\"type\":\"stream_ended\"}\n\n")
}

/// The channels of a stream; those that it does not have are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamChannels {
    /// Where video goes in.
    pub publish: Option<Url>,
    /// Where video comes out.
    pub subscribe: Option<Url>,
    /// Where parameters and the keep-alive go.
    pub control: Option<Url>,
    /// Where the container's events come from.
    pub events: Option<Url>,
    /// Where data comes out.
    pub data: Option<Url>,
}

impl StreamChannels {
    /// Reads the headers of a good answer of `orchestrator`. Control and events belong to every stream.
    ///
    /// # Errors
    /// If one of these two is missing, or any is malformed or not for the orchestrator to name.
    pub fn from_headers(headers: &Headers, orchestrator: &Url) -> Result<Self, WireError> {
        let url = |name: &'static str| {
            let bad = |why: String| WireError::new("start answer", format!("{name}: {why}"));
            let Some(text) = headers.get(name).filter(|text| !text.is_empty()) else {
                return Ok(None);
            };
            let url = orchestrator
                .resolve(text)
                .map_err(|err| bad(err.to_string()))?;
            let url = url
                .named_by(orchestrator)
                .map_err(|err| bad(err.to_string()))?;
            Ok(Some(url))
        };
        let channels = Self {
            publish: url("x-publish-url")?,
            subscribe: url("x-subscribe-url")?,
            control: url("x-control-url")?,
            events: url("x-events-url")?,
            data: url("x-data-url")?,
        };
        if channels.control.is_none() || channels.events.is_none() {
            let why = "it names no control or no events channel";
            return Err(WireError::new("start answer", why));
        }
        Ok(channels)
    }

    /// The channels at the orchestrator's own host: the host that they name may be for runners only.
    #[must_use]
    pub fn at_home(&self, orchestrator: &Url) -> Self {
        let home = |url: &Option<Url>| url.as_ref().map(|url| orchestrator.with_path(url.path()));
        Self {
            publish: home(&self.publish),
            subscribe: home(&self.subscribe),
            control: home(&self.control),
            events: home(&self.events),
            data: home(&self.data),
        }
    }

    /// The headers of an answer.
    pub fn push_headers(&self, headers: &mut Headers) {
        for (name, url) in [
            ("x-publish-url", &self.publish),
            ("x-subscribe-url", &self.subscribe),
            ("x-control-url", &self.control),
            ("x-events-url", &self.events),
            ("x-data-url", &self.data),
        ] {
            if let Some(url) = url {
                headers.push(name, url.to_string());
            }
        }
    }
}

/// Reads the body of a start request, as an orchestrator does: the parameters, if there are any.
///
/// # Errors
/// If it is not a JSON object.
pub fn read_start_body(body: &[u8]) -> Result<Option<Value>, WireError> {
    let bad = |err: serde_json::Error| WireError::new("start request", err.to_string());
    match serde_json::from_slice(body).map_err(bad)? {
        Value::Object(mut fields) => Ok(fields.remove("params").filter(|value| !value.is_null())),
        _ => Err(WireError::new("start request", "not a JSON object")),
    }
}
