//! Prices that a node asks for its capabilities, and the ceilings that we pay up to.

use alloc::collections::BTreeMap;
use alloc::string::String;

use super::{Capabilities, Capability};
use crate::money::{Amount, Price};

/// The price of one model of a capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPrice {
    /// The capability.
    pub capability: Capability,
    /// The model; for [`Capability::BYOC`] the capability's own name.
    pub model: String,
    /// The price of one unit.
    pub price: Price,
}

/// The price of `model` of `capability`: its entry among `listed` (the first of equal ones), else the `base` price,
/// else unknown (handshake spec 6.2).
#[must_use]
pub fn price_of(
    listed: &[ModelPrice],
    base: Option<Price>,
    capability: Capability,
    model: &str,
) -> Option<Price> {
    listed
        .iter()
        .find(|entry| entry.capability == capability && entry.model == model)
        .map(|entry| entry.price)
        .or(base)
}

/// The prices of a list by capability and model, the first of equal ones: for those who look up many.
#[must_use]
pub fn prices_by_model(listed: &[ModelPrice]) -> BTreeMap<(Capability, &str), Price> {
    let mut by_model = BTreeMap::new();
    for entry in listed {
        let key = (entry.capability, entry.model.as_str());
        by_model.entry(key).or_insert(entry.price);
    }
    by_model
}

/// The most that we pay (handshake spec 6.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ceilings {
    /// The ceiling for anything that no entry below covers, in wei per unit; `None` is no limit.
    pub base: Option<Amount>,
    /// Per capability and model; the model [`Ceilings::DEFAULT`] covers the others of its capability.
    pub per_model: BTreeMap<Capability, BTreeMap<String, Amount>>,
}

impl Ceilings {
    /// The model name that stands for all models of a capability without an entry of their own.
    pub const DEFAULT: &str = "default";

    /// A single ceiling for everything.
    #[must_use]
    pub fn of(base: impl Into<Amount>) -> Self {
        Self {
            base: Some(base.into()),
            per_model: BTreeMap::new(),
        }
    }

    /// Adds a limit for one model.
    #[must_use]
    pub fn and(
        mut self,
        capability: Capability,
        model: impl Into<String>,
        price: impl Into<Amount>,
    ) -> Self {
        let models = self.per_model.entry(capability).or_default();
        models.insert(model.into(), price.into());
        self
    }

    /// The limit for a job: the sum over its models, or the base limit if none of them has one.
    #[must_use]
    pub fn limit(&self, wanted: &Capabilities) -> Option<Amount> {
        let sum: Amount = wanted
            .models()
            .filter_map(|(capability, model, _)| {
                let models = self.per_model.get(&capability)?;
                models.get(model).or_else(|| models.get(Self::DEFAULT))
            })
            .cloned()
            .sum();
        if sum.is_positive() {
            Some(sum)
        } else {
            self.base.clone()
        }
    }

    /// Whether a price is within the limit for a job; equal is within.
    ///
    /// # Errors
    /// If it is above.
    pub fn allow(&self, wanted: &Capabilities, asked: Price) -> Result<(), TooDear> {
        match self.limit(wanted) {
            Some(ceiling) if asked.of_one() > ceiling => Err(TooDear { asked, ceiling }),
            _ => Ok(()),
        }
    }
}

/// A price above the ceiling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("asks {asked} wei per unit, above the ceiling of {ceiling}")]
pub struct TooDear {
    /// The price that is asked.
    pub asked: Price,
    /// The most we pay, in wei per unit.
    pub ceiling: Amount,
}

/// The prices of an orchestrator, by capability and model (handshake spec 6.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tariff {
    /// The price of anything that has no price of its own.
    pub base: Option<Price>,
    /// Per capability and model. No model name stands for the others.
    pub per_model: BTreeMap<Capability, BTreeMap<String, Price>>,
}

impl Tariff {
    /// The price of a job, for a payer to whom the prices of `special` apply where there are any: the sum over the
    /// models of those capabilities that are among the capacities too; the base price if that sum is nothing, or if
    /// nothing is asked for.
    #[must_use]
    pub fn quote(&self, special: &Self, wanted: Option<&Capabilities>) -> Amount {
        let of = |tariff: &Self, capability: Capability, model: &str| {
            tariff.per_model.get(&capability)?.get(model).copied()
        };
        let sum: Amount = wanted
            .into_iter()
            .flat_map(Capabilities::models)
            .filter(|(capability, ..)| {
                wanted.is_some_and(|wanted| wanted.capacities.contains_key(capability))
            })
            .filter_map(|(capability, model, _)| {
                of(special, capability, model).or_else(|| of(self, capability, model))
            })
            .map(|price| price.of_one())
            .sum();
        if sum.is_positive() {
            return sum;
        }
        let base = special.base.or(self.base);
        base.map_or_else(Amount::zero, |price| price.of_one())
    }
}
