//! The treatment of good, bad and missing answers.

use super::*;

#[test]
fn an_answer_that_fits_makes_it_ready() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (id, request) = bench.request();
    let asked = question(&request);
    assert!(asked.address.is_empty() && asked.sig.is_empty());
    assert!(!asked.ignore_capacity_check);
    bench.now = START + Duration::from_millis(70);
    bench.reply(id, &answer(START));
    let Event::Ready(info) = bench.event() else {
        panic!("it is ready");
    };
    assert_eq!(info.transcoder, orchestrator());
    assert_eq!(bench.machine.took(), Some(Duration::from_millis(70)));
    assert_eq!(bench.machine.info(), Some(&info));
    bench.quiet();
}

#[test]
fn an_orchestrator_that_does_not_fit_is_rejected_with_the_reason() {
    let paying = |ceilings| Config {
        terms: Terms {
            paying: Paying::OwnKey,
            ceilings,
            ..Terms::default()
        },
        ..Config::default()
    };
    type Change = fn(&mut net::OrchestratorInfo);
    let cases: [(Config, Change, &str); 8] = [
        (
            Config::default(),
            |info| info.capabilities.as_mut().unwrap().bitstring = vec![1],
            "the node lacks Live video to video (35)",
        ),
        (
            Config::default(),
            |info| info.capabilities = None,
            "the node reports no capabilities",
        ),
        (
            Config::default(),
            |info| info.auth_token = None,
            "it gave no auth token",
        ),
        (
            paying(Ceilings::default()),
            |info| info.ticket_params = None,
            "it gave no ticket parameters to pay it with",
        ),
        (
            paying(Ceilings::default()),
            |info| info.price_info = None,
            "it named no price",
        ),
        (
            paying(Ceilings::of(Price::new(11, 1).unwrap())),
            |_| {},
            "asks 12 wei per unit, above the ceiling of 11",
        ),
        (
            Config {
                terms: Terms {
                    blocked: [Address([5; 20])].into(),
                    ..Terms::default()
                },
                ..Config::default()
            },
            |info| info.address = vec![5; 20].into(),
            "0x0505050505050505050505050505050505050505 is on the block list",
        ),
        (
            Config {
                terms: Terms {
                    listed_models_only: true,
                    ..Terms::default()
                },
                ..Config::default()
            },
            |info| info.capabilities.as_mut().unwrap().constraints = None,
            "no model \"noop\" for Live video to video (35)",
        ),
    ];
    for (config, change, reason) in cases {
        let mut bench = Bench::new(config, Identity::Offchain);
        let (id, _) = bench.request();
        let mut info = answer(START);
        change(&mut info);
        bench.reply(id, &info);
        let Event::Rejected(why) = bench.event() else {
            panic!("{reason}");
        };
        assert_eq!(why.to_string(), reason);
        assert_eq!(bench.drain(), None, "it has ended");
        assert_eq!(bench.machine.renew(bench.now), Err(Misuse::Ended));
    }
}

#[test]
fn who_cannot_be_paid_by_tickets_is_refused_at_the_choice() {
    let free = "it asks no price, and a remote signer makes no payment of nothing";
    let worthless = "its tickets are worth nothing, and its price is not zero";
    let payers = [Paying::Nobody, Paying::OwnKey, Paying::Remote];
    for (wei, face, chance, why) in [
        (0, 0, 0, [None, None, Some(free)]),
        (0, 1, 1, [None, None, Some(free)]),
        (1, 0, 1, [None, Some(worthless), Some(worthless)]),
        (1, 1, 0, [None, Some(worthless), Some(worthless)]),
        (i64::MAX, 1, 1, [None; 3]),
    ] {
        for (paying, why) in payers.into_iter().zip(why) {
            let terms = Terms {
                paying,
                ..Terms::default()
            };
            let mut info = answer(START);
            info.price_info = Some(price(wei));
            let params = info.ticket_params.as_mut().unwrap();
            params.face_value = vec![face].into();
            params.win_prob = vec![chance].into();
            let info = OrchestratorInfo::decode(info.encode_to_vec().into()).unwrap();
            let wanted = Capabilities::live_video("noop");
            let refused = terms.accept(&info, &wanted).err();
            let told = refused.as_ref().map(ToString::to_string);
            assert_eq!(told.as_deref(), why, "{paying:?} {wei} {face} {chance}");
            if let Some(Rejection::Free) = refused {
                assert!(matches!(Rejection::Free.into_cause(), Cause::Free));
            }
        }
    }
}

#[test]
fn an_orchestrator_that_points_into_our_network_is_not_followed() {
    for transcoder in [
        "https://169.254.169.254:80",
        "https://localhost:6379",
        "http://orch.example:8935",
    ] {
        let mut bench = Bench::new(Config::default(), Identity::Offchain);
        let (id, _) = bench.request();
        let mut info = answer(START);
        info.transcoder = transcoder.into();
        bench.reply(id, &info);
        let Event::Failed(failure) = bench.event() else {
            panic!("{transcoder}");
        };
        assert_eq!(failure.who, Party::Orchestrator(orchestrator()));
        assert!(matches!(&failure.cause, Cause::Link(Fault::Forbidden(_))));
        assert_eq!(Class::of(&failure), Class::Forbidden);
    }
    let nodes = ["https://10.0.0.1:1", "http://n1:8935", "https://n2:8935"].map(String::from);
    assert_eq!(
        livepeer_core::handshake::node_urls(&orchestrator(), &nodes),
        [url("https://n2:8935")]
    );
}

#[test]
fn a_node_that_takes_no_work_names_others() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (id, _) = bench.request();
    let nodes = vec!["https://n1:8935".to_string(), "nonsense".to_string()];
    let info = net::OrchestratorInfo {
        nodes: nodes.clone(),
        ..Default::default()
    };
    bench.reply(id, &info);
    let Event::Rejected(Rejection::NoWork { nodes: told }) = bench.event() else {
        panic!("it takes no work");
    };
    assert_eq!(told, nodes);
    assert_eq!(
        livepeer_core::handshake::node_urls(&orchestrator(), &told),
        [url("https://n1:8935")]
    );
}

#[test]
fn silence_ends_in_a_deadline() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (id, _) = bench.request();
    bench.sleep(Duration::from_millis(4_999));
    bench.quiet();
    bench.sleep(Duration::from_millis(1));
    assert_eq!(bench.aborted(), id);
    let failure = bench.failure();
    assert_eq!(failure.who, Party::Orchestrator(orchestrator()));
    assert_eq!(Class::of(&failure), Class::Timeout);
    // Late answers find nobody.
    bench.reply(id, &answer(START));
    bench.quiet();
}

#[test]
fn what_is_no_orchestrator_is_told_so() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (id, _) = bench.request();
    bench.http(
        id,
        http::In::Reply(Response::new(404).header("content-type", "text/plain")),
    );
    assert_eq!(bench.aborted(), id);
    assert_eq!(Class::of(&bench.failure()), Class::NotAnOrchestrator);

    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (id, _) = bench.request();
    bench.reply(
        id,
        &net::OrchestratorInfo {
            transcoder: "::".into(),
            ..answer(START)
        },
    );
    assert_eq!(Class::of(&bench.failure()), Class::NotAnOrchestrator);
}

#[test]
fn a_changed_certificate_is_accepted_once_if_that_is_allowed() {
    let change = || Fault::CertificateChanged {
        remembered: [1; 32],
        seen: [2; 32],
    };
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (first, _) = bench.request();
    bench.http(first, http::In::Failed(change()));
    assert!(matches!(
        bench.event(),
        Event::PinChanged {
            remembered: [1, ..],
            seen: [2, ..]
        }
    ));
    let (second, request) = bench.request();
    assert_eq!(request.trust, Trust::Afresh);
    bench.http(second, http::In::Failed(change()));
    assert_eq!(Class::of(&bench.failure()), Class::CertificateChanged);

    for config in [
        Config {
            pin_change: PinChange::Refuse,
            ..Config::default()
        },
        Config {
            trust: Trust::Public,
            ..Config::default()
        },
    ] {
        let mut bench = Bench::new(config, Identity::Offchain);
        let (id, _) = bench.request();
        bench.http(id, http::In::Failed(change()));
        assert_eq!(Class::of(&bench.failure()), Class::CertificateChanged);
    }
}

#[test]
fn closing_aborts_and_says_so_once() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (id, _) = bench.request();
    bench.machine.close(bench.now);
    bench.machine.close(bench.now);
    bench.drain();
    assert_eq!(bench.aborted(), id);
    assert!(matches!(bench.event(), Event::Closed));
    bench.quiet();
    bench.reply(id, &answer(START));
    bench.sleep(Duration::from_secs(10_000));
    bench.quiet();
    assert_eq!(bench.drain(), None);
}

#[test]
fn time_that_goes_back_is_read_as_the_last() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let _ = bench.request();
    bench
        .machine
        .handle_input(START + Duration::from_secs(4), Input::Tick);
    bench.machine.handle_input(START, Input::Tick);
    bench.drain();
    bench.quiet();
    bench
        .machine
        .handle_input(START + Duration::from_secs(5), Input::Tick);
    bench.now = START + Duration::from_secs(5);
    bench.drain();
    assert!(matches!(bench.event(), Event::Failed(_)));
}
