//! Preferences and policies: who is tried, in which order, and why nobody is.

use std::collections::BTreeMap;
use std::time::Duration;

use livepeer_core::Rng;
use livepeer_core::TrackRecord;
use livepeer_core::http::Url;
use livepeer_core::money::{Amount, Price};
use livepeer_core::pipeline::WorkUnit;
use livepeer_core::pool::{Candidate, Selector};
use livepeer_core::prefer::Limits;
use livepeer_core::selection::{Nobody, Preferring, Size};
use livepeer_core::sign::Address;
use livepeer_core::wire::preferences::{Terms, read};
use livepeer_core::wire::refused::Refused;
use serde_json::{Value, json};

use super::cases;
use crate::selection::info;
use crate::vectors;

/// Draws in an order that is given.
struct Drawn(Vec<String>);

impl Selector for Drawn {
    fn select(&mut self, _: &mut Rng, from: &[Candidate<'_>]) -> Option<usize> {
        let place = |at: &usize| self.0.iter().position(|url| *url == shown(from[*at].url));
        (0..from.len()).min_by_key(place)
    }
}

fn shown(url: &Url) -> String {
    url.to_string().trim_end_matches('/').to_owned()
}

/// A price as the cases write it: a whole number or a fraction.
fn price(text: &str) -> Price {
    let (over, under) = text.split_once('/').unwrap_or((text, "1"));
    Price::new(over.parse().unwrap(), under.parse().unwrap()).unwrap()
}

#[test]
fn preferences_order_and_exclude() {
    let file = vectors::file("front/openai-provider.json");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let known = file["candidates"].as_array().unwrap();
    let infos: Vec<_> = known
        .iter()
        .map(|one| {
            let mut info = info(1, Some(price(&text(&one["price"]))));
            info.transcoder = Url::parse(&text(&one["url"])).unwrap();
            info.address = text(&one["address"]).parse::<Address>().unwrap();
            info
        })
        .collect();
    let records: Vec<_> = known
        .iter()
        .map(|one| TrackRecord {
            first_byte: one["latency_ms"].as_u64().map(Duration::from_millis),
            ..TrackRecord::default()
        })
        .collect();
    let candidates: Vec<Candidate<'_>> = known
        .iter()
        .zip(infos.iter().zip(&records))
        .map(|(one, (info, record))| Candidate {
            url: &info.transcoder,
            info,
            latency: Duration::from_millis(50),
            lent: 0,
            warm: one["warm"].as_bool().unwrap(),
            record,
            speed: one["units_per_s"].as_u64(),
        })
        .collect();
    let draw: Vec<String> = file["draw"].as_array().unwrap().iter().map(text).collect();
    let all = cases("openai-provider");
    assert_eq!(all.len(), 40);
    for case in &all {
        let (id, given) = (text(&case["id"]), &case["in"]);
        let eth = given["usd_per_eth"]
            .as_str()
            .map(|eth| eth.parse().unwrap());
        let terms = Terms {
            names: BTreeMap::new(),
            wei_per_usd: eth.and_then(|eth: u64| Amount::ratio(10_u64.pow(18), eth)),
        };
        let limits = |of: &Value| -> Limits {
            let read = read(Some(&of.to_string()), None, &terms).unwrap();
            read.preferences.limits
        };
        let told = match read(Some(&given["provider"].to_string()), None, &terms) {
            Err(refused) => Err(refused),
            Ok(read) => {
                let (gateway, tenant) = (limits(&given["gateway"]), limits(&given["tenant"]));
                let mut preferring = Preferring {
                    policies: &[&gateway, &tenant],
                    preferences: &read.preferences,
                    size: Size {
                        units: given["units"].as_u64().unwrap(),
                        unit: WorkUnit::Token,
                        pictures: 0,
                    },
                    inner: &mut Drawn(draw.clone()),
                };
                let mut rng = Rng::new([1; 32]);
                let ranked = preferring.rank(&mut rng, &candidates);
                let first = preferring.select(&mut rng, &candidates);
                let ours = ranked
                    .as_ref()
                    .ok()
                    .and_then(|ranked| ranked.first().copied());
                assert_eq!(first, ours, "{id}: the first is the one that is selected");
                ranked.map_err(|nobody| match nobody {
                    Nobody::AtAll => Refused::no_orchestrator("llm", []),
                    Nobody::Fits(excluded) => Refused::no_match(&excluded),
                })
            }
        };
        let wanted = &case["out"];
        match told {
            Ok(ranked) => {
                let urls = ranked.iter().map(|at| shown(candidates[*at].url));
                let urls: Vec<String> = urls.collect();
                assert_eq!(json!(urls), wanted["order"], "{id}");
            }
            Err(refused) => {
                let body = refused.body(livepeer_core::wire::refused::Shape::OpenAi);
                let mut ours: Value = serde_json::from_slice(&body).unwrap();
                ours["error"]["status"] = refused.status().into();
                assert_eq!(ours["error"], wanted["error"], "{id}");
            }
        }
    }
}

#[test]
fn the_body_wins_over_the_header_key_by_key() {
    let terms = Terms::default();
    let both = read(
        Some(r#"{"sort":"price"}"#),
        Some(r#"{"sort":"latency","require_warm":true,"preferred_max_latency":1}"#),
        &terms,
    )
    .unwrap();
    assert_eq!(
        both.preferences.sort,
        Some(livepeer_core::prefer::Sort::Price)
    );
    assert!(both.preferences.limits.require_warm);
    assert_eq!(both.ignored, ["provider.preferred_max_latency"]);
    for header in [
        "{",
        "{\"sort\":\"price\",\"sort\":\"price\"}",
        "{} {}",
        "[]",
    ] {
        let refused = read(None, Some(header), &terms).unwrap_err();
        assert_eq!(refused.param.as_deref(), Some("provider"), "{header}");
    }
}
