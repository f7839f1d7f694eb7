//! Sessions of viewers: what of a stream reaches them, and when.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use livepeer_core::http::Method;
use livepeer_ingest::port::{Door, End, Event};
use livepeer_media::frame::{AccessUnit, Audio, AudioTrack, Ticks};
use livepeer_media::h264::{self, Drawing, PPS, SPS};
use str0m::media::MediaKind;

use crate::world::{Client, World, clip, offer};

fn got(client: &Client, kind: MediaKind) -> Vec<&str0m::media::MediaData> {
    let mid = client.mids[usize::from(kind != MediaKind::Video)];
    client.got.iter().filter(|data| data.mid == mid).collect()
}

/// A sender whose frames go to a stream that can be watched.
fn looped() -> (World, usize) {
    let mut world = World::new();
    world.port.open_stream("cam-out");
    world.loop_to = Some("cam-out".to_owned());
    let (sender, _) = world.join(Door::Whip, "cam");
    world.play(sender, &clip());
    (world, sender)
}

#[test]
fn a_viewer_gets_every_frame_from_its_first_key_frame_on() {
    let (mut world, _) = looped();
    let (viewer, session) = world.join(Door::Whep, "cam-out");
    world.run(Duration::from_secs(8));
    assert!(
        world
            .events
            .contains(&Event::Watching(session, "cam-out".to_owned()))
    );
    let frames = world.frames();
    let client = &world.clients[viewer];
    let video = got(client, MediaKind::Video);
    assert_eq!(video.len(), frames.0);
    assert!(video[0].is_keyframe() && video.iter().all(|data| data.contiguous));
    assert_eq!(longest_hold(&world.clients[viewer]), Some(Duration::ZERO));
    assert!(frames.1 - got(client, MediaKind::Audio).len() < 3);
    let stamps: Vec<_> = video.iter().map(|data| data.time.numer()).collect();
    assert!(stamps.is_sorted());
}

/// Sends a picture to whoever watches.
fn show(world: &mut World, pts: Ticks, key: bool, data: Bytes) {
    let unit = AccessUnit {
        pts,
        dts: pts,
        key,
        data,
    };
    world.port.send_video(world.now, "cam-out", &unit);
}

/// The parameter sets of a picture.
fn sets(unit: &[u8]) -> Vec<&[u8]> {
    let nals = h264::nals(unit).filter(|nal| matches!(h264::nal_type(nal), SPS | PPS));
    nals.collect()
}

#[test]
fn each_parameter_set_reaches_a_viewer_with_the_first_picture_that_needs_it() {
    let mut world = World::new();
    world.port.open_stream("cam-out");
    let (viewer, _) = world.join(Door::Whep, "cam-out");
    world.run(Duration::from_secs(1));
    // Pictures drawn without a codec have a parameter set of their own, and come without the others.
    let mut drawing = Drawing::default();
    let mut sent = Vec::new();
    for (_, key, stamp, data) in clip().into_iter().filter(|frame| frame.0).take(40) {
        let data = Bytes::copy_from_slice(&data);
        let drawn = drawing.after(&data, |_| Vec::new()).expect("it can be");
        let pts = Ticks(stamp as i64);
        for (pts, key, data) in [(pts, key, data), (pts + Ticks(180), false, drawn)] {
            show(&mut world, pts, key, data.clone());
            sent.push(data);
        }
        world.run(Duration::from_millis(33));
    }
    world.run(Duration::from_secs(1));
    let got = got(&world.clients[viewer], MediaKind::Video);
    assert_eq!(got.len(), sent.len());
    for (got, sent) in got.iter().zip(&sent) {
        let got = sets(&got.data);
        assert!(sets(sent).iter().all(|set| got.contains(set)));
    }
}

/// How long a viewer may hold pictures back, if it is told.
fn longest_hold(client: &Client) -> Option<Duration> {
    let first = got(client, MediaKind::Video)[0];
    let most = first.ext_vals.play_delay_max?;
    Some(Duration::from_micros(most.as_micros()))
}

#[test]
fn viewers_may_wait_for_sound_where_that_is_wanted() {
    let mut world = World::with(|config| config.in_step = true);
    world.port.open_stream("cam-out");
    world.loop_to = Some("cam-out".to_owned());
    let (sender, _) = world.join(Door::Whip, "cam");
    world.play(sender, &clip());
    let (viewer, _) = world.join(Door::Whep, "cam-out");
    world.run(Duration::from_secs(1));
    assert_eq!(longest_hold(&world.clients[viewer]), None, "as it likes");
}

/// Viewers keep pictures and sound in step by these reports: one that speaks of other stamps than are sent, as before anything
/// was sent, has Chromium out of step for half a minute.
#[test]
fn reports_say_when_pictures_and_sound_were_captured() {
    let mut world = World::new();
    world.port.open_stream("cam-out");
    world.loop_to = Some("cam-out".to_owned());
    // The viewer is there before there is anything to see.
    let (viewer, _) = world.join(Door::Whep, "cam-out");
    world.run(Duration::from_secs(2));
    let (sender, _) = world.join(Door::Whip, "cam");
    world.play(sender, &clip());
    world.run(Duration::from_secs(8));
    let client = &world.clients[viewer];
    let mut lags = Vec::new();
    for (kind, rate) in [(MediaKind::Video, 90_000), (MediaKind::Audio, 48_000)] {
        let mut reported = 0;
        for data in got(client, kind) {
            let Some(report) = &data.last_sender_info else {
                continue;
            };
            reported += 1;
            let ticks = (data.time.numer() as u32).wrapping_sub(report.rtp_time.numer() as u32);
            let ticks = i64::from(ticks.cast_signed());
            assert!(ticks.abs() < 10 * rate, "{kind:?}: {ticks}");
            let told = report.ntp_time.duration_since(SystemTime::UNIX_EPOCH);
            let captured = told.unwrap().as_millis() as i64 + ticks * 1_000 / rate;
            let arrived = data.network_time.duration_since(client.got[0].network_time);
            lags.push(captured - arrived.as_millis() as i64);
        }
        assert!(reported > 60, "{kind:?}: {reported}");
    }
    let (least, most) = (lags.iter().min().unwrap(), lags.iter().max().unwrap());
    assert!(most - least < 150, "{least} to {most}");
}

/// Sends the pictures and the sound of so many milliseconds of a stream, all of them now: a picture each 40 ms and a packet of
/// sound each 20 ms, which carries its number.
fn burst(world: &mut World, from: u64, to: u64) {
    let picture = clip().into_iter().find(|frame| frame.0 && frame.1);
    let (_, key, _, data) = picture.expect("a key frame");
    for millis in (from..to).step_by(20) {
        let pts = Ticks::from_millis(1_000 + millis as i64);
        if millis.is_multiple_of(40) {
            show(world, pts, key, Bytes::copy_from_slice(&data));
        }
        let [high, low] = (millis as u16 / 20).to_be_bytes();
        let audio = Audio {
            pts,
            track: AudioTrack::Opus { channels: 2 },
            data: Bytes::copy_from_slice(&[0xfc, high, low]),
        };
        world.port.send_audio(world.now, "cam-out", &audio);
        world.drain();
    }
}

/// When the stream began by the reports that a viewer had with each frame of a kind, in microseconds.
fn beginnings(client: &Client, kind: MediaKind) -> Vec<i64> {
    let (rate, step) = match kind {
        MediaKind::Video => (90_000, 40_000),
        MediaKind::Audio => (48_000, 20_000),
    };
    let frames = got(client, kind).into_iter().enumerate();
    let reported = frames.filter_map(|(at, data)| Some((at, data, data.last_sender_info?)));
    let beginnings = reported.map(|(at, data, report)| {
        let number = match kind {
            MediaKind::Video => at as i64,
            MediaKind::Audio => i64::from(u16::from_be_bytes([data.data[1], data.data[2]])),
        };
        let ticks = (data.time.numer() as u32).wrapping_sub(report.rtp_time.numer() as u32);
        let told = report.ntp_time.duration_since(SystemTime::UNIX_EPOCH);
        let told = told.expect("after 1970").as_micros() as i64;
        told + i64::from(ticks.cast_signed()) * 1_000_000 / rate - number * step
    });
    beginnings.collect()
}

#[test]
fn reports_of_pictures_and_sound_speak_of_one_time_though_a_stream_begins_late_and_gets_sooner() {
    // What waited for the job comes at once, and from then on sooner than it did, or not.
    for (waited, sooner) in [(120, 0), (400, 0), (0, 1), (240, 2), (3_000, 0)] {
        let mut world = World::new();
        world.port.open_stream("cam-out");
        let (viewer, _) = world.join(Door::Whep, "cam-out");
        world.run(Duration::from_secs(1));
        burst(&mut world, 0, waited);
        for millis in (waited..5_000).step_by(20) {
            burst(&mut world, millis, millis + 20);
            // Little by little.
            let late = if millis < 2_000 { sooner } else { 0 };
            world.run(Duration::from_millis(20 - late));
        }
        let client = &world.clients[viewer];
        assert_eq!(got(client, MediaKind::Video).len(), 125);
        let all = [MediaKind::Video, MediaKind::Audio].map(|kind| beginnings(client, kind));
        assert!(all.iter().all(|of_kind| of_kind.len() > 20));
        let all = all.concat();
        let apart = all.iter().max().unwrap() - all.iter().min().unwrap();
        assert!(
            apart < 1_000,
            "{waited} ms, then {sooner}: {apart} us apart"
        );
    }
}

#[test]
fn who_joins_later_gets_the_pictures_since_the_last_key_frame_at_once() {
    let (mut world, _) = looped();
    world.run(Duration::from_millis(1_500));
    let (viewer, _) = world.join(Door::Whep, "cam-out");
    let began = world.now;
    world.run(Duration::from_millis(300));
    let client = &world.clients[viewer];
    let video = got(client, MediaKind::Video);
    assert!(client.connected.unwrap().since(began) < Duration::from_millis(200));
    // The recording has its second key frame after 1.8 s.
    assert!(
        video.len() > 40 && video[0].is_keyframe(),
        "{}",
        video.len()
    );
    let gaps: Vec<_> = video
        .iter()
        .enumerate()
        .filter(|(_, data)| !data.contiguous)
        .map(|(at, data)| (at, data.seq_range.clone()))
        .collect();
    assert!(gaps.is_empty(), "{gaps:?} of {}", video.len());
}

/// Media spec 8, row 25.
#[test]
fn a_viewer_that_lost_its_picture_gets_the_group_once() {
    let (mut world, _) = looped();
    let (viewer, _) = world.join(Door::Whep, "cam-out");
    world.run(Duration::from_secs(2));
    // A second into the second group: the next key frame is far.
    world.run(Duration::from_millis(700));
    let before = got(&world.clients[viewer], MediaKind::Video).len();
    for _ in 0..50 {
        let now = world.now;
        world.clients[viewer].ask_for_key(now);
        world.run(Duration::from_millis(2));
    }
    let more = got(&world.clients[viewer], MediaKind::Video).len() - before;
    assert!(
        (15..60).contains(&more),
        "{more}: the group, once, and some pictures after it"
    );
    let sender_asked = world.clients[0].keys_asked;
    assert_eq!(sender_asked, 0, "a viewer's wish goes nowhere else");
}

#[test]
fn a_break_of_the_stream_keeps_viewers_and_their_stamps_going() {
    let (mut world, _) = looped();
    let (viewer, _) = world.join(Door::Whep, "cam-out");
    world.run(Duration::from_millis(1_000));
    let before = got(&world.clients[viewer], MediaKind::Video).len();
    world.port.restart_stream("cam-out");
    world.run(Duration::from_millis(500));
    assert_eq!(
        got(&world.clients[viewer], MediaKind::Video).len(),
        before,
        "until the next key frame"
    );
    world.run(Duration::from_secs(7));
    let video = got(&world.clients[viewer], MediaKind::Video);
    assert!(video.len() > before + 50 && video[before].is_keyframe());
    let stamps: Vec<_> = video.iter().map(|data| data.time.numer()).collect();
    assert!(stamps.is_sorted(), "stamps go on");
}

/// Media spec 8, row 26.
#[test]
fn viewers_are_bounded_and_leave_room() {
    let (mut world, _) = looped();
    world.run(Duration::from_millis(100));
    for _ in 0..5 {
        world.join(Door::Whep, "cam-out");
    }
    world.run(Duration::from_millis(500));
    let offer = offer(Door::Whep);
    let path = "/live/video-to-video/cam-out/whep";
    let exchange = world.post(Door::Whep, path, offer.clone());
    let reply = world.reply(exchange);
    assert_eq!(
        (reply.status, reply.headers.get("retry-after")),
        (429, Some("5"))
    );
    let location = world.clients[1].location.clone();
    assert_eq!(world.ask(Method::Delete, Door::Whep, &location).status, 200);
    let exchange = world.post(Door::Whep, path, offer.clone());
    assert_eq!(world.reply(exchange).status, 201);
    let exchange = world.post(Door::Whep, "/live/video-to-video/nothing/whep", offer);
    let reply = world.reply(exchange);
    assert_eq!(
        (reply.status, reply.headers.get("retry-after")),
        (404, Some("1"))
    );
    world.port.close_stream(world.now, "cam-out");
    world.drain();
    let left = world
        .events
        .iter()
        .filter(|event| matches!(event, Event::Left(_, End::StreamEnded)));
    assert_eq!(left.count(), 5);
    assert!(world.clients[2].closed, "goodbye was said");
}

#[test]
fn a_viewer_that_vanishes_is_let_go() {
    let (mut world, _) = looped();
    let (viewer, session) = world.join(Door::Whep, "cam-out");
    world.run(Duration::from_secs(1));
    let at = world.clients[viewer].at;
    world.loses = Box::new(move |_, datagram| datagram.peer == at);
    world.run(Duration::from_secs(13));
    assert!(
        world.events.contains(&Event::Left(session, End::Gone)),
        "{:?}",
        world.port.len()
    );
}
