//! A machine of the network, and what the outside keeps for it.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use livepeer_core::store::{Record, StoreFailed};
use livepeer_core::{Effect, EffectId, Input, Machine, Output, Time};

use crate::Key;

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
    wake: Option<Time>,
}

impl<M: Machine> Slot<M> {
    pub(super) const fn new(machine: M) -> Self {
        Self {
            machine,
            life: 0,
            events: VecDeque::new(),
            key: None,
            store: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            writes: 0,
            failing: 0..0,
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

    fn any(&self) -> &dyn Any {
        self
    }

    fn any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
