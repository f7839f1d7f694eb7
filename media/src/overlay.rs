//! Draws the time of an MPEG-TS stream into its pictures, without a codec.
//!
//! The third pipeline of the development network: what comes out can be seen to have gone through it. Every packet of the
//! input stays where it is, but for the counters of the video's. After each picture follows another, which shows it with a
//! clock at the top left: see [`Drawing`] for how, and for what it costs. A stream in which nothing can be drawn passes as it
//! is.

use bytes::{Bytes, BytesMut};

use crate::demux::{Demux, Event};
use crate::frame::{AccessUnit, Ticks};
use crate::h264::{BLOCK, Block, Drawing};
use crate::mux;
use crate::ts::{PACKET, SYNC};

/// How long the picture without the clock is shown: as short as stamps of a millisecond can say.
const AFTER: Ticks = Ticks::from_millis(2);
/// Brightness and colours of the clock and of the box behind it.
const INK: u8 = 235;
const PAPER: u8 = 32;
const COLOURS: [u8; 2] = [110, 160];

/// Rows of eight pixels, from the left: the digits, a colon and a point.
const GLYPHS: [[u8; 8]; 12] = [
    [0x3c, 0x66, 0x6e, 0x7e, 0x76, 0x66, 0x3c, 0x00],
    [0x18, 0x38, 0x18, 0x18, 0x18, 0x18, 0x7e, 0x00],
    [0x3c, 0x66, 0x06, 0x0c, 0x18, 0x30, 0x7e, 0x00],
    [0x3c, 0x66, 0x06, 0x1c, 0x06, 0x66, 0x3c, 0x00],
    [0x0c, 0x1c, 0x3c, 0x6c, 0x7e, 0x0c, 0x0c, 0x00],
    [0x7e, 0x60, 0x7c, 0x06, 0x06, 0x66, 0x3c, 0x00],
    [0x1c, 0x30, 0x60, 0x7c, 0x66, 0x66, 0x3c, 0x00],
    [0x7e, 0x06, 0x0c, 0x18, 0x30, 0x30, 0x30, 0x00],
    [0x3c, 0x66, 0x66, 0x3c, 0x66, 0x66, 0x3c, 0x00],
    [0x3c, 0x66, 0x66, 0x3e, 0x06, 0x0c, 0x38, 0x00],
    [0x00, 0x18, 0x18, 0x00, 0x18, 0x18, 0x00, 0x00],
    [0x00, 0x00, 0x00, 0x00, 0x00, 0x18, 0x18, 0x00],
];
const COLON: usize = 10;
const POINT: usize = 11;

/// Draws into one stream. See the [module](self).
#[derive(Debug)]
pub struct Overlay {
    demux: Demux,
    drawing: Drawing,
    /// Bytes that are not a whole packet yet.
    buffer: BytesMut,
    /// The counter of the video's packets.
    counter: u8,
    /// When the first picture is shown: the clock begins there.
    first: Option<Ticks>,
}

impl Default for Overlay {
    fn default() -> Self {
        Self::new()
    }
}

impl Overlay {
    /// An overlay for a stream from its beginning on.
    #[must_use]
    pub fn new() -> Self {
        Self {
            demux: Demux::new(),
            drawing: Drawing::default(),
            buffer: BytesMut::new(),
            counter: 0,
            first: None,
        }
    }

    /// Takes the next bytes; returns them, as far as they are whole packets, and what is drawn.
    pub fn push(&mut self, data: &[u8]) -> Bytes {
        self.buffer.extend_from_slice(data);
        let mut out = BytesMut::with_capacity(2 * data.len());
        while !self.buffer.is_empty() {
            if self.buffer[0] != SYNC {
                let junk = self.buffer.iter().position(|byte| *byte == SYNC);
                let junk = junk.unwrap_or(self.buffer.len());
                out.extend_from_slice(&self.buffer.split_to(junk));
            } else if self.buffer.len() < PACKET {
                break;
            } else {
                let packet = self.buffer.split_to(PACKET);
                self.packet(packet, &mut out);
            }
        }
        out.freeze()
    }

    /// The segment, or the stream, is complete: what remains of it.
    pub fn finish(&mut self) -> Bytes {
        let mut out = self.buffer.split();
        self.demux.finish();
        self.draw(&mut out);
        out.freeze()
    }

    fn packet(&mut self, mut packet: BytesMut, out: &mut BytesMut) {
        let pid = u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2]);
        let is_video = self.demux.video_pid() == Some(pid);
        if is_video && packet[1] & 0x40 != 0 {
            // A picture that does not say where it ends does so here.
            self.demux.idle();
            self.draw(out);
        }
        // What cannot be read passes.
        let _ = self.demux.push(&packet);
        if is_video {
            // A packet without payload repeats the counter of the one before.
            let has_payload = packet[3] & 0x10 != 0;
            let counter = self.counter.wrapping_sub(u8::from(!has_payload)) & 0xf;
            packet[3] = packet[3] & 0xf0 | counter;
            self.counter = (counter + 1) & 0xf;
        }
        out.extend_from_slice(&packet);
        self.draw(out);
    }

    /// Writes a picture after each that is whole.
    fn draw(&mut self, out: &mut BytesMut) {
        while let Some(event) = self.demux.next_event() {
            let (Event::Video(unit), Some(pid)) = (event, self.demux.video_pid()) else {
                continue;
            };
            let since = unit.pts - *self.first.get_or_insert(unit.pts);
            let drawn = self
                .drawing
                .after(&unit.data, |(wide, high)| clock(since, wide, high));
            if let Some(data) = drawn {
                let unit = AccessUnit {
                    pts: unit.pts + AFTER,
                    dts: unit.dts + AFTER,
                    key: false,
                    data,
                };
                mux::picture(out, pid, &mut self.counter, &unit);
            }
        }
    }
}

/// The blocks of a clock with minutes, seconds and tenths, where there is room for it.
fn clock(since: Ticks, wide: u32, high: u32) -> Vec<(u32, Block)> {
    let tenths = (since.0.max(0) / (Ticks::SECOND.0 / 10)) as usize; // a stream is shorter than its range
    let (minutes, seconds) = (tenths / 600 % 100, tenths / 10 % 60);
    let glyphs = [
        minutes / 10,
        minutes % 10,
        COLON,
        seconds / 10,
        seconds % 10,
        POINT,
        tenths % 10,
    ];
    let first = wide + 1;
    if wide < glyphs.len() as u32 + 2 || high < 3 {
        return Vec::new();
    }
    (first..).zip(glyphs.map(block)).collect()
}

/// A glyph in a macroblock, each of its pixels twice as wide and high.
fn block(glyph: usize) -> Block {
    let mut block = [0; BLOCK];
    let (bright, colours) = block.split_at_mut(256);
    for (at, sample) in bright.iter_mut().enumerate() {
        let (row, column) = (at / 16 / 2, at % 16 / 2);
        let is_ink = GLYPHS[glyph][row] >> (7 - column) & 1 == 1;
        *sample = if is_ink { INK } else { PAPER };
    }
    for (colour, samples) in COLOURS.into_iter().zip(colours.chunks_mut(64)) {
        samples.fill(colour);
    }
    block
}

#[cfg(test)]
mod tests;
