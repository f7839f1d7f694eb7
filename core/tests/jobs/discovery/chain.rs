//! The list that the contracts keep.

use super::*;

#[test]
fn contract_calls_are_those_of_the_reference() {
    for case in &counted("capabilities/handshake.json", "eth_calls", 13) {
        let id = case["id"].as_str().unwrap();
        let sent = unhex(&case["data"]);
        let back = unhex(&case["return"]);
        let note = case["note"].as_str().unwrap_or("");
        let who = || Address(sent[16..36].try_into().unwrap());
        let address = || {
            let read = contracts::read_address(&back).unwrap();
            assert_eq!(
                read,
                case["decoded"].as_str().unwrap().parse().unwrap(),
                "{id}"
            );
        };
        let number = || {
            let read = contracts::read_number(&back).unwrap();
            let decimal = num_bigint::BigUint::from_bytes_be(&read).to_string();
            let expected = match &case["decoded"] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert_eq!(decimal, expected, "{id}");
        };
        let ours = match case["function"].as_str().unwrap() {
            "getContract(bytes32)" => {
                address();
                let named = [
                    ("ServiceRegistry", Contract::ServiceRegistry),
                    ("BondingManager", Contract::BondingManager),
                    ("RoundsManager", Contract::RoundsManager),
                ];
                let found = named.into_iter().find(|(name, _)| note.contains(name));
                assert_eq!(
                    contracts::CONTROLLER,
                    case["to"].as_str().unwrap().parse().unwrap()
                );
                contracts::get_contract(found.unwrap().1)
            }
            "getFirstTranscoderInPool()" => {
                address();
                contracts::get_first_in_pool()
            }
            "getNextTranscoderInPool(address)" => {
                address();
                contracts::get_next_in_pool(who())
            }
            "getServiceURI(address)" => {
                let read = contracts::read_text(&back).unwrap();
                assert_eq!(read, case["decoded"].as_str().unwrap(), "{id}");
                if case["contract"] == "AIServiceRegistry" {
                    let to: Address = case["to"].as_str().unwrap().parse().unwrap();
                    assert_eq!(contracts::AI_SERVICE_REGISTRY, to);
                }
                contracts::get_service_uri(who())
            }
            "getTranscoderPoolSize()" => {
                number();
                contracts::get_pool_size()
            }
            "isActiveTranscoder(address)" => {
                assert_eq!(
                    contracts::read_bool(&back).unwrap(),
                    case["decoded"].as_bool().unwrap()
                );
                contracts::is_active(who())
            }
            "transcoderTotalStake(address)" => {
                number();
                let read = contracts::read_number(&back).unwrap();
                assert_eq!(contracts::fixed_point(&read), 1_234_560_000);
                contracts::total_stake(who())
            }
            "lastInitializedRound()" => {
                number();
                contracts::last_round()
            }
            other => panic!("no function {other}"),
        };
        assert_eq!(hex::encode(ours), hex::encode(sent), "{id}");
    }
}

#[test]
fn event_topics_are_those_of_the_reference() {
    for case in &counted("capabilities/handshake.json", "events", 3) {
        let topic: [u8; 32] = unhex(&case["topic0"]).try_into().unwrap();
        assert!(contracts::topics().contains(&topic), "{}", case["event"]);
    }
}

#[test]
fn stakes_are_cut_to_five_decimals() {
    for case in &counted("capabilities/handshake.json", "stake_fixed_point", 4) {
        let units: num_bigint::BigUint =
            case["stake_base_units"].as_str().unwrap().parse().unwrap();
        let bytes = units.to_bytes_be();
        let mut word = [0; 32];
        word[32 - bytes.len()..].copy_from_slice(&bytes);
        assert_eq!(
            contracts::fixed_point(&word),
            case["fixed_point_5"].as_u64().unwrap()
        );
    }
    assert_eq!(contracts::fixed_point(&[0xff; 32]), u64::MAX);
}

/// A node that knows the recorded calls, and no logs but so many.
fn node(logs: usize) -> impl FnMut(&http::Request) -> Answer {
    let mut known: BTreeMap<(String, String), String> = BTreeMap::new();
    let text = |of: &Value| of.as_str().unwrap().to_lowercase();
    for case in cases("capabilities/handshake.json", "eth_calls") {
        known.insert(
            (text(&case["to"]), text(&case["data"])),
            text(&case["return"]),
        );
    }
    // The second orchestrator of the pool is active, without stake.
    let bonding = "0x35bcf3c30594191d53231e4ff333e8a770453e40".to_string();
    let who = |selector: &str| format!("{selector}{:0>64}", "b2");
    known.insert(
        (bonding.clone(), who("0x08802374")),
        format!("0x{:0>64}", "1"),
    );
    known.insert((bonding, who("0x9ef9df94")), format!("0x{:0>64}", "0"));
    let ai = "0x04c0b249740175999e5bf5c9ac1da92431ef34c5".to_string();
    known.insert(
        (ai, who("0x214c2a4b")),
        format!("0x{:0>64}{:0>64}", "20", "0"),
    );
    move |request| {
        let Body::Full(body) = &request.body else {
            panic!("it asks");
        };
        let asks: Value = serde_json::from_slice(body).unwrap();
        let mut answers: Vec<Value> = Vec::new();
        for ask in asks.as_array().expect("a batch") {
            let result = match ask["method"].as_str().unwrap() {
                "eth_blockNumber" => json!("0x3e8"),
                "eth_getLogs" => json!(vec![json!({}); logs]),
                _ => {
                    let call = &ask["params"][0];
                    let key = (text(&call["to"]), text(&call["data"]));
                    json!(
                        known
                            .get(&key)
                            .unwrap_or_else(|| panic!("unknown call {key:?}"))
                    )
                }
            };
            answers.insert(
                0,
                json!({"jsonrpc": "2.0", "id": ask["id"], "result": result}),
            );
        }
        ok(&Value::Array(answers))
    }
}

#[test]
fn the_chain_is_walked_and_walked_again_only_after_changes() {
    for (ai, host, logs, again) in [
        (
            true,
            "a-rather-long-host-name.ai.orchestrator.example",
            0,
            1,
        ),
        (false, "orch.example", 1, 6),
    ] {
        let source = Source::Chain(ChainSource::arbitrum(url("https://rpc"), ai));
        let mut bench = Bench::of(vec![(Origin::Chain, source)], node(logs));
        let found = bench.found();
        assert_eq!(found.len(), 1, "the other one never registered");
        assert_eq!(found[0].url.host(), host);
        assert_eq!(found[0].stake, Some(1_234_560_000));
        assert_eq!(found[0].account.unwrap().0[19], 0xa1);
        let asked = bench.asked.len();
        assert_eq!(asked, 5);
        bench.secs(60);
        assert_eq!(bench.asked.len() - asked, again);
        assert_eq!(bench.found(), found);
    }
}

#[test]
fn another_endpoint_takes_over_in_the_middle_of_the_walk() {
    let source = ChainSource {
        others: vec![url("https://second"), url("https://third")],
        ..ChainSource::arbitrum(url("https://first"), true)
    };
    let sources = vec![(Origin::Chain, Source::Chain(source))];
    let machine = Discovery::new(START, Config::default(), sources);
    let mut good = node(0);
    let mut at_first = 0;
    let mut bench = Bench::new(machine, move |request| match request.url.host() {
        "first" => {
            at_first += 1;
            if at_first < 3 {
                good(request)
            } else {
                Some((429, vec![], b"slow down".to_vec()))
            }
        }
        "second" => ok(&json!({"error": {"code": -32600, "message": "no batches"}})),
        _ => good(request),
    });
    assert_eq!(bench.found().len(), 1);
}

#[test]
fn an_endpoint_that_limits_batches_is_walked_with_smaller_ones() {
    let source = Source::Chain(ChainSource::arbitrum(url("https://rpc"), true));
    let mut good = node(0);
    let mut bench = Bench::of(vec![(Origin::Chain, source)], move |request| {
        let Body::Full(body) = &request.body else {
            panic!("it asks");
        };
        let asks: Value = serde_json::from_slice(body).unwrap();
        match asks.as_array().unwrap().len() {
            0..=3 => good(request),
            4..=5 => Some((413, vec![], vec![])),
            _ => ok(&json!({"error": {"message": "at most three in a batch"}})),
        }
    });
    assert_eq!(bench.found().len(), 1);
    let first = bench.asked.len();
    bench.secs(60);
    assert_eq!(bench.found().len(), 1);
    assert_eq!(
        bench.asked.len() - first,
        1,
        "what changed is two questions"
    );
}

#[test]
fn a_walk_waits_for_an_endpoint_that_is_asked_too_often() {
    let source = Source::Chain(ChainSource::arbitrum(url("https://rpc"), true));
    let mut good = node(0);
    let mut asked = 0;
    let mut bench = Bench::of(vec![(Origin::Chain, source)], move |request| {
        asked += 1;
        match asked {
            2 => Some((429, vec![("retry-after", "30".into())], vec![])),
            3 => Some((429, vec![], vec![])),
            _ => good(request),
        }
    });
    bench.secs(29);
    assert_eq!(
        bench.asked.len(),
        2,
        "it is left alone for as long as it says"
    );
    bench.secs(4);
    assert_eq!(bench.found().len(), 1);
    assert_eq!(bench.asked.len(), 7);
    // But not for ever.
    let source = Source::Chain(ChainSource::arbitrum(url("https://rpc"), true));
    let mut bench = Bench::of(vec![(Origin::Chain, source)], |_| {
        Some((429, vec![], b"slow down".to_vec()))
    });
    bench.secs(64);
    assert_eq!(bench.asked.len(), 7);
    assert!(matches!(bench.events.last(), Some(Event::Nothing(_))));
}

#[test]
fn what_is_registered_on_our_own_network_is_not_asked() {
    let walk = |source: ChainSource| {
        let mut good = node(0);
        let sources = vec![(Origin::Chain, Source::Chain(source))];
        Bench::of(sources, move |request| {
            let answer = good(request)?;
            let text = String::from_utf8(answer.2).unwrap();
            // In place of the recorded name another with as many bytes.
            let name = hex::encode("https://orch.example:8935");
            let here = hex::encode("https://127.100.100.1:893");
            Some((answer.0, answer.1, text.replace(&name, &here).into_bytes()))
        })
    };
    // Not even if the endpoint is a node of our own: anybody can register anything.
    let endpoint = url("http://127.0.0.1:8545");
    let mut bench = walk(ChainSource::arbitrum(endpoint.clone(), false));
    let skipped = bench.events.iter().find_map(|event| match event {
        Event::Skipped(_, skipped) => Some(skipped.why.clone()),
        _ => None,
    });
    let skipped = skipped.expect("it is told");
    assert!(
        skipped.contains("127.100.100.1:893: a loopback"),
        "{skipped}"
    );
    assert_eq!(bench.found().len(), 0);
    let mut bench = walk(ChainSource::arbitrum(endpoint.opened(), false));
    assert_eq!(bench.found().len(), 1);
}

#[test]
fn a_pool_that_goes_in_circles_ends() {
    let source = Source::Chain(ChainSource::arbitrum(url("https://rpc"), true));
    let bench = Bench::of(vec![(Origin::Chain, source)], |request| {
        let Body::Full(body) = &request.body else {
            panic!("it asks");
        };
        let asks: Value = serde_json::from_slice(body).unwrap();
        let answer = |ask: &Value| {
            let word = format!("0x{:0>64}", "a1");
            json!({"id": ask["id"], "result": word})
        };
        ok(&Value::Array(
            asks.as_array().unwrap().iter().map(answer).collect(),
        ))
    });
    assert!(bench.asked.len() < 10);
    assert!(!bench.events.is_empty());
}
