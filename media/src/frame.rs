//! Frames of a live stream, between whatever carried them in and whatever carries them out.

use bytes::Bytes;

pub use crate::ticks::Ticks;
use crate::{aac, opus};

/// A picture of H.264 with all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    /// When it is shown.
    pub pts: Ticks,
    /// When it is decoded: the PTS unless pictures are reordered, and never later.
    pub dts: Ticks,
    /// Whether a decoder can start here: it holds an IDR picture.
    pub key: bool,
    /// NAL units after four-byte start codes, without access unit delimiters and filler, and with parameter sets before
    /// an IDR picture. [`h264::Stream`](crate::h264::Stream) makes them so.
    pub data: Bytes,
}

/// A frame of sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audio {
    /// When it is heard.
    pub pts: Ticks,
    /// The format of the data.
    pub track: AudioTrack,
    /// A packet of Opus, or a raw frame of AAC without its ADTS header.
    pub data: Bytes,
}

/// A format of sound with all that a decoder has to know beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioTrack {
    /// Opus.
    Opus {
        /// Channels of the decoder, 1 or 2; WebRTC always says 2.
        channels: u8,
    },
    /// AAC of that configuration.
    Aac(aac::Config),
}

impl AudioTrack {
    /// The format alone.
    #[must_use]
    pub const fn codec(self) -> AudioCodec {
        match self {
            Self::Opus { .. } => AudioCodec::Opus,
            Self::Aac(_) => AudioCodec::Aac,
        }
    }

    /// A frame of silence, if one is known for this format.
    #[must_use]
    pub fn silence(self) -> Option<Bytes> {
        match self {
            Self::Opus { channels } => Some(Bytes::from_static(opus::silence(channels))),
            Self::Aac(config) => config.silence().map(Bytes::from_static),
        }
    }

    /// The time that a frame plays; `None` if it is not valid.
    #[must_use]
    pub fn duration(self, data: &[u8]) -> Option<Ticks> {
        match self {
            Self::Opus { .. } => opus::duration(data),
            Self::Aac(config) => {
                let valid = !data.is_empty() && data.len() <= aac::MAX_FRAME;
                valid.then(|| config.duration(1))
            }
        }
    }
}

/// A format of sound that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioCodec {
    /// Opus.
    Opus,
    /// AAC.
    Aac,
}

/// A format of video that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoCodec {
    /// H.264, also called AVC.
    H264,
    /// H.265, also called HEVC: recognised, not carried.
    H265,
}

/// The tracks that a stream says it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracks {
    /// Its video, if it has any that is known here.
    pub video: Option<VideoCodec>,
    /// Its sound, if it has any that is known here.
    pub audio: Option<AudioCodec>,
}
