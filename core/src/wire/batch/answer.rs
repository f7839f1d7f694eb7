//! Answers of batch pipelines (jobs spec 2.3, 2.7).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

use super::llm::{Completion, native_chunk};
use crate::pipeline::Pipeline;
use crate::wire::WireError;
use crate::wire::json::BASE64;

/// At most this many pictures are in an answer: each is a download.
pub const MAX_IMAGES: usize = 1_024;

/// A body with status 200 that is no answer: another orchestrator is to be asked.
pub type NoAnswer = WireError;

/// The answer of a batch pipeline.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Pictures; of image to video, clips.
    Images(Vec<Image>),
    /// A transcript.
    Text {
        /// All of it.
        text: String,
        /// Its parts, each with its time.
        chunks: Vec<TextChunk>,
    },
    /// Masks, their scores and logits: each a JSON array in a text, as the network passes them.
    Masks {
        /// A picture of ones and zeros for each mask.
        masks: String,
        /// How sure the model is of each.
        scores: String,
        /// The masks before they were cut to ones and zeros.
        logits: String,
    },
    /// The description of a picture.
    Caption(String),
    /// Spoken text, to be fetched.
    Speech {
        /// Where it is.
        url: String,
    },
    /// The answer of a language model.
    Llm {
        /// Read as far as we know it.
        completion: Completion,
        /// As it came, without the optional members that are `null`: clients may know more than we do.
        json: Bytes,
    },
}

/// A picture or clip, to be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Whether the model thinks that it should not be shown everywhere.
    pub nsfw: bool,
    /// The seed that makes the same again.
    pub seed: i64,
    /// Where it is: an address, or the bytes themselves as a `data:` URL.
    pub url: String,
}

/// A part of a transcript.
#[derive(Clone, Debug, PartialEq)]
pub struct TextChunk {
    /// When it begins, in seconds.
    pub start: f64,
    /// When it ends, in seconds; `None` if the model does not say, as for a last part that was cut off.
    pub end: Option<f64>,
    /// The words.
    pub text: String,
}

/// Reads the body of an answer with status 200. Unknown members are ignored.
///
/// # Errors
/// If it is `null` or no JSON, or lacks a part that every such answer has: an orchestrator whose runner failed in an
/// unforeseen way answers so.
pub fn read_answer(pipeline: Pipeline, body: &Bytes) -> Result<Answer, NoAnswer> {
    #[derive(Deserialize)]
    struct Images {
        images: Vec<Image>,
    }
    #[derive(Deserialize)]
    struct Text {
        text: String,
        chunks: Option<Vec<Chunk>>,
    }
    #[derive(Deserialize)]
    struct Chunk {
        timestamp: (Option<f64>, Option<f64>),
        text: String,
    }
    #[derive(Deserialize)]
    struct Masks {
        masks: String,
        scores: String,
        logits: String,
    }
    #[derive(Deserialize)]
    struct Caption {
        text: String,
    }
    #[derive(Deserialize)]
    struct Speech {
        audio: Audio,
    }
    #[derive(Deserialize)]
    struct Audio {
        url: String,
    }
    fn read<'a, T: Deserialize<'a>>(pipeline: Pipeline, body: &'a [u8]) -> Result<T, NoAnswer> {
        serde_json::from_slice(body)
            .map_err(|err| WireError::new("an answer", format!("not one of {pipeline}: {err}")))
    }
    Ok(match pipeline {
        Pipeline::TextToImage
        | Pipeline::ImageToImage
        | Pipeline::ImageToVideo
        | Pipeline::Upscale => {
            let Images { images } = read(pipeline, body)?;
            if images.len() > MAX_IMAGES {
                let why = format!("more than {MAX_IMAGES} images");
                return Err(WireError::new("an answer", why));
            }
            if images.iter().any(|image| image.url.trim().is_empty()) {
                return Err(WireError::new("an answer", "without a picture"));
            }
            Answer::Images(images)
        }
        Pipeline::AudioToText => {
            let Text { text, chunks } = read(pipeline, body)?;
            let chunk = |chunk: Chunk| TextChunk {
                start: chunk.timestamp.0.unwrap_or_default(),
                end: chunk.timestamp.1,
                text: chunk.text,
            };
            let chunks = chunks.unwrap_or_default().into_iter().map(chunk).collect();
            Answer::Text { text, chunks }
        }
        Pipeline::SegmentAnything2 => {
            let Masks {
                masks,
                scores,
                logits,
            } = read(pipeline, body)?;
            Answer::Masks {
                masks,
                scores,
                logits,
            }
        }
        Pipeline::ImageToText => Answer::Caption(read::<Caption>(pipeline, body)?.text),
        Pipeline::TextToSpeech => {
            let url = read::<Speech>(pipeline, body)?.audio.url;
            if url.trim().is_empty() {
                return Err(WireError::new("an answer", "without sound"));
            }
            Answer::Speech { url }
        }
        Pipeline::Llm => Answer::Llm {
            completion: Completion::read(body)?,
            json: native_chunk(body),
        },
        Pipeline::LiveVideoToVideo => {
            let why = "live-video-to-video has another answer";
            return Err(WireError::new("an answer", why));
        }
    })
}

impl Answer {
    /// Whether pictures were asked for, and there is none. Go's orchestrator answers so when its runner fails in a way
    /// that it does not know (jobs spec 2.4).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Images(images) if images.is_empty())
    }

    /// The URLs of results, in the order of the answer. Some may be equal.
    pub fn urls(&self) -> impl Iterator<Item = &String> {
        let (images, speech) = match self {
            Self::Images(images) => (&images[..], None),
            Self::Speech { url } => (&[][..], Some(url)),
            _ => (&[][..], None),
        };
        images.iter().map(|image| &image.url).chain(speech)
    }

    /// The URLs of results, to be replaced by where the results are kept.
    pub fn urls_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let (images, speech) = match self {
            Self::Images(images) => (&mut images[..], None),
            Self::Speech { url } => (&mut [][..], Some(url)),
            _ => (&mut [][..], None),
        };
        images.iter_mut().map(|image| &mut image.url).chain(speech)
    }

    /// The answer as clients get it, its members sorted by name as Go sorts them.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        #[derive(Serialize)]
        struct Images<'a> {
            images: &'a [Image],
        }
        #[derive(Serialize)]
        struct Text<'a> {
            chunks: Vec<Chunk<'a>>,
            text: &'a str,
        }
        #[derive(Serialize)]
        struct Chunk<'a> {
            text: &'a str,
            timestamp: (Number, Option<Number>),
        }
        #[derive(Serialize)]
        struct Masks<'a> {
            logits: &'a str,
            masks: &'a str,
            scores: &'a str,
        }
        #[derive(Serialize)]
        struct Caption<'a> {
            text: &'a str,
        }
        #[derive(Serialize)]
        struct Speech<'a> {
            audio: Audio<'a>,
        }
        #[derive(Serialize)]
        struct Audio<'a> {
            url: &'a str,
        }
        let json = match self {
            Self::Images(images) => serde_json::to_vec(&Images { images }),
            Self::Text { text, chunks } => {
                fn chunk(chunk: &TextChunk) -> Chunk<'_> {
                    let TextChunk { start, end, text } = chunk;
                    let timestamp = (Number(*start), end.map(Number));
                    Chunk { text, timestamp }
                }
                let chunks = chunks.iter().map(chunk).collect();
                serde_json::to_vec(&Text { chunks, text })
            }
            Self::Masks {
                masks,
                scores,
                logits,
            } => serde_json::to_vec(&Masks {
                logits,
                masks,
                scores,
            }),
            Self::Caption(text) => serde_json::to_vec(&Caption { text }),
            Self::Speech { url } => serde_json::to_vec(&Speech {
                audio: Audio { url },
            }),
            Self::Llm { json, .. } => return json.clone(),
        };
        json.expect("texts and numbers always serialise").into()
    }
}

/// A number without a fraction where it has none, as Go writes it.
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = self.0 as i64;
        if whole as f64 == self.0 && whole.unsigned_abs() < 1 << 53 {
            serializer.serialize_i64(whole)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

/// The bytes of a `data:` URL; `None` for a URL of another kind.
///
/// # Errors
/// If the bytes are not base64.
#[must_use]
pub fn data_url(url: &str) -> Option<Result<Bytes, WireError>> {
    let scheme = url.get(..5)?;
    if !scheme.eq_ignore_ascii_case("data:") {
        return None;
    }
    let bad = |why| WireError::new("a data URL", why);
    let Some((media_type, text)) = url[5..].split_once(',') else {
        return Some(Err(bad("without a comma")));
    };
    let encoding = media_type.rsplit(';').next().unwrap_or_default();
    if !encoding.trim().eq_ignore_ascii_case("base64") {
        return Some(Err(bad("not in base64")));
    }
    let decoded = BASE64.decode(text.trim_ascii());
    Some(decoded.map(Bytes::from).map_err(|_| bad("not base64")))
}
