//! A push to another server: our own listener under virtual time, and servers that refuse, stall and vanish.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::Time;
use livepeer_core::http::Reach;
use livepeer_core::wire::entry::Place;
use livepeer_ingest::rtmp::dial::Dial as _;
use livepeer_ingest::rtmp::push::{
    Attempt, Event, FIRST_PAUSE, GOOD, Input, LONGEST_PAUSE, MAX_DELAY, MAX_EARLY, MAX_QUEUE,
    Misnamed, Output, PATIENCE, Push, STUCK, Sound, Target,
};
use livepeer_ingest::rtmp::{Config, ConnectionId, LAST_WORDS};
use livepeer_media::aac;
use livepeer_media::frame::{AccessUnit, Audio, AudioCodec, AudioTrack, Ticks, Tracks, VideoCodec};

use rtmp_runtime::amf0::Amf0Value;

use super::peer::{Listener, VIDEO_CONFIG, command, text};

const TARGET: &str = "rtmp://out.example/live/cam1?token=abc";

/// A push, and the listener that it is connected to if there is one.
struct Pushing {
    push: Push,
    listener: Listener,
    /// Whether the server is there at all.
    is_up: bool,
    /// Whether the network takes what is written.
    flows: bool,
    /// Bytes that the server puts in front of each of its answers but the handshake.
    odd: &'static [u8],
    link: Option<(Attempt, ConnectionId)>,
    unsent: Vec<Bytes>,
    events: Vec<Event>,
    wake: Option<Time>,
}

impl Pushing {
    fn new(audio: Option<AudioCodec>, sound: Sound) -> Self {
        let listener = Listener::new(Config::default());
        let tracks = Tracks {
            video: Some(VideoCodec::H264),
            audio,
        };
        let target = Target::parse(TARGET).unwrap();
        let push = Push::new(listener.now, target, tracks, sound, [7; 32]);
        let mut pushing = Self {
            push,
            listener,
            is_up: true,
            flows: true,
            odd: &[],
            link: None,
            unsent: Vec::new(),
            events: Vec::new(),
            wake: None,
        };
        pushing.drain();
        pushing
    }

    fn drain(&mut self) {
        loop {
            match self.push.poll_output() {
                Output::Connect(attempt) => {
                    assert!(self.link.is_none(), "a second connection");
                    if self.is_up {
                        self.link = Some((attempt, self.listener.open()));
                        self.input(Input::Connected(attempt));
                    } else {
                        self.input(Input::Closed(attempt, "connection refused".to_owned()));
                    }
                }
                Output::Write(attempt, bytes) => {
                    let (at, peer) = self.link.expect("a connection");
                    assert_eq!(at, attempt);
                    if !self.flows {
                        self.unsent.push(bytes);
                        continue;
                    }
                    self.listener.data(peer, &bytes);
                    self.input(Input::Sent(attempt, bytes.len()));
                }
                Output::Finish(_) => {
                    let (_, peer) = self.link.take().expect("a connection");
                    for bytes in std::mem::take(&mut self.unsent) {
                        self.listener.data(peer, &bytes);
                    }
                    self.listener
                        .input(livepeer_ingest::rtmp::Input::Closed(peer));
                }
                Output::Close(_) => {
                    if let Some((_, peer)) = self.link.take() {
                        self.unsent.clear();
                        self.listener
                            .input(livepeer_ingest::rtmp::Input::Closed(peer));
                    }
                }
                Output::Event(event) => self.events.push(event),
                Output::Idle(wake) => {
                    let Some((attempt, peer)) = self.link else {
                        self.wake = wake;
                        return;
                    };
                    let mut heard = self.listener.take_sent(peer);
                    if !heard.is_empty() {
                        if heard[0] != 3 || heard.len() < 1_537 {
                            heard.splice(0..0, self.odd.iter().copied());
                        }
                        self.input(Input::Data(attempt, heard.into()));
                    } else if self.listener.is_closed(peer) {
                        self.link = None;
                        self.input(Input::Closed(attempt, "closed by the server".to_owned()));
                    } else {
                        self.wake = wake;
                        return;
                    }
                }
            }
        }
    }

    fn input(&mut self, input: Input) {
        self.push.hear(self.listener.now, input);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.listener.now + time;
        while self.listener.now < end {
            let now = self.listener.now;
            let next = self.wake.filter(|wake| *wake > now).unwrap_or(end).min(end);
            self.listener.pass(next.since(now));
            self.input(Input::Tick);
            self.drain();
        }
    }

    /// The connection breaks.
    fn cut(&mut self) {
        let (attempt, peer) = self.link.take().unwrap();
        self.unsent.clear();
        self.listener
            .input(livepeer_ingest::rtmp::Input::Closed(peer));
        self.input(Input::Closed(attempt, "reset".to_owned()));
        self.drain();
    }

    /// The network takes what it did not take before.
    fn flow(&mut self) {
        self.flows = true;
        let (attempt, peer) = self.link.expect("a connection");
        for bytes in std::mem::take(&mut self.unsent) {
            self.listener.data(peer, &bytes);
            self.input(Input::Sent(attempt, bytes.len()));
        }
        self.drain();
    }

    /// A push that connects again after a loss, to a server that does not let it publish yet.
    fn connecting(audio: Option<AudioCodec>) -> Self {
        let mut pushing = Self::new(audio, Sound::AacAndOpus);
        pushing.cut();
        pushing.flows = false;
        pushing.pass(FIRST_PAUSE + FIRST_PAUSE / 4);
        assert!(pushing.link.is_some());
        pushing
    }

    fn video(&mut self, millis: i64, key: bool) {
        self.push
            .video(self.listener.now, &picture(millis, key, 20));
        self.drain();
    }

    fn sound(&mut self, millis: i64, track: AudioTrack) {
        let data = track.silence().unwrap();
        let pts = Ticks::from_millis(millis);
        self.push
            .audio(self.listener.now, &Audio { pts, track, data });
        self.drain();
    }

    fn losses(&self) -> Vec<Time> {
        let at = |event: &Event| match event {
            Event::Lost(_, at) => Some(*at),
            _ => None,
        };
        self.events.iter().filter_map(at).collect()
    }
}

pub(crate) fn picture(millis: i64, key: bool, size: usize) -> AccessUnit {
    let at = Ticks::from_millis(millis);
    let mut data = Vec::new();
    let mut put = |nal: &[u8]| {
        data.extend_from_slice(&[0, 0, 0, 1]);
        data.extend_from_slice(nal);
    };
    if key {
        put(&VIDEO_CONFIG[13..37]);
        put(&VIDEO_CONFIG[40..]);
    }
    let mut slice = vec![0xaa; size];
    slice[0] = if key { 0x65 } else { 0x41 };
    put(&slice);
    AccessUnit {
        pts: at,
        dts: at,
        key,
        data: data.into(),
    }
}

const OPUS: AudioTrack = AudioTrack::Opus { channels: 2 };

#[test]
fn frames_arrive_as_they_were_from_a_key_frame_on() {
    let mut pushing = Pushing::new(Some(AudioCodec::Opus), Sound::AacAndOpus);
    assert_eq!(pushing.events, [Event::Publishing]);
    let asked = &pushing.listener.asked[0].1;
    assert_eq!(
        (asked.name.as_str(), asked.key.as_deref()),
        ("cam1", Some("abc"))
    );
    pushing.video(1000, false);
    pushing.sound(1000, OPUS);
    pushing.video(1040, true);
    pushing.sound(1050, OPUS);
    pushing.video(1080, false);
    assert_eq!(pushing.listener.opened.len(), 1);
    let stamps: Vec<_> = pushing
        .listener
        .video
        .iter()
        .map(|(_, unit)| unit.dts.0 / 90)
        .collect();
    assert_eq!(stamps, [0, 40]);
    let found = &pushing.listener.video[0].1;
    assert_eq!(found.data, picture(1040, true, 20).data);
    assert_eq!(pushing.listener.audio[0].1.pts, Ticks::from_millis(10));
    assert_eq!(pushing.push.warning(), None);
    pushing.push.stop(pushing.listener.now);
    pushing.drain();
    assert_eq!(
        pushing.events.last(),
        Some(&Event::Over("stopped".to_owned()))
    );
    assert_eq!(pushing.listener.server.connections(), 0);
}

/// The end comes right behind the last picture, which the network has not taken yet.
#[test]
fn a_stream_that_is_stopped_arrives_to_its_last_picture() {
    let mut pushing = Pushing::new(None, Sound::AacAndOpus);
    pushing.video(0, true);
    pushing.flows = false;
    pushing.video(40, false);
    pushing.video(80, false);
    pushing.push.stop(pushing.listener.now);
    pushing.drain();
    assert_eq!(pushing.listener.video.len(), 3);
    assert_eq!(pushing.listener.server.connections(), 0);
}

#[test]
fn frames_that_come_while_the_connection_is_made_wait_for_it() {
    let mut pushing = Pushing::connecting(Some(AudioCodec::Opus));
    pushing.video(0, false);
    pushing.sound(0, OPUS);
    pushing.video(40, true);
    pushing.sound(50, OPUS);
    pushing.video(80, false);
    assert!(pushing.listener.video.is_empty());
    pushing.flow();
    pushing.video(120, false);
    let stamps = pushing.listener.video.iter().map(|(_, unit)| unit.dts);
    let stamps: Vec<_> = stamps.collect();
    assert_eq!(stamps.len(), 3, "{stamps:?}");
    assert_eq!(stamps[2] - stamps[0], Ticks::from_millis(80));
    assert_eq!(pushing.listener.audio.len(), 1);
    assert_eq!(pushing.push.dropped(), 0);
}

#[test]
fn a_stream_that_ends_before_its_server_lets_it_publish_arrives_whole() {
    let mut pushing = Pushing::connecting(Some(AudioCodec::Opus));
    pushing.video(0, true);
    pushing.sound(10, OPUS);
    pushing.video(40, false);
    pushing.push.stop(pushing.listener.now);
    pushing.drain();
    let told = pushing.events.len();
    assert!(
        matches!(pushing.events[told - 1], Event::Lost(..)),
        "before"
    );
    // Nothing belongs to it any more.
    pushing.video(80, false);
    pushing.flow();
    let over = Event::Over("stopped".to_owned());
    assert_eq!(pushing.events[told..], [Event::Publishing, over]);
    let listener = &pushing.listener;
    assert_eq!((listener.video.len(), listener.audio.len()), (2, 1));
    assert_eq!(listener.server.connections(), 0);
}

#[test]
fn a_stream_that_ends_waits_for_one_attempt_and_no_longer() {
    let over = |pushing: &Pushing| matches!(pushing.events.last(), Some(Event::Over(_)));
    // A server that never answers.
    let mut pushing = Pushing::connecting(None);
    pushing.video(0, true);
    pushing.push.stop(pushing.listener.now);
    pushing.drain();
    pushing.pass(PATIENCE / 4);
    assert!(!over(&pushing));
    pushing.pass(PATIENCE);
    assert!(over(&pushing) && pushing.link.is_none());
    let told = pushing.events.len();
    pushing.pass(2 * LONGEST_PAUSE);
    assert_eq!(pushing.events.len(), told, "no other attempt");
    // One that is lost meanwhile.
    let mut pushing = Pushing::connecting(None);
    pushing.video(0, true);
    pushing.push.stop(pushing.listener.now);
    pushing.drain();
    pushing.cut();
    assert!(over(&pushing) && pushing.wake.is_none());
    // One for which nothing waits.
    let mut pushing = Pushing::connecting(None);
    pushing.video(0, false);
    pushing.push.stop(pushing.listener.now);
    pushing.drain();
    assert!(over(&pushing) && pushing.link.is_none());
}

#[test]
fn frames_that_wait_for_a_connection_are_bounded() {
    let mut pushing = Pushing::connecting(None);
    pushing.video(0, true);
    let large = picture(40, false, 1 << 20);
    for _ in 0..3 {
        pushing.push.video(pushing.listener.now, &large);
    }
    assert!(3 * large.data.len() > MAX_EARLY);
    assert_eq!(pushing.push.dropped(), 4);
    // They begin anew with a key frame.
    pushing.video(80, false);
    pushing.video(120, true);
    pushing.flow();
    pushing.pass(Duration::from_secs(1));
    assert_eq!(pushing.listener.video.len(), 1);
    // Nothing waits for a server that is not there.
    let mut pushing = Pushing::connecting(None);
    pushing.video(0, true);
    pushing.cut();
    pushing.video(40, true);
    pushing.pass(3 * FIRST_PAUSE);
    pushing.flow();
    pushing.video(80, true);
    pushing.pass(Duration::from_secs(1));
    let found = &pushing.listener.video;
    assert_eq!(found.len(), 1);
}

#[test]
fn where_opus_is_not_taken_silence_keeps_step_with_the_pictures() {
    let mut pushing = Pushing::new(Some(AudioCodec::Opus), Sound::Aac);
    assert!(pushing.push.warning().is_some());
    for at in 0..30 {
        pushing.video(40 * at, at == 0);
        pushing.sound(40 * at, OPUS);
    }
    let heard = &pushing.listener.audio[0].1;
    assert_eq!(heard.track.codec(), AudioCodec::Aac);
    let frames: Vec<_> = pushing
        .listener
        .audio
        .iter()
        .map(|(_, audio)| audio)
        .collect();
    // The first one is before the picture with which the stream begins.
    assert_eq!(frames.len(), 29 * 40 * 48 / 1024);
    let AudioTrack::Aac(config) = frames[0].track else {
        panic!("{:?}", frames[0].track);
    };
    assert_eq!(config, aac::Config::new(48_000, 2).unwrap());
    let steps = frames
        .windows(2)
        .map(|pair| (pair[1].pts - pair[0].pts).0 / 90);
    assert!(steps.clone().all(|step| (21..=22).contains(&step)));
    // A gap is not filled frame by frame.
    pushing.video(100_000, true);
    assert_eq!(pushing.listener.audio.len(), 29 * 40 * 48 / 1024 + 1);
}

#[test]
fn attempts_are_repeated_after_growing_pauses() {
    let mut pushing = Pushing::new(None, Sound::AacAndOpus);
    pushing.is_up = false;
    pushing.cut();
    let mut pause = FIRST_PAUSE;
    for _ in 0..6 {
        let again = *pushing.losses().last().unwrap();
        let waits = again.since(pushing.listener.now);
        assert!(
            waits >= pause && waits <= pause + pause / 4,
            "{waits:?} for {pause:?}"
        );
        pushing.pass(waits);
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
    assert_eq!(pushing.losses().len(), 7);
    // A connection that held begins anew.
    pushing.is_up = true;
    let again = *pushing.losses().last().unwrap();
    pushing.pass(again.since(pushing.listener.now));
    assert_eq!(pushing.events.last(), Some(&Event::Publishing));
    for at in 0..GOOD.as_secs() as i64 + 1 {
        pushing.video(1000 * at, true);
        pushing.pass(Duration::from_secs(1));
    }
    pushing.cut();
    let waits = pushing.losses().last().unwrap().since(pushing.listener.now);
    assert!(waits <= FIRST_PAUSE + FIRST_PAUSE / 4, "{waits:?}");
}

/// Media spec 8, row 59.
#[test]
fn a_refused_name_is_the_end() {
    let mut pushing = Pushing::new(None, Sound::AacAndOpus);
    pushing.listener.admits = false;
    pushing.cut();
    pushing.pass(2 * FIRST_PAUSE);
    let (peer, _) = pushing.listener.asked[1].clone();
    pushing
        .listener
        .server
        .refuse(pushing.listener.now, peer, "wrong stream key");
    pushing.listener.drain();
    pushing.drain();
    let over = Event::Over("NetStream.Publish.BadName: wrong stream key".to_owned());
    assert_eq!(pushing.events.last(), Some(&over));
    pushing.pass(LAST_WORDS + 2 * LONGEST_PAUSE);
    assert_eq!(pushing.listener.asked.len(), 2);
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let mut pushing = Pushing::new(None, Sound::AacAndOpus);
    pushing.flows = false;
    pushing.cut();
    pushing.pass(2 * FIRST_PAUSE + PATIENCE);
    let lost = pushing.events.iter().rev().find_map(|event| match event {
        Event::Lost(why, _) => Some(why.as_str()),
        _ => None,
    });
    assert_eq!(lost, Some("no answer to publish in time"));
}

/// Media spec 8, row 59.
#[test]
fn a_slow_server_loses_pictures_up_to_the_next_key_frame_and_holds_little() {
    let mut pushing = Pushing::new(None, Sound::AacAndOpus);
    pushing.video(0, true);
    pushing.flows = false;
    let large = picture(40, false, 1 << 20);
    for _ in 0..20 {
        pushing.push.video(pushing.listener.now, &large);
        pushing.drain();
    }
    let held = |pushing: &Pushing| pushing.unsent.iter().map(Bytes::len).sum::<usize>();
    assert!(
        held(&pushing) < MAX_QUEUE + large.data.len() + (1 << 12),
        "{}",
        held(&pushing)
    );
    assert_eq!(pushing.events.last(), Some(&Event::Slow));
    assert_eq!(pushing.push.dropped(), 16);
    pushing.video(80, true);
    assert_eq!(pushing.push.dropped(), 17, "no room for a key frame either");
    // The network takes it all, and pictures go on with the next key frame.
    let (attempt, _) = pushing.link.unwrap();
    let taken = held(&pushing);
    pushing.unsent.clear();
    pushing.input(Input::Sent(attempt, taken));
    pushing.video(120, false);
    assert!(pushing.unsent.is_empty());
    pushing.video(160, true);
    assert!(!pushing.unsent.is_empty());
    // Time counts as well as bytes.
    pushing.pass(MAX_DELAY);
    let before = held(&pushing);
    pushing.video(200, false);
    pushing.video(240, true);
    assert_eq!(held(&pushing), before);
    pushing.pass(STUCK);
    assert!(matches!(pushing.events.last(), Some(Event::Lost(..))));
}

#[test]
fn stale_news_of_an_old_connection_are_ignored() {
    let mut pushing = Pushing::new(None, Sound::AacAndOpus);
    let (old, _) = pushing.link.unwrap();
    pushing.cut();
    pushing.pass(2 * FIRST_PAUSE);
    let events = pushing.events.len();
    pushing.input(Input::Closed(old, "late".to_owned()));
    pushing.input(Input::Data(old, Bytes::from_static(b"junk")));
    pushing.input(Input::Sent(old, 1000));
    pushing.input(Input::Connected(old));
    pushing.drain();
    assert_eq!(pushing.events.len(), events);
    assert!(pushing.link.is_some());
}

#[test]
fn targets_are_read_and_their_names_hidden() {
    let read = |text| {
        Target::parse(text).map(|target| {
            (
                target.server.is_secure(),
                target.server.host().to_owned(),
                target.server.port(),
                target.app,
                target.name,
            )
        })
    };
    let want = |secure, host: &str, port, app: &str, name: &str| {
        Ok((
            secure,
            host.to_owned(),
            port,
            app.to_owned(),
            name.to_owned(),
        ))
    };
    assert_eq!(
        read("rtmp://a.example/live2/key"),
        want(false, "a.example", 1935, "live2", "key")
    );
    assert_eq!(
        read("RTMPS://a.example:4443/app/k/e?y=1"),
        want(true, "a.example", 4443, "app", "k/e?y=1")
    );
    assert_eq!(
        read("rtmps://[fd00::2]/app/key"),
        want(true, "fd00::2", 443, "app", "key")
    );
    assert_eq!(
        read("rtmp://10.0.0.9/cam1-out"),
        want(false, "10.0.0.9", 1935, "cam1-out", "")
    );
    for text in [
        "",
        "http://a/b/c",
        "rtmp://a",
        "rtmp://a/",
        "rtmp:///a/b",
        "rtmp://a:x/b/c",
        "rtmp://a:0/b/c",
        "rtmp://[fd00::2/b/c",
        "rtmp://[fd00::2]x/b/c",
        "rtmp://u@a/b/c",
        "rtmp://a/b/c d",
        "rtmp://a/b/c\r\nd",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
    let place = |address: &str, reach| Place {
        address: address.to_owned(),
        reach,
    };
    let named = Target::named(&place("rtmp://out.example/a/b", Reach::Public)).unwrap();
    assert_eq!(named.server.reach(), Reach::Public);
    let forbidden = Target::named(&place("rtmp://10.0.0.9/a/b", Reach::Public)).unwrap_err();
    assert!(matches!(forbidden, Misnamed::Forbidden(_)), "{forbidden}");
    let target = Target::parse(TARGET).unwrap();
    assert_eq!(target.application(), "rtmp://out.example/live");
    let six = Target::parse("rtmps://[fd00::2]:9/app/key").unwrap();
    assert_eq!(six.application(), "rtmps://[fd00::2]:9/app");
    assert!(!format!("{target:?}").contains("cam1"));
}

/// The command `onFCPublish` as ffmpeg's server sends it: a name and nothing else.
const UNREADABLE: &[u8] = b"\x03\0\0\0\0\0\x0e\x14\0\0\0\0\x02\0\x0bonFCPublish";

/// A push that connects again to a server which says that so many times before each of its answers.
fn odd(times: usize) -> Pushing {
    let mut pushing = Pushing::new(None, Sound::AacAndOpus);
    pushing.odd = UNREADABLE.repeat(times).leak();
    pushing.cut();
    pushing.events.clear();
    pushing.pass(2 * FIRST_PAUSE);
    pushing
}

#[test]
fn a_command_that_cannot_be_read_is_passed_over() {
    let mut pushing = odd(1);
    assert_eq!(pushing.events, [Event::Publishing]);
    pushing.video(0, true);
    pushing.pass(Duration::from_secs(1));
    assert_eq!(pushing.events, [Event::Publishing], "it stays");
}

#[test]
fn a_server_that_cannot_be_understood_is_left() {
    let pushing = odd(9);
    assert!(
        matches!(pushing.events[..], [Event::Lost(..)]),
        "{:?}",
        pushing.events
    );
}

/// Media spec 8, row 59: somewhere else, again and again.
#[test]
fn a_server_that_asks_to_connect_again_is_followed_once() {
    let info = [
        ("level", text("error")),
        ("code", text("NetConnection.Connect.ReconnectRequest")),
        ("description", text("rtmp://elsewhere.example/live")),
    ];
    let info = Amf0Value::Object(info.map(|(key, value)| (key.to_owned(), value)).into());
    let mut pushing = Pushing::new(None, Sound::AacAndOpus);
    pushing.odd = command("onStatus", 0.0, &[Amf0Value::Null, info]).leak();
    pushing.cut();
    pushing.events.clear();
    pushing.pass(2 * FIRST_PAUSE);
    assert!(
        matches!(pushing.events[..], [Event::Lost(..)]),
        "{:?}",
        pushing.events
    );
    assert_eq!(
        pushing.listener.over.len(),
        3,
        "the first, and two after it"
    );
}
