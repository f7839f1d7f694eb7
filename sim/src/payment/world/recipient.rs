//! The recipient: an orchestrator of which nothing is left but how it is paid.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use livepeer_core::chain::ChainView;
use livepeer_core::http::{Body, In, Out, Request, Response, Url};
use livepeer_core::money::{Price, Wei};
use livepeer_core::payment::ledger::AccountId;
use livepeer_core::payment::receiver::{self, Event, ReceiptId, Trigger};
use livepeer_core::payment::{Secret, TicketReceiver, Unit, auth};
use livepeer_core::store::Record;
use livepeer_core::wire::challenge::{Challenge, REFRESH_PATH, RefreshRequest};
use livepeer_core::wire::payment::{PAYMENT_HEADER, SEGMENT_HEADER, payment_result};
use livepeer_core::wire::{AuthToken, OrchestratorInfo, Payment};
use livepeer_core::{Address, EffectId, Input, Machine, Outbox, Output, Time};
use livepeer_proto::net;
use prost::Message as _;

use super::{ORCHESTRATOR, RECIPIENT, World};
use crate::payment::Settings;

/// The path at which jobs are started.
pub(super) const START_PATH: &str = "/start";

/// An event of the recipient: a payment's receipt, with its account and the payment, or another.
pub(super) enum Told {
    Receipt(Event, AccountId, Box<Payment>),
    Other(Event),
}

/// A payment that is looked at.
struct Waiting {
    exchange: EffectId,
    account: AccountId,
    payment: Payment,
    /// The token of its credentials; a job is started without one.
    token: Option<Option<AuthToken>>,
}

/// See the [module](self).
pub(super) struct Recipient {
    now: Time,
    pub(super) receiver: TicketReceiver,
    sender: Address,
    /// How many recipients were here before; the names of jobs begin with it.
    life: u64,
    unit: Unit,
    pub(super) price: i64,
    pub(super) secret: Secret,
    /// Whether it knows nothing of `/refresh-payment`.
    old: bool,
    /// Counts the tokens, and the jobs that were asked for.
    tokens: u64,
    named: u64,
    /// The requests that are arriving, with their bodies so far.
    arriving: BTreeMap<EffectId, (Request, Vec<u8>)>,
    waiting: BTreeMap<ReceiptId, Waiting>,
    jobs: BTreeSet<String>,
    out: Outbox<Told>,
}

impl Recipient {
    pub(super) fn new(
        now: Time,
        settings: &Settings,
        sender: Address,
        chain: ChainView,
        old: bool,
    ) -> Self {
        let secret = Secret([3; 32]);
        Self {
            now,
            receiver: receiver(now, settings, &secret, chain, 0),
            sender,
            life: 0,
            unit: settings.unit,
            price: settings.price,
            secret,
            old,
            tokens: 0,
            named: 0,
            arriving: BTreeMap::new(),
            waiting: BTreeMap::new(),
            jobs: BTreeSet::new(),
            out: Outbox::default(),
        }
    }

    fn quote(&mut self, price: Price) -> net::OrchestratorInfo {
        let params = self.receiver.quote(self.now, self.sender, price);
        let params = params.expect("a funded payer");
        self.tokens += 1;
        let token = format!("session-{}", self.tokens);
        net::OrchestratorInfo {
            transcoder: format!("https://{ORCHESTRATOR}"),
            ticket_params: Some(params.to_wire()),
            price_info: Some(net::PriceInfo {
                price_per_unit: price.wei(),
                pixels_per_unit: price.per(),
                ..net::PriceInfo::default()
            }),
            address: RECIPIENT.0.to_vec().into(),
            auth_token: Some(self.secret.issue(self.now, token).to_wire()),
            ..net::OrchestratorInfo::default()
        }
    }

    fn quote_of_today(&mut self) -> net::OrchestratorInfo {
        self.quote(Price::new(self.price, 1).expect("a price"))
    }

    pub(super) fn info(&mut self, now: Time) -> Arc<OrchestratorInfo> {
        self.now = self.now.max(now);
        let raw = self.quote_of_today().encode_to_vec().into();
        Arc::new(OrchestratorInfo::decode(raw).expect("our own"))
    }

    fn reply(&mut self, id: EffectId, status: u16, body: impl Into<Bytes>) {
        let reply = Response::new(status).body(Body::Full(body.into()));
        self.out.http(id, Out::Reply(reply));
    }

    fn serve(&mut self, id: EffectId, request: &Request, body: &[u8]) {
        match request.url.path() {
            REFRESH_PATH => {
                let (status, body) = self.refresh(body);
                self.reply(id, status, body);
            }
            path => self.take(id, path == START_PATH, request),
        }
    }

    /// A quote under the price that a job's first payment fixed.
    fn refresh(&mut self, body: &[u8]) -> (u16, Vec<u8>) {
        if self.old {
            return (404, b"404 page not found".to_vec());
        }
        let asked = RefreshRequest::from_json(body).expect("our own");
        let pinned = self.receiver.session_price(&AccountId {
            sender: asked.sender,
            session: asked.manifest_id.clone(),
        });
        let Some(price) = pinned else {
            return (409, b"fixed price not found for session".to_vec());
        };
        let mut quote = self.quote(price);
        let token = self.secret.issue(self.now, asked.manifest_id.clone());
        quote.auth_token = Some(token.to_wire());
        let orchestrator = Url::parse(&format!("https://{ORCHESTRATOR}")).expect("a URL");
        let demand = Challenge {
            info: OrchestratorInfo::decode(quote.encode_to_vec().into()).expect("our own"),
            payment_url: orchestrator.child("payment"),
            orchestrator,
            manifest_id: asked.manifest_id,
        };
        (200, demand.to_json())
    }

    /// Takes a payment, for a job that it starts or that runs.
    fn take(&mut self, exchange: EffectId, starts: bool, request: &Request) {
        let header = |name| request.headers.get(name).expect("both headers are there");
        let payment = Payment::decode(header(PAYMENT_HEADER)).expect("our own");
        let (sender, segment) = (payment.sender, header(SEGMENT_HEADER));
        let (session, token) = if starts {
            // The name is the orchestrator's to give; a request that arrives twice makes two jobs.
            self.named += 1;
            (format!("{}-{}", self.life, self.named), None)
        } else {
            let admitted = auth::admit(
                self.now,
                segment,
                Some(sender),
                &self.secret,
                |_| true,
                |_| true,
            );
            match admitted {
                Err(why) => return self.reply(exchange, 403, why.to_string()),
                Ok(of) if !self.jobs.contains(&of.manifest_id) => {
                    return self.reply(exchange, 404, "no such job");
                }
                Ok(of) => (of.manifest_id, Some(of.auth_token)),
            }
        };
        let receipt = self.receiver.receive(self.now, &session, payment.clone());
        let account = AccountId { sender, session };
        let waiting = Waiting {
            exchange,
            account,
            payment,
            token,
        };
        self.waiting.insert(receipt, waiting);
    }

    fn on_receiver(&mut self, event: Event) {
        let (receipt, refused) = match &event {
            Event::Credited(receipt, _) => (*receipt, None),
            Event::Rejected(receipt, why) => {
                (*receipt, Some((why.why.status(), why.why.to_string())))
            }
            Event::Exhausted(account, _) => {
                self.jobs.remove(&account.session);
                return self.out.event(Told::Other(event));
            }
            _ => return self.out.event(Told::Other(event)),
        };
        let waiting = self.waiting.remove(&receipt);
        let waiting = waiting.expect("each receipt has one event");
        let account = waiting.account;
        let told = Told::Receipt(event, account.clone(), Box::new(waiting.payment));
        self.out.event(told);
        match (waiting.token, refused) {
            (_, Some((status, text))) => self.reply(waiting.exchange, status, text),
            (Some(token), None) => {
                let mut quote = self.quote_of_today();
                // The quote in an answer carries the token that the credentials had.
                quote.auth_token = token.map(|token| token.to_wire());
                self.reply(waiting.exchange, 200, payment_result(quote));
            }
            (None, None) if self.receiver.may_start(&account) => {
                self.jobs.insert(account.session.clone());
                self.reply(waiting.exchange, 200, account.session.clone());
                self.receiver
                    .start_meter(self.now, account, self.unit, Trigger::Ticker);
            }
            (None, None) => self.reply(waiting.exchange, 402, "not enough"),
        }
    }
}

impl Machine for Recipient {
    type Event = Told;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.now = self.now.max(now);
        match input {
            Input::Http(id, In::Request(request)) => {
                self.arriving.insert(id, (request, Vec::new()));
            }
            Input::Http(id, In::Data(data)) => {
                if let Some((_, body)) = self.arriving.get_mut(&id) {
                    body.extend_from_slice(&data);
                }
            }
            Input::Http(id, In::End(_)) => {
                if let Some((request, body)) = self.arriving.remove(&id) {
                    self.serve(id, &request, &body);
                }
            }
            Input::Http(id, In::Failed(_)) => {
                self.arriving.remove(&id);
            }
            Input::Http(..) => {}
            input => self.receiver.handle_input(now, input),
        }
    }

    fn poll_output(&mut self) -> Output<Told> {
        loop {
            if let Some(output) = self.out.pop() {
                return output;
            }
            match self.receiver.poll_output() {
                Output::Effect(id, effect) => return Output::Effect(id, effect),
                Output::Event(event) => self.on_receiver(event),
                Output::Idle(wake) => return Output::Idle(wake),
            }
        }
    }
}

impl World {
    pub(super) fn info(&mut self) -> Arc<OrchestratorInfo> {
        self.net
            .with(self.recipient, |recipient, now| recipient.info(now))
    }

    /// Crashes the recipient: balances are gone, and so are jobs.
    pub(super) fn crash_recipient(&mut self) {
        self.summary.crashes += 1;
        self.recipient_life += 1;
        self.net.die(self.recipient);
        let before = self.net.get(self.recipient);
        let (mut secret, price, old) = (before.secret.clone(), before.price, before.old);
        if self.dice.percent(30) {
            secret.0[0] = secret.0[0].wrapping_add(1);
        }
        let (now, life) = (self.net.now(), self.recipient_life as u8);
        let (settings, chain) = (&self.settings, self.chain.clone());
        let mut recipient = Recipient::new(now, settings, self.key.address(), chain.clone(), old);
        recipient.receiver = receiver(now, settings, &secret, chain, life);
        (recipient.secret, recipient.price) = (secret, price);
        recipient.life = self.recipient_life;
        for (key, value) in self.net.stored(self.recipient) {
            recipient.receiver.restore(&Record {
                key: key.clone(),
                value: Some(value.clone()),
            });
        }
        self.net.restart(self.recipient, recipient);
        self.model.recipient_restarted();
    }
}

fn receiver(
    now: Time,
    settings: &Settings,
    secret: &Secret,
    chain: ChainView,
    life: u8,
) -> TicketReceiver {
    let mut config = receiver::Config::new(RECIPIENT);
    config.economics.ticket_ev = Wei::from(settings.ticket_ev);
    TicketReceiver::new(now, config, secret.clone(), chain, [life; 32])
}
