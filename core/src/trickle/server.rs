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

mod channel;
mod figures;
mod local;
mod peers;
mod slab;
mod types;

pub use types::{
    ANSWER_WITHIN, CHANGES, Config, Event, Gate, MAX_EARLY_BYTES, MAX_PENDING_BYTES, Read,
    ReaderId, Refusal, Refused, Removal, Stats, Wish,
};

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use self::channel::{Blocks, Channel, ChannelKey, Outside, Place, Seat, Shared, text};
use self::figures::Figures;
use self::local::Local;
use self::peers::{refuse, unavailable};
use self::slab::Slab;
use super::{ContentType, Ending, Seq, Start};
use crate::error::Misuse;
use crate::http::{In, Out, Request, Response};
use crate::intake::{Held, Intake};
use crate::machine::{EffectId, Input, Machine, Outbox, Output, earlier};
use crate::time::Time;
use crate::wire::channel_change;

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
    held: Held,
}

/// A trickle server without sockets. See the [module](self) for what it expects of its driver.
#[derive(Debug)]
pub struct Server {
    now: Time,
    shared: Shared,
    names: BTreeMap<Arc<str>, ChannelKey>,
    channels: Slab<Box<Channel>>,
    locals: BTreeMap<ReaderId, Local>,
    locals_minted: u64,
    pending: BTreeMap<EffectId, Pending>,
    intake: Intake,
    next_sweep: Time,
    closing: bool,
    closed: bool,
    figures: Figures,
}

impl Server {
    /// A server without channels, except `_changes` if the configuration wants it.
    #[must_use]
    pub fn new(now: Time, config: Config) -> Self {
        let changefeed = config.changefeed;
        let sweep = config.sweep.max(Duration::from_millis(1));
        let intake = Intake::new(config.max_exchanges, MAX_PENDING_BYTES);
        let mut server = Self {
            now,
            shared: Shared {
                out: Outbox::default(),
                seats: BTreeMap::new(),
                blocks: Blocks::default(),
                orphans: alloc::collections::BTreeSet::new(),
                outside: Outside::default(),
                unseated: Vec::new(),
                config,
            },
            names: BTreeMap::new(),
            channels: Slab::default(),
            locals: BTreeMap::new(),
            locals_minted: 0,
            pending: BTreeMap::new(),
            intake,
            next_sweep: now + sweep,
            closing: false,
            closed: false,
            figures: Figures::default(),
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
        if self.names.len() >= self.shared.config.max_channels {
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
        channel.post(now, None, seq, false, &mut self.shared);
        if channel.local.is_none() {
            // Somebody closed the segment at the head before it had a byte (trickle spec 5.7). The head moves past.
            seq = seq.next();
            channel.head = seq;
            channel.post(now, None, seq, false, &mut self.shared);
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
        if channel.data(now, segment, place, bytes, &mut self.shared) {
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
        channel.end(now, segment, place, &mut self.shared);
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
        let read = local.read(now, id, channel, &mut self.shared);
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
                channel.leave_reading(segment, place, &mut self.shared);
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
            Err(refusal) => {
                self.intake.release(pending.held);
                self.reply(id, refuse(&refusal));
            }
            Ok(()) => self.granted(now, id, pending),
        }
    }

    /// Ends every channel; [`Event::Closed`] follows when all exchanges are over. Requests that come later are refused,
    /// and those of readers hear that their channel is over.
    pub fn close(&mut self, now: Time) {
        let now = self.tick(now);
        if self.closing {
            return;
        }
        // No feed of it: its channel ends as well (trickle spec 5.10).
        self.shared.config.changefeed = false;
        let names: Vec<Arc<str>> = self.names.keys().cloned().collect();
        for name in names {
            self.remove(now, &name, Removal::Shutdown);
        }
        let waiting: Vec<EffectId> = self.pending.keys().copied().collect();
        for id in waiting {
            self.forget_pending(id);
            self.reply(id, unavailable());
        }
        self.closing = true;
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
            waiting: channel.waiting(),
            content: channel.content.clone(),
        })
    }

    /// Bytes of segments that have left their window and are still read.
    #[must_use]
    pub const fn outside_bytes(&self) -> usize {
        self.shared.outside.bytes()
    }

    /// The names of all channels, in order.
    pub fn channels(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|name| &**name)
    }

    // ---- the inside ------------------------------------------------------------------------------------------

    fn make(&mut self, now: Time, name: Arc<str>, content: ContentType) -> ChannelKey {
        let key = self
            .channels
            .insert_with(|key| Box::new(Channel::new(now, key, name.clone(), content)));
        self.names.insert(name.clone(), key);
        self.figures.created();
        self.feed(now, "added", &name);
        self.shared.out.event(Event::Created(name));
        key
    }

    fn remove(&mut self, now: Time, name: &str, why: Removal) -> bool {
        let Some((name, key)) = self.names.remove_entry(name) else {
            return false;
        };
        if let Some(channel) = self.channels.get_mut(key) {
            channel.close(now, &mut self.shared);
            self.figures.removed(why, channel.received);
        }
        self.bury(key);
        self.feed(now, "removed", &name);
        self.shared.out.event(Event::Removed(name, why));
        true
    }

    /// Writes one segment to the changefeed (trickle spec 5.10).
    fn feed(&mut self, now: Time, what: &str, name: &str) {
        if !self.shared.config.changefeed {
            return;
        }
        let Some(channel) = self
            .names
            .get(CHANGES)
            .and_then(|key| self.channels.get_mut(*key))
        else {
            return;
        };
        let line = channel_change(what, name);
        let seq = channel.head;
        channel.post(now, None, seq, false, &mut self.shared);
        if let Some((segment, place)) = channel.local {
            channel.data(now, segment, place, line.into(), &mut self.shared);
            channel.end(now, segment, place, &mut self.shared);
        }
    }

    /// Forgets a channel that is over and has no guests.
    fn bury(&mut self, key: ChannelKey) {
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
        if self.closing && !self.closed && self.shared.seats.is_empty() {
            self.closed = true;
            self.shared.out.event(Event::Closed(Ending::Closed));
        }
    }

    fn reply(&mut self, id: EffectId, reply: Response) {
        self.shared.out.http(id, Out::Reply(reply));
    }

    /// Lets go of readers that hold what has left its window for too long, or where there is no room for it.
    fn let_go(&mut self, now: Time) {
        while let Some((due, channel, segment)) = self.shared.outside.first() {
            let full = self.shared.outside.bytes() > self.shared.config.max_outside_bytes;
            if due > now && !full {
                break;
            }
            if let Some(held) = self.channels.get_mut(channel) {
                held.let_go(now, segment, full, &mut self.shared);
            }
            for (id, seq) in core::mem::take(&mut self.shared.unseated) {
                if let Some(local) = self.locals.get_mut(&id) {
                    local.seat = None;
                    local.next = seq;
                }
                if !self.closed {
                    self.shared.out.event(Event::Readable(id));
                }
            }
            self.bury(channel);
        }
    }

    /// Takes time forward and does what is due.
    fn tick(&mut self, now: Time) -> Time {
        self.now = self.now.max(now);
        let now = self.now;
        while let Some((due, channel, segment)) = self.shared.orphans.first().copied() {
            if due > now {
                break;
            }
            self.shared.orphans.pop_first();
            if let Some(held) = self.channels.get_mut(channel) {
                held.orphan_due(now, segment, &mut self.shared);
            }
        }
        self.let_go(now);
        if self.next_sweep <= now {
            self.next_sweep = now + self.shared.config.sweep.max(Duration::from_millis(1));
            let idle = self.shared.config.idle;
            let silent: Vec<Arc<str>> = self
                .channels
                .values()
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
            self.shared.blocks.trim();
        }
        if !self.pending.is_empty() {
            let late: Vec<EffectId> = self
                .pending
                .iter()
                .filter(|(_, pending)| pending.until <= now)
                .map(|(id, _)| *id)
                .collect();
            for id in late {
                self.forget_pending(id);
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
            In::Sent(count) => self.sent(now, id, count),
            In::End(_) => self.body_end(now, id),
            In::Request(request) => self.request(now, id, request),
            In::Failed(_) => self.failed(now, id),
            In::Reply(_) => {}
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        if self.shared.outside.bytes() > self.shared.config.max_outside_bytes {
            self.let_go(self.now);
        }
        if let Some(output) = self.shared.out.pop() {
            return output;
        }
        if self.closed {
            return Output::Idle(None);
        }
        let sweep = !self.names.is_empty() || !self.shared.blocks.is_empty();
        let sweep = sweep.then_some(self.next_sweep);
        let orphan = self.shared.orphans.first().map(|(due, _, _)| *due);
        let pending = self.pending.values().map(|pending| pending.until).min();
        let outside = self.shared.outside.first().map(|(due, _, _)| due);
        let wake = earlier(earlier(sweep, orphan), earlier(pending, outside));
        // Whatever the configuration's durations are, a driver must not spin.
        Output::Idle(wake.map(|at| at.max(self.now + Duration::from_nanos(1))))
    }
}
