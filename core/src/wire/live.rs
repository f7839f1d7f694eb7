//! The start of a live video job at an orchestrator, and the messages of its control and events channels
//! (jobs spec 3.2, 3.3).

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::WireError;
use crate::http::{Forbidden, Url};
use crate::pipeline::Pipeline;
use crate::sign::Address;

/// The model that an empty name means.
pub const DEFAULT_MODEL: &str = Pipeline::LiveVideoToVideo.default_model();

/// Parameters, control messages and events are refused beyond this (jobs spec 13).
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// The answer to a start request is refused beyond this: five URLs and an id.
pub const MAX_START_ANSWER_BYTES: usize = 64 << 10;

/// The text that keeps a runner's control channel alive; runners ignore only exactly this text.
pub const KEEP_ALIVE: &str = r#"{"keep":"alive"}"#;

/// The longest parameters of a container.
pub const MAX_CONTAINER_PARAMS: usize = 10 << 20;

/// A JSON object that parameterises a model: what `params` and control messages are. Its text stays as it came, since a
/// reader of it may know numbers and an order of fields that we do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params(Arc<str>);

impl Params {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// If the text is not one JSON object, or has more than [`MAX_MESSAGE_BYTES`].
    pub fn parse(text: &str) -> Result<Self, WireError> {
        Self::up_to(MAX_MESSAGE_BYTES, text)
    }

    /// Reads a JSON object for a container, which is handed over in a request of its own.
    ///
    /// # Errors
    /// If the text is not one JSON object, or has more than [`MAX_CONTAINER_PARAMS`].
    pub fn for_container(text: &str) -> Result<Self, WireError> {
        Self::up_to(MAX_CONTAINER_PARAMS, text)
    }

    fn up_to(limit: usize, text: &str) -> Result<Self, WireError> {
        const WHAT: &str = "model parameters";
        if text.len() > limit {
            let why = format!("longer than {} MiB", limit >> 20);
            return Err(WireError::new(WHAT, why));
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(_)) => Ok(Self(text.into())),
            Ok(_) => Err(WireError::new(
                WHAT,
                r#"not a JSON object such as {"prompt":"a cat"}"#,
            )),
            Err(err) => Err(WireError::new(WHAT, format!("not JSON: {err}"))),
        }
    }

    /// The object as it came, byte for byte.
    #[must_use]
    pub fn to_json(&self) -> String {
        (*self.0).into()
    }

    /// The object for a place in other JSON.
    pub(in crate::wire) fn to_raw(&self) -> &RawValue {
        serde_json::from_str(&self.0).expect("it was read as JSON before")
    }
}

/// The request that starts a job: `POST {transcoder}/live-video-to-video`.
///
/// Absent fields are left out of the JSON, as the reference SDK does; the reference gateway sends them empty or null,
/// and empty media URLs besides. Orchestrators take both forms for the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartRequest {
    /// The pipeline; empty means [`DEFAULT_MODEL`].
    pub model_id: String,
    /// The model's first parameters.
    pub params: Option<Params>,
    /// Names the request in the orchestrator's logs.
    pub request_id: Option<String>,
    /// Names the stream in the orchestrator's logs.
    pub stream_id: Option<String>,
}

impl StartRequest {
    /// Reads the body of a request, as orchestrators do: null and empty fields are absent ones.
    ///
    /// # Errors
    /// If the body is not one JSON object, or a field is of the wrong kind.
    pub fn from_json(body: &[u8]) -> Result<Self, WireError> {
        #[derive(Deserialize)]
        struct Body {
            model_id: Option<String>,
            params: Option<Box<RawValue>>,
            gateway_request_id: Option<String>,
            stream_id: Option<String>,
        }
        let body: Body = serde_json::from_slice(body)
            .map_err(|err| WireError::new("start request", format!("{err}")))?;
        let params = body.params.map(|params| Params::parse(params.get()));
        let present = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(Self {
            model_id: present(body.model_id).unwrap_or_else(|| DEFAULT_MODEL.to_owned()),
            params: params.transpose()?,
            request_id: present(body.gateway_request_id),
            stream_id: present(body.stream_id),
        })
    }

    /// The JSON body.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        #[derive(Serialize)]
        struct Body<'a> {
            model_id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            params: Option<&'a RawValue>,
            #[serde(skip_serializing_if = "Option::is_none")]
            gateway_request_id: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            stream_id: Option<&'a str>,
        }
        let body = Body {
            model_id: if self.model_id.is_empty() {
                DEFAULT_MODEL
            } else {
                &self.model_id
            },
            params: self.params.as_ref().map(Params::to_raw),
            gateway_request_id: self.request_id.as_deref(),
            stream_id: self.stream_id.as_deref(),
        };
        serde_json::to_vec(&body)
            .expect("strings and JSON values always serialise")
            .into()
    }
}

/// The channels of a job that an orchestrator took on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Names the job and its balance at the orchestrator.
    pub manifest_id: String,
    /// Where the input goes.
    pub publish: Url,
    /// Where the output comes from.
    pub subscribe: Url,
    /// Where parameters and the keep-alive go.
    pub control: Url,
    /// Where the runner's events come from.
    pub events: Url,
}

impl Channels {
    /// Reads the answer to a start request sent to `orchestrator`. Unknown fields are ignored, URLs without a host
    /// are resolved against the orchestrator. As read they lead to public addresses only; see [`Channels::named_by`].
    ///
    /// # Errors
    /// If the body is not JSON, or lacks a manifest id or one of the four channels, or a URL is malformed.
    pub fn from_json(body: &[u8], orchestrator: &Url) -> Result<Self, WireError> {
        let fields = StartAnswer::parse(body)?;
        let url = |key| fields.url(key, orchestrator);
        Ok(Self {
            manifest_id: fields.manifest_id()?,
            publish: url("publish_url")?,
            subscribe: url("subscribe_url")?,
            control: url("control_url")?,
            events: url("events_url")?,
        })
    }

    /// The channels as named by `orchestrator`.
    ///
    /// # Errors
    /// If one of them is not for it to name.
    pub fn named_by(self, orchestrator: &Url) -> Result<Self, Forbidden> {
        Ok(Self {
            manifest_id: self.manifest_id,
            publish: self.publish.named_by(orchestrator)?,
            subscribe: self.subscribe.named_by(orchestrator)?,
            control: self.control.named_by(orchestrator)?,
            events: self.events.named_by(orchestrator)?,
        })
    }
}

/// The channels of a Scope job: media channels are agreed later over control and events (jobs spec 3.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeChannels {
    /// Names the job and its balance at the orchestrator.
    pub manifest_id: String,
    /// Where messages to the app go.
    pub control: Url,
    /// Where the app's messages come from.
    pub events: Url,
}

impl ScopeChannels {
    /// Reads the answer to `POST /scope`, as [`Channels::from_json`] does.
    ///
    /// # Errors
    /// If the body is not JSON, or lacks a manifest id or one of the two channels, or a URL is malformed.
    pub fn from_json(body: &[u8], orchestrator: &Url) -> Result<Self, WireError> {
        let fields = StartAnswer::parse(body)?;
        let url = |key| fields.url(key, orchestrator);
        Ok(Self {
            manifest_id: fields.manifest_id()?,
            control: url("control_url")?,
            events: url("events_url")?,
        })
    }
}

struct StartAnswer(Map<String, Value>);

impl StartAnswer {
    fn bad(why: impl Into<String>) -> WireError {
        WireError::new("the answer to the start request", why)
    }

    fn parse(body: &[u8]) -> Result<Self, WireError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(Self::bad("not a JSON object")),
            Err(err) => Err(Self::bad(format!("not JSON: {err}"))),
        }
    }

    /// A text field; absent, null and empty are the same.
    fn text(&self, key: &'static str) -> Result<Option<&str>, WireError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok((!text.is_empty()).then_some(text)),
            Some(_) => Err(Self::bad(format!("{key} is not text"))),
        }
    }

    fn url(&self, key: &'static str, orchestrator: &Url) -> Result<Url, WireError> {
        let text = self
            .text(key)?
            .ok_or_else(|| Self::bad(format!("{key} is missing")))?;
        orchestrator
            .with_path("/")
            .resolve(text)
            .map(Url::told)
            .map_err(|err| Self::bad(format!("{key}: {err}")))
    }

    fn manifest_id(&self) -> Result<String, WireError> {
        self.text("manifest_id")?
            .map(ToOwned::to_owned)
            .ok_or_else(|| Self::bad("manifest_id is missing"))
    }
}

/// A message of a runner on the events channel.
#[derive(Clone, Debug, PartialEq)]
pub struct RunnerEvent {
    /// The queue it belongs to: `ai_stream_events` unless it says otherwise, `ai_stream_status` for a status.
    pub queue: String,
    /// The event itself, with the context's fields added.
    pub event: Map<String, Value>,
}

/// Fields that a gateway adds to every event it passes on.
#[derive(Clone, Debug, Default)]
pub struct EventContext(pub Vec<(&'static str, Value)>);

impl EventContext {
    /// Adds a text field.
    pub fn add(&mut self, key: &'static str, value: &str) {
        self.0.push((key, value.into()));
    }

    /// Adds who runs the job.
    pub fn add_orchestrator(&mut self, address: Address, url: &Url) {
        let fields = [("address", address.checksummed()), ("url", url.to_string())];
        let fields: Map<_, _> = fields
            .into_iter()
            .map(|(key, value)| (key.to_string(), value.into()))
            .collect();
        self.0.push(("orchestrator_info", fields.into()));
    }
}

impl RunnerEvent {
    /// Whether it is a status report.
    #[must_use]
    pub fn is_status(&self) -> bool {
        self.event.get("type").and_then(Value::as_str) == Some("status")
    }

    /// Whether it is a status report of a runner whose model is still loading (jobs spec 3.5).
    #[must_use]
    pub fn is_loading(&self) -> bool {
        self.is_status() && self.event.get("state").and_then(Value::as_str) == Some("LOADING")
    }

    /// Whether this is a status report that tells of input, so that the model reads.
    #[must_use]
    pub fn has_input(&self) -> bool {
        let input = self.event.get("input_status");
        let last = input.and_then(|input| input.get("last_input_time"));
        self.is_status() && last.and_then(Value::as_f64).is_some_and(|at| at > 0.0)
    }

    /// The error, if the event reports one.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        let field = |key| self.event.get(key).and_then(Value::as_str);
        (field("type") == Some("error")).then(|| field("message").unwrap_or("an error"))
    }

    /// Reads one segment of the events channel: an envelope with `event` and `queue_event_type`, or the bare event.
    ///
    /// # Errors
    /// If the segment holds no JSON object. Such segments are skipped, and do not count as a sign of life.
    pub fn parse(segment: &[u8], context: &EventContext) -> Result<Self, WireError> {
        let bad = |why: String| WireError::new("an event", why);
        let outer = match serde_json::from_slice(segment) {
            Ok(Value::Object(map)) => map,
            Ok(_) => return Err(bad("not a JSON object".to_string())),
            Err(err) => return Err(bad(format!("not JSON: {err}"))),
        };
        let queue = outer
            .get("queue_event_type")
            .and_then(Value::as_str)
            .unwrap_or("ai_stream_events")
            .to_string();
        let mut event = match outer.get("event") {
            Some(Value::Object(inner)) => inner.clone(),
            _ => outer,
        };
        for (key, value) in &context.0 {
            event.insert((*key).to_string(), value.clone());
        }
        let mut event = Self { queue, event };
        if event.is_status() {
            event.queue = "ai_stream_status".to_string();
        }
        Ok(event)
    }

    /// The status to keep after `self`, a status, follows `stored`: parameters and restart logs that the new one
    /// leaves out or nulls keep their last value.
    #[must_use]
    pub fn merged_over(mut self, stored: Option<&Self>) -> Self {
        const KEPT: [&str; 2] = ["last_params", "last_restart_logs"];
        let Some(Value::Object(old)) = stored.and_then(|old| old.event.get("inference_status"))
        else {
            return self;
        };
        if let Some(Value::Object(new)) = self.event.get_mut("inference_status") {
            for key in KEPT {
                let lacking = new.get(key).is_none_or(Value::is_null);
                if let (true, Some(value)) = (lacking, old.get(key)) {
                    new.insert(key.to_string(), value.clone());
                }
            }
        }
        self
    }
}
