use proptest::prelude::*;

use super::*;
use crate::h264::{nal_type, nals};
use crate::testing::CLIP;

fn overlay(input: &[u8], piece: usize) -> Vec<u8> {
    let mut overlay = Overlay::new();
    let mut output = Vec::new();
    for bytes in input.chunks(piece) {
        output.extend(overlay.push(bytes));
    }
    output.extend(overlay.finish());
    output
}

fn units(stream: &[u8]) -> Vec<AccessUnit> {
    let mut demux = Demux::new();
    demux.push(stream).expect("MPEG-TS");
    demux.finish();
    let events = std::iter::from_fn(|| demux.next_event());
    events
        .filter_map(|event| match event {
            Event::Video(unit) => Some(unit),
            Event::Dropped(why) => panic!("{why}"),
            _ => None,
        })
        .collect()
}

#[test]
fn each_picture_of_the_clip_stays_and_is_followed_by_one_with_a_clock() {
    let before = units(CLIP);
    let after = units(&overlay(CLIP, 10_000));
    assert_eq!(after.len(), 2 * before.len());
    for (unit, pair) in before.iter().zip(after.chunks(2)) {
        let [same, drawn] = pair else {
            unreachable!("an even number");
        };
        assert_eq!(same, unit);
        assert_eq!((drawn.pts, drawn.key), (unit.pts + AFTER, false));
        let kinds: Vec<_> = nals(&drawn.data).map(nal_type).collect();
        assert_eq!(kinds, [8, 1], "a parameter set and a slice");
        let slice = nals(&drawn.data).last().expect("a slice");
        assert_eq!(slice[0] & 0x60, 0, "nothing refers to it");
        let size = drawn.data.len();
        assert!((7 * BLOCK..8 * BLOCK).contains(&size), "{size} bytes");
    }
}

#[test]
fn drawn_pictures_are_as_decoders_want_them() {
    // ffmpeg 9 made of these, without a complaint, the picture before with the clock over it.
    let set = [0x68, 0x00, 0x80, 0x4e, 0x3c, 0x80];
    let begins = [
        0x01, 0x98, 0x02, 0x00, 0x25, 0x02, 0xa0, 0xf8, 0x20, 0x20, 0x20, 0x20,
    ];
    let ends = [0xa0, 0xa0, 0xa0, 0xa0, 0xa0, 0x00, 0x6d, 0x30];
    let all = units(&overlay(&CLIP[..188 * 200], 188));
    let drawn: Vec<_> = nals(&all[1].data).collect();
    assert_eq!(drawn[0], set);
    assert!(drawn[1].starts_with(&begins), "{:x?}", &drawn[1][..12]);
    assert!(drawn[1].ends_with(&ends), "{:x?}", &drawn[1][2_700..]);
    assert_eq!(drawn[1].len(), 2_711);
}

#[test]
fn pictures_that_none_refers_to_are_followed_by_none() {
    let input = include_bytes!("../../tests/vectors/ts/h264-bframes.ts");
    let (before, after) = (units(input), units(&overlay(input, 1_000)));
    let is_referred_to = |unit: &&AccessUnit| {
        let slice = nals(&unit.data).find(|nal| matches!(nal_type(nal), 1 | 5));
        slice.is_some_and(|slice| slice[0] & 0x60 != 0)
    };
    let referred_to = before.iter().filter(is_referred_to).count();
    assert!((1..before.len()).contains(&referred_to), "{referred_to}");
    assert_eq!(after.len(), before.len() + referred_to);
}

/// The counters of a PID's packets with a payload.
fn counters(stream: &[u8], wanted: u16) -> Vec<u8> {
    let packets = stream.chunks(PACKET);
    let pid = |packet: &[u8]| u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2]);
    packets
        .filter(|packet| pid(packet) == wanted && packet[3] & 0x10 != 0)
        .map(|packet| packet[3] & 0xf)
        .collect()
}

#[test]
fn packets_are_counted_without_a_gap_and_those_of_other_streams_stay() {
    let output = overlay(CLIP, 188 * 7);
    let counted = counters(&output, 0x100);
    assert!(counted.len() > counters(CLIP, 0x100).len());
    // The first packets come before it is known that they are video.
    let steps = counted.windows(2).skip(1);
    assert!(
        { steps }.all(|two| two[1] == (two[0] + 1) & 0xf),
        "each is one more than the last"
    );
    let others = |stream: &[u8]| -> Vec<Vec<u8>> {
        let is_other = |packet: &&[u8]| packet[1] & 0x1f != 1 || packet[2] != 0;
        let others = stream.chunks(PACKET).filter(is_other);
        others.map(<[u8]>::to_vec).collect()
    };
    assert_eq!(others(&output), others(CLIP));
}

#[test]
fn the_clock_counts_from_the_first_picture() {
    let at = |millis| clock(Ticks::from_millis(millis), 40, 23);
    let shows = |millis, glyphs: [usize; 7]| {
        let expected: Vec<_> = (41..).zip(glyphs.map(block)).collect();
        assert_eq!(at(millis), expected);
    };
    shows(0, [0, 0, COLON, 0, 0, POINT, 0]);
    shows(754_399, [1, 2, COLON, 3, 4, POINT, 3]);
    assert!(clock(Ticks::ZERO, 8, 23).is_empty(), "no room");
}

#[test]
fn a_stream_in_which_nothing_can_be_drawn_passes_as_it_is() {
    for input in [
        &include_bytes!("../../tests/vectors/ts/hevc-opus.ts")[..],
        include_bytes!("../../tests/vectors/ts/opus-only.ts"),
        include_bytes!("../../tests/vectors/ts/no-tables.ts"),
        b"not MPEG-TS at all, G or not",
    ] {
        assert_eq!(overlay(input, 1_000).len(), input.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn how_bytes_are_cut_changes_nothing(piece in 1..2_000_usize) {
        let input = &CLIP[..100_000];
        prop_assert!(overlay(input, piece) == overlay(input, 188));
    }

    #[test]
    fn any_bytes_pass(places in proptest::collection::vec((0..60_000_usize, any::<u8>()), 0..64)) {
        let mut input = CLIP[..60_000].to_vec();
        for (place, byte) in places {
            input[place] = byte;
        }
        prop_assert!(overlay(&input, 5_000).len() >= input.len());
    }
}
