//! Our own choice: capability and price decide who may, then latency, reliability and load decide who does.

use alloc::vec::Vec;
use core::time::Duration;

use super::draw::{normalize, pick};
use super::math::sqrt;
use crate::pool::{Candidate, Selector};
use crate::rng::Rng;
use crate::track_record::TrackRecord;

/// How strongly each consideration tells. Every one is an exponent: zero ignores it, two makes a candidate that is
/// half as good four times less likely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strengths {
    /// The weight of being cheap.
    pub price: u32,
    /// The weight of being quick.
    pub latency: u32,
    /// The weight of having worked before.
    pub reliability: u32,
    /// The weight of having few jobs of ours.
    pub spread: u32,
}

impl Default for Strengths {
    fn default() -> Self {
        Self {
            price: 2,
            latency: 2,
            reliability: 4,
            spread: 1,
        }
    }
}

/// The default policy: a weighted draw in which being cheap, quick, reliable and idle each tell.
///
/// A candidate is drawn, not ranked, so that load spreads and unknown nodes get their chance; equal candidates are
/// equally likely. [`Balanced::explain`] shows the sums.
#[derive(Clone, Copy, Debug, Default)]
pub struct Balanced {
    /// How strongly each consideration tells.
    pub strengths: Strengths,
}

/// Why a candidate is as likely as it is: each part is one for the best there is and less for the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Explanation {
    /// How cheap, against the cheapest.
    pub price: f64,
    /// How quick, against the quickest.
    pub latency: f64,
    /// The success rate that its history vouches for.
    pub reliability: f64,
    /// How free of our jobs.
    pub spread: f64,
    /// The warmth of the model: 1 if it is loaded; loading takes from seconds to minutes.
    pub warmth: f64,
    /// The probability of being chosen.
    pub probability: f64,
}

/// Differences in latency below this do not matter.
const LATENCY_GRAIN: Duration = Duration::from_millis(20);

impl Balanced {
    /// The sums behind a choice, in the order of the candidates.
    #[must_use]
    pub fn explain(&self, from: &[Candidate<'_>]) -> Vec<Explanation> {
        let prices: Vec<f64> = from.iter().map(price).collect();
        let latencies: Vec<f64> = from.iter().map(latency).collect();
        let least = |of: &[f64]| of.iter().copied().fold(f64::INFINITY, f64::min);
        let (cheapest, quickest) = (least(&prices), least(&latencies));
        let mut all: Vec<Explanation> = from
            .iter()
            .zip(prices.iter().zip(&latencies))
            .map(|(candidate, (price, latency))| Explanation {
                price: against(cheapest, *price),
                latency: against(quickest, *latency),
                reliability: reliability(candidate.record),
                spread: 1.0 / (1.0 + f64::from(candidate.lent)),
                warmth: if candidate.warm { 1.0 } else { COLD },
                probability: 0.0,
            })
            .collect();
        let mut weights: Vec<f64> = all
            .iter()
            .map(|of| {
                let Strengths {
                    price,
                    latency,
                    reliability,
                    spread,
                } = self.strengths;
                power(of.price, price)
                    * power(of.latency, latency)
                    * power(of.reliability, reliability)
                    * power(of.spread, spread)
                    * of.warmth
            })
            .collect();
        normalize(&mut weights);
        for (of, weight) in all.iter_mut().zip(weights) {
            of.probability = weight;
        }
        all
    }
}

impl Selector for Balanced {
    fn select(&mut self, rng: &mut Rng, from: &[Candidate<'_>]) -> Option<usize> {
        let weights: Vec<f64> = self.explain(from).iter().map(|of| of.probability).collect();
        pick(rng, &weights)
    }
}

/// Wei per unit; a candidate without a price is free, for it takes none.
fn price(of: &Candidate<'_>) -> f64 {
    of.info
        .price
        .map_or(0.0, |price| price.wei() as f64 / price.per() as f64)
}

/// Seconds: what jobs waited for, else what handshakes waited for.
fn latency(of: &Candidate<'_>) -> f64 {
    let seen = of
        .record
        .first_byte
        .or(of.record.round_trip)
        .unwrap_or(of.latency);
    (seen + LATENCY_GRAIN).as_secs_f64()
}

/// How much of the best this is: one for the best. Nobody falls below [`FLOOR`], so that a free node, against which
/// no ratio tells how much dearer another is, does not starve all others.
fn against(best: f64, this: f64) -> f64 {
    if this <= best {
        1.0
    } else {
        (best / this).max(FLOOR)
    }
}

const FLOOR: f64 = 0.05;

/// A cold node gets a job only if the warm ones are much worse, or there is none.
const COLD: f64 = 0.02;

/// The success rate that can be relied on: the middle of what the history suggests, less one standard deviation of
/// not knowing better. Nobody knows a newcomer, who is held to be middling.
fn reliability(record: &TrackRecord) -> f64 {
    let (good, bad) = (f64::from(record.good) + 2.0, f64::from(record.bad) + 1.0);
    let all = good + bad;
    let mean = good / all;
    let deviation = sqrt(mean * (1.0 - mean) / (all + 1.0));
    (mean - deviation).max(0.01)
}

fn power(base: f64, exponent: u32) -> f64 {
    (0..exponent).fold(1.0, |product, _| product * base)
}
