//! Orchestrators that a pool asks, and those that it chooses.

use super::*;

#[test]
fn the_first_good_answers_win() {
    let mut world = World::offering(
        Config::default(),
        &[
            ("a", Is::Silent),
            ("b", Is::Good(300)),
            ("c", Is::Good(20)),
            ("d", Is::Incapable(5)),
        ],
    );
    assert!(world.take().is_none());
    world.ms(20);
    let lease = world.take().expect("one answered");
    assert_eq!(lease.url(), &url("c"));
    assert_eq!(lease.latency(), Duration::from_millis(20));
    assert_eq!(world.pool.lent(), 1);
    world.ms(280);
    let second = world.take().expect("the next one answered");
    assert_eq!(second.url(), &url("b"));
    world.give_back(lease, Outcome::Done { first_byte: None });
    world.give_back(second, Outcome::Unused);
    assert_eq!(world.pool.lent(), 0);
}

#[test]
fn few_are_asked_at_a_time_and_slow_ones_do_not_hold_up_the_others() {
    let hosts: Vec<String> = (0..40).map(|n| format!("n{n}")).collect();
    let nodes: Vec<(&str, Is)> = hosts
        .iter()
        .map(|host| (host.as_str(), Is::Silent))
        .collect();
    let mut world = World::offering(Config::default(), &nodes);
    world.ms(499);
    assert_eq!(world.asked.len(), 5);
    world.ms(1);
    assert_eq!(world.asked.len(), 10);
    let asked: Vec<&str> = world.asked.iter().map(|(_, host)| &**host).collect();
    assert_eq!(
        asked,
        hosts[..10],
        "from the first one on, as --orchestrator says"
    );
    world.ms(4_499);
    assert_eq!(world.asked.len(), 20, "so many at once and no more");
    world.run(Duration::from_secs(60));
    assert!(world.asked("n39") >= 1, "but all of them in the end");
}

#[test]
fn enough_ready_sessions_are_enough() {
    let nodes = [
        ("a", Is::Good(5)),
        ("b", Is::Good(5)),
        ("c", Is::Good(5)),
        ("d", Is::Good(5)),
    ];
    let config = Config {
        in_flight: 1,
        ..Config::default()
    };
    let mut world = World::offering(config, &nodes);
    world.ms(1_000);
    assert_eq!(world.asked.len(), 2);
    assert_eq!(world.pool.ready(), 2);
    let lease = world.take().unwrap();
    world.ms(1_000);
    assert_eq!(world.asked.len(), 3, "the place of the lent one is filled");
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn when_all_were_tried_the_error_says_what_each_did() {
    let mut world = World::offering(
        Config::default(),
        &[
            ("a", Is::Silent),
            ("b", Is::Incapable(5)),
            ("c", Is::Full(5)),
            ("d", Is::Gone(5)),
        ],
    );
    assert!(world.take().is_none());
    world.ms(5_000);
    let tried = world.exhausted();
    assert_eq!(tried.len(), 4);
    let text: Vec<String> = tried.iter().map(ToString::to_string).collect();
    assert!(
        text[0].contains("no answer to the handshake within 5s"),
        "{}",
        text[0]
    );
    assert!(
        matches!(&tried[1].why, Why::Rejected(Rejection::Mismatch(_))),
        "{}",
        text[1]
    );
    assert_eq!(tried[2].why, Why::Full);
    assert!(text[3].contains("connection refused"), "{}", text[3]);
    assert!(
        world
            .events
            .iter()
            .any(|event| matches!(event, Event::Refresh))
    );
    let suspended = world
        .events
        .iter()
        .filter(|event| matches!(event, Event::Suspended(..)));
    assert_eq!(suspended.count(), 2, "only those that failed");
}

#[test]
fn nothing_found_is_an_answer_and_nothing_offered_yet_is_none() {
    let mut world = World::new(Config::default(), &[]);
    assert!(world.take().is_none());
    assert!(matches!(world.events.remove(0), Event::Refresh));
    assert!(world.events.is_empty());
    world.offer(&[]);
    assert!(world.exhausted().is_empty());
}

#[test]
fn two_addresses_of_one_orchestrator_are_one() {
    let mut world = World::new(
        Config::default(),
        &[("a", Is::Good(5)), ("b", Is::Alias(50, "a"))],
    );
    world.offer(&["a", "b", "a"]);
    world.ms(100);
    assert_eq!(world.pool.ready(), 1);
    let lease = world.take().unwrap();
    assert!(world.take().is_none());
    let tried = world.exhausted();
    assert_eq!(tried[1].why, Why::Same(url("a")));
    world.fail(lease);
    assert!(
        world.take().is_none(),
        "its other name is no way around the suspension"
    );
}

#[test]
fn named_nodes_are_asked_once_and_no_deeper() {
    let nodes = [
        ("a", Is::Knows(5, &["n1", "n2"])),
        ("n1", Is::Knows(5, &["n3"])),
        ("f", Is::Front(5, &["w"])),
        ("w", Is::Good(5)),
    ];
    let config = Config {
        extra_nodes: 1,
        ready: 9,
        ..Config::default()
    };
    let mut world = World::new(config, &nodes);
    world.offer(&["a", "f"]);
    world.ms(1_000);
    assert_eq!(world.asked("n1"), 1);
    assert_eq!(world.asked("n2"), 0, "only so many of them");
    assert_eq!(world.asked("n3"), 0, "and none that these name");
    assert_eq!(world.asked("w"), 1, "who takes no work sends us on");
    assert_eq!(world.pool.ready(), 3);
}

#[test]
fn with_patience_the_first_job_waits_for_a_choice() {
    let config = Config {
        patience: Some(Duration::from_millis(500)),
        ready: 3,
        ..Config::default()
    };
    let nodes = [("a", Is::Good(30)), ("b", Is::Good(200)), ("c", Is::Silent)];
    let mut world = World::offering(config.clone(), &nodes);
    world.ms(400);
    assert!(world.take().is_none(), "two are there, and more may come");
    assert!(world.events.is_empty());
    world.ms(100);
    assert_eq!(
        world.events.len(),
        2,
        "now both are told of: {:?}",
        world.events
    );
    let lease = world.take().expect("the patience is over");
    assert_eq!(lease.url(), &url("a"));
    world.give_back(lease, Outcome::Unused);

    let nodes = [
        ("a", Is::Good(30)),
        ("b", Is::Good(40)),
        ("c", Is::Good(50)),
    ];
    let mut world = World::offering(config.clone(), &nodes);
    world.ms(50);
    let lease = world.take().expect("enough are enough");
    world.give_back(lease, Outcome::Unused);

    let mut world = World::offering(config, &[("a", Is::Good(30)), ("b", Is::Gone(40))]);
    world.ms(40);
    let lease = world.take().expect("there is nobody left to wait for");
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn a_list_that_stands_for_all_ends_what_is_not_on_it() {
    let nodes = [
        ("a", Is::Good(5)),
        ("b", Is::Good(5)),
        ("c", Is::Good(5)),
        ("d", Is::Good(5)),
    ];
    let config = Config {
        ready: 3,
        in_flight: 3,
        ..Config::default()
    };
    let mut world = World::offering(config, &nodes);
    world.ms(5);
    let lease = world.take().unwrap();
    assert_eq!(lease.url(), &url("a"));
    world.ms(5);
    world.pool.replace(world.now, vec![url("c")]);
    world.drain();
    assert_eq!(world.pool.ready(), 1, "only the listed one");
    let listed = world.take().unwrap();
    assert_eq!(listed.url(), &url("c"));
    world.give_back(lease, Outcome::Done { first_byte: None });
    world.give_back(listed, Outcome::Unused);
    world.pool.replace(world.now, vec![url("c")]);
    world.drain();
    assert_eq!(world.pool.ready(), 1, "and what was lent, once it is home");
    world.offer(&["b"]);
    world.ms(5);
    assert_eq!(world.pool.ready(), 2, "who is listed again is asked again");
    world.offer(&["a"]);
    world.ms(5);
    let lease = world.take().unwrap();
    let suspended = lease.url().clone();
    world.fail(lease);
    world.pool.replace(world.now, Vec::<Url>::new());
    world.pool.replace(world.now, vec![suspended.clone()]);
    world.drain();
    world.run(Duration::from_secs(9));
    assert!(
        world.take().is_none(),
        "going and coming is no way around a suspension"
    );
    world.run(Duration::from_secs(2));
    let lease = world.take().expect("its time is over");
    assert_eq!(lease.url(), &suspended);
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn a_selector_that_wants_none_of_those_at_hand_makes_the_pool_look_further() {
    let nodes = [("a", Is::Good(5)), ("b", Is::Good(5)), ("c", Is::Good(5))];
    let mut world = World::offering(
        Config {
            in_flight: 1,
            ..one_ready()
        },
        &nodes,
    );
    world.ms(5);
    world.picky.set(true);
    assert!(world.take().is_none());
    world.ms(5);
    assert_eq!(world.pool.ready(), 2, "another one might do");
    assert!(world.take().is_none());
    world.ms(5);
    assert!(world.take().is_none());
    let tried = world.exhausted();
    assert_eq!(tried.len(), 3);
    assert!(tried.iter().all(|tried| tried.why == Why::Declined));
    world.picky.set(false);
    let lease = world.take().expect("wanted again");
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn warm_models_come_before_quick_ones() {
    let config = Config {
        ready: 2,
        ..Config::default()
    };
    let mut world = World::offering(config, &[("a", Is::Cold(5)), ("b", Is::Good(300))]);
    world.ms(300);
    assert_eq!(
        world
            .pool
            .candidates()
            .iter()
            .filter(|one| one.warm)
            .count(),
        1
    );
    let lease = world.take().unwrap();
    assert_eq!(lease.url(), &url("b"));
    let second = world.take().expect("a cold one is better than none");
    world.give_back(lease, Outcome::Unused);
    world.give_back(second, Outcome::Unused);
}

#[test]
fn tries_are_limited_in_all_per_orchestrator_and_in_time() {
    let (a, b) = (url("a"), url("b"));
    let mut attempts = Attempts::new(TryLimit::BATCH);
    for _ in 0..3 {
        attempts.begin(START, &a).unwrap();
    }
    assert_eq!(attempts.begin(START, &a), Err(NoMoreTries::Orchestrator(3)));
    attempts.begin(START + Duration::from_secs(2), &b).unwrap();
    let late = START + Duration::from_millis(2_001);
    assert!(matches!(
        attempts.begin(late, &b),
        Err(NoMoreTries::Time(_))
    ));
    assert_eq!(attempts.tries(), 4);
    let mut attempts = Attempts::new(TryLimit::VIDEO_SEGMENT);
    for _ in 0..3 {
        attempts.begin(late, &a).unwrap();
    }
    assert_eq!(attempts.begin(late, &b), Err(NoMoreTries::Tries(3)));
}

#[test]
fn a_full_pool_makes_room_for_who_is_listed_now() {
    use livepeer_core::pool::MAX_NODES;
    let mut world = World::new(
        Config {
            in_flight: 64,
            hedge_after: Duration::ZERO,
            ..one_ready()
        },
        &[("new", Is::Good(5))],
    );
    let many: Vec<Url> = (0..MAX_NODES).map(|n| url(&format!("n{n}"))).collect();
    world.pool.offer(world.now, many);
    world.drain();
    world.ms(2_000);
    world.offer(&["new"]);
    assert!(world.take().is_none());
    world.run(Duration::from_secs(60));
    assert_eq!(world.asked("new"), 1);
}

#[test]
fn the_longest_list_is_offered_to_a_full_pool_again_and_again() {
    use livepeer_core::pool::MAX_NODES;
    use livepeer_core::wire::listing::MAX_LIST_ENTRIES;
    let mut world = World::new(one_ready(), &[]);
    let list = |host: &str| -> Vec<Url> {
        (0..MAX_LIST_ENTRIES)
            .map(|n| url(&format!("{host}{n}")))
            .collect()
    };
    for host in ["a", "b", "c"] {
        world.pool.replace(world.now, list(host));
        world.drain();
        assert_eq!(world.pool.records().count(), MAX_NODES);
    }
    assert!(
        world.asked("b0") > 0,
        "those of the last list took the place of the others"
    );
}

#[test]
fn a_full_orchestrator_sends_us_on_to_its_further_nodes() {
    let nodes = [
        ("a", Is::Knows(5, &["full", "b", "c"])),
        ("full", Is::Full(5)),
        ("b", Is::Knows(5, &["d"])),
    ];
    let mut world = World::new(one_ready(), &nodes);
    world.offer(&["a"]);
    let lease = world.lease();
    assert_eq!((lease.url(), world.asked.len()), (&url("a"), 1));
    world.give_back(lease, Outcome::Full);
    let lease = world.lease_within(Duration::from_secs(1));
    assert_eq!(
        lease.url(),
        &url("b"),
        "nobody waits until the first has room again"
    );
    // Whom another named names nobody.
    world.give_back(lease, Outcome::Full);
    assert!(world.take().is_none());
    world.ms(1_000);
    assert_eq!(world.asked("d"), 0);
}

#[test]
fn who_asks_to_be_paid_as_another_than_is_registered_is_refused() {
    let (registered, other) = (Address([1; 20]), Address([2; 20]));
    let nodes = [
        ("honest", Is::PaidAs(5, registered)),
        ("liar", Is::PaidAs(5, other)),
        ("unknown", Is::PaidAs(5, other)),
    ];
    let offered = |host: &str, accounts: &[Address]| Offered {
        url: url(host),
        accounts: accounts.iter().copied().collect(),
    };
    let all = || {
        vec![
            offered("honest", &[other, registered]),
            offered("liar", &[registered]),
            offered("unknown", &[]),
        ]
    };
    let everybody = Config {
        ready: 3,
        ..Config::default()
    };
    let mut world = World::new(everybody.clone(), &nodes);
    world.pool.offer(world.now, all());
    world.drain();
    world.ms(100);
    assert_eq!(world.pool.ready(), 2);
    let tried = world.pool.tried();
    assert_eq!((tried.len(), &tried[0].url), (1, &url("liar")));
    assert_eq!(
        tried[0].why.to_string(),
        format!("registered for {registered}, asks to be paid as {other}")
    );
    let mut any = everybody;
    any.handshake.terms.any_recipient = true;
    let mut world = World::new(any, &nodes);
    world.pool.offer(world.now, all());
    world.drain();
    world.ms(100);
    assert_eq!(world.pool.ready(), 3);
}
