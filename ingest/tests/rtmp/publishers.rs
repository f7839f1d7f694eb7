//! The life of a stream: who may publish it, who takes it over, what becomes of it when its publisher is gone.

use std::time::Duration;

use livepeer_ingest::rtmp::{
    AUTHORIZING, BEFORE_PUBLISH, Config, Ending, HANDSHAKE, HOLD, Input, KEY_FRAME_WAIT,
    LAST_WORDS, MAX_BEFORE_ANSWER, MAX_CONNECTIONS, MAX_PER_ADDRESS, MAX_RATE, MAX_REFUSALS,
    RATE_WINDOW, REFUSAL_WINDOW, SILENCE, VIDEO_WAIT,
};
use rtmp_runtime::amf0::Amf0Value;

use super::peer::{
    AAC, AAC_CONFIG, Client, INTER, KEY, Listener, OPUS_CONFIG, VIDEO_CONFIG, command, message,
    publish, text,
};

const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn the_reply_to_publish_waits_for_the_owner() {
    let mut listener = Listener::new(Config::default());
    listener.admits = false;
    let mut client = Client::publish(&mut listener, "live", "cam1?token=abc");
    assert!(!client.is_publishing());
    let (id, publication) = listener.asked[0].clone();
    assert_eq!((id, publication.name.as_str()), (client.id, "cam1"));
    assert_eq!(publication.key.as_deref(), Some("abc"));
    listener.pass(AUTHORIZING - MILLISECOND);
    assert!(!listener.is_closed(client.id));
    listener.server.admit(listener.now, client.id);
    listener.drain();
    client.exchange(&mut listener);
    assert!(client.is_publishing());
    // A second answer changes nothing.
    listener.server.refuse(listener.now, client.id, "late");
    listener.server.admit(listener.now, client.id);
    listener.drain();
    client.begin(&mut listener, 40);
    assert_eq!(listener.opened.len(), 1);
}

#[test]
fn a_refused_publisher_hears_why_and_is_closed_a_moment_later() {
    let mut listener = Listener::new(Config::default());
    listener.admits = false;
    let mut client = Client::publish(&mut listener, "live", "cam1");
    listener
        .server
        .refuse(listener.now, client.id, "wrong stream key");
    listener.drain();
    client.exchange(&mut listener);
    assert_eq!(
        client.refusal(),
        Some(("NetStream.Publish.BadName", "wrong stream key"))
    );
    assert!(!listener.is_closed(client.id));
    listener.pass(LAST_WORDS);
    assert!(listener.is_closed(client.id));

    let mut silent = Client::publish(&mut listener, "live", "cam1");
    listener.pass(AUTHORIZING);
    silent.exchange(&mut listener);
    assert_eq!(
        silent.refusal().map(|refusal| refusal.0),
        Some("NetStream.Publish.BadName")
    );
    assert_eq!(listener.server.streams(), 0);
}

#[test]
fn applications_and_names_that_are_none_are_refused() {
    let mut listener = Listener::new(Config::default());
    let client = Client::publish(&mut listener, "vod", "cam1");
    assert_eq!(
        client.refusal().map(|refusal| refusal.0),
        Some("NetConnection.Connect.Rejected")
    );
    listener.pass(LAST_WORDS);
    assert!(listener.is_closed(client.id));
    for name in ["", "a b", "cam1-out", "../x"] {
        let client = Client::publish(&mut listener, "live", name);
        assert_eq!(
            client.refusal().map(|refusal| refusal.0),
            Some("NetStream.Publish.BadName"),
            "{name}"
        );
    }
    assert!(listener.asked.is_empty());
}

#[test]
fn media_before_the_answer_is_kept_within_bounds() {
    let mut listener = Listener::new(Config::default());
    listener.admits = false;
    let eager = |name| {
        let video = message(9, 1, &VIDEO_CONFIG);
        let key = message(9, 1, &KEY);
        [
            publish("live", name),
            video,
            message(8, 1, &AAC_CONFIG),
            key,
        ]
        .concat()
    };
    let peer = listener.open();
    listener.data(peer, &eager("cam1"));
    listener.data(peer, &message(9, 1, &INTER));
    assert!(listener.video.is_empty());
    listener.server.admit(listener.now, peer);
    listener.drain();
    assert_eq!(listener.video.len(), 2);

    let flood = listener.open();
    listener.data(flood, &eager("cam2"));
    for _ in 0..MAX_BEFORE_ANSWER >> 10 {
        listener.data(flood, &message(9, 1, &[0; 1024]));
    }
    assert!(listener.is_closed(flood), "{}", listener.why(flood));
}

#[test]
fn a_stream_begins_with_a_key_frame_and_hands_on_what_comes_from_there() {
    let mut listener = Listener::new(Config::default());
    let mut client = Client::publish(&mut listener, "live", "both");
    client.audio(&mut listener, 0, &AAC_CONFIG);
    client.audio(&mut listener, 0, &AAC);
    client.video(&mut listener, 0, &VIDEO_CONFIG);
    client.video(&mut listener, 20, &INTER);
    assert!(listener.opened.is_empty(), "no key frame yet");
    client.video(&mut listener, 40, &KEY);
    client.audio(&mut listener, 40, &AAC);
    assert_eq!(listener.opened.len(), 1);
    assert_eq!((listener.video.len(), listener.audio.len()), (1, 1));

    // Nothing is waited for: whether there is sound, the bridge finds out.
    let mut silent = Client::publish(&mut listener, "live", "silent");
    silent.video(&mut listener, 0, &VIDEO_CONFIG);
    silent.video(&mut listener, 40, &KEY);
    assert_eq!((listener.opened.len(), listener.video.len()), (2, 2));
    silent.audio(&mut listener, 700, &AAC_CONFIG);
    silent.audio(&mut listener, 700, &AAC);
    assert_eq!(listener.audio.len(), 2);
}

#[test]
fn a_second_publisher_takes_the_stream_over() {
    let mut listener = Listener::new(Config::default());
    let mut first = Client::publish(&mut listener, "live", "cam1");
    first.begin(&mut listener, 40);
    let stream = listener.opened[0];
    let mut second = Client::publish(&mut listener, "live", "cam1");
    assert!(second.is_publishing());
    first.exchange(&mut listener);
    assert_eq!(
        first.refusal(),
        Some(("NetStream.Publish.Rejected", "replaced"))
    );
    // Nothing of the first is taken any more, and the second begins with a key frame of its own.
    first.video(&mut listener, 80, &INTER);
    second.video(&mut listener, 9_000, &VIDEO_CONFIG);
    second.video(&mut listener, 9_000, &INTER);
    assert_eq!(listener.video.len(), 1);
    second.begin(&mut listener, 9_040);
    assert_eq!(listener.resumed, [stream]);
    assert_eq!(listener.video.len(), 2);
    listener.pass(LAST_WORDS);
    assert!(listener.is_closed(first.id));
    assert!(!listener.is_closed(second.id));
    assert!(listener.ended.is_empty() && listener.stalled.is_empty());
    assert_eq!(listener.server.streams(), 1);
}

#[test]
fn without_takeover_the_second_publisher_is_refused_while_the_first_sends() {
    let mut listener = Listener::new(Config {
        takeover: false,
        ..Config::default()
    });
    let mut first = Client::publish(&mut listener, "live", "cam1");
    first.begin(&mut listener, 40);
    let second = Client::publish(&mut listener, "live", "cam1");
    assert_eq!(
        second.refusal().map(|refusal| refusal.0),
        Some("NetStream.Publish.BadName")
    );
    listener.pass(Duration::from_secs(5));
    let third = Client::publish(&mut listener, "live", "cam1");
    assert!(
        third.is_publishing(),
        "the first sent nothing for five seconds"
    );
}

#[test]
fn a_publisher_that_vanished_may_come_back_within_ten_seconds() {
    let mut listener = Listener::new(Config::default());
    let mut first = Client::publish(&mut listener, "live", "cam1");
    first.begin(&mut listener, 40);
    let stream = listener.opened[0];
    listener.input(Input::Closed(first.id));
    assert_eq!(listener.stalled, [stream]);
    listener.pass(HOLD - MILLISECOND);
    let mut again = Client::publish(&mut listener, "live", "cam1");
    again.begin(&mut listener, 40);
    assert_eq!(listener.resumed, [stream]);
    listener.input(Input::Closed(again.id));
    listener.pass(HOLD);
    assert_eq!(listener.ended, [(stream, Ending::Gone)]);
    // Another stream of this name is another one.
    let mut other = Client::publish(&mut listener, "live", "cam1");
    other.begin(&mut listener, 40);
    assert_ne!(listener.opened[1], stream);
}

#[test]
fn silence_is_a_vanished_publisher_and_delete_stream_is_the_end() {
    let mut listener = Listener::new(Config::default());
    let mut client = Client::publish(&mut listener, "live", "cam1");
    client.begin(&mut listener, 40);
    listener.pass(SILENCE);
    assert!(listener.is_closed(client.id));
    assert_eq!(listener.stalled.len(), 1);
    let mut again = Client::publish(&mut listener, "live", "cam1");
    again.begin(&mut listener, 40);
    listener.data(
        again.id,
        &command("FCUnpublish", 6.0, &[Amf0Value::Null, text("cam1")]),
    );
    assert!(listener.ended.is_empty());
    // GStreamer names the stream where others give its number.
    listener.data(
        again.id,
        &command("deleteStream", 7.0, &[Amf0Value::Null, text("cam1")]),
    );
    assert_eq!(listener.ended, [(listener.opened[0], Ending::Deleted)]);
    assert!(listener.is_closed(again.id));
    assert_eq!(listener.server.streams(), 0);
}

#[test]
fn the_owner_ends_a_stream_with_a_word() {
    let mut listener = Listener::new(Config::default());
    let mut client = Client::publish(&mut listener, "live", "cam1");
    client.begin(&mut listener, 40);
    let stream = listener.opened[0];
    listener
        .server
        .stop(listener.now, stream, "stream terminated: credit_exhaustion");
    listener.drain();
    client.exchange(&mut listener);
    let refusal = client.refusal();
    assert_eq!(
        refusal,
        Some((
            "NetStream.Publish.Rejected",
            "stream terminated: credit_exhaustion"
        ))
    );
    assert_eq!(listener.ended, [(stream, Ending::Stopped)]);
    listener.server.stop(listener.now, stream, "again");
    listener.pass(LAST_WORDS);
    assert_eq!(listener.ended.len(), 1);
    assert!(listener.is_closed(client.id));
}

#[test]
fn a_codec_that_changes_ends_the_stream() {
    for (name, config, is_video) in [
        ("sound", &OPUS_CONFIG[..], false),
        ("video", &b"\x90hvc1config"[..], true),
    ] {
        let mut listener = Listener::new(Config::default());
        let mut client = Client::publish(&mut listener, "live", name);
        client.begin(&mut listener, 40);
        if is_video {
            client.video(&mut listener, 80, config);
        } else {
            client.audio(&mut listener, 80, config);
        }
        client.exchange(&mut listener);
        assert_eq!(
            client.refusal().map(|refusal| refusal.0),
            Some("NetStream.Publish.Rejected"),
            "{name}"
        );
        assert_eq!(
            listener.ended,
            [(listener.opened[0], Ending::CodecChanged)],
            "{name}"
        );
    }
}

#[test]
fn waits_are_over_after_their_time() {
    let mut listener = Listener::new(Config::default());
    let mut sound = Client::publish_from(&mut listener, 2, "live", "sound");
    sound.audio(&mut listener, 0, &AAC_CONFIG);
    sound.audio(&mut listener, 0, &AAC);
    listener.pass(VIDEO_WAIT);
    assert_eq!(listener.why(sound.id), "no video in time");

    let mut frozen = Client::publish_from(&mut listener, 2, "live", "frozen");
    frozen.begin(&mut listener, 0);
    let half = KEY_FRAME_WAIT.as_millis() as u32 / 4;
    for at in 1..4 {
        listener.pass(KEY_FRAME_WAIT / 4);
        frozen.video(&mut listener, half * at, &INTER);
    }
    assert!(!listener.is_closed(frozen.id));
    listener.pass(KEY_FRAME_WAIT / 4 + LAST_WORDS);
    assert_eq!(listener.why(frozen.id), "no key frame in time");

    let half_open = listener.open();
    listener.data(half_open, &[3]);
    listener.pass(HANDSHAKE);
    assert!(listener.is_closed(half_open));

    let idle = listener.open();
    listener.data(idle, &super::peer::handshake());
    listener.pass(BEFORE_PUBLISH);
    assert!(listener.is_closed(idle));
}

#[test]
fn connections_are_bounded_in_all_and_by_address() {
    let mut listener = Listener::new(Config::default());
    for address in 0..(MAX_CONNECTIONS / MAX_PER_ADDRESS) as u8 {
        for _ in 0..MAX_PER_ADDRESS {
            let peer = listener.open_from(address);
            assert!(!listener.is_closed(peer));
        }
        let one_more = listener.open_from(address);
        assert!(listener.is_closed(one_more));
    }
    let other = listener.open_from(200);
    assert!(listener.is_closed(other));
    assert_eq!(listener.server.connections(), MAX_CONNECTIONS);
    listener.input(Input::Closed(livepeer_ingest::rtmp::ConnectionId(1)));
    let other = listener.open_from(200);
    assert!(!listener.is_closed(other));
}

/// Media spec 8, row 39.
#[test]
fn an_address_that_guesses_keys_has_to_wait() {
    let mut listener = Listener::new(Config::default());
    listener.admits = false;
    for _ in 0..MAX_REFUSALS {
        let guess = Client::publish(&mut listener, "live", "cam1/guess");
        listener
            .server
            .refuse(listener.now, guess.id, "wrong stream key");
        listener.pass(LAST_WORDS);
    }
    let peer = listener.open();
    assert!(listener.is_closed(peer));
    let other = listener.open_from(2);
    assert!(!listener.is_closed(other));
    listener.pass(REFUSAL_WINDOW);
    let peer = listener.open();
    assert!(!listener.is_closed(peer));
}

#[test]
fn a_publisher_sends_no_more_than_it_declared_or_forty_megabits() {
    for (declared, fits) in [(0.0, false), (100_000.0, true)] {
        let mut listener = Listener::new(Config::default());
        let mut client = Client::publish(&mut listener, "live", "cam1");
        let script = [
            &b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonMetaData\x03\x00\x0dvideodatarate\x00"[..],
            &f64::to_be_bytes(declared),
            b"\x00\x00\x09",
        ]
        .concat();
        client.message(&mut listener, 18, &script);
        let second = MAX_RATE as usize / 8 + 1_000_000;
        for at in 0..=RATE_WINDOW.as_secs() as u32 {
            if listener.is_closed(client.id) {
                break;
            }
            client.begin(&mut listener, 1000 * at);
            // Script data are read up to 64 KiB only, and do not matter otherwise.
            for _ in 0..10 {
                client.message(&mut listener, 18, &vec![0; second / 10]);
            }
            listener.pass(Duration::from_secs(1));
        }
        client.begin(&mut listener, 20_000);
        assert_eq!(
            !listener.is_closed(client.id),
            fits,
            "{}",
            listener.why(client.id)
        );
    }
}
