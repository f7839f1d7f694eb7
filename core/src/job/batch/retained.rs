//! An orchestrator that was hired before, and what is kept of it from job to job.

use alloc::sync::Arc;

use super::types::JobId;
use crate::handshake::Handshake;
use crate::job::account::Account;
use crate::machine::{Child, EffectId, earlier};
use crate::time::Time;
use crate::wire::OrchestratorInfo;

/// At most this many orchestrators are remembered with what they owe.
pub(super) const MAX_RETAINED: usize = 1_024;

/// An orchestrator that was hired before and may be hired again, under one balance.
pub(super) struct Retained {
    pub(super) account: Account<JobId>,
    /// Brings the quote that the payments need.
    pub(super) handshake: Option<Child<Handshake>>,
    /// The info that came with the last lease.
    pub(super) seen: Arc<OrchestratorInfo>,
    /// When a job last came here.
    pub(super) used: Time,
}

impl Retained {
    pub(super) fn owns(&self, id: EffectId) -> bool {
        self.account.owns(id)
            || self
                .handshake
                .as_ref()
                .is_some_and(|handshake| handshake.owns(id))
    }

    pub(super) fn wake(&self) -> Option<Time> {
        let handshake = self.handshake.as_ref().and_then(Child::wake);
        earlier(self.account.wake(), handshake)
    }

    /// Whether it may be forgotten.
    pub(super) fn is_idle(&self) -> bool {
        self.account.is_idle() && self.handshake.is_none()
    }
}
