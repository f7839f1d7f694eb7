//! A payer, a recipient and their quote, for benchmarks and loads.

use std::task::{Context, Poll, Waker};

use livepeer_core::http::{Body, Headers, In, Method, Out, Request, Url};
use livepeer_core::money::{Price, Wei};
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::receiver::Config as RecipientConfig;
use livepeer_core::payment::remote::Config;
use livepeer_core::payment::ticket::Ticket;
use livepeer_core::payment::{Secret, SignerServer, TicketReceiver};
use livepeer_core::wire::signer::{PAYMENT_PATH, PaymentRequest, PaymentResponse, StateBlob};
use livepeer_core::wire::{Payment, SenderParams, TicketParams};
use livepeer_core::{
    Address, ChainView, Digest, Effect, EffectId, Input, Machine, Output, Signature, Time,
};
use livepeer_proto::net;
use livepeer_runtime::{KeyHolder as _, LocalKey};
use prost::Message as _;

/// When all of it happens, but for loads on a running signer.
pub const NOW: Time = Time::from_secs(1_790_000_000);

/// The payer's key.
///
/// # Panics
/// Never: the number is one.
#[must_use]
pub fn key() -> LocalKey {
    LocalKey::new(&[7; 32]).expect("the number is a key")
}

fn sign(key: &LocalKey, digest: Digest) -> Signature {
    let mut cx = Context::from_waker(Waker::noop());
    match key.sign(digest).as_mut().poll(&mut cx) {
        Poll::Ready(Ok(signature)) => signature,
        _ => panic!("a local key signs at once"),
    }
}

/// A recipient and its quote.
pub struct Scene {
    recipient: TicketReceiver,
    /// The parameters that tickets must have.
    pub params: TicketParams,
    price: Price,
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

impl Scene {
    /// A price so low that one ticket pays for a long time.
    ///
    /// # Panics
    /// Never: everybody is funded.
    #[must_use]
    pub fn new() -> Self {
        Self::at(NOW)
    }

    /// Makes the setting for another time, for loads on a running signer with the chain for development.
    ///
    /// # Panics
    /// Never: everybody is funded.
    #[must_use]
    pub fn at(now: Time) -> Self {
        let price = Price::new(1, 1).expect("a price");
        let config = RecipientConfig::new(Address([0x0e; 20]));
        let mut recipient = TicketReceiver::new(
            now,
            config,
            Secret([1; 32]),
            ChainView::development_at(now),
            [2; 32],
        );
        let params = recipient
            .quote(now, key().address(), price)
            .expect("everybody is funded");
        Self {
            recipient,
            params,
            price,
        }
    }

    /// Turns to the n-th of further quotes: one lasts for 500 tickets. Nobody knows the number behind it, so no
    /// recipient takes its tickets.
    pub fn requote(&mut self, n: u64) {
        self.params.recipient_rand_hash[..8].copy_from_slice(&n.to_be_bytes());
    }

    /// The orchestrator's info, good for half an hour from `now`.
    ///
    /// # Panics
    /// Never: time is small enough.
    #[must_use]
    pub fn info(&self, now: Time) -> net::OrchestratorInfo {
        let params = &self.params;
        net::OrchestratorInfo {
            transcoder: "https://127.0.0.1:8935".into(),
            ticket_params: Some(net::TicketParams {
                recipient: params.recipient.0.to_vec().into(),
                face_value: params.face_value.to_be_bytes().into(),
                win_prob: Wei::from(params.win_prob.clone()).to_be_bytes().into(),
                recipient_rand_hash: params.recipient_rand_hash.to_vec().into(),
                seed: params.seed.clone(),
                expiration_block: Wei::from(params.expiration_block.clone())
                    .to_be_bytes()
                    .into(),
                expiration_params: Some(net::TicketExpirationParams {
                    creation_round: params.creation_round,
                    creation_round_block_hash: params.creation_round_block_hash.to_vec().into(),
                }),
            }),
            price_info: Some(net::PriceInfo {
                price_per_unit: self.price.wei(),
                pixels_per_unit: self.price.per(),
                ..net::PriceInfo::default()
            }),
            address: params.recipient.0.to_vec().into(),
            auth_token: Some(net::AuthToken {
                token: vec![2; 32].into(),
                session_id: "session".into(),
                expiration: i64::try_from(now.as_secs()).expect("a small number") + 1_800,
            }),
            ..net::OrchestratorInfo::default()
        }
    }

    /// A request for the first payment of a job that is billed by the second.
    #[must_use]
    pub fn request(&self, now: Time, state: StateBlob) -> Vec<u8> {
        PaymentRequest {
            state,
            orchestrator: Some(self.info(now).encode_to_vec().into()),
            manifest_id: "job".into(),
            job_type: "live".into(),
            ..PaymentRequest::default()
        }
        .to_json()
    }

    /// A request for a payment of a job that says itself how many units it is for: as many as one ticket is worth.
    #[must_use]
    pub fn units(&self, now: Time, state: StateBlob) -> Vec<u8> {
        PaymentRequest {
            state,
            orchestrator: Some(self.info(now).encode_to_vec().into()),
            manifest_id: "job".into(),
            in_pixels: 8_000_000_000,
            ..PaymentRequest::default()
        }
        .to_json()
    }

    /// A request as [`Scene::request`] makes it, at the time of benchmarks.
    #[must_use]
    pub fn first_body(&self) -> Vec<u8> {
        self.request(NOW, StateBlob::default())
    }

    /// The request that follows on a first one.
    ///
    /// # Panics
    /// If the signer does not pay.
    pub fn continued_body(&self, signer: &mut Signer) -> Vec<u8> {
        let answer = signer.call(&self.first_body());
        let made = PaymentResponse::from_json(&answer).expect("a payment");
        self.request(NOW, made.state)
    }

    /// A signer for the payer.
    #[must_use]
    pub fn signer(&self) -> Signer {
        let key = key();
        let config = Config::new(Policy::new(key.address()));
        Signer {
            server: SignerServer::new(NOW, config, ChainView::development_at(NOW), [3; 32]),
            key,
            count: 0,
        }
    }

    /// A payment of so many tickets, and who receives it.
    #[must_use]
    pub fn receipt(self, tickets: u32) -> (TicketReceiver, Payment) {
        let key = key();
        let sender = key.address();
        let signed = |nonce| {
            let digest = Ticket::new(&self.params, sender, nonce).digest();
            SenderParams {
                nonce,
                signature: sign(&key, digest).0.to_vec().into(),
            }
        };
        let payment = Payment {
            sender,
            tickets: (1..=tickets).map(signed).collect(),
            ticket_params: Some(self.params.clone()),
            expected_price: Some(self.price),
        };
        (self.recipient, payment)
    }
}

/// A signer with its key holder, without sockets.
pub struct Signer {
    server: SignerServer,
    key: LocalKey,
    count: u64,
}

impl Signer {
    /// Requests a payment; returns the body of the answer.
    ///
    /// # Panics
    /// If the answer is not a payment.
    pub fn call(&mut self, body: &[u8]) -> Vec<u8> {
        let id = EffectId::by_peer(self.count);
        self.count += 1;
        let url = Url::parse("http://signer")
            .expect("a URL")
            .with_path(PAYMENT_PATH);
        for step in [
            In::Request(Request::new(Method::Post, url)),
            In::Data(body.to_vec().into()),
            In::End(Headers::new()),
        ] {
            self.server.handle_input(NOW, Input::Http(id, step));
        }
        let mut answer = None;
        loop {
            match self.server.poll_output() {
                Output::Effect(id, Effect::Sign(digest)) => {
                    let signature = sign(&self.key, digest);
                    self.server
                        .handle_input(NOW, Input::Signed(id, Ok(signature)));
                }
                Output::Effect(id, Effect::Store(_)) => {
                    self.server.handle_input(NOW, Input::Stored(id, Ok(())));
                }
                Output::Effect(_, Effect::Http(Out::Reply(reply))) => {
                    let Body::Full(body) = reply.body else {
                        panic!("answers are whole")
                    };
                    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&body));
                    answer = Some(body.to_vec());
                }
                Output::Idle(_) => return answer.expect("an answer"),
                _ => {}
            }
        }
    }
}
