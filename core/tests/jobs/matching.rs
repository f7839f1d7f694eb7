//! The compatibility rule, bit strings and request shapes, case by case against the reference's answers.

use std::collections::BTreeMap;

use livepeer_core::capabilities::{
    Bits, Capabilities, Capability, Mismatch, Model, TooOld, Version, compatible,
};
use prost::Message as _;
use serde_json::Value;

use crate::counted;

fn list<'a>(of: &'a Value, key: &str) -> &'a Vec<Value> {
    of[key]
        .as_array()
        .unwrap_or_else(|| panic!("no list {key}"))
}

fn words(of: &Value) -> Bits {
    let words: Vec<u64> = of
        .as_array()
        .into_iter()
        .flatten()
        .map(|word| {
            let digits = word.as_str().unwrap().strip_prefix("0x").unwrap();
            u64::from_str_radix(digits, 16).unwrap()
        })
        .collect();
    Bits::from_words(&words)
}

fn id(text: &str) -> Capability {
    Capability::new(text.parse().unwrap()).unwrap()
}

fn text(of: &Value) -> &str {
    of.as_str().unwrap_or("")
}

fn capacities(of: &Value) -> BTreeMap<Capability, u32> {
    of.as_object()
        .into_iter()
        .flatten()
        .map(|(key, n)| (id(key), n.as_u64().unwrap() as u32))
        .collect()
}

fn constraints(of: &Value) -> BTreeMap<Capability, BTreeMap<String, Model>> {
    let model = |of: &Value| {
        for key in of.as_object().unwrap().keys() {
            assert!(
                ["warm", "capacity", "capacity_in_use", "runner_version"].contains(&key.as_str()),
                "unknown field {key}"
            );
        }
        Model {
            warm: of["warm"].as_bool().unwrap_or(false),
            capacity: of["capacity"].as_u64().unwrap_or(0) as u32,
            in_use: of["capacity_in_use"].as_u64().unwrap_or(0) as u32,
            runner_version: text(&of["runner_version"]).into(),
        }
    };
    of.as_object()
        .into_iter()
        .flatten()
        .map(|(key, models)| {
            let models = models.as_object().unwrap().iter();
            (
                id(key),
                models.map(|(name, of)| (name.clone(), model(of))).collect(),
            )
        })
        .collect()
}

fn capabilities(of: &Value) -> Capabilities {
    const FIELDS: [&str; 6] = [
        "bitstring",
        "mandatories",
        "capacities",
        "constraints",
        "version",
        "min_version",
    ];
    for key in of.as_object().unwrap().keys() {
        assert!(FIELDS.contains(&key.as_str()), "unknown field {key}");
    }
    Capabilities {
        bits: words(&of["bitstring"]),
        mandatories: words(&of["mandatories"]),
        capacities: capacities(&of["capacities"]),
        constraints: constraints(&of["constraints"]),
        version: text(&of["version"]).into(),
        min_version: text(&of["min_version"]).into(),
    }
}

/// The vectors' word for an outcome.
fn reason(outcome: &Result<(), Mismatch>, reported: bool) -> String {
    let version = |why: &TooOld| match why {
        TooOld::Untold => "empty",
        TooOld::Undefined => "undefined",
        TooOld::Unreadable => "unparsable",
        TooOld::Lower => "too_low",
    };
    match outcome {
        Ok(()) if reported => "ok".into(),
        Ok(()) => "legacy_only".into(),
        Err(Mismatch::Unreported) => "no_capabilities_message".into(),
        Err(Mismatch::Version { why, .. }) => format!("version_{}", version(why)),
        Err(Mismatch::Demands { .. }) => "mandatory_not_requested".into(),
        Err(Mismatch::ModelMissing { .. }) => "model_missing".into(),
        Err(Mismatch::ModelCold { .. }) => "model_cold".into(),
        Err(Mismatch::Runner { why, .. }) => format!("runner_version_{}", version(why)),
        Err(Mismatch::Lacks {
            asked_words,
            offered_words,
            ..
        }) if asked_words > offered_words => "bitstring_longer".into(),
        Err(Mismatch::Lacks { missing, .. }) => {
            assert!(!missing.is_empty(), "something is missing");
            "bits_missing".into()
        }
        Err(other) => panic!("{other}: no such reason in the vectors"),
    }
}

#[test]
fn an_offer_is_judged_as_the_reference_judges_it() {
    for case in &counted("capabilities/compatibility.json", "cases", 121) {
        let name = text(&case["id"]);
        let wanted = capabilities(&case["request"]);
        let offered =
            (!case["orchestrator"].is_null()).then(|| capabilities(&case["orchestrator"]));
        let outcome = compatible(offered.as_ref(), &wanted);
        assert_eq!(
            reason(&outcome, offered.is_some()),
            text(&case["reason"]),
            "{name}"
        );
        assert_eq!(outcome.is_ok(), case["accept"].as_bool().unwrap(), "{name}");
        assert_eq!(
            wanted.bits.is_subset_of(&Capabilities::legacy()),
            case["legacy_only"].as_bool().unwrap(),
            "{name}: legacy"
        );
        if let Some(offered) = offered {
            assert_eq!(
                offered.serves(&wanted),
                outcome.is_ok(),
                "{name}: both forms agree"
            );
            // What travels over the wire is judged alike.
            let travelled = Capabilities::from_wire(offered.to_wire()).unwrap();
            assert_eq!(travelled, offered, "{name}: the wire changes nothing");
        }
        if let Err(why) = outcome {
            assert!(!why.to_string().is_empty());
        }
    }
}

#[test]
fn bit_strings_are_encoded_as_the_reference_encodes_them() {
    for case in &counted("capabilities/bitstrings.json", "encode", 18) {
        let name = text(&case["id"]);
        // Pseudo ids are negative; no value of our type has one.
        let ids = list(case, "capabilities")
            .iter()
            .filter_map(|id| Capability::new(u32::try_from(id.as_i64().unwrap()).ok()?));
        let bits: Bits = ids.collect();
        assert_eq!(bits.words(), words(&case["words"]).words(), "{name}");
        let wire = Capabilities {
            bits,
            ..Default::default()
        }
        .to_wire();
        assert_eq!(
            hex::encode(wire.encode_to_vec()),
            text(&case["proto_field1_hex"]),
            "{name}"
        );
    }
}

#[test]
fn bit_strings_are_decoded_as_the_reference_decodes_them() {
    for case in &counted("capabilities/bitstrings.json", "decode", 6) {
        let ids: Vec<u64> = words(&case["words"])
            .iter()
            .map(|c| c.id().into())
            .collect();
        let expected: Vec<u64> = list(case, "capabilities")
            .iter()
            .map(|id| id.as_u64().unwrap())
            .collect();
        assert_eq!(ids, expected, "{}", case["id"]);
    }
}

#[test]
fn capacities_come_and_go_with_workers() {
    for case in &counted("capabilities/bitstrings.json", "capacity", 6) {
        let name = text(&case["id"]);
        if case["words"].is_array() {
            let offer = Capabilities {
                bits: words(&case["words"]),
                capacities: capacities(&case["capacities_in"]),
                ..Default::default()
            };
            let expected = capacities(&case["capacities_out"]);
            assert_eq!(offer.all_capacities(), expected, "{name}");
            for (capability, n) in expected {
                assert_eq!(offer.capacity(capability), n, "{name}");
            }
            continue;
        }
        let mut offer = Capabilities {
            bits: words(&case["start_words"]),
            capacities: capacities(&case["start"]),
            ..Default::default()
        };
        for (capability, n) in capacities(&case["add"]) {
            offer.add_capacity(capability, n);
        }
        for (capability, n) in capacities(&case["remove"]) {
            offer.remove_capacity(capability, n);
        }
        assert_eq!(offer.capacities, capacities(&case["end"]), "{name}");
        assert_eq!(offer.bits, words(&case["end_words"]), "{name}");
    }
}

#[test]
fn requests_of_the_known_clients_can_be_made() {
    for case in &counted("capabilities/bitstrings.json", "request_shapes", 3) {
        let capability = Capability::new(case["capability"].as_u64().unwrap() as u32).unwrap();
        let model = case["model"].as_str();
        let made = match (text(&case["builder"]), model) {
            ("go", Some(model)) => {
                Capabilities::common().and_model(capability, model, Model::default())
            }
            ("python", model) => {
                let mut made = Capabilities::default();
                made.capacities.insert(capability, 1);
                if let Some(model) = model {
                    let models = [(model.to_string(), Model::default())];
                    made.constraints.insert(capability, models.into());
                }
                made
            }
            other => panic!("unknown client {other:?}"),
        };
        let expected = Capabilities {
            bits: words(&case["words"]),
            capacities: capacities(&case["capacities"]),
            constraints: constraints(&case["constraints"]),
            ..Default::default()
        };
        assert_eq!(made, expected, "{}", case["id"]);
    }
}

#[test]
fn our_own_request_names_the_id_as_bit_capacity_and_constraint() {
    let wanted = Capabilities::live_video("scope");
    let id = Capability::LIVE_VIDEO_TO_VIDEO;
    assert!(wanted.bits.contains(id));
    assert_eq!(wanted.capacity(id), 1);
    assert!(wanted.model(id, "scope").is_some());
    assert!(!wanted.is_empty());
    assert!(Capabilities::default().is_empty());
    assert!(wanted.clone().warm().model(id, "scope").unwrap().warm);
}

#[test]
fn a_warm_external_runner_serves_although_its_capacity_is_zero() {
    let wanted = Capabilities::live_video("scope");
    let external = crate::peers::offer("scope", 0);
    assert_eq!(external.serve(&wanted), Ok(()));
    assert_eq!(external.serve(&wanted.clone().warm()), Ok(()));
    assert_eq!(external.list(&wanted), Ok(()));
}

#[test]
fn a_strict_caller_wants_the_model_spelled_out() {
    let wanted = Capabilities::live_video("scope");
    let silent = Capabilities::default().and(Capability::LIVE_VIDEO_TO_VIDEO);
    assert_eq!(silent.serve(&wanted), Ok(()));
    assert!(matches!(
        silent.list(&wanted),
        Err(Mismatch::ModelMissing { .. })
    ));
    assert_eq!(wanted.list(&wanted), Ok(()));
}

#[test]
fn mismatches_say_what_is_missing() {
    let wanted = Capabilities::live_video("scope").at_least("0.9.0");
    let old = Capabilities {
        version: "0.8.1".into(),
        ..Capabilities::common()
    };
    assert_eq!(
        old.serve(&wanted).unwrap_err().to_string(),
        "the node's version \"0.8.1\" is too low, at least 0.9.0 is needed"
    );
    let without = Capabilities {
        version: "0.9.1".into(),
        ..Capabilities::common()
    };
    assert_eq!(
        without.serve(&wanted).unwrap_err().to_string(),
        "the node lacks Live video to video (35)"
    );
}

#[test]
fn hostile_capabilities_are_bounded() {
    let words = livepeer_proto::net::Capabilities {
        bitstring: vec![0; 65],
        ..Default::default()
    };
    assert!(Capabilities::from_wire(words).is_err());
    let version = livepeer_proto::net::Capabilities {
        version: "1".repeat(129),
        ..Default::default()
    };
    assert!(Capabilities::from_wire(version).is_err());
    let far = livepeer_proto::net::Capabilities {
        capacities: [(u32::MAX, 1), (35, 2)].into(),
        ..Default::default()
    };
    let read = Capabilities::from_wire(far).unwrap();
    assert_eq!(
        read.capacities.len(),
        1,
        "ids nobody can ask for are left out"
    );
}

#[test]
fn versions_are_kept_as_written() {
    let version = Version::from("v0.8.10-0123456a-dirty");
    assert_eq!(version.as_str(), "v0.8.10-0123456a-dirty");
    assert_eq!(version.numbers(), Some([0, 8, 10]));
}
