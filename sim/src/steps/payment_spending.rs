//! A limit that many sessions share, with a store that fails and crashes at any time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::money::{Amount, Wei};
use livepeer_core::payment::Budget;
use livepeer_core::payment::spending::{Event, Spending, TakeId};
use livepeer_core::store::{Record, StoreFailed};
use livepeer_core::{Effect, EffectId, Input, Machine as _, Output, Time};

use super::Reel;
use crate::purse::{SPENT, recall};

/// A step of the play.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A session wants to spend this, with a record of its own if it is odd.
    Take(u8),
    /// The n-th amount that may leave never does.
    GiveBack(u8),
    /// The store answers as to the oldest record.
    Stored(bool),
    /// An answer comes that nobody waits for.
    Stray,
    /// Time passes: so many times ten seconds.
    Pass(u8),
    /// The program ends, and begins anew with what the store has. So many of the records under way are in it.
    Crash(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(16) {
            0..=5 => Self::Take(reel.byte()),
            6 | 7 => Self::GiveBack(reel.byte()),
            8..=11 => Self::Stored(!reel.byte().is_multiple_of(4)),
            12 => Self::Stray,
            13 | 14 => Self::Pass(reel.byte()),
            _ => Self::Crash(reel.byte()),
        }
    }
}

/// At most this many records: one for each ten seconds of an hour and two at its ends, as many that are to be taken away,
/// and one for what was before.
const MAX_RECORDS: usize = 725;
const HOUR: Duration = Duration::from_secs(3_600);
const PER_HOUR: u64 = 1_000;
const IN_ALL: u64 = 2_500;

fn wei(n: u64) -> Amount {
    Amount::from(&Wei::from(n))
}

fn limits() -> Budget {
    Budget::unlimited()
        .per_hour(wei(PER_HOUR))
        .per_job(wei(IN_ALL))
}

/// Plays steps against a shared limit.
pub struct Player {
    now: Time,
    machine: Spending,
    durable: bool,
    /// Amounts without an answer, and the records that came with them.
    asked: BTreeMap<TakeId, (Time, u64, Option<String>)>,
    takes: u32,
    /// Amounts that may leave, and those that have left: nobody gives back the latter.
    may_leave: Vec<(Time, u64)>,
    left: Vec<(Time, u64)>,
    saving: VecDeque<(EffectId, Record)>,
    stored: BTreeMap<String, Bytes>,
}

impl Player {
    /// A limit of which nothing is spent; an odd byte has no store.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_790_000_000);
        let durable = flavour.is_multiple_of(2);
        let key = durable.then(|| SPENT.to_owned());
        Self {
            now,
            machine: Spending::new(now, limits(), key),
            durable,
            asked: BTreeMap::new(),
            takes: 0,
            may_leave: Vec::new(),
            left: Vec::new(),
            saving: VecDeque::new(),
            stored: BTreeMap::new(),
        }
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: Step) {
        match step {
            Step::Take(value) => {
                let value = u64::from(value) + 1;
                let record = value.is_multiple_of(2).then(|| {
                    self.takes += 1;
                    let key = format!("nonce:{}", self.takes);
                    let value = Some(Bytes::from_static(b"1"));
                    Record { key, value }
                });
                let key = record.as_ref().map(|record| record.key.clone());
                let before = self.machine.budget().spent();
                match self.machine.take(self.now, &wei(value), record) {
                    Ok(id) => {
                        self.asked.insert(id, (self.now, value, key));
                    }
                    Err(_) => {
                        let after = self.machine.budget().spent();
                        assert_eq!(after, before, "a refusal counts nothing");
                    }
                }
            }
            Step::GiveBack(pick) => {
                if let Some(at) = usize::from(pick).checked_rem(self.may_leave.len()) {
                    let (at, value) = self.may_leave.swap_remove(at);
                    self.machine.give_back(self.now, at, &wei(value));
                }
            }
            Step::Stored(keeps) => {
                if let Some((id, record)) = self.saving.pop_front() {
                    let full = || StoreFailed("the disk is full".into());
                    if keeps {
                        self.keep(record);
                    }
                    self.input(Input::Stored(id, keeps.then_some(()).ok_or_else(full)));
                }
            }
            Step::Stray => self.input(Input::Stored(EffectId::by_peer(1), Ok(()))),
            Step::Pass(tens) => {
                self.now = self.now + Duration::from_secs(u64::from(tens) * 10);
                self.input(Input::Tick);
            }
            Step::Crash(written) => self.crash(written),
        }
        self.drain();
        self.check();
    }

    fn input(&mut self, input: Input) {
        self.machine.handle_input(self.now, input);
    }

    fn keep(&mut self, record: Record) {
        match record.value {
            Some(value) => self.stored.insert(record.key, value),
            None => self.stored.remove(&record.key),
        };
    }

    fn crash(&mut self, written: u8) {
        if !self.durable {
            return;
        }
        for _ in 0..written {
            if let Some((_, record)) = self.saving.pop_front() {
                self.keep(record);
            }
        }
        self.saving.clear();
        self.asked.clear();
        self.left.append(&mut self.may_leave);
        let budget = recall(limits(), &self.stored);
        self.machine = Spending::new(self.now, budget, Some(SPENT.to_owned()));
    }

    fn drain(&mut self) {
        loop {
            match self.machine.poll_output() {
                Output::Effect(id, Effect::Store(record)) => self.saving.push_back((id, record)),
                Output::Effect(_, other) => panic!("{other:?}"),
                Output::Event(Event::Taken(id, at)) => {
                    let (asked, value, key) = self.asked.remove(&id).expect("each is told once");
                    assert_eq!(at, asked);
                    assert!(key.is_none_or(|key| self.stored.contains_key(&key)));
                    self.may_leave.push((at, value));
                }
                Output::Event(Event::NotStored(id, _)) => {
                    let (_, _, key) = self.asked.remove(&id).expect("each is told once");
                    assert!(self.durable || key.is_some());
                }
                Output::Event(other) => panic!("{other:?}"),
                Output::Idle(wake) => {
                    assert!(wake.is_none_or(|wake| wake > self.now));
                    assert!(wake.is_some() || self.asked.is_empty(), "each is answered");
                    return;
                }
            }
        }
    }

    /// The sum of what may have left, since then.
    fn gone(&self, since: Option<Time>) -> u64 {
        let all = self.may_leave.iter().chain(&self.left);
        all.filter(|(at, _)| since.is_none_or(|since| *at > since))
            .map(|(_, value)| value)
            .sum()
    }

    fn check(&self) {
        let hour = Time::from_nanos(self.now.as_nanos() - HOUR.as_nanos() as u64);
        let (all, recent) = (self.gone(None), self.gone(Some(hour)));
        assert!(all <= IN_ALL && recent <= PER_HOUR, "{all}, {recent}");
        let budget = self.machine.budget();
        assert!(budget.spent() >= wei(all), "{budget:?}");
        assert!(budget.spent_in_hour(self.now) >= wei(recent));
        if !self.durable {
            let asked: u64 = self.asked.values().map(|(_, value, _)| value).sum();
            assert_eq!(budget.spent(), wei(all + asked));
            return;
        }
        let kept = recall(limits(), &self.stored);
        assert!(kept.spent() >= wei(all), "the store knows of all that left");
        assert!(kept.spent_in_hour(self.now) >= wei(recent));
        let portions = { self.stored.keys() }.filter(|key| key.starts_with(SPENT));
        assert!(
            portions.count() <= MAX_RECORDS,
            "old records are taken away"
        );
    }

    /// The store does what it is asked for; then it knows what the limit knows.
    fn finish(&mut self) {
        while !self.saving.is_empty() {
            self.play(Step::Stored(true));
        }
        // What failed earlier goes along with what is taken next.
        self.play(Step::Take(1));
        while !self.saving.is_empty() {
            self.play(Step::Stored(true));
        }
        if self.durable && !self.machine.budget().spent().is_zero() {
            let kept = recall(limits(), &self.stored);
            if self.may_leave.last().is_some_and(|(at, _)| *at == self.now) {
                assert_eq!(kept, *self.machine.budget(), "restored exactly");
            }
        }
    }
}

/// Plays what the bytes say, with one limit after the other.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) {
    Reel::new(data).play_each(Player::new, |player, reel| {
        let Some(reel) = reel else {
            player.finish();
            return true;
        };
        player.play(Step::read(reel));
        false
    });
}
