//! Rentals: the free cases of the vectors, and payments by hand.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, Headers, In, Method, Request, Response, Url};
use livepeer_core::job::app::{
    Answer, Call, Config, Event, Failed, History, MAX_UNTAKEN, Rental, Use, Wanted,
};
use livepeer_core::money::{Price, Wei};
use livepeer_core::payment::Payer;
use livepeer_core::sign::Address;
use livepeer_core::time::Time;
use livepeer_core::wire::app::Session;
use livepeer_core::wire::challenge::Challenge;
use livepeer_core::wire::payment::PAYMENT_HEADER;
use livepeer_core::wire::runner::Runner;
use livepeer_core::wire::{AuthToken, OrchestratorInfo, TicketParams};
use livepeer_core::{Effect, EffectId};
use livepeer_proto::net;
use livepeer_sim::Driven;
use num_bigint::BigUint;
use prost::Message as _;
use serde_json::{Value, json};

use super::{CALL, SESSION, text, texts};
use crate::by_hand::{ByHand as _, Outside, has_outside};
use crate::cases;
use crate::peers::url;

struct World {
    rental: Rental,
    outside: Outside,
    now: Time,
    session: Option<Session>,
    head: Option<Answer>,
    data: Vec<u8>,
    last: Option<Event>,
    troubles: usize,
    paid: usize,
    rooms: usize,
}

has_outside!(World);

impl Driven for World {
    livepeer_sim::driven!(rental: Rental, outside.book);

    fn effect(&mut self, id: EffectId, effect: Effect) {
        let (machine, now) = (&mut self.rental, self.now);
        self.outside.effect(machine, now, id, effect);
    }

    fn event(&mut self, event: Event) {
        assert!(self.last.is_none(), "{event:?} after the last event");
        match event {
            Event::Reserved { session, .. } => self.session = Some(session),
            Event::Head(answer) => self.head = Some(*answer),
            Event::Data(data) => self.data.extend_from_slice(&data),
            Event::Trouble(_) => self.troubles += 1,
            Event::Paid(_) => self.paid += 1,
            Event::Room => self.rooms += 1,
            Event::Trying(_) | Event::Signers(_) => {}
            last => self.last = Some(last),
        }
    }
}

impl World {
    fn new(pays: bool, make: impl FnOnce(Time, Config, Payer) -> Rental) -> Self {
        let now = Time::from_secs(1_790_000_000);
        let outside = Outside::default();
        let payer = match pays {
            true => outside.account(),
            false => Payer::Offchain,
        };
        let mut world = Self {
            rental: make(now, Config::default(), payer),
            outside,
            now,
            session: None,
            head: None,
            data: Vec::new(),
            last: None,
            troubles: 0,
            paid: 0,
            rooms: 0,
        };
        world.drain();
        world
    }

    /// A world with that runner, and a use of it.
    fn with(pays: bool, runner: &Runner, plan: Use) -> Self {
        let runners = [runner.clone()];
        Self::new(pays, |now, config, payer| {
            Rental::of(
                now,
                config,
                runners,
                Wanted::default(),
                plan,
                payer,
                History::default(),
            )
        })
    }

    fn answer(&mut self, at: &str, status: u16, content: &str, body: impl Into<Bytes>) -> Request {
        let head = Response::new(status).header("content-type", content);
        self.reply(at, head, body)
    }

    fn close(&mut self) {
        self.rental.close(self.now);
        self.drain();
    }
}

/// A runner of the vectors: its entry in a list, or its address alone.
fn runner(call: &Value) -> Runner {
    let listed = call.get("runner").cloned();
    let bare = || json!({"url": text(call, "runner_url"), "app": "x/y", "mode": "single-shot"});
    Runner::read(&listed.unwrap_or_else(bare)).expect("a runner")
}

/// Plays the script of a case until nobody is asked any more, or it is over.
fn play(world: &mut World, case: &Value) {
    let id = text(case, "id");
    let mut script: Vec<&Value> = case["in"]["peers"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    for _ in 0..100 {
        let place = script
            .iter()
            .position(|peer| world.find(text(peer, "at")).is_some() && peer["reply"] != "never");
        let Some(place) = place else {
            if world.asked.is_empty() || world.last.is_some() {
                return;
            }
            world.pass(Duration::from_millis(500));
            continue;
        };
        let peer = match script[place]["repeat"] == true {
            true => script[place],
            false => script.remove(place),
        };
        let (at, reply) = (text(peer, "at"), &peer["reply"]);
        if reply.is_string() {
            let (exchange, _) = world.take(at);
            world.http(exchange, In::Failed(Fault::Broken("reset".into())));
            continue;
        }
        let status = u16::try_from(reply["status"].as_u64().expect(id)).expect(id);
        let content = reply["headers"]["content-type"]
            .as_str()
            .unwrap_or("application/json");
        let chunks = reply["chunks"].as_array().into_iter().flatten();
        let chunks: String = chunks.map(|chunk| text(chunk, "text")).collect();
        let body = match chunks.is_empty() {
            true => super::super::pipelines::body(reply),
            false => chunks.into(),
        };
        world.answer(at, status, content, body);
    }
}

/// Addresses without the slash that a bare one gets, the port that goes without saying, and the query, which `bytes` looks
/// at.
fn plain(sent: &str) -> String {
    let sent = sent.replace(".example:443", ".example");
    let sent = sent
        .split_once('?')
        .map_or(sent.clone(), |(path, _)| path.to_owned());
    sent.strip_suffix('/').map_or(sent.clone(), str::to_owned)
}

#[test]
fn free_sessions_of_the_vectors() {
    let mut seen = Vec::new();
    for case in cases(SESSION, "cases") {
        let (id, out) = (text(&case, "id"), &case["out"]);
        let call = &case["in"]["call"]["reserve_session"];
        if !call.is_object() || !call["signer_url"].is_null() || !call["discovery_url"].is_null() {
            continue;
        }
        let orchestrators: Vec<Url> = texts(&call["orchestrators"])
            .iter()
            .map(|at| url(at))
            .collect();
        let wanted = Wanted {
            apps: texts(&call["app"]),
            gpus: texts(&call["gpu"]),
            max_price: None,
        };
        let mut world = World::new(false, |now, config, payer| {
            Rental::new(
                now,
                config,
                orchestrators,
                wanted,
                Use::Session,
                payer,
                History::default(),
            )
        });
        play(&mut world, &case);
        if world.session.is_some() {
            world.close();
            play(&mut world, &case);
        }
        seen.push(id.to_owned());
        match (&out["result"], &world.session) {
            (Value::Null, None) => {
                assert!(out.get("error").is_some(), "{id}");
                let Some(Event::Failed(failed)) = &world.last else {
                    panic!("{id}: {:?}", world.last);
                };
                let attempts = match &**failed {
                    Failed::NoRunner { attempts } | Failed::Exhausted { attempts } => attempts,
                    other => panic!("{id}: {other:?}"),
                };
                let wanted = out["error"]["rejections"].as_array();
                if let Some(wanted) = wanted.filter(|_| id == "all-refuse") {
                    assert_eq!(attempts.len(), wanted.len(), "{id}");
                }
            }
            (result, Some(session)) => {
                assert_eq!(session.id, text(result, "session_id"), "{id}");
                if let Some(app) = result["app_url"].as_str() {
                    assert_eq!(session.app, url(app), "{id}");
                }
                assert!(
                    matches!(world.last, Some(Event::Closed)),
                    "{id}: {:?}",
                    world.last
                );
            }
            other => panic!("{id}: {other:?} {:?}", world.last),
        }
        let mut ours: Vec<String> = world.sent.iter().map(|sent| plain(sent)).collect();
        let theirs = out["upstream"].as_array().into_iter().flatten();
        let theirs = theirs.map(|sent| format!("{} {}", text(sent, "method"), text(sent, "url")));
        let order = out["upstream_order"].as_array().into_iter().flatten();
        let order = order.map(|sent| sent.as_str().expect(id).to_owned());
        let mut theirs: Vec<String> = theirs.chain(order).map(|sent| plain(&sent)).collect();
        if id == "second-orchestrator" {
            // The first one of equals is as good; here it is the order of the lists.
            ours.retain(|sent| sent.starts_with("POST"));
            theirs.retain(|sent| sent.starts_with("POST"));
        }
        // Lists come in any order, and of two runners that are alike either is asked first.
        if id != "batches" && id != "none" {
            assert_eq!(ours.last(), theirs.last(), "{id}: {ours:?}");
        }
        ours.retain(|sent| sent.starts_with("GET"));
        theirs.retain(|sent| sent.starts_with("GET"));
        ours.sort();
        theirs.sort();
        if id != "batches" {
            assert_eq!(ours, theirs, "{id}");
        }
    }
    assert!(seen.len() >= 10, "{seen:?}");
}

#[test]
fn free_calls_of_the_vectors() {
    let mut seen = Vec::new();
    for case in cases(CALL, "cases") {
        let (id, out) = (text(&case, "id"), &case["out"]);
        let call = &case["in"]["call"]["call_runner"];
        if !call["signer_url"].is_null() || ["no-signer", "unit-conflict", "timeout"].contains(&id)
        {
            continue;
        }
        seen.push(id.to_owned());
        let method = Method::from_name(call["method"].as_str().unwrap_or("POST")).expect(id);
        let payload = call
            .get("payload")
            .map_or("{}".to_owned(), Value::to_string);
        let body = if method == Method::Get {
            Bytes::new()
        } else {
            payload.into()
        };
        let call_of = Call {
            body: body.clone(),
            ..Call::new(method, "")
        };
        let plan = Use::Call(call_of.with_header(PAYMENT_HEADER, "a client's own"));
        let mut world = World::with(false, &runner(call), plan);
        let (_, request) = world.asked.first().expect("asked at once");
        assert_eq!(request.headers.get(PAYMENT_HEADER), None, "{id}");
        assert_eq!(request.body == Body::Empty, body.is_empty(), "{id}");
        play(&mut world, &case);
        if id == "stream-error" {
            // The orchestrator's own words: nobody else is there.
            assert!(
                matches!(world.last, Some(Event::Failed(_))),
                "{:?}",
                world.last
            );
            assert!(world.head.is_none());
            continue;
        }
        let head = world
            .head
            .as_ref()
            .unwrap_or_else(|| panic!("{id}: {:?}", world.last));
        assert!(
            matches!(world.last, Some(Event::Done)),
            "{id}: {:?}",
            world.last
        );
        match out["error"]["status"].as_u64() {
            Some(status) => {
                assert_eq!(u64::from(head.status), status, "{id}");
                if let Some(said) = out["error"]["body_text"].as_str() {
                    assert_eq!(String::from_utf8_lossy(&world.data), said, "{id}");
                }
            }
            None => assert_eq!(head.status, 200, "{id}"),
        }
        if let Some(data) = out["result"]["data"]
            .as_object()
            .filter(|data| !data.is_empty())
        {
            let said: Value = serde_json::from_slice(&world.data).expect(id);
            assert_eq!(said.as_object(), Some(data), "{id}");
        }
        let sent = out["upstream"].as_array().expect(id);
        assert_eq!(world.sent.len(), sent.len(), "{id}");
        assert_eq!(
            plain(&world.sent[0]),
            plain(&format!(
                "{} {}",
                text(&sent[0], "method"),
                text(&sent[0], "url")
            )),
            "{id}"
        );
    }
    assert!(seen.len() >= 11, "{seen:?}");
}

const PRICED: &str = "https://o:8935/apps/r1/session";

fn priced(at: &str, wei: u64, unit: &str) -> Runner {
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
fn demand(now: Time, id: &str, wei: i64) -> Vec<u8> {
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

const JSON: &str = "application/json";

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

const ONCE: &str = "https://o:8935/apps/r2/app";

fn call() -> Use {
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
