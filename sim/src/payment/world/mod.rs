//! A world of payer, signers and recipient, made from one seed.

mod payer;
mod recipient;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::chain::ChainView;
use livepeer_core::http::{Fault, Headers, In, Request, Response};
use livepeer_core::money::Amount;
use livepeer_core::payment::ledger::AccountId;
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::receiver::ReceiptId;
use livepeer_core::payment::session::{Credentials, PaymentId};
use livepeer_core::payment::{PaymentSession, Secret, SignerServer, TicketReceiver, remote};
use livepeer_core::store::{Record, StoreFailed};
use livepeer_core::wire::Payment;
use livepeer_core::wire::challenge::REFRESH_PATH;
use livepeer_core::wire::payment::PAYMENT_HEADER;
use livepeer_core::{Address, EffectId, Input, Machine, Output, Time};

use self::recipient::recipient;
use super::{Model, Settings, Summary};
use crate::{Agenda, Dice, Key};

const START: Time = Time::from_secs(1_790_000_000);
const RECIPIENT: Address = Address([0x0e; 20]);
const ORCHESTRATOR: &str = "orchestrator:8935";

enum Due {
    /// A step of an exchange at the payer, in that life of it.
    Payer(u64, EffectId, In),
    PayerStored(u64, EffectId, Record),
    PayerSigned(u64, EffectId, livepeer_core::Digest),
    /// A request at the recipient; its answer goes to this exchange.
    Recipient(Request, Option<Answer>),
    RecipientStored(u64, EffectId, Record),
    /// The start request, with the payment that the owner delivers.
    Start(PaymentId, Credentials, Option<Answer>),
    /// The owner hears of its start request: of a job, and of the recipient's life that it began in.
    Started(u64, PaymentId, Option<(String, u64)>),
    /// The owner has a fresh quote.
    Renewed(u64),
    /// The owner begins anew.
    Begin(u64),
    Block(u64),
    RecipientCrash,
    PayerCrash,
    SignerAway(usize, bool),
    NewPrice(i64),
    Calm,
}

/// Where an answer goes, and whether it arrives.
#[derive(Clone, Copy)]
struct Answer {
    life: u64,
    exchange: EffectId,
    lost: bool,
    loudly: bool,
}

enum Waiting {
    Payment(Option<Answer>),
    Start(PaymentId, Option<Answer>),
}

/// See the [module](super).
pub struct World {
    settings: Settings,
    now: Time,
    dice: Dice,
    agenda: Agenda<Due>,
    key: Key,
    faults: bool,

    payer: Option<PaymentSession>,
    life: u64,
    payer_store: BTreeMap<String, Bytes>,
    open: BTreeSet<EffectId>,

    signers: Vec<SignerServer>,
    away: Vec<bool>,
    peers: u64,

    recipient: TicketReceiver,
    recipient_life: u64,
    recipient_store: BTreeMap<String, Bytes>,
    unsaved: Vec<(EffectId, Record)>,
    waiting: BTreeMap<ReceiptId, (AccountId, Payment, Waiting)>,
    secret: Secret,
    jobs: BTreeMap<String, bool>,
    /// The payer's job, and the life of the recipient that it began in.
    job: Option<(String, u64)>,
    /// The recipient knows nothing of `/refresh-payment`.
    old: bool,
    tokens: u64,
    chain: ChainView,
    price: i64,

    model: Model,
    /// The worth of what came too late for an account, its parameters having expired on the way. Its nonces are seen.
    late: BTreeMap<AccountId, Amount>,
    /// Accounts whose balance the model has to look at.
    touched: BTreeSet<AccountId>,
    summary: Summary,
}

impl World {
    /// Runs a seed to its end.
    ///
    /// # Panics
    /// If the model or a machine finds something that must not be.
    #[must_use]
    pub fn run(seed: u64, settings: Settings) -> Summary {
        let mut world = Self::new(seed, settings);
        world.plan();
        world.drain_recipient();
        world.drain_payer();
        let end = START + world.settings.span;
        while world.step(end) {}
        // What is under way arrives.
        if let Some(payer) = &mut world.payer {
            payer.pause();
        }
        while world.step(end + Duration::from_secs(3)) {}
        world.finish()
    }

    fn new(seed: u64, settings: Settings) -> Self {
        let key = Key::named("payer");
        let chain = ChainView::development();
        let policy = Policy {
            minting: settings.minting,
            ..Policy::new(key.address())
        };
        let signers = (0..2)
            .map(|n| {
                let config = remote::Config::new(policy.clone());
                SignerServer::new(START, config, chain.clone(), [n; 32])
            })
            .collect();
        let secret = Secret([3; 32]);
        let mut world = Self {
            now: START,
            dice: Dice::new(seed),
            agenda: Agenda::default(),
            key,
            faults: settings.faults,
            payer: None,
            life: 0,
            payer_store: BTreeMap::new(),
            open: BTreeSet::new(),
            signers,
            away: vec![false; 2],
            peers: 0,
            recipient: recipient(&settings, &secret, &chain, 0, START),
            recipient_life: 0,
            recipient_store: BTreeMap::new(),
            unsaved: Vec::new(),
            waiting: BTreeMap::new(),
            secret,
            jobs: BTreeMap::new(),
            job: None,
            old: settings.faults && Dice::new(seed ^ 0x01d).percent(25),
            tokens: 0,
            chain,
            price: settings.price,
            model: Model::default(),
            late: BTreeMap::new(),
            touched: BTreeSet::new(),
            summary: Summary::default(),
            settings,
        };
        world.begin();
        world
    }

    /// Decides what will happen when.
    fn plan(&mut self) {
        let span = u64::try_from(self.settings.span.as_millis()).unwrap_or(u64::MAX);
        for block in 1..=span / 12_000 {
            self.later(Duration::from_secs(12 * block), Due::Block(1));
        }
        if !self.faults {
            return;
        }
        // In the last half minute all goes well: what is alive then has to stay so.
        let calm = span - 30_000;
        self.later(Duration::from_millis(calm), Due::Calm);
        let at = |dice: &mut Dice| dice.millis(1_000, calm);
        for _ in 0..self.dice.between(0, 2) {
            let when = at(&mut self.dice);
            self.later(when, Due::RecipientCrash);
        }
        for _ in 0..self.dice.between(0, 2) {
            let when = at(&mut self.dice);
            self.later(when, Due::PayerCrash);
        }
        for signer in 0..2 {
            if self.dice.percent(50) {
                let when = at(&mut self.dice);
                let long = self.dice.millis(500, 40_000);
                self.later(when, Due::SignerAway(signer, true));
                self.later(when + long, Due::SignerAway(signer, false));
            }
        }
        if self.dice.percent(30) {
            let when = at(&mut self.dice);
            self.later(when, Due::Block(45));
        }
        if self.dice.percent(30) {
            let when = at(&mut self.dice);
            let low = u64::try_from(self.settings.price / 2).unwrap_or(1).max(1);
            let price = self.dice.between(low, low * 3);
            self.later(when, Due::NewPrice(i64::try_from(price).unwrap_or(1)));
        }
    }

    fn later(&mut self, after: Duration, what: Due) {
        self.agenda.enter(self.now + after, what);
    }

    /// How long a message is under way.
    fn travel(&mut self) -> Duration {
        if self.faults && self.dice.percent(3) {
            self.dice.millis(1_000, 15_000)
        } else {
            self.dice.millis(1, 200)
        }
    }

    /// Does the next thing that is due up to `end`.
    fn step(&mut self, end: Time) -> bool {
        let payer = self
            .payer
            .as_mut()
            .and_then(|payer| match payer.poll_output() {
                Output::Idle(wake) => wake,
                _ => panic!("the payer was not drained"),
            });
        let recipient = match self.recipient.poll_output() {
            Output::Idle(wake) => wake,
            _ => panic!("the recipient was not drained"),
        };
        for wake in [payer, recipient].into_iter().flatten() {
            assert!(wake > self.now, "a machine wants to be woken in the past");
        }
        let wake = [payer, recipient].into_iter().flatten().min();
        let due = self.agenda.next();
        let next = [wake, due].into_iter().flatten().min();
        match next {
            Some(next) if next <= end => self.now = self.now.max(next),
            _ => return false,
        }
        if due == next {
            let what = self.agenda.pop().expect("something is due");
            self.happen(what);
        }
        self.recipient.handle_input(self.now, Input::Tick);
        self.payer_input(Input::Tick);
        self.drain_recipient();
        self.drain_payer();
        true
    }

    fn happen(&mut self, what: Due) {
        match what {
            Due::Payer(life, id, step) => {
                let over = matches!(step, In::End(_) | In::Failed(_));
                if life == self.life && self.open.contains(&id) {
                    if over {
                        self.open.remove(&id);
                    }
                    self.payer_input(Input::Http(id, step));
                }
            }
            Due::PayerStored(life, id, record) => {
                let answer = self.store_answer();
                if self.is_kept(&answer) {
                    keep(&mut self.payer_store, record);
                }
                if life == self.life {
                    self.payer_input(Input::Stored(id, answer));
                }
            }
            Due::PayerSigned(life, id, digest) if life == self.life => {
                let signature = self.key.sign(digest);
                self.payer_input(Input::Signed(id, Ok(signature)));
            }
            Due::PayerSigned(..) => {}
            Due::Recipient(request, answer) => self.take_payment(&request, answer),
            Due::RecipientStored(life, id, record) => {
                if life == self.recipient_life {
                    self.unsaved.retain(|(unsaved, _)| *unsaved != id);
                    let answer = self.store_answer();
                    if self.is_kept(&answer) {
                        keep(&mut self.recipient_store, record);
                    }
                    let answer = Input::Stored(id, answer);
                    self.recipient.handle_input(self.now, answer);
                }
            }
            Due::Start(id, credentials, answer) => self.take_start(id, &credentials, answer),
            Due::Started(life, id, job) => self.started(life, id, job),
            Due::Renewed(life) if life == self.life => {
                let info = self.info();
                if let Some(payer) = &mut self.payer {
                    payer.renew(self.now, &info);
                }
            }
            Due::Renewed(_) => {}
            Due::Begin(life) => {
                if life == self.life {
                    self.begin();
                }
            }
            Due::Block(blocks) => self.pass_blocks(blocks),
            Due::RecipientCrash => self.crash_recipient(),
            Due::PayerCrash => {
                self.summary.crashes += 1;
                self.begin();
            }
            Due::SignerAway(signer, away) => self.away[signer] = away,
            Due::NewPrice(price) => self.price = price,
            Due::Calm => {
                self.faults = false;
                self.away = vec![false; 2];
            }
        }
    }

    fn pass_blocks(&mut self, blocks: u64) {
        self.chain.l1_block += blocks;
        let view = self.chain.clone();
        for signer in &mut self.signers {
            signer.set_chain(self.now, view.clone());
        }
        if let Some(payer) = &mut self.payer {
            payer.set_chain(self.now, view.clone());
        }
        self.recipient.set_chain(self.now, view);
    }

    // ---- the way ---------------------------------------------------------------------------------------------

    /// Decides the fate of an exchange; `None` if nobody is reached.
    fn fate(&mut self, exchange: EffectId) -> Option<Answer> {
        let mut answer = Answer {
            life: self.life,
            exchange,
            lost: false,
            loudly: true,
        };
        if self.faults && self.dice.percent(12) {
            self.summary.mishaps += 1;
            answer.loudly = self.dice.percent(50);
            match self.dice.between(0, 2) {
                0 => return None,
                _ => answer.lost = true,
            }
        }
        Some(answer)
    }

    /// A store's answer to a record.
    fn store_answer(&mut self) -> Result<(), StoreFailed> {
        if self.faults && self.dice.percent(6) {
            self.summary.store_failures += 1;
            return Err(StoreFailed("the disk is full".into()));
        }
        Ok(())
    }

    /// Whether the record is there all the same.
    fn is_kept(&mut self, answer: &Result<(), StoreFailed>) -> bool {
        answer.is_ok() || self.dice.percent(30)
    }

    fn send(&mut self, id: EffectId, request: Request) {
        let authority = request.url.authority();
        let at_orchestrator = authority == ORCHESTRATOR;
        let refresh = at_orchestrator && request.url.path() == REFRESH_PATH;
        if at_orchestrator && !refresh {
            let header = request.headers.get(PAYMENT_HEADER).expect("a payment");
            let payment = Payment::decode(header).expect("our own");
            self.model.signed(&payment);
            self.model.sent(&payment, &self.payer_store);
        }
        let after = self.travel();
        let signer = usize::from(authority.starts_with("signer-1"));
        let gone = !at_orchestrator && self.away[signer];
        match self.fate(id) {
            Some(answer) if refresh => {
                let (status, body) = self.refresh(&request);
                self.reply(Some(answer), after, status, body);
            }
            Some(answer) if !gone => {
                if at_orchestrator {
                    if self.faults && self.dice.percent(6) {
                        self.summary.mishaps += 1;
                        // The copy is late. Were it first, its own answer would be lost, and nobody could tell it
                        // from a payment under somebody else's nonces.
                        let again = after + self.travel();
                        self.later(again, Due::Recipient(request.clone(), None));
                    }
                    self.later(after, Due::Recipient(request, Some(answer)));
                } else {
                    let (status, body) = self.ask_signer(signer, request);
                    self.reply(Some(answer), after, status, body);
                }
            }
            _ if self.dice.percent(70) => {
                let fault = In::Failed(Fault::Connect("nobody is there".into()));
                self.later(after, Due::Payer(self.life, id, fault));
            }
            // Not a word: the payer has deadlines.
            _ => {}
        }
    }

    fn reply(&mut self, answer: Option<Answer>, after: Duration, status: u16, body: Vec<u8>) {
        let Some(answer) = answer else { return };
        let Answer { life, exchange, .. } = answer;
        if answer.lost {
            if answer.loudly && self.dice.percent(50) {
                // Somebody in between lost patience.
                let status = [408, 502, 504][self.dice.between(0, 2) as usize];
                let lost = Answer {
                    lost: false,
                    ..answer
                };
                self.reply(Some(lost), after, status, b"gave up".to_vec());
            } else if answer.loudly {
                let fault = In::Failed(Fault::Broken("reset".into()));
                self.later(after, Due::Payer(life, exchange, fault));
            }
            return;
        }
        for step in [
            In::Reply(Response::new(status)),
            In::Data(body.into()),
            In::End(Headers::new()),
        ] {
            self.later(after, Due::Payer(life, exchange, step));
        }
    }

    /// Ends a life of the payer: what it says of its payments has to agree with the recipient's account.
    fn settle(&mut self, mut payer: PaymentSession) {
        // What is under way may or may not arrive.
        payer.close(self.now);
        self.summary.spent = payer.budget().spent().clone();
        self.summary.undecided += payer.undecided();
        if let Some((manifest, life)) = self.job.take()
            && life == self.recipient_life
        {
            let account = AccountId {
                sender: self.key.address(),
                session: manifest,
            };
            let credited = self.model.credits(&account);
            let late = self.late.get(&account).cloned().unwrap_or_default();
            let (known, undecided) = (payer.total(), payer.undecided());
            assert!(
                credited <= known.clone() + undecided.clone(),
                "{credited} was credited, the payer knows of {known}, and {undecided} is undecided"
            );
            // Sent twice, what came too late is called seen, as if it had been taken.
            assert!(
                *known <= credited.clone() + late.clone(),
                "{credited} was credited, {late} came too late, the payer knows of {known}"
            );
        }
    }

    fn finish(mut self) -> Summary {
        if let Some(payer) = self.payer.take() {
            self.settle(payer);
            let limit = self.settings.per_job.as_ref();
            let spent = &self.summary.spent;
            assert!(
                limit.is_none_or(|limit| spent <= limit),
                "the budget was passed"
            );
        }
        self.summary.credited = self.model.total_credited.clone();
        assert!(
            self.summary.credited <= self.summary.spent,
            "more was credited than ever left the payer"
        );
        self.summary
    }
}

fn keep(store: &mut BTreeMap<String, Bytes>, record: Record) {
    match record.value {
        Some(value) => store.insert(record.key, value),
        None => store.remove(&record.key),
    };
}
