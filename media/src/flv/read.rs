//! Tags to frames.

use std::borrow::Cow;

use bytes::{Buf, Bytes};

use super::damaged::Damaged;
use super::enhanced::{CODED_FRAMES, CODED_FRAMES_X, FourCc, Medium, Packet, SEQUENCE_START, take};
use super::{COMMAND_FRAME, ENHANCED_AUDIO, KEY_FRAME, LEGACY_AAC, LEGACY_AVC};
use crate::frame::{AccessUnit, Audio, AudioTrack, Ticks};
use crate::timeline::{MAX_COMPOSITION, Unwrap};
use crate::{aac, h264};

/// After this many damaged tags in a row the source is given up.
pub const MAX_BAD_TAGS: u32 = 8;

/// Time stamps of RTMP have 32 bits, but ffmpeg wraps them at 31: reading them as 31 bits covers both.
const STAMP_BITS: u32 = 31;

/// The reason why a source cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// A codec that is not carried.
    #[error("codec {0} is not supported")]
    Codec(Cow<'static, str>),
    /// [`MAX_BAD_TAGS`] damaged tags in a row, or as many bad SPS as [`h264::MAX_BAD_SPS`].
    #[error("too many damaged tags, the last one: {0}")]
    Hopeless(Damaged),
}

/// The news in a tag of video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Video {
    /// Parameter sets for the next key frame.
    Config,
    /// A picture in the source's time.
    Unit(AccessUnit),
    /// The tag was dropped.
    Dropped(Damaged),
}

/// The news in a tag of audio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sound {
    /// The format of the frames that follow.
    Config(AudioTrack),
    /// A frame of sound in the source's time.
    Frame(Audio),
    /// The tag was dropped.
    Dropped(Damaged),
}

/// Frames from the tags of one source.
///
/// Stamps of both tracks are unwrapped together, since they come from one clock. Those of configurations and of end tags
/// never count: with an offset source, ffmpeg sends its configurations at zero, and an end tag with an old stamp.
#[derive(Debug)]
pub struct Reader {
    stamps: Unwrap,
    video: h264::Stream,
    audio: Option<AudioTrack>,
    bad_tags: u32,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            stamps: Unwrap::new(STAMP_BITS),
            video: h264::Stream::default(),
            audio: None,
            bad_tags: 0,
        }
    }
}

impl Reader {
    /// Takes the body of a video tag. `None`: nothing of interest.
    ///
    /// # Errors
    /// If the source cannot go on.
    pub fn video(&mut self, stamp: u32, body: Bytes) -> Result<Option<Video>, Refused> {
        let read = self.read_video(stamp, body);
        self.judge(read, Video::Dropped)
    }

    /// Takes the body of an audio tag. `None`: nothing of interest.
    ///
    /// # Errors
    /// If the source cannot go on.
    pub fn audio(&mut self, stamp: u32, body: Bytes) -> Result<Option<Sound>, Refused> {
        let read = self.read_audio(stamp, body);
        self.judge(read, Sound::Dropped)
    }

    /// Counts damaged tags in a row.
    fn judge<T>(
        &mut self,
        read: Result<Option<T>, Fault>,
        dropped: fn(Damaged) -> T,
    ) -> Result<Option<T>, Refused> {
        match read {
            Ok(found) => {
                if found.is_some() {
                    self.bad_tags = 0;
                }
                Ok(found)
            }
            Err(Fault::Refused(refused)) => Err(refused),
            Err(Fault::Damaged(damaged)) => {
                self.bad_tags += 1;
                if self.bad_tags >= MAX_BAD_TAGS || self.video.is_hopeless() {
                    return Err(Refused::Hopeless(damaged));
                }
                Ok(Some(dropped(damaged)))
            }
        }
    }

    fn read_video(&mut self, stamp: u32, mut body: Bytes) -> Result<Option<Video>, Fault> {
        // An empty message stands for a pause of the track.
        let Ok(first) = body.try_get_u8() else {
            return Ok(None);
        };
        let frame_type = first >> 4 & 7;
        if frame_type == COMMAND_FRAME {
            return Ok(None);
        }
        let (kind, mut body) = if first & 0x80 == 0 {
            if first & 0xf != LEGACY_AVC {
                return Err(Refused::Codec(legacy_video(first & 0xf)).into());
            }
            // 0: configuration, 1: picture, 2: end; the composition time is there in all of them.
            let kind = body.try_get_u8().map_err(Damaged::from)?;
            if kind != CODED_FRAMES {
                take(&mut body, 3)?;
            }
            (kind, body)
        } else {
            let Some(packet) = Packet::read(Medium::Video, first & 0xf, body)? else {
                return Ok(None);
            };
            let is_content = matches!(packet.kind, SEQUENCE_START | CODED_FRAMES | CODED_FRAMES_X);
            if is_content && packet.codec != FourCc::AVC {
                return Err(Refused::Codec(packet.codec.name().into()).into());
            }
            (packet.kind, packet.body)
        };
        match kind {
            SEQUENCE_START => {
                self.video.configure(&body).map_err(Damaged::from)?;
                Ok(Some(Video::Config))
            }
            CODED_FRAMES => {
                let time = take(&mut body, 3)?;
                let time = i32::from_be_bytes([time[0], time[1], time[2], 0]) >> 8;
                self.picture(stamp, time, frame_type, &body)
            }
            CODED_FRAMES_X => self.picture(stamp, 0, frame_type, &body),
            _ => Ok(None),
        }
    }

    fn picture(
        &mut self,
        stamp: u32,
        composition: i32,
        frame_type: u8,
        unit: &[u8],
    ) -> Result<Option<Video>, Fault> {
        if unit.is_empty() {
            return Ok(None);
        }
        let Some(picture) = self.video.length_prefixed(unit).map_err(Damaged::from)? else {
            return Ok(None);
        };
        let dts = self.time(stamp);
        // A picture that is shown before it is decoded is nonsense, and 10 s are more than any encoder reorders.
        let composition = Ticks::from_millis(composition.into());
        let composition = composition.clamp(Ticks::ZERO, MAX_COMPOSITION);
        Ok(Some(Video::Unit(AccessUnit {
            pts: dts + composition,
            dts,
            // Either alone is not enough: some senders mark every recovery point as a key frame.
            key: picture.key && frame_type == KEY_FRAME,
            data: picture.data,
        })))
    }

    fn read_audio(&mut self, stamp: u32, mut body: Bytes) -> Result<Option<Sound>, Fault> {
        let Ok(first) = body.try_get_u8() else {
            return Ok(None);
        };
        let (kind, codec, body) = match first >> 4 {
            LEGACY_AAC => {
                let kind = body.try_get_u8().map_err(Damaged::from)?;
                (kind, FourCc::AAC, body)
            }
            ENHANCED_AUDIO => match Packet::read(Medium::Audio, first & 0xf, body)? {
                Some(packet) => (packet.kind, packet.codec, packet.body),
                None => return Ok(None),
            },
            other => return Err(Refused::Codec(legacy_audio(other)).into()),
        };
        match (kind, codec) {
            (SEQUENCE_START, FourCc::AAC) => {
                let Some(config) = aac::Config::read(&body) else {
                    return Err(bad_aac(&body));
                };
                Ok(Some(self.configured(AudioTrack::Aac(config))))
            }
            (SEQUENCE_START, FourCc::OPUS) => {
                let channels = opus_channels(&body)?;
                Ok(Some(self.configured(AudioTrack::Opus { channels })))
            }
            (CODED_FRAMES, FourCc::AAC | FourCc::OPUS) => {
                if body.is_empty() {
                    return Ok(None);
                }
                let track = match (self.audio, codec) {
                    (Some(track @ AudioTrack::Aac(_)), FourCc::AAC) => track,
                    (Some(track @ AudioTrack::Opus { .. }), FourCc::OPUS) => track,
                    // Every packet of Opus says how many channels it has, and decoders of two take both.
                    (_, FourCc::OPUS) => AudioTrack::Opus { channels: 2 },
                    _ => return Err(Damaged::Sound.into()),
                };
                if track.duration(&body).is_none() {
                    return Err(Damaged::Sound.into());
                }
                Ok(Some(Sound::Frame(Audio {
                    pts: self.time(stamp),
                    track,
                    data: body,
                })))
            }
            (SEQUENCE_START | CODED_FRAMES, other) => {
                Err(Refused::Codec(other.name().into()).into())
            }
            _ => Ok(None),
        }
    }

    const fn configured(&mut self, track: AudioTrack) -> Sound {
        self.audio = Some(track);
        Sound::Config(track)
    }

    fn time(&mut self, stamp: u32) -> Ticks {
        Ticks::from_millis(self.stamps.next(stamp.into()))
    }
}

/// The fault of a tag: it is dropped, or the source cannot go on.
enum Fault {
    Damaged(Damaged),
    Refused(Refused),
}

impl From<Damaged> for Fault {
    fn from(damaged: Damaged) -> Self {
        Self::Damaged(damaged)
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// The channels that an identification header of Opus names (RFC 7845, 5.1).
fn opus_channels(head: &[u8]) -> Result<u8, Fault> {
    let channels = head.strip_prefix(b"OpusHead").and_then(|rest| rest.get(1));
    match channels {
        Some(channels @ 1..=2) => Ok(*channels),
        Some(channels) => {
            Err(Refused::Codec(format!("Opus with {channels} channels").into()).into())
        }
        None => Err(Damaged::Sound.into()),
    }
}

/// A configuration of AAC that is not AAC-LC is refused by its number; one that is cut off is dropped.
fn bad_aac(config: &[u8]) -> Fault {
    match config {
        [first, _, ..] if first >> 3 != 2 => {
            Refused::Codec(format!("mp4a.40.{}", first >> 3).into()).into()
        }
        [_, _, ..] => Refused::Codec("mp4a.40.2 of unknown rate or channels".into()).into(),
        _ => Damaged::Sound.into(),
    }
}

fn legacy_video(codec: u8) -> Cow<'static, str> {
    match codec {
        2 => "Sorenson H.263".into(),
        3 | 6 => "Screen Video".into(),
        4 | 5 => "VP6".into(),
        12 => "hvc1".into(),
        13 => "av01".into(),
        other => format!("number {other} of video").into(),
    }
}

fn legacy_audio(codec: u8) -> Cow<'static, str> {
    match codec {
        0 | 3 => "PCM".into(),
        1 => "ADPCM".into(),
        2 | 14 => "MP3".into(),
        4..=6 => "Nellymoser".into(),
        7 | 8 => "G.711".into(),
        11 => "Speex".into(),
        other => format!("number {other} of audio").into(),
    }
}
