//! The head of a tag of Enhanced RTMP: extensions, tracks, the codec.

use bytes::{Buf, Bytes};

use super::damaged::Damaged;

/// Extensions before a tag's content, at most.
pub const MAX_MOD_EX: usize = 8;

/// Packet types that video and audio share.
pub(super) const SEQUENCE_START: u8 = 0;
/// Frames; of video, with a composition time.
pub(super) const CODED_FRAMES: u8 = 1;
/// Frames of video whose composition time is zero.
pub(super) const CODED_FRAMES_X: u8 = 3;
const MULTITRACK: u8 = 6;
const MULTITRACK_AUDIO: u8 = 5;
const MOD_EX: u8 = 7;

/// How the tracks of a tag follow each other.
const ONE_TRACK: u8 = 0;
const MANY_CODECS: u8 = 2;

/// A four-letter code of a codec.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FourCc(pub(super) [u8; 4]);

impl FourCc {
    pub(super) const AVC: Self = Self(*b"avc1");
    pub(super) const AAC: Self = Self(*b"mp4a");
    pub(super) const OPUS: Self = Self(*b"Opus");

    /// The code as text; as a number where it is none.
    pub(super) fn name(self) -> String {
        let text = str::from_utf8(&self.0).ok();
        let plain = |text: &&str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        text.filter(plain).map_or_else(
            || format!("{:08x}", u32::from_be_bytes(self.0)),
            str::to_owned,
        )
    }
}

/// The content of a tag of Enhanced RTMP for track 0.
pub(super) struct Packet {
    pub(super) kind: u8,
    pub(super) codec: FourCc,
    pub(super) body: Bytes,
}

/// The two numberings of packets; a tag follows one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Medium {
    Video,
    Audio,
}

impl Packet {
    /// Reads what follows a tag's first byte, whose low bits are `kind`. `None`: nothing for track 0.
    pub(super) fn read(
        medium: Medium,
        mut kind: u8,
        mut body: Bytes,
    ) -> Result<Option<Self>, Damaged> {
        let mut extensions = 0;
        while kind == MOD_EX {
            extensions += 1;
            if extensions > MAX_MOD_EX {
                return Err(Damaged::TooManyExtensions);
            }
            let mut size = usize::from(body.try_get_u8()?) + 1;
            if size == 256 {
                size = usize::from(body.try_get_u16()?) + 1;
            }
            take(&mut body, size)?;
            kind = body.try_get_u8()? & 0xf;
        }
        let multitrack = match medium {
            Medium::Video => MULTITRACK,
            Medium::Audio => MULTITRACK_AUDIO,
        };
        if kind != multitrack {
            let codec = code(&mut body)?;
            return Ok(Some(Self { kind, codec, body }));
        }
        let head = body.try_get_u8()?;
        let (layout, kind) = (head >> 4, head & 0xf);
        if kind == multitrack || kind == MOD_EX {
            return Err(Damaged::Nested);
        }
        let shared = (layout != MANY_CODECS)
            .then(|| code(&mut body))
            .transpose()?;
        while body.has_remaining() {
            let codec = shared.map_or_else(|| code(&mut body), Ok)?;
            let track = body.try_get_u8()?;
            let size = if layout == ONE_TRACK {
                body.len()
            } else {
                let size = take(&mut body, 3)?;
                usize::from(size[0]) << 16 | usize::from(size[1]) << 8 | usize::from(size[2])
            };
            let content = take(&mut body, size)?;
            if track == 0 {
                return Ok(Some(Self {
                    kind,
                    codec,
                    body: content,
                }));
            }
        }
        Ok(None)
    }
}

fn code(body: &mut Bytes) -> Result<FourCc, Damaged> {
    Ok(FourCc(body.try_get_u32()?.to_be_bytes()))
}

/// The next `count` bytes, shared and not copied.
pub(super) fn take(body: &mut Bytes, count: usize) -> Result<Bytes, Damaged> {
    (count <= body.len())
        .then(|| body.split_to(count))
        .ok_or(Damaged::CutOff)
}
