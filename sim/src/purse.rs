//! The limit on spending that a machine under test is given: what a driver does with [`Effect::Spend`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use livepeer_core::money::Amount;
use livepeer_core::payment::spending::{Event, TakeId};
use livepeer_core::payment::{Budget, Spending};
use livepeer_core::spend::{Spend, SpendRefused};
use livepeer_core::store::{Record, STORE_WITHIN, StoreFailed};
use livepeer_core::{Effect, EffectId, Input, Machine as _, Output, Time};

/// The key under which purses keep what was spent.
pub const SPENT: &str = "spent";

/// Work that a purse has for those who keep it.
#[derive(Debug)]
pub enum Wish {
    /// Store this, and say how it went with [`Purse::stored`].
    Store(EffectId, Record),
    /// Hand this to the machine.
    Answer(Input),
}

/// A limit on spending and whoever waits for it.
#[derive(Debug)]
pub struct Purse {
    spending: Spending,
    asked: BTreeMap<TakeId, (EffectId, Amount)>,
    /// Amounts that are being counted, and still wanted.
    wanted: BTreeSet<EffectId>,
    /// Amounts that were wanted no more before they were asked for: a message may overtake another.
    cancelled: BTreeSet<EffectId>,
}

impl Purse {
    /// A purse with these limits, of which nothing is spent; its records are stored if it is `durable`.
    #[must_use]
    pub fn new(now: Time, limits: Budget, durable: bool) -> Self {
        let key = durable.then(|| SPENT.to_owned());
        Self {
            spending: Spending::new(now, limits, key),
            asked: BTreeMap::new(),
            wanted: BTreeSet::new(),
            cancelled: BTreeSet::new(),
        }
    }

    /// A purse with these limits, and the amount spent according to a store.
    ///
    /// # Panics
    /// If the store's records cannot be read.
    #[must_use]
    pub fn restored(now: Time, limits: Budget, store: &BTreeMap<String, Bytes>) -> Self {
        Self::new(now, recall(limits, store), true)
    }

    /// The amount spent, and its limits.
    #[must_use]
    pub const fn budget(&self) -> &Budget {
        self.spending.budget()
    }

    /// Takes in a change that a machine asks for under that id.
    pub fn spend(&mut self, now: Time, id: EffectId, change: Spend) -> Vec<Wish> {
        let mut wishes = Vec::new();
        match change {
            Spend::Take { .. } if self.cancelled.remove(&id) => {}
            Spend::Take { value, record } => match self.spending.take(now, &value, record) {
                Ok(taken) => {
                    self.asked.insert(taken, (id, value));
                    self.wanted.insert(id);
                }
                Err(broken) => {
                    let answer = Input::Spent(id, Err(SpendRefused::Limit(broken)));
                    wishes.push(Wish::Answer(answer));
                }
            },
            Spend::Cancel => {
                if !self.wanted.remove(&id) {
                    self.cancelled.insert(id);
                }
            }
            Spend::GiveBack { value, at } => self.spending.give_back(now, at, &value),
        }
        self.drain(now, &mut wishes);
        wishes
    }

    /// Takes in what became of a record.
    pub fn stored(
        &mut self,
        now: Time,
        id: EffectId,
        answer: Result<(), StoreFailed>,
    ) -> Vec<Wish> {
        let mut wishes = Vec::new();
        self.spending.handle_input(now, Input::Stored(id, answer));
        self.drain(now, &mut wishes);
        wishes
    }

    /// As [`spend`](Self::spend), with a store that answers at once.
    pub fn spend_with(
        &mut self,
        now: Time,
        id: EffectId,
        change: Spend,
        mut keep: impl FnMut(Record) -> Result<(), StoreFailed>,
    ) -> Option<Input> {
        let mut wishes: Vec<Wish> = self.spend(now, id, change);
        let mut answer = None;
        while !wishes.is_empty() {
            for wish in std::mem::take(&mut wishes) {
                match wish {
                    Wish::Store(id, record) => {
                        wishes.extend(self.stored(now, id, keep(record)));
                    }
                    Wish::Answer(input) => answer = Some(input),
                }
            }
        }
        answer
    }

    /// Lets the store be silent for good: what waits for it is counted no more, and nobody is told.
    pub fn forsake(&mut self, mut now: Time) {
        // The records under way, those that wait behind them, and what was given back.
        for _ in 0..4 {
            now = now + STORE_WITHIN;
            self.spending.handle_input(now, Input::Tick);
            self.drain(now, &mut Vec::new());
        }
    }

    fn drain(&mut self, now: Time, wishes: &mut Vec<Wish>) {
        loop {
            let (taken, answer) = match self.spending.poll_output() {
                Output::Effect(id, Effect::Store(record)) => {
                    wishes.push(Wish::Store(id, record));
                    continue;
                }
                Output::Event(Event::Taken(taken, at)) => (taken, Ok(at)),
                Output::Event(Event::NotStored(taken, why)) => {
                    (taken, Err(SpendRefused::NotStored(why)))
                }
                Output::Idle(_) => return,
                other => panic!("{other:?}"),
            };
            let (id, value) = self.asked.remove(&taken).expect("each is told once");
            match answer {
                answer if self.wanted.remove(&id) => {
                    wishes.push(Wish::Answer(Input::Spent(id, answer)));
                }
                Ok(at) => self.spending.give_back(now, at, &value),
                Err(_) => {}
            }
        }
    }
}

/// Limits as these, with the amount spent according to a store.
///
/// # Panics
/// If the store's records cannot be read.
#[must_use]
pub fn recall(mut limits: Budget, store: &BTreeMap<String, Bytes>) -> Budget {
    let records = store.iter().map(|(key, value)| Record {
        key: key.clone(),
        value: Some(value.clone()),
    });
    let records: Vec<_> = records
        .filter(|record| record.key.starts_with(SPENT))
        .collect();
    let anew = limits.restore(SPENT, &records);
    assert!(anew.is_some(), "records of ours are readable");
    limits
}
