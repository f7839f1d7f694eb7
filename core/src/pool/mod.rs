//! Sessions with orchestrators: shaking hands, lending them to jobs, leaving alone those that failed.
//!
//! The owner [offers](SessionPool::offer) addresses; the pool shakes hands with a few at a time until enough
//! sessions are ready, keeps these fresh, and lends the one that its [`Selector`] picks. Every lease comes home with
//! an [`Outcome`], from which the pool learns.
//!
//! The states of an orchestrator:
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

mod asking;
mod config;
mod lease;
mod lending;
mod node;
mod patience;
mod select;
mod tries;

pub use config::{Config, Event, Offered};
pub use lease::{Lease, Outcome, Tried, Why};
pub use patience::{CUT_OFF, Patience};
pub(crate) use select::among;
pub use select::{Candidate, Quickest, Selector};
pub use tries::{Attempts, NoMoreTries, TryLimit};

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::capabilities::Capabilities;
use crate::handshake::{self, Handshake, Identity, MIN_RENEW_INTERVAL};
use crate::http::Url;
use crate::machine::{Child, EffectId, Input, Machine, Outbox, Output};
use crate::rng::{Rng, Seed};
use crate::sign::{Address, Signature};
use crate::signers::SignerHealth;
use crate::time::Time;
use crate::track_record::TrackRecord;
use crate::wire::{OrchestratorInfo, read_track_record};

use node::{Node, Stage};

/// At most this many orchestrators are remembered by the pool; further ones are not taken in.
pub const MAX_NODES: usize = 10_000;

/// How many times [`Config::in_flight`] handshakes run at a time, at most, slow ones included.
pub const MAX_HEDGE: usize = 4;

/// The beginning of the keys of stored records; the orchestrator's URL follows.
pub const RECORD_KEY: &str = "orchestrator:";

/// At most this many of the further nodes are asked that an orchestrator names when it takes no work itself, or is
/// full.
pub const MAX_SENT_ON: usize = 8;

/// A pause of nothing would wake a driver in the past.
const SOON: Duration = Duration::from_millis(1);

/// Children's numbers have 22 bits, so that a pool may be a machine inside a machine ([`Nested`](crate::machine::Nested)).
const LAST_CHILD: u32 = (1 << 22) - 1;

/// The sessions for one kind of job. See the [module](self).
#[derive(Debug)]
pub struct SessionPool<S> {
    config: Config,
    identity: Identity,
    /// How remote signers have been.
    health: SignerHealth,
    wanted: Arc<Capabilities>,
    selector: S,
    rng: Rng,
    /// Drawn from the seed: tells our leases from those of other pools.
    id: u64,
    nodes: Vec<Node>,
    by_url: BTreeMap<Url, u32>,
    /// Places of orchestrators that made room.
    free: BTreeSet<u32>,
    queue: VecDeque<u32>,
    /// When who has rested enough.
    resting: BTreeSet<(Time, u32)>,
    children: BTreeMap<u32, Ongoing>,
    sessions: BTreeMap<u32, Session>,
    next_child: u32,
    next_session: u32,
    /// A take found nothing, and nothing came since: a session, or the news that there is none.
    waiting: bool,
    /// The selector wanted none of the sessions at hand, and nothing came since.
    declined: bool,
    /// Answers are gathered before anybody is lent.
    gathering: Option<Patience>,
    /// Sessions that came while gathering, not told of yet.
    gathered: Vec<Url>,
    /// Orchestrators whose records changed since they were last stored.
    changed: BTreeSet<u32>,
    /// Records on their way to the store, and the orchestrators that they are of.
    storing: BTreeMap<EffectId, u32>,
    /// Orchestrators whose records the store did not keep: they go along with the next that change.
    unstored: BTreeSet<u32>,
    /// The signer is silent: ask nobody until somebody wants something.
    stalled: bool,
    offered: bool,
    /// The records of earlier runs.
    remembered: BTreeMap<Url, TrackRecord>,
    refreshed: Option<Time>,
    lent: usize,
    now: Time,
    out: Outbox<Event>,
}

/// A handshake under way, or one that keeps an idle session fresh.
#[derive(Debug)]
struct Ongoing {
    handshake: Child<Handshake>,
    node: u32,
    began: Time,
    session: Option<u32>,
}

#[derive(Debug)]
struct Session {
    node: u32,
    info: Arc<OrchestratorInfo>,
    latency: Duration,
    lent: u32,
    /// The renewing handshake of the session; a session whose every share is lent has none.
    child: Option<u32>,
    /// Whether the session is lent no more, and ends once the jobs that have it give it back.
    closing: bool,
    /// The time at which the info was given.
    told: Time,
    /// Whether the quote went to a job. The next job needs another: two payer sessions under one quote would use the
    /// same nonces (payments spec 7.2).
    used: bool,
}

impl Session {
    fn is_lendable(&self, config: &Config, now: Time) -> bool {
        !self.closing && !self.used && self.lent < config.share.max(1) && self.is_fresh(config, now)
    }

    /// Whether its token is good for a while. One that comes with little left, by our clock, is as good as it gets
    /// until it is time to ask again: the clocks may differ.
    fn is_fresh(&self, config: &Config, now: Time) -> bool {
        let token = self.info.auth_token.as_ref();
        let left = token.map(|token| token.expiration.since(now));
        now < self.told + MIN_RENEW_INTERVAL
            || left.is_some_and(|left| left >= config.handshake.renew_margin)
    }
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
            health: SignerHealth::default(),
            wanted: Arc::new(wanted),
            selector,
            id: rng.next_u64(),
            rng,
            nodes: Vec::new(),
            by_url: BTreeMap::new(),
            free: BTreeSet::new(),
            queue: VecDeque::new(),
            resting: BTreeSet::new(),
            children: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_child: 1,
            next_session: 1,
            waiting: false,
            declined: false,
            gathering: None,
            gathered: Vec::new(),
            changed: BTreeSet::new(),
            storing: BTreeMap::new(),
            unstored: BTreeSet::new(),
            stalled: false,
            offered: false,
            remembered: BTreeMap::new(),
            refreshed: None,
            lent: 0,
            now,
            out: Outbox::default(),
        }
    }

    /// Makes orchestrators known, the preferred ones first. Those known already stay as they are.
    pub fn offer(&mut self, now: Time, found: Vec<impl Into<Offered>>) {
        self.pass(now);
        let found = self.mark(found);
        self.take_in_all(found);
    }

    /// As [`offer`](Self::offer), for a list that stands for all there are: sessions with others end, unless they
    /// are lent, and others are not asked any more.
    pub fn replace(&mut self, now: Time, found: Vec<impl Into<Offered>>) {
        self.pass(now);
        let found = self.mark(found);
        let nodes = self.nodes.iter().zip(0u32..);
        let gone = nodes.filter(|(node, _)| !node.listed && !node.extra);
        let gone: BTreeSet<u32> = gone.map(|(_, id)| id).collect();
        self.queue.retain(|queued| !gone.contains(queued));
        for id in gone {
            self.let_go(id);
        }
        self.take_in_all(found);
    }

    /// Marks who is on a list of those known.
    fn mark(&mut self, found: Vec<impl Into<Offered>>) -> Vec<Offered> {
        for node in &mut self.nodes {
            node.listed = false;
        }
        let found = found.into_iter().map(|one| {
            let Offered { url, accounts } = one.into();
            let url = url.with_path("/");
            if let Some(id) = self.by_url.get(&url) {
                self.nodes[*id as usize].listed = true;
            }
            Offered { url, accounts }
        });
        found.collect()
    }

    fn take_in_all(&mut self, found: Vec<Offered>) {
        let new = found
            .iter()
            .filter(|one| !self.by_url.contains_key(&one.url));
        self.make_room(new.count());
        for one in found {
            self.take_in(one, false);
        }
        self.stalled = false;
        self.offered = true;
        self.settle();
    }

    /// Brings in what an earlier run saw of an orchestrator: the value of a record that [`Effect::Store`] was asked
    /// to keep, under its key. Anything else is ignored, since it may be of another version.
    ///
    /// [`Effect::Store`]: crate::Effect::Store
    pub fn recall(&mut self, now: Time, key: &str, value: &[u8]) {
        self.pass(now);
        if let Some((url, record)) = self.own_record(key, value) {
            self.remembered.insert(url.clone(), record.clone());
            if let Some(id) = self.by_url.get(&url).copied() {
                self.node(id).record = record;
            }
        }
    }

    /// Lends a session, if one is ready; otherwise [`Event::Available`] or [`Event::Exhausted`] will come.
    pub fn take(&mut self, now: Time) -> Option<Lease> {
        self.take_by(now, |selector, rng, from| selector.select(rng, from))
    }

    /// As [`take`](Self::take), but `choose` has the last word: it is given the policy and the candidates.
    pub fn take_by(
        &mut self,
        now: Time,
        choose: impl FnOnce(&mut S, &mut Rng, &[Candidate<'_>]) -> Option<usize>,
    ) -> Option<Lease> {
        self.pass(now);
        self.stalled = false;
        let lease = if self.gathering.is_some() {
            None
        } else {
            self.lend(choose)
        };
        // Another job may wait already.
        self.waiting |= lease.is_none();
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
        let moved = session.info.transcoder != lease.info.transcoder;
        let expires =
            |info: &OrchestratorInfo| info.auth_token.as_ref().map(|token| token.expiration);
        // Of a session that jobs share there may be newer info by now than what comes home.
        let older = expires(&lease.info) < expires(&session.info);
        // Nor is a quote that a job used as good as one that nobody had. Of one account both are the same.
        let fresh = !session.used && !self.config.one_account;
        let worse = older || (fresh && lease.info.ticket_params.is_some());
        if !worse && session.info.raw != lease.info.raw {
            session.told = self.now;
        }
        if !worse && !moved {
            session.info = lease.info;
        }
        if session.closing {
            // Another job's verdict ended it already, or the orchestrator's own.
            self.drop_session(lease.session);
            self.learn_late(lease.node, lease.held.taken, outcome);
        } else {
            self.learn(lease.session, lease.node, outcome);
            if moved
                && self
                    .sessions
                    .get(&lease.session)
                    .is_some_and(|session| !session.closing)
            {
                // Somewhere else is somebody else, until a handshake says who.
                self.drop_session(lease.session);
                self.enqueue(lease.node);
            }
        }
        // Whoever waits may have what came home.
        let home = self
            .sessions
            .get(&lease.session)
            .filter(|home| self.lendable(home));
        if let Some(url) = home
            .filter(|_| self.waiting)
            .map(|home| home.info.transcoder.clone())
        {
            self.announce(url);
        }
        self.settle();
    }

    /// How many leases are out.
    #[must_use]
    pub const fn lent(&self) -> usize {
        self.lent
    }

    /// Sets how many sessions are kept ready, and how many further nodes of an orchestrator are asked.
    pub fn set_ready(&mut self, now: Time, ready: usize, extra_nodes: usize) {
        if (ready, extra_nodes) != (self.config.ready, self.config.extra_nodes) {
            self.pass(now);
            self.config.ready = ready;
            self.config.extra_nodes = extra_nodes;
            self.settle();
        }
    }

    /// Replaces the policy by which sessions are lent.
    pub fn set_selector(&mut self, selector: S) {
        self.selector = selector;
    }

    /// How many sessions could be lent now.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.sessions
            .values()
            .filter(|session| self.lendable(session))
            .count()
    }

    /// The known state of every orchestrator without a session.
    #[must_use]
    pub fn tried(&self) -> Vec<Tried> {
        let all = self.nodes.iter().filter_map(|node| {
            let why = match node.stage {
                Stage::Session(id) => match self.sessions.get(&id) {
                    Some(session) if !self.lendable(session) => Some(Why::Lent),
                    _ => self.declined.then_some(Why::Declined),
                },
                _ => node.excuse(self.now),
            };
            Some(Tried {
                url: node.url.clone(),
                why: why?,
            })
        });
        all.collect()
    }

    /// When the first of those left alone may be asked or lent again; `None` if nobody is left alone.
    #[must_use]
    pub fn rests_until(&self) -> Option<Time> {
        self.resting.first().map(|(until, _)| *until)
    }

    /// The sessions that could be lent now, as the selector would see them.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate<'_>> {
        self.listed().map(|(_, candidate)| candidate).collect()
    }

    /// Candidates, each with the address at which the orchestrator was asked: it may say that its work goes elsewhere.
    #[must_use]
    pub fn sessions(&self) -> Vec<(&Url, Candidate<'_>)> {
        self.listed()
            .map(|(id, candidate)| (&self.nodes[self.sessions[&id].node as usize].url, candidate))
            .collect()
    }

    /// The URL of the session that the selector picks, without lending it.
    pub fn pick(&mut self) -> Option<Url> {
        let (ids, chosen) = self.choose(|selector, rng, from| selector.select(rng, from));
        let id = ids.get(chosen?)?;
        Some(self.sessions[id].info.transcoder.clone())
    }

    /// The policy.
    #[must_use]
    pub const fn selector(&self) -> &S {
        &self.selector
    }

    /// Whether records are on their way to the store; [`Event::Stored`] says when that is over, well or badly.
    #[must_use]
    pub fn is_storing(&self) -> bool {
        !self.storing.is_empty()
    }

    /// The records of all orchestrators.
    pub fn records(&self) -> impl Iterator<Item = (&Url, &TrackRecord)> {
        self.nodes.iter().map(|node| (&node.url, &node.record))
    }

    fn lendable(&self, session: &Session) -> bool {
        session.is_lendable(&self.config, self.now)
    }

    fn share(&self) -> u32 {
        self.config.share.max(1)
    }

    fn take_in(&mut self, offered: Offered, extra: bool) {
        let Offered { url, accounts } = offered;
        if let Some(id) = self.by_url.get(&url).copied() {
            let now = self.now;
            let known = self.node(id);
            known.listed = true;
            // Whom the owner offers leads where the owner says.
            if known.url == url {
                if !accounts.is_empty() {
                    known.accounts = accounts;
                }
                if known.extra && !extra {
                    known.url = url;
                }
            }
            known.extra &= extra;
            if matches!(known.stage, Stage::Gone) {
                // Being listed again is no way around a suspension.
                if known.resting_until > now {
                    known.stage = Stage::Resting;
                    let until = known.resting_until;
                    self.resting.insert((until, id));
                } else {
                    known.stage = Stage::Queued;
                    self.queue.push_back(id);
                }
            }
            return;
        }
        let mut node = Node::new(url.clone(), extra);
        node.accounts = accounts;
        if let Some(record) = self.remembered.get(&url) {
            node.record = record.clone();
        }
        let id = if self.nodes.len() < MAX_NODES {
            self.nodes.push(node);
            (self.nodes.len() - 1) as u32
        } else {
            if extra {
                self.make_room(1);
            }
            let Some(id) = self.free.pop_first() else {
                return;
            };
            self.nodes[id as usize] = node;
            id
        };
        self.by_url.insert(url, id);
        self.queue.push_back(id);
    }

    /// Makes room for `more` orchestrators, as far as possible: those that are listed no more and do nothing are
    /// forgotten. All at once, since a list may be long.
    fn make_room(&mut self, more: usize) {
        let room = MAX_NODES - self.nodes.len() + self.free.len();
        let Some(lacking) = more.checked_sub(room).filter(|lacking| *lacking > 0) else {
            return;
        };
        let idle = |node: &Node| !node.listed && matches!(node.stage, Stage::Resting | Stage::Gone);
        let taken = |id: &u32| self.free.contains(id);
        let gone = (0..self.nodes.len() as u32).filter(|id| idle(&self.nodes[*id as usize]));
        let gone: BTreeSet<u32> = gone.filter(|id| !taken(id)).take(lacking).collect();
        self.by_url.retain(|_, known| !gone.contains(known));
        self.resting.retain(|(_, resting)| !gone.contains(resting));
        self.sessions
            .retain(|_, session| !gone.contains(&session.node));
        self.changed.retain(|changed| !gone.contains(changed));
        self.unstored.retain(|unstored| !gone.contains(unstored));
        self.storing.retain(|_, stored| !gone.contains(stored));
        self.free.extend(gone);
    }

    /// An orchestrator is listed no more, and waits in line no more.
    fn let_go(&mut self, id: u32) {
        let lent = |session| self.sessions.get(&session).is_some_and(|one| one.lent > 0);
        if matches!(self.nodes[id as usize].stage, Stage::Session(session) if lent(session)) {
            return;
        }
        self.withdraw(id);
        self.node(id).stage = Stage::Gone;
    }

    /// Ends the session with an orchestrator, or the asking for one. Its place in the queue is the caller's.
    fn withdraw(&mut self, id: u32) {
        match self.node(id).stage {
            Stage::Session(session) => self.drop_session(session),
            Stage::Asked => {
                let asked = self.children.iter().find(|(_, ongoing)| ongoing.node == id);
                if let Some(owner) = asked.map(|(owner, _)| *owner) {
                    self.dismiss(owner);
                }
            }
            Stage::Queued | Stage::Resting | Stage::Gone => {}
        }
    }

    /// How to shake hands with an orchestrator.
    fn terms_for(&self, id: u32) -> handshake::Config {
        let mut config = self.config.handshake.clone();
        let registered = &mut config.terms.registered;
        registered.extend(self.nodes[id as usize].accounts.iter().copied());
        config
    }

    fn own_record(&self, key: &str, value: &[u8]) -> Option<(Url, TrackRecord)> {
        if self.remembered.len() >= MAX_NODES {
            return None;
        }
        let url = Url::parse(key.strip_prefix(RECORD_KEY)?).ok()?;
        Some((url, read_track_record(value)?))
    }

    /// How the remote signers have been, if any were asked.
    #[must_use]
    pub const fn signer_health(&self) -> &SignerHealth {
        &self.health
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
}

impl<S: Selector> Machine for SessionPool<S> {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.pass(now);
        if let Input::Stored(id, answer) = &input
            && let Some(node) = self.storing.remove(id)
        {
            // The orchestrator stays what it is, and nothing waits for this but the next run.
            if answer.is_err() {
                self.unstored.insert(node);
            }
            if self.storing.is_empty() && self.changed.is_empty() {
                self.out.event(Event::Stored);
            }
        }
        let owner = input.id().map(EffectId::owner);
        if let Some(owner) = owner
            && let Some(ongoing) = self.children.get_mut(&owner)
        {
            ongoing.handshake.handle_input(self.now, input);
            self.drain(owner);
        }
        self.settle();
    }

    fn poll_output(&mut self) -> Output<Event> {
        self.out.pop().unwrap_or_else(|| Output::Idle(self.wake()))
    }
}
