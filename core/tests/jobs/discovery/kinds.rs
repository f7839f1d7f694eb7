//! Other kinds of sources: runners and subgraphs.

use super::*;

#[test]
fn an_orchestrators_own_runners_are_found() {
    let source = vec![(Origin::List, Source::Runners(url("https://o:8935")))];
    let mut bench = Bench::of(source.clone(), |request| {
        assert_eq!(request.url.path(), "/discovery");
        assert_eq!(request.trust, http::Trust::FirstUse);
        ok(&json!([{"address": "https://o:8935", "runners": [
            {"url": "https://o:8935/apps/r/session", "app": "live-video-to-video/scope", "mode": "persistent", "capacity": 2}
        ]}]))
    });
    let found = bench.found();
    assert_eq!(found[0].runners[0].app, "live-video-to-video/scope");

    let bench = Bench::of(source, |_| {
        Some((404, vec![], b"live runners are not supported".to_vec()))
    });
    let Some(Event::Nothing(failures)) = bench.events.last() else {
        panic!("{:?}", bench.events);
    };
    assert!(failures[0].to_string().contains("not supported"));
}

#[test]
fn the_subgraph_is_asked_for_the_round_and_then_for_who_is_active() {
    let source = Source::Subgraph(subgraph_url("k3y").unwrap());
    let mut bench = Bench::of(vec![(Origin::Subgraph, source)], |request| {
        let Body::Full(body) = &request.body else {
            panic!("it asks");
        };
        let body: Value = serde_json::from_slice(body).unwrap();
        let query = body["query"].as_str().unwrap();
        if query.contains("lastInitializedRound") {
            return ok(&json!({"data": {"protocol": {"lastInitializedRound": {"id": "4242"}}}}));
        }
        assert!(query.contains(r#"activationRound_lte:"4242",deactivationRound_gt:"4242""#));
        ok(&json!({"data": {"transcoders": [
            {"id": "0x0000000000000000000000000000000000000001", "serviceURI": "https://o1:8935", "totalStake": "12345.6", "active": true}
        ]}}))
    });
    let found = bench.found();
    assert_eq!(found[0].stake, Some(1_234_560_000));
    assert_eq!(found[0].account.unwrap().0[19], 1);
}

#[test]
fn a_subgraphs_key_is_in_no_error() {
    let source = Source::Subgraph(subgraph_url("s3cret").unwrap());
    let bench = Bench::of(vec![(Origin::Subgraph, source)], |_| {
        ok(&json!({"errors": [{"message": "no"}]}))
    });
    let text = format!("{:?}", bench.events);
    assert!(!text.contains("s3cret"), "{text}");
}

#[test]
fn a_table_of_statistics_may_name_its_fields_as_it_likes() {
    let fields = StatsFields {
        account: "who".into(),
        uri: "where".into(),
        active: String::new(),
        stake: String::new(),
    };
    let source = Source::Stats {
        url: url("https://stats/"),
        fields,
    };
    let mut bench = Bench::of(vec![(Origin::Stats, source)], |_| {
        ok(&json!([{"where": "https://o:1"}, {"where": ""}]))
    });
    assert_eq!(bench.hosts(), ["o"]);
}
