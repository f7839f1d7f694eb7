//! Frames to tags.

use bytes::{BufMut, Bytes, BytesMut};

use super::enhanced::{CODED_FRAMES, FourCc, SEQUENCE_START};
use super::{ENHANCED_AUDIO, INTER_FRAME, KEY_FRAME, LEGACY_AAC, LEGACY_AVC};
use crate::frame::{AccessUnit, Audio, AudioTrack, Ticks};
use crate::h264::{self, PPS, SPS};
use crate::timeline::Kind;

/// Sound format, rate, size and channels of AAC, whose configuration says the truth of the latter three.
const AAC: u8 = LEGACY_AAC << 4 | 0xf;

/// A tag without its header: what a message of RTMP holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The track.
    pub kind: Kind,
    /// Milliseconds since the first frame, modulo 2^32.
    pub stamp: u32,
    /// Whether decoding can begin with this tag or with the picture that follows it: a configuration or a key frame.
    pub key: bool,
    /// The content.
    pub body: Bytes,
}

/// Tags from frames, for one connection: a configuration comes before the first frame of each track and wherever it
/// changes, the first picture is a key frame, and time begins at zero.
#[derive(Debug, Default)]
pub struct Writer {
    origin: Option<Ticks>,
    video: Option<Bytes>,
    audio: Option<AudioTrack>,
}

impl Writer {
    /// The tags of a picture; none before the first key frame that has parameter sets.
    pub fn video(&mut self, unit: &AccessUnit) -> impl Iterator<Item = Tag> + use<> {
        let config = unit.key.then(|| configuration(&unit.data)).flatten();
        let config = config.filter(|config| self.video.as_ref() != Some(config));
        if let Some(config) = &config {
            self.video = Some(config.clone());
        }
        let stamp = self.stamp(unit.dts);
        let head = |kind, frame_type: u8| [frame_type << 4 | LEGACY_AVC, kind];
        let config = config.map(|config| {
            let mut body = BytesMut::with_capacity(5 + config.len());
            body.put_slice(&head(SEQUENCE_START, KEY_FRAME));
            body.put_bytes(0, 3);
            body.put_slice(&config);
            Tag {
                kind: Kind::Video,
                stamp,
                key: true,
                body: body.freeze(),
            }
        });
        let picture = self.video.is_some().then(|| {
            let frame_type = if unit.key { KEY_FRAME } else { INTER_FRAME };
            let mut body = BytesMut::with_capacity(5 + unit.data.len());
            body.put_slice(&head(CODED_FRAMES, frame_type));
            let composition = millis(unit.pts) - millis(unit.dts);
            body.put_int(composition.clamp(0, 0x7f_ffff), 3);
            for nal in h264::nals(&unit.data) {
                // Those of a key frame are in the configuration.
                if !(unit.key && matches!(h264::nal_type(nal), SPS | PPS)) {
                    body.put_uint(nal.len() as u64, 4);
                    body.put_slice(nal);
                }
            }
            Tag {
                kind: Kind::Video,
                stamp,
                key: unit.key,
                body: body.freeze(),
            }
        });
        [config, picture].into_iter().flatten()
    }

    /// The tags of a frame of sound: AAC in the legacy form, Opus as Enhanced RTMP has it.
    pub fn audio(&mut self, audio: &Audio) -> impl Iterator<Item = Tag> + use<> {
        let is_new = self.audio != Some(audio.track);
        self.audio = Some(audio.track);
        let stamp = self.stamp(audio.pts);
        let tag = |kind, content: &[u8]| {
            let mut body = BytesMut::with_capacity(5 + content.len());
            match audio.track {
                AudioTrack::Aac(_) => body.put_slice(&[AAC, kind]),
                AudioTrack::Opus { .. } => {
                    body.put_u8(ENHANCED_AUDIO << 4 | kind);
                    body.put_slice(&FourCc::OPUS.0);
                }
            }
            body.put_slice(content);
            Tag {
                kind: Kind::Audio,
                stamp,
                key: kind == SEQUENCE_START,
                body: body.freeze(),
            }
        };
        let config = is_new.then(|| match audio.track {
            AudioTrack::Aac(config) => tag(SEQUENCE_START, &config.write()),
            AudioTrack::Opus { channels } => tag(SEQUENCE_START, &opus_head(channels)),
        });
        [config, Some(tag(CODED_FRAMES, &audio.data))]
            .into_iter()
            .flatten()
    }

    /// Milliseconds since the first frame; what lies before it begins with it.
    fn stamp(&mut self, at: Ticks) -> u32 {
        let origin = *self.origin.get_or_insert(at);
        (millis(at) - millis(origin)).max(0) as u32 // modulo 2^32, as the wire has it
    }
}

const fn millis(at: Ticks) -> i64 {
    at.0.div_euclid(90)
}

/// The decoder configuration (`avcC`) that the parameter sets in an access unit make; `None` if one kind is missing.
fn configuration(annex_b: &[u8]) -> Option<Bytes> {
    let of = |kind: u8, most: usize| {
        let sets = h264::nals(annex_b).filter(move |nal| h264::nal_type(nal) == kind);
        sets.take(most).collect::<Vec<_>>()
    };
    let (sequence, picture) = (of(SPS, 31), of(PPS, 255));
    let profile = sequence.first()?.get(1..4)?;
    if picture.is_empty() {
        return None;
    }
    let mut config = BytesMut::new();
    config.put_u8(1);
    config.put_slice(profile);
    config.put_u8(0xff); // lengths of four bytes
    let mut put = |head: u8, sets: &[&[u8]]| {
        config.put_u8(head | sets.len() as u8); // within what was taken
        for set in sets {
            config.put_u16(u16::try_from(set.len()).ok()?);
            config.put_slice(set);
        }
        Some(())
    };
    put(0xe0, &sequence)?;
    put(0, &picture)?;
    Some(config.freeze())
}

/// An identification header of Opus (RFC 7845, 5.1), as ffmpeg writes it.
fn opus_head(channels: u8) -> [u8; 19] {
    let mut head = *b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00";
    head[9] = channels;
    head
}
