//! Lists of orchestrators as every source writes them, case by case against both references.

use livepeer_core::Address;
use livepeer_core::capabilities::{Capabilities, Capability};
use livepeer_core::http::Url;
use livepeer_core::money::{Amount, Wei};
use livepeer_core::wire::listing::{
    MAX_LIST_BYTES, StatsFields, caps, caps_query, read_address, read_addresses, read_list,
    read_scores, read_stats, read_subgraph,
};
use livepeer_core::wire::runner::{BadRunner, Runner};
use serde_json::{Value, json};

use crate::counted;

/// Where the python client keeps an entry that it cannot use later, or loses one that the Go gateway reads.
fn ours_differs_from_python(id: &str) -> Option<Vec<Url>> {
    match id {
        // It keeps a path alone, and fails when it dials it.
        "dj-20" => Some(vec![]),
        // It keeps a port that is no number, and fails when it dials it.
        "dj-21" => Some(vec![]),
        // The Go gateway reads keys in any case.
        "dj-23" => Some(vec![Url::parse("https://a.example:8935").unwrap()]),
        _ => None,
    }
}

#[test]
fn lists_are_read_as_the_more_lenient_of_both_references_reads_them() {
    let mut differences = 0;
    for case in &counted("capabilities/discovery.json", "list_bodies", 30) {
        let id = case["id"].as_str().unwrap();
        let ours = read_list(case["body"].as_str().unwrap().as_bytes());
        let Value::Array(theirs) = &case["python_client"] else {
            assert_eq!(case["python_client"], "error");
            // Where the client sees an error the Go gateway does too, but for `null`, an empty list to it.
            assert!(ours.is_err(), "{id}");
            continue;
        };
        let (found, skipped) = ours.unwrap_or_else(|err| panic!("{id}: {err}"));
        let urls: Vec<Url> = found.iter().map(|found| found.url.clone()).collect();
        let expected = ours_differs_from_python(id).inspect(|_| differences += 1);
        let expected = expected.unwrap_or_else(|| {
            theirs
                .iter()
                .map(|text| read_address(text.as_str().unwrap()).expect(id))
                .collect()
        });
        assert_eq!(urls, expected, "{id}");
        let entries = serde_json::from_str::<Value>(case["body"].as_str().unwrap()).unwrap();
        assert_eq!(
            found.len() + skipped.len(),
            entries.as_array().unwrap().len(),
            "{id}: all told"
        );
        // Whatever the Go gateway can dial, with the score it sees.
        for pair in case["go_webhook"].as_array().into_iter().flatten() {
            let text = pair[0].as_str().unwrap();
            if !text.starts_with("http") {
                continue;
            }
            let same = found
                .iter()
                .find(|found| found.url == Url::parse(text).unwrap());
            assert_eq!(same.expect(id).score, pair[1].as_f64().unwrap(), "{id}");
        }
    }
    assert_eq!(differences, 3);
}

#[test]
fn addresses_become_targets_as_in_the_python_client() {
    for case in &counted("capabilities/discovery.json", "targets", 14) {
        let ours = read_address(case["input"].as_str().unwrap());
        match (case["id"].as_str().unwrap(), case["python_target"].as_str()) {
            // The Go gateway dials cleartext, and so do we.
            ("tg-06", None) => assert!(!ours.unwrap().is_secure()),
            // Without a port the client fails one step later; we take the scheme's own.
            ("tg-13", Some(host)) => assert_eq!(ours.unwrap().authority(), format!("{host}:443")),
            (id, Some(target)) => assert_eq!(ours.expect(id).authority(), target, "{id}"),
            (id, None) => assert!(ours.is_err(), "{id}"),
        }
    }
}

#[test]
fn queries_for_capabilities_are_those_of_the_python_client() {
    for case in &counted("capabilities/pipelines.json", "caps_query", 11) {
        let id = case["id"].as_str().unwrap();
        let mut wanted = Capabilities::default();
        for (key, models) in case["constraints"].as_object().unwrap() {
            let capability = Capability::new(key.parse().unwrap()).unwrap();
            for model in models.as_array().unwrap() {
                let model = model.as_str().unwrap();
                wanted = wanted.and_model(capability, model, Default::default());
            }
        }
        let expected: Vec<&str> = case["caps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|cap| cap.as_str().unwrap())
            .collect();
        assert_eq!(caps(&wanted), expected, "{id}");
        let base = Url::parse(case["base"].as_str().unwrap()).unwrap();
        let expected = Url::parse(case["url"].as_str().unwrap()).unwrap();
        assert_eq!(caps_query(&base, &wanted), expected, "{id}");
    }
}

#[test]
fn runners_are_kept_or_dropped_as_by_the_reference_signer() {
    for case in &counted("capabilities/discovery.json", "runners", 21) {
        let id = case["id"].as_str().unwrap();
        let ceiling = case["global_max_price_wei"]
            .as_u64()
            .map(|wei| Amount::from(&Wei::from(wei)));
        let outcome = Runner::read(&case["runner"])
            .and_then(|runner| runner.affordable(ceiling.as_ref()).map(|()| runner));
        let reason = match &outcome {
            Ok(_) => "ok",
            Err(BadRunner::Url) => "url",
            Err(BadRunner::App) => "app",
            Err(BadRunner::Metadata) => "metadata",
            Err(BadRunner::Currency) => "currency",
            Err(BadRunner::Unit) => "unit",
            Err(BadRunner::Price) => "price",
            Err(BadRunner::AboveCeiling) => "above_max",
            Err(other) => panic!("{other}"),
        };
        assert_eq!(reason, case["reason"].as_str().unwrap(), "{id}");
        assert_eq!(outcome.is_ok(), case["keep"].as_bool().unwrap(), "{id}");
    }
}

#[test]
fn performance_is_read_for_one_region() {
    for case in &counted("capabilities/discovery.json", "perf_stats", 4) {
        let body = case["body"].as_str().unwrap().as_bytes();
        let region = case["region"].as_str().unwrap().to_lowercase();
        let ours = read_scores(body, &region);
        match &case["scores"] {
            Value::Object(scores) => {
                let expected = scores.iter().map(|(account, score)| {
                    (account.parse::<Address>().unwrap(), score.as_f64().unwrap())
                });
                assert_eq!(ours.unwrap(), expected.collect(), "{}", case["id"]);
            }
            other => {
                assert_eq!(other, "error");
                assert!(ours.is_err(), "{}", case["id"]);
            }
        }
    }
}

#[test]
fn indexers_answers_are_read() {
    for case in &counted("capabilities/discovery.json", "indexers", 5) {
        let body = case["body"].as_str().unwrap().as_bytes();
        let ours = match case["kind"].as_str() {
            None => read_subgraph(body),
            Some("orchestrator_stats") => read_stats(body, &StatsFields::default()),
            Some(other) => panic!("no kind {other}"),
        };
        match &case["list"] {
            Value::Array(list) => {
                let (found, skipped) = ours.unwrap();
                assert!(skipped.is_empty(), "{}", case["id"]);
                let read: Vec<(Address, Url)> = found
                    .into_iter()
                    .map(|found| (found.account.unwrap(), found.url))
                    .collect();
                let expected: Vec<(Address, Url)> = list
                    .iter()
                    .map(|pair| {
                        let url = Url::parse(pair[1].as_str().unwrap()).unwrap();
                        (pair[0].as_str().unwrap().parse().unwrap(), url)
                    })
                    .collect();
                assert_eq!(read, expected, "{}", case["id"]);
            }
            other => {
                assert_eq!(other, "error");
                assert!(ours.is_err(), "{}", case["id"]);
            }
        }
    }
}

#[test]
fn hostile_lists_are_bounded() {
    let long = vec![b' '; MAX_LIST_BYTES + 1];
    assert!(
        read_list(&long)
            .unwrap_err()
            .to_string()
            .contains("longer than")
    );
    let many = format!("[{}1]", "1,".repeat(100_000));
    assert!(
        read_list(many.as_bytes())
            .unwrap_err()
            .to_string()
            .contains("too many")
    );
    for depth in [10_000, 100_000] {
        let deep = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let (found, skipped) = read_list(deep.as_bytes()).unwrap();
        assert_eq!(
            (found.len(), skipped.len()),
            (0, 1),
            "no nesting breaks the reader"
        );
    }
    let fat = format!(
        r#"[{{"address":"https://a:1","x":"{}"}}]"#,
        "y".repeat(70_000)
    );
    let (found, skipped) = read_list(fat.as_bytes()).unwrap();
    assert!(found.is_empty() && skipped[0].why.contains("longer than"));
    let junk = format!("[{}{{\"address\":\"https://a:1\"}}]", "7,".repeat(5_000));
    let (found, skipped) = read_list(junk.as_bytes()).unwrap();
    assert_eq!(
        (found.len(), skipped.len()),
        (1, 100),
        "reports are bounded too"
    );
}

#[test]
fn a_bad_runner_does_not_spoil_its_orchestrator() {
    let body = json!([{
        "address": "https://a:1", "score": 1, "capabilities": ["x/y", 7],
        "runners": [{"url": "https://a:1/apps/r/session", "app": "x/y", "mode": "persistent"}, {"app": "z"}]
    }]);
    let (found, skipped) = read_list(body.to_string().as_bytes()).unwrap();
    assert_eq!(found[0].capabilities, ["x/y"]);
    assert_eq!(found[0].runners.len(), 1);
    assert_eq!(skipped.len(), 1);
    assert!(
        skipped[0].to_string().contains("entry 0: runner"),
        "{}",
        skipped[0]
    );
}

#[test]
fn prices_of_runners_are_exact() {
    let runner = |price: Value| {
        Runner::read(&json!({
            "url": "https://a:1", "app": "x",
            "price_info": {"price": price, "currency": "wei", "unit": "fixed"}
        }))
    };
    let wei = |price| runner(price).unwrap().price.unwrap().wei.to_string();
    assert_eq!(wei(json!(0.5)), "1/2");
    assert_eq!(wei(json!("1e3")), "1000");
    assert_eq!(wei(json!("12.50")), "25/2");
    for bad in [
        json!("1e999"),
        json!("x"),
        json!(null),
        json!("0"),
        json!(""),
    ] {
        assert!(runner(bad).is_err());
    }
}

#[test]
fn a_comma_list_drops_blanks_and_reports_the_rest() {
    let (found, skipped) = read_addresses("https://a:1, ,b:2,ftp://c");
    assert_eq!(
        found,
        [
            Url::parse("https://a:1").unwrap(),
            Url::parse("https://b:2").unwrap()
        ]
    );
    assert_eq!(skipped.len(), 1);
}
