//! Payments of sessions and calls, by hand.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Fault, Headers, In, Method, Response};
use livepeer_core::job::app::{Call, Event, Failed, History, Rental, Use, Wanted};
use livepeer_core::money::{Price, Wei};
use livepeer_core::sign::Address;
use livepeer_core::time::Time;
use livepeer_core::wire::app::Session;
use livepeer_core::wire::challenge::Challenge;
use livepeer_core::wire::payment::PAYMENT_HEADER;
use livepeer_core::wire::runner::Runner;
use livepeer_core::wire::{AuthToken, OrchestratorInfo, TicketParams};
use livepeer_proto::net;
use livepeer_sim::Driven as _;
use num_bigint::BigUint;
use prost::Message as _;
use serde_json::json;

use super::World;
use crate::peers::url;

pub(super) const PRICED: &str = "https://o:8935/apps/r1/session";

pub(super) fn priced(at: &str, wei: u64, unit: &str) -> Runner {
    let mode = if at.ends_with("/app") {
        "single-shot"
    } else {
        "persistent"
    };
    let price = json!({"price": wei, "currency": "wei", "unit": unit});
    let runner = json!({"url": at, "app": "x/y", "mode": mode, "capacity_available": 1, "price_info": price});
    Runner::read(&runner).expect("a runner")
}

/// A demand for `wei` a unit. A ticket is worth five seconds of 12,345 wei.
pub(super) fn demand(now: Time, id: &str, wei: i64) -> Vec<u8> {
    let certain = (BigUint::from(1_u8) << 256_u32) - 1_u8;
    let params = TicketParams {
        recipient: Address([0x0e; 20]),
        face_value: Wei::from(61_725 * 3),
        win_prob: certain / 3_u8,
        recipient_rand_hash: [u8::try_from(id.len()).expect("short"); 32],
        seed: Bytes::from_static(&[1]),
        expiration_block: BigUint::from(1_000_000_u32),
        creation_round: 100,
        creation_round_block_hash: [0x11; 32],
    };
    let token = AuthToken {
        token: Bytes::from_static(b"t"),
        session_id: id.into(),
        expiration: now + Duration::from_secs(1_800),
    };
    let price = Price::new(wei, 1).expect("a price");
    let info = net::OrchestratorInfo {
        transcoder: "https://o:8935".into(),
        ticket_params: Some(params.to_wire()),
        price_info: Some(net::PriceInfo {
            price_per_unit: price.wei(),
            pixels_per_unit: price.per(),
            ..net::PriceInfo::default()
        }),
        address: vec![0x0e; 20].into(),
        auth_token: Some(token.to_wire()),
        ..net::OrchestratorInfo::default()
    };
    Challenge {
        info: OrchestratorInfo::decode(info.encode_to_vec().into()).expect("good"),
        orchestrator: url("https://o:8935"),
        manifest_id: id.into(),
        payment_url: url(&format!("{PRICED}/{id}/payment")),
    }
    .to_json()
}

pub(super) const JSON: &str = "application/json";

fn reserve(world: &mut World) {
    let body = demand(world.now, "s1", 12_345);
    let first = world.answer(&format!("POST {PRICED}"), 402, JSON, body);
    assert_eq!(first.headers.get(PAYMENT_HEADER), None);
    assert!(first.headers.get("livepeer-payer-address").is_some());
    let session = Session::at(&url(PRICED), "s1").to_json();
    let paid = world.answer(&format!("POST {PRICED}"), 200, JSON, session);
    assert!(paid.headers.get(PAYMENT_HEADER).is_some());
    assert_eq!(paid.body, first.body, "the same request");
    assert!(world.session.is_some(), "{:?}", world.last);
}

#[test]
fn a_session_is_paid_for_until_it_is_stopped() {
    let mut world = World::with(true, &priced(PRICED, 12_345, "seconds"), Use::Session);
    reserve(&mut world);
    let payment = format!("POST {PRICED}/s1/payment");
    for _ in 0..3 {
        let before = world.now;
        for _ in 0..20 {
            if world.find(&payment).is_none() {
                world.pass(Duration::from_millis(500));
            }
        }
        assert!(
            world.now.since(before) < Duration::from_secs(10),
            "{:?}",
            world.sent
        );
        world.answer(&payment, 200, "application/octet-stream", "");
    }
    assert_eq!(world.paid, 4, "the first one came with the reservation");
    world.close();
    world.answer(&format!("POST {PRICED}/s1/stop"), 204, JSON, "");
    assert!(matches!(world.last, Some(Event::Closed)));
}

#[test]
fn a_session_that_is_gone_is_told_and_one_that_is_not_paid_any_more_is_stopped_in_time() {
    let payment = format!("POST {PRICED}/s1/payment");
    for status in [404_u16, 403] {
        let mut world = World::with(true, &priced(PRICED, 12_345, "seconds"), Use::Session);
        reserve(&mut world);
        for _ in 0..20 {
            if world.find(&payment).is_none() {
                world.pass(Duration::from_millis(500));
            }
        }
        world.answer(&payment, status, "text/plain", "session not found\n");
        if status == 404 {
            assert!(
                matches!(world.last, Some(Event::Released)),
                "{:?}",
                world.last
            );
            assert!(world.asked.is_empty(), "nothing is stopped");
            continue;
        }
        assert_eq!(world.troubles, 1);
        assert!(world.last.is_none());
        let stop = format!("POST {PRICED}/s1/stop");
        for _ in 0..60 {
            if world.find(&stop).is_none() {
                world.pass(Duration::from_millis(500));
            }
        }
        world.answer(&stop, 204, JSON, "");
        assert!(matches!(world.last, Some(Event::Closed)));
    }
}

#[test]
fn what_is_paid_once_is_paid_once() {
    let mut world = World::with(true, &priced(PRICED, 12_345, "fixed"), Use::Session);
    reserve(&mut world);
    world.pass(Duration::from_secs(60));
    assert!(world.asked.is_empty(), "{:?}", world.sent);
    world.close();
    // Over already is as good.
    world.answer(
        &format!("POST {PRICED}/s1/stop"),
        404,
        "text/plain",
        "runner not found\n",
    );
    assert!(matches!(world.last, Some(Event::Closed)));
}

#[test]
fn no_more_is_paid_than_the_list_said_and_no_demand_is_met_four_times() {
    // 1.2 percent more is within what prices move.
    for (wei, paid) in [(12_345, true), (12_493, true), (12_494, false)] {
        let mut world = World::with(true, &priced(PRICED, 12_345, "seconds"), Use::Session);
        let body = demand(world.now, "s1", wei);
        world.answer(&format!("POST {PRICED}"), 402, JSON, body);
        assert_eq!(
            world.find(&format!("POST {PRICED}")).is_some(),
            paid,
            "{wei}"
        );
        assert_eq!(world.last.is_none(), paid, "{wei}");
    }
    // A price that nobody named.
    let mut unpriced = priced(PRICED, 1, "seconds");
    unpriced.price = None;
    let mut world = World::with(true, &unpriced, Use::Session);
    let body = demand(world.now, "s1", 1);
    world.answer(&format!("POST {PRICED}"), 402, JSON, body);
    assert!(
        matches!(&world.last, Some(Event::Failed(_))),
        "{:?}",
        world.last
    );
    // Nobody pays.
    let mut world = World::with(false, &priced(PRICED, 12_345, "seconds"), Use::Session);
    let body = demand(world.now, "s1", 12_345);
    world.answer(&format!("POST {PRICED}"), 402, JSON, body);
    assert!(matches!(&world.last, Some(Event::Failed(_))));
    // Demand after demand.
    let mut world = World::with(true, &priced(PRICED, 12_345, "seconds"), Use::Session);
    let mut payments = 0;
    for n in 0..10 {
        if world.last.is_some() {
            break;
        }
        let body = demand(world.now, &"s".repeat(n + 1), 12_345);
        let request = world.answer(&format!("POST {PRICED}"), 402, JSON, body);
        payments += usize::from(request.headers.get(PAYMENT_HEADER).is_some());
    }
    assert_eq!(payments, 3);
    assert!(matches!(&world.last, Some(Event::Failed(_))));
}

#[test]
fn a_paid_reservation_whose_answer_is_lost_is_not_paid_twice() {
    let mut world = World::with(true, &priced(PRICED, 12_345, "seconds"), Use::Session);
    let body = demand(world.now, "s1", 12_345);
    world.answer(&format!("POST {PRICED}"), 402, JSON, body);
    let (id, first) = world.take(&format!("POST {PRICED}"));
    world.http(id, In::Failed(Fault::Broken("reset".into())));
    let again = world.answer(
        &format!("POST {PRICED}"),
        409,
        "text/plain",
        "session exists\n",
    );
    assert_eq!(
        again.headers.get(PAYMENT_HEADER),
        first.headers.get(PAYMENT_HEADER)
    );
    assert_eq!(world.session, Some(Session::at(&url(PRICED), "s1")));
    // Whoever closes while the answer is on its way stops what may be there.
    let mut world = World::with(true, &priced(PRICED, 12_345, "seconds"), Use::Session);
    let body = demand(world.now, "s1", 12_345);
    world.answer(&format!("POST {PRICED}"), 402, JSON, body);
    world.close();
    world.answer(&format!("POST {PRICED}/s1/stop"), 204, JSON, "");
    assert!(matches!(world.last, Some(Event::Closed)));
}

pub(super) const ONCE: &str = "https://o:8935/apps/r2/app";

pub(super) fn call() -> Use {
    Use::Call(Call::post("v1/run".into(), Bytes::from_static(b"{}")))
}

#[test]
fn a_call_is_paid_while_its_app_thinks() {
    let mut world = World::with(true, &priced(ONCE, 12_345, "seconds"), call());
    let body = demand(world.now, "s1", 12_345);
    world.answer(&format!("POST {ONCE}/v1/run"), 402, JSON, body);
    let (id, request) = world.take(&format!("POST {ONCE}/v1/run"));
    assert!(request.headers.get(PAYMENT_HEADER).is_some());
    world.pass(Duration::from_secs(12));
    assert!(
        world.find(&format!("POST {PRICED}/s1/payment")).is_some(),
        "{:?}",
        world.sent
    );
    world.http(
        id,
        In::Reply(Response::new(200).header("content-type", "text/event-stream")),
    );
    world.http(id, In::Data("data: 1\n\n".into()));
    world.http(id, In::End(Headers::new()));
    assert_eq!(world.data, b"data: 1\n\n");
    assert!(matches!(world.last, Some(Event::Done)));
    assert!(
        world.asked.is_empty(),
        "paying has ended: {:?}",
        world.asked
    );
}

#[test]
fn the_head_of_a_priced_app_is_demanded_for_by_a_get_and_paid() {
    let head = || {
        Use::Call(Call {
            method: Method::Head,
            body: Bytes::new(),
            ..Call::post("v1/run".into(), Bytes::new())
        })
    };
    let mut world = World::with(true, &priced(ONCE, 12_345, "fixed"), head());
    let body = demand(world.now, "s1", 12_345);
    let asked = world.answer(&format!("GET {ONCE}/v1/run"), 402, JSON, body);
    assert!(asked.headers.get(PAYMENT_HEADER).is_none());
    let paid = world.answer(&format!("HEAD {ONCE}/v1/run"), 200, JSON, "");
    assert!(paid.headers.get(PAYMENT_HEADER).is_some());
    assert_eq!(world.head.as_ref().map(|head| head.status), Some(200));
    assert!(matches!(world.last, Some(Event::Done)), "{:?}", world.last);
    // The app is free after all: its answer to the GET has a body that nobody asked for.
    for status in [200, 404] {
        let mut world = World::with(true, &priced(ONCE, 12_345, "fixed"), head());
        world.answer(&format!("GET {ONCE}/v1/run"), status, "text/plain", "words");
        assert_eq!(world.head.as_ref().map(|head| head.status), Some(status));
        assert!(world.data.is_empty() && world.asked.is_empty());
        assert!(matches!(world.last, Some(Event::Done)), "{:?}", world.last);
    }
}

#[test]
fn a_call_that_may_have_run_goes_to_nobody_else_without_leave() {
    let free = |at: &str| {
        let mut runner = priced(at, 1, "seconds");
        runner.price = None;
        runner
    };
    let other = "https://p:8935/apps/r2/app";
    for (may_repeat, method) in [
        (false, Method::Post),
        (true, Method::Post),
        (false, Method::Get),
    ] {
        let plan = Use::Call(Call {
            may_repeat,
            ..Call::new(method, "x")
        });
        let runners = [free(ONCE), free(other)];
        let mut world = World::new(false, |now, config, payer| {
            Rental::of(
                now,
                config,
                runners,
                Wanted::default(),
                plan,
                payer,
                History::default(),
            )
        });
        let name = method.as_str();
        let (id, _) = world.take(&format!("{name} {ONCE}/x"));
        world.http(id, In::Failed(Fault::Broken("reset".into())));
        if may_repeat || method == Method::Get {
            world.answer(&format!("{name} {other}/x"), 200, JSON, "{}");
            assert!(matches!(world.last, Some(Event::Done)));
        } else {
            let Some(Event::Failed(failed)) = &world.last else {
                panic!("{:?}", world.last);
            };
            assert!(matches!(**failed, Failed::Undecided { .. }));
        }
    }
    // The orchestrator's own words, and a link that never was.
    for unreached in [false, true] {
        let runners = [free(ONCE), free(other)];
        let mut world = World::new(false, |now, config, payer| {
            Rental::of(
                now,
                config,
                runners,
                Wanted::default(),
                call(),
                payer,
                History::default(),
            )
        });
        match unreached {
            true => {
                let (id, _) = world.take(&format!("POST {ONCE}"));
                world.http(id, In::Failed(Fault::Connect("refused".into())));
            }
            false => drop(world.answer(
                &format!("POST {ONCE}"),
                503,
                "text/plain",
                "no capacity available for runner\n",
            )),
        }
        world.answer(&format!("POST {other}"), 200, JSON, "{}");
        assert!(matches!(world.last, Some(Event::Done)));
    }
    // An app's own words are its own, whatever they are.
    let mut world = World::with(false, &free(ONCE), call());
    world.answer(&format!("POST {ONCE}"), 503, "text/plain", "loading\n");
    assert_eq!(world.head.map(|head| head.status), Some(503));
}
