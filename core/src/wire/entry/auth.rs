//! The webhook that says who may stream what (jobs spec 8.2).

use alloc::string::String;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::JobQuery;
use crate::wire::Params;

/// The question whether a stream may begin.
#[derive(Clone, Debug, Serialize)]
pub struct AuthQuestion<'a> {
    /// The stream's name.
    pub stream: &'a str,
    /// The key that came with it; its name if none came.
    pub stream_key: &'a str,
    /// The way in: `rtmp`, `whip` for a media server's, `livepeer-whip` for ours, `srt`, `rtsp`.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// The query as it came.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub query_params: &'a str,
    /// The host of this gateway.
    pub gateway_host: &'a str,
    /// Where the output is played.
    pub whep_url: &'a str,
    /// Where the job's status is told.
    pub status_url: &'a str,
    /// Where its parameters are changed.
    pub update_url: &'a str,
}

impl AuthQuestion<'_> {
    /// The JSON body.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        serde_json::to_vec(self)
            .expect("texts always serialise")
            .into()
    }
}

/// A webhook that does not admit: another status than 2xx, or no JSON object that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// Another status.
    #[error("the webhook answered {0}")]
    Status(u16),
    /// No JSON object; an empty body is none.
    #[error("the webhook's answer is not a JSON object")]
    NotAnObject,
    /// A field of the wrong kind.
    #[error("{0} in the webhook's answer is of the wrong kind")]
    Field(&'static str),
}

/// A webhook's leave, with what it changes in the job. Empty texts change nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthAnswer {
    rtmp_output_url: String,
    pipeline: String,
    pipeline_id: String,
    stream_id: String,
    parameters: Option<Map<String, Value>>,
}

impl AuthAnswer {
    /// Reads an answer.
    ///
    /// # Errors
    /// If the stream may not begin.
    pub fn read(status: u16, body: &[u8]) -> Result<Self, Denied> {
        if !(200..300).contains(&status) {
            return Err(Denied::Status(status));
        }
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(body) else {
            return Err(Denied::NotAnObject);
        };
        let mut text = |key: &'static str| match fields.remove(key) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(Denied::Field(key)),
        };
        Ok(Self {
            rtmp_output_url: text("rtmp_output_url")?,
            pipeline: text("pipeline")?,
            pipeline_id: text("pipeline_id")?,
            stream_id: text("stream_id")?,
            parameters: match fields.remove("pipeline_parameters") {
                None | Some(Value::Null) => None,
                Some(Value::Object(parameters)) => Some(parameters),
                Some(_) => return Err(Denied::Field("pipeline_parameters")),
            },
        })
    }

    /// The job as the webhook wants it.
    #[must_use]
    pub fn applied_to(self, mut job: JobQuery) -> JobQuery {
        for (field, value) in [
            (&mut job.rtmp_output, self.rtmp_output_url),
            (&mut job.pipeline, self.pipeline),
            (&mut job.pipeline_id, self.pipeline_id),
            (&mut job.stream_id, self.stream_id),
        ] {
            if !value.is_empty() {
                *field = value;
            }
        }
        if let Some(parameters) = self.parameters.filter(|parameters| !parameters.is_empty()) {
            // A workflow alone is what that pipeline calls its prompt.
            let wrapped = if job.pipeline == "comfyui" && !parameters.contains_key("prompt") {
                json!({ "prompt": parameters })
            } else {
                Value::Object(parameters)
            };
            if let Ok(params) = Params::parse(&alloc::format!("{wrapped}")) {
                job.params = Some(params);
            }
        }
        job
    }
}
