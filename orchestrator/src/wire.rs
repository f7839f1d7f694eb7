//! The messages of this room: the server's half of what `livepeer_core::wire` reads and writes as client.
//!
//! Protobuf messages are built raw, since an orchestrator for tests has to be able to say what no honest one would.

use bytes::Bytes;
use livepeer_core::Time;
use livepeer_core::http::{Body, Method, Out, Response};
use livepeer_core::wire::{Params, Payment};
use livepeer_proto::net;
use prost::Message as _;
use serde_json::{Value, json};

/// The names of a session's four channels.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) input: String,
    pub(super) output: String,
    pub(super) control: String,
    pub(super) events: String,
}

impl Names {
    pub(super) fn of(manifest_id: &str) -> Self {
        Self {
            input: manifest_id.to_owned(),
            output: format!("{manifest_id}-out"),
            control: format!("{manifest_id}-control"),
            events: format!("{manifest_id}-events"),
        }
    }
}

/// The answer to a start request, less the field `without`.
pub(super) fn started(base: &str, manifest_id: &str, names: &Names, without: Option<&str>) -> Out {
    let mut answer = json!({
        "manifest_id": manifest_id,
        "publish_url": format!("{base}{}", names.input),
        "subscribe_url": format!("{base}{}", names.output),
        "control_url": format!("{base}{}", names.control),
        "events_url": format!("{base}{}", names.events),
    });
    if let (Some(field), Some(fields)) = (without, answer.as_object_mut()) {
        fields.remove(field);
    }
    json_reply(200, &answer)
}

/// An answer in JSON.
pub(super) fn json_reply(status: u16, value: &Value) -> Out {
    bytes_reply(status, JSON, value.to_string().into())
}

/// A refusal in JSON. As at the reference, the texts of our own faults are ours alone.
pub(super) fn error_reply(status: u16, text: &str) -> Out {
    let message = match status {
        500 => "Internal Server Error",
        503 => "Service Unavailable Error",
        _ => text,
    };
    json_reply(status, &json!({ "error": { "message": message } }))
}

/// The media type of JSON.
pub(super) const JSON: &str = "application/json";

/// An answer of that media type.
pub(super) fn bytes_reply(status: u16, content: &'static str, body: Bytes) -> Out {
    Out::Reply(
        Response::new(status)
            .header("content-type", content)
            .body(Body::Full(body)),
    )
}

/// A refusal of any other method.
pub(super) fn only_post() -> Out {
    not_allowed(&[Method::Post])
}

/// A refusal of any method but these.
pub(super) fn not_allowed(others: &[Method]) -> Out {
    let names: Vec<&str> = others.iter().map(|method| method.as_str()).collect();
    Out::Reply(text_response(405, "Method Not Allowed").header("allow", names.join(", ")))
}

/// Reads a payment header; the errors are those of the reference.
pub(super) fn payment(header: &str) -> Result<Payment, String> {
    use base64::{DecodeError, Engine as _};
    let message = base64::engine::general_purpose::STANDARD
        .decode(header)
        .map_err(|err| {
            let at = match err {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                DecodeError::InvalidLength(length) => length - length % 4,
                DecodeError::InvalidPadding => header.len(),
            };
            format!("base64 decode error: illegal base64 data at input byte {at}")
        })?;
    let message = Bytes::from(message);
    Payment::from_protobuf(message.clone()).map_err(|err| {
        // Go reads any message of this form, and says of others no more than this.
        let why = match net::Payment::decode(message) {
            Ok(_) => &err.why,
            Err(_) => "proto: cannot parse invalid wire-format data",
        };
        format!("protobuf unmarshal error: {why}")
    })
}

/// An answer in words, as Go's `http.Error` gives it.
pub(super) fn text_reply(status: u16, text: &str) -> Out {
    Out::Reply(text_response(status, text))
}

/// The head and body of such an answer.
pub(super) fn text_response(status: u16, text: &str) -> Response {
    Response::new(status)
        .header("content-type", "text/plain; charset=utf-8")
        .body(Body::Full(format!("{text}\n").into()))
}

/// An answer in protobuf.
pub(super) fn protobuf_reply(message: &impl prost::Message) -> Out {
    Out::Reply(Response::new(200).body(Body::Full(message.encode_to_vec().into())))
}

/// The contents of a session's status.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    pub(super) model: String,
    pub(super) started: Time,
    pub(super) last_input: Option<Time>,
    pub(super) last_output: Option<Time>,
    pub(super) last_params: Option<Params>,
    pub(super) params_updated: Option<Time>,
    pub(super) last_error: Option<(Time, String)>,
    pub(super) last_status: Option<Time>,
}

impl Status {
    /// The state of the input, in the words of the protocol. After `patience` without any it is degraded.
    fn state(&self, now: Time, patience: std::time::Duration) -> &'static str {
        match self.last_input {
            None => "LOADING",
            Some(at) if now.since(at) > patience => "DEGRADED_INPUT",
            Some(_) => "ONLINE",
        }
    }

    /// The status event (jobs spec 3.5). Frame rates are zero: nothing is decoded here.
    pub(super) fn event(&self, now: Time, patience: std::time::Duration) -> Bytes {
        let (error_time, error) = match &self.last_error {
            Some((at, text)) => (Some(ms(*at)), Some(text)),
            None => (None, None),
        };
        envelope(
            "ai_stream_events",
            &json!({
                "type": "status",
                "pipeline": self.model,
                "start_time": ms(self.started),
                "state": self.state(now, patience),
                "last_state_update_time": ms(now),
                "input_status": { "last_input_time": self.last_input.map(ms), "fps": 0 },
                "inference_status": {
                    "last_output_time": self.last_output.map(ms),
                    "fps": 0,
                    "last_params_update_time": self.params_updated.map(ms),
                    "last_params": self.params(),
                    "last_params_hash": self.params_hash(),
                    "last_error_time": error_time,
                    "last_error": error,
                    "last_restart_time": null,
                    "last_restart_logs": null,
                    "restart_count": 0,
                },
                "timestamp": ms(now),
                "last_status_timestamp": self.last_status.map(ms),
            }),
        )
    }

    /// Tells that the parameters changed.
    pub(super) fn params_event(&self, now: Time) -> Bytes {
        envelope(
            "ai_stream_events",
            &json!({
                "type": "params_update",
                "pipeline": self.model,
                "params": self.params(),
                "params_hash": self.params_hash(),
                "timestamp": ms(now),
            }),
        )
    }

    fn params(&self) -> Option<Value> {
        let params = self.last_params.as_ref()?;
        serde_json::from_str(&params.to_json()).ok()
    }

    fn params_hash(&self) -> Option<String> {
        let params = self.last_params.as_ref()?;
        let hash = livepeer_core::sign::keccak(&[params.to_json().as_bytes()]);
        Some(hex::encode(&hash[..8]))
    }
}

/// Tells what went wrong.
pub(super) fn error_event(now: Time, model: &str, message: &str) -> Bytes {
    envelope(
        "ai_stream_events",
        &json!({ "type": "error", "pipeline": model, "message": message, "timestamp": ms(now) }),
    )
}

/// Says only that the runner is there.
pub(super) fn heartbeat_event(now: Time) -> Bytes {
    envelope(
        "stream_heartbeat",
        &json!({ "type": "heartbeat", "timestamp": ms(now) }),
    )
}

fn envelope(queue: &str, event: &Value) -> Bytes {
    json!({ "event": event, "queue_event_type": queue })
        .to_string()
        .into()
}

fn ms(at: Time) -> u64 {
    at.as_nanos() / 1_000_000
}

/// Standard base64.
pub(super) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
