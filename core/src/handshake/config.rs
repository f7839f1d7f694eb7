//! How long to wait for what, and what to insist on.

use core::time::Duration;

use super::Terms;
use crate::http::Trust;

/// A token with less than this left is renewed.
pub const TOKEN_MARGIN: Duration = Duration::from_secs(180);

/// How long to wait for what, and what to insist on.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How long the first answer may take, connection and certificate included.
    pub call_within: Duration,
    /// How long the answer to a renewal may take, connection and certificate included.
    pub renew_within: Duration,
    /// How long the signer or key holder may take to introduce the payer.
    pub identity_within: Duration,
    /// The answer is renewed when its auth token has less than this left.
    pub renew_margin: Duration,
    /// The answer is renewed at least this often, whatever its token says: ticket parameters live shorter, and only
    /// who reads the chain knows how long. Six minutes suit a gateway that pays (handshake spec 4).
    pub renew_every: Option<Duration>,
    /// A renewal that finds nobody, or a full node, is tried this often in all.
    pub renew_attempts: u32,
    /// Certificates that are good enough for the orchestrator.
    pub trust: Trust,
    /// How to react when the orchestrator shows another certificate than before.
    pub pin_change: PinChange,
    /// Ask also when there is no capacity. The answer then says nothing about whether a job would be taken.
    pub ignore_capacity: bool,
    /// The terms that the orchestrator's answer has to meet.
    pub terms: Terms,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            call_within: Duration::from_secs(5),
            renew_within: Duration::from_millis(2500),
            identity_within: Duration::from_secs(5),
            renew_margin: TOKEN_MARGIN,
            renew_every: None,
            renew_attempts: 3,
            trust: Trust::FirstUse,
            pin_change: PinChange::AcceptOnce,
            ignore_capacity: false,
            terms: Terms::default(),
        }
    }
}

/// How to react when an orchestrator shows another certificate than the one remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PinChange {
    /// Fail. Nothing ties a certificate to an account, so this keeps out whoever took over the address.
    Refuse,
    /// Remember the new one, tell so, and call again; once per call. Orchestrators make a new certificate at every
    /// start.
    #[default]
    AcceptOnce,
}
