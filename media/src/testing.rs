//! A small MPEG-TS multiplexer, for tests.

use std::collections::BTreeMap;

use mpeg2ts_reader::mpegts_crc;

use crate::clock::STAMP_MASK;
use crate::ts::{PACKET, SYNC};

/// The clip that the binary carries.
pub(crate) const CLIP: &[u8] = include_bytes!("../../gateway/media/testsrc-360p30-12s.ts");

pub(crate) const PMT: u16 = 0x1000;
pub(crate) const VIDEO: u16 = 0x100;
pub(crate) const AUDIO: u16 = 0x101;

/// An IDR slice and an ordinary one, after a delimiter.
pub(crate) const H264_KEY: &[u8] = &[0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x65, 7];
pub(crate) const H264_INTER: &[u8] = &[0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x41, 7];

/// Writes packets one after the other.
#[derive(Default)]
pub(crate) struct Mux {
    pub(crate) bytes: Vec<u8>,
    continuity: BTreeMap<u16, u8>,
}

/// The properties that a frame states.
#[derive(Clone, Copy, Default)]
pub(crate) struct Frame<'a> {
    pub(crate) pts: Option<u64>,
    pub(crate) dts: Option<u64>,
    pub(crate) escr: Option<u64>,
    pub(crate) pcr: Option<u64>,
    pub(crate) flagged: bool,
    pub(crate) bitstream: &'a [u8],
    /// Filling after the bitstream.
    pub(crate) padding: usize,
    /// Bytes of the first packet taken by an overlong adaptation field, to push the PES header out.
    pub(crate) stuffing: usize,
}

/// Five bytes of PTS or DTS.
pub(crate) fn stamp(prefix: u8, value: u64) -> [u8; 5] {
    let value = value & STAMP_MASK;
    [
        prefix << 4 | ((value >> 30) as u8) << 1 | 1,
        (value >> 22) as u8,
        ((value >> 15) as u8) << 1 | 1,
        (value >> 7) as u8,
        (value as u8) << 1 | 1,
    ]
}

/// Six bytes of PCR or OPCR with an extension of 123.
pub(crate) fn pcr(base: u64) -> [u8; 6] {
    let base = base & STAMP_MASK;
    [
        (base >> 25) as u8,
        (base >> 17) as u8,
        (base >> 9) as u8,
        (base >> 1) as u8,
        (base as u8) << 7 | 0x7e,
        123,
    ]
}

fn escr(base: u64) -> [u8; 6] {
    let base = base & STAMP_MASK;
    [
        0xc0 | ((base >> 30) as u8 & 7) << 3 | 4 | (base >> 28) as u8 & 3,
        (base >> 20) as u8,
        ((base >> 15) as u8 & 0x1f) << 3 | 4 | (base >> 13) as u8 & 3,
        (base >> 5) as u8,
        ((base as u8) & 0x1f) << 3 | 4,
        77 << 1 | 1,
    ]
}

impl Mux {
    fn header(&mut self, pid: u16, starts: bool, control: u8) {
        let counter = self.continuity.entry(pid).or_default();
        self.bytes.extend([
            SYNC,
            u8::from(starts) << 6 | (pid >> 8) as u8,
            pid as u8,
            control << 4 | *counter,
        ]);
        if control & 1 == 1 {
            *counter = (*counter + 1) & 15;
        }
    }

    fn fill(&mut self) {
        let full = self.bytes.len().next_multiple_of(PACKET);
        self.bytes.resize(full, 0xff);
    }

    fn section(&mut self, pid: u16, table: u8, id: u16, body: &[u8]) {
        let length = body.len() + 9;
        let mut section = vec![0, table, 0xb0 | (length >> 8) as u8, length as u8];
        section.extend([(id >> 8) as u8, id as u8, 0xc1, 0, 0]);
        section.extend(body);
        section.extend(mpegts_crc::sum32(&section[1..]).to_be_bytes());
        for (at, payload) in section.chunks(PACKET - 4).enumerate() {
            self.header(pid, at == 0, 1);
            self.bytes.extend(payload);
            self.fill();
        }
    }

    /// PAT and PMT; streams are PID and type, the first one has the PCR.
    pub(crate) fn tables(&mut self, streams: &[(u16, u8)]) -> &mut Self {
        self.pat(&[PMT]).pmt(PMT, streams)
    }

    /// A PAT of programs with their PMT at those PIDs.
    pub(crate) fn pat(&mut self, programs: &[u16]) -> &mut Self {
        let pat = (1_u16..).zip(programs).flat_map(|(program, pid)| {
            let [high, low] = pid.to_be_bytes();
            [0, program as u8, 0xe0 | high, low]
        });
        self.section(0, 0, 1, &pat.collect::<Vec<_>>());
        self
    }

    /// The PMT of the first program, at that PID.
    pub(crate) fn pmt(&mut self, at: u16, streams: &[(u16, u8)]) -> &mut Self {
        let pid = |pid: u16| [0xe0 | (pid >> 8) as u8, pid as u8];
        let mut pmt = pid(streams[0].0).to_vec();
        pmt.extend([0xf0, 0]);
        for (elementary, kind) in streams {
            pmt.push(*kind);
            pmt.extend(pid(*elementary));
            pmt.extend([0xf0, 0]);
        }
        self.section(at, 2, 1, &pmt);
        self
    }

    /// A packet of padding.
    pub(crate) fn null(&mut self) -> &mut Self {
        self.header(0x1fff, false, 1);
        self.fill();
        self
    }

    /// A packet with nothing but a clock reference.
    pub(crate) fn clock(&mut self, pid: u16, base: u64) -> &mut Self {
        self.header(pid, false, 2);
        self.bytes.extend([183, 0x10]);
        self.bytes.extend(pcr(base));
        self.fill();
        self
    }

    /// A PES packet.
    pub(crate) fn frame(&mut self, pid: u16, frame: Frame<'_>) -> &mut Self {
        let mut fields = Vec::new();
        if let Some(pts) = frame.pts {
            let prefix = if frame.dts.is_some() { 3 } else { 2 };
            fields.extend(stamp(prefix, pts));
        }
        if let Some(dts) = frame.dts {
            fields.extend(stamp(1, dts));
        }
        let flags = match (frame.pts, frame.dts) {
            (None, _) => 0,
            (_, None) => 0x80,
            _ => 0xc0,
        };
        if let Some(base) = frame.escr {
            fields.extend(escr(base));
        }
        let mut pes = vec![0, 0, 1, 0xe0, 0, 0, 0x80];
        pes.push(flags | u8::from(frame.escr.is_some()) << 5);
        pes.push(fields.len() as u8);
        pes.extend(fields);
        pes.extend(frame.bitstream);
        pes.resize(pes.len() + frame.padding, 0xaa);

        let mut adaptation = Vec::new();
        if frame.flagged || frame.pcr.is_some() || frame.stuffing > 0 {
            adaptation.push(u8::from(frame.flagged) << 6 | u8::from(frame.pcr.is_some()) << 4);
            adaptation.extend(frame.pcr.map(pcr).into_iter().flatten());
            adaptation.resize(adaptation.len().max(frame.stuffing), 0xff);
        }
        self.packets(pid, adaptation, &pes)
    }

    /// A PES packet of just these bytes.
    pub(crate) fn pes(&mut self, pid: u16, pes: &[u8]) -> &mut Self {
        self.packets(pid, Vec::new(), pes)
    }

    fn packets(&mut self, pid: u16, mut adaptation: Vec<u8>, pes: &[u8]) -> &mut Self {
        let mut starts = true;
        let mut rest = pes;
        while !rest.is_empty() {
            let room = PACKET - 5 - adaptation.len();
            let plain = adaptation.is_empty() && rest.len() >= PACKET - 4;
            if plain {
                self.header(pid, starts, 1);
                let (now, later) = rest.split_at(PACKET - 4);
                self.bytes.extend(now);
                rest = later;
            } else {
                let now = rest.len().min(room);
                self.header(pid, starts, 3);
                let length = PACKET - 5 - now;
                self.bytes.push(length as u8);
                if length > 0 {
                    if adaptation.is_empty() {
                        adaptation.push(0);
                    }
                    adaptation.resize(length, 0xff);
                    self.bytes.extend(&adaptation);
                }
                self.bytes.extend(&rest[..now]);
                rest = &rest[now..];
                adaptation.clear();
            }
            starts = false;
        }
        assert_eq!(self.bytes.len() % PACKET, 0, "whole packets");
        self
    }
}

/// A file as a multiplexer should write it.
pub(crate) const BOUNDED: &[u8] = include_bytes!("../tests/vectors/ts/bounded-h264-opus.ts");

/// The PES of a recording in which each says its length, in the order in which they end, with their PIDs.
pub(crate) fn pes(recording: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut open = BTreeMap::<u16, Vec<u8>>::new();
    let mut ended = Vec::new();
    for packet in recording.chunks_exact(PACKET) {
        let pid = u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2]);
        if pid != VIDEO && pid != AUDIO {
            continue;
        }
        let pes = open.entry(pid).or_default();
        pes.extend_from_slice(crate::ts::payload(packet.try_into().expect("a packet")));
        let length = 6 + usize::from(u16::from_be_bytes([pes[4], pes[5]]));
        if pes.len() >= length {
            ended.extend(open.remove(&pid).map(|pes| (pid, pes)));
        }
    }
    ended
}

/// A recorded frame: whether it is a picture, whether a key frame, its time by its own clock, its bytes.
pub(crate) struct Recorded {
    pub(crate) is_video: bool,
    pub(crate) key: bool,
    pub(crate) time: i64,
    pub(crate) data: &'static [u8],
}

/// Access units and packets of Opus as a browser sent them, which changes its picture size, and as ffmpeg did.
pub(crate) const CHROMIUM: &[u8] = include_bytes!("../tests/vectors/au/chromium.au");
pub(crate) const FFMPEG: &[u8] = include_bytes!("../tests/vectors/au/ffmpeg9.au");

/// The frames of such a recording.
pub(crate) fn recorded(mut bytes: &'static [u8]) -> Vec<Recorded> {
    let mut frames = Vec::new();
    while let [kind, key, rest @ ..] = bytes {
        let (time, rest) = rest.split_first_chunk().expect("a time");
        let (length, rest) = rest.split_first_chunk().expect("a length");
        let (data, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        frames.push(Recorded {
            is_video: *kind == b'v',
            key: *key == 1,
            time: i64::from_be_bytes(*time),
            data,
        });
        bytes = rest;
    }
    frames
}
