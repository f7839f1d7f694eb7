//! Unary gRPC as an HTTP exchange: one message there, one message and a status back (handshake spec 1).
//!
//! Both halves are pure. A client sends [`call`] and feeds what comes back to an [`Answer`]; a server feeds what
//! comes in to a [`Question`] and answers with [`reply`] or [`refuse`].

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::error::cut;
use crate::error::Reason;
use crate::http::{Body, Headers, Method, Out, Protocol, Request, Response, Trust, Url};

/// The path of the handshake.
pub const GET_ORCHESTRATOR: &str = "/net.Orchestrator/GetOrchestrator";
/// The path that ends a transcoding session.
pub const END_TRANSCODING_SESSION: &str = "/net.Orchestrator/EndTranscodingSession";
/// The path of the reachability check.
pub const PING: &str = "/net.Orchestrator/Ping";

/// The longest message that is accepted, in either direction: the default of the usual libraries.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

const CONTENT_TYPE: &str = "application/grpc";
const PREFIX: usize = 5;

/// How a call ended, as the peer says or as we conclude.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code: one of the seventeen, or any other that the peer sent.
    pub code: u16,
    /// The peer's words, percent-decoded and cut to a readable length.
    pub message: String,
}

impl Status {
    /// Success.
    pub const OK: u16 = 0;
    /// The code of every refusal by an orchestrator; only the text tells them apart.
    pub const UNKNOWN: u16 = 2;
    /// The deadline passed.
    pub const DEADLINE_EXCEEDED: u16 = 4;
    /// Too much of something.
    pub const RESOURCE_EXHAUSTED: u16 = 8;
    /// No such service or method.
    pub const UNIMPLEMENTED: u16 = 12;
    /// An invariant is broken.
    pub const INTERNAL: u16 = 13;
    /// The code of a server that cannot be reached.
    pub const UNAVAILABLE: u16 = 14;

    /// A status with our own words.
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The known meaning of an orchestrator's refusal of the handshake (handshake spec 2.2, 14). The status is always
    /// [`Status::UNKNOWN`]; only the text tells.
    #[must_use]
    pub fn reason(&self) -> Reason {
        super::reason(&self.message)
    }

    fn from_headers(headers: &Headers) -> Option<Self> {
        let code = headers.get("grpc-status")?;
        Some(Self {
            code: code.trim().parse().unwrap_or(Self::UNKNOWN),
            message: percent_decoded(headers.get("grpc-message").unwrap_or("")),
        })
    }

    fn push_to(&self, headers: &mut Headers) {
        headers.push("grpc-status", self.code.to_string());
        if !self.message.is_empty() {
            headers.push("grpc-message", percent_encoded(&self.message));
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gRPC status {}: {}", self.code, self.message)
    }
}

/// Why a call gave no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoAnswer {
    /// The server answered the call, with an error.
    #[error("{0}")]
    Status(Status),
    /// Something answered that does not speak gRPC at this path: another service on the port, a proxy.
    #[error("not a gRPC answer: HTTP status {status}, content type {content_type:?}")]
    NotGrpc {
        /// The HTTP status.
        status: u16,
        /// The content type, cut.
        content_type: String,
    },
    /// The message is too long.
    #[error("the message is longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
    /// The framing is broken.
    #[error("broken gRPC framing: {0}")]
    Malformed(&'static str),
}

/// The request of a unary call. `within` tells the server how long we wait; the caller keeps the deadline itself.
#[must_use]
pub fn call(
    to: &Url,
    path: &str,
    message: &impl Message,
    trust: Trust,
    within: Duration,
) -> Request {
    Request::new(Method::Post, to.with_path(path))
        .header("content-type", CONTENT_TYPE)
        .header("te", "trailers")
        .header(
            "grpc-timeout",
            format!("{}m", within.as_millis().min(99_999_999)),
        )
        .protocol(Protocol::Http2)
        .trust(trust)
        .body(Body::Full(frame(message)))
}

/// A message with its five bytes before: flag zero, then the length.
#[must_use]
pub fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).expect("messages of our own are short of 4 GiB"));
    message
        .encode(&mut framed)
        .expect("a growing buffer takes every message");
    framed.freeze()
}

/// Collects the answer to a [`call`].
#[derive(Debug, Default)]
pub struct Answer {
    message: Collector,
    status: Option<Status>,
}

impl Answer {
    /// Takes the head of the answer.
    ///
    /// # Errors
    /// If this is no gRPC; abort the exchange then.
    pub fn head(&mut self, head: &Response) -> Result<(), NoAnswer> {
        let content_type = head.headers.get("content-type").unwrap_or("");
        self.status = Status::from_headers(&head.headers);
        // Proxies answer in their own tongue. A status in the head speaks for itself.
        let grpc = head.status == 200 && is_grpc(content_type);
        if grpc || self.status.is_some() {
            return Ok(());
        }
        Err(NoAnswer::NotGrpc {
            status: head.status,
            content_type: cut(content_type).into(),
        })
    }

    /// Takes a piece of the body.
    ///
    /// # Errors
    /// If the message is too long; abort the exchange then.
    pub fn data(&mut self, data: &[u8]) -> Result<(), NoAnswer> {
        self.message.push(data)
    }

    /// The message, once the body is complete.
    ///
    /// # Errors
    /// Why the call brought no message.
    pub fn end(self, trailers: &Headers) -> Result<Bytes, NoAnswer> {
        match Status::from_headers(trailers).or(self.status) {
            None => Err(NoAnswer::Malformed("the answer ended without a status")),
            Some(Status {
                code: Status::OK, ..
            }) => self.message.finish(),
            Some(status) => Err(NoAnswer::Status(status)),
        }
    }
}

/// Whether a request is gRPC, by the rule of the reference: its orchestrators serve everything else on the same
/// port (handshake spec 1).
#[must_use]
pub fn is_call(request: &Request) -> bool {
    request.protocol == Protocol::Http2
        && is_grpc(request.headers.get("content-type").unwrap_or(""))
}

fn is_grpc(content_type: &str) -> bool {
    content_type.starts_with(CONTENT_TYPE)
}

/// Collects the message of a call, as server.
#[derive(Debug, Default)]
pub struct Question {
    message: Collector,
}

impl Question {
    /// Takes a piece of the body.
    ///
    /// # Errors
    /// If the message is too long; [`refuse`] the call then.
    pub fn data(&mut self, data: &[u8]) -> Result<(), Status> {
        self.message.push(data).map_err(refusal)
    }

    /// The message, once the body is complete.
    ///
    /// # Errors
    /// With what to [`refuse`] the call.
    pub fn end(self) -> Result<Bytes, Status> {
        self.message.finish().map_err(refusal)
    }
}

fn refusal(why: NoAnswer) -> Status {
    let code = match why {
        NoAnswer::TooLong => Status::RESOURCE_EXHAUSTED,
        _ => Status::INTERNAL,
    };
    Status::new(code, why.to_string())
}

/// The steps that answer a call with a message.
#[must_use]
pub fn reply(message: &impl Message) -> [Out; 3] {
    let mut trailers = Headers::new();
    Status::new(Status::OK, "").push_to(&mut trailers);
    [
        Out::Reply(
            Response::new(200)
                .header("content-type", CONTENT_TYPE)
                .body(Body::Stream),
        ),
        Out::Data(frame(message)),
        Out::End(trailers),
    ]
}

/// The step that answers a call with an error: a head that is all of it.
#[must_use]
pub fn refuse(status: &Status) -> Out {
    let mut head = Response::new(200).header("content-type", CONTENT_TYPE);
    status.push_to(&mut head.headers);
    Out::Reply(head)
}

/// The framed message of a direction, of which there is one.
#[derive(Debug, Default)]
struct Collector {
    bytes: Vec<u8>,
}

impl Collector {
    fn push(&mut self, data: &[u8]) -> Result<(), NoAnswer> {
        if self.bytes.len() + data.len() > PREFIX + MAX_MESSAGE_BYTES {
            return Err(NoAnswer::TooLong);
        }
        self.bytes.extend_from_slice(data);
        match self.length() {
            Some(length) if length > MAX_MESSAGE_BYTES => Err(NoAnswer::TooLong),
            _ => Ok(()),
        }
    }

    fn length(&self) -> Option<usize> {
        let prefix = self.bytes.get(1..PREFIX)?;
        let length: [u8; 4] = prefix.try_into().expect("four bytes were asked for");
        usize::try_from(u32::from_be_bytes(length)).ok()
    }

    fn finish(self) -> Result<Bytes, NoAnswer> {
        let length = match self.length() {
            None if self.bytes.is_empty() => {
                return Err(NoAnswer::Malformed("there is no message"));
            }
            None => return Err(NoAnswer::Malformed("the message breaks off in its length")),
            Some(length) => length,
        };
        if self.bytes[0] != 0 {
            return Err(NoAnswer::Malformed(
                "the message is compressed, and nobody asked for that",
            ));
        }
        match (self.bytes.len() - PREFIX).cmp(&length) {
            core::cmp::Ordering::Less => Err(NoAnswer::Malformed("the message breaks off")),
            core::cmp::Ordering::Greater => {
                Err(NoAnswer::Malformed("there is more than one message"))
            }
            core::cmp::Ordering::Equal => Ok(Bytes::from(self.bytes).slice(PREFIX..)),
        }
    }
}

/// Bytes outside of printable ASCII, and the percent sign, become `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut coded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => coded.push(byte.into()),
            _ => coded.push_str(&format!("%{byte:02X}")),
        }
    }
    coded
}

/// The reverse; what is no `%XX` stays as it is, and what is no UTF-8 is replaced.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let byte = digits
            .and_then(|digits| core::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        plain.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    cut(&String::from_utf8_lossy(&plain)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn ask(pieces: &[&[u8]], trailers: &[(&'static str, &str)]) -> Result<Bytes, NoAnswer> {
        let mut answer = Answer::default();
        answer.head(&Response::new(200).header("content-type", "application/grpc+proto"))?;
        for piece in pieces {
            answer.data(piece)?;
        }
        let mut headers = Headers::new();
        for (name, value) in trailers {
            headers.push(name, *value);
        }
        answer.end(&headers)
    }

    const OK: &[(&str, &str)] = &[("grpc-status", "0")];

    #[test]
    fn an_answer_is_read_whole_byte_by_byte_and_not_with_a_tail() {
        let framed = b"\0\0\0\0\x03abc";
        assert_eq!(ask(&[framed], OK), Ok(Bytes::from_static(b"abc")));
        let bytes: Vec<&[u8]> = framed.chunks(1).collect();
        assert_eq!(ask(&bytes, OK), Ok(Bytes::from_static(b"abc")));
        for broken in [
            &b""[..],
            b"\0\0\0",
            b"\0\0\0\0\x03ab",
            b"\0\0\0\0\x03abcd",
            b"\x01\0\0\0\x03abc",
        ] {
            assert!(
                matches!(ask(&[broken], OK), Err(NoAnswer::Malformed(_))),
                "{broken:?}"
            );
        }
    }

    #[test]
    fn a_status_in_the_trailers_or_in_the_head_is_the_answer() {
        let told = Err(NoAnswer::Status(Status::new(2, "Ünable: 100%")));
        let fields = [
            ("grpc-status", "2"),
            ("grpc-message", "%C3%9Cnable: 100%25"),
        ];
        assert_eq!(ask(&[], &fields), told);
        let mut answer = Answer::default();
        let Out::Reply(head) = refuse(&Status::new(2, "Ünable: 100%")) else {
            panic!("a refusal is a head");
        };
        assert_eq!(
            head.headers.get("grpc-message"),
            Some("%C3%9Cnable: 100%25")
        );
        answer.head(&head).unwrap();
        assert_eq!(answer.end(&Headers::new()), told);
    }

    #[test]
    fn an_answer_without_a_status_is_none() {
        assert!(matches!(
            ask(&[b"\0\0\0\0\0"], &[]),
            Err(NoAnswer::Malformed(_))
        ));
    }

    #[test]
    fn what_is_no_grpc_is_told_apart() {
        let mut answer = Answer::default();
        let page = Response::new(404).header("content-type", "text/plain");
        assert!(matches!(
            answer.head(&page),
            Err(NoAnswer::NotGrpc { status: 404, .. })
        ));
    }

    #[test]
    fn a_long_message_is_refused_when_its_length_is_known() {
        let mut answer = Answer::default();
        let length = (MAX_MESSAGE_BYTES as u32 + 1).to_be_bytes();
        assert_eq!(
            answer.data(&[&[0], &length[..]].concat()),
            Err(NoAnswer::TooLong)
        );
        let mut answer = Answer::default();
        let exactly = (MAX_MESSAGE_BYTES as u32).to_be_bytes();
        answer.data(&[&[0], &exactly[..]].concat()).unwrap();
        answer.data(&vec![0; MAX_MESSAGE_BYTES]).unwrap();
        assert_eq!(answer.data(b"x"), Err(NoAnswer::TooLong));
    }

    #[test]
    fn both_halves_understand_each_other() {
        let message = livepeer_proto::net::AuthToken {
            session_id: "s".into(),
            ..Default::default()
        };
        let url = Url::parse("https://orch:8935").unwrap();
        let request = call(
            &url,
            PING,
            &message,
            Trust::FirstUse,
            Duration::from_secs(5),
        );
        assert!(is_call(&request));
        assert_eq!(request.headers.get("grpc-timeout"), Some("5000m"));
        let Body::Full(body) = request.body else {
            panic!("a call has all of its body");
        };
        let mut question = Question::default();
        question.data(&body).unwrap();
        let heard = question.end().unwrap();
        assert_eq!(heard, message.encode_to_vec());
        let mut answer = Answer::default();
        let mut told = None;
        for step in reply(&message) {
            match step {
                Out::Reply(head) => answer.head(&head).unwrap(),
                Out::Data(data) => answer.data(&data).unwrap(),
                Out::End(trailers) => {
                    told = Some(core::mem::take(&mut answer).end(&trailers));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(told.unwrap().unwrap(), heard);
    }

    #[test]
    fn broken_percent_codes_stay_as_they_are() {
        for (coded, plain) in [
            ("%", "%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%+1", "%+1"),
            ("%41", "A"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(percent_decoded(coded), plain);
        }
    }
}
