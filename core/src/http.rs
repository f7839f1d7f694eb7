//! HTTP as the machines speak it: heads and bodies, no sockets and no framing.
//!
//! An exchange is one request and its reply under one [`EffectId`](crate::EffectId). As client a machine sends
//! [`Out::Request`], then, if the body is [`Body::Stream`], any number of [`Out::Data`] and one [`Out::End`].
//! The machine receives [`In::Sent`] as body bytes leave, one [`In::Reply`] (possibly before its own body is
//! done), any number of [`In::Data`] and one [`In::End`]. As server it is the same with the sides swapped.
//! [`In::Failed`] may come at any point and ends the exchange, as does [`Out::Abort`] from our side.
//!
//! A request with the field `upgrade` asks to leave HTTP, over HTTP/1.1 and with an empty body. A reply with status
//! [`SWITCHING`], that field and [`Body::Stream`] grants it: bodies begin anew on both sides then, bytes that nobody
//! frames, with the same steps, the same pressure and no trailers. Whoever asked may end its side first; the exchange is
//! over when the side that granted it ends.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use bytes::Bytes;

mod headers;
mod reach;
mod url;

pub use headers::{Headers, is_of_connection};
pub use reach::{Forbidden, Kind, Rule};
pub use url::{BadUrl, MAX_URL_BYTES, Reach, Url};

/// The status of a reply that leaves HTTP for the protocol that its field `upgrade` names.
pub const SWITCHING: u16 = 101;

/// A step that a machine asks for.
#[derive(Clone)]
pub enum Out {
    /// Opens an exchange as client.
    Request(Request),
    /// Answers an exchange that a peer opened. With [`Body::Stream`], data and an end follow.
    Reply(Response),
    /// Body bytes of our side. A driver flushes each as it comes: readers see bytes only through flushes.
    Data(Bytes),
    /// Our body is complete; these are its trailers, such as the status of a gRPC answer.
    End(Headers),
    /// No more of our body comes until what was said of it is on its way: [`In::Sent`] is due then. A driver that
    /// reports at once whatever it hands to the transport need not heed this.
    Report,
    /// The exchange is given up; nothing more is sent or wanted. Harmless if it has ended.
    Abort,
    /// Stop reading the peer's body: we hold as much of it as we may.
    Pause,
    /// Read on after [`Out::Pause`].
    Resume,
}

/// A step that happened.
#[derive(Clone)]
pub enum In {
    /// A peer opened an exchange. Its body, even an empty one, comes as [`In::Data`] and [`In::End`]; the
    /// request's own `body` field is [`Body::Stream`].
    Request(Request),
    /// The head of the reply; body as with [`In::Request`].
    Reply(Response),
    /// Body bytes of the peer.
    Data(Bytes),
    /// The transport took this many further body bytes of ours. For an answer, a driver may report many pieces in one,
    /// but not after [`Out::Report`].
    Sent(usize),
    /// The peer's body is complete; these are its trailers.
    End(Headers),
    /// The exchange broke. Nothing more comes.
    Failed(Fault),
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(request) => f.debug_tuple("Request").field(request).finish(),
            Self::Reply(reply) => f.debug_tuple("Reply").field(reply).finish(),
            Self::Data(data) => write!(f, "Data({} bytes)", data.len()),
            Self::End(trailers) => f.debug_tuple("End").field(trailers).finish(),
            Self::Report => f.write_str("Report"),
            Self::Abort => f.write_str("Abort"),
            Self::Pause => f.write_str("Pause"),
            Self::Resume => f.write_str("Resume"),
        }
    }
}

impl fmt::Debug for In {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(request) => f.debug_tuple("Request").field(request).finish(),
            Self::Reply(reply) => f.debug_tuple("Reply").field(reply).finish(),
            Self::Data(data) => write!(f, "Data({} bytes)", data.len()),
            Self::Sent(bytes) => write!(f, "Sent({bytes})"),
            Self::End(trailers) => f.debug_tuple("End").field(trailers).finish(),
            Self::Failed(fault) => f.debug_tuple("Failed").field(fault).finish(),
        }
    }
}

/// How a body follows its head.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Body {
    /// The body is empty.
    #[default]
    Empty,
    /// All of it, now.
    Full(Bytes),
    /// All of it, now, in pieces that follow each other: a large one is shared instead of copied beside small ones.
    Pieces(Vec<Bytes>),
    /// Piece by piece, with steps of its own.
    Stream,
}

impl fmt::Debug for Body {
    // A body may be a request for a payment, or the caller's headers on their way to a webhook.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Pieces(pieces) => {
                let all: usize = pieces.iter().map(Bytes::len).sum();
                write!(f, "Pieces({all} bytes)")
            }
            Self::Stream => f.write_str("Stream"),
        }
    }
}

/// The methods this protocol uses, and those that are refused by the rules of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the meaning")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Trace,
    /// Any other, whatever its name: none of our requests has it, and no path of ours takes it.
    Other,
}

impl Method {
    /// The upper-case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Other => "OTHER",
        }
    }

    /// The method of that name, if we know it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Get,
            Self::Head,
            Self::Post,
            Self::Put,
            Self::Patch,
            Self::Delete,
            Self::Options,
            Self::Trace,
        ]
        .into_iter()
        .find(|method| method.as_str() == name)
    }
}

/// The version of HTTP that a request must travel on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1: JSON, payments, trickle.
    #[default]
    Http1,
    /// HTTP/2: gRPC. Over TLS by ALPN, in cleartext with prior knowledge.
    Http2,
    /// HTTP/2 if the peer offers it by ALPN, and HTTP/1.1 otherwise: for answers of little text that last, of which many
    /// share a connection then. A request that the peer says it did not look at goes once more, over HTTP/1.1.
    Either,
}

/// Certificates that are good enough for an `https` peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// A certificate that public roots vouch for under the host's name. Signers and discovery endpoints.
    #[default]
    Public,
    /// The first one that was seen: a driver remembers the leaf of the first connection to a host and port, and
    /// every later connection has to show the same one. Orchestrators sign their own (spec/handshake 1.1).
    FirstUse,
    /// Whichever is shown now: it is remembered in place of what was, and whatever connection the other one opened
    /// is closed.
    Afresh,
}

/// The head of a request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where. As server: the path and the query count; the authority is the driver's, whomever the peer meant to reach.
    pub url: Url,
    /// Header fields, without the ones that belong to framing. As server: `upgrade` is among them only if it can be granted.
    pub headers: Headers,
    /// The body that follows the head.
    pub body: Body,
    /// Ignored for `http` URLs and by servers.
    pub trust: Trust,
    /// HTTP/1.1 or HTTP/2.
    pub protocol: Protocol,
    /// The address at the other end of the connection, for a server whose driver knows it.
    pub peer: Option<IpAddr>,
    /// The host, and port, that the caller of a server says it reached. Anybody may write anything there.
    pub host: Option<String>,
    /// How many bytes the body of a call at a server will have, if the caller says so.
    pub length: Option<u64>,
}

impl Request {
    /// A request without headers and body, over HTTP/1.1 to a publicly trusted peer.
    #[must_use]
    pub fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: Headers::default(),
            body: Body::Empty,
            trust: Trust::Public,
            protocol: Protocol::Http1,
            peer: None,
            host: None,
            length: None,
        }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// The protocol that the request asks to leave HTTP for.
    #[must_use]
    pub fn upgrade(&self) -> Option<&str> {
        self.headers.get("upgrade")
    }

    /// Sets the trust.
    #[must_use]
    pub const fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Sets the protocol.
    #[must_use]
    pub const fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }
}

/// The head of a reply.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code; numbers without a registered meaning, such as 470, are normal here.
    pub status: u16,
    /// Header fields, without the ones that belong to framing. `connection: close` is honoured by drivers.
    pub headers: Headers,
    /// The body that follows the head.
    pub body: Body,
}

impl Response {
    /// A reply without headers and body.
    #[must_use]
    pub const fn new(status: u16) -> Self {
        Self {
            status,
            headers: Headers::new(),
            body: Body::Empty,
        }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }
}

/// Why an exchange broke, as far as the transport could tell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The name has no address.
    #[error("cannot resolve the host name: {0}")]
    Resolve(String),
    /// No connection came about.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The TLS handshake failed for another reason than the next two.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// Public authorities do not vouch for the peer's certificate, and [`Trust::Public`] was asked for.
    #[error(
        "no public authority vouches for the certificate: {0}; one that its owner signed is good enough with \
         Trust::FirstUse"
    )]
    Untrusted(String),
    /// The peer showed another certificate than the one remembered for this host and port.
    #[error(
        "the certificate changed: remembered {}, now {}",
        hex::encode(remembered),
        hex::encode(seen)
    )]
    CertificateChanged {
        /// SHA-256 of the leaf remembered.
        remembered: [u8; 32],
        /// SHA-256 of the leaf shown now.
        seen: [u8; 32],
    },
    /// The peer does not speak the HTTP we asked for.
    #[error("the peer does not speak this protocol: {0}")]
    Protocol(String),
    /// The connection ended or was reset inside the exchange.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// A peer named an address that it may not lead us to; nothing was sent there.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
}

impl Fault {
    /// Whether nothing of the request can have reached the peer.
    #[must_use]
    pub const fn is_before_request(&self) -> bool {
        matches!(
            self,
            Self::Resolve(_)
                | Self::Connect(_)
                | Self::Tls(_)
                | Self::Untrusted(_)
                | Self::Forbidden(_)
        )
    }

    /// Whether the same request will end the same way, until somebody decides otherwise.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::CertificateChanged { .. } | Self::Untrusted(_) | Self::Forbidden(_)
        )
    }
}
