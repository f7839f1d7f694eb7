//! Quotes that come along with the answer to a payment (payments spec 11.3).

use super::ticket::expected_value;
use crate::money::Price;
use crate::wire::{OrchestratorInfo, TicketParams};

/// Why a quote that came along was not taken over; the old one stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAdopted {
    /// No session exists that the quote could belong to.
    #[error("there is no session to renew")]
    NoSession,
    /// The quote carries another auth token than the session's.
    #[error("it belongs to another session")]
    OtherSession,
    /// The quote comes from another account.
    #[error("it is of another account")]
    OtherAddress,
    /// The quote has no price, or a price of zero.
    #[error("it has no price")]
    NoPrice,
    /// The quote asks more than the session's price.
    #[error("it is dearer")]
    Dearer,
    /// The tickets are missing or worth nothing.
    #[error("its tickets are worth nothing")]
    WorthlessTickets,
}

/// Whether a quote may replace the session's: same account, same auth token, tickets worth something, and a price that
/// is not zero and that the session goes on at.
pub(crate) fn adoptable(
    old: &OrchestratorInfo,
    new: &OrchestratorInfo,
    goes_on_at: impl FnOnce(Price) -> bool,
) -> Result<(), NotAdopted> {
    if new.auth_token != old.auth_token {
        return Err(NotAdopted::OtherSession);
    }
    if new.address != old.address || new.transcoder != old.transcoder {
        return Err(NotAdopted::OtherAddress);
    }
    let price = new
        .price
        .filter(|price| !price.is_free())
        .ok_or(NotAdopted::NoPrice)?;
    if !goes_on_at(price) {
        return Err(NotAdopted::Dearer);
    }
    if new.ticket_params.as_ref().is_some_and(is_worth_something) {
        Ok(())
    } else {
        Err(NotAdopted::WorthlessTickets)
    }
}

/// Whether a ticket may pay anything at all.
pub(crate) fn is_worth_something(params: &TicketParams) -> bool {
    expected_value(&params.face_value, &params.win_prob).is_positive()
}
