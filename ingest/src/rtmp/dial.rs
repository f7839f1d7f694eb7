//! A connection to an RTMP server as a machine sees it that keeps one up: what it is told and what it asks for.

use std::fmt;

use bytes::Bytes;
use livepeer_core::{Machine, Time};

/// A stream at a server: `rtmp://host[:port]/app/name`, or `rtmps`.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Whether TLS is spoken.
    pub secure: bool,
    /// The host: a name, or an address, that of IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The application, the first part of the path.
    pub app: String,
    /// The rest of the path with the query: the stream's name, which is a secret at most services.
    pub name: String,
}

/// The name is a secret.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/<hidden>", self.application())
    }
}

/// A text that is not the address of an RTMP server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address such as rtmp://host/app/name")]
pub struct BadTarget;

impl Target {
    /// Reads an address.
    ///
    /// # Errors
    /// If it is not one of RTMP, or names no host or application.
    pub fn parse(text: &str) -> Result<Self, BadTarget> {
        let (scheme, rest) = text.split_once("://").ok_or(BadTarget)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "rtmp" => false,
            "rtmps" => true,
            _ => return Err(BadTarget),
        };
        let (authority, path) = rest.split_once('/').ok_or(BadTarget)?;
        let (host, port) = match authority.strip_prefix('[') {
            Some(six) => six.split_once(']').ok_or(BadTarget)?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| BadTarget)?,
            None if !port.is_empty() => return Err(BadTarget),
            None if secure => 443,
            None => 1935,
        };
        let (app, name) = path.split_once('/').unwrap_or((path, ""));
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || host.contains('@') || app.is_empty() || port == 0 || !printable {
            return Err(BadTarget);
        }
        Ok(Self {
            secure,
            host: host.to_owned(),
            port,
            app: app.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The address without the stream's name.
    #[must_use]
    pub fn application(&self) -> String {
        let scheme = if self.secure { "rtmps" } else { "rtmp" };
        let (open, close) = if self.host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        let port = match (self.secure, self.port) {
            (false, 1935) | (true, 443) => String::new(),
            (_, port) => format!(":{port}"),
        };
        format!("{scheme}://{open}{}{close}{port}/{}", self.host, self.app)
    }
}

/// Names a connection. What is told of one that is not the latest is ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(u64);

impl Attempt {
    /// The next one.
    #[must_use]
    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A fact from outside.
#[derive(Clone, Debug)]
pub enum Input {
    /// Nothing but time has passed.
    Tick,
    /// The connection is made.
    Connected(Attempt),
    /// Bytes came.
    Data(Attempt, Bytes),
    /// The operating system took so many of the bytes that were to be written.
    Sent(Attempt, usize),
    /// The connection is over, or could not be made; why.
    Closed(Attempt, String),
}

/// An output of such a machine, with its news.
#[derive(Debug)]
pub enum Output<E> {
    /// Connect to the target. Answered by [`Input::Connected`] or [`Input::Closed`].
    Connect(Attempt),
    /// Send these bytes.
    Write(Attempt, Bytes),
    /// Close the connection, or give up making it, with all that is unsent.
    Close(Attempt),
    /// Know this.
    Event(E),
    /// Drained. Send [`Input::Tick`] at that time, if no other input comes before it; `None` waits for input only.
    Idle(Option<Time>),
}

/// A machine that keeps a connection to an RTMP server up.
pub trait Dial: Machine<Event = Output<<Self as Dial>::News>> {
    /// The news for its owner.
    type News;

    /// The server, and the stream there.
    fn target(&self) -> &Target;

    /// Takes in one fact.
    fn hear(&mut self, now: Time, input: Input);

    /// Ends it for good.
    fn stop(&mut self, now: Time);
}
