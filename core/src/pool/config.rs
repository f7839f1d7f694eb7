//! Settings and events of a pool.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::Tried;
use crate::error::Failure;
use crate::handshake;
use crate::http::Url;
use crate::sign::{Address, Signature};
use crate::signers::SignerHealth;
use crate::time::Time;
use crate::wire::OrchestratorInfo;
use crate::wire::listing::Found;

/// How a pool searches, lends and forgives.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The settings of every handshake, and the terms that answers have to meet.
    pub handshake: handshake::Config,
    /// How many sessions are kept ready, not counting lent ones: one for the next job and one to fail over to.
    pub ready: usize,
    /// At most this many handshakes run at a time, not counting those slower than [`Config::hedge_after`].
    pub in_flight: usize,
    /// A handshake slower than this no longer holds up the next one.
    pub hedge_after: Duration,
    /// The first job waits until enough sessions are ready to choose among, but not longer than this if there is
    /// one, as the reference's [`Patience`](super::Patience) has it. `None` takes the first good answer.
    pub patience: Option<Duration>,
    /// At most this many jobs share a session.
    pub share: u32,
    /// Whether all jobs that share a session pay from one account with the orchestrator, so that they may share its quote.
    pub one_account: bool,
    /// At most this many of the further nodes that an orchestrator names are asked too.
    pub extra_nodes: usize,
    /// The first fault suspends for this long.
    pub min_penalty: Duration,
    /// No fault suspends for longer.
    pub max_penalty: Duration,
    /// How long without a fault takes one fault off the count.
    pub heal_after: Duration,
    /// A node without capacity is left alone for this long; one that says so many times running for longer each time.
    pub full_pause: Duration,
    /// A node that did not fit is left alone for this long.
    pub rejected_pause: Duration,
    /// [`Event::Refresh`] comes at most this often.
    pub refresh_pause: Duration,
    /// Whether records of orchestrators are kept between runs: by [`Effect::Store`](crate::Effect::Store), and
    /// [`recall`](super::SessionPool::recall) at the next start.
    pub remember: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            handshake: handshake::Config::default(),
            ready: 2,
            in_flight: 5,
            hedge_after: Duration::from_millis(500),
            patience: None,
            share: 1,
            one_account: false,
            extra_nodes: 0,
            min_penalty: Duration::from_secs(10),
            max_penalty: Duration::from_secs(30 * 60),
            heal_after: Duration::from_secs(10 * 60),
            full_pause: Duration::from_secs(15),
            rejected_pause: Duration::from_secs(5 * 60),
            refresh_pause: Duration::from_secs(60),
            remember: false,
        }
    }
}

/// An orchestrator as it is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The URL of the orchestrator.
    pub url: Url,
    /// The accounts that are registered for that address; empty if unknown.
    pub accounts: BTreeSet<Address>,
}

impl From<Url> for Offered {
    fn from(url: Url) -> Self {
        Self {
            url: url.with_path("/"),
            accounts: BTreeSet::new(),
        }
    }
}

impl From<&Found> for Offered {
    fn from(found: &Found) -> Self {
        Self {
            url: found.url.with_path("/"),
            accounts: found.accounts().copied().collect(),
        }
    }
}

/// An event of the pool, for its owner.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A session is there to take: a new one, or one that came home while a job waits.
    Available(Url),
    /// Everything offered was tried, a job waits, and there is no session: why not, for each. Comes once per
    /// fruitless [`take`](super::SessionPool::take); offering or waiting may still help.
    Exhausted(Vec<Tried>),
    /// Fewer sessions than wanted can be had of what was offered: look for more.
    Refresh,
    /// An orchestrator failed and is left alone until then.
    Suspended(Url, Time),
    /// The payer is known: other pools may use it as [`Identity::Static`](crate::handshake::Identity::Static).
    Identified(Address, Signature),
    /// The payer is unknown, so no orchestrator can be asked: the signer or key holder did not introduce us. The next
    /// take or offer tries again.
    NoIdentity(Failure),
    /// How remote signers have been, whenever that has changed.
    Signers(SignerHealth),
    /// An orchestrator showed another certificate than before, and was accepted with it.
    PinChanged {
        /// The orchestrator.
        url: Url,
        /// SHA-256 of the leaf remembered.
        remembered: [u8; 32],
        /// SHA-256 of the leaf shown now.
        seen: [u8; 32],
    },
    /// A session has a newer info of its orchestrator, which leases taken from now on carry.
    Renewed(Arc<OrchestratorInfo>),
    /// All records so far are in the store, or it refused them: those it is asked to keep again with the next.
    Stored,
}
