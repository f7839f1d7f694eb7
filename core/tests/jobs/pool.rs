//! The session pool against a network of scripted orchestrators under virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use k256::ecdsa::SigningKey;
use livepeer_core::capabilities::{Capabilities, Capability, Model};
use livepeer_core::handshake::{Identity, Rejection, Signers};
use livepeer_core::http::{self, Fault, Headers, Out, Response, Url};
use livepeer_core::pool::{
    Attempts, Budget, Candidate, Config, Event, Lease, Outcome, Quickest, Selector, SessionPool,
    Spent, Why,
};
use livepeer_core::signers::Standing;
use livepeer_core::wire::grpc::{self, Status};
use livepeer_core::wire::identity_digest;
use livepeer_core::{
    Address, Cause, Effect, EffectId, Failure, Input, Machine, Output, Party, Rng, Time,
};
use livepeer_proto::net;

/// How an orchestrator behaves, and how many milliseconds it takes.
#[derive(Clone)]
enum Is {
    Good(u64),
    /// Good, but says that it lives there.
    Alias(u64, &'static str),
    /// Good, and names others.
    Knows(u64, &'static [&'static str]),
    /// Takes no work itself, and names others.
    Front(u64, &'static [&'static str]),
    Incapable(u64),
    Full(u64),
    Gone(u64),
    Silent,
    /// Good, but has yet to load the model.
    Cold(u64),
    /// Good at live video and at pictures.
    Both(u64),
}

/// The quickest, unless it is told to want nobody.
#[derive(Default)]
struct Picky(std::rc::Rc<std::cell::Cell<bool>>);

impl Selector for Picky {
    fn select(&mut self, rng: &mut Rng, from: &[Candidate<'_>]) -> Option<usize> {
        if self.0.get() {
            None
        } else {
            Quickest.select(rng, from)
        }
    }
}

struct World {
    pool: SessionPool<Picky>,
    now: Time,
    nodes: BTreeMap<String, Is>,
    /// What arrives when.
    mail: Vec<(Time, EffectId, Vec<http::In>)>,
    asked: Vec<(Time, String)>,
    events: Vec<Event>,
    signer: Option<(SigningKey, Address)>,
    stored: BTreeMap<String, Vec<u8>>,
    wake: Option<Time>,
    most_at_once: usize,
    picky: std::rc::Rc<std::cell::Cell<bool>>,
}

const START: Time = Time::from_secs(5_000);

fn url(host: &str) -> Url {
    Url::parse(&format!("https://{host}:8935")).unwrap()
}

impl World {
    fn new(config: Config, nodes: &[(&str, Is)]) -> Self {
        Self::with_identity(config, nodes, Identity::Offchain)
    }

    fn with_identity(config: Config, nodes: &[(&str, Is)], identity: Identity) -> Self {
        Self::wanting(config, nodes, identity, Capabilities::live_video("noop"))
    }

    fn wanting(
        config: Config,
        nodes: &[(&str, Is)],
        identity: Identity,
        wanted: Capabilities,
    ) -> Self {
        let picky = std::rc::Rc::default();
        let selector = Picky(std::rc::Rc::clone(&picky));
        Self {
            picky,
            pool: SessionPool::new(START, config, identity, wanted, selector, [7; 32]),
            now: START,
            nodes: nodes
                .iter()
                .map(|(host, is)| ((*host).to_string(), is.clone()))
                .collect(),
            mail: Vec::new(),
            asked: Vec::new(),
            events: Vec::new(),
            signer: None,
            stored: BTreeMap::new(),
            wake: None,
            most_at_once: 0,
        }
    }

    fn offer(&mut self, hosts: &[&str]) {
        self.pool
            .offer(self.now, hosts.iter().map(|host| url(host)).collect());
        self.drain();
    }

    fn take(&mut self) -> Option<Lease> {
        let lease = self.pool.take(self.now);
        self.drain();
        lease
    }

    fn give_back(&mut self, lease: Lease, outcome: Outcome) {
        self.pool.give_back(self.now, lease, outcome);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.pool.poll_output() {
                Output::Effect(id, Effect::Http(Out::Request(request))) => self.serve(id, &request),
                Output::Effect(id, Effect::Http(Out::Abort)) => {
                    self.mail.retain(|(_, to, _)| *to != id);
                }
                Output::Effect(_, Effect::Store(record)) => {
                    let value = record.value.expect("records are kept, not forgotten");
                    self.stored.insert(record.key, value.to_vec());
                }
                Output::Effect(_, other) => panic!("{other:?}"),
                Output::Event(event) => self.events.push(event),
                Output::Idle(wake) => {
                    assert!(wake.is_none_or(|wake| wake > self.now), "woken in the past");
                    self.wake = wake;
                    self.most_at_once = self.most_at_once.max(self.mail.len());
                    return;
                }
            }
        }
    }

    fn serve(&mut self, id: EffectId, request: &http::Request) {
        let host = request.url.host().to_string();
        self.asked.push((self.now, host.clone()));
        if request.url.path() == "/sign-orchestrator-info" {
            if matches!(self.nodes.get(&host), Some(Is::Silent)) {
                return;
            }
            let mut steps = vec![
                http::In::Reply(Response::new(500)),
                http::In::End(Headers::new()),
            ];
            if let Some((key, address)) = &self.signer {
                let digest = identity_digest(*address);
                let (signature, recovery) = key.sign_prehash_recoverable(&digest.0).unwrap();
                let mut bytes = signature.to_vec();
                bytes.push(27 + recovery.to_byte());
                let signature = hex::encode(bytes);
                let body = format!(r#"{{"address":"{address}","signature":"{signature}"}}"#);
                steps[0] = http::In::Reply(Response::new(200));
                steps.insert(1, http::In::Data(body.into_bytes().into()));
            }
            self.mail
                .push((self.now + Duration::from_millis(10), id, steps));
            return;
        }
        let is = self.nodes.get(&host).cloned().unwrap_or(Is::Gone(1));
        let (took, step) = match is {
            Is::Silent => return,
            Is::Gone(ms) => {
                let fault = Fault::Connect("connection refused".into());
                let at = self.now + Duration::from_millis(ms);
                return self.mail.push((at, id, vec![http::In::Failed(fault)]));
            }
            Is::Good(ms) => (ms, Ok(info(self.now, &host, "noop", &[]))),
            Is::Alias(ms, name) => (ms, Ok(info(self.now, name, "noop", &[]))),
            Is::Knows(ms, others) => (ms, Ok(info(self.now, &host, "noop", others))),
            Is::Front(ms, others) => {
                let mut front = info(self.now, &host, "noop", others);
                front.transcoder.clear();
                (ms, Ok(front))
            }
            Is::Cold(ms) => {
                let mut cold = info(self.now, &host, "noop", &[]);
                let offered = cold
                    .capabilities
                    .as_mut()
                    .unwrap()
                    .constraints
                    .as_mut()
                    .unwrap();
                for model in offered
                    .per_capability
                    .get_mut(&35)
                    .unwrap()
                    .models
                    .values_mut()
                {
                    model.warm = false;
                }
                (ms, Ok(cold))
            }
            Is::Both(ms) => {
                let mut both = info(self.now, &host, "noop", &[]);
                let video = Capabilities::from_wire(both.capabilities.take().unwrap()).unwrap();
                let painter = Model {
                    warm: true,
                    capacity: 1,
                    ..Default::default()
                };
                let offered = video.and_model(Capability::TEXT_TO_IMAGE, "sd", painter);
                both.capabilities = Some(offered.to_wire());
                (ms, Ok(both))
            }
            Is::Incapable(ms) => (ms, Ok(info(self.now, &host, "other", &[]))),
            Is::Full(ms) => (ms, Err("Invalid orchestrator request: OrchestratorCapped")),
        };
        let steps = match step {
            Ok(info) => grpc::reply(&info).to_vec(),
            Err(text) => vec![grpc::refuse(&Status::new(2, text))],
        };
        let mut heard: Vec<http::In> = Vec::new();
        for step in steps {
            match step {
                Out::Reply(head) => heard.push(http::In::Reply(head)),
                Out::Data(data) => heard.push(http::In::Data(data)),
                Out::EndWith(trailers) => heard.push(http::In::End(trailers)),
                other => panic!("{other:?}"),
            }
        }
        if heard.len() == 1 {
            heard.push(http::In::End(Headers::new()));
        }
        self.mail
            .push((self.now + Duration::from_millis(took), id, heard));
    }

    /// Lets time run, to the next thing that happens, at most until `end`. Whether anything happened.
    fn step(&mut self, end: Time) -> bool {
        let mail = self.mail.iter().map(|(at, ..)| *at).min();
        let Some(next) = mail
            .into_iter()
            .chain(self.wake)
            .min()
            .filter(|at| *at <= end)
        else {
            return false;
        };
        self.now = self.now.max(next);
        match self.mail.iter().position(|(at, ..)| *at <= self.now) {
            Some(at) => {
                let (_, id, steps) = self.mail.remove(at);
                for step in steps {
                    self.pool.handle_input(self.now, Input::Http(id, step));
                    self.drain();
                }
            }
            None => {
                self.pool.handle_input(self.now, Input::Tick);
                self.drain();
            }
        }
        true
    }

    fn run(&mut self, by: Duration) {
        let end = self.now + by;
        while self.step(end) {}
        self.now = end;
        self.pool.handle_input(end, Input::Tick);
        self.drain();
    }

    fn ms(&mut self, ms: u64) {
        self.run(Duration::from_millis(ms));
    }

    /// Runs until there is a lease; panics if there is none after ten minutes.
    fn lease(&mut self) -> Lease {
        let end = self.now + Duration::from_secs(600);
        loop {
            if let Some(lease) = self.take() {
                return lease;
            }
            assert!(self.step(end), "no lease, and nothing more happens");
        }
    }

    fn exhausted(&mut self) -> Vec<livepeer_core::pool::Tried> {
        let at = self
            .events
            .iter()
            .position(|event| matches!(event, Event::Exhausted(_)));
        match self.events.remove(at.expect("it is exhausted")) {
            Event::Exhausted(tried) => tried,
            _ => unreachable!("it was found"),
        }
    }

    fn asked(&self, host: &str) -> usize {
        self.asked.iter().filter(|(_, asked)| asked == host).count()
    }
}

fn info(now: Time, host: &str, model: &str, nodes: &[&str]) -> net::OrchestratorInfo {
    let offered = Capabilities {
        version: "0.9.1".into(),
        ..Capabilities::common().and_model(
            Capability::LIVE_VIDEO_TO_VIDEO,
            model,
            Model {
                warm: true,
                capacity: 1,
                ..Default::default()
            },
        )
    };
    net::OrchestratorInfo {
        transcoder: url(host).to_string(),
        capabilities: Some(offered.to_wire()),
        auth_token: Some(net::AuthToken {
            token: vec![1].into(),
            session_id: format!("{host}-{}", now.as_secs()),
            expiration: now.as_secs() as i64 + 1_800,
        }),
        nodes: nodes.iter().map(|host| url(host).to_string()).collect(),
        ..Default::default()
    }
}

fn broken(lease: &Lease) -> Outcome {
    Outcome::Failed(Failure::new(
        Party::Orchestrator(lease.url().clone()),
        Cause::Gone("the output channel"),
    ))
}

fn one_ready() -> Config {
    Config {
        ready: 1,
        ..Config::default()
    }
}

#[test]
fn the_first_good_answers_win() {
    let mut world = World::new(
        Config::default(),
        &[
            ("a", Is::Silent),
            ("b", Is::Good(300)),
            ("c", Is::Good(20)),
            ("d", Is::Incapable(5)),
        ],
    );
    world.offer(&["a", "b", "c", "d"]);
    assert!(world.take().is_none());
    world.ms(20);
    let lease = world.take().expect("one answered");
    assert_eq!(lease.url(), &url("c"));
    assert_eq!(lease.latency(), Duration::from_millis(20));
    assert_eq!(world.pool.lent(), 1);
    world.ms(280);
    let second = world.take().expect("the next one answered");
    assert_eq!(second.url(), &url("b"));
    world.give_back(lease, Outcome::Done { first_byte: None });
    world.give_back(second, Outcome::Unused);
    assert_eq!(world.pool.lent(), 0);
}

#[test]
fn few_are_asked_at_a_time_and_slow_ones_do_not_hold_up_the_others() {
    let hosts: Vec<String> = (0..40).map(|n| format!("n{n}")).collect();
    let nodes: Vec<(&str, Is)> = hosts
        .iter()
        .map(|host| (host.as_str(), Is::Silent))
        .collect();
    let mut world = World::new(Config::default(), &nodes);
    world.offer(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
    world.ms(499);
    assert_eq!(world.asked.len(), 5);
    world.ms(1);
    assert_eq!(world.asked.len(), 10);
    world.ms(4_499);
    assert_eq!(world.asked.len(), 20, "so many at once and no more");
    world.run(Duration::from_secs(60));
    assert!(world.asked("n39") >= 1, "but all of them in the end");
}

#[test]
fn enough_ready_sessions_are_enough() {
    let nodes = [
        ("a", Is::Good(5)),
        ("b", Is::Good(5)),
        ("c", Is::Good(5)),
        ("d", Is::Good(5)),
    ];
    let config = Config {
        in_flight: 1,
        ..Config::default()
    };
    let mut world = World::new(config, &nodes);
    world.offer(&["a", "b", "c", "d"]);
    world.ms(1_000);
    assert_eq!(world.asked.len(), 2);
    assert_eq!(world.pool.ready(), 2);
    let lease = world.take().unwrap();
    world.ms(1_000);
    assert_eq!(world.asked.len(), 3, "the place of the lent one is filled");
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn when_all_were_tried_the_error_says_what_each_did() {
    let mut world = World::new(
        Config::default(),
        &[
            ("a", Is::Silent),
            ("b", Is::Incapable(5)),
            ("c", Is::Full(5)),
            ("d", Is::Gone(5)),
        ],
    );
    world.offer(&["a", "b", "c", "d"]);
    assert!(world.take().is_none());
    world.ms(5_000);
    let tried = world.exhausted();
    assert_eq!(tried.len(), 4);
    let text: Vec<String> = tried.iter().map(ToString::to_string).collect();
    assert!(
        text[0].contains("no answer to the handshake within 5s"),
        "{}",
        text[0]
    );
    assert!(
        matches!(&tried[1].why, Why::Rejected(Rejection::Mismatch(_))),
        "{}",
        text[1]
    );
    assert_eq!(tried[2].why, Why::Full);
    assert!(text[3].contains("connection refused"), "{}", text[3]);
    assert!(
        world
            .events
            .iter()
            .any(|event| matches!(event, Event::Refresh))
    );
    let suspended = world
        .events
        .iter()
        .filter(|event| matches!(event, Event::Suspended(..)));
    assert_eq!(suspended.count(), 2, "only those that failed");
}

#[test]
fn nothing_found_is_an_answer_and_nothing_offered_yet_is_none() {
    let mut world = World::new(Config::default(), &[]);
    assert!(world.take().is_none());
    assert!(matches!(world.events.remove(0), Event::Refresh));
    assert!(world.events.is_empty());
    world.offer(&[]);
    assert!(world.exhausted().is_empty());
}

#[test]
fn faults_suspend_for_longer_each_time_and_work_forgives() {
    let mut world = World::new(one_ready(), &[("a", Is::Good(5))]);
    world.offer(&["a"]);
    for penalty in [10, 20, 40, 80] {
        let lease = world.lease();
        let outcome = broken(&lease);
        let at = world.now;
        world.give_back(lease, outcome);
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
    let outcome = broken(&lease);
    world.give_back(lease, outcome);
    world.run(Duration::from_millis(10_005));
    let lease = world.take().expect("back at the first penalty");
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn a_long_quiet_time_heals() {
    let mut world = World::new(one_ready(), &[("a", Is::Good(5))]);
    world.offer(&["a"]);
    for _ in 0..3 {
        let lease = world.lease();
        let outcome = broken(&lease);
        world.give_back(lease, outcome);
        world.run(Duration::from_secs(41));
    }
    world.run(Duration::from_secs(3 * 600));
    let lease = world.lease();
    let outcome = broken(&lease);
    world.give_back(lease, outcome);
    world.run(Duration::from_millis(10_005));
    let lease = world.take().expect("the first penalty again");
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn a_penalty_never_exceeds_its_bound() {
    let mut world = World::new(one_ready(), &[("a", Is::Good(5))]);
    world.offer(&["a"]);
    let bound = one_ready().max_penalty;
    for _ in 0..12 {
        let lease = world.lease_within(bound + Duration::from_secs(1));
        let outcome = broken(&lease);
        world.give_back(lease, outcome);
    }
}

impl World {
    fn lease_within(&mut self, within: Duration) -> Lease {
        let end = self.now + within;
        loop {
            if let Some(lease) = self.take() {
                return lease;
            }
            assert!(self.step(end), "no lease in time");
        }
    }
}

#[test]
fn a_users_own_fault_and_a_lack_of_capacity_suspend_nobody() {
    let mut world = World::new(one_ready(), &[("a", Is::Good(5))]);
    world.offer(&["a"]);
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
fn idle_sessions_are_kept_fresh() {
    let mut world = World::new(one_ready(), &[("a", Is::Good(5))]);
    world.offer(&["a"]);
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
    let mut world = World::new(one_ready(), &[("a", Is::Good(5))]);
    world.offer(&["a"]);
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
    let mut world = World::new(config, &[("a", Is::Good(5))]);
    world.offer(&["a"]);
    world.ms(5);
    let leases: Vec<Lease> = (0..3).map(|_| world.take().expect("shared")).collect();
    assert!(world.take().is_none());
    assert_eq!(world.exhausted()[0].why, Why::Lent);
    assert_eq!(world.pool.lent(), 3);
    for lease in leases {
        let outcome = broken(&lease);
        world.give_back(lease, outcome);
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

#[test]
fn two_addresses_of_one_orchestrator_are_one() {
    let mut world = World::new(
        Config::default(),
        &[("a", Is::Good(5)), ("b", Is::Alias(50, "a"))],
    );
    world.offer(&["a", "b", "a"]);
    world.ms(100);
    assert_eq!(world.pool.ready(), 1);
    let lease = world.take().unwrap();
    assert!(world.take().is_none());
    let tried = world.exhausted();
    assert_eq!(tried[1].why, Why::Same(url("a")));
    let outcome = broken(&lease);
    world.give_back(lease, outcome);
    assert!(
        world.take().is_none(),
        "its other name is no way around the suspension"
    );
}

#[test]
fn named_nodes_are_asked_once_and_no_deeper() {
    let nodes = [
        ("a", Is::Knows(5, &["n1", "n2"])),
        ("n1", Is::Knows(5, &["n3"])),
        ("f", Is::Front(5, &["w"])),
        ("w", Is::Good(5)),
    ];
    let config = Config {
        extra_nodes: 1,
        ready: 9,
        ..Config::default()
    };
    let mut world = World::new(config, &nodes);
    world.offer(&["a", "f"]);
    world.ms(1_000);
    assert_eq!(world.asked("n1"), 1);
    assert_eq!(world.asked("n2"), 0, "only so many of them");
    assert_eq!(world.asked("n3"), 0, "and none that these name");
    assert_eq!(world.asked("w"), 1, "who takes no work sends us on");
    assert_eq!(world.pool.ready(), 3);
}

#[test]
fn the_signer_is_asked_once_for_all() {
    let key = SigningKey::from_slice(&[3; 32]).unwrap();
    let address = Address::of_key(key.verifying_key());
    let nodes = [("a", Is::Good(5)), ("b", Is::Good(5)), ("c", Is::Good(5))];
    let identity = Identity::remote(url("signer"));
    let mut world = World::with_identity(Config::default(), &nodes, identity);
    world.signer = Some((key, address));
    world.offer(&["a", "b", "c"]);
    world.ms(1_000);
    assert_eq!(world.asked("signer"), 1);
    assert!(matches!(world.events[0], Event::Identified(who, _) if who == address));
    let lease = world.take().unwrap();
    assert_eq!(lease.payer().map(|(who, _)| who), Some(address));
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn a_lease_knows_which_signer_is_silent() {
    let key = SigningKey::from_slice(&[3; 32]).unwrap();
    let address = Address::of_key(key.verifying_key());
    let nodes = [("a", Is::Good(5)), ("quiet", Is::Silent)];
    let signers = Signers::new(url("quiet")).or(url("signer"));
    let mut world = World::with_identity(one_ready(), &nodes, Identity::Remote(signers));
    world.signer = Some((key, address));
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
    assert!(matches!(world.events.remove(0), Event::NoIdentity(_)));
    assert!(world.events.is_empty());
    assert_eq!(world.asked("signer"), 1, "nobody is asked again by itself");
    let key = SigningKey::from_slice(&[3; 32]).unwrap();
    let address = Address::of_key(key.verifying_key());
    world.signer = Some((key, address));
    let lease = world.lease();
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn a_lease_can_keep_its_own_session_fresh() {
    let mut world = World::new(one_ready(), &[("a", Is::Good(5))]);
    world.offer(&["a"]);
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
    let mut one = World::new(one_ready(), &[("a", Is::Good(5))]);
    one.offer(&["a"]);
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
    let outcome = broken(&lease);
    other.give_back(lease, outcome);
    assert_eq!((other.pool.lent(), other.pool.ready()), (0, 1));
    assert!(other.events.is_empty());
}

#[test]
fn with_patience_the_first_job_waits_for_a_choice() {
    let config = Config {
        patience: Some(Duration::from_millis(500)),
        ready: 3,
        ..Config::default()
    };
    let nodes = [("a", Is::Good(30)), ("b", Is::Good(200)), ("c", Is::Silent)];
    let mut world = World::new(config.clone(), &nodes);
    world.offer(&["a", "b", "c"]);
    world.ms(400);
    assert!(world.take().is_none(), "two are there, and more may come");
    assert!(world.events.is_empty());
    world.ms(100);
    assert_eq!(
        world.events.len(),
        2,
        "now both are told of: {:?}",
        world.events
    );
    let lease = world.take().expect("the patience is over");
    assert_eq!(lease.url(), &url("a"));
    world.give_back(lease, Outcome::Unused);

    let nodes = [
        ("a", Is::Good(30)),
        ("b", Is::Good(40)),
        ("c", Is::Good(50)),
    ];
    let mut world = World::new(config.clone(), &nodes);
    world.offer(&["a", "b", "c"]);
    world.ms(50);
    let lease = world.take().expect("enough are enough");
    world.give_back(lease, Outcome::Unused);

    let mut world = World::new(config, &[("a", Is::Good(30)), ("b", Is::Gone(40))]);
    world.offer(&["a", "b"]);
    world.ms(40);
    let lease = world.take().expect("there is nobody left to wait for");
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn a_list_that_stands_for_all_ends_what_is_not_on_it() {
    let nodes = [
        ("a", Is::Good(5)),
        ("b", Is::Good(5)),
        ("c", Is::Good(5)),
        ("d", Is::Good(5)),
    ];
    let config = Config {
        ready: 3,
        in_flight: 3,
        ..Config::default()
    };
    let mut world = World::new(config, &nodes);
    world.offer(&["a", "b", "c", "d"]);
    world.ms(5);
    let lease = world.take().unwrap();
    assert_eq!(lease.url(), &url("a"));
    world.ms(5);
    world.pool.replace(world.now, vec![url("c")]);
    world.drain();
    assert_eq!(world.pool.ready(), 1, "only the listed one");
    let listed = world.take().unwrap();
    assert_eq!(listed.url(), &url("c"));
    world.give_back(lease, Outcome::Done { first_byte: None });
    world.give_back(listed, Outcome::Unused);
    world.pool.replace(world.now, vec![url("c")]);
    world.drain();
    assert_eq!(world.pool.ready(), 1, "and what was lent, once it is home");
    world.offer(&["b"]);
    world.ms(5);
    assert_eq!(world.pool.ready(), 2, "who is listed again is asked again");
    world.offer(&["a"]);
    world.ms(5);
    let lease = world.take().unwrap();
    let outcome = broken(&lease);
    let suspended = lease.url().clone();
    world.give_back(lease, outcome);
    world.pool.replace(world.now, vec![]);
    world.pool.replace(world.now, vec![suspended.clone()]);
    world.drain();
    world.run(Duration::from_secs(9));
    assert!(
        world.take().is_none(),
        "going and coming is no way around a suspension"
    );
    world.run(Duration::from_secs(2));
    let lease = world.take().expect("its time is over");
    assert_eq!(lease.url(), &suspended);
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn records_are_stored_and_come_back() {
    let config = Config {
        remember: true,
        ..one_ready()
    };
    let mut world = World::new(config.clone(), &[("a", Is::Good(5))]);
    world.offer(&["a"]);
    let lease = world.lease();
    world.give_back(
        lease,
        Outcome::Done {
            first_byte: Some(Duration::from_millis(80)),
        },
    );
    let lease = world.lease();
    let outcome = broken(&lease);
    world.give_back(lease, outcome);
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
fn old_deeds_fade() {
    let mut record = livepeer_core::pool::Record {
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

#[test]
fn a_selector_that_wants_none_of_those_at_hand_makes_the_pool_look_further() {
    let nodes = [("a", Is::Good(5)), ("b", Is::Good(5)), ("c", Is::Good(5))];
    let mut world = World::new(
        Config {
            in_flight: 1,
            ..one_ready()
        },
        &nodes,
    );
    world.offer(&["a", "b", "c"]);
    world.ms(5);
    world.picky.set(true);
    assert!(world.take().is_none());
    world.ms(5);
    assert_eq!(world.pool.ready(), 2, "another one might do");
    assert!(world.take().is_none());
    world.ms(5);
    assert!(world.take().is_none());
    let tried = world.exhausted();
    assert_eq!(tried.len(), 3);
    assert!(tried.iter().all(|tried| tried.why == Why::Declined));
    world.picky.set(false);
    let lease = world.take().expect("wanted again");
    world.give_back(lease, Outcome::Unused);
}

#[test]
fn warm_models_come_before_quick_ones() {
    let config = Config {
        ready: 2,
        ..Config::default()
    };
    let mut world = World::new(config, &[("a", Is::Cold(5)), ("b", Is::Good(300))]);
    world.offer(&["a", "b"]);
    world.ms(300);
    assert_eq!(
        world
            .pool
            .candidates()
            .iter()
            .filter(|one| one.warm)
            .count(),
        1
    );
    let lease = world.take().unwrap();
    assert_eq!(lease.url(), &url("b"));
    let second = world.take().expect("a cold one is better than none");
    world.give_back(lease, Outcome::Unused);
    world.give_back(second, Outcome::Unused);
}

#[test]
fn paying_gateways_keep_ticket_parameters_fresh_too() {
    let mut config = one_ready();
    config.handshake.renew_every = Some(Duration::from_secs(360));
    let mut world = World::new(config, &[("a", Is::Good(5))]);
    world.offer(&["a"]);
    world.run(Duration::from_secs(3_600));
    assert!((9..=11).contains(&world.asked("a")), "{}", world.asked("a"));
}

#[test]
fn tries_are_limited_in_all_per_orchestrator_and_in_time() {
    let (a, b) = (url("a"), url("b"));
    let mut attempts = Attempts::new(Budget::BATCH);
    for _ in 0..3 {
        attempts.begin(START, &a).unwrap();
    }
    assert_eq!(attempts.begin(START, &a), Err(Spent::Orchestrator(3)));
    attempts.begin(START + Duration::from_secs(2), &b).unwrap();
    let late = START + Duration::from_millis(2_001);
    assert!(matches!(attempts.begin(late, &b), Err(Spent::Time(_))));
    assert_eq!(attempts.tries(), 4);
    let mut attempts = Attempts::new(Budget::VIDEO_SEGMENT);
    for _ in 0..3 {
        attempts.begin(late, &a).unwrap();
    }
    assert_eq!(attempts.begin(late, &b), Err(Spent::Tries(3)));
}

#[test]
fn a_full_pool_makes_room_for_who_is_listed_now() {
    use livepeer_core::pool::MAX_NODES;
    let mut world = World::new(
        Config {
            in_flight: 64,
            hedge_after: Duration::ZERO,
            ..one_ready()
        },
        &[("new", Is::Good(5))],
    );
    let many: Vec<Url> = (0..MAX_NODES).map(|n| url(&format!("n{n}"))).collect();
    world.pool.offer(world.now, many);
    world.drain();
    world.ms(2_000);
    world.offer(&["new"]);
    assert!(world.take().is_none());
    world.run(Duration::from_secs(60));
    assert_eq!(world.asked("new"), 1);
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
    let outcome = broken(&picture);
    images.give_back(picture, outcome);
    assert!(images.take().is_none(), "suspended");
    let outcome = broken(&stream);
    video.give_back(stream, outcome);
    video.ms(100);
    let stream = video.take().expect("not suspended here");
    assert_eq!(stream.url(), &url("both"));
    video.give_back(stream, Outcome::Done { first_byte: None });
}
