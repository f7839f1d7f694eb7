//! The index finds exactly those that asking each one would find.

use std::collections::BTreeMap;

use livepeer_core::capabilities::{
    Bits, Capabilities, Capability, Ceilings, Model, ModelPrice, compatible,
};
use livepeer_core::http::Url;
use livepeer_core::money::Price;
use proptest::prelude::*;

use super::{CapabilityIndex, Entry, Query};

type Node = (Option<Capabilities>, Option<Price>, Vec<ModelPrice>);

fn url(n: usize) -> Url {
    Url::parse(&format!("https://o{n}:8935")).unwrap()
}

/// Few ids and names, so that much meets.
fn capability() -> impl Strategy<Value = Capability> {
    prop_oneof![Just(1u32), Just(12), Just(27), Just(35), Just(70)]
        .prop_map(|id| Capability::new(id).unwrap())
}

fn version() -> impl Strategy<Value = String> {
    let some = [
        "",
        "undefined",
        "junk",
        "0.8.0",
        "0.8.1-aa",
        "0.9",
        "1.0.0",
        "0.9999999.1",
    ];
    (0..some.len()).prop_map(move |at| some[at].to_string())
}

fn model_name() -> impl Strategy<Value = String> {
    (0..3u8).prop_map(|n| format!("m{n}"))
}

fn model() -> impl Strategy<Value = Model> {
    (any::<bool>(), version()).prop_map(|(warm, version)| Model {
        warm,
        runner_version: version.as_str().into(),
        ..Model::default()
    })
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    let bits = (
        proptest::collection::vec(capability(), 0..4),
        any::<bool>(),
        0..8u8,
    );
    let mandatories =
        prop_oneof![9 => Just(vec![]), 1 => proptest::collection::vec(capability(), 1..3)];
    let models = proptest::collection::btree_map(model_name(), model(), 0..3);
    let constraints = proptest::collection::btree_map(capability(), models, 0..3);
    (bits, mandatories, constraints, version(), version()).prop_map(
        |((bits, long, rare), mandatories, constraints, version, min_version)| {
            let bits: Bits = bits.into_iter().collect();
            let mut words = bits.words().to_vec();
            if long && rare == 0 {
                words.push(0);
            }
            Capabilities {
                bits: Bits::from_words(&words),
                mandatories: mandatories.into_iter().collect(),
                constraints,
                version: version.as_str().into(),
                min_version: min_version.as_str().into(),
                ..Capabilities::default()
            }
        },
    )
}

fn price() -> impl Strategy<Value = Price> {
    (0..6i64, 1..4i64).prop_map(|(wei, per)| Price::new(wei, per).unwrap())
}

fn node() -> impl Strategy<Value = Node> {
    let listed =
        (capability(), model_name(), price()).prop_map(|(capability, model, price)| ModelPrice {
            capability,
            model,
            price,
        });
    (
        proptest::option::weighted(0.9, capabilities()),
        proptest::option::of(price()),
        proptest::collection::vec(listed, 0..4),
    )
}

fn query() -> impl Strategy<Value = Query> {
    let ceilings = (
        proptest::option::of(price()),
        proptest::collection::vec((capability(), model_name(), price()), 0..2),
    )
        .prop_map(|(base, models)| {
            let base = base.map(Ceilings::of).unwrap_or_default();
            models
                .into_iter()
                .fold(base, |all, (id, model, price)| all.and(id, model, price))
        });
    (capabilities(), ceilings, proptest::bool::weighted(0.2)).prop_map(
        |(mut wanted, ceilings, listed_models_only)| {
            wanted.mandatories = Bits::new();
            Query {
                wanted,
                ceilings,
                listed_models_only,
            }
        },
    )
}

fn fits(index: &CapabilityIndex, entry: Entry, node: &Node, query: &Query) -> bool {
    let offered = node.0.as_ref();
    if compatible(offered, &query.wanted).is_err() {
        return false;
    }
    if query.listed_models_only && offered.is_none_or(|o| o.list(&query.wanted).is_err()) {
        return false;
    }
    match query.ceilings.limit(&query.wanted) {
        None => true,
        Some(limit) => index
            .price(entry, &query.wanted)
            .is_some_and(|price| price <= limit),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn it_finds_exactly_those_that_fit(
        nodes in proptest::collection::vec(node(), 0..80),
        again in proptest::collection::vec((0usize..80, proptest::option::of(node())), 0..20),
        queries in proptest::collection::vec(query(), 1..6),
    ) {
        let mut index = CapabilityIndex::new();
        let mut known: BTreeMap<Url, (Entry, Node)> = BTreeMap::new();
        let whole = nodes.into_iter().enumerate().map(|(n, node)| (n, Some(node)));
        for (n, node) in whole.chain(again) {
            match node {
                Some((offered, base, prices)) => {
                    let entry = index.insert(url(n), offered.clone(), base, prices.clone());
                    known.insert(url(n), (entry, (offered, base, prices)));
                }
                None => prop_assert_eq!(index.remove(&url(n)), known.remove(&url(n)).is_some()),
            }
        }
        prop_assert_eq!(index.len(), known.len());
        for query in &queries {
            let mut expected: Vec<Entry> = known
                .values()
                .filter(|(entry, node)| fits(&index, *entry, node, query))
                .map(|(entry, _)| *entry)
                .collect();
            expected.sort();
            let found = index.find(query);
            prop_assert_eq!(&found, &expected, "{:?}", query);
            for entry in found {
                prop_assert!(known.contains_key(index.url(entry).unwrap()));
            }
        }
    }
}
