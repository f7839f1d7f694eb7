//! Requests that pay for themselves, many at a time, from one balance at the orchestrator (jobs spec 2.4, payments
//! spec 7.3, 8).
//!
//! A session with [`Config::by_request`] makes one payment at a time too, but it does not wait for what became of it: the
//! next is made from the memory of the one before, with higher nonces, while requests are under way. What was paid beyond
//! a request's fee stays at the orchestrator and pays for later requests, which then need no ticket, no signature and no
//! call to a signer.
//!
//! Two counts are kept. [`Account::free`] is what the orchestrator owes us at least: it grows by tickets that were taken
//! for certain, and falls by fees as soon as the request leaves, so that no two requests rely on the same wei.
//! [`Account::counted`] is the count that the payer's own memory has: worth of tickets made, less fees billed. Both are
//! one and the same until tickets were made in vain or requests were served from the balance. A payment bills whatever
//! brings the second back to the first, so its tickets are worth what is missing
//! (`sim/tests/orchestrator/jobs.rs` compares both with the orchestrator's, to the wei).

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

use num_traits::ToPrimitive as _;

use super::{
    Charge, Credentials, Current, Delivered, Event, Fee, Memory, Minted, Paid, PaymentId,
    PaymentSession, Source, State,
};
use crate::capabilities::Capabilities;
use crate::error::{Cause, Failure, Misuse};
use crate::money::{Amount, Price};
use crate::payment::auth::TOKEN_RENEWAL;
use crate::payment::guard::Proportion;
use crate::payment::ledger::min_credit;
use crate::payment::ticket::expected_value;
use crate::time::Time;
use crate::wire::signer::StateBlob;
use crate::wire::{OrchestratorInfo, Payment, SegmentCredentials};

/// How long a balance lasts that nothing is taken from: orchestrators forget one that was idle for ten minutes, by their
/// clocks (payments spec 8).
pub const BALANCE_LASTS: Duration = Duration::from_secs(9 * 60);

/// The balance at an orchestrator, and the requests that are paid from it.
#[derive(Default)]
pub(super) struct Account {
    /// Credit at the orchestrator, at least, less the fees of requests under way.
    free: Amount,
    /// The worth of the tickets that the payer made in this payer session, less the fees that it billed.
    counted: Amount,
    /// When the orchestrator last took a payment or did some work.
    active: Time,
    /// Requests that wait for a payment, and their units.
    waiting: VecDeque<(PaymentId, u64)>,
    /// Requests under way.
    open: BTreeMap<PaymentId, Open>,
    /// The payer's signed leave to use the orchestrator under the name of the balance. Neither token nor capabilities are
    /// covered by the signature, so that it is good for later ones too (payments spec 4).
    leave: Option<SegmentCredentials>,
    /// Header of a request without tickets under the quote in use.
    ticketless: Option<Ticketless>,
}

/// Header of a request without tickets, and the worth of a ticket, which orchestrators want ahead.
#[derive(Clone)]
struct Ticketless {
    credentials: Credentials,
    ev: Amount,
}

/// A request under way.
struct Open {
    fee: Amount,
    /// The part of the fee that comes from the balance.
    set_aside: Amount,
    tickets: u32,
    value: Amount,
    /// When its payment was counted as spent, if there is one.
    counted: Option<Time>,
    info: Arc<OrchestratorInfo>,
}

/// Cost of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// The price that is billed; `None` where nothing is paid.
    pub price: Option<Price>,
    /// The fee.
    pub fee: Amount,
    /// The number of tickets that go along.
    pub tickets: u32,
    /// The value of these tickets.
    pub value: Amount,
}

impl PaymentSession {
    /// The bill of a request that is paid for and not answered yet; only of sessions with [`Config::by_request`].
    ///
    /// [`Config::by_request`]: super::Config::by_request
    #[must_use]
    pub fn bill(&self, id: PaymentId) -> Option<Bill> {
        let open = self.account.as_ref()?.open.get(&id)?;
        Some(Bill {
            price: self.quote.as_ref().map(|_| self.initial),
            fee: open.fee.clone(),
            tickets: open.tickets,
            value: open.value.clone(),
        })
    }

    /// Credit at the orchestrator in work, at least, less the fees of requests under way.
    #[must_use]
    pub fn balance(&self) -> Option<&Amount> {
        self.account.as_ref().map(|account| &account.free)
    }

    /// Takes over the orchestrator's own count of what the payer has left there, unless requests under way change it.
    pub fn set_balance(&mut self, now: Time, balance: Amount) {
        self.advance(now);
        if let Some(account) = &mut self.account
            && account.open.is_empty()
            && balance != account.free
        {
            account.free = balance.max(Amount::zero());
        }
    }

    /// Forgets a request that waits for its payment, or for which one is being made. One that was paid for is told by
    /// [`delivered`](Self::delivered).
    pub fn cancel(&mut self, now: Time, id: PaymentId) {
        self.advance(now);
        if let Some(account) = &mut self.account {
            account.waiting.retain(|(waiting, _)| *waiting != id);
        }
    }

    /// Whether many requests pay at a time.
    pub(super) const fn by_request(&self) -> bool {
        self.account.is_some()
    }

    /// Takes in a request of so many units.
    pub(super) fn pay_request(&mut self, units: u64) -> Result<PaymentId, Misuse> {
        if matches!(self.state, State::Ended) {
            return Err(Misuse::Ended);
        }
        let id = PaymentId(self.ids);
        self.ids += 1;
        self.forget_old_balance();
        if !self.pay_from_balance(id, units) {
            if let Some(account) = &mut self.account {
                account.waiting.push_back((id, units));
            }
            self.pay_waiting();
        }
        Ok(id)
    }

    /// Pays for requests that wait, until one needs a payment that takes time.
    pub(super) fn pay_waiting(&mut self) {
        while self.current.is_none()
            && let Some(account) = &mut self.account
            && let Some((id, units)) = account.waiting.pop_front()
        {
            if self.pay_from_balance(id, units) {
                continue;
            }
            self.current = Some(Current {
                id,
                fee: Fee::Units(units),
                billed: units,
                by_owner: true,
                asked: self.now,
                tries: 0,
            });
            self.refreshes = 0;
            if let Source::Remote { client, .. } = &mut self.source {
                client.begin(self.now);
            }
            self.mint();
        }
    }

    /// Pays for a request without a ticket, if the balance allows it.
    pub(super) fn pay_from_balance(&mut self, id: PaymentId, units: u64) -> bool {
        if self.stale || self.token_ends() {
            return false;
        }
        let Some(Ticketless { credentials, ev }) = self.ticketless() else {
            return false;
        };
        let fee = match &self.quote {
            Some(_) => self.initial.fee(units),
            None => Amount::zero(),
        };
        let info = Arc::clone(&self.info);
        let Some(account) = &mut self.account else {
            return false;
        };
        if account.free < min_credit(&fee, &ev) {
            return false;
        }
        account.free -= &fee;
        account.open.insert(
            id,
            Open {
                set_aside: fee.clone(),
                fee,
                tickets: 0,
                value: Amount::zero(),
                counted: None,
                info,
            },
        );
        self.out.event(Event::Ready(id, credentials));
        true
    }

    /// Whether the token in use is about to end.
    pub(super) fn token_ends(&self) -> bool {
        let token = self.info.auth_token.as_ref();
        token.is_none_or(|token| self.now + TOKEN_RENEWAL > token.expiration)
    }

    /// Header of a request without tickets; `None` while the payer has signed nothing.
    fn ticketless(&mut self) -> Option<Ticketless> {
        let account = self.account.as_ref()?;
        if let Some(known) = &account.ticketless {
            return Some(known.clone());
        }
        let token = self.info.auth_token.clone();
        let wanted = || {
            let wanted = self.config.capabilities.clone();
            wanted.map(Capabilities::in_credentials)
        };
        let segment = match (&self.source, &account.leave) {
            (Source::Offchain, _) => {
                SegmentCredentials::for_payment(self.manifest_id.clone(), token, wanted())
            }
            (_, Some(leave)) => SegmentCredentials {
                auth_token: token,
                ..leave.clone()
            },
            (_, None) => return None,
        };
        let payment = match (self.sender(), &self.quote) {
            (None, _) => String::new(),
            (Some(sender), quote) => Payment {
                sender,
                expected_price: quote.as_ref().map(|quote| quote.price),
                ..Payment::default()
            }
            .encode(),
        };
        let ev = self.quote.as_ref().map_or_else(Amount::zero, |quote| {
            expected_value(&quote.params.face_value, &quote.params.win_prob)
        });
        let ticketless = Ticketless {
            credentials: Credentials {
                payment,
                segment: segment.encode(),
            },
            ev,
        };
        if let Some(account) = &mut self.account {
            account.ticketless = Some(ticketless.clone());
        }
        Some(ticketless)
    }

    /// How many units a payment for the present request bills, so that its tickets are worth what the balance lacks.
    pub(super) fn units_to_bill(&self, units: u64) -> u64 {
        let (Some(account), Some(quote)) = (&self.account, &self.quote) else {
            return units;
        };
        let fee = self.initial.fee(units);
        let target = if account.counted > account.free {
            // Tickets were made in vain: the payer believes that more lies ahead than does.
            let ev = expected_value(&quote.params.face_value, &quote.params.win_prob);
            min_credit(&fee, &ev)
        } else {
            fee
        };
        let lacking = target - account.free.clone() + account.counted.clone();
        let price = self.initial.of_one();
        if !lacking.is_positive() || !price.is_positive() {
            return 1;
        }
        lacking.div_ceil(&price).to_u64().unwrap_or(u64::MAX)
    }

    /// Hands out a payment that was made. The next one is made from its memory, whatever becomes of it: no nonce is used
    /// twice.
    pub(super) fn hand_out(&mut self, minted: Minted) {
        let Some(current) = self.current.take() else {
            return;
        };
        self.state = State::Resting;
        let initial = self.initial;
        let (paying, info) = (self.quote.is_some(), Arc::clone(&self.info));
        let Some(account) = &mut self.account else {
            return;
        };
        match (&mut self.source, minted.memory) {
            (Source::Remote { committed, .. }, Memory::Blob(blob)) => *committed = blob,
            (Source::Local { committed, .. }, Memory::State(state)) => *committed = Some(state),
            _ => {}
        }
        self.accepted = true;
        self.held = None;
        self.proportion.paid(&minted.value, &minted.charge.fee);
        account.counted += &minted.value;
        account.counted -= &minted.charge.fee;
        if account.leave.is_none() {
            account.leave = SegmentCredentials::decode(&minted.credentials.segment).ok();
        }
        let fee = match current.fee {
            Fee::Units(units) if paying => initial.fee(units),
            _ => Amount::zero(),
        };
        let lacking = fee.clone() - minted.value.clone();
        let set_aside = lacking.max(Amount::zero()).min(account.free.clone());
        account.free -= &set_aside;
        account.open.insert(
            current.id,
            Open {
                fee,
                set_aside,
                tickets: minted.tickets,
                value: minted.value,
                counted: minted.counted,
                info,
            },
        );
        self.out.event(Event::Ready(current.id, minted.credentials));
        self.pay_waiting();
    }

    /// Learns what became of a request.
    pub(super) fn settle_request(&mut self, id: PaymentId, how: Delivered) {
        let open = self.account.as_mut().and_then(|all| all.open.remove(&id));
        let Some(open) = open else {
            return;
        };
        if how == Delivered::Unsent {
            self.give_back(open.counted, &open.value);
        }
        let Some(account) = &mut self.account else {
            return;
        };
        account.free += &open.set_aside;
        let charged = match how {
            Delivered::Used(units) => self.initial.fee(units),
            _ => open.fee.clone(),
        };
        let change = open.value.clone() - charged;
        match how {
            Delivered::Accepted | Delivered::Used(_) => account.free += &change,
            Delivered::Credited => account.free += &open.value,
            // Whichever is less.
            Delivered::Unknown => {
                self.undecided += &open.value;
                account.free += &change.min(Amount::zero());
            }
            Delivered::Short => account.free = Amount::zero(),
            Delivered::Refused | Delivered::Untouched | Delivered::Unsent => {}
        }
        if account.free < Amount::zero() {
            account.free = Amount::zero();
        }
        if how == Delivered::Refused && Arc::ptr_eq(&open.info, &self.info) {
            self.stale = true;
        }
        if matches!(
            how,
            Delivered::Accepted | Delivered::Credited | Delivered::Used(_)
        ) {
            account.active = self.now;
            if open.tickets > 0 {
                self.total += &open.value;
                let paid = Paid {
                    tickets: open.tickets,
                    value: open.value,
                    total: self.total.clone(),
                    covered_until: None,
                    charge: Charge::counted(open.fee),
                };
                self.out.event(Event::Paid(id, paid));
            }
        }
        self.pay_waiting();
    }

    /// No payment can be made: those who wait for one are told.
    pub(super) fn hold_all(&mut self, failure: &Failure) {
        self.stop_minting();
        if !matches!(self.state, State::Ended) {
            self.state = State::Resting;
        }
        let current = self.current.take().map(|current| current.id);
        let waiting = self
            .account
            .as_mut()
            .map(|account| core::mem::take(&mut account.waiting));
        let waiting = waiting.into_iter().flatten().map(|(id, _)| id);
        for id in current.into_iter().chain(waiting) {
            self.out.event(Event::Held(id, failure.clone()));
        }
    }

    /// The signer made no ticket where one is due: its memory is not what it should be, so a new payer session begins.
    pub(super) fn count_anew(&mut self) {
        let known = match &self.source {
            Source::Remote { committed, .. } => !committed.is_empty(),
            Source::Local { committed, .. } => committed.is_some(),
            Source::Offchain => false,
        };
        if known {
            self.begin_payer_session();
            // Its memory has the nonces, too.
            self.stale = true;
            return self.mint();
        }
        let failure = Failure::new(
            self.payer_party(),
            Cause::Nonsense {
                what: "a payment",
                why: "it says that nothing is due".into(),
            },
        );
        self.hold_all(&failure);
    }

    /// Begins anew with the payer. What lies at the orchestrator stays there.
    fn begin_payer_session(&mut self) {
        match &mut self.source {
            Source::Remote { committed, .. } => *committed = StateBlob::default(),
            Source::Local { committed, .. } => *committed = None,
            Source::Offchain => {}
        }
        self.proportion = Proportion::default();
        if let Some(account) = &mut self.account {
            account.counted = Amount::zero();
        }
    }

    /// A balance that was idle for long is no more, and its price neither.
    fn forget_old_balance(&mut self) {
        let Some(account) = &mut self.account else {
            return;
        };
        if account.open.is_empty() && account.active + BALANCE_LASTS <= self.now {
            account.free = Amount::zero();
            let price = self.quote.as_ref().map(|quote| quote.price);
            if price.is_some_and(|price| price != self.initial) {
                self.initial = price.unwrap_or(Price::FREE);
                self.begin_payer_session();
                self.stale = true;
            }
        }
    }

    /// A quote is put to use: dearer ones begin a new payer session, and cheaper ones are billed at the price that the
    /// balance was opened with, as the orchestrator does.
    pub(super) fn quote_changed(&mut self) {
        // A job keeps the price of its first payment, as long as its orchestrator does.
        let Some(account) = &mut self.account else {
            return;
        };
        account.ticketless = None;
        let price = self.quote.as_ref().map(|quote| quote.price);
        if let Some(price) = price.filter(|price| self.accepted && *price > self.initial) {
            self.initial = price;
            self.begin_payer_session();
        }
    }

    /// A new account of a session that has one.
    pub(super) fn new_account(by_request: bool, now: Time) -> Option<Box<Account>> {
        by_request.then(|| {
            Box::new(Account {
                active: now,
                ..Account::default()
            })
        })
    }
}
