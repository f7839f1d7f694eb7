//! Frames to MPEG-TS, as models read it soonest.
//!
//! ```text
//!   tables    PAT PMT                                  first in each segment, and after 500 ms without
//!   picture   │PCR, random access│PES: length, PTS (DTS)│AUD│access unit│stuffing│     PID 0x100
//!   sound     │random access│PES: length, PTS│Opus control header, or ADTS│frame│stuffing│          PID 0x101
//! ```
//!
//! A video PES says how long it is wherever 16 bits can say it. A demuxer then hands the picture on with its last byte;
//! without, only when the next one begins, which costs a frame of delay, twice in a reader made of a demuxer and a
//! parser. There is one multiplexer for a job: its counters run on over segments, sources and orchestrators.
//!
//! The tracks never change. Models do not notice a track that is added later, and wait seconds for one that is announced
//! and does not come. So decide with the first key frame, and once sound is announced fill its gaps with silence.

use bytes::{BufMut, Bytes, BytesMut};
use mpeg2ts_reader::mpegts_crc;

use crate::frame::{AccessUnit, Audio, AudioTrack, Ticks};
use crate::opus;
use crate::ts::{PACKET, SYNC};

/// The PID of the program map table.
pub const PMT_PID: u16 = 0x1000;
/// The PID of video and of the clock reference.
pub const VIDEO_PID: u16 = 0x100;
/// The PID of sound.
pub const AUDIO_PID: u16 = 0x101;
/// Tables are repeated after so much media time without them.
pub const TABLES_EVERY: Ticks = Ticks::from_millis(500);
/// The clock reference is so much before the decoding time.
pub const CLOCK_LEAD: Ticks = Ticks::from_millis(100);
/// The standard wants a clock reference this often.
pub const CLOCK_EVERY: Ticks = Ticks::from_millis(100);
/// Bytes of the tables.
pub const TABLES: usize = 2 * PACKET;

const VIDEO_STREAM_ID: u8 = 0xe0;
const AAC_STREAM_ID: u8 = 0xc0;
const PRIVATE_STREAM_ID: u8 = 0xbd;
const DELIMITER: [u8; 6] = [0, 0, 0, 1, 9, 0xf0];
/// The flag of an adaptation field for a packet that decoding can start with.
const RANDOM_ACCESS: u8 = 0x40;
/// Bytes of a PES header before those that it counts itself.
const PES_HEAD: usize = 9;

/// The program association table: program 1 is at [`PMT_PID`].
const PAT: [u8; 12] = [0x00, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1, 0xf0, 0x00];

/// The multiplexer of one job. See the [module](self).
#[derive(Debug)]
pub struct Mux {
    audio: Option<AudioTrack>,
    pmt: Bytes,
    /// Continuity counters of PAT, PMT, video and sound.
    counters: [u8; 4],
    /// Media time when the tables were written last, once there was a frame after them.
    tables_at: Option<Ticks>,
    /// The last clock reference.
    clock: Option<Ticks>,
}

/// The streams that packets belong to; each number is a place among the counters.
#[derive(Clone, Copy)]
enum Pid {
    Pat,
    Pmt,
    Video,
    Audio,
}

impl Pid {
    const fn number(self) -> u16 {
        match self {
            Self::Pat => 0,
            Self::Pmt => PMT_PID,
            Self::Video => VIDEO_PID,
            Self::Audio => AUDIO_PID,
        }
    }
}

impl Mux {
    /// A multiplexer of H.264 and, if it surely comes, sound of that format.
    #[must_use]
    pub fn new(audio: Option<AudioTrack>) -> Self {
        Self {
            audio,
            pmt: pmt(audio),
            counters: [0; 4],
            tables_at: None,
            clock: None,
        }
    }

    /// The sound that was announced.
    #[must_use]
    pub const fn audio_track(&self) -> Option<AudioTrack> {
        self.audio
    }

    /// The tables: the beginning of each segment, and a sign of life where there are no frames.
    pub fn tables(&mut self) -> Bytes {
        let mut out = BytesMut::with_capacity(TABLES);
        self.put_tables(&mut out);
        out.freeze()
    }

    /// The packets of a picture, after tables if they are due.
    pub fn video(&mut self, unit: &AccessUnit) -> Bytes {
        let (pts, dts) = (unit.pts.max(unit.dts), unit.dts);
        let content = DELIMITER.len() + unit.data.len();
        let mut out = BytesMut::with_capacity(room(content));
        self.repeat_tables(&mut out, dts);
        // Never back: a clock that was kept going while no picture came may be a little ahead.
        let clock = (dts - CLOCK_LEAD).max(self.clock.unwrap_or(Ticks(i64::MIN)));
        self.clock = Some(clock);
        let adaptation = clock_reference(clock, unit.key);
        let mut head = BytesMut::with_capacity(PES_HEAD + 10);
        let stamps = (pts, (pts != dts).then_some(dts));
        pes_head(&mut head, VIDEO_STREAM_ID, stamps, content);
        self.packets(
            &mut out,
            Pid::Video,
            &adaptation,
            [&head, &DELIMITER, &unit.data],
        );
        out.freeze()
    }

    /// The packets of a frame of sound, after tables if they are due. Nothing if it is not of the announced format, is
    /// empty, or is too long for its header.
    pub fn audio(&mut self, audio: &Audio) -> Bytes {
        let mut control = BytesMut::new();
        let stream_id = match audio.track {
            _ if self.audio != Some(audio.track) || audio.data.is_empty() => return Bytes::new(),
            AudioTrack::Opus { .. } => {
                if audio.data.len() > opus::MAX_PACKET {
                    return Bytes::new();
                }
                control.put_slice(&[0x7f, 0xe0]);
                control.put_bytes(0xff, audio.data.len() / 255);
                control.put_u8((audio.data.len() % 255) as u8); // below 255
                PRIVATE_STREAM_ID
            }
            AudioTrack::Aac(config) => {
                let Some(adts) = config.adts(audio.data.len()) else {
                    return Bytes::new();
                };
                control.put_slice(&adts);
                AAC_STREAM_ID
            }
        };
        let content = control.len() + audio.data.len();
        let mut out = BytesMut::with_capacity(room(content));
        self.repeat_tables(&mut out, audio.pts);
        let mut head = BytesMut::with_capacity(PES_HEAD + 5);
        pes_head(&mut head, stream_id, (audio.pts, None), content);
        // Each frame of sound can be decoded alone.
        self.packets(
            &mut out,
            Pid::Audio,
            &[RANDOM_ACCESS],
            [&head, &control, &audio.data],
        );
        out.freeze()
    }

    /// A packet with nothing but the clock reference, [`CLOCK_EVERY`] after the last one: for pictures that come more
    /// slowly. `None` before the first picture.
    pub fn clock(&mut self) -> Option<Bytes> {
        let clock = self.clock? + CLOCK_EVERY;
        self.clock = Some(clock);
        let mut out = BytesMut::with_capacity(PACKET);
        // A packet without payload repeats the counter of the one before.
        let counter = self.counters[Pid::Video as usize].wrapping_sub(1) & 0xf;
        out.put_slice(&[
            SYNC,
            (VIDEO_PID >> 8) as u8,
            VIDEO_PID as u8,
            0x20 | counter,
        ]);
        let adaptation = clock_reference(clock, false);
        out.put_u8((PACKET - 5) as u8); // 183
        out.put_slice(&adaptation);
        out.put_bytes(0xff, PACKET - 5 - adaptation.len());
        Some(out.freeze())
    }

    fn repeat_tables(&mut self, out: &mut BytesMut, now: Ticks) {
        let at = *self.tables_at.get_or_insert(now);
        if now - at >= TABLES_EVERY {
            self.put_tables(out);
            self.tables_at = Some(now);
        }
    }

    fn put_tables(&mut self, out: &mut BytesMut) {
        self.tables_at = None;
        let pmt = self.pmt.clone();
        self.table(out, Pid::Pat, &PAT);
        self.table(out, Pid::Pmt, &pmt);
    }

    /// A packet with one section, to which the checksum is added.
    fn table(&mut self, out: &mut BytesMut, pid: Pid, section: &[u8]) {
        let end = out.len() + PACKET;
        self.packet_head(out, pid, true, 0x10);
        out.put_u8(0); // the section begins at once
        out.put_slice(section);
        out.put_u32(mpegts_crc::sum32(section));
        out.put_bytes(0xff, end - out.len());
    }

    fn packet_head(&mut self, out: &mut BytesMut, pid: Pid, starts: bool, control: u8) {
        let counter = &mut self.counters[pid as usize];
        packet_head(out, (pid.number(), counter), starts, control);
    }

    fn packets(&mut self, out: &mut BytesMut, pid: Pid, adaptation: &[u8], parts: [&[u8]; 3]) {
        let counter = &mut self.counters[pid as usize];
        packets(out, (pid.number(), counter), adaptation, parts);
    }
}

/// The packets of one more picture on a PID with that counter, for a stream that another multiplexer wrote.
pub(crate) fn picture(out: &mut BytesMut, pid: u16, counter: &mut u8, unit: &AccessUnit) {
    let mut head = BytesMut::with_capacity(PES_HEAD + 10);
    let stamps = (unit.pts, (unit.pts != unit.dts).then_some(unit.dts));
    let content = DELIMITER.len() + unit.data.len();
    pes_head(&mut head, VIDEO_STREAM_ID, stamps, content);
    packets(out, (pid, counter), &[], [&head, &DELIMITER, &unit.data]);
}

/// Bytes of the packets of a frame with that much content: what is written is kept until it is answered, so that room to
/// spare would be kept, too.
const fn room(content: usize) -> usize {
    // The adaptation field of the first packet, and the longest head of a PES.
    let head = 8 + PES_HEAD + 10;
    (head + content).div_ceil(PACKET - 4) * PACKET
}

fn packet_head(out: &mut BytesMut, (pid, counter): (u16, &mut u8), starts: bool, control: u8) {
    let [high, low] = pid.to_be_bytes();
    out.put_slice(&[SYNC, u8::from(starts) << 6 | high, low, control | *counter]);
    *counter = (*counter + 1) & 0xf;
}

/// Spreads `parts` over packets, the first of which has that adaptation field.
fn packets(
    out: &mut BytesMut,
    (pid, counter): (u16, &mut u8),
    adaptation: &[u8],
    parts: [&[u8]; 3],
) {
    let mut left: usize = parts.iter().map(|part| part.len()).sum();
    let mut parts = parts.into_iter();
    let mut part: &[u8] = &[];
    let mut adaptation = Some(adaptation);
    while left > 0 {
        let starts = adaptation.is_some();
        let field = adaptation.take().unwrap_or(&[]);
        let used = if field.is_empty() { 0 } else { 1 + field.len() };
        let room = PACKET - 4 - used;
        let stuffing = room.saturating_sub(left);
        let has_field = used + stuffing > 0;
        let control = if has_field { 0x30 } else { 0x10 };
        packet_head(out, (pid, counter), starts, control);
        if has_field {
            out.put_u8((used + stuffing - 1) as u8); // at most 183
            out.put_slice(field);
            match stuffing {
                // The length alone is one byte of stuffing, the flags, none of them set, another.
                stuffing if used > 0 => out.put_bytes(0xff, stuffing),
                0 | 1 => {}
                stuffing => {
                    out.put_u8(0);
                    out.put_bytes(0xff, stuffing - 2);
                }
            }
        }
        let mut take = room - stuffing;
        left -= take;
        while take > 0 {
            if part.is_empty() {
                part = parts.next().unwrap_or(&[]);
                continue;
            }
            let (now, rest) = part.split_at(take.min(part.len()));
            out.put_slice(now);
            part = rest;
            take -= now.len();
        }
    }
}

/// The adaptation field of a packet with a clock reference, without its length.
fn clock_reference(clock: Ticks, key: bool) -> [u8; 7] {
    let flags = 0x10 | if key { RANDOM_ACCESS } else { 0 };
    let base = clock.stamp();
    // 33 bits of base, six ones, nine bits of extension, which is 0.
    let [_, _, bytes @ ..] = (base << 15 | 0x7e00).to_be_bytes();
    let mut field = [flags; 7];
    field[1..].copy_from_slice(&bytes);
    field
}

/// A PES header for that much content.
fn pes_head(out: &mut BytesMut, stream_id: u8, stamps: (Ticks, Option<Ticks>), content: usize) {
    let (pts, dts) = stamps;
    let stamps = if dts.is_some() { 10 } else { 5 };
    // No length is said where 16 bits cannot say it.
    let length = u16::try_from(3 + stamps + content).unwrap_or(0);
    out.put_slice(&[0, 0, 1, stream_id]);
    out.put_u16(length);
    // The marker bits, and that the frame begins with the payload.
    out.put_u8(0x84);
    match dts {
        None => {
            out.put_slice(&[0x80, stamps as u8]); // 5
            out.put_slice(&stamp(2, pts));
        }
        Some(dts) => {
            out.put_slice(&[0xc0, stamps as u8]); // 10
            out.put_slice(&stamp(3, pts));
            out.put_slice(&stamp(1, dts));
        }
    }
}

/// A time stamp of a PES header behind its four bits of prefix.
fn stamp(prefix: u8, ticks: Ticks) -> [u8; 5] {
    let stamp = ticks.stamp();
    [
        prefix << 4 | ((stamp >> 29) as u8 & 0x0e) | 1,
        (stamp >> 22) as u8,
        (stamp >> 14) as u8 | 1,
        (stamp >> 7) as u8,
        (stamp << 1) as u8 | 1,
    ]
}

/// The program map table without its checksum.
fn pmt(audio: Option<AudioTrack>) -> Bytes {
    let mut streams = BytesMut::new();
    let mut stream = |kind: u8, pid: u16, descriptors: &[u8]| {
        streams.put_u8(kind);
        streams.put_u16(0xe000 | pid);
        streams.put_u16(0xf000 | descriptors.len() as u16); // at most 10
        streams.put_slice(descriptors);
    };
    stream(0x1b, VIDEO_PID, &[]);
    match audio {
        Some(AudioTrack::Opus { channels }) => {
            let descriptors = [
                0x05, 4, b'O', b'p', b'u', b's', // the registration of the format
                0x7f, 2, 0x80, channels,
            ];
            stream(0x06, AUDIO_PID, &descriptors);
        }
        Some(AudioTrack::Aac(_)) => stream(0x0f, AUDIO_PID, &[]),
        None => {}
    }
    let mut section = BytesMut::new();
    section.put_u8(2);
    section.put_u16(0xb000 | (13 + streams.len()) as u16); // at most 33
    section.put_slice(&[0, 1, 0xc1, 0, 0]);
    section.put_u16(0xe000 | VIDEO_PID);
    section.put_u16(0xf000);
    section.put_slice(&streams);
    section.freeze()
}

#[cfg(test)]
mod tests;
