//! Rentals: the free cases of the vectors here; by hand what is [paid] and what goes [beyond] one answer.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, In, Method, Request, Response, Url};
use livepeer_core::job::app::{Answer, Call, Config, Event, Failed, History, Rental, Use, Wanted};
use livepeer_core::payment::Payer;
use livepeer_core::time::Time;
use livepeer_core::wire::app::Session;
use livepeer_core::wire::payment::PAYMENT_HEADER;
use livepeer_core::wire::runner::Runner;
use livepeer_core::{Effect, EffectId};
use livepeer_sim::Driven;
use serde_json::{Value, json};

use super::{CALL, SESSION, text, texts};
use crate::by_hand::{ByHand as _, Outside, has_outside};
use crate::cases;
use crate::peers::url;

mod beyond;
mod paid;

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
