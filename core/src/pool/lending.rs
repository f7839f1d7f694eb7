//! Lending sessions, and what leases that come home teach.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::lease::Held;
use super::node::Node;
use super::{Candidate, Config, Lease, Outcome, Selector, Session, SessionPool, Why};
use crate::capabilities::Capabilities;
use crate::handshake::Handshake;
use crate::rng::Rng;
use crate::time::Time;
use crate::wire::OrchestratorInfo;

impl<S: Selector> SessionPool<S> {
    /// The sessions that could be lent now, by name.
    pub(super) fn listed(&self) -> impl Iterator<Item = (u32, Candidate<'_>)> {
        listed(
            &self.sessions,
            &self.nodes,
            &self.wanted,
            &self.config,
            self.now,
        )
    }

    /// The names of the sessions, and which of them the selector chooses, if any.
    pub(super) fn choose(
        &mut self,
        choose: impl FnOnce(&mut S, &mut Rng, &[Candidate<'_>]) -> Option<usize>,
    ) -> (Vec<u32>, Option<usize>) {
        let all = listed(
            &self.sessions,
            &self.nodes,
            &self.wanted,
            &self.config,
            self.now,
        );
        let (ids, candidates): (Vec<u32>, Vec<Candidate<'_>>) = all.unzip();
        let chosen = choose(&mut self.selector, &mut self.rng, &candidates);
        (ids, chosen)
    }

    pub(super) fn lend(
        &mut self,
        choose: impl FnOnce(&mut S, &mut Rng, &[Candidate<'_>]) -> Option<usize>,
    ) -> Option<Lease> {
        let (ids, chosen) = self.choose(choose);
        self.declined = chosen.is_none() && !ids.is_empty();
        let id = *ids.get(chosen?)?;
        let (payer, share) = (self.payer(), self.share());
        let config = self.terms_for(self.sessions[&id].node);
        let session = self.sessions.get_mut(&id).expect("it was just listed");
        session.lent += 1;
        session.used = session.info.ticket_params.is_some() && !self.config.one_account;
        self.lent += 1;
        let lease = Lease {
            pool: self.id,
            node: session.node,
            session: id,
            info: session.info.clone(),
            held: Box::new(Held {
                to: self.nodes[session.node as usize].url.clone(),
                payer,
                signers: self.health.clone(),
                wanted: Arc::clone(&self.wanted),
                config,
                taken: self.now,
                latency: session.latency,
            }),
        };
        if session.lent >= share {
            if let Some(child) = session.child.take() {
                self.dismiss(child);
            }
        } else {
            self.freshen(id);
        }
        Some(lease)
    }

    /// Gets another quote for a session whose own one went to a job.
    fn freshen(&mut self, id: u32) {
        let Some(session) = self.sessions.get(&id).filter(|session| session.used) else {
            return;
        };
        if let Some(child) = session.child
            && let Some(ongoing) = self.children.get_mut(&child)
        {
            // One that has ended says so, and the session with it.
            let _ = ongoing.handshake.get_mut().renew(self.now);
            self.drain(child);
        }
    }

    /// Takes how long the units of a job took that is done: selection may go by it.
    pub fn measured(&mut self, lease: &Lease, units: u64, took: Duration) {
        if lease.pool == self.id {
            let per_second = u128::from(units) * 1_000_000_000 / took.as_nanos().max(1);
            let per_second = u64::try_from(per_second).unwrap_or(u64::MAX);
            self.node(lease.node).measured(per_second);
        }
    }

    pub(super) fn learn(&mut self, session: u32, node: u32, outcome: Outcome) {
        match outcome {
            Outcome::Unused | Outcome::BadJob => self.resume(session),
            Outcome::Done { first_byte } => {
                let now = self.now;
                self.node(node).done(now, first_byte);
                self.changed.insert(node);
                self.resume(session);
            }
            Outcome::Stale => {
                self.drop_session(session);
                self.enqueue(node);
            }
            Outcome::Full => {
                // What it said last may name others of its own that are free.
                let known = self.sessions.get(&session);
                let nodes = known.map(|known| known.info.nodes.clone());
                self.send_on(node, &nodes.unwrap_or_default());
                self.drop_session(session);
                let pause = self.nodes[node as usize].full_again(&self.config);
                self.pause(node, Why::Full, pause);
            }
            Outcome::Gone => {
                self.drop_session(session);
                self.pause(node, Why::Gone, self.config.rejected_pause);
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

    /// Learns from a lease whose session had ended before it came home.
    pub(super) fn learn_late(&mut self, node: u32, taken: Time, outcome: Outcome) {
        match outcome {
            Outcome::Done { first_byte } => {
                let now = self.now;
                self.node(node).done(now, first_byte);
                self.changed.insert(node);
            }
            // A fault that came while it was lent was told by another job: one incident counts once.
            Outcome::Failed(failure) if self.node(node).was_good_since(taken) => {
                self.queue.retain(|queued| *queued != node);
                self.withdraw(node);
                self.suspend(node, failure);
            }
            _ => {}
        }
    }

    /// A session came home in good order: it is kept fresh again, unless its token is about to end.
    pub(super) fn resume(&mut self, id: u32) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let node = session.node;
        if !session.is_fresh(&self.config, self.now) && session.lent == 0 {
            self.drop_session(id);
            return self.enqueue(node);
        }
        if session.child.is_some() {
            return self.freshen(id);
        }
        let info = session.info.clone();
        let handshake = Handshake::resume(
            self.now,
            self.terms_for(node),
            self.node(node).url.clone(),
            self.payer(),
            Capabilities::clone(&self.wanted),
            info,
        );
        let child = self.adopt(node, handshake, Some(id));
        if let Some(session) = self.sessions.get_mut(&id) {
            session.child = Some(child);
        }
        self.drain(child);
        self.freshen(id);
    }

    /// Forgets a session, or lets nobody else have it while jobs still do.
    pub(super) fn drop_session(&mut self, id: u32) {
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
}

/// The candidates that a selector chooses among, with the names of the sessions. The pool's selector is not among the
/// arguments, so that it can choose among them.
fn listed<'a>(
    sessions: &'a BTreeMap<u32, Session>,
    nodes: &'a [Node],
    wanted: &'a Capabilities,
    config: &'a Config,
    now: Time,
) -> impl Iterator<Item = (u32, Candidate<'a>)> {
    let lendable = sessions
        .iter()
        .filter(move |(_, session)| session.is_lendable(config, now));
    lendable.map(|(id, session)| {
        let node = &nodes[session.node as usize];
        let candidate = Candidate {
            url: &session.info.transcoder,
            info: &session.info,
            latency: session.latency,
            lent: session.lent,
            warm: is_warm(&session.info, wanted),
            record: &node.record,
            speed: node.speed,
        };
        (*id, candidate)
    })
}

fn is_warm(info: &OrchestratorInfo, wanted: &Capabilities) -> bool {
    wanted.models().all(|(capability, name, _)| {
        let offered = info.capabilities.as_ref();
        let model = offered.and_then(|offered| offered.model(capability, name));
        model.is_none_or(|model| model.warm)
    })
}
