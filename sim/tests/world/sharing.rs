//! Jobs that run at the same time and get their orchestrators from one pool.

use super::*;

/// Publishes a segment a second to all jobs at once, numbers `from` to `to`.
fn stream_to_all(world: &mut World, gateways: &mut [Gateway], from: u64, to: u64) {
    for n in from..to {
        let mut begun = vec![false; gateways.len()];
        let all = world.run_till(secs(10), gateways, |world, gateways| {
            for (begun, gateway) in begun.iter_mut().zip(gateways) {
                *begun = *begun || gateway.begin(&mut world.net);
            }
            begun.iter().all(|begun| *begun)
        });
        assert!(all, "segment {n} is not taken by all");
        for gateway in &mut *gateways {
            gateway.write(&mut world.net, segment(n).into());
        }
        world.run_for(secs(1), gateways);
        for gateway in &mut *gateways {
            gateway.end(&mut world.net);
        }
    }
}

/// Ends a job, and checks that everything came back.
fn ends_well(world: &mut World, gateways: &mut [Gateway], which: usize, segments: u64) {
    gateways[which].close(&mut world.net);
    world.run_till(secs(60), gateways, |_, gateways| {
        gateways[which].log.ended.is_some()
    });
    let log = &gateways[which].log;
    assert_eq!(log.ended, Some(Ending::Finished), "{:?}", log.failed);
    assert_eq!(log.segments.len() as u64, segments);
    for (n, got) in (0..segments).zip(&log.segments) {
        assert!(*got == segment(n), "segment {n} is not what was sent");
    }
}

/// A job, and others that share its pool.
fn sharing(world: &mut World, jobs: usize) -> Vec<Gateway> {
    let mut all = vec![job(world)];
    for _ in 1..jobs {
        let other = world.gateway_beside(&all[0], live::Config::default(), request());
        all.push(other);
    }
    all
}

fn rejected(world: &World) -> Vec<&Event> {
    let told = world.told.iter().map(|(_, event)| event);
    told.filter(|event| matches!(event, Event::Rejected { .. }))
        .collect()
}

#[test]
fn jobs_at_the_same_time_have_quotes_of_their_own_and_one_that_ends_leaves_the_others() {
    for orchestrators in [&["one"][..], &["one", "two"]] {
        let configs = orchestrators.iter().map(|host| orchestrator(host));
        let mut world = World::new([31; 32], configs.collect());
        let mut gateways = sharing(&mut world, 3);
        stream_to_all(&mut world, &mut gateways, 0, 20);
        ends_well(&mut world, &mut gateways, 1, 20);
        gateways.remove(1);
        stream_to_all(&mut world, &mut gateways, 20, 40);
        ends_well(&mut world, &mut gateways, 1, 40);
        ends_well(&mut world, &mut gateways, 0, 40);
        assert!(rejected(&world).is_empty(), "{:?}", rejected(&world));
        let pool = world.net.get(gateways[0].pool);
        assert_eq!(pool.lent(), 0);
    }
}

#[test]
fn an_orchestrator_that_failed_one_job_is_not_given_to_the_others_for_a_while() {
    let mut bad = orchestrator("bad");
    bad.quirks.refuse_payments = Some((500, "boom".to_owned()));
    let mut world = World::new([32; 32], vec![bad, orchestrator("good")]);
    // The bad one is the quicker one.
    world.net.link("good:8935").latency = ms(20);
    let mut gateways = sharing(&mut world, 1);
    stream_to_all(&mut world, &mut gateways, 0, 2);
    assert_eq!(gateways[0].log.failed.len(), 1);
    for _ in 0..2 {
        let beside = world.gateway_beside(&gateways[0], live::Config::default(), request());
        gateways.push(beside);
    }
    world.run_for(secs(1), &mut gateways);
    for gateway in &gateways[1..] {
        let log = &gateway.log;
        assert_eq!((log.started.len(), log.failed.len()), (1, 0));
    }
    assert_eq!(rejected(&world).len(), 1, "{:?}", rejected(&world));
}

#[test]
fn a_job_whose_orchestrator_dies_moves_and_the_one_beside_it_does_not() {
    let mut world = World::new([33; 32], vec![orchestrator("one"), orchestrator("two")]);
    let mut gateways = sharing(&mut world, 2);
    stream_to_all(&mut world, &mut gateways, 0, 5);
    let at = |gateway: &Gateway| gateway.log.started[0].orchestrator.clone();
    let (first, second) = (at(&gateways[0]), at(&gateways[1]));
    assert_ne!(first, second, "the pool lends what has fewer jobs");
    world.net.link(&first.authority()).down = true;
    world.net.cut(&first.authority());
    stream_to_all(&mut world, &mut gateways, 5, 15);
    let moved = &gateways[0].log.started;
    assert_eq!(
        moved.last().map(|started| &started.orchestrator),
        Some(&second)
    );
    assert_eq!(gateways[1].log.started.len(), 1);
    ends_well(&mut world, &mut gateways, 1, 15);
    ends_well(&mut world, &mut gateways, 0, 15);
    assert!(rejected(&world).is_empty(), "{:?}", rejected(&world));
}
