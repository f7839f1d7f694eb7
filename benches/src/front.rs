//! The fixed answers that a bare orchestrator gives and the front's load checks.

use core::fmt::Write as _;

/// The model that everything is asked of.
pub const MODEL: &str = "fixed";

/// The words of the whole answer to a prompt: a kilobyte that JSON need not escape.
#[must_use]
pub fn words() -> String {
    let mut text = String::new();
    for n in 0..128 {
        // It cannot fail: it writes to a string.
        let _ = write!(text, "{n:07x} ");
    }
    text
}

/// An answer of a language model; `choice` has its words.
fn completion(choice: &str) -> String {
    format!(
        r#"{{"choices":[{{"index":0,{choice}}}],"created":1790000000,"id":"chatcmpl-fixed","model":"{MODEL}","usage":{{"completion_tokens":128,"prompt_tokens":128,"total_tokens":256}}}}"#
    )
}

/// The whole answer to a prompt.
#[must_use]
pub fn chat() -> String {
    let words = words();
    completion(&format!(
        r#""finish_reason":"stop","message":{{"content":"{words}","role":"assistant"}}"#
    ))
}

/// A chunk of an answer: its words are its number and the time at which it leaves, in nanoseconds since 1970.
#[must_use]
pub fn chunk(number: u32, nanos: u64, last: bool) -> String {
    let finish = if last {
        r#""finish_reason":"stop","#
    } else {
        ""
    };
    let delta = format!(r#"{finish}"delta":{{"content":"<{number}:{nanos}>","role":"assistant"}}"#);
    format!("data: {}\n\n", completion(&delta))
}

/// The number and the time in a chunk's words.
#[must_use]
pub fn stamp(payload: &str) -> Option<(u32, u64)> {
    let (_, rest) = payload.split_once('<')?;
    let (stamp, _) = rest.split_once('>')?;
    let (number, nanos) = stamp.split_once(':')?;
    Some((number.parse().ok()?, nanos.parse().ok()?))
}

/// The answer to a request for a picture: one of a pixel, in the answer itself.
#[must_use]
pub fn picture() -> String {
    r#"{"images":[{"nsfw":false,"seed":1,"url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="}]}"#
        .to_owned()
}
