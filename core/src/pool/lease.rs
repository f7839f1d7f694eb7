//! A session lent to a job, and what became of it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;

use crate::capabilities::Capabilities;
use crate::error::Failure;
use crate::handshake::{self, Handshake, Rejection};
use crate::http::Url;
use crate::sign::{Address, Signature};
use crate::signers::SignerHealth;
use crate::time::Time;
use crate::wire::OrchestratorInfo;

/// A session of an orchestrator, lent to a job. A lease cannot be cloned and has to come home: hand it to
/// [`SessionPool::give_back`](super::SessionPool::give_back) whatever happens.
#[derive(Debug)]
#[must_use = "a lease has to come home"]
pub struct Lease {
    pub(super) pool: u64,
    pub(super) node: u32,
    pub(super) session: u32,
    /// The orchestrator's latest info. A job that gets a newer one puts it here, so that the next job starts with it.
    pub info: Arc<OrchestratorInfo>,
    /// Boxed, so that leases travel light.
    pub(super) held: Box<Held>,
}

/// The parts of a session that a lease needs to go on by itself.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) to: Url,
    pub(super) payer: Option<(Address, Signature)>,
    pub(super) signers: SignerHealth,
    pub(super) wanted: Arc<Capabilities>,
    pub(super) config: handshake::Config,
    pub(super) taken: Time,
    pub(super) latency: Duration,
}

impl Lease {
    /// Where the work goes, and the orchestrator's name in events.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.info.transcoder
    }

    /// The capabilities that the session was opened for.
    #[must_use]
    pub fn wanted(&self) -> &Capabilities {
        &self.held.wanted
    }

    /// The payer; `None` without a chain.
    #[must_use]
    pub fn payer(&self) -> Option<(Address, Signature)> {
        self.held.payer
    }

    /// How the remote signers were when they were asked who pays.
    #[must_use]
    pub fn signer_health(&self) -> &SignerHealth {
        &self.held.signers
    }

    /// How long the orchestrator took for its handshake.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.held.latency
    }

    /// The time at which the lease was taken.
    #[must_use]
    pub fn taken(&self) -> Time {
        self.held.taken
    }

    /// A handshake that keeps the session fresh while it is lent. The pool itself renews only what it holds.
    #[must_use]
    pub fn handshake(&self, now: Time) -> Handshake {
        Handshake::resume(
            now,
            self.held.config.clone(),
            self.held.to.clone(),
            self.held.payer,
            Capabilities::clone(&self.held.wanted),
            self.info.clone(),
        )
    }
}

/// The outcome of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The lease was not used, or the job ended without a verdict about the orchestrator.
    Unused,
    /// The work was done.
    Done {
        /// The time from the request to the first byte of the result, if that was seen.
        first_byte: Option<Duration>,
    },
    /// The job itself was wrong: its owner's fault, never the orchestrator's.
    BadJob,
    /// The orchestrator's auth token or ticket parameters were refused; it is as good as before once it is renewed.
    Stale,
    /// The orchestrator has no capacity just now. No fault.
    Full,
    /// The orchestrator does such work no more. No fault.
    Gone,
    /// The orchestrator asks more than we pay, or more than it said.
    TooDear,
    /// The orchestrator failed.
    Failed(Failure),
}

/// The outcome of trying an orchestrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The orchestrator.
    pub url: Url,
    /// Why there is no session with it.
    pub why: Why,
}

/// Why there is no session with an orchestrator.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The orchestrator does not fit.
    Rejected(Rejection),
    /// The orchestrator failed.
    Failed(Failure),
    /// The orchestrator had no capacity.
    Full,
    /// The orchestrator does such work no more.
    Gone,
    /// The orchestrator asked more than we pay, or more than it said.
    TooDear,
    /// The orchestrator failed before and is left alone until then.
    Suspended {
        /// The end of the suspension.
        until: Time,
        /// The orchestrator's last failure.
        failure: Failure,
    },
    /// The address is another name of this one.
    Same(Url),
    /// All of its sessions are lent.
    Lent,
    /// A session with the orchestrator is there, and the selector does not want it.
    Declined,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => fmt::Display::fmt(rejection, f),
            Self::Failed(failure) => fmt::Display::fmt(&failure.cause, f),
            Self::Full => f.write_str("it has no capacity"),
            Self::Gone => f.write_str("it does such work no more"),
            Self::TooDear => f.write_str("it asks more than we pay"),
            Self::Suspended { failure, .. } => {
                write!(f, "{} (left alone for a while)", failure.cause)
            }
            Self::Same(url) => write!(f, "it is the same as {url}"),
            Self::Lent => f.write_str("it is at work already"),
            Self::Declined => f.write_str("it is not wanted: too dear, or too bad"),
        }
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.url, self.why)
    }
}
