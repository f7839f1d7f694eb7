//! A stage with one orchestrator, one caller who is nobody's client, and the forging of whatever a payer may send.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::chain::ChainView;
use livepeer_core::http::{Body, Method, Protocol, Request, Url};
use livepeer_core::money::Price;
use livepeer_core::payment::Ticket;
use livepeer_core::trickle::{Publisher, Start, Subscriber, publisher, subscriber};
use livepeer_core::wire::grpc::{self, NoAnswer, Status};
use livepeer_core::wire::payment::{PAYMENT_HEADER, SEGMENT_HEADER};
use livepeer_core::wire::{
    Channels, OrchestratorInfo, Payment, SegmentCredentials, SenderParams, identity_digest,
};
use livepeer_core::{EffectId, Time};
use livepeer_orchestrator::Orchestrator;
use livepeer_orchestrator::{Config, Event, Payments};
use livepeer_proto::net;
use livepeer_sim::{Answer, Caller, Key, Net, Node};

pub(crate) const SERVICE: &str = "https://orch:8935";

/// Wei per pixel: 276,480,000 a second, so that a ticket of the usual worth covers some 29 of them.
pub(crate) const PRICE: i64 = 10;

pub(crate) struct Stage {
    pub(crate) net: Net,
    pub(crate) orch: Node<Orchestrator>,
    pub(crate) caller: Node<Caller>,
    pub(crate) payer: Key,
}

/// The two headers of paid work.
#[derive(Clone, Debug)]
pub(crate) struct Paid {
    pub(crate) payment: String,
    pub(crate) segment: String,
}

pub(crate) fn service() -> Url {
    Url::parse(SERVICE).expect("a URL")
}

pub(crate) fn off_chain() -> Config {
    Config::new(service(), Key::named("node").address())
}

pub(crate) fn on_chain() -> Config {
    let price = Price::new(PRICE, 1).expect("a price");
    let recipient = Key::named("recipient").address();
    off_chain().on_chain(Payments::new(recipient, price, ChainView::development()))
}

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

impl Stage {
    pub(crate) fn new(config: Config) -> Self {
        let mut net = Net::new(Time::from_secs(1_700_000_000), [5; 32]);
        let orch = Orchestrator::new(net.now(), config, [6; 32]);
        let orch = net.serve(&service().authority(), orch);
        net.give_key(orch, Key::named("node"));
        let caller = net.add(Caller::default());
        Self {
            net,
            orch,
            caller,
            payer: Key::named("payer"),
        }
    }

    /// Sends a request and waits for the whole answer.
    pub(crate) fn ask(&mut self, request: Request) -> Answer {
        let id = self.send(request);
        self.answer(id)
    }

    pub(crate) fn send(&mut self, request: Request) -> EffectId {
        self.net.with(self.caller, |caller, _| caller.send(request))
    }

    pub(crate) fn answer(&mut self, id: EffectId) -> Answer {
        let caller = self.caller;
        let came = self
            .net
            .run_while(secs(5), |net| !net.get(caller).answer(id).is_over());
        assert!(came, "an answer within five seconds");
        self.net.get(caller).answer(id).clone()
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        self.net.events(self.orch)
    }

    // ---- gRPC ----

    pub(crate) fn call(
        &mut self,
        path: &str,
        message: &impl prost::Message,
    ) -> Result<Bytes, NoAnswer> {
        let trust = livepeer_core::http::Trust::FirstUse;
        let answer = self.ask(grpc::call(&service(), path, message, trust, secs(5)));
        let mut head = livepeer_core::http::Response::new(answer.status.expect("a head"));
        head.headers = answer.headers;
        let mut reading = grpc::Answer::default();
        reading.head(&head)?;
        reading.data(&answer.body)?;
        reading.end(&answer.end.unwrap_or_default())
    }

    /// An honest handshake request.
    pub(crate) fn hello(&self, wanted: Option<Capabilities>) -> net::OrchestratorRequest {
        let address = self.payer.address();
        let sig = self.payer.sign(identity_digest(address));
        net::OrchestratorRequest {
            address: Bytes::copy_from_slice(&address.0),
            sig: Bytes::copy_from_slice(&sig.0),
            capabilities: wanted.map(|wanted| wanted.to_wire()),
            ignore_capacity_check: false,
        }
    }

    pub(crate) fn shake(
        &mut self,
        hello: &net::OrchestratorRequest,
    ) -> Result<OrchestratorInfo, Status> {
        match self.call(grpc::GET_ORCHESTRATOR, hello) {
            Ok(raw) => Ok(OrchestratorInfo::decode(raw).expect("info that can be read")),
            Err(NoAnswer::Status(status)) => Err(status),
            Err(other) => panic!("{other}"),
        }
    }

    pub(crate) fn info(&mut self) -> OrchestratorInfo {
        let hello = self.hello(Some(Capabilities::live_video("noop")));
        self.shake(&hello).expect("an honest handshake")
    }

    // ---- payments ----

    /// Honest tickets with those nonces, for the account of `manifest_id`.
    pub(crate) fn pay(
        &self,
        info: &OrchestratorInfo,
        manifest_id: &str,
        nonces: RangeInclusive<u32>,
    ) -> Paid {
        let params = info.ticket_params.clone().expect("a priced quote");
        let sender = self.payer.address();
        let tickets = nonces
            .map(|nonce| {
                let ticket = Ticket::new(&params, sender, nonce);
                let signature = self.payer.sign(ticket.digest());
                SenderParams {
                    nonce,
                    signature: Bytes::copy_from_slice(&signature.0),
                }
            })
            .collect();
        let payment = Payment {
            sender,
            ticket_params: Some(params),
            tickets,
            expected_price: info.price,
        };
        Paid {
            payment: payment.encode(),
            segment: self.credentials(info, manifest_id).encode(),
        }
    }

    pub(crate) fn credentials(
        &self,
        info: &OrchestratorInfo,
        manifest_id: &str,
    ) -> SegmentCredentials {
        let token = info.auth_token.clone();
        let mut credentials = SegmentCredentials::for_payment(manifest_id.to_owned(), token, None);
        let signature = self.payer.sign(credentials.digest());
        credentials.signature = Bytes::copy_from_slice(&signature.0);
        credentials
    }

    pub(crate) fn post(&mut self, path: &str, paid: &Paid, body: impl Into<Bytes>) -> Answer {
        self.ask(
            Request::new(Method::Post, service().with_path(path))
                .header(PAYMENT_HEADER, paid.payment.clone())
                .header(SEGMENT_HEADER, paid.segment.clone())
                .body(Body::Full(body.into())),
        )
    }

    // ---- sessions ----

    pub(crate) fn start_with(&mut self, paid: &Paid, body: &str) -> Answer {
        self.post("/live-video-to-video", paid, body.to_owned())
    }

    /// Shakes hands, pays with `tickets` tickets and starts `noop`.
    pub(crate) fn start(&mut self, tickets: u32) -> (OrchestratorInfo, Channels) {
        let info = self.info();
        let paid = self.pay(&info, "first", 1..=tickets);
        (info, self.started(&paid))
    }

    pub(crate) fn started(&mut self, paid: &Paid) -> Channels {
        let answer = self.start_with(paid, r#"{"model_id":"noop"}"#);
        assert_eq!(answer.status, Some(200), "{}", answer.text());
        Channels::from_json(&answer.body, &service()).expect("a complete answer")
    }

    /// The headers that go with a request to an off-chain orchestrator.
    pub(crate) fn unpaid(info: &OrchestratorInfo) -> Paid {
        Paid {
            payment: String::new(),
            segment: SegmentCredentials::offchain(info.auth_token.as_ref()),
        }
    }

    pub(crate) fn start_off_chain(&mut self) -> Channels {
        let info = self.info();
        self.started(&Self::unpaid(&info))
    }

    pub(crate) fn publisher(&mut self, channel: &Url, json: bool) -> Node<Publisher> {
        let config = publisher::Config {
            content: if json {
                "application/json"
            } else {
                "video/MP2T"
            }
            .into(),
            // What follows from the end of a channel is timed here.
            linger: Duration::ZERO,
            ..publisher::Config::default()
        };
        let machine = Publisher::new(self.net.now(), config, channel.clone());
        let node = self.net.add(machine);
        self.net.run_for(ms(10));
        node
    }

    pub(crate) fn reader(&mut self, channel: &Url, start: Start) -> Node<Subscriber> {
        let config = subscriber::Config::default();
        let machine = Subscriber::new(self.net.now(), config, channel.clone(), start);
        let node = self.net.add(machine);
        self.net.run_for(ms(10));
        node
    }

    /// Publishes a segment, in two chunks, over `span`. False if the channel has ended.
    pub(crate) fn publish(
        &mut self,
        publisher: Node<Publisher>,
        segment: &[u8],
        span: Duration,
    ) -> bool {
        let mut going = self.net.with(publisher, |p, now| p.begin(now)).is_ok();
        for part in segment.chunks(segment.len().div_ceil(2).max(1)) {
            let part = Bytes::copy_from_slice(part);
            going &= self
                .net
                .with(publisher, |p, now| p.write(now, part))
                .is_ok();
            self.net.run_for(span / 2);
        }
        going & self.net.with(publisher, |p, now| p.end(now)).is_ok()
    }

    /// The segments that came to a reader so far, and whether its channel is over.
    pub(crate) fn read(&mut self, reader: Node<Subscriber>) -> (Vec<Vec<u8>>, bool) {
        let mut segments = Vec::new();
        let mut over = false;
        for event in self.net.events(reader) {
            match event {
                subscriber::Event::Begin(..) => segments.push(Vec::new()),
                subscriber::Event::Data(_, bytes) => segments
                    .last_mut()
                    .expect("data follows a beginning")
                    .extend_from_slice(&bytes),
                subscriber::Event::End(_) => {}
                subscriber::Event::Closed(_) => over = true,
                other => panic!("{other:?}"),
            }
        }
        (segments, over)
    }
}

/// A plain HTTP/1.1 request where gRPC is served.
pub(crate) fn plain(path: &str) -> Request {
    Request::new(Method::Post, service().with_path(path))
        .header("content-type", "application/grpc")
        .protocol(Protocol::Http1)
}
