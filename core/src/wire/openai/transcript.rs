//! `POST /v1/audio/transcriptions` (front-door spec 1.8).

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::form::{self, Form};
use super::{Asked as Any, Reading, Settings, Translated, model, seconds, written, wrong};
use crate::models::Models;
use crate::pipeline::Pipeline;
use crate::wire::batch::{BatchRequest, FilePart, TextChunk};
use crate::wire::refused::{Code, Refused};
use crate::wire::sse;
use crate::wire::strict::{missing, not_among};

/// The largest file that runners take.
pub const MAX_SOUND: usize = 50 << 20;
/// A segment that is built of words is no longer than this, in seconds.
const SEGMENT: f64 = 30.0;
/// A silence longer than this ends such a segment, in seconds.
const GAP: f64 = 1.0;

/// The form of a transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text in JSON.
    Json,
    /// The text alone.
    Text,
    /// Subtitles of SubRip.
    Srt,
    /// Subtitles of WebVTT.
    Vtt,
    /// All there is in JSON.
    Verbose,
}

/// Wishes of a request that its answer with a transcript heeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The form.
    pub format: Format,
    /// Whether the answer comes as events, for clients that read no other.
    pub stream: bool,
    /// Whether the runner was asked for single words.
    pub words: bool,
    /// Whether segments are told.
    pub segments: bool,
    /// The language as the caller says; the runner finds out by itself and does not tell.
    pub language: Option<String>,
}

/// Reads a request.
///
/// # Errors
/// For the first thing that is wrong with it.
pub fn read(
    content_type: &str,
    body: &Bytes,
    header: Option<&str>,
    models: &Models,
    settings: &Settings,
) -> Result<Translated, Refused> {
    const PIPELINE: Pipeline = Pipeline::AudioToText;
    let all = Form::read(content_type, body)?;
    let mut reading = Reading::new(PIPELINE, all.text("provider")?, header, settings)?;
    let file = all.all("file").last().ok_or_else(|| missing("file"))?;
    let id = model(all.need("model")?, PIPELINE, models)?;
    if file.content.len() > MAX_SOUND {
        return Err(Refused::too_large(MAX_SOUND));
    }
    if file.content.is_empty() {
        return Err(unreadable());
    }
    let mut asked = Asked {
        format: match all.text("response_format")? {
            None | Some("json") => Format::Json,
            Some("text") => Format::Text,
            Some("srt") => Format::Srt,
            Some("vtt") => Format::Vtt,
            Some("verbose_json") => Format::Verbose,
            Some(other) => {
                let known = ["json", "text", "srt", "verbose_json", "vtt"];
                return Err(not_among("response_format", other, &known));
            }
        },
        stream: all.flag("stream")?,
        words: false,
        segments: false,
        language: all.text("language")?.map(Into::into),
    };
    let mut is_told = false;
    for part in all.all(GRANULARITIES) {
        is_told = true;
        match form::text(GRANULARITIES, part)? {
            "word" => asked.words = true,
            "segment" => asked.segments = true,
            other => return Err(not_among(GRANULARITIES, other, &["word", "segment"])),
        }
    }
    if is_told && asked.format != Format::Verbose {
        return Err(Refused::new(
            Code::InvalidValue,
            "The 'timestamp_granularities' parameter needs response_format 'verbose_json'.",
        )
        .at(GRANULARITIES));
    }
    asked.segments |= !is_told;
    for (name, part) in all.iter() {
        match name {
            "file" | "model" | "response_format" | "stream" | "provider" | GRANULARITIES => {}
            _ if matches!(&*part.content, b"" | b"0" | b"0.0" | b"false") => {}
            _ => reading.ignore(name)?,
        }
    }
    let mut request = BatchRequest::new(PIPELINE);
    request.set_model(id);
    let granularity = if asked.words { "word" } else { "true" };
    request
        .set("return_timestamps", granularity)
        .map_err(wrong)?;
    request
        .set_file(FilePart {
            name: file.file_name.clone().unwrap_or_else(|| "audio".into()),
            content: file.content.clone(),
        })
        .map_err(wrong)?;
    Ok(Translated {
        request,
        preferences: reading.preferences,
        asked: Any::Transcript(asked),
        ignored: reading.ignored,
        defaults: Vec::new(),
    })
}

const GRANULARITIES: &str = "timestamp_granularities";

/// The refusal of a sound that cannot be decoded.
#[must_use]
pub fn unreadable() -> Refused {
    Refused::new(
        Code::InvalidAudio,
        "The audio file could not be decoded; its format is not supported or the file is damaged.",
    )
    .at("file")
}

impl Asked {
    /// The content type of the answer.
    #[must_use]
    pub const fn content_type(&self) -> &'static str {
        match self.format {
            _ if self.stream => "text/event-stream",
            Format::Json | Format::Verbose => "application/json",
            Format::Text | Format::Srt | Format::Vtt => "text/plain; charset=utf-8",
        }
    }
}

/// Writes the answer for a sound of that length.
#[must_use]
pub fn answer(asked: &Asked, text: &str, chunks: &[TextChunk], duration: Duration) -> Bytes {
    let whole = text.trim();
    let length = duration.as_secs_f64();
    let spans = spans(whole, chunks, length);
    let billed = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    let usage = json!({"type": "duration", "seconds": billed});
    if asked.stream {
        return events(whole, &spans, &usage);
    }
    match asked.format {
        Format::Json => written(&json!({"text": whole, "usage": usage})).into(),
        Format::Text => format!("{whole}\n").into(),
        Format::Srt => {
            let cues = spans.iter().zip(1..).map(|(span, number)| {
                let (start, end) = (clock(span.start, ','), clock(span.end, ','));
                format!("{number}\n{start} --> {end}\n{}\n\n", one_line(&span.text))
            });
            cues.collect::<String>().into()
        }
        Format::Vtt => {
            let cues = spans.iter().map(|span| {
                let (start, end) = (clock(span.start, '.'), clock(span.end, '.'));
                format!("{start} --> {end}\n{}\n\n", one_line(&span.text))
            });
            format!("WEBVTT\n\n{}", cues.collect::<String>()).into()
        }
        Format::Verbose => verbose(asked, whole, &spans, length, &usage),
    }
}

/// Words with their times in seconds.
struct Span {
    start: f64,
    end: f64,
    text: String,
}

/// The chunks with an end for each; one for all, if the runner told none.
fn spans(text: &str, chunks: &[TextChunk], length: f64) -> Vec<Span> {
    if chunks.is_empty() && !text.is_empty() {
        return Vec::from([Span {
            start: 0.0,
            end: length,
            text: text.into(),
        }]);
    }
    let one = |chunk: &TextChunk| Span {
        start: chunk.start,
        end: chunk.end.unwrap_or(length).max(chunk.start),
        text: chunk.text.clone(),
    };
    chunks.iter().map(one).collect()
}

fn events(text: &str, spans: &[Span], usage: &Value) -> Bytes {
    let mut out = Vec::new();
    for span in spans {
        let delta = json!({"type": "transcript.text.delta", "delta": span.text});
        out.extend_from_slice(&sse::event(delta.to_string().as_bytes()));
    }
    let done = json!({"type": "transcript.text.done", "text": text, "usage": usage});
    out.extend_from_slice(&sse::event(done.to_string().as_bytes()));
    out.extend_from_slice(&sse::event(b"[DONE]"));
    out.into()
}

fn verbose(asked: &Asked, text: &str, spans: &[Span], length: f64, usage: &Value) -> Bytes {
    let mut answer = json!({
        "task": "transcribe",
        "language": asked.language.as_deref().unwrap_or("und"),
        "duration": seconds(length),
        "text": text,
    });
    if asked.words {
        let words = spans.iter().map(|span| {
            let (start, end) = (seconds(span.start), seconds(span.end));
            json!({"word": span.text.trim(), "start": start, "end": end})
        });
        answer["words"] = words.collect();
    }
    if asked.segments {
        let built = asked.words.then(|| segments(spans));
        let spans = built.as_deref().unwrap_or(spans);
        let segments = spans.iter().enumerate().map(|(id, span)| {
            json!({
                "id": id,
                "seek": 0,
                "start": seconds(span.start),
                "end": seconds(span.end),
                "text": span.text,
                "tokens": [],
                "temperature": 0.0,
                "avg_logprob": 0.0,
                "compression_ratio": 0.0,
                "no_speech_prob": 0.0,
            })
        });
        answer["segments"] = segments.collect();
    }
    answer["usage"] = usage.clone();
    written(&answer).into()
}

/// Builds segments of words: a segment ends with a sentence, before a silence, or before it gets too long.
fn segments(words: &[Span]) -> Vec<Span> {
    let mut all: Vec<Span> = Vec::new();
    let mut open = false;
    for word in words {
        if let Some(last) = all
            .last_mut()
            .filter(|last| open && word.start - last.end <= GAP && word.end - last.start <= SEGMENT)
        {
            last.end = word.end;
            last.text.push_str(&word.text);
        } else {
            all.push(Span {
                start: word.start,
                end: word.end,
                text: word.text.clone(),
            });
        }
        open = !word
            .text
            .trim_end()
            .ends_with(['.', '?', '!', '。', '？', '！']);
    }
    all
}

fn clock(seconds: f64, point: char) -> String {
    // Rounded; a time before the beginning is the beginning.
    let millis = (seconds * 1_000.0 + 0.5) as u64;
    let (secs, millis) = (millis / 1_000, millis % 1_000);
    format!(
        "{:02}:{:02}:{:02}{point}{millis:03}",
        secs / 3_600,
        secs / 60 % 60,
        secs % 60
    )
}

/// The text of a cue: a blank line would end it.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.split_whitespace().collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(start: f64, end: f64, text: &str) -> Span {
        Span {
            start,
            end,
            text: text.into(),
        }
    }

    #[test]
    fn segments_end_with_sentences_silences_and_before_half_a_minute() {
        let words = [
            word(0.0, 0.5, " One."),
            word(0.5, 1.0, " Two"),
            word(2.0, 2.5, " three"),
            word(3.6, 4.0, " four"),
            word(4.0, 33.6, " five"),
            word(33.6, 33.7, " six"),
        ];
        let texts: Vec<String> = segments(&words).into_iter().map(|of| of.text).collect();
        assert_eq!(texts, [" One.", " Two three", " four five", " six"]);
    }

    #[test]
    fn times_of_subtitles_are_rounded_and_never_negative() {
        assert_eq!(clock(3_661.001_5, ','), "01:01:01,002");
        assert_eq!(clock(59.9996, '.'), "00:01:00.000");
        assert_eq!(clock(-1.0, '.'), "00:00:00.000");
        assert_eq!(one_line(" a\n\nb "), "a b");
    }
}
