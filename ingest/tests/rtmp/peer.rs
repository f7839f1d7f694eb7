//! A listener and the peers that play against it under virtual time.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::Time;
use livepeer_core::wire::entry::Publication;
use livepeer_ingest::rtmp::{
    Config, ConnectionId, Ending, Event, Input, Output, Server, StreamId, Why,
};
use livepeer_media::frame::{AccessUnit, Audio};
use rtmp_runtime::amf0::{Amf0Value, Command};
use rtmp_runtime::chunk::{ChunkWriter, Message};
use rtmp_runtime::client::{ClientConfig, ClientEvent, ClientSession};
use rtmp_runtime::message::msg_type;

/// All that a listener said.
pub(crate) struct Listener {
    pub(crate) now: Time,
    pub(crate) server: Server,
    pub(crate) sent: Vec<(ConnectionId, Bytes)>,
    pub(crate) closed: Vec<ConnectionId>,
    pub(crate) asked: Vec<(ConnectionId, Publication)>,
    pub(crate) opened: Vec<StreamId>,
    pub(crate) resumed: Vec<StreamId>,
    pub(crate) stalled: Vec<StreamId>,
    pub(crate) ended: Vec<(StreamId, Ending)>,
    pub(crate) over: Vec<(ConnectionId, Why)>,
    pub(crate) video: Vec<(StreamId, AccessUnit)>,
    pub(crate) audio: Vec<(StreamId, Audio)>,
    pub(crate) damaged: usize,
    /// Whether those who ask are admitted at once.
    pub(crate) admits: bool,
    wake: Option<Time>,
    peers: u64,
}

impl Listener {
    pub(crate) fn new(config: Config) -> Self {
        let now = Time::from_secs(1_000);
        Self {
            now,
            server: Server::new(now, config),
            sent: Vec::new(),
            closed: Vec::new(),
            asked: Vec::new(),
            opened: Vec::new(),
            resumed: Vec::new(),
            stalled: Vec::new(),
            ended: Vec::new(),
            over: Vec::new(),
            video: Vec::new(),
            audio: Vec::new(),
            damaged: 0,
            admits: true,
            wake: None,
            peers: 0,
        }
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.server.handle_input(self.now, input);
        self.drain();
    }

    pub(crate) fn drain(&mut self) {
        loop {
            match self.server.poll_output() {
                Output::Write(id, bytes) => {
                    assert!(!self.closed.contains(&id), "a word after the end");
                    self.sent.push((id, bytes));
                }
                Output::Close(id) => {
                    assert!(!self.closed.contains(&id), "closed twice");
                    self.closed.push(id);
                }
                Output::Event(event) => self.event(event),
                Output::Idle(wake) => {
                    assert!(wake.is_none_or(|wake| wake > self.now), "a spinning driver");
                    self.wake = wake;
                    return;
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Asks {
                connection,
                publication,
                ..
            } => {
                self.asked.push((connection, publication));
                if self.admits {
                    self.server.admit(self.now, connection);
                }
            }
            Event::Opened { stream, .. } => self.opened.push(stream),
            Event::Resumed(stream, _) => self.resumed.push(stream),
            Event::Video(stream, unit) => self.video.push((stream, unit)),
            Event::Audio(stream, audio) => self.audio.push((stream, audio)),
            Event::Damaged(..) => self.damaged += 1,
            Event::Stalled(stream) => self.stalled.push(stream),
            Event::Ended(stream, ending) => self.ended.push((stream, ending)),
            Event::Closed(id, why) => self.over.push((id, why)),
            other => panic!("{other:?}"),
        }
    }

    /// Lets time pass, with a tick wherever one is asked for.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(wake) = self.wake.filter(|wake| *wake <= end) {
            self.now = wake;
            self.input(Input::Tick);
        }
        self.now = end;
        self.input(Input::Tick);
    }

    pub(crate) fn open_from(&mut self, address: u8) -> ConnectionId {
        self.peers += 1;
        let id = ConnectionId(self.peers);
        let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, address));
        self.input(Input::Opened(id, address));
        id
    }

    pub(crate) fn open(&mut self) -> ConnectionId {
        self.open_from(1)
    }

    pub(crate) fn data(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.input(Input::Data(id, Bytes::copy_from_slice(bytes)));
    }

    pub(crate) fn is_closed(&self, id: ConnectionId) -> bool {
        self.closed.contains(&id)
    }

    /// The bytes that a connection was sent since the last call.
    pub(crate) fn take_sent(&mut self, id: ConnectionId) -> Vec<u8> {
        let (own, others) = std::mem::take(&mut self.sent)
            .into_iter()
            .partition(|(to, _)| *to == id);
        self.sent = others;
        let own: Vec<(_, Bytes)> = own;
        own.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect()
    }

    /// Why a connection is over.
    pub(crate) fn why(&self, id: ConnectionId) -> String {
        let why = self.over.iter().find(|(over, _)| *over == id);
        why.map_or_else(|| "not over".to_owned(), |(_, why)| why.to_string())
    }
}

/// A publisher made of the crate's client session.
pub(crate) struct Client {
    pub(crate) id: ConnectionId,
    session: ClientSession,
    pub(crate) events: Vec<ClientEvent>,
}

impl Client {
    /// Connects and says all up to `publish`.
    pub(crate) fn publish(listener: &mut Listener, app: &str, name: &str) -> Self {
        Self::publish_from(listener, 1, app, name)
    }

    pub(crate) fn publish_from(
        listener: &mut Listener,
        address: u8,
        app: &str,
        name: &str,
    ) -> Self {
        let mut config = ClientConfig::default();
        config.app = app.to_owned();
        config.stream_key = name.to_owned();
        let mut client = Self {
            id: listener.open_from(address),
            session: ClientSession::new(config),
            events: Vec::new(),
        };
        let hello = client.session.start();
        listener.data(client.id, &hello);
        client.exchange(listener);
        client
    }

    /// Reads what the server said and answers, until neither has anything to say.
    pub(crate) fn exchange(&mut self, listener: &mut Listener) {
        loop {
            let heard = listener.take_sent(self.id);
            if heard.is_empty() {
                return;
            }
            let (said, events) = self.session.handle_data(&heard).unwrap();
            self.events.extend(events);
            if !said.is_empty() {
                listener.data(self.id, &said);
            }
        }
    }

    pub(crate) fn is_publishing(&self) -> bool {
        self.session.is_publishing()
    }

    /// The last refusal.
    pub(crate) fn refusal(&self) -> Option<(&str, &str)> {
        self.events.iter().rev().find_map(|event| match event {
            ClientEvent::Error { code, description } => Some((&**code, &**description)),
            _ => None,
        })
    }

    pub(crate) fn video(&mut self, listener: &mut Listener, stamp: u32, body: &[u8]) {
        let bytes = self.session.send_video(stamp, body).unwrap();
        listener.data(self.id, &bytes);
    }

    pub(crate) fn audio(&mut self, listener: &mut Listener, stamp: u32, body: &[u8]) {
        let bytes = self.session.send_audio(stamp, body).unwrap();
        listener.data(self.id, &bytes);
    }

    /// Sends a message in chunks of the size that the session announced.
    pub(crate) fn message(&mut self, listener: &mut Listener, kind: u8, payload: &[u8]) {
        let mut writer = ChunkWriter::new();
        writer.set_chunk_size(ClientConfig::default().chunk_size);
        listener.data(self.id, &writer.write(&raw(kind, 1, payload)).unwrap());
    }

    /// A configuration of video and one of AAC, and a key frame.
    pub(crate) fn begin(&mut self, listener: &mut Listener, stamp: u32) {
        self.video(listener, 0, &VIDEO_CONFIG);
        self.audio(listener, 0, &AAC_CONFIG);
        self.video(listener, stamp, &KEY);
    }
}

/// 320x180, Constrained Baseline.
pub(crate) const VIDEO_CONFIG: [u8; 45] = [
    0x17, 0, 0, 0, 0, 1, 0x42, 0xc0, 0x0d, 0xff, 0xe1, 0, 24, 0x67, 0x42, 0xc0, 0x0d, 0xd9, 0x01,
    0x41, 0x9f, 0x9e, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x42,
    0xa4, 0x80, 1, 0, 5, 0x68, 0xcb, 0x83, 0xcb, 0x20,
];
pub(crate) const AAC_CONFIG: [u8; 4] = [0xaf, 0, 0x11, 0x90];
pub(crate) const OPUS_CONFIG: [u8; 24] =
    *b"\x90OpusOpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00";
pub(crate) const AAC: [u8; 8] = [0xaf, 1, 0x21, 0x10, 0x04, 0x60, 0x8c, 0x1c];
pub(crate) const KEY: [u8; 13] = [0x17, 1, 0, 0, 0, 0, 0, 0, 4, 0x65, 0x88, 0x84, 0x01];
pub(crate) const INTER: [u8; 12] = [0x27, 1, 0, 0, 0, 0, 0, 0, 3, 0x41, 0x9a, 0x02];

/// C0, C1 and C2 of a client that compares nothing.
pub(crate) fn handshake() -> Vec<u8> {
    let mut bytes = vec![3];
    bytes.resize(1 + 2 * 1536, 0);
    bytes
}

fn raw(kind: u8, stream: u32, payload: &[u8]) -> Message {
    Message {
        chunk_stream_id: 3,
        timestamp: 0,
        message_type_id: kind,
        message_stream_id: stream,
        payload: payload.to_vec(),
    }
}

/// A message in chunks of 128 bytes.
pub(crate) fn message(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    ChunkWriter::new()
        .write(&raw(kind, stream, payload))
        .unwrap()
}

/// A command in chunks of 128 bytes.
pub(crate) fn command(name: &str, number: f64, arguments: &[Amf0Value]) -> Vec<u8> {
    let command = Command {
        name: name.to_owned(),
        transaction_id: number,
        arguments: arguments.to_vec(),
    };
    let stream = u32::from(name == "publish");
    message(msg_type::COMMAND_AMF0, stream, &command.to_body().unwrap())
}

pub(crate) fn text(text: &str) -> Amf0Value {
    Amf0Value::String(text.to_owned())
}

pub(crate) fn connect(app: &str) -> Vec<u8> {
    command(
        "connect",
        1.0,
        &[Amf0Value::Object(vec![("app".to_owned(), text(app))])],
    )
}

/// All that a publisher says up to `publish`.
pub(crate) fn publish(app: &str, name: &str) -> Vec<u8> {
    [
        handshake(),
        connect(app),
        command("createStream", 2.0, &[Amf0Value::Null]),
        command("publish", 3.0, &[Amf0Value::Null, text(name), text("live")]),
    ]
    .concat()
}
