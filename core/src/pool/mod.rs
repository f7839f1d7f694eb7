//! Sessions with orchestrators: shaking hands, lending them to jobs, leaving alone those that failed.
//!
//! The owner [offers](SessionPool::offer) addresses; the pool shakes hands with a few at a time until enough
//! sessions are ready, keeps these fresh, and lends the one that its [`Selector`] picks. Every lease comes home with
//! an [`Outcome`], from which the pool learns.
//!
//! One orchestrator:
//! ```text
//!   offer ──▶ Queued ──▶ Asked ──▶ Session (idle) ◀──▶ Session (lent)
//!               ▲          │ rejected,    │ lost          │ Full, TooDear, Failed
//!               │          ▼ failed       ▼               ▼
//!               └───────── Resting ◀──────┴───────────────┘
//!              its time is over
//! ```
//! A fault suspends: the first one for [`Config::min_penalty`], each further one in a row for twice as long, up to
//! [`Config::max_penalty`]; work done forgives all, and time heals one by one. What is no fault (no capacity, a
//! rejection) rests for a fixed time. Nobody is asked or lent before the rest is over.

mod config;
mod lease;
mod node;
pub mod reference;
pub mod search;
mod select;

pub use config::{Config, Event};
pub use lease::{Lease, Outcome, Tried, Why};
pub use node::Record;
pub use select::{Candidate, Quickest, Selector};

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use crate::capabilities::Capabilities;
use crate::error::{Failure, Party};
use crate::handshake::{self, Class, Handshake, Identity, Rejection, node_urls};
use crate::http::Url;
use crate::machine::{Child, Input, Machine, Outbox, Output, earlier};
use crate::rng::{Rng, Seed};
use crate::sign::{Address, Signature};
use crate::time::Time;
use crate::wire::OrchestratorInfo;

use lease::Held;
use node::{Node, Standing};

/// The pool remembers at most so many orchestrators; further ones are not taken in.
pub const MAX_NODES: usize = 10_000;

/// Slow handshakes and others together are at most this many times [`Config::in_flight`].
pub const MAX_HEDGE: usize = 4;

/// A pause of nothing would wake a driver in the past.
const SOON: Duration = Duration::from_millis(1);

/// Children's numbers have 23 bits.
const LAST_CHILD: u32 = (1 << 23) - 1;

/// The sessions for one kind of job. See the [module](self).
#[derive(Debug)]
pub struct SessionPool<S> {
    config: Config,
    identity: Identity,
    wanted: Capabilities,
    selector: S,
    rng: Rng,
    /// Drawn from the seed: tells our leases from those of other pools.
    id: u64,
    nodes: Vec<Node>,
    by_url: BTreeMap<Url, u32>,
    queue: VecDeque<u32>,
    /// When who has rested enough.
    resting: BTreeSet<(Time, u32)>,
    children: BTreeMap<u32, Kid>,
    sessions: BTreeMap<u32, Session>,
    next_child: u32,
    next_session: u32,
    /// A take found nothing, and nothing came since.
    waiting: bool,
    /// The signer is silent: ask nobody until somebody wants something.
    stalled: bool,
    offered: bool,
    refreshed: Option<Time>,
    lent: usize,
    now: Time,
    out: Outbox<Event>,
}

/// A handshake under way, or one that keeps an idle session fresh.
#[derive(Debug)]
struct Kid {
    child: Child<Handshake>,
    node: u32,
    began: Time,
    session: Option<u32>,
}

#[derive(Debug)]
struct Session {
    node: u32,
    info: Box<OrchestratorInfo>,
    latency: Duration,
    lent: u32,
    /// Its renewing handshake; a session whose every share is lent has none.
    child: Option<u32>,
    /// Not lent any more: the orchestrator fell from grace while jobs still have it.
    closing: bool,
}

impl<S: Selector> SessionPool<S> {
    /// A pool without orchestrators, for jobs that need `wanted`.
    #[must_use]
    pub fn new(
        now: Time,
        config: Config,
        identity: Identity,
        wanted: Capabilities,
        selector: S,
        seed: Seed,
    ) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            config,
            identity,
            wanted,
            selector,
            id: rng.next_u64(),
            rng,
            nodes: Vec::new(),
            by_url: BTreeMap::new(),
            queue: VecDeque::new(),
            resting: BTreeSet::new(),
            children: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_child: 1,
            next_session: 1,
            waiting: false,
            stalled: false,
            offered: false,
            refreshed: None,
            lent: 0,
            now,
            out: Outbox::default(),
        }
    }

    /// Makes orchestrators known, the preferred ones first. Those known already stay as they are.
    pub fn offer(&mut self, now: Time, found: Vec<Url>) {
        self.pass(now);
        for url in found {
            self.take_in(url.with_path("/"), false);
        }
        self.stalled = false;
        self.offered = true;
        self.settle();
    }

    /// Lends a session, if one is ready; otherwise [`Event::Available`] or [`Event::Exhausted`] will come.
    pub fn take(&mut self, now: Time) -> Option<Lease> {
        self.pass(now);
        self.stalled = false;
        let lease = self.lend();
        self.waiting = lease.is_none();
        self.settle();
        lease
    }

    /// Takes a lease home.
    pub fn give_back(&mut self, now: Time, lease: Lease, outcome: Outcome) {
        self.pass(now);
        // Leases of another pool teach nothing.
        let own = lease.pool == self.id;
        let Some(session) = self.sessions.get_mut(&lease.session).filter(|_| own) else {
            return self.settle();
        };
        self.lent = self.lent.saturating_sub(1);
        session.lent = session.lent.saturating_sub(1);
        session.info = lease.info;
        if session.closing {
            // Another job's verdict ended it already; one incident counts once.
            self.drop_session(lease.session);
        } else {
            self.learn(lease.session, lease.node, outcome);
        }
        self.settle();
    }

    /// How many leases are out.
    #[must_use]
    pub const fn lent(&self) -> usize {
        self.lent
    }

    /// How many sessions could be lent now.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.sessions
            .values()
            .filter(|session| self.lendable(session))
            .count()
    }

    /// What is known of every orchestrator that there is no session with.
    #[must_use]
    pub fn tried(&self) -> Vec<Tried> {
        let all = self.nodes.iter().filter_map(|node| {
            let why = match node.standing {
                Standing::Session(id) => {
                    let lent = self.sessions.get(&id).is_some_and(|s| !self.lendable(s));
                    lent.then_some(Why::Lent)
                }
                _ => node.excuse(self.now),
            };
            Some(Tried {
                url: node.url.clone(),
                why: why?,
            })
        });
        all.collect()
    }

    /// What was seen of every orchestrator.
    pub fn records(&self) -> impl Iterator<Item = (&Url, &Record)> {
        self.nodes.iter().map(|node| (&node.url, &node.record))
    }

    fn lendable(&self, session: &Session) -> bool {
        !session.closing && session.lent < self.config.share.max(1)
    }

    fn take_in(&mut self, url: Url, extra: bool) {
        if self.by_url.contains_key(&url) || self.nodes.len() >= MAX_NODES {
            return;
        }
        let id = self.nodes.len() as u32;
        self.by_url.insert(url.clone(), id);
        self.nodes.push(Node::new(url, extra));
        self.queue.push_back(id);
    }

    const fn payer(&self) -> Option<(Address, Signature)> {
        match self.identity {
            Identity::Static { address, signature } => Some((address, signature)),
            _ => None,
        }
    }

    fn node(&mut self, id: u32) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    fn lend(&mut self) -> Option<Lease> {
        let (ids, candidates): (Vec<u32>, Vec<Candidate<'_>>) = self
            .sessions
            .iter()
            .filter(|(_, session)| self.lendable(session))
            .map(|(id, session)| {
                let candidate = Candidate {
                    url: &session.info.transcoder,
                    info: &session.info,
                    latency: session.latency,
                    lent: session.lent,
                    record: &self.nodes[session.node as usize].record,
                };
                (*id, candidate)
            })
            .unzip();
        let at = self.selector.select(&mut self.rng, &candidates)?;
        let id = *ids.get(at)?;
        let payer = self.payer();
        let session = self.sessions.get_mut(&id).expect("it was just listed");
        session.lent += 1;
        self.lent += 1;
        let lease = Lease {
            pool: self.id,
            node: session.node,
            session: id,
            info: session.info.clone(),
            held: Box::new(Held {
                to: self.nodes[session.node as usize].url.clone(),
                payer,
                wanted: self.wanted.clone(),
                config: self.config.handshake.clone(),
                taken: self.now,
                latency: session.latency,
            }),
        };
        if session.lent >= self.config.share.max(1)
            && let Some(child) = session.child.take()
        {
            self.dismiss(child);
        }
        Some(lease)
    }

    fn learn(&mut self, session: u32, node: u32, outcome: Outcome) {
        match outcome {
            Outcome::Unused | Outcome::BadJob => self.resume(session),
            Outcome::Done { first_byte } => {
                self.node(node).done(first_byte);
                self.resume(session);
            }
            Outcome::Stale => {
                self.drop_session(session);
                self.enqueue(node);
            }
            Outcome::Full => {
                self.drop_session(session);
                self.pause(node, Why::Full, self.config.full_pause);
            }
            Outcome::TooDear => {
                self.drop_session(session);
                self.pause(node, Why::TooDear, self.config.rejected_pause);
            }
            Outcome::Failed(failure) => {
                self.drop_session(session);
                self.suspend(node, failure);
            }
        }
    }

    /// Leaves a node alone for a while, without blame.
    fn pause(&mut self, node: u32, why: Why, pause: Duration) {
        let until = self.now + pause.max(SOON);
        let known = self.node(node);
        known.why = Some(why);
        known.rest(until);
        let until = known.resting_until;
        self.resting.insert((until, node));
    }

    /// A session came home in good order: it is kept fresh again, unless its token is about to end.
    fn resume(&mut self, id: u32) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let node = session.node;
        let margin = self.config.handshake.renew_margin;
        let left = session
            .info
            .auth_token
            .as_ref()
            .map(|token| token.expiration.since(self.now));
        if left.is_none_or(|left| left <= margin) && session.lent == 0 {
            self.drop_session(id);
            return self.enqueue(node);
        }
        if session.child.is_some() {
            return;
        }
        let info = session.info.clone();
        let handshake = Handshake::resume(
            self.now,
            self.config.handshake.clone(),
            self.node(node).url.clone(),
            self.payer(),
            self.wanted.clone(),
            info,
        );
        let child = self.adopt(node, handshake, Some(id));
        if let Some(session) = self.sessions.get_mut(&id) {
            session.child = Some(child);
        }
        self.drain(child);
    }

    /// Forgets a session, or lets nobody else have it while jobs still do.
    fn drop_session(&mut self, id: u32) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.closing = true;
        let (child, lent) = (session.child.take(), session.lent);
        if let Some(child) = child {
            self.dismiss(child);
        }
        if lent == 0 {
            self.sessions.remove(&id);
        }
    }

    fn suspend(&mut self, node: u32, failure: Failure) {
        let (now, config) = (self.now, &self.config);
        let known = &mut self.nodes[node as usize];
        known.why = Some(Why::Failed(failure));
        let until = known.fault(now, config);
        self.out.event(Event::Suspended(known.url.clone(), until));
        self.resting.insert((until, node));
    }

    fn enqueue(&mut self, node: u32) {
        self.node(node).standing = Standing::Queued;
        self.node(node).suspended = false;
        self.queue.push_front(node);
    }

    fn adopt(&mut self, node: u32, handshake: Handshake, session: Option<u32>) -> u32 {
        // A child's number comes again after millions of others.
        while self.children.contains_key(&self.next_child) {
            self.next_child = self.next_child % LAST_CHILD + 1;
        }
        let owner = self.next_child;
        self.next_child = owner % LAST_CHILD + 1;
        let kid = Kid {
            child: Child::new(owner, handshake),
            node,
            began: self.now,
            session,
        };
        self.children.insert(owner, kid);
        owner
    }

    /// Ends a child; its last words are of no interest.
    fn dismiss(&mut self, owner: u32) {
        if let Some(mut kid) = self.children.remove(&owner) {
            kid.child.get_mut().close(self.now);
            kid.child.drain(&mut self.out, |_| {});
        }
    }

    /// Time passes: who has rested enough waits in line again.
    fn pass(&mut self, now: Time) {
        self.now = self.now.max(now);
        while let Some((until, node)) = self.resting.first().copied()
            && until <= self.now
        {
            self.resting.pop_first();
            let known = self.node(node);
            if matches!(known.standing, Standing::Resting) && known.resting_until <= until {
                self.node(node).standing = Standing::Queued;
                self.node(node).suspended = false;
                self.queue.push_back(node);
            }
        }
    }

    /// After every call: wake children, ask more, or say that there is no more.
    fn settle(&mut self) {
        self.tick();
        while self.may_ask()
            && let Some(node) = self.queue.pop_front()
        {
            let handshake = Handshake::new(
                self.now,
                self.config.handshake.clone(),
                self.node(node).url.clone(),
                self.identity.clone(),
                self.wanted.clone(),
            );
            let child = self.adopt(node, handshake, None);
            self.node(node).standing = Standing::Asked;
            self.drain(child);
        }
        if !self.short() {
            return;
        }
        if self.waiting && self.offered && self.ready() == 0 {
            self.waiting = false;
            self.out.event(Event::Exhausted(self.tried()));
        }
        let wanted = self.waiting || self.offered;
        if wanted && self.refresh_at().is_none_or(|at| at <= self.now) {
            self.refreshed = Some(self.now);
            self.out.event(Event::Refresh);
        }
    }

    fn tick(&mut self) {
        let due: Vec<u32> = self
            .children
            .iter()
            .filter(|(_, kid)| kid.child.wake().is_some_and(|wake| wake <= self.now))
            .map(|(owner, _)| *owner)
            .collect();
        for owner in due {
            if let Some(kid) = self.children.get_mut(&owner) {
                kid.child.handle_input(self.now, Input::Tick);
                self.drain(owner);
            }
        }
    }

    /// Whether there are fewer sessions than wanted, and nobody left to ask.
    fn short(&self) -> bool {
        let asking = self.children.values().any(|kid| kid.session.is_none());
        !asking && !self.stalled && self.queue.is_empty() && self.ready() < self.enough()
    }

    fn enough(&self) -> usize {
        self.config.ready.max(self.waiting.into())
    }

    fn refresh_at(&self) -> Option<Time> {
        Some(self.refreshed? + self.config.refresh_pause.max(SOON))
    }

    fn wake(&self) -> Option<Time> {
        let mut wake = self.resting.first().map(|(until, _)| *until);
        if self.short() && self.offered {
            wake = earlier(wake, self.refresh_at());
        }
        let hungry = !self.queue.is_empty();
        for kid in self.children.values() {
            wake = earlier(wake, kid.child.wake());
            let slow_at = kid.began + self.config.hedge_after;
            if hungry && kid.session.is_none() && slow_at > self.now {
                wake = earlier(wake, Some(slow_at));
            }
        }
        wake
    }

    fn may_ask(&self) -> bool {
        if self.stalled || self.ready() >= self.enough() {
            return false;
        }
        let asking = self.children.values().filter(|kid| kid.session.is_none());
        let (mut all, mut young) = (0, 0);
        for kid in asking {
            all += 1;
            young += usize::from(self.now.since(kid.began) < self.config.hedge_after);
        }
        // One asks for all who we are.
        if !matches!(self.identity, Identity::Static { .. } | Identity::Offchain) {
            return all == 0;
        }
        let most = self.config.in_flight.max(1);
        young < most && all < most * MAX_HEDGE
    }

    fn drain(&mut self, owner: u32) {
        let mut events = Vec::new();
        if let Some(kid) = self.children.get_mut(&owner) {
            kid.child.drain(&mut self.out, |event| events.push(event));
        }
        for event in events {
            self.on_handshake(owner, event);
        }
    }

    fn on_handshake(&mut self, owner: u32, event: handshake::Event) {
        let Some(kid) = self.children.get(&owner) else {
            return;
        };
        let (node, session) = (kid.node, kid.session);
        match event {
            handshake::Event::Identified(address, signature) => {
                self.identity = Identity::Static { address, signature };
                self.out.event(Event::Identified(address, signature));
            }
            handshake::Event::Ready(info) => self.on_ready(owner, node, info),
            handshake::Event::Renewed(info) => {
                if let Some(session) = session.and_then(|id| self.sessions.get_mut(&id)) {
                    session.info = info.clone();
                    self.out.event(Event::Renewed(info));
                }
            }
            handshake::Event::PinChanged { remembered, seen } => {
                let url = self.node(node).url.clone();
                self.out.event(Event::PinChanged {
                    url,
                    remembered,
                    seen,
                });
            }
            handshake::Event::Rejected(rejection) => {
                self.children.remove(&owner);
                self.lose(session);
                self.on_rejected(node, rejection);
            }
            handshake::Event::Failed(failure) => {
                self.children.remove(&owner);
                self.lose(session);
                self.on_failed(node, failure);
            }
            handshake::Event::Closed => {}
        }
    }

    /// The renewing handshake of a session ended by itself, and with it the session.
    fn lose(&mut self, session: Option<u32>) {
        if let Some(id) = session {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.child = None;
            }
            self.drop_session(id);
        }
    }

    fn on_ready(&mut self, owner: u32, node: u32, info: Box<OrchestratorInfo>) {
        let took = self.children[&owner].child.get().took().unwrap_or_default();
        self.node(node).answered(took);
        let key = info.transcoder.with_path("/");
        let known = *self.by_url.entry(key.clone()).or_insert(node);
        if known != node && !matches!(self.node(known).standing, Standing::Queued) {
            // Two addresses of one orchestrator: the one that was first speaks for it.
            self.dismiss(owner);
            let first = self.node(known).url.clone();
            return self.pause(node, Why::Same(first), self.config.rejected_pause);
        }
        self.by_url.insert(key, node);
        if !self.node(node).extra {
            let nodes = node_urls(&info.nodes);
            for url in nodes.into_iter().take(self.config.extra_nodes) {
                self.take_in(url.with_path("/"), true);
            }
        }
        let id = self.next_session;
        self.next_session += 1;
        if let Some(kid) = self.children.get_mut(&owner) {
            kid.session = Some(id);
        }
        let known = self.node(node);
        known.standing = Standing::Session(id);
        known.why = None;
        self.waiting = false;
        self.out.event(Event::Available(info.transcoder.clone()));
        let session = Session {
            node,
            info,
            latency: took,
            lent: 0,
            child: Some(owner),
            closing: false,
        };
        self.sessions.insert(id, session);
    }

    fn on_rejected(&mut self, node: u32, rejection: Rejection) {
        if let Rejection::NoWork { nodes } = &rejection
            && !self.node(node).extra
        {
            // It sends us on, so its nodes are asked whether extra ones are wanted or not.
            let most = self.config.extra_nodes.max(1);
            for url in node_urls(nodes).into_iter().take(most) {
                self.take_in(url.with_path("/"), true);
            }
        }
        self.pause(node, Why::Rejected(rejection), self.config.rejected_pause);
    }

    fn on_failed(&mut self, node: u32, failure: Failure) {
        match Class::of(&failure) {
            Class::Identity => {
                debug_assert!(!matches!(failure.who, Party::Orchestrator(_)));
                self.enqueue(node);
                self.stalled = true;
                self.waiting = false;
                self.out.event(Event::NoIdentity(failure));
            }
            Class::Capacity => self.pause(node, Why::Full, self.config.full_pause),
            _ => self.suspend(node, failure),
        }
    }
}

impl<S: Selector> Machine for SessionPool<S> {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.pass(now);
        let owner = match &input {
            Input::Tick => None,
            Input::Http(id, _) | Input::Signed(id, _) | Input::Stored(id) => Some(id.owner()),
        };
        if let Some(owner) = owner
            && let Some(kid) = self.children.get_mut(&owner)
        {
            kid.child.handle_input(self.now, input);
            self.drain(owner);
        }
        self.settle();
    }

    fn poll_output(&mut self) -> Output<Event> {
        self.out.pop().unwrap_or_else(|| Output::Idle(self.wake()))
    }
}
