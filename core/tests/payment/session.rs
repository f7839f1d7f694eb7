//! A payer's session against the real signer and the real recipient, without a network in between.

use std::collections::VecDeque;
use std::time::Duration;

use livepeer_core::capabilities::Ceilings;
use livepeer_core::error::{Advice, Cause, Failure, Misuse, Party, Reason};
use livepeer_core::http::{self, Body, Fault, Headers, Request, Response, Url};
use livepeer_core::money::{Amount, Price, Wei};
use livepeer_core::payment::guard::{Broken, Budget};
use livepeer_core::payment::ledger::AccountId;
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::receiver::{self, Trigger};
use livepeer_core::payment::session::{
    Config, Credentials, Delivered, Event, FIRST_PATIENCE, Fee, LocalAccount, RemoteSigner,
};
use livepeer_core::payment::{
    Funds, PaymentSession, Secret, SignerServer, TicketReceiver, Unit, remote,
};
use livepeer_core::signers::{FIRST_REST, SignerHealth, Standing};
use livepeer_core::wire::payment::{PAYMENT_HEADER, SEGMENT_HEADER, payment_result};
use livepeer_core::wire::signer::error_json;
use livepeer_core::wire::{OrchestratorInfo, Payment, SegmentCredentials};
use livepeer_core::{Address, ChainView, Effect, EffectId, Input, Machine, Output, Time};
use livepeer_proto::net;
use prost::Message as _;

use crate::support::*;

const START: Time = Time::from_secs(1_790_000_000);
const ORCHESTRATOR: Address = Address([0x0e; 20]);

/// Everything around the session.
struct Net {
    now: Time,
    key: Key,
    signer: SignerServer,
    receiver: TicketReceiver,
    secret: Secret,
    price: Price,
    peers: u64,
    /// What happens to requests, by the path they go to; once each.
    plan: VecDeque<(&'static str, Mishap)>,
    requests: Vec<String>,
    /// Hosts that take requests and never answer.
    silent: Vec<&'static str>,
    /// Which signers were asked, and when.
    asked: Vec<(Time, String)>,
    /// The job's balance did not cover an interval.
    cut: bool,
}

#[derive(Clone, Debug)]
enum Mishap {
    /// The request is lost.
    NotReached,
    /// The request arrives, its answer does not.
    AnswerLost,
    /// Somebody answers this.
    Says(u16, &'static str),
}

fn key() -> Key {
    Key::new(&[7; 32])
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
            peers: 0,
            plan: VecDeque::new(),
            requests: Vec::new(),
            silent: Vec::new(),
            asked: Vec::new(),
            cut: false,
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

    fn info(&mut self) -> OrchestratorInfo {
        OrchestratorInfo::decode(self.quote().encode_to_vec().into()).unwrap()
    }

    fn session(&mut self, config: Config) -> PaymentSession {
        let url = Url::parse("http://signer/ignored").unwrap();
        let funds = Funds::Remote(RemoteSigner::new(url, self.key.address()));
        let info = self.info();
        PaymentSession::new(self.now, config, &info, funds)
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
                    let signature = self.key.sign(digest);
                    session.handle_input(self.now, Input::Signed(id, Ok(signature)));
                }
                Output::Effect(id, Effect::Store(_)) => {
                    session.handle_input(self.now, Input::Stored(id));
                }
            }
        }
    }

    fn exchange(&mut self, request: Request) -> Vec<http::In> {
        let path = request.url.path().to_string();
        self.requests.push(path.clone());
        if path != "/payment" {
            self.asked.push((self.now, request.url.host().into()));
        }
        if self.silent.contains(&request.url.host()) {
            return Vec::new();
        }
        let planned = self.plan.front().is_some_and(|(at, _)| *at == path);
        let mishap = planned.then(|| self.plan.pop_front().unwrap().1);
        let (status, body) = match mishap {
            Some(Mishap::NotReached) => {
                return vec![http::In::Failed(Fault::Connect("refused".into()))];
            }
            Some(Mishap::Says(status, text)) => (status, error_json(text)),
            _ if path == "/payment" => self.take_payment(&Credentials {
                payment: request.headers.get(PAYMENT_HEADER).unwrap().into(),
                segment: request.headers.get(SEGMENT_HEADER).unwrap().into(),
            }),
            _ => self.ask_signer(request),
        };
        if matches!(mishap, Some(Mishap::AnswerLost)) {
            return vec![http::In::Failed(Fault::Broken("reset".into()))];
        }
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
                    self.receiver.handle_input(self.now, Input::Stored(id));
                }
                Output::Event(receiver::Event::Credited(of, _)) if of == receipt => {
                    let mut quote = self.quote();
                    quote.auth_token = credentials.auth_token.map(|token| token.to_wire());
                    return (200, payment_result(quote).to_vec());
                }
                Output::Event(receiver::Event::Rejected(of, why)) if of == receipt => {
                    return (400, why.why.to_string().into_bytes());
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
                Output::Effect(id, _) => self.receiver.handle_input(self.now, Input::Stored(id)),
                Output::Event(receiver::Event::Credited(of, _)) => assert_eq!(of, receipt),
                Output::Event(receiver::Event::Won(_)) => {}
                Output::Event(other) => panic!("{other:?}"),
                Output::Idle(_) => break,
            }
        }
        let account = self.account();
        assert!(self.receiver.may_start(&account));
        self.receiver
            .start_meter(self.now, account, Unit::PixelSeconds, Trigger::Ticker);
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

fn failure(events: Vec<Event>) -> Failure {
    match events.into_iter().last() {
        Some(Event::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_job_is_never_cut_at_any_pace() {
    for interval in [5, 10, 30, 60] {
        let mut net = Net::new();
        let mut session = net.session(Config::new(Unit::PixelSeconds));
        net.start(&mut session, interval);
        let events = net.run(&mut session, 2_000);
        assert!(paid(&events) > 10, "{interval}: {events:?}");
        assert!(!net.cut, "{interval}");
        assert!(session.covered_until().unwrap() > net.now);
        // Tokens last half an hour, so the quote was renewed on the way.
        assert!(
            events
                .iter()
                .any(|event| matches!(event, Event::NeedQuote(_)))
        );
    }
}

#[test]
fn an_own_key_pays_like_a_signer() {
    let mut net = Net::new();
    let account = LocalAccount::new(
        Policy::new(net.key.address()),
        ChainView::development(),
        [9; 32],
    );
    let info = net.info();
    let config = Config::new(Unit::PixelSeconds);
    let funds = Funds::Local(Box::new(account));
    let mut session = PaymentSession::new(net.now, config, &info, funds);
    net.start(&mut session, 5);
    let events = net.run(&mut session, 2_000);
    assert!(paid(&events) > 10, "{events:?}");
    assert!(!net.cut);
    assert!(net.requests.iter().all(|path| path == "/payment"));
}

#[test]
fn an_account_that_moves_to_the_next_session_uses_no_nonce_twice() {
    let mut net = Net::new();
    let policy = Policy::new(net.key.address());
    let mut account = LocalAccount::new(policy, ChainView::development(), [9; 32]);
    // The same quote again, as a job gets it that comes back to an orchestrator.
    let info = net.info();
    let mut first = 1;
    for _ in 0..3 {
        let config = Config::new(Unit::PixelSeconds);
        let funds = Funds::Local(Box::new(account));
        let mut session = PaymentSession::new(net.now, config, &info, funds);
        session.pay(net.now, Fee::Elapsed).unwrap();
        let (events, _) = net.settle(&mut session);
        let Some(Event::Ready(_, credentials)) = events.last() else {
            panic!("{events:?}");
        };
        let payment = livepeer_core::wire::Payment::decode(&credentials.payment).unwrap();
        for ticket in &payment.tickets {
            assert_eq!(ticket.nonce, first);
            first += 1;
        }
        account = session.account().expect("a key of its own").clone();
    }
    assert!(first > 3);
}

#[test]
fn off_chain_the_headers_are_there_and_empty() {
    let mut net = Net::new();
    let info = net.info();
    let config = Config::new(Unit::PixelSeconds);
    let mut session = PaymentSession::new(net.now, config, &info, Funds::Offchain);
    session.pay(net.now, Fee::Elapsed).unwrap();
    let (events, wake) = net.settle(&mut session);
    let [Event::Ready(_, credentials)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(credentials.payment, "");
    let token = info.auth_token.as_ref();
    assert_eq!(credentials.segment, SegmentCredentials::offchain(token));
    session
        .start_pacing(net.now, Duration::from_secs(5))
        .unwrap();
    assert_eq!((wake, net.settle(&mut session).1), (None, None));
    assert!(net.requests.is_empty());
}

#[test]
fn one_payment_at_a_time_and_none_after_the_end() {
    let mut net = Net::new();
    let mut session = net.session(Config::new(Unit::PixelSeconds));
    let unnamed = session.start_pacing(net.now, Duration::from_secs(5));
    assert_eq!(unnamed, Err(Misuse::NotOpen));
    session.pay(net.now, Fee::Elapsed).unwrap();
    assert_eq!(session.pay(net.now, Fee::Elapsed), Err(Misuse::StillOpen));
    session.close(net.now);
    assert_eq!(session.pay(net.now, Fee::Elapsed), Err(Misuse::Ended));
}

#[test]
fn a_lost_answer_is_confirmed_with_the_same_tickets() {
    let mut net = Net::new();
    let mut session = net.session(Config::new(Unit::PixelSeconds));
    net.start(&mut session, 5);
    net.plan = [("/payment", Mishap::AnswerLost)].into();
    let events = net.run(&mut session, 300);
    assert!(net.plan.is_empty() && paid(&events) > 2, "{events:?}");
    let total: Amount = session.total().clone();
    let metered = net.price.fee(27_648_000_u64 * 300);
    assert_eq!(net.balance() + metered, total, "every ticket counted once");
    assert!(!net.cut);
}

#[test]
fn an_orchestrator_that_is_away_for_a_moment_gets_the_payment_later() {
    let mut net = Net::new();
    let mut session = net.session(Config::new(Unit::PixelSeconds));
    net.start(&mut session, 5);
    net.plan = [
        ("/payment", Mishap::NotReached),
        ("/payment", Mishap::Says(500, "insufficient sender reserve")),
        ("/payment", Mishap::NotReached),
    ]
    .into();
    let events = net.run(&mut session, 300);
    assert!(net.plan.is_empty() && paid(&events) > 2, "{events:?}");
}

#[test]
fn what_an_orchestrator_calls_expired_is_paid_again_from_a_fresh_quote() {
    for text in [
        "TicketParams expired",
        "invalid ticket senderNonce: already seen",
        "invalid recipientRand for ticket recipientRandHash",
    ] {
        let mut net = Net::new();
        let mut session = net.session(Config::new(Unit::PixelSeconds));
        net.start(&mut session, 5);
        net.plan = [("/payment", Mishap::Says(400, text))].into();
        let events = net.run(&mut session, 120);
        let renewed = |event: &Event| matches!(event, Event::NeedQuote(_));
        assert!(
            events.iter().any(renewed) && paid(&events) > 0,
            "{events:?}"
        );
    }
}

#[test]
fn a_signer_that_is_away_is_waited_for_while_what_was_paid_lasts() {
    let mut net = Net::new();
    let mut session = net.session(Config::new(Unit::PixelSeconds));
    net.start(&mut session, 5);
    let away = ("/generate-live-payment", Mishap::NotReached);
    net.plan = std::iter::repeat_n(away, 8).collect();
    let events = net.run(&mut session, 120);
    assert!(net.plan.is_empty() && paid(&events) > 0, "{events:?}");
    assert!(!net.cut);
}

#[test]
fn a_signer_that_stays_away_ends_the_job_before_it_began() {
    let mut net = Net::new();
    let mut session = net.session(Config::new(Unit::PixelSeconds));
    let away = ("/generate-live-payment", Mishap::Says(500, "x"));
    net.plan = std::iter::repeat_n(away, 3).collect();
    session.pay(net.now, Fee::Elapsed).unwrap();
    let failure = failure(net.run(&mut session, 60));
    assert!(
        matches!(failure.cause, Cause::GaveUp { times: 3, .. }),
        "{failure}"
    );
    assert!(
        failure.to_string().contains("http://signer:80"),
        "{failure}"
    );
}

#[test]
fn the_next_signer_is_asked_at_once() {
    let mut net = Net::new();
    let first = Url::parse("http://one").unwrap();
    let signer = RemoteSigner::new(first, net.key.address()).or(Url::parse("http://two").unwrap());
    let info = net.info();
    let config = Config::new(Unit::PixelSeconds);
    let mut session = PaymentSession::new(net.now, config, &info, Funds::Remote(signer));
    net.plan = [("/generate-live-payment", Mishap::NotReached)].into();
    session.pay(net.now, Fee::Elapsed).unwrap();
    let (events, _) = net.settle(&mut session);
    assert!(matches!(events[..], [Event::Ready(..)]), "{events:?}");
    assert_eq!(net.requests.len(), 2);
}

const SIGNERS: [&str; 3] = ["one", "two", "three"];

impl Net {
    fn signers(&self, count: usize, health: SignerHealth) -> RemoteSigner {
        let mut urls = SIGNERS[..count].iter().map(|host| signer_url(host));
        let first = RemoteSigner::new(urls.next().unwrap(), self.key.address());
        urls.fold(first, RemoteSigner::or).health(health)
    }

    fn session_with(&mut self, signers: RemoteSigner) -> PaymentSession {
        let info = self.info();
        let config = Config::new(Unit::PixelSeconds);
        PaymentSession::new(self.now, config, &info, Funds::Remote(signers))
    }

    /// How long the session takes for its first payment.
    fn first_payment(&mut self, session: &mut PaymentSession) -> Duration {
        let began = self.now;
        session.pay(self.now, Fee::Elapsed).unwrap();
        loop {
            let (events, wake) = self.settle(session);
            match &events[..] {
                [Event::Ready(..)] => return self.now.since(began),
                [] => self.now = wake.expect("it goes on"),
                other => panic!("{other:?}"),
            }
            session.handle_input(self.now, Input::Tick);
        }
    }

    fn hosts(&self) -> Vec<&str> {
        self.asked.iter().map(|(_, host)| host.as_str()).collect()
    }
}

fn signer_url(host: &str) -> Url {
    Url::parse(&format!("http://{host}")).unwrap()
}

#[test]
fn a_silent_signer_costs_one_payment_two_seconds_and_the_next_nothing() {
    let mut net = Net::new();
    net.silent = vec!["one"];
    let signers = net.signers(2, SignerHealth::default());
    let mut session = net.session_with(signers);
    assert_eq!(net.first_payment(&mut session), FIRST_PATIENCE);
    assert_eq!(net.hosts(), ["one", "two"]);
    let health = session.signer_health().unwrap().clone();
    assert!(matches!(
        health.standing(net.now, &signer_url("one")),
        Standing::Resting(_)
    ));
    // The next job begins with what this one learned.
    net.asked.clear();
    let signers = net.signers(2, health.clone());
    let mut session = net.session_with(signers);
    assert_eq!(net.first_payment(&mut session), Duration::ZERO);
    assert_eq!(net.hosts(), ["two"]);
    // When the rest is over, the first one is tried again.
    net.now = net.now + FIRST_REST;
    net.silent.clear();
    net.asked.clear();
    let signers = net.signers(2, health);
    let mut session = net.session_with(signers);
    assert_eq!(net.first_payment(&mut session), Duration::ZERO);
    assert_eq!(net.hosts(), ["one"]);
}

#[test]
fn a_signer_that_falls_silent_is_left_and_the_job_is_not_cut() {
    let mut net = Net::new();
    let signers = net.signers(3, SignerHealth::default());
    let mut session = net.session_with(signers);
    net.start(&mut session, 5);
    let events = net.run(&mut session, 20);
    assert!(paid(&events) >= 3, "{events:?}");
    net.silent = vec!["one", "three"];
    net.asked.clear();
    let events = net.run(&mut session, 120);
    assert!(paid(&events) >= 15 && !net.cut, "{events:?}");
    let ones = net.hosts().iter().filter(|host| **host == "one").count();
    assert_eq!(ones, 1, "whoever answered last is asked");
    assert!(!net.hosts().contains(&"three"));
}

#[test]
fn a_signer_that_rests_is_asked_when_all_others_fail() {
    let mut net = Net::new();
    let mut health = SignerHealth::default();
    health.failed(net.now, &signer_url("one"));
    net.silent = vec!["two", "three"];
    let signers = net.signers(3, health);
    let mut session = net.session_with(signers);
    assert_eq!(net.first_payment(&mut session), FIRST_PATIENCE * 2);
    assert_eq!(net.hosts(), ["two", "three", "one"]);
}

#[test]
fn when_all_signers_are_silent_one_error_names_each() {
    let mut net = Net::new();
    net.silent = SIGNERS.to_vec();
    let signers = net.signers(3, SignerHealth::default());
    let mut session = net.session_with(signers);
    session.pay(net.now, Fee::Elapsed).unwrap();
    let failure = failure(net.run(&mut session, 120));
    assert_eq!(failure.who, Party::Signers);
    for host in SIGNERS {
        assert!(failure.to_string().contains(host), "{failure}");
    }
    // At first all have little time, then as much as it takes.
    let at: Vec<u64> = net
        .asked
        .iter()
        .map(|(at, _)| at.since(START).as_secs())
        .collect();
    assert_eq!(at, [0, 2, 4, 6, 16, 26, 37, 47, 57]);
}

#[test]
fn no_two_signers_are_asked_at_a_time() {
    let mut net = Net::new();
    net.silent = SIGNERS.to_vec();
    let signers = net.signers(3, SignerHealth::default());
    let mut session = net.session_with(signers);
    session.pay(net.now, Fee::Elapsed).unwrap();
    let mut open = Vec::new();
    for _ in 0..40 {
        match session.poll_output() {
            Output::Effect(id, Effect::Http(http::Out::Request(_))) => open.push(id),
            Output::Effect(id, Effect::Http(http::Out::Abort)) => open.retain(|one| *one != id),
            Output::Idle(Some(wake)) => {
                net.now = wake;
                session.handle_input(net.now, Input::Tick);
            }
            _ => {}
        }
        assert!(open.len() <= 1);
    }
}

#[test]
fn a_slow_signer_is_waited_for_once_it_is_known_to_be_slow() {
    let mut net = Net::new();
    let slow = Duration::from_secs(4);
    let mut health = SignerHealth::default();
    health.answered(net.now, &signer_url("one"), slow);
    net.silent = SIGNERS.to_vec();
    let signers = net.signers(2, health);
    let mut session = net.session_with(signers);
    session.pay(net.now, Fee::Elapsed).unwrap();
    let (_, wake) = net.settle(&mut session);
    assert_eq!(wake, Some(net.now + Duration::from_secs(10)));
}

#[test]
fn a_signers_refusals_are_told_with_what_to_do() {
    for (status, text, advice) in [
        (400, "no sender deposit", Advice::Stop),
        (403, "denied", Advice::Stop),
        (
            400,
            "numTickets 249 exceeds maximum of 100",
            Advice::GoElsewhere,
        ),
        (
            481,
            "orchestrator price 48.000 exceeds request maxPrice ceiling 2.000",
            Advice::GoElsewhere,
        ),
    ] {
        let mut net = Net::new();
        let mut session = net.session(Config::new(Unit::PixelSeconds));
        net.plan = [("/generate-live-payment", Mishap::Says(status, text))].into();
        session.pay(net.now, Fee::Elapsed).unwrap();
        let failure = failure(net.settle(&mut session).0);
        assert_eq!(failure.advice(), advice, "{failure}");
        if status == 481 {
            let words = "asks 48 wei per unit, above the ceiling of 2.000";
            assert!(failure.to_string().contains(words), "{failure}");
        }
    }
}

#[test]
fn garbage_from_a_signer_is_named() {
    let mut net = Net::new();
    let mut session = net.session(Config::new(Unit::PixelSeconds));
    let garbage = ("/generate-live-payment", Mishap::Says(200, "what"));
    net.plan = std::iter::repeat_n(garbage, 3).collect();
    session.pay(net.now, Fee::Elapsed).unwrap();
    let failure = failure(net.run(&mut session, 60));
    assert!(
        failure.to_string().contains("payment is missing"),
        "{failure}"
    );
}

#[test]
fn refusals_of_the_orchestrator_end_the_session() {
    for (status, text, reason) in [
        (
            400,
            "orchestrator x is inactive in round 3",
            Reason::Inactive,
        ),
        (403, "ErrSegSig", Reason::Signature),
        (402, "unreadable", Reason::Other),
        (404, "no such session", Reason::Other),
    ] {
        let mut net = Net::new();
        let mut session = net.session(Config::new(Unit::PixelSeconds));
        net.start(&mut session, 5);
        net.plan = [("/payment", Mishap::Says(status, text))].into();
        let failure = failure(net.run(&mut session, 120));
        assert_eq!(failure.advice(), Advice::GoElsewhere, "{failure}");
        let Cause::Refused { reason: told, .. } = failure.cause else {
            panic!("{failure}");
        };
        assert_eq!(told, reason);
    }
}

#[test]
fn spending_limits_stop_the_job_and_say_by_how_much() {
    let limit = Amount::from(&Wei::from(200_000_000_000));
    for budget in [
        Budget::unlimited().per_job(limit.clone()),
        Budget::unlimited().per_hour(limit.clone()),
    ] {
        let mut net = Net::new();
        let mut config = Config::new(Unit::PixelSeconds);
        config.budget = budget;
        config.budget_key = Some("spent:job".into());
        let mut session = net.session(config);
        net.start(&mut session, 5);
        let failure = failure(net.run(&mut session, 600));
        assert_eq!(failure.advice(), Advice::Stop, "{failure}");
        let Cause::Guard(broken) = &failure.cause else {
            panic!("{failure}");
        };
        assert!(matches!(**broken, Broken::Budget { .. }), "{failure}");
        assert!(*session.total() <= limit);
        assert!(
            failure
                .to_string()
                .contains("would pass the limit of 200000000000 wei")
        );
    }
}

#[test]
fn quotes_above_a_ceiling_are_refused_before_anybody_is_asked() {
    let mut net = Net::new();
    let mut config = Config::new(Unit::PixelSeconds);
    config.ceilings = Ceilings::of(Price::new(47, 1).unwrap());
    let mut session = net.session(config);
    let told = failure(net.settle(&mut session).0);
    assert!(matches!(told.cause, Cause::Guard(_)), "{told}");
    assert!(net.requests.is_empty());

    let mut session = net.session(Config::new(Unit::PixelSeconds));
    net.start(&mut session, 5);
    net.price = Price::new(49, 1).unwrap();
    let dearer = net.info();
    session.renew(net.now, &dearer);
    let told = failure(net.settle(&mut session).0);
    assert_eq!(told.advice(), Advice::GoElsewhere, "{told}");
}

#[test]
fn fresh_quotes_are_asked_for_a_few_times_only() {
    let mut net = Net::new();
    let mut session = net.session(Config::new(Unit::PixelSeconds));
    let stale = ("/generate-live-payment", Mishap::Says(480, "refresh"));
    net.plan = std::iter::repeat_n(stale, 9).collect();
    session.pay(net.now, Fee::Elapsed).unwrap();
    let events = net.run(&mut session, 60);
    let wanted = |event: &&Event| matches!(event, Event::NeedQuote(_));
    assert_eq!(events.iter().filter(wanted).count(), 3, "{events:?}");
    assert!(matches!(failure(events).cause, Cause::GaveUp { .. }));
}
