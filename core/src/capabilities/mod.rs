//! Capabilities of nodes and needs of jobs, and why a node does not satisfy a job.
//!
//! Nodes and jobs speak of both in the same words, so one value serves for both: [`Capabilities`]. A job's own is
//! built with [`Capabilities::live_video`] and its like; a node's comes with
//! [`OrchestratorInfo`](crate::wire::OrchestratorInfo). Orchestrators do not check that they support what is
//! asked, so every answer is checked here with [`compatible`] (handshake spec 2.2, 5.3).

mod bits;
mod id;
mod mismatch;
mod price;
mod version;

pub use bits::Bits;
pub use id::{Capability, MAX_WORDS};
pub use mismatch::Mismatch;
pub use price::{Ceilings, ModelPrice, Tariff, TooDear, price_of, prices_by_model};
pub use version::{TooOld, Version};

use alloc::collections::BTreeMap;
use alloc::string::String;

use mismatch::Difference;

/// The capabilities that a node offers, or that a job asks for.
///
/// Plain data; any combination is legal. Offered and asked values read alike except where a field says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The capabilities themselves.
    pub bits: Bits,
    /// Offered: the node takes only jobs that ask for all of these. Asked: without effect.
    pub mandatories: Bits,
    /// How much of each there is. No entry at all means one of each of the [`bits`](Self::bits). Plays no part in
    /// matching; asked, it decides what the node prices: only ids that are also in
    /// [`constraints`](Self::constraints) (handshake spec 6.1).
    pub capacities: BTreeMap<Capability, u32>,
    /// Per capability, the models. A capability without an entry is not limited to any.
    pub constraints: BTreeMap<Capability, BTreeMap<String, Model>>,
    /// Offered: the node's software. Asked: without effect.
    pub version: Version,
    /// Asked: the oldest software that will do. Offered: meant for the node's own workers, without effect.
    pub min_version: Version,
}

/// A model of a capability.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Offered: it is loaded. Asked: it has to be.
    pub warm: bool,
    /// Offered: how many more jobs it takes now; zero is no lack, for runners outside of the node's care have none to
    /// tell of, and warm ones among them take jobs all the same. For live video these are the idle containers, so free slots are
    /// this and never `capacity - in_use` (handshake spec 5.5).
    pub capacity: u32,
    /// Offered, for live video: the busy containers.
    pub in_use: u32,
    /// Offered: the runner's version, often untold. Asked: the oldest that will do.
    pub runner_version: Version,
}

impl Capabilities {
    /// Asks for live video through `model`: the id as bit, capacity and constraint, so that every orchestrator
    /// prices it and can be checked (handshake spec 5.6).
    #[doc(alias = "build_capabilities")]
    #[must_use]
    pub fn live_video(model: impl Into<String>) -> Self {
        Self::for_model(Capability::LIVE_VIDEO_TO_VIDEO, model)
    }

    /// Asks for one capability through one model, in the same shape.
    ///
    /// Not for [`Capability::BYOC`], which nodes show through prices alone: ask for nothing and look at
    /// [`OrchestratorInfo::byoc_price`](crate::wire::OrchestratorInfo::byoc_price).
    #[must_use]
    pub fn for_model(capability: Capability, model: impl Into<String>) -> Self {
        Self::default().and_model(capability, model, Model::default())
    }

    /// The set that every orchestrator offers, whatever else it does; with a model added it is also what the Go
    /// gateway asks for.
    #[must_use]
    pub fn common() -> Self {
        (0..=12)
            .chain([14, 26])
            .filter_map(Capability::new)
            .fold(Self::default(), Self::and)
    }

    /// The set of nodes from before capabilities were reported.
    #[must_use]
    pub fn legacy() -> Bits {
        Bits::from_words(&[LEGACY])
    }

    /// Adds a capability, with a capacity of one if it has none yet.
    #[must_use]
    pub fn and(mut self, capability: Capability) -> Self {
        self.bits.insert(capability);
        self.capacities.entry(capability).or_insert(1);
        self
    }

    /// Adds a capability and a model of it.
    #[must_use]
    pub fn and_model(self, capability: Capability, model: impl Into<String>, what: Model) -> Self {
        let mut with = self.and(capability);
        with.constraints
            .entry(capability)
            .or_default()
            .insert(model.into(), what);
        with
    }

    /// Asks for node software of at least this version.
    #[must_use]
    pub fn at_least(mut self, version: impl Into<Version>) -> Self {
        self.min_version = version.into();
        self
    }

    /// Asks for models that are loaded already.
    #[must_use]
    pub fn warm(mut self) -> Self {
        for model in self.constraints.values_mut().flat_map(BTreeMap::values_mut) {
            model.warm = true;
        }
        self
    }

    /// Whether nothing at all is said: as a request, "tell me everything".
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bits.words().is_empty()
            && self.mandatories.words().is_empty()
            && self.capacities.is_empty()
            && self.constraints.is_empty()
            && self.version.is_empty()
            && self.min_version.is_empty()
    }

    /// How much of a capability there is (handshake spec 5.5).
    #[must_use]
    pub fn capacity(&self, capability: Capability) -> u32 {
        if self.capacities.is_empty() {
            self.bits.contains(capability).into()
        } else {
            self.capacities.get(&capability).copied().unwrap_or(0)
        }
    }

    /// The capacities with the rule for an absent map applied.
    #[must_use]
    pub fn all_capacities(&self) -> BTreeMap<Capability, u32> {
        if self.capacities.is_empty() {
            self.bits.iter().map(|capability| (capability, 1)).collect()
        } else {
            self.capacities.clone()
        }
    }

    /// The capabilities as segment credentials carry them: each with its count, and no model in use.
    #[must_use]
    pub fn in_credentials(mut self) -> Self {
        self.capacities = self.all_capacities();
        for models in self.constraints.values_mut() {
            for model in models.values_mut() {
                model.in_use = 0;
            }
        }
        self
    }

    /// A worker joins: more of a capability.
    pub fn add_capacity(&mut self, capability: Capability, by: u32) {
        let has = self.capacities.entry(capability).or_insert(0);
        *has = has.saturating_add(by);
        self.bits.insert(capability);
    }

    /// A worker leaves: less of a capability, and with the last of it the capability itself.
    pub fn remove_capacity(&mut self, capability: Capability, by: u32) {
        if let Some(has) = self.capacities.get_mut(&capability) {
            *has = has.saturating_sub(by);
            if *has == 0 {
                self.capacities.remove(&capability);
                self.bits.remove(capability);
            }
        }
    }

    /// A model's entry, if there is one.
    #[must_use]
    pub fn model(&self, capability: Capability, model: &str) -> Option<&Model> {
        self.constraints.get(&capability)?.get(model)
    }

    /// The capability and model pairs that are spelled out, by rising id, then by model.
    pub fn models(&self) -> impl Iterator<Item = (Capability, &str, &Model)> {
        self.constraints.iter().flat_map(|(capability, models)| {
            models
                .iter()
                .map(|(name, model)| (*capability, name.as_str(), model))
        })
    }

    /// Whether this offer is enough for `wanted` (handshake spec 5.3, steps 3 to 6, in that order).
    ///
    /// # Errors
    /// The first thing that is not.
    pub fn serve(&self, wanted: &Self) -> Result<(), Mismatch> {
        match self.why_not(wanted) {
            None => Ok(()),
            Some(why) => Err(why.into_owned()),
        }
    }

    /// Whether they match, as [`Capabilities::serve`] says it, for callers who only count: allocates nothing either way.
    #[must_use]
    pub fn serves(&self, wanted: &Self) -> bool {
        self.why_not(wanted).is_none()
    }

    /// Whether every wanted model is spelled out in this offer. [`Capabilities::serve`] passes an offer that has no
    /// entry for the capability; AI pools of the reference do not (handshake spec 11.2).
    ///
    /// # Errors
    /// The first model that is not.
    pub fn list(&self, wanted: &Self) -> Result<(), Mismatch> {
        match wanted
            .models()
            .find(|(capability, model, _)| self.model(*capability, model).is_none())
        {
            None => Ok(()),
            Some((capability, model, _)) => {
                Err(Difference::ModelMissing(capability, model).into_owned())
            }
        }
    }

    fn why_not<'a>(&'a self, wanted: &'a Self) -> Option<Difference<'a>> {
        if let Err(why) = self.version.meets(&wanted.min_version) {
            return Some(Difference::Version(&self.version, &wanted.min_version, why));
        }
        if !self.mandatories.is_subset_of(&wanted.bits) {
            return Some(Difference::Demands(&self.mandatories, &wanted.bits));
        }
        for (capability, models) in &wanted.constraints {
            let Some(offered) = self.constraints.get(capability) else {
                continue;
            };
            for (name, asked) in models {
                let Some(offered) = offered.get(name) else {
                    return Some(Difference::ModelMissing(*capability, name));
                };
                if asked.warm && !offered.warm {
                    return Some(Difference::ModelCold(*capability, name));
                }
                if let Err(why) = offered.runner_version.meets(&asked.runner_version) {
                    return Some(Difference::Runner(
                        *capability,
                        name,
                        &offered.runner_version,
                        &asked.runner_version,
                        why,
                    ));
                }
            }
        }
        (!wanted.bits.is_subset_of(&self.bits))
            .then_some(Difference::Lacks(&wanted.bits, &self.bits))
    }
}

/// Whether a node that reports `offered`, or nothing, is enough for `wanted` (handshake spec 5.3, from step 2).
///
/// # Errors
/// The first thing that is not.
pub fn compatible(offered: Option<&Capabilities>, wanted: &Capabilities) -> Result<(), Mismatch> {
    match offered {
        Some(offered) => offered.serve(wanted),
        // Very old nodes report nothing and do what there was then; versions and models are not looked at.
        None if wanted.bits.is_subset_of(&Capabilities::legacy()) => Ok(()),
        None => Err(Mismatch::Unreported),
    }
}

/// Ids 0 to 11.
const LEGACY: u64 = 0xfff;
