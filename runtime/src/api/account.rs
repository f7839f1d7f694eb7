//! Payers, told from one another.

use livepeer_core::Address;
use livepeer_core::http::{Headers, Url};
use livepeer_core::payment::Payer;

/// A payer, by what tells it from others.
#[derive(Clone, PartialEq)]
pub(super) enum Account {
    Offchain,
    Remote(Vec<Url>, Headers),
    Own(Address),
}

impl Account {
    pub(super) fn of(payer: &Payer) -> Self {
        match payer {
            Payer::Offchain => Self::Offchain,
            Payer::Remote(signers) => {
                Self::Remote(signers.urls().to_vec(), signers.fields().clone())
            }
            Payer::Account(account) => Self::Own(account.policy.address),
        }
    }
}
