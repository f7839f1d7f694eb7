//! The payer of work.

use alloc::boxed::Box;

use super::LocalAccount;
use crate::signers::{SignerHealth, Signers};

/// The payer of work: who it is in a [handshake](crate::handshake::Identity), and where a [`PaymentSession`] gets its
/// payments from.
///
/// [`PaymentSession`]: super::PaymentSession
#[derive(Clone, Debug, Default)]
pub enum Payer {
    /// Nobody: for orchestrators without a chain.
    #[default]
    Offchain,
    /// Remote signers for one account, which is known once a handshake asked them.
    Remote(Signers),
    /// An account whose key answers [`Effect::Sign`](crate::Effect::Sign). Its nonces are money: give it back what was
    /// stored before a restart ([`LocalAccount::restore`]).
    Account(Box<LocalAccount>),
}

impl Payer {
    /// Whether money flows.
    #[must_use]
    pub const fn pays(&self) -> bool {
        !matches!(self, Self::Offchain)
    }

    /// Takes in how remote signers have been, if they pay.
    pub fn learn(&mut self, seen: &SignerHealth) {
        if let Self::Remote(signers) = self {
            signers.learn(seen);
        }
    }
}
