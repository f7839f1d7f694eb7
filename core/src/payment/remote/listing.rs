//! The list of orchestrators that a signer gives: those with something to sell that it would pay for (payments spec
//! 12.6).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::capabilities::{Capabilities, Ceilings, prices_by_model};
use crate::wire::OrchestratorInfo;
use crate::wire::listing::MAX_SKIPPED;
use crate::wire::runner::Runner;
use crate::wire::signer::ListedOrchestrator;

/// The orchestrators that a signer lists, and those left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// The orchestrators, each with its live runners.
    pub listed: Vec<ListedOrchestrator>,
    /// The first [`MAX_SKIPPED`] things that were left out.
    pub left_out: Vec<LeftOut>,
}

/// Something that an orchestrator offers and a signer does not list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The orchestrator's address.
    pub orchestrator: String,
    /// A model or a runner; `None` for the orchestrator as a whole.
    pub what: Option<String>,
    /// How it is wrong.
    pub why: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.orchestrator)?;
        if let Some(what) = &self.what {
            write!(f, "{what}: ")?;
        }
        f.write_str(&self.why)
    }
}

impl Listing {
    fn leave_out(&mut self, orchestrator: &str, what: Option<String>, why: impl fmt::Display) {
        if self.left_out.len() < MAX_SKIPPED {
            self.left_out.push(LeftOut {
                orchestrator: orchestrator.into(),
                what,
                why: why.to_string(),
            });
        }
    }

    /// Lists the models that an orchestrator sells at a price that we pay, as `pipeline/model`.
    fn priced(
        &mut self,
        address: &str,
        info: &OrchestratorInfo,
        ceilings: &Ceilings,
    ) -> Vec<String> {
        let offered = info.capabilities.iter().flat_map(|all| &all.constraints);
        let offered = offered.flat_map(|(of, models)| models.keys().map(|model| (*of, model)));
        // An orchestrator may name thousands of models, and as many prices.
        let prices = prices_by_model(&info.capabilities_prices);
        let mut names = Vec::new();
        for (capability, model) in offered.filter(|(_, model)| !model.is_empty()) {
            let Some(name) = capability.slug().map(|slug| format!("{slug}/{model}")) else {
                continue;
            };
            let wanted = Capabilities::for_model(capability, model.as_str());
            let price = prices.get(&(capability, model.as_str())).copied();
            match price.or(info.price) {
                None => self.leave_out(address, Some(name), NO_PRICE),
                Some(price) if price.is_free() => self.leave_out(address, Some(name), FREE),
                Some(price) => match ceilings.allow(&wanted, price) {
                    Ok(()) => names.push(name),
                    Err(dear) => self.leave_out(address, Some(name), dear),
                },
            }
        }
        names
    }
}

const NO_PRICE: &str = "it has no price";
/// A ticket for nothing cannot be made here: the reference refuses such quotes as well.
const FREE: &str = "it costs nothing, and a remote signer makes no payment of nothing";

/// Makes the list from what orchestrators said, each with its live runners. A model costs what the orchestrator asks
/// for it, or else for all. What has no price above zero, or one
/// above the ceilings, is left out, and so is an orchestrator of which nothing is left. Runners are held against
/// the overall ceiling only. One address, one entry; one runner's URL, one runner: the first of several wins.
#[must_use]
pub fn listing<'a>(
    found: impl IntoIterator<Item = (&'a OrchestratorInfo, &'a [Runner])>,
    ceilings: &Ceilings,
) -> Listing {
    let mut listing = Listing::default();
    let mut places = BTreeMap::new();
    let mut runners_seen = BTreeSet::new();
    let overall = ceilings.limit(&Capabilities::default());
    for (info, runners) in found {
        let address = info.transcoder.to_string();
        let address = address.trim_end_matches('/');
        let mut capabilities = listing.priced(address, info, ceilings);
        let mut kept = Vec::new();
        for runner in runners {
            match runner.affordable(overall.as_ref()) {
                Err(why) => listing.leave_out(address, Some(runner.url.to_string()), why),
                Ok(()) if runners_seen.insert(runner.url.clone()) => {
                    capabilities.push(runner.app.clone());
                    kept.push(runner.clone());
                }
                Ok(()) => {}
            }
        }
        if capabilities.is_empty() {
            listing.leave_out(address, None, "it offers nothing that is paid for");
            continue;
        }
        let listed = &mut listing.listed;
        let at = *places.entry(address.to_string()).or_insert_with(|| {
            listed.push(ListedOrchestrator {
                address: address.into(),
                capabilities: Vec::new(),
                runners: Vec::new(),
            });
            listed.len() - 1
        });
        listed[at].capabilities.extend(capabilities);
        listed[at].runners.extend(kept);
    }
    for one in &mut listing.listed {
        one.capabilities.sort_unstable();
        one.capabilities.dedup();
    }
    listing
}

/// The capabilities that a query asks for: the values of `caps` that are not empty. A set, for a query may name
/// hundreds and a list thousands.
pub(super) fn wanted(query: &str) -> BTreeSet<String> {
    query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("caps="))
        .map(percent_decoded)
        .filter(|cap| !cap.is_empty())
        .collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        bytes.push(match b {
            b'+' => b' ',
            b'%' => {
                let mut ahead = rest.clone();
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                match (digit(ahead.next()), digit(ahead.next())) {
                    (Some(high), Some(low)) => {
                        rest = ahead;
                        (high * 16 + low) as u8
                    }
                    _ => b'%',
                }
            }
            b => b,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::{Capability, Model, ModelPrice};
    use crate::money::{Amount, Price, Wei};
    use crate::payment::Unit;
    use crate::wire::runner::RunnerPrice;

    /// An orchestrator that offers models, each at a price or at that of all.
    fn info(url: &str, offers: &[(Capability, &str, Option<i64>)]) -> OrchestratorInfo {
        let mut capabilities = Capabilities::default();
        for (capability, model, _) in offers {
            let models = capabilities.constraints.entry(*capability).or_default();
            models.insert((*model).into(), Model::default());
        }
        OrchestratorInfo {
            raw: bytes::Bytes::new(),
            transcoder: url.parse().unwrap(),
            ticket_params: None,
            price: Price::new(90, 1),
            address: crate::Address::ZERO,
            capabilities: Some(capabilities),
            auth_token: None,
            capabilities_prices: offers
                .iter()
                .filter_map(|(capability, model, wei)| {
                    Some(ModelPrice {
                        capability: *capability,
                        model: (*model).into(),
                        price: Price::new((*wei)?, 1)?,
                    })
                })
                .collect(),
            nodes: Vec::new(),
        }
    }

    fn runner(url: &str, app: &str, wei: u64) -> Runner {
        Runner {
            url: url.parse().unwrap(),
            app: app.into(),
            version: String::new(),
            mode: None,
            capacity: 1,
            used: 0,
            available: 1,
            gpu: None,
            metadata: None,
            price: Some(RunnerPrice {
                wei: Amount::from(&Wei::from(wei)),
                unit: Unit::Seconds,
            }),
        }
    }

    #[test]
    fn only_what_is_priced_and_affordable_is_listed_and_nothing_twice() {
        let live = Capability::LIVE_VIDEO_TO_VIDEO;
        let ceilings = Ceilings::of(Price::new(100, 1).unwrap()).and(
            live,
            "dear",
            Price::new(500, 1).unwrap(),
        );
        let one = info(
            "https://a:1",
            &[
                (live, "cheap", Some(100)),
                (live, "dear", Some(500)),
                (live, "free", Some(0)),
                (live, "same", None),
                (live, "steep", Some(101)),
            ],
        );
        let again = info(
            "https://a:1/",
            &[(live, "cheap", Some(100)), (Capability::LLM, "x", Some(1))],
        );
        let nothing = info("https://b:1", &[(live, "cheap", Some(501))]);
        let first = [
            runner("https://a:1/r", "app", 7),
            runner("https://a:1/s", "steep", 101),
        ];
        let second = [
            runner("https://a:1/r", "app", 7),
            runner("https://a:1/f", "free", 0),
        ];
        let found = [
            (&one, &first[..]),
            (&again, &second[..]),
            (&nothing, &[][..]),
        ];
        let Listing { listed, left_out } = listing(found, &ceilings);
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].address, "https://a:1");
        let live_slug = live.slug().unwrap();
        let mut expected = [
            format!("{live_slug}/cheap"),
            format!("{live_slug}/dear"),
            format!("{live_slug}/same"),
            "app".into(),
            format!("{}/x", Capability::LLM.slug().unwrap()),
        ];
        expected.sort_unstable();
        assert_eq!(listed[0].capabilities, expected);
        assert_eq!(listed[0].runners.len(), 1);

        let told: Vec<String> = left_out.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                format!("https://a:1: {live_slug}/free: {FREE}"),
                format!(
                    "https://a:1: {live_slug}/steep: asks 101 wei per unit, above the ceiling of 100"
                ),
                "https://a:1: https://a:1/s: it costs more than we pay".into(),
                "https://a:1: https://a:1/f: it has no price above zero".into(),
                format!(
                    "https://b:1: {live_slug}/cheap: asks 501 wei per unit, above the ceiling of 100"
                ),
                "https://b:1: it offers nothing that is paid for".into(),
            ]
        );
    }
}
