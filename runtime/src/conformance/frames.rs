//! HTTP/2 by hand, for what a client or a server that speaks it well would hide.

use hyper::rt::{Read, Write};

use super::Raw;

pub(super) const HEADERS: u8 = 1;
pub(super) const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
/// A flag of a body's or a head's last frame.
pub(super) const END_STREAM: u8 = 1;
/// The flag of a ping frame that makes it an answer; the same bit as [`END_STREAM`].
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// The stream of the only request.
const STREAM: u32 = 1;

/// A frame that was heard: its kind, flags and stream.
pub(super) type Heard = (u8, u8, u32);

/// The most streams that a peer lets be at a time, as a setting.
pub(super) const MAX_STREAMS: u16 = 3;
/// The frame that says which streams are not looked at any more.
pub(super) const GOAWAY: u8 = 7;
/// The reason of a stream that was not looked at.
pub(super) const REFUSED: u32 = 7;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client with one request, or a server.
pub(super) struct Frames<S> {
    peer: Raw<S>,
    bytes: Vec<u8>,
    /// All frames so far.
    pub(super) heard: Vec<Heard>,
}

impl<S: Read + Write + Unpin> Frames<S> {
    /// Opens the connection, and sends the head of a request; `bare` says that it is all.
    pub(super) async fn ask(peer: Raw<S>, post: bool, path: &str, bare: bool) -> Self {
        let mut this = Self {
            peer,
            bytes: Vec::new(),
            heard: Vec::new(),
        };
        this.write(PREFACE).await;
        this.send(SETTINGS, 0, 0, &[]).await;
        // Method and scheme from the static table, path and authority as literals.
        let mut block = vec![if post { 0x83 } else { 0x82 }, 0x86, 0x04];
        block.push(path.len() as u8);
        block.extend_from_slice(path.as_bytes());
        block.extend_from_slice(&[0x01, 1, b'x']);
        let end = if bare { END_STREAM } else { 0 };
        this.send(HEADERS, END_HEADERS | end, STREAM, &block).await;
        this
    }

    /// Begins as a server, with these settings.
    pub(super) async fn serve(peer: Raw<S>, settings: &[(u16, u32)]) -> Self {
        let mut this = Self {
            peer,
            bytes: Vec::new(),
            heard: Vec::new(),
        };
        while this.bytes.len() < PREFACE.len() {
            let more = this.peer.read().await.expect("the client begins");
            this.bytes.extend_from_slice(&more);
        }
        assert!(this.bytes.starts_with(PREFACE));
        this.bytes.drain(..PREFACE.len());
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        this.send(SETTINGS, 0, 0, &payload).await;
        this
    }

    /// Waits for the head of the next request: its stream.
    pub(super) async fn request(&mut self) -> u32 {
        loop {
            if let (HEADERS, _, stream) = self.next().await {
                return stream;
            }
        }
    }

    /// Answers with status 200, and with these bytes, which are all if `last` says so.
    pub(super) async fn answer(&mut self, stream: u32, bytes: &[u8], last: bool) {
        self.send(HEADERS, END_HEADERS, stream, &[0x88]).await;
        self.send(0, u8::from(last), stream, bytes).await;
    }

    /// Sends all of the body.
    pub(super) async fn body(&mut self, bytes: &[u8]) {
        self.send(0, END_STREAM, STREAM, bytes).await;
    }

    /// Waits until the server has said all that it has to say by now.
    pub(super) async fn settle(&mut self) {
        self.send(PING, 0, 0, &[7; 8]).await;
        self.until(|(kind, flags, _)| kind == PING && flags & ACK != 0)
            .await;
    }

    /// Waits for a frame.
    pub(super) async fn until(&mut self, wanted: impl Fn(Heard) -> bool) {
        while !wanted(self.next().await) {}
    }

    async fn next(&mut self) -> Heard {
        loop {
            if let [a, b, c, kind, flags, stream @ ..] = &self.bytes[..]
                && let Some(stream) = stream.first_chunk()
            {
                let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if self.bytes.len() >= 9 + len {
                    let frame = (*kind, *flags, u32::from_be_bytes(*stream));
                    self.bytes.drain(..9 + len);
                    self.heard.push(frame);
                    return frame;
                }
            }
            let more = self.peer.read().await.expect("the peer goes on");
            assert!(!more.is_empty(), "the peer closed after {:?}", self.heard);
            self.bytes.extend_from_slice(&more);
        }
    }

    pub(super) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let len = payload.len() as u32;
        let mut frame = len.to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.write(&frame).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.peer.write(bytes).await.expect("the server listens");
    }
}
