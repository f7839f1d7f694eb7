//! Balances on both sides: pure sums, no time but what is passed in (payments spec 7.3, 8).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use core::time::Duration;

use num_bigint::BigInt;
use num_traits::ToPrimitive as _;

use crate::money::{Amount, Price};
use crate::sign::Address;
use crate::time::Time;

/// The least that a payment has to leave on account: the fee, and never less than one ticket's expected value, since
/// orchestrators insist on that much ahead.
#[must_use]
pub fn min_credit(fee: &Amount, ev: &Amount) -> Amount {
    fee.max(ev).clone()
}

/// Tickets of worth `ev` that lift `existing` to `wanted`: none if it is there already, or if tickets are worth
/// nothing. Saturates.
#[must_use]
pub fn tickets_for(wanted: &Amount, existing: &Amount, ev: &Amount) -> u64 {
    let missing = wanted.clone() - existing.clone();
    if !missing.is_positive() || !ev.is_positive() {
        return 0;
    }
    missing.div_ceil(ev).to_u64().unwrap_or(u64::MAX)
}

/// The worth of `tickets` tickets.
#[must_use]
pub fn worth(tickets: u64, ev: &Amount) -> Amount {
    ev.times(tickets)
}

/// A payer's credit with one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderBalance {
    amount: Amount,
}

/// A payment in the making. The balance is zero until it is completed, so that a second one cannot spend the
/// same credit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "complete it, or the credit it took is forgotten"]
pub struct Staged {
    /// How many tickets to send.
    pub tickets: u64,
    /// The value of the tickets.
    pub new_credit: Amount,
    /// The balance that was taken.
    pub existing: Amount,
}

/// How a staged payment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The payment was never sent: the balance is restored.
    NotSent,
    /// The payment was sent, and what it bought is unknown: nothing is left.
    Spent,
    /// The payment was accepted and cost this much. The balance may go below zero.
    Debited(Amount),
}

impl SenderBalance {
    /// A balance restored from elsewhere.
    #[must_use]
    pub const fn new(amount: Amount) -> Self {
        Self { amount }
    }

    /// The amount on account, without the part that is staged.
    #[must_use]
    pub const fn amount(&self) -> &Amount {
        &self.amount
    }

    /// Takes the whole balance and says how many tickets of worth `ev` lift it to `min_credit`.
    pub fn stage(&mut self, min_credit: &Amount, ev: &Amount) -> Staged {
        let existing = core::mem::take(&mut self.amount);
        let tickets = tickets_for(min_credit, &existing, ev);
        Staged {
            tickets,
            new_credit: worth(tickets, ev),
            existing,
        }
    }

    /// Puts back what is left of a staged payment.
    pub fn complete(&mut self, staged: Staged, how: Completion) {
        self.amount += &match how {
            Completion::NotSent => staged.existing,
            Completion::Spent => return,
            Completion::Debited(debit) => staged.existing + staged.new_credit - debit,
        };
    }
}

/// A recipient's account: payer and session, the key of a balance. The second part is the manifest id of a live job,
/// the auth token's session id of a transcoding session, `<capability>_<model>` of batch jobs, or a capability's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId {
    /// The payer.
    pub sender: Address,
    /// The work that is paid for.
    pub session: String,
}

#[derive(Clone, Debug)]
struct Account {
    amount: Amount,
    price: Option<Price>,
    active: Time,
}

/// The balances of payers at a recipient.
#[derive(Clone, Debug)]
pub struct Balances {
    accounts: BTreeMap<AccountId, Account>,
    ttl: Duration,
    swept: Time,
}

/// At most this many accounts are open. An account takes a valid ticket to open, so this bounds memory, not business.
pub const MAX_ACCOUNTS: usize = 100_000;

impl Balances {
    /// No accounts. One that is idle for `ttl` is removed with what is on it, at the next sweep.
    #[must_use]
    pub const fn new(now: Time, ttl: Duration) -> Self {
        Self {
            accounts: BTreeMap::new(),
            ttl,
            swept: now,
        }
    }

    /// Adds to an account, opening it if need be.
    ///
    /// # Errors
    /// If it would have to be opened and [`MAX_ACCOUNTS`] are open.
    pub fn credit(&mut self, now: Time, id: &AccountId, amount: &Amount) -> Result<(), TooMany> {
        self.touch(now, id)?.amount += amount;
        Ok(())
    }

    /// Takes from an account, opening it if need be. It may go below zero.
    ///
    /// # Errors
    /// As [`Balances::credit`].
    pub fn debit(&mut self, now: Time, id: &AccountId, amount: &Amount) -> Result<(), TooMany> {
        self.touch(now, id)?.amount -= amount;
        Ok(())
    }

    /// Takes from an account only if it covers `fee`.
    ///
    /// # Errors
    /// If the balance does not cover it, or there is no account; nothing is taken then.
    pub fn debit_covered(
        &mut self,
        now: Time,
        id: &AccountId,
        fee: &Amount,
    ) -> Result<Amount, Box<Shortfall>> {
        let account = self.accounts.get_mut(id).ok_or_else(|| {
            Box::new(Shortfall {
                fee: fee.clone(),
                balance: None,
            })
        })?;
        if account.amount < *fee {
            return Err(Box::new(Shortfall {
                fee: fee.clone(),
                balance: Some(account.amount.clone()),
            }));
        }
        account.amount -= fee;
        account.active = now;
        Ok(account.amount.clone())
    }

    /// Takes all that is on an account. Does not count as activity.
    pub fn reserve(&mut self, id: &AccountId) -> Amount {
        self.accounts
            .get_mut(id)
            .map(|account| core::mem::take(&mut account.amount))
            .unwrap_or_default()
    }

    /// The balance of an account, if it is open.
    #[must_use]
    pub fn read(&self, id: &AccountId) -> Option<&Amount> {
        self.accounts.get(id).map(|account| &account.amount)
    }

    /// The price that was fixed for an account.
    #[must_use]
    pub fn price(&self, id: &AccountId) -> Option<Price> {
        self.accounts.get(id).and_then(|account| account.price)
    }

    /// Fixes the price of an account, opening it if need be. Only the first price counts.
    ///
    /// # Errors
    /// As [`Balances::credit`].
    pub fn pin_price(&mut self, now: Time, id: &AccountId, price: Price) -> Result<(), TooMany> {
        self.touch(now, id)?.price.get_or_insert(price);
        Ok(())
    }

    /// How many accounts are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether no account is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Removes accounts that were idle for longer than the time to live, once in that time. Says when to come
    /// back.
    pub fn sweep(&mut self, now: Time) -> Time {
        if self.swept + self.ttl <= now {
            self.swept = now;
            let ttl = self.ttl;
            self.accounts
                .retain(|_, account| account.active + ttl >= now);
        }
        self.swept + self.ttl
    }

    fn touch(&mut self, now: Time, id: &AccountId) -> Result<&mut Account, TooMany> {
        if self.accounts.len() >= MAX_ACCOUNTS && !self.accounts.contains_key(id) {
            return Err(TooMany);
        }
        let account = self.accounts.entry(id.clone()).or_insert_with(|| Account {
            amount: Amount::zero(),
            price: None,
            active: now,
        });
        account.active = now;
        Ok(account)
    }
}

/// No further account can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_ACCOUNTS} accounts are open, which is the limit")]
pub struct TooMany;

/// An account does not cover a fee; nothing was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("insufficient balance: {} of {} wei", balance.as_ref().map_or_else(|| BigInt::from(0), Amount::whole_wei), fee.whole_wei())]
pub struct Shortfall {
    /// The fee that was due.
    pub fee: Amount,
    /// The balance; `None` if there is no account.
    pub balance: Option<Amount>,
}

/// The aim when deciding how many tickets to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Minting {
    /// As the reference does: only when the carried credit does not cover the fee.
    AsReference,
    /// When what the recipient has left falls below the greater of one ticket's worth and the price of
    /// [`Unit::reserve`](super::Unit::reserve). The recipient has the carried credit and, on top of it, what the
    /// first payment prepaid, less the fee. Nothing on the wire changes, but a session does not run down to its last
    /// seconds before the next ticket, nor is it prepaid twice (payments spec 10).
    #[default]
    Early,
}
