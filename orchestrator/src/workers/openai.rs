//! The part of a built-in program that speaks OpenAI's language, so that a gateway can be tried with its clients: a chat
//! says back what it is told, vectors count letters, and documents are ranked by the words that they share with a query.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Value, json};

use super::made::{Made, Tempo};

/// The numbers of a vector.
const DIMENSIONS: usize = 8;

/// The answer to a request at that path; `None` if it is another path.
pub(super) fn answer(path: &str, body: &Value, tempo: Tempo) -> Option<Made> {
    let made = if path.ends_with("/v1/chat/completions") {
        chat(body, tempo)
    } else if path.ends_with("/v1/embeddings") {
        embeddings(body).map(|answer| Made::json(200, &answer, tempo))
    } else if path.ends_with("/v1/rerank") {
        rerank(body).map(|answer| Made::json(200, &answer, tempo))
    } else {
        return None;
    };
    let refused = |why: &str| {
        let error =
            json!({"message": why, "type": "invalid_request_error", "param": null, "code": null});
        Made::json(400, &json!({ "error": error }), tempo)
    };
    Some(made.unwrap_or_else(|why| refused(&why)))
}

fn chat(body: &Value, tempo: Tempo) -> Result<Made, String> {
    let last = body["messages"].as_array().and_then(|all| all.last());
    let said = last.and_then(|last| last["content"].as_str());
    let said = said.ok_or("the last of messages has no text")?;
    let words: Vec<&str> = tokens(said).collect();
    let usage = json!({
        "prompt_tokens": words.len(),
        "completion_tokens": words.len(),
        "total_tokens": 2 * words.len(),
    });
    let answer = |object: &str, choice: Value| {
        json!({
            "id": "chatcmpl-devnet",
            "object": object,
            "created": 0,
            "model": body["model"],
            "choices": [choice],
        })
    };
    if body["stream"] != true {
        let message = json!({ "role": "assistant", "content": said });
        let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
        let mut whole = answer("chat.completion", choice);
        whole["usage"] = usage;
        return Ok(Made::json(200, &whole, tempo));
    }
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        answer("chat.completion.chunk", choice)
    };
    let begins = chunk(json!({ "role": "assistant", "content": "" }), Value::Null);
    let goes_on = words.iter();
    let goes_on = goes_on.map(|word| chunk(json!({ "content": word }), Value::Null));
    let ends = chunk(json!({}), "stop".into());
    let chunks = std::iter::once(begins).chain(goes_on).chain([ends]);
    let events = chunks.map(|chunk| Bytes::from(format!("data: {chunk}\n\n")));
    let done = Bytes::from_static(b"data: [DONE]\n\n");
    Ok(Made::events(events.chain([done]).collect(), tempo))
}

/// The tokens of a text: words with the blanks that follow them.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(char::is_whitespace)
}

fn embeddings(body: &Value) -> Result<Value, String> {
    let texts = match &body["input"] {
        Value::String(text) => vec![text.as_str()],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => return Err("input is neither a text nor a list of texts".to_owned()),
    };
    let vectors = texts.iter().enumerate().map(
        |(index, text)| json!({ "object": "embedding", "index": index, "embedding": vector(text) }),
    );
    let words: usize = texts.iter().map(|text| tokens(text).count()).sum();
    Ok(json!({
        "object": "list",
        "model": body["model"],
        "data": vectors.collect::<Vec<_>>(),
        "usage": { "prompt_tokens": words, "total_tokens": words },
    }))
}

/// How often letters of each kind are in a text: a part of all, in sixteenths.
fn vector(text: &str) -> [f32; DIMENSIONS] {
    let mut vector = [0.0; DIMENSIONS];
    for byte in text.bytes() {
        vector[usize::from(byte) % DIMENSIONS] += 1.0 / 16.0;
    }
    vector
}

fn rerank(body: &Value) -> Result<Value, String> {
    let query = body["query"].as_str().ok_or("query is not a text")?;
    let documents = body["documents"].as_array();
    let documents = documents.ok_or("documents is not a list")?;
    let asked: BTreeSet<&str> = query.split_whitespace().collect();
    let mut ranked: Vec<(usize, usize)> = documents
        .iter()
        .map(|one| one.as_str().or_else(|| one["text"].as_str()))
        .map(|text| text.unwrap_or_default().split_whitespace())
        .map(|words| words.filter(|word| asked.contains(word)).count())
        .enumerate()
        .collect();
    ranked.sort_by_key(|(index, shared)| (std::cmp::Reverse(*shared), *index));
    let results = ranked.into_iter().map(|(index, shared)| {
        let score = shared as f64 / asked.len().max(1) as f64;
        json!({ "index": index, "relevance_score": score })
    });
    Ok(json!({ "model": body["model"], "results": results.collect::<Vec<_>>() }))
}
