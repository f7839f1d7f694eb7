//! Senders of live video: their offers, their bytes, their packets.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::Time;
use livepeer_core::http::Method;
use livepeer_ingest::browser::{self, Packet, Peer, call};
use livepeer_ingest::port::{Config, Door, Event, Output, Port};
use livepeer_ingest::rtmp;
use livepeer_ingest::sdp::{self, Answer, MAX_FORMATS, MAX_SECTIONS, Role};
use livepeer_media::{flv, h264};

use crate::steps::Reel;

const NOW: Time = Time::from_secs(1_800_000_000);

/// Streams begin with a key frame, end once and leave nothing behind, whatever publishers and their owner do.
pub fn machine_rtmp(data: &[u8]) {
    crate::steps::rtmp::run(data);
}

/// Sessions are answered once, end once and leave nothing behind, whatever senders, viewers and their owner do.
pub fn machine_webrtc(data: &[u8]) {
    crate::steps::webrtc::run(data);
}

/// Tags of FLV, each behind a byte for its track, one for its stamp and two for its length, never panic; key frames have
/// their parameter sets, and no picture is shown before it is decoded.
pub fn decode_flv(data: &[u8]) {
    let mut reader = flv::Reader::default();
    let mut rest = data;
    while let [track, stamp, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (body, tail) = tail.split_at(length);
        rest = tail;
        let (stamp, body) = (u32::from(*stamp) << 24, Bytes::copy_from_slice(body));
        if track & 1 == 0 {
            match reader.video(stamp, body) {
                Ok(Some(flv::Video::Unit(unit))) => {
                    assert!(unit.pts >= unit.dts);
                    let has = |kind| h264::nals(&unit.data).any(|nal| h264::nal_type(nal) == kind);
                    assert!(
                        !unit.key || (has(5) && has(7)),
                        "an IDR picture with its SPS"
                    );
                }
                Ok(_) => {}
                Err(_) => return,
            }
        } else {
            match reader.audio(stamp, body) {
                Ok(Some(flv::Sound::Frame(audio))) => {
                    assert!(audio.track.duration(&audio.data).is_some());
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

/// The bytes of a publisher, who is let in, say the same in whatever pieces they come, and nothing is left of it.
pub fn decode_rtmp(data: &[u8]) {
    fn play(data: &[u8], piece: usize) -> Vec<String> {
        let id = rtmp::ConnectionId(1);
        let mut server = rtmp::Server::new(NOW, rtmp::Config::default());
        let mut told = Vec::new();
        let mut hear = |server: &mut rtmp::Server, now| {
            loop {
                match server.poll_output() {
                    rtmp::Output::Event(rtmp::Event::Asks { connection, .. }) => {
                        server.admit(now, connection);
                    }
                    rtmp::Output::Event(event) => told.push(format!("{event:?}")),
                    rtmp::Output::Write(..) | rtmp::Output::Close(_) => {}
                    rtmp::Output::Idle(_) => return,
                }
            }
        };
        let address = SocketAddr::from(([192, 0, 2, 1], 1)).ip();
        server.handle_input(NOW, rtmp::Input::Opened(id, address));
        for piece in data.chunks(piece) {
            let data = Bytes::copy_from_slice(piece);
            server.handle_input(NOW, rtmp::Input::Data(id, data));
            hear(&mut server, NOW);
        }
        for seconds in [1, 11, 22, 33, 44] {
            let now = NOW + Duration::from_secs(seconds);
            server.handle_input(now, rtmp::Input::Tick);
            hear(&mut server, now);
        }
        assert_eq!((server.connections(), server.streams()), (0, 0));
        told
    }
    // What comes before the owner's answer has a bound that pieces do not meet.
    let data = &data[..data.len().min(rtmp::MAX_BEFORE_ANSWER)];
    let whole = play(data, data.len().max(1));
    for piece in [61, 1_000] {
        assert_eq!(play(data, piece), whole, "in pieces of {piece}");
    }
}

/// An offer that is taken has bounds, can be answered, and is never refused by the engine.
pub fn decode_sdp(data: &[u8]) {
    for (role, door) in [
        (Role::Whip { drop_audio: false }, Door::Whip),
        (Role::Whep, Door::Whep),
    ] {
        let Ok(offer) = sdp::read(data, role) else {
            continue;
        };
        assert!(offer.sections.len() <= MAX_SECTIONS);
        let taken = || {
            offer
                .sections
                .iter()
                .filter_map(|section| section.taken.as_ref())
        };
        assert!((1..=2).contains(&taken().count()));
        assert!(taken().all(|taken| (1..=MAX_FORMATS).contains(&taken.formats.len())));
        let engine = offer.for_engine();
        assert!(!engine.contains("a=candidate") && engine.len() <= 3 * data.len() + 2_000);
        let answer = offer.answer(&Answer {
            id: 1,
            ufrag: "ours",
            password: "password",
            fingerprint: "00",
            addresses: &[],
            senders: &[],
        });
        let sections = answer.lines().filter(|line| line.starts_with("m="));
        assert_eq!(sections.count(), offer.sections.len());
        assert!(answer.lines().all(|line| !line.contains('\r')));

        let clock = browser::clock(NOW);
        let mut port = browser::port(NOW, clock, Config::default(), [1; 32]);
        port.open_stream("cam");
        let mut call = call(1, Method::Post, door, "cam", None);
        call.body = Bytes::copy_from_slice(data);
        port.call(NOW, &call);
        let mut session = None;
        while let Some(output) = next(&mut port) {
            match output {
                Output::Event(Event::Asked { session: id, .. }) => {
                    port.admit(NOW, id, None);
                }
                Output::Reply(_, reply) => {
                    assert_eq!(reply.status, 201, "{reply:?}");
                    session = Some(reply);
                }
                _ => {}
            }
        }
        assert!(session.is_some(), "an offer without an answer");
    }
}

fn next(port: &mut Port) -> Option<Output> {
    match port.poll_output() {
        Output::Idle(_) => None,
        output => Some(output),
    }
}

/// Packets of a connected sender, each behind a byte that says its kind and stamp and two for its length, never panic;
/// each gives one frame at most, and nothing is left in the end.
pub fn decode_rtp(data: &[u8]) {
    let clock = browser::clock(NOW);
    let mut now = NOW;
    let mut port = browser::port(NOW, clock, Config::default(), [2; 32]);
    let at = SocketAddr::from(([192, 0, 2, 2], 5_000));
    let mut peer = Peer::new(clock, now, at, Door::Whip, true);
    let mut call = call(1, Method::Post, Door::Whip, "cam", None);
    call.body = peer.offer.clone().into();
    port.call(now, &call);
    let mut frames = [0_u64; 2];
    let mut opened = false;
    let mut carry = |port: &mut Port, peer: &mut Peer, now: Time| {
        loop {
            while let Some(output) = next(port) {
                match output {
                    Output::Send(datagram) => peer.receive(now, &datagram.data),
                    Output::Reply(_, reply) => peer.answer(now, &reply),
                    Output::Event(Event::Asked { session, .. }) => {
                        assert!(port.admit(now, session, None));
                    }
                    Output::Event(Event::Opened(..)) => opened = true,
                    Output::Event(Event::Frame(_, frame)) => {
                        assert!(opened, "the tracks are told first");
                        use livepeer_ingest::port::Frame;
                        frames[0] += u64::from(matches!(frame, Frame::Video(_)));
                        frames[1] += u64::from(matches!(frame, Frame::Audio(_)));
                    }
                    _ => {}
                }
            }
            let Some(datagram) = peer.sent() else {
                return frames;
            };
            port.receive(now, &datagram);
        }
    };
    for _ in 0..100 {
        now = now + Duration::from_millis(10);
        peer.tick(now);
        port.tick(now);
        carry(&mut port, &mut peer, now);
        if peer.connected.is_some() {
            break;
        }
    }
    assert!(peer.connected.is_some(), "they did not connect");
    let mut reel = Reel::new(data);
    let mut sent = [0_u64; 2];
    let (mut number, mut stamp) = (0_u64, 0_u32);
    while !reel.is_empty() {
        let (bits, length) = (reel.byte(), [reel.byte(), reel.byte()]);
        let length = u16::from_be_bytes(length) % 1_300;
        let payload: Vec<u8> = (0..length).map(|_| reel.byte()).collect();
        let video = bits & 1 == 0;
        // Some are lost, and some stamps jump.
        number += if bits & 0x1c == 0x1c { 2 } else { 1 };
        stamp = stamp.wrapping_add(match bits >> 5 {
            0..=2 => 0,
            3..=5 => 3_000,
            6 => 0_u32.wrapping_sub(90_000),
            _ => 1 << 31,
        });
        let packet = Packet {
            video,
            number,
            stamp,
            marker: bits & 2 != 0,
            payload: &payload,
        };
        sent[usize::from(!video)] += 1;
        now = now + Duration::from_millis(5);
        peer.packet(now, packet);
        let got = carry(&mut port, &mut peer, now);
        assert!(
            got[0] <= sent[0] && got[1] <= sent[1],
            "{got:?} of {sent:?}"
        );
    }
    for seconds in [1, 20, 60] {
        port.tick(now + Duration::from_secs(seconds));
        while next(&mut port).is_some() {}
    }
    assert!(port.is_empty(), "a session for ever");
}
