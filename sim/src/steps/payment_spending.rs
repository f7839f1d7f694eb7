//! A limit that many sessions share, with a store that fails and crashes at any time.

use std::collections::BTreeMap;
use std::time::Duration;

use livepeer_core::money::{Amount, Wei};
use livepeer_core::payment::guard::Budget;
use livepeer_core::payment::spending::{Event, Spending, TakeId};
use livepeer_core::store::{Record, StoreFailed};
use livepeer_core::{Effect, EffectId, Input, Machine as _, Output, Time};

use super::Reel;

/// A step of the play.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A session wants to spend this.
    Take(u8),
    /// The n-th amount that may leave never does.
    GiveBack(u8),
    /// The store answers.
    Stored(bool),
    /// An answer comes that nobody waits for.
    Stray,
    /// Time passes: so many times ten seconds.
    Pass(u8),
    /// The program ends, and begins anew with what the store has. The record under way may be in it.
    Crash(bool),
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
            _ => Self::Crash(reel.byte().is_multiple_of(2)),
        }
    }
}

const KEY: &str = "spent";
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
    /// Amounts without an answer.
    asked: BTreeMap<TakeId, (Time, u64)>,
    /// Amounts that may leave, and those that have left: nobody gives back the latter.
    may_leave: Vec<(Time, u64)>,
    left: Vec<(Time, u64)>,
    saving: Option<(EffectId, Record)>,
    stored: Option<Record>,
}

impl Player {
    /// A limit of which nothing is spent; an odd byte has no store.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(1_790_000_000);
        let durable = flavour.is_multiple_of(2);
        let key = durable.then(|| KEY.to_owned());
        Self {
            now,
            machine: Spending::new(now, limits(), key),
            durable,
            asked: BTreeMap::new(),
            may_leave: Vec::new(),
            left: Vec::new(),
            saving: None,
            stored: None,
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
                let before = self.machine.budget().clone();
                if let Ok(id) = self.machine.take(self.now, &wei(value)) {
                    self.asked.insert(id, (self.now, value));
                } else {
                    assert_eq!(*self.machine.budget(), before, "a refusal counts nothing");
                }
            }
            Step::GiveBack(pick) => {
                if let Some(at) = usize::from(pick).checked_rem(self.may_leave.len()) {
                    let (at, value) = self.may_leave.swap_remove(at);
                    self.machine.give_back(self.now, at, &wei(value));
                }
            }
            Step::Stored(keeps) => {
                if let Some((id, record)) = self.saving.take() {
                    let answer = match keeps {
                        true => Ok(()),
                        false => Err(StoreFailed("the disk is full".into())),
                    };
                    if keeps {
                        self.stored = Some(record);
                    }
                    self.input(Input::Stored(id, answer));
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

    fn crash(&mut self, written: bool) {
        if !self.durable {
            return;
        }
        if let Some((_, record)) = self.saving.take().filter(|_| written) {
            self.stored = Some(record);
        }
        self.asked.clear();
        self.left.append(&mut self.may_leave);
        let mut budget = limits();
        if let Some(record) = &self.stored {
            assert!(budget.restore(record), "a record of ours is readable");
        }
        self.machine = Spending::new(self.now, budget, Some(KEY.to_owned()));
    }

    fn drain(&mut self) {
        loop {
            match self.machine.poll_output() {
                Output::Effect(id, Effect::Store(record)) => {
                    // One that was late is written after all, or never.
                    self.saving = Some((id, record));
                }
                Output::Effect(_, other) => panic!("{other:?}"),
                Output::Event(Event::Taken(id, at)) => {
                    let taken = self.asked.remove(&id).expect("each is told once");
                    assert_eq!(at, taken.0);
                    self.may_leave.push(taken);
                }
                Output::Event(Event::NotStored(id, _)) => {
                    assert!(self.durable);
                    assert!(self.asked.remove(&id).is_some(), "each is told once");
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
        assert!(*budget.spent() >= wei(all), "{budget:?}");
        assert!(budget.spent_in_hour(self.now) >= wei(recent));
        if !self.durable {
            assert_eq!(*budget.spent(), wei(all));
        }
        if self.durable && self.gone(None) > 0 {
            let mut kept = limits();
            assert!(self.stored.as_ref().is_some_and(|one| kept.restore(one)));
            assert!(
                *kept.spent() >= wei(all),
                "the store knows of all that left"
            );
        }
    }
}

/// Plays what the bytes say, with one limit after the other.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) {
    Reel::new(data).play_each(Player::new, |player, reel| {
        let Some(reel) = reel else { return true };
        player.play(Step::read(reel));
        false
    });
}
