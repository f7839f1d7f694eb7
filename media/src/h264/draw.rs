//! Drawing over the pictures of a stream without decoding or encoding any of them.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::sps::{Bits, Order, Slices, Sps};
use super::{IDR, PPS, SLICE, SPS, START_CODE, nal_type, nals};

/// The samples of a macroblock: sixteen rows of sixteen of brightness, then eight of eight of each colour.
pub type Block = [u8; BLOCK];
/// The number of samples in a [`Block`].
pub const BLOCK: usize = 256 + 64 + 64;

/// The highest number of a picture parameter set.
const MAX_SET: u32 = 255;
/// A predicted slice, as all of the picture are.
const PREDICTED: u32 = 5;
/// A macroblock of such a slice whose samples follow.
const SAMPLES: u32 = 5 + 25;

/// Draws over the pictures of one stream without a codec.
///
/// A picture that is predicted from the one before may say of a macroblock that it is the same as there, in a fraction of a
/// bit, or give its samples as they are. So a picture which shows the last one with something drawn over it needs no codec:
///
/// ```text
///   stream    I     P     P     P          every bit of it stays
///   drawn       p'    p'    p'    p'       the same picture with blocks over it; nothing refers to it
/// ```
/// The drawn picture follows at once, and is what is seen until the next one comes. Nothing is predicted from it, so the
/// stream goes on as if it were not there, and what was drawn leaves no trace. The price: twice as many pictures, and 384
/// bytes for each block. A level in which the stream just fits is exceeded by the number of pictures.
///
/// The drawn pictures have a picture parameter set of their own, which says how they are coded: so it does not matter how the
/// stream is. Pictures after which one cannot be drawn: those that none may refer to, fields, other formats than 4:2:0 with
/// eight bits, and those whose order is told by rules or leaves no place between two.
#[derive(Debug, Default)]
pub struct Drawing {
    sequences: BTreeMap<u32, Slices>,
    /// The sequence parameter set of each picture parameter set.
    pictures: BTreeMap<u32, u32>,
    /// The last number that tells the order.
    order: Option<u32>,
    /// The order has no place between two pictures.
    crowded: bool,
}

/// The beginning of a slice that another picture may refer to.
struct Head {
    slices: Slices,
    number: u32,
    order: Option<u32>,
}

impl Drawing {
    /// Takes the next picture in decoding order. Returns one to be shown after it, on which `draw` has drawn: it is given the
    /// macroblocks in a row and the rows, and returns blocks with their places, counted row by row from the top left.
    pub fn after(
        &mut self,
        unit: &[u8],
        draw: impl FnOnce((u32, u32)) -> Vec<(u32, Block)>,
    ) -> Option<Bytes> {
        let mut head = None;
        for nal in nals(unit) {
            match nal_type(nal) {
                SPS => {
                    if let Ok(Sps { slices, .. }) = Sps::read(nal) {
                        self.sequences.insert(slices.set, slices);
                        (self.order, self.crowded) = (None, false);
                    }
                }
                PPS => self.learn(nal),
                SLICE | IDR if head.is_none() => head = Some(self.head(nal)?),
                _ => {}
            }
        }
        let Head {
            slices,
            number,
            order,
        } = head?;
        if let Some(order) = order {
            let last = self.order.replace(order);
            self.crowded |= last.is_some_and(|last| (order ^ last) & 1 == 1);
        }
        if self.crowded {
            return None;
        }
        let mut blocks = draw(slices.size);
        blocks.sort_by_key(|(place, _)| *place);
        blocks.dedup_by_key(|(place, _)| *place);
        let set = (0..=MAX_SET).rfind(|set| !self.pictures.contains_key(set))?;
        let mut out = BytesMut::with_capacity(64 + blocks.len() * (BLOCK + 4));
        put_nal(&mut out, 0x60 | PPS, &parameters(set, slices.set));
        put_nal(
            &mut out,
            SLICE,
            &slice(set, &slices, number, order, &blocks),
        );
        Some(out.freeze())
    }

    fn learn(&mut self, nal: &[u8]) {
        let mut bits = Bits::new(&nal[1..]);
        if let (Ok(picture), Ok(sequence)) = (bits.number(MAX_SET), bits.number(31)) {
            self.pictures.insert(picture, sequence);
        }
    }

    /// Reads the beginning of a slice; `None` if no picture can be drawn after it.
    fn head(&self, nal: &[u8]) -> Option<Head> {
        let is_referred_to = nal[0] & 0x60 != 0;
        let mut bits = Bits::new(&nal[1..]);
        let _first_block = bits.number(u32::MAX - 1).ok()?;
        let _kind = bits.number(9).ok()?;
        let sequence = self.pictures.get(&bits.number(MAX_SET).ok()?)?;
        let slices = *self.sequences.get(sequence)?;
        if !is_referred_to || !slices.plain {
            return None;
        }
        let number = bits.bits(slices.number_bits).ok()?;
        if nal_type(nal) == IDR {
            bits.number(u32::MAX - 1).ok()?;
        }
        let order = match slices.order {
            Order::Counted(count) => Some(bits.bits(count).ok()?),
            Order::Decoded => None,
            Order::Ruled => return None,
        };
        Some(Head {
            slices,
            number,
            order,
        })
    }
}

/// The picture parameter set of drawn pictures.
fn parameters(set: u32, sequence: u32) -> Vec<u8> {
    let mut bits = Writer::default();
    bits.number(set);
    bits.number(sequence);
    bits.bits(0, 1); // codes of variable length
    bits.bits(0, 1); // one order for both fields
    bits.number(0); // one group of slices
    bits.number(0); // one picture that is referred to
    bits.number(0);
    bits.bits(0, 1 + 2); // no weights
    (0..3).for_each(|_| bits.number(0)); // quantisers: as they come
    bits.bits(1, 1); // slices say whether edges are smoothed
    bits.bits(0, 1 + 1);
    bits.finish()
}

/// Writes the only slice of a picture that is the last one, but for `blocks`.
fn slice(
    set: u32,
    slices: &Slices,
    number: u32,
    order: Option<u32>,
    blocks: &[(u32, Block)],
) -> Vec<u8> {
    let mut bits = Writer::default();
    bits.number(0); // from the first macroblock on
    bits.number(PREDICTED);
    bits.number(set);
    bits.bits(number.wrapping_add(1), slices.number_bits);
    if let (Order::Counted(count), Some(order)) = (slices.order, order) {
        bits.bits(order.wrapping_add(1), count);
    }
    bits.bits(0, 1 + 1); // refers to the latest picture
    bits.number(0); // the quantiser as it is
    bits.number(1); // no edges are smoothed
    let all = slices.size.0 * slices.size.1;
    let mut next = 0;
    for (place, block) in blocks.iter().filter(|(place, _)| *place < all) {
        bits.number(place - next);
        bits.number(SAMPLES);
        bits.align();
        bits.bytes.extend_from_slice(block);
        next = place + 1;
    }
    if next < all {
        bits.number(all - next);
    }
    bits.finish()
}

/// Writes bits from the top of each byte down.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    /// The bits of the last byte that are free.
    free: u32,
}

impl Writer {
    /// The lower `count` bits of a number.
    fn bits(&mut self, number: u32, count: u32) {
        for bit in (0..count).rev() {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            self.free -= 1;
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((number >> bit & 1) as u8) << self.free;
            }
        }
    }

    /// An exp-Golomb number, below 2^31.
    fn number(&mut self, number: u32) {
        let length = 32 - (number + 1).leading_zeros();
        self.bits(0, length - 1);
        self.bits(number + 1, length);
    }

    /// Zeros up to the next byte.
    fn align(&mut self) {
        self.free = 0;
    }

    /// The bytes, after the bit that ends all of them.
    fn finish(mut self) -> Vec<u8> {
        self.bits(1, 1);
        self.bytes
    }
}

/// A NAL unit behind a start code, with bytes that prevent others in it.
fn put_nal(out: &mut BytesMut, head: u8, payload: &[u8]) {
    out.put_slice(&START_CODE);
    out.put_u8(head);
    let mut zeros = 0;
    for byte in payload {
        if zeros >= 2 && *byte <= 3 {
            out.put_u8(3);
            zeros = 0;
        }
        out.put_u8(*byte);
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
    }
}
