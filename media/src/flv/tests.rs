use bytes::{BufMut, Bytes, BytesMut};

use super::*;
use crate::aac;
use crate::frame::{AccessUnit, Audio, AudioTrack, Ticks};
use crate::timeline::Kind;

/// SPS and PPS of 320x180 Constrained Baseline, as ffmpeg 5.1 sends them.
const SPS: &[u8] = &[
    0x67, 0x42, 0xc0, 0x0d, 0xd9, 0x01, 0x41, 0x9f, 0x9e, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00,
    0x00, 0x03, 0x03, 0xc0, 0xf1, 0x42, 0xa4, 0x80,
];
const PPS: &[u8] = &[0x68, 0xcb, 0x83, 0xcb, 0x20];
const IDR: &[u8] = &[0x65, 0x88, 0x84, 0x01];
const SLICE: &[u8] = &[0x41, 0x9a, 0x02];

fn avcc() -> Vec<u8> {
    let mut config = vec![1, SPS[1], SPS[2], SPS[3], 0xff, 0xe1, 0, SPS.len() as u8];
    config.extend_from_slice(SPS);
    config.extend_from_slice(&[1, 0, PPS.len() as u8]);
    config.extend_from_slice(PPS);
    config
}

fn avc(frame_type: u8, kind: u8, composition: i32, content: &[u8]) -> Bytes {
    let mut body = BytesMut::new();
    body.put_slice(&[frame_type << 4 | 7, kind]);
    body.put_int(composition.into(), 3);
    body.put_slice(content);
    body.freeze()
}

fn prefixed(nals: &[&[u8]]) -> Vec<u8> {
    let mut unit = Vec::new();
    for nal in nals {
        unit.extend_from_slice(&(nal.len() as u32).to_be_bytes());
        unit.extend_from_slice(nal);
    }
    unit
}

fn annex_b(nals: &[&[u8]]) -> Bytes {
    let with_code = |nal: &&[u8]| [&[0, 0, 0, 1], *nal].concat();
    nals.iter().flat_map(with_code).collect::<Vec<_>>().into()
}

fn configured() -> Reader {
    let mut reader = Reader::default();
    let config = reader.video(0, avc(1, 0, 0, &avcc()));
    assert_eq!(config, Ok(Some(Video::Config)));
    reader
}

fn unit(read: Result<Option<Video>, Refused>) -> AccessUnit {
    match read {
        Ok(Some(Video::Unit(unit))) => unit,
        other => panic!("not a picture: {other:?}"),
    }
}

#[test]
fn configurations_and_end_tags_do_not_count_as_time() {
    let mut reader = configured();
    // An offset source: headers at zero, and the first frame hours later.
    let first = unit(reader.video(16_776_179, avc(1, 1, 0, &prefixed(&[IDR]))));
    assert_eq!(first.dts, Ticks::from_millis(16_776_179));
    assert!(first.key);
    assert_eq!(first.data, annex_b(&[SPS, PPS, IDR]));
    assert_eq!(reader.video(5, avc(1, 2, 0, &[])), Ok(None));
    let second = unit(reader.video(16_776_212, avc(2, 1, 0, &prefixed(&[SLICE]))));
    assert_eq!(second.dts, Ticks::from_millis(16_776_212));
}

/// Media spec 8, row 42.
#[test]
fn stamps_wrap_at_31_bits_and_at_32() {
    for wrap in [1_u64 << 31, 1 << 32] {
        let mut reader = configured();
        let before = (wrap - 29) as u32;
        let first = unit(reader.video(before, avc(1, 1, 0, &prefixed(&[IDR]))));
        let next = unit(reader.video(4, avc(2, 1, 0, &prefixed(&[SLICE]))));
        assert_eq!(next.dts - first.dts, Ticks::from_millis(33), "{wrap}");
        // A step back between the tracks is one.
        let aac = Bytes::from_static(&[0xaf, 0, 0x11, 0x90]);
        assert!(matches!(reader.audio(0, aac), Ok(Some(Sound::Config(_)))));
        let frame = reader.audio(before + 10, Bytes::from_static(&[0xaf, 1, 0x21]));
        let Ok(Some(Sound::Frame(frame))) = frame else {
            panic!("{frame:?}");
        };
        assert_eq!(next.dts - frame.pts, Ticks::from_millis(23), "{wrap}");
    }
}

/// Media spec 8, row 42.
#[test]
fn composition_times_are_believed_up_to_ten_seconds() {
    let mut reader = configured();
    for (said, believed) in [
        (0, 0),
        (133, 133),
        (0x7f_ffff, 10_000),
        (-1, 0),
        (-0x80_0000, 0),
    ] {
        let unit = unit(reader.video(1000, avc(1, 1, said, &prefixed(&[IDR]))));
        assert_eq!(unit.pts - unit.dts, Ticks::from_millis(believed), "{said}");
    }
}

#[test]
fn a_key_frame_is_marked_as_one_and_has_an_idr_picture() {
    let mut reader = configured();
    for (frame_type, nal, key) in [
        (1, IDR, true),
        (1, SLICE, false),
        (2, IDR, false),
        (2, SLICE, false),
    ] {
        let unit = unit(reader.video(0, avc(frame_type, 1, 0, &prefixed(&[nal]))));
        assert_eq!(unit.key, key, "{frame_type} {nal:?}");
    }
}

/// Media spec 8, row 43.
#[test]
fn codecs_that_are_not_carried_are_named() {
    let video = |body: &'static [u8]| {
        Reader::default()
            .video(0, Bytes::from_static(body))
            .unwrap_err()
    };
    let audio = |body: &'static [u8]| {
        Reader::default()
            .audio(0, Bytes::from_static(body))
            .unwrap_err()
    };
    for (refused, name) in [
        (video(b"\x90hvc1config"), "hvc1"),
        (video(b"\x90av01config"), "av01"),
        (video(b"\xa3vp09frame"), "vp09"),
        (video(b"\x90\x01\x02\x03\x04config"), "01020304"),
        (video(b"\x12"), "Sorenson H.263"),
        (video(b"\x1c\x00"), "hvc1"),
        (audio(b"\x2f"), "MP3"),
        (audio(b"\x90ac-3"), "ac-3"),
        (audio(b"\x91fLaCdata"), "fLaC"),
        (audio(b"\xaf\x00\x2b\x92\x08\x00"), "mp4a.40.5"),
        (audio(b"\x90OpusOpusHead\x01\x06"), "Opus with 6 channels"),
    ] {
        assert_eq!(
            refused.to_string(),
            format!("codec {name} is not supported")
        );
    }
}

#[test]
fn nothing_of_interest_is_no_fault() {
    let mut reader = configured();
    for body in [
        &b""[..],
        b"\x57\x00",                      // a command to the player
        b"\xd4hvc1colorInfo",             // metadata, even of another codec
        b"\x92avc1",                      // the end of a sequence
        b"\x17\x01\x00\x00\x00",          // an empty picture
        b"\x96\x01avc1\x01frame",         // one track, and not the first
        b"\x96\x11avc1\x01\x00\x00\x01x", // several, without the first
    ] {
        assert_eq!(
            reader.video(0, Bytes::from_static(body)),
            Ok(None),
            "{body:?}"
        );
    }
    for body in [
        &b""[..],
        b"\x94Opus\x01\x02",
        b"\x92Opus",
        b"\x95\x01Opus\x07x",
    ] {
        assert_eq!(
            reader.audio(0, Bytes::from_static(body)),
            Ok(None),
            "{body:?}"
        );
    }
}

#[test]
fn enhanced_tags_are_read_behind_extensions_and_within_tracks() {
    let frame = prefixed(&[IDR]);
    let plain = [b"\x93avc1", &frame[..]].concat();
    let composed = [b"\x91avc1\x00\x00\x21", &frame[..]].concat();
    let extended = [b"\x97\x02abc\x13avc1", &frame[..]].concat();
    let long = [b"\x97\xff\x01\x00", &[0; 257][..], b"\x03avc1", &frame].concat();
    let one = [b"\x96\x03avc1\x00", &frame[..]].concat();
    let size = (frame.len() as u32).to_be_bytes();
    let many = [b"\x96\x13avc1\x01\x00\x00\x02xx\x00", &size[1..], &frame].concat();
    let codecs = [
        b"\x96\x23hvc1\x01\x00\x00\x02xxavc1\x00",
        &size[1..],
        &frame,
        b"hvc1",
    ]
    .concat();
    for (body, composition) in [
        (plain, 0),
        (composed, 33),
        (extended, 0),
        (long, 0),
        (one, 0),
        (many, 0),
        (codecs, 0),
    ] {
        let mut reader = Reader::default();
        let config = [b"\x90avc1", &avcc()[..]].concat();
        assert_eq!(reader.video(0, config.into()), Ok(Some(Video::Config)));
        let unit = unit(reader.video(40, body.clone().into()));
        assert!(unit.key, "{body:?}");
        assert_eq!(unit.pts, Ticks::from_millis(40 + composition), "{body:?}");
    }
}

/// Media spec 8, rows 40 and 41.
#[test]
fn damaged_tags_are_dropped_and_eight_in_a_row_are_the_end() {
    let extensions = [&[0x97][..], &b"\x00x\x07".repeat(MAX_MOD_EX + 1)].concat();
    let cut: [&[u8]; 8] = [
        b"\x17",                                             // no packet type
        b"\x17\x01\x00",                                     // no composition time
        b"\x17\x00\x00\x00\x00\x01\x42",                     // a configuration that is cut off
        b"\x17\x00\x00\x00\x00\x01\x42\xc0\x0d\xff\xe0\x00", // without an SPS
        b"\x17\x01\x00\x00\x00\x7f\xff\xff\xff\x65",         // a NAL unit of 2 GiB
        b"\x96\x13avc1\x00\xff\xff\xffx",                    // a track of 16 MiB
        b"\x97\xffx",                                        // an extension past the end
        &extensions,
    ];
    let mut reader = configured();
    for (row, body) in cut.iter().cycle().enumerate().take(3 * cut.len()) {
        if row % 7 == 0 {
            unit(reader.video(0, avc(1, 1, 0, &prefixed(&[IDR]))));
        }
        let read = reader.video(0, Bytes::copy_from_slice(body));
        assert!(
            matches!(read, Ok(Some(Video::Dropped(_)))),
            "{body:?}: {read:?}"
        );
    }
    let mut reader = configured();
    let ends = cut
        .iter()
        .position(|body| reader.video(0, Bytes::copy_from_slice(body)).is_err());
    assert_eq!(ends, Some(MAX_BAD_TAGS as usize - 1));
}

#[test]
fn sound_before_its_configuration_is_dropped_unless_it_says_all_itself() {
    let mut reader = Reader::default();
    let aac = reader.audio(0, Bytes::from_static(b"\xaf\x01\x21\x10"));
    assert_eq!(aac, Ok(Some(Sound::Dropped(Damaged::Sound))));
    let opus = reader.audio(20, Bytes::from_static(b"\x91Opus\xfc\xff\xfe"));
    let Ok(Some(Sound::Frame(opus))) = opus else {
        panic!("{opus:?}");
    };
    assert_eq!(opus.track, AudioTrack::Opus { channels: 2 });
    // A packet that is not valid: 49 frames.
    let bad = reader.audio(40, Bytes::from_static(b"\x91Opus\xff\x31\x00"));
    assert_eq!(bad, Ok(Some(Sound::Dropped(Damaged::Sound))));
    // ffmpeg's configuration of five bytes.
    let config = reader.audio(0, Bytes::from_static(b"\xaf\x00\x11\x88\x56\xe5\x00"));
    let mono = aac::Config::new(48_000, 1).unwrap();
    assert_eq!(config, Ok(Some(Sound::Config(AudioTrack::Aac(mono)))));
}

#[test]
fn what_is_written_is_read_again() {
    let picture = |millis, key, nals: &[&[u8]], later| AccessUnit {
        pts: Ticks::from_millis(millis + later),
        dts: Ticks::from_millis(millis),
        key,
        data: annex_b(nals),
    };
    let units = [
        picture(5000, false, &[SLICE], 0), // before the first key frame
        picture(5033, true, &[SPS, PPS, IDR], 66),
        picture(5066, false, &[&[6, 5, 1, 0x80], SLICE, SLICE], 0),
        picture(5100, true, &[SPS, PPS, IDR], 0),
        picture(5133, true, &[SPS, PPS, IDR], 0),
        // With a parameter set that no configuration has.
        picture(5166, false, &[&[0x68, 0x58, 0x80], SLICE], 0),
    ];
    let aac = AudioTrack::Aac(aac::Config::new(44_100, 2).unwrap());
    let opus = AudioTrack::Opus { channels: 1 };
    let sounds = [
        (aac, &b"\x21\x10\x04"[..]),
        (aac, b"\x21"),
        (opus, b"\xf8\xff\xfe"),
        (opus, b"\xf8\xff\xfe"),
    ];
    let sounds = sounds.iter().enumerate().map(|(at, (track, data))| Audio {
        pts: Ticks::from_millis(5000 + 20 * at as i64),
        track: *track,
        data: Bytes::from_static(data),
    });

    let (mut writer, mut reader) = (Writer::default(), Reader::default());
    let tags: Vec<_> = units.iter().flat_map(|unit| writer.video(unit)).collect();
    assert_eq!(
        tags.iter().filter(|tag| tag.key).count(),
        1 + 3,
        "one configuration"
    );
    let mut found = Vec::new();
    for tag in &tags {
        assert_eq!(tag.kind, Kind::Video);
        match reader.video(tag.stamp, tag.body.clone()) {
            Ok(Some(Video::Unit(unit))) => found.push(unit),
            other => assert_eq!(other, Ok(Some(Video::Config))),
        }
    }
    let shifted = |unit: &AccessUnit| AccessUnit {
        pts: unit.pts - Ticks::from_millis(5000),
        dts: unit.dts - Ticks::from_millis(5000),
        ..unit.clone()
    };
    assert_eq!(found, units[1..].iter().map(shifted).collect::<Vec<_>>());

    let mut heard = Vec::new();
    for sound in sounds.clone() {
        for tag in writer.audio(&sound) {
            assert_eq!(tag.kind, Kind::Audio);
            match reader.audio(tag.stamp, tag.body) {
                Ok(Some(Sound::Frame(frame))) => heard.push(frame),
                other => assert_eq!(other, Ok(Some(Sound::Config(sound.track)))),
            }
        }
    }
    let shifted = |sound: Audio| Audio {
        pts: sound.pts - Ticks::from_millis(5000),
        ..sound
    };
    assert_eq!(heard, sounds.map(shifted).collect::<Vec<_>>());
}

#[test]
fn a_picture_size_out_of_bounds_is_the_end_after_three() {
    // Baseline, level 1.3, and 65,535 macroblocks wide and high.
    let mut bits = BytesMut::from(&[0x67, 0x42, 0xc0, 0x0d][..]);
    bits.put_slice(&[0xd9, 0x00, 0x00, 0x80, 0x00, 0x20, 0x00, 0x10, 0x00, 0x04]);
    let mut config = vec![1, 0x42, 0xc0, 0x0d, 0xff, 0xe1, 0, bits.len() as u8];
    config.extend_from_slice(&bits);
    config.extend_from_slice(&[1, 0, PPS.len() as u8]);
    config.extend_from_slice(PPS);
    let mut reader = Reader::default();
    let ends = (0..MAX_BAD_TAGS).position(|_| reader.video(0, avc(1, 0, 0, &config)).is_err());
    assert!(
        ends.is_some_and(|row| row < MAX_BAD_TAGS as usize),
        "{ends:?}"
    );
}
