//! The orchestrator's claims about itself: the answer to `GetOrchestrator`, also piggybacked on payments.

use std::collections::BTreeMap;

use bytes::Bytes;
use livepeer_core::capabilities::{Capabilities, Model};
use livepeer_core::money::Price;
use livepeer_core::sign::{Digest, Signature};
use livepeer_core::wire::AuthToken;
use livepeer_core::{Address, Pipeline, Time};
use livepeer_proto::net;

use super::event::Event;
use super::{Orchestrator, account};

const LIVE: Pipeline = Pipeline::LiveVideoToVideo;

/// A model of live video or of batch work, as the orchestrator tells of it.
struct Told<'a> {
    pipeline: Pipeline,
    name: &'a str,
    slots: u32,
    taken: u32,
    warm: bool,
    price: Option<Price>,
}

impl Orchestrator {
    /// Answers a handshake, in the order of the reference (handshake spec 2.2).
    ///
    /// # Errors
    /// With the text of the refusal.
    pub(super) fn handshake(
        &mut self,
        now: Time,
        request: net::OrchestratorRequest,
    ) -> Result<net::OrchestratorInfo, String> {
        let invalid = |why: &str| format!("Invalid orchestrator request: {why}");
        let payer = Address::from_wire(&request.address);
        if self.till.is_some() {
            let digest = Digest::node(payer.checksummed().as_bytes());
            Signature::from_slice(&request.sig)
                .and_then(|signature| signature.verify(digest, payer))
                .map_err(|_| invalid("orchestrator req sig check failed"))?;
        }
        if self.config.quirks.capped {
            return Err(invalid("OrchestratorCapped"));
        }
        let wanted = request
            .capabilities
            .map(Capabilities::from_wire)
            .transpose()
            .map_err(|err| invalid(&err.to_string()))?;
        if let Some(wanted) = &wanted
            && !request.ignore_capacity_check
            && let Some(models) = wanted.constraints.get(&LIVE.capability())
            && !models.keys().any(|model| self.idle(model) > 0)
        {
            return Err(invalid("OrchestratorCapped"));
        }
        let session = self.name();
        let token = self.tokens.issue(now, session);
        self.info(now, payer, wanted.as_ref(), token)
    }

    /// The info with everything that fits the request, with ticket parameters for this payer.
    ///
    /// # Errors
    /// If there is no quote for it.
    pub(super) fn info(
        &mut self,
        now: Time,
        payer: Address,
        wanted: Option<&Capabilities>,
        token: AuthToken,
    ) -> Result<net::OrchestratorInfo, String> {
        let pinned = self
            .till
            .as_ref()
            .and_then(|till| till.get().session_price(&account(payer, &token.session_id)));
        let price = pinned.or_else(|| self.price(wanted));
        let mut info = self.quoted(now, payer, price)?;
        info.capabilities = Some(self.offered().to_wire());
        info.auth_token = (!self.config.quirks.no_auth_token).then(|| token.to_wire());
        info.nodes.clone_from(&self.config.nodes);
        if wanted.is_none() {
            info.hardware = self.hardware();
            if price.is_some() {
                info.capabilities_prices = self.prices();
            }
        }
        Ok(info)
    }

    /// The info with only what a payment needs.
    ///
    /// # Errors
    /// If there is no quote for this payer.
    pub(super) fn bare_info(
        &mut self,
        now: Time,
        payer: Address,
        price: Price,
        session: &str,
    ) -> Result<net::OrchestratorInfo, String> {
        let mut info = self.quoted(now, payer, Some(price))?;
        info.auth_token = Some(self.tokens.issue(now, session.to_owned()).to_wire());
        Ok(info)
    }

    /// The part that has to do with money, and who we are.
    fn quoted(
        &mut self,
        now: Time,
        payer: Address,
        price: Option<Price>,
    ) -> Result<net::OrchestratorInfo, String> {
        let mut info = net::OrchestratorInfo {
            transcoder: self.config.service.origin(),
            // Off-chain nodes have no account (payments spec 14).
            address: Bytes::copy_from_slice(&Address::ZERO.0),
            ..net::OrchestratorInfo::default()
        };
        if let (Some(till), Some(price)) = (&mut self.till, price) {
            let params = till
                .get_mut()
                .quote(now, payer, price)
                .map_err(|err| err.to_string())?;
            info.ticket_params = Some(params.to_wire());
            info.price_info = Some(to_wire(price));
            info.address = Bytes::copy_from_slice(&self.config.account.0);
        }
        self.quotes = self.quotes.saturating_add(1);
        self.out.event(Event::Quoted { payer, price });
        Ok(info)
    }

    /// The price of a request per unit: the sum over the models asked for by capacity and constraint, or the node's own
    /// price if that is nothing (handshake spec 6.1). `None` off-chain.
    fn price(&self, wanted: Option<&Capabilities>) -> Option<Price> {
        let base = self.config.payments.as_ref()?.price;
        let sum = self
            .models()
            .filter(|model| {
                let capability = model.pipeline.capability();
                wanted.is_some_and(|wanted| {
                    wanted.capacities.contains_key(&capability)
                        && wanted
                            .constraints
                            .get(&capability)
                            .is_some_and(|models| models.contains_key(model.name))
                })
            })
            .map(|model| model.price.unwrap_or(base))
            .try_fold(None, |sum: Option<Price>, price| {
                Some(Some(match sum {
                    None => price,
                    Some(sum) => plus(sum, price)?,
                }))
            })
            .flatten()
            .filter(|sum| !sum.is_free());
        let price = self.config.quirks.price.or(sum).unwrap_or(base);
        match self.config.quirks.price_jump {
            Some((after, factor)) if self.quotes >= after => {
                Price::new(price.wei().saturating_mul(factor.into()), price.per())
            }
            _ => Some(price),
        }
    }

    /// The price of each model, in whole wei.
    fn prices(&self) -> Vec<net::PriceInfo> {
        let Some(payments) = &self.config.payments else {
            return Vec::new();
        };
        self.told_models()
            .map(|model| {
                let price = self.config.quirks.told_price.or(model.price);
                let price = price.unwrap_or(payments.price);
                net::PriceInfo {
                    price_per_unit: price.wei() / price.per(),
                    pixels_per_unit: 1,
                    capability: model.pipeline.capability().id(),
                    constraint: model.name.to_owned(),
                }
            })
            .collect()
    }

    /// The orchestrator's capabilities, and how much of each is left.
    pub(super) fn offered(&self) -> Capabilities {
        let mut offered = Capabilities::common();
        let mut places: BTreeMap<_, u32> = BTreeMap::new();
        for told in self.told_models() {
            let capability = told.pipeline.capability();
            let sum = places.entry(capability).or_default();
            *sum = sum.saturating_add(told.slots);
            let model = Model {
                warm: told.warm,
                capacity: told.slots.saturating_sub(told.taken),
                // Told of live video alone.
                in_use: if told.pipeline == LIVE { told.taken } else { 0 },
                ..Model::default()
            };
            offered = offered.and_model(capability, told.name, model);
        }
        offered.capacities.extend(places);
        offered.version = self.config.version.as_str().into();
        offered
    }

    /// A made-up device, for displays.
    fn hardware(&self) -> Vec<net::HardwareInformation> {
        self.told_models()
            .map(|model| net::HardwareInformation {
                pipeline: model.pipeline.name().to_owned(),
                model_id: model.name.to_owned(),
                gpu_info: BTreeMap::from([(
                    "0".to_owned(),
                    net::GpuComputeInfo {
                        id: "GPU-0".to_owned(),
                        name: "none (development network)".to_owned(),
                        ..net::GpuComputeInfo::default()
                    },
                )]),
            })
            .collect()
    }

    /// The models that there are.
    fn models(&self) -> impl Iterator<Item = Told<'_>> {
        let live = self.config.models.iter().map(|(name, model)| Told {
            pipeline: LIVE,
            name,
            slots: model.capacity,
            taken: self.busy(name),
            warm: model.warm,
            price: model.price,
        });
        let batch = self
            .config
            .batch
            .iter()
            .flat_map(move |(pipeline, models)| {
                models.iter().map(move |(name, model)| Told {
                    pipeline: *pipeline,
                    name,
                    slots: model.capacity,
                    taken: self.batch.taken(*pipeline, name),
                    warm: model.warm,
                    price: model.price,
                })
            });
        live.chain(batch)
    }

    /// The models as they are told of.
    fn told_models(&self) -> impl Iterator<Item = Told<'_>> {
        let other = self.config.quirks.other_model.as_deref();
        let told = if other.is_some() { 1 } else { usize::MAX };
        self.models().take(told).map(move |model| Told {
            name: other.unwrap_or(model.name),
            ..model
        })
    }

    /// A fresh name for a session: eight hexadecimal digits.
    pub(super) fn name(&mut self) -> String {
        loop {
            let name = hex::encode(&self.rng.bytes32()[..4]);
            if !self.sessions.contains_key(&name) {
                return name;
            }
        }
    }
}

fn to_wire(price: Price) -> net::PriceInfo {
    net::PriceInfo {
        price_per_unit: price.wei(),
        pixels_per_unit: price.per(),
        ..net::PriceInfo::default()
    }
}

/// The sum of two prices; `None` if the wire cannot carry it.
fn plus(a: Price, b: Price) -> Option<Price> {
    let per = a.per().checked_mul(b.per())?;
    let wei = a
        .wei()
        .checked_mul(b.per())?
        .checked_add(b.wei().checked_mul(a.per())?)?;
    Price::new(wei, per)
}
