//! The demand for payment of live runners.

use livepeer_core::payment::Unit;
use livepeer_core::wire::OrchestratorInfo;
use livepeer_core::wire::challenge::{BadRefresh, Challenge, PAYER_ADDRESS_HEADER, RefreshRequest};
use livepeer_core::wire::signer::{PaymentRequest, error_json};
use serde_json::{Value, json};

use crate::support::*;

#[test]
fn a_demand_is_read_answered_and_told_from_an_error() {
    let file = file("challenge.json");
    lists(&file, &["cases", "cases_refresh"]);
    each(&file, "cases", 2, |name, case| {
        assert_eq!(small(&case["status"]), 402, "{name}");
        for field in case["payer_header"].as_object().unwrap().keys() {
            assert_eq!(field.to_ascii_lowercase(), PAYER_ADDRESS_HEADER, "{name}");
        }
        let body = case["body"].to_string();
        let challenge = Challenge::from_json(body.as_bytes()).unwrap().unwrap();
        let decoded = &case["decoded"];
        let info = &challenge.info;
        let same_url = |url: &livepeer_core::http::Url, text: &Value| {
            *url == livepeer_core::http::Url::parse(text.as_str().unwrap()).unwrap()
        };
        assert!(same_url(&info.transcoder, &decoded["transcoder"]), "{name}");
        assert!(
            same_url(&challenge.orchestrator, &case["body"]["orchestrator"]),
            "{name}"
        );
        assert!(
            same_url(&challenge.payment_url, &case["body"]["payment_url"]),
            "{name}"
        );
        let price = info.price.unwrap();
        assert_eq!(
            Some(price.wei()),
            decoded["price_per_unit"].as_i64(),
            "{name}"
        );
        assert_eq!(
            Some(price.per()),
            decoded["pixels_per_unit"].as_i64(),
            "{name}"
        );
        assert_eq!(info.address, address(&decoded["address"]), "{name}");
        assert_eq!(
            info.capabilities.is_some(),
            decoded["has_capabilities"],
            "{name}"
        );
        assert_eq!(
            challenge.manifest_id,
            text(&decoded["session_id"]),
            "{name}"
        );
        let token = info.auth_token.as_ref().unwrap();
        assert_eq!(token.session_id, challenge.manifest_id, "{name}");

        let unit = Unit::from_advertised(text(&case["unit"])).unwrap();
        let follow_up = PaymentRequest {
            orchestrator: Some(info.raw.clone()),
            manifest_id: challenge.manifest_id.clone(),
            job_type: unit.signer_type().into(),
            ..PaymentRequest::default()
        };
        let written: Value = serde_json::from_slice(&follow_up.to_json()).unwrap();
        assert_eq!(written, case["follow_up_request_to_signer"], "{name}");

        let again = Challenge::from_json(&challenge.to_json()).unwrap();
        assert_eq!(again, Some(challenge), "{name}");
    });
    each(&file, "cases_refresh", 4, |name, case| {
        let request = RefreshRequest::from_json(case["request"].to_string().as_bytes());
        let priced = case.get("fixed_price").is_none_or(Value::is_string);
        let verdict = request.and_then(|request| {
            let written: Value = serde_json::from_slice(&request.to_json()).unwrap();
            assert_eq!(written, case["request"], "{name}");
            if priced {
                Ok(())
            } else {
                Err(BadRefresh::NoPrice)
            }
        });
        match verdict {
            Ok(()) => assert_eq!(small(&case["status"]), 200, "{name}"),
            Err(why) => {
                assert_eq!(u64::from(why.status()), small(&case["status"]), "{name}");
                assert_eq!(why.to_string(), text(&case["message"]), "{name}");
            }
        }
    });
}

#[test]
fn the_same_status_with_an_error_is_no_demand() {
    for body in [
        &error_json("missing Livepeer-Payer-Address")[..],
        b"",
        b"payment header unreadable",
        b"[]",
        br#"{"payment_params":null}"#,
    ] {
        assert_eq!(Challenge::from_json(body).unwrap(), None);
    }
}

#[test]
fn a_demand_that_cannot_be_met_is_an_error() {
    let file = file("challenge.json");
    let good = &file["cases"][0]["body"];
    assert!(
        Challenge::from_json(good.to_string().as_bytes())
            .unwrap()
            .is_some()
    );
    for (field, bad) in [
        ("payment_params", json!("!!!")),
        ("payment_params", json!("AQ==")),
        ("payment_params", json!(7)),
        ("orchestrator", json!("ftp://x")),
        ("payment_url", json!("ftp://x")),
        ("manifest_id", json!("")),
        ("manifest_id", json!("another")),
    ] {
        let mut body = good.clone();
        body[field] = bad;
        assert!(
            Challenge::from_json(body.to_string().as_bytes()).is_err(),
            "{field}"
        );
    }
    let demand = Challenge::from_json(good.to_string().as_bytes());
    let demand = demand.unwrap().unwrap();
    // Older orchestrators do not say where to pay, nor where they are.
    let mut old = good.clone();
    old["payment_url"] = json!(null);
    old["orchestrator"] = json!("");
    let old = Challenge::from_json(old.to_string().as_bytes());
    let old = old.unwrap().unwrap();
    assert_eq!(old.payment_url, demand.info.transcoder.child("payment"));
    assert_eq!(old.orchestrator, demand.info.transcoder);
    assert!(OrchestratorInfo::decode(demand.info.raw).is_ok());
}
