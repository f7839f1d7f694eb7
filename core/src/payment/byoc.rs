//! Paying for containers that an operator brought (payments spec 17). Own key only.

use super::ledger::tickets_for;
use super::nonce::MAX_NONCES;
use crate::money::{Amount, Price};

/// How many seconds' price a payer keeps on its balance.
pub const LOW_WATER_SECONDS: u64 = 120;

/// How many tickets of worth `ev` pay for `cost`: rounded up, and never more than a quote is good for.
#[must_use]
pub fn tickets_for_cost(cost: &Amount, ev: &Amount) -> u64 {
    tickets_for(cost, &Amount::zero(), ev).min(MAX_NONCES as u64)
}

/// How many tickets to send along with a job that may take `seconds`, when the orchestrator reports `balance`:
/// none while that covers [`LOW_WATER_SECONDS`].
#[must_use]
pub fn tickets_for_job(price: &Price, seconds: u64, balance: &Amount, ev: &Amount) -> u64 {
    if price.is_free() || *balance >= price.fee(LOW_WATER_SECONDS) {
        return 0;
    }
    tickets_for_cost(&price.fee(seconds), ev)
}

/// The charge for work that took this long: whole seconds, rounded up.
#[must_use]
pub fn charge(price: &Price, took: core::time::Duration) -> Amount {
    price.fee(took.as_nanos().div_ceil(1_000_000_000))
}
