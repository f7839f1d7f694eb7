//! The remote signer against its vectors: accounting, exact bytes, and every answer over HTTP.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use livepeer_core::capabilities::Ceilings;
use livepeer_core::http::{self, Body, Headers, Method, Request, Response, Url};
use livepeer_core::money::{Amount, Price, Wei};
use livepeer_core::payment::ledger::{AccountId, Balances, Minting, min_credit, tickets_for};
use livepeer_core::payment::mint::{Plan, Policy, Refusal, plan};
use livepeer_core::payment::remote::{Config, Event, Webhook, is_due};
use livepeer_core::payment::ticket::certain;
use livepeer_core::payment::{Meter, SignerServer, Unit};
use livepeer_core::rng::Rng;
use livepeer_core::sign::{Digest, SignRefused};
use livepeer_core::wire::signer::{MaxPrice, PaymentRequest, PaymentResponse, StateBlob};
use livepeer_core::wire::signer_state::from_rfc3339;
use livepeer_core::wire::{AuthToken, Payment, SegmentCredentials, SignerState, Token};
use livepeer_core::{Address, ChainView, Effect, EffectId, Input, Machine, Output, Time};
use livepeer_proto::net;
use num_bigint::BigUint;
use prost::Message as _;
use serde_json::{Value, json};

use crate::support::*;

const START: Time = Time::from_secs(1_790_000_000);

fn key() -> Key {
    Key::new(&[7; 32])
}

/// Decides as the reference does.
fn policy(key: &Key) -> Policy {
    Policy {
        minting: Minting::AsReference,
        ..Policy::new(key.address())
    }
}

/// A quote whose tickets are worth exactly `ev`: three times as much, with a probability of one third.
fn quote(ev: &BigUint, price: (i64, i64), commitment: &[u8]) -> net::OrchestratorInfo {
    let mut hash = commitment.to_vec();
    hash.resize(32, 0);
    let number = |n: &BigUint| Wei::from(n.clone()).to_be_bytes().into();
    net::OrchestratorInfo {
        transcoder: "https://orch.example:8935".into(),
        ticket_params: Some(net::TicketParams {
            recipient: vec![0x0e; 20].into(),
            face_value: number(&(ev * 3_u32)),
            win_prob: number(&(certain() / 3_u32)),
            recipient_rand_hash: hash.into(),
            seed: vec![1].into(),
            expiration_block: number(&BigUint::from(2_000_u32)),
            expiration_params: Some(net::TicketExpirationParams {
                creation_round: 100,
                creation_round_block_hash: vec![0x11; 32].into(),
            }),
        }),
        price_info: Some(net::PriceInfo {
            price_per_unit: price.0,
            pixels_per_unit: price.1,
            ..net::PriceInfo::default()
        }),
        address: vec![0x0e; 20].into(),
        auth_token: Some(net::AuthToken {
            token: vec![2; 32].into(),
            session_id: "session".into(),
            expiration: i64::try_from((START + Duration::from_secs(1_800)).as_secs()).unwrap(),
        }),
        ..net::OrchestratorInfo::default()
    }
}

fn whole(value: &Value) -> BigUint {
    ratio(value).to_integer().to_biguint().unwrap()
}

fn sign_state(key: &Key, state: &SignerState) -> StateBlob {
    let text = state.to_json();
    StateBlob {
        sig: key
            .sign(Digest::personal(text.as_bytes()))
            .0
            .to_vec()
            .into(),
        state: text.into_bytes().into(),
    }
}

fn decide(now: Time, request: &PaymentRequest) -> Result<Plan, Refusal> {
    let chain = ChainView::development();
    plan(
        now,
        &policy(&key()),
        &chain,
        &mut Rng::new([0; 32]),
        request,
    )
}

#[test]
fn a_signers_books_are_those_of_the_reference() {
    let file = file("signer_sequence.json");
    lists(&file, &["cases"]);
    each(&file, "cases", 16, |name, case| {
        let ev = whole(&case["ev"]);
        let mut latest = StateBlob::default();
        for step in case["steps"].as_array().unwrap() {
            let at = START + Duration::from_nanos(small(&step["at_ns"]));
            let asked = &step["request"];
            let job_type = text(&asked["type"]);
            let price = (
                asked["price_per_unit"].as_i64().unwrap(),
                asked["pixels_per_unit"].as_i64().unwrap(),
            );
            let mut quote = quote(&ev, price, &bytes(&asked["ticket_session"]));
            if name != "auth_token_window" {
                quote.auth_token.as_mut().unwrap().expiration += 100_000;
            }
            let request = PaymentRequest {
                state: match text(&asked["state"]) {
                    "none" => StateBlob::default(),
                    "latest" => latest.clone(),
                    other => panic!("nobody tests {other}"),
                },
                orchestrator: Some(quote.encode_to_vec().into()),
                manifest_id: text(&asked["ManifestID"]).into(),
                in_pixels: asked["inPixels"].as_i64().unwrap(),
                job_type: job_type.into(),
                max_price: asked["maxPrice"]
                    .as_str()
                    .map(|price| MaxPrice::new(price, Unit::from_signer_type(job_type).unwrap())),
                ..PaymentRequest::default()
            };
            match decide(at, &request) {
                Err(refusal) => {
                    assert_eq!(u64::from(refusal.status), small(&step["status"]), "{name}");
                    assert_eq!(refusal.message, text(&step["message"]), "{name}");
                    if step.get("fee").is_some() {
                        let fee = amount(&step["fee"]);
                        let ev = Amount::from(&Wei::from(ev.clone()));
                        let existing = amount(&step["existing"]);
                        let needed = tickets_for(&min_credit(&fee, &ev), &existing, &ev);
                        assert_eq!(needed, small(&step["num_tickets"]), "{name}");
                    }
                }
                Ok(plan) => {
                    assert_eq!(small(&step["status"]), 200, "{name}");
                    assert_eq!(plan.units, small(&step["billable_units"]), "{name}");
                    assert_eq!(plan.fee, amount(&step["fee"]), "{name}");
                    assert_eq!(plan.existing, amount(&step["existing"]), "{name}");
                    let first = small(&step["nonces"][0]);
                    let last = small(&step["nonces"][1]);
                    assert_eq!(u64::from(*plan.nonces.start()), first, "{name}");
                    assert_eq!(u64::from(*plan.nonces.end()), last, "{name}");
                    let count = plan.nonces.clone().count();
                    assert_eq!(count as u64, small(&step["num_tickets"]), "{name}");
                    assert_eq!(plan.state.balance, amount(&step["balance"]), "{name}");
                    assert_eq!(
                        plan.state.balance.to_string(),
                        text(&step["balance"]),
                        "{name}"
                    );
                    let sequence = small(&step["sequence_number"]);
                    assert_eq!(plan.state.sequence_number, sequence, "{name}");
                    let nonce = small(&step["sender_nonce"]);
                    assert_eq!(u64::from(plan.state.sender_nonce), nonce, "{name}");
                    latest = sign_state(&key(), &plan.state);
                }
            }
        }
    });
}

/// Runs a signer and an orchestrator's meter side by side, by whole seconds; says what was minted when, and when
/// the job was cut.
fn cosimulate(case: &Value, minting: Minting) -> (Vec<Value>, Option<u64>) {
    let ev = whole(&case["ev"]);
    let price = ratio(&case["price"]).to_integer();
    let price = i64::try_from(price).unwrap();
    let job_type = text(&case["type"]);
    let unit = Unit::from_signer_type(job_type).unwrap();
    let poll = small(&case["client_poll_s"]);
    let interval = Duration::from_secs(small(&case["orchestrator_interval_s"]));
    assert_eq!(small(&case["orchestrator_start_s"]), 0);

    let id = AccountId {
        sender: Address([1; 20]),
        session: "job".into(),
    };
    let mut balances = Balances::new(START, Duration::from_secs(100_000));
    let mut meter = Meter::new(START, unit.per_second().unwrap(), interval);
    let mut state = StateBlob::default();
    let mut mints = Vec::new();
    for t in 0..=small(&case["horizon_s"]) {
        let now = START + Duration::from_secs(t);
        if let Some(units) = meter.read(now) {
            let fee = Price::new(price, 1).unwrap().fee(units);
            if balances.debit_covered(now, &id, &fee).is_err() {
                return (mints, Some(t));
            }
        }
        if t % poll != 0 {
            continue;
        }
        let mut quote = quote(&ev, (price, 1), &[1]);
        quote.auth_token.as_mut().unwrap().expiration = i64::MAX / 2_000_000_000;
        let request = PaymentRequest {
            state: state.clone(),
            orchestrator: Some(quote.encode_to_vec().into()),
            manifest_id: "job".into(),
            job_type: job_type.into(),
            ..PaymentRequest::default()
        };
        let policy = Policy {
            minting,
            ..policy(&key())
        };
        let chain = ChainView::development();
        match plan(now, &policy, &chain, &mut Rng::new([0; 32]), &request) {
            Err(refusal) => assert_eq!(refusal.status, 482),
            Ok(plan) => {
                state = sign_state(&key(), &plan.state);
                balances.credit(now, &id, &plan.value).unwrap();
                mints.push(json!({
                    "t": t,
                    "minted": plan.nonces.count(),
                    "orchestrator_balance": format!("{}/1", balances.read(&id).unwrap()),
                }));
            }
        }
    }
    (mints, None)
}

#[test]
fn minting_as_the_reference_does_cuts_jobs_as_the_reference_does() {
    let file = file("signer_cosim.json");
    lists(&file, &["cases"]);
    each(&file, "cases", 4, |name, case| {
        let (mints, released) = cosimulate(case, Minting::AsReference);
        assert_eq!(Value::from(mints), case["mints"], "{name}");
        assert_eq!(released, case["released_at_s"].as_u64(), "{name}");
    });
}

#[test]
fn minting_early_never_lets_a_job_starve() {
    let file = file("signer_cosim.json");
    for case in file["cases"].as_array().unwrap() {
        let (_, released) = cosimulate(case, Minting::Early);
        assert_eq!(released, None, "{}", case["name"]);
    }
}

#[test]
fn two_exchanges_are_byte_for_byte_those_of_the_reference() {
    let file = file("signer_golden.json");
    lists(&file, &["cases", "cases_state"]);
    each(&file, "cases", 2, |name, case| {
        let key = Key::new(&bytes(&case["signer_private_key"]));
        assert_eq!(key.address(), address(&case["signer_address"]), "{name}");
        let body = case["request_body"].to_string();
        let request = PaymentRequest::from_json(body.as_bytes()).unwrap();
        let chain = ChainView {
            l1_block: text(&case["last_seen_l1_block"]).parse().unwrap(),
            ..ChainView::development()
        };
        let now = from_rfc3339(text(&case["now"])).unwrap();
        let mut rng = Rng::new([0; 32]);
        let mut plan = plan(now, &policy(&key), &chain, &mut rng, &request).unwrap();
        plan.state.state_id = text(&case["state_id_injected"]).into();
        assert_eq!(plan.units, small(&case["billable_units"]), "{name}");
        assert_eq!(plan.fee, amount(&case["fee"]), "{name}");
        let (first, last) = (small(&case["nonces"][0]), small(&case["nonces"][1]));
        assert_eq!(u64::from(*plan.nonces.start()), first, "{name}");
        assert_eq!(u64::from(*plan.nonces.end()), last, "{name}");
        let count = plan.nonces.clone().count() as u64;
        assert_eq!(count, small(&case["num_tickets"]), "{name}");
        assert_eq!(plan.state.to_json(), text(&case["state_json"]), "{name}");
        let again = SignerState::from_json(plan.state.to_json().as_bytes()).unwrap();
        assert_eq!(again, plan.state, "{name}");

        let signatures: Vec<_> = plan
            .digests(key.address())
            .map(|digest| key.sign(digest))
            .collect();
        let (payment, segment) = plan.headers(key.address(), &signatures).unwrap();
        let state = sign_state(&key, &plan.state);
        assert_eq!(state.sig, bytes(&case["state_sig"]), "{name}");
        let response = PaymentResponse {
            payment,
            segment,
            state,
        };
        let written: Value = serde_json::from_slice(&response.to_json()).unwrap();
        assert_eq!(written, case["response_body"], "{name}");
        assert_eq!(
            PaymentResponse::from_json(&response.to_json()).unwrap(),
            response
        );
        assert_eq!(small(&case["status"]), 200, "{name}");
    });

    let call = &file["cases"][1];
    let key = Key::new(&bytes(&call["signer_private_key"]));
    let raw = STANDARD
        .decode(text(&call["request_body"]["orchestrator"]))
        .unwrap();
    each(&file, "cases_state", 9, |name, case| {
        let mut info = net::OrchestratorInfo::decode(&*raw).unwrap();
        info.address = address(&case["orchestrator_address"]).0.to_vec().into();
        let request = PaymentRequest {
            state: StateBlob {
                state: STANDARD.decode(text(&case["state"])).unwrap().into(),
                sig: STANDARD.decode(text(&case["sig"])).unwrap().into(),
            },
            orchestrator: Some(info.encode_to_vec().into()),
            manifest_id: "mid1".into(),
            app: text(&case["app"]).into(),
            job_type: text(&case["type"]).into(),
            ..PaymentRequest::default()
        };
        let chain = ChainView {
            l1_block: text(&call["last_seen_l1_block"]).parse().unwrap(),
            ..ChainView::development()
        };
        let now = from_rfc3339(text(&call["now"])).unwrap() + Duration::from_secs(5);
        match plan(now, &policy(&key), &chain, &mut Rng::new([0; 32]), &request) {
            Ok(_) => assert_eq!(small(&case["status"]), 200, "{name}"),
            Err(refusal) => {
                assert_eq!(u64::from(refusal.status), small(&case["status"]), "{name}");
                assert_eq!(refusal.message, text(&case["message"]), "{name}");
            }
        }
    });
}

/// A signer on its own, with a webhook that always says the same.
struct Server {
    now: Time,
    signer: SignerServer,
    key: Key,
    webhook: Option<(u16, String)>,
    asked: Vec<Value>,
    peers: u64,
    events: Vec<Event>,
}

impl Server {
    fn new(adjust: impl FnOnce(&mut Config, &mut ChainView)) -> Self {
        let mut config = Config::new(policy(&key()));
        let mut chain = ChainView::development();
        adjust(&mut config, &mut chain);
        Self {
            now: START,
            signer: SignerServer::new(START, config, chain, [1; 32]),
            key: key(),
            webhook: None,
            asked: Vec::new(),
            peers: 0,
            events: Vec::new(),
        }
    }

    fn with_webhook(status: u16, body: &str) -> Self {
        let mut server = Self::new(|config, _| {
            config.webhook = Some(Webhook {
                url: Url::parse("http://hook/auth").unwrap(),
                headers: Headers::new(),
            });
        });
        server.webhook = Some((status, body.into()));
        server
    }

    fn open(&mut self, method: Method, path: &str, headers: Headers) -> EffectId {
        let id = EffectId::by_peer(self.peers);
        self.peers += 1;
        let url = Url::parse("http://signer").unwrap().with_path(path);
        let mut request = Request::new(method, url);
        request.headers = headers;
        self.input(id, http::In::Request(request));
        id
    }

    fn input(&mut self, id: EffectId, step: http::In) {
        self.signer.handle_input(self.now, Input::Http(id, step));
    }

    /// Serves what the signer wants until it waits; hands back its answers.
    fn settle(&mut self) -> Vec<(EffectId, Response)> {
        let mut replies = Vec::new();
        loop {
            match self.signer.poll_output() {
                Output::Effect(id, Effect::Sign(digest)) => {
                    let signature = self.key.sign(digest);
                    self.signer
                        .handle_input(self.now, Input::Signed(id, Ok(signature)));
                }
                Output::Effect(id, Effect::Http(http::Out::Reply(reply))) => {
                    replies.push((id, reply));
                }
                Output::Effect(id, Effect::Http(http::Out::Request(request))) => {
                    let Body::Full(body) = &request.body else {
                        panic!("the webhook is asked with a body");
                    };
                    self.asked.push(serde_json::from_slice(body).unwrap());
                    let (status, body) = self.webhook.clone().expect("a webhook");
                    self.input(id, http::In::Reply(Response::new(status)));
                    self.input(id, http::In::Data(body.into()));
                    self.input(id, http::In::End(Headers::new()));
                }
                Output::Effect(_, Effect::Http(_)) => {}
                Output::Effect(_, other) => panic!("{other:?}"),
                Output::Event(event) => self.events.push(event),
                Output::Idle(wake) => {
                    assert!(
                        wake.is_none_or(|wake| wake > self.now),
                        "a driver would spin"
                    );
                    return replies;
                }
            }
        }
    }

    fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: Headers,
        body: &[u8],
    ) -> (u16, Headers, Vec<u8>) {
        let id = self.open(method, path, headers);
        self.input(id, http::In::Data(body.to_vec().into()));
        self.input(id, http::In::End(Headers::new()));
        let mut replies = self.settle();
        assert_eq!(replies.len(), 1, "one answer for one request");
        let (of, reply) = replies.remove(0);
        assert_eq!(of, id);
        assert_eq!(self.signer.open_exchanges(), 0, "nothing is left behind");
        let Body::Full(body) = reply.body else {
            panic!("signers answer a whole body");
        };
        (reply.status, reply.headers, body.to_vec())
    }

    fn pay(&mut self, request: &PaymentRequest) -> (u16, Headers, Vec<u8>) {
        let headers = Headers::new();
        self.call(
            Method::Post,
            "/generate-live-payment",
            headers,
            &request.to_json(),
        )
    }
}

/// One fixed unit of work at one wei.
fn fixed(price: i64) -> PaymentRequest {
    let quote = quote(&BigUint::from(1_u32), (price, 1), &[1]);
    PaymentRequest {
        orchestrator: Some(quote.encode_to_vec().into()),
        manifest_id: "job".into(),
        job_type: "fixed".into(),
        ..PaymentRequest::default()
    }
}

fn change(request: &mut PaymentRequest, by: impl FnOnce(&mut net::OrchestratorInfo)) {
    let raw = request.orchestrator.take().unwrap();
    let mut info = net::OrchestratorInfo::decode(raw).unwrap();
    by(&mut info);
    request.orchestrator = Some(info.encode_to_vec().into());
}

fn provoke(name: &str) -> (Server, (u16, Headers, Vec<u8>)) {
    let mut server = Server::new(|_, _| ());
    let mut request = fixed(1);
    match name {
        "missing_orchestrator" => request.orchestrator = None,
        "zero_price" => change(&mut request, |info| {
            info.price_info.as_mut().unwrap().price_per_unit = 0;
        }),
        "no_ticket_params" => change(&mut request, |info| info.ticket_params = None),
        "refresh" => change(&mut request, |info| {
            info.ticket_params.as_mut().unwrap().expiration_block = vec![1].into();
        }),
        "price" => {
            server = Server::new(|config, _| {
                config.policy.ceilings = Ceilings::of(Price::new(500, 1).unwrap());
            });
            request = fixed(1_000);
        }
        "no_tickets" => {
            request.job_type = "live".into();
            change(&mut request, |info| {
                let params = info.ticket_params.as_mut().unwrap();
                params.face_value = vec![1, 0, 0].into();
            });
            // The second call still has less than one ticket's worth on account.
            for _ in 0..2 {
                let (status, _, body) = server.pay(&request);
                assert_eq!(status, 200);
                request.state = PaymentResponse::from_json(&body).unwrap().state;
                server.now = server.now + Duration::from_secs(1);
            }
        }
        "create_failed" => {
            let one = Amount::from(&Wei::from(1));
            server = Server::new(|config, _| config.policy.limits.max_total_ev = one);
            request = fixed(2);
        }
        "auth_id_changed" => {
            server = Server::with_webhook(200, r#"{"status":200,"auth_id":"one"}"#);
            let (status, _, body) = server.pay(&request);
            assert_eq!(status, 200);
            request.state = PaymentResponse::from_json(&body).unwrap().state;
            server.webhook = Some((200, r#"{"status":200,"auth_id":"two"}"#.into()));
        }
        "webhook_rejects" => {
            server = Server::with_webhook(200, r#"{"status":403,"reason":"denied"}"#);
        }
        "webhook_rejects_without_reason" => {
            server = Server::with_webhook(200, r#"{"status":429}"#);
        }
        "webhook_max_price_malformed" => {
            let answer = r#"{"status":200,"maxPrice":{"price":2,"currency":"usd","unit":"fixed"}}"#;
            server = Server::with_webhook(200, answer);
        }
        "discovery_empty" => {
            server = Server::new(|config, _| config.discovery = true);
            let answer = server.call(Method::Get, "/discover-orchestrators", Headers::new(), b"");
            return (server, answer);
        }
        "no_auth_token" => change(&mut request, |info| info.auth_token = None),
        "no_deposit" => {
            server = Server::new(|_, chain| {
                chain.anyone.as_mut().unwrap().deposit = Wei::zero();
            });
        }
        other => panic!("nobody tests {other}"),
    }
    let answer = server.pay(&request);
    (server, answer)
}

#[test]
fn every_error_has_its_status_and_its_envelope() {
    let file = file("signer_http.json");
    lists(
        &file,
        &[
            "cases_error",
            "cases_decode",
            "cases_webhook",
            "cases_auth_expiry",
            "cases_auth_id",
            "cases_client_token",
        ],
    );
    each(&file, "cases_error", 14, |name, case| {
        let (server, (status, headers, body)) = provoke(name);
        assert_eq!(u64::from(status), small(&case["status"]), "{name}");
        assert_eq!(
            String::from_utf8(body).unwrap(),
            text(&case["body"]),
            "{name}"
        );
        assert_eq!(
            headers.get("content-type"),
            case["content_type"].as_str(),
            "{name}"
        );
        for (field, value) in case["headers"].as_object().unwrap() {
            let field = field.to_ascii_lowercase();
            assert_eq!(headers.get(&field), value.as_str(), "{name}");
        }
        let Some(Event::Refused(refusal)) = server.events.last() else {
            panic!("{name}: {:?}", server.events);
        };
        assert_eq!(refusal.message, text(&case["internal_message"]), "{name}");
    });
}

#[test]
fn requests_are_read_as_go_reads_them() {
    let file = file("signer_http.json");
    each(&file, "cases_decode", 16, |name, case| {
        let read = PaymentRequest::from_json(text(&case["raw_body"]).as_bytes());
        assert_eq!(read.is_ok(), case["decodes"], "{name}: {read:?}");
        let Ok(request) = read else {
            let mut server = Server::new(|_, _| ());
            let body = text(&case["raw_body"]).as_bytes();
            let path = "/generate-live-payment";
            let (status, ..) = server.call(Method::Post, path, Headers::new(), body);
            assert_eq!(u64::from(status), small(&case["status"]), "{name}");
            return;
        };
        let body = request.to_json();
        assert_eq!(PaymentRequest::from_json(&body).unwrap(), request, "{name}");
        for (field, value) in case.as_object().unwrap() {
            match field.as_str() {
                "name" | "raw_body" | "decodes" => {}
                "has_state" => assert_eq!(!request.state.is_empty(), *value, "{name}"),
                "manifest_id" => assert_eq!(request.manifest_id, text(value), "{name}"),
                "in_pixels" => assert_eq!(Some(request.in_pixels), value.as_i64(), "{name}"),
                "state" => assert_eq!(request.state.state, bytes(value), "{name}"),
                "sig" => assert_eq!(request.state.sig, bytes(value), "{name}"),
                "max_price" => {
                    let unit = Unit::from_signer_type(&request.job_type);
                    let max = request.max_price.as_ref();
                    let max = max.map(|max| max.parse(unit).unwrap());
                    let expected = value.is_string().then(|| ratio(value));
                    assert_eq!(max, expected, "{name}");
                }
                other => panic!("{name}: nobody tests {other}"),
            }
        }
    });
}

#[test]
fn the_webhook_has_the_last_word_before_anything_is_signed() {
    let file = file("signer_http.json");
    each(&file, "cases_webhook", 13, |name, case| {
        let status = u16::try_from(small(&case["webhook_http_status"])).unwrap();
        let mut server = Server::with_webhook(status, text(&case["webhook_body"]));
        let price = ratio(&case["quoted_price"]).to_integer();
        let request = PaymentRequest {
            job_type: text(&case["request_type"]).into(),
            ..fixed(i64::try_from(price).unwrap())
        };
        let (status, _, body) = server.pay(&request);
        assert_eq!(u64::from(status), small(&case["status"]), "{name}");
        let minted = server
            .events
            .iter()
            .any(|event| matches!(event, Event::Minted { .. }));
        assert_eq!(minted, status == 200, "{name}");
        if let Some(message) = case["message"].as_str() {
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["error"]["message"], message, "{name}");
        }
    });
    each(&file, "cases_auth_expiry", 5, |name, case| {
        let state = SignerState {
            auth_expiry: case["state_auth_expiry"].as_i64().unwrap(),
            ..SignerState::default()
        };
        let now = Time::from_secs(small(&case["now"]));
        assert_eq!(is_due(&state, now), case["webhook_called"], "{name}");
    });
    each(&file, "cases_auth_id", 6, |name, case| {
        let answer = match case["webhook_auth_id"].as_str() {
            Some(id) => json!({"status": 200, "auth_id": id}),
            None => json!({"status": 200}),
        };
        let mut server = Server::with_webhook(200, &answer.to_string());
        let mut request = fixed(1);
        let known = text(&case["state_auth_id"]);
        if !known.is_empty() {
            let mut before = decide(START, &request).unwrap().state;
            before.auth_id = known.into();
            request.state = sign_state(&key(), &before);
        }
        let mut headers = Headers::new();
        if let Some(id) = case["header_signer_auth_id"].as_str() {
            headers.push("signer-auth-id", id);
        }
        let path = "/generate-live-payment";
        let (status, _, body) = server.call(Method::Post, path, headers, &request.to_json());
        let result = text(&case["result"]);
        if result == "500" {
            assert_eq!(status, 500, "{name}");
        } else {
            let response = PaymentResponse::from_json(&body).unwrap();
            let state = SignerState::from_json(&response.state.state).unwrap();
            assert_eq!(state.auth_id, result, "{name}");
        }
    });
    each(&file, "cases_client_token", 4, |name, case| {
        let token = Token::decode(text(&case["token"]));
        assert_eq!(token.is_ok(), case["valid"], "{name}");
        let Ok(token) = token else { return };
        let decoded = &case["decoded"];
        assert_eq!(
            token.signer.as_deref(),
            decoded["signer"].as_str(),
            "{name}"
        );
        assert_eq!(
            token.discovery.as_deref(),
            decoded["discovery"].as_str(),
            "{name}"
        );
        let headers = token.signer_headers.unwrap_or_default();
        assert_eq!(
            json!(headers),
            *decoded.get("signer_headers").unwrap_or(&json!({}))
        );
        if let Some(orchestrators) = decoded["orchestrators"].as_array() {
            let trimmed: Vec<&str> = orchestrators.iter().map(|one| text(one).trim()).collect();
            assert_eq!(token.orchestrators.unwrap(), trimmed, "{name}");
        }
    });
}

#[test]
fn the_webhook_sees_the_callers_headers_and_the_state_as_it_will_be() {
    let mut server = Server::with_webhook(200, r#"{"status":200,"expiry":1790000060}"#);
    let mut headers = Headers::new();
    headers.push("x-api-key", "one");
    headers.push("x-api-key", "two");
    let mut request = fixed(1);
    let path = "/generate-live-payment";
    let (_, _, body) = server.call(Method::Post, path, headers, &request.to_json());
    let asked = &server.asked[0];
    assert_eq!(asked["headers"], json!({"X-Api-Key": ["one", "two"]}));
    assert_eq!(asked["state"]["SenderNonce"], 1);
    assert_eq!(
        asked["state"]["AuthExpiry"], 0,
        "the answer is not known yet"
    );

    request.state = PaymentResponse::from_json(&body).unwrap().state;
    let state = SignerState::from_json(&request.state.state).unwrap();
    assert_eq!(state.auth_expiry, 1_790_000_060);
    for (after, asked) in [(60, 1), (61, 2)] {
        server.now = START + Duration::from_secs(after);
        assert_eq!(server.pay(&request).0, 200);
        assert_eq!(
            server.asked.len(),
            asked,
            "an answer holds until its expiry"
        );
    }
}

#[test]
fn a_webhook_that_is_silent_or_endless_or_gone_is_an_error() {
    let wait = |server: &mut Server| {
        let id = server.open(Method::Post, "/generate-live-payment", Headers::new());
        server.input(id, http::In::Data(fixed(1).to_json().into()));
        server.input(id, http::In::End(Headers::new()));
        loop {
            match server.signer.poll_output() {
                Output::Effect(asked, Effect::Http(http::Out::Request(_))) => return asked,
                Output::Idle(_) => panic!("the webhook was not asked"),
                _ => {}
            }
        }
    };
    let mut server = Server::with_webhook(200, "");
    wait(&mut server);
    server.now = START + Duration::from_secs(5);
    server.signer.handle_input(server.now, Input::Tick);
    let replies = server.settle();
    assert_eq!(replies[0].1.status, 500);
    assert_eq!(server.signer.open_exchanges(), 0);

    let mut server = Server::with_webhook(200, "");
    let asked = wait(&mut server);
    for _ in 0..3 {
        server.input(asked, http::In::Data(vec![b' '; 1 << 19].into()));
    }
    assert_eq!(server.settle()[0].1.status, 500);

    let mut server = Server::with_webhook(200, "");
    let asked = wait(&mut server);
    let fault = http::Fault::Connect("refused".into());
    server.input(asked, http::In::Failed(fault));
    assert_eq!(server.settle()[0].1.status, 500);
    server.input(asked, http::In::End(Headers::new()));
    assert!(server.settle().is_empty(), "late steps mean nothing");
}

#[test]
fn unknown_paths_wrong_methods_and_long_bodies_are_refused() {
    let mut server = Server::new(|_, _| ());
    for (method, path, status) in [
        (Method::Get, "/generate-live-payment", 405),
        (Method::Get, "/sign-orchestrator-info", 405),
        (Method::Post, "/discover-orchestrators", 404),
        (Method::Post, "/generate-live-payment/", 404),
        (Method::Post, "/", 404),
    ] {
        let (got, headers, body) = server.call(method, path, Headers::new(), b"");
        assert_eq!(got, status, "{path}");
        assert_eq!(headers.get("content-type"), Some("application/json"));
        assert!(serde_json::from_slice::<Value>(&body).unwrap()["error"]["message"].is_string());
    }
    let id = server.open(Method::Post, "/generate-live-payment", Headers::new());
    for _ in 0..2 {
        server.input(id, http::In::Data(vec![b' '; 1 << 19].into()));
    }
    assert!(server.settle().is_empty(), "a mebibyte is fine");
    server.input(id, http::In::Data(vec![b' '].into()));
    assert_eq!(server.settle()[0].1.status, 413);
}

#[test]
fn a_body_that_never_ends_and_a_key_that_never_signs_have_deadlines() {
    let mut server = Server::new(|_, _| ());
    server.open(Method::Post, "/generate-live-payment", Headers::new());
    server.now = START + Duration::from_secs(10);
    server.signer.handle_input(server.now, Input::Tick);
    assert_eq!(server.settle()[0].1.status, 408);

    let id = server.open(Method::Post, "/sign-orchestrator-info", Headers::new());
    let Output::Effect(asked, Effect::Sign(_)) = server.signer.poll_output() else {
        panic!("no signature is asked for");
    };
    let refused = Err(SignRefused("locked".into()));
    server
        .signer
        .handle_input(server.now, Input::Signed(asked, refused));
    let replies = server.settle();
    assert_eq!((replies[0].0, replies[0].1.status), (id, 500));

    server.open(Method::Post, "/sign-orchestrator-info", Headers::new());
    while !matches!(server.signer.poll_output(), Output::Idle(_)) {}
    server.now = server.now + Duration::from_secs(30);
    server.signer.handle_input(server.now, Input::Tick);
    assert_eq!(server.settle()[0].1.status, 500);
}

#[test]
fn the_signer_says_who_it_is_and_signs_that_once() {
    let mut server = Server::new(|_, _| ());
    let mut answers = Vec::new();
    for body in [&b""[..], b"{}", b"garbage"] {
        let path = "/sign-orchestrator-info";
        let (status, _, body) = server.call(Method::Post, path, Headers::new(), body);
        assert_eq!(status, 200);
        answers.push(livepeer_core::wire::read_identity(&body).unwrap());
    }
    assert_eq!(answers[0].0, key().address());
    assert!(answers.iter().all(|one| *one == answers[0]));
}

#[test]
fn a_first_call_without_a_job_gets_a_random_one() {
    let mut server = Server::new(|_, _| ());
    let mut request = fixed(1);
    request.manifest_id.clear();
    let mut names = Vec::new();
    for _ in 0..2 {
        let (_, _, body) = server.pay(&request);
        let response = PaymentResponse::from_json(&body).unwrap();
        let credentials = SegmentCredentials::decode(&response.segment).unwrap();
        names.push(credentials.manifest_id);
    }
    assert!(
        names
            .iter()
            .all(|name| name.len() == 8 && hex::decode(name).is_ok())
    );
    assert_ne!(names[0], names[1]);
}

#[test]
fn what_a_signer_makes_is_signed_for_the_quote_and_only_for_it() {
    let mut server = Server::new(|_, _| ());
    let (_, _, body) = server.pay(&fixed(3));
    let response = PaymentResponse::from_json(&body).unwrap();
    let payment = Payment::decode(&response.payment).unwrap();
    assert_eq!(payment.sender, key().address());
    assert_eq!(payment.expected_price, Price::new(3, 1));
    let params = payment.ticket_params.clone().unwrap();
    for ticket in &payment.tickets {
        livepeer_core::payment::Ticket::new(&params, payment.sender, ticket.nonce)
            .verify(&ticket.signature)
            .unwrap();
    }
    let credentials = SegmentCredentials::decode(&response.segment).unwrap();
    credentials.verify(payment.sender).unwrap();
    let token = AuthToken::from_wire(quote(&1_u32.into(), (3, 1), &[1]).auth_token.unwrap());
    assert_eq!(credentials.auth_token, Some(token));
}

#[test]
fn a_worn_quote_is_to_be_refreshed() {
    let mut request = fixed(1);
    let mut state = decide(START, &request).unwrap().state;
    for (nonce, status) in [(499, 200), (500, 480), (600, 480)] {
        state.sender_nonce = nonce;
        request.state = sign_state(&key(), &state);
        let decided = decide(START, &request).map_or_else(|refusal| refusal.status, |_| 200);
        assert_eq!(decided, status, "{nonce}");
    }
    // Under another commitment nonces begin again.
    change(&mut request, |info| {
        info.ticket_params.as_mut().unwrap().recipient_rand_hash = vec![9; 32].into();
    });
    assert_eq!(*decide(START, &request).unwrap().nonces.start(), 1);
}

#[test]
fn orchestrators_are_listed_by_what_they_can() {
    use livepeer_core::wire::signer::ListedOrchestrator;
    let mut server = Server::new(|config, _| config.discovery = true);
    let one = |address: &str, caps: &[&str]| ListedOrchestrator {
        address: address.into(),
        capabilities: caps.iter().map(|cap| (*cap).into()).collect(),
        runners: Vec::new(),
    };
    let all = vec![
        one("https://a:8935", &["live-video-to-video/noop"]),
        one("https://b:8935", &["text to image/x", "my-app"]),
    ];
    server.signer.set_listed(START, all);
    for (query, expected) in [
        ("", vec!["https://a:8935", "https://b:8935"]),
        ("?caps=", vec!["https://a:8935", "https://b:8935"]),
        ("?caps=live-video-to-video%2Fnoop", vec!["https://a:8935"]),
        ("?caps=text+to+image/x&caps=nothing", vec!["https://b:8935"]),
        (
            "?caps=my-app&caps=live-video-to-video/noop",
            vec!["https://a:8935", "https://b:8935"],
        ),
        ("?caps=nothing", vec![]),
    ] {
        let path = format!("/discover-orchestrators{query}");
        let (status, _, body) = server.call(Method::Get, &path, Headers::new(), b"");
        assert_eq!(status, 200);
        let listed: Vec<Value> = serde_json::from_slice(&body).unwrap();
        let addresses: Vec<&str> = listed.iter().map(|one| text(&one["address"])).collect();
        assert_eq!(addresses, expected, "{query}");
        assert!(
            listed
                .iter()
                .all(|one| one["score"] == 1 && one["runners"] == json!([]))
        );
    }
}
