//! Shaking hands: whom to ask when, and what comes of it.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::node::Stage;
use super::patience::Patience;
use super::{
    Event, LAST_CHILD, MAX_HEDGE, MAX_SENT_ON, Offered, Ongoing, RECORD_KEY, SOON, Selector,
    Session, SessionPool, Why,
};
use crate::capabilities::Capabilities;
use crate::error::{Failure, Party};
use crate::handshake::{self, Class, Handshake, Identity, Rejection, node_urls};
use crate::http::Url;
use crate::machine::{Child, Effect, Input, earlier};
use crate::store;
use crate::time::Time;
use crate::wire::{OrchestratorInfo, track_record_bytes};

impl<S: Selector> SessionPool<S> {
    /// Time passes: who has rested enough waits in line again.
    pub(super) fn pass(&mut self, now: Time) {
        self.now = self.now.max(now);
        while let Some((until, node)) = self.resting.first().copied()
            && until <= self.now
        {
            self.resting.pop_first();
            let known = self.node(node);
            if matches!(known.stage, Stage::Resting) && known.resting_until <= until {
                self.node(node).stage = Stage::Queued;
                self.node(node).suspended = false;
                self.queue.push_back(node);
            }
        }
    }

    /// After every call: wake children, ask more, or say that there is no more.
    pub(super) fn settle(&mut self) {
        self.tick();
        if let Some(patience) = self.config.patience
            && self.gathering.is_none()
            && self.ready() == 0
            && self.may_ask()
            && !self.queue.is_empty()
        {
            self.gathering = Some(Patience::new(self.now, patience));
        }
        while self.may_ask()
            && let Some(node) = self.queue.pop_front()
        {
            let handshake = Handshake::new(
                self.now,
                self.terms_for(node),
                self.node(node).url.clone(),
                self.identity.clone(),
                Capabilities::clone(&self.wanted),
            );
            let child = self.adopt(node, handshake, None);
            self.node(node).stage = Stage::Asked;
            self.drain(child);
        }
        self.gather();
        self.store();
        if !self.short() {
            return;
        }
        if self.waiting && self.offered && (self.ready() == 0 || self.declined) {
            self.out.event(Event::Exhausted(self.tried()));
            self.waiting = false;
            self.declined = false;
        }
        let wanted = self.waiting || self.offered;
        if wanted && self.refresh_at().is_none_or(|at| at <= self.now) {
            self.refreshed = Some(self.now);
            self.out.event(Event::Refresh);
        }
    }

    /// Tells of the sessions gathered, once there are enough or the patience is over.
    fn gather(&mut self) {
        let ready = self.ready();
        let over = match &mut self.gathering {
            None => return,
            Some(patience) => patience.is_over(self.now, ready > 0),
        };
        let asking = self.is_asking();
        if over || ready >= self.enough() || (!asking && self.queue.is_empty()) {
            self.gathering = None;
            for url in core::mem::take(&mut self.gathered) {
                self.announce(url);
            }
            // Somebody may have come home meanwhile, told of long ago.
            let home = self.sessions.values().find(|home| self.lendable(home));
            if let Some(url) = home
                .filter(|_| self.waiting)
                .map(|home| home.info.transcoder.clone())
            {
                self.announce(url);
            }
        }
    }

    pub(super) fn announce(&mut self, url: Url) {
        if self.gathering.is_some() {
            self.gathered.push(url);
            return;
        }
        self.waiting = false;
        self.declined = false;
        self.out.event(Event::Available(url));
    }

    /// Asks for changed records to be kept, and once more for those that the store did not keep. One batch is on its
    /// way at a time, so a store that hangs holds no more than there are orchestrators.
    fn store(&mut self) {
        if self.changed.is_empty() || self.is_storing() {
            return;
        }
        self.changed.append(&mut self.unstored);
        for id in core::mem::take(&mut self.changed) {
            if self.config.remember {
                let node = &self.nodes[id as usize];
                let storing = self.out.open(Effect::Store(store::Record {
                    key: alloc::format!("{RECORD_KEY}{}", node.url),
                    value: Some(track_record_bytes(&node.record).into()),
                }));
                self.storing.insert(storing, id);
            }
        }
    }

    pub(super) fn tick(&mut self) {
        let due: Vec<u32> = self
            .children
            .iter()
            .filter(|(_, ongoing)| {
                ongoing
                    .handshake
                    .wake()
                    .is_some_and(|wake| wake <= self.now)
            })
            .map(|(owner, _)| *owner)
            .collect();
        for owner in due {
            if let Some(ongoing) = self.children.get_mut(&owner) {
                ongoing.handshake.handle_input(self.now, Input::Tick);
                self.drain(owner);
            }
        }
    }

    /// Whether there are fewer sessions than wanted, and nobody left to ask.
    pub(super) fn short(&self) -> bool {
        !self.is_asking() && !self.stalled && self.queue.is_empty() && self.ready() < self.enough()
    }

    /// Whether an answer is awaited that may bring a session to lend: a first one, or the renewal of one that went
    /// stale, or whose quote a job had. A renewal that failed once is tried again, and nobody has to wait for that.
    fn is_asking(&self) -> bool {
        self.children.values().any(|ongoing| match ongoing.session {
            None => true,
            Some(_) if ongoing.handshake.get().is_pausing() => false,
            Some(id) => self.sessions.get(&id).is_some_and(|session| {
                !session.closing && (session.used || !session.is_fresh(&self.config, self.now))
            }),
        })
    }

    pub(super) fn enough(&self) -> usize {
        if self.declined {
            // None of those at hand will do: anybody might.
            return usize::MAX;
        }
        self.config.ready.max(self.waiting.into())
    }

    pub(super) fn refresh_at(&self) -> Option<Time> {
        Some(self.refreshed? + self.config.refresh_pause.max(SOON))
    }

    pub(super) fn wake(&self) -> Option<Time> {
        let mut wake = self.resting.first().map(|(until, _)| *until);
        if self.short() && self.offered {
            wake = earlier(wake, self.refresh_at());
        }
        wake = earlier(wake, self.gathering.as_ref().map(Patience::wake));
        let hungry = !self.queue.is_empty();
        for ongoing in self.children.values() {
            wake = earlier(wake, ongoing.handshake.wake());
            let slow_at = ongoing.began + self.config.hedge_after;
            if hungry && ongoing.session.is_none() && slow_at > self.now {
                wake = earlier(wake, Some(slow_at));
            }
        }
        wake
    }

    pub(super) fn may_ask(&self) -> bool {
        if self.stalled || self.ready() >= self.enough() {
            return false;
        }
        let asking = self
            .children
            .values()
            .filter(|ongoing| ongoing.session.is_none());
        let (mut all, mut young) = (0, 0);
        for ongoing in asking {
            all += 1;
            young += usize::from(self.now.since(ongoing.began) < self.config.hedge_after);
        }
        // One asks for all who we are.
        if !matches!(self.identity, Identity::Static { .. } | Identity::Offchain) {
            return all == 0;
        }
        let most = self.config.in_flight.max(1);
        young < most && all < most * MAX_HEDGE
    }

    pub(super) fn drain(&mut self, owner: u32) {
        let mut events = Vec::new();
        if let Some(ongoing) = self.children.get_mut(&owner) {
            ongoing
                .handshake
                .drain(&mut self.out, |event| events.push(event));
        }
        for event in events {
            self.on_handshake(owner, event);
        }
    }

    pub(super) fn on_handshake(&mut self, owner: u32, event: handshake::Event) {
        let Some(ongoing) = self.children.get(&owner) else {
            return;
        };
        let (node, session) = (ongoing.node, ongoing.session);
        match event {
            handshake::Event::Signers(seen) => {
                if self.health.merge(&seen) {
                    self.out.event(Event::Signers(self.health.clone()));
                }
                if let Identity::Remote(signers) = &mut self.identity {
                    signers.learn(&self.health);
                }
            }
            handshake::Event::Identified(address, signature) => {
                self.identity = Identity::Static { address, signature };
                self.out.event(Event::Identified(address, signature));
            }
            handshake::Event::Ready(info) => self.on_ready(owner, node, info),
            handshake::Event::Renewed(info) => {
                let (config, now) = (&self.config, self.now);
                let moved = |session: &Session| session.info.transcoder != info.transcoder;
                if let Some(id) = session
                    && self.sessions.get(&id).is_some_and(moved)
                {
                    // Somewhere else is somebody else, until a handshake says who.
                    self.drop_session(id);
                    return self.enqueue(node);
                }
                if let Some(session) = session.and_then(|id| self.sessions.get_mut(&id)) {
                    let could = session.is_lendable(config, now);
                    session.info = info.clone();
                    session.told = now;
                    session.used = false;
                    let can = session.is_lendable(config, now);
                    let url = info.transcoder.clone();
                    self.out.event(Event::Renewed(info));
                    if can && !could {
                        self.announce(url);
                    }
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
                let known = session.and_then(|id| self.sessions.get(&id));
                if let Some(known) = known
                    && Class::of(&failure) == Class::Capacity
                {
                    let nodes = known.info.nodes.clone();
                    self.send_on(node, &nodes);
                }
                self.lose(session);
                self.on_failed(node, failure);
            }
            handshake::Event::Closed => {}
        }
    }

    /// The renewing handshake of a session ended by itself, and with it the session.
    pub(super) fn lose(&mut self, session: Option<u32>) {
        if let Some(id) = session {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.child = None;
            }
            self.drop_session(id);
        }
    }

    pub(super) fn on_ready(&mut self, owner: u32, node: u32, info: Arc<OrchestratorInfo>) {
        let took = self.children[&owner]
            .handshake
            .get()
            .took()
            .unwrap_or_default();
        self.node(node).answered(took);
        self.changed.insert(node);
        let key = info.transcoder.with_path("/");
        if let Some((same, pause)) = self.speaks_for_itself(node, &key) {
            self.dismiss(owner);
            return self.pause(node, Why::Same(same), pause);
        }
        if !self.node(node).extra {
            self.take_in_nodes(node, &info.nodes, self.config.extra_nodes);
        }
        let id = self.next_session;
        self.next_session += 1;
        if let Some(ongoing) = self.children.get_mut(&owner) {
            ongoing.session = Some(id);
        }
        let known = self.node(node);
        known.stage = Stage::Session(id);
        known.why = None;
        let url = info.transcoder.clone();
        let session = Session {
            node,
            info,
            latency: took,
            lent: 0,
            child: Some(owner),
            closing: false,
            told: self.now,
            used: false,
        };
        self.sessions.insert(id, session);
        self.announce(url);
    }

    /// A node takes no work just now: those that it names are asked whether extra ones are wanted or not.
    pub(super) fn send_on(&mut self, by: u32, named: &[String]) {
        if !self.node(by).extra {
            self.take_in_nodes(by, named, self.config.extra_nodes.max(MAX_SENT_ON));
        }
    }

    /// Takes in the first of the further nodes that one names. They are paid as it is.
    fn take_in_nodes(&mut self, by: u32, named: &[String], most: usize) {
        let by = &self.nodes[by as usize];
        let accounts = by.accounts.clone();
        let nodes = node_urls(&by.url, named).into_iter().take(most);
        for url in nodes {
            let offered = Offered {
                accounts: accounts.clone(),
                ..url.into()
            };
            self.take_in(offered, true);
        }
    }

    /// Whether a node that says it is at `key` gets a session of its own; if not, whom it is the same as, and how
    /// long it rests.
    ///
    /// Two addresses may be one orchestrator, and then they are one session and one suspension. But anybody can
    /// claim to be somebody else: whoever answers at its own address outranks those who only name it.
    fn speaks_for_itself(&mut self, node: u32, key: &Url) -> Option<(Url, Duration)> {
        let own = self.node(node).url == *key;
        let owner = *self.by_url.entry(key.clone()).or_insert(node);
        let twin = self
            .sessions
            .iter()
            .find(|(_, session)| !session.closing && session.info.transcoder.is_same_origin(key));
        if let Some((id, twin)) = twin {
            let (id, other, lent) = (*id, twin.node, twin.lent);
            let other_url = self.node(other).url.clone();
            if !own || other_url == *key {
                return Some((other_url, self.config.rejected_pause));
            }
            if lent > 0 {
                return Some((other_url, self.config.full_pause));
            }
            self.drop_session(id);
            self.pause(other, Why::Same(key.clone()), self.config.rejected_pause);
            return None;
        }
        let known = &self.nodes[owner as usize];
        let waits = matches!(known.stage, Stage::Queued | Stage::Gone);
        // Not being listed any more is no way around a suspension either.
        let free = own || owner == node || (waits && known.resting_until <= self.now);
        (!free).then(|| (self.node(owner).url.clone(), self.config.rejected_pause))
    }

    pub(super) fn on_rejected(&mut self, node: u32, rejection: Rejection) {
        if let Rejection::NoWork { nodes } = &rejection {
            self.send_on(node, nodes);
        }
        self.pause(node, Why::Rejected(rejection), self.config.rejected_pause);
    }

    pub(super) fn on_failed(&mut self, node: u32, failure: Failure) {
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

    /// Leaves a node alone for a while, without blame.
    pub(super) fn pause(&mut self, node: u32, why: Why, pause: Duration) {
        let until = self.now + pause.max(SOON);
        let known = self.node(node);
        known.why = Some(why);
        known.rest(until);
        let until = known.resting_until;
        self.resting.insert((until, node));
    }

    pub(super) fn suspend(&mut self, node: u32, failure: Failure) {
        let (now, config) = (self.now, &self.config);
        let known = &mut self.nodes[node as usize];
        known.why = Some(Why::Failed(failure));
        let until = known.fault(now, config);
        let url = known.url.clone();
        self.out.event(Event::Suspended(url.clone(), until));
        self.resting.insert((until, node));
        self.changed.insert(node);
        // Whoever leads to it is no way around.
        let leads =
            |session: &Session| !session.closing && session.info.transcoder.is_same_origin(&url);
        let others = self.sessions.iter().filter(|(_, session)| leads(session));
        for (id, other) in others
            .map(|(id, session)| (*id, session.node))
            .collect::<Vec<_>>()
        {
            self.drop_session(id);
            if other != node {
                self.pause(other, Why::Same(url.clone()), self.config.rejected_pause);
            }
        }
    }

    pub(super) fn enqueue(&mut self, node: u32) {
        self.node(node).stage = Stage::Queued;
        self.node(node).suspended = false;
        self.queue.push_front(node);
    }

    pub(super) fn adopt(&mut self, node: u32, handshake: Handshake, session: Option<u32>) -> u32 {
        // A child's number comes again after millions of others.
        while self.children.contains_key(&self.next_child) {
            self.next_child = self.next_child % LAST_CHILD + 1;
        }
        let owner = self.next_child;
        self.next_child = owner % LAST_CHILD + 1;
        let ongoing = Ongoing {
            handshake: Child::new(owner, handshake),
            node,
            began: self.now,
            session,
        };
        self.children.insert(owner, ongoing);
        owner
    }

    /// Ends a child; its last words are of no interest.
    pub(super) fn dismiss(&mut self, owner: u32) {
        if let Some(mut ongoing) = self.children.remove(&owner) {
            ongoing.handshake.get_mut().close(self.now);
            ongoing.handshake.drain(&mut self.out, |_| {});
        }
    }
}
