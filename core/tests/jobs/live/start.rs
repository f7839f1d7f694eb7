//! How a job starts, and that nothing of it is left.

use super::*;

#[test]
fn every_answer_to_the_start_leads_where_the_vectors_say() {
    let mut seen = 0;
    let mut cases = of_kind("jobs/05-lv2v-start.json", "peer_reply");
    // The words about credentials are the same to every job.
    let about_credentials = |case: &Value| case["id"].as_str().unwrap().starts_with("o-creds");
    let real = of_kind("jobs/22-real-node.json", "peer_reply");
    cases.extend(real.into_iter().filter(about_credentials));
    for case in &cases {
        let id = case["id"].as_str().unwrap();
        if case["in"]["job"] == "scope" {
            continue;
        }
        seen += 1;
        let reply = &case["in"]["reply"];
        let status = u16::try_from(reply["status"].as_u64().unwrap()).unwrap();
        let body = raw(reply, "body");
        let mut world = World::new(Config::default());
        world.assign("orch-a.example", status, &body);
        let events = world.take_events();
        let released = events.iter().find_map(|(_, event)| match event {
            Event::Release(_, outcome) => Some(outcome.clone()),
            _ => None,
        });
        match case["out"]["class"].as_str().unwrap() {
            "done" => {
                assert!(
                    events
                        .iter()
                        .any(|(_, event)| matches!(event, Event::Started(_))),
                    "{id}"
                );
                assert_eq!(released, None, "{id}");
            }
            "other" => {
                let suspended = matches!(released, Some(Outcome::Failed(_)));
                assert_eq!(json!(suspended), case["out"]["suspend"], "{id}");
                assert!(
                    released.is_some() && matches!(events.last(), Some((_, Event::NeedLease))),
                    "{id}"
                );
            }
            class @ ("refresh" | "refresh_info_once") => {
                // A fresh quote is asked for, then the start is tried again, so often.
                let tries = if class == "refresh" { 3 } else { 2 };
                for _ in 1..tries {
                    let (call, _, url, _) = world.asked.pop().expect(id);
                    assert_eq!(url.path(), "/net.Orchestrator/GetOrchestrator", "{id}");
                    world.inform(call, &info("orch-a.example"));
                    world.answer_start(status, &body);
                }
                let events = world.take_events();
                let released = events
                    .iter()
                    .any(|(_, event)| matches!(event, Event::Release(_, Outcome::Stale)));
                assert!(released && released_only(&events), "{id}: {events:?}");
            }
            class => panic!("{id}: unknown class {class}"),
        }
    }
    assert_eq!(seen, 22);
}

#[test]
fn no_answer_to_the_start_is_given_up_after_its_deadline() {
    let mut world = World::new(Config::default());
    world.lend("a");
    let (start, ..) = world.asked.pop().unwrap();
    world.pass_to(4_999);
    assert!(world.aborted.is_empty());
    world.pass_to(5_000);
    assert_eq!(world.aborted, [start]);
    let events = world.take_events();
    let timed_out = events.iter().any(|(_, event)| {
        matches!(event, Event::Release(_, Outcome::Failed(failure)) if matches!(failure.cause, Cause::TimedOut { .. }))
    });
    assert!(timed_out, "{events:?}");
    // The answer that comes after all finds nobody.
    world.answer(start, Response::new(200), channels("late").as_bytes());
    world.drain();
    assert!(world.take_events().is_empty());
}

#[test]
fn a_job_stopped_while_it_starts_leaves_no_session_behind() {
    let mut world = World::new(Config::default());
    world.lend("a");
    world.command(LiveVideoJob::stop);
    world.take_events();
    let (id, ..) = world.asked.pop().unwrap();
    world.answer(id, Response::new(200), channels("m9").as_bytes());
    let mut deleted = None;
    loop {
        match world.job.poll_output() {
            Output::Effect(id, Effect::Http(Out::Request(request)))
                if request.method == Method::Delete =>
            {
                assert_eq!(request.url.to_string(), "https://a:8935/ai/trickle/m9");
                deleted = Some(id);
            }
            Output::Effect(id, Effect::Http(out)) => world.on_http(id, out),
            Output::Event(event) => assert!(
                !matches!(event, Event::Ended(_)),
                "before the session is closed"
            ),
            Output::Idle(_) => break,
            other @ Output::Effect(..) => panic!("{other:?}"),
        }
    }
    let deleted = deleted.expect("the session is deleted");
    world.answer(deleted, Response::new(200), b"");
    world.drain();
    assert!(matches!(
        world.take_events().last(),
        Some((_, Event::Ended(Ending::Stopped)))
    ));
}

#[test]
fn after_the_end_nothing_is_open_and_nothing_is_said() {
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.command(LiveVideoJob::stop);
    assert!(matches!(
        world.take_events().last(),
        Some((_, Event::Ended(Ending::Stopped)))
    ));
    assert!(
        world.events_get.is_none() && world.posting.is_empty(),
        "the job's channels are closed"
    );
    assert_eq!(world.drain(), None);
    world.pass_to(120_000);
    world.command(LiveVideoJob::stop);
    assert!(world.take_events().is_empty() && world.asked.is_empty());
    let lease = lease(world.now, "b");
    world.command(|job, now| assert!(job.assign(now, lease).is_err()));
}

#[test]
fn an_orchestrator_whose_word_is_always_stale_is_not_asked_forever() {
    let mut world = World::new(Config {
        start_tries: 1,
        ..Config::default()
    });
    let mut outcomes = Vec::new();
    // Four at each of the hosts, as a pool would lend them that has no others.
    for round in 0..40 {
        if !world.job.needs_lease() {
            break;
        }
        let host = format!("orch-{}.example", round / 4);
        world.lend(&host);
        if !world.asked.is_empty() {
            world.answer_start(400, "TicketParams expired");
        }
        let outcome = |(_, event)| match event {
            Event::Release(_, outcome) => Some(outcome),
            _ => None,
        };
        let events = world.take_events();
        if let Some((_, Event::Ended(ending))) = events.last() {
            assert!(matches!(ending, Ending::Failed(_)), "{ending:?}");
        }
        outcomes.extend(events.into_iter().filter_map(outcome));
    }
    assert!(!world.job.needs_lease(), "it would go on forever");
    let tries = outcomes
        .iter()
        .filter(|one| **one == Outcome::Stale)
        .count();
    assert_eq!(tries, 20, "the reference's twenty tries");
    for four in outcomes.chunks_exact(4) {
        assert!(matches!(
            four,
            [
                Outcome::Stale,
                Outcome::Stale,
                Outcome::Stale,
                Outcome::Failed(_)
            ]
        ));
    }
}

/// The start that was asked for breaks on the wire.
fn break_start(world: &mut World) {
    let (id, _, url, _) = world.asked.pop().expect("the job asks to start");
    assert_eq!(url.path(), "/live-video-to-video");
    world.http(id, In::Failed(Fault::Broken("reset".into())));
}

/// There is nobody else, and the lone orchestrator gives a fresh quote.
fn try_again(world: &mut World) {
    world.command(|job, now| job.no_lease(now, Vec::new()).unwrap());
    let (call, _, url, _) = world.asked.pop().expect("a fresh quote is asked for");
    assert_eq!(url.path(), "/net.Orchestrator/GetOrchestrator");
    world.inform(call, &info("a"));
}

#[test]
fn a_start_that_dies_on_the_wire_is_tried_once_more_if_there_is_nobody_else() {
    let mut world = World::new(Config::default());
    world.lend("a");
    world.take_events();
    break_start(&mut world);
    assert!(
        matches!(world.take_events()[..], [(_, Event::NeedLease)]),
        "somebody else would be better, and nobody is lost yet"
    );
    try_again(&mut world);
    world.answer_start(200, &channels("m1"));
    assert!(matches!(world.take_events()[..], [(_, Event::Started(_))]));

    // Once only.
    let mut world = World::new(Config::default());
    world.lend("a");
    break_start(&mut world);
    try_again(&mut world);
    world.take_events();
    break_start(&mut world);
    let events = world.take_events();
    assert!(released_only(&events), "{events:?}");
    world.command(|job, now| job.no_lease(now, Vec::new()).unwrap());
    assert!(matches!(
        world.take_events()[..],
        [(_, Event::Ended(Ending::NoOrchestrator))]
    ));
}

#[test]
fn a_start_that_dies_on_the_wire_is_not_repeated_if_there_is_somebody_else() {
    let mut world = World::new(Config::default());
    world.lend("a");
    break_start(&mut world);
    world.take_events();
    world.lend("b");
    let events = world.take_events();
    assert!(
        matches!(
            &events[..],
            [
                (_, Event::Lost(lost, _)),
                (_, Event::Release(lease, Outcome::Failed(_)))
            ] if lost.host() == "a" && lease.url().host() == "a"
        ),
        "{events:?}"
    );
    world.answer_start(200, &channels("m1"));
    assert!(matches!(world.take_events()[..], [(_, Event::Started(_))]));
}

#[test]
fn a_job_stopped_before_it_tries_again_gives_its_lease_back() {
    let mut world = World::new(Config::default());
    world.lend("a");
    break_start(&mut world);
    world.take_events();
    world.command(LiveVideoJob::stop);
    let events = world.take_events();
    assert!(
        matches!(
            &events[..],
            [
                (_, Event::Lost(..)),
                (_, Event::Release(..)),
                (_, Event::Ended(Ending::Stopped))
            ]
        ),
        "{events:?}"
    );
}

#[test]
fn a_start_answer_may_not_send_us_to_services_of_our_own() {
    let good = json!({
        "manifest_id": "m",
        "publish_url": "/ai/trickle/m",
        "subscribe_url": "/ai/trickle/m-out",
        "control_url": "/ai/trickle/m-control",
        "events_url": "/ai/trickle/m-events",
    });
    for (key, place) in [
        ("publish_url", "https://127.0.0.1:6379/x"),
        ("subscribe_url", "https://[::1]:80/x"),
        ("control_url", "https://169.254.169.254/containers/abc"),
        (
            "events_url",
            "http://orch-a.example:8935/ai/trickle/m-events",
        ),
    ] {
        let mut answer = good.clone();
        answer[key] = place.into();
        let mut world = World::new(Config::default());
        world.assign("orch-a.example", 200, &answer.to_string());
        let events = world.take_events();
        let released = events.iter().find_map(|(_, event)| match event {
            Event::Release(_, Outcome::Failed(failure)) => Some(failure),
            _ => None,
        });
        let failure = released.expect(key);
        assert!(matches!(failure.who, Party::Orchestrator(_)));
        assert!(
            matches!(failure.cause, Cause::Link(Fault::Forbidden(_))),
            "{key}: {failure}"
        );
        assert!(world.posting.is_empty() && world.events_get.is_none());
    }
}
