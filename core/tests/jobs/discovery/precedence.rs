//! Sources in their order of precedence.

use super::*;

#[test]
fn sources_come_in_the_python_clients_order() {
    for case in &counted("capabilities/discovery.json", "precedence", 12) {
        let id = case["id"].as_str().unwrap();
        let text = |of: &Value| of.as_str().map(str::to_string);
        let token = Token {
            orchestrators: case["token"]["orchestrators"]
                .as_array()
                .map(|all| all.iter().map(|one| text(one).unwrap()).collect()),
            signer: text(&case["token"]["signer"]),
            discovery: text(&case["token"]["discovery"]),
            ..Token::default()
        };
        let arguments = &case["arguments"];
        let orchestrators = match &arguments["orchestrators"] {
            Value::Array(all) => {
                let all: Vec<&str> = all.iter().map(|one| one.as_str().unwrap()).collect();
                Some(all.join(","))
            }
            other => text(other),
        };
        let wishes = Wishes {
            orchestrators,
            discovery: text(&arguments["discovery"]),
            signer: text(&arguments["signer"]),
            ..Wishes::default()
        };
        let planned = plan(
            Order::PythonClient,
            &token,
            &wishes,
            &Capabilities::default(),
        );
        if case["expect"] == "error" {
            assert!(planned.is_err(), "{id}");
            continue;
        }
        let (origin, source) = planned.unwrap().remove(0);
        let named = match origin {
            Origin::TokenList => "token.orchestrators",
            Origin::List => "argument.orchestrators",
            Origin::TokenEndpoint => "token.discovery",
            Origin::Endpoint => "argument.discovery",
            Origin::Signer => "signer",
            other => panic!("{other:?}"),
        };
        assert_eq!(named, case["expect"]["source"].as_str().unwrap(), "{id}");
        match source {
            Source::List(urls, skipped) => {
                assert!(skipped.is_empty());
                let expected: Vec<Url> = case["expect"]["list"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|one| url(one.as_str().unwrap()))
                    .collect();
                assert_eq!(urls, expected, "{id}");
            }
            Source::Endpoint { url: asked, .. } => {
                assert_eq!(asked, url(case["expect"]["get"].as_str().unwrap()), "{id}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn in_our_order_what_is_empty_hides_nothing() {
    let token = Token {
        orchestrators: Some(vec![]),
        signer: Some(String::new()),
        ..Token::default()
    };
    let wishes = Wishes {
        orchestrators: Some("https://o:1".into()),
        signer: Some("signer:7936".into()),
        subgraph: subgraph_url("abc123").map(|url| url.to_string()),
        chain: Some(ChainSource::arbitrum(url("https://rpc"), true)),
        ..Wishes::default()
    };
    let wanted = Capabilities::live_video("scope");
    let planned = plan(Order::Ours, &token, &wishes, &wanted).unwrap();
    let origins: Vec<Origin> = planned.iter().map(|(origin, _)| *origin).collect();
    assert_eq!(
        origins,
        [
            Origin::List,
            Origin::Signer,
            Origin::Subgraph,
            Origin::Chain
        ]
    );
    let Source::Endpoint { url: asked, .. } = &planned[1].1 else {
        panic!("a signer is an endpoint");
    };
    assert_eq!(
        asked.to_string(),
        "https://signer:7936/discover-orchestrators?caps=live-video-to-video/scope"
    );
    assert!(plan(Order::Ours, &Token::default(), &Wishes::default(), &wanted).is_err());
    assert_eq!(subgraph_url("no/slash"), None);
}

#[test]
fn headers_go_to_the_one_they_are_for() {
    let token = Token {
        discovery: Some("https://d/l".into()),
        discovery_headers: Some([("A".into(), "for-discovery".into())].into()),
        signer: Some("https://s".into()),
        signer_headers: Some([("B".into(), "for-signer".into())].into()),
        ..Token::default()
    };
    for order in [Order::Ours, Order::PythonClient] {
        let planned = plan(order, &token, &Wishes::default(), &Capabilities::default()).unwrap();
        let config = Config {
            combine: Combine::All,
            ..Config::default()
        };
        let bench = Bench::new(Discovery::new(START, config, planned), |_| list(&["a"]));
        for request in &bench.asked {
            let at_signer = request.url.host() == "s";
            assert_eq!(request.headers.get("a").is_some(), !at_signer);
            assert_eq!(request.headers.get("b").is_some(), at_signer);
        }
        assert_eq!(bench.asked.len(), 2);
    }
}
