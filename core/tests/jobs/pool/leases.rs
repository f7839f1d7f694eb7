//! Sessions that are kept, lent and shared.

use super::*;

#[test]
fn idle_sessions_are_kept_fresh() {
    let mut world = World::offering(one_ready(), &[("a", Is::Good(5))]);
    world.ms(5);
    let first = world.take().unwrap();
    world.give_back(first, Outcome::Unused);
    world.run(Duration::from_secs(3_600));
    assert_eq!(world.asked("a"), 3, "once every 27 minutes");
    let lease = world.take().expect("still there");
    let token = lease.info.auth_token.clone().unwrap();
    assert!(token.expiration > world.now + Duration::from_secs(180));
    assert!(
        world
            .events
            .iter()
            .any(|event| matches!(event, Event::Renewed(_)))
    );
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn a_lease_that_was_out_for_long_is_not_lent_again_stale() {
    let mut world = World::offering(one_ready(), &[("a", Is::Good(5))]);
    let lease = world.lease();
    world.run(Duration::from_secs(1_700));
    world.give_back(
        lease,
        Outcome::Done {
            first_byte: Some(Duration::from_millis(80)),
        },
    );
    assert!(world.take().is_none());
    world.ms(5);
    let lease = world.take().expect("it shook hands again");
    assert_eq!(lease.taken(), world.now);
    world.give_back(lease, Outcome::Unused);
    let (_, record) = world.pool.records().next().unwrap();
    assert_eq!(record.good, 1);
    assert_eq!(record.first_byte, Some(Duration::from_millis(80)));
}

#[test]
fn jobs_can_share_a_session() {
    let config = Config {
        share: 3,
        ..one_ready()
    };
    let mut world = World::offering(config, &[("a", Is::Good(5))]);
    world.ms(5);
    let leases: Vec<Lease> = (0..3).map(|_| world.take().expect("shared")).collect();
    assert!(world.take().is_none());
    assert_eq!(world.exhausted()[0].why, Why::Lent);
    assert_eq!(world.pool.lent(), 3);
    for lease in leases {
        world.fail(lease);
    }
    assert_eq!(world.pool.lent(), 0);
    let suspended = world
        .events
        .iter()
        .filter(|event| matches!(event, Event::Suspended(..)));
    assert_eq!(suspended.count(), 1, "one incident counts once");
    world.run(Duration::from_millis(10_005));
    let lease = world.take().expect("one penalty, not three");
    world.give_back(lease, Outcome::Unused);
}

/// The commitment of a lease's quote, which names a space of nonces.
fn commitment(lease: &Lease) -> [u8; 32] {
    let params = lease.info.ticket_params.as_ref();
    params.expect("it wants to be paid").recipient_rand_hash
}

#[test]
fn no_two_jobs_have_the_same_quote_at_the_same_time() {
    let config = Config {
        share: 3,
        ..one_ready()
    };
    let mut world = World::offering(config, &[("a", Is::Paid(5))]);
    let mut seen = std::collections::BTreeSet::new();
    let leases: Vec<Lease> = (0..3)
        .map(|n| {
            let lease = world.lease();
            assert!(seen.insert(commitment(&lease)), "{n}");
            lease
        })
        .collect();
    assert!(world.take().is_none(), "all are lent");
    for lease in leases {
        world.give_back(lease, Outcome::Unused);
    }
    let lease = world.lease();
    assert!(seen.insert(commitment(&lease)));
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn no_job_has_the_quote_that_the_one_before_it_had() {
    let mut world = World::offering(one_ready(), &[("a", Is::Paid(5))]);
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..5 {
        let lease = world.lease();
        assert!(seen.insert(commitment(&lease)), "{n}");
        let outcome = match n % 2 {
            0 => Outcome::Unused,
            _ => Outcome::Done { first_byte: None },
        };
        world.events.clear();
        world.give_back(lease, outcome);
        assert!(world.take().is_none(), "the next quote is on its way");
        world.ms(5);
        let announced = |event: &Event| matches!(event, Event::Available(_));
        assert!(world.events.iter().any(announced), "{:?}", world.events);
        let exhausted = |event: &Event| matches!(event, Event::Exhausted(_));
        assert!(!world.events.iter().any(exhausted), "{:?}", world.events);
    }
    assert_eq!(
        world.asked("a"),
        6,
        "one handshake and one renewal for each"
    );
}

#[test]
fn a_quote_that_nobody_had_is_not_replaced_by_one_that_comes_home() {
    let config = Config {
        share: 2,
        ..one_ready()
    };
    let mut world = World::offering(config, &[("a", Is::Paid(5))]);
    let first = world.lease();
    let mut seen = std::collections::BTreeSet::from([commitment(&first)]);
    world.ms(5);
    world.give_back(first, Outcome::Done { first_byte: None });
    for _ in 0..2 {
        let lease = world.take().expect("a fresh quote is there, and more come");
        assert!(seen.insert(commitment(&lease)));
        world.give_back(lease, Outcome::Unused);
        world.ms(5);
    }
}

#[test]
fn a_job_that_waits_is_told_that_there_is_nobody_although_another_got_a_session() {
    let nodes = [("a", Is::Good(5)), ("b", Is::Gone(300))];
    let mut world = World::offering(one_ready(), &nodes);
    world.ms(5);
    // It has that one already, and wants another.
    let other = world.pool.take_by(world.now, |_, _, from| {
        from.iter().position(|one| *one.url != url("a"))
    });
    world.drain();
    assert!(other.is_none(), "b has not answered yet");
    let lease = world.take().expect("a second job takes what is there");
    world.ms(300);
    let told = world.exhausted();
    assert!(told.iter().any(|tried| tried.url == url("b")), "{told:?}");
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn nobody_waits_until_a_renewal_that_failed_is_tried_again() {
    let config = Config {
        share: 2,
        ..one_ready()
    };
    let mut world = World::offering(config, &[("a", Is::Paid(5))]);
    world.ms(5);
    world.nodes.insert("a".to_owned(), Is::Gone(5));
    let lease = world.take().expect("ready");
    assert!(world.take().is_none(), "its next quote is on its way");
    world.ms(5);
    let told = world.exhausted();
    assert_eq!(told[0].why, Why::Lent);
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn a_session_that_jobs_share_and_that_ended_still_teaches() {
    let config = Config {
        share: 2,
        ..one_ready()
    };
    let suspended = |world: &World| {
        let all = world.events.iter();
        all.filter(|event| matches!(event, Event::Suspended(..)))
            .count()
    };
    // One without room for the next job ends its session, while a job has it.
    for fails in [false, true] {
        let mut world = World::offering(config.clone(), &[("a", Is::Paid(5))]);
        world.ms(5);
        world.nodes.insert("a".to_owned(), Is::Full(5));
        let lease = world.take().expect("ready");
        world.ms(5);
        if fails {
            world.fail(lease);
        } else {
            world.give_back(lease, Outcome::Done { first_byte: None });
        }
        assert_eq!(suspended(&world), usize::from(fails));
        let (_, record) = world.pool.records().next().expect("a");
        let verdict = (record.good, record.bad);
        assert_eq!(verdict, if fails { (0, 1) } else { (1, 0) });
    }
    // One incident counts once, however late the second job hears of it.
    let mut world = World::offering(config, &[("a", Is::Paid(5))]);
    let (first, second) = (world.lease(), world.lease());
    world.fail(first);
    world.run(Duration::from_secs(11));
    let third = world.take().expect("its penalty is over");
    world.fail(second);
    assert_eq!(suspended(&world), 1);
    world.give_back(third, Outcome::Unused);
}

#[test]
fn the_signer_is_asked_once_for_all() {
    let key = Key::new(&[3; 32]);
    let address = key.address();
    let nodes = [("a", Is::Good(5)), ("b", Is::Good(5)), ("c", Is::Good(5))];
    let identity = Identity::remote(url("signer"));
    let mut world = World::with_identity(Config::default(), &nodes, identity);
    world.signer = Some(key);
    world.offer(&["a", "b", "c"]);
    world.ms(1_000);
    assert_eq!(world.asked("signer"), 1);
    let healthy = |health: &SignerHealth| health.took(&url("signer")).is_some();
    assert!(matches!(&world.events[0], Event::Signers(health) if healthy(health)));
    assert!(matches!(world.events[1], Event::Identified(who, _) if who == address));
    let lease = world.take().unwrap();
    assert_eq!(lease.payer().map(|(who, _)| who), Some(address));
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn a_lease_knows_which_signer_is_silent() {
    let nodes = [("a", Is::Good(5)), ("quiet", Is::Silent)];
    let signers = Signers::new(url("quiet")).or(url("signer"));
    let mut world = World::with_identity(one_ready(), &nodes, Identity::Remote(signers));
    world.signer = Some(Key::new(&[3; 32]));
    world.offer(&["a"]);
    world.ms(1_500);
    let lease = world.take().expect("the second signer introduced us");
    let standing = |who| lease.signer_health().standing(world.now, &url(who));
    assert!(matches!(standing("quiet"), Standing::Resting(_)));
    assert_eq!(standing("signer"), Standing::Healthy);
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn without_an_identity_no_orchestrator_is_blamed() {
    let identity = Identity::remote(url("signer"));
    let mut world = World::with_identity(Config::default(), &[("a", Is::Good(5))], identity);
    world.offer(&["a"]);
    world.ms(1_000);
    let rests =
        |health: &SignerHealth| health.standing(world.now, &url("signer")) != Standing::Healthy;
    assert!(
        matches!(&world.events[..], [Event::Signers(health), Event::NoIdentity(_)] if rests(health)),
        "{:?}",
        world.events
    );
    assert_eq!(world.asked("signer"), 1, "nobody is asked again by itself");
    world.signer = Some(Key::new(&[3; 32]));
    let lease = world.lease();
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn a_lease_can_keep_its_own_session_fresh() {
    let mut world = World::offering(one_ready(), &[("a", Is::Good(5))]);
    let lease = world.lease();
    let mut own = lease.handshake(world.now);
    assert!(matches!(own.poll_output(), Output::Idle(Some(_))));
    own.renew(world.now).unwrap();
    assert!(matches!(
        own.poll_output(),
        Output::Effect(_, Effect::Http(Out::Request(_)))
    ));
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn leases_of_another_pool_teach_nothing() {
    let mut one = World::offering(one_ready(), &[("a", Is::Good(5))]);
    let lease = one.lease();
    let mut other = World::new(one_ready(), &[("a", Is::Good(5))]);
    other.pool = SessionPool::new(
        START,
        one_ready(),
        Identity::Offchain,
        Capabilities::live_video("noop"),
        Picky::default(),
        [8; 32],
    );
    other.offer(&["a"]);
    other.ms(5);
    other.events.clear();
    other.fail(lease);
    assert_eq!((other.pool.lent(), other.pool.ready()), (0, 1));
    assert!(other.events.is_empty());
}

#[test]
fn paying_gateways_keep_ticket_parameters_fresh_too() {
    let mut config = one_ready();
    config.handshake.renew_every = Some(Duration::from_secs(360));
    let mut world = World::offering(config, &[("a", Is::Good(5))]);
    world.run(Duration::from_secs(3_600));
    assert!((9..=11).contains(&world.asked("a")), "{}", world.asked("a"));
}

#[test]
fn video_and_pictures_have_pools_of_their_own_over_the_same_network() {
    let nodes = [("both", Is::Both(20)), ("video", Is::Good(10))];
    let mut video = World::new(one_ready(), &nodes);
    let pictures = Capabilities::for_model(Capability::TEXT_TO_IMAGE, "sd");
    let mut images = World::wanting(one_ready(), &nodes, Identity::Offchain, pictures);
    for world in [&mut video, &mut images] {
        world.offer(&["both", "video"]);
        world.ms(100);
    }
    // Each finds who serves it.
    let stream = video.take().expect("both serve video");
    assert_eq!(stream.url(), &url("video"), "the quicker one");
    let picture = images.take().expect("one paints");
    assert_eq!(picture.url(), &url("both"));
    // What one kind of job suffered there is nothing to the other kind: its model may be on another machine.
    images.fail(picture);
    assert!(images.take().is_none(), "suspended");
    video.fail(stream);
    video.ms(100);
    let stream = video.take().expect("not suspended here");
    assert_eq!(stream.url(), &url("both"));
    video.give_back(stream, Outcome::Done { first_byte: None });
}
