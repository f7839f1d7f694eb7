//! Registrations: the cases of the vectors, and what they leave open, by hand.

use std::time::Duration;

use livepeer_core::http::{Fault, In, Response};
use livepeer_core::job::runner::{
    Config, ENTRY_LASTS, Event, Invalid, MAX_INTERVAL, Registration, WITHIN,
};
use livepeer_core::time::Time;
use livepeer_core::wire::app::registration::{BadHeartbeat, Heartbeat};
use livepeer_core::{Effect, EffectId, Misuse};
use livepeer_sim::Driven;
use serde_json::{Value, json};

use super::bytes::heartbeat;
use super::{REGISTRATION, text};
use crate::by_hand::{ByHand as _, Outside, has_outside};
use crate::cases;
use crate::peers::url;

const HOME: &str = "https://orch-a.example:8935";
const BEAT: &str = "POST https://orch-a.example:8935/runners/heartbeat";
const LEAVE: &str = "POST https://orch-a.example:8935/runners/r1/unregister";
const UNKNOWN: &str = "runner not found\n";
const ALIVE: &str = "invalid heartbeat authorization\n";

struct World {
    runner: Registration,
    outside: Outside,
    now: Time,
    began: Time,
    /// Questions, with the time, the address and the secret.
    asked: Vec<(u64, String, Option<String>)>,
    events: Vec<Event>,
}

has_outside!(World);

impl Driven for World {
    livepeer_sim::driven!(runner: Registration, outside.book);

    fn effect(&mut self, id: EffectId, effect: Effect) {
        let (machine, now) = (&mut self.runner, self.now);
        let before = self.outside.asked.len();
        self.outside.effect(machine, now, id, effect);
        if let Some((_, request)) = self.outside.asked.get(before) {
            let at = u64::try_from(now.since(self.began).as_millis()).expect("a short test");
            let secret = request.headers.get("authorization").map(str::to_owned);
            self.asked.push((at, request.url.to_string(), secret));
        }
    }

    fn event(&mut self, event: Event) {
        assert!(!self.is_over(), "{event:?} after the last event");
        self.events.push(event);
    }

    fn is_over(&self) -> bool {
        matches!(self.events.last(), Some(Event::Ended(_)))
    }
}

impl World {
    fn of(secret: &str, beat: Heartbeat) -> Self {
        let now = Time::from_secs(1_790_000_000);
        let runner = Registration::new(now, Config::default(), url(HOME), secret, beat);
        let mut world = Self {
            runner: runner.expect("a runner"),
            outside: Outside::default(),
            now,
            began: now,
            asked: Vec::new(),
            events: Vec::new(),
        };
        world.drain();
        world
    }

    fn new() -> Self {
        Self::of("boot", Heartbeat::new("http://10.0.0.2:8989", "x/y"))
    }

    /// A runner that is registered as `r1`.
    fn registered() -> Self {
        let mut world = Self::new();
        world.grant("hs1", &json!([]));
        world.events.clear();
        world
    }

    fn answer(&mut self, at: &str, status: u16, body: &str) {
        self.reply(at, Response::new(status), body.to_owned());
    }

    /// Answers a sign of life well; an empty secret is none.
    fn grant(&mut self, secret: &str, sessions: &Value) {
        let answer = json!({
            "runner_id": "r1",
            "heartbeat_interval": "1s",
            "heartbeat_secret": secret,
            "session_ids": sessions,
        });
        self.answer(BEAT, 200, &answer.to_string());
    }

    fn close(&mut self) {
        self.runner.close(self.now);
        self.drain();
    }

    /// The secrets of all signs of life, with their times.
    fn beats(&self) -> Vec<(u64, &str)> {
        let beats = self
            .asked
            .iter()
            .filter(|(_, url, _)| url.ends_with("/heartbeat"));
        beats
            .map(|(at, _, secret)| (*at, secret.as_deref().unwrap_or_default()))
            .collect()
    }

    fn told(&self) -> Vec<String> {
        let told = self.events.iter().map(|event| match event {
            Event::Registered(name) => format!("registered {name}"),
            Event::Reserved(session) => format!("reserved {session}"),
            Event::Released(session) => format!("released {session}"),
            Event::Failed(failure) => format!("failed: {failure}"),
            Event::Ended(Ok(())) => "gone".into(),
            Event::Ended(Err(failure)) => format!("refused: {failure}"),
            other => panic!("{other:?}"),
        });
        told.collect()
    }
}

/// Answers what the script has an answer for.
fn follow(world: &mut World, script: &mut Vec<Value>) {
    let next = |world: &World, script: &[Value]| {
        let answers =
            |peer: &Value| peer["reply"] != "never" && world.find(text(peer, "at")).is_some();
        script.iter().position(answers)
    };
    while let Some(place) = next(world, script) {
        let peer = script.remove(place);
        let (at, reply) = (text(&peer, "at"), &peer["reply"]);
        if reply.is_string() {
            world.fail(at, Fault::Broken("reset".into()));
            continue;
        }
        let status = u16::try_from(reply["status"].as_u64().expect("a status")).expect("one");
        let mut head = Response::new(status);
        for (name, value) in reply["headers"].as_object().into_iter().flatten() {
            head.headers.push_any(name, value.as_str().expect("a text"));
        }
        let body = crate::pipelines::body(reply);
        world.reply(at, head, body);
    }
}

#[test]
fn runners_register_live_and_leave_as_the_vectors_say() {
    let mut played = 0;
    for case in cases(REGISTRATION, "cases") {
        let id = text(&case, "id");
        let Some(call) = case["in"]["call"].get("register_runner") else {
            continue;
        };
        played += 1;
        let mut world = World::of(text(call, "secret"), heartbeat(call));
        let mut script = case["in"]["peers"].as_array().cloned().expect(id);
        let tenths = (case["in"]["call"]["hold_s"].as_f64().expect(id) * 10.0).round() as u64;
        follow(&mut world, &mut script);
        for _ in 0..tenths {
            world.pass_millis(100);
            follow(&mut world, &mut script);
        }
        let sessions: Vec<String> = world.runner.sessions().map(str::to_owned).collect();
        if !world.is_over() {
            world.close();
            follow(&mut world, &mut script);
        }
        let out = &case["out"];
        if let Some(error) = out.get("error") {
            let Some(Event::Ended(Err(failure))) = world.events.last() else {
                panic!("{id}: {:?}", world.events);
            };
            let words = [
                "missing heartbeat_secret",
                "missing runner_id",
                "invalid registration",
            ];
            let word = words
                .iter()
                .find(|word| text(error, "text").contains(**word));
            let word = word.unwrap_or_else(|| panic!("{id} fails otherwise"));
            assert!(failure.to_string().contains(word), "{id}: {failure}");
        } else if !world.events.is_empty() {
            assert_eq!(world.told().last().expect(id), "gone", "{id}");
        }
        if let Some(reads) = out.get("reads") {
            let reads: Vec<&str> = reads
                .as_array()
                .expect(id)
                .iter()
                .filter_map(Value::as_str)
                .collect();
            let asked = world.asked.iter().map(|(_, url, _)| url.as_str());
            let asked: Vec<&str> = asked.filter(|url| reads.contains(url)).collect();
            assert!(
                reads.iter().all(|read| asked.contains(read)),
                "{id}: {asked:?}"
            );
            assert_eq!(json!(sessions), out["active_session_ids"], "{id}");
        }
        if let Some(beats) = out.get("heartbeats") {
            let wanted = beats.as_array().expect(id).iter();
            let wanted: Vec<_> = wanted
                .map(|beat| {
                    (
                        beat["at_ms"].as_u64().expect(id),
                        text(beat, "authorization"),
                    )
                })
                .collect();
            // The scripts end where their client gave up for a while.
            assert!(
                world.beats().starts_with(&wanted),
                "{id}: {:?}",
                world.beats()
            );
        }
        let upstream = out["upstream"].as_array().into_iter().flatten();
        let wanted: Vec<_> = upstream
            .filter(|sent| text(sent, "method") == "POST")
            .map(|sent| {
                let secret = text(&sent["headers"], "authorization").to_owned();
                (text(sent, "url").to_owned(), Some(secret))
            })
            .collect();
        if !wanted.is_empty() {
            let posts = world.asked.iter().filter(|(_, _, secret)| secret.is_some());
            let posts: Vec<_> = posts
                .map(|(_, url, secret)| (url.clone(), secret.clone()))
                .collect();
            assert_eq!(posts, wanted, "{id}");
            if !out["result"].is_null() {
                assert_eq!(json!(sessions), out["result"]["active_session_ids"], "{id}");
            }
        }
    }
    assert_eq!(played, 14, "cases of registrations");
}

#[test]
fn what_cannot_be_registered_is_said_before_anybody_is_asked() {
    let of = |secret: &str, change: fn(&mut Heartbeat)| {
        let mut beat = Heartbeat::new("http://10.0.0.2:8989", "x/y");
        change(&mut beat);
        let made = Registration::new(Time::ZERO, Config::default(), url(HOME), secret, beat);
        made.expect_err("it is refused")
    };
    assert_eq!(of("", |_| ()), Invalid::Secret);
    assert_eq!(of("a\nb", |_| ()), Invalid::Secret);
    let bad = |change| match of("boot", change) {
        Invalid::Heartbeat(why) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(bad(|beat| beat.app = " x".into()), BadHeartbeat::App);
    assert_eq!(
        bad(|beat| beat.runner_url = "8080".into()),
        BadHeartbeat::Url
    );
    for price in ["", "free", "-1", "0.5 usd", "NaN"] {
        let mut beat = Heartbeat::new("http://10.0.0.2:8989", "x/y");
        beat.price.price = price.into();
        assert_eq!(beat.check(), Err(BadHeartbeat::Price), "{price}");
    }
}

#[test]
fn a_name_that_lives_or_is_not_swept_yet_is_tried_for_as_long_as_it_lasts() {
    for (status, words, every) in [(401, ALIVE, 5), (404, UNKNOWN, 1)] {
        let mut beat = Heartbeat::new("http://10.0.0.2:8989", "x/y");
        beat.runner_id = "r1".into();
        let mut world = World::of("boot", beat);
        let mut tries = 0;
        while !world.is_over() {
            world.answer(BEAT, status, words);
            tries += 1;
            world.pass(Duration::from_secs(if world.is_over() { 0 } else { every }));
        }
        assert_eq!(tries, 1 + ENTRY_LASTS.as_secs() / every);
        let told = world.told().pop().expect("an end");
        assert!(told.contains(words.trim()), "{told}");
    }
}

#[test]
fn an_orchestrator_without_runners_is_told_at_once() {
    let mut world = World::new();
    world.answer(BEAT, 404, "404 page not found\n");
    assert_eq!(
        world.told(),
        [
            "refused: orchestrator https://orch-a.example:8935: refused a registration with status 404: 404 page not found"
        ]
    );
}

#[test]
fn a_sign_of_life_that_is_lost_is_told_and_the_next_one_follows() {
    let mut world = World::registered();
    world.pass(Duration::from_secs(1) + WITHIN);
    assert_eq!(
        world.told(),
        ["failed: orchestrator https://orch-a.example:8935: no answer to a heartbeat within 5s"]
    );
    world.pass(Duration::from_secs(1));
    world.grant("", &json!([]));
    assert_eq!(world.beats(), [(0, "boot"), (1_000, "hs1"), (7_000, "hs1")]);
    assert_eq!(world.runner.runner_id(), Some("r1"));
}

#[test]
fn a_runner_that_was_silent_too_long_registers_anew_and_goes_on_with_its_secret_if_it_lives() {
    let mut world = World::registered();
    // The orchestrator forgets it, and remembers it when it is asked with the shared secret.
    world.pass(Duration::from_secs(1));
    world.answer(BEAT, 404, UNKNOWN);
    world.answer(BEAT, 401, ALIVE);
    world.pass(Duration::from_secs(1));
    world.grant("", &json!([]));
    assert_eq!(
        world.beats(),
        [(0, "boot"), (1_000, "hs1"), (1_000, "boot"), (2_000, "hs1")]
    );
    // Nobody answers for longer than it is remembered.
    while world
        .beats()
        .last()
        .is_some_and(|(_, secret)| *secret == "hs1")
    {
        world.pass(Duration::from_secs(1));
        if world.find(BEAT).is_some() {
            world.fail(BEAT, Fault::Connect("refused".into()));
        }
    }
    let last = world.beats().last().copied();
    assert!(last.is_some_and(|(at, _)| at >= 22_000), "{last:?}");
}

#[test]
fn the_shared_secret_goes_to_nobody_whom_the_orchestrator_names() {
    let mut world = World::new();
    let moved = json!({
        "runner_id": "r1",
        "heartbeat_interval": "1s",
        "heartbeat_secret": "hs1",
        "orchestrator": "https://elsewhere.example",
    });
    world.answer(BEAT, 200, &moved.to_string());
    world.pass(Duration::from_secs(1));
    world.answer("POST https://elsewhere.example", 401, ALIVE);
    let last = world.asked.last().expect("it goes on");
    assert_eq!(
        (last.1.as_str(), last.2.as_deref()),
        (&BEAT[5..], Some("boot"))
    );
    // A place in our own network is not theirs to name.
    let mut world = World::new();
    let inside = moved
        .to_string()
        .replace("https://elsewhere.example", "https://10.0.0.9");
    world.answer(BEAT, 200, &inside);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.asked.last().expect("it goes on").1, BEAT[5..]);
}

#[test]
fn intervals_are_neither_a_storm_nor_for_ever() {
    for (said, seconds) in [("1ns", 1), ("9999h", MAX_INTERVAL.as_secs())] {
        let mut world = World::new();
        let answer =
            json!({"runner_id": "r1", "heartbeat_secret": "s", "heartbeat_interval": said});
        world.answer(BEAT, 200, &answer.to_string());
        world.pass(Duration::from_secs(seconds));
        assert_eq!(
            world.beats(),
            [(0, "boot"), (seconds * 1_000, "s")],
            "{said}"
        );
    }
}

#[test]
fn without_a_channel_the_lists_of_answers_say_which_sessions_there_are() {
    let mut world = World::registered();
    for sessions in [json!(["s1", "s2"]), json!(["s2"]), json!([])] {
        world.pass(Duration::from_secs(1));
        world.grant("", &sessions);
    }
    assert_eq!(
        world.told(),
        ["reserved s1", "reserved s2", "released s1", "released s2"]
    );
}

#[test]
fn a_list_that_left_before_the_news_does_not_undo_them() {
    let mut world = World::new();
    let channel = "https://orch-a.example:8935/ai/trickle/o2r";
    let granted = json!({
        "runner_id": "r1",
        "heartbeat_interval": "1s",
        "heartbeat_secret": "hs1",
        "o2r": {"name": "o2r", "channel_name": "o2r", "url": channel},
    });
    world.answer(BEAT, 200, &granted.to_string());
    let say = |world: &mut World, seq: u32, text: &str| {
        let head = Response::new(200).header("lp-trickle-seq", seq.to_string());
        world.reply(&format!("GET {channel}/{seq}"), head, text.to_owned());
    };
    // Something cannot be read, so the next list counts.
    say(&mut world, 0, &" ".repeat(20_000));
    world.pass(Duration::from_secs(1));
    say(&mut world, 1, r#"{"event":"reserved","session":"s1"}"#);
    world.grant("", &json!(["s0"]));
    let told = ["registered r1", "reserved s1", "reserved s0"];
    assert_eq!(world.told(), told);
    // That settled it: the channel alone is believed again.
    world.pass(Duration::from_secs(1));
    world.grant("", &json!([]));
    assert_eq!(world.told(), told);
}

#[test]
fn a_runner_leaves_with_its_secret_and_waits_a_bounded_time() {
    let mut world = World::registered();
    world.close();
    assert_eq!(
        world.asked.last().expect("it says so").2.as_deref(),
        Some("hs1")
    );
    assert!(world.find(LEAVE).is_some() && world.find(BEAT).is_none());
    assert_eq!(
        world.runner.set_status(world.now, "busy"),
        Err(Misuse::Ended)
    );
    world.pass(WITHIN);
    assert_eq!(world.told(), ["gone"]);
    // One that was never registered has nothing to say.
    let mut world = World::new();
    let id = world.find(BEAT).expect("it asks");
    world.close();
    assert_eq!(world.aborted, [id]);
    assert_eq!(world.told(), ["gone"]);
    world.http(id, In::Failed(Fault::Broken("reset".into())));
    assert_eq!(world.drain(), None);
}
