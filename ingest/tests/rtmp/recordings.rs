//! The bytes that sixteen recorded programs sent, read by our listener, against facts that were found without it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use livepeer_ingest::rtmp::{Config, Ending};
use livepeer_media::frame::AudioCodec;
use serde_json::Value;

use super::peer::Listener;

const NAMES: [&str; 16] = [
    "ffmpeg5-h264-aac",
    "ffmpeg5-ts-24bit",
    "ffmpeg5-ts-ext",
    "ffmpeg9-audio-only",
    "ffmpeg9-av1-aac",
    "ffmpeg9-h264-aac",
    "ffmpeg9-h264-opus",
    "ffmpeg9-h264b-aac",
    "ffmpeg9-hevc-aac",
    "ffmpeg9-ts-32bit",
    "ffmpeg9-video-only",
    "gst-rtmp2sink",
    "gst-rtmpsink",
    "librtmp-h264-aac",
    "librtmp-ts-24bit",
    "librtmp-ts-ext",
];

fn recording(name: &str) -> (Vec<u8>, Value) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/rtmp");
    let bytes = std::fs::read(folder.join(format!("{name}.c2s.bin"))).unwrap();
    let facts = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
    (bytes, serde_json::from_slice(&facts).unwrap())
}

/// Plays a recording in pieces of that many bytes, over the two seconds that it took.
fn play(bytes: &[u8], piece: usize) -> Listener {
    let mut listener = Listener::new(Config::default());
    let peer = listener.open();
    let time = Duration::from_secs(2) / bytes.len().div_ceil(piece) as u32;
    for piece in bytes.chunks(piece) {
        listener.data(peer, piece);
        listener.pass(time);
    }
    listener.pass(Duration::from_secs(30));
    assert_eq!(listener.server.connections(), 0);
    assert_eq!(listener.server.streams(), 0);
    listener
}

fn check(name: &str, facts: &Value, listener: &Listener) {
    let millis = |value: &Value| value.as_i64().map(|millis| millis * 90);
    assert_eq!(listener.opened.len(), 1, "{name}: {:?}", listener.over);
    assert_eq!(listener.damaged, 0, "{name}");
    assert_eq!(listener.ended[0].1, Ending::Deleted, "{name}");

    let video = &facts["video"];
    let units: Vec<_> = listener.video.iter().map(|(_, unit)| unit).collect();
    assert_eq!(units.len() as u64, video["frames"], "{name}: pictures");
    let keys = units.iter().filter(|unit| unit.key).map(|unit| unit.dts.0);
    let wanted = video["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| millis(key).unwrap());
    assert!(keys.eq(wanted), "{name}: key frames");
    let ends = [units[0].dts.0, units[units.len() - 1].dts.0];
    assert_eq!(
        serde_json::json!(ends),
        video["dts_90k"],
        "{name}: decoding times"
    );
    assert_eq!(Some(ends[0]), millis(&video["first_ms"]), "{name}");
    let offsets: BTreeSet<_> = units
        .iter()
        .map(|unit| (unit.pts.0 - unit.dts.0) / 90)
        .collect();
    assert_eq!(
        serde_json::json!(offsets),
        video["cts_ms"],
        "{name}: composition"
    );
    let steps = units
        .windows(2)
        .map(|pair| (pair[1].dts.0 - pair[0].dts.0) / 90);
    assert_eq!(
        serde_json::json!(steps.clone().max()),
        video["max_gap_ms"],
        "{name}"
    );
    assert_eq!(
        serde_json::json!(steps.min()),
        video["min_gap_ms"],
        "{name}"
    );

    let sound = &facts["audio"];
    let codec = match sound["fourcc"].as_str() {
        Some("Opus") => Some(AudioCodec::Opus),
        Some(_) => Some(AudioCodec::Aac),
        None => None,
    };
    let heard = { listener.audio.first() }.map(|(_, audio)| audio.track.codec());
    assert_eq!(heard, codec, "{name}");
    // A frame of sound that is before the first picture is left out: some programs send one.
    let early = millis(&sound["first_ms"]).is_some_and(|first| first < ends[0]);
    assert_eq!(
        listener.audio.len() as u64 + u64::from(early),
        sound["frames"].as_u64().unwrap_or(0),
        "{name}: sound"
    );
    if let (Some((_, first)), Some((_, last))) = (listener.audio.first(), listener.audio.last()) {
        let begins = Some(first.pts.0) == millis(&sound["first_ms"]);
        assert!(first.pts.0 >= ends[0] && begins != early, "{name}");
        assert_eq!(Some(last.pts.0), millis(&sound["last_ms"]), "{name}");
    }
}

/// Whether live jobs take the recording, or why not.
fn refusal(name: &str) -> Option<&'static str> {
    match name {
        "ffmpeg9-hevc-aac" => Some("codec hvc1 is not supported"),
        "ffmpeg9-av1-aac" => Some("codec av01 is not supported"),
        "ffmpeg9-audio-only" => Some("no video in time"),
        _ => None,
    }
}

#[test]
fn recorded_programs_give_the_frames_that_they_sent() {
    for name in NAMES {
        let (bytes, facts) = recording(name);
        let dialogue = facts["dialogue"].as_array().unwrap();
        let said = dialogue
            .iter()
            .find(|said| said["cmd"] == "publish")
            .unwrap();
        let key = said["args"][1]
            .as_str()
            .unwrap()
            .strip_prefix("key?token=")
            .unwrap_or("");
        let pieces: &[usize] = if name == "librtmp-ts-ext" {
            &[1, 7, 1460]
        } else {
            &[1460]
        };
        for piece in pieces {
            let listener = play(&bytes, *piece);
            let (_, asked) = &listener.asked[0];
            assert_eq!(asked.name.as_str(), "key", "{name}");
            assert_eq!(asked.key.as_deref().unwrap_or(""), key, "{name}");
            if refusal(name).is_none() {
                check(name, &facts, &listener);
            }
        }
    }
}

#[test]
fn a_recording_in_one_piece_gives_the_same_frames() {
    for name in NAMES {
        if refusal(name).is_some() {
            continue;
        }
        let (bytes, facts) = recording(name);
        check(name, &facts, &play(&bytes, bytes.len()));
    }
}

/// Media spec 8, row 43.
#[test]
fn codecs_that_live_jobs_do_not_take_are_refused_by_name() {
    for name in NAMES {
        let Some(why) = refusal(name) else {
            continue;
        };
        let (bytes, _) = recording(name);
        // Sound alone is waited for: the sender has to go on for as long.
        let end = bytes.len() - 90;
        let mut listener = Listener::new(Config::default());
        let peer = listener.open();
        listener.data(peer, &bytes[..end]);
        listener.pass(Duration::from_secs(6));
        assert_eq!(listener.why(peer), why, "{name}");
        assert!(listener.is_closed(peer), "{name}");
        assert!(listener.opened.is_empty(), "{name}");
        let said = listener.take_sent(peer);
        let says = |text: &str| {
            said.windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        assert!(says("NetStream.Publish.Rejected"), "{name}");
        assert!(says(why.trim_end_matches(" in time")), "{name}");
    }
}
