//! Capabilities and prices from and to the wire.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use livepeer_proto::net;
use livepeer_proto::net::capabilities::capability_constraints::ModelConstraint;
use livepeer_proto::net::capabilities::{CapabilityConstraints, Constraints};
use prost::Message as _;

use super::error::WireError;
use crate::capabilities::{Bits, Capabilities, Capability, MAX_WORDS, Model, ModelPrice, Version};
use crate::money::Price;

/// A node that lists more models than this, over all capabilities, is refused.
pub const MAX_MODELS: usize = 10_000;
/// A node that lists more prices than this is refused.
pub const MAX_PRICES: usize = 10_000;
/// The longest version that is accepted.
pub const MAX_VERSION_BYTES: usize = 128;

impl Capabilities {
    /// Reads the message. Entries for ids from [`Capability::LIMIT`] on are left out: no job can ask for them.
    ///
    /// # Errors
    /// If there is more of anything than we hold.
    pub fn from_wire(wire: net::Capabilities) -> Result<Self, WireError> {
        let bad = |why| Err(WireError::new("capabilities", why));
        if wire.bitstring.len().max(wire.mandatories.len()) > MAX_WORDS {
            return bad(format!("more than {MAX_WORDS} words of bits"));
        }
        let limits = wire.constraints.unwrap_or_default();
        let models: usize = limits
            .per_capability
            .values()
            .map(|of| of.models.len())
            .sum();
        if models > MAX_MODELS {
            return bad(format!("{models} models, more than {MAX_MODELS}"));
        }
        let runners = limits
            .per_capability
            .values()
            .flat_map(|of| of.models.values());
        let longest = runners
            .map(|model| model.runner_version.len())
            .chain([wire.version.len(), limits.min_version.len()])
            .max();
        if longest > Some(MAX_VERSION_BYTES) {
            return bad(format!("a version of more than {MAX_VERSION_BYTES} bytes"));
        }
        Ok(Self {
            bits: Bits::from_words(&wire.bitstring),
            mandatories: Bits::from_words(&wire.mandatories),
            capacities: known(wire.capacities).collect(),
            constraints: known(limits.per_capability)
                .map(|(capability, of)| {
                    let models = of.models.into_iter();
                    (
                        capability,
                        models
                            .map(|(name, model)| (name, from_wire(model)))
                            .collect(),
                    )
                })
                .collect(),
            version: Version::new(wire.version),
            min_version: Version::new(limits.min_version),
        })
    }

    /// Reads the bytes of the message.
    ///
    /// # Errors
    /// If they are not the message, or there is more of anything than we hold.
    pub fn from_bytes(raw: &[u8]) -> Result<Self, WireError> {
        let wire = net::Capabilities::decode(raw).map_err(|err| {
            WireError::new("capabilities", format!("not the protobuf message: {err}"))
        })?;
        Self::from_wire(wire)
    }

    /// The bytes of the message, as requests to signers carry them.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.to_wire().encode_to_vec().into()
    }

    /// The message. Reading it back gives the same value.
    #[must_use]
    pub fn to_wire(&self) -> net::Capabilities {
        let per_capability: BTreeMap<_, _> = self
            .constraints
            .iter()
            .map(|(capability, models)| {
                let models = models
                    .iter()
                    .map(|(name, model)| (name.clone(), to_wire(model)));
                (
                    capability.id(),
                    CapabilityConstraints {
                        models: models.collect(),
                    },
                )
            })
            .collect();
        let limited = !per_capability.is_empty() || !self.min_version.is_empty();
        net::Capabilities {
            bitstring: self.bits.words().to_vec(),
            mandatories: self.mandatories.words().to_vec(),
            capacities: self
                .capacities
                .iter()
                .map(|(capability, n)| (capability.id(), *n))
                .collect(),
            version: self.version.as_str().into(),
            constraints: limited.then(|| Constraints {
                min_version: self.min_version.as_str().into(),
                per_capability,
            }),
        }
    }
}

fn known<T>(by_id: BTreeMap<u32, T>) -> impl Iterator<Item = (Capability, T)> {
    by_id
        .into_iter()
        .filter_map(|(id, value)| Some((Capability::new(id)?, value)))
}

fn from_wire(wire: ModelConstraint) -> Model {
    Model {
        warm: wire.warm,
        capacity: wire.capacity,
        in_use: wire.capacity_in_use,
        runner_version: Version::new(wire.runner_version),
    }
}

fn to_wire(model: &Model) -> ModelConstraint {
    ModelConstraint {
        warm: model.warm,
        capacity: model.capacity,
        runner_version: model.runner_version.as_str().into(),
        capacity_in_use: model.in_use,
    }
}

/// Reads a price list. Entries that are no price, or for ids nobody can ask for, are left out.
pub(super) fn prices(wire: Vec<net::PriceInfo>) -> Result<Vec<ModelPrice>, WireError> {
    if wire.len() > MAX_PRICES {
        return Err(WireError::new(
            "orchestrator info",
            format!("{} prices, more than {MAX_PRICES}", wire.len()),
        ));
    }
    Ok(wire
        .into_iter()
        .filter_map(|entry| {
            Some(ModelPrice {
                capability: Capability::new(entry.capability)?,
                model: entry.constraint,
                price: Price::new(entry.price_per_unit, entry.pixels_per_unit)?,
            })
        })
        .collect())
}
