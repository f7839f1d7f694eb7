//! The eleventh rule: every exchange that was opened is ended or aborted.

use std::collections::BTreeMap;
use std::time::Duration;

use livepeer_core::http::{Body, In, Out};
use livepeer_core::{EffectId, Time};

/// How long an exchange may be silent before its machine has to have given it up: longer than any deadline of a machine.
const SILENT_AT_MOST: Duration = Duration::from_secs(120);

/// The open exchanges of a machine.
#[derive(Clone, Debug, Default)]
pub struct Exchanges {
    open: BTreeMap<EffectId, Open>,
}

/// An exchange that neither side has ended.
#[derive(Clone, Debug)]
struct Open {
    /// The request is complete, or its answer has begun: the machine has nothing to wait for but its peer.
    due: bool,
    /// The machine asked to hold the peer's bytes back: the silence is its own.
    held: bool,
    /// When the peer, or of a peer's exchange anybody, was last heard.
    heard: Time,
}

impl Exchanges {
    /// The machine wants that done.
    pub fn asked(&mut self, now: Time, id: EffectId, step: &Out) {
        match step {
            Out::Request(request) => {
                let due = request.body != Body::Stream;
                self.insert(id, due, now);
            }
            Out::Abort => {
                self.open.remove(&id);
            }
            Out::Reply(reply) if reply.body != Body::Stream => {
                self.open.remove(&id);
            }
            Out::End(_) if id.is_by_peer() => {
                self.open.remove(&id);
            }
            Out::Reply(_) | Out::Report if id.is_by_peer() => self.hear(id, now),
            // Of ours, beyond HTTP, any word ends a silence.
            Out::Data(_) => self.hear(id, now),
            Out::End(_) => self.update(id, |open| {
                open.due = true;
                open.heard = now;
            }),
            Out::Pause => self.update(id, |open| open.held = true),
            Out::Resume => self.update(id, |open| {
                open.held = false;
                open.heard = now;
            }),
            Out::Reply(_) | Out::Report => {}
        }
    }

    /// The machine is told that.
    pub fn told(&mut self, now: Time, id: EffectId, step: &In) {
        match step {
            In::Request(_) => self.insert(id, false, now),
            In::Failed(_) => {
                self.open.remove(&id);
            }
            In::End(_) if !id.is_by_peer() => {
                self.open.remove(&id);
            }
            In::Reply(_) | In::End(_) => self.update(id, |open| {
                open.due = true;
                open.heard = now;
            }),
            In::Data(_) | In::Sent(_) => self.hear(id, now),
        }
    }

    /// Checks the rule for a machine that has said all it has to say. `patient` is one whose answers to peers may
    /// wait for other peers, and `over` one that has told its last event.
    ///
    /// # Panics
    /// If the machine has forgotten an exchange.
    pub fn check(&self, now: Time, wake: Option<Time>, patient: bool, over: bool) {
        assert!(
            !over || self.open.is_empty(),
            "it has ended and left {:?} open",
            self.open
        );
        for (id, open) in &self.open {
            if !open.due || open.held || (patient && id.is_by_peer()) {
                continue;
            }
            assert!(
                wake.is_some(),
                "no deadline would ever end {id:?}: {open:?}"
            );
            assert!(
                now.since(open.heard) <= SILENT_AT_MOST,
                "{id:?} was forgotten: {open:?}, and it is {now:?}"
            );
        }
    }

    fn insert(&mut self, id: EffectId, due: bool, heard: Time) {
        let held = false;
        self.open.insert(id, Open { due, held, heard });
    }

    fn hear(&mut self, id: EffectId, now: Time) {
        self.update(id, |open| open.heard = now);
    }

    fn update(&mut self, id: EffectId, change: impl FnOnce(&mut Open)) {
        if let Some(open) = self.open.get_mut(&id) {
            change(open);
        }
    }
}
