//! The pipelines of the network, and the units that their work is counted in (jobs spec 2.1, 2.6).

use core::fmt;

use crate::capabilities::Capability;

/// A kind of work that orchestrators sell: nine batch pipelines, and live video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pipeline {
    /// Pictures from a text.
    TextToImage,
    /// Pictures from a picture and a text.
    ImageToImage,
    /// A clip from a picture.
    ImageToVideo,
    /// A larger picture.
    Upscale,
    /// A transcript.
    AudioToText,
    /// Masks of the things in a picture.
    SegmentAnything2,
    /// The answer of a language model, whole or as a stream.
    Llm,
    /// A description of a picture.
    ImageToText,
    /// Spoken text.
    TextToSpeech,
    /// A video stream from a video stream, while it runs.
    LiveVideoToVideo,
}

impl Pipeline {
    /// Every pipeline.
    pub const ALL: [Self; 10] = [
        Self::TextToImage,
        Self::ImageToImage,
        Self::ImageToVideo,
        Self::Upscale,
        Self::AudioToText,
        Self::SegmentAnything2,
        Self::Llm,
        Self::ImageToText,
        Self::TextToSpeech,
        Self::LiveVideoToVideo,
    ];

    /// The pipelines of one request and one answer: all but live video.
    pub fn batch() -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(|pipeline| *pipeline != Self::LiveVideoToVideo)
    }

    /// The name, which is also the path at gateways and orchestrators: `text-to-image`.
    #[must_use]
    pub fn name(self) -> &'static str {
        let slug = self.capability().slug();
        slug.expect("the capability of a pipeline has a name")
    }

    /// The pipeline of exactly that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|pipeline| pipeline.name() == name)
    }

    /// The capability that an orchestrator with this pipeline has.
    #[must_use]
    pub const fn capability(self) -> Capability {
        match self {
            Self::TextToImage => Capability::TEXT_TO_IMAGE,
            Self::ImageToImage => Capability::IMAGE_TO_IMAGE,
            Self::ImageToVideo => Capability::IMAGE_TO_VIDEO,
            Self::Upscale => Capability::UPSCALE,
            Self::AudioToText => Capability::AUDIO_TO_TEXT,
            Self::SegmentAnything2 => Capability::SEGMENT_ANYTHING_2,
            Self::Llm => Capability::LLM,
            Self::ImageToText => Capability::IMAGE_TO_TEXT,
            Self::TextToSpeech => Capability::TEXT_TO_SPEECH,
            Self::LiveVideoToVideo => Capability::LIVE_VIDEO_TO_VIDEO,
        }
    }

    /// The pipeline that this capability is; `None` for a capability of another kind.
    #[must_use]
    pub fn of(capability: Capability) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|pipeline| pipeline.capability() == capability)
    }

    /// The model that works where a request names none.
    #[must_use]
    pub const fn default_model(self) -> &'static str {
        match self {
            Self::TextToImage | Self::ImageToImage => "stabilityai/sdxl-turbo",
            Self::ImageToVideo => "stabilityai/stable-video-diffusion-img2vid-xt",
            Self::Upscale => "stabilityai/stable-diffusion-x4-upscaler",
            Self::AudioToText => "openai/whisper-large-v3",
            Self::SegmentAnything2 => "facebook/sam2-hiera-large",
            Self::Llm => "meta-llama/llama-3.1-8B-Instruct",
            Self::ImageToText => "Salesforce/blip-image-captioning-large",
            Self::TextToSpeech => "parler-tts/parler-tts-large-v1",
            Self::LiveVideoToVideo => "noop",
        }
    }

    /// The unit that prices of this pipeline are for.
    #[must_use]
    pub const fn work_unit(self) -> WorkUnit {
        match self {
            Self::TextToImage
            | Self::ImageToImage
            | Self::ImageToVideo
            | Self::Upscale
            | Self::SegmentAnything2
            | Self::ImageToText
            | Self::LiveVideoToVideo => WorkUnit::Pixel,
            Self::AudioToText => WorkUnit::Millisecond,
            Self::Llm => WorkUnit::Token,
            Self::TextToSpeech => WorkUnit::Millicharacter,
        }
    }
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A unit of work of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkUnit {
    /// A pixel, of the input or of the output.
    Pixel,
    /// A token that a language model may write.
    Token,
    /// A thousandth of a second of audio; only whole seconds count.
    Millisecond,
    /// A thousandth of a character of text.
    Millicharacter,
}

impl WorkUnit {
    /// The word for one of it, as answers to clients say it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pixel => "pixel",
            Self::Token => "token",
            Self::Millisecond => "millisecond",
            Self::Millicharacter => "millicharacter",
        }
    }
}

impl fmt::Display for WorkUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pipeline_is_found_by_its_name_and_by_its_capability() {
        for pipeline in Pipeline::ALL {
            assert_eq!(Pipeline::from_name(pipeline.name()), Some(pipeline));
            assert_eq!(Pipeline::of(pipeline.capability()), Some(pipeline));
        }
        assert_eq!(Pipeline::TextToImage.name(), "text-to-image");
        assert_eq!(Pipeline::SegmentAnything2.name(), "segment-anything-2");
        assert_eq!(Pipeline::Llm.name(), "llm");
        assert_eq!(Pipeline::from_name("Llm"), None, "byte for byte");
        assert_eq!(Pipeline::of(Capability::BYOC), None);
        assert_eq!(Pipeline::batch().count(), 9);
    }
}
