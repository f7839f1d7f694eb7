//! Finding packets in bytes, and streams in packets.

use std::collections::BTreeMap;

use mpeg2ts_reader::mpegts_crc;
use mpeg2ts_reader::packet::Packet;
use mpeg2ts_reader::pes::{PesContents, PesHeader, PtsDts};
use mpeg2ts_reader::psi::pat::{PatSection, ProgramDescriptor};
use mpeg2ts_reader::psi::pmt::PmtSection;

use crate::keyframe::Codec;

/// Bytes of a packet.
pub(crate) const PACKET: usize = Packet::SIZE;
/// First byte of a packet.
pub(crate) const SYNC: u8 = Packet::SYNC_BYTE;
/// Packets in a row that must begin with a sync byte before we believe that they are packets.
pub(crate) const SYNC_RUN: usize = 5;

/// The PID of the PAT.
pub(crate) const PAT_PID: u16 = 0;
/// PIDs up to here carry tables by definition: PAT, CAT, TSDT, and DVB's SI.
pub(crate) const LAST_RESERVED_PID: u16 = 0x1f;
const STUFFING_PID: u16 = 0x1fff;
/// A section has a length of 12 bits after its first three bytes.
const MAX_SECTION: usize = 3 + 0xfff;
/// Programs of one stream that we look into; a file of a camera or an encoder has one.
const MAX_PROGRAMS: usize = 64;

/// The first offset in `bytes[..=last]` from which `run` sync bytes follow at the distance of packets.
pub(crate) fn find_packets(bytes: &[u8], last: usize, run: usize) -> Option<usize> {
    (0..=last).find(|start| {
        (0..run).all(|packet| bytes.get(start + packet * PACKET).copied() == Some(SYNC))
    })
}

/// The probable format of a file that is not MPEG-TS.
pub(crate) fn guess_format(head: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| {
        head.get(offset..offset + magic.len())
            .is_some_and(|found| found == magic)
    };
    let every = |first: usize, step: usize| {
        head.len() >= first + step * SYNC_RUN
            && (0..SYNC_RUN).all(|i| head[first + i * step] == SYNC)
    };
    if at(4, b"ftyp") || at(4, b"moov") || at(4, b"styp") {
        Some("MP4")
    } else if at(0, &[0x1a, 0x45, 0xdf, 0xa3]) {
        Some("Matroska or WebM")
    } else if at(0, b"FLV\x01") {
        Some("FLV")
    } else if at(0, b"RIFF") {
        Some("a RIFF file (AVI or WAV)")
    } else if at(0, b"#EXTM3U") {
        Some("an HLS playlist, not its segments")
    } else if at(0, &[0, 0, 1, 0xba]) {
        Some("an MPEG program stream")
    } else if at(0, &[0, 0, 0, 1]) || at(0, &[0, 0, 1]) {
        Some("a bare video bitstream")
    } else if every(4, 192) {
        Some("M2TS with 192-byte packets")
    } else if every(0, 204) {
        Some("MPEG-TS with 204-byte packets")
    } else if at(0, b"OggS") {
        Some("Ogg")
    } else if at(0, b"<") || at(0, b"{") {
        Some("text")
    } else {
        None
    }
}

/// The payload of a packet, empty if there is none or the packet is malformed.
pub(crate) fn payload(packet: &[u8; PACKET]) -> &[u8] {
    let offset = match packet[3] >> 4 & 3 {
        1 => 4,
        3 => 5 + usize::from(packet[4]),
        _ => PACKET,
    };
    packet.get(offset..).unwrap_or(&[])
}

/// The time stamps of a PES header, in ticks of 90 kHz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamps {
    pub(crate) pts: u64,
    /// The time when the frame is decoded; the PTS if the header has nothing else.
    pub(crate) dts: u64,
}

/// The start of a frame as far as it lies in its first packet.
pub(crate) struct FrameStart<'a> {
    pub(crate) stamps: Option<Stamps>,
    /// The bitstream after the PES header; empty if the header does not end in this packet.
    pub(crate) bitstream: &'a [u8],
}

/// Reads the PES header at the start of `payload`. `None`: this is not PES.
pub(crate) fn frame_start(payload: &[u8]) -> Option<FrameStart<'_>> {
    // The crate logs a warning for each of these; hostile input would flood the log.
    if payload.len() < 9 || payload[..3] != [0, 0, 1] {
        return None;
    }
    let header = PesHeader::from_bytes(payload)?;
    match header.contents() {
        PesContents::Parsed(Some(parsed)) => Some(FrameStart {
            stamps: match parsed.pts_dts() {
                Ok(PtsDts::PtsOnly(Ok(pts))) => Some(Stamps {
                    pts: pts.value(),
                    dts: pts.value(),
                }),
                Ok(PtsDts::Both {
                    pts: Ok(pts),
                    dts: Ok(dts),
                }) => Some(Stamps {
                    pts: pts.value(),
                    dts: dts.value(),
                }),
                _ => None,
            },
            bitstream: parsed.payload(),
        }),
        PesContents::Parsed(None) => Some(FrameStart {
            stamps: None,
            bitstream: &[],
        }),
        PesContents::Payload(bitstream) => Some(FrameStart {
            stamps: None,
            bitstream,
        }),
    }
}

/// The kind of packet that a PID carries, as far as the tables say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// PAT, PMT and the like.
    Table,
    /// Padding.
    Stuffing,
    /// Frames of the stream that decides where to cut.
    Video(Codec),
    /// Anything else.
    Other,
}

/// The streams of the program that we follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The first video stream.
    pub(crate) video: Option<(u16, Codec)>,
    /// The first other stream with frames.
    pub(crate) other: Option<u16>,
    /// The PID of the clock reference.
    pub(crate) pcr: u16,
}

/// Reads the tables of a stream. The first program with video is followed, without one the first with anything.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pat: Section,
    /// Programs, by PID of the PMT.
    programs: BTreeMap<u16, (Section, Option<Program>)>,
    followed: Option<Program>,
}

impl Tables {
    /// The program that is followed, once a PAT and a PMT with at least one stream were read.
    pub(crate) const fn program(&self) -> Option<&Program> {
        self.followed.as_ref()
    }

    /// The kind of the packets of `pid`.
    pub(crate) fn kind(&self, pid: u16) -> Kind {
        if pid <= LAST_RESERVED_PID || self.programs.contains_key(&pid) {
            return Kind::Table;
        }
        if pid == STUFFING_PID {
            return Kind::Stuffing;
        }
        match &self.followed {
            Some(Program {
                video: Some((video, codec)),
                ..
            }) if *video == pid => Kind::Video(*codec),
            _ => Kind::Other,
        }
    }

    /// Takes a packet of [`Kind::Table`].
    pub(crate) fn feed(&mut self, pid: u16, starts: bool, payload: &[u8]) {
        if pid == PAT_PID {
            let programs = &mut self.programs;
            self.pat.feed(starts, payload, |section| {
                if let Some(body) = body(section, 0) {
                    read_pat(programs, body);
                }
            });
        } else if let Some((assembly, program)) = self.programs.get_mut(&pid) {
            assembly.feed(starts, payload, |section| {
                if let Some(body) = body(section, 2) {
                    *program = read_pmt(body);
                }
            });
        } else {
            return;
        }
        let known = || self.programs.values().filter_map(|(_, program)| *program);
        self.followed = known()
            .find(|program| program.video.is_some())
            .or_else(|| known().next());
    }
}

/// The bytes between header and checksum of a valid, current section of that table.
pub(crate) fn body(section: &[u8], table: u8) -> Option<&[u8]> {
    let current = section.len() >= 12 && section[5] & 1 == 1;
    (current && section[0] == table && section[1] & 0x80 != 0 && mpegts_crc::sum32(section) == 0)
        .then(|| &section[8..section.len() - 4])
}

fn read_pat(programs: &mut BTreeMap<u16, (Section, Option<Program>)>, body: &[u8]) {
    let named: Vec<u16> = PatSection::new(body)
        .programs()
        .filter_map(|entry| match entry {
            ProgramDescriptor::Program { pid, .. } => Some(u16::from(pid)),
            ProgramDescriptor::Network { .. } => None,
        })
        .filter(|pid| *pid > LAST_RESERVED_PID && *pid != STUFFING_PID)
        .take(MAX_PROGRAMS)
        .collect();
    programs.retain(|pid, _| named.contains(pid));
    for pid in named {
        programs.entry(pid).or_default();
    }
}

fn read_pmt(body: &[u8]) -> Option<Program> {
    let section = PmtSection::from_bytes(body).ok()?;
    let mut program = Program {
        video: None,
        other: None,
        pcr: section.pcr_pid().into(),
    };
    for stream in section.streams() {
        let kind = stream.stream_type();
        let pid = u16::from(stream.elementary_pid());
        match u8::from(kind) {
            0x01 | 0x02 => program.video = program.video.or(Some((pid, Codec::Mpeg2))),
            0x1b => program.video = program.video.or(Some((pid, Codec::H264))),
            0x24 => program.video = program.video.or(Some((pid, Codec::H265))),
            // MPEG-4 Visual, JPEG 2000, VVC, AVS.
            0x10 | 0x21 | 0x33 | 0x42 => {
                program.video = program.video.or(Some((pid, Codec::Unknown)));
            }
            // Sections of any kind have no time stamps.
            0x05 | 0x08 | 0x0b..=0x0d | 0x14 | 0x86 => {}
            private if kind.is_pes() || private >= 0x80 => {
                program.other = program.other.or(Some(pid));
            }
            _ => {}
        }
    }
    (program.video.is_some() || program.other.is_some()).then_some(program)
}

/// Puts the sections of one PID together from the payloads of its packets.
#[derive(Debug, Default)]
pub(crate) struct Section {
    bytes: Vec<u8>,
    open: bool,
}

impl Section {
    pub(crate) fn feed(&mut self, starts: bool, payload: &[u8], mut complete: impl FnMut(&[u8])) {
        let mut rest = payload;
        if starts {
            let Some((pointer, after)) = payload.split_first() else {
                return;
            };
            let Some((tail, new)) = after.split_at_checked(usize::from(*pointer)) else {
                self.open = false;
                return;
            };
            self.append(tail, &mut complete);
            self.bytes.clear();
            self.open = true;
            rest = new;
        }
        // Several sections may share a packet; 0xff where one would start is filling.
        while self.open && !rest.is_empty() {
            if self.bytes.is_empty() && rest[0] == 0xff {
                self.open = false;
                return;
            }
            let used = self.append(rest, &mut complete);
            rest = &rest[used..];
        }
    }

    /// Takes bytes up to the end of the current section; how many.
    fn append(&mut self, from: &[u8], complete: &mut impl FnMut(&[u8])) -> usize {
        if !self.open {
            return from.len();
        }
        let mut used = 0;
        loop {
            let want = if self.bytes.len() < 3 {
                3
            } else {
                3 + (usize::from(self.bytes[1] & 0x0f) << 8 | usize::from(self.bytes[2]))
            };
            debug_assert!(want <= MAX_SECTION, "the length has 12 bits");
            let missing = want - self.bytes.len();
            if missing == 0 {
                complete(&self.bytes);
                self.bytes.clear();
                return used;
            }
            let take = missing.min(from.len() - used);
            if take == 0 {
                return used;
            }
            self.bytes.extend_from_slice(&from[used..used + take]);
            used += take;
        }
    }
}
