//! Reports of a gateway on a live job: the status that is asked for, and events for those who listen (jobs spec 3.5).

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::http::Url;
use crate::sign::Address;
use crate::time::Time;
use crate::wire::{Params, RunnerEvent};

/// Milliseconds of jitter above which a connection is called bad.
const MAX_JITTER: f64 = 50.0;
/// Per cent of lost packets above which a connection is called bad.
const MAX_LOSS: f64 = 2.0;

/// Facts that a gateway knows of a job besides the runner's reports.
#[derive(Clone, Debug, Default)]
pub struct GatewayStatus {
    /// Where the output is played.
    pub whep_url: Option<String>,
    /// A warning to players about the output, such as a codec that browsers do not play.
    pub whep_warning: Option<String>,
    /// The first error, and when it happened. Texts name no orchestrator's address.
    pub error: Option<(String, Time)>,
    /// How the input arrives.
    pub ingest: Option<IngestMetrics>,
}

impl GatewayStatus {
    /// Takes note of an error; the first one stays.
    pub fn fail(&mut self, now: Time, message: &str) {
        self.error.get_or_insert_with(|| (message.to_owned(), now));
    }

    /// The answer to a request for the status: the runner's last report, if there was one, with ours beside it. The
    /// address of the orchestrator is left out, since anybody may ask.
    #[must_use]
    pub fn merged_with(&self, last: Option<&RunnerEvent>) -> String {
        let mut status = last.map(|last| last.event.clone()).unwrap_or_default();
        if let Some(Value::Object(orchestrator)) = status.get_mut("orchestrator_info") {
            orchestrator.remove("url");
        }
        status.insert("gateway_status".to_owned(), self.to_value());
        Value::Object(status).to_string()
    }

    fn to_value(&self) -> Value {
        let mut fields = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            fields.extend(value.map(|value| (key.to_owned(), value)));
        };
        put("whep_url", self.whep_url.as_deref().map(Value::from));
        put(
            "whep_warning",
            self.whep_warning.as_deref().map(Value::from),
        );
        let error = self.error.as_ref();
        put(
            "error",
            error.map(
                |(message, at)| json!({ "error_message": message, "error_time": millis(*at) }),
            ),
        );
        let ingest = self.ingest.as_ref();
        put(
            "ingest_metrics",
            ingest.map(|ingest| json!({ "stats": ingest.to_value() })),
        );
        Value::Object(fields)
    }
}

/// How an input arrives, in the shape that dashboards of the reference read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IngestMetrics {
    /// Names the connection.
    pub id: String,
    /// Bytes that came.
    pub received: u64,
    /// Bytes that went.
    pub sent: u64,
    /// Its tracks.
    pub tracks: Vec<TrackMetrics>,
}

/// How a track arrives. What is not known is zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrackMetrics {
    /// Whether it is video; otherwise it is audio.
    pub video: bool,
    /// Milliseconds of jitter.
    pub jitter: f64,
    /// Packets that were lost.
    pub lost: i64,
    /// Packets that came.
    pub received: i64,
    /// The round trip.
    pub rtt: Duration,
    /// The time stamp of the last frame that came, in seconds of the job.
    pub last_input: f64,
    /// The time stamp of the last frame of the output, in seconds of the job.
    pub last_output: f64,
}

impl IngestMetrics {
    fn to_value(&self) -> Value {
        let mut bad = false;
        let tracks: Vec<_> = self
            .tracks
            .iter()
            .map(|track| {
                let (value, warned) = track.to_value();
                bad |= warned;
                value
            })
            .collect();
        let mut value = json!({
            "peer_conn_stats": { "ID": self.id, "BytesReceived": self.received, "BytesSent": self.sent },
            "conn_quality": if bad { "bad" } else { "good" },
        });
        if !tracks.is_empty() {
            value["track_stats"] = tracks.into();
        }
        value
    }
}

impl TrackMetrics {
    /// The JSON, and whether it has warnings.
    fn to_value(&self) -> (Value, bool) {
        let all = self.lost.saturating_add(self.received);
        let loss = if all > 0 {
            self.lost as f64 / all as f64 * 100.0
        } else {
            0.0
        };
        let warnings = [
            (self.jitter > MAX_JITTER, "jitter greater than 50 ms"),
            (loss > MAX_LOSS, "packet loss greater than 2%"),
        ];
        let warnings: Vec<_> = warnings
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, text)| *text)
            .collect();
        let latency = if self.last_output > 0.0 {
            self.last_input - self.last_output
        } else {
            0.0
        };
        let mut value = json!({
            "type": if self.video { "video" } else { "audio" },
            "jitter": self.jitter,
            "packets_lost": self.lost,
            "packets_received": self.received,
            "packet_loss_pct": loss,
            "rtt": u64::try_from(self.rtt.as_nanos()).unwrap_or(u64::MAX),
            "last_input_ts": self.last_input,
            "last_output_ts": self.last_output,
            "latency": latency,
        });
        let is_bad = !warnings.is_empty();
        if is_bad {
            value["warnings"] = warnings.into();
        }
        (value, is_bad)
    }
}

/// A step in the life of a job that a gateway traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the events")]
pub enum TraceKind {
    ReceiveStreamRequest,
    SendFirstIngestSegment,
    ReceiveFirstProcessedSegment,
    /// The third one.
    ReceiveFewProcessedSegments,
    IngestStreamClosed,
    NoOrchestratorsAvailable,
    /// Another orchestrator takes over.
    OrchestratorSwap,
}

impl TraceKind {
    /// The type of the event.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReceiveStreamRequest => "gateway_receive_stream_request",
            Self::SendFirstIngestSegment => "gateway_send_first_ingest_segment",
            Self::ReceiveFirstProcessedSegment => "gateway_receive_first_processed_segment",
            Self::ReceiveFewProcessedSegments => "gateway_receive_few_processed_segments",
            Self::IngestStreamClosed => "gateway_ingest_stream_closed",
            Self::NoOrchestratorsAvailable => "gateway_no_orchestrators_available",
            Self::OrchestratorSwap => "orchestrator_swap",
        }
    }
}

/// The job that an event is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct TraceContext<'a> {
    /// The stream's id.
    pub stream_id: &'a str,
    /// The request's id.
    pub request_id: &'a str,
    /// The pipeline, which is the model.
    pub pipeline: &'a str,
    /// The pipeline's own id.
    pub pipeline_id: &'a str,
    /// The orchestrator at work, if there is one, and its address as far as that is known.
    pub orchestrator: Option<(Option<Address>, &'a Url)>,
}

impl TraceContext<'_> {
    /// An event for the queue `stream_trace`.
    #[must_use]
    pub fn trace(&self, now: Time, kind: TraceKind, message: Option<&str>) -> String {
        let mut event = json!({
            "type": kind.name(),
            "timestamp": millis(now),
            "stream_id": self.stream_id,
            "request_id": self.request_id,
            "pipeline_id": self.pipeline_id,
            "orchestrator_info": self.orchestrator_info(),
        });
        if let Some(message) = message {
            event["pipeline"] = self.pipeline.into();
            event["message"] = message.into();
        }
        event.to_string()
    }

    fn orchestrator_info(&self) -> Value {
        let (address, url) = match self.orchestrator {
            Some((address, url)) => (address.as_ref().map(Address::checksummed), url.to_string()),
            None => Default::default(),
        };
        json!({ "address": address.unwrap_or_default(), "url": url })
    }
}

/// An event for the queue `ai_stream_events`: the model has other parameters.
#[must_use]
pub fn params_event(about: &TraceContext<'_>, params: &Params) -> String {
    #[derive(Serialize)]
    struct Event<'a> {
        r#type: &'a str,
        stream_id: &'a str,
        request_id: &'a str,
        pipeline: &'a str,
        pipeline_id: &'a str,
        params: &'a RawValue,
        orchestrator_info: Value,
    }
    let event = Event {
        r#type: "params_update",
        stream_id: about.stream_id,
        request_id: about.request_id,
        pipeline: about.pipeline,
        pipeline_id: about.pipeline_id,
        params: params.to_raw(),
        orchestrator_info: about.orchestrator_info(),
    };
    serde_json::to_string(&event).expect("strings and JSON always serialise")
}

/// An event as those who listen get it, in the envelope of the reference. `random` names it; `event` is JSON.
#[must_use]
pub fn envelope(random: [u8; 32], now: Time, gateway: &str, queue: &str, event: &str) -> Bytes {
    let mut id = [0; 16];
    id.copy_from_slice(&random[..16]);
    // A UUID of version 4.
    id[6] = (id[6] & 0x0f) | 0x40;
    id[8] = (id[8] & 0x3f) | 0x80;
    let hex = hex::encode(id);
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    let (kind, gateway) = (Value::from(queue), Value::from(gateway));
    format!(
        r#"{{"id":"{}","type":{kind},"timestamp":"{}","gateway":{gateway},"data":{event}}}"#,
        parts.join("-"),
        millis(now),
    )
    .into()
}

/// Several events as one JSON array.
pub fn batch<'a>(events: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let mut all = Vec::from(*b"[");
    for event in events {
        if all.len() > 1 {
            all.push(b',');
        }
        all.extend_from_slice(event);
    }
    all.push(b']');
    all.into()
}

/// The queues that a runner may name. Whatever else it says is an event like others.
const QUEUES: [&str; 4] = [
    "stream_trace",
    "ai_stream_events",
    "ai_stream_status",
    "stream_ingest_metrics",
];

impl RunnerEvent {
    /// Adds the pipeline's own id, as events of a gateway have it.
    #[must_use]
    pub fn for_pipeline(mut self, id: &str) -> Self {
        self.event.insert("pipeline_id".to_owned(), id.into());
        self
    }

    /// The queue and the JSON of the event as it is passed on.
    #[must_use]
    pub fn told(&self) -> (&'static str, String) {
        let queue = QUEUES.iter().find(|queue| **queue == self.queue);
        let text = Value::Object(self.event.clone()).to_string();
        (queue.unwrap_or(&"ai_stream_events"), text)
    }
}

/// An event for the queue `ai_stream_events`: why a job failed.
#[must_use]
pub fn error_event(about: &TraceContext<'_>, message: &str) -> String {
    json!({
        "type": "error",
        "request_id": about.request_id,
        "stream_id": about.stream_id,
        "pipeline_id": about.pipeline_id,
        "pipeline": about.pipeline,
        "message": message,
    })
    .to_string()
}

/// An event for the queue `ai_stream_events`: the gateway shuts down, and ends the stream at `ends` at the latest.
#[must_use]
pub fn draining_event(about: &TraceContext<'_>, now: Time, ends: Time) -> String {
    json!({
        "type": "instance.draining",
        "timestamp": millis(now),
        "request_id": about.request_id,
        "stream_id": about.stream_id,
        "pipeline_id": about.pipeline_id,
        "pipeline": about.pipeline,
        "ends": millis(ends),
    })
    .to_string()
}

/// An event for the queue `stream_ingest_metrics`: how an input arrives.
#[must_use]
pub fn ingest_metrics_event(
    about: &TraceContext<'_>,
    now: Time,
    metrics: &IngestMetrics,
) -> String {
    json!({
        "timestamp": millis(now),
        "stream_id": about.stream_id,
        "pipeline_id": about.pipeline_id,
        "request_id": about.request_id,
        "stats": metrics.to_value(),
    })
    .to_string()
}

const fn millis(at: Time) -> u64 {
    at.as_nanos() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_status_tells_the_first_error_and_no_address() {
        let mut status = GatewayStatus::default();
        status.fail(Time::from_millis(1_234), "no orchestrators available");
        status.fail(Time::from_millis(5_678), "another");
        let last = json!({ "type": "status", "orchestrator_info": { "address": "0xaa", "url": "https://o.example" } });
        let Value::Object(event) = last else {
            unreachable!("an object");
        };
        let last = RunnerEvent {
            queue: "ai_stream_status".to_owned(),
            event,
        };
        let told = parsed(&status.merged_with(Some(&last)));
        let wanted = json!({
            "type": "status",
            "orchestrator_info": { "address": "0xaa" },
            "gateway_status": { "error": { "error_message": "no orchestrators available", "error_time": 1234 } },
        });
        assert_eq!(told, wanted);
    }

    #[test]
    fn ingest_metrics_have_the_shape_of_the_reference() {
        let metrics = IngestMetrics {
            id: "iceTransport".to_owned(),
            received: 1000,
            sent: 10,
            tracks: [TrackMetrics {
                video: true,
                jitter: 51.0,
                lost: 1,
                received: 3,
                rtt: Duration::from_millis(2),
                last_input: 3.5,
                last_output: 3.25,
            }]
            .into(),
        };
        let about = TraceContext {
            stream_id: "s1",
            request_id: "0a1b2c3d",
            pipeline_id: "p9",
            ..TraceContext::default()
        };
        let stats = json!({
            "peer_conn_stats": { "ID": "iceTransport", "BytesReceived": 1000, "BytesSent": 10 },
            "track_stats": [{
                "type": "video", "jitter": 51.0, "packets_lost": 1, "packets_received": 3, "packet_loss_pct": 25.0,
                "rtt": 2_000_000, "last_input_ts": 3.5, "last_output_ts": 3.25, "latency": 0.25,
                "warnings": ["jitter greater than 50 ms", "packet loss greater than 2%"],
            }],
            "conn_quality": "bad",
        });
        let event = parsed(&ingest_metrics_event(
            &about,
            Time::from_millis(7),
            &metrics,
        ));
        let wanted = json!({ "timestamp": 7, "stream_id": "s1", "pipeline_id": "p9", "request_id": "0a1b2c3d", "stats": stats });
        assert_eq!(event, wanted);
        let status = GatewayStatus {
            ingest: Some(metrics),
            ..GatewayStatus::default()
        };
        let told = parsed(&status.merged_with(None));
        assert_eq!(told["gateway_status"]["ingest_metrics"]["stats"], stats);
        let quiet = parsed(&ingest_metrics_event(
            &about,
            Time::ZERO,
            &IngestMetrics::default(),
        ));
        assert_eq!(quiet["stats"]["conn_quality"], "good");
        assert_eq!(quiet["stats"].get("track_stats"), None);
    }

    #[test]
    fn events_name_their_job() {
        let about = TraceContext {
            stream_id: "s1",
            request_id: "0a1b2c3d",
            pipeline: "noop",
            pipeline_id: "p9",
            orchestrator: None,
        };
        let trace =
            parsed(&about.trace(Time::from_millis(7), TraceKind::ReceiveStreamRequest, None));
        let wanted = json!({
            "type": "gateway_receive_stream_request", "timestamp": 7, "stream_id": "s1", "request_id": "0a1b2c3d",
            "pipeline_id": "p9", "orchestrator_info": { "address": "", "url": "" },
        });
        assert_eq!(trace, wanted);
        let swap = parsed(&about.trace(Time::ZERO, TraceKind::OrchestratorSwap, Some("slow")));
        assert_eq!(
            (&swap["pipeline"], &swap["message"]),
            (&json!("noop"), &json!("slow"))
        );
        let error = parsed(&error_event(&about, "missing video"));
        let wanted = json!({
            "type": "error", "request_id": "0a1b2c3d", "stream_id": "s1", "pipeline_id": "p9", "pipeline": "noop",
            "message": "missing video",
        });
        assert_eq!(error, wanted);
    }
}
