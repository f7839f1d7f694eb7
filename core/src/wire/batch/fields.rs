//! The fields of each pipeline, in the order in which Go writes them (jobs spec 2.2).

use alloc::string::String;
use alloc::vec::Vec;

use crate::pipeline::Pipeline;

/// The kind of a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The name of the model. Absent means the pipeline's default.
    Model,
    /// Text.
    Text,
    /// A whole number of at most 64 bits.
    Integer,
    /// A number as Go's `float32` holds it.
    Float,
    /// True or false.
    Flag,
    /// A conversation.
    Messages,
}

impl Kind {
    /// The kind in a sentence: "seed must be {}".
    #[must_use]
    pub const fn described(self) -> &'static str {
        match self {
            Self::Model | Self::Text => "a string",
            Self::Integer => "a whole number",
            Self::Float => "a number",
            Self::Flag => "true or false",
            Self::Messages => "an array of messages with role and content",
        }
    }
}

/// A field that a pipeline knows.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name, in JSON and in forms.
    pub name: &'static str,
    /// The kind of its value.
    pub kind: Kind,
    /// The value that runners take where it is absent, as text; empty if there is none worth telling.
    pub default: &'static str,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The value of a [`Kind::Text`].
    Text(String),
    /// The value of a [`Kind::Integer`].
    Integer(i64),
    /// The value of a [`Kind::Float`]; finite.
    Float(f32),
    /// The value of a [`Kind::Flag`].
    Flag(bool),
    /// The value of [`Kind::Messages`].
    Messages(Vec<Message>),
}

impl Value {
    /// Whether a field of that kind may have this value.
    #[must_use]
    pub const fn is(&self, kind: Kind) -> bool {
        match self {
            Self::Text(_) => matches!(kind, Kind::Text),
            Self::Integer(_) => matches!(kind, Kind::Integer),
            Self::Float(value) => matches!(kind, Kind::Float) && value.is_finite(),
            Self::Flag(_) => matches!(kind, Kind::Flag),
            Self::Messages(_) => matches!(kind, Kind::Messages),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<f32> for Value {
    fn from(number: f32) -> Self {
        Self::Float(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<Vec<Message>> for Value {
    fn from(messages: Vec<Message>) -> Self {
        Self::Messages(messages)
    }
}

/// A message of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The speaker: `system`, `user` or `assistant`.
    pub role: String,
    /// The words. `null` and an absent content are empty.
    pub content: String,
}

impl Message {
    /// A message of that role.
    #[must_use]
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }
}

/// The fields of a pipeline: for forms in the order in which Go writes them, for JSON sorted by name, as Go writes
/// those. Live video has none here: its start request is another one.
#[must_use]
pub const fn of(pipeline: Pipeline) -> &'static [Field] {
    match pipeline {
        Pipeline::TextToImage => TEXT_TO_IMAGE,
        Pipeline::ImageToImage => IMAGE_TO_IMAGE,
        Pipeline::ImageToVideo => IMAGE_TO_VIDEO,
        Pipeline::Upscale => UPSCALE,
        Pipeline::AudioToText => AUDIO_TO_TEXT,
        Pipeline::SegmentAnything2 => SEGMENT_ANYTHING_2,
        Pipeline::Llm => LLM,
        Pipeline::ImageToText => IMAGE_TO_TEXT,
        Pipeline::TextToSpeech => TEXT_TO_SPEECH,
        Pipeline::LiveVideoToVideo => &[],
    }
}

/// The name of the part that carries the file; `None` for pipelines whose request is JSON.
#[must_use]
pub const fn file_of(pipeline: Pipeline) -> Option<&'static str> {
    match pipeline {
        Pipeline::ImageToImage
        | Pipeline::ImageToVideo
        | Pipeline::Upscale
        | Pipeline::SegmentAnything2
        | Pipeline::ImageToText => Some("image"),
        Pipeline::AudioToText => Some("audio"),
        Pipeline::TextToImage
        | Pipeline::Llm
        | Pipeline::TextToSpeech
        | Pipeline::LiveVideoToVideo => None,
    }
}

const fn field(name: &'static str, kind: Kind, default: &'static str) -> Field {
    Field {
        name,
        kind,
        default,
    }
}

const MODEL_ID: Field = field("model_id", Kind::Model, "");
const PROMPT: Field = field("prompt", Kind::Text, "");
const LORAS: Field = field("loras", Kind::Text, "");
const NEGATIVE_PROMPT: Field = field("negative_prompt", Kind::Text, "");
const SAFETY_CHECK: Field = field("safety_check", Kind::Flag, "true");
const SEED: Field = field("seed", Kind::Integer, "");
const GUIDANCE_SCALE: Field = field("guidance_scale", Kind::Float, "7.5");
const NUM_IMAGES: Field = field("num_images_per_prompt", Kind::Integer, "1");

const fn steps(default: &'static str) -> Field {
    field("num_inference_steps", Kind::Integer, default)
}

const TEXT_TO_IMAGE: &[Field] = &[
    GUIDANCE_SCALE,
    // The gateway's defaults: it writes them in, and the runner's own 576 and 1024 never count.
    field("height", Kind::Integer, "512"),
    LORAS,
    MODEL_ID,
    NEGATIVE_PROMPT,
    NUM_IMAGES,
    steps("50"),
    PROMPT,
    SAFETY_CHECK,
    SEED,
    field("width", Kind::Integer, "512"),
];

const IMAGE_TO_IMAGE: &[Field] = &[
    PROMPT,
    MODEL_ID,
    LORAS,
    field("strength", Kind::Float, "0.8"),
    GUIDANCE_SCALE,
    field("image_guidance_scale", Kind::Float, "1.5"),
    NEGATIVE_PROMPT,
    SAFETY_CHECK,
    SEED,
    NUM_IMAGES,
    steps("100"),
];

const IMAGE_TO_VIDEO: &[Field] = &[
    MODEL_ID,
    field("height", Kind::Integer, "576"),
    field("width", Kind::Integer, "1024"),
    field("fps", Kind::Integer, "6"),
    field("motion_bucket_id", Kind::Integer, "127"),
    field("noise_aug_strength", Kind::Float, "0.02"),
    SEED,
    SAFETY_CHECK,
    steps("25"),
];

const UPSCALE: &[Field] = &[PROMPT, MODEL_ID, SAFETY_CHECK, SEED, steps("75")];

const AUDIO_TO_TEXT: &[Field] = &[
    MODEL_ID,
    field("return_timestamps", Kind::Text, "true"),
    field("metadata", Kind::Text, "{}"),
];

const SEGMENT_ANYTHING_2: &[Field] = &[
    MODEL_ID,
    field("point_coords", Kind::Text, ""),
    field("point_labels", Kind::Text, ""),
    field("box", Kind::Text, ""),
    field("mask_input", Kind::Text, ""),
    field("multimask_output", Kind::Flag, "true"),
    field("return_logits", Kind::Flag, "true"),
    field("normalize_coords", Kind::Flag, "true"),
];

const LLM: &[Field] = &[
    field("max_tokens", Kind::Integer, "256"),
    field("messages", Kind::Messages, ""),
    field("model", Kind::Model, ""),
    field("stream", Kind::Flag, "false"),
    field("temperature", Kind::Float, "0.7"),
    field("top_k", Kind::Integer, "-1"),
    field("top_p", Kind::Float, "1.0"),
];

const IMAGE_TO_TEXT: &[Field] = &[PROMPT, MODEL_ID];

const TEXT_TO_SPEECH: &[Field] = &[
    field("description", Kind::Text, ""),
    MODEL_ID,
    field("text", Kind::Text, ""),
];
