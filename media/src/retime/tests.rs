use mpeg2ts::ts::{ReadTsPacket, TsPacketReader, TsPayload};
use mpeg2ts_reader::packet::Packet;
use mpeg2ts_reader::pes::{PesContents, PesHeader, PtsDts};
use proptest::prelude::*;

use super::*;
use crate::testing::{AUDIO, CLIP, Frame, H264_KEY, Mux, VIDEO, pcr, stamp};

fn retime(offset: i64, input: &[u8], piece: usize) -> Vec<u8> {
    let mut retimer = Retimer::new(offset);
    let mut output = Vec::new();
    for bytes in input.chunks(piece) {
        output.extend(retimer.push(bytes));
    }
    output.extend(retimer.finish());
    output
}

/// Every stamp of a stream in order, read by the crate and not by us.
fn stamps(stream: &[u8]) -> Vec<(&'static str, u64)> {
    let mut found = Vec::new();
    for bytes in stream.chunks(PACKET) {
        let packet = Packet::new(bytes);
        if let Some(field) = packet.adaptation_field() {
            found.extend(field.pcr().ok().map(|pcr| ("pcr", pcr.base())));
            found.extend(field.opcr().ok().map(|pcr| ("opcr", pcr.base())));
            if let Ok(extension) = field.adaptation_field_extension()
                && let Ok(splice) = extension.seamless_splice()
            {
                found.push(("splice", splice.dts_next_au.value()));
            }
        }
        let Some(payload) = packet.payload() else {
            continue;
        };
        if !packet.payload_unit_start_indicator() || payload.len() < 9 || payload[..3] != [0, 0, 1]
        {
            continue;
        }
        let header = PesHeader::from_bytes(payload).expect("PES");
        let PesContents::Parsed(Some(parsed)) = header.contents() else {
            continue;
        };
        match parsed.pts_dts() {
            Ok(PtsDts::PtsOnly(pts)) => found.push(("pts", pts.expect("valid").value())),
            Ok(PtsDts::Both { pts, dts }) => {
                found.push(("pts", pts.expect("valid").value()));
                found.push(("dts", dts.expect("valid").value()));
            }
            _ => {}
        }
        found.extend(parsed.escr().ok().map(|escr| ("escr", escr.base())));
    }
    found
}

fn shifted(stamps: Vec<(&'static str, u64)>, offset: i64) -> Vec<(&'static str, u64)> {
    stamps
        .into_iter()
        .map(|(kind, stamp)| (kind, (stamp as i64 + offset) as u64 & STAMP_MASK))
        .collect()
}

#[test]
fn every_stamp_of_the_clip_moves_by_the_offset_and_nothing_else_changes() {
    for offset in [90_000 * 3600, -90_000 * 3600, 1, 0] {
        let output = retime(offset, CLIP, 10_000);
        assert_eq!(output.len(), CLIP.len());
        let before = stamps(CLIP);
        assert!(before.len() > 500, "{} stamps", before.len());
        assert_eq!(stamps(&output), shifted(before, offset));
        assert_eq!(retime(-offset, &output, 10_000), CLIP, "back again");
        // At most a PCR, a PTS and a DTS of a packet differ.
        for (old, new) in CLIP.chunks(PACKET).zip(output.chunks(PACKET)) {
            let differing = old.iter().zip(new).filter(|(a, b)| a != b).count();
            assert!(differing <= 15, "{differing} bytes");
        }
        assert_eq!(output == CLIP, offset == 0);
    }
}

#[test]
fn another_parser_reads_the_result() {
    let read = |stream: &[u8]| {
        let mut reader = TsPacketReader::new(stream);
        let mut stamps = Vec::new();
        let mut packets = 0;
        while let Some(packet) = reader.read_ts_packet().expect("valid") {
            packets += 1;
            if let Some(TsPayload::PesStart(pes)) = packet.payload {
                stamps.push(pes.header.pts.map(|pts| pts.as_u64()));
            }
        }
        (packets, stamps)
    };
    let (packets, before) = read(CLIP);
    let (packets_after, after) = read(&retime(12_345, CLIP, 777));
    assert_eq!(packets, packets_after);
    for (before, after) in before.into_iter().zip(after) {
        assert_eq!(before.map(|pts| pts + 12_345), after);
    }
}

fn everything(origin: u64) -> Vec<u8> {
    let mut mux = Mux::default();
    mux.tables(&[(VIDEO, 0x1b), (AUDIO, 0x0f)]);
    for frame in 0..20 {
        let at = origin + frame * 3600;
        mux.frame(
            VIDEO,
            Frame {
                pts: Some(at + 100),
                dts: Some(at),
                escr: Some(at + 5),
                pcr: Some(at),
                flagged: true,
                bitstream: H264_KEY,
                padding: 400,
                ..Frame::default()
            },
        )
        .clock(VIDEO, at + 50)
        .null();
    }
    mux.bytes
}

#[test]
fn stamps_wrap() {
    for origin in [STAMP_MASK - 20_000, STAMP_MASK - 40_000, 0] {
        let input = everything(origin);
        for offset in [30_000, -30_000, i64::from(u32::MAX)] {
            let output = retime(offset, &input, 188);
            assert_eq!(stamps(&output), shifted(stamps(&input), offset));
            assert_eq!(retime(-offset, &output, 999), input);
        }
    }
}

#[test]
fn a_header_in_two_packets_is_shifted_as_one() {
    let with = |stuffing, base: u64| {
        let mut mux = Mux::default();
        mux.tables(&[(VIDEO, 0x1b), (AUDIO, 0x0f)]);
        let frame = |pts| Frame {
            pts: Some(pts),
            dts: Some(pts),
            stuffing,
            padding: 500,
            ..Frame::default()
        };
        mux.frame(VIDEO, frame(base)).frame(AUDIO, frame(base + 7));
        mux.bytes
    };
    // From a header that just fits to one of which a single byte is in the first packet.
    for stuffing in 160..=182 {
        let expected = with(stuffing, 1000 + STAMP_MASK);
        for piece in [1, 100, 188, 5000] {
            let output = retime(1000, &with(stuffing, STAMP_MASK), piece);
            assert_eq!(output, expected, "stuffing {stuffing}, pieces of {piece}");
        }
    }
}

#[test]
fn the_clocks_of_the_adaptation_field_are_shifted() {
    let packet = |base: u64| {
        let mut packet = vec![SYNC, 1, 0, 0x20, 183];
        packet.push(0x1f); // PCR, OPCR, splice countdown, private data, extension
        packet.extend(pcr(base));
        packet.extend(pcr(base + 9));
        packet.push(4);
        packet.extend([3, 0xde, 0xad, 0xbe]);
        packet.extend([11, 0xff, 1, 2, 3, 4, 5]); // window, rate, splice
        packet.extend(stamp(7, base + 70));
        packet.resize(PACKET, 0xff);
        packet
    };
    let output = retime(50, &packet(5000), 188);
    assert_eq!(output, packet(5050));
    assert_eq!(
        stamps(&output),
        [("pcr", 5050), ("opcr", 5059), ("splice", 5120)]
    );
}

#[test]
fn scrambled_payloads_tables_and_junk_pass() {
    let mut input = everything(0);
    for packet in input.chunks_mut(PACKET) {
        packet[3] |= 0x80;
        packet[1] &= 0xbf;
    }
    let clocks = |stream: &[u8]| stamps(stream).iter().filter(|s| s.0 == "pcr").count();
    assert_eq!(clocks(&input), 40);
    let output = retime(7, &input, 188);
    assert_eq!(stamps(&output), shifted(stamps(&input), 7));

    let mut junk = CLIP[..188 * 20].to_vec();
    junk.splice(188 * 7..188 * 7, [3; 500]);
    junk.extend([9; 50]);
    let output = retime(90_000, &junk, 64);
    let mut clean = output.clone();
    clean.truncate(clean.len() - 50);
    clean.drain(188 * 7..188 * 7 + 500);
    assert_eq!(clean, retime(90_000, &CLIP[..188 * 20], 64));
    assert_eq!(output.len(), junk.len());
}

#[test]
fn a_header_that_never_ends_does_not_hold_the_stream_for_ever() {
    let mut mux = Mux::default();
    mux.frame(
        VIDEO,
        Frame {
            pts: Some(1),
            stuffing: 181,
            ..Frame::default()
        },
    );
    // Its second packet is lost; another stream goes on.
    let mut input = mux.bytes[..PACKET].to_vec();
    let filler = Mux::default().null().bytes.repeat(MAX_HELD / PACKET + 10);
    input.extend(&filler);
    let mut retimer = Retimer::new(1);
    let mut out = 0;
    for bytes in input.chunks(PACKET) {
        out += retimer.push(bytes).len();
        assert!(retimer.buffer.len() <= MAX_HELD + 2 * PACKET);
    }
    assert_eq!(out, input.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn how_the_bytes_come_changes_nothing(
        offset: i64, sizes in proptest::collection::vec(1_usize..2000, 1..50),
        origin in 0..=STAMP_MASK,
    ) {
        let input = everything(origin);
        let whole = retime(offset, &input, input.len());
        let mut retimer = Retimer::new(offset);
        let mut output = Vec::new();
        let mut rest = &input[..];
        for size in sizes.iter().cycle() {
            let (now, later) = rest.split_at((*size).min(rest.len()));
            output.extend(retimer.push(now));
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        output.extend(retimer.finish());
        prop_assert_eq!(&output, &whole);
        prop_assert_eq!(stamps(&whole), stamps(&input).into_iter()
            .map(|(kind, stamp)| (kind, stamp.wrapping_add(offset as u64) & STAMP_MASK))
            .collect::<Vec<_>>());
    }

    #[test]
    fn hostile_bytes_keep_their_number(
        bytes in proptest::collection::vec(any::<u8>(), 0..4000), aligned: bool, piece in 1_usize..500,
    ) {
        let mut input = bytes;
        if aligned {
            for packet in input.chunks_mut(PACKET) {
                packet[0] = SYNC;
            }
        }
        prop_assert_eq!(retime(90_000, &input, piece).len(), input.len());
    }
}
