//! The UDP port of all sessions of WHIP and WHEP, and the requests that begin and end them.
//!
//! [`Port`] is a machine without sockets and without a clock. Requests come in by [`Port::call`], datagrams by
//! [`Port::receive`], time by [`Port::tick`]; any other call is a command. After each of them, drain
//! [`Port::poll_output`] until [`Output::Idle`] says when to tick next. To a driver of [`Machine`]s all of its outputs
//! are events: none is an effect that those know.
//!
//! A datagram finds its session by the user fragment in it, if it is a STUN message whose checksum is made with the
//! session's password, and from then on by its source address. Before that check an address is not believed: whoever
//! saw an offer could take its session over. Everything else is dropped and counted.

mod doors;
mod rates;
mod stun;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use livepeer_core::machine::{self, Input};
use livepeer_core::rng::Rng;
use livepeer_core::wire::entry::IngestMetrics;
use livepeer_core::{EffectId, Machine, Time};
use livepeer_media::frame::{AccessUnit, Audio, AudioCodec};

use self::rates::Rates;
use crate::sdp::Offer;
use crate::webrtc::{Common, Credentials, Peer};
use crate::whep::{Stream, Viewer};
use crate::whip::{Said, Whip};

pub use self::doors::{Call, Denied, Door, MAX_FRAGMENT};
pub use self::types::{Config, Event, Figures, Output};
pub use crate::session::{End, SessionId};
pub use crate::webrtc::{Certificate, Clock, Datagram};
pub use crate::whip::Frame;

/// At most this many bytes has a datagram that is looked at.
pub const MAX_DATAGRAM: usize = 2 << 10;
/// At most this many addresses lead to a session: its newest.
pub const MAX_ADDRESSES: usize = 4;
/// At most this many addresses does a session change between in [`ADDRESS_WINDOW`].
pub const MAX_NEW_ADDRESSES: usize = 16;
/// How long the addresses of a session are counted.
pub const ADDRESS_WINDOW: Duration = Duration::from_secs(10);
/// At most this many sessions of senders wait for their peers, in the process and under one name.
pub const MAX_WAITING: (usize, usize) = (100, 10);
/// At most this many STUN messages a second of one host are checked.
pub const MAX_CHECKS_A_SECOND: u32 = 1_000;
/// At most this many requests a second of one host may name sessions that are not there.
pub const MAX_GUESSES_A_SECOND: u32 = 10;
/// How long the name of a session is remembered after its end, so that a late DELETE is answered with 200.
pub const REMEMBERED: Duration = Duration::from_secs(30);
/// At most this many sessions are remembered after their end.
pub const MAX_REMEMBERED: usize = 4_096;

/// The port. See the [module](self).
#[derive(Debug)]
pub struct Port {
    config: Config,
    common: Common,
    rng: Rng,
    now: Time,
    sessions: BTreeMap<SessionId, Session>,
    /// Our user fragments.
    ufrags: BTreeMap<String, SessionId>,
    addresses: BTreeMap<SocketAddr, SessionId>,
    streams: BTreeMap<String, Watched>,
    /// Sessions that are over, the oldest first.
    over: VecDeque<(Time, SessionId)>,
    wakes: BTreeSet<(Time, SessionId)>,
    checks: Rates,
    guesses: Rates,
    figures: Figures,
    sends: VecDeque<Datagram>,
    outputs: VecDeque<Output>,
}

/// A stream that can be watched, and those who do.
#[derive(Debug, Default)]
struct Watched {
    stream: Stream,
    viewers: BTreeSet<SessionId>,
}

#[derive(Debug)]
struct Session {
    door: Door,
    stream: String,
    ours: Credentials,
    /// The peer's user fragment.
    theirs: String,
    addresses: Vec<SocketAddr>,
    /// The addresses that proved themselves since then.
    new_addresses: (Time, Vec<SocketAddr>),
    patches: (Time, u32),
    wake: Option<Time>,
    part: Part,
}

#[derive(Debug)]
enum Part {
    /// A sender; while it asks for leave, with the answer it will get.
    Whip(Box<Whip>, Option<Pending>),
    Viewer(Box<Viewer>),
    Over,
}

/// A request that waits for leave.
#[derive(Debug)]
struct Pending {
    exchange: EffectId,
    path: String,
    answer: String,
}

impl Port {
    /// A port without sessions.
    #[must_use]
    pub fn new(
        now: Time,
        config: Config,
        certificate: Certificate,
        clock: Clock,
        seed: livepeer_core::Seed,
    ) -> Self {
        Self {
            common: Common {
                clock,
                certificate,
                addresses: config.addresses.clone(),
                in_step: config.in_step,
            },
            config,
            rng: Rng::new(seed),
            now,
            sessions: BTreeMap::new(),
            ufrags: BTreeMap::new(),
            addresses: BTreeMap::new(),
            streams: BTreeMap::new(),
            over: VecDeque::new(),
            wakes: BTreeSet::new(),
            checks: Rates::new(MAX_CHECKS_A_SECOND),
            guesses: Rates::new(MAX_GUESSES_A_SECOND),
            figures: Figures::default(),
            sends: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    /// The next thing to do or know.
    pub fn poll_output(&mut self) -> Output {
        if let Some(datagram) = self.sends.pop_front() {
            return Output::Send(datagram);
        }
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        let wake = self.wakes.first().map(|(at, _)| *at);
        let forget = self.over.front().map(|(at, _)| *at);
        let next = wake.into_iter().chain(forget).min();
        // Later than now, so that a driver cannot spin.
        Output::Idle(next.map(|at| at.max(self.now + Duration::from_millis(1))))
    }

    /// The counters so far.
    #[must_use]
    pub const fn figures(&self) -> Figures {
        self.figures
    }

    /// The sessions that live: senders and viewers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len() - self.over.len()
    }

    /// Whether no session lives.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in a datagram.
    pub fn receive(&mut self, now: Time, datagram: &Datagram) {
        self.pass(now);
        let known = match stun::ufrag(&datagram.data) {
            _ if datagram.data.len() > MAX_DATAGRAM => None,
            Some(ufrag) => self.check(ufrag, datagram),
            None => self
                .addresses
                .get(&datagram.peer)
                .copied()
                .map(|id| (id, false)),
        };
        let Some((id, stun)) = known else {
            self.figures.dropped += 1;
            return;
        };
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let taken = match &mut session.part {
            Part::Whip(whip, _) => whip.receive(self.now, datagram, stun),
            Part::Viewer(viewer) => {
                viewer.receive(self.now, datagram, stun);
                Ok(())
            }
            Part::Over => Ok(()),
        };
        self.settle(id, taken);
    }

    /// The session that a STUN message belongs to. Its source is believed from here on.
    fn check(&mut self, ufrag: &str, datagram: &Datagram) -> Option<(SessionId, bool)> {
        let id = *self.ufrags.get(ufrag)?;
        if !self.checks.allow(self.now, datagram.peer.ip()) {
            self.figures.unchecked += 1;
            return None;
        }
        let session = self.sessions.get_mut(&id)?;
        let accepted = match &session.part {
            Part::Whip(_, Some(_)) | Part::Over => false,
            Part::Whip(whip, None) => whip.accepts(self.now, datagram.peer, &datagram.data),
            Part::Viewer(viewer) => viewer.accepts(self.now, datagram.peer, &datagram.data),
        };
        if !accepted {
            return None;
        }
        if !session.addresses.contains(&datagram.peer) {
            let (since, seen) = &mut session.new_addresses;
            if self.now.since(*since) >= ADDRESS_WINDOW {
                *since = self.now;
                seen.clear();
            }
            if !seen.contains(&datagram.peer) {
                if seen.len() == MAX_NEW_ADDRESSES {
                    return None;
                }
                seen.push(datagram.peer);
            }
            if session.addresses.len() == MAX_ADDRESSES {
                let oldest = session.addresses.remove(0);
                self.addresses.remove(&oldest);
            }
            session.addresses.push(datagram.peer);
            if let Some(other) = self.addresses.insert(datagram.peer, id)
                && let Some(other) = self.sessions.get_mut(&other)
            {
                other.addresses.retain(|address| *address != datagram.peer);
            }
        }
        Some((id, true))
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time) {
        self.pass(now);
        while let Some((at, id)) = self.wakes.first().copied()
            && at <= self.now
        {
            self.wakes.pop_first();
            let Some(session) = self.sessions.get_mut(&id) else {
                continue;
            };
            session.wake = None;
            self.settle(id, Ok(()));
        }
        self.forget_over();
    }

    /// Forgets the sessions that ended long ago, or before too many others.
    fn forget_over(&mut self) {
        while let Some((at, id)) = self.over.front().copied()
            && (at <= self.now || self.over.len() > MAX_REMEMBERED)
        {
            self.over.pop_front();
            self.sessions.remove(&id);
        }
    }

    fn pass(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// Asks a sender for a key frame: a segment has waited for one. Senders hear it at most twice a second, and some
    /// never heed it.
    pub fn want_key_frame(&mut self, now: Time, id: SessionId) {
        self.pass(now);
        if let Some(Session {
            part: Part::Whip(whip, _),
            ..
        }) = self.sessions.get_mut(&id)
        {
            whip.want_key_frame(self.now);
            self.settle(id, Ok(()));
        }
    }

    /// How the stream of a sender arrives so far; `None` if it is not there. What its job makes of it is not known here.
    #[must_use]
    pub fn metrics(&self, id: SessionId) -> Option<IngestMetrics> {
        match &self.sessions.get(&id)?.part {
            Part::Whip(whip, None) => Some(whip.metrics()),
            _ => None,
        }
    }

    /// Ends a session from our side.
    pub fn kick(&mut self, now: Time, id: SessionId, reason: &str) {
        self.pass(now);
        self.end(id, End::Kicked(reason.to_owned()));
    }

    /// Ends all sessions from our side. More may come; to be left alone, stop calling.
    pub fn kick_all(&mut self, now: Time, reason: &str) {
        self.pass(now);
        let all: Vec<_> = self.sessions.keys().copied().collect();
        for id in all {
            self.end(id, End::Kicked(reason.to_owned()));
        }
    }

    /// Lets viewers watch a stream of that name. Its frames come by [`Port::send_video`] and [`Port::send_audio`].
    pub fn open_stream(&mut self, name: &str) {
        self.streams.entry(name.to_owned()).or_default();
    }

    /// Ends a stream, and the sessions of those who watch it.
    pub fn close_stream(&mut self, now: Time, name: &str) {
        self.pass(now);
        let Some(watched) = self.streams.remove(name) else {
            return;
        };
        for id in watched.viewers {
            self.end(id, End::StreamEnded);
        }
    }

    /// The stream goes on from another source: its stamps continue those before, and viewers wait for a key frame.
    pub fn restart_stream(&mut self, name: &str) {
        if let Some(watched) = self.streams.get_mut(name) {
            watched.stream.restart();
            for id in &watched.viewers {
                if let Some(Session {
                    part: Part::Viewer(viewer),
                    ..
                }) = self.sessions.get_mut(id)
                {
                    viewer.wait();
                }
            }
        }
    }

    /// Sends a picture to those who watch the stream, and keeps it for those who join.
    pub fn send_video(&mut self, now: Time, name: &str, unit: &AccessUnit) {
        self.pass(now);
        let Some(watched) = self.streams.get_mut(name) else {
            return;
        };
        let unit = watched.stream.video(self.now, unit);
        let data = Arc::<[u8]>::from(&unit.data[..]);
        self.show(name, |viewer, now, stream, sends| {
            viewer.video(now, stream, &unit, &data, sends);
        });
    }

    /// Sends a packet of Opus to those who watch the stream. Other sound cannot be sent by WebRTC, and is not.
    pub fn send_audio(&mut self, now: Time, name: &str, audio: &Audio) {
        self.pass(now);
        let (Some(watched), AudioCodec::Opus) = (self.streams.get_mut(name), audio.track.codec())
        else {
            return;
        };
        for (pts, data) in watched.stream.audio(self.now, audio) {
            self.show(name, |viewer, now, stream, _| {
                viewer.audio(now, stream, pts, &data);
            });
        }
    }

    /// Gives a frame to each viewer of a stream.
    fn show(
        &mut self,
        name: &str,
        mut give: impl FnMut(&mut Viewer, Time, &Stream, &mut VecDeque<Datagram>),
    ) {
        let viewers = self.streams.get(name).map(|watched| &watched.viewers);
        let viewers: Vec<_> = viewers.into_iter().flatten().copied().collect();
        for id in viewers {
            let (Some(watched), Some(session)) =
                (self.streams.get(name), self.sessions.get_mut(&id))
            else {
                continue;
            };
            if let Part::Viewer(viewer) = &mut session.part {
                give(viewer, self.now, &watched.stream, &mut self.sends);
            }
            self.settle(id, Ok(()));
        }
    }

    /// A session with an answer to its offer.
    fn accept(&mut self, offer: &Offer) -> Result<(SessionId, Credentials, Peer, String), String> {
        let bits = self.rng.bytes32();
        let (id, rest) = bits.split_first_chunk::<16>().expect("32 bytes");
        let id = SessionId::new(u128::from_be_bytes(*id));
        let secret = self.rng.bytes32();
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let credentials = Credentials {
            ufrag: hex(&rest[..8]),
            password: hex(&secret[..16]),
        };
        let number = self.rng.below(1 << 62);
        let (peer, answer) = Peer::accept(self.now, &self.common, &credentials, offer, number)
            .map_err(|unmade| unmade.to_string())?;
        Ok((id, credentials, peer, answer))
    }

    fn begin(&mut self, id: SessionId, call: &Call, ours: Credentials, theirs: String, part: Part) {
        self.ufrags.insert(ours.ufrag.clone(), id);
        let session = Session {
            door: call.door,
            stream: call.stream.clone(),
            ours,
            theirs,
            addresses: Vec::new(),
            new_addresses: (self.now, Vec::new()),
            patches: (self.now, 0),
            wake: None,
            part,
        };
        self.sessions.insert(id, session);
        self.settle(id, Ok(()));
    }

    /// Lets a session act on what it was given, and notes when it wants to be called next.
    fn settle(&mut self, id: SessionId, so_far: Result<(), End>) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let result = match &mut session.part {
            Part::Whip(whip, _) if whip.is_overdue(now) => {
                return self.deny(now, id, &Denied::Failed);
            }
            Part::Whip(whip, _) => {
                let result = so_far
                    .and_then(|()| whip.tick(now))
                    .and_then(|()| whip.drain(now, &mut self.sends));
                while let Some(said) = whip.said() {
                    self.outputs.push_back(Output::Event(match said {
                        Said::Connected => Event::Connected(id),
                        Said::Opened(audio) => Event::Opened(id, audio),
                        Said::Frame(frame) => Event::Frame(id, frame),
                        Said::Stalled => Event::Stalled(id),
                        Said::Resumed => Event::Resumed(id),
                    }));
                }
                result
            }
            Part::Viewer(viewer) => {
                let stream = self
                    .streams
                    .get(&session.stream)
                    .map(|watched| &watched.stream);
                so_far
                    .and_then(|()| viewer.tick(now))
                    .and_then(|()| viewer.drain(now, stream, &mut self.sends))
            }
            Part::Over => return,
        };
        if let Err(end) = result {
            return self.end(id, end);
        }
        let wake = match &session.part {
            Part::Whip(whip, _) => whip.deadline(),
            Part::Viewer(viewer) => viewer.deadline(now),
            Part::Over => None,
        };
        if let Some(at) = session.wake.take() {
            self.wakes.remove(&(at, id));
        }
        if let Some(at) = wake {
            // A moment later at the soonest: time stands still within a call.
            let at = at.max(now + Duration::from_millis(1));
            session.wake = Some(at);
            self.wakes.insert((at, id));
        }
    }

    /// Ends a session: says goodbye to its peer, tells its owner, and remembers its name.
    fn end(&mut self, id: SessionId, end: End) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        match std::mem::replace(&mut session.part, Part::Over) {
            Part::Whip(mut whip, pending) => {
                whip.close(&mut self.sends);
                match pending {
                    Some(pending) => self.outputs.push_back(Output::Reply(
                        pending.exchange,
                        doors::plain(503, &end.to_string()),
                    )),
                    None => self.outputs.push_back(Output::Event(Event::Ended(id, end))),
                }
            }
            Part::Viewer(mut viewer) => {
                viewer.close(&mut self.sends);
                if let Some(watched) = self.streams.get_mut(&session.stream) {
                    watched.viewers.remove(&id);
                }
                self.outputs.push_back(Output::Event(Event::Left(id, end)));
            }
            Part::Over => return,
        }
        self.ufrags.remove(&session.ours.ufrag);
        for address in session.addresses.drain(..) {
            self.addresses.remove(&address);
        }
        if let Some(at) = session.wake.take() {
            self.wakes.remove(&(at, id));
        }
        self.over.push_back((self.now + REMEMBERED, id));
        self.forget_over();
    }

    /// How many senders wait for their peers: all, and those of one name.
    fn waiting(&self, stream: &str) -> (usize, usize) {
        let waiting = self
            .sessions
            .values()
            .filter(|session| match &session.part {
                Part::Whip(whip, _) => whip.is_waiting(),
                Part::Viewer(viewer) => viewer.is_waiting(),
                Part::Over => false,
            });
        waiting.fold((0, 0), |(all, own), session| {
            (all + 1, own + usize::from(session.stream == stream))
        })
    }

    fn viewer(&mut self, peer: Peer) -> Viewer {
        // Half the range of a stamp: it is a while until the first wrap.
        let offsets = (self.rng.below(1 << 31), self.rng.below(1 << 31));
        Viewer::new(self.now, peer, offsets)
    }
}

impl Machine for Port {
    type Event = Output;

    fn handle_input(&mut self, now: Time, _: Input) {
        self.tick(now);
    }

    fn poll_output(&mut self) -> machine::Output<Output> {
        match Self::poll_output(self) {
            Output::Idle(at) => machine::Output::Idle(at),
            output => machine::Output::Event(output),
        }
    }
}

#[cfg(test)]
mod tests;
