use proptest::prelude::*;

use super::*;
use crate::testing::{CHROMIUM, FFMPEG, recorded};

/// Bits of a parameter set.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    bits: u32,
}

impl Writer {
    fn bits(mut self, value: u64, count: u32) -> Self {
        for bit in (0..count).rev() {
            if self.bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.last_mut().expect("one was pushed");
            *last |= ((value >> bit & 1) as u8) << (7 - self.bits % 8);
            self.bits += 1;
        }
        self
    }

    fn number(self, value: u64) -> Self {
        let bits = (value + 1).ilog2();
        self.bits(0, bits).bits(value + 1, bits + 1)
    }

    /// The NAL unit, with the bytes that prevent start codes.
    fn nal(self) -> Vec<u8> {
        let mut nal = vec![0x67];
        for byte in self.bits(1, 1).bytes {
            if byte <= 3 && nal.ends_with(&[0, 0]) {
                nal.push(3);
            }
            nal.push(byte);
        }
        nal
    }
}

/// A sequence parameter set of a picture of so many macroblocks, with that number of reordered pictures.
fn sps(wide: u64, high: u64, reorder: Option<u64>) -> Vec<u8> {
    let writer = Writer::default()
        .bits(66, 8)
        .bits(0, 8)
        .bits(30, 8)
        .number(0)
        .number(0) // frame numbers
        .number(2) // pictures come in order
        .number(1)
        .bits(0, 1)
        .number(wide - 1)
        .number(high - 1)
        .bits(1, 1) // frames only
        .bits(1, 1)
        .bits(0, 1); // no cropping
    let Some(reorder) = reorder else {
        return writer.bits(0, 1).nal();
    };
    let writer = writer
        .bits(1, 1)
        .bits(0b0000, 4) // no aspect, overscan, signal, chroma place
        .bits(0, 1) // no clock
        .bits(0b00, 2) // no buffer model
        .bits(0, 1)
        .bits(1, 1)
        .bits(1, 1);
    let writer = (0..4).fold(writer, |writer, _| writer.number(0));
    writer.number(reorder).number(4).nal()
}

fn annex_b(nals: &[&[u8]]) -> Vec<u8> {
    nals.iter()
        .flat_map(|nal| [&START_CODE[..], nal].concat())
        .collect()
}

const PPS_NAL: &[u8] = &[0x68, 0xce, 0x3c, 0x80];
const IDR_NAL: &[u8] = &[0x65, 0x88, 0x84];
const SLICE_NAL: &[u8] = &[0x41, 0x9a, 0x02];

#[test]
fn units_lie_between_start_codes_of_either_length() {
    let unit = [
        9, 0, 0, 0, 1, 0x67, 1, 0, 0, 0, 0, 1, 0x68, 2, 0, 0, 1, 0, 0, 1, 0x65, 0, 3, 0,
    ];
    let found: Vec<_> = nals(&unit).collect();
    assert_eq!(found, [&[0x67, 1][..], &[0x68, 2], &[0x65, 0, 3]]);
    assert_eq!(nals(&[]).count(), 0);
    assert_eq!(nals(&[0, 0, 1]).count(), 0);
    assert_eq!(nals(&[1, 2, 3]).count(), 0);
}

#[test]
fn recorded_units_keep_their_pictures() {
    for (recording, pictures, profile) in [(CHROMIUM, 146, 66), (FFMPEG, 90, 66)] {
        let mut stream = Stream::default();
        let mut seen = 0;
        for frame in recorded(recording).iter().filter(|frame| frame.is_video) {
            let picture = stream
                .annex_b(frame.data)
                .expect("a good unit")
                .expect("a picture");
            assert_eq!(picture.key, frame.key);
            let kept = |data| {
                nals(data)
                    .filter(|nal| nal_type(nal) != 9)
                    .map(<[u8]>::to_vec)
                    .collect::<Vec<_>>()
            };
            assert_eq!(kept(&picture.data), kept(frame.data));
            seen += 1;
        }
        let sps = stream.sps().expect("it came");
        assert_eq!(
            (seen, sps.width, sps.height, sps.profile),
            (pictures, 320, 180, profile)
        );
        assert_eq!(sps.reorder, 0);
        assert!(!stream.is_hopeless());
    }
}

#[test]
fn delimiters_and_filler_are_left_out_and_start_codes_have_four_bytes() {
    let mut stream = Stream::default();
    let sps = sps(20, 12, None);
    let unit = [
        &[0, 0, 1, 9, 0xf0, 0, 0, 1][..],
        &sps,
        &[0, 0, 1],
        PPS_NAL,
        &[0, 0, 1, 6, 6, 1, 0x80, 0, 0, 1],
        IDR_NAL,
        &[0, 0, 1, 12, 0xff, 0xff],
    ]
    .concat();
    let picture = stream
        .annex_b(&unit)
        .expect("a good unit")
        .expect("a picture");
    assert!(picture.key && picture.recovers);
    let expected = annex_b(&[&sps, PPS_NAL, &[6, 6, 1, 0x80], IDR_NAL]);
    assert_eq!(picture.data, expected);
}

#[test]
fn an_idr_picture_gets_the_parameter_sets_that_it_lacks() {
    let mut stream = Stream::default();
    let sps = sps(20, 12, None);
    // Sets alone wait for the next picture.
    assert_eq!(stream.annex_b(&annex_b(&[&sps, PPS_NAL])), Ok(None));
    let first = stream
        .annex_b(&annex_b(&[IDR_NAL]))
        .expect("a good unit")
        .expect("a picture");
    assert_eq!(first.data, annex_b(&[&sps, PPS_NAL, IDR_NAL]));
    let between = stream
        .annex_b(&annex_b(&[SLICE_NAL]))
        .expect("a good unit")
        .expect("a picture");
    assert_eq!(between.data, annex_b(&[SLICE_NAL]));
    let second = stream
        .annex_b(&annex_b(&[IDR_NAL]))
        .expect("a good unit")
        .expect("a picture");
    assert_eq!(second.data, first.data);

    let mut sets = ParameterSets::default();
    assert!(!sets.is_complete());
    sets.learn(&second.data);
    assert!(sets.is_complete());
    assert_eq!(
        sets.before(&between.data),
        annex_b(&[&sps, PPS_NAL, SLICE_NAL])
    );
}

#[test]
fn a_decoder_configuration_gives_parameter_sets_and_the_size_of_lengths() {
    let sps = sps(20, 12, Some(2));
    for size in [1, 2, 4] {
        let mut config = vec![1, 66, 0, 30, 0xfc | (size - 1), 0xe1, 0, sps.len() as u8];
        config.extend_from_slice(&sps);
        config.extend_from_slice(&[1, 0, PPS_NAL.len() as u8]);
        config.extend_from_slice(PPS_NAL);
        let mut stream = Stream::default();
        stream.configure(&config).expect("a good one");
        assert_eq!(stream.sps().map(|sps| sps.reorder), Some(2));
        let mut unit = vec![0; usize::from(size)];
        unit[usize::from(size) - 1] = IDR_NAL.len() as u8;
        unit.extend_from_slice(IDR_NAL);
        let picture = stream
            .length_prefixed(&unit)
            .expect("a good unit")
            .expect("a picture");
        assert_eq!(picture.data, annex_b(&[&sps, PPS_NAL, IDR_NAL]));
        for cut in 0..config.len() {
            let mut stream = Stream::default();
            assert!(stream.configure(&config[..cut]).is_err(), "{cut} bytes");
            assert_eq!(stream.sps(), None);
        }
    }
    // No set at all, and one that is promised and does not come.
    assert_eq!(
        Stream::default().configure(&[1, 66, 0, 30, 0xff, 0xe0, 0]),
        Err(Dropped::BadConfig)
    );
}

#[test]
fn a_length_past_the_end_drops_the_unit_and_eight_in_a_row_end_the_stream() {
    let mut stream = Stream::default();
    stream
        .annex_b(&annex_b(&[&sps(20, 12, None), PPS_NAL]))
        .expect("good sets");
    let good = [0, 0, 0, 2, 0x41, 9];
    for bad in [
        &[0x7f, 0xff, 0xff, 0xff, 0x41][..],
        &[0, 0, 0, 3, 0x41, 9],
        &[0, 0],
        &[],
    ] {
        for _ in 1..MAX_BAD_UNITS {
            assert_eq!(stream.length_prefixed(bad), Err(Dropped::CutOff));
        }
        assert!(!stream.is_hopeless());
        assert!(
            stream
                .length_prefixed(&good)
                .is_ok_and(|picture| picture.is_some())
        );
    }
    for _ in 0..MAX_BAD_UNITS {
        assert!(stream.length_prefixed(&[0, 0, 0, 0]).is_err());
    }
    assert!(stream.is_hopeless());
}

#[test]
fn pictures_beyond_all_bounds_are_dropped_and_three_end_the_stream() {
    let mut stream = Stream::default();
    let huge = sps(4096, 4096, None);
    for _ in 0..MAX_BAD_SPS {
        assert!(!stream.is_hopeless());
        let dropped = stream.annex_b(&annex_b(&[&huge, PPS_NAL, IDR_NAL]));
        let size = BadSps::TooLarge {
            width: 65_536,
            height: 65_536,
        };
        assert_eq!(dropped, Err(Dropped::BadSps(size)));
        // Pictures between them are none that help.
        assert!(stream.annex_b(&annex_b(&[SLICE_NAL])).is_ok());
    }
    assert!(stream.is_hopeless());
    assert_eq!(stream.sps(), None);

    // The largest side, the largest area, one more than each; numbers of 32 bits and of more.
    assert!(Sps::read(&sps(512, 270, None)).is_ok());
    assert!(Sps::read(&sps(513, 1, None)).is_err());
    assert!(Sps::read(&sps(512, 280, None)).is_err());
    assert!(Sps::read(&sps(u64::from(u32::MAX), 1, None)).is_err());
    assert_eq!(
        Sps::read(&sps(u64::from(u32::MAX) + 1, 1, None)),
        Err(BadSps::Unreadable)
    );
    assert_eq!(
        Sps::read(&[0x67, 66, 0, 30, 0, 0, 0, 0, 0, 0, 0, 0]),
        Err(BadSps::Unreadable)
    );
    assert_eq!(Sps::read(&[]), Err(BadSps::Unreadable));
    assert_eq!(
        stream.annex_b(&vec![0; MAX_UNIT + 1]),
        Err(Dropped::TooLarge)
    );
}

#[test]
fn an_idr_picture_that_no_decoder_could_begin_with_is_dropped() {
    let sps = sps(20, 12, None);
    for nals in [&[IDR_NAL][..], &[&sps, IDR_NAL], &[PPS_NAL, IDR_NAL]] {
        let dropped = Stream::default().annex_b(&annex_b(nals));
        assert_eq!(dropped, Err(Dropped::NoSets));
    }
}

#[test]
fn a_new_size_comes_with_any_key_frame() {
    let mut stream = Stream::default();
    for (wide, high) in [(20, 12), (30, 17), (40, 23)] {
        let unit = annex_b(&[&sps(wide, high, None), PPS_NAL, IDR_NAL]);
        assert!(
            stream
                .annex_b(&unit)
                .is_ok_and(|picture| picture.is_some_and(|picture| picture.key))
        );
        let size = stream.sps().map(|sps| (sps.width, sps.height));
        assert_eq!(size, Some((wide as u32 * 16, high as u32 * 16)));
        // The set of the size before is not remembered beside it.
        let next = stream
            .annex_b(&annex_b(&[IDR_NAL]))
            .expect("a good unit")
            .expect("a picture");
        assert_eq!(next.data, unit);
    }
}

#[test]
fn each_picture_parameter_set_stands_behind_its_sequence_parameter_set() {
    let (sps, other) = (sps(20, 12, None), [0x68, 0b0101_1000]); // number 1, of sequence 0
    let mut sets = ParameterSets::default();
    let mut paired = |nals: &[&[u8]]| sets.in_pairs(&annex_b(nals).into());
    // The only pair, and none.
    for nals in [&[&sps[..], PPS_NAL, IDR_NAL][..], &[SLICE_NAL]] {
        assert_eq!(paired(nals), annex_b(nals));
    }
    let both = |slice| annex_b(&[&sps, PPS_NAL, &NOTHING, &sps, &other, slice]);
    // One alone, several at once, and again the first: whichever came, both are sent.
    assert_eq!(paired(&[&other, SLICE_NAL]), both(SLICE_NAL));
    assert_eq!(paired(&[&sps, PPS_NAL, &other, IDR_NAL]), both(IDR_NAL));
    assert_eq!(paired(&[&sps, PPS_NAL, IDR_NAL]), both(IDR_NAL));
    assert_eq!(paired(&[SLICE_NAL]), annex_b(&[SLICE_NAL]));
}

proptest! {
    #[test]
    fn nothing_panics_and_what_was_taken_stays_as_it_is(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let sets = annex_b(&[&sps(20, 12, None), PPS_NAL]);
        let unit = annex_b(&[&bytes, SLICE_NAL]);
        let mut first = Stream::default();
        first.annex_b(&sets).expect("good sets");
        if let Ok(Some(picture)) = first.annex_b(&unit) {
            let mut second = Stream::default();
            let again = second.annex_b(&picture.data).expect("it was good").expect("it has a picture");
            prop_assert_eq!(again, picture);
        }
        let _ = Stream::default().configure(&bytes);
        let _ = first.length_prefixed(&bytes);
        let _ = Sps::read(&bytes);
        let _ = ParameterSets::default().in_pairs(&Bytes::from(unit));
    }
}

#[test]
fn start_codes_are_found_wherever_they_are() {
    for length in 0..=8 {
        for number in 0..3_u32.pow(length) {
            let digit = |place| (number / 3_u32.pow(place) % 3) as u8;
            let bytes: Vec<_> = (0..length).map(digit).collect();
            let wanted = bytes.windows(3).position(|three| three == [0, 0, 1]);
            assert_eq!(find_start_code(&bytes), wanted, "{bytes:?}");
        }
    }
}
