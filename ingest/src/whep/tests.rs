use bytes::Bytes;
use livepeer_core::machine::{Machine as _, Output};
use livepeer_core::rng::Rng;
use livepeer_media::demux::{self, Demux};
use livepeer_media::frame::AudioTrack;
use livepeer_media::timeline::{Clocks, Timeline};

use super::*;
use crate::bridge::{self, Bridge, Source};

#[test]
fn no_frame_was_captured_later_than_it_came() {
    let mut stream = Stream::default();
    let begun = Time::from_secs(5);
    // The first was held up while the job started, and the others come sooner.
    for (after, millis) in [(0, 0), (10, 500), (20, 1_000), (300, 1_020)] {
        let now = begun + Duration::from_millis(after);
        let pts = stream.place(now, Ticks(90 * millis));
        assert!(stream.captured(pts) <= now, "{millis}");
    }
    let first = stream.captured(Ticks(0));
    assert_eq!(begun.since(first), Duration::from_millis(980) + LEEWAY);
}

/// The stamps of the packets that viewers get, in milliseconds, of one that comes so long after the beginning.
fn play(stream: &mut Stream, after: u64, millis: i64) -> Vec<i64> {
    let audio = Audio {
        pts: Ticks(90 * millis),
        track: AudioTrack::Opus { channels: 2 },
        data: Bytes::new(),
    };
    let now = Time::from_secs(5) + Duration::from_millis(after);
    let sent = stream.audio(now, &audio).map(|(pts, _)| pts.0 / 90);
    sent.collect()
}

#[test]
fn old_sound_of_a_burst_is_left_out_and_what_follows_is_in_step() {
    let mut stream = Stream::default();
    // Three seconds wait for the job, and come at once.
    for millis in (0..3_000).step_by(20) {
        assert!(play(&mut stream, 0, millis).is_empty(), "{millis}");
    }
    // From then on sound comes as it is made, some of it late and some of it sooner than before.
    let mut sent = Vec::new();
    for packet in 0..100 {
        let late = [0, 7, 30, 2][packet as usize % 4];
        let after = 20 * (packet + 1) + late;
        sent.extend(play(&mut stream, after, 3_000 + 20 * packet as i64));
    }
    let first = sent[0];
    assert!((2_900..=3_040).contains(&first), "{first}");
    let wanted: Vec<i64> = (first..=4_980).step_by(20).collect();
    assert_eq!(sent, wanted, "without a hole");
    stream.restart();
    assert!(
        play(&mut stream, 9_000, 0).is_empty(),
        "a break begins anew"
    );
    assert!(play(&mut stream, 9_080, 80).is_empty());
    assert_eq!(play(&mut stream, 9_100, 100), [0, 80, 100]);
}

#[test]
fn pictures_are_not_reported_of_before_their_sound() {
    let mut stream = Stream::default();
    let begun = Time::from_secs(5);
    let at = |millis: u64| begun + Duration::from_millis(millis);
    stream.place(at(0), Ticks(0));
    assert!(stream.is_settled(at(210)), "without any");
    // Most of it comes half a second later, and as much sooner than the first.
    play(&mut stream, 5, 0);
    assert!(!stream.is_settled(at(510)));
    for millis in (20..1_200).step_by(20) {
        play(&mut stream, 520, millis);
    }
    let first = stream.captured(Ticks(0));
    assert!(!stream.is_settled(at(610)));
    for millis in (1_200..1_700).step_by(20) {
        play(&mut stream, millis as u64 - 660, millis);
    }
    assert!(stream.is_settled(at(1_040)));
    assert_eq!(stream.captured(Ticks(0)), first, "and stays so");
}

#[test]
fn sound_of_a_job_that_gives_it_in_bursts_is_held_for_a_second_and_has_no_hole() {
    for every in [40, 120, 300, 1_000, 2_000] {
        let mut stream = Stream::default();
        let mut sent = Vec::new();
        for packet in 0..500 {
            let millis = 20 * packet;
            let after = (millis as u64).next_multiple_of(every);
            sent.extend(play(&mut stream, after, millis));
        }
        let first = *sent.first().expect("it is sent");
        assert!(first <= 1_000 + 2 * every as i64, "{every}: {first}");
        let wanted: Vec<i64> = (first..10_000).step_by(20).collect();
        assert_eq!(sent, wanted, "every {every} ms");
    }
}

/// A packet comes alone, and the burst a moment later; or a few, and the burst after a pause.
#[test]
fn sound_of_a_stream_whose_job_begins_with_bursts_has_no_hole() {
    for (alone, pause) in [(1, 12), (1, 60), (2, 90), (3, 500), (10, 150), (1, 900)] {
        let mut stream = Stream::default();
        let backlog = 1_500;
        let mut sent = Vec::new();
        for packet in 0..200 {
            let millis = 20 * packet;
            let made = (millis as u64).max(backlog);
            let after = if packet < alone {
                made
            } else {
                made.max(backlog + pause)
            };
            sent.extend(play(&mut stream, after, millis));
        }
        let wanted: Vec<i64> = (sent[0]..4_000).step_by(20).collect();
        assert_eq!(sent, wanted, "{alone}, then {pause} ms");
        assert!(sent[0] as u64 <= backlog + pause + 200, "{}", sent[0]);
    }
}

#[test]
fn of_sound_that_catches_up_viewers_get_a_little() {
    let mut stream = Stream::default();
    let sent = (0..=100)
        .step_by(20)
        .flat_map(|millis| play(&mut stream, millis as u64, millis));
    assert_eq!(sent.count(), 6, "it is held, and all of it sent");
    // The job was held up for a while before, and is not any more.
    let burst = (120..2_000).step_by(20);
    let sent = burst.flat_map(|millis| play(&mut stream, 100, millis));
    assert_eq!(sent.count(), 5, "100 ms");
    assert_eq!(play(&mut stream, 120, 2_000), [2_000]);
}

/// A machine that has other things to do for the first second and a half: what comes waits for up to `stall` milliseconds each
/// time. When it takes what comes at those times.
fn taken(rng: &mut Rng, stall: u64, times: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut wake = 0;
    let take = |time| {
        while wake < time {
            wake += 1 + rng.below(if wake < 1_500 { stall } else { 10 });
        }
        wake
    };
    times.map(take).collect()
}

/// Plays three seconds from a sender, whose sound is behind its pictures at first, through bridge and job to a viewer of a
/// machine that stalls. The silences that the bridge put in, and the longest hole in what the viewer hears.
fn begin_under_load(seed: u64, stall: u64, lag: u64) -> (u64, i64) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let mut rng = Rng::new(bytes);
    let at = |millis: u64| Time::from_secs(5) + Duration::from_millis(millis);
    let mut bridge = Bridge::new(at(0), bridge::Config::default());
    let (clocks, sound) = (Clocks::Shared, true);
    bridge.source(at(0), Source { clocks, sound });
    let pictures = (0..75).map(|n| (40 * n, None));
    let sounds = (0..150).map(|n| (20 * n + lag * 150_u64.saturating_sub(2 * n) / 150, Some(n)));
    let mut frames: Vec<_> = pictures.chain(sounds).collect();
    frames.sort_unstable();
    let times = taken(&mut rng, stall, frames.iter().map(|(made, _)| *made));
    let mut written = Vec::new();
    for ((made, sound), now) in frames.into_iter().zip(times) {
        match sound {
            Some(packet) => bridge.audio(
                at(now),
                Audio {
                    pts: Ticks::from_millis(20 * packet as i64),
                    track: AudioTrack::Opus { channels: 2 },
                    data: Bytes::from_static(&[0xfc, 1, 2, 3]),
                },
            ),
            None => {
                let key = made % 1_000 == 0;
                let pts = Ticks::from_millis(made as i64);
                let nal = if key { 0x65 } else { 0x41 };
                let data = vec![0, 0, 0, 1, nal, 0x9a, 2].into();
                let dts = pts;
                bridge.video(
                    at(now),
                    AccessUnit {
                        pts,
                        dts,
                        key,
                        data,
                    },
                );
            }
        }
        loop {
            match bridge.poll_output() {
                Output::Event(bridge::Event::Write(data)) => written.push((now, data)),
                Output::Idle(_) => break,
                _ => {}
            }
        }
    }
    let times = taken(&mut rng, stall, written.iter().map(|(left, _)| *left));
    let (mut demux, mut stream) = (Demux::new(), Stream::default());
    let mut timeline = Timeline::new(Clocks::Shared);
    let mut heard = Vec::new();
    for ((_, data), now) in written.iter().zip(times) {
        demux.push(data).expect("MPEG-TS");
        while let Some(event) = demux.next_event() {
            let arrival = Duration::from_nanos(at(now).as_nanos());
            match event {
                demux::Event::Video(unit) => {
                    let (pts, dts) = timeline.video(arrival, unit.pts, unit.dts);
                    stream.video(at(now), &AccessUnit { pts, dts, ..unit });
                }
                demux::Event::Audio(audio) => {
                    let pts = timeline.audio(arrival, audio.pts).expect("a place");
                    let sent = stream.audio(at(now), &Audio { pts, ..audio });
                    heard.extend(sent.map(|(pts, _)| pts.0 / 90));
                }
                _ => {}
            }
        }
    }
    let steps = heard.windows(2).map(|two| two[1] - two[0] - 20);
    (bridge.figures().silences, steps.max().expect("sound"))
}

#[test]
fn sound_of_a_stream_that_begins_on_a_busy_machine_is_not_taken_for_silence() {
    for (stall, lag, hole) in [
        (10, 0, 0),
        (60, 0, 0),
        // No longer than both stalls of what was late by more than viewers get.
        (60, 400, 120),
        (100, 200, 200),
        (200, 200, 400),
    ] {
        for seed in 0..60 {
            let (silences, found) = begin_under_load(seed, stall, lag);
            assert_eq!(silences, 0, "{seed}: {stall} ms, {lag} ms");
            assert!(
                found <= hole,
                "{seed}: {stall} ms, {lag} ms: a hole of {found} ms"
            );
        }
    }
}
