//! The session pool against a network of scripted orchestrators under virtual time.

mod faults;
mod leases;
mod search;

use std::collections::BTreeMap;
use std::time::Duration;

use livepeer_core::capabilities::{Capabilities, Capability, Model};
use livepeer_core::handshake::{Identity, Rejection};
use livepeer_core::http::{self, Fault, Headers, Out, Response, Url};
use livepeer_core::pool::{
    Attempts, Candidate, Config, Event, Lease, NoMoreTries, Offered, Outcome, Quickest, Selector,
    SessionPool, TryLimit, Why,
};
use livepeer_core::signers::{SignerHealth, Signers, Standing};
use livepeer_core::store::StoreFailed;
use livepeer_core::wire::grpc::{self, Status};
use livepeer_core::{
    Address, Cause, Effect, EffectId, Failure, Input, Machine, Output, Party, Rng, Time,
};
use livepeer_proto::net;
use livepeer_sim::{Key, heard};

use crate::peers::{introduction, offer};

/// How an orchestrator behaves, and how many milliseconds it takes.
#[derive(Clone)]
enum Is {
    Good(u64),
    /// Good, and wants to be paid.
    Paid(u64),
    /// Good, but says that it lives there.
    Alias(u64, &'static str),
    /// Good, and names others.
    Knows(u64, &'static [&'static str]),
    /// Takes no work itself, and names others.
    Front(u64, &'static [&'static str]),
    /// Good, and wants to be paid as that account.
    PaidAs(u64, Address),
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
    /// Messages on their way, and when they arrive.
    mail: Vec<(Time, EffectId, Vec<http::In>)>,
    asked: Vec<(Time, String)>,
    events: Vec<Event>,
    signer: Option<Key>,
    stored: BTreeMap<String, Vec<u8>>,
    /// The store keeps nothing.
    full: bool,
    wake: Option<Time>,
    most_at_once: usize,
    quotes: u8,
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
            full: false,
            wake: None,
            most_at_once: 0,
            quotes: 0,
        }
    }

    /// A world whose pool was offered all these nodes, in this order.
    fn offering(config: Config, nodes: &[(&str, Is)]) -> Self {
        let mut world = Self::new(config, nodes);
        let hosts: Vec<&str> = nodes.iter().map(|(host, _)| *host).collect();
        world.offer(&hosts);
        world
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

    /// The lease comes home, and its orchestrator failed.
    fn fail(&mut self, lease: Lease) {
        let outcome = Outcome::Failed(Failure::new(
            Party::Orchestrator(lease.url().clone()),
            Cause::Gone("the output channel"),
        ));
        self.give_back(lease, outcome);
    }

    fn drain(&mut self) {
        loop {
            match self.pool.poll_output() {
                Output::Effect(id, Effect::Http(Out::Request(request))) => self.serve(id, &request),
                Output::Effect(id, Effect::Http(Out::Abort)) => {
                    self.mail.retain(|(_, to, _)| *to != id);
                }
                Output::Effect(id, Effect::Store(record)) => {
                    let value = record.value.expect("records are kept, not forgotten");
                    let answer = if self.full {
                        Err(StoreFailed("the disk is full".into()))
                    } else {
                        self.stored.insert(record.key, value.to_vec());
                        Ok(())
                    };
                    self.pool.handle_input(self.now, Input::Stored(id, answer));
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
            let (status, body) = match &self.signer {
                Some(key) => (200, introduction(key)),
                None => (500, String::new()),
            };
            let steps = vec![
                http::In::Reply(Response::new(status)),
                http::In::Data(body.into()),
                http::In::End(Headers::new()),
            ];
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
            Is::Paid(ms) => {
                let mut quote = info(self.now, &host, "noop", &[]);
                self.quotes += 1;
                quote.ticket_params = Some(net::TicketParams {
                    recipient_rand_hash: vec![self.quotes; 32].into(),
                    ..Default::default()
                });
                (ms, Ok(quote))
            }
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
            Is::PaidAs(ms, account) => {
                let mut good = info(self.now, &host, "noop", &[]);
                good.ticket_params = Some(net::TicketParams {
                    recipient: account.0.to_vec().into(),
                    face_value: vec![1].into(),
                    win_prob: vec![1].into(),
                    ..Default::default()
                });
                (ms, Ok(good))
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
        self.mail
            .push((self.now + Duration::from_millis(took), id, heard(steps)));
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
        self.lease_within(Duration::from_secs(600))
    }

    fn lease_within(&mut self, within: Duration) -> Lease {
        let end = self.now + within;
        loop {
            if let Some(lease) = self.take() {
                return lease;
            }
            assert!(self.step(end), "no lease, and nothing more happens in time");
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
    net::OrchestratorInfo {
        transcoder: url(host).to_string(),
        capabilities: Some(offer(model, 1).to_wire()),
        auth_token: Some(net::AuthToken {
            token: vec![1].into(),
            session_id: format!("{host}-{}", now.as_secs()),
            expiration: now.as_secs() as i64 + 1_800,
        }),
        nodes: nodes.iter().map(|host| url(host).to_string()).collect(),
        ..Default::default()
    }
}

fn one_ready() -> Config {
    Config {
        ready: 1,
        ..Config::default()
    }
}
