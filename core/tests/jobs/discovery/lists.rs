//! Lists: how they are asked for, kept and followed.

use super::*;

#[test]
fn a_list_at_hand_is_found_at_once() {
    let source = Source::List(vec![url("https://a:1"), url("https://A:1/")], vec![]);
    let mut bench = Bench::of(vec![(Origin::List, source)], |_| None);
    assert_eq!(bench.hosts(), ["a"]);
    assert!(bench.asked.is_empty());
}

#[test]
fn an_answer_is_kept_through_failures_and_replaced_by_the_next_good_one() {
    let mut round = 0;
    let mut bench = Bench::of(endpoints(&["https://d/l"]), move |_| {
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
    let mut bench = Bench::of(endpoints(&["https://d", "https://e"]), |request| {
        assert_eq!(request.url.host(), "d", "nobody stands in for an answer");
        list(&[])
    });
    assert!(bench.found().is_empty());
}

#[test]
fn the_next_source_stands_in_for_one_that_fails() {
    let mut bench = Bench::of(
        endpoints(&["https://d", "https://e"]),
        |request| match request.url.host() {
            "d" => Some((0, vec![], vec![])),
            _ => list(&["a"]),
        },
    );
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
    let mut bench = Bench::of(sources.clone(), |request| match request.url.host() {
        "a" => None,
        _ => list(&["o"]),
    });
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
    let mut silent = Bench::of(sources, |_: &http::Request| None);
    while silent.events.len() < 4 {
        silent.nap();
    }
    assert_eq!(silent.now, START + Duration::from_secs(7));
    assert!(matches!(&silent.events[3], Event::Nothing(why) if why.len() == 3));
}

#[test]
fn with_no_answer_at_all_every_failure_is_told() {
    let mut bench = Bench::of(
        endpoints(&["https://d", "https://e"]),
        |request| match request.url.host() {
            "d" => None,
            _ => Some((
                503,
                vec![],
                br#"{"error":{"message":"Service Unavailable Error"}}"#.to_vec(),
            )),
        },
    );
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
    let sources = endpoints(&["https://d", "https://e", "https://f"]);
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
    let mut bench = Bench::of(endpoints(&["https://d"]), |_| {
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
    let mut bench = Bench::of(source("https://d/l"), |request| {
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
        let bench = Bench::of(source("https://d/l"), move |_| {
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
fn a_list_or_a_redirect_of_the_public_leads_to_nothing_of_ours() {
    for place in [
        "http://10.0.0.1/",
        "https://169.254.169.254/",
        "https://[::1]/",
    ] {
        let bench = Bench::of(endpoints(&["https://d"]), move |_| {
            Some((302, vec![("location", place.into())], vec![]))
        });
        assert_eq!(bench.asked.len(), 1, "{place} is not asked");
        let Some(Event::Nothing(failures)) = bench.events.last() else {
            panic!("{:?}", bench.events);
        };
        assert!(
            matches!(failures[0].cause, Cause::Link(Fault::Forbidden(_))),
            "{:?}",
            failures[0]
        );
    }
    let listing = |_: &http::Request| list(&["127.0.0.1", "10.0.0.1", "a", "[::ffff:7f00:1]"]);
    let mut bench = Bench::of(endpoints(&["https://d"]), listing);
    let told: Vec<String> = bench
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Skipped(_, skipped) => Some(skipped.why.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].contains("127.0.0.1:8935: a loopback"), "{told:?}");
    let found = bench.found();
    assert_eq!(found[0].url.host(), "a");
    assert_eq!(found[0].url.reach(), Reach::Public);
    // Our user's own list on this machine names this machine, and no other of its network.
    let mut bench = Bench::of(endpoints(&["http://127.0.0.1:7936"]), listing);
    assert_eq!(bench.hosts(), ["127.0.0.1", "a", "::ffff:7f00:1"]);
    let open = endpoints(&["https://d"]);
    let open = open.into_iter().map(|(of, source)| (of, source.opened()));
    let mut bench = Bench::of(open.collect(), listing);
    assert_eq!(bench.hosts().len(), 4);
}

#[test]
fn ten_megabytes_are_refused_while_they_come() {
    let bench = Bench::of(endpoints(&["https://d"]), |_| {
        Some((200, vec![], vec![b' '; 10 << 20]))
    });
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
    let machine = Discovery::new(START, config, endpoints(&["https://d"]));
    let mut bench = Bench::new(machine, |_| list(&["a"]));
    assert_eq!(bench.drain(), None);
    bench.machine.refresh(bench.now);
    bench.drain();
    assert_eq!(bench.asked.len(), 2);
    bench.machine.close(bench.now);
    bench.machine.refresh(bench.now);
    bench.secs(1_000);
    assert_eq!(bench.asked.len(), 2);
}
