//! Another orchestrator beside one that is silent.

use livepeer_core::job::SwapLimit;
use livepeer_core::job::live::{STANDBY_REST, STEADY};

use super::*;

const ONLINE: &str = r#"{"type":"status","state":"ONLINE"}"#;

/// The runner's output flows for so many seconds, one segment each.
fn flow(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        world.pass_to(world.ms() + 1_000);
        world.media(media::Event::Begun);
        world.media(media::Event::Done);
        world.media(media::Event::Seen);
        if world.ms().is_multiple_of(5_000) {
            world.runner_says(ONLINE);
        }
    }
}

/// For so many milliseconds input goes on, and nothing comes back.
fn silence(world: &mut World, millis: u64) {
    let end = world.ms() + millis;
    while world.ms() + 1_000 <= end {
        world.pass_to(world.ms() + 1_000);
        world.media(media::Event::Begun);
        world.media(media::Event::Done);
    }
    world.pass_to(end);
}

/// A job whose output flowed, and then stopped three segments ago.
fn silent(config: Config) -> World {
    let mut world = World::new(config);
    world.assign_well("a");
    flow(&mut world, 15);
    world.take_events();
    silence(&mut world, 3_000);
    world
}

fn needs_lease(world: &mut World) -> bool {
    let events = world.take_events();
    let needs = matches!(events[..], [(_, Event::NeedLease)]);
    assert!(needs || events.is_empty(), "{events:?}");
    needs
}

#[test]
fn the_first_output_of_a_standby_takes_over_from_a_silent_runner() {
    let mut world = World::new(Config::default());
    world.assign_well("a");
    flow(&mut world, 15);
    world.take_events();
    silence(&mut world, 2_999);
    assert!(!needs_lease(&mut world));
    silence(&mut world, 1);
    assert!(needs_lease(&mut world));
    world.lend("b");
    world.answer_start(200, &channels("m2"));
    let events = world.take_events();
    let [(_, Event::Standby(1, input))] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(
        (input.manifest_id.as_str(), input.publish.host()),
        ("m2", "b")
    );
    // Both have input now, and neither gives output.
    silence(&mut world, 5_000);
    world.standby_media(media::Event::Begun);
    world.standby_media(media::Event::Done);
    world.standby_says(ONLINE);
    assert!(world.take_events().is_empty(), "its words are no output");
    world.standby_media(media::Event::Seen);
    let events = world.take_events();
    let [
        (_, Event::Lost(lost, failure)),
        (_, Event::Release(lease, Outcome::Failed(_))),
        (at, Event::Started(started)),
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((lost.host(), lease.url().host()), ("a", "a"));
    let want = Cause::Silent {
        what: "output",
        after: Duration::from_secs(8),
    };
    assert_eq!((&failure.cause, *at), (&want, 23_000));
    assert_eq!((started.orchestrator.host(), started.swaps), ("b", 1));
    assert_eq!(
        (started.channels.manifest_id.as_str(), started.session),
        ("m2", 1)
    );
    let loss = started.instead_of.as_ref().expect("a worked before");
    assert_eq!((loss.orchestrator.host(), &loss.why), ("a", failure));
    assert_eq!(world.left, [0]);
    // News of the one that was left is not heard any more, and the new one works as any other does.
    world.session = 0;
    world.media(media::Event::Ended(None));
    world.session = 1;
    flow(&mut world, 30);
    assert!(
        world
            .take_events()
            .iter()
            .all(|(_, event)| matches!(event, Event::Runner(_)))
    );
    assert_eq!(world.job.status().unwrap().event["state"], "ONLINE");
}

/// How far a standby is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Wanted,
    Starting,
    Running,
}

const STAGES: [Stage; 3] = [Stage::Wanted, Stage::Starting, Stage::Running];

/// A silent job with a standby that is so far.
fn with_standby(stage: Stage) -> World {
    with_standby_of(Config::default(), stage)
}

fn with_standby_of(config: Config, stage: Stage) -> World {
    let mut world = silent(config);
    assert!(needs_lease(&mut world));
    if stage != Stage::Wanted {
        world.lend("b");
    }
    if stage == Stage::Running {
        world.answer_start(200, &channels("m2"));
    }
    world.take_events();
    world
}

#[test]
fn output_that_comes_after_all_ends_the_standby_and_another_is_not_sought_at_once() {
    for stage in STAGES {
        let mut world = with_standby(stage);
        world.media(media::Event::Seen);
        let events = world.take_events();
        match stage {
            Stage::Wanted => assert!(events.is_empty(), "{events:?}"),
            _ => assert!(
                matches!(
                    &events[..],
                    [(_, Event::Release(lease, Outcome::Unused))] if lease.url().host() == "b"
                ),
                "{stage:?}: {events:?}"
            ),
        }
        assert!(!world.job.needs_lease() && world.standby_get.is_none());
        let session = (stage == Stage::Running).then_some(1);
        assert_eq!(world.left, Vec::from_iter(session));
        // The answer to the start that was broken off finds nobody.
        if stage == Stage::Starting {
            world.answer_start(200, &channels("late"));
        }
        flow(&mut world, 1);
        silence(&mut world, 20_000);
        let rested = |(_, event): &(u64, Event)| matches!(event, Event::Runner(_));
        assert!(world.take_events().iter().all(rested), "{stage:?}");
        flow(&mut world, STANDBY_REST.as_secs());
        world.take_events();
        silence(&mut world, 45_000);
        let again = world.take_events();
        assert!(
            again
                .iter()
                .any(|(_, event)| matches!(event, Event::NeedLease)),
            "{stage:?}"
        );
    }
}

#[test]
fn if_the_silent_one_is_lost_the_standby_goes_on_from_where_it_is() {
    for stage in STAGES {
        let mut world = with_standby(stage);
        world.lose_media();
        let events = world.take_events();
        let (lost, rest) = events.split_at(2);
        assert!(
            matches!(lost, [(_, Event::Lost(..)), (_, Event::Release(..))]),
            "{events:?}"
        );
        match stage {
            Stage::Wanted => {
                assert!(rest.is_empty() && world.job.needs_lease());
                world.assign("b", 200, &channels("m2"));
            }
            Stage::Starting => {
                assert!(rest.is_empty());
                world.answer_start(200, &channels("m2"));
            }
            Stage::Running => {
                assert!(matches!(rest, [(_, Event::Started(_))]), "{rest:?}");
                // What it does not say while it works is its own.
                silence(&mut world, 2_000);
                assert!(world.take_events().is_empty());
                continue;
            }
        }
        let events = world.take_events();
        assert!(
            matches!(&events[..], [(_, Event::Started(started))] if started.swaps == 1),
            "{stage:?}: {events:?}"
        );
    }
}

#[test]
fn the_end_of_a_job_is_the_end_of_its_standby() {
    for stage in STAGES {
        let mut world = with_standby(stage);
        world.command(LiveVideoJob::stop);
        let events = world.take_events();
        let released = events
            .iter()
            .filter(|(_, event)| matches!(event, Event::Release(..)));
        let leases = if stage == Stage::Wanted { 1 } else { 2 };
        assert_eq!(released.count(), leases, "{stage:?}: {events:?}");
        assert!(matches!(
            events.last(),
            Some((_, Event::Ended(Ending::Stopped)))
        ));
        assert!(world.posting.is_empty() && world.events_get.is_none());
        assert_eq!(world.drain(), None);
    }
    // Its own end is not that of the job: the input may be over before it has started.
    let mut world = with_standby(Stage::Starting);
    world.media(media::Event::Owed(Owed::Something));
    world.media(media::Event::Delivered);
    world.answer_start(200, &channels("m2"));
    world.pass_to(world.ms() + 8_000);
    world.runner_says(ONLINE);
    world.pass_to(world.ms() + 1_999);
    let events = world.take_events();
    assert!(
        !events
            .iter()
            .any(|(_, event)| matches!(event, Event::Ended(_))),
        "{events:?}"
    );
}

#[test]
fn a_standby_that_takes_no_input_or_is_closed_is_given_up_and_the_one_at_work_goes_on() {
    let closed = media::Event::Ended(None);
    for (event, after) in [(media::Event::Waits(true), 5_000), (closed, 0)] {
        let mut world = with_standby(Stage::Running);
        world.standby_media(event);
        silence(&mut world, after);
        let events = world.take_events();
        assert!(
            matches!(
                &events[..],
                [(_, Event::Release(lease, Outcome::Failed(_)))] if lease.url().host() == "b"
            ),
            "{events:?}"
        );
        assert_eq!(world.left, [1]);
        // Output that it gave in that moment is not the job's.
        world.standby_media(media::Event::Seen);
        world.media(media::Event::Seen);
        assert!(world.take_events().is_empty());
    }
}

#[test]
fn an_orchestrator_that_the_media_closed_for_another_is_left_without_blame_and_costs_no_swap() {
    let config = Config {
        swap_limit: SwapLimit::new(1, Duration::from_secs(600)),
        ..Config::default()
    };
    for of_standby in [false, true] {
        let mut world = with_standby_of(config.clone(), Stage::Running);
        let (gone, session) = if of_standby {
            // It took over in the moment in which the media closed its channel.
            world.lose_media();
            world.session = 1;
            ("b", 1)
        } else {
            // It gave output in the moment in which the job gave it up.
            world.standby_media(media::Event::Ended(None));
            ("a", 0)
        };
        world.take_events();
        world.left.clear();
        world.media(media::Event::Declined);
        let events = world.take_events();
        assert!(
            matches!(
                &events[..],
                [(_, Event::Release(lease, Outcome::Unused)), (_, Event::NeedLease)]
                    if lease.url().host() == gone
            ),
            "{events:?}"
        );
        assert_eq!(world.left, [session]);
        world.assign("c", 200, &channels("m3"));
        let events = world.take_events();
        assert!(
            matches!(
                &events[..],
                [(_, Event::Started(started))] if started.swaps == u32::from(of_standby)
            ),
            "{events:?}"
        );
    }
}

#[test]
fn a_standby_ends_when_nobody_reads_the_output_any_more() {
    let mut world = with_standby(Stage::Running);
    world.command(|job, now| job.set_output_read(now, false));
    let events = world.take_events();
    assert!(
        matches!(events[..], [(_, Event::Release(_, Outcome::Unused))]),
        "{events:?}"
    );
    assert_eq!(world.left, [1]);
}

#[test]
fn a_standby_that_fails_costs_the_one_at_work_nothing() {
    let mut world = with_standby(Stage::Starting);
    world.answer_start(503, "insufficient capacity");
    assert!(matches!(
        world.take_events()[..],
        [(_, Event::Release(_, Outcome::Full))]
    ));
    let mut world = with_standby(Stage::Wanted);
    world.command(|job, now| job.no_lease(now, Vec::new()).unwrap());
    assert!(world.take_events().is_empty());
    let mut world = with_standby(Stage::Running);
    let (id, _) = world.standby_get.take().unwrap();
    let closed = Response::new(200).header("lp-trickle-closed", "terminated");
    world.answer(id, closed, b"");
    world.drain();
    assert!(matches!(
        world.take_events()[..],
        [(_, Event::Release(_, Outcome::Failed(_)))]
    ));
    flow(&mut world, 5);
    assert_eq!(world.job.status().unwrap().event["state"], "ONLINE");
    assert!(!world.job.needs_lease());
}

#[test]
fn new_parameters_reach_the_standby_too() {
    let mut world = with_standby(Stage::Running);
    let params = Params::parse(r#"{"n":1}"#).unwrap();
    world.command(|job, now| job.update_params(now, params).unwrap());
    let hosts: Vec<_> = world
        .control
        .iter()
        .filter(|(.., text)| text == r#"{"n":1}"#)
        .map(|(_, host, _)| host.as_str())
        .collect();
    assert_eq!(hosts, ["a", "b"]);
    assert_eq!(world.job.updated(), 1);
}

#[test]
fn silence_is_no_sign_where_nothing_is_owed_or_nothing_flowed() {
    // No input, so no output.
    let mut world = World::new(Config::default());
    world.assign_well("a");
    flow(&mut world, 15);
    world.take_events();
    world.pass_to(world.ms() + 25_000);
    assert!(world.take_events().is_empty());
    // It has not flowed for long enough.
    let mut world = World::new(Config::default());
    world.assign_well("a");
    flow(&mut world, STEADY.as_secs());
    world.take_events();
    silence(&mut world, 15_000);
    assert!(world.take_events().is_empty());
    // Pauses as long are usual with this model.
    let mut world = World::new(Config::default());
    world.assign_well("a");
    for _ in 0..4 {
        silence(&mut world, 6_000);
        world.media(media::Event::Seen);
    }
    world.runner_says(ONLINE);
    world.take_events();
    silence(&mut world, 11_999);
    assert!(!needs_lease(&mut world));
    silence(&mut world, 1);
    assert!(needs_lease(&mut world));
    // Nobody reads it.
    let mut world = World::new(Config::default());
    world.assign_well("a");
    flow(&mut world, 15);
    world.command(|job, now| job.set_output_read(now, false));
    world.take_events();
    silence(&mut world, 15_000);
    assert!(world.take_events().is_empty());
}
