//! The sequence parameter set of H.264: picture size and how far pictures are reordered (ITU-T H.264, 7.3.2.1.1 and E.1.1).

/// Pixels that a side of a picture has at most.
pub const MAX_SIDE: u32 = 8192;
/// Pixels that a picture has at most.
pub const MAX_PIXELS: u64 = 36_000_000;
/// Pictures that may be held back to be shown in order, at most.
pub const MAX_REORDER: u32 = 16;

/// The reason why a sequence parameter set is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSps {
    /// The end comes too early, or a number is out of range.
    #[error("it cannot be read")]
    Unreadable,
    /// A side of more than [`MAX_SIDE`], or more than [`MAX_PIXELS`].
    #[error("a picture of {width}x{height}")]
    TooLarge {
        /// The width that was asked for.
        width: u64,
        /// The height that was asked for.
        height: u64,
    },
}

/// A sequence parameter set, as far as it is of use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sps {
    /// The profile.
    pub profile: u8,
    /// The bits that constrain the profile.
    pub constraints: u8,
    /// The level, times ten.
    pub level: u8,
    /// The width in pixels, after cropping.
    pub width: u32,
    /// The height in pixels, after cropping.
    pub height: u32,
    /// Pictures that come before another which is shown earlier, at most; 0 if the stream does not say.
    pub reorder: u32,
    /// How the slices of its pictures are written.
    pub(super) slices: Slices,
}

/// Everything that has to be known to read the beginning of a slice, and to write one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slices {
    /// The number of the set.
    pub(super) set: u32,
    /// The bits of a picture's number.
    pub(super) number_bits: u32,
    pub(super) order: Order,
    /// Macroblocks in a row, and rows.
    pub(super) size: (u32, u32),
    /// Whether pictures are whole frames of eight bits, with half as much colour each way.
    pub(super) plain: bool,
}

/// How the order in which pictures are shown is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// By a number of so many bits in each slice.
    Counted(u32),
    /// By rules that few use.
    Ruled,
    /// Pictures are shown in the order in which they are decoded.
    Decoded,
}

impl Sps {
    /// The first sequence parameter set of an access unit in Annex B, if it can be read.
    #[must_use]
    pub fn of(unit: &[u8]) -> Option<Self> {
        let nal = super::nals(unit).find(|nal| super::nal_type(nal) == super::SPS);
        nal.and_then(|nal| Self::read(nal).ok())
    }

    /// Reads the NAL unit of a sequence parameter set.
    ///
    /// # Errors
    /// If it cannot be read, or its picture is too large.
    pub fn read(nal: &[u8]) -> Result<Self, BadSps> {
        let mut bits = Bits::new(nal.get(1..).unwrap_or(&[]));
        parse(&mut bits)
    }
}

fn parse(bits: &mut Bits<'_>) -> Result<Sps, BadSps> {
    let (profile, constraints, level) = (bits.byte()?, bits.byte()?, bits.byte()?);
    let set = bits.number(31)?;
    let mut chroma = 1;
    let mut plain = true;
    if matches!(
        profile,
        100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
    ) {
        chroma = bits.number(3)?;
        if chroma == 3 {
            bits.skip(1)?; // planes of their own
        }
        let deeper = bits.number(6)? + bits.number(6)?;
        plain = chroma == 1 && deeper == 0;
        bits.skip(1)?;
        if bits.flag()? {
            scaling_lists(bits, if chroma == 3 { 12 } else { 8 })?;
        }
    }
    let number_bits = bits.number(12)? + 4;
    let order = match bits.number(2)? {
        0 => Order::Counted(bits.number(12)? + 4),
        1 => {
            bits.skip(1)?;
            bits.signed()?;
            bits.signed()?;
            for _ in 0..bits.number(255)? {
                bits.signed()?;
            }
            Order::Ruled
        }
        _ => Order::Decoded,
    };
    bits.number(16)?;
    bits.skip(1)?;
    let wide = u64::from(bits.number(u32::MAX - 1)?) + 1;
    let high = u64::from(bits.number(u32::MAX - 1)?) + 1;
    let frames_only = bits.flag()?;
    let fields = if frames_only { 1 } else { 2 };
    if !frames_only {
        bits.skip(1)?;
    }
    bits.skip(1)?;
    let (mut width, mut height) = (wide * 16, high * 16 * fields);
    // Decoders make room for the picture before it is cropped.
    let most = u64::from(MAX_SIDE);
    if width > most || height > most || width * height > MAX_PIXELS {
        return Err(BadSps::TooLarge { width, height });
    }
    if bits.flag()? {
        let (unit_x, unit_y) = match chroma {
            1 => (2, 2 * fields),
            2 => (2, fields),
            _ => (1, fields),
        };
        let mut edges = [0; 4];
        for edge in &mut edges {
            *edge = u64::from(bits.number(MAX_SIDE)?);
        }
        let [left, right, top, bottom] = edges;
        width = width.saturating_sub((left + right) * unit_x);
        height = height.saturating_sub((top + bottom) * unit_y);
    }
    if width == 0 || height == 0 {
        return Err(BadSps::Unreadable);
    }
    Ok(Sps {
        profile,
        constraints,
        level,
        width: width as u32,   // at most MAX_SIDE
        height: height as u32, // likewise
        // Encoders that say nothing, or break off here, do not reorder.
        reorder: reorder(bits).ok().flatten().unwrap_or(0),
        slices: Slices {
            set,
            number_bits,
            order,
            size: (wide as u32, high as u32), // both below MAX_SIDE
            plain: plain && frames_only,
        },
    })
}

fn scaling_lists(bits: &mut Bits<'_>, lists: u32) -> Result<(), BadSps> {
    for list in 0..lists {
        if !bits.flag()? {
            continue;
        }
        let (mut last, mut next) = (8_i64, 8_i64);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = (last + i64::from(bits.signed()?)).rem_euclid(256);
            }
            if next != 0 {
                last = next;
            }
        }
    }
    Ok(())
}

/// The number of reordered pictures in the usability information, if it is there.
fn reorder(bits: &mut Bits<'_>) -> Result<Option<u32>, BadSps> {
    if !bits.flag()? {
        return Ok(None);
    }
    if bits.flag()? && bits.byte()? == 255 {
        bits.skip(32)?; // the aspect ratio in words
    }
    if bits.flag()? {
        bits.skip(1)?; // overscan
    }
    if bits.flag()? {
        bits.skip(4)?; // video format and range
        if bits.flag()? {
            bits.skip(24)?; // colours
        }
    }
    if bits.flag()? {
        bits.number(5)?; // where chroma samples lie
        bits.number(5)?;
    }
    if bits.flag()? {
        bits.skip(32 + 32 + 1)?; // the clock of pictures
    }
    let nal = bits.flag()?;
    if nal {
        buffer_model(bits)?;
    }
    let vcl = bits.flag()?;
    if vcl {
        buffer_model(bits)?;
    }
    if nal || vcl {
        bits.skip(1)?;
    }
    bits.skip(1)?;
    if !bits.flag()? {
        return Ok(None);
    }
    bits.skip(1)?;
    for _ in 0..4 {
        bits.number(16)?;
    }
    Ok(Some(bits.number(MAX_REORDER)?))
}

fn buffer_model(bits: &mut Bits<'_>) -> Result<(), BadSps> {
    let buffers = bits.number(31)?;
    bits.skip(8)?;
    for _ in 0..=buffers {
        bits.number(u32::MAX - 1)?;
        bits.number(u32::MAX - 1)?;
        bits.skip(1)?;
    }
    bits.skip(20)
}

/// The exp-Golomb number at the beginning of `payload`: the number of a parameter set.
pub(super) fn first_number(payload: &[u8]) -> Option<u32> {
    Bits::new(payload).number(255).ok()
}

/// The number of the sequence parameter set that a picture parameter set, without its head, belongs to.
pub(super) fn second_number(payload: &[u8]) -> Option<u32> {
    let mut bits = Bits::new(payload);
    bits.number(255).ok()?;
    bits.number(31).ok()
}

/// Bits of a NAL unit; the bytes that prevent start codes are passed over.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The bit of the byte that comes next, from the top.
    bit: u32,
    zeros: u32,
}

impl<'a> Bits<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            bit: 0,
            zeros: 0,
        }
    }

    fn flag(&mut self) -> Result<bool, BadSps> {
        if self.bit == 0 && self.zeros >= 2 && self.bytes.get(self.at) == Some(&3) {
            self.at += 1;
            self.zeros = 0;
        }
        let byte = *self.bytes.get(self.at).ok_or(BadSps::Unreadable)?;
        let flag = byte >> (7 - self.bit) & 1 == 1;
        self.bit += 1;
        if self.bit == 8 {
            self.bit = 0;
            self.at += 1;
            self.zeros = if byte == 0 { self.zeros + 1 } else { 0 };
        }
        Ok(flag)
    }

    fn skip(&mut self, bits: u32) -> Result<(), BadSps> {
        (0..bits).try_for_each(|_| self.flag().map(drop))
    }

    fn byte(&mut self) -> Result<u8, BadSps> {
        (0..8).try_fold(0, |byte, _| Ok(byte << 1 | u8::from(self.flag()?)))
    }

    /// An unsigned exp-Golomb number of at most `most`.
    pub(super) fn number(&mut self, most: u32) -> Result<u32, BadSps> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 32 {
                return Err(BadSps::Unreadable);
            }
        }
        let mut number = 1_u64;
        for _ in 0..zeros {
            number = number << 1 | u64::from(self.flag()?);
        }
        u32::try_from(number - 1)
            .ok()
            .filter(|number| *number <= most)
            .ok_or(BadSps::Unreadable)
    }

    /// A number of that many bits, at most 32.
    pub(super) fn bits(&mut self, count: u32) -> Result<u32, BadSps> {
        (0..count).try_fold(0, |number, _| Ok(number << 1 | u32::from(self.flag()?)))
    }

    fn signed(&mut self) -> Result<i32, BadSps> {
        let number = i64::from(self.number(u32::MAX - 1)?);
        let signed = if number & 1 == 1 {
            number / 2 + 1
        } else {
            -(number / 2)
        };
        i32::try_from(signed).map_err(|_| BadSps::Unreadable)
    }
}
