//! A recipient that is sent anything, and whose store takes its time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::chain::ChainView;
use livepeer_core::money::{Amount, Price, Wei};
use livepeer_core::payment::ledger::AccountId;
use livepeer_core::payment::receiver::{Config, Event, ReceiptId, Trigger, winner_key};
use livepeer_core::payment::{Secret, Ticket, TicketReceiver, Unit};
use livepeer_core::store::{Record, StoreFailed};
use livepeer_core::wire::{Payment, SenderParams, TicketParams};
use livepeer_core::{Address, Effect, EffectId, Input, Time};

use super::Reel;
use super::reel::nth;
use crate::Key;
use crate::payment::Model;
use crate::{Driven, Exchanges};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// A payer is quoted a price.
    Quote(u8),
    /// A payment under the n-th quote: first nonce, how many tickets, what is wrong with it, which job.
    Pay(u8, u8, u8, u8, u8),
    /// The n-th payment comes again.
    Again(u8),
    /// The n-th record is durable; or it was not kept, or may have been.
    Stored(u8, Kept),
    /// The n-th job is metered from now on.
    Meter(u8, bool),
    /// The n-th job's meter stops.
    Unmeter(u8),
    /// Input of the n-th job arrives.
    InputSeen(u8),
    /// The n-th job is debited.
    Debit(u8, u8),
    /// The chain goes on, or back.
    Blocks(u8),
    /// Time passes: so many tens of milliseconds, squared.
    Pass(u8),
    /// The recipient crashes and starts again; the bits say which records got through, and whether the secret is new.
    Crash(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(20) {
            0 | 1 => Self::Quote(reel.byte()),
            2..=7 => Self::Pay(
                reel.byte(),
                reel.byte(),
                reel.byte(),
                reel.byte(),
                reel.byte(),
            ),
            8 | 9 => Self::Again(reel.byte()),
            10..=13 => {
                let pick = reel.byte();
                Self::Stored(pick, Kept::by(pick))
            }
            14 => Self::Meter(reel.byte(), reel.below(2) == 0),
            15 if reel.below(2) == 0 => Self::Unmeter(reel.byte()),
            15 => Self::InputSeen(reel.byte()),
            16 => Self::Debit(reel.byte(), reel.byte()),
            17 => Self::Blocks(reel.byte()),
            18 if reel.below(4) == 0 => Self::Crash(reel.byte()),
            _ => Self::Pass(reel.byte()),
        }
    }
}

/// The fate of a record in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The record is durable.
    Yes,
    /// The record is durable, although the store reports a failure.
    Maybe,
    /// The record is not durable.
    No,
}

impl Kept {
    const fn by(byte: u8) -> Self {
        match byte {
            0..240 => Self::Yes,
            240..248 => Self::Maybe,
            _ => Self::No,
        }
    }
}

/// Plays steps against a recipient.
pub struct Player {
    now: Time,
    book: Exchanges,
    receiver: TicketReceiver,
    lives: u8,
    secret: Secret,
    chain: ChainView,
    keys: [Key; 2],
    quotes: Vec<(usize, Price, TicketParams)>,
    sent: Vec<(String, Payment)>,
    waiting: BTreeMap<ReceiptId, (AccountId, Payment)>,
    store: BTreeMap<String, Bytes>,
    unsaved: Vec<(EffectId, Record)>,
    touched: BTreeSet<AccountId>,
    highest: u64,
    model: Model,
    /// How often each event was told, and each reason to refuse.
    seen: BTreeMap<String, u32>,
}

const RECIPIENT: Address = Address([0x0e; 20]);

fn receiver(now: Time, secret: &Secret, chain: &ChainView, life: u8) -> TicketReceiver {
    let mut config = Config::new(RECIPIENT);
    // Every other ticket wins.
    config.economics.ticket_ev = Wei::from(1_000_000);
    config.economics.max_face_value = Wei::from(2_000_000);
    config.economics.redeem_gas = 0;
    // What a sweep does is a matter of the ledger's own steps.
    config.balance_ttl = Duration::from_secs(1 << 40);
    TicketReceiver::new(now, config, secret.clone(), chain.clone(), [life; 32])
}

impl Default for Player {
    fn default() -> Self {
        let now = Time::from_secs(1_790_000_000);
        let secret = Secret([3; 32]);
        let mut chain = ChainView::development();
        chain.gas_price = Wei::zero();
        Self {
            now,
            book: Exchanges::default(),
            receiver: receiver(now, &secret, &chain, 0),
            lives: 0,
            secret,
            chain,
            keys: [Key::named("one"), Key::named("two")],
            quotes: Vec::new(),
            sent: Vec::new(),
            waiting: BTreeMap::new(),
            store: BTreeMap::new(),
            unsaved: Vec::new(),
            touched: BTreeSet::new(),
            highest: 0,
            model: Model::default(),
            seen: BTreeMap::new(),
        }
    }
}

impl Player {
    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match *step {
            Step::Quote(kind) => {
                let payer = usize::from(kind % 2);
                let price = Price::new(i64::from(kind / 2 % 4) * 100, 1).expect("a price");
                let sender = self.keys[payer].address();
                let params = self.receiver.quote(self.now, sender, price).expect("funds");
                self.quotes.push((payer, price, params));
            }
            Step::Pay(pick, first, count, wrong, job) => {
                self.pay(pick, u32::from(first).max(1), count % 6, wrong, job);
            }
            Step::Again(pick) => {
                if let Some((job, payment)) = nth(pick, &self.sent).cloned() {
                    self.receive(&job, payment);
                }
            }
            Step::Stored(pick, kept) => {
                if !self.unsaved.is_empty() {
                    let index = usize::from(pick) % self.unsaved.len();
                    let (id, record) = self.unsaved.remove(index);
                    if kept != Kept::No {
                        self.keep(record);
                    }
                    let answer = match kept {
                        Kept::Yes => Ok(()),
                        Kept::Maybe | Kept::No => Err(StoreFailed("the disk is full".into())),
                    };
                    self.input(Input::Stored(id, answer));
                }
            }
            Step::Meter(n, ticker) => {
                let trigger = if ticker {
                    Trigger::Ticker
                } else {
                    Trigger::Input
                };
                self.receiver
                    .start_meter(self.now, self.account(n), Unit::Seconds, trigger);
            }
            Step::Unmeter(n) => self.receiver.stop_meter(&self.account(n)),
            Step::InputSeen(n) => self.receiver.input_seen(self.now, &self.account(n)),
            Step::Debit(n, by) => {
                let account = self.account(n);
                let fee = Amount::from(&Wei::from(u64::from(by) * 10_000));
                if self.receiver.debit(self.now, &account, &fee).is_ok() {
                    self.model.debited(&account, &fee);
                }
                self.touched.insert(account);
            }
            Step::Blocks(by) => {
                // Mostly forward.
                self.chain.l1_block = (self.chain.l1_block + u64::from(by % 50)).saturating_sub(5);
                self.highest = self.highest.max(self.chain.l1_block);
                self.receiver.set_chain(self.now, self.chain.clone());
            }
            Step::Pass(tens) => {
                let tens = u64::from(tens);
                self.pass(Duration::from_millis(tens * tens * 10));
            }
            Step::Crash(bits) => self.crash(bits),
        }
        self.drain();
    }

    fn account(&self, n: u8) -> AccountId {
        AccountId {
            sender: self.keys[usize::from(n % 2)].address(),
            session: format!("job-{}", n / 2 % 2),
        }
    }

    fn pay(&mut self, pick: u8, first: u32, count: u8, wrong: u8, job: u8) {
        let Some((payer, price, params)) = nth(pick, &self.quotes).cloned() else {
            return;
        };
        let key = &self.keys[payer];
        let tickets = (first..first + u32::from(count)).map(|nonce| {
            let ticket = Ticket::new(&params, key.address(), nonce);
            SenderParams {
                nonce,
                signature: key.sign(ticket.digest()).0.to_vec().into(),
            }
        });
        let mut payment = Payment {
            sender: key.address(),
            tickets: tickets.collect(),
            ticket_params: Some(params),
            expected_price: Some(price),
        };
        self.model.signed(&payment);
        let params = payment.ticket_params.as_mut().expect("just put there");
        match wrong % 32 {
            0 => params.recipient = Address([5; 20]),
            1 => params.face_value = Wei::from(u64::MAX),
            2 => params.expiration_block += 1_000_u32,
            3 => params.seed = Bytes::from_static(&[7]),
            4 => payment.expected_price = Price::new(price.wei() + 1, 1),
            5 => payment.expected_price = None,
            6 => payment.sender = Address::ZERO,
            7 => payment.sender = self.keys[1 - payer].address(),
            8 => payment.ticket_params = None,
            9 => {
                if let Some(ticket) = payment.tickets.last_mut() {
                    ticket.signature = Bytes::from_static(&[1; 65]);
                }
            }
            10 => {
                if let Some(ticket) = payment.tickets.first_mut() {
                    ticket.signature = Bytes::from_static(b"short");
                }
            }
            11 => {
                let twice = payment.tickets.clone();
                payment.tickets.extend(twice);
            }
            _ => {}
        }
        let job = format!("job-{}", job % 2);
        self.sent.push((job.clone(), payment.clone()));
        self.receive(&job, payment);
    }

    fn receive(&mut self, job: &str, payment: Payment) {
        let receipt = self.receiver.receive(self.now, job, payment.clone());
        let account = AccountId {
            sender: payment.sender,
            session: job.into(),
        };
        self.waiting.insert(receipt, (account, payment));
        self.drain();
    }

    fn keep(&mut self, record: Record) {
        match record.value {
            Some(value) => self.store.insert(record.key, value),
            None => self.store.remove(&record.key),
        };
    }

    fn crash(&mut self, bits: u8) {
        for (index, (_, record)) in std::mem::take(&mut self.unsaved).into_iter().enumerate() {
            if bits >> (index % 7) & 1 == 1 {
                self.keep(record);
            }
        }
        if bits & 0x80 != 0 {
            self.secret.0[0] = self.secret.0[0].wrapping_add(1);
        }
        self.waiting.clear();
        self.lives = self.lives.wrapping_add(1);
        self.receiver = receiver(self.now, &self.secret, &self.chain, self.lives);
        for (key, value) in &self.store {
            let record = Record {
                key: key.clone(),
                value: Some(value.clone()),
            };
            let ours = self.receiver.restore(&record);
            assert_eq!(ours, key.starts_with("nonces:"), "{key}");
        }
        self.model.recipient_restarted();
    }

    fn receipt(&mut self, receipt: ReceiptId, tickets: usize, value: &Amount) {
        let (account, payment) = self
            .waiting
            .remove(&receipt)
            .expect("each receipt has one event");
        let (block, store) = (self.highest, &self.store);
        self.model
            .credited(&account, &payment, tickets, value, block, store);
        self.touched.insert(account);
    }
}

impl Driven for Player {
    crate::driven!(receiver: TicketReceiver, book);

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Store(record) => self.unsaved.push((id, record)),
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        let kind = match &event {
            Event::Rejected(_, why) => format!("{:?}", why.why),
            other => format!("{other:?}"),
        };
        let end = kind.find(|c: char| !c.is_alphanumeric());
        let kind = kind[..end.unwrap_or(kind.len())].to_owned();
        *self.seen.entry(kind).or_default() += 1;
        match event {
            Event::Credited(receipt, credit) => {
                self.receipt(receipt, credit.tickets, &credit.value);
            }
            Event::Rejected(receipt, why) => {
                self.receipt(receipt, why.credit.tickets, &why.credit.value);
                let credited = why.tickets.iter().filter(|one| one.credited).count();
                assert_eq!(credited, why.credit.tickets);
                // Nothing after the first failure counts (payments spec 6).
                let failed = why.tickets.iter().position(|one| one.refused.is_some());
                assert!(credited <= failed.unwrap_or(usize::MAX));
            }
            Event::Won(ticket) => {
                let key = winner_key(&ticket.signature);
                assert!(self.store.contains_key(&key), "a winner was not kept");
                ticket.ticket.verify(&ticket.signature.0).expect("signed");
            }
            Event::Metered(account, fee) => {
                self.model.debited(&account, &fee);
                self.touched.insert(account);
            }
            Event::Exhausted(account, shortfall) => {
                assert!(
                    shortfall
                        .balance
                        .is_none_or(|balance| balance < shortfall.fee)
                );
                self.touched.insert(account);
            }
            other => panic!("nobody expects {other:?}"),
        }
    }

    fn idle(&mut self, _: Option<Time>) {
        for account in std::mem::take(&mut self.touched) {
            self.model
                .balance(&account, self.receiver.balance(&account));
        }
    }
}

/// Plays what the bytes say; hands back how often each thing happened.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) -> BTreeMap<String, u32> {
    let mut player = Player::default();
    Reel::new(data).play(Step::read, |step| player.play(step));
    while let Some((id, record)) = player.unsaved.pop() {
        player.keep(record);
        player.input(Input::Stored(id, Ok(())));
    }
    assert!(player.waiting.is_empty(), "a receipt has no event");
    player.seen
}
