//! Terms that an orchestrator's answer has to meet before we work with it.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::capabilities::{Capabilities, Ceilings, Mismatch, TooDear, compatible};
use crate::error::Cause;
use crate::http::Url;
use crate::payment::Payer;
use crate::payment::requote::is_worth_something;
use crate::sign::Address;
use crate::wire::OrchestratorInfo;

/// Our conditions, beside the capabilities that the job needs (handshake spec 9.1).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    /// The way the work is paid. To a payer an answer without price or ticket parameters is of no use.
    pub paying: Paying,
    /// The most we pay.
    pub ceilings: Ceilings,
    /// Node accounts we do not work with. They are claims: a node that lies gets past this.
    pub blocked: BTreeSet<Address>,
    /// The accounts that are registered for the address on the chain; empty if unknown. Tickets that pay another
    /// account are refused, since the peer that answers there may not be the orchestrator that was chosen.
    pub registered: BTreeSet<Address>,
    /// Pay also whom nobody registered for the address.
    pub any_recipient: bool,
    /// Refuse nodes that do not spell out every wanted model, as the reference's AI pools do (handshake spec 11.2).
    /// Otherwise a node without an entry for the capability passes.
    pub listed_models_only: bool,
}

/// The way the work is paid, as far as it decides with whom we work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paying {
    /// No one pays.
    #[default]
    Nobody,
    /// A key of our own.
    OwnKey,
    /// A remote signer, which makes no payment of nothing: who asks no price cannot be given a job (payments spec 7.4).
    Remote,
}

impl Payer {
    /// The way this payer pays.
    #[must_use]
    pub const fn paying(&self) -> Paying {
        match self {
            Self::Offchain => Paying::Nobody,
            Self::Remote(_) => Paying::Remote,
            Self::Account(_) => Paying::OwnKey,
        }
    }
}

impl Terms {
    /// Whether we work with who answered this.
    ///
    /// # Errors
    /// The first condition that is not met.
    pub fn accept(&self, info: &OrchestratorInfo, wanted: &Capabilities) -> Result<(), Rejection> {
        if self.blocked.contains(&info.address) {
            return Err(Rejection::Blocked(info.address));
        }
        compatible(info.capabilities.as_ref(), wanted)?;
        if self.listed_models_only
            && let Some(offered) = &info.capabilities
        {
            offered.list(wanted)?;
        }
        if let Some(params) = &info.ticket_params
            && !self.any_recipient
            && let Some(registered) = self.registered.first()
            && !self.registered.contains(&params.recipient)
        {
            return Err(Rejection::OtherRecipient {
                registered: *registered,
                others: self.registered.len() - 1,
                asked: params.recipient,
            });
        }
        if info.auth_token.is_none() {
            return Err(Rejection::NoAuthToken);
        }
        if self.paying != Paying::Nobody {
            let params = info
                .ticket_params
                .as_ref()
                .ok_or(Rejection::NoTicketParams)?;
            let price = info.price.ok_or(Rejection::NoPrice)?;
            self.ceilings.allow(wanted, price)?;
            if !price.is_free() {
                if !is_worth_something(params) {
                    return Err(Rejection::WorthlessTickets);
                }
            } else if self.paying == Paying::Remote {
                return Err(Rejection::Free);
            }
        }
        Ok(())
    }
}

/// Why an orchestrator that answered is not worked with. It did nothing wrong; it does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The orchestrator cannot do what the job asks for.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The answer has no auth token, without which the orchestrator takes no work.
    #[error("it gave no auth token")]
    NoAuthToken,
    /// The job is paid, and the answer has nothing to make tickets from: an off-chain orchestrator.
    #[error("it gave no ticket parameters to pay it with")]
    NoTicketParams,
    /// The job is paid, and the answer names no price.
    #[error("it named no price")]
    NoPrice,
    /// The orchestrator asks more than we pay.
    #[error(transparent)]
    TooDear(#[from] TooDear),
    /// The orchestrator asks nothing, and a remote signer is to pay.
    #[error("it asks no price, and a remote signer makes no payment of nothing")]
    Free,
    /// The orchestrator asks a price, and no number of its tickets would pay that.
    #[error("its tickets are worth nothing, and its price is not zero")]
    WorthlessTickets,
    /// Tickets would pay another account than those that are registered for its address.
    #[error(
        "registered for {registered}{}, asks to be paid as {asked}",
        and_others(*others)
    )]
    OtherRecipient {
        /// The account that is registered, or one of them.
        registered: Address,
        /// How many others are.
        others: usize,
        /// The account that tickets would pay.
        asked: Address,
    },
    /// The orchestrator's account is on our block list.
    #[error("{0} is on the block list")]
    Blocked(Address),
    /// The orchestrator takes no work itself, but names others that may.
    #[error("it takes no work itself, and names {} others", nodes.len())]
    NoWork {
        /// The URIs of the others, unverified.
        nodes: Vec<String>,
    },
}

fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        others => alloc::format!(" and {others} others"),
    }
}

impl Rejection {
    /// The rejection as the cause of a [`Failure`](crate::Failure).
    #[must_use]
    pub fn into_cause(self) -> Cause {
        match self {
            Self::Mismatch(mismatch) => Cause::Incompatible(Box::new(mismatch)),
            Self::TooDear(TooDear { asked, ceiling }) => Cause::TooDear {
                asked: asked.of_one().to_string(),
                ceiling: ceiling.to_string(),
            },
            Self::Free => Cause::Free,
            other => Cause::Nonsense {
                what: "orchestrator info",
                why: other.to_string(),
            },
        }
    }
}

/// Reads the URIs of further nodes that the one at `by` names; what is no URL, or not for it to name, is left out.
#[must_use]
pub fn node_urls(by: &Url, nodes: &[String]) -> Vec<Url> {
    nodes
        .iter()
        .filter_map(|node| Url::parse(node).ok()?.named_by(by).ok())
        .collect()
}
