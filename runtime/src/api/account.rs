//! Payers: told from one another, and told what is known.

use livepeer_core::Address;
use livepeer_core::http::{Headers, Url};
use livepeer_core::payment::Payer;

use super::Error;
use crate::{Driver, Runtime};

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

/// The payer with what earlier work of the driver has shown: how remote signers have been, and which nonces an own key has
/// used. Every machine that pays begins with such a one (`conformance::api::work_with_an_own_key_begins_with_the_nonces_that_were_used`).
///
/// # Errors
/// If the store cannot be read.
pub(super) fn informed<R: Runtime>(mut payer: Payer, driver: &Driver<R>) -> Result<Payer, Error> {
    payer.learn(&driver.signer_health());
    if let Payer::Account(account) = &mut payer {
        let spent = driver.spent_nonces();
        account.learn(&spent.map_err(|error| Error::Store(error.into()))?);
    }
    Ok(payer)
}
