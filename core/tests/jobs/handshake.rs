//! The handshake against scripted orchestrators and signers, and against the recorded bytes.

use std::time::Duration;

use bytes::Bytes;
use k256::ecdsa::SigningKey;
use livepeer_core::capabilities::{Capabilities, Capability, Ceilings};
use livepeer_core::handshake::{
    Class, Config, Event, Handshake, IDENTITY_HEDGE, Identity, NotAdopted, PinChange, Rejection,
    Signers, Terms,
};
use livepeer_core::http::{self, Body, Fault, Headers, Out, Response, Trust, Url};
use livepeer_core::money::Price;
use livepeer_core::sign::{BadSignature, SignRefused};
use livepeer_core::signers::{FIRST_REST, Standing};
use livepeer_core::wire::grpc::{self, Status};
use livepeer_core::wire::{OrchestratorInfo, identity_digest};
use livepeer_core::{
    Address, Advice, Cause, Digest, Effect, EffectId, Input, Machine, Misuse, Output, Party,
    Signature, Time,
};
use livepeer_proto::net;
use prost::Message as _;
use serde_json::Value;

use crate::cases;

fn unhex(of: &Value) -> Vec<u8> {
    let text = of.as_str().unwrap();
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).unwrap()
}

fn sign(key: &SigningKey, digest: Digest) -> Signature {
    let (signature, recovery) = key.sign_prehash_recoverable(&digest.0).unwrap();
    let mut bytes = [0; 65];
    bytes[..64].copy_from_slice(&signature.to_bytes());
    bytes[64] = 27 + recovery.to_byte();
    Signature(bytes)
}

fn account(secret: u8) -> (SigningKey, Address) {
    let mut bytes = [0; 32];
    bytes[31] = secret;
    let key = SigningKey::from_bytes(&bytes.into()).unwrap();
    let address = Address::of_key(key.verifying_key());
    (key, address)
}

const START: Time = Time::from_secs(1_000);
const TOKEN_LIFE: u64 = 1_800;

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn orchestrator() -> Url {
    url("https://orch.example:8935")
}

/// The answer of an orchestrator that serves live video through the model `noop`.
fn answer(now: Time) -> net::OrchestratorInfo {
    let offered = Capabilities {
        version: "0.9.1".into(),
        ..Capabilities::common().and_model(
            Capability::LIVE_VIDEO_TO_VIDEO,
            "noop",
            livepeer_core::capabilities::Model {
                warm: true,
                capacity: 2,
                ..Default::default()
            },
        )
    };
    net::OrchestratorInfo {
        transcoder: "https://orch.example:8935".into(),
        capabilities: Some(offered.to_wire()),
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
    events: Vec<Event>,
    effects: Vec<(EffectId, Effect)>,
    wake: Option<Time>,
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
            events: Vec::new(),
            effects: Vec::new(),
            wake: None,
        };
        this.drain();
        this
    }

    /// One that has its answer already.
    fn ready(config: Config) -> Self {
        let mut bench = Self::new(config, Identity::Offchain);
        let call = bench.request();
        bench.reply(call.0, &answer(START));
        assert!(matches!(bench.event(), Event::Ready(_)));
        bench
    }

    fn drain(&mut self) {
        loop {
            match self.machine.poll_output() {
                Output::Effect(id, effect) => self.effects.push((id, effect)),
                Output::Event(event) => self.events.push(event),
                Output::Idle(wake) => {
                    assert!(wake.is_none_or(|wake| wake > self.now), "woken in the past");
                    self.wake = wake;
                    return;
                }
            }
        }
    }

    fn input(&mut self, input: Input) {
        self.machine.handle_input(self.now, input);
        self.drain();
    }

    fn http(&mut self, id: EffectId, step: http::In) {
        self.input(Input::Http(id, step));
    }

    fn sleep(&mut self, by: Duration) {
        self.now = self.now + by;
        self.input(Input::Tick);
    }

    /// Sleeps exactly until the machine wants to be woken.
    fn nap(&mut self) {
        self.now = self.wake.expect("it waits for a time");
        self.input(Input::Tick);
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
        for step in steps {
            match step {
                Out::Reply(head) => {
                    let all = matches!(head.body, Body::Empty);
                    self.http(id, http::In::Reply(head));
                    if all {
                        self.http(id, http::In::End(Headers::new()));
                    }
                }
                Out::Data(data) => self.http(id, http::In::Data(data)),
                Out::EndWith(trailers) => self.http(id, http::In::End(trailers)),
                other => panic!("{other:?}"),
            }
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

fn question(request: &http::Request) -> net::OrchestratorRequest {
    let Body::Full(body) = &request.body else {
        panic!("a call has all of its body");
    };
    net::OrchestratorRequest::decode(body.slice(5..)).unwrap()
}

// The recorded bytes.

#[test]
fn identities_are_signed_as_the_reference_signs_them() {
    let cases = cases("capabilities/handshake.json", "sign");
    assert_eq!(cases.len(), 4);
    for case in cases {
        let key = SigningKey::from_slice(&unhex(&case["private_key"])).unwrap();
        let address = Address::of_key(key.verifying_key());
        assert_eq!(address.0.as_slice(), unhex(&case["address"]));
        assert_eq!(address.checksummed(), case["message"].as_str().unwrap());
        let digest = identity_digest(address);
        assert_eq!(digest.0.as_slice(), unhex(&case["eth_text_hash"]));
        let message = livepeer_core::sign::keccak(&[address.checksummed().as_bytes()]);
        assert_eq!(message.as_slice(), unhex(&case["keccak_message"]));
        assert_eq!(
            sign(&key, digest).0.as_slice(),
            unhex(&case["signature"]),
            "{}",
            case["id"]
        );
    }
}

#[test]
fn signatures_are_judged_as_the_reference_judges_them() {
    let cases = cases("capabilities/handshake.json", "verify");
    assert_eq!(cases.len(), 6);
    for case in cases {
        let address = Address::from_wire(&unhex(&case["address"]));
        let digest = Digest::personal(&unhex(&case["message_hex"]));
        let outcome = Signature::from_slice(&unhex(&case["signature"]))
            .and_then(|signature| signature.verify(digest, address));
        assert_eq!(
            outcome.is_ok(),
            case["valid"].as_bool().unwrap(),
            "{}",
            case["id"]
        );
        match (case["error"].as_str(), outcome) {
            (Some("invalid signature length"), Err(BadSignature::Length(_)))
            | (Some("signature s value too high"), Err(BadSignature::HighS))
            | (Some("signature v value must be 27 or 28"), Err(BadSignature::V(_)))
            | (None, Ok(()) | Err(BadSignature::OtherSigner(_))) => {}
            (expected, got) => panic!("{}: {expected:?}, {got:?}", case["id"]),
        }
    }
}

#[test]
fn requests_are_the_bytes_of_the_reference() {
    let cases = cases("capabilities/handshake.json", "request_wire");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let fields = &case["fields"];
        let identity = if fields["address"].is_null() {
            Identity::Offchain
        } else {
            Identity::Static {
                address: Address::from_wire(&unhex(&fields["address"])),
                signature: Signature::from_slice(&unhex(&fields["sig"])).unwrap(),
            }
        };
        let mut wanted = Capabilities::default();
        if let Some(asked) = fields["capabilities"].as_object() {
            for (id, n) in asked["capacities"].as_object().unwrap() {
                let id = Capability::new(id.parse().unwrap()).unwrap();
                wanted.capacities.insert(id, n.as_u64().unwrap() as u32);
            }
            for (id, models) in asked["constraints"].as_object().unwrap() {
                let id = Capability::new(id.parse().unwrap()).unwrap();
                let names = models.as_object().unwrap().keys();
                let models = names.map(|name| (name.clone(), Default::default()));
                wanted.constraints.insert(id, models.collect());
            }
        }
        let config = Config {
            ignore_capacity: fields["ignoreCapacityCheck"].as_bool().unwrap_or(false),
            ..Config::default()
        };
        let mut bench = Bench::asking(config, identity, wanted);
        let (_, request) = bench.request();
        let Body::Full(body) = request.body else {
            panic!("a call has all of its body");
        };
        let (message, framed) = (unhex(&case["message_hex"]), unhex(&case["grpc_frame_hex"]));
        assert_eq!(framed[5..], message);
        if case["id"] == "wi-03" {
            // The reference writes out the empty value of a map's entry, two bytes; prost leaves it away. Protobuf
            // reads both alike.
            assert_eq!(body.len(), framed.len() - 2);
            let theirs = net::OrchestratorRequest::decode(&message[..]).unwrap();
            assert_eq!(
                net::OrchestratorRequest::decode(&body[5..]).unwrap(),
                theirs
            );
        } else {
            assert_eq!(body, framed, "{}", case["id"]);
        }
        assert_eq!(
            request.url.to_string(),
            "https://orch.example:8935/net.Orchestrator/GetOrchestrator"
        );
        assert_eq!(
            request.headers.get("content-type"),
            Some("application/grpc")
        );
        assert_eq!(request.headers.get("te"), Some("trailers"));
        assert_eq!(request.protocol, http::Protocol::Http2);
        assert_eq!(request.trust, Trust::FirstUse);
    }
}

#[test]
fn refusals_are_sorted_by_what_they_are_known_to_mean() {
    let cases = cases("capabilities/failover.json", "handshake_errors");
    assert_eq!(cases.len(), 9);
    for case in cases {
        let config = Config {
            pin_change: PinChange::Refuse,
            ..Config::default()
        };
        let mut bench = Bench::new(config, Identity::Offchain);
        let (id, _) = bench.request();
        let text = case["message"].as_str().unwrap();
        if text.contains("CERTIFICATE_VERIFY_FAILED") {
            // The reference's library hides the fact in a status; our transport tells it.
            let (remembered, seen) = ([1; 32], [2; 32]);
            bench.http(
                id,
                http::In::Failed(Fault::CertificateChanged { remembered, seen }),
            );
        } else {
            bench.refuse(id, case["grpc_status"].as_u64().unwrap() as u16, text);
        }
        let class = match Class::of(&bench.failure()) {
            Class::Auth => "auth",
            Class::Capacity => "capacity",
            Class::Payer => "payer",
            Class::Misconfigured => "orchestrator_misconfigured",
            Class::CertificateChanged => "certificate_changed",
            Class::Timeout => "timeout",
            Class::NotAnOrchestrator => "not_an_orchestrator",
            Class::Unreachable => "unreachable",
            other => panic!("{other:?}"),
        };
        assert_eq!(class, case["class"].as_str().unwrap(), "{}", case["id"]);
    }
}

// The machine.

#[test]
fn an_answer_that_fits_makes_it_ready() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (id, request) = bench.request();
    let asked = question(&request);
    assert!(asked.address.is_empty() && asked.sig.is_empty());
    assert!(!asked.ignore_capacity_check);
    bench.now = START + Duration::from_millis(70);
    bench.reply(id, &answer(START));
    let Event::Ready(info) = bench.event() else {
        panic!("it is ready");
    };
    assert_eq!(info.transcoder, orchestrator());
    assert_eq!(bench.machine.took(), Some(Duration::from_millis(70)));
    assert_eq!(bench.machine.info(), Some(&*info));
    bench.quiet();
}

#[test]
fn a_remote_signers_identity_is_checked_used_and_told() {
    let (key, address) = account(9);
    let mut headers = Headers::new();
    headers.push_any("Authorization", "Bearer x");
    let signer = Signers::new(url("https://signer.example/some/path")).headers(headers);
    let mut bench = Bench::new(Config::default(), Identity::Remote(signer));
    let (id, request) = bench.request();
    assert_eq!(
        request.url.to_string(),
        "https://signer.example:443/sign-orchestrator-info"
    );
    assert_eq!(request.headers.get("authorization"), Some("Bearer x"));
    assert_eq!(request.body, Body::Full(Bytes::from_static(b"{}")));
    assert_eq!(request.trust, Trust::Public);
    let signature = sign(&key, identity_digest(address));
    let body = format!(
        r#"{{"address":"{address}","signature":"{}"}}"#,
        hex::encode(signature.0)
    );
    bench.json(id, 200, &body);
    assert!(
        matches!(bench.event(), Event::Identified(who, with) if who == address && with == signature)
    );
    let (id, request) = bench.request();
    let asked = question(&request);
    assert_eq!(asked.address, &address.0[..]);
    assert_eq!(asked.sig, &signature.0[..]);
    assert_eq!(
        request.headers.get("authorization"),
        None,
        "signer headers stay with the signer"
    );
    bench.reply(id, &answer(START));
    assert!(matches!(bench.event(), Event::Ready(_)));
}

#[test]
fn a_signer_that_answers_nonsense_is_named() {
    let (key, _) = account(9);
    let (_, other) = account(10);
    let stolen = hex::encode(sign(&key, identity_digest(other)).0);
    let long = "x".repeat(70_000);
    for (status, body) in [
        (200, "garbage".into()),
        (200, "{}".into()),
        (200, r#"{"address":"0x12","signature":"0x"}"#.into()),
        (
            200,
            format!(r#"{{"address":"{other}","signature":"0x{stolen}"}}"#),
        ),
        (200, long),
        (500, r#"{"error":{"message":"no key today"}}"#.into()),
    ] {
        let mut bench = Bench::new(
            Config::default(),
            Identity::remote(url("http://signer:7936")),
        );
        let (id, _) = bench.request();
        bench.json(id, status, &body);
        let failure = bench.failure();
        assert_eq!(failure.who, Party::Signer(url("http://signer:7936")));
        assert_eq!(failure.advice(), Advice::Stop);
        assert_eq!(Class::of(&failure), Class::Identity);
        if status == 500 {
            assert!(failure.to_string().contains("no key today"), "{failure}");
        }
        assert_eq!(bench.wake, None);
    }
}

#[test]
fn the_next_signer_is_asked_when_one_gives_nothing() {
    let (key, address) = account(9);
    let signers = Signers::new(url("http://a:1")).or(url("http://b:2"));
    let mut bench = Bench::new(Config::default(), Identity::Remote(signers));
    let (first, _) = bench.request();
    bench.sleep(Duration::from_secs(5));
    assert_eq!(bench.aborted(), first);
    let (second, request) = bench.request();
    assert_eq!(request.url.host(), "b");
    let signature = hex::encode(sign(&key, identity_digest(address)).0);
    bench.json(
        second,
        200,
        &format!(r#"{{"address":"{address}","signature":"0x{signature}"}}"#),
    );
    assert!(matches!(bench.event(), Event::Identified(..)));
}

/// Three signers of one account, and what each says when it is asked who pays.
fn three() -> (Signers, String) {
    let (key, address) = account(9);
    let signature = hex::encode(sign(&key, identity_digest(address)).0);
    let says = format!(r#"{{"address":"{address}","signature":"0x{signature}"}}"#);
    let signers = Signers::new(url("http://a:1"))
        .or(url("http://b:2"))
        .or(url("http://c:3"));
    (signers, says)
}

#[test]
fn a_silent_signer_costs_a_second_and_rests() {
    let (signers, says) = three();
    let mut bench = Bench::new(Config::default(), Identity::Remote(signers.clone()));
    let (silent, _) = bench.request();
    bench.nap();
    assert_eq!(bench.now, START + IDENTITY_HEDGE);
    let (second, request) = bench.request();
    assert_eq!(request.url.host(), "b");
    bench.json(second, 200, &says);
    assert!(matches!(bench.event(), Event::Identified(..)));
    assert_eq!(bench.aborted(), silent);
    // The next handshake knows.
    let health = bench.machine.signer_health().clone();
    let until = bench.now + FIRST_REST;
    assert_eq!(
        health.standing(bench.now, &url("http://a:1")),
        Standing::Resting(until)
    );
    let mut bench = Bench::new(
        Config::default(),
        Identity::Remote(signers.clone().health(health.clone())),
    );
    assert_eq!(bench.request().1.url.host(), "b");
    // And after its rest the first one is in its place again.
    assert_eq!(
        health.standing(until, &url("http://a:1")),
        Standing::Healthy
    );
}

#[test]
fn the_first_signer_may_still_answer_when_the_second_was_asked() {
    let (signers, says) = three();
    let mut bench = Bench::new(Config::default(), Identity::Remote(signers));
    let (slow, _) = bench.request();
    bench.nap();
    let (second, _) = bench.request();
    bench.json(slow, 200, &says);
    assert!(matches!(bench.event(), Event::Identified(..)));
    assert_eq!(bench.aborted(), second);
    // What comes after it is of no interest, and nobody is to blame.
    bench.json(second, 200, &says);
    assert!(bench.events.is_empty());
    let health = bench.machine.signer_health();
    assert_eq!(health.resting(bench.now).count(), 0);
}

#[test]
fn a_signer_that_refuses_costs_nothing_and_a_silent_one_after_it_a_second() {
    let (signers, says) = three();
    let mut bench = Bench::new(Config::default(), Identity::Remote(signers));
    let (first, _) = bench.request();
    bench.json(first, 500, "{}");
    assert_eq!(bench.aborted(), first);
    let (second, request) = bench.request();
    assert_eq!((bench.now, request.url.host()), (START, "b"));
    bench.nap();
    let (third, request) = bench.request();
    assert_eq!(
        (bench.now, request.url.host()),
        (START + IDENTITY_HEDGE, "c")
    );
    bench.json(third, 200, &says);
    assert!(matches!(bench.event(), Event::Identified(..)));
    assert_eq!(bench.aborted(), second);
    let health = bench.machine.signer_health();
    assert_eq!(health.resting(bench.now).count(), 2);
}

#[test]
fn when_all_signers_are_silent_the_error_names_each() {
    let (signers, _) = three();
    let mut bench = Bench::new(Config::default(), Identity::Remote(signers));
    while bench.events.is_empty() {
        bench.nap();
    }
    assert_eq!(bench.now, START + Duration::from_secs(7));
    let failure = bench.failure();
    assert_eq!(failure.who, Party::Signers);
    assert_eq!(failure.advice(), Advice::Stop);
    assert_eq!(Class::of(&failure), Class::Identity);
    for name in ["http://a:1", "http://b:2", "http://c:3", "within 5s"] {
        assert!(failure.to_string().contains(name), "{failure}");
    }
    assert_eq!(bench.wake, None);
}

#[test]
fn our_own_key_signs_the_identity() {
    let (key, address) = account(3);
    let mut bench = Bench::new(Config::default(), Identity::Key(address));
    let (id, effect) = bench.effects.remove(0);
    let Effect::Sign(digest) = effect else {
        panic!("a signature is wanted");
    };
    bench.input(Input::Signed(id, Ok(sign(&key, digest))));
    assert!(matches!(bench.event(), Event::Identified(who, _) if who == address));
    assert_eq!(question(&bench.request().1).address, &address.0[..]);
}

#[test]
fn a_key_holder_that_refuses_lies_or_sleeps_is_named() {
    let (_, address) = account(3);
    let (other, _) = account(4);
    for answer in [
        Some(Err(SignRefused("locked".into()))),
        Some(Ok(sign(&other, identity_digest(address)))),
        None,
    ] {
        let mut bench = Bench::new(Config::default(), Identity::Key(address));
        let (id, _) = bench.effects.remove(0);
        match answer {
            Some(answer) => bench.input(Input::Signed(id, answer)),
            None => bench.nap(),
        }
        assert_eq!(bench.failure().who, Party::KeyHolder);
    }
}

#[test]
fn an_orchestrator_that_does_not_fit_is_rejected_with_the_reason() {
    let paying = |ceilings| Config {
        terms: Terms {
            paying: true,
            ceilings,
            ..Terms::default()
        },
        ..Config::default()
    };
    type Change = fn(&mut net::OrchestratorInfo);
    let cases: [(Config, Change, &str); 8] = [
        (
            Config::default(),
            |info| info.capabilities.as_mut().unwrap().bitstring = vec![1],
            "the node lacks Live video to video (35)",
        ),
        (
            Config::default(),
            |info| info.capabilities = None,
            "the node reports no capabilities",
        ),
        (
            Config::default(),
            |info| info.auth_token = None,
            "it gave no auth token",
        ),
        (
            paying(Ceilings::default()),
            |info| info.ticket_params = None,
            "it gave no ticket parameters to pay it with",
        ),
        (
            paying(Ceilings::default()),
            |info| info.price_info = None,
            "it named no price",
        ),
        (
            paying(Ceilings::of(Price::new(11, 1).unwrap())),
            |_| {},
            "asks 12 wei per unit, above the ceiling of 11",
        ),
        (
            Config {
                terms: Terms {
                    blocked: [Address([5; 20])].into(),
                    ..Terms::default()
                },
                ..Config::default()
            },
            |info| info.address = vec![5; 20].into(),
            "0x0505050505050505050505050505050505050505 is on the block list",
        ),
        (
            Config {
                terms: Terms {
                    listed_models_only: true,
                    ..Terms::default()
                },
                ..Config::default()
            },
            |info| info.capabilities.as_mut().unwrap().constraints = None,
            "no model \"noop\" for Live video to video (35)",
        ),
    ];
    for (config, change, reason) in cases {
        let mut bench = Bench::new(config, Identity::Offchain);
        let (id, _) = bench.request();
        let mut info = answer(START);
        change(&mut info);
        bench.reply(id, &info);
        let Event::Rejected(why) = bench.event() else {
            panic!("{reason}");
        };
        assert_eq!(why.to_string(), reason);
        assert_eq!(bench.wake, None, "it has ended");
        assert_eq!(bench.machine.renew(bench.now), Err(Misuse::Ended));
    }
}

#[test]
fn a_node_that_takes_no_work_names_others() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (id, _) = bench.request();
    let nodes = vec!["https://n1:8935".to_string(), "nonsense".to_string()];
    let info = net::OrchestratorInfo {
        nodes: nodes.clone(),
        ..Default::default()
    };
    bench.reply(id, &info);
    let Event::Rejected(Rejection::NoWork { nodes: told }) = bench.event() else {
        panic!("it takes no work");
    };
    assert_eq!(told, nodes);
    assert_eq!(
        livepeer_core::handshake::node_urls(&told),
        [url("https://n1:8935")]
    );
}

#[test]
fn silence_ends_in_a_deadline() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (id, _) = bench.request();
    bench.sleep(Duration::from_millis(4_999));
    bench.quiet();
    bench.sleep(Duration::from_millis(1));
    assert_eq!(bench.aborted(), id);
    let failure = bench.failure();
    assert_eq!(failure.who, Party::Orchestrator(orchestrator()));
    assert_eq!(Class::of(&failure), Class::Timeout);
    // Late answers find nobody.
    bench.reply(id, &answer(START));
    bench.quiet();
}

#[test]
fn what_is_no_orchestrator_is_told_so() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (id, _) = bench.request();
    bench.http(
        id,
        http::In::Reply(Response::new(404).header("content-type", "text/plain")),
    );
    assert_eq!(bench.aborted(), id);
    assert_eq!(Class::of(&bench.failure()), Class::NotAnOrchestrator);

    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (id, _) = bench.request();
    bench.reply(
        id,
        &net::OrchestratorInfo {
            transcoder: "::".into(),
            ..answer(START)
        },
    );
    assert_eq!(Class::of(&bench.failure()), Class::NotAnOrchestrator);
}

#[test]
fn a_changed_certificate_is_accepted_once_if_that_is_allowed() {
    let change = || Fault::CertificateChanged {
        remembered: [1; 32],
        seen: [2; 32],
    };
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (first, _) = bench.request();
    bench.http(first, http::In::Failed(change()));
    assert!(matches!(
        bench.event(),
        Event::PinChanged {
            remembered: [1, ..],
            seen: [2, ..]
        }
    ));
    let (second, request) = bench.request();
    assert_eq!(request.trust, Trust::Afresh);
    bench.http(second, http::In::Failed(change()));
    assert_eq!(Class::of(&bench.failure()), Class::CertificateChanged);

    for config in [
        Config {
            pin_change: PinChange::Refuse,
            ..Config::default()
        },
        Config {
            trust: Trust::Public,
            ..Config::default()
        },
    ] {
        let mut bench = Bench::new(config, Identity::Offchain);
        let (id, _) = bench.request();
        bench.http(id, http::In::Failed(change()));
        assert_eq!(Class::of(&bench.failure()), Class::CertificateChanged);
    }
}

#[test]
fn the_token_is_renewed_when_less_than_the_margin_is_left() {
    let mut bench = Bench::ready(Config::default());
    let due = START + Duration::from_secs(TOKEN_LIFE - 180);
    bench.now = due;
    bench.input(Input::Tick);
    bench.quiet();
    bench.nap();
    assert_eq!(bench.now, due + Duration::from_nanos(1));
    let (id, request) = bench.request();
    assert!(question(&request).ignore_capacity_check);
    assert_eq!(request.headers.get("grpc-timeout"), Some("2500m"));
    let mut info = answer(bench.now);
    info.auth_token.as_mut().unwrap().session_id = "next".into();
    bench.reply(id, &info);
    let Event::Renewed(info) = bench.event() else {
        panic!("it is renewed");
    };
    assert_eq!(info.auth_token.unwrap().session_id, "next");
    assert!(bench.wake.unwrap() > bench.now + Duration::from_secs(1_600));
}

#[test]
fn a_token_that_is_always_at_its_end_does_not_make_it_spin() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    for _ in 0..5 {
        let (id, _) = bench.request();
        let mut info = answer(START);
        info.auth_token.as_mut().unwrap().expiration = i64::MIN;
        bench.reply(id, &info);
        bench.event();
        assert_eq!(bench.wake, Some(bench.now + Duration::from_secs(30)));
        bench.nap();
    }
}

#[test]
fn a_renewal_is_tried_again_when_nobody_answers() {
    let mut bench = Bench::ready(Config::default());
    bench.machine.renew(bench.now).unwrap();
    bench.drain();
    let (first, _) = bench.request();
    // A second wish while one is under way changes nothing.
    bench.machine.renew(bench.now).unwrap();
    bench.drain();
    bench.quiet();
    bench.sleep(Duration::from_millis(2_500));
    assert_eq!(bench.aborted(), first);
    bench.quiet();
    bench.sleep(Duration::from_secs(1));
    let (second, _) = bench.request();
    bench.refuse(
        second,
        2,
        "Invalid orchestrator request: OrchestratorCapped",
    );
    assert!(matches!(
        bench.effects.remove(0).1,
        Effect::Http(Out::Abort)
    ));
    bench.sleep(Duration::from_secs(2));
    let (third, _) = bench.request();
    bench.http(third, http::In::Failed(Fault::Connect("refused".into())));
    let failure = bench.failure();
    assert!(
        matches!(failure.cause, Cause::GaveUp { times: 3, .. }),
        "{failure}"
    );
    assert_eq!(failure.advice(), Advice::GoElsewhere);
}

#[test]
fn a_renewal_is_judged_like_the_first_answer() {
    let mut bench = Bench::ready(Config::default());
    bench.machine.renew(bench.now).unwrap();
    bench.drain();
    let (id, _) = bench.request();
    let mut info = answer(bench.now);
    info.capabilities.as_mut().unwrap().bitstring = vec![];
    bench.reply(id, &info);
    assert!(matches!(bench.event(), Event::Rejected(_)));
}

#[test]
fn a_renewal_goes_where_the_orchestrator_said() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (id, _) = bench.request();
    let info = net::OrchestratorInfo {
        transcoder: "https://worker.example:1".into(),
        ..answer(START)
    };
    bench.reply(id, &info);
    bench.event();
    bench.machine.renew(bench.now).unwrap();
    bench.drain();
    assert_eq!(bench.request().1.url.host(), "worker.example");
}

#[test]
fn renewing_before_there_is_anything_is_misuse() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    assert_eq!(bench.machine.renew(bench.now), Err(Misuse::NotOpen));
}

#[test]
fn a_piggybacked_quote_replaces_only_what_it_does_not_worsen() {
    let mut bench = Bench::ready(Config::default());
    let offer = |change: fn(&mut net::OrchestratorInfo)| {
        let mut info = answer(START);
        change(&mut info);
        OrchestratorInfo::decode(info.encode_to_vec().into()).unwrap()
    };
    let now = bench.now;
    type Change = fn(&mut net::OrchestratorInfo);
    let refused: [(Change, NotAdopted); 6] = [
        (|info| info.price_info = Some(price(13)), NotAdopted::Dearer),
        (|info| info.price_info = Some(price(0)), NotAdopted::NoPrice),
        (|info| info.price_info = None, NotAdopted::NoPrice),
        (
            |info| info.ticket_params = None,
            NotAdopted::WorthlessTickets,
        ),
        (
            |info| info.address = vec![1; 20].into(),
            NotAdopted::OtherAddress,
        ),
        (
            |info| info.auth_token.as_mut().unwrap().session_id = "other".into(),
            NotAdopted::OtherSession,
        ),
    ];
    for (change, why) in refused {
        assert_eq!(bench.machine.adopt(now, offer(change)), Err(why));
    }
    assert_eq!(bench.machine.info().unwrap().price, Price::new(12, 1));
    bench
        .machine
        .adopt(now, offer(|info| info.price_info = Some(price(11))))
        .unwrap();
    assert_eq!(bench.machine.info().unwrap().price, Price::new(11, 1));
    bench.machine.close(now);
    assert_eq!(
        bench.machine.adopt(now, offer(|_| {})),
        Err(NotAdopted::NoSession)
    );
}

#[test]
fn closing_aborts_and_says_so_once() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let (id, _) = bench.request();
    bench.machine.close(bench.now);
    bench.machine.close(bench.now);
    bench.drain();
    assert_eq!(bench.aborted(), id);
    assert!(matches!(bench.event(), Event::Closed));
    bench.quiet();
    bench.reply(id, &answer(START));
    bench.sleep(Duration::from_secs(10_000));
    bench.quiet();
    assert_eq!(bench.wake, None);
}

#[test]
fn time_that_goes_back_is_read_as_the_last() {
    let mut bench = Bench::new(Config::default(), Identity::Offchain);
    let _ = bench.request();
    bench
        .machine
        .handle_input(START + Duration::from_secs(4), Input::Tick);
    bench.machine.handle_input(START, Input::Tick);
    bench.drain();
    bench.quiet();
    bench
        .machine
        .handle_input(START + Duration::from_secs(5), Input::Tick);
    bench.now = START + Duration::from_secs(5);
    bench.drain();
    assert!(matches!(bench.event(), Event::Failed(_)));
}
