//! Frames of live media: taken apart, put together, and carried.

use bytes::Bytes;
use livepeer_media::demux::{Demux, Event, MAX_PES};
use livepeer_media::frame::{AccessUnit, Audio, AudioTrack, Ticks};
use livepeer_media::h264::{self, ParameterSets, Sps, Stream};
use livepeer_media::{Mux, aac, opus};

use crate::steps::Reel;

/// Pieces in which a stream is read again: odd ones, packets, more than a few packets.
const PIECES: [usize; 4] = [1, 7, 188, 1000];

/// Frames of a stream are the same in whatever pieces it comes, bounded, and in the tracks that it announced.
pub fn decode_ts_frames(data: &[u8]) {
    fn read(data: &[u8], piece: usize) -> (Vec<Event>, bool) {
        let mut demux = Demux::new();
        let mut events = Vec::new();
        let mut failed = false;
        for piece in data.chunks(piece) {
            failed |= demux.push(piece).is_err();
            events.extend(std::iter::from_fn(|| demux.next_event()));
        }
        demux.finish();
        events.extend(std::iter::from_fn(|| demux.next_event()));
        (events, failed)
    }
    let whole = read(data, data.len().max(1));
    for piece in PIECES {
        assert!(read(data, piece) == whole, "in pieces of {piece}");
    }
    let (mut video, mut audio) = (None, None);
    for event in whole.0 {
        match event {
            Event::Tracks(tracks) => (video, audio) = (tracks.video, tracks.audio),
            Event::Video(unit) => {
                assert!(video.is_some() && unit.data.len() <= MAX_PES + 16 * 8192);
                let key = h264::nals(&unit.data).any(|nal| h264::nal_type(nal) == 5);
                assert_eq!(unit.key, key);
            }
            Event::Audio(sound) => {
                assert_eq!(Some(sound.track.codec()), audio);
                assert!(sound.track.duration(&sound.data).is_some());
            }
            _ => {}
        }
    }
}

/// A picture that was taken from either form stays as it is, and has all that a decoder needs to begin with it.
pub fn decode_h264(data: &[u8]) {
    let (first, second) = data.split_at(data.len() / 2);
    let mut prefixed = Stream::default();
    let configured = prefixed.configure(first);
    let mut plain = Stream::default();
    let pictures = [
        prefixed.length_prefixed(second),
        plain.annex_b(first),
        plain.annex_b(second),
    ];
    if configured.is_ok() {
        assert!(prefixed.sps().is_some_and(|sps| sps.width > 0));
    }
    for picture in pictures.into_iter().flatten().flatten() {
        let mut sets = ParameterSets::default();
        sets.learn(&picture.data);
        let mut stream = Stream::default();
        let again = stream.annex_b(&picture.data);
        if picture.key {
            assert_eq!(again, Ok(Some(picture)));
        } else {
            assert!(again.is_ok_and(|again| again.is_some()));
        }
    }
    if let Ok(sps) = Sps::read(data) {
        assert!((1..=h264::MAX_SIDE).contains(&sps.width));
        assert!((1..=h264::MAX_SIDE).contains(&sps.height));
        assert!(sps.reorder <= h264::MAX_REORDER);
    }
    if let Some(samples) = opus::samples(data) {
        assert!((120..=opus::MAX_SAMPLES).contains(&samples));
    }
    if let Some((config, frame, rest)) = aac::read_adts(data) {
        let head = config.adts(frame.len()).expect("it had one");
        assert_eq!(aac::Config::read(&config.write()), Some(config));
        assert!(head.len() + frame.len() + rest.len() <= data.len());
    }
}

/// Frames that were written are read back, whatever their sizes, times and order.
pub fn mux_frames(data: &[u8]) {
    let mut reel = Reel::new(data);
    let track = match reel.below(3) {
        0 => AudioTrack::Opus {
            channels: 1 + reel.below(2),
        },
        _ => aac::Config::new(44_100, 1 + reel.below(2))
            .map_or(AudioTrack::Opus { channels: 2 }, AudioTrack::Aac),
    };
    let mut mux = Mux::new(Some(track));
    let mut stream = mux.tables().to_vec();
    let mut time = (i64::from(reel.byte()) << 26) - 1_000;
    let mut written = [Vec::new(), Vec::new()];
    while !reel.is_empty() && stream.len() < MAX_PES {
        time += i64::from(reel.byte()) * 100 + 1;
        let fill = reel.byte();
        let len = usize::from(reel.byte()) * if fill == 0 { 300 } else { 5 };
        match reel.below(8) {
            0 => stream.extend_from_slice(&mux.tables()),
            1 => stream.extend(mux.clock().into_iter().flatten()),
            2..=4 => {
                let data = [&[0, 0, 0, 1, 0x41, 1 | fill][..], &vec![1 | fill; len]].concat();
                let unit = AccessUnit {
                    pts: Ticks(time + i64::from(reel.below(4)) * 3000),
                    dts: Ticks(time),
                    key: false,
                    data: data.into(),
                };
                stream.extend_from_slice(&mux.video(&unit));
                written[0].push(Event::Video(unit));
            }
            _ => {
                let toc = [&[0xfc][..], &vec![fill; len.min(1275)]].concat();
                let audio = Audio {
                    pts: Ticks(time),
                    track,
                    data: Bytes::from(toc),
                };
                stream.extend_from_slice(&mux.audio(&audio));
                written[1].push(Event::Audio(audio));
            }
        }
    }
    assert_eq!(stream.len() % 188, 0, "whole packets");
    let mut demux = Demux::new();
    demux.push(&stream).expect("it is MPEG-TS");
    demux.finish();
    let mut read = [Vec::new(), Vec::new()];
    while let Some(event) = demux.next_event() {
        match event {
            Event::Video(_) => read[0].push(event),
            Event::Audio(_) => read[1].push(event),
            Event::Tracks(tracks) => assert_eq!(tracks.audio, Some(track.codec())),
            other => panic!("{other:?}"),
        }
    }
    for (read, written) in read.iter().zip(&written) {
        assert_eq!(read.len(), written.len());
        for (read, written) in read.iter().zip(written) {
            assert_eq!(on_the_wire(read), on_the_wire(written));
        }
    }
}

/// A frame with its stamps as 33 bits: a reader cannot know how often they wrapped before its first one.
fn on_the_wire(event: &Event) -> Event {
    let bits = |stamp: Ticks| Ticks(stamp.0.rem_euclid(1 << 33));
    match event {
        Event::Video(unit) => Event::Video(AccessUnit {
            pts: bits(unit.pts),
            dts: bits(unit.dts),
            ..unit.clone()
        }),
        Event::Audio(audio) => Event::Audio(Audio {
            pts: bits(audio.pts),
            ..audio.clone()
        }),
        other => other.clone(),
    }
}
