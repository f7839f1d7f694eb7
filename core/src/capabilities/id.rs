//! Capabilities by their ids, and their names.

use core::fmt;

/// At most this many words are accepted from peers: 4,096 ids, of which the protocol uses 38.
pub const MAX_WORDS: usize = 64;

/// A capability of a node, by the number that the protocol gives it (handshake spec 5.1).
#[doc(alias = "CapabilityId")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u16);

impl Capability {
    /// Sessions carry an auth token; every job of today asks for it.
    pub const AUTH_TOKEN: Self = Self(12);
    /// A picture from a text.
    pub const TEXT_TO_IMAGE: Self = Self(27);
    /// A picture from a picture.
    pub const IMAGE_TO_IMAGE: Self = Self(28);
    /// A clip from a picture.
    pub const IMAGE_TO_VIDEO: Self = Self(29);
    /// A larger picture.
    pub const UPSCALE: Self = Self(30);
    /// A transcript.
    pub const AUDIO_TO_TEXT: Self = Self(31);
    /// Masks of the things in a picture.
    pub const SEGMENT_ANYTHING_2: Self = Self(32);
    /// A language model.
    pub const LLM: Self = Self(33);
    /// A description of a picture.
    pub const IMAGE_TO_TEXT: Self = Self(34);
    /// A video stream from a video stream, while it runs.
    pub const LIVE_VIDEO_TO_VIDEO: Self = Self(35);
    /// Spoken text.
    pub const TEXT_TO_SPEECH: Self = Self(36);
    /// A container that the operator brought. Never a bit: nodes show it through prices alone.
    pub const BYOC: Self = Self(37);

    /// Ids from here on are nobody's: a bit string that held them would be longer than we take.
    pub const LIMIT: u32 = 64 * MAX_WORDS as u32;

    /// The capability of that id, if it is below [`Capability::LIMIT`]; whether it has a name is another matter.
    #[must_use]
    pub const fn new(id: u32) -> Option<Self> {
        if id < Self::LIMIT {
            Some(Self(id as u16))
        } else {
            None
        }
    }

    /// The number.
    #[must_use]
    pub const fn id(self) -> u32 {
        self.0 as u32
    }

    /// The display name, if the id has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.entry().map(|entry| entry.name)
    }

    /// The name in `slug/model`, as nodes and signers write it.
    #[must_use]
    pub fn slug(self) -> Option<&'static str> {
        self.entry().map(|entry| entry.slug)
    }

    /// The name in `slug/model`, as the python client writes it. It knows no BYOC.
    #[must_use]
    pub fn client_slug(self) -> Option<&'static str> {
        let entry = self.entry()?;
        (self != Self::BYOC).then_some(if entry.client_slug.is_empty() {
            entry.slug
        } else {
            entry.client_slug
        })
    }

    /// Reads a pipeline or capability name: a display name or either slug. Case does not matter, and a blank is as
    /// good as a hyphen; nothing is trimmed.
    ///
    /// The Go gateway folds only the first letter, and so cannot read `byoc`, `gop` or `hevc-decode`; it also reads
    /// its two pseudo ids, `invalid` and `unused`. We read all the names and none of those.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|entry| {
                same(entry.name, name)
                    || same(entry.slug, name)
                    || (!entry.client_slug.is_empty() && same(entry.client_slug, name))
            })
            .map(|entry| Self(entry.id))
    }

    /// All capabilities with a name, by rising id.
    pub fn named() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|entry| Self(entry.id))
    }

    fn entry(self) -> Option<&'static Entry> {
        NAMES
            .binary_search_by_key(&self.0, |entry| entry.id)
            .ok()
            .map(|at| &NAMES[at])
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "capability {}", self.0),
        }
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Equal but for case and for blanks in the place of hyphens.
fn same(have: &str, asked: &str) -> bool {
    let fold = |b: u8| match b {
        b' ' => b'-',
        b => b.to_ascii_lowercase(),
    };
    have.len() == asked.len()
        && have
            .bytes()
            .zip(asked.bytes())
            .all(|(a, b)| fold(a) == fold(b))
}

struct Entry {
    id: u16,
    name: &'static str,
    slug: &'static str,
    /// Empty where it is the same.
    client_slug: &'static str,
}

const fn entry(id: u16, name: &'static str, slug: &'static str) -> Entry {
    Entry {
        id,
        name,
        slug,
        client_slug: "",
    }
}

const fn two(id: u16, name: &'static str, slug: &'static str, client_slug: &'static str) -> Entry {
    Entry {
        id,
        name,
        slug,
        client_slug,
    }
}

/// The names of capabilities, by rising id. 13 was scene classification and is retired.
static NAMES: [Entry; 37] = [
    two(0, "H.264", "h.264", "h264"),
    entry(1, "MPEGTS", "mpegts"),
    entry(2, "MP4", "mp4"),
    entry(3, "Fractional framerates", "fractional-framerates"),
    entry(4, "Storage direct", "storage-direct"),
    entry(5, "Storage S3", "storage-s3"),
    entry(6, "Storage GCS", "storage-gcs"),
    entry(7, "H264 Baseline profile", "h264-baseline-profile"),
    entry(8, "H264 Main profile", "h264-main-profile"),
    entry(9, "H264 High profile", "h264-high-profile"),
    two(
        10,
        "H264 Constrained, Contained High profile",
        "h264-constrained,-contained-high-profile",
        "h264-constrained-contained-high-profile",
    ),
    entry(11, "GOP", "gop"),
    entry(12, "Auth token", "auth-token"),
    entry(14, "MPEG7 signature", "mpeg7-signature"),
    entry(15, "HEVC decode", "hevc-decode"),
    entry(16, "HEVC encode", "hevc-encode"),
    entry(17, "VP8 decode", "vp8-decode"),
    entry(18, "VP9 decode", "vp9-decode"),
    entry(19, "VP8 encode", "vp8-encode"),
    entry(20, "VP9 encode", "vp9-encode"),
    two(
        21,
        "H264 Decode YUV444 8-bit",
        "h264-decode-yuv444-8-bit",
        "h264-decode-yuv444-8bit",
    ),
    two(
        22,
        "H264 Decode YUV422 8-bit",
        "h264-decode-yuv422-8-bit",
        "h264-decode-yuv422-8bit",
    ),
    two(
        23,
        "H264 Decode YUV444 10-bit",
        "h264-decode-yuv444-10-bit",
        "h264-decode-yuv444-10bit",
    ),
    two(
        24,
        "H264 Decode YUV422 10-bit",
        "h264-decode-yuv422-10-bit",
        "h264-decode-yuv422-10bit",
    ),
    two(
        25,
        "H264 Decode YUV420 10-bit",
        "h264-decode-yuv420-10-bit",
        "h264-decode-yuv420-10bit",
    ),
    entry(26, "Segment slicing", "segment-slicing"),
    entry(27, "Text to image", "text-to-image"),
    entry(28, "Image to image", "image-to-image"),
    entry(29, "Image to video", "image-to-video"),
    entry(30, "Upscale", "upscale"),
    entry(31, "Audio to text", "audio-to-text"),
    entry(32, "Segment anything 2", "segment-anything-2"),
    entry(33, "Llm", "llm"),
    entry(34, "Image to text", "image-to-text"),
    entry(35, "Live video to video", "live-video-to-video"),
    entry(36, "Text to speech", "text-to-speech"),
    entry(37, "byoc", "byoc"),
];
