//! The remote signer against its vectors: accounting, exact bytes, and every answer over HTTP.

mod books;
mod jobs;
mod nonces;
mod service;
mod webhook;

use std::collections::BTreeMap;
use std::net::IpAddr;
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
use livepeer_core::store::Record;
use livepeer_core::wire::signer::{MaxPrice, PaymentRequest, PaymentResponse, StateBlob};
use livepeer_core::wire::signer_state::from_rfc3339;
use livepeer_core::wire::{AuthToken, Payment, SegmentCredentials, SignerState, Token};
use livepeer_core::{Address, ChainView, Effect, EffectId, Input, Machine, Output, Time};
use livepeer_proto::net;
use num_bigint::BigUint;
use prost::Message as _;
use serde_json::{Value, json};

use crate::support::*;

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

/// A signer on its own, with a webhook that always says the same.
struct Server {
    now: Time,
    signer: SignerServer,
    key: Key,
    webhook: Option<(u16, String)>,
    asked: Vec<Value>,
    peers: u64,
    events: Vec<Event>,
    /// The records in the store, by key.
    kept: BTreeMap<String, Record>,
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
            kept: BTreeMap::new(),
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
        self.open_from(None, method, path, headers)
    }

    fn open_from(
        &mut self,
        peer: Option<IpAddr>,
        method: Method,
        path: &str,
        headers: Headers,
    ) -> EffectId {
        let id = EffectId::by_peer(self.peers);
        self.peers += 1;
        let url = Url::parse("http://signer").unwrap().with_path(path);
        let mut request = Request::new(method, url);
        request.headers = headers;
        request.peer = peer;
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
                Output::Effect(id, Effect::Store(record)) => {
                    match record.value {
                        Some(_) => self.kept.insert(record.key.clone(), record),
                        None => self.kept.remove(&record.key),
                    };
                    self.signer
                        .handle_input(self.now, Input::Stored(id, Ok(())));
                }
                Output::Effect(_, Effect::Spend(_)) => panic!("nothing is shared here"),
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

/// A request for one fixed unit of work at one wei.
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
