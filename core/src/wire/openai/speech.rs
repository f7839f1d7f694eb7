//! `POST /v1/audio/speech` (front-door spec 1.8).

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use bytes::Bytes;

use super::{Asked as Any, Reading, Settings, Translated, default, model_of, wav, wrong};
use crate::models::Models;
use crate::pipeline::Pipeline;
use crate::wire::batch::BatchRequest;
use crate::wire::refused::{Code, Refused};
use crate::wire::strict::object;

/// At most this many characters are spoken.
pub const MAX_CHARACTERS: usize = 4_096;

/// Wishes of a request that its answer with speech heeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The sound as the runner made it: WAV.
    Wav,
    /// Samples alone: 24 kHz, 16 bits, one channel, as OpenAI's.
    Pcm,
}

/// Reads a request.
///
/// # Errors
/// For the first thing that is wrong with it.
pub fn read(
    body: &[u8],
    header: Option<&str>,
    models: &Models,
    settings: &Settings,
) -> Result<Translated, Refused> {
    const PIPELINE: Pipeline = Pipeline::TextToSpeech;
    let all = object(body)?;
    let mut reading = Reading::of_json(PIPELINE, &all, header, settings)?;
    let input = all.need("input")?.words()?;
    let characters = input.chars().count();
    if characters > MAX_CHARACTERS {
        return Err(Refused::new(
            Code::StringAboveMaxLength,
            format!(
                "Invalid 'input': string too long. Expected a string with maximum length {MAX_CHARACTERS}, but got a string with length {characters} instead."
            ),
        )
        .at("input"));
    }
    let id = model_of(&all, PIPELINE, models)?;
    let mut defaults = Vec::new();
    let mut asked = Asked::Wav;
    match all
        .get("response_format")
        .map(|value| value.text())
        .transpose()?
        .as_deref()
    {
        Some("wav") => {}
        Some("pcm") => asked = Asked::Pcm,
        None => defaults.push(default("response_format", "wav")),
        Some(_) if settings.substitute_wav => defaults.push(default("response_format", "wav")),
        Some(other) => return Err(no_format(other)),
    }
    let mut description = all.get("voice").map_or(Ok(String::new()), |voice| {
        describe(&voice.text()?, settings)
    })?;
    for (name, value) in all.iter() {
        match name {
            "input" | "model" | "response_format" | "voice" | "provider" => {}
            "instructions" => {
                let more = value.text()?;
                if !description.is_empty() && !more.is_empty() {
                    description.push(' ');
                }
                description.push_str(&more);
            }
            "stream_format" if value.raw() == "\"audio\"" => {}
            "stream_format" => {
                return Err(Refused::new(
                    Code::UnsupportedValue,
                    "Unsupported value: 'stream_format' must be 'audio'.",
                )
                .at(name));
            }
            "speed" if matches!(value.raw(), "1" | "1.0") => {}
            _ if value.is_neutral() => {}
            _ => reading.ignore(name)?,
        }
    }
    let mut request = BatchRequest::new(PIPELINE);
    request.set_model(id);
    request.set("text", &*input).map_err(wrong)?;
    if !description.is_empty() {
        request.set("description", description).map_err(wrong)?;
    }
    Ok(Translated {
        request,
        preferences: reading.preferences,
        asked: Any::Speech(asked),
        ignored: reading.ignored,
        defaults,
    })
}

/// FLAC is refused in other words than the rest: it is lossless and could be made here, as MP3 could not.
fn no_format(asked: &str) -> Refused {
    let message = if asked == "flac" {
        "Unsupported value: 'response_format' cannot be 'flac' yet; use 'wav' or 'pcm'.".to_string()
    } else {
        let shown: String = asked.chars().take(64).collect();
        format!(
            "Unsupported value: 'response_format' must be 'wav', 'flac' or 'pcm', not '{shown}'."
        )
    };
    Refused::new(Code::UnsupportedValue, message).at("response_format")
}

/// The description of a voice: by its name, or as the caller words it.
fn describe(voice: &str, settings: &Settings) -> Result<String, Refused> {
    if let Some(words) = settings.voices.get(voice) {
        return Ok(words.clone());
    }
    if voice.trim().contains(' ') {
        return Ok(voice.into());
    }
    let known: Vec<String> = settings
        .voices
        .keys()
        .map(|name| format!("'{name}'"))
        .collect();
    let shown: String = voice.chars().take(64).collect();
    Err(Refused::new(
        Code::InvalidValue,
        format!(
            "Invalid value: '{shown}'. Supported voices are: {}; or describe the voice in words.",
            known.join(", ")
        ),
    )
    .at("voice"))
}

/// Writes the answer: its content type and its body.
///
/// # Errors
/// If samples are wanted, and the runner's sound has none that can be read.
pub fn answer(asked: Asked, sound: &Bytes) -> Result<(&'static str, Bytes), Refused> {
    match asked {
        Asked::Wav => Ok((kind(sound), sound.clone())),
        Asked::Pcm => match wav::to_pcm(sound) {
            Ok(samples) => Ok(("audio/pcm", samples)),
            Err(why) => Err(Refused::new(
                Code::UpstreamInvalid,
                format!("The orchestrator's sound cannot be turned into samples: {why}."),
            )),
        },
    }
}

/// The type of a sound by its first bytes. Runners make WAV; one that makes something else is told as what it is.
fn kind(sound: &[u8]) -> &'static str {
    let begins = |magic: &[u8]| sound.starts_with(magic);
    if begins(b"fLaC") {
        "audio/flac"
    } else if begins(b"OggS") {
        "audio/ogg"
    } else if begins(b"ID3") || matches!(sound, [0xff, second, ..] if second & 0xe0 == 0xe0) {
        "audio/mpeg"
    } else {
        "audio/wav"
    }
}
