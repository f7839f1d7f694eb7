//! A connection to an RTMP server as a machine sees it that keeps one up: what it is told and what it asks for.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Forbidden, Url};
use livepeer_core::rng::{Rng, Seed};
use livepeer_core::wire::entry::{Place, rtmp_server};
use livepeer_core::{Machine, Time};

/// A stream at a server: `rtmp://host[:port]/app/name`, or `rtmps`.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// The server, as far as connecting is concerned: `https` where TLS is spoken.
    pub server: Url,
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

/// An address of a caller's that is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misnamed {
    /// The text is not the address of an RTMP server.
    #[error(transparent)]
    Bad(#[from] BadTarget),
    /// The address is not for whoever named it.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
}

impl Target {
    /// Reads an address.
    ///
    /// # Errors
    /// If it is not one of RTMP, or names no host or application.
    pub fn parse(text: &str) -> Result<Self, BadTarget> {
        let server = rtmp_server(text).ok_or(BadTarget)?;
        let (_, rest) = text.split_once("://").ok_or(BadTarget)?;
        let (_, path) = rest.split_once('/').ok_or(BadTarget)?;
        let (app, name) = path.split_once('/').unwrap_or((path, ""));
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if app.is_empty() || !printable {
            return Err(BadTarget);
        }
        Ok(Self {
            server,
            app: app.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Reads an address that may lead where somebody may lead who named it.
    ///
    /// # Errors
    /// If it is not one, or leads elsewhere as far as its text shows: whoever connects looks again.
    pub fn named(place: &Place) -> Result<Self, Misnamed> {
        let target = Self::parse(&place.address)?;
        let server = target.server.within(place.reach)?;
        Ok(Self { server, ..target })
    }

    /// The address without the stream's name.
    #[must_use]
    pub fn application(&self) -> String {
        let (scheme, usual) = match self.server.is_secure() {
            true => ("rtmps", ":443"),
            false => ("rtmp", ":1935"),
        };
        let server = self.server.authority();
        let server = server.strip_suffix(usual).unwrap_or(&server);
        format!("{scheme}://{server}/{}", self.app)
    }
}

/// Names a connection. What is told of one that is not the latest is ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(u64);

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
    /// Close the connection once all is sent, or when that takes too long.
    Finish(Attempt),
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

/// The part that all such machines have in common: the latest connection, and what is to be done and told.
#[derive(Debug)]
pub(super) struct Attempts<E> {
    pub(super) now: Time,
    pub(super) target: Target,
    pub(super) chance: Rng,
    latest: Attempt,
    out: VecDeque<Output<E>>,
}

impl<E> Attempts<E> {
    pub(super) fn new(now: Time, target: Target, seed: Seed) -> Self {
        Self {
            now,
            target,
            chance: Rng::new(seed),
            latest: Attempt::default(),
            out: VecDeque::new(),
        }
    }

    pub(super) fn pass(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// Makes a connection.
    pub(super) fn connect(&mut self) {
        self.latest = Attempt(self.latest.0 + 1);
        self.out.push_back(Output::Connect(self.latest));
    }

    pub(super) fn write(&mut self, bytes: Vec<u8>) {
        self.out.push_back(Output::Write(self.latest, bytes.into()));
    }

    pub(super) fn finish(&mut self) {
        self.out.push_back(Output::Finish(self.latest));
    }

    pub(super) fn close(&mut self) {
        self.out.push_back(Output::Close(self.latest));
    }

    pub(super) fn tell(&mut self, news: E) {
        self.out.push_back(Output::Event(news));
    }

    /// When a pause is over: up to a quarter longer, each time another share of it, so that a server that restarts is not
    /// asked by all of us at once.
    pub(super) fn after(&mut self, pause: Duration) -> Time {
        let share = u32::try_from(self.chance.below(256)).unwrap_or(0);
        self.now + pause + pause * share / 1024
    }

    /// The next thing to do or know; `wake` is when time alone changes something.
    pub(super) fn next(&mut self, wake: Option<Time>) -> Output<E> {
        self.out.pop_front().unwrap_or(Output::Idle(wake))
    }
}

/// The steps that a machine takes about its latest connection.
pub(super) trait Connection {
    type News;

    fn attempts(&mut self) -> &mut Attempts<Self::News>;

    fn connected(&mut self);

    fn data(&mut self, bytes: &[u8]);

    fn sent(&mut self, _count: usize) {}

    fn closed(&mut self, why: String);

    /// Does what is due.
    fn expire(&mut self);
}

/// Tells a machine of something that is outside, if it is about its latest connection.
pub(super) fn hear(machine: &mut impl Connection, now: Time, input: Input) {
    let attempts = machine.attempts();
    attempts.pass(now);
    let latest = attempts.latest;
    match input {
        Input::Connected(attempt) if attempt == latest => machine.connected(),
        Input::Data(attempt, bytes) if attempt == latest => machine.data(&bytes),
        Input::Sent(attempt, count) if attempt == latest => machine.sent(count),
        Input::Closed(attempt, why) if attempt == latest => machine.closed(why),
        _ => {}
    }
    machine.expire();
}
