//! The messages of a connection once its handshake is over. Chunks, acknowledgements, pings and aggregates are dealt with
//! here; what is left is for whoever speaks with the peer.

use bytes::{Buf as _, Bytes};
use rtmp_runtime::RtmpError;
use rtmp_runtime::amf0::{Amf0Value, Command};
use rtmp_runtime::chunk::{ChunkWriter, Message as Outgoing};
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
/// The chunk stream of commands.
const COMMANDS: u32 = 3;
/// The user control event that says that a stream is over.
const STREAM_EOF: u16 = 1;
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

/// The messages of one connection.
#[derive(Debug)]
pub(super) struct Messages {
    chunks: Chunks,
    writer: ChunkWriter,
    aggregate: Option<Aggregate>,
    window: u32,
    received: u64,
    acknowledged: u64,
}

/// A message that holds several, as far as it was not handed out.
#[derive(Debug)]
struct Aggregate {
    stamp: u32,
    stream: u32,
    first: Option<u32>,
    rest: Bytes,
}

impl Messages {
    pub(super) fn new() -> Self {
        Self {
            chunks: Chunks::default(),
            writer: ChunkWriter::new(),
            aggregate: None,
            window: WINDOW,
            received: 0,
            acknowledged: 0,
        }
    }

    /// Takes bytes from the front of `input` up to the end of the next message, and puts what has to be answered into
    /// `out`. `None`: all bytes were taken.
    pub(super) fn next(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Message>, BadPeer> {
        loop {
            if let Some(message) = self.aggregated()? {
                return Ok(Some(message));
            }
            let before = input.len();
            let message = self.chunks.next(input)?;
            self.received += (before - input.len()) as u64;
            let Some(message) = message else {
                self.acknowledge(out)?;
                return Ok(None);
            };
            if let Some(control) = ProtocolControl::from_payload(message.kind, &message.payload)? {
                match control {
                    ProtocolControl::SetChunkSize(size) => self.chunks.set_size(size)?,
                    ProtocolControl::Abort { chunk_stream_id } => {
                        self.chunks.abort(chunk_stream_id);
                    }
                    ProtocolControl::WindowAckSize(window) => self.window = window.max(MIN_WINDOW),
                    _ => {}
                }
                continue;
            }
            match message.kind {
                msg_type::USER_CONTROL => {
                    self.ping(&message.payload, out)?;
                    return Ok(Some(message));
                }
                msg_type::AGGREGATE => {
                    self.aggregate = Some(Aggregate {
                        stamp: message.stamp,
                        stream: message.stream,
                        first: None,
                        rest: message.payload,
                    });
                }
                _ => return Ok(Some(message)),
            }
        }
    }

    /// The next medium in an aggregate message. Other things have no place in one.
    fn aggregated(&mut self) -> Result<Option<Message>, BadPeer> {
        while let Some(aggregate) = &mut self.aggregate {
            match aggregate.next()? {
                Some(message) if message.is_media() => return Ok(Some(message)),
                Some(_) => {}
                None => self.aggregate = None,
            }
        }
        Ok(None)
    }

    fn ping(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), BadPeer> {
        if let [high, low, a, b, c, d, ..] = *payload
            && u16::from_be_bytes([high, low]) == PING_REQUEST
        {
            let pong = UserControl::PingResponse(u32::from_be_bytes([a, b, c, d]));
            self.control(&pong, out)?;
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

    /// Says how we want to be acknowledged and how large our chunks are, and how fast a peer may send if it asks us for
    /// something.
    pub(super) fn introduce(&mut self, limits: bool, out: &mut Vec<u8>) -> Result<(), BadPeer> {
        let limit = ProtocolControl::SetPeerBandwidth {
            ack_window_size: WINDOW,
            limit_type: LimitType::Dynamic,
        };
        let window = ProtocolControl::WindowAckSize(WINDOW);
        let limit = limits.then_some(limit);
        let size = Some(ProtocolControl::SetChunkSize(CHUNK_SIZE));
        for control in [Some(window), limit, size].into_iter().flatten() {
            out.extend(self.writer.write(&control.try_to_message()?)?);
        }
        self.writer.set_chunk_size(CHUNK_SIZE);
        Ok(())
    }

    /// Sends a user control event.
    pub(super) fn control(
        &mut self,
        control: &UserControl,
        out: &mut Vec<u8>,
    ) -> Result<(), BadPeer> {
        out.extend(self.writer.write(&control.to_message())?);
        Ok(())
    }

    /// Sends a command.
    pub(super) fn say(
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

impl Message {
    /// Whether it is video, sound or script data.
    pub(super) const fn is_media(&self) -> bool {
        matches!(
            self.kind,
            msg_type::VIDEO | msg_type::AUDIO | msg_type::DATA_AMF0
        )
    }

    /// Whether it says that a stream is over.
    pub(super) fn is_end(&self) -> bool {
        self.kind == msg_type::USER_CONTROL && self.payload.starts_with(&STREAM_EOF.to_be_bytes())
    }

    /// The command that it is, if it is one.
    pub(super) fn command(&self) -> Result<Option<Command>, BadPeer> {
        let body = match self.kind {
            msg_type::COMMAND_AMF0 => &self.payload[..],
            // One byte says which AMF follows, and for commands it is always the old one.
            msg_type::COMMAND_AMF3 => self.payload.get(1..).unwrap_or(&[]),
            _ => return Ok(None),
        };
        if body.len() > MAX_COMMAND {
            return Err(BadPeer::LongCommand);
        }
        Ok(Some(Command::parse(body)?))
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
            stream: self.stream,
            kind: head[0],
            stamp: stamp.wrapping_sub(first).wrapping_add(self.stamp),
            payload,
        }))
    }
}

pub(super) fn text(text: impl Into<String>) -> Amf0Value {
    Amf0Value::String(text.into())
}

pub(super) fn object<const N: usize>(fields: [(&str, Amf0Value); N]) -> Amf0Value {
    Amf0Value::Object(fields.map(|(key, value)| (key.to_owned(), value)).into())
}
