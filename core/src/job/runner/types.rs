//! Settings, events and errors of a registration.

use alloc::string::String;

use crate::error::Failure;
use crate::http::Trust;
use crate::wire::app::registration::BadHeartbeat;

/// Settings of a [`Registration`](super::Registration).
#[derive(Clone, Debug)]
pub struct Config {
    /// Certificates of the orchestrator that are good enough.
    pub trust: Trust,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            trust: Trust::FirstUse,
        }
    }
}

/// An event of a [`Registration`](super::Registration).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The orchestrator rents the runner out under this name. Told again after it had forgotten the runner.
    Registered(String),
    /// A session was reserved.
    Reserved(String),
    /// A session is over.
    Released(String),
    /// A sign of life was not taken. The next one follows after the interval.
    Failed(Failure),
    /// The last event: the runner was taken away, or the orchestrator did not register it.
    Ended(Result<(), Failure>),
}

/// Why a registration cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// The sign of life is none.
    #[error(transparent)]
    Heartbeat(#[from] BadHeartbeat),
    /// The shared secret cannot be sent.
    #[error("the secret is empty, or has blanks or signs that are not ASCII")]
    Secret,
}
