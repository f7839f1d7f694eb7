//! A payer's session against the real signer and the real recipient, without a network in between.

mod cost;
mod holding;
mod own;
mod payments;
mod refusals;
mod signers;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use livepeer_core::capabilities::Ceilings;
use livepeer_core::chain::MAX_AGE;
use livepeer_core::error::{Advice, Broken, Cause, Failure, Misuse, Party, Reason};
use livepeer_core::http::{self, Body, Fault, Headers, Reach, Request, Response, Url};
use livepeer_core::money::{Amount, Price, Wei};
use livepeer_core::payment::ledger::AccountId;
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::receiver::{self, Trigger};
use livepeer_core::payment::session::{
    Charge, Config, Credentials, Delivered, Event, FIRST_PATIENCE, Fee, LocalAccount,
};
use livepeer_core::payment::{
    Budget, Payer, PaymentSession, Secret, SignerServer, Spending, TicketReceiver, Unit, remote,
    spending,
};
use livepeer_core::sign::SignRefused;
use livepeer_core::signers::{FIRST_REST, SignerHealth, Signers, Standing};
use livepeer_core::spend::{Spend, SpendRefused};
use livepeer_core::store::{Record, StoreFailed};
use livepeer_core::wire::challenge::{Challenge, REFRESH_PATH, RefreshRequest};
use livepeer_core::wire::payment::{PAYMENT_HEADER, SEGMENT_HEADER, payment_result};
use livepeer_core::wire::signer::{PAYMENT_PATH, error_json};
use livepeer_core::wire::{OrchestratorInfo, Payment, SegmentCredentials};
use livepeer_core::{Address, ChainView, Effect, EffectId, Input, Machine, Output, Rng, Time};
use livepeer_proto::net;
use num_bigint::BigInt;
use prost::Message as _;

use crate::support::*;

const ORCHESTRATOR: Address = Address([0x0e; 20]);
/// The key under which the limit keeps what was spent.
const SPENT: &str = "spent";

/// Everything around the session.
struct Net {
    now: Time,
    key: Key,
    signer: SignerServer,
    receiver: TicketReceiver,
    secret: Secret,
    price: Price,
    unit: Unit,
    /// The orchestrator knows nothing of `/refresh-payment`.
    old: bool,
    peers: u64,
    /// Mishaps of requests, by the path they go to; once each.
    plan: VecDeque<(&'static str, Mishap)>,
    requests: Vec<String>,
    /// Hosts that take requests and never answer.
    silent: Vec<&'static str>,
    /// How signers have been, as sessions told last.
    health: SignerHealth,
    /// Signers that were asked, and when.
    asked: Vec<(Time, String)>,
    /// The job's balance did not cover an interval.
    cut: bool,
    store: Plan,
    key_holder: Plan,
    /// How much the key holder signed.
    signed: u32,
    /// The records that the store kept.
    stored: BTreeMap<String, Record>,
    /// The limit on spending, which is stored.
    spending: Spending,
}

/// A behaviour of our own side when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Works,
    Fails,
    Hangs,
}

/// The behaviours of our own side in order, and then one for ever.
struct Plan(VecDeque<Own>, Own);

impl Plan {
    fn next(&mut self) -> Own {
        self.0.pop_front().unwrap_or(self.1)
    }
}

#[derive(Clone, Debug)]
enum Mishap {
    /// The request is lost.
    NotReached,
    /// The request is lost on the way, and the sender cannot tell how far it came.
    Broken,
    /// The request arrives, its answer does not.
    AnswerLost,
    /// Not a word comes back.
    Silent,
    /// Somebody answers this.
    Says(u16, &'static str),
    /// The request arrives, and somebody in between answers this.
    SaysAfter(u16, &'static str),
}

impl Net {
    fn new() -> Self {
        let key = key();
        let secret = Secret([3; 32]);
        let chain = ChainView::development();
        let signer = SignerServer::new(
            START,
            remote::Config::new(Policy::new(key.address())),
            chain.clone(),
            [1; 32],
        );
        let receiver = TicketReceiver::new(
            START,
            receiver::Config::new(ORCHESTRATOR),
            secret.clone(),
            chain,
            [2; 32],
        );
        Self {
            now: START,
            key,
            signer,
            receiver,
            secret,
            price: Price::new(48, 1).unwrap(),
            unit: Unit::PixelSeconds,
            old: false,
            peers: 0,
            plan: VecDeque::new(),
            requests: Vec::new(),
            silent: Vec::new(),
            health: SignerHealth::default(),
            asked: Vec::new(),
            cut: false,
            store: Plan(VecDeque::new(), Own::Works),
            key_holder: Plan(VecDeque::new(), Own::Works),
            signed: 0,
            stored: BTreeMap::new(),
            spending: Spending::new(START, Budget::unlimited(), Some(SPENT.into())),
        }
    }

    fn quote(&mut self) -> net::OrchestratorInfo {
        let sender = self.key.address();
        let params = self.receiver.quote(self.now, sender, self.price).unwrap();
        net::OrchestratorInfo {
            transcoder: "https://orch:8935".into(),
            ticket_params: Some(params.to_wire()),
            price_info: Some(net::PriceInfo {
                price_per_unit: self.price.wei(),
                pixels_per_unit: self.price.per(),
                ..net::PriceInfo::default()
            }),
            address: ORCHESTRATOR.0.to_vec().into(),
            auth_token: Some(self.secret.issue(self.now, "session".into()).to_wire()),
            ..net::OrchestratorInfo::default()
        }
    }

    fn info(&mut self) -> Arc<OrchestratorInfo> {
        // As a handshake hands it on: our user named the place.
        Arc::new(OrchestratorInfo {
            transcoder: Url::parse("https://orch:8935").unwrap(),
            ..OrchestratorInfo::decode(self.quote().encode_to_vec().into()).unwrap()
        })
    }

    fn session(&mut self, config: Config) -> PaymentSession {
        let url = Url::parse("http://signer/ignored").unwrap();
        let payer = Payer::Remote(Signers::new(url));
        let info = self.info();
        PaymentSession::new(self.now, config, &info, payer, Some(self.key.address()))
    }

    /// A network with a session that has paid nothing yet, and has the usual settings.
    fn unpaid() -> (Self, PaymentSession) {
        let mut net = Self::new();
        let session = net.session(Config::new(Unit::PixelSeconds));
        (net, session)
    }

    /// A network with a session whose job has started, and pays every five seconds.
    fn started() -> (Self, PaymentSession) {
        let (mut net, mut session) = Self::unpaid();
        net.start(&mut session, 5);
        (net, session)
    }

    fn account(&self) -> AccountId {
        AccountId {
            sender: self.key.address(),
            session: "job".into(),
        }
    }

    fn balance(&self) -> Amount {
        let account = self.account();
        self.receiver.balance(&account).cloned().unwrap_or_default()
    }

    /// Serves all that the session wants until it waits for time.
    fn settle(&mut self, session: &mut PaymentSession) -> (Vec<Event>, Option<Time>) {
        let mut events = Vec::new();
        loop {
            match session.poll_output() {
                Output::Event(Event::Signers(health)) => self.health = health,
                Output::Event(event) => events.push(event),
                Output::Idle(wake) => {
                    assert!(
                        wake.is_none_or(|wake| wake > self.now),
                        "a driver would spin"
                    );
                    return (events, wake);
                }
                Output::Effect(id, Effect::Http(http::Out::Request(request))) => {
                    for step in self.exchange(request) {
                        session.handle_input(self.now, Input::Http(id, step));
                    }
                }
                Output::Effect(_, Effect::Http(_)) => {}
                Output::Effect(id, Effect::Sign(digest)) => {
                    let answer = match self.key_holder.next() {
                        Own::Works => {
                            self.signed += 1;
                            Ok(self.key.sign(digest))
                        }
                        Own::Fails => Err(SignRefused("locked".into())),
                        Own::Hangs => continue,
                    };
                    session.handle_input(self.now, Input::Signed(id, answer));
                }
                Output::Effect(id, Effect::Store(record)) => {
                    if let Some(answer) = self.keep([record]) {
                        session.handle_input(self.now, Input::Stored(id, answer));
                    }
                }
                Output::Effect(id, Effect::Spend(Spend::Take { value, record })) => {
                    if let Some(answer) = self.take(&value, record) {
                        session.handle_input(self.now, Input::Spent(id, answer));
                    }
                }
                // Nothing is counted of what the store does not answer.
                Output::Effect(_, Effect::Spend(Spend::Cancel)) => {}
                Output::Effect(_, Effect::Spend(Spend::GiveBack { value, at })) => {
                    self.spending.give_back(self.now, at, &value);
                    self.save();
                }
            }
        }
    }

    /// Stores all of these, or none: the answer of the store, if it has one.
    fn keep(
        &mut self,
        records: impl IntoIterator<Item = Record>,
    ) -> Option<Result<(), StoreFailed>> {
        match self.store.next() {
            Own::Works => {}
            Own::Fails => return Some(Err(StoreFailed("the disk is full".into()))),
            Own::Hangs => return None,
        }
        for record in records {
            match record.value {
                Some(_) => self.stored.insert(record.key.clone(), record),
                None => self.stored.remove(&record.key),
            };
        }
        Some(Ok(()))
    }

    /// Stores what the limit asks for, all at once. False if the store hangs.
    fn save(&mut self) -> bool {
        let (mut ids, mut records) = (Vec::new(), Vec::new());
        while let Output::Effect(id, Effect::Store(record)) = self.spending.poll_output() {
            ids.push(id);
            records.push(record);
        }
        if ids.is_empty() {
            return true;
        }
        let Some(answer) = self.keep(records) else {
            // As the driver would once it is too late.
            let late = StoreFailed("no answer in time".into());
            let late = Input::Stored(ids[0], Err(late));
            self.spending.handle_input(self.now, late);
            return false;
        };
        for id in ids {
            let answer = Input::Stored(id, answer.clone());
            self.spending.handle_input(self.now, answer);
        }
        true
    }

    /// The answer to whoever wants to spend, if there is one.
    fn take(
        &mut self,
        value: &Amount,
        record: Option<Record>,
    ) -> Option<Result<Time, SpendRefused>> {
        if let Err(broken) = self.spending.take(self.now, value, record) {
            return Some(Err(SpendRefused::Limit(broken)));
        }
        let answered = self.save();
        let Output::Event(event) = self.spending.poll_output() else {
            panic!("each is answered");
        };
        answered.then_some(match event {
            spending::Event::Taken(_, at) => Ok(at),
            spending::Event::NotStored(_, why) => Err(SpendRefused::NotStored(why)),
            other => panic!("{other:?}"),
        })
    }

    /// The amount spent, which the store knows as well.
    fn spent(&self) -> Amount {
        let spent = self.spending.budget().spent();
        let kept: Vec<_> = self.stored.values().cloned().collect();
        let mut recalled = Budget::unlimited();
        assert!(recalled.restore(SPENT, &kept).is_some());
        assert_eq!(recalled.spent(), spent);
        spent
    }

    fn exchange(&mut self, request: Request) -> Vec<http::In> {
        let path = request.url.path().to_string();
        self.requests.push(path.clone());
        if path == "/payment" || path == REFRESH_PATH {
            let reach = request.url.reach();
            assert_eq!(reach, Reach::Own, "a new quote is for the same place");
        }
        if path == PAYMENT_PATH {
            self.asked.push((self.now, request.url.host().into()));
        }
        if self.silent.contains(&request.url.host()) {
            return Vec::new();
        }
        let planned = self.plan.front().is_some_and(|(at, _)| *at == path);
        let mishap = planned.then(|| self.plan.pop_front().unwrap().1);
        let (status, body) = match mishap {
            Some(Mishap::Silent) => return Vec::new(),
            Some(Mishap::NotReached) => {
                return vec![http::In::Failed(Fault::Connect("refused".into()))];
            }
            Some(Mishap::Broken) => {
                return vec![http::In::Failed(Fault::Broken("reset".into()))];
            }
            Some(Mishap::Says(status, text)) => (status, error_json(text)),
            _ if path == "/payment" => self.take_payment(&Credentials {
                payment: request.headers.get(PAYMENT_HEADER).unwrap().into(),
                segment: request.headers.get(SEGMENT_HEADER).unwrap().into(),
            }),
            _ if path == REFRESH_PATH => self.refresh(request),
            _ => self.ask_signer(request),
        };
        let (status, body) = match mishap {
            Some(Mishap::AnswerLost) => {
                return vec![http::In::Failed(Fault::Broken("reset".into()))];
            }
            Some(Mishap::SaysAfter(status, text)) => (status, error_json(text)),
            _ => (status, body),
        };
        vec![
            http::In::Reply(Response::new(status)),
            http::In::Data(body.into()),
            http::In::End(Headers::new()),
        ]
    }

    fn ask_signer(&mut self, mut request: Request) -> (u16, Vec<u8>) {
        let id = EffectId::by_peer(self.peers);
        self.peers += 1;
        let Body::Full(body) = core::mem::take(&mut request.body) else {
            panic!("signers are sent a whole body");
        };
        for step in [
            http::In::Request(request),
            http::In::Data(body),
            http::In::End(Headers::new()),
        ] {
            self.signer.handle_input(self.now, Input::Http(id, step));
        }
        loop {
            match self.signer.poll_output() {
                Output::Effect(id, Effect::Sign(digest)) => {
                    let signature = self.key.sign(digest);
                    self.signer
                        .handle_input(self.now, Input::Signed(id, Ok(signature)));
                }
                Output::Effect(id, Effect::Store(_)) => {
                    self.signer
                        .handle_input(self.now, Input::Stored(id, Ok(())));
                }
                Output::Effect(_, Effect::Http(http::Out::Reply(reply))) => {
                    let Body::Full(body) = reply.body else {
                        panic!("signers answer a whole body");
                    };
                    return (reply.status, body.to_vec());
                }
                Output::Effect(..) | Output::Event(_) => {}
                Output::Idle(_) => panic!("the signer waits"),
            }
        }
    }

    /// A quote under the price that the job's first payment fixed.
    fn refresh(&mut self, request: Request) -> (u16, Vec<u8>) {
        let Body::Full(body) = request.body else {
            panic!("the whole request is sent at once");
        };
        let asked = RefreshRequest::from_json(&body).unwrap();
        let (sender, session) = (asked.sender, asked.manifest_id.clone());
        let pinned = self.receiver.session_price(&AccountId { sender, session });
        match pinned {
            _ if self.old => (404, b"404 page not found".to_vec()),
            None => (409, error_json("fixed price not found for session")),
            Some(price) => {
                let today = std::mem::replace(&mut self.price, price);
                let mut quote = self.quote();
                self.price = today;
                let token = self.secret.issue(self.now, asked.manifest_id.clone());
                quote.auth_token = Some(token.to_wire());
                let orchestrator = Url::parse("https://orch:8935").unwrap();
                let demand = Challenge {
                    info: OrchestratorInfo::decode(quote.encode_to_vec().into()).unwrap(),
                    payment_url: orchestrator.child("payment"),
                    orchestrator,
                    manifest_id: asked.manifest_id,
                };
                (200, demand.to_json())
            }
        }
    }

    fn take_payment(&mut self, headers: &Credentials) -> (u16, Vec<u8>) {
        let payment = Payment::decode(&headers.payment).unwrap();
        let credentials = SegmentCredentials::decode(&headers.segment).unwrap();
        if credentials.verify(payment.sender).is_err() {
            return (403, b"ErrSegSig".to_vec());
        }
        if let Err(why) = self
            .secret
            .check(self.now, credentials.auth_token.as_ref().unwrap())
        {
            return (403, why.to_string().into_bytes());
        }
        let receipt = self
            .receiver
            .receive(self.now, &credentials.manifest_id, payment);
        loop {
            match self.receiver.poll_output() {
                Output::Effect(id, Effect::Store(_)) => {
                    self.receiver
                        .handle_input(self.now, Input::Stored(id, Ok(())));
                }
                Output::Event(receiver::Event::Credited(of, _)) if of == receipt => {
                    let mut quote = self.quote();
                    quote.auth_token = credentials.auth_token.map(|token| token.to_wire());
                    return (200, payment_result(quote).to_vec());
                }
                Output::Event(receiver::Event::Rejected(of, why)) if of == receipt => {
                    return (why.why.status(), why.why.to_string().into_bytes());
                }
                Output::Effect(..) | Output::Event(_) => {}
                Output::Idle(_) => panic!("the recipient waits"),
            }
        }
    }

    /// The first payment: minted, delivered with the start request, the job named, the pace begun.
    fn start(&mut self, session: &mut PaymentSession, interval: u64) {
        let id = session.pay(self.now, Fee::Elapsed).unwrap();
        let (events, _) = self.settle(session);
        let [Event::Ready(ready, credentials)] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(*ready, id);
        // The orchestrator names the job when it takes the request, and the payment goes there.
        let mut payment = Payment::decode(&credentials.payment).unwrap();
        payment.sender = self.key.address();
        let receipt = self.receiver.receive(self.now, "job", payment);
        loop {
            match self.receiver.poll_output() {
                Output::Effect(id, _) => self
                    .receiver
                    .handle_input(self.now, Input::Stored(id, Ok(()))),
                Output::Event(receiver::Event::Credited(of, _)) => assert_eq!(of, receipt),
                Output::Event(receiver::Event::Won(_)) => {}
                Output::Event(other) => panic!("{other:?}"),
                Output::Idle(_) => break,
            }
        }
        let account = self.account();
        assert!(self.receiver.may_start(&account));
        self.receiver
            .start_meter(self.now, account, self.unit, Trigger::Ticker);
        session.set_manifest("job");
        session.delivered(self.now, id, Delivered::Accepted);
        session
            .start_pacing(self.now, Duration::from_secs(interval))
            .unwrap();
        let (events, _) = self.settle(session);
        assert!(
            matches!(events[..], [Event::Paid(of, _)] if of == id),
            "{events:?}"
        );
    }

    /// Lets time pass; hands back what the session told. Quotes are renewed as the session wishes.
    fn run(&mut self, session: &mut PaymentSession, seconds: u64) -> Vec<Event> {
        let end = self.now + Duration::from_secs(seconds);
        let mut all = Vec::new();
        loop {
            let (events, wake) = self.settle(session);
            let wanted = events
                .iter()
                .any(|event| matches!(event, Event::NeedQuote(_)));
            all.extend(events);
            if wanted {
                let info = self.info();
                session.renew(self.now, &info);
                continue;
            }
            let meter = loop {
                match self.receiver.poll_output() {
                    Output::Event(receiver::Event::Exhausted(..)) => self.cut = true,
                    Output::Idle(wake) => break wake,
                    _ => {}
                }
            };
            match [wake, meter].into_iter().flatten().min() {
                Some(next) if next <= end => {
                    self.now = next;
                    self.receiver.handle_input(self.now, Input::Tick);
                    session.handle_input(self.now, Input::Tick);
                }
                _ => {
                    self.now = end;
                    return all;
                }
            }
        }
    }
}

fn paid(events: &[Event]) -> usize {
    let taken = |event: &&Event| matches!(event, Event::Paid(..));
    events.iter().filter(taken).count()
}

/// How often a signer answered: with a payment, or that none is due.
fn answered(events: &[Event]) -> usize {
    let told = |event: &&Event| matches!(event, Event::Paid(..) | Event::Skipped(_));
    events.iter().filter(told).count()
}

fn failure(events: Vec<Event>) -> Failure {
    match events.into_iter().last() {
        Some(Event::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

/// Runs until the session ends; how long before what was paid is used up.
fn left_at_the_end(net: &mut Net, session: &mut PaymentSession) -> (Failure, Duration) {
    for _ in 0..2_000 {
        let events = net.run(session, 1);
        if let Some(Event::Failed(failure)) = events.last() {
            assert!(!net.cut, "it ends before the orchestrator ends it");
            let left = session.covered_until().unwrap().since(net.now);
            return (failure.clone(), left);
        }
    }
    panic!("it does not end");
}
