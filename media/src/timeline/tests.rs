use proptest::prelude::*;

use super::*;

const FRAME: i64 = 3000;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The places of pictures that are stamped so, each shown when it is decoded and arriving 33 ms after the one before.
fn places(timeline: &mut Timeline, stamps: &[i64]) -> Vec<i64> {
    let frames = stamps.iter().zip((0..).step_by(33));
    frames
        .map(|(stamp, millis)| timeline.video(at(millis), Ticks(*stamp), Ticks(*stamp)).1.0)
        .collect()
}

#[test]
fn stamps_of_every_width_are_unwrapped() {
    for bits in [31, 32, 33] {
        let modulus = 1_u64 << bits;
        let mut unwrap = Unwrap::new(bits);
        let stamps = [modulus - 2, 4, 1, modulus - 1, modulus / 2 - 3];
        let expected = [-2, 4, 1, -1, modulus as i64 / 2 - 3].map(|stamp| stamp + modulus as i64);
        assert_eq!(stamps.map(|stamp| unwrap.next(stamp)), expected);
    }
}

#[test]
fn a_job_begins_at_one_second_and_time_goes_on_as_the_stamps_do() {
    let mut timeline = Timeline::new(Clocks::Apart);
    let stamps = [1_839_682_065, 1_839_685_065, 1_839_685_155, 1_839_688_305];
    assert_eq!(
        places(&mut timeline, &stamps),
        [90_000, 93_000, 93_090, 96_240]
    );
    assert_eq!(timeline.jumps(), 0);
}

/// Media spec 8, rows 19 and 49.
#[test]
fn a_jump_of_either_direction_counts_as_one_frame() {
    for jump in [-1, -1_000_000_000, MAX_STEP.0 + 1, 1 << 60] {
        let mut timeline = Timeline::new(Clocks::Apart);
        let stamps = [0, FRAME, 2 * FRAME, 2 * FRAME + jump, 3 * FRAME + jump];
        let expected = [0, 1, 2, 3, 4].map(|frames| ORIGIN.0 + frames * FRAME);
        assert_eq!(places(&mut timeline, &stamps), expected, "a jump of {jump}");
        assert_eq!(timeline.jumps(), 1);
    }
    // Up to ten seconds, it is a pause.
    let mut timeline = Timeline::new(Clocks::Apart);
    let pause = places(&mut timeline, &[0, FRAME, FRAME + MAX_STEP.0]);
    assert_eq!(pause[2] - pause[1], MAX_STEP.0);
    assert_eq!(timeline.jumps(), 0);
}

#[test]
fn equal_stamps_take_a_tick_each() {
    let mut timeline = Timeline::new(Clocks::Shared);
    let same = places(&mut timeline, &[7, 7, 7, FRAME + 7]);
    assert_eq!(same, [90_000, 90_001, 90_002, 93_000]);
}

#[test]
fn another_source_follows_the_last_frame_of_either_track() {
    let mut timeline = Timeline::new(Clocks::Shared);
    places(&mut timeline, &[0, FRAME]);
    assert_eq!(timeline.audio(at(40), Ticks(9000)), Some(Ticks(99_000)));
    timeline.restart(Clocks::Apart);
    let (_, first) = timeline.video(at(5000), Ticks(1 << 40), Ticks(1 << 40));
    assert_eq!(first, Ticks(99_000));
    // Sound that arrives 20 ms later belongs 20 ms later.
    assert_eq!(timeline.audio(at(5020), Ticks(5)), Some(Ticks(100_800)));
    assert_eq!(timeline.jumps(), 0, "a new source is none");
}

#[test]
fn sound_of_the_same_clock_keeps_its_distance_over_jumps() {
    for jump in [-500_000_000, 500_000_000] {
        let mut timeline = Timeline::new(Clocks::Shared);
        let mut apart = Vec::new();
        for frame in 0..20 {
            let stamp = frame * FRAME + if frame < 10 { 0 } else { jump };
            let now = at(33 * frame as u64);
            let (_, picture) = timeline.video(now, Ticks(stamp), Ticks(stamp));
            let sound = timeline.audio(now, Ticks(stamp + 600));
            apart.extend(sound.map(|sound| sound - picture));
        }
        assert!(apart.len() >= 19, "one frame of sound may be left out");
        assert!(apart.iter().all(|apart| *apart == Ticks(600)), "{apart:?}");
        assert_eq!(timeline.jumps(), 2, "one a track");
    }
}

#[test]
fn sound_with_a_clock_of_its_own_is_placed_by_arrival_and_moved_by_reports() {
    let mut timeline = Timeline::new(Clocks::Apart);
    timeline.video(at(1000), Ticks(500_000), Ticks(500_000));
    assert_eq!(timeline.audio(at(1100), Ticks(77)), Some(Ticks(99_000)));
    // The reports say that both were taken at the same moment: sound has to move back by 100 ms.
    timeline.report(Kind::Video, Ticks(500_000), 3_000_000);
    timeline.report(Kind::Audio, Ticks(77), 3_000_000);
    let mut sounds = Vec::new();
    for packet in 1..200 {
        let stamp = 77 + packet * 1800;
        sounds.extend(timeline.audio(at(1100 + 20 * packet as u64), Ticks(stamp)));
    }
    assert_eq!(sounds.len(), 199, "nothing is left out");
    let steps = sounds.windows(2).map(|two| two[1] - two[0]);
    assert!(
        steps
            .clone()
            .all(|step| step == Ticks(1800) || step == Ticks(1710))
    );
    assert_eq!(
        sounds[198],
        Ticks(90_000 + 199 * 1800),
        "in step after two seconds"
    );
}

#[test]
fn sound_whose_reports_came_before_it_begins_in_step_however_late_it_arrives() {
    for (late, place) in [
        (109, 94_500),
        (0, 94_500),
        (1_049, 94_500),
        (1_100, 189_000),
    ] {
        let mut timeline = Timeline::new(Clocks::Apart);
        timeline.video(at(1000), Ticks(500_000), Ticks(500_000));
        timeline.report(Kind::Video, Ticks(500_000), 3_000_000);
        timeline.report(Kind::Audio, Ticks(77), 3_050_000);
        let sound = timeline.audio(at(1000 + late), Ticks(77));
        assert_eq!(sound, Some(Ticks(place)), "{late} ms late");
    }
}

#[test]
fn a_report_of_the_stamps_before_a_jump_says_nothing_of_those_after() {
    let mut timeline = Timeline::new(Clocks::Apart);
    for (kind, micros) in [(Kind::Video, 3_000_000), (Kind::Audio, 3_000_000)] {
        timeline.report(kind, Ticks(900_000), micros);
    }
    timeline.video(at(0), Ticks(900_000), Ticks(900_000));
    timeline.audio(at(0), Ticks(900_000));
    // The sound's clock goes back by three seconds.
    let mut before = Ticks(90_000);
    for packet in 1..100 {
        let stamp = Ticks(900_000 - 270_000 + 1800 * packet);
        let sound = timeline.audio(at(20 * packet as u64), stamp);
        let sound = sound.expect("in order");
        assert!(packet == 1 || sound - before == Ticks(1800), "{packet}");
        before = sound;
    }
}

/// Media spec 8, row 25.
#[test]
fn absurd_reports_are_not_believed() {
    for micros in [3_000_000 + 5_001_000, -6_000_000, i64::MIN, i64::MAX] {
        let mut timeline = Timeline::new(Clocks::Apart);
        timeline.video(at(0), Ticks(0), Ticks(0));
        timeline.audio(at(0), Ticks(0));
        timeline.report(Kind::Video, Ticks(0), 3_000_000);
        timeline.report(Kind::Audio, Ticks(0), micros);
        for packet in 1..50 {
            let sound = timeline.audio(at(20 * packet), Ticks(1800 * packet as i64));
            assert_eq!(sound, Some(Ticks(90_000 + 1800 * packet as i64)));
        }
    }
}

#[test]
fn a_camera_that_was_covered_comes_back_beside_its_sound() {
    let mut timeline = Timeline::new(Clocks::Apart);
    timeline.video(at(0), Ticks(0), Ticks(0));
    let mut sound = Ticks::ZERO;
    for packet in 0..1500 {
        sound = timeline
            .audio(at(20 * packet), Ticks(1800 * packet as i64))
            .expect("in order");
    }
    let stamp = Ticks::from_millis(30_000);
    let (_, picture) = timeline.video(at(30_000), stamp, stamp);
    assert_eq!(picture, sound);
}

#[test]
fn pictures_are_shown_at_most_ten_seconds_after_they_are_decoded_and_never_before() {
    let mut timeline = Timeline::new(Clocks::Shared);
    for (composition, expected) in [
        (0, 0),
        (3000, 3000),
        (-9000, 0),
        (i64::MAX, MAX_COMPOSITION.0),
        (i64::MIN, 0),
    ] {
        let (pts, dts) = timeline.video(at(0), Ticks(composition), Ticks(0));
        assert_eq!((pts - dts).0, expected);
    }
}

#[test]
fn decoding_times_are_the_pictures_times_in_order() {
    let mut order = Reorder::new(1);
    let pts = [0, 3, 1, 2, 6, 4, 5].map(|frame| frame * FRAME);
    let mut order_of = |pts: i64| order.next(Ticks(pts)).0;
    let dts = pts.map(&mut order_of);
    assert!(dts.windows(2).all(|two| two[0] < two[1]), "{dts:?}");
    assert!(dts.iter().zip(pts).all(|(dts, pts)| *dts <= pts), "{dts:?}");
    let mut none = Reorder::new(0);
    assert_eq!(pts.map(|pts| none.next(Ticks(pts)).0)[..2], [0, 9000]);
}

#[test]
fn microseconds_of_safari_become_ticks() {
    let phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_4 like Mac OS X)";
    let mut fix = Microseconds::new(phone);
    let micros = [5_000_000, 5_033_333, 5_066_666, 6_000_000];
    let fixed: Vec<_> = micros
        .iter()
        .map(|stamp| fix.next(Duration::from_micros((stamp - 5_000_000) as u64), *stamp))
        .collect();
    assert_eq!(fixed, [5_000_000, 5_002_999, 5_005_999, 5_090_000]);
    // Ticks stay ticks, and so do those of browsers that are none of these.
    for (agent, rate, scaled) in [
        ("", 1_000_000, true),
        ("", 90_000, false),
        ("Version/18.5 Safari", 1_000_000, true),
        ("Version/18.6 iPhone", 1_000_000, false),
        ("Chrome/156", 1_000_000, false),
    ] {
        let mut fix = Microseconds::new(agent);
        fix.next(at(0), 0);
        // The first picture often comes twice.
        assert_eq!(fix.next(at(1), 0), 0);
        let next = fix.next(at(1000), rate);
        assert_eq!(next, if scaled { rate * 9 / 100 } else { rate }, "{agent}");
    }
}

proptest! {
    #[test]
    fn time_only_goes_forward(
        clocks in prop::sample::select(vec![Clocks::Shared, Clocks::Apart]),
        frames in prop::collection::vec((any::<bool>(), 0_u64..200, prop_oneof![-5000..2_000_000_i64, any::<i64>()], any::<i64>(), 0..20_u8), 1..100),
    ) {
        let mut timeline = Timeline::new(clocks);
        let (mut picture, mut sound, mut arrival) = (i64::MIN, i64::MIN, at(0));
        for (is_video, pause, stamp, other, act) in frames {
            arrival += at(pause);
            match act {
                0 => timeline.restart(clocks),
                1 => timeline.report(Kind::Video, Ticks(stamp), other),
                2 => timeline.report(Kind::Audio, Ticks(stamp), other),
                _ => {}
            }
            if is_video {
                let (pts, dts) = timeline.video(arrival, Ticks(other), Ticks(stamp));
                prop_assert!(dts.0 > picture || picture == i64::MAX);
                prop_assert!(pts >= dts && pts - dts <= MAX_COMPOSITION);
                picture = dts.0;
            } else if let Some(place) = timeline.audio(arrival, Ticks(stamp)) {
                prop_assert!(place.0 > sound);
                sound = place.0;
            }
        }
    }
}
