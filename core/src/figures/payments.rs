//! Figures of payments and of the money behind them, as gateway and signer write them: names, labels and units of
//! go-livepeer (operations spec 5.2), so that its dashboards read them.

use core::time::Duration;

use num_bigint::{BigInt, BigUint};
use num_rational::BigRational;
use num_traits::ToPrimitive as _;

use super::Page;
use crate::chain::{ChainView, SenderInfo};
use crate::money::Amount;
use crate::sign::Address;

/// Wei in a gwei.
const WEI_PER_GWEI: u64 = 1_000_000_000;

/// Gwei, for people to look at: money is counted in wei.
fn gwei(wei: impl Into<BigInt>) -> f64 {
    let gwei = BigRational::new(wei.into(), WEI_PER_GWEI.into());
    gwei.to_f64().unwrap_or_default()
}

/// Writes the account of a payer: its funds, and the round in which they were seen.
pub fn account(page: &mut Page, view: &ChainView, payer: Address, age: Option<Duration>) {
    chain(page, view.round, age);
    if let Some(payer) = view.sender(payer) {
        funds(page, payer);
    }
}

/// Writes the most that is paid for a unit, in wei: of any pipeline, and of those that have a ceiling of their own, or
/// whose models have.
pub fn ceilings<'a>(
    page: &mut Page,
    max: Option<&Amount>,
    own: impl Iterator<Item = (&'a str, &'a str, Amount)>,
) {
    // For people to look at: prices are compared exactly.
    let wei = |amount: &Amount| amount.as_ratio().to_f64().unwrap_or_default();
    if let Some(max) = max {
        let name = "transcoding_price";
        page.family(
            name,
            "gauge",
            "The most to pay for a unit of any pipeline, in wei.",
        );
        page.line(name, &[("sender", "max")], wei(max));
    }
    let name = "price_per_capability";
    let mut begun = false;
    for (pipeline, model, price) in own {
        if !core::mem::replace(&mut begun, true) {
            page.family(
                name,
                "gauge",
                "The most to pay for a unit of a model, in wei.",
            );
        }
        let labels = [("pipeline", pipeline), ("model_name", model)];
        page.line(name, &labels, wei(&price));
    }
}

/// Writes how many tickets went out.
pub(crate) fn tickets_sent(page: &mut Page, count: u64) {
    page.value("tickets_sent", "counter", "Tickets sent.", count);
}

/// Writes the value of the tickets that went out.
pub(crate) fn ticket_value_sent(page: &mut Page, wei: &BigInt) {
    let help = "Expected value of the tickets sent, in gwei.";
    page.value("ticket_value_sent", "counter", help, gwei(wei.clone()));
}

/// Writes how many payments could not be made.
pub(crate) fn payment_create_errors(page: &mut Page, count: u64) {
    let help = "Payments that could not be made.";
    page.value("payment_create_errors", "counter", help, count);
}

/// Writes the funds of the payer.
fn funds(page: &mut Page, payer: &SenderInfo) {
    let funds: [(_, _, &BigUint); 2] = [
        (
            "deposit",
            "Deposit of the payer, in gwei.",
            payer.deposit.as_uint(),
        ),
        (
            "reserve",
            "Rest of the payer's reserve, in gwei.",
            payer.reserve_remaining.as_uint(),
        ),
    ];
    for (of, help, wei) in funds {
        let value = gwei(wei.clone());
        page.value(&alloc::format!("gateway_{of}"), "gauge", help, value);
        // The name of older dashboards.
        page.value(&alloc::format!("broadcaster_{of}"), "gauge", help, value);
    }
    let help = "Round from which the payer may withdraw, 0 if it did not ask to.";
    page.value("withdraw_round", "gauge", help, payer.withdraw_round);
}

/// Writes the round of the chain, and how long ago it was read if it comes from an endpoint.
fn chain(page: &mut Page, round: u64, age: Option<Duration>) {
    page.value("round", "gauge", "The last round seen.", round);
    if let Some(age) = age {
        let help = "How long ago the chain was read.";
        page.value("chain_head_age_seconds", "gauge", help, age.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Wei;

    #[test]
    fn money_is_shown_in_gwei_under_the_names_of_the_reference() {
        let mut page = Page::new();
        ticket_value_sent(&mut page, &BigInt::from(168_000_000_001_u64));
        let payer = SenderInfo {
            deposit: Wei::from(10_000_000_000_000_000_000),
            reserve_remaining: Wei::from(1),
            ..SenderInfo::default()
        };
        funds(&mut page, &payer);
        let text = page.finish();
        for line in [
            "livepeer_ticket_value_sent 168.000000001",
            "livepeer_gateway_deposit 10000000000",
            "livepeer_broadcaster_reserve 0.000000001",
            "livepeer_withdraw_round 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
    }
}
