use proptest::prelude::*;

use super::*;
use crate::clock::STAMP_MASK;
use crate::mux::Mux;
use crate::testing::{self, AUDIO, Frame, PMT, VIDEO};

macro_rules! ts {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/vectors/ts/", $name, ".ts")).as_slice()
    };
}

fn drain(demux: &mut Demux) -> Vec<Event> {
    std::iter::from_fn(|| demux.next_event()).collect()
}

fn events_of(bytes: &[u8], piece: usize) -> Vec<Event> {
    let mut demux = Demux::new();
    let mut events = Vec::new();
    for piece in bytes.chunks(piece) {
        demux.push(piece).expect("it is MPEG-TS");
        events.extend(drain(&mut demux));
    }
    demux.finish();
    events.extend(drain(&mut demux));
    events
}

fn pictures(events: &[Event]) -> Vec<&AccessUnit> {
    let pictures = events.iter().filter_map(|event| match event {
        Event::Video(unit) => Some(unit),
        _ => None,
    });
    pictures.collect()
}

fn sounds(events: &[Event]) -> Vec<&Audio> {
    let sounds = events.iter().filter_map(|event| match event {
        Event::Audio(audio) => Some(audio),
        _ => None,
    });
    sounds.collect()
}

const BOTH: Tracks = Tracks {
    video: Some(VideoCodec::H264),
    audio: Some(AudioCodec::Opus),
};
const VIDEO_ONLY: Tracks = Tracks {
    audio: None,
    ..BOTH
};

/// Media spec 8, row 49.
#[test]
fn recordings_give_the_frames_that_another_reader_counts() {
    // Pictures, packets of sound and times of key frames as ffprobe tells them.
    for (name, bytes, tracks, video, audio, keys) in [
        (
            "bounded",
            ts!("bounded-h264-opus"),
            BOTH,
            60,
            98,
            &[90_000, 180_000][..],
        ),
        (
            "unbounded",
            ts!("unbounded-h264-opus"),
            BOTH,
            60,
            98,
            &[0, 90_000],
        ),
        (
            "h264-only",
            ts!("h264-only"),
            VIDEO_ONLY,
            60,
            0,
            &[90_000, 180_000],
        ),
        (
            "bframes",
            ts!("h264-bframes"),
            BOTH,
            60,
            95,
            &[90_000, 180_000],
        ),
        (
            "garbage",
            ts!("garbage-inside"),
            BOTH,
            60,
            98,
            &[90_000, 180_000],
        ),
        (
            "silent",
            ts!("opus-declared-silent"),
            BOTH,
            60,
            0,
            &[90_000, 180_000],
        ),
        (
            "opus-only",
            ts!("opus-only"),
            Tracks {
                video: None,
                ..BOTH
            },
            0,
            100,
            &[],
        ),
        (
            "back",
            ts!("pts-jump-back"),
            VIDEO_ONLY,
            60,
            0,
            &[900_000, 910_000],
        ),
        (
            "forward",
            ts!("pts-jump-forward"),
            VIDEO_ONLY,
            60,
            0,
            &[90_000, 1_080_000],
        ),
        (
            "wrap",
            ts!("pts-wrap"),
            BOTH,
            60,
            98,
            &[(1 << 33) - 90_000, 1 << 33],
        ),
        (
            "size",
            ts!("resolution-change"),
            BOTH,
            60,
            98,
            &[90_000, 180_000],
        ),
        ("runner 0", ts!("runner-output-0"), BOTH, 48, 101, &[585]),
        (
            "runner 1",
            ts!("runner-output-1"),
            BOTH,
            48,
            100,
            &[180_585],
        ),
        ("inside", ts!("starts-inside-gop"), BOTH, 50, 98, &[180_000]),
    ] {
        let events = events_of(bytes, 1 << 20);
        assert_eq!(events[0], Event::Tracks(tracks), "{name}");
        let (video_seen, audio_seen) = (pictures(&events), sounds(&events));
        assert_eq!(
            (video_seen.len(), audio_seen.len()),
            (video, audio),
            "{name}"
        );
        assert_eq!(events.len(), 1 + video + audio, "{name}: nothing else");
        let keys_seen: Vec<_> = video_seen
            .iter()
            .filter(|unit| unit.key)
            .map(|unit| unit.pts.0)
            .collect();
        assert_eq!(keys_seen, keys, "{name}");
        assert!(video_seen.windows(2).all(|two| two[0].dts < two[1].dts) || name == "back");
        for piece in [1, 100, 188, 1000] {
            assert!(
                events_of(bytes, piece) == events,
                "{name} in pieces of {piece}"
            );
        }
    }
}

#[test]
fn sound_is_told_with_its_channels_and_its_own_time() {
    let stereo = events_of(ts!("bounded-h264-opus"), 1000);
    let sounds_of = sounds(&stereo);
    assert_eq!(sounds_of[0].pts, Ticks(91_215));
    assert_eq!(sounds_of[0].track, AudioTrack::Opus { channels: 2 });
    let mono = events_of(ts!("runner-output-0"), 1000);
    let mono = sounds(&mono);
    assert_eq!(mono[0].track, AudioTrack::Opus { channels: 1 });
    assert!(
        mono.windows(2)
            .all(|two| two[1].pts - two[0].pts == Ticks(1800))
    );
}

#[test]
fn both_times_of_a_reordered_picture_are_read() {
    let events = events_of(ts!("h264-bframes"), 1000);
    let units = pictures(&events);
    assert!(units.iter().all(|unit| unit.dts <= unit.pts));
    assert!(units.iter().any(|unit| unit.dts < unit.pts));
    let mut shown: Vec<_> = units.iter().map(|unit| unit.pts).collect();
    shown.sort_unstable();
    assert!(shown.windows(2).all(|two| two[1] - two[0] == Ticks(3000)));
}

#[test]
fn a_picture_is_handed_on_with_its_last_packet() {
    // How many pictures are there before the packet with which the next one begins: all, where a PES says its length;
    // of a model's output those that end with stuffing.
    for (bytes, early) in [
        (ts!("bounded-h264-opus"), 60),
        (ts!("runner-output-0"), 47),
        (ts!("unbounded-h264-opus"), 58),
    ] {
        let mut demux = Demux::new();
        let (mut begun, mut seen, mut on_time) = (0, 0, 0);
        for packet in bytes.chunks(PACKET) {
            let starts = packet[1] & 0x40 != 0 && packet[1] & 0x1f == 1 && packet[2] == 0;
            if starts {
                on_time += usize::from(begun > 0 && seen == begun);
                begun += 1;
            }
            demux.push(packet).expect("it is MPEG-TS");
            seen += pictures(&drain(&mut demux)).len();
        }
        on_time += usize::from(seen == begun);
        assert_eq!(on_time, early);
        demux.finish();
        seen += pictures(&drain(&mut demux)).len();
        assert_eq!(seen, begun);
    }
}

#[test]
fn silence_ends_a_picture_that_fits_exactly() {
    let mut mux = testing::Mux::default();
    mux.tables(&[(VIDEO, 0x1b)]);
    // 184 bytes less 14 of header.
    let mut unit = vec![0, 0, 0, 1, 0x41];
    unit.resize(170, 7);
    mux.frame(
        VIDEO,
        Frame {
            pts: Some(5),
            bitstream: &unit,
            ..Frame::default()
        },
    );
    let mut demux = Demux::new();
    demux.push(&mux.bytes).expect("it is MPEG-TS");
    assert_eq!(pictures(&drain(&mut demux)).len(), 0);
    demux.push(&[SYNC]).expect("it may go on");
    demux.idle();
    assert_eq!(drain(&mut demux), [], "inside a packet nothing ends");
    demux.buffer.clear();
    demux.idle();
    assert_eq!(pictures(&drain(&mut demux)).len(), 1);
    demux.idle();
    assert_eq!(drain(&mut demux), []);
}

#[test]
fn a_gap_drops_the_frames_that_it_broke_off_and_no_others() {
    let bytes = ts!("bounded-h264-opus");
    let mut demux = Demux::new();
    demux
        .push(&bytes[..100 * PACKET + 50])
        .expect("it is MPEG-TS");
    let before = drain(&mut demux);
    demux.lost();
    demux
        .push(&bytes[150 * PACKET + 20..])
        .expect("it is MPEG-TS");
    let after = drain(&mut demux);
    let whole = events_of(bytes, 1 << 20);
    for event in before.iter().chain(&after) {
        assert!(whole.contains(event), "{event:?}");
    }
    assert!(pictures(&before).len() > 5 && pictures(&after).len() > 20);
}

/// Media spec 8, row 45.
#[test]
fn without_tables_nothing_is_told_but_that() {
    let events = events_of(ts!("no-tables"), 1000);
    assert_eq!(events, [], "they may come yet");
    let mut demux = Demux::new();
    let mut told = Vec::new();
    for _ in 0..MAX_BYTES_WITHOUT_TABLES as usize / 70_000 + 10 {
        demux.push(ts!("no-tables")).expect("it is MPEG-TS");
        told.extend(drain(&mut demux));
    }
    assert_eq!(told, [Event::NoTables]);
    demux.push(ts!("h264-only")).expect("it is MPEG-TS");
    assert_eq!(pictures(&drain(&mut demux)).len(), 60);
}

#[test]
fn damage_costs_the_frames_that_it_hit() {
    let whole = events_of(ts!("bounded-h264-opus"), 1000);
    let damaged = events_of(ts!("damaged"), 1000);
    let dropped = damaged
        .iter()
        .filter(|event| matches!(event, Event::Dropped(_)));
    assert_eq!(dropped.count(), 2);
    assert_eq!(damaged.len(), whole.len());
    let same = damaged.iter().filter(|event| whole.contains(event));
    assert_eq!(same.count(), whole.len() - 2);
}

/// Media spec 8, row 50.
#[test]
fn other_codecs_are_told_and_left_out() {
    let events = events_of(ts!("hevc-opus"), 1000);
    let hevc = Tracks {
        video: Some(VideoCodec::H265),
        ..BOTH
    };
    assert_eq!(events[0], Event::Tracks(hevc));
    assert_eq!((pictures(&events).len(), sounds(&events).len()), (0, 98));
    // MP2 and subtitles are nothing; the first AAC is.
    let mut mux = testing::Mux::default();
    mux.tables(&[
        (0x120, 0x03),
        (0x121, 0x06),
        (AUDIO, 0x0f),
        (0x122, 0x0f),
        (VIDEO, 0x1b),
    ]);
    let config = aac::Config::new(48_000, 2).expect("a usual one");
    let silence = config.silence().expect("it is known");
    let frame = [&config.adts(silence.len()).expect("it is short"), silence].concat();
    mux.frame(
        AUDIO,
        Frame {
            pts: Some(STAMP_MASK),
            bitstream: &frame.repeat(2),
            ..Frame::default()
        },
    );
    let events = events_of(&mux.bytes, 1000);
    let tracks = Tracks {
        audio: Some(AudioCodec::Aac),
        ..BOTH
    };
    assert_eq!(events[0], Event::Tracks(tracks));
    let sounds = sounds(&events);
    assert_eq!(sounds.len(), 2);
    assert!(
        sounds
            .iter()
            .all(|audio| audio.data == silence && audio.track == AudioTrack::Aac(config))
    );
    assert_eq!(sounds[1].pts - sounds[0].pts, Ticks(1920));
}

/// Media spec 8, row 46.
#[test]
fn of_many_programs_and_streams_the_first_is_followed() {
    let mut mux = testing::Mux::default();
    mux.pat(
        (0..40)
            .map(|program| PMT + program)
            .collect::<Vec<_>>()
            .as_slice(),
    );
    let streams: Vec<_> = (0..200).map(|stream| (VIDEO + stream, 0x1b)).collect();
    mux.pmt(PMT, &streams);
    mux.pmt(PMT + 1, &[(VIDEO, 0x24)]);
    let unit = [0, 0, 0, 1, 0x41, 7];
    for pid in [VIDEO + 1, VIDEO, VIDEO + 2] {
        mux.frame(
            pid,
            Frame {
                pts: Some(u64::from(pid)),
                bitstream: &unit,
                ..Frame::default()
            },
        );
    }
    let events = events_of(&mux.bytes, 1000);
    assert_eq!(events[0], Event::Tracks(VIDEO_ONLY));
    assert_eq!(events.len(), 2);
    assert_eq!(pictures(&events)[0].pts, Ticks(i64::from(VIDEO)));
}

/// Media spec 8, row 46.
#[test]
fn tables_with_a_wrong_checksum_are_ignored() {
    let mut bytes = ts!("h264-only").to_vec();
    bytes[PACKET + 15] ^= 1; // the type of the video
    let events = events_of(&bytes, 1000);
    assert_eq!(events[0], Event::Tracks(VIDEO_ONLY));
    assert_eq!(pictures(&events).len(), 30, "from the second tables on");
}

/// Media spec 8, row 48.
#[test]
fn junk_is_searched_for_packets_and_given_up_in_time() {
    let mut demux = Demux::new();
    let junk = [7; 10_000];
    for _ in 0..6 {
        demux.push(&junk).expect("packets may follow");
    }
    demux.push(ts!("h264-only")).expect("and here they are");
    assert_eq!(pictures(&drain(&mut demux)).len(), 60);
    let mut hopeless = Demux::new();
    let pushed = (0..8)
        .map(|_| hopeless.push(&junk).is_err())
        .collect::<Vec<_>>();
    assert_eq!(
        pushed,
        [false, false, false, false, false, false, true, true]
    );
    assert!(hopeless.buffer.len() <= 2 * junk.len());
}

/// Media spec 8, row 48.
#[test]
fn packets_that_nobody_can_read_are_left_out() {
    let mut bytes = ts!("bounded-h264-opus").to_vec();
    let count = pictures(&events_of(&bytes, 1000)).len();
    // Counters at random change nothing.
    for (at, packet) in bytes.chunks_mut(PACKET).enumerate() {
        packet[3] = packet[3] & 0xf0 | (at * 7 % 16) as u8;
    }
    assert_eq!(pictures(&events_of(&bytes, 1000)).len(), count);
    // Scrambled, damaged, with an adaptation field past the end.
    for (byte, bits) in [(3, 0x80), (1, 0x80), (4, 255)] {
        let mut bytes = bytes.clone();
        for packet in bytes.chunks_mut(PACKET).skip(2) {
            packet[byte] |= bits;
            if byte == 4 {
                packet[3] |= 0x30;
            }
        }
        assert_eq!(events_of(&bytes, 1000), [Event::Tracks(BOTH)]);
    }
}

/// The frames that come of a PES with that header and content, and of a good one after it.
fn events_after(pes: &[u8]) -> Vec<Event> {
    let mut mux = testing::Mux::default();
    mux.tables(&[(VIDEO, 0x1b)]);
    mux.pes(VIDEO, pes);
    let unit = [0, 0, 0, 1, 0x41, 7];
    mux.frame(
        VIDEO,
        Frame {
            pts: Some(5),
            bitstream: &unit,
            ..Frame::default()
        },
    );
    let mut events = events_of(&mux.bytes, 1000);
    assert_eq!(events.remove(0), Event::Tracks(VIDEO_ONLY));
    let last = events.pop();
    assert!(matches!(last, Some(Event::Video(unit)) if unit.pts == Ticks(5)));
    events
}

/// Media spec 8, row 47.
#[test]
fn a_bad_pes_costs_itself_alone() {
    let dropped = |reason| vec![Event::Dropped(reason)];
    // A length that ends inside the header; no content; no PES at all; one that is cut off.
    let head = [0, 0, 1, 0xe0, 0, 2, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1];
    assert_eq!(events_after(&head), dropped(Dropped::BadHeader));
    let mut empty = head;
    empty[5] = 8;
    assert_eq!(
        events_after(&empty),
        dropped(Dropped::Video(h264::Dropped::CutOff))
    );
    assert_eq!(events_after(&[7; 30]), dropped(Dropped::CutOff));
    let mut long = head.to_vec();
    long[4] = 3;
    assert_eq!(events_after(&long), dropped(Dropped::CutOff));
    // More than any picture has.
    let mut huge = head.to_vec();
    huge[5] = 0;
    huge.resize(MAX_PES + 1000, 7);
    assert_eq!(events_after(&huge), dropped(Dropped::TooLarge));
}

/// Media spec 8, row 47.
#[test]
fn a_picture_without_a_time_follows_the_last_one() {
    let mut mux = testing::Mux::default();
    mux.tables(&[(VIDEO, 0x1b)]);
    let unit = [0, 0, 0, 1, 0x41, 7];
    for pts in [Some(9000), None, None, Some(20_000)] {
        mux.frame(
            VIDEO,
            Frame {
                pts,
                bitstream: &unit,
                ..Frame::default()
            },
        );
    }
    let events = events_of(&mux.bytes, 1000);
    let times: Vec<_> = pictures(&events).iter().map(|unit| unit.pts.0).collect();
    assert_eq!(times, [9000, 12_000, 15_000, 20_000]);
}

/// Media spec 8, row 51.
#[test]
fn several_packets_of_opus_may_share_a_pes_and_bad_ones_end_it() {
    let good = [0x7f, 0xe0, 3, 0xfc, 0xff, 0xfe];
    let trimmed = [0x7f, 0xf8, 3, 1, 2, 3, 4, 0xfc, 0xff, 0xfe];
    let extended = [0x7f, 0xe4, 3, 2, 9, 9, 0xfc, 0xff, 0xfe];
    for (content, count, is_bad) in [
        ([&good[..], &trimmed, &extended, &good].concat(), 4, false),
        (
            [&good[..], &[0x7f, 0xe0, 255, 255, 9], &good].concat(),
            1,
            true,
        ),
        ([&good[..], &[0x7f, 0xe4, 3, 255], &good].concat(), 1, true),
        ([&good[..], &[0x7f, 0xe0, 0]].concat(), 1, true),
        (
            [
                &good[..],
                &[0x7f, 0xe0, 255, 255, 255, 255, 255, 6],
                &[0xfc; 1281],
            ]
            .concat(),
            1,
            true,
        ),
        (vec![0x47, 1], 0, true),
    ] {
        let mut packets = Mux::new(Some(AudioTrack::Opus { channels: 2 }))
            .tables()
            .to_vec();
        let mut mux = testing::Mux::default();
        mux.frame(
            AUDIO,
            Frame {
                pts: Some(9000),
                bitstream: &content,
                ..Frame::default()
            },
        );
        packets.extend_from_slice(&mux.bytes);
        let events = events_of(&packets, 1000);
        let sounds = sounds(&events);
        let times: Vec<_> = sounds.iter().map(|audio| audio.pts.0).collect();
        let expected: Vec<_> = (0..count).map(|packet| 9000 + 1800 * packet).collect();
        assert_eq!(times, expected);
        assert_eq!(events.contains(&Event::Dropped(Dropped::Audio)), is_bad);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_panics_and_pieces_change_nothing(
        damage in prop::collection::vec((0..71_440_usize, any::<u8>()), 0..60),
        piece in 1..2000_usize,
    ) {
        let mut bytes = ts!("bounded-h264-opus").to_vec();
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        prop_assert!(events_of(&bytes, piece) == events_of(&bytes, 1 << 20));
    }
}
