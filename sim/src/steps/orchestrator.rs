//! Gateways of an orchestrator, honest and otherwise, and a store that takes its time.

mod step;

pub use step::Step;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::chain::ChainView;
use livepeer_core::http::{Body, Fault, Headers, In, Method, Out, Protocol, Request, Url};
use livepeer_core::money::{Amount, Price};
use livepeer_core::payment::Ticket;
use livepeer_core::store::StoreFailed;
use livepeer_core::wire::grpc;
use livepeer_core::wire::payment::{PAYMENT_HEADER, SEGMENT_HEADER};
use livepeer_core::wire::{
    Channels, OrchestratorInfo, Payment, SegmentCredentials, SenderParams, identity_digest,
};
use livepeer_core::{Effect, EffectId, Input, Machine, Pipeline, Time};
use livepeer_proto::net;

use super::Reel;
use super::answer::Answer;
use super::reel::nth;
use crate::Key;
use crate::{Driven, Exchanges};
use livepeer_orchestrator::{BatchModel, Config, Event, ModelConfig, Orchestrator, Payments};
use step::quirks;

/// State of an exchange: its purpose, and how far its answer is.
#[derive(Debug, Default)]
struct Exchange {
    hello: bool,
    start: bool,
    /// Batch work, and whether its request names no model: then its handler dies before it takes a slot.
    batch: Option<bool>,
    answer: Answer,
}

/// Plays steps against an orchestrator.
pub struct Player {
    now: Time,
    book: Exchanges,
    machine: Orchestrator,
    chain: ChainView,
    payer: Key,
    exchanges: BTreeMap<EffectId, Exchange>,
    open: Vec<EffectId>,
    minted: u64,
    unsaved: Vec<EffectId>,
    quotes: Vec<OrchestratorInfo>,
    sessions: Vec<Channels>,
    /// Tickets that were sent with a good signature: commitment and nonce.
    sent: BTreeSet<([u8; 32], u32)>,
    credited: Amount,
    tickets: usize,
    metered: Amount,
    billed: Amount,
    /// Batch requests that were sent, and those that were charged.
    batch: (u64, u64),
    /// Batch requests whose handlers died.
    died: u32,
    /// Whether the last input said that a record is durable.
    storing: bool,
    closed: bool,
}

/// Sessions at a time, and batch requests of a kind.
const PLACES: u32 = 3;

/// The kinds of batch work.
const BATCH: [Pipeline; 3] = [Pipeline::TextToImage, Pipeline::Llm, Pipeline::TextToSpeech];

impl Player {
    /// A paid orchestrator; the byte picks its price.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_700_000_000);
        let service = Url::parse("https://orch:8935").expect("a URL");
        let price = Price::new(i64::from(flavour) + 1, 1).expect("a price");
        let chain = ChainView::development();
        let account = Key::named("node").address();
        let model = ModelConfig {
            capacity: PLACES,
            ..ModelConfig::default()
        };
        let config = Config {
            idle: Duration::from_secs(20),
            ..Config::new(service, account)
        }
        .on_chain(Payments::new(account, price, chain.clone()))
        .with_model("noop", model);
        let config = BATCH.into_iter().fold(config, |config, pipeline| {
            let model = BatchModel {
                capacity: PLACES,
                takes: Duration::from_millis(300),
                pace: Duration::from_millis(50),
                ..BatchModel::default()
            };
            config.with_batch_model(pipeline, "m", model)
        });
        let mut player = Self {
            now,
            book: Exchanges::default(),
            machine: Orchestrator::new(now, config, [flavour; 32]),
            chain,
            payer: Key::named("payer"),
            exchanges: BTreeMap::new(),
            open: Vec::new(),
            minted: 0,
            unsaved: Vec::new(),
            quotes: Vec::new(),
            sessions: Vec::new(),
            sent: BTreeSet::new(),
            credited: Amount::zero(),
            tickets: 0,
            metered: Amount::zero(),
            batch: (0, 0),
            died: 0,
            billed: Amount::zero(),
            storing: false,
            closed: false,
        };
        player.play(&Step::Hello(0));
        player
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match step {
            Step::Hello(wrong) => self.hello(*wrong),
            Step::Start(quote, nonce, tickets, wrong) => {
                let Some(paid) = self.paid(*quote, "first", *nonce, *tickets, *wrong) else {
                    return;
                };
                let body = match wrong {
                    250 => "{",
                    251 => r#"{"model_id":"none"}"#,
                    _ => r#"{"model_id":"noop","params":{"a":1}}"#,
                };
                let request = self.post("/live-video-to-video", paid);
                let id = self.request(request);
                self.exchanges.get_mut(&id).expect("just opened").start = true;
                self.http(id, In::Data(Bytes::from_static(body.as_bytes())));
                self.http(id, In::End(Headers::new()));
            }
            Step::Pay(quote, session, nonce, tickets, wrong) => {
                let Some(id) = self.session(*session).map(|one| one.manifest_id.clone()) else {
                    return;
                };
                let Some(paid) = self.paid(*quote, &id, *nonce, *tickets, *wrong) else {
                    return;
                };
                let request = self.post("/payment", paid);
                let id = self.request(request);
                self.http(id, In::End(Headers::new()));
            }
            Step::Batch(kind, quote, nonce, tickets, wrong) => {
                self.batch(*kind, *quote, *nonce, *tickets, *wrong);
            }
            Step::Quirk(way) => {
                self.machine.set_quirks(self.now, quirks(*way));
                self.drain();
            }
            Step::Take(which, less) => {
                if let Some(id) = self.exchange(*which)
                    && let Some(exchange) = self.exchanges.get_mut(&id)
                {
                    let taken = exchange.answer.taken(usize::from(*less));
                    self.http(id, In::Sent(taken));
                }
            }
            Step::Refresh(session) => {
                let sender = self.payer.address();
                let id = self.session(*session).map_or("x", |one| &one.manifest_id);
                let body = format!(r#"{{"sender":"{sender}","manifest_id":"{id}"}}"#);
                let request = self.post("/refresh-payment", Headers::new());
                let id = self.request(request);
                self.http(id, In::Data(body.into()));
                self.http(id, In::End(Headers::new()));
            }
            Step::Junk(path, method, grpc) => {
                let paths = [
                    grpc::GET_ORCHESTRATOR,
                    grpc::PING,
                    grpc::END_TRANSCODING_SESSION,
                    "/net.Orchestrator/Other",
                    "/live-video-to-video",
                    "/payment",
                    "/refresh-payment",
                    "/discovery",
                    "/ai/trickle/",
                    "/ai/trickle/x/0",
                    "/",
                ];
                let methods = [Method::Get, Method::Post, Method::Delete, Method::Put];
                let url = Url::parse("https://orch:8935").expect("a URL");
                let path = paths[usize::from(*path) % paths.len()];
                let method = methods[usize::from(*method) % methods.len()];
                let mut request = Request::new(method, url.with_path(path)).body(Body::Stream);
                if *grpc {
                    request = request
                        .header("content-type", "application/grpc")
                        .protocol(Protocol::Http2);
                }
                self.request(request);
            }
            Step::Write(which, size) => {
                if let Some(id) = self.exchange(*which) {
                    let bytes = vec![*size; usize::from(*size)];
                    self.http(id, In::Data(bytes.into()));
                }
            }
            Step::End(which) => {
                if let Some(id) = self.exchange(*which) {
                    self.http(id, In::End(Headers::new()));
                }
            }
            Step::Break(which) => {
                if let Some(id) = self.exchange(*which) {
                    self.fail(id);
                }
            }
            Step::Channel(session, channel, what) => self.channel(*session, *channel, *what),
            Step::Stored(keeps) => {
                if !self.unsaved.is_empty() {
                    let id = self.unsaved.remove(0);
                    self.storing = *keeps;
                    let answer = if *keeps {
                        Ok(())
                    } else {
                        Err(StoreFailed("the disk is full".into()))
                    };
                    self.input(Input::Stored(id, answer));
                    self.storing = false;
                }
            }
            Step::Blocks(count) => {
                self.chain.l1_block += u64::from(*count);
                self.machine.set_chain(self.now, self.chain.clone());
                self.drain();
            }
            Step::Expel(session) => {
                if let Some(id) = self.session(*session).map(|one| one.manifest_id.clone()) {
                    self.machine.end_session(self.now, &id);
                    self.drain();
                }
            }
            Step::Pass(tenths) => self.leap(Duration::from_millis(u64::from(*tenths) * 100)),
        }
    }

    /// Everybody goes home, and nothing may be left.
    ///
    /// # Panics
    /// If something is.
    pub fn finish(mut self) {
        while !self.unsaved.is_empty() {
            self.play(&Step::Stored(true));
        }
        for id in std::mem::take(&mut self.open) {
            self.http(id, In::Failed(Fault::Broken("gone".into())));
        }
        for _ in 0..80 {
            self.leap(Duration::from_secs(1));
        }
        let figures = self.machine.figures();
        assert_eq!(figures.running, 0, "sessions are swept");
        assert_eq!(figures.credited, self.credited);
        assert_eq!(figures.billed, self.billed);
        assert_eq!(figures.jobs, self.batch.1);
        assert_eq!(
            BATCH
                .map(|pipeline| self.machine.free_slots(pipeline, "m"))
                .iter()
                .sum::<u32>(),
            3 * PLACES - self.died,
            "all slots are free again, but for those of handlers that died"
        );
        assert!(!self.closed, "nobody closed it yet");
        self.machine.close(self.now);
        self.drain();
        assert!(self.closed, "the last event is that it closed");
    }

    fn hello(&mut self, wrong: u8) {
        let address = self.payer.address();
        let mut sig = self.payer.sign(identity_digest(address)).0;
        if wrong > 200 {
            sig[usize::from(wrong) % 65] ^= 1;
        }
        let hello = net::OrchestratorRequest {
            address: Bytes::copy_from_slice(&address.0),
            sig: Bytes::copy_from_slice(&sig),
            capabilities: wrong
                .is_multiple_of(3)
                .then(|| Capabilities::live_video("noop").to_wire()),
            ignore_capacity_check: wrong.is_multiple_of(2),
        };
        let to = Url::parse("https://orch:8935").expect("a URL");
        let within = Duration::from_secs(5);
        let trust = livepeer_core::http::Trust::FirstUse;
        let mut call = grpc::call(&to, grpc::GET_ORCHESTRATOR, &hello, trust, within);
        let Body::Full(bytes) = std::mem::replace(&mut call.body, Body::Stream) else {
            return;
        };
        let id = self.request(call);
        self.exchanges.get_mut(&id).expect("just opened").hello = true;
        let cut = if wrong % 7 == 6 {
            bytes.len() / 2
        } else {
            bytes.len()
        };
        self.http(id, In::Data(bytes.slice(..cut)));
        self.http(id, In::End(Headers::new()));
    }

    fn batch(&mut self, kind: u8, quote: u8, nonce: u8, tickets: u8, wrong: u8) {
        let pipeline = BATCH[usize::from(kind) % BATCH.len()];
        let Some(paid) = self.paid(quote, "first", nonce, tickets, wrong) else {
            return;
        };
        let stream = kind >= 128;
        let body = match (wrong, pipeline) {
            (250, _) => "{".to_owned(),
            (251, _) => r#"{"prompt":"p"}"#.to_owned(),
            (_, Pipeline::Llm) => {
                let words = "word ".repeat(usize::from(wrong));
                format!(
                    r#"{{"model":"m","messages":[{{"role":"user","content":"{words}"}}],"max_tokens":99,"stream":{stream}}}"#
                )
            }
            (_, Pipeline::TextToSpeech) => r#"{"model_id":"m","text":"t"}"#.to_owned(),
            _ => r#"{"model_id":"m","prompt":"p","width":9,"height":8}"#.to_owned(),
        };
        let request = self.post(&format!("/{pipeline}"), paid);
        let id = self.request(request);
        self.exchanges.get_mut(&id).expect("just opened").batch = Some(wrong == 251);
        self.batch.0 += 1;
        self.http(id, In::Data(body.into()));
        self.http(id, In::End(Headers::new()));
    }

    /// Payment and credentials, with whatever is wrong with them.
    fn paid(
        &mut self,
        quote: u8,
        session: &str,
        nonce: u8,
        tickets: u8,
        wrong: u8,
    ) -> Option<Headers> {
        let quote = nth(quote, &self.quotes)?;
        let sender = self.payer.address();
        let params = quote.ticket_params.clone()?;
        let mut payment = Payment {
            sender,
            tickets: Vec::new(),
            expected_price: quote.price,
            ticket_params: Some(params.clone()),
        };
        if wrong == 240 {
            payment.expected_price = Price::new(1, 7);
        }
        for nonce in u32::from(nonce)..u32::from(nonce) + u32::from(tickets) {
            let ticket = Ticket::new(&params, sender, nonce);
            let mut signature = self.payer.sign(ticket.digest()).0;
            if wrong == 241 {
                signature[3] ^= 4;
            } else {
                self.sent.insert((params.recipient_rand_hash, nonce));
            }
            payment.tickets.push(SenderParams {
                nonce,
                signature: Bytes::copy_from_slice(&signature),
            });
        }
        let token = quote.auth_token.clone();
        let mut credentials = SegmentCredentials::for_payment(session.to_owned(), token, None);
        let signature = self.payer.sign(credentials.digest());
        credentials.signature = Bytes::copy_from_slice(&signature.0);
        if wrong == 242 {
            credentials.manifest_id.push('x');
        }
        let mut headers = Headers::new();
        if wrong != 243 {
            headers.push(PAYMENT_HEADER, payment.encode());
        }
        if wrong != 244 {
            headers.push(SEGMENT_HEADER, credentials.encode());
        }
        Some(headers)
    }

    #[expect(
        clippy::unused_self,
        reason = "reads better beside the other makers of requests"
    )]
    fn post(&self, path: &str, headers: Headers) -> Request {
        let url = Url::parse("https://orch:8935").expect("a URL");
        let mut request = Request::new(Method::Post, url.with_path(path)).body(Body::Stream);
        request.headers = headers;
        request
    }

    fn channel(&mut self, session: u8, channel: u8, what: u8) {
        let Some(session) = self.session(session) else {
            return;
        };
        let url = match channel % 8 {
            0 => &session.subscribe,
            1 => &session.control,
            2 => &session.events,
            _ => &session.publish,
        }
        .clone();
        // Mostly the first few, sometimes far ahead.
        let number = if what > 250 { 40 } else { what / 8 % 4 };
        let number = number.to_string();
        let (method, url) = match what % 8 {
            0 if what > 200 => (Method::Delete, url),
            1 => (Method::Delete, url.child(&number)),
            0 | 2 | 3 => (Method::Get, url.child(&number)),
            4 => (Method::Get, url.child("-2")),
            _ => (Method::Post, url.child(&number)),
        };
        let id = self.request(Request::new(method, url).body(Body::Stream));
        if method == Method::Post {
            let message = [&b"video"[..], br#"{"a":2}"#, br#"{"keep":"alive"}"#, b"["];
            let bytes = Bytes::from_static(message[usize::from(what >> 6)]);
            self.http(id, In::Data(bytes));
            if what % 8 > 5 {
                self.http(id, In::End(Headers::new()));
            }
        } else {
            self.http(id, In::End(Headers::new()));
        }
    }

    fn session(&self, which: u8) -> Option<&Channels> {
        nth(which, &self.sessions)
    }

    fn exchange(&self, which: u8) -> Option<EffectId> {
        nth(which, self.open.iter().copied())
    }

    fn request(&mut self, request: Request) -> EffectId {
        let id = EffectId::by_peer(self.minted);
        self.minted += 1;
        self.exchanges.insert(id, Exchange::default());
        self.open.push(id);
        self.http(id, In::Request(request));
        id
    }

    fn fail(&mut self, id: EffectId) {
        self.open.retain(|open| *open != id);
        self.http(id, In::Failed(Fault::Broken("gone".into())));
    }

    fn heard(&mut self, id: EffectId, step: Out) {
        let exchange = self
            .exchanges
            .get_mut(&id)
            .expect("only who asked is answered");
        match step {
            Out::Abort if exchange.batch.is_some() => {
                self.died += u32::from(exchange.batch == Some(false));
                exchange.answer.over = true;
            }
            step => exchange.answer.take(step),
        }
        if exchange.answer.over {
            self.open.retain(|open| *open != id);
            self.answered(id);
        }
    }

    fn answered(&mut self, id: EffectId) {
        let Some(exchange) = self.exchanges.get(&id) else {
            return;
        };
        if exchange.hello && exchange.answer.body.len() > 5 {
            let raw = Bytes::copy_from_slice(&exchange.answer.body[5..]);
            let info = OrchestratorInfo::decode(raw).expect("what it says can be read");
            self.quotes.push(info);
        }
        if exchange.start && exchange.answer.status == Some(200) {
            let url = Url::parse("https://orch:8935").expect("a URL");
            let channels = Channels::from_json(&exchange.answer.body, &url).expect("all channels");
            self.sessions.push(channels);
        }
    }
}

impl Driven for Player {
    crate::driven!(machine: Orchestrator, book);

    const PATIENT: bool = true;

    fn is_over(&self) -> bool {
        self.closed
    }

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(step) => self.heard(id, step),
            Effect::Store(_) => self.unsaved.push(id),
            Effect::Spend(_) => panic!("an orchestrator spends nothing"),
            Effect::Sign(digest) => {
                let signature = self.payer.sign(digest);
                self.machine
                    .handle_input(self.now, Input::Signed(id, Ok(signature)));
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Credited { tickets, value, .. } => {
                assert!(self.storing, "nothing is credited before it is durable");
                self.tickets += tickets;
                self.credited += &value;
                assert!(self.tickets <= self.sent.len(), "no ticket counts twice");
            }
            Event::Metered { fee, balance, .. } => {
                self.billed += &fee;
                self.metered += &fee;
                assert!(balance >= Amount::zero(), "metering never overdraws");
                assert!(self.metered <= self.credited, "what is metered was paid");
            }
            Event::Worked { fee, .. } => {
                self.billed += &fee;
                self.batch.1 += 1;
                assert!(self.batch.1 <= self.batch.0, "no request is charged twice");
            }
            Event::Closed => self.closed = true,
            _ => {}
        }
    }

    fn idle(&mut self, _: Option<Time>) {
        let running = self.machine.sessions().count();
        assert!(running <= PLACES as usize, "no more sessions than places");
    }
}

/// Plays what the bytes say.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) {
    let mut reel = Reel::new(data);
    let mut player = Player::new(reel.byte());
    reel.play(Step::read, |step| player.play(step));
    player.finish();
}
