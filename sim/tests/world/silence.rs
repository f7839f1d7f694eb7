//! Runners that fall silent while their orchestrators live.

use super::*;

/// Two orchestrators, one of which has worked for a quarter of a minute; and its number.
fn at_work(seed: u8) -> (World, Gateway, usize) {
    let mut world = World::new([seed; 32], vec![orchestrator("one"), orchestrator("two")]);
    let mut gateway = job(&mut world);
    for n in 0..15 {
        assert!(world.publish(&mut gateway, &segment(n), secs(1)));
    }
    let started = &gateway.log.started[0].orchestrator;
    let serves = |node: &Node<Orchestrator>| world.net.get(*node).config().service == *started;
    let first = world.orchestrators.iter().position(serves);
    (world, gateway, first.expect("one of them"))
}

/// Sets how the runner of an orchestrator behaves from now on.
fn turns(world: &mut World, orchestrator: usize, quirks: Quirks) {
    let node = world.orchestrators[orchestrator];
    world
        .net
        .with(node, |machine, now| machine.set_quirks(now, quirks));
}

/// Publishes a segment a second, from `n` on, until the job has another orchestrator. Returns the next number.
fn until_swapped(world: &mut World, gateway: &mut Gateway, from: u64) -> u64 {
    let before = gateway.log.started.len();
    for n in from..from + 60 {
        if gateway.log.started.len() > before {
            return n;
        }
        world.publish(gateway, &segment(n), secs(1));
    }
    panic!("nobody took over: {:?}", gateway.log.failed);
}

/// A runner that is dead behind its orchestrator.
fn mute() -> Quirks {
    Quirks {
        no_output: true,
        ..Quirks::default()
    }
}

fn running(world: &World) -> u64 {
    let running = |node: &Node<Orchestrator>| world.net.get(*node).figures().running;
    world.orchestrators.iter().map(running).sum()
}

#[test]
fn a_runner_that_dies_while_its_orchestrator_lives_is_left_in_seconds_and_nothing_is_lost() {
    let speechless = Quirks {
        no_events: true,
        ..mute()
    };
    for (seed, quirks) in [mute(), speechless].into_iter().enumerate() {
        let (mut world, mut gateway, first) = at_work(60 + seed as u8);
        turns(&mut world, first, quirks);
        let mut n = until_swapped(&mut world, &mut gateway, 15);
        assert!(n <= 20, "{n} s, where half a minute was usual");
        for _ in 0..20 {
            assert!(world.publish(&mut gateway, &segment(n), secs(1)));
            n += 1;
        }
        assert_eq!(world.finish(&mut gateway), Some(Ending::Finished));
        assert_eq!(gateway.log.started.len(), 2, "{:?}", gateway.log.failed);
        let sent: Vec<_> = (0..n).map(segment).collect();
        assert!(gateway.log.segments.concat() == sent.concat());
        assert_eq!((gateway.log.missing(), gateway.log.standbys), (0, 1));
        // All of it was paid from one purse, and nothing is left open.
        let paid: Amount = gateway.log.paid.iter().map(|paid| paid.value.clone()).sum();
        let credited: Amount = world
            .orchestrators
            .iter()
            .map(|node| world.net.get(*node).figures().credited)
            .sum();
        assert_eq!(paid, credited);
        world.run_for(secs(400), &mut []);
        assert_eq!((world.net.open_exchanges(), running(&world)), (0, 0));
    }
}

#[test]
fn a_runner_that_only_paused_keeps_its_job_if_it_gives_before_its_standby() {
    let (mut world, mut gateway, first) = at_work(70);
    turns(&mut world, first, mute());
    turns(&mut world, 1 - first, mute());
    for n in 15..20 {
        assert!(world.publish(&mut gateway, &segment(n), secs(1)));
    }
    assert_eq!(running(&world), 2);
    turns(&mut world, first, Quirks::default());
    for n in 20..40 {
        assert!(world.publish(&mut gateway, &segment(n), secs(1)));
    }
    assert_eq!(world.finish(&mut gateway), Some(Ending::Finished));
    assert_eq!(gateway.log.started.len(), 1, "{:?}", gateway.log.failed);
    // The standby got all that was owed, and is ended. What the runner did not do in its pause is missing.
    assert_eq!((gateway.log.standbys, gateway.log.missing()), (1, 5));
    let kept: Vec<_> = (0..15).chain(20..40).map(segment).collect();
    assert!(gateway.log.segments.concat() == kept.concat());
    world.run_for(secs(400), &mut []);
    assert_eq!((world.net.open_exchanges(), running(&world)), (0, 0));
}

#[test]
fn of_two_silent_runners_the_one_at_work_is_left_in_the_end_and_the_gap_is_told() {
    let (mut world, mut gateway, first) = at_work(72);
    turns(&mut world, first, mute());
    turns(&mut world, 1 - first, mute());
    let mut n = until_swapped(&mut world, &mut gateway, 15);
    assert!((30..60).contains(&n), "{n}");
    turns(&mut world, 1 - first, Quirks::default());
    for _ in 0..20 {
        assert!(world.publish(&mut gateway, &segment(n), secs(1)));
        n += 1;
    }
    assert_eq!(world.finish(&mut gateway), Some(Ending::Finished));
    assert_eq!(gateway.log.started.len(), 2, "{:?}", gateway.log.failed);
    let back = gateway.log.segments.concat();
    let sent: Vec<_> = (0..n).map(segment).collect();
    assert!(sent.concat().ends_with(&back[back.len() - 10_000..]));
    let answered = world.net.get(gateway.media).figures().answered;
    assert!(gateway.log.missing() >= 15 && answered + gateway.log.missing() == n);
}

#[test]
fn a_job_of_an_hour_with_half_an_hours_silence_in_it_ends_well_with_one_orchestrator() {
    let mut world = World::new([71; 32], vec![orchestrator("orch")]);
    let seldom = live::Config {
        pay_every: secs(60),
        ..live::Config::default()
    };
    let mut gateway = world.gateway(seldom, request());
    for n in 0..90 {
        assert!(world.publish(&mut gateway, &segment(n), secs(10)));
    }
    // The person before the camera is at lunch. Input is kept alive; output that nobody makes is swept after five
    // minutes, and the session with it.
    world.run_for(secs(1_800), std::slice::from_mut(&mut gateway));
    assert_eq!(gateway.log.ended, None, "{:?}", gateway.log.failed);
    for n in 90..180 {
        assert!(world.publish(&mut gateway, &segment(n), secs(10)));
    }
    assert_eq!(world.finish(&mut gateway), Some(Ending::Finished));
    assert_eq!(gateway.log.failed, [], "nobody is blamed");
    assert!((2..=6).contains(&gateway.log.started.len()));
    assert_eq!(gateway.log.missing(), 0);
    assert_eq!(unpaid(&world), None);
    let all: Vec<_> = (0..180).map(segment).collect();
    assert!(gateway.log.segments.concat() == all.concat());
}
