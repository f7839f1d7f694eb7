//! Peers that are connected and mean no good, and those that are no peers at all: what they send costs themselves alone.
//! Rows are those of the hostile input in the media spec, 8.

use std::collections::BTreeSet;
use std::time::Duration;

use livepeer_ingest::port::{
    Datagram, Door, End, Event, Frame, MAX_CHECKS_A_SECOND, MAX_WAITING, SessionId,
};
use livepeer_ingest::whip::{CONNECTING, LEAST_COUNTED, MAX_BYTES_A_SECOND};
use livepeer_media::frame::{AccessUnit, Ticks};
use livepeer_media::h264;
use livepeer_media::timeline::{Clocks, Timeline};

use crate::world::{Packet, World, clip, offer};

/// Parameter sets of 320x180 and of 640x360, as x264 writes them.
const SMALL: &[u8] = &[
    0x67, 0x42, 0xc0, 0x0d, 0xd9, 0x01, 0x41, 0x9f, 0x9e, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00,
    0x00, 0x03, 0x03, 0xc0, 0xf1, 0x42, 0xa4, 0x80,
];
const OTHER: &[u8] = &[
    0x67, 0x42, 0xc0, 0x0d, 0xda, 0x05, 0x06, 0x7e, 0x78, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00,
    0x00, 0x0f, 0x23, 0xc5, 0x0a, 0xa8,
];
const PPS: &[u8] = &[0x68, 0xcb, 0x83, 0xcb, 0x20];
const IDR: &[u8] = &[0x65, 0x88, 0x84, 0x01];
const SLICE: &[u8] = &[0x41, 0x9a, 0x02];
/// Baseline, level 1.3, and 65,535 macroblocks wide and high.
const HUGE: &[u8] = &[
    0x67, 0x42, 0xc0, 0x0d, 0xd9, 0x00, 0x00, 0x80, 0x00, 0x20, 0x00, 0x10, 0x00, 0x04,
];
/// Lengths of more bits than any number has.
const ENDLESS: &[u8] = &[0x67, 0x42, 0xc0, 0x0d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// A packet with several units in it (STAP-A).
fn together(units: &[&[u8]]) -> Vec<u8> {
    let mut packet = vec![0x78];
    for unit in units {
        packet.extend_from_slice(&(unit.len() as u16).to_be_bytes());
        packet.extend_from_slice(unit);
    }
    packet
}

/// A sender that writes its own packets.
struct Sender {
    world: World,
    client: usize,
    session: SessionId,
    numbers: (u64, u64),
    stamp: u32,
}

impl Sender {
    /// A sender whose stream is live, without sound.
    fn live() -> Self {
        let mut sender = Self::connected();
        sender.picture(&[&together(&[SMALL, PPS, IDR])]);
        let opened = Event::Opened(sender.session, true);
        assert!(sender.world.events.contains(&opened));
        sender.world.events.clear();
        sender
    }

    fn connected() -> Self {
        let mut world = World::new();
        let (client, session) = world.join_by_packets("cam");
        Self {
            world,
            client,
            session,
            numbers: (100, 100),
            stamp: 0,
        }
    }

    fn video(&mut self, marker: bool, payload: &[u8]) {
        self.numbers.0 += 1;
        let packet = Packet {
            video: true,
            number: self.numbers.0,
            stamp: self.stamp,
            marker,
            payload,
        };
        self.world.send(self.client, packet);
    }

    fn sound(&mut self, payload: &[u8]) {
        self.numbers.1 += 1;
        let packet = Packet {
            video: false,
            number: self.numbers.1,
            stamp: 960 * self.numbers.1 as u32,
            marker: false,
            payload,
        };
        self.world.send(self.client, packet);
    }

    /// A picture of these packets, a frame later than the last.
    fn picture(&mut self, packets: &[&[u8]]) {
        self.stamp = self.stamp.wrapping_add(3_000);
        for (at, packet) in packets.iter().enumerate() {
            self.video(at + 1 == packets.len(), packet);
        }
    }

    /// The pictures that arrived.
    fn pictures(&self) -> Vec<&AccessUnit> {
        let picture = |event: &&_| matches!(event, Event::Frame(_, Frame::Video(_)));
        let pictures = self.world.events.iter().filter(picture);
        pictures
            .map(|event| match event {
                Event::Frame(_, Frame::Video(unit)) => unit,
                _ => unreachable!("filtered"),
            })
            .collect()
    }

    fn sounds(&self) -> usize {
        self.world.frames().1
    }

    fn end(&self) -> Option<&End> {
        ends(&self.world).first().copied()
    }
}

/// How senders and viewers ended.
fn ends(world: &World) -> Vec<&End> {
    let end = |event| match event {
        &Event::Ended(_, ref end) | &Event::Left(_, ref end) => Some(end),
        _ => None,
    };
    world.events.iter().filter_map(end).collect()
}

/// A client's datagrams to the port, as they go by.
fn overheard(world: &mut World) -> std::sync::mpsc::Receiver<Datagram> {
    let (tx, rx) = std::sync::mpsc::channel();
    world.loses = Box::new(move |to_port, datagram| {
        if to_port {
            tx.send(datagram.clone()).expect("the test listens");
        }
        false
    });
    rx
}

fn is_media(datagram: &Datagram) -> bool {
    matches!(datagram.data.as_slice(), [128..=191, kind, ..] if !matches!(kind & 0x7f, 64..=95))
}

/// Rows 10 and 12: floods of offers, and of checks.
#[test]
fn floods_of_offers_and_of_checks_are_bounded() {
    let mut world = World::new();
    let offer = offer(Door::Whip);
    let mut refused = 0;
    for n in 0..MAX_WAITING.0 + 5 {
        let path = format!("/live/video-to-video/cam{n}/whip");
        let exchange = world.post(Door::Whip, &path, offer.clone());
        if let Some((_, reply)) = world.replies.iter().find(|(id, _)| *id == exchange) {
            assert_eq!(reply.status, 429);
            refused += 1;
        }
    }
    assert_eq!((world.port.len(), refused), (MAX_WAITING.0, 5));

    let mut world = World::new();
    let heard = overheard(&mut world);
    world.join(Door::Whip, "cam");
    world.run(Duration::from_millis(200));
    let valid = heard.try_iter().find(|sent| sent.data[0] < 4).unwrap();
    let mut forged = valid.clone();
    let last = forged.data.len() - 10;
    forged.data[last] ^= 1;
    forged.peer = "203.0.113.9:666".parse().unwrap();
    world.run(Duration::from_secs(2));
    for _ in 0..2 * MAX_CHECKS_A_SECOND {
        world.port.receive(world.now, &forged);
    }
    let unchecked = world.port.figures().unchecked;
    assert_eq!(unchecked, u64::from(MAX_CHECKS_A_SECOND));
    world.port.receive(world.now, &valid);
    assert_eq!(
        world.port.figures().unchecked,
        unchecked,
        "others are heard"
    );
    world.run(Duration::from_secs(10));
    assert_eq!(ends(&world), [&End::NoVideo], "its time goes on");
}

/// Row 14: handshakes of DTLS that never come to an end.
#[test]
fn records_that_never_complete_a_message_end_with_the_session() {
    for length in [60_000_u32, 0xff_ffff] {
        let mut world = World::new();
        let (client, _) = world.join(Door::Whip, "cam");
        let peer = world.clients[client].at;
        world.loses = Box::new(|_, datagram| matches!(datagram.data[0], 20..=63));
        world.run(Duration::from_millis(500));
        world.sent.clear();
        for n in 0..2_000_u32 {
            // A fragment of a ClientHello, each at another place.
            let fragment = 1_000 * n % length.min(60_000);
            let mut data = vec![22, 0xfe, 0xfd, 0, 0, 0, 0];
            data.extend_from_slice(&n.to_be_bytes());
            data.extend_from_slice(&1_012_u16.to_be_bytes());
            data.push(1);
            data.extend_from_slice(&length.to_be_bytes()[1..]);
            data.extend_from_slice(&(n as u16 % 3).to_be_bytes());
            data.extend_from_slice(&fragment.to_be_bytes()[1..]);
            data.extend_from_slice(&1_000_u32.to_be_bytes()[1..]);
            data.resize(data.len() + 1_000, 7);
            world.port.receive(world.now, &Datagram { peer, data });
            world.drain();
        }
        assert!(world.sent.len() < 100, "{} datagrams", world.sent.len());
        world.run(CONNECTING);
        assert!(
            matches!(ends(&world)[..], [End::NotConnected(_)]),
            "{:?}",
            ends(&world)
        );
        assert!(world.port.is_empty());
    }
}

/// Row 15: packets that come again, that were changed on their way, or that belong to nothing.
#[test]
fn packets_that_come_again_or_changed_are_dropped() {
    let mut world = World::new();
    let (client, _) = world.join(Door::Whip, "cam");
    let heard = overheard(&mut world);
    world.play(client, &clip());
    world.run(Duration::from_secs(1));
    let before = world.frames();
    let media: Vec<_> = heard.try_iter().filter(is_media).collect();
    assert!(before.0 > 10 && media.len() > 20);
    for packet in &media {
        world.port.receive(world.now, packet);
        for byte in [1, 3, 9, packet.data.len() - 1] {
            // The payload type, the number, the source, the tag.
            let mut changed = packet.clone();
            changed.data[byte] ^= 0x55;
            world.port.receive(world.now, &changed);
        }
        let mut cut = packet.clone();
        cut.data.truncate(14);
        world.port.receive(world.now, &cut);
    }
    world.drain();
    assert_eq!(world.frames(), before);
    world.run(Duration::from_secs(1));
    assert!(world.frames().0 > before.0 + 10, "the sender goes on");
    assert!(ends(&world).is_empty());
}

/// Row 16: fragments, aggregates and units that are not what they say.
#[test]
fn torn_packets_cost_their_picture_and_ask_for_a_key_frame() {
    let mut past_the_end = together(&[SLICE]);
    past_the_end[2] = 200;
    let torsos: [&[&[u8]]; 9] = [
        &[SLICE, &[0x7c, 0x45, 1, 2]],
        &[&[0x7c, 0x81, 1, 2], &[0x7c, 0x01, 3, 4]],
        &[&[0x7c, 0x81, 1, 2], SLICE],
        &[&[0x7c]],
        &[&past_the_end],
        &[&[0x7d, 0x81, 1, 2]],
        &[&[0x00, 1, 2]],
        &[&together(&[&[], &[]])],
        &[&[0x78]],
    ];
    for torso in torsos {
        let mut sender = Sender::live();
        sender.picture(torso);
        assert!(sender.pictures().is_empty(), "{torso:?}");
        // The unit without an end, if there was one, takes the next that ends with it.
        sender.picture(&[&[0x7c, 0x81, 1, 2], &[0x7c, 0x41, 3, 4]]);
        // The engine may wait for packets that it misses.
        sender.world.run(Duration::from_secs(1));
        sender.world.events.clear();
        sender.picture(&[SLICE]);
        sender.picture(&[&[0x7c, 0x81, 9, 9], &[0x7c, 0x41, 8, 8]]);
        let pictures: Vec<_> = sender
            .pictures()
            .iter()
            .map(|unit| &unit.data[..])
            .collect();
        let whole = [&[0, 0, 0, 1][..], SLICE].concat();
        let joined = [0, 0, 0, 1, 0x61, 9, 9, 8, 8];
        assert_eq!(pictures, [&whole[..], &joined], "{torso:?}");
        sender.world.run(Duration::from_secs(1));
        let asked = sender.world.clients[sender.client].keys_asked;
        assert!(asked > 0, "{torso:?}");
        assert_eq!(sender.end(), None, "{torso:?}");
    }
    // Nothing but torsos.
    let mut sender = Sender::live();
    for _ in 0..h264::MAX_BAD_UNITS {
        assert_eq!(sender.end(), None);
        sender.picture(&[SLICE, &[0x7c, 0x45, 1, 2]]);
    }
    assert!(matches!(sender.end(), Some(End::BadVideo(_))));
    // Nothing but padding: packets, and no picture.
    let mut sender = Sender::live();
    (0..50).for_each(|_| sender.video(false, &[]));
    sender.picture(&[SLICE]);
    sender.world.run(Duration::from_secs(1));
    assert_eq!((sender.pictures().len(), sender.end()), (1, None));
}

/// Row 17: a picture that never ends, and units that never do between pictures that are good.
#[test]
fn what_never_ends_is_given_up_within_bounds() {
    let fragment = [&[0x7c, 0x01][..], &[7; 1_100]].concat();
    let mut sender = Sender::live();
    sender.stamp += 3_000;
    sender.video(false, &[0x7c, 0x81, 1, 2]);
    let mut packets = 0;
    while sender.end().is_none() && packets < 10_000 {
        sender.video(false, &fragment);
        packets += 1;
    }
    assert!(
        matches!(sender.end(), Some(End::BadVideo(_))),
        "{packets}: {:?}",
        sender.end()
    );
    assert!(sender.pictures().is_empty());

    let mut sender = Sender::live();
    let begun = [&[0x7c, 0x81][..], &[7; 1_100]].concat();
    let mut bytes = 0;
    while sender.end().is_none() && bytes < 2 * h264::MAX_UNIT {
        sender.picture(&[
            &begun, &fragment, &fragment, &fragment, &fragment, &fragment, &fragment,
        ]);
        sender.picture(&[SLICE]);
        bytes += 7 * fragment.len();
    }
    assert!(
        matches!(sender.end(), Some(End::BadVideo(_))),
        "{bytes}: {:?}",
        sender.end()
    );
}

/// Row 18: small packets cost as much work as large ones.
#[test]
fn a_flood_of_small_packets_ends_the_session_as_well() {
    let mut sender = Sender::live();
    let peer = sender.world.clients[sender.client].at;
    let data = vec![0x80; 20];
    for _ in 0..2 * MAX_BYTES_A_SECOND as usize / LEAST_COUNTED + 1 {
        let data = data.clone();
        let world = &mut sender.world;
        world.port.receive(world.now, &Datagram { peer, data });
    }
    sender.world.drain();
    assert_eq!(sender.end(), Some(&End::InputRate));
}

/// Row 19: stamps that jump, wrap, stand still and go back.
#[test]
fn wherever_stamps_jump_the_time_of_the_job_goes_on() {
    let mut sender = Sender::live();
    let mut stamp = u32::MAX - 10_000;
    let steps = [
        3_000,
        3_000,
        3_000,
        3_000,
        0,
        0,
        1 << 30,
        3_000,
        (1 << 31) + 5,
        3_000,
    ];
    for step in steps
        .into_iter()
        .chain([0_u32.wrapping_sub(900_000), 3_000, 1, 3_000])
    {
        stamp = stamp.wrapping_add(step);
        sender.stamp = stamp.wrapping_sub(3_000);
        sender.picture(&[SLICE]);
        sender.world.run(Duration::from_millis(30));
    }
    let pictures = sender.pictures();
    assert_eq!((pictures.len(), sender.end()), (14, None));
    let mut timeline = Timeline::new(Clocks::Apart);
    let times: Vec<Ticks> = pictures
        .iter()
        .map(|unit| timeline.video(Duration::ZERO, unit.pts, unit.dts).1)
        .collect();
    assert!(times.windows(2).all(|two| two[0] < two[1]), "{times:?}");
    assert!(timeline.jumps() >= 3);
    let length = times[13] - times[0];
    assert!(length < Ticks::SECOND, "no jump is believed: {length:?}");
}

/// Row 21: sizes that no decoder should see.
#[test]
fn pictures_beyond_all_bounds_are_dropped_and_three_end_the_session() {
    for sps in [HUGE, ENDLESS] {
        let mut sender = Sender::live();
        for _ in 0..h264::MAX_BAD_SPS {
            assert_eq!(sender.end(), None);
            sender.picture(&[&together(&[sps, PPS, IDR])]);
        }
        assert!(matches!(sender.end(), Some(End::BadVideo(_))));
        assert!(sender.pictures().is_empty());
    }
}

/// Row 22: browsers change their size in the first seconds.
#[test]
fn a_new_size_with_every_key_frame_passes() {
    let mut sender = Sender::live();
    for n in 0..20 {
        let sps = if n % 2 == 0 { OTHER } else { SMALL };
        sender.picture(&[&together(&[sps, PPS]), IDR]);
    }
    let pictures = sender.pictures();
    assert!(pictures.len() == 20 && pictures.iter().all(|unit| unit.key));
    assert_eq!(sender.end(), None);
}

/// Row 23: packets of Opus that no encoder makes.
#[test]
fn sound_that_is_no_opus_is_dropped() {
    let mut sender = Sender::connected();
    sender.sound(&[0xfc, 0xff, 0xfe]);
    sender.picture(&[&together(&[SMALL, PPS, IDR])]);
    sender.world.run(Duration::from_millis(600));
    let before = sender.sounds();
    let long = [&[0xfc][..], &[7; 1_276]].concat();
    for packet in [&[][..], &long, &[0xff, 49, 0], &[0xff, 0], &[0xfd, 1]] {
        sender.sound(packet);
    }
    // 120 ms, and the longest frame there is.
    sender.sound(&[0xff, 6, 1, 2, 3, 4, 5, 6]);
    sender.sound(&long[..1_276]);
    sender.sound(&[0xfc, 0xff, 0xfe]);
    sender.world.run(Duration::from_secs(1));
    assert_eq!((sender.sounds() - before, sender.end()), (3, None));
}

/// Row 25: RTP says goodbye alone, which browsers do at odd times, and goes on.
#[test]
fn a_goodbye_of_rtp_is_no_end() {
    let mut sender = Sender::live();
    let (tx, goodbyes) = std::sync::mpsc::channel();
    // That of DTLS, which is one, is lost.
    sender.world.loses = Box::new(move |to_port, datagram| {
        if to_port && matches!(datagram.data[..], [128..=191, 203, ..]) {
            tx.send(()).expect("the test listens");
        }
        to_port && matches!(datagram.data[..], [20..=63, ..])
    });
    let now = sender.world.now;
    sender.world.clients[sender.client].close(now);
    sender.world.run(Duration::from_secs(5));
    assert!(goodbyes.try_iter().count() > 0, "it was said");
    assert_eq!(sender.end(), None);
    sender.world.run(Duration::from_secs(10));
    assert_eq!(sender.end(), Some(&End::Gone), "nothing else is heard");
}

/// Row 27: a viewer that loses most of what it gets, and one of which nothing but life is heard.
#[test]
fn a_viewer_that_loses_most_is_let_go_and_one_that_says_nothing_costs_little() {
    for quiet in [false, true] {
        let mut world = World::new();
        world.port.open_stream("cam-out");
        world.loop_to = Some("cam-out".to_owned());
        let (sender, _) = world.join(Door::Whip, "cam");
        let once = clip();
        let length = |video: bool| {
            let of_kind = || once.iter().filter(|frame| frame.0 == video);
            let stamps = (of_kind().next(), of_kind().next_back());
            stamps.1.unwrap().2 - stamps.0.unwrap().2 + if video { 3_000 } else { 960 }
        };
        let spans = (length(true), length(false));
        let again = |round: u64| {
            let shift = move |video: bool| round * if video { spans.0 } else { spans.1 };
            let shifted = once.iter().map(move |(video, key, at, data)| {
                (*video, *key, at + shift(*video), data.clone())
            });
            shifted.collect::<Vec<_>>()
        };
        let frames: Vec<_> = (0..12).flat_map(again).collect();
        world.play(sender, &frames);
        let (viewer, session) = world.join(Door::Whep, "cam-out");
        let at = world.clients[viewer].at;
        let mut count = 0_u32;
        world.loses = Box::new(move |to_port, datagram| {
            let its = datagram.peer == at;
            let is_rtcp = matches!(datagram.data.as_slice(), [128..=191, 192..=223, ..]);
            let is_media = is_media(datagram);
            count += u32::from(its && is_media);
            match quiet {
                true => its && to_port && is_rtcp,
                false => its && !to_port && is_media && !count.is_multiple_of(4),
            }
        });
        world.run(Duration::from_secs(20));
        let left = world.events.contains(&Event::Left(session, End::TooSlow));
        assert_eq!(left, !quiet);
        assert_eq!(world.port.len(), if quiet { 2 } else { 1 });
    }
}

/// Row 60: the machine sleeps for an hour.
#[test]
fn after_a_sleep_of_the_machine_all_sessions_end_once_and_quietly() {
    let mut world = World::new();
    world.port.open_stream("cam-out");
    world.loop_to = Some("cam-out".to_owned());
    let (sender, _) = world.join(Door::Whip, "cam");
    world.play(sender, &clip());
    for _ in 0..3 {
        world.join(Door::Whep, "cam-out");
    }
    world.run(Duration::from_secs(1));
    world.sent.clear();
    world.events.clear();
    world.loses = Box::new(|_, _| true);
    world.now = world.now + Duration::from_secs(3_600);
    world.port.tick(world.now);
    world.drain();
    assert_eq!(ends(&world), [&End::Gone; 4]);
    assert!(world.port.is_empty());
    let peers: BTreeSet<_> = world.sent.iter().map(|sent| sent.peer).collect();
    assert!(
        peers.len() <= 4 && world.sent.len() <= 40,
        "{} datagrams",
        world.sent.len()
    );
}
