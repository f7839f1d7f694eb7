//! JSON that the front door writes itself: videos that are made in the background, and health.

use alloc::format;
use alloc::string::{String, ToString as _};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

/// Accepts a video that is made in the background.
#[must_use]
pub fn video_accepted(id: &str) -> Bytes {
    json!({"request_id": id}).to_string().into()
}

/// The state of a video that is being made.
#[must_use]
pub fn video_pending() -> Bytes {
    json!({"status": "processing"}).to_string().into()
}

/// The result of a video, around the answer's own JSON.
#[must_use]
pub fn video_done(answer: &[u8]) -> Bytes {
    let answer = String::from_utf8_lossy(answer);
    format!(r#"{{"result":{answer},"status":"complete"}}"#).into()
}

/// The result of a video that could not be made.
#[must_use]
pub fn video_failed(message: &str) -> Bytes {
    json!({"result": {"error": {"message": message}}, "status": "complete"})
        .to_string()
        .into()
}

/// The video that a request asks for.
#[must_use]
pub fn read_video_id(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Asked {
        request_id: String,
    }
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Asked>();
    values.next()?.ok().map(|asked| asked.request_id)
}

/// The answer to a probe.
#[must_use]
pub fn health(status: &str) -> Bytes {
    json!({"status": status}).to_string().into()
}
