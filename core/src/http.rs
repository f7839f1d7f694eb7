//! HTTP as the machines speak it: heads and bodies, no sockets and no framing.
//!
//! One exchange is one request and its reply under one [`EffectId`](crate::EffectId). As client a machine sends
//! [`Out::Request`], then, if the body is [`Body::Stream`], any number of [`Out::Data`] and one [`Out::End`] (or
//! [`Out::EndWith`]). It
//! receives [`In::Sent`] as body bytes leave, one [`In::Reply`] (possibly before its own body is done), any number
//! of [`In::Data`] and one [`In::End`]. As server it is the same with the sides swapped. [`In::Failed`] may come
//! at any point and is the last word, as is [`Out::Abort`] from our side.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use bytes::Bytes;

mod reach;

pub use reach::{Forbidden, Kind, Reach, Rule};

/// A step that a machine asks for.
#[derive(Clone)]
pub enum Out {
    /// Opens an exchange as client.
    Request(Request),
    /// Answers an exchange that a peer opened. With [`Body::Stream`], data and an end follow.
    Reply(Response),
    /// Body bytes of our side. A driver flushes each as it comes: readers see bytes only through flushes.
    Data(Bytes),
    /// Our body is complete.
    End,
    /// Our body is complete, and these trailers follow it: the status of a gRPC answer.
    EndWith(Headers),
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
    /// That many further body bytes of ours were handed to the transport. Of an answer, a driver may report many
    /// pieces in one, but not after [`Out::Report`].
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
            Self::End => f.write_str("End"),
            Self::EndWith(trailers) => f.debug_tuple("EndWith").field(trailers).finish(),
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
    /// There is none.
    #[default]
    Empty,
    /// All of it, now.
    Full(Bytes),
    /// Piece by piece, with steps of its own.
    Stream,
}

impl fmt::Debug for Body {
    // A body may be a request for a payment, or the caller's headers on their way to a webhook.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Stream => f.write_str("Stream"),
        }
    }
}

/// The methods this protocol uses.
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
        ]
        .into_iter()
        .find(|method| method.as_str() == name)
    }
}

/// Which HTTP a request must travel on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1: JSON, payments, trickle.
    #[default]
    Http1,
    /// HTTP/2: gRPC. Over TLS by ALPN, in cleartext with prior knowledge.
    Http2,
}

/// Which certificate is good enough for an `https` peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// One that public roots vouch for under the host's name. Signers and discovery endpoints.
    #[default]
    Public,
    /// The one that was there first: a driver remembers the leaf of the first connection to a host and port, and
    /// every later connection has to show the same one. Orchestrators sign their own (spec/handshake 1.1).
    FirstUse,
    /// The one that is shown now: it is remembered in place of what was, and whatever connection the other one opened
    /// is closed.
    Afresh,
}

/// The head of a request.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// Where. As server: the path and the query count; the authority is the driver's, whomever the peer meant to reach.
    pub url: Url,
    /// Header fields, without the ones that belong to framing.
    pub headers: Headers,
    /// What follows the head.
    pub body: Body,
    /// Ignored for `http` URLs and by servers.
    pub trust: Trust,
    /// HTTP/1.1 or HTTP/2.
    pub protocol: Protocol,
    /// As server: the address at the other end of the connection, if the driver knows it.
    pub peer: Option<IpAddr>,
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
    /// What follows the head.
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

/// Header fields in order. Names are lower case; a name may repeat.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, String)>);

impl Headers {
    /// No fields.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a field with a name known at compile time, in lower case.
    pub fn push(&mut self, name: &'static str, value: impl Into<String>) {
        debug_assert!(
            !name.bytes().any(|b| b.is_ascii_uppercase()),
            "header names are lower case"
        );
        self.0.push((Cow::Borrowed(name), value.into()));
    }

    /// Adds a field as received or configured; the name is lowered.
    pub fn push_any(&mut self, name: &str, value: impl Into<String>) {
        self.0
            .push((Cow::Owned(name.to_ascii_lowercase()), value.into()));
    }

    /// The first value of a field; `name` in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(have, _)| *have == name)
            .map(|(_, value)| value)
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, value.as_str()))
    }
}

/// Fields whose values are shown in logs. All others may carry a secret: an authorization, a payment, a token.
const SHOWN: [&str; 6] = [
    "accept",
    "allow",
    "connection",
    "content-length",
    "content-type",
    "retry-after",
];

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in self.iter() {
            if SHOWN.contains(&name) || name.starts_with("lp-trickle-") {
                map.entry(&name, &value);
            } else {
                map.entry(&name, &format_args!("{} bytes", value.len()));
            }
        }
        map.finish()
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
    /// The TLS handshake failed for another reason than the next.
    #[error("TLS failed: {0}")]
    Tls(String),
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
            Self::Resolve(_) | Self::Connect(_) | Self::Tls(_) | Self::Forbidden(_)
        )
    }

    /// Whether the same request will end the same way, until somebody decides otherwise.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::CertificateChanged { .. } | Self::Forbidden(_))
    }
}

/// An absolute `http` or `https` URL, normalised: lower-case scheme and host, explicit port, path from `/`.
///
/// Beside its text, which alone tells one from another, it remembers where it may lead: see [`Reach`].
#[derive(Clone)]
pub struct Url {
    secure: bool,
    host: String,
    port: u16,
    path: String,
    reach: Reach,
}

/// A longer URL is refused: nothing of this protocol comes near it.
pub const MAX_URL_BYTES: usize = 8 << 10;

impl Url {
    /// Reads an absolute URL. A fragment is dropped; user names are refused, and so are hosts that are numbers but no
    /// address in its usual form: some resolvers take `0x7f.1` and `2130706433` for `127.0.0.1`.
    ///
    /// # Errors
    /// If the text is no absolute `http` or `https` URL.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let bad = |why| BadUrl { why };
        if text.len() > MAX_URL_BYTES {
            return Err(bad("it is longer than 8 KiB"));
        }
        if text.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(bad("it contains blanks or control characters"));
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or(bad("it does not start with http:// or https://"))?;
        let secure = if scheme.eq_ignore_ascii_case("https") {
            true
        } else if scheme.eq_ignore_ascii_case("http") {
            false
        } else {
            return Err(bad("the scheme is neither http nor https"));
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        if authority.contains('@') {
            return Err(bad("it carries a user name"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (v6, after) = rest
                    .split_once(']')
                    .ok_or(bad("the bracket of the address is not closed"))?;
                core::net::Ipv6Addr::from_str(v6)
                    .map_err(|_| bad("the address in brackets is not IPv6"))?;
                (
                    v6,
                    after
                        .strip_prefix(':')
                        .or((after.is_empty()).then_some(""))
                        .ok_or(bad("the port is malformed"))?,
                )
            }
            None => match authority.split_once(':') {
                Some((_, "")) => return Err(bad("the port is missing after the colon")),
                Some((host, port)) => (host, port),
                None => (authority, ""),
            },
        };
        if host.is_empty() {
            return Err(bad("it names no host"));
        }
        if host
            .bytes()
            .any(|b| !(b.is_ascii_alphanumeric() || b"-._:".contains(&b)))
        {
            return Err(bad("the host has characters that no host name has"));
        }
        if !host.contains(':') && reach::is_odd_number(host) {
            return Err(bad(
                "the host is a number, and not as four parts from 0 to 255",
            ));
        }
        let port = match port {
            "" if secure => 443,
            "" => 80,
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or(bad("the port is not between 1 and 65535"))?,
            _ => return Err(bad("the port is not a number")),
        };
        let tail = tail.split('#').next().unwrap_or("");
        let path = if tail.starts_with('/') {
            tail.to_string()
        } else {
            format!("/{tail}")
        };
        Ok(Self {
            secure,
            host: host.to_ascii_lowercase(),
            port,
            path,
            reach: Reach::Own,
        })
    }

    /// Reads what a peer calls a URL: an absolute one is taken as it is, one without a host is resolved against
    /// this one with exactly one `/` between (spec/jobs 3.2).
    ///
    /// # Errors
    /// If the result is no URL.
    pub fn resolve(&self, text: &str) -> Result<Self, BadUrl> {
        if text.contains("://") {
            return Self::parse(text);
        }
        let base = self
            .path
            .split('?')
            .next()
            .unwrap_or("")
            .trim_end_matches('/');
        Self::parse(&format!(
            "{}{base}/{}",
            self.origin(),
            text.trim_start_matches('/')
        ))
    }

    /// The same origin with another path, which starts with `/` and may have a query.
    #[must_use]
    pub fn with_path(&self, path: &str) -> Self {
        debug_assert!(path.starts_with('/'), "a path starts with a slash");
        Self {
            path: path.to_string(),
            ..self.clone()
        }
    }

    /// This URL with one more path segment; trailing slashes are stripped before, the query is dropped.
    #[must_use]
    pub fn child(&self, segment: &str) -> Self {
        let base = self
            .path
            .split('?')
            .next()
            .unwrap_or("")
            .trim_end_matches('/');
        Self {
            path: format!("{base}/{segment}"),
            ..self.clone()
        }
    }

    /// Whether the scheme is `https`.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host: a name or an address, IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, also where the text left it out.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, starting with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `host:port`, IPv6 in brackets: what a connection and a certificate pin belong to.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether both are at one scheme, host and port.
    #[must_use]
    pub fn is_same_origin(&self, other: &Self) -> bool {
        (self.secure, self.port) == (other.secure, other.port) && self.host == other.host
    }

    /// `scheme://host:port`.
    #[must_use]
    pub fn origin(&self) -> String {
        format!(
            "{}://{}",
            if self.secure { "https" } else { "http" },
            self.authority()
        )
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path == "/" { "" } else { &self.path };
        write!(f, "{}{path}", self.origin())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        Self::parse(text)
    }
}

/// The text is not a URL that this protocol can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a usable URL: {why}")]
pub struct BadUrl {
    why: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn urls_are_normalised() {
        for (text, shown) in [
            ("HTTPS://Example.com", "https://example.com:443"),
            ("http://h/a?b#c", "http://h:80/a?b"),
            ("http://h?b", "http://h:80/?b"),
            ("https://[::1]:8935/x", "https://[::1]:8935/x"),
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_with_a_reason() {
        for text in [
            "",
            "h:1",
            "ftp://h",
            "http://",
            "http://h:0",
            "http://h:70000",
            "http://h:",
            "http://a b",
            "http://u@h",
            "http://[::1",
            "http://[zz]:1",
            "http://h:1x",
            "http://h:+1",
            // Other forms of 127.0.0.1, and a zone.
            "http://2130706433",
            "http://0x7f000001",
            "http://0177.0.0.1",
            "http://127.1",
            "http://0x7f.1",
            "http://127.0.0.1.",
            "http://[fe80::1%eth0]",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn peers_urls_resolve_with_exactly_one_slash() {
        let base = Url::parse("https://orch:8935/").unwrap();
        for text in [
            "ai/trickle/x",
            "/ai/trickle/x",
            "https://orch:8935/ai/trickle/x",
        ] {
            assert_eq!(
                base.resolve(text).unwrap().to_string(),
                "https://orch:8935/ai/trickle/x"
            );
        }
        assert_eq!(
            Url::parse("http://h/c/").unwrap().child("-1").path(),
            "/c/-1"
        );
    }
}
