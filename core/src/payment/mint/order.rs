//! Orders for payments, and how a request to a signer spells one.

use alloc::string::{String, ToString as _};

use num_rational::BigRational;

use super::Refusal;
use crate::capabilities::Capabilities;
use crate::units::Unit;
use crate::wire::signer::PaymentRequest;

/// An order for one payment.
#[derive(Clone, Debug)]
pub struct Order {
    /// The work that is billed.
    pub billed: Billed,
    /// The job's name at the orchestrator. May be empty in a session's first payment only.
    pub manifest_id: String,
    /// The model that the job runs, if the caller says; fixed for a session.
    pub app: String,
    /// The capabilities that the job needs.
    pub capabilities: Option<Capabilities>,
    /// The caller's ceiling, in wei per unit.
    pub ceiling: Option<BigRational>,
}

/// The work that a payment bills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billed {
    /// The preload at first, then the time since the last payment.
    Elapsed(Unit),
    /// A number of units.
    Units(u64),
}

impl Billed {
    /// The unit of what elapses.
    pub(super) const fn unit(self) -> Option<Unit> {
        match self {
            Self::Elapsed(unit) => Some(unit),
            Self::Units(_) => None,
        }
    }

    /// The type by which signers name a job that is billed so; empty for a number of units.
    pub(super) fn job_type(self) -> &'static str {
        self.unit().map_or("", Unit::signer_type)
    }
}

pub(super) fn billed(request: &PaymentRequest) -> Result<Billed, Refusal> {
    match Unit::from_signer_type(&request.job_type) {
        Some(unit) => Ok(Billed::Elapsed(unit)),
        None if request.job_type.is_empty() => {
            Ok(Billed::Units(u64::try_from(request.in_pixels).unwrap_or(0)))
        }
        None => Err(Refusal::bad("invalid job type")),
    }
}

pub(super) fn capabilities(request: &PaymentRequest) -> Result<Option<Capabilities>, Refusal> {
    let raw = request.capabilities.as_ref().filter(|raw| !raw.is_empty());
    raw.map(|raw| Capabilities::from_bytes(raw))
        .transpose()
        .map_err(|err| Refusal::bad(err.to_string()))
}

pub(super) fn ceiling(
    request: &PaymentRequest,
    billed: Billed,
) -> Result<Option<BigRational>, Refusal> {
    let max = request.max_price.as_ref();
    max.map(|max| max.parse(billed.unit()))
        .transpose()
        .map_err(|err| Refusal::bad(err.to_string()))
}
