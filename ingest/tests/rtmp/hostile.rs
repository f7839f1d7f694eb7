//! Peers that break the protocol, or try to make us hold and do too much.

use std::time::Duration;

use livepeer_ingest::rtmp::{
    BEFORE_PUBLISH, Chunks, Config, ConnectionId, HANDSHAKE, MAX_BEFORE_PUBLISH, MAX_CHUNK_STREAMS,
    MAX_MESSAGE, MIN_WINDOW,
};
use proptest::prelude::*;
use rtmp_runtime::amf0::Amf0Value;
use rtmp_runtime::chunk::{ChunkAssembler, ChunkWriter, Message};
use rtmp_runtime::message::{UserControl, msg_type};

use super::peer::{Client, Listener, command, connect, handshake, message, publish, text};

/// A listener whose peer said these bytes.
fn heard(bytes: &[u8]) -> (Listener, ConnectionId) {
    let mut listener = Listener::new(Config::default());
    let peer = listener.open();
    for piece in bytes.chunks(1 << 16) {
        listener.data(peer, piece);
    }
    (listener, peer)
}

fn is_refused(bytes: &[u8]) -> bool {
    let (mut listener, peer) = heard(bytes);
    listener.pass(Duration::from_millis(100));
    assert!(listener.server.connections() <= 1);
    listener.is_closed(peer)
}

/// The head of a chunk that begins a message.
fn chunk_head(chunk_stream: u16, kind: u8, length: usize) -> Vec<u8> {
    let mut head = vec![1, 0, 0];
    head[1..].copy_from_slice(&(chunk_stream - 64).to_le_bytes());
    head.extend_from_slice(&[0, 0, 0]);
    head.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    head.extend_from_slice(&[kind, 1, 0, 0, 0]);
    head
}

/// Media spec 8, row 30.
#[test]
fn what_is_not_rtmp_is_closed_at_its_first_byte() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 64],
        &[6; 1537],
        b"\x16\x03\x01",
    ] {
        assert!(is_refused(&bytes[..1]), "{bytes:?}");
        assert!(is_refused(bytes), "{bytes:?}");
    }
}

/// Media spec 8, row 31.
#[test]
fn a_peer_that_says_one_byte_is_closed_after_five_seconds() {
    let (mut listener, peer) = heard(&[3]);
    listener.pass(HANDSHAKE - Duration::from_millis(1));
    assert!(!listener.is_closed(peer));
    listener.pass(Duration::from_millis(1));
    assert!(listener.is_closed(peer));
}

/// Media spec 8, rows 32 and 33.
#[test]
fn announced_lengths_are_bounded() {
    let begun = publish("live", "cam1");
    let with = |chunks: &[Vec<u8>]| [begun.clone(), chunks.concat()].concat();
    assert!(is_refused(&with(&[chunk_head(64, 9, 0xff_ffff)])), "16 MiB");
    assert!(
        is_refused(&with(&[chunk_head(64, 9, MAX_MESSAGE + 1)])),
        "8 MiB and one"
    );
    assert!(
        !is_refused(&with(&[chunk_head(64, 9, MAX_MESSAGE)])),
        "8 MiB"
    );
    let begin = |id: u16, length| [chunk_head(id, 9, length), vec![0; 128]].concat();
    let large: Vec<_> = (0..3).map(|id| begin(64 + id, MAX_MESSAGE)).collect();
    assert!(!is_refused(&with(&large[..2])), "16 MiB in all");
    assert!(is_refused(&with(&large)), "24 MiB in all");
    // One chunk stream has been used for the commands.
    let many: Vec<_> = (0..MAX_CHUNK_STREAMS as u16)
        .map(|id| begin(64 + id, 200))
        .collect();
    assert!(!is_refused(&with(&many[1..])));
    assert!(is_refused(&with(&many)));
    let most: Vec<_> = (0..20_000).map(|id| begin(64 + id, 200)).collect();
    assert!(is_refused(&with(&most)));
}

/// Media spec 8, row 34.
#[test]
fn impossible_chunk_sizes_are_refused_and_huge_ones_taken() {
    let size = |size: u32| {
        [
            handshake(),
            message(msg_type::SET_CHUNK_SIZE, 0, &size.to_be_bytes()),
        ]
        .concat()
    };
    assert!(is_refused(&size(0)));
    assert!(is_refused(&size(1 << 31)));
    let large = [size((1 << 31) - 1), connect("live")].concat();
    assert!(!is_refused(&large));
    assert!(
        is_refused(&[large, chunk_head(64, 9, 0xff_ffff)].concat()),
        "the bound of messages holds"
    );
}

/// Media spec 8, row 35.
#[test]
fn commands_that_cannot_be_read_are_refused() {
    let with = |payload: &[u8]| [handshake(), message(msg_type::COMMAND_AMF0, 0, payload)].concat();
    let head = b"\x02\x00\x07connect\x00\x3f\xf0\x00\x00\x00\x00\x00\x00";
    let nested = [&head[..], &b"\x03\x00\x01a".repeat(50_000)].concat();
    assert!(is_refused(&with(&nested)), "too deep, and too long");
    let nested = [&head[..], &b"\x03\x00\x01a".repeat(100)].concat();
    assert!(is_refused(&with(&nested)), "too deep");
    assert!(
        is_refused(&with(&[&head[..], b"\x0a\xff\xff\xff\xff"].concat())),
        "an array of 2^32 - 1"
    );
    assert!(
        is_refused(&with(&[&head[..], b"\x02\xff\xffabc"].concat())),
        "a text past the end"
    );
    assert!(is_refused(&with(b"")));
    assert!(
        !is_refused(&with(
            b"\x02\x00\x03xyz\x00\x3f\xf0\x00\x00\x00\x00\x00\x00"
        )),
        "unknown"
    );
}

/// Media spec 8, row 36.
#[test]
fn little_is_taken_before_publish() {
    let begun = [handshake(), connect("live")].concat();
    let createstream = command("createStream", 2.0, &[Amf0Value::Null]);
    let acknowledgement = message(msg_type::ACKNOWLEDGEMENT, 0, &[0; 4]);
    let video = message(msg_type::VIDEO, 1, &vec![0; 1 << 20]);
    for (many, count) in [
        (createstream, 100_000),
        (acknowledgement, 200_000),
        (video, 20),
    ] {
        let mut listener = Listener::new(Config::default());
        let peer = listener.open();
        listener.data(peer, &begun);
        let mut sent = begun.len();
        for _ in 0..count {
            if listener.is_closed(peer) {
                break;
            }
            sent += many.len();
            listener.data(peer, &many);
        }
        assert!(listener.is_closed(peer));
        assert!(sent <= MAX_BEFORE_PUBLISH + many.len(), "{sent}");
    }
    let (mut listener, peer) = heard(&begun);
    listener.pass(BEFORE_PUBLISH);
    assert!(listener.is_closed(peer));
}

/// Media spec 8, row 37.
#[test]
fn commands_in_the_wrong_order_are_refused() {
    let publish = command(
        "publish",
        3.0,
        &[Amf0Value::Null, text("cam1"), text("live")],
    );
    let createstream = command("createStream", 2.0, &[Amf0Value::Null]);
    for (what, commands) in [
        ("publish before connect", vec![publish.clone()]),
        ("createStream before connect", vec![createstream.clone()]),
        (
            "publish before createStream",
            vec![connect("live"), publish.clone()],
        ),
        (
            "connect without an object",
            vec![command("connect", 1.0, &[])],
        ),
        (
            "connect without an app",
            vec![command("connect", 1.0, &[Amf0Value::Object(vec![])])],
        ),
        (
            "publish without a name",
            vec![
                connect("live"),
                createstream.clone(),
                command("publish", 3.0, &[Amf0Value::Null]),
            ],
        ),
        (
            "publish twice",
            vec![connect("live"), createstream, publish.clone(), publish],
        ),
        ("a chunk that continues nothing", vec![vec![0xc4]]),
        (
            "a command cut off",
            vec![message(msg_type::COMMAND_AMF3, 0, &[])],
        ),
    ] {
        assert!(
            is_refused(&[handshake(), commands.concat()].concat()),
            "{what}"
        );
    }
}

/// Media spec 8, row 38.
#[test]
fn acknowledgements_have_a_floor_and_pings_an_answer() {
    let mut listener = Listener::new(Config::default());
    let client = Client::publish(&mut listener, "live", "cam1");
    listener.take_sent(client.id);
    listener.data(
        client.id,
        &message(msg_type::WINDOW_ACK_SIZE, 0, &1_u32.to_be_bytes()),
    );
    let mut sent = 0;
    while sent < 10 * MIN_WINDOW as usize {
        let note = message(msg_type::DATA_AMF0, 1, &[0; 84]);
        sent += note.len();
        listener.data(client.id, &note);
    }
    let acknowledgements = listener.sent.len();
    assert!((1..=10).contains(&acknowledgements), "{acknowledgements}");
    listener.take_sent(client.id);
    let ping = UserControl::PingRequest(0x0102_0304).to_message();
    listener.data(client.id, &ChunkWriter::new().write(&ping).unwrap());
    let pong = UserControl::PingResponse(0x0102_0304).to_message();
    assert_eq!(
        listener.take_sent(client.id),
        ChunkWriter::new().write(&pong).unwrap()
    );
    // One that is cut off is no ping.
    listener.data(client.id, &message(msg_type::USER_CONTROL, 0, &[0, 6, 1]));
    assert!(listener.take_sent(client.id).is_empty() && !listener.is_closed(client.id));
}

/// Media spec 8, row 40.
#[test]
fn eight_damaged_tags_in_a_row_close_the_connection() {
    let mut listener = Listener::new(Config::default());
    let mut client = Client::publish(&mut listener, "live", "cam1");
    client.begin(&mut listener, 0);
    for _ in 0..7 {
        client.video(
            &mut listener,
            40,
            b"\x27\x01\x00\x00\x00\x7f\xff\xff\xff\x41",
        );
    }
    assert_eq!(listener.damaged, 7);
    client.video(
        &mut listener,
        40,
        b"\x27\x01\x00\x00\x00\x7f\xff\xff\xff\x41",
    );
    client.exchange(&mut listener);
    assert_eq!(
        client.refusal().map(|refusal| refusal.0),
        Some("NetStream.Publish.Rejected")
    );
    assert_eq!(listener.stalled.len(), 1, "it may come back");
}

/// Media spec 8, row 44.
#[test]
fn script_data_are_not_believed() {
    let mut listener = Listener::new(Config::default());
    let mut client = Client::publish(&mut listener, "live", "cam1");
    let nested = b"\x03\x00\x01a".repeat(2 << 20);
    client.message(&mut listener, msg_type::DATA_AMF0, &nested[..MAX_MESSAGE]);
    client.message(&mut listener, msg_type::DATA_AMF0, &nested[..60_000]);
    client.message(&mut listener, msg_type::DATA_AMF0, b"");
    client.begin(&mut listener, 0);
    assert_eq!(listener.video.len(), 1, "{}", listener.why(client.id));
}

#[test]
fn aggregates_are_taken_apart() {
    let part = |kind, stamp: u8, body: &[u8]| {
        let mut part = vec![kind, 0, 0, body.len() as u8, 0, 0, stamp, 0, 0, 0, 0];
        part.extend_from_slice(body);
        part.extend_from_slice(&[0, 0, 0, 11 + body.len() as u8]);
        part
    };
    let parts = [
        part(9, 200, &super::peer::VIDEO_CONFIG),
        part(8, 200, &super::peer::AAC_CONFIG),
        part(9, 200, &super::peer::KEY),
        part(9, 240, &super::peer::INTER),
    ]
    .concat();
    let mut listener = Listener::new(Config::default());
    let mut client = Client::publish(&mut listener, "live", "cam1");
    client.message(&mut listener, msg_type::AGGREGATE, &parts);
    let stamps: Vec<_> = listener.video.iter().map(|(_, unit)| unit.dts.0).collect();
    assert_eq!(
        stamps,
        [0, 40 * 90],
        "the aggregate's stamp is the first part's"
    );
    client.message(
        &mut listener,
        msg_type::AGGREGATE,
        &parts[..parts.len() - 1],
    );
    assert!(listener.is_closed(client.id));
}

proptest! {
    #[test]
    fn chunks_are_read_as_the_crate_writes_and_reads_them(
        messages in proptest::collection::vec((2_u32..400, any::<u32>(), 7_u8..25, proptest::collection::vec(any::<u8>(), 0..600)), 1..8),
        size in 1_u32..300,
        piece in 1_usize..200,
    ) {
        let mut writer = ChunkWriter::new();
        writer.set_chunk_size(size);
        let mut theirs = ChunkAssembler::new().with_chunk_size(size);
        let mut ours = Chunks::default();
        ours.set_size(size).unwrap();
        let mut bytes = Vec::new();
        for (chunk_stream_id, timestamp, message_type_id, payload) in messages {
            let message = Message { chunk_stream_id, timestamp, message_type_id, message_stream_id: 1, payload };
            bytes.extend(writer.write(&message).unwrap());
        }
        let mut found = Vec::new();
        for mut piece in bytes.chunks(piece) {
            while let Some(message) = ours.next(&mut piece).unwrap() {
                found.push((message.stamp, message.kind, message.payload.to_vec()));
            }
        }
        let wanted = theirs.push(&bytes).unwrap().into_iter();
        let wanted: Vec<_> = wanted.map(|message| (message.timestamp, message.message_type_id, message.payload)).collect();
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn junk_neither_panics_nor_opens_a_stream(
        junk in proptest::collection::vec(any::<u8>(), 0..2000),
        piece in 1_usize..500,
        begun in any::<bool>(),
    ) {
        let mut listener = Listener::new(Config::default());
        let peer = listener.open();
        listener.data(peer, &if begun { publish("live", "cam1") } else { handshake() });
        for piece in junk.chunks(piece) {
            listener.data(peer, piece);
        }
        listener.pass(Duration::from_secs(60));
        prop_assert!(listener.is_closed(peer));
        prop_assert_eq!(listener.server.connections(), 0);
        prop_assert_eq!(listener.server.streams(), 0);
    }
}
