//! Bytes beyond HTTP, and answers that come late or break off.

use std::time::Duration;

use livepeer_core::EffectId;
use livepeer_core::http::{Fault, Headers, In, Method, Response};
use livepeer_core::job::app::{
    Call, Config, Event, Failed, History, MAX_UNTAKEN, Rental, Use, Wanted,
};
use livepeer_core::wire::app::Session;
use livepeer_core::wire::payment::PAYMENT_HEADER;
use livepeer_core::wire::runner::Runner;
use livepeer_sim::Driven as _;

use super::World;
use super::paid::{JSON, ONCE, PRICED, call, demand, priced};
use crate::peers::url;

/// A paid call that has left HTTP.
fn socket() -> (World, EffectId) {
    let call = Call::new(Method::Get, "ws").with_upgrade("websocket");
    let runner = priced(ONCE, 12_345, "seconds");
    let mut world = World::with(true, &runner, Use::Call(call));
    let body = demand(world.now, "s1", 12_345);
    let first = world.answer(&format!("GET {ONCE}/ws"), 402, JSON, body);
    assert_eq!(
        first.upgrade(),
        Some("websocket"),
        "it is asked for at once"
    );
    let (id, paid) = world.take(&format!("GET {ONCE}/ws"));
    assert_eq!(paid.upgrade(), Some("websocket"));
    assert!(paid.headers.get(PAYMENT_HEADER).is_some());
    assert!(!world.rental.has_room(), "nothing is granted yet");
    let granted = Response::new(101)
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", "x");
    world.http(id, In::Reply(granted));
    let head = world.head.as_ref().expect("a head");
    assert_eq!(head.status, 101);
    assert_eq!(head.headers.get("upgrade"), Some("websocket"));
    assert_eq!(head.headers.get("sec-websocket-accept"), Some("x"));
    (world, id)
}

fn say(world: &mut World, bytes: Vec<u8>) {
    world.rental.say(world.now, bytes.into());
    world.drain();
}

#[test]
fn bytes_pass_both_ways_beyond_http_and_are_paid_for_until_the_app_ends() {
    let (mut world, id) = socket();
    say(&mut world, b"there".to_vec());
    world.http(id, In::Data("and back".into()));
    assert_eq!(
        (&*world.said, &*world.data),
        (&b"there"[..], &b"and back"[..])
    );
    world.pass(Duration::from_secs(12));
    let payment = format!("POST {PRICED}/s1/payment");
    world.answer(&payment, 200, "application/octet-stream", "");
    assert!(world.paid > 1, "it is paid for while it is open");
    // Bytes that are not taken stop whoever says them.
    say(&mut world, vec![0; MAX_UNTAKEN]);
    assert!(!world.rental.has_room());
    world.http(id, In::Sent(5));
    assert_eq!((world.rooms, world.rental.has_room()), (0, false));
    world.http(id, In::Sent(1));
    assert_eq!((world.rooms, world.rental.has_room()), (1, true));
    // Whoever has ended may still listen.
    world.rental.say_no_more(world.now);
    say(&mut world, b"too late".to_vec());
    assert_eq!((world.said_all, world.said.len()), (1, 5 + MAX_UNTAKEN));
    world.http(id, In::Data(", once more".into()));
    world.http(id, In::End(Headers::new()));
    assert_eq!(world.data, b"and back, once more");
    assert!(matches!(world.last, Some(Event::Done)));
    assert!(
        world.asked.is_empty(),
        "paying has ended: {:?}",
        world.asked
    );
}

#[test]
fn what_goes_on_beyond_http_is_bounded_in_time() {
    let (silence, socket_within) = (Duration::from_secs(100), Duration::from_secs(3_600));
    let broke = |world: &World, id| {
        let Some(Event::Failed(failed)) = &world.last else {
            panic!("{:?}", world.last);
        };
        assert!(matches!(**failed, Failed::Broken { .. }));
        assert!(world.aborted.contains(&id));
    };
    // Either side's word ends a silence.
    let call = Call::new(Method::Get, "ws").with_upgrade("websocket");
    let mut free = priced(ONCE, 1, "seconds");
    free.price = None;
    let open = || {
        let (runner, plan) = (free.clone(), Use::Call(call.clone()));
        let mut world = World::new(false, |now, config, payer| {
            let config = Config {
                silence,
                socket_within,
                ..config
            };
            let (wanted, history) = (Wanted::default(), History::default());
            Rental::of(now, config, [runner], wanted, plan, payer, history)
        });
        let (id, _) = world.take(&format!("GET {ONCE}/ws"));
        world.http(id, In::Reply(Response::new(101)));
        (world, id)
    };
    let (mut world, id) = open();
    for ours in [true, false, true] {
        world.pass(silence - Duration::from_secs(1));
        match ours {
            true => say(&mut world, vec![1]),
            false => world.http(id, In::Data("x".into())),
        }
    }
    assert!(world.last.is_none());
    world.pass(silence);
    broke(&world, id);
    // An app that does not end when its caller has.
    let (mut world, id) = open();
    world.rental.say_no_more(world.now);
    world.drain();
    world.pass(Duration::from_secs(10));
    broke(&world, id);
    // One that never does.
    let (mut world, id) = open();
    for _ in 0..36 {
        assert!(world.last.is_none());
        world.pass(silence - Duration::from_secs(1));
        world.http(id, In::Data("x".into()));
    }
    world.pass(silence);
    broke(&world, id);
    // Its caller may be gone at any time.
    let (mut world, id) = open();
    world.close();
    assert!(world.aborted.contains(&id));
    assert!(matches!(world.last, Some(Event::Closed)));
}

#[test]
fn an_answer_that_breaks_off_goes_to_nobody_else() {
    let mut free = priced(ONCE, 1, "seconds");
    free.price = None;
    for silent in [false, true] {
        let mut world = World::with(false, &free, call());
        let (id, _) = world.take(&format!("POST {ONCE}"));
        world.http(id, In::Reply(Response::new(200)));
        world.http(id, In::Data("half".into()));
        match silent {
            true => world.pass(Duration::from_secs(601)),
            false => world.http(id, In::Failed(Fault::Broken("reset".into()))),
        }
        let Some(Event::Failed(failed)) = &world.last else {
            panic!("{:?}", world.last);
        };
        assert!(matches!(**failed, Failed::Broken { .. }));
        assert_eq!(world.data, b"half");
        assert_eq!(world.aborted.contains(&id), silent);
    }
}

const FREE: &str = "https://o:8935/apps/r1/session";

/// A world that has asked for a free session, and the exchange.
fn asked_for_free() -> (World, EffectId) {
    let runner = Runner::at(url(FREE), "x/y", None);
    let world = World::with(false, &runner, Use::Session);
    let id = world.find(&format!("POST {FREE}")).expect("it asks");
    (world, id)
}

#[test]
fn a_free_session_whose_answer_is_late_is_stopped() {
    for closed in [true, false] {
        let (mut world, id) = asked_for_free();
        match closed {
            true => world.close(),
            false => world.pass(Duration::from_secs(6)),
        }
        assert!(world.last.is_none(), "{:?}", world.last);
        assert!(!world.aborted.contains(&id), "its answer is awaited");
        let session = Session::at(&url(FREE), "s7").to_json();
        world.answer(&format!("POST {FREE}"), 200, JSON, session);
        world.answer(&format!("POST {FREE}/s7/stop"), 204, JSON, "");
        match world.last {
            Some(Event::Closed) => assert!(closed),
            Some(Event::Failed(failed)) => {
                assert!(!closed && matches!(*failed, Failed::Exhausted { .. }));
            }
            other => panic!("{other:?}"),
        }
        assert!(world.session.is_none());
    }
}

#[test]
fn a_late_answer_is_not_awaited_for_ever_and_a_refusal_not_at_all() {
    let (mut world, id) = asked_for_free();
    world.close();
    world.pass(Duration::from_secs(11));
    assert!(world.aborted.contains(&id));
    assert!(matches!(world.last, Some(Event::Closed)));
    for (status, body) in [(503, "full\n"), (200, "not json")] {
        let (mut world, _) = asked_for_free();
        world.close();
        world.answer(&format!("POST {FREE}"), status, JSON, body);
        assert!(matches!(world.last, Some(Event::Closed)), "{status}");
    }
    // One that names its session and nothing more is stopped all the same.
    let (mut world, _) = asked_for_free();
    world.close();
    let body = r#"{"session_id":"s8"}"#;
    world.answer(&format!("POST {FREE}"), 200, JSON, body);
    world.answer(&format!("POST {FREE}/s8/stop"), 204, JSON, "");
    assert!(matches!(world.last, Some(Event::Closed)));
}
