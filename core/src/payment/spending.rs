//! The limit on all that is spent, whichever session spends it.
//!
//! ```text
//!   take() ─ within the limits ─▶ counted ─▶ in a record ─▶ Taken
//!     │ no: the limit              │  ▲         └ not stored: NotStored, and counted no more
//!     ▼                            │  └ further ones wait for the records under way, and share the next
//!   Err                            └ nothing to store: Taken at once
//! ```
//!
//! An amount is counted before it may leave, so no interleaving of sessions passes a limit, and whatever has left is in
//! the store (`no_interleaving_of_sessions_passes_a_limit`). What was counted and never left is given back; that is
//! stored as soon as may be, for a crash may count too much and never too little.
//!
//! A payment's own record, of the nonces that it uses, goes to the store together with the count: one commit, and not
//! two in turn. Records that were asked for in one drain are stored together wherever the driver can.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use super::budget::{Budget, Slot, slot};
use crate::error::Broken;
use crate::machine::{Effect, EffectId, Input, Machine, Outbox, Output};
use crate::money::Amount;
use crate::store::{Record, STORE_WITHIN, StoreFailed};
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
    /// The count, or the record with it, would not survive a crash. The amount is not counted, and must not leave.
    NotStored(TakeId, StoreFailed),
}

/// An amount that is counted, and not in the store yet.
#[derive(Debug)]
struct Fresh {
    id: TakeId,
    at: Time,
    value: Amount,
    record: Option<Record>,
}

/// Records under way, and the amounts that wait for them.
#[derive(Debug)]
struct Saving {
    /// Records that are not answered.
    records: BTreeSet<EffectId>,
    until: Time,
    waiting: Vec<Fresh>,
    /// Portions of the count that they hold, and those that they take away.
    changed: BTreeSet<Slot>,
    removed: BTreeSet<Slot>,
    /// The last portion that has left the hour, if they hold what was spent before it.
    before: Option<Slot>,
}

/// The spending of all sessions that share a limit. See the [module](self).
#[derive(Debug)]
pub struct Spending {
    now: Time,
    budget: Budget,
    key: Option<String>,
    taken: u64,
    /// Amounts for the next records. Each session takes one at a time, so there are not more of them than sessions.
    fresh: Vec<Fresh>,
    /// Portions of the count that are not in the store as they are: at most those of an hour.
    changed: BTreeSet<Slot>,
    /// Whether what was spent before the hour is not in the store as it is, and the last portion that is in what is.
    before_changed: bool,
    stored_before: Slot,
    /// Portions that have left the hour, and may be in the store: they are taken away once it knows their sum, so that
    /// it never knows of too little.
    gone: BTreeSet<Slot>,
    saving: Option<Saving>,
    out: Outbox<Event>,
}

impl Spending {
    /// Spending within `budget`, which knows what was spent before ([`Budget::restore`]). With a key, the count is made
    /// durable in records whose keys begin with it.
    #[must_use]
    pub fn new(now: Time, budget: Budget, key: Option<String>) -> Self {
        Self {
            now,
            key,
            taken: 0,
            fresh: Vec::new(),
            changed: BTreeSet::new(),
            before_changed: false,
            stored_before: budget.last_before(),
            budget,
            gone: BTreeSet::new(),
            saving: None,
            out: Outbox::default(),
        }
    }

    /// Counts an amount before it leaves, and stores `record` with it. An [`Event`] says when it may.
    ///
    /// # Errors
    /// The limit that it would pass. Nothing is stored then.
    pub fn take(
        &mut self,
        now: Time,
        value: &Amount,
        record: Option<Record>,
    ) -> Result<TakeId, Box<Broken>> {
        self.advance(now);
        let gone = self.budget.pass(self.now);
        self.before_changed |= !gone.is_empty();
        self.gone.extend(gone);
        self.budget.check(value)?;
        let at = self.budget.spend(self.now, value);
        self.changed.insert(slot(at));
        let id = TakeId(self.taken);
        self.taken += 1;
        if self.key.is_none() && record.is_none() {
            self.out.event(Event::Taken(id, at));
            return Ok(id);
        }
        self.fresh.push(Fresh {
            id,
            at,
            value: value.clone(),
            record,
        });
        self.save();
        Ok(id)
    }

    /// Counts an amount no more: it was counted at that time, and never left.
    pub fn give_back(&mut self, now: Time, at: Time, value: &Amount) {
        self.advance(now);
        self.forget(at, value);
        self.save();
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

    fn forget(&mut self, at: Time, value: &Amount) {
        match self.budget.give_back(at, value) {
            Some(portion) => self.changed.extend([portion]),
            None => self.before_changed = true,
        }
    }

    /// Stores what is counted, unless records are under way.
    fn save(&mut self) {
        let last = self.budget.last_before();
        self.changed = self.changed.split_off(&(last + 1));
        if self.key.is_none() {
            (self.before_changed, self.changed, self.gone) = Default::default();
        }
        let changed = self.before_changed || !self.changed.is_empty();
        if self.saving.is_some() || (self.fresh.is_empty() && !changed) {
            return;
        }
        let mut saving = Saving {
            records: BTreeSet::new(),
            until: self.now + STORE_WITHIN,
            waiting: core::mem::take(&mut self.fresh),
            changed: core::mem::take(&mut self.changed),
            removed: BTreeSet::new(),
            before: core::mem::take(&mut self.before_changed).then_some(last),
        };
        let mut records = Vec::new();
        if let Some(key) = &self.key {
            let removed = self.gone.range(..=self.stored_before);
            saving.removed.extend(removed);
            records.extend(saving.before.map(|_| self.budget.record_before(key)));
            let portions = saving.removed.iter().chain(&saving.changed);
            records.extend(portions.map(|slot| self.budget.record(key, *slot)));
        }
        let with_them = { saving.waiting.iter_mut() }.filter_map(|fresh| fresh.record.take());
        records.extend(with_them);
        for record in records {
            saving.records.insert(self.out.open(Effect::Store(record)));
        }
        self.saving = Some(saving);
    }

    fn saved(&mut self, saving: Saving, answer: &Result<(), StoreFailed>) {
        if answer.is_ok() {
            self.stored_before = saving.before.unwrap_or(self.stored_before);
            self.gone.retain(|slot| !saving.removed.contains(slot));
        } else {
            self.changed.extend(saving.changed);
            self.before_changed |= saving.before.is_some();
        }
        for fresh in saving.waiting {
            let event = match answer {
                Ok(()) => Event::Taken(fresh.id, fresh.at),
                Err(why) => {
                    self.forget(fresh.at, &fresh.value);
                    Event::NotStored(fresh.id, why.clone())
                }
            };
            self.out.event(event);
        }
        // What failed goes along with what is taken next.
        if answer.is_ok() || !self.fresh.is_empty() {
            self.save();
        }
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        if let Some(saving) = self.saving.take_if(|saving| saving.until <= now) {
            self.saved(saving, &Err(StoreFailed::late()));
        }
    }

    fn stored(&mut self, id: EffectId, answer: &Result<(), StoreFailed>) {
        let Some(saving) = &mut self.saving else {
            return;
        };
        if saving.records.remove(&id)
            && (answer.is_err() || saving.records.is_empty())
            && let Some(saving) = self.saving.take()
        {
            self.saved(saving, answer);
        }
    }
}

impl Machine for Spending {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        if let Input::Stored(id, answer) = input {
            self.stored(id, &answer);
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        let wake = self.saving.as_ref().map(|saving| saving.until);
        self.out.pop().unwrap_or(Output::Idle(wake))
    }
}
