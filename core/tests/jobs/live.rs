//! The life of a live video job, driven by hand: starts and their refusals, control, events, silence, swaps.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::handshake::Identity;
use livepeer_core::http::{Fault, Headers, In, Method, Out, Response, Url};
use livepeer_core::job::live::replay::Owed;
use livepeer_core::job::live::{Config, Ending, Event, LiveVideoJob};
use livepeer_core::payment::Funds;
use livepeer_core::pool::{self, Lease, Outcome, Quickest, SessionPool};
use livepeer_core::wire::{Params, StartRequest};
use livepeer_core::{Cause, Effect, EffectId, Failure, Input, Machine, Output, Party, Time};
use livepeer_proto::net;
use prost::Message as _;
use serde_json::{Value, json};

use crate::cases;

fn case(id: &str) -> Value {
    let all = cases("jobs/07-live-events-control.json", "cases");
    all.into_iter()
        .find(|case| case["id"] == id)
        .expect("the case exists")
}

fn info(host: &str) -> Bytes {
    let wire = net::OrchestratorInfo {
        transcoder: format!("https://{host}:8935"),
        auth_token: Some(net::AuthToken {
            token: Bytes::from_static(b"secret"),
            session_id: "s".into(),
            expiration: 4_000_000_000,
        }),
        capabilities: Some(net::Capabilities {
            bitstring: vec![1 << 35],
            ..Default::default()
        }),
        ..Default::default()
    };
    wire.encode_to_vec().into()
}

/// Answers a GetOrchestrator call.
fn answer_call<M: Machine>(machine: &mut M, now: Time, call: EffectId, message: &Bytes) {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    let head = Response::new(200).header("content-type", "application/grpc");
    machine.handle_input(now, Input::Http(call, In::Reply(head)));
    machine.handle_input(now, Input::Http(call, In::Data(framed.into())));
    let mut trailers = Headers::new();
    trailers.push("grpc-status", "0");
    machine.handle_input(now, Input::Http(call, In::End(trailers)));
}

/// A lease from a pool that shook hands with `host`.
fn lease(now: Time, host: &str) -> Lease {
    let wanted = Capabilities::live_video("noop");
    let mut pool = SessionPool::new(
        now,
        pool::Config::default(),
        Identity::Offchain,
        wanted,
        Quickest,
        [7; 32],
    );
    pool.offer(
        now,
        vec![Url::parse(&format!("https://{host}:8935")).unwrap()],
    );
    while let Output::Effect(id, Effect::Http(Out::Request(_))) = pool.poll_output() {
        answer_call(&mut pool, now, id, &info(host));
    }
    pool.take(now).expect("the orchestrator fits")
}

/// A job, and a world around it that answers as well-behaved trickle servers do.
struct World {
    job: LiveVideoJob,
    start: Time,
    now: Time,
    /// Requests that the test has to answer: starts and handshakes.
    asked: Vec<(EffectId, Method, Url, Bytes)>,
    /// Control messages, with the host they went to.
    control: Vec<(u64, String, String)>,
    /// POSTs under way, by exchange.
    posting: BTreeMap<EffectId, (Url, Vec<u8>)>,
    /// The parked GET of the events channel.
    events_get: Option<(EffectId, Url)>,
    next_event: u64,
    events: Vec<(u64, Event)>,
    aborted: Vec<EffectId>,
    wake: Option<Time>,
}

impl World {
    fn new(config: Config) -> Self {
        let start = Time::from_secs(1_700_000_000);
        let request = StartRequest {
            model_id: "noop".into(),
            ..Default::default()
        };
        let job = LiveVideoJob::new(start, config, request, Funds::Offchain);
        let mut world = Self {
            job,
            start,
            now: start,
            asked: Vec::new(),
            control: Vec::new(),
            posting: BTreeMap::new(),
            events_get: None,
            next_event: 0,
            events: Vec::new(),
            aborted: Vec::new(),
            wake: None,
        };
        world.drain();
        world
    }

    fn ms(&self) -> u64 {
        u64::try_from(self.now.since(self.start).as_millis()).unwrap()
    }

    fn answer(&mut self, id: EffectId, reply: Response, body: &[u8]) {
        self.job
            .handle_input(self.now, Input::Http(id, In::Reply(reply)));
        if !body.is_empty() {
            self.job.handle_input(
                self.now,
                Input::Http(id, In::Data(Bytes::copy_from_slice(body))),
            );
        }
        self.job
            .handle_input(self.now, Input::Http(id, In::End(Headers::new())));
    }

    fn drain(&mut self) {
        loop {
            match self.job.poll_output() {
                Output::Effect(id, Effect::Http(out)) => self.on_http(id, out),
                Output::Effect(_, other) => panic!("an off-chain job wants {other:?}"),
                Output::Event(event) => self.events.push((self.ms(), event)),
                Output::Idle(wake) => {
                    assert!(
                        wake.is_none_or(|wake| wake > self.now),
                        "a wake time that has passed"
                    );
                    self.wake = wake;
                    return;
                }
            }
        }
    }

    fn on_http(&mut self, id: EffectId, out: Out) {
        match out {
            Out::Request(request) => {
                let path = request.url.path().to_string();
                if path.ends_with("/next") {
                    self.answer(
                        id,
                        Response::new(200).header("lp-trickle-latest", "0"),
                        b"0",
                    );
                } else if path.contains("-events/") {
                    self.events_get = Some((id, request.url));
                } else if path.contains("-control/") && request.method == Method::Post {
                    self.posting.insert(id, (request.url, Vec::new()));
                } else if request.method == Method::Delete {
                    self.answer(id, Response::new(200), b"");
                } else {
                    let body = match request.body {
                        livepeer_core::http::Body::Full(body) => body,
                        _ => Bytes::new(),
                    };
                    self.asked.push((id, request.method, request.url, body));
                }
            }
            Out::Data(data) => {
                if let Some((_, body)) = self.posting.get_mut(&id) {
                    body.extend_from_slice(&data);
                    self.job
                        .handle_input(self.now, Input::Http(id, In::Sent(data.len())));
                }
            }
            Out::End => {
                let (url, body) = self
                    .posting
                    .remove(&id)
                    .expect("an end follows a beginning");
                let seq = url.path().rsplit('/').next().unwrap().to_string();
                self.control.push((
                    self.ms(),
                    url.host().to_string(),
                    String::from_utf8(body).unwrap(),
                ));
                self.answer(id, Response::new(200).header("lp-trickle-seq", seq), b"");
            }
            Out::Abort => {
                self.posting.remove(&id);
                self.events_get.take_if(|(get, _)| *get == id);
                self.aborted.push(id);
            }
            _ => {}
        }
    }

    /// Lets time pass to `ms` after the start, waking the job whenever it asked to be woken.
    fn pass_to(&mut self, ms: u64) {
        let to = self.start + Duration::from_millis(ms);
        loop {
            let wake = self.wake.unwrap_or(Time::MAX).min(to);
            self.now = self.now.max(wake);
            self.job.handle_input(self.now, Input::Tick);
            self.drain();
            if self.now >= to {
                return;
            }
        }
    }

    fn command(&mut self, run: impl FnOnce(&mut LiveVideoJob, Time)) {
        run(&mut self.job, self.now);
        self.drain();
    }

    /// Gives the job an orchestrator and answers its start request as `reply` says.
    fn assign(&mut self, host: &str, status: u16, body: &str) {
        let lease = lease(self.now, host);
        self.command(|job, now| job.assign(now, lease).unwrap());
        self.answer_start(status, body);
    }

    fn answer_start(&mut self, status: u16, body: &str) {
        let (id, method, url, _) = self.asked.pop().expect("the job asks to start");
        assert_eq!((method, url.path()), (Method::Post, "/live-video-to-video"));
        self.answer(id, Response::new(status), body.as_bytes());
        self.drain();
    }

    /// The orchestrator closes the control channel, to which a message is on its way.
    fn close_control(&mut self) {
        let is_control = |url: &Url| url.path().contains("-control/");
        let posting = self.posting.iter().find(|(_, (url, _))| is_control(url));
        let id = *posting.expect("the next message has its request").0;
        self.posting.remove(&id);
        let closed = Response::new(200).header("lp-trickle-closed", "terminated");
        self.answer(id, closed, b"");
        self.drain();
    }

    /// The orchestrator closes a media channel and does not say why.
    fn lose_media(&mut self) {
        self.command(|job, now| job.media_ended(now, None));
        self.pass_to(self.ms() + 250);
    }

    fn assign_well(&mut self, host: &str) {
        self.assign(host, 200, &channels("m1"));
    }

    /// The runner says something.
    fn runner_says(&mut self, segment: &str) {
        let (id, _) = self.events_get.take().expect("the job listens to events");
        let seq = self.next_event;
        self.next_event += 1;
        self.answer(
            id,
            Response::new(200).header("lp-trickle-seq", seq.to_string()),
            segment.as_bytes(),
        );
        self.drain();
    }

    fn take_events(&mut self) -> Vec<(u64, Event)> {
        std::mem::take(&mut self.events)
    }
}

fn channels(id: &str) -> String {
    let url = |suffix: &str| format!("/ai/trickle/{id}{suffix}");
    json!({"manifest_id": id, "publish_url": url(""), "subscribe_url": url("-out"),
           "control_url": url("-control"), "events_url": url("-events")})
    .to_string()
}

#[test]
fn every_answer_to_the_start_leads_where_the_vectors_say() {
    let mut seen = 0;
    for case in cases("jobs/05-lv2v-start.json", "cases")
        .iter()
        .filter(|case| case["kind"] == "peer_reply")
    {
        let id = case["id"].as_str().unwrap();
        if case["in"]["job"] == "scope" {
            continue;
        }
        seen += 1;
        let reply = &case["in"]["reply"];
        let body = match reply.get("body_json") {
            Some(json) => json.to_string(),
            None => reply["body_text"].as_str().unwrap().to_string(),
        };
        let mut world = World::new(Config::default());
        world.assign(
            "orch-a.example",
            u16::try_from(reply["status"].as_u64().unwrap()).unwrap(),
            &body,
        );
        let events = world.take_events();
        let released = events.iter().find_map(|(_, event)| match event {
            Event::Release(_, outcome) => Some(outcome.clone()),
            _ => None,
        });
        match case["out"]["class"].as_str().unwrap() {
            "done" => {
                assert!(
                    events
                        .iter()
                        .any(|(_, event)| matches!(event, Event::Started(_))),
                    "{id}"
                );
                assert_eq!(released, None, "{id}");
            }
            "other" => {
                let suspended = matches!(released, Some(Outcome::Failed(_)));
                assert_eq!(json!(suspended), case["out"]["suspend"], "{id}");
                assert!(
                    released.is_some() && matches!(events.last(), Some((_, Event::NeedLease))),
                    "{id}"
                );
            }
            class @ ("refresh" | "refresh_info_once") => {
                // A fresh quote is asked for, then the start is tried again, so often.
                let tries = if class == "refresh" { 3 } else { 2 };
                for _ in 1..tries {
                    let (call, _, url, _) = world.asked.pop().expect(id);
                    assert_eq!(url.path(), "/net.Orchestrator/GetOrchestrator", "{id}");
                    answer_call(&mut world.job, world.now, call, &info("orch-a.example"));
                    world.drain();
                    world.answer_start(
                        u16::try_from(reply["status"].as_u64().unwrap()).unwrap(),
                        &body,
                    );
                }
                let events = world.take_events();
                let released = events
                    .iter()
                    .any(|(_, event)| matches!(event, Event::Release(_, Outcome::Stale)));
                assert!(released && released_only(&events), "{id}: {events:?}");
            }
            class => panic!("{id}: unknown class {class}"),
        }
    }
    assert_eq!(seen, 20);
}

fn released_only(events: &[(u64, Event)]) -> bool {
    matches!(
        events,
        [
            (_, Event::Lost(..)),
            (_, Event::Release(..)),
            (_, Event::NeedLease)
        ]
    )
}

#[test]
fn no_answer_to_the_start_is_given_up_after_its_deadline() {
    let mut world = World::new(Config::default());
    let lease = lease(world.now, "a");
    world.command(|job, now| job.assign(now, lease).unwrap());
    let (start, ..) = world.asked.pop().unwrap();
    world.pass_to(4_999);
    assert!(world.aborted.is_empty());
    world.pass_to(5_000);
    assert_eq!(world.aborted, [start]);
    let events = world.take_events();
    let timed_out = events.iter().any(|(_, event)| {
        matches!(event, Event::Release(_, Outcome::Failed(failure)) if matches!(failure.cause, Cause::TimedOut { .. }))
    });
    assert!(timed_out, "{events:?}");
    // The answer that comes after all finds nobody.
    world.answer(start, Response::new(200), channels("late").as_bytes());
    world.drain();
    assert!(world.take_events().is_empty());
}

#[test]
fn cached_parameters_go_first_on_a_new_control_channel() {
    let case = case("control-after-swap");
    let params = Params::parse(case["in"]["cached_params"].as_str().unwrap()).unwrap();
    let mut world = World::new(Config::default());
    world.command(|job, now| job.update_params(now, params).unwrap());
    world.assign_well("orch-b.example");
    world.pass_to(10_000);
    let want: Vec<_> = case["out"]["commands"]
        .as_array()
        .unwrap()
        .iter()
        .map(|command| {
            (
                command["at_ms"].as_u64().unwrap(),
                command["control_write"].as_str().unwrap().to_string(),
            )
        })
        .collect();
    let have: Vec<_> = world
        .control
        .iter()
        .map(|(at, _, text)| (*at, text.clone()))
        .collect();
    assert_eq!(have, want);
}

#[test]
fn updates_in_a_burst_are_sent_one_after_the_other_and_none_is_lost() {
    let mut world = World::new(Config::default());
    world.assign_well("a");
    for n in 0..20 {
        let params = Params::parse(&format!(r#"{{"n":{n}}}"#)).unwrap();
        world.command(|job, now| job.update_params(now, params).unwrap());
    }
    let have: Vec<_> = world
        .control
        .iter()
        .map(|(.., text)| text.clone())
        .collect();
    let want: Vec<_> = (0..20).map(|n| format!(r#"{{"n":{n}}}"#)).collect();
    assert_eq!(have, want);
    let updated = world
        .take_events()
        .iter()
        .filter(|(_, event)| matches!(event, Event::Updated))
        .count();
    assert_eq!(updated, 20);
}

#[test]
fn silence_on_the_events_channel_ends_the_orchestrator() {
    let case = case("events-silence");
    let mut world = World::new(Config::default());
    world.assign_well("a");
    for step in case["in"]["events"].as_array().unwrap().iter().skip(1) {
        world.pass_to(step["at_ms"].as_u64().unwrap());
        // Output flows all the time; only events are silent.
        world.command(LiveVideoJob::output_seen);
        if step.get("event").is_some() {
            world.runner_says(&step["event"].to_string());
        }
    }
    let released: Vec<_> = world
        .take_events()
        .into_iter()
        .filter_map(|(at, event)| match event {
            Event::Release(_, Outcome::Failed(failure)) => Some((at, failure.cause)),
            _ => None,
        })
        .collect();
    let want = case["out"]["commands"][0]["at_ms"].as_u64().unwrap();
    assert!(
        matches!(&released[..], [(at, Cause::Silent { what: "events", .. })] if *at == want),
        "{released:?}"
    );
}

#[test]
fn garbage_on_the_events_channel_is_skipped_and_is_no_sign_of_life() {
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.take_events();
    for garbage in ["[1,2]", "{\"event\":", ""] {
        world.runner_says(garbage);
    }
    assert!(world.take_events().is_empty());
    world.pass_to(39_999);
    world.runner_says("nonsense");
    world.pass_to(40_000);
    let events = world.take_events();
    assert!(
        released_only(&events) && events[0].0 == 40_000,
        "{events:?}"
    );
}

#[test]
fn the_status_of_a_new_orchestrator_outlives_the_old_one() {
    let case = case("status-clear");
    let mut world = World::new(Config::default());
    world.assign_well("orch-a.example");
    world.pass_to(1_000);
    world.runner_says(r#"{"type":"status","state":"ONLINE"}"#);
    world.pass_to(2_000);
    world.lose_media();
    world.next_event = 0;
    world.assign_well("orch-b.example");
    world.pass_to(3_000);
    world.runner_says(r#"{"type":"status","state":"LOADING"}"#);
    world.pass_to(20_000);
    let status = world.job.status().unwrap();
    assert_eq!(status.event["state"], case["out"]["status_at_end"]["state"]);
    assert_eq!(
        status.event["orchestrator_info"]["url"],
        "https://orch-b.example:8935"
    );
}

#[test]
fn one_segment_too_many_in_flight_means_slow() {
    for id in ["slow", "slow-recovers"] {
        let case = case(id);
        let mut world = World::new(Config::default());
        world.assign_well("a");
        world.take_events();
        for step in case["in"]["events"].as_array().unwrap() {
            world.pass_to(step["at_ms"].as_u64().unwrap());
            if step.get("segment").is_some() {
                world.command(LiveVideoJob::input_begun);
            } else {
                world.command(LiveVideoJob::input_done);
            }
        }
        let commands = case["out"]["commands"].as_array().unwrap();
        let ends = commands
            .iter()
            .find(|command| command.get("end_orchestrator").is_some());
        let released = world
            .take_events()
            .into_iter()
            .find_map(|(at, event)| match event {
                Event::Release(_, Outcome::Failed(_)) => Some(at),
                _ => None,
            });
        assert_eq!(
            released,
            ends.map(|command| command["at_ms"].as_u64().unwrap()),
            "{id}"
        );
    }
}

#[test]
fn swaps_are_limited_when_they_follow_closely() {
    for id in ["swap-limit", "swap-slow-pace"] {
        let case = case(id);
        // Only the orchestrator's end decides here.
        let config = Config {
            event_silence: Duration::from_secs(100_000),
            output_silence: Duration::from_secs(100_000),
            ..Config::default()
        };
        let mut world = World::new(config);
        world.assign_well("a");
        world.take_events();
        let mut have = Vec::new();
        for step in case["in"]["events"].as_array().unwrap().iter().skip(1) {
            let at = step["at_ms"].as_u64().unwrap();
            world.pass_to(at);
            world.lose_media();
            match world.take_events().last() {
                Some((_, Event::NeedLease)) => {
                    have.push((at, "swap"));
                    world.assign_well("b");
                    world.take_events();
                }
                Some((_, Event::Ended(Ending::Failed(_)))) => have.push((at, "stop")),
                other => panic!("{id} at {at}: {other:?}"),
            }
        }
        let want: Vec<_> = case["out"]["commands"]
            .as_array()
            .unwrap()
            .iter()
            .map(|command| {
                (
                    command["at_ms"].as_u64().unwrap(),
                    if command.get("swap").is_some() {
                        "swap"
                    } else {
                        "stop"
                    },
                )
            })
            .collect();
        assert_eq!(have, want, "{id}");
    }
}

#[test]
fn once_the_input_is_over_no_other_orchestrator_is_asked() {
    assert_eq!(case("swap-no-input")["kind"], "state");
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.pass_to(5_000);
    world.command(LiveVideoJob::input_closed);
    world.take_events();
    world.pass_to(5_001);
    world.command(|job, now| job.media_ended(now, None));
    let events = world.take_events();
    assert!(
        matches!(
            &events[..],
            [
                (_, Event::Release(_, Outcome::Done { .. })),
                (_, Event::Ended(Ending::Finished))
            ]
        ),
        "{events:?}"
    );
}

#[test]
fn a_job_stopped_while_it_starts_leaves_no_session_behind() {
    let mut world = World::new(Config::default());
    let lease = lease(world.now, "a");
    world.command(|job, now| job.assign(now, lease).unwrap());
    world.command(LiveVideoJob::stop);
    world.take_events();
    let (id, ..) = world.asked.pop().unwrap();
    let now = world.now;
    world
        .job
        .handle_input(now, Input::Http(id, In::Reply(Response::new(200))));
    world
        .job
        .handle_input(now, Input::Http(id, In::Data(channels("m9").into())));
    world
        .job
        .handle_input(now, Input::Http(id, In::End(Headers::new())));
    let mut deleted = None;
    loop {
        match world.job.poll_output() {
            Output::Effect(id, Effect::Http(Out::Request(request)))
                if request.method == Method::Delete =>
            {
                assert_eq!(request.url.to_string(), "https://a:8935/ai/trickle/m9");
                deleted = Some(id);
            }
            Output::Effect(id, Effect::Http(out)) => world.on_http(id, out),
            Output::Event(event) => assert!(
                !matches!(event, Event::Ended(_)),
                "before the session is closed"
            ),
            Output::Idle(_) => break,
            other @ Output::Effect(..) => panic!("{other:?}"),
        }
    }
    let deleted = deleted.expect("the session is deleted");
    world.answer(deleted, Response::new(200), b"");
    world.drain();
    assert!(matches!(
        world.take_events().last(),
        Some((_, Event::Ended(Ending::Stopped)))
    ));
}

#[test]
fn after_the_end_nothing_is_open_and_nothing_is_said() {
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.command(LiveVideoJob::stop);
    assert!(matches!(
        world.take_events().last(),
        Some((_, Event::Ended(Ending::Stopped)))
    ));
    assert!(
        world.events_get.is_none() && world.posting.is_empty(),
        "the job's channels are closed"
    );
    assert_eq!(world.wake, None);
    world.pass_to(120_000);
    world.command(LiveVideoJob::stop);
    assert!(world.take_events().is_empty() && world.asked.is_empty());
    let lease = lease(world.now, "b");
    world.command(|job, now| assert!(job.assign(now, lease).is_err()));
}

#[test]
fn an_orchestrator_whose_word_is_always_stale_is_not_asked_forever() {
    let mut world = World::new(Config {
        start_tries: 1,
        ..Config::default()
    });
    let mut outcomes = Vec::new();
    // Four at each of the hosts, as a pool would lend them that has no others.
    for round in 0..40 {
        if !world.job.needs_lease() {
            break;
        }
        let host = format!("orch-{}.example", round / 4);
        let lease = lease(world.now, &host);
        world.command(|job, now| job.assign(now, lease).unwrap());
        if !world.asked.is_empty() {
            world.answer_start(400, "TicketParams expired");
        }
        let outcome = |(_, event)| match event {
            Event::Release(_, outcome) => Some(outcome),
            _ => None,
        };
        let events = world.take_events();
        if let Some((_, Event::Ended(ending))) = events.last() {
            assert!(matches!(ending, Ending::Failed(_)), "{ending:?}");
        }
        outcomes.extend(events.into_iter().filter_map(outcome));
    }
    assert!(!world.job.needs_lease(), "it would go on forever");
    let tries = outcomes
        .iter()
        .filter(|one| **one == Outcome::Stale)
        .count();
    assert_eq!(tries, 20, "the reference's twenty tries");
    for four in outcomes.chunks_exact(4) {
        assert!(matches!(
            four,
            [
                Outcome::Stale,
                Outcome::Stale,
                Outcome::Stale,
                Outcome::Failed(_)
            ]
        ));
    }
}

#[test]
fn what_the_runner_said_last_is_why_it_ended_the_session() {
    let complaint = r#"{"event":{"type":"error","message":"insufficient balance"}}"#;
    for before in [true, false] {
        let mut world = World::new(Config::default());
        world.assign_well("a");
        world.take_events();
        if before {
            world.runner_says(complaint);
            world.take_events();
        }
        world.command(|job, now| job.media_ended(now, None));
        if !before {
            assert!(world.take_events().is_empty(), "it may still say why");
            world.runner_says(complaint);
        }
        let lost = world
            .take_events()
            .into_iter()
            .find_map(|(_, event)| match event {
                Event::Lost(_, failure) => Some(failure.cause),
                _ => None,
            });
        assert_eq!(lost, Some(Cause::Ended("insufficient balance".into())));
    }
    // An old complaint explains nothing.
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.runner_says(complaint);
    world.pass_to(5_000);
    world.take_events();
    world.lose_media();
    let events = world.take_events();
    let (_, Event::Lost(_, failure)) = &events[0] else {
        panic!("{events:?}");
    };
    assert_eq!(failure.cause, Cause::Gone("a media channel"));
}

#[test]
fn a_job_ends_whichever_of_its_channels_was_closed_first() {
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.close_control();
    world.pass_to(world.ms() + 250);
    let events = world.take_events();
    assert!(
        matches!(events.last(), Some((_, Event::NeedLease))),
        "{events:?}"
    );
    world.command(|job, now| job.no_lease(now).unwrap());
    assert!(matches!(
        world.take_events()[..],
        [(_, Event::Ended(Ending::NoOrchestrator))]
    ));
}

/// When the orchestrator at work was lost, if it was.
fn lost_at(world: &mut World) -> Option<u64> {
    world
        .take_events()
        .into_iter()
        .find_map(|(at, event)| matches!(event, Event::Lost(..)).then_some(at))
}

#[test]
fn what_the_output_owes_decides_what_a_loss_after_the_input_means() {
    for owed in [Owed::Something, Owed::Nothing, Owed::Unknown] {
        let mut world = World::new(Config::default());
        world.assign_well("a");
        world.command(|job, now| job.set_owed(now, owed));
        world.command(LiveVideoJob::input_closed);
        world.pass_to(1_000);
        let party = Party::Channel(Url::parse("https://a:8935/out").unwrap());
        let broken = Failure::new(party, Cause::Link(Fault::Broken("reset".into())));
        world.take_events();
        world.command(|job, now| job.media_ended(now, Some(broken.clone())));
        let events = world.take_events();
        match (owed, events.last()) {
            (Owed::Something, Some((_, Event::NeedLease))) => {}
            (Owed::Nothing, Some((_, Event::Ended(Ending::Finished)))) => continue,
            (Owed::Unknown, Some((_, Event::Ended(Ending::Failed(failure))))) => {
                assert_eq!(failure.cause, broken.cause);
                continue;
            }
            other => panic!("{other:?}"),
        }
        world.assign_well("b");
        let started = world
            .take_events()
            .into_iter()
            .find_map(|(_, event)| match event {
                Event::Started(started) => Some(started),
                _ => None,
            });
        let started = started.expect("b takes the job");
        assert_eq!((started.orchestrator.host(), started.swaps), ("b", 1));
        // What is owed has come: now it may end.
        world.command(|job, now| job.set_owed(now, Owed::Nothing));
        world.command(|job, now| job.media_ended(now, None));
        let ended = world.take_events();
        assert!(
            matches!(ended.last(), Some((_, Event::Ended(Ending::Finished)))),
            "{ended:?}"
        );
    }
}

#[test]
fn an_orchestrator_that_takes_no_input_is_stuck_unless_something_moves() {
    let mut world = World::new(Config::default());
    world.assign_well("a");
    world.take_events();
    world.pass_to(1_000);
    world.command(|job, now| job.set_input_waits(now, true));
    world.pass_to(5_000);
    // Said again it is no news; a delivery is.
    world.command(|job, now| job.set_input_waits(now, true));
    world.command(LiveVideoJob::input_done);
    world.command(|job, now| job.set_input_waits(now, true));
    world.pass_to(9_999);
    assert_eq!(lost_at(&mut world), None);
    world.pass_to(20_000);
    assert_eq!(lost_at(&mut world), Some(10_000));
    // Whoever has nothing to say does not wait.
    world.assign_well("b");
    world.command(|job, now| job.set_input_waits(now, true));
    world.command(|job, now| job.set_input_waits(now, false));
    world.pass_to(29_000);
    assert_eq!(lost_at(&mut world), None);
}

#[test]
fn a_dead_orchestrator_is_left_at_once_by_jobs_with_somewhere_else_to_go() {
    for leave_dead in [true, false] {
        let config = Config {
            leave_dead,
            ..Config::default()
        };
        let mut world = World::new(config);
        world.assign_well("a");
        world.take_events();
        world.pass_to(2_000);
        let mut break_off = |fault: Fault| {
            let (id, _) = world.events_get.take()?;
            world
                .job
                .handle_input(world.now, Input::Http(id, In::Failed(fault)));
            world.drain();
            Some(world.now)
        };
        break_off(Fault::Broken("reset".into()));
        // A connection that breaks may be bad luck: another one is tried.
        let again = break_off(Fault::Connect("refused".into()));
        assert_eq!(again.is_some(), leave_dead, "at once, or after a pause");
        assert_eq!(lost_at(&mut world), leave_dead.then_some(2_000));
    }
}
