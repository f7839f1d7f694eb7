//! A request to a batch pipeline: its fields, the faults that are found before anybody is asked, and its units.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use super::fields::{self, Field, Kind, Message, Value};
use super::value::{self, wrong_kind};
use super::{BadRequest, MAX_MESSAGES};
use crate::pipeline::Pipeline;

/// At most this many pixels are asked for or sent in one request, over all its pictures.
pub const MAX_PIXELS: u64 = 1 << 40;

/// The frames that a clip is billed as, whatever its length.
pub const FRAMES_PAID: u64 = 25;

const IMAGES: &str = "num_images_per_prompt";
const METADATA: &str = "metadata";

/// A file of a form.
#[derive(Clone, PartialEq, Eq)]
pub struct FilePart {
    /// The file's name, without folders.
    pub name: String,
    /// Its bytes.
    pub content: Bytes,
}

impl FilePart {
    /// A file of that name.
    #[must_use]
    pub fn new(name: impl Into<String>, content: impl Into<Bytes>) -> Self {
        Self {
            name: name.into(),
            content: content.into(),
        }
    }
}

impl fmt::Debug for FilePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilePart({:?}, {} bytes)", self.name, self.content.len())
    }
}

/// The decoder that a file has to pass before its request can be paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The width and height of a PNG, a JPEG or a GIF: others, orchestrators cannot measure.
    Image,
    /// The duration of a sound.
    Audio,
}

/// Measures of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// The size of a picture.
    Image {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// The length of a sound.
    Audio {
        /// How long it plays.
        duration: Duration,
    },
}

/// A request to a batch pipeline.
///
/// Fields are set by name; those of another pipeline, and values of another kind, are refused. An absent field stays
/// absent on its way to the orchestrator, apart from the few that gateways always write.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchRequest {
    pipeline: Pipeline,
    /// Empty if the default is asked for.
    model: Option<String>,
    /// By the position of the field in the pipeline's table.
    values: Vec<Option<Value>>,
    file: Option<FilePart>,
    /// The text of `provider`, a front door's own field: it says who may do the job, and goes no further.
    pub(super) provider: Option<String>,
    media: Option<Media>,
    takes_empty: bool,
}

impl BatchRequest {
    /// A request without any field.
    #[must_use]
    pub fn new(pipeline: Pipeline) -> Self {
        Self {
            pipeline,
            model: None,
            values: fields::of(pipeline).iter().map(|_| None).collect(),
            file: None,
            provider: None,
            media: None,
            takes_empty: false,
        }
    }

    /// The pipeline.
    #[must_use]
    pub const fn pipeline(&self) -> Pipeline {
        self.pipeline
    }

    /// The model: the one asked for, or the pipeline's default.
    #[must_use]
    pub fn model(&self) -> &str {
        match self.model.as_deref() {
            None | Some("") => self.pipeline.default_model(),
            Some(model) => model,
        }
    }

    /// Whether the request says a model, be it an empty name for the default: SDKs do.
    #[must_use]
    pub const fn names_model(&self) -> bool {
        self.model.is_some()
    }

    /// Asks for a model. An empty name asks for the default.
    pub fn set_model(&mut self, model: impl Into<String>) {
        self.model = Some(model.into());
    }

    /// The caller's preferences about who may do the job, as they were written: a JSON object. They are not sent on.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        self.provider.as_deref()
    }

    /// The file.
    #[must_use]
    pub const fn file(&self) -> Option<&FilePart> {
        self.file.as_ref()
    }

    /// Gives the file, whose measures are unknown from then on.
    ///
    /// # Errors
    /// If the pipeline takes none.
    pub fn set_file(&mut self, file: FilePart) -> Result<(), BadRequest> {
        if fields::file_of(self.pipeline).is_none() {
            return Err(BadRequest::new(format!("{} takes no file", self.pipeline)));
        }
        self.file = Some(file);
        self.media = None;
        Ok(())
    }

    /// Sets a field.
    ///
    /// # Errors
    /// If the pipeline has no such field, or it is of another kind.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> Result<(), BadRequest> {
        let (at, field) = self.position(name)?;
        match value.into() {
            Value::Text(model) if field.kind == Kind::Model => self.model = Some(model),
            value if value.is(field.kind) => self.values[at] = Some(value),
            _ => return Err(wrong_kind(field)),
        }
        Ok(())
    }

    /// Sets a field from text, as forms and command lines have it.
    ///
    /// # Errors
    /// If the pipeline has no such field, or the text does not say a value of its kind.
    pub fn set_text(&mut self, name: &str, text: &str) -> Result<(), BadRequest> {
        let (_, field) = self.position(name)?;
        let bad = || wrong_kind(field);
        let value = match field.kind {
            Kind::Model | Kind::Text => text.into(),
            Kind::Integer => Value::Integer(text.parse().map_err(|_| bad())?),
            Kind::Float => Value::Float(text.parse().map_err(|_| bad())?),
            Kind::Flag => Value::Flag(flag(text).ok_or_else(bad)?),
            Kind::Messages => value::messages(text)?.into(),
        };
        self.set(name, value)
    }

    /// The value of a field, if it was set. The model is asked for by [`BatchRequest::model`].
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let (at, _) = self.position(name).ok()?;
        self.values[at].as_ref()
    }

    /// The text of a field, if it was set and is one.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number of a field, if it was set and is a whole one.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The conversation.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        match self.get("messages") {
            Some(Value::Messages(messages)) => messages,
            _ => &[],
        }
    }

    /// Takes an answer without any picture for good, as gateways in Go do. Otherwise another orchestrator is asked.
    pub const fn take_empty(&mut self) {
        self.takes_empty = true;
    }

    /// Whether an answer without any picture is good.
    #[must_use]
    pub const fn takes_empty(&self) -> bool {
        self.takes_empty
    }

    /// Whether the answer is to come as a stream of events.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.get("stream") == Some(&Value::Flag(true))
    }

    /// Writes what a request to a language model has to say itself, where it does not: the default model, a whole answer,
    /// and as many tokens as runners write by default. Other requests are complete without.
    pub fn complete(&mut self) {
        if self.pipeline != Pipeline::Llm {
            return;
        }
        if !self.names_model() {
            self.set_model(self.pipeline.default_model());
        }
        for field in fields::of(self.pipeline) {
            if matches!(field.name, "max_tokens" | "stream") && self.get(field.name).is_none() {
                let set = self.set_text(field.name, field.default);
                set.expect("a default is of its field's kind");
            }
        }
    }

    /// Finds the faults that need no decoder.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), BadRequest> {
        let empty = |name| self.text(name).is_none_or(str::is_empty);
        match self.pipeline {
            Pipeline::TextToImage | Pipeline::ImageToImage | Pipeline::Upscale
                if empty("prompt") =>
            {
                return Err(BadRequest::of("prompt", "prompt is required"));
            }
            Pipeline::Llm => self.check_llm()?,
            Pipeline::TextToSpeech if empty("text") => {
                return Err(BadRequest::of("text", "text field is required"));
            }
            Pipeline::LiveVideoToVideo => {
                let text = "live-video-to-video is a stream and no batch job";
                return Err(BadRequest::new(text));
            }
            _ => {}
        }
        if let Some(name) = fields::file_of(self.pipeline) {
            match &self.file {
                None => {
                    let text = format!("{name} is required, as a file");
                    return Err(BadRequest::of(name, text));
                }
                Some(file) if file.content.is_empty() => {
                    return Err(BadRequest::of(name, format!("{name} is an empty file")));
                }
                Some(_) => {}
            }
        }
        self.check_size()
    }

    fn check_llm(&self) -> Result<(), BadRequest> {
        let max_tokens = self.integer("max_tokens");
        let messages = self.messages();
        let (Some(max_tokens), Some(_), false, true) = (
            max_tokens,
            self.get("stream"),
            messages.is_empty(),
            self.names_model(),
        ) else {
            // The words of the reference.
            return Err(BadRequest::new("missing required fields"));
        };
        if max_tokens < 1 {
            return Err(BadRequest::of(
                "max_tokens",
                "max_tokens must be at least 1",
            ));
        }
        if messages.len() > MAX_MESSAGES {
            let text = format!("messages may be at most {MAX_MESSAGES}");
            return Err(BadRequest::of("messages", text));
        }
        Ok(())
    }

    /// The sizes that were asked for are positive, and not beyond what anybody makes.
    fn check_size(&self) -> Result<(), BadRequest> {
        if !matches!(
            self.pipeline,
            Pipeline::TextToImage | Pipeline::ImageToVideo
        ) {
            return Ok(());
        }
        for name in ["width", "height"] {
            if self.integer(name).is_some_and(|size| size < 1) {
                return Err(BadRequest::of(name, format!("{name} must be at least 1")));
            }
        }
        bounded(self.units(), "width")
    }

    /// The decoder that has to look at the file next; `None` if there is nothing to look for.
    #[must_use]
    pub const fn needs(&self) -> Option<Probe> {
        match self.pipeline {
            _ if self.media.is_some() => None,
            Pipeline::ImageToImage
            | Pipeline::Upscale
            | Pipeline::SegmentAnything2
            | Pipeline::ImageToText => Some(Probe::Image),
            Pipeline::AudioToText => Some(Probe::Audio),
            // Clips are billed by the size that is asked for, and the runner reads more formats than these.
            _ => None,
        }
    }

    /// Takes the measures of the file. A transcript's request tells them on, in place of any metadata of the client's.
    ///
    /// # Errors
    /// If they are those of another kind of file, or of an image that is too large.
    pub fn measured(&mut self, media: Media) -> Result<(), BadRequest> {
        let name = fields::file_of(self.pipeline).unwrap_or("file");
        match (self.needs(), media) {
            (None, _) => return Ok(()),
            (Some(Probe::Image), Media::Image { .. }) => {}
            (Some(Probe::Audio), Media::Audio { duration }) => {
                let seconds = duration.as_secs();
                self.set(METADATA, format!(r#"{{"duration":"{seconds}"}}"#))?;
            }
            (Some(Probe::Image), _) => {
                return Err(BadRequest::of(name, format!("{name} is not a picture")));
            }
            (Some(Probe::Audio), _) => {
                return Err(BadRequest::of(name, format!("{name} is not a sound")));
            }
        }
        let before = self.media.replace(media);
        if matches!(media, Media::Image { .. })
            && let Err(bad) = bounded(self.units(), name)
        {
            self.media = before;
            return Err(bad);
        }
        Ok(())
    }

    /// The units that the request is billed for (jobs spec 2.6); `None` as long as [`BatchRequest::needs`] says that the
    /// file is to be measured.
    #[must_use]
    pub fn units(&self) -> Option<u64> {
        let size = |name, default| match self.integer(name) {
            Some(size) => u64::try_from(size).unwrap_or(0),
            None => default,
        };
        let images = u64::try_from(self.images()).unwrap_or(1);
        let units = match self.pipeline {
            Pipeline::TextToImage => size("width", TEXT_TO_IMAGE_SIZE)
                .saturating_mul(size("height", TEXT_TO_IMAGE_SIZE))
                .saturating_mul(images),
            Pipeline::ImageToVideo => size("width", 1_024)
                .saturating_mul(size("height", 576))
                .saturating_mul(FRAMES_PAID),
            Pipeline::ImageToImage => self.pixels()?.saturating_mul(images),
            Pipeline::Upscale | Pipeline::SegmentAnything2 | Pipeline::ImageToText => {
                self.pixels()?
            }
            Pipeline::AudioToText => match self.media? {
                Media::Audio { duration } => duration.as_secs().saturating_mul(1_000),
                Media::Image { .. } => return None,
            },
            Pipeline::Llm => size("max_tokens", 0),
            // By characters, as the orchestrator counts, and not by bytes, as the reference pays.
            Pipeline::TextToSpeech => {
                let characters = self.text("text").unwrap_or_default().chars().count();
                (characters as u64).saturating_mul(1_000)
            }
            Pipeline::LiveVideoToVideo => return None,
        };
        Some(units)
    }

    fn pixels(&self) -> Option<u64> {
        match self.media? {
            Media::Image { width, height } => Some(u64::from(width) * u64::from(height)),
            Media::Audio { .. } => None,
        }
    }

    /// The pictures asked for: at least one, whatever the number says.
    fn images(&self) -> i64 {
        self.integer(IMAGES).unwrap_or(1).max(1)
    }

    /// The fields that go to the orchestrator, each with its value: those that are set, the model, and those that
    /// gateways always write.
    pub(super) fn sent(&self) -> impl Iterator<Item = (&'static Field, Cow<'_, Value>)> {
        let table = fields::of(self.pipeline);
        table.iter().zip(&self.values).filter_map(|(field, value)| {
            let always = match (self.pipeline, field.name) {
                _ if field.kind == Kind::Model => Some(self.model().into()),
                (Pipeline::TextToImage | Pipeline::ImageToImage, IMAGES) => {
                    Some(self.images().into())
                }
                (Pipeline::TextToImage, "width" | "height") if value.is_none() => {
                    Some(Value::Integer(TEXT_TO_IMAGE_SIZE as i64))
                }
                _ => None,
            };
            match (always, value) {
                (Some(value), _) => Some((field, Cow::Owned(value))),
                (None, Some(value)) => Some((field, Cow::Borrowed(value))),
                (None, None) => None,
            }
        })
    }

    fn position(&self, name: &str) -> Result<(usize, &'static Field), BadRequest> {
        let table = fields::of(self.pipeline);
        let found = table
            .iter()
            .enumerate()
            .find(|(_, field)| field.name == name);
        found.ok_or_else(|| {
            let names: Vec<_> = table.iter().map(|field| field.name).collect();
            let text = format!(
                "{} has no field {name:?}; its fields are {}",
                self.pipeline,
                names.join(", ")
            );
            BadRequest::of(name, text)
        })
    }
}

/// The width, and the height, of a picture from a text whose request says none.
const TEXT_TO_IMAGE_SIZE: u64 = 512;

fn bounded(units: Option<u64>, param: &str) -> Result<(), BadRequest> {
    match units.unwrap_or_default() {
        0 => Err(BadRequest::of(param, format!("{param} has no pixels"))),
        pixels if pixels > MAX_PIXELS => {
            let text =
                format!("{pixels} pixels are more than the {MAX_PIXELS} that one request may have");
            Err(BadRequest::of(param, text))
        }
        _ => Ok(()),
    }
}

/// True or false in any of the ways in which Go reads it.
fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
