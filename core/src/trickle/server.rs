//! The server: routes what peers ask to channels, and lets the embedder publish and read without HTTP.
//!
//! ```text
//!   create (POST, first POST to a seq, embedder) ──▶ listed ──▶ DELETE, sweep, embedder ──▶ draining ──▶ gone
//!                  │ Gate::Ask: waits for answer()    │                                     (readers of what
//!                  └──▶ refused (403, 404, hook, 503) └─ first bytes keep it from the sweep  was published)
//! ```
//!
//! Peers' exchanges come as [`http::In`](crate::http::In) under ids that the driver mints with
//! [`EffectId::by_peer`]. A reply may leave before the request's body is complete; the driver then ends the
//! connection. An answer may also follow [`http::In::Failed`](crate::http::In::Failed): a body that broke off is
//! told so with a 500, if the socket still takes it (trickle spec 5.4-5); otherwise the driver drops it.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::channel::{Asked, Channel, Desk, Seat, text};
use super::slab::Slab;
use super::{ContentType, Ending, Seq, Start, headers};
use crate::error::Misuse;
use crate::http::{Body, Headers, In, Method, Out, Request, Response};
use crate::machine::{EffectId, Input, Machine, Outbox, Output, earlier};
use crate::time::Time;

/// The channel of changes in channels (trickle spec 5.10).
pub const CHANGES: &str = "_changes";

/// Body bytes held for one request while the embedder decides on it.
pub const MAX_EARLY_BYTES: usize = 256 << 10;

/// How long the embedder may take for an answer to [`Event::Asked`].
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How a server behaves. The defaults are production's (trickle spec 9), with bounds of ours (D21).
#[derive(Clone, Debug)]
pub struct Config {
    /// The absolute path in front of channel names; begins and ends with `/`.
    pub base: String,
    /// Whether peers may create channels.
    pub autocreate: bool,
    /// Whether `_changes` exists.
    pub changefeed: bool,
    /// A channel without a new byte for this long is removed by the next sweep.
    pub idle: Duration,
    /// The time between sweeps; at least a millisecond.
    pub sweep: Duration,
    /// How long a segment whose publisher broke off waits for somebody to continue it (D6).
    pub orphan_grace: Duration,
    /// The same, once a later segment has begun.
    pub overtaken_grace: Duration,
    /// Whether HTTP writes to names starting with `_` are refused (D20).
    pub protect_reserved: bool,
    /// Bytes handed to the driver for one reader and not yet to its transport; a reader behind that waits.
    pub reader_window: usize,
    /// The longest segment; a longer one is answered 413 and closed.
    pub max_segment_bytes: usize,
    /// Channels at a time; more are answered 503.
    pub max_channels: usize,
    /// Readers and writers of one channel at a time; more are answered 503.
    pub max_channel_guests: usize,
    /// Unanswered and running exchanges of all channels; more are answered 503.
    pub max_exchanges: usize,
    /// Who decides whether a peer may create a channel; also asked for segment POSTs that autocreate (D23).
    pub on_create: Gate,
    /// Who decides whether a peer may delete a channel.
    pub on_delete: Gate,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base: "/ai/trickle/".to_string(),
            autocreate: false,
            changefeed: false,
            idle: Duration::from_secs(300),
            sweep: Duration::from_secs(60),
            orphan_grace: Duration::from_secs(2),
            overtaken_grace: Duration::from_secs(1),
            protect_reserved: true,
            reader_window: 512 << 10,
            max_segment_bytes: 256 << 20,
            max_channels: 10_000,
            max_channel_guests: 10_000,
            max_exchanges: 50_000,
            on_create: Gate::Open,
            on_delete: Gate::Open,
        }
    }
}

/// Who decides on a peer's wish to create or delete a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Everybody may.
    #[default]
    Open,
    /// Nobody may, for this reason.
    Refuse(Refusal),
    /// The embedder: [`Event::Asked`], then [`Server::answer`].
    Ask,
}

/// Why a wish is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 400 to 499; 500 says that deciding failed; anything else becomes 400 (trickle spec 4).
    pub status: u16,
    /// For people.
    pub text: String,
}

/// What a peer wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wish {
    /// A new channel.
    Create,
    /// A channel's end.
    Delete,
}

/// Names a local reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReaderId(u64);

/// What a server tells its embedder.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A channel was made, by whomever.
    Created(Arc<str>),
    /// A channel is gone.
    Removed(Arc<str>, Removal),
    /// [`Server::read`] has something for a reader that it told [`Read::Pending`] before.
    Readable(ReaderId),
    /// [`Gate::Ask`]: decide with [`Server::answer`] within [`ANSWER_WITHIN`].
    Asked {
        /// Names the question.
        id: EffectId,
        /// What the peer wants.
        wish: Wish,
        /// The channel's name.
        name: Arc<str>,
        /// The request's header fields, for credentials.
        headers: Headers,
    },
    /// After [`Server::close`], the last event: everybody has been answered.
    Closed(Ending),
}

/// Why a channel is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Removal {
    /// A peer's DELETE.
    ByPeer,
    /// The embedder's [`Server::delete_channel`].
    ByOwner,
    /// Nothing was written for the idle time.
    Idle,
    /// The server was closed.
    Shutdown,
}

/// What [`Server::read`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Read {
    /// A segment begins.
    Begin(Seq, ContentType),
    /// Its next bytes.
    Data(Seq, Bytes),
    /// It is complete, as far as the server can know.
    End(Seq),
    /// These segments, the first and one past the last, were gone before this reader came to them.
    Gap(Seq, Seq),
    /// The publisher began anew; the next seq may be lower.
    Discontinuity,
    /// Nothing yet; [`Event::Readable`] follows.
    Pending,
    /// The channel is over, or the reader is unknown.
    Ended,
}

/// Why an embedder's call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// There is no channel of that name.
    #[error("there is no channel of that name")]
    NoChannel,
    /// There are as many channels as the configuration allows.
    #[error("there are as many channels as allowed")]
    TooManyChannels,
    /// Names are not empty.
    #[error("a channel needs a name")]
    BadName,
    /// The segment was closed by somebody else, or has grown too long; the bytes are dropped.
    #[error("the segment was closed meanwhile")]
    SegmentClosed,
    /// The call does not fit what was called before.
    #[error(transparent)]
    Misuse(#[from] Misuse),
}

/// A channel's figures.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// One past the segment last started.
    pub head: Seq,
    /// When it last received something.
    pub activity: Time,
    /// Bytes received since its creation.
    pub received: u64,
    /// Readers and writers now.
    pub guests: usize,
    /// Its media type.
    pub content: ContentType,
}

#[derive(Debug)]
struct Local {
    channel: u32,
    /// Segment and place.
    seat: Option<(u32, u32)>,
    next: Seq,
    /// The channel's restarts when `next` was set.
    restarts: u32,
}

/// A request that waits for the embedder's verdict.
#[derive(Debug)]
struct Pending {
    wish: Wish,
    name: Arc<str>,
    request: Request,
    index: Option<String>,
    until: Time,
    early: Vec<Bytes>,
    early_len: usize,
    ended: bool,
}

/// A trickle server without sockets. See the [module](self) for what it expects of its driver.
#[derive(Debug)]
pub struct Server {
    now: Time,
    desk: Desk,
    names: BTreeMap<Arc<str>, u32>,
    channels: Slab<Box<Channel>>,
    locals: BTreeMap<ReaderId, Local>,
    locals_minted: u64,
    pending: BTreeMap<EffectId, Pending>,
    next_sweep: Time,
    closing: bool,
    closed: bool,
}

impl Server {
    /// A server without channels, except `_changes` if the configuration wants it.
    #[must_use]
    pub fn new(now: Time, config: Config) -> Self {
        let changefeed = config.changefeed;
        let sweep = config.sweep.max(Duration::from_millis(1));
        let mut server = Self {
            now,
            desk: Desk {
                out: Outbox::default(),
                seats: BTreeMap::new(),
                orphans: alloc::collections::BTreeSet::new(),
                config,
            },
            names: BTreeMap::new(),
            channels: Slab::default(),
            locals: BTreeMap::new(),
            locals_minted: 0,
            pending: BTreeMap::new(),
            next_sweep: now + sweep,
            closing: false,
            closed: false,
        };
        if changefeed {
            server.make(now, CHANGES.into(), ContentType::new(ContentType::JSON));
        }
        server
    }

    // ---- the embedder's side ---------------------------------------------------------------------------------

    /// Makes a channel, whatever the gates say. True if it is new; an existing one keeps its media type.
    ///
    /// # Errors
    /// If the name is empty, there are too many channels, or the server is closed.
    pub fn create_channel(
        &mut self,
        now: Time,
        name: &str,
        content: ContentType,
    ) -> Result<bool, Refused> {
        let now = self.tick(now);
        if self.closing {
            return Err(Misuse::Ended.into());
        }
        if name.is_empty() {
            return Err(Refused::BadName);
        }
        if self.names.contains_key(name) {
            return Ok(false);
        }
        if self.names.len() >= self.desk.config.max_channels {
            return Err(Refused::TooManyChannels);
        }
        self.make(now, name.into(), content);
        Ok(true)
    }

    /// Ends a channel as a peer's DELETE does, without asking a gate. False if there is none of that name.
    pub fn delete_channel(&mut self, now: Time, name: &str) -> bool {
        let now = self.tick(now);
        self.remove(now, name, Removal::ByOwner)
    }

    /// Begins the next segment of a channel; its number is the head. Readers wait until its first byte.
    ///
    /// # Errors
    /// If there is no such channel, or the embedder's last segment there has not ended.
    pub fn begin(&mut self, now: Time, name: &str) -> Result<Seq, Refused> {
        let now = self.tick(now);
        let key = *self.names.get(name).ok_or(Refused::NoChannel)?;
        let channel = self.channels.get_mut(key).ok_or(Refused::NoChannel)?;
        if channel.local.is_some() {
            return Err(Misuse::StillOpen.into());
        }
        let mut seq = channel.head;
        channel.post(now, None, seq, false, &mut self.desk);
        if channel.local.is_none() {
            // Somebody closed the segment at the head before it had a byte (trickle spec 5.7). The head moves past.
            seq = seq.next();
            channel.head = seq;
            channel.post(now, None, seq, false, &mut self.desk);
        }
        match channel.local {
            Some(_) => Ok(seq),
            None => Err(Refused::SegmentClosed),
        }
    }

    /// Adds bytes to the segment that [`Server::begin`] began.
    ///
    /// # Errors
    /// If there is no such channel or nothing begun, or the segment was closed meanwhile.
    pub fn write(&mut self, now: Time, name: &str, bytes: Bytes) -> Result<(), Refused> {
        let now = self.tick(now);
        let key = *self.names.get(name).ok_or(Refused::NoChannel)?;
        let channel = self.channels.get_mut(key).ok_or(Refused::NoChannel)?;
        let (segment, place) = channel.local.ok_or(Misuse::NotOpen)?;
        if channel.data(now, segment, place, bytes, &mut self.desk) {
            Ok(())
        } else {
            Err(Refused::SegmentClosed)
        }
    }

    /// Ends the segment that [`Server::begin`] began.
    ///
    /// # Errors
    /// If there is no such channel or nothing begun.
    pub fn end(&mut self, now: Time, name: &str) -> Result<(), Refused> {
        let now = self.tick(now);
        let key = *self.names.get(name).ok_or(Refused::NoChannel)?;
        let channel = self.channels.get_mut(key).ok_or(Refused::NoChannel)?;
        let (segment, place) = channel.local.ok_or(Misuse::NotOpen)?;
        channel.end(now, segment, place, &mut self.desk);
        Ok(())
    }

    /// A whole segment at once.
    ///
    /// # Errors
    /// As [`Server::begin`] and [`Server::write`].
    pub fn publish(&mut self, now: Time, name: &str, bytes: Bytes) -> Result<Seq, Refused> {
        let seq = self.begin(now, name)?;
        self.write(now, name, bytes)?;
        self.end(now, name)?;
        Ok(seq)
    }

    /// Begins to read a channel in-process; [`Server::read`] then tells what there is.
    ///
    /// # Errors
    /// If there is no such channel.
    pub fn subscribe(&mut self, now: Time, name: &str, start: Start) -> Result<ReaderId, Refused> {
        self.tick(now);
        let key = *self.names.get(name).ok_or(Refused::NoChannel)?;
        let channel = self.channels.get(key).ok_or(Refused::NoChannel)?;
        let next = match start {
            Start::Next => channel.head,
            Start::Current => channel.head.minus(1),
            Start::At(seq) => seq,
        };
        let id = ReaderId(self.locals_minted);
        self.locals_minted += 1;
        self.locals.insert(
            id,
            Local {
                channel: key,
                seat: None,
                next,
                restarts: channel.restarts,
            },
        );
        Ok(id)
    }

    /// The next that a local reader has not seen. Nothing is buffered for it: what it has not read is in the
    /// channel's window, and what has left the window is a [`Read::Gap`].
    pub fn read(&mut self, now: Time, id: ReaderId) -> Read {
        let now = self.tick(now);
        let Some(local) = self.locals.get_mut(&id) else {
            return Read::Ended;
        };
        let Some(channel) = self.channels.get_mut(local.channel) else {
            self.locals.remove(&id);
            return Read::Ended;
        };
        let read = local.read(now, id, channel, &mut self.desk);
        if matches!(read, Read::Ended) {
            self.unsubscribe(id);
        }
        read
    }

    /// Ends a local reader.
    pub fn unsubscribe(&mut self, id: ReaderId) {
        if let Some(local) = self.locals.remove(&id) {
            if let Some((segment, place)) = local.seat
                && let Some(channel) = self.channels.get_mut(local.channel)
            {
                channel.leave_reading(segment, place);
            }
            self.bury(local.channel);
        }
    }

    /// Answers [`Event::Asked`]. Unknown and late answers are ignored.
    pub fn answer(&mut self, now: Time, id: EffectId, verdict: Result<(), Refusal>) {
        let now = self.tick(now);
        let Some(pending) = self.pending.remove(&id) else {
            return;
        };
        match verdict {
            Err(refusal) => self.reply(id, refuse(&refusal)),
            Ok(()) => self.granted(now, id, pending),
        }
    }

    /// Ends every channel and refuses new requests; [`Event::Closed`] follows when all exchanges are over.
    pub fn close(&mut self, now: Time) {
        let now = self.tick(now);
        if self.closing {
            return;
        }
        self.closing = true;
        // No feed of it: its channel ends as well (trickle spec 5.10).
        self.desk.config.changefeed = false;
        let names: Vec<Arc<str>> = self.names.keys().cloned().collect();
        for name in names {
            self.remove(now, &name, Removal::Shutdown);
        }
        let waiting: Vec<EffectId> = self.pending.keys().copied().collect();
        for id in waiting {
            self.pending.remove(&id);
            self.reply(id, unavailable());
        }
        self.settle();
    }

    /// A channel's figures.
    #[must_use]
    pub fn stats(&self, name: &str) -> Option<Stats> {
        let channel = self.channels.get(*self.names.get(name)?)?;
        Some(Stats {
            head: channel.head,
            activity: channel.activity,
            received: channel.received,
            guests: channel.guests(),
            content: channel.content.clone(),
        })
    }

    /// The names of all channels, in order.
    pub fn channels(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|name| &**name)
    }

    // ---- the peers' side -------------------------------------------------------------------------------------

    fn request(&mut self, now: Time, id: EffectId, request: Request) {
        if self.closing {
            return self.reply(id, unavailable());
        }
        let path = request.url.path();
        let path = path.split('?').next().unwrap_or("");
        if let Some(clean) = cleaned(path) {
            let reply = Response::new(307).header(headers::LOCATION, clean);
            return self.reply(id, reply);
        }
        let Some(rest) = path.strip_prefix(&*self.desk.config.base) else {
            return self.reply(id, not_found());
        };
        let mut parts = rest.split('/');
        let name = parts.next().unwrap_or("");
        let index = parts.next();
        if name.is_empty() || index == Some("") || parts.next().is_some() {
            return self.reply(id, not_found());
        }
        let (Some(name), Some(index)) = (
            decoded(name),
            index.map_or(Some(None), |i| decoded(i).map(Some)),
        ) else {
            return self.reply(id, text(400, "Invalid path\n"));
        };
        let name: Arc<str> = name.into();
        let reads = matches!(request.method, Method::Get | Method::Head);
        let writes = matches!(request.method, Method::Post | Method::Delete);
        if !writes && (!reads || index.is_none()) {
            return self.reply(id, text(405, "Method Not Allowed\n"));
        }
        if writes && name.starts_with('_') && self.desk.config.protect_reserved {
            return self.reply(id, text(403, "Reserved name\n"));
        }
        if self.desk.seats.len() + self.pending.len() >= self.desk.config.max_exchanges {
            return self.reply(id, unavailable());
        }
        match (request.method, index) {
            (Method::Post, None) => self.create(now, id, name, request),
            (_, None) => self.delete(now, id, name, request),
            (Method::Post, Some(index)) => self.post(now, id, name, index, request),
            (Method::Delete, Some(index)) => self.delete_segment(now, id, &name, &index),
            (method, Some(index)) => self.get(now, id, &name, &index, method == Method::Head),
        }
    }

    fn create(&mut self, now: Time, id: EffectId, name: Arc<str>, request: Request) {
        // The gate comes before the question whether it exists (trickle spec 5.1).
        match self.gate(now, id, Wish::Create, &name, &request, None) {
            Some(Ok(())) => self.create_granted(now, id, name, &request),
            Some(Err(refusal)) => self.reply(id, refuse(&refusal)),
            None => {}
        }
    }

    fn create_granted(&mut self, now: Time, id: EffectId, name: Arc<str>, request: &Request) {
        if self.names.contains_key(&name) {
            return self.reply(id, Response::new(200));
        }
        if !self.desk.config.autocreate {
            return self.reply(id, no_stream());
        }
        if self.names.len() >= self.desk.config.max_channels {
            return self.reply(id, unavailable());
        }
        let content = request.headers.get(headers::EXPECT_CONTENT).unwrap_or("");
        self.make(now, name, ContentType::new(content));
        self.reply(id, Response::new(200));
    }

    fn delete(&mut self, now: Time, id: EffectId, name: Arc<str>, request: Request) {
        match self.gate(now, id, Wish::Delete, &name, &request, None) {
            Some(Ok(())) => self.delete_granted(now, id, &name),
            Some(Err(refusal)) => self.reply(id, refuse(&refusal)),
            None => {}
        }
    }

    fn delete_granted(&mut self, now: Time, id: EffectId, name: &str) {
        if self.remove(now, name, Removal::ByPeer) {
            self.reply(id, Response::new(200));
        } else {
            self.reply(id, text(400, "Invalid stream\n"));
        }
    }

    fn post(&mut self, now: Time, id: EffectId, name: Arc<str>, index: String, request: Request) {
        if !self.names.contains_key(&name) {
            if !self.desk.config.autocreate {
                let reply = no_stream().header(headers::CONNECTION, "close");
                return self.reply(id, reply);
            }
            match self.gate(now, id, Wish::Create, &name, &request, Some(&index)) {
                Some(Ok(())) => {}
                Some(Err(refusal)) => {
                    let reply = refuse(&refusal).header(headers::CONNECTION, "close");
                    return self.reply(id, reply);
                }
                None => return,
            }
        }
        self.post_granted(now, id, name, &index, &request);
    }

    fn post_granted(
        &mut self,
        now: Time,
        id: EffectId,
        name: Arc<str>,
        index: &str,
        request: &Request,
    ) {
        let index = match headers::index(index) {
            Some(index) if index >= -1 => index,
            _ => return self.reply(id, bad_index()),
        };
        let key = match self.names.get(&name) {
            Some(key) => *key,
            None => {
                if self.names.len() >= self.desk.config.max_channels {
                    let reply = unavailable().header(headers::CONNECTION, "close");
                    return self.reply(id, reply);
                }
                let content = request.headers.get(headers::CONTENT_TYPE).unwrap_or("");
                self.make(now, name, ContentType::new(content))
            }
        };
        let Some(channel) = self.channels.get_mut(key) else {
            return;
        };
        if channel.guests() >= self.desk.config.max_channel_guests {
            return self.reply(id, unavailable());
        }
        let seq = u64::try_from(index).map_or(channel.head, Seq::new);
        let reset = headers::reset(&request.headers);
        channel.post(now, Some(id), seq, reset, &mut self.desk);
    }

    fn get(&mut self, now: Time, id: EffectId, name: &str, index: &str, head_only: bool) {
        let Some(channel) = self
            .names
            .get(name)
            .and_then(|key| self.channels.get_mut(*key))
        else {
            return self.reply(id, no_stream());
        };
        if index == "next" {
            let head = channel.head.to_string();
            let reply = Response::new(200)
                .header(headers::LATEST, head.clone())
                .header(headers::CONTENT_TYPE, "text/plain; charset=utf-8")
                .body(Body::Full(head.into()));
            return self.reply(id, reply);
        }
        let index = match headers::index(index) {
            Some(index) if index >= -2 => index,
            // The Go server reads multiples of five below as missing segments; everything else breaks it (D2).
            _ => return self.reply(id, bad_index()),
        };
        if channel.guests() >= self.desk.config.max_channel_guests {
            return self.reply(id, unavailable());
        }
        channel.get(now, id, index, head_only, &mut self.desk);
    }

    fn delete_segment(&mut self, now: Time, id: EffectId, name: &str, index: &str) {
        let Some(channel) = self
            .names
            .get(name)
            .and_then(|key| self.channels.get_mut(*key))
        else {
            return self.reply(id, no_stream());
        };
        let reply = match headers::index(index).map(u64::try_from) {
            Some(Ok(index)) => {
                if channel.delete(now, Seq::new(index), &mut self.desk) {
                    Response::new(200)
                } else {
                    text(400, "Nonexistent segment\n")
                }
            }
            _ => bad_index(),
        };
        self.reply(id, reply);
    }

    // ---- the inside ------------------------------------------------------------------------------------------

    fn gate(
        &mut self,
        now: Time,
        id: EffectId,
        wish: Wish,
        name: &Arc<str>,
        request: &Request,
        index: Option<&String>,
    ) -> Option<Result<(), Refusal>> {
        let gate = match wish {
            Wish::Create => &self.desk.config.on_create,
            Wish::Delete => &self.desk.config.on_delete,
        };
        match gate {
            Gate::Open => Some(Ok(())),
            Gate::Refuse(refusal) => Some(Err(refusal.clone())),
            Gate::Ask => {
                self.desk.out.event(Event::Asked {
                    id,
                    wish,
                    name: name.clone(),
                    headers: request.headers.clone(),
                });
                self.desk.out.http(id, Out::Pause);
                self.pending.insert(
                    id,
                    Pending {
                        wish,
                        name: name.clone(),
                        request: request.clone(),
                        index: index.cloned(),
                        until: now + ANSWER_WITHIN,
                        early: Vec::new(),
                        early_len: 0,
                        ended: false,
                    },
                );
                None
            }
        }
    }

    fn granted(&mut self, now: Time, id: EffectId, pending: Pending) {
        self.desk.out.http(id, Out::Resume);
        match (pending.wish, pending.index) {
            (Wish::Delete, _) => self.delete_granted(now, id, &pending.name),
            (Wish::Create, None) => self.create_granted(now, id, pending.name, &pending.request),
            (Wish::Create, Some(index)) => {
                self.post_granted(now, id, pending.name, &index, &pending.request);
                for bytes in pending.early {
                    self.body(now, id, bytes);
                }
                if pending.ended {
                    self.body_end(now, id);
                }
            }
        }
    }

    fn body(&mut self, now: Time, id: EffectId, bytes: Bytes) {
        if let Some(Seat {
            channel,
            segment,
            place,
            writes: true,
        }) = self.desk.seats.get(&id).copied()
        {
            if let Some(held) = self.channels.get_mut(channel) {
                held.data(now, segment, place, bytes, &mut self.desk);
                if held.closed {
                    self.bury(channel);
                }
            }
        } else if let Some(pending) = self.pending.get_mut(&id) {
            pending.early_len = pending.early_len.saturating_add(bytes.len());
            if pending.early_len > MAX_EARLY_BYTES {
                // The driver was asked to pause; a peer that gets this far through it is not worth waiting for.
                self.pending.remove(&id);
                self.reply(id, unavailable());
            } else {
                pending.early.push(bytes);
            }
        }
    }

    fn body_end(&mut self, now: Time, id: EffectId) {
        if let Some(Seat {
            channel,
            segment,
            place,
            writes: true,
        }) = self.desk.seats.get(&id).copied()
        {
            if let Some(held) = self.channels.get_mut(channel) {
                held.end(now, segment, place, &mut self.desk);
            }
            self.bury(channel);
        } else if let Some(pending) = self.pending.get_mut(&id) {
            pending.ended = true;
        }
    }

    fn sent(&mut self, id: EffectId, count: usize) {
        let Some(seat) = self.desk.seats.get(&id).copied() else {
            return;
        };
        if seat.writes {
            return;
        }
        if let Some(held) = self.channels.get_mut(seat.channel) {
            held.sent(seat.segment, seat.place, count, &mut self.desk);
            if held.closed {
                self.bury(seat.channel);
            }
        }
    }

    fn failed(&mut self, now: Time, id: EffectId) {
        self.pending.remove(&id);
        let Some(seat) = self.desk.seats.remove(&id) else {
            return;
        };
        if let Some(held) = self.channels.get_mut(seat.channel) {
            if seat.writes {
                held.broken(now, seat.segment, seat.place, &mut self.desk);
            } else {
                held.leave_reading(seat.segment, seat.place);
            }
        }
        self.bury(seat.channel);
    }

    fn make(&mut self, now: Time, name: Arc<str>, content: ContentType) -> u32 {
        // The key has to be known inside, and the slab alone knows it.
        let key = self.channels.insert(Box::new(Channel::new(
            now,
            0,
            name.clone(),
            ContentType::default(),
        )));
        if let Some(place) = self.channels.get_mut(key) {
            **place = Channel::new(now, key, name.clone(), content);
        }
        self.names.insert(name.clone(), key);
        self.feed(now, "added", &name);
        self.desk.out.event(Event::Created(name));
        key
    }

    fn remove(&mut self, now: Time, name: &str, why: Removal) -> bool {
        let Some((name, key)) = self.names.remove_entry(name) else {
            return false;
        };
        if let Some(channel) = self.channels.get_mut(key) {
            channel.close(now, &mut self.desk);
        }
        self.bury(key);
        self.feed(now, "removed", &name);
        self.desk.out.event(Event::Removed(name, why));
        true
    }

    /// One segment per change (trickle spec 5.10).
    fn feed(&mut self, now: Time, what: &str, name: &str) {
        if !self.desk.config.changefeed {
            return;
        }
        let Some(channel) = self
            .names
            .get(CHANGES)
            .and_then(|key| self.channels.get_mut(*key))
        else {
            return;
        };
        let line = format!("{{\"{what}\":[{}]}}", quoted(name));
        let seq = channel.head;
        channel.post(now, None, seq, false, &mut self.desk);
        if let Some((segment, place)) = channel.local {
            channel.data(now, segment, place, line.into(), &mut self.desk);
            channel.end(now, segment, place, &mut self.desk);
        }
    }

    /// Forgets a channel that is over and has no guests.
    fn bury(&mut self, key: u32) {
        if self.channels.get(key).is_some_and(|held| held.is_spent())
            && !self.locals.values().any(|local| local.channel == key)
        {
            self.channels.remove(key);
        }
        if self.closing {
            self.settle();
        }
    }

    fn settle(&mut self) {
        if self.closing && !self.closed && self.desk.seats.is_empty() {
            self.closed = true;
            self.desk.out.event(Event::Closed(Ending::Closed));
        }
    }

    fn reply(&mut self, id: EffectId, reply: Response) {
        self.desk.out.http(id, Out::Reply(reply));
    }

    /// Takes time forward and does what is due.
    fn tick(&mut self, now: Time) -> Time {
        self.now = self.now.max(now);
        let now = self.now;
        while let Some((due, channel, segment)) = self.desk.orphans.first().copied() {
            if due > now {
                break;
            }
            self.desk.orphans.pop_first();
            if let Some(held) = self.channels.get_mut(channel) {
                held.orphan_due(now, segment, &mut self.desk);
            }
        }
        if self.next_sweep <= now {
            self.next_sweep = now + self.desk.config.sweep.max(Duration::from_millis(1));
            let idle = self.desk.config.idle;
            let silent: Vec<Arc<str>> = self
                .channels
                .iter()
                .map(|(_, channel)| channel)
                .filter(|channel| {
                    !channel.closed
                        && !channel.name.starts_with('_')
                        && now.since(channel.activity) > idle
                })
                .map(|channel| channel.name.clone())
                .collect();
            for name in silent {
                self.remove(now, &name, Removal::Idle);
            }
        }
        if !self.pending.is_empty() {
            let late: Vec<EffectId> = self
                .pending
                .iter()
                .filter(|(_, pending)| pending.until <= now)
                .map(|(id, _)| *id)
                .collect();
            for id in late {
                self.pending.remove(&id);
                self.reply(id, text(500, "Server error\n"));
            }
        }
        now
    }
}

impl Machine for Server {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        let now = self.tick(now);
        let Input::Http(id, step) = input else {
            return;
        };
        if !id.is_by_peer() {
            return;
        }
        match step {
            In::Data(bytes) => self.body(now, id, bytes),
            In::Sent(count) => self.sent(id, count),
            In::End(_) => self.body_end(now, id),
            In::Request(request) => self.request(now, id, request),
            In::Failed(_) => self.failed(now, id),
            In::Reply(_) => {}
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        if let Some(output) = self.desk.out.pop() {
            return output;
        }
        if self.closed {
            return Output::Idle(None);
        }
        let sweep = (!self.names.is_empty()).then_some(self.next_sweep);
        let orphan = self.desk.orphans.first().map(|(due, _, _)| *due);
        let pending = self.pending.values().map(|pending| pending.until).min();
        let wake = earlier(earlier(sweep, orphan), pending);
        // Whatever the configuration's durations are, a driver must not spin.
        Output::Idle(wake.map(|at| at.max(self.now + Duration::from_nanos(1))))
    }
}

impl Local {
    fn read(&mut self, now: Time, id: ReaderId, channel: &mut Channel, desk: &mut Desk) -> Read {
        if let Some((segment, place)) = self.seat {
            let read = channel.read(segment, place);
            match read {
                Read::End(seq) => {
                    channel.leave_reading(segment, place);
                    self.seat = None;
                    self.next = seq.next();
                    return read;
                }
                Read::Pending if channel.restarts != self.restarts => {
                    // Parked where the publisher of before would have written next?
                    let Some((seq, true)) = channel.peek(segment) else {
                        return read;
                    };
                    if seq <= channel.head {
                        return read;
                    }
                    channel.leave_reading(segment, place);
                    self.seat = None;
                }
                _ => return read,
            }
        }
        if channel.closed {
            return Read::Ended;
        }
        match channel.look_up(now, self.next, desk) {
            Asked::Held(segment) => {
                self.seat = channel.sit(segment, id).map(|place| (segment, place));
                self.restarts = channel.restarts;
                match self.seat {
                    Some((segment, place)) => channel.read(segment, place),
                    None => Read::Pending,
                }
            }
            Asked::Missing if channel.head > self.next => {
                let from = core::mem::replace(&mut self.next, channel.head);
                Read::Gap(from, channel.head)
            }
            Asked::Missing if channel.restarts != self.restarts => {
                self.restarts = channel.restarts;
                self.next = channel.head.minus(1);
                Read::Discontinuity
            }
            Asked::Missing => {
                channel.wait_for_head(id);
                Read::Pending
            }
        }
    }
}

fn not_found() -> Response {
    text(404, "404 page not found\n")
}

fn no_stream() -> Response {
    text(404, "Stream not found\n")
}

fn bad_index() -> Response {
    text(400, "Invalid idx\n")
}

fn unavailable() -> Response {
    text(503, "Too much at a time\n").header(headers::CONNECTION, "close")
}

fn refuse(refusal: &Refusal) -> Response {
    let status = match refusal.status {
        status @ 400..=500 => status,
        _ => 400,
    };
    Response::new(status)
        .header(headers::CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Body::Full(format!("{}\n", refusal.text).into()))
}

/// The path without doubled slashes and dot segments, if it has any (trickle spec 2).
fn cleaned(path: &str) -> Option<String> {
    let dirty = path.contains("//") || path.split('/').any(|part| part == "." || part == "..");
    if !dirty {
        return None;
    }
    let mut clean: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    let mut text = String::from("/");
    text.push_str(&clean.join("/"));
    if path.ends_with('/') && text.len() > 1 {
        text.push('/');
    }
    Some(text)
}

/// Percent-decodes one path segment, once.
fn decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_string());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        let digits = core::str::from_utf8(digits).ok()?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
