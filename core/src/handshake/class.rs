//! Kinds of failures of a handshake.

use crate::error::{Cause, Failure, Party, Reason};
use crate::http::Fault;
use crate::wire::grpc::Status;

/// The kind of failure that a handshake ended in, for statistics (handshake spec 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// The signer or key holder did not introduce us; no orchestrator is to blame.
    Identity,
    /// The orchestrator does not serve this payer.
    Auth,
    /// The orchestrator is full.
    Capacity,
    /// The orchestrator refuses because of the payer's funds; others will answer alike.
    Payer,
    /// The orchestrator's own settings are broken.
    Misconfigured,
    /// The orchestrator shows another certificate than before.
    CertificateChanged,
    /// The orchestrator leads to an address that it may not name.
    Forbidden,
    /// The orchestrator did not answer in time.
    Timeout,
    /// Something else lives there.
    NotAnOrchestrator,
    /// Nobody is there.
    Unreachable,
    /// The orchestrator refused with words of unknown meaning.
    Other,
}

impl Class {
    /// Sorts a failure.
    #[must_use]
    pub fn of(failure: &Failure) -> Self {
        if !matches!(failure.who, Party::Orchestrator(_)) {
            return Self::Identity;
        }
        match &failure.cause {
            Cause::Link(Fault::CertificateChanged { .. }) => Self::CertificateChanged,
            Cause::Link(Fault::Forbidden(_)) => Self::Forbidden,
            Cause::Link(Fault::Protocol(_)) | Cause::Nonsense { .. } => Self::NotAnOrchestrator,
            Cause::Link(_) => Self::Unreachable,
            Cause::TimedOut { .. } => Self::Timeout,
            Cause::Refused { status, reason, .. } => match (reason, *status) {
                (Reason::Signature | Reason::Denied, _) => Self::Auth,
                (Reason::Capacity, _) => Self::Capacity,
                (Reason::SenderReserve | Reason::PayerFunds | Reason::PayerUnlocking, _) => {
                    Self::Payer
                }
                (Reason::Misconfigured, _) => Self::Misconfigured,
                (_, Status::DEADLINE_EXCEEDED) => Self::Timeout,
                (_, Status::UNIMPLEMENTED) => Self::NotAnOrchestrator,
                (_, Status::UNAVAILABLE) => Self::Unreachable,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}
