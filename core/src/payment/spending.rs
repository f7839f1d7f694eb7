//! The limit on all that is spent, whichever session spends it.
//!
//! ```text
//!   take() ─ within the limits ─▶ counted ─▶ in a record ─▶ Taken
//!     │ no: the limit              │  ▲         └ not stored: NotStored, and counted no more
//!     ▼                            │  └ further ones wait for the record under way, and share the next
//!   Err                            └ without a key: Taken at once
//! ```
//!
//! An amount is counted before it may leave, so no interleaving of sessions passes a limit, and whatever has left is in
//! the store (`no_interleaving_of_sessions_passes_a_limit`). What was counted and never left is given back; that is
//! stored with the next record, for a crash may count too much and never too little.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::guard::Budget;
use crate::error::Broken;
use crate::machine::{Effect, EffectId, Input, Machine, Outbox, Output};
use crate::money::Amount;
use crate::store::{STORE_WITHIN, StoreFailed};
use crate::time::Time;

/// Names an amount that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TakeId(u64);

/// News of what was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The amount is counted, at that time, also after a crash: it may leave.
    Taken(TakeId, Time),
    /// The count would not survive a crash. The amount is not counted, and must not leave.
    NotStored(TakeId, StoreFailed),
}

/// An amount that is counted, and not in the store yet.
#[derive(Debug)]
struct Fresh {
    id: TakeId,
    at: Time,
    value: Amount,
}

/// A record under way, and the amounts that wait for it.
#[derive(Debug)]
struct Saving {
    record: EffectId,
    until: Time,
    waiting: Vec<Fresh>,
}

/// The spending of all sessions that share a limit. See the [module](self).
#[derive(Debug)]
pub struct Spending {
    now: Time,
    budget: Budget,
    key: Option<String>,
    taken: u64,
    /// Amounts for the next record. Each session takes one at a time, so there are not more of them than sessions.
    fresh: Vec<Fresh>,
    saving: Option<Saving>,
    out: Outbox<Event>,
}

impl Spending {
    /// Spending within `budget`, which knows what was spent before ([`Budget::restore`]). With a key, the count is made
    /// durable under it.
    #[must_use]
    pub fn new(now: Time, budget: Budget, key: Option<String>) -> Self {
        Self {
            now,
            budget,
            key,
            taken: 0,
            fresh: Vec::new(),
            saving: None,
            out: Outbox::default(),
        }
    }

    /// Counts an amount before it leaves. An [`Event`] says when it may.
    ///
    /// # Errors
    /// The limit that it would pass.
    pub fn take(&mut self, now: Time, value: &Amount) -> Result<TakeId, Box<Broken>> {
        self.advance(now);
        self.budget.check(self.now, value)?;
        self.budget.spend(self.now, value);
        let id = TakeId(self.taken);
        self.taken += 1;
        if self.key.is_none() {
            self.out.event(Event::Taken(id, self.now));
            return Ok(id);
        }
        self.fresh.push(Fresh {
            id,
            at: self.now,
            value: value.clone(),
        });
        self.save();
        Ok(id)
    }

    /// Counts an amount no more: it was counted at that time, and never left.
    pub fn give_back(&mut self, now: Time, at: Time, value: &Amount) {
        self.advance(now);
        self.budget.give_back(at, value);
    }

    /// Changes the limits. What was spent stays.
    pub fn set_limits(&mut self, per_job: Option<Amount>, per_hour: Option<Amount>) {
        self.budget.per_job = per_job;
        self.budget.per_hour = per_hour;
    }

    /// The amount spent, and its limits.
    #[must_use]
    pub const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Stores what is counted, unless a record is under way.
    fn save(&mut self) {
        if self.saving.is_some() || self.fresh.is_empty() {
            return;
        }
        let Some(key) = &self.key else { return };
        let record = self.budget.to_record(key.clone());
        self.saving = Some(Saving {
            record: self.out.open(Effect::Store(record)),
            until: self.now + STORE_WITHIN,
            waiting: core::mem::take(&mut self.fresh),
        });
    }

    fn saved(&mut self, saving: Saving, answer: &Result<(), StoreFailed>) {
        for fresh in saving.waiting {
            self.out.event(match answer {
                Ok(()) => Event::Taken(fresh.id, fresh.at),
                Err(why) => {
                    self.budget.give_back(fresh.at, &fresh.value);
                    Event::NotStored(fresh.id, why.clone())
                }
            });
        }
        self.save();
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        if let Some(saving) = self.saving.take_if(|saving| saving.until <= now) {
            self.saved(saving, &Err(StoreFailed::late()));
        }
    }
}

impl Machine for Spending {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        if let Input::Stored(id, answer) = input
            && let Some(saving) = self.saving.take_if(|saving| saving.record == id)
        {
            self.saved(saving, &answer);
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        let wake = self.saving.as_ref().map(|saving| saving.until);
        self.out.pop().unwrap_or(Output::Idle(wake))
    }
}
