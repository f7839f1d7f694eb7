//! Sessions of senders: connecting, media, and every way to end.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use livepeer_core::http::Method;
use livepeer_ingest::bridge::{self, Bridge, Source};
use livepeer_ingest::port::{
    Config, Datagram, Door, End, Event, Frame, MAX_ADDRESSES, MAX_NEW_ADDRESSES,
};
use livepeer_ingest::whip::{CONNECTING, CONSENT, KEY_FRAME, VIDEO};
use livepeer_media::timeline::{Clocks, Kind};

use crate::world::{World, clip, offer};

fn ended(world: &World) -> Vec<&End> {
    let mut ends = Vec::new();
    for event in &world.events {
        if let Event::Ended(_, end) = event {
            ends.push(end);
        }
    }
    ends
}

#[test]
fn every_frame_of_a_sender_arrives_and_the_tracks_are_told_first() {
    let mut world = World::new();
    let frames = clip();
    let (client, session) = world.join(Door::Whip, "cam");
    world.play(client, &frames);
    world.run(Duration::from_secs(8));
    assert!(world.clients[client].connected.is_some());
    let videos = frames.iter().filter(|frame| frame.0).count();
    let audios = frames.len() - videos;
    let (video, audio) = world.frames();
    assert_eq!(video, videos);
    // Sound before the first picture is not part of the stream.
    assert!(audios - audio <= 5, "{audio} of {audios}");
    let told: Vec<_> = world.events.iter().take(3).collect();
    assert_eq!(told[0], &Event::Connected(session));
    assert_eq!(told[1], &Event::Opened(session, true));
    assert!(
        matches!(told[2], Event::Frame(_, Frame::Video(unit)) if unit.key),
        "{told:?}"
    );
    let stamps = world.events.iter().filter_map(|event| match event {
        Event::Frame(_, Frame::Video(unit)) => Some(unit.pts.0),
        _ => None,
    });
    let stamps: Vec<_> = stamps.collect();
    let sent: Vec<_> = frames
        .iter()
        .filter(|frame| frame.0)
        .map(|frame| frame.2 as i64)
        .collect();
    let steps = |stamps: &[i64]| {
        stamps
            .windows(2)
            .map(|two| two[1] - two[0])
            .collect::<Vec<_>>()
    };
    assert_eq!(steps(&stamps), steps(&sent));
    assert!(
        world
            .events
            .iter()
            .any(|event| matches!(event, Event::Frame(_, Frame::Report(..))))
    );
    assert_eq!(ended(&world), Vec::<&End>::new());
}

/// Senders report of sound each five seconds, and may begin with it: were their first report lost, sound would be where it
/// arrived until the next.
#[test]
fn a_report_of_sound_from_before_the_first_picture_is_told_with_it() {
    let patience = |config: &mut Config| config.patience.video = Duration::from_secs(10);
    let mut world = World::with(patience);
    let (client, _) = world.join(Door::Whip, "cam");
    let mut frames = clip();
    let again = frames.clone().into_iter().filter(|frame| !frame.0);
    let seconds = |seconds: u64| 48_000 * seconds;
    frames.extend(again.map(|(video, key, stamp, data)| (video, key, stamp + seconds(5), data)));
    world.play(client, &frames);
    world.delay_pictures(client, Duration::from_secs(6));
    world.run(Duration::from_secs(9));
    let began = world.arrivals.first().expect("it came").0;
    let is_of_sound = |frame: &Frame| matches!(frame, Frame::Report(Kind::Audio, ..));
    let told = { world.arrivals.iter() }.find(|(_, frame)| is_of_sound(frame));
    let after = told.map(|(at, _)| at.since(began));
    assert!(
        after.is_some_and(|after| after < Duration::from_millis(100)),
        "{after:?}"
    );
}

#[test]
fn a_sender_without_its_sound_is_taken_at_once_and_the_bridge_finds_out() {
    let mut world = World::new();
    let frames: Vec<_> = clip().into_iter().filter(|frame| frame.0).collect();
    let (client, session) = world.join(Door::Whip, "cam");
    world.play(client, &frames);
    world.run(Duration::from_secs(8));
    assert!(world.events.contains(&Event::Opened(session, true)));
    assert_eq!(world.frames(), (frames.len(), 0));
    let played = bridged(&world, true);
    assert_eq!(played.tracks(), Some(None));
    let figures = played.figures();
    assert_eq!(
        (figures.pictures, figures.dropped),
        (frames.len() as u64, 0)
    );
}

/// A stream whose pictures are refreshed piece by piece, each time from a recovery point on.
fn refreshed() -> Vec<(bool, bool, u64, Arc<[u8]>)> {
    const RECOVERY_POINT: &[u8] = &[0, 0, 0, 1, 6, 6, 1, 0xc4, 0x80];
    let recorded: Vec<_> = clip().into_iter().filter(|frame| frame.0).collect();
    let length = recorded[recorded.len() - 1].2 - recorded[0].2 + 3_000;
    let turn = |turn: u64| {
        let shift = move |(_, key, stamp, data): (bool, bool, u64, Arc<[u8]>)| {
            let data = match key {
                true => [RECOVERY_POINT, &plain(&data)].concat().into(),
                false => data,
            };
            (true, false, stamp + turn * length, data)
        };
        recorded.clone().into_iter().map(shift)
    };
    (0..4).flat_map(turn).collect()
}

/// The slices of an IDR as those of another picture, which is all that is looked at here.
fn plain(data: &[u8]) -> Vec<u8> {
    let mut slices = data.to_vec();
    for at in 3..slices.len() {
        if slices[at - 3..at] == [0, 0, 1] && slices[at] & 0x1f == 5 {
            slices[at] = slices[at] & 0xe0 | 1;
        }
    }
    slices
}

/// The bridge of a job, with what came of a sender, and the time that it took until the first segment.
fn bridged(world: &World, sound: bool) -> Bridge {
    let begun = world.arrivals.first().map_or(world.now, |(at, _)| *at);
    let mut bridge = Bridge::new(begun, bridge::Config::default());
    let clocks = Clocks::Apart;
    bridge.source(begun, Source { clocks, sound });
    for (at, frame) in &world.arrivals {
        match frame.clone() {
            Frame::Video(unit) => bridge.video(*at, unit),
            Frame::Audio(audio) => bridge.audio(*at, audio),
            Frame::Report(kind, stamp, micros) => bridge.report(*at, kind, stamp, micros),
            Frame::Lost => bridge.lost(*at),
        }
    }
    bridge
}

#[test]
fn a_stream_without_key_frames_begins_at_a_recovery_point_and_is_cut_at_further_ones() {
    let mut world = World::new();
    let frames = refreshed();
    let (client, session) = world.join(Door::Whip, "cam");
    world.play(client, &frames);
    world.run(Duration::from_secs(27));
    assert_eq!(ended(&world), Vec::<&End>::new());
    let began = world.arrivals.first().expect("it came").0;
    let keys = world.arrivals.iter().filter_map(|(at, frame)| match frame {
        Frame::Video(unit) if unit.key => Some(at.since(began)),
        _ => None,
    });
    let keys: Vec<_> = keys.collect();
    assert!(keys.len() > 2 && keys[0] >= KEY_FRAME, "{keys:?}");
    let figures = bridged(&world, true).figures();
    assert!(figures.segments > 2 && figures.forced == 0, "{figures:?}");
    assert!(world.port.metrics(session).is_some());
}

#[test]
fn what_arrives_of_a_sender_is_counted_and_so_is_what_does_not() {
    let mut world = World::new();
    let (client, session) = world.join(Door::Whip, "cam");
    world.play(client, &clip());
    let (mut sent, mut lost) = ([0_i64; 2], [0_i64; 2]);
    let counts = Rc::new(Cell::new((sent, lost)));
    let told = Rc::clone(&counts);
    // Repairs of what was lost are packets of another kind.
    let sound = world.clients[client].payload(false).expect("answered");
    let video = world.clients[client].payload(true).expect("answered");
    world.loses = Box::new(move |to_port, datagram| {
        let payload = datagram.data[1] & 0x7f;
        let track = [video, sound].iter().position(|kind| *kind == payload);
        let Some(track) = track.filter(|_| to_port && datagram.data[0] >> 6 == 2) else {
            return false;
        };
        sent[track] += 1;
        let is_lost = sent[track] % 10 == 0;
        lost[track] += i64::from(is_lost);
        told.set((sent, lost));
        is_lost
    });
    world.run(Duration::from_secs(4));
    let metrics = world.port.metrics(session).expect("it is there");
    let (sent, lost) = counts.get();
    let tracks = metrics.tracks.iter();
    let tracks: Vec<_> = tracks
        .map(|one| (one.video, one.received, one.lost))
        .collect();
    // Of a loss is known once a later packet has come.
    let known = |at: usize| lost[at] - i64::from(sent[at] % 10 == 0);
    let wanted = [true, false].map(|is_video| {
        let at = usize::from(!is_video);
        (is_video, sent[at] - lost[at], known(at))
    });
    assert_eq!(tracks, wanted);
    assert!(sent[0] > 50 && sent[1] > 50, "{sent:?}");
    assert!(
        metrics.received > 10_000 && metrics.sent > 500,
        "{metrics:?}"
    );
    assert!(metrics.tracks.iter().all(|track| track.jitter < 5.0));
    world.port.kick(world.now, session, "over");
    assert_eq!(world.port.metrics(session), None);
}

#[test]
fn lost_packets_cost_a_request_for_a_key_frame_and_requests_are_rare() {
    let mut world = World::new();
    let frames = clip();
    let (client, _) = world.join(Door::Whip, "cam");
    world.play(client, &frames);
    let mut count = 0_u32;
    world.loses = Box::new(move |to_port, datagram| {
        let media = to_port
            && matches!(datagram.data[0], 128..=191)
            && !(64..96).contains(&(datagram.data[1] & 0x7f));
        count += u32::from(media);
        media && count.is_multiple_of(3)
    });
    world.run(Duration::from_secs(8));
    let asked = world.clients[client].keys_asked;
    assert!(asked > 0 && asked <= 16, "{asked} in 8 s");
    assert!(world.frames().0 > 20, "{:?}", world.frames());
}

#[test]
fn who_never_connects_is_dropped_in_time() {
    let mut world = World::new();
    world.join(Door::Whip, "cam");
    world.loses = Box::new(|_, _| true);
    world.run(CONNECTING - Duration::from_secs(1));
    assert!(ended(&world).is_empty());
    world.run(Duration::from_secs(2));
    assert_eq!(ended(&world), [&End::NotConnected("no STUN message came")]);
    assert!(world.port.is_empty());
    // STUN passes and DTLS does not.
    let mut world = World::new();
    world.join(Door::Whip, "cam");
    world.loses = Box::new(|_, datagram| matches!(datagram.data[0], 20..=63));
    world.run(CONNECTING + Duration::from_secs(1));
    assert_eq!(
        ended(&world),
        [&End::NotConnected("DTLS was not done in time")]
    );
}

/// Media spec 8, row 9.
#[test]
fn a_certificate_that_was_not_announced_ends_the_session() {
    let mut world = World::new();
    let fingerprint = |offer: &str| {
        let line = offer
            .lines()
            .find(|line| line.starts_with("a=fingerprint:"));
        line.unwrap().to_owned()
    };
    let foreign = fingerprint(&offer(Door::Whip));
    world.join_with(Door::Whip, "cam", |offer| {
        offer.replace(&fingerprint(offer), &foreign)
    });
    world.run(CONNECTING * 2 + Duration::from_secs(1));
    assert!(
        matches!(ended(&world)[..], [End::NotConnected(_)]),
        "{:?}",
        ended(&world)
    );
    assert_eq!(world.frames(), (0, 0));
}

/// Media spec 8, row 20.
#[test]
fn who_sends_no_video_or_no_key_frame_is_told_so() {
    let mut world = World::new();
    let (client, _) = world.join(Door::Whip, "cam");
    let sound: Vec<_> = clip().into_iter().filter(|frame| !frame.0).collect();
    world.play(client, &sound);
    world.run(VIDEO + Duration::from_secs(1));
    assert_eq!(ended(&world), [&End::NoVideo]);

    let mut world = World::new();
    let (client, _) = world.join(Door::Whip, "cam");
    let endless: Vec<_> = clip()
        .into_iter()
        .filter(|frame| frame.0 && !frame.1)
        .collect();
    let span = endless.last().unwrap().2 - endless[0].2 + 3_000;
    let again = endless
        .iter()
        .map(|(v, k, at, data)| (*v, *k, at + span, data.clone()));
    let again2 = endless
        .iter()
        .map(|(v, k, at, data)| (*v, *k, at + 2 * span, data.clone()));
    let all: Vec<_> = endless.iter().cloned().chain(again).chain(again2).collect();
    world.play(client, &all);
    world.run(KEY_FRAME + Duration::from_secs(2));
    assert_eq!(ended(&world), [&End::NoKeyFrame]);
    assert!(
        world.clients[client].keys_asked > 5,
        "it was asked to send one"
    );
}

#[test]
fn a_peer_that_vanishes_is_noticed_and_one_that_says_goodbye_at_once() {
    let mut world = World::new();
    let (client, _) = world.join(Door::Whip, "cam");
    world.play(client, &clip());
    world.run(Duration::from_secs(2));
    world.loses = Box::new(|_, _| true);
    world.run(CONSENT + Duration::from_secs(3));
    assert_eq!(ended(&world), [&End::Gone]);
    assert!(
        world
            .events
            .iter()
            .any(|event| matches!(event, Event::Stalled(_)))
    );

    let mut world = World::new();
    let (client, _) = world.join(Door::Whip, "cam");
    world.play(client, &clip());
    world.run(Duration::from_secs(2));
    let now = world.now;
    world.clients[client].close(now);
    world.run(Duration::from_millis(10));
    assert_eq!(ended(&world), [&End::Disconnected]);
    // OBS closes first, sends DELETE after that, and wants 200.
    let location = world.clients[client].location.clone();
    assert_eq!(world.ask(Method::Delete, Door::Whip, &location).status, 200);
    world.run(Duration::from_secs(31));
    assert_eq!(world.ask(Method::Delete, Door::Whip, &location).status, 404);
}

#[test]
fn a_delete_ends_the_session_and_says_goodbye_to_the_peer() {
    let mut world = World::new();
    let (client, _) = world.join(Door::Whip, "cam");
    world.play(client, &clip());
    world.run(Duration::from_secs(1));
    let location = world.clients[client].location.clone();
    assert_eq!(world.ask(Method::Delete, Door::Whip, &location).status, 200);
    assert!(world.clients[client].closed, "close_notify came");
    assert_eq!(
        world.ask(Method::Delete, Door::Whip, &location).status,
        200,
        "a second time"
    );
    assert_eq!(ended(&world), [&End::Disconnected]);
    assert!(world.port.is_empty());
}

#[test]
fn a_second_sender_of_a_name_takes_over() {
    let mut world = World::new();
    let (first, one) = world.join(Door::Whip, "cam");
    world.play(first, &clip());
    world.run(Duration::from_secs(1));
    let (_, two) = world.join(Door::Whip, "cam");
    world.run(Duration::from_millis(100));
    assert!(world.events.contains(&Event::Ended(one, End::TakenOver)));
    assert!(world.clients[first].closed);
    assert!(world.events.contains(&Event::Connected(two)));
    let (_, other) = world.join(Door::Whip, "other");
    world.run(Duration::from_millis(100));
    assert!(world.events.contains(&Event::Connected(other)));
    assert_eq!(ended(&world).len(), 1);
}

#[test]
fn our_first_hello_is_repeated_once_and_nothing_else_is() {
    // The peer is passive and loses our first record, as ffmpeg 9 does.
    let mut world = World::new();
    let (client, _) = world.join_with(Door::Whip, "cam", |offer| {
        offer.replace("setup:actpass", "setup:passive")
    });
    let mut hellos = 0;
    world.loses = Box::new(move |to_port, datagram| {
        let hello = !to_port && datagram.data[0] == 22 && datagram.data[13] == 1;
        hellos += u32::from(hello);
        hello && hellos == 1
    });
    let began = world.now;
    world.run(Duration::from_secs(2));
    let connected = world.clients[client].connected.expect("connected");
    assert!(
        connected.since(began) < Duration::from_millis(400),
        "{:?}",
        connected.since(began)
    );
    let first: Vec<_> = world
        .sent
        .iter()
        .filter(|sent| sent.data[0] == 22 && sent.data[13] == 1)
        .collect();
    assert_eq!(first[0].data, first[1].data, "the same datagram");

    // A peer that loses nothing gets each record once.
    let mut world = World::new();
    world.join_with(Door::Whip, "cam", |offer| {
        offer.replace("setup:actpass", "setup:passive")
    });
    world.run(Duration::from_secs(2));
    let records: Vec<_> = world
        .sent
        .iter()
        .filter(|sent| matches!(sent.data[0], 20..=63))
        .collect();
    let mut once = records.clone();
    once.dedup_by(|a, b| a.data == b.data);
    assert_eq!(once.len(), records.len());
}

/// Media spec 8, row 12.
#[test]
fn an_address_is_believed_only_after_the_checksum() {
    let mut world = World::new();
    let (client, _) = world.join(Door::Whip, "cam");
    world.play(client, &clip());
    let thief = "203.0.113.9:666".parse().unwrap();
    let mut seen = Vec::<Datagram>::new();
    let (tx, rx) = std::sync::mpsc::channel();
    world.loses = Box::new(move |to_port, datagram| {
        if to_port && datagram.data[0] < 4 {
            tx.send(datagram.clone()).unwrap();
        }
        false
    });
    world.run(Duration::from_secs(1));
    seen.extend(rx.try_iter());
    // A message of the peer's with one byte changed, from elsewhere: our user fragment, and no proof.
    let mut forged = seen[0].clone();
    let last = forged.data.len() - 10;
    forged.data[last] ^= 1;
    forged.peer = thief;
    let dropped = world.port.figures().dropped;
    world.port.receive(world.now, &forged);
    world.port.receive(
        world.now,
        &Datagram {
            peer: thief,
            data: vec![22, 1, 2, 3],
        },
    );
    world.port.receive(
        world.now,
        &Datagram {
            peer: thief,
            data: vec![],
        },
    );
    world.port.receive(
        world.now,
        &Datagram {
            peer: thief,
            data: vec![0x80; 3_000],
        },
    );
    assert_eq!(world.port.figures().dropped, dropped + 4);
    world.sent.clear();
    world.run(Duration::from_secs(1));
    assert!(world.sent.iter().all(|sent| sent.peer != thief));
}

/// Media spec 8, row 13.
#[test]
fn a_phone_that_changes_its_network_is_followed_and_addresses_are_bounded() {
    let mut world = World::new();
    let (client, _) = world.join(Door::Whip, "cam");
    world.play(client, &clip());
    let (tx, rx) = std::sync::mpsc::channel();
    world.loses = Box::new(move |to_port, datagram| {
        if to_port && datagram.data[0] < 4 {
            tx.send(datagram.clone()).unwrap();
        }
        false
    });
    world.run(Duration::from_millis(500));
    // A valid message from ten thousand addresses, as whoever can read the peer's traffic may send.
    let valid = rx.try_iter().last().unwrap();
    for host in 0..10_000_u32 {
        let peer = std::net::SocketAddr::from(((0x0a00_0000 + host).to_be_bytes(), 9));
        world.port.receive(
            world.now,
            &Datagram {
                peer,
                data: valid.data.clone(),
            },
        );
    }
    world.drain();
    let answered: std::collections::BTreeSet<_> = world.sent.iter().map(|sent| sent.peer).collect();
    assert!(answered.len() <= MAX_NEW_ADDRESSES, "{}", answered.len());
    const { assert!(MAX_ADDRESSES < MAX_NEW_ADDRESSES) };
    // The sender goes on once it has proved itself again.
    world.run(Duration::from_secs(12));
    assert!(ended(&world).is_empty(), "{:?}", ended(&world));
}

/// Media spec 8, row 18.
#[test]
fn a_flood_of_media_ends_the_session() {
    let mut world = World::new();
    let (client, session) = world.join(Door::Whip, "cam");
    world.play(client, &clip());
    world.run(Duration::from_secs(1));
    let junk = Datagram {
        peer: world.clients[client].at,
        data: vec![0x80; 1_200],
    };
    for _ in 0..12_500_000 / 1_200 + 1 {
        world.port.receive(world.now, &junk);
    }
    world.drain();
    assert!(
        world
            .events
            .contains(&Event::Ended(session, End::InputRate))
    );
}
