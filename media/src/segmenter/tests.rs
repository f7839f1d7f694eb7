use super::*;
use crate::clock::STAMP_MASK;
use crate::testing::{AUDIO, CLIP, Frame, H264_INTER, H264_KEY, Mux, PMT, VIDEO};
use proptest::prelude::*;

const H264_AND_AAC: &[(u16, u8)] = &[(VIDEO, 0x1b), (AUDIO, 0x0f)];
const SECOND: u64 = 90_000;

struct Cut {
    segments: Vec<Segment>,
    warnings: Warnings,
}

impl Cut {
    fn joined(&self) -> Vec<u8> {
        self.segments.iter().flat_map(|s| s.data.to_vec()).collect()
    }
}

fn cut_with(config: Config, pieces: &[&[u8]]) -> Result<Cut, InputError> {
    let mut segmenter = Segmenter::new(config);
    let mut segments = Vec::new();
    for piece in pieces {
        segmenter.push(piece)?;
        segments.extend(std::iter::from_fn(|| segmenter.next_segment()));
    }
    segmenter.finish()?;
    segments.extend(std::iter::from_fn(|| segmenter.next_segment()));
    Ok(Cut {
        segments,
        warnings: segmenter.warnings(),
    })
}

fn cut(input: &[u8]) -> Cut {
    let cut = cut_with(Config::default(), &[input]).expect("the input can be cut");
    assert_eq!(cut.joined(), input, "segments are the input");
    for (index, segment) in cut.segments.iter().enumerate() {
        assert_eq!(segment.index, index as u64);
        assert_eq!(segment.len, segment.data.len());
    }
    for pair in cut.segments.windows(2) {
        assert_eq!(pair[0].start + pair[0].duration, pair[1].start);
    }
    cut
}

fn failure(input: &[u8]) -> InputError {
    cut_with(Config::default(), &[input])
        .err()
        .expect("the input cannot be cut")
}

/// `seconds` of 25 frames each, key frame first; `tables` before each key frame.
fn video(seconds: u64, flagged: bool, tables: bool, origin: u64) -> Vec<u8> {
    let mut mux = Mux::default();
    mux.tables(H264_AND_AAC);
    for frame in 0..seconds * 25 {
        let key = frame % 25 == 0;
        if key && tables && frame > 0 {
            mux.tables(H264_AND_AAC);
        }
        let dts = origin + frame * 3600;
        mux.frame(
            VIDEO,
            Frame {
                pts: Some(dts + 7200),
                dts: Some(dts),
                flagged: flagged && key,
                bitstream: if key { H264_KEY } else { H264_INTER },
                padding: 700,
                ..Frame::default()
            },
        );
        mux.frame(
            AUDIO,
            Frame {
                pts: Some(dts),
                padding: 90,
                flagged: true,
                ..Frame::default()
            },
        );
    }
    mux.bytes
}

fn durations(cut: &Cut) -> Vec<u128> {
    cut.segments
        .iter()
        .map(|s| s.duration.as_millis())
        .collect()
}

#[test]
fn the_clip_is_cut_at_each_of_its_key_frames() {
    let cut = cut(CLIP);
    assert_eq!(durations(&cut), [1000; 12]);
    assert!(cut.warnings.is_empty(), "{}", cut.warnings);
    for segment in &cut.segments {
        assert_eq!(segment.starts, Start::KeyFrame);
        assert!(segment.has_tables);
        assert_eq!(segment.len % PACKET, 0);
        let first = cut.segments[0].start_pts.expect("stamped");
        assert_eq!(segment.start_pts, Some(first + segment.index * SECOND));
    }
}

#[test]
fn key_frames_are_found_with_and_without_the_flag() {
    for flagged in [true, false] {
        let cut = cut(&video(4, flagged, true, 0));
        assert_eq!(durations(&cut), [1000; 4], "flagged: {flagged}");
        assert!(
            cut.segments
                .iter()
                .all(|s| s.has_tables && s.starts == Start::KeyFrame)
        );
    }
}

#[test]
fn without_tables_in_between_the_key_frame_itself_begins_a_segment() {
    let cut = cut(&video(3, true, false, 0));
    let tables: Vec<bool> = cut.segments.iter().map(|s| s.has_tables).collect();
    assert_eq!(tables, [true, false, false]);
    assert_eq!(durations(&cut), [1000; 3]);
}

#[test]
fn durations_are_right_across_the_wrap() {
    let cut = cut(&video(4, true, true, STAMP_MASK - 3 * SECOND / 2));
    assert_eq!(durations(&cut), [1000; 4]);
    assert_eq!(cut.warnings.jumps, 0);
    let pts: Vec<u64> = cut.segments.iter().filter_map(|s| s.start_pts).collect();
    assert!(pts[2] < pts[0], "stamps wrapped: {pts:?}");
}

#[test]
fn a_loop_of_the_input_goes_on() {
    let twice = [CLIP, CLIP].concat();
    let cut = cut(&twice);
    assert_eq!(cut.segments.len(), 24);
    assert_eq!(cut.warnings.jumps, 1);
    let total: Duration = cut.segments.iter().map(|s| s.duration).sum();
    assert_eq!(total, Duration::from_secs(24));
}

#[test]
fn key_frames_closer_than_the_minimum_do_not_cut() {
    let config = Config {
        min_duration: Duration::from_millis(2500),
        ..Config::default()
    };
    let cut = cut_with(config, &[CLIP]).expect("fine");
    assert_eq!(durations(&cut), [3000; 4]);
    assert_eq!(cut.joined(), CLIP);
}

#[test]
fn audio_alone_is_cut_by_time() {
    let mut mux = Mux::default();
    for frame in 0..200_u64 {
        if frame % 20 == 0 {
            mux.tables(&[(AUDIO, 0x0f)]);
        }
        mux.frame(
            AUDIO,
            Frame {
                pts: Some(frame * 1920),
                padding: 300,
                ..Frame::default()
            },
        );
    }
    let cut = cut(&mux.bytes);
    assert!(cut.segments.len() >= 4, "{:?}", durations(&cut));
    for segment in &cut.segments {
        assert_eq!(segment.starts, Start::Frame);
        assert!(segment.start_pts.is_some());
    }
    let total: Duration = cut.segments.iter().map(|s| s.duration).sum();
    assert_eq!(total, ticks_to_duration(200 * 1920));
}

#[test]
fn streams_without_time_stamps_are_cut_by_the_clock_reference() {
    let mut mux = Mux::default();
    mux.tables(&[(AUDIO, 0x0f)]);
    for frame in 0..100_u64 {
        mux.clock(AUDIO, frame * 4500);
        mux.frame(
            AUDIO,
            Frame {
                padding: 300,
                ..Frame::default()
            },
        );
    }
    let cut = cut(&mux.bytes);
    assert_eq!(durations(&cut), [1000, 1000, 1000, 1000, 1000]);
}

#[test]
fn video_without_key_frames_is_cut_by_time_with_a_warning() {
    let mut mux = Mux::default();
    mux.tables(H264_AND_AAC);
    for frame in 0..25 * 25_u64 {
        mux.frame(
            VIDEO,
            Frame {
                pts: Some(frame * 3600),
                bitstream: H264_INTER,
                padding: 100,
                ..Frame::default()
            },
        );
    }
    let cut = cut(&mux.bytes);
    assert_eq!(durations(&cut), [10_000, 10_000, 5000]);
    assert_eq!(cut.warnings.forced_cuts, 2);
    assert!(cut.segments.iter().all(|s| s.starts == Start::Elsewhere));
}

#[test]
fn video_that_is_announced_but_never_comes_does_not_stop_the_cuts() {
    let mut mux = Mux::default();
    mux.tables(H264_AND_AAC);
    for frame in 0..1250_u64 {
        mux.frame(
            AUDIO,
            Frame {
                pts: Some(frame * 1800),
                padding: 100,
                ..Frame::default()
            },
        );
    }
    let cut = cut(&mux.bytes);
    assert_eq!(durations(&cut), [10_000, 10_000, 5000]);
}

#[test]
fn no_segment_passes_the_size_limit() {
    let config = Config {
        max_bytes: 10_000,
        ..Config::default()
    };
    let cut = cut_with(config, &[CLIP]).expect("fine");
    assert_eq!(cut.joined(), CLIP);
    assert!(
        cut.segments
            .iter()
            .all(|s| s.len <= 10_000 && s.len % PACKET == 0)
    );
    assert!(cut.warnings.forced_cuts > 80);
    let total: Duration = cut.segments.iter().map(|s| s.duration).sum();
    assert_eq!(total, Duration::from_secs(12));
}

#[test]
fn padding_and_clocks_between_tables_and_key_frame_do_not_part_them() {
    let mut mux = Mux::default();
    for second in 0..3_u64 {
        mux.tables(H264_AND_AAC)
            .null()
            .clock(VIDEO, second * SECOND);
        for frame in 0..10 {
            mux.frame(
                VIDEO,
                Frame {
                    pts: Some(second * SECOND + frame * 9000),
                    flagged: frame == 0,
                    bitstream: H264_INTER,
                    ..Frame::default()
                },
            );
        }
    }
    let cut = cut(&mux.bytes);
    assert_eq!(durations(&cut), [1000; 3]);
    assert!(cut.segments.iter().all(|s| s.has_tables));
}

#[test]
fn what_is_cut_off_or_damaged_passes_through_with_a_warning() {
    let mut input = CLIP[..300_000].to_vec();
    let cut_off = cut(&input);
    assert_eq!(cut_off.warnings.trailing_bytes, 300_000 % PACKET as u64);

    input.splice(188 * 500..188 * 500, [0x11; 77]);
    let damaged = cut(&input);
    assert_eq!(damaged.warnings.junk_bytes, 77);

    input.drain(..100);
    let joined_late = cut(&input);
    assert_eq!(joined_late.warnings.junk_bytes, 77 + 88);
    assert!(!joined_late.segments[0].has_tables);
}

#[test]
fn what_is_not_a_transport_stream_is_refused_with_its_reason() {
    assert_eq!(failure(b""), InputError::Empty);
    for input in [&b"hello"[..], &[0; 300], &[0; 200_000], &[SYNC; 100]] {
        assert_eq!(
            failure(input),
            InputError::NotMpegTs { looks_like: None },
            "{} bytes",
            input.len()
        );
    }
    let mut mp4 = b"\0\0\0\x20ftypisom".to_vec();
    mp4.resize(5000, 0);
    assert_eq!(
        failure(&mp4),
        InputError::NotMpegTs {
            looks_like: Some("MP4")
        }
    );
    let m2ts: Vec<u8> = CLIP
        .chunks(188)
        .take(50)
        .flat_map(|p| [&[0, 0, 0, 9], p].concat())
        .collect();
    assert_eq!(
        failure(&m2ts),
        InputError::NotMpegTs {
            looks_like: Some("M2TS with 192-byte packets")
        }
    );
    let error = failure(b"hello");
    assert_eq!(
        format!("{error}. {}", error.remedy()),
        "the input is not MPEG-TS: there are no sync bytes 188 bytes apart. \
         Convert it first: ffmpeg -i INPUT -c copy -f mpegts OUTPUT.ts"
    );
}

#[test]
fn a_stream_that_ends_in_noise_is_refused_when_the_search_is_over() {
    let mut input = CLIP[..188 * 1000].to_vec();
    input.resize(input.len() + MAX_JUNK + 2000, 0);
    assert_eq!(
        failure(&input),
        InputError::LostSync {
            at: 188_000,
            searched: MAX_JUNK
        }
    );
}

#[test]
fn packets_without_tables_are_refused() {
    let bare: Vec<u8> = CLIP
        .chunks(PACKET)
        .filter(|p| ![0, PMT].contains(&(u16::from(p[1] & 0x1f) << 8 | u16::from(p[2]))))
        .flatten()
        .copied()
        .collect();
    assert!(matches!(failure(&bare), InputError::NoTables { .. }));
    let long = bare.repeat(6);
    assert!(matches!(
        failure(&long),
        InputError::NoTables { searched } if searched < 6_000_000
    ));
}

#[test]
fn an_error_stays() {
    let mut segmenter = Segmenter::new(Config::default());
    let error = segmenter.push(&[0; 100_000]).expect_err("no packets");
    assert_eq!(segmenter.push(CLIP), Err(error.clone()));
    assert_eq!(segmenter.finish(), Err(error));
    assert_eq!(segmenter.next_segment(), None);
    assert_eq!(segmenter.take_early(), None);
}

#[test]
fn early_bytes_and_the_rest_make_the_same_segments() {
    let whole = cut(CLIP);
    for piece in [1000, 188, 4096, 65_536] {
        let mut segmenter = Segmenter::new(Config::default());
        let mut early: Vec<Vec<u8>> = vec![Vec::new(); whole.segments.len() + 1];
        let mut seen = Vec::new();
        let mut fetch = |segmenter: &mut Segmenter| {
            while let Some(segment) = segmenter.next_segment() {
                early[segment.index as usize].extend(&segment.data);
                seen.push(segment);
            }
            if let Some(bytes) = segmenter.take_early() {
                early[bytes.index as usize].extend(&bytes.data);
            }
        };
        for bytes in CLIP.chunks(piece) {
            segmenter.push(bytes).expect("fine");
            fetch(&mut segmenter);
        }
        segmenter.finish().expect("fine");
        fetch(&mut segmenter);
        assert_eq!(seen.len(), whole.segments.len());
        for (segment, expected) in seen.iter().zip(&whole.segments) {
            assert_eq!(early[segment.index as usize], expected.data);
            assert_eq!(segment.len, expected.len);
            assert_eq!(
                (segment.starts, segment.has_tables, segment.duration),
                (expected.starts, expected.has_tables, expected.duration)
            );
        }
    }
}

/// Splits `input` at the given places.
fn pieces<'a>(input: &'a [u8], at: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = at.iter().map(|i| i.index(input.len() + 1)).collect();
    at.extend([0, input.len()]);
    at.sort_unstable();
    at.windows(2).map(|w| &input[w[0]..w[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn how_the_bytes_come_changes_nothing(
        at in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
        seconds in 1_u64..5, flagged: bool, tables: bool, origin in 0..=STAMP_MASK,
        max_bytes in prop_oneof![Just(1 << 20), 188_usize..30_000],
        end in any::<prop::sample::Index>(),
    ) {
        let input = video(seconds, flagged, tables, origin);
        let input = &input[..input.len() - end.index(PACKET * 3)];
        let config = Config { max_bytes, ..Config::default() };
        let whole = cut_with(config, &[input]);
        let parts = cut_with(config, &pieces(input, &at));
        match (whole, parts) {
            (Ok(whole), Ok(parts)) => {
                prop_assert_eq!(&whole.segments, &parts.segments);
                prop_assert_eq!(whole.warnings, parts.warnings);
                prop_assert_eq!(whole.joined(), input);
            }
            (whole, parts) => prop_assert_eq!(whole.err(), parts.err()),
        }
    }

    #[test]
    fn no_input_panics_and_none_is_changed(
        noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..200),
        at in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        seconds in 1_u64..4,
    ) {
        let mut input = video(seconds, false, true, 0);
        for (place, byte) in &noise {
            let place = place.index(input.len());
            input[place] = *byte;
        }
        if let Ok(cut) = cut_with(Config::default(), &pieces(&input, &at)) {
            prop_assert_eq!(cut.joined(), input);
        }
    }

    #[test]
    fn hostile_bytes_are_refused_or_passed(
        bytes in proptest::collection::vec(any::<u8>(), 0..4000), aligned: bool,
    ) {
        let mut input = bytes;
        if aligned {
            for packet in input.chunks_mut(PACKET) {
                packet[0] = SYNC;
            }
        }
        if let Ok(cut) = cut_with(Config::default(), &[&input]) {
            prop_assert_eq!(cut.joined(), input);
        }
    }
}
