//! `vectors/jobs/01` to `04`, and the batch cases of `22`: how requests to pipelines are read, refused, billed and passed
//! on, and how answers are understood.

mod answers;
mod forms;
mod requests;
mod streams;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use livepeer_core::Pipeline;
use livepeer_core::wire::batch::{BadRequest, BatchRequest, Media};
use serde_json::Value;

const ENTRY: &str = "jobs/01-ai-batch-entry.json";
const FAILOVER: &str = "jobs/02-ai-batch-failover.json";
const UNITS: &str = "jobs/03-units.json";
const STREAM: &str = "jobs/04-llm-stream.json";
const REAL_NODE: &str = "jobs/22-real-node.json";

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The pipeline that a path asks for; `None` for paths of another kind.
fn pipeline(path: &str) -> Option<Pipeline> {
    Pipeline::from_name(path.strip_prefix('/')?)
}

/// A body, in any of the ways in which vectors write one.
pub(super) fn body(of: &Value) -> Bytes {
    if let Some(json) = of.get("body_json") {
        json.to_string().into()
    } else if let Some(text) = of["body_text"].as_str() {
        text.to_owned().into()
    } else if let Some(base64) = of["body_b64"].as_str() {
        STANDARD.decode(base64).expect("base64").into()
    } else if let Some(repeat) = of.get("body_repeat") {
        let count = repeat["count"].as_u64().expect("a count");
        text(repeat, "text").repeat(count as usize).into()
    } else {
        Bytes::new()
    }
}

/// Measures of the files of the vectors, which are few and small, as a decoder says them.
fn measures(content: &[u8]) -> Option<Media> {
    let number = |at: usize, width: usize| {
        let bytes = content.get(at..at + width)?;
        Some(bytes.iter().fold(0_u32, |sum, b| sum << 8 | u32::from(*b)))
    };
    let image = |width, height| Some(Media::Image { width, height });
    if content.starts_with(b"\x89PNG") {
        image(number(16, 4)?, number(20, 4)?)
    } else if content.starts_with(b"GIF89a") {
        image(number(6, 1)?, number(8, 1)?)
    } else if content.starts_with(b"\xff\xd8") {
        // The one JPEG.
        let at = content.windows(2).position(|two| two == b"\xff\xc0")?;
        image(number(at + 7, 2)?, number(at + 5, 2)?)
    } else if content.starts_with(b"RIFF") && content[8..].starts_with(b"WAVE") {
        let at = content.windows(4).position(|four| four == b"data")?;
        // A hundred bytes a second, in all of them.
        let length = number(at + 4, 4)?.swap_bytes();
        let duration = std::time::Duration::from_millis(u64::from(length) * 10);
        Some(Media::Audio { duration })
    } else {
        None
    }
}

/// Reads a client's request as a gateway does, up to where an orchestrator would be chosen.
fn admit(pipeline: Pipeline, request: &Value) -> Result<BatchRequest, BadRequest> {
    let content_type = text(&request["headers"], "content-type");
    let body = body(request);
    let mut read = if livepeer_core::wire::batch::fields::file_of(pipeline).is_some() {
        BatchRequest::read_form(pipeline, content_type, &body)
    } else {
        BatchRequest::read_json(pipeline, &body)
    }?;
    read.check()?;
    if read.needs().is_some() {
        let file = read.file().expect("checked");
        let media = measures(&file.content)
            .ok_or_else(|| BadRequest::new("the file cannot be measured"))?;
        read.measured(media)?;
    }
    Ok(read)
}
