//! Answers of batch pipelines as structs: each request has its kind, with the results in it.

use bytes::Bytes;
use livepeer_core::job::batch::{Finished, Served};
use livepeer_core::wire::WireError;
use livepeer_core::wire::batch::{Answer, BatchRequest, Completion, TextChunk};

use super::Error;
use super::requests::{
    AudioToText, ImageToImage, ImageToText, ImageToVideo, Llm, SegmentAnything2, TextToImage,
    TextToSpeech, Upscale,
};

/// A request of a batch pipeline, and the kind of its answer.
pub trait Task: Into<BatchRequest> {
    /// The answer, once the job is done.
    type Answer: TaskAnswer;
}

/// An answer that a job is awaited for.
pub trait TaskAnswer: Sized + Send {
    /// Takes it from a job that is done.
    ///
    /// # Errors
    /// If the job was another pipeline's.
    fn take(finished: Finished) -> Result<Self, Error>;
}

/// Pictures, or clips of image to video.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// The pictures, in the order of the answer.
    pub images: Vec<Picture>,
    /// Facts about who did it, and what it cost.
    pub served: Served,
}

/// A picture, or a clip of image to video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The bytes of the file.
    pub content: Bytes,
    /// The seed that makes the same again.
    pub seed: i64,
    /// Whether the model thinks that it should not be shown everywhere.
    pub nsfw: bool,
}

/// A transcript of speech.
#[derive(Clone, Debug, PartialEq)]
pub struct Transcript {
    /// All of it.
    pub text: String,
    /// Its parts, each with its time.
    pub chunks: Vec<TextChunk>,
    /// Facts about who did it, and what it cost.
    pub served: Served,
}

/// Masks of the things in a picture: each member is a JSON array in a text, as the network passes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Masks {
    /// A picture of ones and zeros for each mask.
    pub masks: String,
    /// How sure the model is of each.
    pub scores: String,
    /// The masks before they were cut to ones and zeros.
    pub logits: String,
    /// Facts about who did it, and what it cost.
    pub served: Served,
}

/// The description of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Caption {
    /// The words.
    pub text: String,
    /// Facts about who did it, and what it cost.
    pub served: Served,
}

/// Spoken text.
#[derive(Clone, Debug, PartialEq)]
pub struct Speech {
    /// The bytes of the file.
    pub content: Bytes,
    /// Facts about who did it, and what it cost.
    pub served: Served,
}

/// The whole answer of a language model.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The answer as far as it is known.
    pub completion: Completion,
    /// Facts about who did it, and what it cost.
    pub served: Served,
}

impl Reply {
    /// The words of the first alternative.
    #[must_use]
    pub fn text(&self) -> &str {
        let first = self.completion.choices.first();
        first.map_or("", |choice| &choice.content)
    }
}

fn other_kind() -> Error {
    WireError::new("an answer", "of another pipeline").into()
}

impl TaskAnswer for Finished {
    fn take(finished: Finished) -> Result<Self, Error> {
        Ok(finished)
    }
}

impl TaskAnswer for Images {
    fn take(finished: Finished) -> Result<Self, Error> {
        let Some(Answer::Images(all)) = &finished.answer else {
            return Err(other_kind());
        };
        let pictures = all.iter().map(|image| {
            Ok(Picture {
                content: finished.content(&image.url).ok_or_else(other_kind)?.clone(),
                seed: image.seed,
                nsfw: image.nsfw,
            })
        });
        let images = pictures.collect::<Result<_, Error>>()?;
        Ok(Self {
            images,
            served: finished.served,
        })
    }
}

impl TaskAnswer for Speech {
    fn take(finished: Finished) -> Result<Self, Error> {
        let Some(Answer::Speech { url }) = &finished.answer else {
            return Err(other_kind());
        };
        let content = finished.content(url).ok_or_else(other_kind)?.clone();
        Ok(Self {
            content,
            served: finished.served,
        })
    }
}

/// Takes an answer that is in the message itself.
macro_rules! whole {
    ($name:ident: $variant:pat => $($field:ident),+) => {
        impl TaskAnswer for $name {
            fn take(finished: Finished) -> Result<Self, Error> {
                match finished.answer {
                    Some($variant) => Ok(Self { $($field,)+ served: finished.served }),
                    _ => Err(other_kind()),
                }
            }
        }
    };
}

whole!(Transcript: Answer::Text { text, chunks } => text, chunks);
whole!(Masks: Answer::Masks { masks, scores, logits } => masks, scores, logits);
whole!(Caption: Answer::Caption(text) => text);
whole!(Reply: Answer::Llm { completion, .. } => completion);

/// Says which kind of answer each request has.
macro_rules! answers {
    ($($request:ident: $answer:ident,)+) => {
        $(impl Task for $request {
            type Answer = $answer;
        })+
    };
}

answers! {
    TextToImage: Images,
    ImageToImage: Images,
    ImageToVideo: Images,
    Upscale: Images,
    AudioToText: Transcript,
    SegmentAnything2: Masks,
    ImageToText: Caption,
    TextToSpeech: Speech,
    Llm: Reply,
    BatchRequest: Finished,
}
