//! The signer's books against those of the reference.

use super::*;

fn whole(value: &Value) -> BigUint {
    ratio(value).to_integer().to_biguint().unwrap()
}

#[test]
fn a_signers_books_are_those_of_the_reference() {
    let file = file("signer_sequence.json");
    lists(&file, &["cases"]);
    each(&file, "cases", 16, |name, case| {
        let ev = whole(&case["ev"]);
        let mut latest = StateBlob::default();
        for step in case["steps"].as_array().unwrap() {
            let at = START + Duration::from_nanos(small(&step["at_ns"]));
            let asked = &step["request"];
            let job_type = text(&asked["type"]);
            let price = (
                asked["price_per_unit"].as_i64().unwrap(),
                asked["pixels_per_unit"].as_i64().unwrap(),
            );
            let mut quote = quote(&ev, price, &bytes(&asked["ticket_session"]));
            if name != "auth_token_window" {
                quote.auth_token.as_mut().unwrap().expiration += 100_000;
            }
            let request = PaymentRequest {
                state: match text(&asked["state"]) {
                    "none" => StateBlob::default(),
                    "latest" => latest.clone(),
                    other => panic!("nobody tests {other}"),
                },
                orchestrator: Some(quote.encode_to_vec().into()),
                manifest_id: text(&asked["ManifestID"]).into(),
                in_pixels: asked["inPixels"].as_i64().unwrap(),
                job_type: job_type.into(),
                max_price: asked["maxPrice"]
                    .as_str()
                    .map(|price| MaxPrice::new(price, Unit::from_signer_type(job_type).unwrap())),
                ..PaymentRequest::default()
            };
            match decide(at, &request) {
                Err(refusal) => {
                    assert_eq!(u64::from(refusal.status), small(&step["status"]), "{name}");
                    assert_eq!(refusal.message, text(&step["message"]), "{name}");
                    if step.get("fee").is_some() {
                        let fee = amount(&step["fee"]);
                        let ev = Amount::from(&Wei::from(ev.clone()));
                        let existing = amount(&step["existing"]);
                        let needed = tickets_for(&min_credit(&fee, &ev), &existing, &ev);
                        assert_eq!(needed, small(&step["num_tickets"]), "{name}");
                    }
                }
                Ok(plan) => {
                    assert_eq!(small(&step["status"]), 200, "{name}");
                    assert_eq!(plan.units, small(&step["billable_units"]), "{name}");
                    assert_eq!(plan.fee, amount(&step["fee"]), "{name}");
                    assert_eq!(plan.existing, amount(&step["existing"]), "{name}");
                    let first = small(&step["nonces"][0]);
                    let last = small(&step["nonces"][1]);
                    assert_eq!(u64::from(*plan.nonces.start()), first, "{name}");
                    assert_eq!(u64::from(*plan.nonces.end()), last, "{name}");
                    let count = plan.nonces.clone().count();
                    assert_eq!(count as u64, small(&step["num_tickets"]), "{name}");
                    assert_eq!(plan.state.balance, amount(&step["balance"]), "{name}");
                    assert_eq!(
                        plan.state.balance.to_string(),
                        text(&step["balance"]),
                        "{name}"
                    );
                    let sequence = small(&step["sequence_number"]);
                    assert_eq!(plan.state.sequence_number, sequence, "{name}");
                    let nonce = small(&step["sender_nonce"]);
                    assert_eq!(u64::from(plan.state.sender_nonce), nonce, "{name}");
                    latest = sign_state(&key(), &plan.state);
                }
            }
        }
    });
}

/// Runs a signer and an orchestrator's meter side by side, by whole seconds; says what was minted when, and when
/// the job was cut.
fn cosimulate(case: &Value, minting: Minting) -> (Vec<Value>, Option<u64>) {
    let ev = whole(&case["ev"]);
    let price = ratio(&case["price"]).to_integer();
    let price = i64::try_from(price).unwrap();
    let job_type = text(&case["type"]);
    let unit = Unit::from_signer_type(job_type).unwrap();
    let poll = small(&case["client_poll_s"]);
    let interval = Duration::from_secs(small(&case["orchestrator_interval_s"]));
    assert_eq!(small(&case["orchestrator_start_s"]), 0);

    let id = AccountId {
        sender: Address([1; 20]),
        session: "job".into(),
    };
    let mut balances = Balances::new(START, Duration::from_secs(100_000));
    let mut meter = Meter::new(START, unit.per_second().unwrap(), interval);
    let mut state = StateBlob::default();
    let mut mints = Vec::new();
    for t in 0..=small(&case["horizon_s"]) {
        let now = START + Duration::from_secs(t);
        if let Some(units) = meter.read(now) {
            let fee = Price::new(price, 1).unwrap().fee(units);
            if balances.debit_covered(now, &id, &fee).is_err() {
                return (mints, Some(t));
            }
        }
        if t % poll != 0 {
            continue;
        }
        let mut quote = quote(&ev, (price, 1), &[1]);
        quote.auth_token.as_mut().unwrap().expiration = i64::MAX / 2_000_000_000;
        let request = PaymentRequest {
            state: state.clone(),
            orchestrator: Some(quote.encode_to_vec().into()),
            manifest_id: "job".into(),
            job_type: job_type.into(),
            ..PaymentRequest::default()
        };
        let policy = Policy {
            minting,
            ..policy(&key())
        };
        let chain = ChainView::development();
        match plan(now, &policy, &chain, &mut Rng::new([0; 32]), &request) {
            Err(refusal) => assert_eq!(refusal.status, 482),
            Ok(plan) => {
                state = sign_state(&key(), &plan.state);
                balances.credit(now, &id, &plan.value).unwrap();
                mints.push(json!({
                    "t": t,
                    "minted": plan.nonces.count(),
                    "orchestrator_balance": format!("{}/1", balances.read(&id).unwrap()),
                }));
            }
        }
    }
    (mints, None)
}

#[test]
fn minting_as_the_reference_does_cuts_jobs_as_the_reference_does() {
    let file = file("signer_cosim.json");
    lists(&file, &["cases"]);
    each(&file, "cases", 4, |name, case| {
        let (mints, released) = cosimulate(case, Minting::AsReference);
        assert_eq!(Value::from(mints), case["mints"], "{name}");
        assert_eq!(released, case["released_at_s"].as_u64(), "{name}");
    });
}

#[test]
fn minting_early_never_lets_a_job_starve() {
    let file = file("signer_cosim.json");
    for case in file["cases"].as_array().unwrap() {
        let (_, released) = cosimulate(case, Minting::Early);
        assert_eq!(released, None, "{}", case["name"]);
    }
}

#[test]
fn two_exchanges_are_byte_for_byte_those_of_the_reference() {
    let file = file("signer_golden.json");
    lists(&file, &["cases", "cases_state"]);
    each(&file, "cases", 2, |name, case| {
        let key = Key::new(&bytes(&case["signer_private_key"]));
        assert_eq!(key.address(), address(&case["signer_address"]), "{name}");
        let body = case["request_body"].to_string();
        let request = PaymentRequest::from_json(body.as_bytes()).unwrap();
        let chain = ChainView {
            l1_block: text(&case["last_seen_l1_block"]).parse().unwrap(),
            ..ChainView::development()
        };
        let now = from_rfc3339(text(&case["now"])).unwrap();
        let mut rng = Rng::new([0; 32]);
        let mut plan = plan(now, &policy(&key), &chain, &mut rng, &request).unwrap();
        plan.state.state_id = text(&case["state_id_injected"]).into();
        assert_eq!(plan.units, small(&case["billable_units"]), "{name}");
        assert_eq!(plan.fee, amount(&case["fee"]), "{name}");
        let (first, last) = (small(&case["nonces"][0]), small(&case["nonces"][1]));
        assert_eq!(u64::from(*plan.nonces.start()), first, "{name}");
        assert_eq!(u64::from(*plan.nonces.end()), last, "{name}");
        let count = plan.nonces.clone().count() as u64;
        assert_eq!(count, small(&case["num_tickets"]), "{name}");
        assert_eq!(plan.state.to_json(), text(&case["state_json"]), "{name}");
        let again = SignerState::from_json(plan.state.to_json().as_bytes()).unwrap();
        assert_eq!(again, plan.state, "{name}");

        let signatures: Vec<_> = plan
            .digests(key.address())
            .map(|digest| key.sign(digest))
            .collect();
        let (payment, segment) = plan.headers(key.address(), &signatures).unwrap();
        let state = sign_state(&key, &plan.state);
        assert_eq!(state.sig, bytes(&case["state_sig"]), "{name}");
        let response = PaymentResponse {
            payment,
            segment,
            state,
        };
        let written: Value = serde_json::from_slice(&response.to_json()).unwrap();
        assert_eq!(written, case["response_body"], "{name}");
        assert_eq!(
            PaymentResponse::from_json(&response.to_json()).unwrap(),
            response
        );
        assert_eq!(small(&case["status"]), 200, "{name}");
    });

    let call = &file["cases"][1];
    let key = Key::new(&bytes(&call["signer_private_key"]));
    let raw = STANDARD
        .decode(text(&call["request_body"]["orchestrator"]))
        .unwrap();
    each(&file, "cases_state", 9, |name, case| {
        let mut info = net::OrchestratorInfo::decode(&*raw).unwrap();
        info.address = address(&case["orchestrator_address"]).0.to_vec().into();
        let request = PaymentRequest {
            state: StateBlob {
                state: STANDARD.decode(text(&case["state"])).unwrap().into(),
                sig: STANDARD.decode(text(&case["sig"])).unwrap().into(),
            },
            orchestrator: Some(info.encode_to_vec().into()),
            manifest_id: "mid1".into(),
            app: text(&case["app"]).into(),
            job_type: text(&case["type"]).into(),
            ..PaymentRequest::default()
        };
        let chain = ChainView {
            l1_block: text(&call["last_seen_l1_block"]).parse().unwrap(),
            ..ChainView::development()
        };
        let now = from_rfc3339(text(&call["now"])).unwrap() + Duration::from_secs(5);
        match plan(now, &policy(&key), &chain, &mut Rng::new([0; 32]), &request) {
            Ok(_) => assert_eq!(small(&case["status"]), 200, "{name}"),
            Err(refusal) => {
                assert_eq!(u64::from(refusal.status), small(&case["status"]), "{name}");
                assert_eq!(refusal.message, text(&case["message"]), "{name}");
            }
        }
    });
}
