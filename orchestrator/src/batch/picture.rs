//! Pictures that show a hash: eight by eight fields in four colours, as PNG.
//!
//! Two bits for each pixel, and deflate without compression: a picture of 1024 by 1024 takes 256 KiB, and the writer
//! needs no library.

use bytes::Bytes;

/// Fields in a row, and rows of fields.
const FIELDS: usize = 8;

/// The most bytes that a stored block of deflate holds.
const BLOCK: usize = 65_535;

/// A hash as a picture: the first 16 bytes are the fields, two bits each and row by row; the next 12 are the colours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picture {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) hash: [u8; 32],
}

impl Picture {
    /// The picture as PNG.
    pub(super) fn png(&self) -> Bytes {
        let mut file = Png::begin(self);
        file.chunk(b"IDAT", &zlib(&self.raster(0)));
        file.end()
    }

    /// A film of the picture, whose fields move a column to the left with each frame, as animated PNG.
    pub(super) fn film(&self, frames: u32, per_second: u16) -> Bytes {
        let mut file = Png::begin(self);
        file.chunk(b"acTL", &[frames.to_be_bytes(), [0; 4]].concat());
        let mut seq = 0_u32;
        let mut next = || {
            seq += 1;
            (seq - 1).to_be_bytes()
        };
        for frame in 0..frames {
            let mut control =
                [next(), self.width.to_be_bytes(), self.height.to_be_bytes()].concat();
            // At the upper left corner, for one frame's time, over what was.
            control.extend([0; 8]);
            control.extend(1_u16.to_be_bytes());
            control.extend(per_second.to_be_bytes());
            control.extend([0; 2]);
            file.chunk(b"fcTL", &control);
            let data = zlib(&self.raster(frame as usize));
            if frame == 0 {
                file.chunk(b"IDAT", &data);
            } else {
                file.chunk(b"fdAT", &[&next()[..], &data].concat());
            }
        }
        file.end()
    }

    /// The rows of the picture as PNG has them, moved to the left by some fields.
    fn raster(&self, moved: usize) -> Vec<u8> {
        let (width, height) = (self.width as usize, self.height as usize);
        let stride = width.div_ceil(4);
        let mut raster = Vec::with_capacity((stride + 1) * height);
        let mut row = vec![0; stride + 1];
        let mut of = None;
        for y in 0..height {
            let field_row = y * FIELDS / height;
            if of != Some(field_row) {
                of = Some(field_row);
                row.fill(0);
                for x in 0..width {
                    let column = (x * FIELDS / width + moved) % FIELDS;
                    row[1 + x / 4] |= self.field(field_row, column) << (6 - 2 * (x % 4));
                }
            }
            raster.extend_from_slice(&row);
        }
        raster
    }

    /// The colour of a field: 0 to 3.
    const fn field(&self, row: usize, column: usize) -> u8 {
        let at = row * FIELDS + column;
        (self.hash[at / 4] >> (6 - 2 * (at % 4))) & 3
    }

    /// Four colours, each of another brightness so that they can be told apart.
    fn palette(&self) -> Vec<u8> {
        self.hash[16..28]
            .iter()
            .enumerate()
            .map(|(n, byte)| (n / 3 * 64) as u8 + byte / 4)
            .collect()
    }
}

/// The width and height of a PNG file.
pub(super) fn size(file: &[u8]) -> Option<(u32, u32)> {
    let head = file.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR")?;
    let side = |at: usize| Some(u32::from_be_bytes(head.get(at..at + 4)?.try_into().ok()?));
    Some((side(0)?, side(4)?))
}

/// A PNG file that is being written.
struct Png(Vec<u8>);

impl Png {
    fn begin(picture: &Picture) -> Self {
        let mut file = Self(b"\x89PNG\r\n\x1a\n".to_vec());
        let mut head = [picture.width.to_be_bytes(), picture.height.to_be_bytes()].concat();
        // Two bits for each pixel, from a palette.
        head.extend([2, 3, 0, 0, 0]);
        file.chunk(b"IHDR", &head);
        file.chunk(b"PLTE", &picture.palette());
        file
    }

    fn chunk(&mut self, kind: &[u8; 4], data: &[u8]) {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.0.extend(length.to_be_bytes());
        let from = self.0.len();
        self.0.extend_from_slice(kind);
        self.0.extend_from_slice(data);
        let check = crc32(&self.0[from..]);
        self.0.extend(check.to_be_bytes());
    }

    fn end(mut self) -> Bytes {
        self.chunk(b"IEND", &[]);
        self.0.into()
    }
}

/// Bytes as a zlib stream that compresses nothing.
fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let mut blocks = bytes.chunks(BLOCK).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        stream.push(u8::from(blocks.peek().is_none()));
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend_from_slice(block);
    }
    stream.extend(adler32(bytes).to_be_bytes());
    stream
}

/// The check sum of zlib.
fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    /// After this many bytes the sums have to be reduced, lest they overflow.
    const RUN: usize = 5_552;
    let (mut a, mut b) = (1_u32, 0_u32);
    for run in bytes.chunks(RUN) {
        for byte in run {
            a += u32::from(*byte);
            b += a;
        }
        a %= MODULUS;
        b %= MODULUS;
    }
    b << 16 | a
}

/// The check sum of PNG, of the bits of each byte from the lowest on.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            let mut rest = n as u32;
            let mut bit = 0;
            while bit < 8 {
                rest = if rest & 1 == 1 {
                    0xedb8_8320 ^ (rest >> 1)
                } else {
                    rest >> 1
                };
                bit += 1;
            }
            table[n] = rest;
            n += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |sum: u32, byte| {
        TABLE[usize::from(sum as u8 ^ byte)] ^ (sum >> 8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_sums_are_those_of_png_and_zlib() {
        assert_eq!(crc32(b"IEND"), 0xae42_6082);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
        // Long enough that the sums are reduced on the way.
        assert_eq!(adler32(&[255; 100_000]), adler32(&vec![255; 100_000]));
    }

    #[test]
    fn a_picture_has_its_size_and_shows_its_hash() {
        let hash = std::array::from_fn(|n| n as u8 * 7);
        let picture = Picture {
            width: 16,
            height: 8,
            hash,
        };
        let png = picture.png();
        assert_eq!(png[16..24], [0, 0, 0, 16, 0, 0, 0, 8]);
        // A row of fields is two bytes of the hash; a field is two pixels wide and one high.
        let raster = picture.raster(0);
        for (row, pixels) in raster.chunks(5).enumerate() {
            let fields = (0..16)
                .step_by(2)
                .map(|x| pixels[1 + x / 4] >> (6 - 2 * (x % 4)) & 3);
            let bits = fields.fold(0_u16, |bits, field| bits << 2 | u16::from(field));
            assert_eq!(bits.to_be_bytes(), hash[2 * row..][..2]);
        }
    }

    #[test]
    fn sizes_that_divide_nothing_evenly_still_fill_their_rows() {
        for (width, height) in [(1, 1), (3, 5), (13, 7), (130, 2)] {
            let picture = Picture {
                width,
                height,
                hash: [0x1b; 32],
            };
            let stride = (width as usize).div_ceil(4) + 1;
            assert_eq!(picture.raster(3).len(), stride * height as usize);
        }
    }
}
