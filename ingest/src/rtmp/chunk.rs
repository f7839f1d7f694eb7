//! Messages out of the chunks that a peer sends (RTMP 1.0, 5.3).
//!
//! The crate `rtmp-runtime` reads chunks, too, but only inside of its own session, which keeps from its caller what a
//! gateway has to see: pings, acknowledgement windows, and how a stream was ended. So chunks are read here, into the very
//! buffer that becomes the frame; handshake, AMF and what we send are the crate's.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

/// Bytes that a message has at most.
pub const MAX_MESSAGE: usize = 8 << 20;
/// Bytes that all unfinished messages of a connection announce at most.
pub const MAX_UNFINISHED: usize = 16 << 20;
/// Chunk streams that a connection uses at most.
pub const MAX_CHUNK_STREAMS: usize = 64;

/// The size of chunks until the peer names another.
const FIRST_CHUNK_SIZE: usize = 128;
/// The longest head of a chunk: basic header, message header and extended time stamp.
const MAX_HEAD: usize = 3 + 11 + 4;
/// A time stamp of this value says that the true one follows in 32 bits.
const EXTENDED: u32 = 0xff_ffff;
/// Room that a message gets before its bytes have come; an announcement alone costs no more.
const FIRST_ROOM: usize = 64 << 10;

/// A message of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The message stream: 0 is the connection itself.
    pub stream: u32,
    /// The message type.
    pub kind: u8,
    /// The time stamp, modulo 2^32.
    pub stamp: u32,
    /// The content.
    pub payload: Bytes,
}

/// Chunks that break the protocol or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadChunk {
    /// A message of more than [`MAX_MESSAGE`] bytes.
    #[error("a message of more than {MAX_MESSAGE} bytes")]
    MessageTooLong,
    /// Unfinished messages of more than [`MAX_UNFINISHED`] bytes.
    #[error("unfinished messages of more than {MAX_UNFINISHED} bytes")]
    TooMuchUnfinished,
    /// More than [`MAX_CHUNK_STREAMS`] chunk streams.
    #[error("more than {MAX_CHUNK_STREAMS} chunk streams")]
    TooManyStreams,
    /// A short head on a chunk stream that never had a long one.
    #[error("a chunk that continues nothing")]
    Orphan,
    /// A chunk size of zero or beyond 31 bits.
    #[error("an impossible chunk size")]
    ChunkSize,
}

/// The memory of a chunk stream.
#[derive(Debug, Default)]
struct Stream {
    stamp: u32,
    /// The time that a chunk without a stamp adds when it begins a message.
    delta: u32,
    extended: bool,
    length: usize,
    kind: u8,
    stream: u32,
    /// The message under way.
    payload: Option<BytesMut>,
}

/// Puts messages together.
#[derive(Debug)]
pub struct Chunks {
    size: usize,
    streams: BTreeMap<u32, Stream>,
    /// The head of the chunk under way, as far as it has come.
    head: [u8; MAX_HEAD],
    head_len: usize,
    /// The chunk under way: its stream and the bytes that are missing.
    body: Option<(u32, usize)>,
    unfinished: usize,
}

impl Default for Chunks {
    fn default() -> Self {
        Self {
            size: FIRST_CHUNK_SIZE,
            streams: BTreeMap::new(),
            head: [0; MAX_HEAD],
            head_len: 0,
            body: None,
            unfinished: 0,
        }
    }
}

impl Chunks {
    /// Takes bytes from the front of `input` up to the end of the next message. `None`: all were taken, and no message
    /// is complete.
    ///
    /// # Errors
    /// If they break the protocol or a limit; the connection cannot go on.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Message>, BadChunk> {
        loop {
            let (id, missing) = if let Some(body) = self.body {
                body
            } else if self.take_head(input) {
                self.begin()?
            } else {
                return Ok(None);
            };
            let count = missing.min(input.len());
            let (taken, rest) = input.split_at(count);
            *input = rest;
            let stream = self.streams.entry(id).or_default();
            let payload = stream.payload.get_or_insert_default();
            payload.extend_from_slice(taken);
            if count < missing {
                self.body = Some((id, missing - count));
                return Ok(None);
            }
            self.body = None;
            if payload.len() == stream.length {
                self.unfinished -= stream.length;
                let payload = stream.payload.take().unwrap_or_default();
                return Ok(Some(Message {
                    stream: stream.stream,
                    kind: stream.kind,
                    stamp: stream.stamp,
                    payload: payload.freeze(),
                }));
            }
        }
    }

    /// The peer sends chunks of another size from here on.
    ///
    /// # Errors
    /// If there is no such size.
    pub fn set_size(&mut self, size: u32) -> Result<(), BadChunk> {
        if size == 0 || size > i32::MAX as u32 {
            return Err(BadChunk::ChunkSize);
        }
        // No message is longer, so a larger size means the same.
        self.size = (size as usize).min(MAX_MESSAGE);
        Ok(())
    }

    /// The peer gives up the message that it began on that chunk stream.
    pub fn abort(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.payload.take().is_some()
        {
            self.unfinished -= stream.length;
        }
    }

    /// Takes what is missing of a chunk's head. Returns whether it is complete.
    fn take_head(&mut self, input: &mut &[u8]) -> bool {
        loop {
            let wanted = self.head_size();
            if self.head_len == wanted {
                return true;
            }
            let count = (wanted - self.head_len).min(input.len());
            if count == 0 {
                return false;
            }
            let (taken, rest) = input.split_at(count);
            *input = rest;
            self.head[self.head_len..self.head_len + count].copy_from_slice(taken);
            self.head_len += count;
        }
    }

    /// The bytes that the head has at least, judged by those that are here.
    fn head_size(&self) -> usize {
        let Some(first) = self.head[..self.head_len].first() else {
            return 1;
        };
        let basic = basic_size(*first);
        let format = first >> 6;
        let size = basic + message_head_size(format);
        if self.head_len < size {
            return size;
        }
        let extended = if format == 3 {
            let stream = self.streams.get(&self.chunk_stream());
            stream.is_some_and(|stream| stream.extended)
        } else {
            uint(&self.head[basic..basic + 3]) == EXTENDED
        };
        size + if extended { 4 } else { 0 }
    }

    fn chunk_stream(&self) -> u32 {
        match self.head[0] & 0x3f {
            0 => 64 + u32::from(self.head[1]),
            1 => 64 + u32::from(self.head[1]) + 256 * u32::from(self.head[2]),
            id => id.into(),
        }
    }

    /// Begins the body of the chunk whose head is complete: its stream and the bytes that it has.
    fn begin(&mut self) -> Result<(u32, usize), BadChunk> {
        let id = self.chunk_stream();
        let format = self.head[0] >> 6;
        let head = &self.head[basic_size(self.head[0])..self.head_len];
        self.head_len = 0;
        if !self.streams.contains_key(&id) {
            if format != 0 {
                return Err(BadChunk::Orphan);
            }
            if self.streams.len() == MAX_CHUNK_STREAMS {
                return Err(BadChunk::TooManyStreams);
            }
        }
        let stream = self.streams.entry(id).or_default();
        let goes_on = format == 3 && stream.payload.is_some();
        if !goes_on {
            if stream.payload.take().is_some() {
                self.unfinished -= stream.length;
            }
            if format < 3 {
                let time = uint(&head[..3]);
                stream.extended = time == EXTENDED;
                stream.delta = time;
            }
            if stream.extended {
                stream.delta = uint(&head[head.len() - 4..]);
            }
            stream.stamp = if format == 0 {
                stream.delta
            } else {
                stream.stamp.wrapping_add(stream.delta)
            };
            if format < 2 {
                stream.length = uint(&head[3..6]) as usize;
                stream.kind = head[6];
            }
            if format == 0 {
                stream.stream = u32::from_le_bytes([head[7], head[8], head[9], head[10]]);
            }
            if stream.length > MAX_MESSAGE {
                return Err(BadChunk::MessageTooLong);
            }
            self.unfinished += stream.length;
            if self.unfinished > MAX_UNFINISHED {
                return Err(BadChunk::TooMuchUnfinished);
            }
            stream.payload = Some(BytesMut::with_capacity(stream.length.min(FIRST_ROOM)));
        }
        let done = stream.payload.as_ref().map_or(0, BytesMut::len);
        Ok((id, (stream.length - done).min(self.size)))
    }
}

const fn basic_size(first: u8) -> usize {
    match first & 0x3f {
        0 => 2,
        1 => 3,
        _ => 1,
    }
}

const fn message_head_size(format: u8) -> usize {
    match format {
        0 => 11,
        1 => 7,
        2 => 3,
        _ => 0,
    }
}

fn uint(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}
