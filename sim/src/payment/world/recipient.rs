//! The recipient's machine, its store and its endpoints; and the signers, which answer at once.

use std::sync::Arc;
use std::time::Duration;

use livepeer_core::chain::ChainView;
use livepeer_core::http::{Body, Fault, Headers, In, Out, Request, Url};
use livepeer_core::money::{Amount, Price, Wei};
use livepeer_core::payment::ledger::AccountId;
use livepeer_core::payment::receiver::{self, ReceiptId, Trigger};
use livepeer_core::payment::session::{Credentials, PaymentId};
use livepeer_core::payment::{Secret, TicketReceiver, auth};
use livepeer_core::store::Record;
use livepeer_core::wire::challenge::{Challenge, RefreshRequest};
use livepeer_core::wire::payment::{PAYMENT_HEADER, SEGMENT_HEADER, payment_result};
use livepeer_core::wire::signer::PaymentResponse;
use livepeer_core::wire::{OrchestratorInfo, Payment};
use livepeer_core::{Effect, EffectId, Input, Machine, Output, Time};
use livepeer_proto::net;
use prost::Message as _;

use super::{Answer, Due, ORCHESTRATOR, RECIPIENT, Waiting, World, keep};
use crate::payment::{Model, Settings};

impl World {
    pub(super) fn ask_signer(&mut self, index: usize, mut request: Request) -> (u16, Vec<u8>) {
        let id = EffectId::by_peer(self.peers);
        self.peers += 1;
        let body = std::mem::take(&mut request.body);
        let Body::Full(body) = body else {
            panic!("signers are sent a whole body");
        };
        let signer = &mut self.signers[index];
        for step in [
            In::Request(request),
            In::Data(body),
            In::End(Headers::new()),
        ] {
            signer.handle_input(self.now, Input::Http(id, step));
        }
        loop {
            match signer.poll_output() {
                Output::Effect(id, Effect::Sign(digest)) => {
                    let signature = self.key.sign(digest);
                    signer.handle_input(self.now, Input::Signed(id, Ok(signature)));
                }
                Output::Effect(id, Effect::Store(_)) => {
                    signer.handle_input(self.now, Input::Stored(id, Ok(())));
                }
                Output::Effect(_, Effect::Http(Out::Reply(reply))) => {
                    let Body::Full(body) = reply.body else {
                        panic!("signers answer a whole body");
                    };
                    if reply.status == 200 {
                        let made = PaymentResponse::from_json(&body).expect("a payment");
                        let payment = Payment::decode(&made.payment).expect("a payment");
                        self.model.signed(&payment);
                    }
                    return (reply.status, body.to_vec());
                }
                Output::Effect(..) | Output::Event(_) => {}
                Output::Idle(_) => panic!("the signer waits"),
            }
        }
    }

    pub(super) fn quote(&mut self) -> net::OrchestratorInfo {
        let price = Price::new(self.price, 1).expect("a price");
        let sender = self.key.address();
        let params = self
            .recipient
            .quote(self.now, sender, price)
            .expect("a funded payer");
        self.tokens += 1;
        let token = self
            .secret
            .issue(self.now, format!("session-{}", self.tokens));
        net::OrchestratorInfo {
            transcoder: format!("https://{ORCHESTRATOR}"),
            ticket_params: Some(params.to_wire()),
            price_info: Some(net::PriceInfo {
                price_per_unit: price.wei(),
                pixels_per_unit: price.per(),
                ..net::PriceInfo::default()
            }),
            address: RECIPIENT.0.to_vec().into(),
            auth_token: Some(token.to_wire()),
            ..net::OrchestratorInfo::default()
        }
    }

    pub(super) fn info(&mut self) -> Arc<OrchestratorInfo> {
        let raw = self.quote().encode_to_vec().into();
        Arc::new(OrchestratorInfo::decode(raw).expect("our own"))
    }

    /// A quote under the price that a job's first payment fixed.
    pub(super) fn refresh(&mut self, request: &Request) -> (u16, Vec<u8>) {
        let Body::Full(body) = &request.body else {
            panic!("the whole request is sent at once");
        };
        let asked = RefreshRequest::from_json(body).expect("our own");
        let pinned = self.recipient.session_price(&AccountId {
            sender: asked.sender,
            session: asked.manifest_id.clone(),
        });
        let Some(price) = pinned.filter(|_| !self.old) else {
            return if self.old {
                (404, b"404 page not found".to_vec())
            } else {
                (409, b"fixed price not found for session".to_vec())
            };
        };
        let today = std::mem::replace(&mut self.price, price.wei());
        let mut quote = self.quote();
        self.price = today;
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

    pub(super) fn take_start(
        &mut self,
        id: PaymentId,
        credentials: &Credentials,
        answer: Option<Answer>,
    ) {
        let payment = Payment::decode(&credentials.payment).expect("our own");
        // The name is the orchestrator's to give; a request that arrives twice makes two jobs.
        let manifest = format!("job-{}", self.agenda.entered());
        let receipt = self.recipient.receive(self.now, &manifest, payment.clone());
        let account = AccountId {
            sender: payment.sender,
            session: manifest,
        };
        let waiting = Waiting::Start(id, answer);
        self.waiting.insert(receipt, (account, payment, waiting));
    }

    pub(super) fn take_payment(&mut self, request: &Request, answer: Option<Answer>) {
        let header = |name| request.headers.get(name).expect("both headers are there");
        let payment = Payment::decode(header(PAYMENT_HEADER)).expect("our own");
        let admitted = auth::admit(
            self.now,
            header(SEGMENT_HEADER),
            Some(payment.sender),
            &self.secret,
            |_| true,
            |_| true,
        );
        let after = self.travel();
        let credentials = match admitted {
            Ok(credentials) => credentials,
            Err(why) => return self.reply(answer, after, 403, why.to_string().into()),
        };
        let manifest = credentials.manifest_id;
        if self.jobs.get(&manifest) != Some(&true) {
            return self.reply(answer, after, 404, b"no such job".to_vec());
        }
        let receipt = self.recipient.receive(self.now, &manifest, payment.clone());
        let account = AccountId {
            sender: payment.sender,
            session: manifest,
        };
        let waiting = Waiting::Payment(answer);
        self.waiting.insert(receipt, (account, payment, waiting));
    }

    pub(super) fn drain_recipient(&mut self) {
        for _ in 0..100_000 {
            match self.recipient.poll_output() {
                Output::Idle(_) => {
                    for account in std::mem::take(&mut self.touched) {
                        self.model
                            .balance(&account, self.recipient.balance(&account));
                    }
                    return;
                }
                Output::Effect(id, Effect::Store(record)) => {
                    let after = self.dice.millis(0, 30);
                    self.unsaved.push((id, record.clone()));
                    self.later(after, Due::RecipientStored(self.recipient_life, id, record));
                }
                Output::Effect(_, other) => panic!("{other:?}"),
                Output::Event(event) => self.recipient_told(event),
            }
        }
        panic!("the recipient does not stop to speak");
    }

    pub(super) fn recipient_told(&mut self, event: receiver::Event) {
        match event {
            receiver::Event::Credited(receipt, credit) => {
                self.summary.taken += 1;
                self.receipt(receipt, credit.tickets, &credit.value, None);
            }
            receiver::Event::Rejected(receipt, why) => {
                let credited = why.credit.clone();
                if matches!(why.why, receiver::Refused::Expired) {
                    let (account, payment, _) = &self.waiting[&receipt];
                    *self.late.entry(account.clone()).or_default() += &Model::worth(payment);
                }
                let refused = (why.why.status(), why.why.to_string());
                self.receipt(receipt, credited.tickets, &credited.value, Some(refused));
            }
            receiver::Event::Won(ticket) => {
                let key = receiver::winner_key(&ticket.signature);
                assert!(
                    self.recipient_store.contains_key(&key),
                    "a winner was not kept"
                );
            }
            receiver::Event::Metered(account, fee) => {
                self.model.debited(&account, &fee);
                self.touched.insert(account);
            }
            receiver::Event::Exhausted(account, shortfall) => {
                self.touched.insert(account.clone());
                assert!(
                    shortfall
                        .balance
                        .is_none_or(|balance| balance < shortfall.fee)
                );
                self.summary.cut += 1;
                self.jobs.insert(account.session, false);
            }
            other => panic!("nobody expects {other:?}"),
        }
    }

    pub(super) fn receipt(
        &mut self,
        receipt: ReceiptId,
        tickets: usize,
        value: &Amount,
        refused: Option<(u16, String)>,
    ) {
        let (account, payment, waiting) = self
            .waiting
            .remove(&receipt)
            .expect("each receipt has one event");
        let (block, store) = (self.chain.l1_block, &self.recipient_store);
        self.model
            .credited(&account, &payment, tickets, value, block, store);
        self.touched.insert(account.clone());
        let after = self.travel();
        match (waiting, refused) {
            (Waiting::Payment(answer), Some((status, text))) => {
                self.reply(answer, after, status, text.into_bytes());
            }
            (Waiting::Payment(answer), None) => {
                let mut quote = self.quote();
                let params = payment.ticket_params.as_ref();
                // The quote in an answer carries the token that the credentials had.
                let token = self
                    .payer
                    .as_ref()
                    .and_then(|payer| payer.info().auth_token.clone());
                quote.auth_token = token.map(|token| token.to_wire());
                assert!(params.is_some());
                self.reply(answer, after, 200, payment_result(quote).to_vec());
            }
            (Waiting::Start(id, answer), refused) => {
                let started = refused.is_none() && self.recipient.may_start(&account);
                let job = started.then(|| (account.session.clone(), self.recipient_life));
                if started {
                    self.jobs.insert(account.session.clone(), true);
                    let unit = self.settings.unit;
                    self.recipient
                        .start_meter(self.now, account, unit, Trigger::Ticker);
                }
                let Some(answer) = answer else { return };
                let job = job.filter(|_| !answer.lost);
                self.later(after, Due::Started(answer.life, id, job));
            }
        }
    }

    /// Crashes the recipient: records not yet durable may be lost or kept; balances are gone, and so are jobs.
    pub(super) fn crash_recipient(&mut self) {
        self.summary.crashes += 1;
        self.recipient_life += 1;
        for (_, record) in std::mem::take(&mut self.unsaved) {
            if self.dice.percent(50) {
                keep(&mut self.recipient_store, record);
            }
        }
        for (_, (_, _, waiting)) in std::mem::take(&mut self.waiting) {
            if let Waiting::Payment(Some(answer)) = waiting {
                let fault = In::Failed(Fault::Broken("crashed".into()));
                self.later(
                    Duration::from_millis(1),
                    Due::Payer(answer.life, answer.exchange, fault),
                );
            } else if let Waiting::Start(id, Some(answer)) = waiting {
                let gone = Due::Started(answer.life, id, None);
                self.later(Duration::from_millis(1), gone);
            }
        }
        self.jobs.clear();
        if self.dice.percent(30) {
            self.secret.0[0] = self.secret.0[0].wrapping_add(1);
        }
        let life = self.recipient_life as u8;
        self.recipient = recipient(&self.settings, &self.secret, &self.chain, life, self.now);
        for (key, value) in &self.recipient_store {
            self.recipient.restore(&Record {
                key: key.clone(),
                value: Some(value.clone()),
            });
        }
        self.model.recipient_restarted();
    }
}

pub(super) fn recipient(
    settings: &Settings,
    secret: &Secret,
    chain: &ChainView,
    life: u8,
    now: Time,
) -> TicketReceiver {
    let mut config = receiver::Config::new(RECIPIENT);
    config.economics.ticket_ev = Wei::from(settings.ticket_ev);
    TicketReceiver::new(now, config, secret.clone(), chain.clone(), [life; 32])
}
