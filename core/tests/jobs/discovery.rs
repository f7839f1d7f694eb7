//! Discovery against scripted endpoints under virtual time, and the recorded contract calls.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::discovery::contracts::{self, Contract};
use livepeer_core::discovery::{
    ChainSource, Combine, Config, Discovery, Event, Order, Origin, SIGNER_HEDGE, Scores,
    ScoresEvent, Source, Wishes, plan, subgraph_url,
};
use livepeer_core::http::{self, Body, Fault, Headers, Out, Response, Url};
use livepeer_core::wire::Token;
use livepeer_core::wire::listing::{Found, StatsFields};
use livepeer_core::{Address, Cause, Effect, EffectId, Input, Machine, Output, Party, Time};
use serde_json::{Value, json};

use crate::cases;

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn unhex(of: &Value) -> Vec<u8> {
    hex::decode(of.as_str().unwrap().strip_prefix("0x").unwrap()).unwrap()
}

const START: Time = Time::from_secs(9_000);

/// Status, headers and body; or silence.
type Answer = Option<(u16, Vec<(&'static str, String)>, Vec<u8>)>;

/// Answers a request.
type Script = Box<dyn FnMut(&http::Request) -> Answer>;

struct Bench<M: Machine> {
    machine: M,
    now: Time,
    script: Script,
    asked: Vec<http::Request>,
    events: Vec<M::Event>,
    wake: Option<Time>,
}

impl<M: Machine> Bench<M> {
    fn new(machine: M, script: impl FnMut(&http::Request) -> Answer + 'static) -> Self {
        let mut this = Self {
            machine,
            now: START,
            script: Box::new(script),
            asked: Vec::new(),
            events: Vec::new(),
            wake: None,
        };
        this.drain();
        this
    }

    fn drain(&mut self) {
        loop {
            match self.machine.poll_output() {
                Output::Effect(id, Effect::Http(Out::Request(request))) => {
                    let answer = (self.script)(&request);
                    self.asked.push(request);
                    self.answer(id, answer);
                }
                Output::Effect(_, Effect::Http(Out::Abort)) => {}
                Output::Effect(_, other) => panic!("{other:?}"),
                Output::Event(event) => self.events.push(event),
                Output::Idle(wake) => {
                    assert!(wake.is_none_or(|wake| wake > self.now), "woken in the past");
                    self.wake = wake;
                    return;
                }
            }
        }
    }

    fn answer(&mut self, id: EffectId, answer: Answer) {
        let Some((status, headers, body)) = answer else {
            return;
        };
        let mut steps = Vec::new();
        if status == 0 {
            steps.push(http::In::Failed(Fault::Connect("refused".into())));
        } else {
            let mut head = Response::new(status);
            for (name, value) in headers {
                head = head.header(name, value);
            }
            steps.push(http::In::Reply(head));
            for piece in body.chunks(1 << 20) {
                steps.push(http::In::Data(Bytes::copy_from_slice(piece)));
            }
            steps.push(http::In::End(Headers::new()));
        }
        for step in steps {
            self.machine.handle_input(self.now, Input::Http(id, step));
        }
    }

    /// Sleeps exactly until the machine wants to be woken.
    fn nap(&mut self) {
        self.now = self.wake.expect("it waits for a time");
        self.machine.handle_input(self.now, Input::Tick);
        self.drain();
    }

    fn run(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(wake) = self.wake.filter(|wake| *wake <= end) {
            self.now = wake;
            self.machine.handle_input(wake, Input::Tick);
            self.drain();
        }
        self.now = end;
        self.machine.handle_input(end, Input::Tick);
        self.drain();
    }

    fn secs(&mut self, secs: u64) {
        self.run(Duration::from_secs(secs));
    }
}

impl Bench<Discovery> {
    fn found(&mut self) -> Vec<Found> {
        let at = self
            .events
            .iter()
            .rposition(|event| matches!(event, Event::Found(_)));
        match self.events.remove(at.expect("something is found")) {
            Event::Found(found) => found,
            _ => unreachable!("it was just found"),
        }
    }

    fn hosts(&mut self) -> Vec<String> {
        self.found()
            .iter()
            .map(|found| found.url.host().to_string())
            .collect()
    }
}

fn endpoint(text: &str) -> (Origin, Source) {
    let source = Source::Endpoint {
        url: url(text),
        headers: Headers::new(),
    };
    (Origin::Endpoint, source)
}

fn ok(body: &Value) -> Answer {
    Some((200, vec![], body.to_string().into_bytes()))
}

fn list(hosts: &[&str]) -> Answer {
    let all: Vec<Value> = hosts
        .iter()
        .map(|host| json!({"address": format!("https://{host}:8935")}))
        .collect();
    ok(&Value::Array(all))
}

// Precedence.

#[test]
fn sources_come_in_the_python_clients_order() {
    let cases = cases("capabilities/discovery.json", "precedence");
    assert_eq!(cases.len(), 12);
    for case in &cases {
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

// The machine.

#[test]
fn a_list_at_hand_is_found_at_once() {
    let source = Source::List(vec![url("https://a:1"), url("https://A:1/")], vec![]);
    let machine = Discovery::new(START, Config::default(), vec![(Origin::List, source)]);
    let mut bench = Bench::new(machine, |_| None);
    assert_eq!(bench.hosts(), ["a"]);
    assert!(bench.asked.is_empty());
}

#[test]
fn an_answer_is_kept_through_failures_and_replaced_by_the_next_good_one() {
    let mut round = 0;
    let machine = Discovery::new(START, Config::default(), vec![endpoint("https://d/l")]);
    let mut bench = Bench::new(machine, move |_| {
        round += 1;
        match round {
            1 => list(&["a", "b"]),
            2 => Some((500, vec![], b"boom".to_vec())),
            3 => Some((200, vec![], b"garbage".to_vec())),
            4 => None,
            _ => list(&["c"]),
        }
    });
    assert_eq!(bench.hosts(), ["a", "b"]);
    bench.secs(60);
    assert_eq!(bench.asked.len(), 2);
    assert_eq!(bench.hosts(), ["a", "b"], "the old answer stands");
    let failed = |event: &Event| matches!(event, Event::SourceFailed(..));
    assert!(bench.events.iter().any(failed));
    bench.secs(5);
    assert_eq!(bench.asked.len(), 3, "failures are tried again sooner");
    bench.secs(10);
    assert_eq!(bench.asked.len(), 4, "but ever later");
    bench.secs(5 + 20);
    assert_eq!(bench.hosts(), ["c"]);
}

#[test]
fn a_valid_empty_list_is_an_answer() {
    let machine = Discovery::new(
        START,
        Config::default(),
        vec![endpoint("https://d"), endpoint("https://e")],
    );
    let mut bench = Bench::new(machine, |request| {
        assert_eq!(request.url.host(), "d", "nobody stands in for an answer");
        list(&[])
    });
    assert!(bench.found().is_empty());
}

#[test]
fn the_next_source_stands_in_for_one_that_fails() {
    let machine = Discovery::new(
        START,
        Config::default(),
        vec![endpoint("https://d"), endpoint("https://e")],
    );
    let mut bench = Bench::new(machine, |request| match request.url.host() {
        "d" => Some((0, vec![], vec![])),
        _ => list(&["a"]),
    });
    assert_eq!(bench.hosts(), ["a"]);
}

#[test]
fn a_signer_that_is_silent_costs_a_second() {
    let wishes = Wishes {
        signer: Some("http://a".into()),
        other_signers: vec!["http://b".into(), "http://c".into()],
        ..Wishes::default()
    };
    let wanted = Capabilities::live_video("noop");
    let sources = plan(Order::Ours, &Token::default(), &wishes, &wanted).unwrap();
    let mut bench = Bench::new(
        Discovery::new(START, Config::default(), sources.clone()),
        |request| match request.url.host() {
            "a" => None,
            _ => list(&["o"]),
        },
    );
    assert_eq!(bench.asked.len(), 1);
    bench.nap();
    assert_eq!(bench.now, START + SIGNER_HEDGE);
    let hosts: Vec<&str> = bench.asked.iter().map(|asked| asked.url.host()).collect();
    assert_eq!(hosts, ["a", "b"]);
    assert!(
        matches!(&bench.events[..], [Event::Found(found)] if found.len() == 1),
        "{:?}",
        bench.events
    );
    // If all are silent, that takes no longer than two seconds more than for one.
    let mut silent = Bench::new(
        Discovery::new(START, Config::default(), sources),
        |_: &http::Request| None,
    );
    while silent.events.len() < 4 {
        silent.nap();
    }
    assert_eq!(silent.now, START + Duration::from_secs(7));
    assert!(matches!(&silent.events[3], Event::Nothing(why) if why.len() == 3));
}

#[test]
fn with_no_answer_at_all_every_failure_is_told() {
    let machine = Discovery::new(
        START,
        Config::default(),
        vec![endpoint("https://d"), endpoint("https://e")],
    );
    let mut bench = Bench::new(machine, |request| match request.url.host() {
        "d" => None,
        _ => Some((
            503,
            vec![],
            br#"{"error":{"message":"Service Unavailable Error"}}"#.to_vec(),
        )),
    });
    bench.secs(5);
    let Some(Event::Nothing(failures)) = bench.events.last() else {
        panic!("nothing is found: {:?}", bench.events);
    };
    assert!(matches!(failures[0].cause, Cause::TimedOut { .. }));
    assert_eq!(failures[1].who, Party::Discovery(url("https://e")));
    assert!(
        failures[1]
            .to_string()
            .contains("Service Unavailable Error"),
        "{}",
        failures[1]
    );
}

#[test]
fn all_sources_together_name_everybody_once_in_order_of_precedence() {
    let config = Config {
        combine: Combine::All,
        ..Config::default()
    };
    let sources = vec![
        endpoint("https://d"),
        endpoint("https://e"),
        endpoint("https://f"),
    ];
    let machine = Discovery::new(START, config, sources);
    let mut bench = Bench::new(machine, |request| match request.url.host() {
        "d" => ok(&json!([{"address": "https://b:8935", "score": 1}])),
        "e" => None,
        _ => ok(&json!([
            {"address": "https://a:8935"},
            {"address": "b:8935/", "score": 0, "capabilities": ["x/y"]}
        ])),
    });
    assert_eq!(bench.asked.len(), 3, "all are asked at once");
    assert!(bench.events.is_empty(), "one has not answered");
    bench.secs(5);
    let found = bench.found();
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].url.host(), found[0].score),
        ("b", 1.0),
        "the first word counts"
    );
    assert_eq!(
        found[0].capabilities,
        ["x/y"],
        "and what it left open is added"
    );
}

#[test]
fn malformed_entries_are_told_and_the_others_used() {
    let machine = Discovery::new(START, Config::default(), vec![endpoint("https://d")]);
    let mut bench = Bench::new(machine, |_| {
        ok(&json!([7, {"address": "https://a:8935"}, {"address": "ftp://b"}]))
    });
    assert_eq!(bench.hosts(), ["a"]);
    let skipped = bench
        .events
        .iter()
        .filter(|event| matches!(event, Event::Skipped(..)));
    assert_eq!(skipped.count(), 2);
}

#[test]
fn redirects_are_followed_but_not_for_ever_nor_into_the_open() {
    let headers = || {
        let mut headers = Headers::new();
        headers.push("authorization", "secret");
        headers
    };
    let source = |to: &str| {
        let source = Source::Endpoint {
            url: url(to),
            headers: headers(),
        };
        vec![(Origin::Endpoint, source)]
    };
    let machine = Discovery::new(START, Config::default(), source("https://d/l"));
    let mut bench = Bench::new(machine, |request| {
        match (request.url.host(), request.url.path()) {
            ("d", "/l") => Some((302, vec![("location", "/m".into())], vec![])),
            ("d", _) => Some((307, vec![("location", "https://e/".into())], vec![])),
            _ => list(&["a"]),
        }
    });
    assert_eq!(bench.hosts(), ["a"]);
    assert_eq!(bench.asked[1].headers.get("authorization"), Some("secret"));
    assert_eq!(
        bench.asked[2].headers.get("authorization"),
        None,
        "another origin learns nothing"
    );

    for place in ["/l", "http://d/l", "::", "https://d/"] {
        let machine = Discovery::new(START, Config::default(), source("https://d/l"));
        let bench = Bench::new(machine, move |_| {
            Some((301, vec![("location", place.into())], vec![]))
        });
        assert!(bench.asked.len() <= 6, "{place}");
        assert!(
            matches!(bench.events.last(), Some(Event::Nothing(_))),
            "{place}"
        );
    }
}

#[test]
fn ten_megabytes_are_refused_while_they_come() {
    let machine = Discovery::new(START, Config::default(), vec![endpoint("https://d")]);
    let bench = Bench::new(machine, |_| Some((200, vec![], vec![b' '; 10 << 20])));
    let Some(Event::Nothing(failures)) = bench.events.last() else {
        panic!("{:?}", bench.events);
    };
    assert!(matches!(failures[0].cause, Cause::TooMuch { .. }));
}

#[test]
fn asking_again_on_demand_and_closing() {
    let config = Config {
        refresh: None,
        ..Config::default()
    };
    let machine = Discovery::new(START, config, vec![endpoint("https://d")]);
    let mut bench = Bench::new(machine, |_| list(&["a"]));
    assert_eq!(bench.wake, None);
    bench.machine.refresh(bench.now);
    bench.drain();
    assert_eq!(bench.asked.len(), 2);
    bench.machine.close(bench.now);
    bench.machine.refresh(bench.now);
    bench.secs(1_000);
    assert_eq!(bench.asked.len(), 2);
}

// Other kinds of sources.

#[test]
fn an_orchestrators_own_runners_are_found() {
    let source = vec![(Origin::List, Source::Runners(url("https://o:8935")))];
    let machine = Discovery::new(START, Config::default(), source.clone());
    let mut bench = Bench::new(machine, |request| {
        assert_eq!(request.url.path(), "/discovery");
        assert_eq!(request.trust, http::Trust::FirstUse);
        ok(&json!([{"address": "https://o:8935", "runners": [
            {"url": "https://o:8935/apps/r/session", "app": "live-video-to-video/scope", "mode": "persistent", "capacity": 2}
        ]}]))
    });
    let found = bench.found();
    assert_eq!(found[0].runners[0].app, "live-video-to-video/scope");

    let machine = Discovery::new(START, Config::default(), source);
    let bench = Bench::new(machine, |_| {
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
    let machine = Discovery::new(START, Config::default(), vec![(Origin::Subgraph, source)]);
    let mut bench = Bench::new(machine, |request| {
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
    let machine = Discovery::new(START, Config::default(), vec![(Origin::Subgraph, source)]);
    let bench = Bench::new(machine, |_| ok(&json!({"errors": [{"message": "no"}]})));
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
    let machine = Discovery::new(START, Config::default(), vec![(Origin::Stats, source)]);
    let mut bench = Bench::new(machine, |_| {
        ok(&json!([{"where": "https://o:1"}, {"where": ""}]))
    });
    assert_eq!(bench.hosts(), ["o"]);
}

// The chain.

#[test]
fn contract_calls_are_those_of_the_reference() {
    let cases = cases("capabilities/handshake.json", "eth_calls");
    assert_eq!(cases.len(), 13);
    for case in &cases {
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
    let cases = cases("capabilities/handshake.json", "events");
    assert_eq!(cases.len(), 3);
    for case in &cases {
        let topic: [u8; 32] = unhex(&case["topic0"]).try_into().unwrap();
        assert!(contracts::topics().contains(&topic), "{}", case["event"]);
    }
}

#[test]
fn stakes_are_cut_to_five_decimals() {
    let cases = cases("capabilities/handshake.json", "stake_fixed_point");
    assert_eq!(cases.len(), 4);
    for case in &cases {
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
        for ask in asks.as_array().unwrap() {
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
        let machine = Discovery::new(START, Config::default(), vec![(Origin::Chain, source)]);
        let mut bench = Bench::new(machine, node(logs));
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
fn a_pool_that_goes_in_circles_ends() {
    let source = Source::Chain(ChainSource::arbitrum(url("https://rpc"), true));
    let machine = Discovery::new(START, Config::default(), vec![(Origin::Chain, source)]);
    let bench = Bench::new(machine, |request| {
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

// Scores.

#[test]
fn scores_are_kept_fresh() {
    let mut round = 0;
    let machine = Scores::new(START, url("https://perf/"), "fra".into());
    let mut bench = Bench::new(machine, move |_| {
        round += 1;
        match round {
            1 => {
                ok(&json!({"0x0000000000000000000000000000000000000001": {"FRA": {"score": 0.5}}}))
            }
            2 => ok(&json!([])),
            _ => None,
        }
    });
    assert!(matches!(&bench.events[0], ScoresEvent::Scores(scores) if scores.len() == 1));
    bench.secs(600);
    assert!(matches!(bench.events[1], ScoresEvent::Failed(_)));
    bench.secs(605);
    assert!(matches!(bench.events[2], ScoresEvent::Failed(_)));
    bench.machine.close(bench.now);
    bench.drain();
    assert_eq!(bench.wake, None);
}
