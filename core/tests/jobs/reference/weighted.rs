//! The weighted draw of the reference: price, stake and chance (handshake spec 9.2).

use std::collections::BTreeMap;

use livepeer_core::money::{Amount, Price};
use livepeer_core::pool::{Candidate, Selector};
use livepeer_core::selection::{normalize, pick};
use livepeer_core::{Address, Rng};

/// How much each consideration counts. The three should sum to one; the reference insists on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Weights {
    /// The share of the total stake.
    pub(crate) stake: f64,
    /// How cheap it is.
    pub(crate) price: f64,
    /// Nothing at all: everybody alike.
    pub(crate) random: f64,
    /// The price difference, in wei per unit, that makes a candidate e times less likely.
    pub(crate) price_factor: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            stake: 0.7,
            price: 0.0,
            random: 0.3,
            price_factor: 100.0,
        }
    }
}

/// The weight of every candidate, from stakes and prices in the same order. They need not sum to one: without any
/// stake, or with prices far above the factor, they sum to more (handshake spec 9.2, quirks).
#[must_use]
pub(crate) fn weights(stakes: &[u64], prices: &[Price], weights: &Weights) -> Vec<f64> {
    let by_price: Vec<f64> = prices
        .iter()
        .map(|price| match weights.price {
            // It counts for nothing, so the sums are spared.
            0.0 => 1.0,
            _ => (-(price.wei() as f64 / price.per() as f64) / weights.price_factor).exp(),
        })
        .collect();
    let price_sum: f64 = by_price.iter().sum();
    let stake_sum: f64 = stakes.iter().map(|stake| *stake as f64).sum();
    let share = |part: f64, sum: f64| if sum == 0.0 { 1.0 } else { part / sum };
    let even = 1.0 / by_price.len() as f64;
    by_price
        .iter()
        .zip(stakes)
        .map(|(price, stake)| {
            weights.price * share(*price, price_sum)
                + weights.stake * share(*stake as f64, stake_sum)
                + weights.random * even
        })
        .collect()
}

/// The index that a `uniform` number in [0, 1) hits: the first at which the sum so far reaches it, else the first of
/// all. `None` only if there are no weights.
#[must_use]
pub(crate) fn draw(weights: &[f64], uniform: f64) -> Option<usize> {
    let mut sum = 0.0;
    weights
        .iter()
        .position(|weight| {
            sum += weight;
            sum >= uniform
        })
        .or((!weights.is_empty()).then_some(0))
}

/// Filters that leave candidates out before the draw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters {
    /// Nodes with a lower score are left out, unless all are. A node without a score has zero.
    pub(crate) min_score: f64,
    /// The scores; `None` if none are kept, and then nobody is left out for them.
    pub(crate) scores: Option<BTreeMap<Address, f64>>,
    /// Dearer nodes, and ones without a price, are left out; not if no price is known at all.
    pub(crate) ceiling: Option<Amount>,
    /// If all are too dear, take them anyway.
    pub(crate) ignore_ceiling_if_needed: bool,
}

impl Filters {
    /// The indices of those who stay.
    #[must_use]
    pub(crate) fn keep(&self, known: &[(Address, Option<Price>)]) -> Vec<usize> {
        let all: Vec<usize> = (0..known.len()).collect();
        let fine = match &self.scores {
            Some(scores) if self.min_score > 0.0 => {
                let score = |at: &usize| scores.get(&known[*at].0).copied().unwrap_or(0.0);
                all.iter()
                    .copied()
                    .filter(|at| score(at) >= self.min_score)
                    .collect()
            }
            _ => Vec::new(),
        };
        let fine = if fine.is_empty() { all } else { fine };
        let Some(ceiling) = &self.ceiling else {
            return fine;
        };
        if known.iter().all(|(_, price)| price.is_none()) {
            return fine;
        }
        let cheap = fine
            .iter()
            .copied()
            .filter(|at| known[*at].1.is_some_and(|p| p.of_one() <= *ceiling));
        let cheap: Vec<usize> = cheap.collect();
        if cheap.is_empty() && self.ignore_ceiling_if_needed {
            fine
        } else {
            cheap
        }
    }

    /// The live-video rule of the reference: the first in order under the ceiling, scores ignored.
    #[must_use]
    pub(crate) fn first_cheap(&self, known: &[(Address, Option<Price>)]) -> Option<usize> {
        known.iter().position(|(_, price)| match &self.ceiling {
            None => true,
            Some(ceiling) => price.is_some_and(|price| price.of_one() <= *ceiling),
        })
    }
}

/// The reference's choice as a [`Selector`].
///
/// Where copying it would be unsafe it differs: weights are normalised before the draw, a candidate without a price
/// is never chosen while others have one, and the draw is among sessions rather than recipients.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weighted {
    /// How much each consideration counts.
    pub(crate) weights: Weights,
    /// The filters applied before the draw.
    pub(crate) filters: Filters,
    /// Stakes by on-chain account, as a chain source reads them.
    pub(crate) stakes: BTreeMap<Address, u64>,
}

impl Weighted {
    /// The probability of every candidate, in their order; zero for those left out.
    #[must_use]
    pub(crate) fn probabilities(&self, from: &[Candidate<'_>]) -> Vec<f64> {
        let accounts: Vec<(Address, Option<Price>)> = from
            .iter()
            .map(|candidate| (account(candidate), candidate.info.price))
            .collect();
        let mut kept = self.filters.keep(&accounts);
        if kept.iter().any(|at| accounts[*at].1.is_some()) {
            kept.retain(|at| accounts[*at].1.is_some());
        }
        let free = Price::new(0, 1).expect("nothing for one is a price");
        let prices: Vec<Price> = kept
            .iter()
            .map(|at| accounts[*at].1.unwrap_or(free))
            .collect();
        let stakes: Vec<u64> = kept
            .iter()
            .map(|at| self.stakes.get(&accounts[*at].0).copied().unwrap_or(0))
            .collect();
        let mut drawn = weights(&stakes, &prices, &self.weights);
        normalize(&mut drawn);
        let mut all = vec![0.0; from.len()];
        for (at, weight) in kept.into_iter().zip(drawn) {
            all[at] = weight;
        }
        all
    }
}

impl Selector for Weighted {
    fn select(&mut self, rng: &mut Rng, from: &[Candidate<'_>]) -> Option<usize> {
        pick(rng, &self.probabilities(from))
    }
}

/// The account that tickets pay, or the node's own account.
fn account(candidate: &Candidate<'_>) -> Address {
    candidate
        .info
        .ticket_params
        .as_ref()
        .map_or(candidate.info.address, |params| params.recipient)
}
