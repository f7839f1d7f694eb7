//! Requests to batch pipelines as structs: fields have the names and kinds of the network, and what is left out is left
//! to the model.

use livepeer_core::pipeline::Pipeline;
use livepeer_core::wire::batch::fields::{Message, Value};
use livepeer_core::wire::batch::{BadRequest, BatchRequest, FilePart, Media, Probe};
use livepeer_media::probe;

/// A field of a struct, as it goes into a request.
trait Put {
    fn put(self, request: &mut BatchRequest, name: &str);
}

impl<T: Into<Value>> Put for T {
    fn put(self, request: &mut BatchRequest, name: &str) {
        let set = request.set(name, self);
        set.expect("the fields of a struct are those of its pipeline");
    }
}

/// A field that may be left out.
struct Maybe<T>(Option<T>);

impl<T: Into<Value>> Maybe<T> {
    fn put(self, request: &mut BatchRequest, name: &str) {
        if let Some(value) = self.0 {
            value.put(request, name);
        }
    }
}

/// Makes the struct of a pipeline's request, and the request of the struct.
macro_rules! request {
    (
        $(#[$doc:meta])*
        $name:ident $(file $file:ident)? { $($(#[$required_doc:meta])* $required:ident: $of:ty,)* }
        optional { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            /// The model; empty for the default of the pipeline.
            pub model: String,
            $(
                /// The file that is worked on.
                pub $file: FilePart,
            )?
            $($(#[$required_doc])* pub $required: $of,)*
            $($(#[$field_doc])* pub $field: Option<$kind>,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    model: String::new(),
                    $($file: FilePart::new("", ""),)?
                    $($required: Default::default(),)*
                    $($field: None,)*
                }
            }
        }

        impl From<$name> for BatchRequest {
            fn from(asked: $name) -> Self {
                let mut request = Self::new(Pipeline::$name);
                request.set_model(asked.model);
                $(
                    let set = request.set_file(asked.$file);
                    set.expect("the pipeline of this struct takes a file");
                )?
                $(asked.$required.put(&mut request, stringify!($required));)*
                $(Maybe(asked.$field).put(&mut request, stringify!($field).trim_end_matches('_'));)*
                request.complete();
                request
            }
        }
    };
}

request! {
    /// Pictures from a text.
    TextToImage {
        /// The text.
        prompt: String,
    }
    optional {
        /// Pixels; 512 if left out.
        width: i64,
        /// Pixels; 512 if left out.
        height: i64,
        /// Things that the pictures should not show.
        negative_prompt: String,
        /// How closely the text is followed; 7.5 if left out.
        guidance_scale: f32,
        /// The seed, for the same pictures again.
        seed: i64,
        /// How many steps the model takes; 50 if left out.
        num_inference_steps: i64,
        /// How many pictures; 1 if left out.
        num_images_per_prompt: i64,
        /// Whether pictures are judged by what they show; true if left out.
        safety_check: bool,
        /// LoRA models and their weights, a JSON object.
        loras: String,
    }
}

request! {
    /// Pictures from a picture and a text.
    ImageToImage file image {
        /// The text.
        prompt: String,
    }
    optional {
        /// How far from the picture the model may go, 0 to 1; 0.8 if left out.
        strength: f32,
        /// How closely the text is followed; 7.5 if left out.
        guidance_scale: f32,
        /// How closely the picture is followed; 1.5 if left out.
        image_guidance_scale: f32,
        /// Things that the pictures should not show.
        negative_prompt: String,
        /// The seed, for the same pictures again.
        seed: i64,
        /// How many steps the model takes; 100 if left out.
        num_inference_steps: i64,
        /// How many pictures; 1 if left out.
        num_images_per_prompt: i64,
        /// Whether pictures are judged by what they show; true if left out.
        safety_check: bool,
        /// LoRA models and their weights, a JSON object.
        loras: String,
    }
}

request! {
    /// A clip from a picture.
    ImageToVideo file image {}
    optional {
        /// Pixels; 1024 if left out.
        width: i64,
        /// Pixels; 576 if left out.
        height: i64,
        /// Frames in a second; 6 if left out.
        fps: i64,
        /// How much moves; 127 if left out.
        motion_bucket_id: i64,
        /// How much noise the picture gets first; 0.02 if left out.
        noise_aug_strength: f32,
        /// The seed, for the same clip again.
        seed: i64,
        /// How many steps the model takes; 25 if left out.
        num_inference_steps: i64,
        /// Whether the clip is judged by what it shows; true if left out.
        safety_check: bool,
    }
}

request! {
    /// A larger picture.
    Upscale file image {
        /// Words about the picture.
        prompt: String,
    }
    optional {
        /// The seed, for the same picture again.
        seed: i64,
        /// How many steps the model takes; 75 if left out.
        num_inference_steps: i64,
        /// Whether the picture is judged by what it shows; true if left out.
        safety_check: bool,
    }
}

request! {
    /// A transcript of speech.
    AudioToText file audio {}
    optional {
        /// The parts that get times: `true`, `false`, `word` or `sentence`.
        return_timestamps: String,
    }
}

request! {
    /// Masks of the things in a picture.
    SegmentAnything2 file image {}
    optional {
        /// Points in the picture, a JSON array.
        point_coords: String,
        /// Marks of the points that belong to the thing, a JSON array.
        point_labels: String,
        /// A box around the thing, a JSON array.
        box_: String,
        /// A mask to begin with, a JSON array.
        mask_input: String,
        /// Whether there may be several masks; true if left out.
        multimask_output: bool,
        /// Whether the answer has logits; true if left out.
        return_logits: bool,
        /// Whether points are brought to a range of 0 to 1; true if left out.
        normalize_coords: bool,
    }
}

request! {
    /// The description of a picture.
    ImageToText file image {}
    optional {
        /// The beginning of the description.
        prompt: String,
    }
}

request! {
    /// The answer of a language model, whole or as a stream.
    Llm {
        /// The conversation.
        messages: Vec<Message>,
        /// Whether the answer comes as a stream of chunks.
        stream: bool,
    }
    optional {
        /// At most this many tokens are written, and paid for; 256 if left out.
        max_tokens: i64,
        /// How much is left to chance; 0.7 if left out.
        temperature: f32,
        /// Tokens are chosen from those that make up this much of the probability; 1 if left out.
        top_p: f32,
        /// Tokens are chosen from this many; -1 for all, also if left out.
        top_k: i64,
    }
}

impl Llm {
    /// A question without a conversation before it.
    #[must_use]
    pub fn new(question: impl Into<String>) -> Self {
        Self {
            messages: vec![Message::new("user", question)],
            ..Self::default()
        }
    }
}

request! {
    /// Spoken text.
    TextToSpeech {
        /// The text.
        text: String,
    }
    optional {
        /// The voice, in words.
        description: String,
    }
}

/// Measures the file of a request, if that decides what is paid.
pub(super) fn measure(request: &mut BatchRequest) -> Result<(), BadRequest> {
    let (Some(needs), Some(file)) = (request.needs(), request.file()) else {
        return Ok(());
    };
    let (name, media) = match needs {
        Probe::Image => {
            let read = probe::image(&file.content);
            let media = read.map(|image| Media::Image {
                width: image.width,
                height: image.height,
            });
            ("image", media)
        }
        Probe::Audio => {
            let read = probe::sound(&file.content);
            let media = read.map(|sound| Media::Audio {
                duration: sound.duration,
            });
            ("audio", media)
        }
    };
    let media =
        media.map_err(|why| BadRequest::of(name, format!("{name} cannot be read: {why}")))?;
    request.measured(media)
}
