use alloc::vec;

use super::*;
use crate::job::live::media::stamps::TICKS_PER_SECOND;

const START: Time = Time::from_secs(1_000);

fn at(millis: u64) -> Time {
    START + Duration::from_millis(millis)
}

/// A packet with the beginning of a video frame.
fn frame(pts: u64) -> [u8; 188] {
    let mut packet = [0xaa; 188];
    packet[..4].copy_from_slice(&[0x47, 0x41, 0x00, 0x10]);
    packet[4..13].copy_from_slice(&[0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5]);
    packet[13..18].copy_from_slice(&[
        0x21 | (pts >> 29) as u8 & 0x0e,
        (pts >> 22) as u8,
        (pts >> 14) as u8 | 1,
        (pts >> 7) as u8,
        (pts << 1) as u8 | 1,
    ]);
    packet
}

/// The frames from `from` tenths of a second to before `to`.
fn frames(from: u64, to: u64) -> Vec<u8> {
    let stamp = |tenth: u64| (tenth * TICKS_PER_SECOND / 10) & ((1 << 33) - 1);
    (from..to).flat_map(|tenth| frame(stamp(tenth))).collect()
}

/// A log whose output is read.
fn log() -> Log {
    let mut log = Log::new(START, Limits::default(), AHEAD);
    log.expect_answers(true);
    log
}

fn publish(log: &mut Log, bytes: impl Into<Bytes>) {
    log.begin();
    log.write(bytes.into());
    log.end();
}

/// A second of video, ten frames of it.
fn second(log: &mut Log, n: u64) {
    publish(log, frames(n * 10, n * 10 + 10));
}

/// Hands over what may go by now; the segments of the channel, as far as they came, and whether the last has ended.
fn feed(log: &mut Log, now: Time) -> (Vec<Vec<u8>>, bool) {
    let mut all: Vec<Vec<u8>> = Vec::new();
    let mut open = log.open;
    if open {
        all.push(Vec::new());
    }
    let mut seq = log.sent.back().map_or(Seq::ZERO, |sent| sent.seq.next());
    loop {
        match log.next(now) {
            Next::Begin => {
                log.took_begin(now, seq);
                seq = seq.next();
                all.push(Vec::new());
                open = true;
            }
            Next::Join => log.took_join(now),
            Next::Data(data) => {
                all.last_mut().expect("it has begun").extend(data);
                log.took_data();
            }
            Next::End => {
                log.took_end();
                open = false;
            }
            Next::Wait(until) => {
                assert!(until > now, "it does not spin");
                break;
            }
            Next::Nothing => break,
        }
    }
    log.note_sent(|_| u64::MAX);
    (all, open)
}

/// A log of a model that is seen reading at once, as long as segments can begin.
fn feed_reader(log: &mut Log, now: Time) -> Vec<Vec<u8>> {
    log.model_reads();
    let (all, open) = feed(log, now);
    assert!(!open);
    all
}

fn back(log: &mut Log, bytes: &[u8]) {
    log.output(bytes);
    log.output_ended();
}

fn gaps(log: &mut Log) -> Vec<(u64, u64)> {
    core::iter::from_fn(|| log.next_gap())
        .map(|gap| (gap.start, gap.end))
        .collect()
}

#[test]
fn the_first_segment_of_a_channel_takes_what_is_owed_until_the_model_is_seen_reading() {
    let mut log = log();
    for text in ["a", "b", "c"] {
        publish(&mut log, text);
    }
    assert_eq!(feed(&mut log, START), (vec![b"a".to_vec()], true));
    assert_eq!(log.next(START), Next::Wait(at(100)));
    assert_eq!(feed(&mut log, at(100)), (vec![b"bc".to_vec()], true));
    assert_eq!(log.next(at(100)), Next::Wait(at(1_000)));
    log.model_reads();
    assert_eq!(feed(&mut log, at(300)), (vec![Vec::new()], false));
    // The next begins a segment of its own.
    log.output(b"abc");
    log.output_ended();
    publish(&mut log, "d");
    assert_eq!(feed(&mut log, at(300)), (vec![b"d".to_vec()], false));
    assert_eq!((log.answered, log.owed()), (3, Owed::Something));
}

#[test]
fn the_first_segment_ends_after_a_second_or_eight_mebibytes_whether_or_not_anybody_reads() {
    let mut log = self::log();
    publish(&mut log, "a");
    assert!(feed(&mut log, START).1);
    assert!(feed(&mut log, at(999)).1);
    assert!(!feed(&mut log, at(1_000)).1);
    let mut log = self::log();
    publish(&mut log, vec![1; FIRST_OPEN_BYTES]);
    publish(&mut log, "b");
    let (all, open) = feed(&mut log, START);
    assert_eq!((all.len(), open), (2, false));
}

#[test]
fn what_no_output_answers_is_handed_over_again_in_one_segment_and_nothing_else() {
    let mut log = log();
    for text in ["a", "b", "c"] {
        publish(&mut log, text);
    }
    assert_eq!(feed_reader(&mut log, START).len(), 3);
    back(&mut log, b"A");
    log.begin();
    log.write(Bytes::from_static(b"d"));
    assert_eq!(feed(&mut log, START), (vec![b"d".to_vec()], true));
    assert_eq!(log.restart(), (1, 3));
    log.write(Bytes::from_static(b"D"));
    assert_eq!(feed(&mut log, START), (vec![b"b".to_vec()], true));
    assert_eq!(feed(&mut log, at(100)), (vec![b"cdD".to_vec()], true));
    log.model_reads();
    log.end();
    assert!(!feed(&mut log, at(100)).1);
    back(&mut log, b"BCDD");
    assert_eq!((log.answered, log.missing), (4, 0));
    assert_eq!(log.owed(), Owed::Nothing);
    back(&mut log, b"more");
    assert_eq!(log.owed(), Owed::Unknown, "more came than was asked for");
}

#[test]
fn at_full_speed_three_segments_are_ahead_of_what_came_back() {
    let mut log = log();
    for n in 0..8 {
        second(&mut log, n);
    }
    assert_eq!(feed_reader(&mut log, START).len(), 3);
    back(&mut log, &frames(0, 10));
    assert_eq!(feed_reader(&mut log, START).len(), 1);
    back(&mut log, &frames(10, 30));
    assert_eq!(feed_reader(&mut log, START).len(), 2);
    assert_eq!((log.answered, log.matching()), (3, Some(Matching::Clock)));
}

#[test]
fn where_nothing_comes_back_input_goes_on_at_the_pace_of_its_time_stamps() {
    let mut log = log();
    for n in 0..30 {
        second(&mut log, n);
    }
    let mut handed = feed_reader(&mut log, START).len();
    for step in 1..200 {
        handed += feed_reader(&mut log, at(step * 100)).len();
        let media = step / 10;
        let may = 3 + media..=4 + media;
        assert!(
            may.contains(&(handed as u64)),
            "{handed} after {step} tenths"
        );
    }
    // A second of what has no time stamps is a second.
    let mut log = self::log();
    for _ in 0..5 {
        publish(&mut log, "x");
    }
    assert_eq!(feed_reader(&mut log, START).len(), 3);
    assert!(matches!(log.next(START), Next::Wait(due) if due <= at(1_000)));
}

#[test]
fn a_live_source_is_not_held_back_though_its_clock_be_a_little_faster_and_nothing_come_back() {
    let mut log = log();
    log.model_reads();
    let second = Duration::from_micros(999_000);
    let mut now = START;
    for n in 0..1_000 {
        self::second(&mut log, n);
        let (all, open) = feed(&mut log, now);
        assert_eq!((all.len(), open), (1, false), "segment {n}");
        now = now + second;
    }
}

#[test]
fn the_stamps_say_which_segment_is_missing_at_the_front_in_the_middle_and_at_the_end() {
    let mut log = log();
    for n in 0..6 {
        second(&mut log, n);
        feed_reader(&mut log, at(n * 1_000));
    }
    back(&mut log, &frames(10, 20));
    assert_eq!(gaps(&mut log), [(0, 1)]);
    back(&mut log, &frames(40, 50));
    assert_eq!(gaps(&mut log), [(2, 4)]);
    assert_eq!((log.answered, log.missing), (2, 3));
    log.finish();
    assert_eq!(gaps(&mut log), [(5, 6)]);
    assert_eq!((log.answered, log.missing), (2, 4));
}

#[test]
fn output_of_several_segments_in_one_and_of_one_in_several_is_known_by_its_stamps() {
    let mut log = log();
    for n in 0..3 {
        second(&mut log, n);
    }
    feed_reader(&mut log, START);
    back(&mut log, &frames(0, 15));
    assert_eq!(log.answered, 1, "half of the second is owed");
    assert_eq!(log.restart(), (1, 2));
    feed_reader(&mut log, START);
    back(&mut log, &frames(10, 14));
    assert_eq!(log.answered, 1);
    back(&mut log, &frames(14, 20));
    assert_eq!(log.answered, 2);
    back(&mut log, &frames(20, 30));
    assert_eq!((log.answered, log.missing), (3, 0));
}

#[test]
fn a_model_that_drops_frames_loses_nothing() {
    let mut log = log();
    for n in 0..4 {
        second(&mut log, n);
        feed_reader(&mut log, at(n * 1_000));
        // Every third frame, and so not the last one of each second.
        let kept: Vec<u8> = (n * 10..n * 10 + 10)
            .filter(|tenth| tenth % 3 == 0)
            .flat_map(|tenth| frames(tenth, tenth + 1))
            .collect();
        back(&mut log, &kept);
    }
    assert_eq!(log.owed(), Owed::Nothing);
    log.finish();
    assert_eq!((log.answered, log.missing), (4, 0));
}

#[test]
fn half_a_segment_of_output_is_no_answer() {
    let mut log = log();
    second(&mut log, 0);
    second(&mut log, 1);
    feed_reader(&mut log, START);
    back(&mut log, &frames(0, 4));
    assert_eq!(log.owed(), Owed::Something);
    back(&mut log, &frames(10, 20));
    assert_eq!(gaps(&mut log), [(0, 1)]);
}

#[test]
fn what_ended_output_answers_in_part_comes_again_with_its_beginning() {
    let mut log = log();
    for n in 0..3 {
        second(&mut log, n);
    }
    feed_reader(&mut log, START);
    back(&mut log, &frames(0, 10));
    assert_eq!(log.answered_in_part(), None);
    // The upload of the second segment broke off, and the runner ended what there was in order.
    back(&mut log, &frames(10, 14));
    assert_eq!(log.answered_in_part(), Some(1..2));
    assert_eq!(log.restart().0, 1);
    assert_eq!(feed_reader(&mut log, at(10)).concat(), frames(10, 30));
    back(&mut log, &frames(10, 30));
    assert_eq!((log.answered, log.answered_in_part()), (3, None));
}

#[test]
fn output_of_an_upload_that_has_not_left_whole_is_an_answer_only_once_more_output_follows() {
    let whole = frames(0, 10).len() as u64;
    for stamped in [true, false] {
        let mut log = log();
        log.model_reads();
        match stamped {
            true => second(&mut log, 0),
            false => publish(&mut log, vec![1; whole as usize]),
        }
        feed(&mut log, START);
        // The upload breaks off inside the last frame, and the runner ends its output of what there is in order.
        log.note_sent(|_| whole - 80);
        let output = match stamped {
            true => frames(0, 10),
            false => vec![2; 10],
        };
        back(&mut log, &output);
        assert_eq!((log.answered, log.owed()), (0, Owed::Something));
        let mut lost = log.clone();
        assert_eq!(lost.answered_in_part(), Some(0..1));
        assert_eq!(lost.restart(), (0, 1), "the next one has all of it again");
        // The rest leaves. The model may make nothing of it; if it does, that is output of its own.
        log.note_sent(|_| whole);
        log.settled(Seq::ZERO, false);
        assert_eq!((log.answered, log.expects_rest()), (0, true));
        if stamped {
            assert_eq!(log.owed(), Owed::Nothing);
            let mut rest = log.clone();
            back(&mut rest, &[0xaa; 80]);
            assert_eq!((rest.answered, rest.expects_rest()), (1, false));
            assert_eq!(rest.answered_in_part(), None);
        }
        second(&mut log, 1);
        feed(&mut log, at(1_000));
        back(&mut log, &frames(10, 20));
        assert_eq!((log.answered, log.missing), (2, 0), "stamped: {stamped}");
    }
}

#[test]
fn the_rest_of_a_segment_that_no_output_follows_is_missing() {
    let whole = frames(0, 10).len() as u64;
    // The upload breaks off before the last frame or inside it, and the runner ends its output of what there is.
    for came in [9, 10] {
        let mut log = log();
        log.model_reads();
        for n in 0..2 {
            second(&mut log, n);
            feed(&mut log, at(n * 1_000));
        }
        log.note_sent(|seq| if seq == Seq::ZERO { whole - 80 } else { whole });
        back(&mut log, &frames(0, came));
        let mut delivered = log.clone();
        delivered.settled(Seq::ZERO, false);
        assert_eq!(delivered.owed(), Owed::Something, "the next one is");
        delivered.finish();
        assert_eq!(gaps(&mut delivered), [(0, 2)]);
        // The publisher gives the rest up: no tail that a model dropped.
        assert_eq!(log.settled(Seq::ZERO, true), 0..1);
        let mut over = log.clone();
        over.finish();
        assert_eq!(gaps(&mut over), [(0, 2)]);
        let mut passed = log.clone();
        back(&mut passed, &frames(10, 20));
        assert_eq!((gaps(&mut passed), passed.answered), (vec![(0, 1)], 1));
        assert_eq!(log.restart(), (0, 2), "the next one has all of it again");
    }
}

#[test]
fn output_of_what_follows_in_a_segment_of_the_channel_that_was_given_up_answers_what_lies_before() {
    let mut log = log();
    for n in 0..3 {
        second(&mut log, n);
    }
    assert!(feed(&mut log, START).1 && feed(&mut log, at(100)).1);
    assert_eq!(log.settled(Seq::ZERO, true), 0..3);
    back(&mut log, &frames(0, 18));
    assert_eq!((log.answered, log.owed()), (1, Owed::Something));
    log.finish();
    assert_eq!(gaps(&mut log), [(1, 3)]);
}

#[test]
fn by_count_output_of_a_segment_that_is_given_up_later_answers_no_other() {
    for open in [false, true] {
        let mut log = log();
        log.model_reads();
        for text in ["a", "b", "c"] {
            publish(&mut log, text);
        }
        feed(&mut log, START);
        log.note_sent(|seq| u64::from(seq != Seq::ZERO));
        log.output(b"A");
        if !open {
            log.output_ended();
        }
        log.settled(Seq::ZERO, true);
        if open {
            log.output_ended();
        }
        assert_eq!((log.answered, log.missing), (0, 0), "more may follow");
        back(&mut log, b"B");
        assert_eq!((gaps(&mut log), log.answered), (vec![(0, 1)], 1));
        assert_eq!(log.owed(), Owed::Something);
        back(&mut log, b"C");
        assert_eq!((log.answered, log.owed()), (2, Owed::Nothing));
    }
}

#[test]
fn stamps_wrap_and_jump_and_repeat() {
    let mut log = log();
    // The clock wraps between the third frame and the fourth; then it begins anew, and the same comes again.
    let wrap = (1u64 << 33) * 10 / TICKS_PER_SECOND - 3;
    let all = [
        frames(wrap, wrap + 10),
        frames(0, 10),
        frames(0, 10),
        frames(0, 10),
    ];
    for (n, segment) in all.iter().enumerate() {
        publish(&mut log, segment.clone());
        feed_reader(&mut log, at(n as u64 * 1_000));
        back(&mut log, segment);
    }
    assert_eq!((log.answered, log.missing), (4, 0));
    assert_eq!(log.matching(), Some(Matching::Clock));
    // Also in one piece.
    for segment in &all[1..] {
        publish(&mut log, segment.clone());
    }
    feed_reader(&mut log, at(10_000));
    back(&mut log, &all[1..].concat());
    assert_eq!((log.answered, log.missing), (7, 0));
}

#[test]
fn output_that_is_ahead_of_the_input_has_another_clock_and_is_counted() {
    let mut log = log();
    second(&mut log, 0);
    feed_reader(&mut log, START);
    // As a muxer does that shifts its stamps: it looks like the input for a while.
    back(&mut log, &frames(14, 24));
    assert_eq!((log.matching(), log.answered), (Some(Matching::Count), 1));
    for n in 1..4 {
        second(&mut log, n);
        feed_reader(&mut log, at(n * 1_000));
        back(&mut log, &frames(n * 10 + 14, n * 10 + 24));
    }
    assert_eq!((log.answered, log.missing), (4, 0));
}

#[test]
fn by_count_a_missed_or_cut_output_is_a_gap_and_a_segment_given_up_is_answered_by_nobody() {
    let mut log = log();
    for text in ["a", "b", "c", "d", "e"] {
        publish(&mut log, text);
        feed_reader(&mut log, at(60_000));
        log.paced = START;
    }
    back(&mut log, b"A");
    log.output_missed(1);
    assert_eq!(gaps(&mut log), [(1, 2)]);
    log.output(b"c");
    log.output_cut();
    assert_eq!(gaps(&mut log), [(2, 3)]);
    assert_eq!(log.settled(Seq::new(3), true), 3..4);
    back(&mut log, b"E");
    assert_eq!(gaps(&mut log), [(3, 4)]);
    assert_eq!(
        (log.answered, log.missing, log.owed()),
        (2, 3, Owed::Nothing)
    );
}

#[test]
fn what_comes_after_a_silence_that_ended_the_segment_goes_into_another_one() {
    let mut log = log();
    log.model_reads();
    log.begin();
    log.write(frames(0, 5).into());
    feed(&mut log, START);
    log.took_end();
    back(&mut log, &frames(0, 5));
    assert_eq!(
        (log.answered, log.missing),
        (0, 0),
        "half of it is no answer"
    );
    log.write(frames(5, 10).into());
    log.end();
    assert_eq!(feed(&mut log, at(9_000)), (vec![frames(5, 10)], false));
    back(&mut log, &frames(5, 10));
    assert_eq!((log.answered, log.missing), (1, 0));
    // Also without stamps, and if it ended without another byte.
    let mut log = self::log();
    log.model_reads();
    for more in [Some("b"), None] {
        log.begin();
        log.write(Bytes::from_static(b"a"));
        feed(&mut log, START);
        log.took_end();
        back(&mut log, b"A");
        if let Some(more) = more {
            log.write(more.into());
        }
        log.end();
        feed(&mut log, START);
        if more.is_some() {
            back(&mut log, b"B");
        }
    }
    assert_eq!(
        (log.answered, log.missing, log.owed()),
        (2, 0, Owed::Nothing)
    );
}

#[test]
fn what_is_delivered_when_the_reader_leaves_is_answered() {
    let mut log = log();
    for text in ["a", "b"] {
        publish(&mut log, text);
    }
    feed_reader(&mut log, START);
    log.settled(Seq::ZERO, false);
    assert_eq!(log.answered, 0);
    log.expect_answers(false);
    assert_eq!((log.answered, log.begun_in_all()), (1, 2));
}

#[test]
fn without_a_reader_delivery_is_the_answer() {
    let mut log = Log::new(START, Limits::default(), AHEAD);
    for text in ["a", "b", "c"] {
        publish(&mut log, text);
    }
    feed_reader(&mut log, START);
    log.settled(Seq::new(1), false);
    assert_eq!((log.answered, log.restart()), (2, (2, 1)));
}

#[test]
fn no_more_is_kept_than_agreed_and_what_can_not_be_done_again_is_missing() {
    let limits = Limits {
        segments: 2,
        bytes: 3,
    };
    let mut log = Log::new(START, limits, 10);
    log.expect_answers(true);
    for _ in 0..4 {
        publish(&mut log, "ab");
    }
    assert_eq!(feed_reader(&mut log, START).len(), 4);
    publish(&mut log, "cd");
    assert_eq!(log.missing, 0, "it may be answered yet");
    assert_eq!(log.restart().0, 4, "only the new one fits");
    assert_eq!(gaps(&mut log), [(0, 4)]);
    assert_eq!(feed_reader(&mut log, START), [b"cd".to_vec()]);
}
