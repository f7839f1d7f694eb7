//! Whether a frame is one that a decoder can start with, from the start codes of its bitstream.
//!
//! Most muxers say so in the packet (`random_access_indicator`); this is for the ones that do not.

/// A bitstream that the scan understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// H.264: a frame is a key frame if its first slice is of an IDR picture.
    H264,
    /// H.265: likewise, any intra random access picture.
    H265,
    /// MPEG-1 and MPEG-2: a sequence or group header comes before the picture.
    Mpeg2,
    /// Video whose start codes we do not know; only the packet can say.
    Unknown,
}

/// Frames that hide their first slice behind more than this are taken for ordinary ones.
const MAX_SCANNED: usize = 64 << 10;

/// Looks for the first slice of one frame, whose bytes come in pieces.
#[derive(Debug)]
pub(crate) struct Scan {
    codec: Codec,
    /// The last three bytes, newest lowest.
    window: u32,
    seen: usize,
}

impl Scan {
    pub(crate) const fn new(codec: Codec) -> Self {
        Self {
            codec,
            // Not a start code, whatever follows.
            window: 0x00ff_ffff,
            seen: 0,
        }
    }

    /// Takes the next bytes of the frame; the answer, once it is known.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<bool> {
        if self.codec == Codec::Unknown {
            return Some(false);
        }
        for byte in bytes {
            if self.window == 1
                && let Some(answer) = self.start_code(*byte)
            {
                return Some(answer);
            }
            self.window = (self.window << 8 | u32::from(*byte)) & 0x00ff_ffff;
        }
        self.seen += bytes.len();
        (self.seen > MAX_SCANNED).then_some(false)
    }

    const fn start_code(&self, code: u8) -> Option<bool> {
        match self.codec {
            Codec::H264 => match code & 0x1f {
                5 => Some(true),
                1..=4 => Some(false),
                _ => None,
            },
            Codec::H265 => match (code >> 1) & 0x3f {
                16..=23 => Some(true),
                0..=31 => Some(false),
                _ => None,
            },
            Codec::Mpeg2 => match code {
                0xb3 | 0xb8 => Some(true),
                0 => Some(false),
                _ => None,
            },
            Codec::Unknown => Some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(codec: Codec, bytes: &[u8]) -> Option<bool> {
        let whole = Scan::new(codec).feed(bytes);
        let mut piecewise = Scan::new(codec);
        let by_byte = bytes
            .iter()
            .find_map(|byte| piecewise.feed(core::slice::from_ref(byte)));
        assert_eq!(whole, by_byte, "pieces change nothing");
        whole
    }

    #[test]
    fn the_first_slice_decides() {
        let idr = [
            0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 1, 0x65, 9,
        ];
        assert_eq!(scan(Codec::H264, &idr), Some(true));
        assert_eq!(
            scan(Codec::H264, &[0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x41, 7]),
            Some(false)
        );
        assert_eq!(scan(Codec::H264, &idr[..16]), None);
        assert_eq!(
            scan(Codec::H265, &[0, 0, 1, 0x40, 1, 0, 0, 1, 19 << 1, 1]),
            Some(true)
        );
        assert_eq!(scan(Codec::H265, &[0, 0, 1, 1 << 1, 1]), Some(false));
        assert_eq!(scan(Codec::Mpeg2, &[0, 0, 1, 0xb3]), Some(true));
        assert_eq!(scan(Codec::Mpeg2, &[0, 0, 1, 0]), Some(false));
        assert_eq!(scan(Codec::Unknown, &idr), Some(false));
    }

    #[test]
    fn a_frame_without_slices_is_given_up() {
        assert_eq!(scan(Codec::H264, &[7; MAX_SCANNED]), None);
        let mut endless = Scan::new(Codec::H264);
        assert_eq!(endless.feed(&[7; MAX_SCANNED + 1]), Some(false));
    }
}
