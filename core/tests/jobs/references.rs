//! Searching, suspending, refreshing and swapping, case by case as the reference does.

use std::collections::BTreeMap;
use std::time::Duration;

use livepeer_core::http::Url;
use livepeer_core::job::SwapLimit;
use livepeer_core::wire::{AuthToken, OrchestratorInfo, TicketParams};
use livepeer_core::{Address, Time};
use serde_json::Value;

use crate::counted;
use crate::reference::batch_error::{BatchError, batch_error};
use crate::reference::freshness::{Freshness, Unusable, freshness};
use crate::reference::search::{Answer, Batches, Next, Race};
use crate::reference::suspensions::{
    Suspensions, batch_needs_more, live_needs_more, video_needs_more,
};
use crate::vectors::file;

fn text(of: &Value) -> &str {
    of.as_str().expect("a text")
}

/// Every list of the file has its test, here or in the file that is named.
#[test]
fn no_list_of_vectors_is_without_a_test() {
    let all = file("capabilities/failover.json");
    let lists: Vec<&str> = all
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, list)| list.is_array())
        .map(|(name, _)| name.as_str())
        .collect();
    let mut here = vec![
        "suspension",
        "discovery_loop",
        "ai_errors",
        "swap_limit",
        "refresh_decision",
        "pool_refresh",
        "python_cursor",
        // selection.rs
        "session_reuse",
        "latency_score",
        "min_latency_selector",
        // handshake
        "handshake_errors",
    ];
    here.sort_unstable();
    assert_eq!(lists, here);
}

#[test]
fn suspensions_count_refreshes() {
    for case in &counted("capabilities/failover.json", "suspension", 13) {
        let mut suspensions = Suspensions::new();
        let mut told = Vec::new();
        for op in case["ops"].as_array().unwrap() {
            let number = |at: usize| op[at].as_u64();
            match text(&op[0]) {
                "suspend" => suspensions.suspend(text(&op[1]).to_string(), number(2).unwrap()),
                "ai_remove" => suspensions.remove(text(&op[1]).to_string(), number(2).unwrap()),
                "refresh" => (0..number(1).unwrap_or(1)).for_each(|_| suspensions.refresh()),
                "query" => told.push(suspensions.penalty(&text(&op[1]).to_string())),
                other => panic!("no operation {other}"),
            }
        }
        let expected: Vec<u64> = case["queries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap())
            .collect();
        assert_eq!(told, expected, "{}", case["id"]);
    }
}

#[test]
fn the_go_gateways_loop_returns_when_and_what_it_returns() {
    for case in &counted("capabilities/failover.json", "discovery_loop", 17) {
        let ms = |n: u64| Time::from_secs(1) + Duration::from_millis(n);
        let number = |key: &str| case[key].as_u64().unwrap();
        let described = case["orchestrators"].as_array().unwrap();
        let listed: Vec<String> = described
            .iter()
            .map(|one| text(&one["uri"]).to_string())
            .collect();
        let mut race = Race::new(
            ms(0),
            &listed,
            number("wanted") as usize,
            number("extra_nodes") as usize,
            Duration::from_millis(number("discovery_timeout_ms")),
        );
        // Who answers when, and how long it took itself.
        let mut mail: BTreeMap<(u64, String), (u64, Value)> = BTreeMap::new();
        let mut nodes: BTreeMap<String, Value> = BTreeMap::new();
        for one in described {
            if let Some(at) = one["at"].as_u64() {
                mail.insert((at, text(&one["uri"]).to_string()), (at, one.clone()));
            }
            for node in one["nodes"].as_array().into_iter().flatten() {
                nodes.insert(text(&node["uri"]).to_string(), node.clone());
            }
        }
        let mut now = 0;
        let mut fires = Vec::new();
        while !race.is_over() {
            let wake = race.wake().since(ms(0)).as_millis() as u64;
            let next = mail.first_key_value().map(|((at, _), _)| *at);
            if next.is_none_or(|at| at >= wake) {
                now = wake;
                race.tick(ms(now));
                if now < 6000 {
                    fires.push(now);
                }
                continue;
            }
            let ((at, uri), (took, one)) = mail.pop_first().unwrap();
            now = at;
            let answer = match (text(&one["result"]), one["penalty"].as_u64()) {
                ("ok", Some(penalty)) => Answer::Suspended { penalty },
                ("ok", None) => Answer::Good {
                    latency: Duration::from_millis(took),
                    nodes: one["nodes"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .map(|node| text(&node["uri"]).to_string())
                        .collect(),
                },
                ("error" | "incompatible", _) => Answer::Bad,
                other => panic!("no result {other:?}"),
            };
            for uri in race.answered(ms(now), uri, answer) {
                let node = nodes[&uri].clone();
                let took = node["took"].as_u64().unwrap();
                mail.insert((now + took, uri), (took, node));
            }
        }
        let id = &case["id"];
        assert_eq!(now, number("returns_at_ms"), "{id}: when");
        let expected: Vec<&str> = case["returns"]
            .as_array()
            .unwrap()
            .iter()
            .map(text)
            .collect();
        assert_eq!(race.result(), expected, "{id}: what");
        let expected: Vec<u64> = case["timer_fires_ms"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap())
            .collect();
        assert_eq!(fires, expected, "{id}: the timer");
    }
}

#[test]
fn the_python_clients_cursor_yields_in_its_order() {
    for case in &counted("capabilities/failover.json", "python_cursor", 5) {
        let plan = case["finish_and_ok"].as_array().unwrap();
        let count = case["count"].as_u64().unwrap() as usize;
        assert_eq!(plan.len(), count);
        let mut cursor = Batches::new((0..count).collect(), Batches::<usize>::SIZE);
        let (mut used, mut rejected) = (Vec::new(), 0);
        loop {
            match cursor.next() {
                Next::Probe(mut some) => {
                    assert_eq!(cursor.next(), Next::Wait);
                    some.sort_by_key(|at| plan[*at][0].as_u64().unwrap());
                    for at in some {
                        let good = plan[at][1].as_bool().unwrap();
                        rejected += usize::from(!good);
                        cursor.answered(at, good);
                    }
                }
                Next::Use(at) => used.push(at as u64),
                Next::Wait => panic!("everybody answered"),
                Next::Exhausted => break,
            }
        }
        let expected: Vec<u64> = case["next_results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap())
            .collect();
        assert_eq!(used, expected, "{}", case["id"]);
        assert_eq!(
            rejected as u64,
            case["rejections"].as_u64().unwrap(),
            "{}",
            case["id"]
        );
    }
}

#[test]
fn errors_of_batch_jobs_are_sorted_by_their_text() {
    for case in &counted("capabilities/failover.json", "ai_errors", 18) {
        let class = match batch_error(text(&case["message"])) {
            BatchError::RetrySame => "retry_same",
            BatchError::OtherSession => "other_session",
            BatchError::BadRequest(detail) => {
                assert_eq!(detail, "bad width");
                "bad_request"
            }
            BatchError::Suspend => "suspend",
        };
        assert_eq!(class, text(&case["class"]), "{}", case["id"]);
    }
}

#[test]
fn swaps_are_limited_in_quick_succession() {
    for case in &counted("capabilities/failover.json", "swap_limit", 5) {
        let mut limit = SwapLimit::default();
        let allowed: Vec<bool> = case["swap_at_s"]
            .as_array()
            .unwrap()
            .iter()
            .map(|at| limit.allow(Time::from_secs(1_000 + at.as_u64().unwrap())))
            .collect();
        let expected: Vec<bool> = case["allowed"]
            .as_array()
            .unwrap()
            .iter()
            .map(|is| is.as_bool().unwrap())
            .collect();
        assert_eq!(allowed, expected, "{}", case["id"]);
    }
}

fn info(case: &Value) -> OrchestratorInfo {
    let block = case["ticket_expiration_block"].as_u64().unwrap();
    OrchestratorInfo {
        raw: Default::default(),
        transcoder: Url::parse("https://o:1").unwrap(),
        ticket_params: (block > 0).then(|| TicketParams {
            recipient: Address::ZERO,
            face_value: Default::default(),
            win_prob: Default::default(),
            recipient_rand_hash: [0; 32],
            seed: Default::default(),
            expiration_block: block.into(),
            creation_round: 0,
            creation_round_block_hash: [0; 32],
        }),
        price: None,
        address: Address::ZERO,
        capabilities: None,
        auth_token: case["auth_token"]["expiration"]
            .as_i64()
            .map(|secs| AuthToken {
                token: Default::default(),
                session_id: String::new(),
                expiration: Time::from_unix(secs),
            }),
        capabilities_prices: Vec::new(),
        nodes: Vec::new(),
    }
}

#[test]
fn a_word_is_renewed_when_the_reference_would() {
    for case in &counted("capabilities/failover.json", "refresh_decision", 10) {
        let pays = case["validates_tickets"].as_bool().unwrap();
        let latest = pays.then(|| case["latest_l1_block"].as_u64().unwrap());
        let now = Time::from_secs(case["now"].as_u64().unwrap());
        let decision = match freshness(&info(case), now, latest) {
            Ok(Freshness::Fresh) => "ok",
            Ok(Freshness::TokenEnds) => "refresh_auth_token",
            Ok(Freshness::TicketsEnd) => "refresh_ticket_params",
            Err(Unusable::NoToken) => "error_missing_auth_token",
            Err(Unusable::NoBlock) => "error_expiration_block_zero",
        };
        assert_eq!(decision, text(&case["decision"]), "{}", case["id"]);
    }
}

#[test]
fn pools_look_for_more_when_the_references_would() {
    for case in &counted("capabilities/failover.json", "pool_refresh", 14) {
        let number = |key: &str| case["input"][key].as_u64().unwrap() as usize;
        let more = match text(&case["kind"]) {
            "video" => video_needs_more(number("selector_size"), number("num_orchestrators")),
            "ai_batch" => batch_needs_more(
                number("warm"),
                number("cold"),
                number("pool"),
                number("initial"),
                Duration::from_secs(number("age_s") as u64),
            ),
            "ai_live" => live_needs_more(number("warm"), number("cold")),
            other => panic!("no kind {other}"),
        };
        assert_eq!(more, case["refresh"].as_bool().unwrap(), "{}", case["id"]);
    }
}
