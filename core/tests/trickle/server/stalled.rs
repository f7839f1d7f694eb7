//! Readers that take nothing of what has left the window.

use super::*;

/// As [`small`], and no channel is idle for too long.
fn calm() -> Config {
    Config {
        idle: Duration::from_secs(24 * 3600),
        ..small()
    }
}

/// A server whose channel has segments of so many bytes, the first of which is read by these.
fn outside(config: Config, readers: usize, len: usize) -> (World, Vec<EffectId>) {
    let mut world = World::new(config);
    world.publish(vec![b'x'; len]);
    let readers = (0..readers).map(|_| world.get("c/0")).collect();
    for _ in 0..5 {
        assert_eq!(world.server.outside_bytes(), 0);
        world.publish(vec![b'x'; len]);
    }
    world.drain();
    (world, readers)
}

#[test]
fn a_reader_that_takes_nothing_of_what_left_the_window_is_let_go() {
    let stall = Config::default().stall_within.as_millis() as u64;
    let (mut world, readers) = outside(calm(), 2, 100);
    let [still, slow] = readers[..] else { panic!() };
    assert_eq!(world.server.outside_bytes(), 100, "one segment, twice read");
    for _ in 0..5 {
        world.pass_millis(stall - 1);
        world.take(slow, 1);
    }
    assert!(world.aborted(still) && !world.aborted(slow));
    assert_eq!(world.server.outside_bytes(), 100);
    while !world.ended(slow) {
        world.take(slow, 10);
    }
    // All was handed over, and is held until it is taken.
    assert_eq!(world.server.outside_bytes(), 100);
    assert_eq!(world.server.stats("c").unwrap().guests, 0);
    world.pass_millis(stall);
    assert!(world.aborted(slow));
    assert_eq!(world.server.outside_bytes(), 0);
    // What is in the window is there anyway.
    let patient = world.get("c/5");
    world.pass_millis(10 * stall);
    assert!(!world.aborted(patient));
}

#[test]
fn the_end_of_a_channel_is_no_refuge_for_stalled_readers() {
    let stall = Config::default().stall_within.as_millis() as u64;
    for len in [5, 10, 100] {
        let mut world = World::new(calm());
        world.publish(vec![b'x'; len]);
        let reader = world.get("c/0");
        assert!(world.server.delete_channel(world.now, "c"));
        world.drain();
        assert_eq!(world.server.outside_bytes(), len);
        world.pass_millis(stall - 1);
        assert!(!world.aborted(reader));
        world.pass_millis(1);
        assert!(world.aborted(reader));
        assert_eq!(world.server.outside_bytes(), 0);
        assert_eq!(world.drain(), None, "nothing is left to be looked after");
    }
}

#[test]
fn what_is_held_outside_the_windows_has_a_total() {
    let config = Config {
        max_outside_bytes: 250,
        max_exchanges: 100,
        max_channel_guests: 100,
        ..calm()
    };
    let mut world = World::new(config);
    let mut readers = Vec::new();
    for seq in 0..20_u64 {
        world.publish(vec![b'x'; 100]);
        readers.push(world.get(&format!("c/{seq}")));
        world.pass_millis(100);
        assert!(world.server.outside_bytes() <= 250);
        if let Some(moving) = readers.first().copied().filter(|_| seq < 10) {
            world.take(moving, 1);
        }
    }
    let gone: Vec<usize> = (0..20).filter(|at| world.aborted(readers[*at])).collect();
    // Five are in the window, two have room outside; of the others, the one that moved was spared for longest.
    assert_eq!(gone.len(), 13);
    assert!(gone.contains(&0) && !gone.contains(&13));
    assert!(world.now.since(Time::from_secs(1_000)) < Config::default().stall_within);
}

#[test]
fn a_local_reader_that_was_let_go_is_told_of_the_gap() {
    let mut world = World::new(calm());
    let now = world.now;
    let reader = world
        .server
        .subscribe(now, "c", Start::At(Seq::ZERO))
        .unwrap();
    world.publish(vec![b'x'; 100]);
    assert!(matches!(world.server.read(now, reader), Read::Begin(..)));
    for _ in 0..5 {
        world.publish(vec![b'x'; 100]);
    }
    world.drain();
    assert_eq!(world.server.outside_bytes(), 100);
    world.events.clear();
    world.pass_millis(30_000);
    assert_eq!(world.server.outside_bytes(), 0);
    let woken = |event: &Event| matches!(event, Event::Readable(id) if *id == reader);
    assert!(world.events.iter().any(woken));
    let read = world.server.read(world.now, reader);
    assert!(matches!(read, Read::Gap(gone) if gone == (Seq::ZERO..Seq::new(6))));
}
