//! Shifts every time stamp of an MPEG-TS stream, and nothing else.
//!
//! Shifting is the second pipeline of the development network: its output is a valid stream that is not its input.
//! PTS and DTS, PCR and OPCR, ESCR and the DTS of a seamless splice move by the same offset, modulo 2^33 ticks;
//! the 27 MHz extensions of the clocks stay, since the offset is in ticks of 90 kHz. No stamp changes its width,
//! so packets keep their places and their number. The picture stays as it is; [`overlay`](crate::overlay) is what draws
//! over it.
//!
//! Bytes go in as they come and leave as soon as they are final: a PES header that does not end in its first
//! packet holds back what follows until the rest came, at most [`MAX_HELD`] bytes. Bytes outside of packets pass
//! unchanged, and so does what is scrambled.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::clock::STAMP_MASK;
use crate::ts::{PACKET, SYNC, find_packets};

/// A PES header that needs more than this is left as it is.
pub const MAX_HELD: usize = 1 << 20;

/// The bytes up to the end of the time stamps: nine, then PTS, DTS, ESCR.
const MAX_PES_FIELDS: usize = 9 + 5 + 5 + 6;

/// Shifts one stream. See the [module](self).
#[derive(Debug)]
pub struct Retimer {
    offset: u64,
    /// Bytes that have not left yet.
    buffer: BytesMut,
    /// Where the next packet starts in it.
    next: usize,
    /// Bytes of a PES header that has not ended, by PID: where they are.
    headers: BTreeMap<u16, Vec<usize>>,
}

impl Retimer {
    /// Shifts by `offset` ticks of 90 kHz, forward or back.
    pub fn new(offset: i64) -> Self {
        Self {
            offset: offset as u64 & STAMP_MASK, // two's complement: back is forward modulo 2^33
            buffer: BytesMut::new(),
            next: 0,
            headers: BTreeMap::new(),
        }
    }

    /// Takes the next bytes; returns those that are final, possibly none.
    pub fn push(&mut self, data: &[u8]) -> Bytes {
        self.buffer.extend_from_slice(data);
        while self.buffer.len() - self.next >= PACKET {
            if self.buffer[self.next] != SYNC && !self.skip_junk() {
                break;
            }
            if self.buffer.len() - self.next >= PACKET {
                self.packet(self.next);
                self.next += PACKET;
            }
        }
        if self.next - self.held() > MAX_HELD {
            self.headers.clear();
        }
        let held = self.held();
        self.release(held)
    }

    /// The stream is complete: the rest of it.
    pub fn finish(&mut self) -> Bytes {
        self.headers.clear();
        let all = self.buffer.len();
        self.next = all;
        self.release(all)
    }

    /// The place of the first byte that may still change.
    fn held(&self) -> usize {
        self.headers
            .values()
            .filter_map(|at| at.first().copied())
            .min()
            .unwrap_or(self.next)
    }

    fn release(&mut self, bytes: usize) -> Bytes {
        self.next -= bytes;
        for at in self.headers.values_mut().flatten() {
            *at -= bytes;
        }
        self.buffer.split_to(bytes).freeze()
    }

    /// Steps to the next sync byte that another one follows; whether there was one.
    fn skip_junk(&mut self) -> bool {
        let rest = &self.buffer[self.next..];
        let Some(last) = rest.len().checked_sub(PACKET + 1) else {
            return false;
        };
        match find_packets(rest, last, 2) {
            Some(skip) => self.next += skip,
            None => {
                self.next += last + 1;
                return false;
            }
        }
        true
    }

    fn packet(&mut self, at: usize) {
        let header: [u8; 6] = self.buffer[at..at + 6]
            .try_into()
            .expect("a packet has six bytes");
        let pid = u16::from(header[1] & 0x1f) << 8 | u16::from(header[2]);
        let starts = header[1] & 0x40 != 0;
        let clear = header[3] & 0xc0 == 0;
        let payload = match header[3] >> 4 & 3 {
            1 => 4,
            2 | 3 => {
                let length = usize::from(header[4]);
                if 5 + length > PACKET {
                    return;
                }
                if length > 0 {
                    self.adaptation(at + 5, at + 5 + length);
                }
                5 + length
            }
            _ => PACKET,
        };
        if !clear || payload >= PACKET || header[3] & 0x10 == 0 {
            return;
        }
        if starts {
            self.headers.insert(pid, Vec::new());
        }
        if let Some(mut places) = self.headers.remove(&pid) {
            let room = MAX_PES_FIELDS - places.len();
            places.extend((at + payload..at + PACKET).take(room));
            if !self.pes(&places) {
                self.headers.insert(pid, places);
            }
        }
    }

    /// Shifts the clocks of an adaptation field, which lies in `at..end` without its length.
    fn adaptation(&mut self, at: usize, end: usize) {
        let flags = self.buffer[at];
        let mut field = at + 1;
        for flag in [0x10, 0x08] {
            if flags & flag != 0 {
                if field + 6 > end {
                    return;
                }
                self.clock_reference(field);
                field += 6;
            }
        }
        if flags & 0x04 != 0 {
            field += 1;
        }
        if flags & 0x02 != 0 {
            if field >= end {
                return;
            }
            field += 1 + usize::from(self.buffer[field]);
        }
        if flags & 0x01 == 0 || field + 2 > end {
            return;
        }
        // The extension: length, flags, then legal time window, piecewise rate and seamless splice.
        let extension_end = field + 1 + usize::from(self.buffer[field]);
        let flags = self.buffer[field + 1];
        field += 2;
        if flags & 0x80 != 0 {
            field += 2;
        }
        if flags & 0x40 != 0 {
            field += 3;
        }
        if flags & 0x20 != 0 && field + 5 <= extension_end.min(end) {
            self.stamp(core::array::from_fn(|i| field + i));
        }
    }

    /// Shifts the stamps of a PES header whose bytes are at `places`; whether no more of it is needed.
    fn pes(&mut self, places: &[usize]) -> bool {
        let byte = |i: usize| places.get(i).map(|at| self.buffer[*at]);
        for (i, expected) in [0, 0, 1].into_iter().enumerate() {
            match byte(i) {
                Some(found) if found == expected => {}
                // Not PES: a section, or nothing we know.
                Some(_) => return true,
                None => return false,
            }
        }
        match byte(3) {
            // Stream ids whose packets have no further header (ISO 13818-1, 2.4.3.7).
            Some(0xbc | 0xbe | 0xbf | 0xf0 | 0xf1 | 0xf2 | 0xf8 | 0xff) => return true,
            Some(_) => {}
            None => return false,
        }
        let (Some(marker), Some(flags), Some(length)) = (byte(6), byte(7), byte(8)) else {
            return false;
        };
        if marker & 0xc0 != 0x80 {
            return true;
        }
        let stamps = match flags >> 6 {
            2 => 1,
            3 => 2,
            _ => 0,
        };
        let escr = flags & 0x20 != 0;
        let needed = 5 * stamps + 6 * usize::from(escr);
        if needed > usize::from(length) {
            return true;
        }
        if places.len() < 9 + needed {
            return false;
        }
        for stamp in 0..stamps {
            self.stamp(core::array::from_fn(|i| places[9 + 5 * stamp + i]));
        }
        if escr {
            self.elementary_clock(core::array::from_fn(|i| places[9 + 5 * stamps + i]));
        }
        true
    }

    const fn shift(&self, stamp: u64) -> u64 {
        (stamp + self.offset) & STAMP_MASK
    }

    /// PTS and DTS: 4 bits, then 3, 15 and 15 bits of stamp, each with a marker bit after it.
    fn stamp(&mut self, places: [usize; 5]) {
        let b = places.map(|at| self.buffer[at]);
        let stamp = u64::from(b[0] >> 1 & 7) << 30
            | u64::from(b[1]) << 22
            | u64::from(b[2] >> 1) << 15
            | u64::from(b[3]) << 7
            | u64::from(b[4] >> 1);
        let stamp = self.shift(stamp);
        let shifted = [
            b[0] & 0xf1 | ((stamp >> 30) as u8 & 7) << 1,
            (stamp >> 22) as u8,
            ((stamp >> 15) as u8) << 1 | b[2] & 1,
            (stamp >> 7) as u8,
            (stamp as u8) << 1 | b[4] & 1,
        ];
        for (at, byte) in places.into_iter().zip(shifted) {
            self.buffer[at] = byte;
        }
    }

    /// PCR and OPCR: 33 bits, 6 reserved bits, 9 bits of extension.
    fn clock_reference(&mut self, at: usize) {
        let b = &mut self.buffer[at..at + 5];
        let base = u64::from(b[0]) << 25
            | u64::from(b[1]) << 17
            | u64::from(b[2]) << 9
            | u64::from(b[3]) << 1
            | u64::from(b[4] >> 7);
        let base = (base + self.offset) & STAMP_MASK;
        b[0] = (base >> 25) as u8;
        b[1] = (base >> 17) as u8;
        b[2] = (base >> 9) as u8;
        b[3] = (base >> 1) as u8;
        b[4] = (base as u8) << 7 | b[4] & 0x7f;
    }

    /// ESCR: 2 reserved bits, 3, 15 and 15 bits of base and 9 of extension, each with a marker bit after it.
    fn elementary_clock(&mut self, places: [usize; 6]) {
        let b = places.map(|at| self.buffer[at]);
        let base = u64::from(b[0] >> 3 & 7) << 30
            | u64::from(b[0] & 3) << 28
            | u64::from(b[1]) << 20
            | u64::from(b[2] >> 3) << 15
            | u64::from(b[2] & 3) << 13
            | u64::from(b[3]) << 5
            | u64::from(b[4] >> 3);
        let base = self.shift(base);
        let shifted = [
            b[0] & 0xc4 | ((base >> 30) as u8 & 7) << 3 | (base >> 28) as u8 & 3,
            (base >> 20) as u8,
            b[2] & 0x04 | ((base >> 15) as u8 & 0x1f) << 3 | (base >> 13) as u8 & 3,
            (base >> 5) as u8,
            b[4] & 0x07 | (base as u8 & 0x1f) << 3,
            b[5],
        ];
        for (at, byte) in places.into_iter().zip(shifted) {
            self.buffer[at] = byte;
        }
    }
}

#[cfg(test)]
mod tests;
