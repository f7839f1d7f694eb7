//! The handshake against scripted orchestrators and signers, and against the recorded bytes.

mod answers;
mod renewal;
mod signing;
mod vectors;

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::capabilities::{Capabilities, Capability, Ceilings};
use livepeer_core::handshake::{
    Class, Config, Event, Handshake, IDENTITY_HEDGE, Identity, NotAdopted, Paying, PinChange,
    Rejection, Terms,
};
use livepeer_core::http::{self, Body, Fault, Headers, Out, Response, Trust, Url};
use livepeer_core::money::Price;
use livepeer_core::sign::{BadSignature, SignRefused};
use livepeer_core::signers::{FIRST_REST, SignerHealth, Signers, Standing};
use livepeer_core::wire::grpc::{self, Status};
use livepeer_core::wire::{OrchestratorInfo, identity_digest};
use livepeer_core::{
    Address, Advice, Cause, Digest, Effect, EffectId, Input, Machine, Misuse, Party, Signature,
    Time,
};
use livepeer_proto::net;
use livepeer_sim::{Driven, Exchanges, Key, heard};
use prost::Message as _;

use crate::counted;
use crate::peers::{introduction, offer, unhex, url};

const START: Time = Time::from_secs(1_000);
const TOKEN_LIFE: u64 = 1_800;

fn orchestrator() -> Url {
    url("https://orch.example:8935")
}

/// The answer of an orchestrator that serves live video through the model `noop`.
fn answer(now: Time) -> net::OrchestratorInfo {
    net::OrchestratorInfo {
        transcoder: "https://orch.example:8935".into(),
        capabilities: Some(offer("noop", 2).to_wire()),
        price_info: Some(price(12)),
        ticket_params: Some(net::TicketParams {
            recipient: vec![7; 20].into(),
            face_value: vec![1].into(),
            win_prob: vec![1].into(),
            ..Default::default()
        }),
        auth_token: Some(net::AuthToken {
            token: vec![1, 2, 3].into(),
            session_id: "session".into(),
            expiration: (now.as_secs() + TOKEN_LIFE) as i64,
        }),
        ..Default::default()
    }
}

fn price(wei: i64) -> net::PriceInfo {
    net::PriceInfo {
        price_per_unit: wei,
        pixels_per_unit: 1,
        ..Default::default()
    }
}

/// Drives one handshake by hand.
struct Bench {
    machine: Handshake,
    now: Time,
    book: Exchanges,
    events: Vec<Event>,
    /// How signers have been, as was told last.
    health: SignerHealth,
    effects: Vec<(EffectId, Effect)>,
}

impl Bench {
    fn new(config: Config, identity: Identity) -> Self {
        Self::asking(config, identity, Capabilities::live_video("noop"))
    }

    fn asking(config: Config, identity: Identity, wanted: Capabilities) -> Self {
        let machine = Handshake::new(START, config, orchestrator(), identity, wanted);
        let mut this = Self {
            machine,
            now: START,
            book: Exchanges::default(),
            events: Vec::new(),
            health: SignerHealth::default(),
            effects: Vec::new(),
        };
        this.drain();
        this
    }

    /// A bench that has its answer already.
    fn ready(config: Config) -> Self {
        let mut bench = Self::new(config, Identity::Offchain);
        let call = bench.request();
        bench.reply(call.0, &answer(START));
        assert!(matches!(bench.event(), Event::Ready(_)));
        bench
    }

    fn sleep(&mut self, by: Duration) {
        self.now = self.now + by;
        self.input(Input::Tick);
    }

    /// Sleeps exactly until the machine wants to be woken.
    fn nap(&mut self) {
        self.now = self.drain().expect("it waits for a time");
        self.input(Input::Tick);
    }

    fn renew(&mut self) {
        self.machine.renew(self.now).unwrap();
        self.drain();
    }

    fn event(&mut self) -> Event {
        assert!(!self.events.is_empty(), "there is no event");
        self.events.remove(0)
    }

    fn quiet(&self) {
        assert!(self.events.is_empty(), "{:?}", self.events);
        assert!(self.effects.is_empty(), "{:?}", self.effects);
    }

    fn request(&mut self) -> (EffectId, http::Request) {
        assert!(!self.effects.is_empty(), "nothing is asked");
        match self.effects.remove(0) {
            (id, Effect::Http(Out::Request(request))) => (id, request),
            other => panic!("not a request: {other:?}"),
        }
    }

    fn aborted(&mut self) -> EffectId {
        match self.effects.remove(0) {
            (id, Effect::Http(Out::Abort)) => id,
            other => panic!("not an abort: {other:?}"),
        }
    }

    fn steps(&mut self, id: EffectId, steps: impl IntoIterator<Item = Out>) {
        for step in heard(steps) {
            self.http(id, step);
        }
    }

    fn reply(&mut self, id: EffectId, message: &net::OrchestratorInfo) {
        self.steps(id, grpc::reply(message));
    }

    fn refuse(&mut self, id: EffectId, code: u16, text: &str) {
        self.steps(id, [grpc::refuse(&Status::new(code, text))]);
    }

    fn json(&mut self, id: EffectId, status: u16, body: &str) {
        self.http(id, http::In::Reply(Response::new(status)));
        self.http(id, http::In::Data(Bytes::copy_from_slice(body.as_bytes())));
        self.http(id, http::In::End(Headers::new()));
    }

    fn failure(&mut self) -> livepeer_core::Failure {
        match self.event() {
            Event::Failed(failure) => failure,
            other => panic!("not a failure: {other:?}"),
        }
    }
}

impl Driven for Bench {
    livepeer_sim::driven!(machine: Handshake, book);

    fn effect(&mut self, id: EffectId, effect: Effect) {
        self.effects.push((id, effect));
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Signers(health) => self.health = health,
            event => self.events.push(event),
        }
    }
}

fn question(request: &http::Request) -> net::OrchestratorRequest {
    let Body::Full(body) = &request.body else {
        panic!("a call has all of its body");
    };
    net::OrchestratorRequest::decode(body.slice(5..)).unwrap()
}
