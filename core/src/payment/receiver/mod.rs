//! The recipient: quotes, takes tickets, keeps balances and meters live jobs (payments spec 5, 6, 8, 10).
//!
//! A receipt, from [`TicketReceiver::receive`] to its one event:
//!
//! ```text
//!              no nonce was recorded
//!   receive ──────────────────────────────────────────▶ Rejected | Credited
//!      │                                                      ▲
//!      │ nonces recorded, winners found                       │ credit, pin the price, Won..
//!      └──────▶ AwaitingStored (nonces, winners) ── Stored ───┘
//!                        └── a record failed, or its deadline: nonces given back, Rejected (NotStored)
//! ```
//!
//! Nonces count as used from the moment they are seen. A duplicate that arrives before the record is durable is told that
//! it is not recorded and may come again: called seen, it would count as taken, and the record may still fail
//! (`a_duplicate_is_called_seen_only_once_the_first_is_durable`).
//! Credit counts only afterwards: a crash in between costs the payer one ticket, never the recipient two.
//! A store that fails costs nobody anything: the payer is told that the fault is here, and the same tickets count
//! when they come again.
//! Balances live in memory; after a restart they are empty, and the nonces are not.
//!
//! A meter, from [`TicketReceiver::start_meter`]: `Running ─ the balance covers the interval ─▶ Running`, else
//! `─▶ Exhausted` once, and nothing is debited. [`TicketReceiver::stop_meter`] ends it silently.

mod records;
mod types;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use num_bigint::BigUint;
use num_rational::BigRational;
use num_traits::ToPrimitive as _;

use self::records::{nonces_key, nonces_record, restore_nonces};
use self::types::MIN_INTERVAL;
use crate::chain::ChainView;
use crate::machine::{Effect, EffectId, Input, Machine, Outbox, Output, earlier};
use crate::money::{Amount, Price, Wei};
use crate::payment::auth::Secret;
use crate::payment::ledger::{AccountId, Balances, MAX_ACCOUNTS, Shortfall};
use crate::payment::nonce::{NonceWindows, RandHash};
use crate::payment::price::{auto_adjusted, to_price};
use crate::payment::quote::{Bound, max_float};
use crate::payment::ticket::{SignedTicket, Ticket, expected_value, recipient_rand_hash, wins};
use crate::rng::{Rng, Seed};
use crate::sign::{Address, Signature};
use crate::store::{Record, STORE_WITHIN, StoreFailed};
use crate::time::Time;
use crate::units::{Meter, Unit};
use crate::wire::{Payment, SenderParams, TicketParams};

pub use records::winner_key;
pub use types::{
    Config, Credit, Event, MAX_PENDING_RECEIPTS, NoQuote, ReceiptId, Refused, Rejection,
    TicketOutcome, Trigger,
};

struct Pending {
    receipt: ReceiptId,
    account: AccountId,
    price: Price,
    hash: RandHash,
    used: Vec<u32>,
    unsaved: BTreeSet<EffectId>,
    deadline: Time,
    value: Amount,
    outcomes: Vec<TicketOutcome>,
    winners: Vec<SignedTicket>,
}

impl Pending {
    /// The nonces that it uses, each with its commitment.
    fn nonces(&self) -> impl Iterator<Item = (RandHash, u32)> {
        self.used.iter().map(|nonce| (self.hash, *nonce))
    }
}

struct LiveMeter {
    meter: Meter,
    trigger: Trigger,
}

/// See the [module](self).
pub struct TicketReceiver {
    now: Time,
    config: Config,
    secret: Secret,
    rng: Rng,
    chain: ChainView,
    /// The highest block ever seen: what has expired once stays so.
    block: u64,
    balances: Balances,
    sweep: Time,
    nonces: NonceWindows,
    /// Nonces of pending receipts: they are used, and that is not durable yet.
    unstored: BTreeSet<(RandHash, u32)>,
    /// The records of nonces in the store, by the first nonce in each.
    nonce_records: BTreeMap<RandHash, Vec<u32>>,
    meters: BTreeMap<AccountId, LiveMeter>,
    /// Receipts whose records are not durable yet, in the order in which they came: there may be thousands.
    pending: BTreeMap<ReceiptId, Pending>,
    /// The receipt that each record is for.
    saving: BTreeMap<EffectId, ReceiptId>,
    receipts: u64,
    out: Outbox<Event>,
}

impl core::fmt::Debug for TicketReceiver {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TicketReceiver")
            .field("now", &self.now)
            .field("block", &self.block)
            .field("pending", &self.pending.len())
            .field("meters", &self.meters.len())
            .finish_non_exhaustive()
    }
}

impl TicketReceiver {
    /// A recipient without balances. `secret` binds quotes: the same one after a restart honours those that are
    /// still open, provided that [`TicketReceiver::restore`] is given the records of nonces.
    #[must_use]
    pub fn new(now: Time, config: Config, secret: Secret, chain: ChainView, seed: Seed) -> Self {
        let ttl = config.balance_ttl.max(MIN_INTERVAL);
        let balances = Balances::new(now, ttl);
        Self {
            now,
            sweep: now + ttl,
            config,
            secret,
            rng: Rng::new(seed),
            block: chain.l1_block,
            chain,
            balances,
            nonces: NonceWindows::default(),
            unstored: BTreeSet::new(),
            nonce_records: BTreeMap::new(),
            meters: BTreeMap::new(),
            pending: BTreeMap::new(),
            saving: BTreeMap::new(),
            receipts: 0,
            out: Outbox::default(),
        }
    }

    /// Takes back a record from before a restart; says whether it was one of ours.
    pub fn restore(&mut self, record: &Record) -> bool {
        let restored = restore_nonces(&mut self.nonces, record);
        if let Some((hash, first)) = restored {
            self.nonce_records.entry(hash).or_default().push(first);
        }
        restored.is_some()
    }

    /// Pushes a new reading of the chain.
    pub fn set_chain(&mut self, now: Time, view: ChainView) {
        self.advance(now);
        self.chain = view;
        self.block = self.block.max(self.chain.l1_block);
        for hash in self.nonces.clean(self.chain.l1_block) {
            for first in self.nonce_records.remove(&hash).unwrap_or_default() {
                self.out.open(Effect::Store(Record {
                    key: nonces_key(&hash, first),
                    value: None,
                }));
            }
        }
    }

    /// The reading of the chain in use.
    #[must_use]
    pub const fn chain(&self) -> &ChainView {
        &self.chain
    }

    /// The price to advertise to a payer for a base price in wei per unit: raised by the cost of redeeming, if
    /// the settings say so.
    ///
    /// # Errors
    /// If there is no quote for this payer.
    pub fn advertised_price(
        &mut self,
        now: Time,
        sender: Address,
        base: &BigRational,
    ) -> Result<Option<Price>, NoQuote> {
        self.advance(now);
        if !self.config.auto_adjust_price {
            return Ok(to_price(base));
        }
        let face_value = self.face_value(sender)?;
        let economics = &self.config.economics;
        let multiplier = economics.effective_multiplier(&self.chain.gas_price, &face_value);
        Ok(to_price(&auto_adjusted(base, &multiplier)))
    }

    /// Ticket parameters for a payer, bound to this price. Good for one payer session only, and for
    /// [`Config::quote_blocks`] blocks.
    ///
    /// # Errors
    /// If the payer is unknown or cannot back a ticket.
    pub fn quote(
        &mut self,
        now: Time,
        sender: Address,
        price: Price,
    ) -> Result<TicketParams, NoQuote> {
        self.advance(now);
        let (face_value, win_prob) = if price.is_free() {
            (Wei::zero(), BigUint::ZERO)
        } else {
            let face_value = self.face_value(sender)?;
            let win_prob = self.config.economics.win_prob(&face_value);
            (face_value, win_prob)
        };
        let (round, hash) = self.chain.creation_round();
        let mut params = TicketParams {
            recipient: self.config.recipient,
            face_value,
            win_prob,
            recipient_rand_hash: [0; 32],
            seed: Wei::from(BigUint::from_bytes_be(&self.rng.bytes32()))
                .to_be_bytes()
                .into(),
            expiration_block: { self.chain.l1_block }
                .saturating_add(self.config.quote_blocks)
                .into(),
            creation_round: i64::try_from(round).unwrap_or(i64::MAX),
            creation_round_block_hash: hash,
        };
        params.recipient_rand_hash =
            recipient_rand_hash(&bound(&params, sender, price).recipient_rand(&self.secret));
        Ok(params)
    }

    fn face_value(&mut self, sender: Address) -> Result<Wei, NoQuote> {
        let Some(info) = self.chain.sender(sender) else {
            self.out.event(Event::WantSender(sender));
            return Err(NoQuote::UnknownSender(sender));
        };
        let float = max_float(info, self.chain.pool_size);
        Ok(self
            .config
            .economics
            .face_value(&self.chain.gas_price, &float)?)
    }

    /// The balance of an account.
    #[must_use]
    pub fn balance(&self, account: &AccountId) -> Option<&Amount> {
        self.balances.read(account)
    }

    /// The price that the first payment of a session fixed.
    #[must_use]
    pub fn session_price(&self, account: &AccountId) -> Option<Price> {
        self.balances.price(account)
    }

    /// Whether a job may start: there is at least one ticket's worth on account.
    #[must_use]
    pub fn may_start(&self, account: &AccountId) -> bool {
        let ev = Amount::from(&self.config.economics.ticket_ev);
        self.balances
            .read(account)
            .is_some_and(|balance| *balance >= ev)
    }

    /// Takes `fee` from an account if it covers it.
    ///
    /// # Errors
    /// If it does not; nothing is taken.
    pub fn debit(
        &mut self,
        now: Time,
        account: &AccountId,
        fee: &Amount,
    ) -> Result<Amount, Box<Shortfall>> {
        self.advance(now);
        self.balances.debit_covered(self.now, account, fee)
    }

    /// Takes the fee of work that is done from an account, which may go below zero; returns the balance left. `None` if
    /// there is no account and no room for one more.
    pub fn charge(&mut self, now: Time, account: &AccountId, fee: &Amount) -> Option<Amount> {
        self.advance(now);
        self.balances.debit(self.now, account, fee).ok()?;
        self.balances.read(account).cloned()
    }

    /// Meters a live job from now on, at the price that its first payment fixed. A job that is paid once has no
    /// meter. Replaces the account's meter, if there is one.
    pub fn start_meter(&mut self, now: Time, account: AccountId, unit: Unit, trigger: Trigger) {
        self.advance(now);
        if let Some(rate) = unit.per_second() {
            let meter = Meter::new(self.now, rate, self.config.meter_interval.max(MIN_INTERVAL));
            self.meters.insert(account, LiveMeter { meter, trigger });
        }
    }

    /// Ends a meter. The balance stays until its time to live is over.
    pub fn stop_meter(&mut self, account: &AccountId) {
        self.meters.remove(account);
    }

    /// Input of a metered job arrived: reads its meter, if that is due.
    pub fn input_seen(&mut self, now: Time, account: &AccountId) {
        self.advance(now);
        if self.meters.contains_key(account) {
            self.read_meter(account.clone());
        }
    }

    fn read_meter(&mut self, account: AccountId) {
        let Some(units) = self
            .meters
            .get_mut(&account)
            .and_then(|live| live.meter.read(self.now))
        else {
            return;
        };
        let fee = self
            .balances
            .price(&account)
            .map_or_else(Amount::zero, |price| price.fee(units));
        match self.balances.debit_covered(self.now, &account, &fee) {
            Ok(_) => self.out.event(Event::Metered(account, fee)),
            Err(shortfall) => {
                self.meters.remove(&account);
                self.out.event(Event::Exhausted(account, shortfall));
            }
        }
    }

    /// Takes in a payment for the account of its sender and `session`. One [`Event::Credited`] or
    /// [`Event::Rejected`] follows, after what it brought is durable.
    pub fn receive(&mut self, now: Time, session: &str, payment: Payment) -> ReceiptId {
        self.advance(now);
        let receipt = ReceiptId(self.receipts);
        self.receipts += 1;
        let account = AccountId {
            sender: payment.sender,
            session: session.into(),
        };
        match self.acceptable(&account, &payment) {
            Err(why) => self.reject_whole(receipt, &account, why),
            Ok(None) => {
                // Nothing to take; and nothing is believed that no ticket vouches for (payments spec T5).
                let credit = self.credit_so_far(&account, &[], Amount::zero());
                self.out.event(Event::Credited(receipt, credit));
            }
            Ok(Some((params, price))) => {
                self.take_tickets(receipt, account, &params, price, &payment.tickets);
            }
        }
        receipt
    }

    /// Checks what is checked once per payment.
    fn acceptable(
        &self,
        account: &AccountId,
        payment: &Payment,
    ) -> Result<Option<(TicketParams, Price)>, Refused> {
        if payment.sender.is_zero() && !payment.tickets.is_empty() {
            return Err(Refused::NoSender);
        }
        let Some(params) = &payment.ticket_params else {
            return Ok(None);
        };
        if !self.chain.active {
            return Err(Refused::Inactive(self.config.recipient, self.chain.round));
        }
        let price = payment.expected_price.ok_or(Refused::NoPrice)?;
        if payment.tickets.is_empty() {
            return Ok(None);
        }
        if self.pending.len() >= MAX_PENDING_RECEIPTS
            || (self.balances.len() >= MAX_ACCOUNTS && self.balances.read(account).is_none())
        {
            return Err(Refused::Busy);
        }
        Ok(Some((params.clone(), price)))
    }

    fn take_tickets(
        &mut self,
        receipt: ReceiptId,
        account: AccountId,
        params: &TicketParams,
        price: Price,
        tickets: &[SenderParams],
    ) {
        let rand = bound(params, account.sender, price).recipient_rand(&self.secret);
        let ev = expected_value(&params.face_value, &params.win_prob);
        let mut outcomes: Vec<TicketOutcome> = Vec::with_capacity(tickets.len());
        let mut winners = Vec::new();
        let mut value = Amount::zero();
        let mut used = Vec::new();
        let mut failed = false;
        for sent in tickets {
            let ticket = Ticket::new(params, account.sender, sent.nonce);
            let checked = self.check(&ticket, &rand, &sent.signature);
            let signed =
                !matches!(&checked, Err(why) if why.is_fatal() || *why == Refused::Signature);
            let won = signed && wins(&sent.signature, &rand, &params.win_prob);
            let refused = checked
                .and_then(|()| self.accept_nonce(&ticket, params, &mut used))
                .err();
            if won {
                winners.push(SignedTicket {
                    ticket,
                    signature: Signature::from_slice(&sent.signature)
                        .expect("a verified signature has 65 bytes"),
                    recipient_rand: rand,
                    expiration_block: expiry(params),
                });
            }
            failed |= refused.is_some();
            if !failed {
                value += &ev;
            }
            let fatal = refused.as_ref().is_some_and(Refused::is_fatal);
            outcomes.push(TicketOutcome {
                nonce: sent.nonce,
                refused,
                credited: !failed,
                won,
            });
            if fatal {
                break;
            }
        }
        if let Some(Refused::UnknownSender(sender)) =
            outcomes.last().and_then(|last| last.refused.as_ref())
        {
            self.out.event(Event::WantSender(*sender));
        }
        let unsaved = self.save(params, &used, &winners);
        let pending = Pending {
            receipt,
            account,
            price,
            hash: params.recipient_rand_hash,
            used,
            unsaved,
            deadline: self.now + STORE_WITHIN,
            value,
            outcomes,
            winners,
        };
        if pending.unsaved.is_empty() {
            self.speak(pending);
        } else {
            let ids = pending.unsaved.iter().map(|id| (*id, receipt));
            self.saving.extend(ids);
            self.unstored.extend(pending.nonces());
            self.pending.insert(receipt, pending);
        }
    }

    /// The checks of one ticket that come before its nonce.
    fn check(&self, ticket: &Ticket, rand: &[u8; 32], signature: &[u8]) -> Result<(), Refused> {
        let sender = ticket.sender;
        let info = self
            .chain
            .sender(sender)
            .ok_or(Refused::UnknownSender(sender))?;
        if info.unlocks_soon(self.chain.round) {
            return Err(Refused::Unlocking(sender));
        }
        if ticket.recipient != self.config.recipient {
            return Err(Refused::Recipient);
        }
        if sender.is_zero() {
            return Err(Refused::Sender);
        }
        if recipient_rand_hash(rand) != ticket.recipient_rand_hash {
            return Err(Refused::RecipientRand);
        }
        ticket.verify(signature).map_err(|_| Refused::Signature)
    }

    fn accept_nonce(
        &mut self,
        ticket: &Ticket,
        params: &TicketParams,
        used: &mut Vec<u32>,
    ) -> Result<(), Refused> {
        let expires = expiry(params);
        let (hash, nonce) = (params.recipient_rand_hash, ticket.sender_nonce);
        self.nonces.accept(hash, nonce, expires).map_err(|why| {
            match self.unstored.contains(&(hash, nonce)) {
                true => Refused::NotStored,
                false => Refused::Nonce(why, ticket.sender, nonce),
            }
        })?;
        used.push(nonce);
        if expires <= self.block {
            return Err(Refused::Expired);
        }
        Ok(())
    }

    /// Asks for the records without which nothing may be said.
    fn save(
        &mut self,
        params: &TicketParams,
        used: &[u32],
        winners: &[SignedTicket],
    ) -> BTreeSet<EffectId> {
        let hash = params.recipient_rand_hash;
        if let Some(first) = used.first() {
            let records = self.nonce_records.entry(hash).or_default();
            // One that was not stored the last time has its name already.
            if !records.contains(first) {
                records.push(*first);
            }
        }
        nonces_record(&hash, expiry(params), used)
            .into_iter()
            .chain(winners.iter().map(SignedTicket::to_record))
            .map(|record| self.out.open(Effect::Store(record)))
            .collect()
    }

    /// Credits a receipt whose records are durable, and says what came of it.
    fn speak(&mut self, done: Pending) {
        for winner in done.winners {
            self.out.event(Event::Won(Box::new(winner)));
        }
        if done.value.is_positive() {
            let pinned = self
                .balances
                .credit(self.now, &done.account, &done.value)
                .and_then(|()| self.balances.pin_price(self.now, &done.account, done.price));
            if pinned.is_err() {
                // Others opened accounts while the record was written. The payer's tickets are lost to it, as
                // the reference's are when it restarts.
                self.reject_whole(done.receipt, &done.account, Refused::Busy);
                return;
            }
        }
        let credit = self.credit_so_far(&done.account, &done.outcomes, done.value);
        let first = done.outcomes.iter().find_map(|one| one.refused.clone());
        self.out.event(match first {
            None => Event::Credited(done.receipt, credit),
            Some(why) => Event::Rejected(
                done.receipt,
                Box::new(Rejection {
                    why,
                    credit,
                    tickets: done.outcomes,
                }),
            ),
        });
    }

    /// Gives up on a receipt whose records may not be durable. It leaves no trace but a record of nonces, perhaps,
    /// that a restart believes.
    fn not_stored(&mut self, lost: Pending) {
        for id in &lost.unsaved {
            self.saving.remove(id);
        }
        self.nonces.release(&lost.hash, &lost.used);
        self.reject_whole(lost.receipt, &lost.account, Refused::NotStored);
    }

    fn reject_whole(&mut self, receipt: ReceiptId, account: &AccountId, why: Refused) {
        let credit = self.credit_so_far(account, &[], Amount::zero());
        self.out.event(Event::Rejected(
            receipt,
            Box::new(Rejection {
                why,
                credit,
                tickets: Vec::new(),
            }),
        ));
    }

    fn credit_so_far(
        &self,
        account: &AccountId,
        outcomes: &[TicketOutcome],
        value: Amount,
    ) -> Credit {
        Credit {
            tickets: outcomes.iter().filter(|one| one.credited).count(),
            value,
            balance: self.balances.read(account).cloned().unwrap_or_default(),
        }
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        if self.sweep <= self.now {
            self.sweep = self.balances.sweep(self.now);
        }
        let due: Vec<AccountId> = self
            .meters
            .iter()
            .filter(|(_, live)| live.trigger == Trigger::Ticker && live.meter.next() <= self.now)
            .map(|(account, _)| account.clone())
            .collect();
        for account in due {
            self.read_meter(account);
        }
        // They are in the order in which they came, and each has as long.
        while let Some(first) = self
            .pending
            .first_entry()
            .filter(|first| first.get().deadline <= self.now)
        {
            let late = first.remove();
            for nonce in late.nonces() {
                self.unstored.remove(&nonce);
            }
            self.not_stored(late);
        }
    }

    fn on_stored(&mut self, id: EffectId, answer: &Result<(), StoreFailed>) {
        let Some(receipt) = self.saving.remove(&id) else {
            return;
        };
        let Some(one) = self.pending.get_mut(&receipt) else {
            return;
        };
        one.unsaved.remove(&id);
        if answer.is_ok() && !one.unsaved.is_empty() {
            return;
        }
        let Some(done) = self.pending.remove(&receipt) else {
            return;
        };
        for nonce in done.nonces() {
            self.unstored.remove(&nonce);
        }
        match answer {
            Ok(()) => self.speak(done),
            Err(_) => self.not_stored(done),
        }
    }
}

impl Machine for TicketReceiver {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        if let Input::Stored(id, answer) = input {
            self.on_stored(id, &answer);
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        if let Some(output) = self.out.pop() {
            return output;
        }
        let meters = self
            .meters
            .values()
            .filter(|live| live.trigger == Trigger::Ticker)
            .map(|live| live.meter.next())
            .min();
        let sweep = (!self.balances.is_empty()).then_some(self.sweep);
        let pending = self.pending.values().next().map(|first| first.deadline);
        Output::Idle(earlier(earlier(meters, sweep), pending))
    }
}

/// The block from which tickets are refused. Our own quotes have no later one than 64 bits can say.
fn expiry(params: &TicketParams) -> u64 {
    params.expiration_block.to_u64().unwrap_or(u64::MAX)
}

fn bound(params: &TicketParams, sender: Address, price: Price) -> Bound<'_> {
    Bound {
        seed: &params.seed,
        sender,
        face_value: &params.face_value,
        win_prob: &params.win_prob,
        expiration_block: &params.expiration_block,
        price,
        creation_round: params.creation_round,
        creation_round_block_hash: &params.creation_round_block_hash,
    }
}
