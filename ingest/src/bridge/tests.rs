use livepeer_media::demux::{self, Demux};
use livepeer_media::{aac, h264, opus};

use super::*;

const START: Time = Time::from_secs(1000);
const SPS: &[u8] = &[
    0x67, 0x42, 0xc0, 0x0d, 0xda, 0x05, 0x06, 0x7e, 0x78, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00,
    0x00, 0x0f, 0x23, 0xc5, 0x0a, 0xa8,
];
const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];
const STEREO: AudioTrack = AudioTrack::Opus { channels: 2 };

fn at(millis: u64) -> Time {
    START + Duration::from_millis(millis)
}

fn unit(millis: i64, key: bool) -> AccessUnit {
    let nals: &[&[u8]] = if key {
        &[SPS, PPS, &[0x65, 0x88, 0x84, 7]]
    } else {
        &[&[0x41, 0x9a, 0x02, 7]]
    };
    let data = nals.iter().flat_map(|nal| [&[0, 0, 0, 1], *nal].concat());
    AccessUnit {
        pts: Ticks::from_millis(millis),
        dts: Ticks::from_millis(millis),
        key,
        data: data.collect(),
    }
}

fn sound(millis: i64) -> Audio {
    Audio {
        pts: Ticks::from_millis(millis),
        track: STEREO,
        data: Bytes::from_static(&[0xfc, 1, 2, 3]),
    }
}

/// A bridge, and all that came out of it.
struct Played {
    bridge: Bridge,
    events: Vec<(Time, Event)>,
    now: Time,
}

impl Played {
    fn new(sound: bool) -> Self {
        let mut bridge = Bridge::new(START, Config::default());
        bridge.source(
            START,
            Source {
                clocks: Clocks::Shared,
                sound,
            },
        );
        let mut played = Self {
            bridge,
            events: Vec::new(),
            now: START,
        };
        played.drain();
        played
    }

    /// Takes what there is; when the bridge wants to be woken.
    fn drain(&mut self) -> Option<Time> {
        loop {
            match self.bridge.poll_output() {
                Output::Event(event) => self.events.push((self.now, event)),
                Output::Idle(wake) => {
                    assert!(
                        wake.is_none_or(|wake| wake > self.now),
                        "a driver would spin"
                    );
                    return wake;
                }
                Output::Effect(..) => unreachable!("a bridge asks for nothing"),
            }
        }
    }

    /// Lets the time pass until `millis` have, and then calls.
    fn at(&mut self, millis: u64, call: impl FnOnce(&mut Bridge, Time)) {
        let until = at(millis);
        while let Some(wake) = self.drain().filter(|wake| *wake < until) {
            self.now = wake;
            self.bridge.handle_input(wake, Input::Tick);
        }
        self.now = until;
        call(&mut self.bridge, until);
        self.drain();
    }

    /// Pictures from `from` up to `to`, each 40 ms, with a key frame every `gop` of them.
    fn pictures(&mut self, from: u64, to: u64, gop: u64) {
        for millis in (from..to).step_by(40) {
            let key = (millis - from).is_multiple_of(40 * gop);
            self.at(millis, |bridge, now| {
                bridge.video(now, unit(millis as i64, key))
            });
        }
    }

    /// The names of what came out since then, in milliseconds after the start, without writes.
    fn told(&self) -> Vec<(u64, String)> {
        let told = self
            .events
            .iter()
            .filter(|(_, event)| !matches!(event, Event::Write(_)));
        told.map(|(when, event)| (when.since(START).as_millis() as u64, format!("{event:?}")))
            .collect()
    }

    fn times_of(&self, event: &Event) -> Vec<u64> {
        let of = self.events.iter().filter(|(_, told)| told == event);
        of.map(|(when, _)| when.since(START).as_millis() as u64)
            .collect()
    }

    /// The bytes of each segment.
    fn segments(&self) -> Vec<Vec<u8>> {
        let mut segments = Vec::new();
        let mut is_open = false;
        for (_, event) in &self.events {
            match event {
                Event::Begin => {
                    assert!(!is_open, "one at a time");
                    is_open = true;
                    segments.push(Vec::new());
                }
                Event::Write(bytes) => {
                    assert!(is_open, "bytes lie in segments");
                    segments
                        .last_mut()
                        .expect("it is open")
                        .extend_from_slice(bytes);
                }
                Event::End => {
                    assert!(is_open, "an end has a beginning");
                    is_open = false;
                }
                _ => {}
            }
        }
        segments
    }

    fn frames(&self) -> Vec<demux::Event> {
        frames(&self.segments().concat())
    }
}

fn frames(bytes: &[u8]) -> Vec<demux::Event> {
    let mut demux = Demux::new();
    demux.push(bytes).expect("MPEG-TS");
    demux.finish();
    std::iter::from_fn(|| demux.next_event()).collect()
}

fn times(frames: &[demux::Event], video: bool) -> Vec<i64> {
    let of = frames.iter().filter_map(|frame| match frame {
        demux::Event::Video(unit) if video => Some(unit.pts.0),
        demux::Event::Audio(audio) if !video => Some(audio.pts.0),
        _ => None,
    });
    of.collect()
}

#[test]
fn segments_are_cut_at_key_frames_after_a_second_and_every_picture_arrives() {
    let mut played = Played::new(false);
    // Key frames every 400 ms: the cut is at the first one after a second.
    played.pictures(0, 4000, 10);
    assert_eq!(played.times_of(&Event::Begin), [0, 1200, 2400, 3600]);
    let segments = played.segments();
    for segment in &segments {
        let frames = frames(segment);
        assert!(
            matches!(frames[0], demux::Event::Tracks(_)),
            "tables come first"
        );
        assert!(matches!(&frames[1], demux::Event::Video(unit) if unit.key));
    }
    let expected: Vec<_> = (0..100).map(|frame| 90_000 + 3600 * frame).collect();
    assert_eq!(times(&played.frames(), true), expected);
    assert_eq!(played.bridge.figures().pictures, 100);
    // One write a picture.
    let writes = played
        .events
        .iter()
        .filter(|(_, event)| matches!(event, Event::Write(_)));
    assert_eq!(writes.count(), 100);
}

#[test]
fn nothing_leaves_before_the_first_key_frame_which_is_asked_for() {
    let mut played = Played::new(false);
    for millis in (0..1200).step_by(40) {
        played.at(millis, |bridge, now| {
            bridge.video(now, unit(millis as i64, false))
        });
    }
    assert_eq!(played.told().len(), played.times_of(&Event::Key).len());
    assert_eq!(played.times_of(&Event::Key), [0, 520, 1040]);
    played.pictures(1200, 1400, 100);
    assert_eq!(played.times_of(&Event::Begin), [1200]);
    assert_eq!(played.bridge.figures().dropped, 30);
    assert_eq!(times(&played.frames(), true)[0], 90_000);
}

#[test]
fn without_key_frames_a_segment_is_cut_after_ten_seconds_with_parameter_sets() {
    let mut played = Played::new(false);
    played.pictures(0, 21_000, 10_000);
    assert_eq!(played.times_of(&Event::Begin), [0, 10_000, 20_000]);
    assert_eq!(
        played.times_of(&Event::Key),
        [2000, 4000, 6000, 8000, 12_000, 14_000, 16_000, 18_000]
    );
    let second = frames(&played.segments()[1]);
    let demux::Event::Video(first) = &second[1] else {
        panic!("a picture comes first");
    };
    let kinds: Vec<_> = h264::nals(&first.data).map(h264::nal_type).collect();
    assert_eq!(kinds, [7, 8, 1]);
    assert_eq!(played.bridge.figures().forced, 2);
    assert_eq!(times(&played.frames(), true).len(), 525);
}

#[test]
fn stamps_that_stand_still_do_not_hold_a_segment_open() {
    let mut played = Played::new(false);
    for millis in (0..25_000).step_by(40) {
        played.at(millis, |bridge, now| {
            bridge.video(now, unit(0, millis == 0))
        });
    }
    assert_eq!(played.times_of(&Event::Begin), [0, 10_000, 20_000]);
}

#[test]
fn sound_is_announced_if_it_comes_in_half_a_second_and_never_later() {
    let mut played = Played::new(true);
    played.at(0, |bridge, now| bridge.video(now, unit(0, true)));
    played.at(40, |bridge, now| bridge.video(now, unit(40, false)));
    assert_eq!(played.told(), [], "it is not known yet");
    played.at(60, |bridge, now| bridge.audio(now, sound(60)));
    assert_eq!(
        played.told()[0],
        (60, "Opened(Some(Opus { channels: 2 }))".to_owned())
    );
    let frames = played.frames();
    assert_eq!(times(&frames, true), [90_000, 93_600]);
    assert_eq!(times(&frames, false), [95_400]);

    let mut silent = Played::new(true);
    silent.pictures(0, 400, 100);
    assert_eq!(silent.told(), []);
    silent.pictures(400, 1000, 100);
    assert_eq!(
        silent.told()[..2],
        [(500, "Opened(None)".to_owned()), (500, "Begin".to_owned())]
    );
    silent.at(1000, |bridge, now| bridge.audio(now, sound(1000)));
    let frames = silent.frames();
    assert_eq!(
        (times(&frames, true).len(), times(&frames, false).len()),
        (25, 0)
    );

    // Sound that came before the first key frame is enough, and is not sent.
    let mut early = Played::new(true);
    early.at(0, |bridge, now| bridge.audio(now, sound(0)));
    early.at(10, |bridge, now| bridge.video(now, unit(10, true)));
    assert_eq!(
        early.told()[0],
        (10, "Opened(Some(Opus { channels: 2 }))".to_owned())
    );
    assert!(times(&early.frames(), false).is_empty());
}

/// Media spec 8, row 24.
#[test]
fn sound_that_stops_is_followed_by_silence_until_it_comes_again() {
    let mut played = Played::new(true);
    for millis in (0..4000_u64).step_by(20) {
        if millis.is_multiple_of(40) {
            played.at(millis, |bridge, now| {
                bridge.video(now, unit(millis as i64, millis.is_multiple_of(1000)))
            });
        }
        if !(1000..3000).contains(&millis) {
            played.at(millis, |bridge, now| {
                bridge.audio(now, sound(millis as i64))
            });
        }
    }
    let frames = played.frames();
    let sounds = times(&frames, false);
    assert!(
        sounds.windows(2).all(|two| two[1] - two[0] == 1800),
        "no gap, no overlap"
    );
    let silences = frames.iter().filter(
        |frame| matches!(frame, demux::Event::Audio(audio) if audio.data == opus::silence(2)),
    );
    let silences = silences.count() as u64;
    assert!((96..=100).contains(&silences), "{silences}");
    assert_eq!(played.bridge.figures().silences, silences);
    let last = times(&frames, true);
    assert!(last[last.len() - 1] - sounds[sounds.len() - 1] < 5400);
}

/// Plays four seconds of pictures, and sound that comes so long after the pictures of its time. The sounds that were sent on.
fn lagging(lag: u64, composition: i64) -> (u64, Figures) {
    let mut played = Played::new(true);
    for millis in (0..4_000_u64).step_by(20) {
        if millis.is_multiple_of(40) {
            let mut unit = unit(millis as i64, millis.is_multiple_of(1_000));
            // Each fourth picture is shown after those that follow.
            if millis.is_multiple_of(160) {
                unit.pts += Ticks::from_millis(composition);
            }
            played.at(millis, |bridge, now| bridge.video(now, unit));
        }
        if let Some(of) = millis.checked_sub(lag) {
            played.at(millis, |bridge, now| bridge.audio(now, sound(of as i64)));
        }
    }
    let frames = played.frames();
    let sounds = times(&frames, false);
    assert!(
        sounds.windows(2).all(|two| two[1] - two[0] == 1_800),
        "{sounds:?}"
    );
    ((4_000 - lag) / 20, played.bridge.figures())
}

#[test]
fn sound_that_comes_behind_its_pictures_is_not_taken_for_silence() {
    for (lag, composition) in [(0, 0), (40, 0), (0, 160), (150, 160), (400, 0), (480, 0)] {
        let (came, figures) = lagging(lag, composition);
        assert_eq!(figures.silences, 0, "{lag} ms: {figures:?}");
        // From its beginning on.
        assert_eq!(figures.sounds, came, "{lag} ms");
    }
}

#[test]
fn aac_has_a_silence_of_its_own() {
    let config = aac::Config::new(48_000, 1).expect("a usual one");
    let track = AudioTrack::Aac(config);
    let mut played = Played::new(true);
    played.at(0, |bridge, now| {
        bridge.audio(now, Audio { track, ..sound(0) });
    });
    played.pictures(0, 1500, 100);
    let sounds: Vec<_> = played
        .frames()
        .into_iter()
        .filter_map(|frame| match frame {
            demux::Event::Audio(audio) => Some(audio),
            _ => None,
        })
        .collect();
    assert!(sounds.len() > 40);
    assert!(
        sounds
            .iter()
            .all(|audio| audio.track == track && audio.data == config.silence().expect("known"))
    );
    assert!(
        sounds
            .windows(2)
            .all(|two| two[1].pts - two[0].pts == Ticks(1920))
    );
}

#[test]
fn a_pause_parks_the_channel_which_is_kept_alive_and_told_to_stall() {
    let mut played = Played::new(false);
    played.pictures(0, 1000, 100);
    played.at(70_000, |_, _| {});
    // The last picture came at 960.
    assert_eq!(played.times_of(&Event::End), [2960, 22_960, 42_960, 62_960]);
    assert_eq!(played.times_of(&Event::Begin), [0, 22_960, 42_960, 62_960]);
    assert_eq!(played.times_of(&Event::Stalled), [60_960]);
    assert_eq!(played.segments()[1].len(), 376);
    // It goes on where it was, with what a decoder needs.
    played.at(70_000, |bridge, now| bridge.video(now, unit(1000, false)));
    assert_eq!(played.times_of(&Event::Flows), [70_000]);
    let last = frames(played.segments().last().expect("it was begun"));
    assert!(matches!(&last[1], demux::Event::Video(unit) if h264::nals(&unit.data).count() == 3));
    assert_eq!(times(&last, true), [180_000]);
}

#[test]
fn after_a_loss_in_a_pause_a_key_frame_is_waited_for() {
    let mut played = Played::new(false);
    played.pictures(0, 400, 100);
    // In a segment, the next pictures go on: decoders conceal.
    played.at(400, |bridge, now| bridge.lost(now));
    played.pictures(401, 440, 100);
    assert_eq!(played.times_of(&Event::Key), [400]);
    played.at(5000, |bridge, now| bridge.lost(now));
    played.at(5000, |bridge, now| bridge.video(now, unit(5000, false)));
    played.at(5040, |bridge, now| bridge.video(now, unit(5040, false)));
    assert_eq!(played.times_of(&Event::Begin), [0]);
    assert_eq!(played.times_of(&Event::Key), [400, 5000]);
    played.at(5080, |bridge, now| bridge.video(now, unit(5080, true)));
    assert_eq!(played.times_of(&Event::Begin), [0, 5080]);
    assert_eq!(played.bridge.figures().dropped, 2);
}

#[test]
fn a_job_that_takes_nothing_loses_whole_pictures_up_to_a_key_frame() {
    let mut played = Played::new(true);
    let mut play = |from: u64, to: u64| {
        for millis in (from..to).step_by(20) {
            if millis.is_multiple_of(40) {
                played.at(millis, |bridge, now| {
                    bridge.video(now, unit(millis as i64, millis.is_multiple_of(2000)))
                });
            }
            played.at(millis, |bridge, now| {
                bridge.audio(now, sound(millis as i64))
            });
            if millis == 500 {
                played.at(millis, |bridge, now| bridge.blocked(now, true));
            }
            if millis == 3000 {
                played.at(millis, |bridge, now| bridge.blocked(now, false));
            }
        }
    };
    play(0, 6000);
    let frames = played.frames();
    let pictures = times(&frames, true);
    // Until 1480 there was hope; the key frame at 2000 was too early; that at 4000 is the next.
    let gap = pictures
        .windows(2)
        .find(|two| two[1] - two[0] > 3600)
        .expect("pictures were dropped");
    assert_eq!(gap, [90_000 + 1480 * 90, 90_000 + 4000 * 90]);
    assert_eq!(pictures.len(), 38 + 50);
    assert_eq!(played.bridge.figures().dropped, 62);
    assert_eq!(played.times_of(&Event::Begin), [0, 4000]);
    let sounds = times(&frames, false);
    assert!(sounds.windows(2).all(|two| two[1] > two[0]));
}

#[test]
fn another_source_takes_over_without_a_step_back() {
    let mut played = Played::new(true);
    for millis in (0..1000_u64).step_by(20) {
        played.at(millis, |bridge, now| {
            bridge.audio(now, sound(millis as i64))
        });
        if millis.is_multiple_of(40) {
            played.at(millis, |bridge, now| {
                bridge.video(now, unit(millis as i64, millis == 0))
            });
        }
    }
    played.at(1500, |bridge, now| {
        bridge.source(
            now,
            Source {
                clocks: Clocks::Shared,
                sound: false,
            },
        )
    });
    // Its clock is another one, its first pictures are none that can be shown, and it has no sound.
    for frame in 0..50 {
        let millis = 1500 + 40 * frame;
        played.at(millis, |bridge, now| {
            bridge.video(now, unit(7 + 40 * frame as i64, frame % 25 == 5))
        });
    }
    let frames = played.frames();
    for video in [true, false] {
        let times = times(&frames, video);
        assert!(
            times
                .windows(2)
                .all(|two| two[1] > two[0] && two[1] - two[0] < 9000),
            "{times:?}"
        );
    }
    assert_eq!(played.bridge.figures().jumps, 0);
    assert_eq!(played.bridge.tracks(), Some(Some(STEREO)));
    assert_eq!(played.times_of(&Event::Begin), [0, 1700, 2700]);
}

#[test]
fn slow_pictures_have_clock_references_between_them() {
    let mut played = Played::new(false);
    for frame in 0..10 {
        let millis = 250 * frame;
        played.at(millis, |bridge, now| {
            bridge.video(now, unit(millis as i64, frame == 0))
        });
    }
    let writes: Vec<_> = played
        .events
        .iter()
        .filter(|(_, event)| matches!(event, Event::Write(_)))
        .map(|(when, _)| *when)
        .collect();
    assert!(
        writes
            .windows(2)
            .all(|two| two[1].since(two[0]) <= CLOCK_AFTER)
    );
    assert_eq!(times(&played.frames(), true).len(), 10);
}

#[test]
fn the_end_closes_the_open_segment_once() {
    let mut played = Played::new(false);
    played.pictures(0, 100, 100);
    played.at(100, |bridge, now| bridge.end(now));
    played.at(100, |bridge, now| bridge.end(now));
    played.pictures(200, 5000, 1);
    let told: Vec<_> = played.told().into_iter().map(|(_, event)| event).collect();
    assert_eq!(told, ["Opened(None)", "Begin", "End", "Done"]);
    let mut empty = Played::new(true);
    empty.at(9000, |bridge, now| bridge.end(now));
    assert_eq!(empty.told(), [(9000, "Done".to_owned())]);
}

#[test]
fn frames_that_were_held_are_aligned_by_when_they_arrived() {
    let mut bridge = Bridge::new(START, Config::default());
    let source = Source {
        clocks: Clocks::Apart,
        sound: true,
    };
    bridge.source(START, source);
    let mut played = Played {
        bridge,
        events: Vec::new(),
        now: START,
    };
    played.at(500, |bridge, now| bridge.video(now, unit(77_000, true)));
    assert_eq!(played.told(), [], "it waits for sound");
    played.at(600, |bridge, now| bridge.audio(now, sound(5)));
    played.at(620, |bridge, now| bridge.audio(now, sound(25)));
    let frames = played.frames();
    assert_eq!(times(&frames, true), [90_000]);
    assert_eq!(times(&frames, false), [99_000, 100_800]);
}

#[test]
fn a_job_that_takes_nothing_is_owed_a_bounded_number_of_bytes() {
    const PICTURE: usize = 1 << 20;
    let mut played = Played::new(false);
    played.at(0, |bridge, now| {
        bridge.video(now, unit(0, true));
        bridge.blocked(now, true);
    });
    // All within a moment, long before time alone would say so.
    for millis in 1..=40 {
        let large = AccessUnit {
            data: [&unit(millis, true).data[..], &[7; PICTURE]]
                .concat()
                .into(),
            ..unit(millis, true)
        };
        played.at(1, |bridge, now| bridge.video(now, large));
    }
    // With its headers each takes a little more than its own bytes.
    let passed = MAX_BLOCKED / PICTURE as u64;
    assert_eq!(played.bridge.figures().pictures, 1 + passed);
    assert_eq!(played.bridge.figures().dropped, 40 - passed);
    played.at(2, |bridge, now| {
        bridge.blocked(now, false);
        bridge.video(now, unit(41, true));
    });
    assert_eq!(played.bridge.figures().pictures, 2 + passed);
}
