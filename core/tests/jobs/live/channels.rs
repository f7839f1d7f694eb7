//! The channels beside the stream: control and events.

use super::*;

#[test]
fn cached_parameters_go_first_on_a_new_control_channel() {
    let case = case("control-after-swap");
    let params = Params::parse(case["in"]["cached_params"].as_str().unwrap()).unwrap();
    let mut world = World::new(Config::default());
    world.command(|job, now| job.update_params(now, params).unwrap());
    world.assign_well("orch-b.example");
    world.pass_to(10_000);
    let want: Vec<_> = timed(&case["out"]["commands"])
        .into_iter()
        .map(|(at, command)| (at, command["control_write"].as_str().unwrap()))
        .collect();
    let have: Vec<_> = world
        .control
        .iter()
        .map(|(at, _, text)| (*at, text.as_str()))
        .collect();
    assert_eq!(have, want);
    assert_eq!(world.job.updated(), 1);
}

/// An orchestrator that takes over gets the latest parameters anew: what was delivered to the one before it, or comes
/// from then on, is not mistaken for it.
#[test]
fn an_update_counts_for_the_orchestrator_that_has_it() {
    let mut world = World::new(Config::default());
    world.assign_well("a");
    for n in 1..=3 {
        let params = Params::parse(&format!(r#"{{"n":{n}}}"#)).unwrap();
        world.command(|job, now| job.update_params(now, params).unwrap());
    }
    assert_eq!(world.job.updated(), 3);
    world.lose_media();
    assert_eq!((world.job.updates(), world.job.updated()), (3, 0));
    world.assign_well("b");
    assert_eq!(world.job.updated(), 3);
    let params = Params::parse(r#"{"n":4}"#).unwrap();
    world.command(|job, now| job.update_params(now, params).unwrap());
    assert_eq!(world.job.updated(), 4);
}

#[test]
fn updates_in_a_burst_are_sent_one_after_the_other_and_none_is_lost() {
    let mut world = World::new(Config::default());
    world.assign_well("a");
    for n in 0..20 {
        let params = Params::parse(&format!(r#"{{"n":{n}}}"#)).unwrap();
        world.command(|job, now| job.update_params(now, params).unwrap());
    }
    let have: Vec<_> = world
        .control
        .iter()
        .map(|(.., text)| text.clone())
        .collect();
    let want: Vec<_> = (0..20).map(|n| format!(r#"{{"n":{n}}}"#)).collect();
    assert_eq!(have, want);
    let updated = world
        .take_events()
        .iter()
        .filter(|(_, event)| matches!(event, Event::Updated))
        .count();
    assert_eq!(updated, 20);
    assert_eq!((world.job.updates(), world.job.updated()), (20, 20));
}

#[test]
fn silence_on_the_events_channel_ends_the_orchestrator() {
    let case = case("events-silence");
    let mut world = World::new(Config::default());
    world.assign_well("a");
    for (at, step) in timed(&case["in"]["events"]).into_iter().skip(1) {
        world.pass_to(at);
        // Output flows all the time; only events are silent.
        world.media(media::Event::Seen);
        if step.get("event").is_some() {
            world.runner_says(&step["event"].to_string());
        }
    }
    let released: Vec<_> = world
        .take_events()
        .into_iter()
        .filter_map(|(at, event)| match event {
            Event::Release(_, Outcome::Failed(failure)) => Some((at, failure.cause)),
            _ => None,
        })
        .collect();
    let (want, _) = timed(&case["out"]["commands"])[0];
    assert!(
        matches!(&released[..], [(at, Cause::Silent { what: "events", .. })] if *at == want),
        "{released:?}"
    );
}

#[test]
fn garbage_on_the_events_channel_is_skipped_and_is_no_sign_of_life() {
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.take_events();
    for garbage in ["[1,2]", "{\"event\":", ""] {
        world.runner_says(garbage);
    }
    assert!(world.take_events().is_empty());
    world.pass_to(39_999);
    world.runner_says("nonsense");
    world.pass_to(40_000);
    let events = world.take_events();
    assert!(
        released_only(&events) && events[0].0 == 40_000,
        "{events:?}"
    );
}

#[test]
fn the_status_of_a_new_orchestrator_outlives_the_old_one() {
    let case = case("status-clear");
    let mut world = World::new(Config::default());
    world.assign_well("orch-a.example");
    world.pass_to(1_000);
    world.runner_says(r#"{"type":"status","state":"ONLINE"}"#);
    world.pass_to(2_000);
    world.lose_media();
    world.assign_well("orch-b.example");
    world.pass_to(3_000);
    world.runner_says(r#"{"type":"status","state":"LOADING"}"#);
    world.pass_to(20_000);
    let status = world.job.status().unwrap();
    assert_eq!(status.event["state"], case["out"]["status_at_end"]["state"]);
    assert_eq!(
        status.event["orchestrator_info"]["url"],
        "https://orch-b.example:8935"
    );
}

#[test]
fn what_the_runner_said_last_is_why_it_ended_the_session() {
    let complaint = r#"{"event":{"type":"error","message":"insufficient balance"}}"#;
    for before in [true, false] {
        let mut world = World::new(Config::default());
        world.assign_well("a");
        world.take_events();
        if before {
            world.runner_says(complaint);
            world.take_events();
        }
        world.media(media::Event::Ended(None));
        if !before {
            assert!(world.take_events().is_empty(), "it may still say why");
            world.runner_says(complaint);
        }
        let lost = world
            .take_events()
            .into_iter()
            .find_map(|(_, event)| match event {
                Event::Lost(_, failure) => Some(failure.cause),
                _ => None,
            });
        assert_eq!(lost, Some(Cause::Ended("insufficient balance".into())));
    }
    // An old complaint explains nothing.
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.runner_says(complaint);
    world.pass_to(5_000);
    world.take_events();
    world.lose_media();
    let events = world.take_events();
    let (_, Event::Lost(_, failure)) = &events[0] else {
        panic!("{events:?}");
    };
    assert_eq!(failure.cause, Cause::Gone("a media channel"));
}

#[test]
fn a_job_ends_whichever_of_its_channels_was_closed_first() {
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.close_control();
    world.pass_to(world.ms() + LAST_WORDS_MS);
    let events = world.take_events();
    assert!(
        matches!(events.last(), Some((_, Event::NeedLease))),
        "{events:?}"
    );
    world.command(|job, now| job.no_lease(now, Vec::new()).unwrap());
    assert!(matches!(
        world.take_events()[..],
        [(_, Event::Ended(Ending::NoOrchestrator))]
    ));
}

/// Why the orchestrator at work was lost, if it was.
fn lost(world: &mut World) -> Option<Cause> {
    let mut events = world.take_events().into_iter();
    events.find_map(|(_, event)| match event {
        Event::Lost(_, failure) => Some(failure.cause),
        _ => None,
    })
}

#[test]
fn whichever_sign_of_an_end_is_seen_first_the_same_reason_is_told() {
    const COMPLAINT: &str = r#"{"type":"error","message":"insufficient balance"}"#;
    const HEARTBEAT: &str = r#"{"type":"heartbeat"}"#;
    let gone = |world: &mut World| {
        let party = Party::Channel(Url::parse("https://a:8935/in").unwrap());
        let failure = Failure::new(party, Cause::Gone("the channel"));
        world.media(media::Event::Ended(Some(failure)));
    };
    let signs: [&dyn Fn(&mut World); 4] = [
        &|world| world.media(media::Event::Ended(None)),
        &gone,
        &World::close_control,
        // The runner's last words come in order: on the channel that ends behind them.
        &World::close_events,
    ];
    let orders = [
        [0, 1, 2, 3],
        [1, 2, 3, 0],
        [2, 3, 0, 1],
        [3, 2, 1, 0],
        [3, 0, 1, 2],
        [2, 1, 0, 3],
    ];
    for order in orders {
        for complains in [false, true] {
            let mut world = World::new(Config::default());
            world.assign_well("a");
            world.take_events();
            let mut told = None;
            for sign in order {
                if told.is_some() {
                    break;
                }
                if sign == 3 && complains {
                    world.runner_says(HEARTBEAT);
                    world.runner_says(COMPLAINT);
                    told = lost(&mut world);
                }
                if told.is_none() {
                    signs[sign](&mut world);
                    told = lost(&mut world);
                }
            }
            let want = if complains {
                Cause::Ended("insufficient balance".into())
            } else {
                Cause::Gone("a media channel")
            };
            assert_eq!(told, Some(want), "{order:?}, at once when all are there");
        }
    }
}

#[test]
fn a_link_that_breaks_behind_a_closed_channel_is_not_the_reason() {
    let party = Party::Channel(Url::parse("https://a:8935/out").unwrap());
    let broken = Failure::new(party, Cause::Link(Fault::Broken("reset".into())));
    let breaks = |world: &mut World| {
        let broken = broken.clone();
        world.media(media::Event::Ended(Some(broken)));
        lost(world)
    };
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.close_control();
    assert_eq!(breaks(&mut world), Some(Cause::Gone("the control channel")));
    world.assign_well("b");
    world.runner_says(r#"{"type":"error","message":"out of memory"}"#);
    assert_eq!(
        breaks(&mut world),
        Some(Cause::Ended("out of memory".into()))
    );
    world.assign_well("c");
    assert_eq!(
        breaks(&mut world),
        Some(broken.cause.clone()),
        "alone it is"
    );
}

#[test]
fn time_in_which_the_machine_was_held_up_is_not_counted_against_the_last_words() {
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.media(media::Event::Ended(None));
    // Nobody woke the job when it asked for it; what came meanwhile is read after the timer.
    world.now = world.now + Duration::from_secs(5);
    world.job.handle_input(world.now, Input::Tick);
    world.drain();
    assert_eq!(lost(&mut world), None);
    world.runner_says(r#"{"type":"error","message":"insufficient balance"}"#);
    assert_eq!(
        lost(&mut world),
        Some(Cause::Ended("insufficient balance".into()))
    );
    // But once only.
    world.assign_well("b");
    world.media(media::Event::Ended(None));
    for held_up in [5, 5] {
        assert_eq!(lost(&mut world), None);
        world.now = world.now + Duration::from_secs(held_up);
        world.job.handle_input(world.now, Input::Tick);
        world.drain();
    }
    assert_eq!(lost(&mut world), Some(Cause::Gone("a media channel")));
}
