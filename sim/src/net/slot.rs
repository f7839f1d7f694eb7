//! A machine of the network, and what the outside keeps for it.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use livepeer_core::payment::Budget;
use livepeer_core::spend::Spend;
use livepeer_core::store::{Record, StoreFailed};
use livepeer_core::{Effect, EffectId, Input, Machine, Output, Time};

use crate::{Key, Purse};

/// At most this many steps while time stands still; a machine that takes more spins.
const MAX_STEPS_AT_ONCE: u32 = 1_000_000;

/// A machine of any type, with what the outside keeps for it.
pub(super) trait Erased {
    fn input(&mut self, now: Time, input: Input);
    fn drain(&mut self, effects: &mut Vec<(EffectId, Effect)>);
    fn wake(&self) -> Option<Time>;
    fn life(&self) -> u64;
    fn unsaved(&mut self) -> &mut BTreeMap<EffectId, Record>;
    fn key(&self) -> Option<&Key>;
    fn keep(&mut self, record: Record) -> Result<(), StoreFailed>;
    /// Changes what is spent, with a store that keeps what it is given or does not. The answer, if there is one.
    fn spend(&mut self, now: Time, id: EffectId, change: Spend, keeps: bool) -> Option<Input>;
    fn any(&self) -> &dyn Any;
    fn any_mut(&mut self) -> &mut dyn Any;
}

pub(super) struct Slot<M: Machine> {
    pub(super) machine: M,
    /// How many machines were here before.
    pub(super) life: u64,
    pub(super) events: VecDeque<M::Event>,
    pub(super) key: Option<Key>,
    pub(super) store: BTreeMap<String, Bytes>,
    /// Records on their way to the store.
    pub(super) unsaved: BTreeMap<EffectId, Record>,
    pub(super) writes: u64,
    /// The writes at which the store fails.
    pub(super) failing: Range<u64>,
    /// The limits on what is spent, and the count, once something is.
    pub(super) limits: Budget,
    pub(super) purse: Option<Purse>,
    wake: Option<Time>,
}

impl<M: Machine> Slot<M> {
    pub(super) fn new(machine: M) -> Self {
        Self {
            machine,
            life: 0,
            events: VecDeque::new(),
            key: None,
            store: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            writes: 0,
            failing: 0..0,
            limits: Budget::unlimited(),
            purse: None,
            wake: None,
        }
    }
}

impl<M: Machine + 'static> Erased for Slot<M>
where
    M::Event: 'static,
{
    fn input(&mut self, now: Time, input: Input) {
        self.machine.handle_input(now, input);
    }

    fn drain(&mut self, effects: &mut Vec<(EffectId, Effect)>) {
        for _ in 0..MAX_STEPS_AT_ONCE {
            match self.machine.poll_output() {
                Output::Effect(id, effect) => effects.push((id, effect)),
                Output::Event(event) => self.events.push_back(event),
                Output::Idle(wake) => {
                    self.wake = wake;
                    return;
                }
            }
        }
        panic!("a machine does not stop to speak");
    }

    fn wake(&self) -> Option<Time> {
        self.wake
    }

    fn life(&self) -> u64 {
        self.life
    }

    fn unsaved(&mut self) -> &mut BTreeMap<EffectId, Record> {
        &mut self.unsaved
    }

    fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    fn keep(&mut self, record: Record) -> Result<(), StoreFailed> {
        let write = self.writes;
        self.writes += 1;
        if self.failing.contains(&write) {
            return Err(StoreFailed("the disk is full".into()));
        }
        match record.value {
            Some(value) => self.store.insert(record.key, value),
            None => self.store.remove(&record.key),
        };
        Ok(())
    }

    fn spend(&mut self, now: Time, id: EffectId, change: Spend, keeps: bool) -> Option<Input> {
        let known = self.purse.take();
        let mut purse =
            known.unwrap_or_else(|| Purse::restored(now, self.limits.clone(), &self.store));
        let answer = purse.spend_with(now, id, change, |record| match keeps {
            true => self.keep(record),
            false => Err(StoreFailed("the disk is full".into())),
        });
        self.purse = Some(purse);
        answer
    }

    fn any(&self) -> &dyn Any {
        self
    }

    fn any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
