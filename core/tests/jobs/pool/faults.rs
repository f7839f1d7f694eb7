//! The cost of failures, and how it is remembered and forgotten.

use super::*;

#[test]
fn faults_suspend_for_longer_each_time_and_work_forgives() {
    let mut world = World::offering(one_ready(), &[("a", Is::Good(5))]);
    for penalty in [10, 20, 40, 80] {
        let lease = world.lease();
        let at = world.now;
        world.fail(lease);
        assert!(world.take().is_none());
        world.run(Duration::from_secs(penalty) - Duration::from_millis(1));
        assert!(world.take().is_none(), "not before its time");
        assert_eq!(
            world.now,
            at + Duration::from_secs(penalty) - Duration::from_millis(1)
        );
        world.ms(6);
    }
    let lease = world.lease();
    world.give_back(lease, Outcome::Done { first_byte: None });
    let lease = world.lease();
    world.fail(lease);
    world.run(Duration::from_millis(10_005));
    let lease = world.take().expect("back at the first penalty");
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn a_long_quiet_time_heals() {
    let mut world = World::offering(one_ready(), &[("a", Is::Good(5))]);
    for _ in 0..3 {
        let lease = world.lease();
        world.fail(lease);
        world.run(Duration::from_secs(41));
    }
    world.run(Duration::from_secs(3 * 600));
    let lease = world.lease();
    world.fail(lease);
    world.run(Duration::from_millis(10_005));
    let lease = world.take().expect("the first penalty again");
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn a_penalty_never_exceeds_its_bound() {
    let mut world = World::offering(one_ready(), &[("a", Is::Good(5))]);
    let bound = one_ready().max_penalty;
    for _ in 0..12 {
        let lease = world.lease_within(bound + Duration::from_secs(1));
        world.fail(lease);
    }
}

#[test]
fn a_users_own_fault_and_a_lack_of_capacity_suspend_nobody() {
    let mut world = World::offering(one_ready(), &[("a", Is::Good(5))]);
    let lease = world.lease();
    world.give_back(lease, Outcome::BadJob);
    let lease = world.take().expect("at once");
    world.give_back(lease, Outcome::Full);
    assert!(world.take().is_none(), "it is full for a while");
    assert_eq!(world.exhausted()[0].why, Why::Full);
    world.run(Duration::from_millis(15_005));
    let lease = world.take().expect("after the pause");
    world.give_back(lease, Outcome::Stale);
    assert!(world.take().is_none(), "it is renewed first");
    world.ms(5);
    let lease = world.take().expect("it is fresh");
    world.give_back(lease, Outcome::Unused);
    assert!(
        !world
            .events
            .iter()
            .any(|event| matches!(event, Event::Suspended(..)))
    );
}

#[test]
fn records_are_stored_and_come_back() {
    let config = Config {
        remember: true,
        ..one_ready()
    };
    let mut world = World::offering(config.clone(), &[("a", Is::Good(5))]);
    let lease = world.lease();
    world.give_back(
        lease,
        Outcome::Done {
            first_byte: Some(Duration::from_millis(80)),
        },
    );
    let lease = world.lease();
    world.fail(lease);
    assert_eq!(world.stored.len(), 1);
    let (key, value) = world.stored.pop_first().unwrap();
    assert_eq!(key, "orchestrator:https://a:8935");

    for early in [true, false] {
        let mut next = World::new(config.clone(), &[("a", Is::Good(5))]);
        next.pool.recall(next.now, "nonce:1", &value);
        next.pool.recall(next.now, &key, b"garbage");
        if early {
            next.pool.recall(next.now, &key, &value);
        }
        next.offer(&["a"]);
        if !early {
            next.pool.recall(next.now, &key, &value);
        }
        let (_, record) = next.pool.records().next().unwrap();
        assert_eq!((record.good, record.bad), (1, 1));
        assert_eq!(record.first_byte, Some(Duration::from_millis(80)));
    }
}

#[test]
fn what_the_store_did_not_keep_is_offered_again_with_the_next_record() {
    let config = Config {
        remember: true,
        ready: 2,
        ..one_ready()
    };
    let mut world = World::offering(config, &[("a", Is::Good(5)), ("b", Is::Good(7))]);
    world.full = true;
    let lease = world.lease();
    let failed = lease.url().clone();
    world.fail(lease);
    assert!(
        !world.pool.is_storing(),
        "nobody waits for a store that fails"
    );
    world.stored.clear();
    world.full = false;
    let lease = world.lease();
    assert_ne!(*lease.url(), failed);
    world.give_back(lease, Outcome::Done { first_byte: None });
    let key = format!("orchestrator:{failed}");
    assert!(world.stored.contains_key(&key), "{:?}", world.stored.keys());
    assert_eq!(world.stored.len(), 2);
}

#[test]
fn old_deeds_fade() {
    let mut record = livepeer_core::TrackRecord {
        good: 9,
        bad: 4,
        ..Default::default()
    };
    let day = Duration::from_secs(24 * 60 * 60);
    record.age(START);
    record.age(START + day - Duration::from_secs(1));
    assert_eq!((record.good, record.bad), (9, 4));
    record.age(START + day);
    assert_eq!((record.good, record.bad), (4, 2));
    record.age(START + day * 40);
    assert_eq!((record.good, record.bad), (0, 0));
}
