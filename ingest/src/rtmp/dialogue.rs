//! The dialogue with a publisher, besides media: handshake, commands, acknowledgements, pings.

use bytes::{Buf, Bytes};
use rtmp_runtime::RtmpError;
use rtmp_runtime::amf0::{Amf0Value, Command};
use rtmp_runtime::chunk::{ChunkWriter, Message as Outgoing};
use rtmp_runtime::handshake::{HANDSHAKE_PACKET_LEN, Handshake, RTMP_VERSION};
use rtmp_runtime::message::{LimitType, ProtocolControl, UserControl, msg_type};

use super::chunk::{BadChunk, Chunks, Message};

/// Bytes after which we want to be told that they came, and after which we tell.
const WINDOW: u32 = 2_500_000;
/// A window that a peer asks for is no smaller: it would cost an answer for each read.
pub const MIN_WINDOW: u32 = 2500;
/// The size of our chunks.
const CHUNK_SIZE: u32 = 4096;
/// Bytes that a command has at most.
const MAX_COMMAND: usize = 64 << 10;
/// The chunk stream of commands, as servers choose it.
const COMMANDS: u32 = 3;
/// The message stream that every `createStream` is given: a connection has one publisher.
const MEDIA_STREAM: u32 = 1;
/// The user control event that asks for an answer.
const PING_REQUEST: u16 = 6;

/// The reason why a connection is closed without a word.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadPeer {
    /// The first byte is not that of RTMP.
    #[error("not RTMP: the first byte is {0} and not 3")]
    Version(u8),
    /// Chunks break the protocol or a limit.
    #[error(transparent)]
    Chunk(#[from] BadChunk),
    /// A message cannot be read.
    #[error(transparent)]
    Message(#[from] RtmpError),
    /// A command has more than 64 KiB.
    #[error("a command of more than {MAX_COMMAND} bytes")]
    LongCommand,
    /// An aggregate message ends before what it announces.
    #[error("an aggregate message that is cut off")]
    Aggregate,
    /// A command comes before the one that it needs.
    #[error("{0}")]
    OutOfOrder(&'static str),
}

/// A thing that a publisher says.
#[derive(Debug)]
pub(super) enum Heard {
    /// The handshake is over.
    Hello,
    /// The application is known.
    Connected,
    /// There is no such application; the refusal is written.
    BadApp(String),
    /// The stream of that name comes next; answered by [`Dialogue::accept`] or [`Dialogue::refuse`].
    Publish {
        app: String,
        name: String,
    },
    Video {
        stamp: u32,
        body: Bytes,
    },
    Audio {
        stamp: u32,
        body: Bytes,
    },
    /// Script data.
    Data(Bytes),
    /// The publisher pauses or leaves.
    Unpublished,
    /// The publisher leaves for good.
    Deleted,
}

/// The dialogue with one publisher.
#[derive(Debug)]
pub(super) struct Dialogue {
    handshake: Handshake,
    /// Whether the peer's hello was answered.
    greeted: bool,
    /// Bytes of the handshake until there are enough.
    early: Vec<u8>,
    chunks: Chunks,
    writer: ChunkWriter,
    app: Option<String>,
    created: bool,
    /// The message stream that is published on.
    publishing: Option<u32>,
    aggregate: Option<Aggregate>,
    window: u32,
    received: u64,
    acknowledged: u64,
}

/// A message that holds several, as far as it was not handed out.
#[derive(Debug)]
struct Aggregate {
    stamp: u32,
    first: Option<u32>,
    rest: Bytes,
}

impl Dialogue {
    pub(super) fn new() -> Self {
        Self {
            handshake: Handshake::new(),
            greeted: false,
            early: Vec::new(),
            chunks: Chunks::default(),
            writer: ChunkWriter::new(),
            app: None,
            created: false,
            publishing: None,
            aggregate: None,
            window: WINDOW,
            received: 0,
            acknowledged: 0,
        }
    }

    /// Takes bytes from the front of `input` until something was heard, and puts what has to be answered into `out`.
    /// `None`: all bytes were taken.
    pub(super) fn next(
        &mut self,
        input: &mut &[u8],
        apps: &[String],
        out: &mut Vec<u8>,
    ) -> Result<Option<Heard>, BadPeer> {
        if !self.handshake.is_done() {
            return Ok(self.greet(input, out)?.then_some(Heard::Hello));
        }
        loop {
            if let Some(heard) = self.aggregated()? {
                return Ok(Some(heard));
            }
            let before = input.len();
            let message = self.chunks.next(input)?;
            self.received += (before - input.len()) as u64;
            let Some(message) = message else {
                self.acknowledge(out)?;
                return Ok(None);
            };
            if let Some(heard) = self.dispatch(message, apps, out)? {
                return Ok(Some(heard));
            }
        }
    }

    /// Tells the publisher to begin.
    pub(super) fn accept(&mut self, name: &str, out: &mut Vec<u8>) -> Result<(), BadPeer> {
        let stream = self.publishing.unwrap_or(MEDIA_STREAM);
        out.extend(
            self.writer
                .write(&UserControl::StreamBegin(stream).to_message())?,
        );
        let what = format!("{name} is now published.");
        self.status("status", "NetStream.Publish.Start", &what, out)
    }

    /// Tells the publisher why it may not begin or go on. Clients close on this.
    pub(super) fn refuse(
        &mut self,
        code: &str,
        why: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), BadPeer> {
        self.status("error", code, why, out)
    }

    fn status(
        &mut self,
        level: &str,
        code: &str,
        why: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), BadPeer> {
        let stream = self.publishing.unwrap_or(MEDIA_STREAM);
        let info = object([
            ("level", text(level)),
            ("code", text(code)),
            ("description", text(why)),
        ]);
        self.say("onStatus", 0.0, vec![Amf0Value::Null, info], stream, out)
    }

    /// Takes the handshake's bytes; whether it is over. C2 is not compared: many clients send something of their own.
    fn greet(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, BadPeer> {
        while !self.handshake.is_done() {
            let wanted = HANDSHAKE_PACKET_LEN + usize::from(!self.greeted);
            let count = (wanted - self.early.len()).min(input.len());
            let (taken, rest) = input.split_at(count);
            *input = rest;
            self.early.extend_from_slice(taken);
            // One byte is enough to know a browser or a port scan.
            if let (false, Some(first)) = (self.greeted, self.early.first())
                && *first != RTMP_VERSION
            {
                return Err(BadPeer::Version(*first));
            }
            if self.early.len() < wanted {
                return Ok(false);
            }
            let (answer, _, _) = self.handshake.read(&self.early)?;
            out.extend(answer);
            self.early.clear();
            self.greeted = true;
        }
        self.early = Vec::new();
        Ok(true)
    }

    /// The next part of an aggregate message.
    fn aggregated(&mut self) -> Result<Option<Heard>, BadPeer> {
        while let Some(aggregate) = &mut self.aggregate {
            match aggregate.next()? {
                Some(message) if self.publishing.is_some() => {
                    if let Some(heard) = media(message) {
                        return Ok(Some(heard));
                    }
                }
                Some(_) => {}
                None => self.aggregate = None,
            }
        }
        Ok(None)
    }

    fn dispatch(
        &mut self,
        message: Message,
        apps: &[String],
        out: &mut Vec<u8>,
    ) -> Result<Option<Heard>, BadPeer> {
        if let Some(control) = ProtocolControl::from_payload(message.kind, &message.payload)? {
            match control {
                ProtocolControl::SetChunkSize(size) => self.chunks.set_size(size)?,
                ProtocolControl::Abort { chunk_stream_id } => self.chunks.abort(chunk_stream_id),
                ProtocolControl::WindowAckSize(window) => self.window = window.max(MIN_WINDOW),
                _ => {}
            }
            return Ok(None);
        }
        match message.kind {
            msg_type::USER_CONTROL => {
                self.ping(&message.payload, out)?;
                Ok(None)
            }
            msg_type::COMMAND_AMF0 => self.command(&message.payload, message.stream, apps, out),
            // One byte says which AMF follows, and for commands it is always the old one.
            msg_type::COMMAND_AMF3 => {
                let body = message.payload.get(1..).unwrap_or(&[]);
                self.command(body, message.stream, apps, out)
            }
            _ if self.publishing.is_none() => Ok(None),
            msg_type::AGGREGATE => {
                self.aggregate = Some(Aggregate {
                    stamp: message.stamp,
                    first: None,
                    rest: message.payload,
                });
                self.aggregated()
            }
            _ => Ok(media(message)),
        }
    }

    fn command(
        &mut self,
        body: &[u8],
        stream: u32,
        apps: &[String],
        out: &mut Vec<u8>,
    ) -> Result<Option<Heard>, BadPeer> {
        if body.len() > MAX_COMMAND {
            return Err(BadPeer::LongCommand);
        }
        let command = Command::parse(body)?;
        let number = command.transaction_id;
        match command.name.as_str() {
            "connect" => return self.connect(&command, apps, out).map(Some),
            "releaseStream" | "FCPublish" => {
                self.say("_result", number, vec![Amf0Value::Undefined], stream, out)?;
            }
            "createStream" => {
                if self.app.is_none() {
                    return Err(BadPeer::OutOfOrder("createStream before connect"));
                }
                self.created = true;
                let answer = vec![Amf0Value::Null, Amf0Value::Number(MEDIA_STREAM.into())];
                self.say("_result", number, answer, stream, out)?;
            }
            "publish" => {
                let (Some(app), true) = (&self.app, self.created) else {
                    return Err(BadPeer::OutOfOrder(
                        "publish before connect and createStream",
                    ));
                };
                if self.publishing.is_some() {
                    return Err(BadPeer::OutOfOrder("a second publish"));
                }
                let Some(Amf0Value::String(name)) = command.arguments.get(1) else {
                    return Err(BadPeer::OutOfOrder("publish without a name"));
                };
                self.publishing = Some(stream);
                return Ok(Some(Heard::Publish {
                    app: app.clone(),
                    name: name.clone(),
                }));
            }
            "FCUnpublish" | "closeStream" => return Ok(Some(Heard::Unpublished)),
            "deleteStream" => return Ok(Some(Heard::Deleted)),
            _ => {}
        }
        Ok(None)
    }

    fn connect(
        &mut self,
        command: &Command,
        apps: &[String],
        out: &mut Vec<u8>,
    ) -> Result<Heard, BadPeer> {
        let number = command.transaction_id;
        let app = match command.arguments.first() {
            Some(Amf0Value::Object(fields) | Amf0Value::EcmaArray(fields)) => {
                fields.iter().find_map(|field| match field {
                    (key, Amf0Value::String(app)) if key == "app" => Some(app.as_str()),
                    _ => None,
                })
            }
            _ => None,
        };
        // Where the stream's name has several parts, clients put all but the last into the application.
        let first = app
            .unwrap_or("")
            .trim_start_matches('/')
            .split(['/', '?'])
            .next();
        let Some(app) =
            app.filter(|_| first.is_some_and(|first| apps.iter().any(|app| app == first)))
        else {
            let app = app.unwrap_or("").to_owned();
            let info = object([
                ("level", text("error")),
                ("code", text("NetConnection.Connect.Rejected")),
                ("description", text(format!("no application {app:?}"))),
            ]);
            self.say("_error", number, vec![Amf0Value::Null, info], 0, out)?;
            return Ok(Heard::BadApp(app));
        };
        self.app = Some(app.to_owned());
        let limit = ProtocolControl::SetPeerBandwidth {
            ack_window_size: WINDOW,
            limit_type: LimitType::Dynamic,
        };
        for control in [
            ProtocolControl::WindowAckSize(WINDOW),
            limit,
            ProtocolControl::SetChunkSize(CHUNK_SIZE),
        ] {
            out.extend(self.writer.write(&control.try_to_message()?)?);
        }
        self.writer.set_chunk_size(CHUNK_SIZE);
        let server = object([
            ("fmsVer", text("FMS/3,0,1,123")),
            ("capabilities", Amf0Value::Number(31.0)),
        ]);
        let info = object([
            ("level", text("status")),
            ("code", text("NetConnection.Connect.Success")),
            ("description", text("Connection succeeded.")),
            ("objectEncoding", Amf0Value::Number(0.0)),
        ]);
        self.say("_result", number, vec![server, info], 0, out)?;
        Ok(Heard::Connected)
    }

    fn ping(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), BadPeer> {
        if let [high, low, a, b, c, d, ..] = *payload
            && u16::from_be_bytes([high, low]) == PING_REQUEST
        {
            let pong = UserControl::PingResponse(u32::from_be_bytes([a, b, c, d]));
            out.extend(self.writer.write(&pong.to_message())?);
        }
        Ok(())
    }

    fn acknowledge(&mut self, out: &mut Vec<u8>) -> Result<(), BadPeer> {
        if self.received - self.acknowledged >= self.window.into() {
            self.acknowledged = self.received;
            let acknowledgement = ProtocolControl::Acknowledgement(self.received as u32); // modulo 2^32
            out.extend(self.writer.write(&acknowledgement.try_to_message()?)?);
        }
        Ok(())
    }

    fn say(
        &mut self,
        name: &str,
        number: f64,
        arguments: Vec<Amf0Value>,
        stream: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), BadPeer> {
        let command = Command {
            name: name.to_owned(),
            transaction_id: number,
            arguments,
        };
        out.extend(self.writer.write(&Outgoing {
            chunk_stream_id: COMMANDS,
            timestamp: 0,
            message_type_id: msg_type::COMMAND_AMF0,
            message_stream_id: stream,
            payload: command.to_body()?,
        })?);
        Ok(())
    }
}

/// The message as media; `None` if it is of another kind.
fn media(message: Message) -> Option<Heard> {
    let Message {
        kind,
        stamp,
        payload: body,
        ..
    } = message;
    match kind {
        msg_type::VIDEO => Some(Heard::Video { stamp, body }),
        msg_type::AUDIO => Some(Heard::Audio { stamp, body }),
        msg_type::DATA_AMF0 => Some(Heard::Data(body)),
        _ => None,
    }
}

impl Aggregate {
    /// The next message: type, length, time stamp, stream, content, length again. Time stamps count from that of the
    /// first one, which is the aggregate's.
    fn next(&mut self) -> Result<Option<Message>, BadPeer> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let head: [u8; 11] = *self.rest.first_chunk().ok_or(BadPeer::Aggregate)?;
        let length = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
        if self.rest.len() < head.len() + length + 4 {
            return Err(BadPeer::Aggregate);
        }
        self.rest.advance(head.len());
        let payload = self.rest.split_to(length);
        self.rest.advance(4);
        let stamp = u32::from_be_bytes([head[7], head[4], head[5], head[6]]);
        let first = *self.first.get_or_insert(stamp);
        Ok(Some(Message {
            stream: MEDIA_STREAM,
            kind: head[0],
            stamp: stamp.wrapping_sub(first).wrapping_add(self.stamp),
            payload,
        }))
    }
}

fn text(text: impl Into<String>) -> Amf0Value {
    Amf0Value::String(text.into())
}

fn object<const N: usize>(fields: [(&str, Amf0Value); N]) -> Amf0Value {
    Amf0Value::Object(fields.map(|(key, value)| (key.to_owned(), value)).into())
}
