//! The reference's judgement whether an orchestrator's info has to be renewed before it is used (handshake spec 4). The
//! handshake renews by time, with the same margin.

use livepeer_core::Time;
use livepeer_core::handshake::TOKEN_MARGIN;
use livepeer_core::wire::OrchestratorInfo;
use num_bigint::BigUint;
use num_traits::Zero as _;

/// At most this many blocks are left when ticket parameters are renewed first.
pub(crate) const BLOCK_MARGIN: u32 = 1;

/// How fresh an orchestrator's answer is: whether it has to be renewed before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Nothing has to be renewed.
    Fresh,
    /// Renew: the auth token is near its end.
    TokenEnds,
    /// Renew: the ticket parameters are near their last block.
    TicketsEnd,
}

/// Info that cannot be used at all, and that the reference does not renew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// The answer has no auth token.
    #[error("there is no auth token")]
    NoToken,
    /// The job is paid, and there is no block up to which tickets are good.
    #[error("the ticket parameters have no expiration block")]
    NoBlock,
}

/// Judges `info`. `latest_l1` is the latest L1 block if this gateway makes its own tickets; with a remote signer,
/// which looks at blocks itself, it is `None`.
///
/// # Errors
/// If the info cannot be used at all.
pub(crate) fn freshness(
    info: &OrchestratorInfo,
    now: Time,
    latest_l1: Option<u64>,
) -> Result<Freshness, Unusable> {
    let token = info.auth_token.as_ref().ok_or(Unusable::NoToken)?;
    if now > token.expiration - TOKEN_MARGIN {
        return Ok(Freshness::TokenEnds);
    }
    let Some(latest) = latest_l1 else {
        return Ok(Freshness::Fresh);
    };
    let last = info
        .ticket_params
        .as_ref()
        .map(|params| &params.expiration_block);
    let last = last
        .filter(|block| !block.is_zero())
        .ok_or(Unusable::NoBlock)?;
    if *last <= BigUint::from(latest) + BLOCK_MARGIN {
        Ok(Freshness::TicketsEnd)
    } else {
        Ok(Freshness::Fresh)
    }
}
