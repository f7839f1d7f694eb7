//! Prices per capability and model, and what we pay at most.

use std::collections::BTreeMap;

use livepeer_core::capabilities::{
    Capabilities, Capability, Ceilings, Model, ModelPrice, Tariff, price_of,
};
use livepeer_core::money::{Amount, Price};
use serde_json::Value;

use crate::counted;

fn id(text: &str) -> Capability {
    Capability::new(text.parse().unwrap()).unwrap()
}

/// `"p"` or `"p/q"`.
fn price(of: &Value) -> Option<Price> {
    let (wei, per) = of.as_str()?.split_once('/').unwrap_or((of.as_str()?, "1"));
    Price::new(wei.parse().unwrap(), per.parse().unwrap())
}

fn amount(of: &Value) -> Option<Amount> {
    price(of).map(|price| price.of_one())
}

fn wire_price(of: &Value) -> Option<Price> {
    Price::new(
        of["price_per_unit"].as_i64()?,
        of["pixels_per_unit"].as_i64()?,
    )
}

#[test]
fn a_price_is_looked_up_by_capability_and_model_then_in_general() {
    for case in &counted("capabilities/selection.json", "client_price_lookup", 10) {
        let listed: Vec<ModelPrice> = case["capabilities_prices"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|entry| {
                Some(ModelPrice {
                    capability: Capability::new(entry["capability"].as_u64()? as u32)?,
                    model: entry["constraint"].as_str()?.into(),
                    price: wire_price(entry)?,
                })
            })
            .collect();
        let capability = Capability::new(case["capability"].as_u64().unwrap() as u32).unwrap();
        let found = price_of(
            &listed,
            wire_price(&case["price_info"]),
            capability,
            case["model"].as_str().unwrap(),
        );
        assert_eq!(found, price(&case["price"]), "{}", case["id"]);
    }
}

#[test]
fn the_ceiling_of_a_job_is_the_sum_over_its_models() {
    for case in &counted("capabilities/selection.json", "max_price", 11) {
        let base = price(&case["base_max"]);
        let mut ceilings = base.map(Ceilings::of).unwrap_or_default();
        for (key, models) in case["per_capability"].as_object().unwrap() {
            for (model, of) in models.as_object().unwrap() {
                if let Some(price) = price(of) {
                    ceilings = ceilings.and(id(key), model.as_str(), price);
                }
            }
        }
        let mut wanted = Capabilities::default();
        for (key, models) in case["request"].as_object().into_iter().flatten() {
            for model in models.as_array().unwrap() {
                let model = model.as_str().unwrap();
                wanted = wanted.and_model(id(key), model, Model::default());
            }
        }
        assert_eq!(
            ceilings.limit(&wanted),
            amount(&case["max_price"]),
            "{}",
            case["id"]
        );
    }
}

#[test]
fn a_price_at_the_ceiling_is_allowed_and_one_above_is_not() {
    let wanted = Capabilities::live_video("scope");
    let ceilings = Ceilings::of(Price::new(1, 3).unwrap());
    assert_eq!(ceilings.allow(&wanted, Price::new(2, 6).unwrap()), Ok(()));
    assert!(
        ceilings
            .allow(&wanted, Price::new(1667, 5000).unwrap())
            .is_err()
    );
    assert_eq!(
        Ceilings::default().allow(&wanted, Price::new(i64::MAX, 1).unwrap()),
        Ok(())
    );
}

fn tariff(of: &Value) -> Tariff {
    let mut per_model: BTreeMap<Capability, BTreeMap<String, Price>> = BTreeMap::new();
    for (key, models) in of["models"].as_object().unwrap() {
        let models = models.as_object().unwrap().iter();
        let models = models.map(|(model, of)| (model.clone(), price(of).unwrap()));
        per_model.insert(id(key), models.collect());
    }
    Tariff {
        base: price(&of["transcoding"]),
        per_model,
    }
}

#[test]
fn an_orchestrator_charges_what_the_reference_would() {
    for case in &counted("capabilities/selection.json", "orchestrator_price", 10) {
        let wanted = case["request"].as_object().map(|request| {
            let mut wanted = Capabilities::default();
            for capability in request["capacities"].as_array().unwrap() {
                wanted
                    .capacities
                    .insert(id(capability.as_str().unwrap()), 1);
            }
            for (key, models) in request["constraints"].as_object().unwrap() {
                let models = models.as_array().unwrap().iter();
                let models = models.map(|m| (m.as_str().unwrap().to_string(), Model::default()));
                wanted.constraints.insert(id(key), models.collect());
            }
            wanted
        });
        let (general, special) = (tariff(&case["default"]), tariff(&case["for_this_gateway"]));
        let quoted = general.quote(&special, wanted.as_ref());
        assert_eq!(Some(quoted), amount(&case["base_price"]), "{}", case["id"]);
    }
}

#[test]
fn a_price_that_moves_is_paid_up_to_double_and_by_signers_not_at_all() {
    use livepeer_core::payment::price::{Ceiling, at_most_doubled, check_ceilings};
    for case in &counted("capabilities/selection.json", "renegotiation", 8) {
        let initial = wire_price(&case["initial"]);
        let current = wire_price(&case["current"]);
        let own_key = match (initial, current) {
            (_, None) if case["current"].is_null() => "missing_price",
            (_, None) => "pixels_zero",
            (Some(initial), Some(current)) if !at_most_doubled(&initial, &current) => {
                "more_than_doubled"
            }
            _ => "ok",
        };
        assert_eq!(
            own_key,
            case["go_gateway"].as_str().unwrap(),
            "{}",
            case["id"]
        );
        let first = initial.map(|price| Ceiling {
            name: "first price",
            price: price.of_one().as_ratio().clone(),
        });
        let signer = match current.filter(|price| !price.is_free()) {
            None => "bad_request_400",
            Some(current) => match check_ceilings(current.of_one().as_ratio(), first) {
                Ok(()) => "ok",
                Err(_) => "price_exceeded_481",
            },
        };
        assert_eq!(
            signer,
            case["remote_signer"].as_str().unwrap(),
            "{}",
            case["id"]
        );
    }
}
