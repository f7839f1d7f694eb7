//! Programs that are built in, so that work can be had without a program beside the orchestrator.

use std::collections::VecDeque;

use bytes::Bytes;
use livepeer_core::http::{Headers, SWITCHING};
use serde_json::{Value, json};

use super::made::{Made, Tempo};
use super::openai;
use super::socket::{self, Socket};

/// The program that says back what it is told:
///
/// | path | answer |
/// |---|---|
/// | ends in `/v1/chat/completions`, `/v1/embeddings`, `/v1/rerank` | that of a model which speaks OpenAI's language |
/// | ends in `/flood` | an event, and then blank lines without end |
/// | ends in `/endless` | events without end |
/// | ends in `/events`, or the body is JSON with `"stream": true` | a stream of events, one for each word of the body, and `[DONE]` |
/// | ends in `/status/418` | that status, with a text |
/// | ends in `/silent` | none, ever |
/// | any, asked for a WebSocket | 101, and each message as it comes |
/// | any other | the body, of its own media type; of an empty one, method and path as JSON |
pub(crate) fn echo(
    method: &str,
    target: &str,
    headers: &Headers,
    body: Bytes,
    tempo: Tempo,
) -> Made {
    if let Some(opening) = socket::opening(headers) {
        return Made {
            head: Some(opening),
            socket: Some(Socket::default()),
            ..Made::new(SWITCHING, "", VecDeque::new(), tempo)
        };
    }
    let path = target.split('?').next().unwrap_or("");
    let mut segments = path.rsplit('/');
    let (last, before) = (segments.next(), segments.next());
    let told: Option<Value> = serde_json::from_slice(&body).ok();
    if let Some(told) = &told
        && let Some(made) = openai::answer(path, told, tempo)
    {
        return made;
    }
    let again = match last {
        Some("flood") => Some(Bytes::from_static(&[b'\n'; 1_024])),
        Some("endless") => Some(Bytes::from_static(b"data: more\n\n")),
        _ => None,
    };
    if again.is_some() {
        let first = Bytes::from_static(b"data: first\n\n");
        return Made {
            again,
            ..Made::events([first].into(), tempo)
        };
    }
    let streams = told.as_ref().is_some_and(|told| told["stream"] == true);
    if last == Some("events") || streams {
        return events(told.as_ref(), &body, tempo);
    }
    if last == Some("silent") {
        return Made {
            silent: true,
            ..Made::new(200, "text/plain", VecDeque::new(), tempo)
        };
    }
    if let (Some("status"), Some(Ok(status @ 200..=599))) = (before, last.map(str::parse)) {
        let text = Bytes::from(format!("the program answers {status}"));
        return Made::new(status, "text/plain; charset=utf-8", [text].into(), tempo);
    }
    if body.is_empty() {
        return Made::json(200, &json!({ "method": method, "path": target }), tempo);
    }
    let content = headers
        .get("content-type")
        .unwrap_or("application/octet-stream");
    Made::new(200, content, [body].into(), tempo)
}

/// The words of a text as events; of JSON, those of its member `text`.
fn events(told: Option<&Value>, body: &[u8], tempo: Tempo) -> Made {
    let whole = String::from_utf8_lossy(body);
    let text = told
        .and_then(|told| told["text"].as_str())
        .unwrap_or(&whole);
    let words = text.split_whitespace().enumerate();
    let mut pieces: VecDeque<Bytes> = words
        .map(|(n, word)| Bytes::from(format!("data: {}\n\n", json!({ "n": n, "text": word }))))
        .collect();
    pieces.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
    Made::events(pieces, tempo)
}
