use mpeg2ts::ts::{ReadTsPacket, TsPacket, TsPacketReader};
use proptest::prelude::*;

use super::*;
use crate::demux::{Demux, Event};
use crate::testing::{self, pes};
use crate::ts;

const OPUS: AudioTrack = AudioTrack::Opus { channels: 2 };

#[test]
fn the_recording_of_a_good_multiplexer_is_written_byte_for_byte() {
    let mut recorded = testing::BOUNDED.to_vec();
    let mut mux = Mux::new(Some(OPUS));
    let mut written = mux.tables().to_vec();
    for (pid, pes) in pes(testing::BOUNDED) {
        let frame = ts::frame_start(&pes).expect("a PES");
        let pts = Ticks(frame.stamps.expect("a time").pts as i64);
        if pid == VIDEO_PID {
            let data = &frame.bitstream[DELIMITER.len()..];
            let key = crate::h264::nals(data).any(|nal| nal[0] & 0x1f == 5);
            if key && written.len() > TABLES {
                written.extend_from_slice(&mux.tables());
            }
            // Between segments the recording has no tables.
            mux.tables_at = None;
            written.extend_from_slice(&mux.video(&AccessUnit {
                pts,
                dts: pts,
                key,
                data: Bytes::copy_from_slice(data),
            }));
        } else {
            let size = usize::from(frame.bitstream[2]);
            written.extend_from_slice(&mux.audio(&Audio {
                pts,
                track: OPUS,
                data: Bytes::copy_from_slice(&frame.bitstream[3..3 + size]),
            }));
        }
    }
    // The recording lacks the indicator of alignment.
    for packet in recorded.chunks_mut(PACKET) {
        let payload = PACKET - ts::payload((&*packet).try_into().expect("a packet")).len();
        if packet[1] & 0x40 != 0 && packet[payload..].starts_with(&[0, 0, 1]) {
            packet[payload + 6] = 0x84;
        }
    }
    for (at, (ours, theirs)) in written
        .chunks(PACKET)
        .zip(recorded.chunks(PACKET))
        .enumerate()
    {
        assert_eq!(ours, theirs, "packet {at}");
    }
    assert_eq!(written.len(), recorded.len());
}

/// The packets of a stream, as another crate reads them.
fn packets(bytes: &[u8]) -> Vec<TsPacket> {
    let mut reader = TsPacketReader::new(bytes);
    let packets = std::iter::from_fn(|| reader.read_ts_packet().expect("packets of MPEG-TS"));
    packets.collect()
}

fn unit(ticks: i64, key: bool, bytes: usize) -> AccessUnit {
    let mut data = vec![0, 0, 0, 1, if key { 0x65 } else { 0x41 }];
    data.resize(5 + bytes, 7);
    AccessUnit {
        pts: Ticks(ticks),
        dts: Ticks(ticks),
        key,
        data: data.into(),
    }
}

fn opus(ticks: i64, bytes: usize) -> Audio {
    let mut data = vec![0xfc];
    data.resize(1 + bytes, 7);
    Audio {
        pts: Ticks(ticks),
        track: OPUS,
        data: data.into(),
    }
}

#[test]
fn counters_run_on_and_the_clock_leads_each_picture() {
    let mut mux = Mux::new(Some(OPUS));
    let mut bytes = Vec::new();
    let (mut clocks, mut keys) = (Vec::new(), 0);
    for frame in 0..300 {
        if frame % 50 == 0 {
            bytes.extend_from_slice(&mux.tables());
        }
        bytes.extend_from_slice(&mux.video(&unit(90_000 + frame * 3000, frame % 50 == 0, 400)));
        bytes.extend_from_slice(&mux.audio(&opus(90_000 + frame * 1800, 250)));
    }
    let mut counters = std::collections::BTreeMap::new();
    for packet in packets(&bytes) {
        let counter = packet.header.continuity_counter.as_u8();
        let before = counters.insert(packet.header.pid, counter);
        assert!(before.is_none_or(|before| (before + 1) % 16 == counter));
        if let Some(field) = packet.adaptation_field
            && packet.header.pid.as_u16() == VIDEO_PID
            && let Some(clock) = field.pcr
        {
            assert_eq!(clock.as_u64() % 300, 0, "no extension");
            clocks.push(clock.as_u64() / 300);
            keys += i32::from(field.random_access_indicator);
        }
    }
    let expected: Vec<_> = (0..300).map(|frame| 81_000 + frame * 3000).collect();
    assert_eq!(clocks, expected);
    assert_eq!(keys, 6);
}

#[test]
fn tables_come_again_after_half_a_second() {
    let mut mux = Mux::new(None);
    mux.tables();
    let lengths: Vec<_> = (0..32)
        .map(|frame| mux.video(&unit(frame * 3000, false, 50)).len())
        .collect();
    let with_tables = lengths
        .iter()
        .filter(|len| **len == PACKET + TABLES)
        .count();
    assert_eq!(with_tables, 2);
    assert_eq!(lengths[15], PACKET + TABLES);
    assert_eq!(lengths[30], PACKET + TABLES);
}

#[test]
fn a_pes_says_its_length_as_long_as_it_can() {
    // 3 bytes of flags, 5 of the time, 6 of the delimiter, 5 of the start of the unit.
    let most = 0xffff - 3 - 5 - 6 - 5;
    let length = |bytes: usize| {
        let packets = Mux::new(None).video(&unit(0, false, bytes));
        let pes = 4 + 1 + 7;
        u16::from_be_bytes([packets[pes + 4], packets[pes + 5]])
    };
    assert_eq!(length(most), 0xffff);
    assert_eq!(length(most + 1), 0);
    let sound = Mux::new(Some(OPUS)).audio(&opus(0, opus::MAX_PACKET - 1));
    assert!(!sound.is_empty());
    assert_ne!(sound[10..12], [0, 0], "sound always says it");
}

#[test]
fn slow_pictures_get_clock_references_between_them() {
    let mut mux = Mux::new(None);
    assert_eq!(mux.clock(), None);
    let mut bytes = mux.tables().to_vec();
    bytes.extend_from_slice(&mux.video(&unit(90_000, true, 50)));
    bytes.extend_from_slice(&mux.clock().expect("there was a picture"));
    bytes.extend_from_slice(&mux.clock().expect("there was a picture"));
    bytes.extend_from_slice(&mux.video(&unit(90_000 + 17_000, false, 50)));
    let packets = packets(&bytes);
    let clocks: Vec<_> = packets
        .iter()
        .filter_map(|packet| packet.adaptation_field.as_ref()?.pcr)
        .map(|clock| clock.as_u64() / 300)
        .collect();
    assert_eq!(clocks, [81_000, 90_000, 99_000, 99_000], "never back");
    let counters: Vec<_> = packets
        .iter()
        .skip(2)
        .map(|packet| packet.header.continuity_counter.as_u8())
        .collect();
    assert_eq!(
        counters,
        [0, 0, 0, 1],
        "packets without payload do not count"
    );
}

#[test]
fn sound_that_was_not_announced_is_not_written() {
    assert!(Mux::new(None).audio(&opus(0, 9)).is_empty());
    let mono = Some(AudioTrack::Opus { channels: 1 });
    assert!(Mux::new(mono).audio(&opus(0, 9)).is_empty());
    let mut mux = Mux::new(Some(OPUS));
    assert!(mux.audio(&opus(0, opus::MAX_PACKET)).is_empty());
    let empty = Audio {
        data: Bytes::new(),
        ..opus(0, 0)
    };
    assert!(mux.audio(&empty).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_is_read_back(
        aac in any::<bool>(),
        begin in prop_oneof![0..200_000_i64, (1_i64 << 33) - 200_000..(1 << 33) - 3000],
        frames in prop::collection::vec((any::<bool>(), prop_oneof![0..1200_usize, 64_000..66_000_usize], 0..3_i64, any::<bool>()), 1..30),
        piece in 1..400_usize,
    ) {
        let config = crate::aac::Config::new(48_000, 2).expect("a usual one");
        let track = if aac { AudioTrack::Aac(config) } else { OPUS };
        let mut mux = Mux::new(Some(track));
        let mut bytes = mux.tables().to_vec();
        let (mut written, mut time) = (Vec::new(), begin);
        for (is_video, len, late, key) in frames {
            time += 3000;
            if is_video {
                let mut unit = unit(time, false, len);
                unit.pts += Ticks(late * 3000);
                if key {
                    bytes.extend_from_slice(&mux.tables());
                }
                bytes.extend_from_slice(&mux.video(&unit));
                written.push(Event::Video(unit));
            } else {
                let audio = Audio { track, ..opus(time, len.min(1200)) };
                bytes.extend_from_slice(&mux.audio(&audio));
                written.push(Event::Audio(audio));
            }
        }
        prop_assert_eq!(bytes.len() % PACKET, 0);
        packets(&bytes);
        let mut demux = Demux::new();
        let mut read = Vec::new();
        for piece in bytes.chunks(piece) {
            demux.push(piece).expect("it is MPEG-TS");
            read.extend(std::iter::from_fn(|| demux.next_event()));
        }
        demux.finish();
        read.extend(std::iter::from_fn(|| demux.next_event()));
        read.remove(0);
        // Stamps have 33 bits; pictures and sound may change places where a picture does not say its length.
        let kind = |events: &[Event], video: bool| {
            events.iter().filter(|event| matches!(event, Event::Video(_)) == video).cloned().collect::<Vec<_>>()
        };
        prop_assert_eq!(kind(&read, true), kind(&written, true));
        prop_assert_eq!(kind(&read, false), kind(&written, false));
    }
}

/// A job keeps its input until that is answered: with room to spare, sound took four times its bytes.
#[test]
fn what_is_written_has_no_room_to_spare() {
    let spare = |packets: Bytes| {
        let packets = packets.try_into_mut().expect("nobody else has it");
        packets.capacity() - packets.len()
    };
    for len in [1, 3, 150, 154, 160, 165, 183, 184, 185, 1_000, 70_000] {
        let data = Bytes::from(vec![7; len]);
        let mut mux = Mux::new(Some(OPUS));
        for key in [true, false] {
            let pts = Ticks::SECOND;
            let dts = pts - Ticks(3_000);
            let data = data.clone();
            let unit = AccessUnit {
                pts,
                dts,
                key,
                data,
            };
            assert!(spare(mux.video(&unit)) <= PACKET, "{len}");
        }
        if len <= opus::MAX_PACKET {
            let data = data.clone();
            let audio = Audio {
                pts: Ticks::SECOND,
                track: OPUS,
                data,
            };
            assert!(spare(mux.audio(&audio)) <= PACKET, "{len}");
        }
    }
}
