//! FLV tags, as RTMP carries them, into frames and back: H.264 with AAC or Opus, in the legacy form and in that of
//! Enhanced RTMP.
//!
//! [`Reader`] takes the bodies of a source's tags and gives frames in the source's time; [`Writer`] makes the tags that a
//! server of RTMP is sent. Codecs that are not carried are refused by name.

mod damaged;
mod enhanced;
mod read;
mod write;

pub use self::damaged::Damaged;
pub use self::enhanced::MAX_MOD_EX;
pub use self::read::{MAX_BAD_TAGS, Reader, Refused, Sound, Video};
pub use self::write::{Tag, Writer};

/// The form of a tag's first byte that says "Enhanced RTMP": the highest bit for video, this sound format for audio.
const ENHANCED_AUDIO: u8 = 9;
/// H.264 as legacy tags number it.
const LEGACY_AVC: u8 = 7;
/// AAC as legacy tags number it.
const LEGACY_AAC: u8 = 10;
/// A frame type: a picture where decoding can begin.
const KEY_FRAME: u8 = 1;
/// A frame type: any other picture.
const INTER_FRAME: u8 = 2;
/// A frame type: a command to the player, without a picture.
const COMMAND_FRAME: u8 = 5;

#[cfg(test)]
mod tests;
