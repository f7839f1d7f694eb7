//! Live video as it comes in, each form of it in excess.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::Time;
use livepeer_ingest::rtmp::{self, ConnectionId, Server};
use livepeer_ingest::sdp::{self, MAX_BYTES, MAX_LINES, Role};
use livepeer_media::demux::Demux;
use livepeer_media::{flv, h264};
use livepeer_sim::budget::within_budget;
use livepeer_sim::steps::rtmp::{Word, message};

use crate::shapes::repeated;

const NOW: Time = Time::from_secs(1_700_000_000);
const ENOUGH: usize = 64 << 10;

/// An offer of ffmpeg, which is taken, up to its last section.
const OFFER: &str = include_str!("../../../ingest/tests/vectors/sdp/ffmpeg9-whip.offer.sdp");

#[test]
fn offers_of_any_excess_are_read_in_time() {
    let long = "x".repeat(MAX_BYTES - OFFER.len() - 100);
    let mids = " 1".repeat(long.len() / 2);
    let parameters = "a=b;".repeat(long.len() / 4);
    let types = " 96".repeat(64);
    let lines = [
        "a=candidate:1 1 udp 1 192.0.2.1 9 typ host",
        "a=ssrc:1 cname:x",
        "a=ssrc-group:FID 1 2",
        "a=rid:x send",
        "a=extmap:1 urn:x",
        "a=fmtp:106 x=y",
        "a=rtpmap:106 x/1",
        "a=rtcp-fb:* nack",
        "a=rtcp-fb:106 nack pli",
        "a=mid:1",
        "a=ice-ufrag:abcd",
        "a=fingerprint:sha-1 00",
        "a=group:BUNDLE 0 1",
        "m=text 9 UDP/TLS/RTP/SAVPF 1",
        "c=x",
        "",
    ];
    let many = |line: &str| {
        let room = MAX_BYTES - OFFER.len();
        let count = (room / (line.len() + 2)).min(MAX_LINES);
        format!("{OFFER}{}", format!("{line}\r\n").repeat(count))
    };
    let mut offers: Vec<String> = lines.iter().map(|line| many(line)).collect();
    offers.extend([
        format!("{OFFER}a={long}\r\n"),
        format!("{OFFER}a=fmtp:106 {parameters}\r\n"),
        OFFER.replace("BUNDLE 0 1", &format!("BUNDLE 0 1{mids}")),
        format!("{OFFER}m=video 9 UDP/TLS/RTP/SAVPF{types}\r\n"),
        OFFER.replace("106 105", &types[1..]),
        long,
    ]);
    for offer in offers {
        within_budget(&offer[..offer.len().min(60)], || {
            for role in [Role::Whip { drop_audio: true }, Role::Whep] {
                if let Ok(offer) = sdp::read(offer.as_bytes(), role) {
                    assert!(!offer.for_engine().is_empty());
                }
            }
        });
    }
}

/// A listener whose publisher is live.
fn live() -> (Server, ConnectionId) {
    let mut server = Server::new(NOW, rtmp::Config::default());
    let id = ConnectionId(1);
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    server.handle_input(NOW, rtmp::Input::Opened(id, address));
    for word in [Word::Hello, Word::Publish(0)] {
        hear(&mut server, id, &word.bytes());
    }
    server.admit(NOW, id);
    for word in [
        Word::VideoConfig(true),
        Word::AudioConfig(true),
        Word::Picture(0, true),
    ] {
        hear(&mut server, id, &word.bytes());
    }
    (server, id)
}

fn hear(server: &mut Server, id: ConnectionId, bytes: &[u8]) {
    let data = rtmp::Input::Data(id, Bytes::copy_from_slice(bytes));
    server.handle_input(NOW, data);
    while !matches!(server.poll_output(), rtmp::Output::Idle(_)) {}
}

#[test]
fn what_a_publisher_sends_is_read_in_time_also_byte_by_byte() {
    let again = |bytes: &[u8]| bytes.repeat(ENOUGH / bytes.len());
    let begun = [
        &[0x04, 0, 0, 0, 0, 0, 0, 9, 1, 0, 0, 0][..],
        &[0xc4; ENOUGH],
    ]
    .concat();
    let part = [9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
    // In one chunk.
    let parts = part.repeat(1 << 13);
    let length = (parts.len() as u32).to_be_bytes();
    let head = [&[0x04, 0, 0, 0], &length[1..], &[22, 1, 0, 0, 0]].concat();
    let size = message(1, 0, &[0x7f, 0xff, 0xff, 0xff]);
    let aggregate = [size, head, parts].concat();
    for (what, bytes) in [
        ("empty messages without a head", begun),
        ("empty messages", again(&message(9, 0, b""))),
        (
            "messages that are given up",
            again(&message(9, 0, &[7; 100])[..20]),
        ),
        ("damaged tags", again(&message(9, 0, b"\x17"))),
        ("empty tags", again(&message(8, 0, b"\xaf"))),
        ("pictures", again(&Word::Picture(1, false).bytes())),
        ("sound", again(&Word::Sound(1).bytes())),
        ("configurations", again(&Word::VideoConfig(true).bytes())),
        ("script data", again(&message(18, 0, b"\x02\x00\x01x"))),
        ("pings", again(&message(4, 0, &[0, 6, 0, 0, 0, 1]))),
        ("windows", again(&message(5, 0, &[0, 0, 0, 1]))),
        ("chunk sizes", again(&message(1, 0, &[0, 0, 0, 1]))),
        ("an aggregate of empty parts", aggregate),
    ] {
        for piece in [1, 100, usize::MAX] {
            let (mut server, id) = live();
            within_budget(&format!("{what} in pieces of {piece}"), || {
                let pieces = bytes.chunks(piece.min(bytes.len()));
                for piece in pieces {
                    hear(&mut server, id, piece);
                }
                let later = NOW + Duration::from_secs(60);
                server.handle_input(later, rtmp::Input::Tick);
            });
        }
    }
}

#[test]
fn pictures_of_any_excess_are_taken_apart_in_time() {
    for inside in [
        "\0\0\x01",
        "\0\0\x01g",
        "\0\0\x01h\x01",
        "\0",
        "\0\0\x01e\0\0",
        "\x01",
    ] {
        let unit = repeated("\0\0\0\x01", inside, "", ENOUGH);
        within_budget(&format!("units of {inside:?}"), || {
            let mut stream = h264::Stream::default();
            for _ in 0..2 {
                let _ = stream.annex_b(&unit);
                let _ = stream.length_prefixed(&unit);
                let _ = stream.configure(&unit);
            }
        });
        let tag = Bytes::from([&b"\x17\x01\0\0\0"[..], &unit].concat());
        within_budget(&format!("a tag of {inside:?}"), || {
            let mut reader = flv::Reader::default();
            let _ = reader.video(0, tag.clone());
            let _ = reader.audio(0, tag.clone());
        });
    }
    for inside in [
        &[0x47][..],
        &[0x47, 0x40, 0, 0x10],
        &[0x47, 0x41, 0, 0x30, 183],
        &[0],
    ] {
        let packet: Vec<u8> = inside.iter().copied().chain([0; 188]).take(188).collect();
        let stream = [packet.repeat(ENOUGH / 188), inside.repeat(1_000)].concat();
        for piece in [1, 187, ENOUGH] {
            within_budget(
                &format!("packets of {inside:?} in pieces of {piece}"),
                || {
                    let mut demux = Demux::new();
                    for piece in stream.chunks(piece) {
                        let _ = demux.push(piece);
                        while demux.next_event().is_some() {}
                    }
                    demux.finish();
                },
            );
        }
    }
}
