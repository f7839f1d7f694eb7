//! Which orchestrators a signer lists: those with something to sell that it would pay for (payments spec 12.6).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::capabilities::{Capabilities, Ceilings};
use crate::wire::OrchestratorInfo;
use crate::wire::runner::Runner;
use crate::wire::signer::ListedOrchestrator;

/// Makes the list from what orchestrators said, each with its live runners. What has no price above zero, or one
/// above the ceilings, is left out, and so is an orchestrator of which nothing is left. Runners are held against
/// the overall ceiling only. One address, one entry; one runner's URL, one runner: the first of several wins.
#[must_use]
pub fn listing<'a>(
    found: impl IntoIterator<Item = (&'a OrchestratorInfo, &'a [Runner])>,
    ceilings: &Ceilings,
) -> Vec<ListedOrchestrator> {
    let mut listed: Vec<ListedOrchestrator> = Vec::new();
    let mut runners_seen = BTreeSet::new();
    let overall = ceilings.limit(&Capabilities::default());
    for (info, runners) in found {
        let address = info.transcoder.to_string();
        let address = address.trim_end_matches('/');
        let mut capabilities = priced(info, ceilings);
        let mut kept = Vec::new();
        for runner in runners {
            let priced = runner
                .price
                .as_ref()
                .is_some_and(|price| price.wei.is_positive());
            let affordable = runner.affordable(overall.as_ref()).is_ok();
            if priced && affordable && runners_seen.insert(runner.url.clone()) {
                capabilities.push(runner.app.clone());
                kept.push(runner.clone());
            }
        }
        if capabilities.is_empty() {
            continue;
        }
        match listed.iter_mut().find(|one| one.address == address) {
            None => listed.push(ListedOrchestrator {
                address: address.into(),
                capabilities: unique(capabilities),
                runners: kept,
            }),
            Some(one) => {
                let both = one.capabilities.drain(..).chain(capabilities);
                one.capabilities = unique(both.collect());
                one.runners.extend(kept);
            }
        }
    }
    listed
}

/// What an orchestrator sells at a price that is paid, as `pipeline/model`.
fn priced(info: &OrchestratorInfo, ceilings: &Ceilings) -> Vec<String> {
    let entries = info.capabilities_prices.iter().filter(|entry| {
        let wanted = Capabilities::for_model(entry.capability, entry.model.as_str());
        !entry.price.is_free() && ceilings.allow(&wanted, entry.price).is_ok()
    });
    entries
        .filter_map(|entry| Some(format!("{}/{}", entry.capability.slug()?, entry.model)))
        .collect()
}

/// What a query asks for: the values of `caps` that are not empty.
pub(super) fn wanted(query: &str) -> Vec<String> {
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

fn unique(names: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names
        .into_iter()
        .filter(|name| seen.insert(name.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::{Capability, ModelPrice};
    use crate::money::{Amount, Price, Wei};
    use crate::payment::Unit;
    use crate::wire::runner::RunnerPrice;

    fn info(url: &str, prices: &[(Capability, &str, i64)]) -> OrchestratorInfo {
        OrchestratorInfo {
            raw: bytes::Bytes::new(),
            transcoder: url.parse().unwrap(),
            ticket_params: None,
            price: None,
            address: crate::Address::ZERO,
            capabilities: None,
            auth_token: None,
            capabilities_prices: prices
                .iter()
                .map(|(capability, model, wei)| ModelPrice {
                    capability: *capability,
                    model: (*model).into(),
                    price: Price::new(*wei, 1).unwrap(),
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
                (live, "cheap", 100),
                (live, "dear", 500),
                (live, "free", 0),
                (live, "steep", 101),
            ],
        );
        let again = info(
            "https://a:1/",
            &[(live, "cheap", 100), (Capability::LLM, "x", 1)],
        );
        let nothing = info("https://b:1", &[(live, "cheap", 501)]);
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
        let listed = listing(found, &ceilings);
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].address, "https://a:1");
        let live_slug = live.slug().unwrap();
        assert_eq!(
            listed[0].capabilities,
            [
                format!("{live_slug}/cheap"),
                format!("{live_slug}/dear"),
                "app".into(),
                format!("{}/x", Capability::LLM.slug().unwrap()),
            ]
        );
        assert_eq!(listed[0].runners.len(), 1);
    }
}
