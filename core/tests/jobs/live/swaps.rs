//! When a job leaves its orchestrator for another.

use livepeer_core::job::SwapLimit;

use super::*;

#[test]
fn one_segment_too_many_in_flight_means_slow() {
    for id in ["slow", "slow-recovers"] {
        let case = case(id);
        let mut world = World::new(Config::default());
        world.assign_well("a");
        world.take_events();
        for (at, step) in timed(&case["in"]["events"]) {
            world.pass_to(at);
            if step.get("segment").is_some() {
                world.media(media::Event::Begun);
            } else {
                world.media(media::Event::Done);
            }
        }
        let ends = timed(&case["out"]["commands"])
            .into_iter()
            .find_map(|(at, command)| command.get("end_orchestrator").map(|_| at));
        let released = world
            .take_events()
            .into_iter()
            .find_map(|(at, event)| match event {
                Event::Release(_, Outcome::Failed(_)) => Some(at),
                _ => None,
            });
        assert_eq!(released, ends, "{id}");
    }
}

#[test]
fn swaps_are_limited_when_they_follow_closely() {
    for id in ["swap-limit", "swap-slow-pace"] {
        let case = case(id);
        // Only the orchestrator's end decides here.
        let config = Config {
            event_silence: Duration::from_secs(100_000),
            output_silence: Duration::from_secs(100_000),
            ..Config::default()
        };
        let mut world = World::new(config);
        world.assign_well("a");
        world.take_events();
        let mut have = Vec::new();
        for (at, _) in timed(&case["in"]["events"]).into_iter().skip(1) {
            world.pass_to(at);
            world.lose_media();
            match world.take_events().last() {
                Some((_, Event::NeedLease)) => {
                    have.push((at, "swap"));
                    world.assign_well("b");
                    world.take_events();
                }
                Some((_, Event::Ended(Ending::Failed(_)))) => have.push((at, "stop")),
                other => panic!("{id} at {at}: {other:?}"),
            }
        }
        let want: Vec<_> = timed(&case["out"]["commands"])
            .into_iter()
            .map(|(at, command)| match command.get("swap") {
                Some(_) => (at, "swap"),
                None => (at, "stop"),
            })
            .collect();
        assert_eq!(have, want, "{id}");
    }
}

#[test]
fn once_the_input_is_over_no_other_orchestrator_is_asked() {
    assert_eq!(case("swap-no-input")["kind"], "state");
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.pass_to(5_000);
    world.media(media::Event::Delivered);
    world.take_events();
    world.pass_to(5_001);
    world.media(media::Event::Ended(None));
    let events = world.take_events();
    assert!(
        matches!(
            &events[..],
            [
                (_, Event::Release(_, Outcome::Done { .. })),
                (_, Event::Ended(Ending::Finished))
            ]
        ),
        "{events:?}"
    );
}

#[test]
fn news_of_an_orchestrator_that_was_left_is_not_laid_to_the_next() {
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.lose_media();
    world.assign_well("b");
    world.take_events();
    let party = Party::Channel(Url::parse("https://a:8935/out").unwrap());
    let refused = Failure::new(party, Cause::Link(Fault::Broken("refused".into())));
    let ended = |session| News {
        session,
        event: media::Event::Ended(Some(refused.clone())),
    };
    for _ in 0..10 {
        let event = media::Event::Begun;
        world.command(|job, now| job.on_media(now, News { session: 0, event }));
    }
    world.command(|job, now| job.on_media(now, ended(0)));
    world.pass_to(world.ms() + LAST_WORDS_MS);
    assert!(world.take_events().is_empty(), "b did nothing of that");
    world.command(|job, now| job.on_media(now, ended(1)));
    assert!(lost_at(&mut world).is_some());
}

/// When the orchestrator at work was lost, if it was.
fn lost_at(world: &mut World) -> Option<u64> {
    world
        .take_events()
        .into_iter()
        .find_map(|(at, event)| matches!(event, Event::Lost(..)).then_some(at))
}

#[test]
fn what_the_output_owes_decides_what_a_loss_after_the_input_means() {
    for owed in [Owed::Something, Owed::Nothing, Owed::Unknown] {
        let mut world = World::new(Config::default());
        world.assign_well("a");
        world.media(media::Event::Owed(owed));
        world.media(media::Event::Delivered);
        world.pass_to(1_000);
        let party = Party::Channel(Url::parse("https://a:8935/out").unwrap());
        let broken = Failure::new(party, Cause::Link(Fault::Broken("reset".into())));
        world.take_events();
        world.media(media::Event::Ended(Some(broken.clone())));
        let events = world.take_events();
        match (owed, events.last()) {
            (Owed::Something, Some((_, Event::NeedLease))) => {}
            (Owed::Nothing, Some((_, Event::Ended(Ending::Finished)))) => continue,
            (Owed::Unknown, Some((_, Event::Ended(Ending::Failed(failure))))) => {
                assert_eq!(failure.cause, broken.cause);
                continue;
            }
            other => panic!("{other:?}"),
        }
        world.assign_well("b");
        let started = world
            .take_events()
            .into_iter()
            .find_map(|(_, event)| match event {
                Event::Started(started) => Some(started),
                _ => None,
            });
        let started = started.expect("b takes the job");
        assert_eq!((started.orchestrator.host(), started.swaps), ("b", 1));
        // What is owed has come: now it may end.
        world.media(media::Event::Owed(Owed::Nothing));
        world.media(media::Event::Ended(None));
        let ended = world.take_events();
        assert!(
            matches!(ended.last(), Some((_, Event::Ended(Ending::Finished)))),
            "{ended:?}"
        );
    }
}

#[test]
fn an_orchestrator_without_a_sign_of_life_after_the_input_is_replaced_if_it_owes_output() {
    for (owed, speaks) in [
        (Owed::Something, false),
        (Owed::Something, true),
        (Owed::Nothing, false),
    ] {
        let mut world = World::new(Config::default());
        world.assign_well("a");
        world.media(media::Event::Owed(owed));
        world.media(media::Event::Delivered);
        world.take_events();
        world.pass_to(5_000);
        if speaks {
            world.runner_says(r#"{"type":"status","state":"ONLINE"}"#);
        }
        world.pass_to(10_001);
        let last = world.take_events().pop();
        if owed == Owed::Something && !speaks {
            assert!(matches!(last, Some((_, Event::NeedLease))), "{last:?}");
        } else {
            let finished = matches!(last, Some((_, Event::Ended(Ending::Finished))));
            assert!(finished, "{owed:?}, {speaks}: {last:?}");
        }
    }
}

#[test]
fn an_orchestrator_that_takes_no_input_is_stuck_unless_something_moves() {
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.take_events();
    world.pass_to(1_000);
    world.media(media::Event::Waits(true));
    world.pass_to(5_000);
    // Said again it is no news; a delivery is.
    world.media(media::Event::Waits(true));
    world.media(media::Event::Done);
    world.media(media::Event::Waits(true));
    world.pass_to(9_999);
    assert_eq!(lost_at(&mut world), None);
    world.pass_to(20_000);
    assert_eq!(lost_at(&mut world), Some(10_000));
    // Whoever has nothing to say does not wait.
    world.assign_well("b");
    world.media(media::Event::Waits(true));
    world.media(media::Event::Waits(false));
    world.pass_to(29_000);
    assert_eq!(lost_at(&mut world), None);
}

#[test]
fn a_dead_orchestrator_is_left_at_once_by_jobs_with_somewhere_else_to_go() {
    for leave_dead in [true, false] {
        let config = Config {
            leave_dead,
            ..Config::default()
        };
        let mut world = World::new(config);
        world.assign_well("a");
        world.take_events();
        world.pass_to(2_000);
        let mut break_off = |fault: Fault| {
            let (id, _) = world.events_get.take()?;
            world.input(Input::Http(id, In::Failed(fault)));
            Some(world.now)
        };
        break_off(Fault::Broken("reset".into()));
        // A connection that breaks may be bad luck: another one is tried.
        let again = break_off(Fault::Connect("refused".into()));
        assert_eq!(again.is_some(), leave_dead, "at once, or after a pause");
        assert_eq!(lost_at(&mut world), leave_dead.then_some(2_000));
    }
}

#[test]
fn an_output_that_cannot_be_written_ends_the_job_and_nobody_else_is_blamed() {
    let ours =
        |ending: &Ending| matches!(ending, Ending::Failed(failure) if failure.who == Party::Sink);
    let disk_is_full = |world: &mut World| {
        world.command(|job, now| job.output_failed(now, "no space is left".into()));
        world.take_events()
    };
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.take_events();
    let events = disk_is_full(&mut world);
    assert!(
        matches!(
            &events[..],
            [
                (_, Event::Release(_, Outcome::Done { .. })),
                (_, Event::Ended(ending))
            ] if ours(ending)
        ),
        "{events:?}"
    );
    // While it starts, the session that comes of it is closed first.
    let mut world = World::new(Config::default());
    world.lend("a");
    assert!(
        disk_is_full(&mut world)
            .iter()
            .all(|(_, event)| !matches!(event, Event::Ended(_)))
    );
    world.answer_start(200, &channels("m9"));
    let events = world.take_events();
    assert!(
        matches!(
            &events[..],
            [
                (_, Event::Release(_, Outcome::Unused)),
                (_, Event::Ended(ending))
            ] if ours(ending)
        ),
        "{events:?}"
    );
}

/// Passes a minute in which input flows and the runner says that all is well, but nothing comes back.
fn a_minute_without_output(world: &mut World, status: &str) {
    for _ in 0..12 {
        world.pass_to(world.ms() + 5_000);
        if world.events_get.is_some() {
            world.runner_says(status);
            world.media(media::Event::Begun);
            world.media(media::Event::Done);
        }
    }
}

#[test]
fn output_that_nobody_reads_is_not_missed() {
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.take_events();
    world.command(|job, now| job.set_output_read(now, false));
    a_minute_without_output(&mut world, r#"{"type":"heartbeat"}"#);
    assert_eq!(lost_at(&mut world), None);
    world.command(|job, now| job.set_output_read(now, true));
    a_minute_without_output(&mut world, r#"{"type":"heartbeat"}"#);
    assert_eq!(lost_at(&mut world), Some(100_000), "from then on it is");
}

#[test]
fn a_model_that_says_that_it_is_loading_gets_more_time_but_not_for_ever() {
    const LOADING: &str = r#"{"type":"status","state":"LOADING"}"#;
    const ONLINE: &str = r#"{"type":"status","state":"ONLINE"}"#;
    // How long it says that it loads, and when it is left.
    for (minutes, left) in [(0, 40_000), (1, 100_000), (5, 190_000)] {
        let mut world = World::new(Config::default());
        world.assign_well("a");
        world.take_events();
        for _ in 0..minutes {
            a_minute_without_output(&mut world, LOADING);
        }
        if world.events_get.is_some() {
            a_minute_without_output(&mut world, ONLINE);
        }
        assert_eq!(lost_at(&mut world), Some(left), "{minutes} minutes");
    }
    // The next one has a clock of its own.
    let mut world = World::new(Config::default());
    world.assign_well("a");
    a_minute_without_output(&mut world, LOADING);
    world.lose_media();
    world.take_events();
    world.assign_well("b");
    let since = world.ms();
    a_minute_without_output(&mut world, ONLINE);
    assert_eq!(lost_at(&mut world), Some(since + 40_000));
}

#[test]
fn a_session_that_ended_while_its_input_slept_is_begun_anew_and_nobody_is_blamed() {
    let quiet = Config {
        event_silence: Duration::from_secs(100_000),
        // Swaps that nobody is blamed for are not counted.
        swap_limit: SwapLimit::new(0, Duration::ZERO),
        ..Config::default()
    };
    let mut world = World::new(quiet);
    world.assign_well("a");
    for n in 1..=4 {
        world.take_events();
        world.pass_to(world.ms() + 245_000);
        world.lose_media();
        let events = world.take_events();
        assert!(
            matches!(
                &events[..],
                [
                    (_, Event::Lost(..)),
                    (_, Event::Release(_, Outcome::Stale)),
                    (_, Event::NeedLease)
                ]
            ),
            "{n}: {events:?}"
        );
        world.assign_well("a");
    }
    world.take_events();
    world.pass_to(world.ms() + 245_000);
    world.media(media::Event::Begun);
    world.lose_media();
    let events = world.take_events();
    assert!(
        matches!(&events[1], (_, Event::Release(_, Outcome::Failed(_)))),
        "awake it is another matter: {events:?}"
    );
}
