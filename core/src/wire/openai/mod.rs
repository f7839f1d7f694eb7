//! The shapes of OpenAI, translated into batch requests and back (front-door spec 1.3 to 1.8). Pure: a body in, a
//! request out; an answer in, a body out.
//!
//! A field that the pipeline has is passed on, one that would give the answer another shape is refused, and one that
//! changes little is left out and named: dropping tools in silence breaks agents, refusing a seed breaks everybody.

pub mod backend;
pub mod chat;
mod form;
pub mod image;
pub mod models;
pub mod speech;
mod stops;
pub mod stream;
pub mod transcript;
pub mod wav;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;
use serde_json::{Value, json};

use super::batch::{BadRequest, BatchRequest};
use super::preferences::{self, Terms};
use super::refused::{Code, Refused};
use super::strict::{Field, Object, missing};
use crate::models::{Models, NotServed};
use crate::pipeline::Pipeline;
use crate::prefer::Preferences;

/// The JSON of a value. `Display` writes the same piece by piece through `fmt`, which takes about twice as long.
fn written(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("texts, numbers and lists of them always serialise")
}

/// The rules of a gateway for what callers leave open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The tokens that an answer may have where the caller names no limit. Callers are told, since they pay for all of
    /// them.
    pub max_tokens: u32,
    /// The most tokens that a caller may ask for.
    pub most_tokens: u32,
    /// The width and height of pictures where the caller names none.
    pub size: (u32, u32),
    /// Defaults of single models, which go over these.
    pub per_model: BTreeMap<String, PerModel>,
    /// Descriptions of voices by their names.
    pub voices: BTreeMap<String, String>,
    /// Programs that serve models which no pipeline does, by the names of these.
    pub backends: backend::Backends,
    /// Whether a caller that asks for a sound format we cannot make gets WAV instead of an error.
    pub substitute_wav: bool,
    /// Whether an answer is refused if all of its pictures are flagged as unsafe.
    pub refuse_nsfw: bool,
    /// The words in which callers' preferences are read.
    pub terms: Terms,
}

/// Defaults of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerModel {
    /// Instead of [`Settings::max_tokens`].
    pub max_tokens: Option<u32>,
    /// Instead of [`Settings::size`].
    pub size: Option<(u32, u32)>,
    /// Whether the list of models leaves it out. It can be used all the same.
    pub hidden: bool,
}

/// The voices of OpenAI, in words: the pipeline takes a description and no name.
const VOICES: [(&str, &str); 11] = [
    (
        "alloy",
        "A neutral female speaker with a clear, even voice at a moderate pace.",
    ),
    (
        "ash",
        "A male speaker with a warm, confident voice at a moderate pace.",
    ),
    (
        "ballad",
        "A male speaker with a soft, expressive voice at a slow pace.",
    ),
    (
        "coral",
        "A female speaker with a bright, friendly voice at a moderate pace.",
    ),
    (
        "echo",
        "A male speaker with a calm, resonant voice at a moderate pace.",
    ),
    (
        "fable",
        "A male speaker with a lively, storytelling voice and a British accent.",
    ),
    (
        "nova",
        "A female speaker with an energetic, clear voice at a quick pace.",
    ),
    (
        "onyx",
        "A deep male speaker with a calm, low voice at a moderate pace.",
    ),
    (
        "sage",
        "A female speaker with a gentle, composed voice at a moderate pace.",
    ),
    (
        "shimmer",
        "A female speaker with a light, cheerful voice at a moderate pace.",
    ),
    (
        "verse",
        "A male speaker with a dynamic, expressive voice at a moderate pace.",
    ),
];

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_tokens: 1_024,
            most_tokens: 8_192,
            size: (1_024, 1_024),
            per_model: BTreeMap::new(),
            voices: VOICES
                .iter()
                .map(|(name, words)| ((*name).into(), (*words).into()))
                .collect(),
            backends: backend::Backends::new(),
            substitute_wav: false,
            refuse_nsfw: false,
            terms: Terms::default(),
        }
    }
}

/// A request as the network understands it, and what its answer needs of the one that came.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// The work.
    pub request: BatchRequest,
    /// Preferences about who does it.
    pub preferences: Preferences,
    /// The form in which the answer is wanted.
    pub asked: Asked,
    /// Names of parameters that had no effect.
    pub ignored: Vec<String>,
    /// Values that the caller left open, and that cost or show: `max_tokens=1024`.
    pub defaults: Vec<String>,
}

/// The form in which an answer is wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// The answer of a chat.
    Chat(chat::Asked),
    /// The answer with pictures.
    Images(image::Asked),
    /// The answer with a transcript.
    Transcript(transcript::Asked),
    /// The answer with speech.
    Speech(speech::Asked),
}

/// At most this many names are listed in a header field.
pub const MAX_NAMES_LISTED: usize = 16;
/// At most this many characters of each are.
pub const MAX_NAME_LISTED: usize = 64;

/// The value of a header field that lists names: callers choose those, so everything but plain characters is `?`.
#[must_use]
pub fn listed(names: &[String]) -> String {
    let plain = |c: char| {
        if c.is_ascii_graphic() && c != ',' || c == ' ' {
            c
        } else {
            '?'
        }
    };
    let shown: Vec<String> = names
        .iter()
        .take(MAX_NAMES_LISTED)
        .map(|name| name.chars().take(MAX_NAME_LISTED).map(plain).collect())
        .collect();
    shown.join(", ")
}

/// The parameters of a request that are left out, with the preferences, which may forbid that.
struct Reading {
    pipeline: Pipeline,
    preferences: Preferences,
    ignored: Vec<String>,
}

impl Reading {
    fn new(
        pipeline: Pipeline,
        provider: Option<&str>,
        header: Option<&str>,
        settings: &Settings,
    ) -> Result<Self, Refused> {
        let read = preferences::read(provider, header, &settings.terms)?;
        Ok(Self {
            pipeline,
            preferences: read.preferences,
            ignored: read.ignored,
        })
    }

    /// As [`new`](Self::new), for a JSON body that may have preferences in it.
    fn of_json(
        pipeline: Pipeline,
        all: &Object<'_>,
        header: Option<&str>,
        settings: &Settings,
    ) -> Result<Self, Refused> {
        let provider = all.get("provider");
        let provider = provider.as_ref().map(Field::raw);
        Self::new(pipeline, provider, header, settings)
    }

    /// Leaves a parameter out, unless the caller would rather have an error.
    fn ignore(&mut self, name: &str) -> Result<(), Refused> {
        if self.preferences.require_parameters {
            return Err(Refused::new(
                Code::UnsupportedParameter,
                format!(
                    "Unsupported parameter: '{name}' is not supported with the {} pipeline, and provider.require_parameters is set.",
                    self.pipeline
                ),
            )
            .at(name));
        }
        self.ignored.push(name.into());
        Ok(())
    }
}

/// Refuses a parameter that would give the answer another shape.
fn unsupported(name: &str, pipeline: Pipeline) -> Refused {
    Refused::new(
        Code::UnsupportedParameter,
        format!("Unsupported parameter: '{name}' is not supported with the {pipeline} pipeline."),
    )
    .at(name)
}

/// The id of the model that a caller names, for a pipeline.
fn model(asked: &str, pipeline: Pipeline, models: &Models) -> Result<String, Refused> {
    if asked.is_empty() {
        return Err(missing("model"));
    }
    models
        .resolve(asked, pipeline)
        .map(Into::into)
        .map_err(|why| not_served(asked, why, Some(pipeline), models))
}

fn model_of(all: &Object<'_>, pipeline: Pipeline, models: &Models) -> Result<String, Refused> {
    model(&all.need("model")?.text()?, pipeline, models)
}

fn not_served(asked: &str, why: NotServed, needed: Option<Pipeline>, models: &Models) -> Refused {
    match why {
        NotServed::Elsewhere(serves) => {
            let serves: Vec<&str> = serves.into_iter().map(Pipeline::name).collect();
            let needed =
                needed.map_or_else(String::new, |needed| format!(", which needs {needed}"));
            Refused::new(
                Code::ModelNotSupported,
                format!(
                    "The model '{asked}' serves {} and cannot be used with this route{needed}.",
                    serves.join(", ")
                ),
            )
            .at("model")
        }
        NotServed::Unknown => {
            let near = models.near(asked);
            let refused = Refused::no_model(asked);
            if near.is_empty() {
                return refused;
            }
            let near = near.into_iter().map(|id| {
                let pipelines: Vec<&str> = match models.get(id) {
                    Some(model) => model.offers.keys().copied().map(Pipeline::name).collect(),
                    None => Vec::new(),
                };
                json!({"id": id, "pipelines": pipelines})
            });
            refused.telling("near", Value::Array(near.collect()))
        }
    }
}

/// A value that our own tables made and the pipeline does not take: a fault of ours, told as one of the request.
fn wrong(bad: BadRequest) -> Refused {
    let refused = Refused::new(Code::InvalidValue, bad.text);
    match bad.param {
        Some(param) => refused.at(param),
        None => refused,
    }
}

/// A number of seconds without a fraction where it has none.
fn seconds(value: f64) -> Value {
    let whole = value as i64;
    if whole as f64 == value {
        Value::from(whole)
    } else {
        json!(value)
    }
}

/// A default that callers are told of.
fn default(name: &str, value: impl core::fmt::Display) -> String {
    format!("{name}={value}")
}
