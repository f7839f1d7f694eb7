//! Limits on spending, and the amount spent, in a form that survives crashes record by record.
//!
//! | record | says |
//! |---|---|
//! | the key | what was spent more than an hour ago, and the number of the last portion that is in it |
//! | the key, a colon, a number | a portion: what was spent in those ten seconds of the last hour, and when at the latest |
//!
//! So a payment writes one portion anew, however many there were before it. A portion whose number is no higher than the
//! first record's is in that already, and counts no more, whether or not it was taken away. Records of earlier versions,
//! which held all in one text, are taken over once ([`Budget::restore`]).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use num_rational::BigRational;

use crate::error::Broken;
use crate::money::Amount;
use crate::store::Record;
use crate::time::Time;

/// The window of [`Budget::per_hour`].
const HOUR: Duration = Duration::from_secs(3600);

/// Payments within this time of each other may count as one, at the later time: an hour has at most 361 such times.
const SLOT: Duration = Duration::from_secs(10);

/// A number for ten seconds of time.
pub(super) type Slot = u64;

pub(super) const fn slot(at: Time) -> Slot {
    at.as_nanos() / SLOT.as_nanos() as u64
}

const fn begin(slot: Slot) -> Time {
    Time::from_nanos(slot * SLOT.as_nanos() as u64)
}

/// Limits on spending, and the amount spent. Counts tickets at their expected value from the moment they may leave, so
/// a payment that was lost on the way counts as spent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// The limit for the job; `None` for no limit.
    pub per_job: Option<Amount>,
    /// The limit for any sixty minutes; `None` for no limit.
    pub per_hour: Option<Amount>,
    /// The sum of all portions that have left the hour, and the number of the last of them.
    before: Amount,
    last_before: Slot,
    /// The sum of the portions below.
    in_hour: Amount,
    /// Amounts spent in the last hour, each with the latest time of its slot at which something was.
    portions: BTreeMap<Slot, (Time, Amount)>,
    /// The amount spent when the job began.
    earlier: Amount,
}

impl Budget {
    /// No limit, only the count.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::default()
    }

    /// Sets the limit for all payments.
    #[must_use]
    pub fn per_job(mut self, limit: Amount) -> Self {
        self.per_job = Some(limit);
        self
    }

    /// Sets the limit for any sixty minutes.
    #[must_use]
    pub fn per_hour(mut self, limit: Amount) -> Self {
        self.per_hour = Some(limit);
        self
    }

    /// The amount spent by the job.
    #[must_use]
    pub fn spent(&self) -> Amount {
        self.before.clone() + self.in_hour.clone() - self.earlier.clone()
    }

    /// The amount spent in the last sixty minutes.
    #[must_use]
    pub fn spent_in_hour(&self, now: Time) -> Amount {
        let recent = self.portions.values().filter(|(at, _)| *at + HOUR > now);
        recent.map(|(_, value)| value.clone()).sum()
    }

    /// Begins another job: what was spent before counts for the hour only.
    #[must_use]
    pub fn next_job(mut self) -> Self {
        self.earlier = self.before.clone() + self.in_hour.clone();
        self
    }

    /// Lets portions go that have left the hour, and names them.
    pub(super) fn pass(&mut self, now: Time) -> Vec<Slot> {
        let mut gone = Vec::new();
        while let Some(oldest) = self.portions.first_entry()
            && oldest.get().0 + HOUR <= now
        {
            let (slot, (_, value)) = oldest.remove_entry();
            self.in_hour -= &value;
            self.before += &value;
            self.last_before = slot;
            gone.push(slot);
        }
        gone
    }

    /// Whether `value` more may be spent, as of the last [`pass`](Self::pass).
    ///
    /// # Errors
    /// The limit that it would pass.
    pub(super) fn check(&self, value: &Amount) -> Result<(), Box<Broken>> {
        let in_all = || self.spent();
        let in_hour = || self.in_hour.clone();
        let limits: [(_, _, &dyn Fn() -> Amount); 2] = [
            ("job", &self.per_job, &in_all),
            ("hour", &self.per_hour, &in_hour),
        ];
        for (per, limit, spent) in limits {
            let Some(limit) = limit else { continue };
            let spent = spent();
            if spent.clone() + value.clone() > *limit {
                return Err(Box::new(Broken::Budget {
                    per,
                    spent,
                    value: value.clone(),
                    limit: limit.clone(),
                }));
            }
        }
        Ok(())
    }

    /// Counts `value` as spent at that time, or later: a clock that went back by more than an hour adds to no portion that
    /// has left it. Tells the time that it counts at.
    pub(super) fn spend(&mut self, at: Time, value: &Amount) -> Time {
        let at = at.max(begin(self.last_before + 1));
        self.in_hour += value;
        let (latest, sum) = { self.portions.entry(slot(at)) }.or_insert((at, Amount::zero()));
        *latest = at.max(*latest);
        *sum += value;
        at
    }

    /// Counts `value` as spent no more: it counted at that time, as [`spend`](Self::spend) told, and never left. Names the
    /// portion that it belonged to; `None` if that has left the hour.
    pub(super) fn give_back(&mut self, at: Time, value: &Amount) -> Option<Slot> {
        let Some((_, sum)) = self.portions.get_mut(&slot(at)) else {
            self.before -= value;
            return None;
        };
        *sum -= value;
        self.in_hour -= value;
        Some(slot(at))
    }

    /// The number of the last portion that has left the hour.
    pub(super) const fn last_before(&self) -> Slot {
        self.last_before
    }

    /// The record, under `key`, of what was spent more than an hour ago.
    pub(super) fn record_before(&self, key: &str) -> Record {
        Record {
            key: key.into(),
            value: Some(format!("{} {}", self.before, self.last_before).into()),
        }
    }

    /// The record of a portion under `key`: it is taken away if there is no such portion.
    pub(super) fn record(&self, key: &str, slot: Slot) -> Record {
        let portion = self.portions.get(&slot);
        Record {
            key: format!("{key}:{slot}"),
            value: portion.map(|(at, value)| format!("{} {value}", at.as_nanos()).into()),
        }
    }

    /// Takes back what survived: of `records`, those whose key begins with `key`. Limits stay as they are. The records
    /// handed back, if there are any, replace those of earlier versions, and take away those that count no more: store
    /// them together before anything is spent. Amounts in `spent` and in all of `spent/…`, one for each model, are added
    /// up.
    ///
    /// `None` if one of the records cannot be read: nothing is taken back then.
    #[must_use]
    pub fn restore(&mut self, key: &str, records: &[Record]) -> Option<Vec<Record>> {
        let mut found = Self {
            per_job: self.per_job.clone(),
            per_hour: self.per_hour.clone(),
            ..Self::default()
        };
        let (mut outdated, mut gone, mut portions) = (false, Vec::new(), Vec::new());
        for record in records {
            let Some(rest) = record.key.strip_prefix(key) else {
                continue;
            };
            let text = core::str::from_utf8(record.value.as_ref()?).ok()?;
            if let Some(number) = rest.strip_prefix(':') {
                let number: Slot = number.parse().ok()?;
                let (at, value) = portion(text)?;
                (number == slot(at)).then_some(())?;
                portions.push((number, at, value));
                continue;
            }
            if rest.starts_with('/') {
                outdated = true;
                gone.push(record.key.clone());
            } else if !rest.is_empty() {
                continue;
            }
            // What was spent, and in records of earlier versions of that what was spent in the last hour.
            let mut lines = text.lines();
            let first = lines.next()?;
            let (first, last) = first.split_once(' ').unwrap_or((first, "0"));
            found.last_before = found.last_before.max(last.parse().ok()?);
            let mut before = amount(first)?;
            for line in lines {
                outdated = true;
                let (at, value) = portion(line)?;
                found.spend(at, &value);
                before -= &value;
            }
            // The sum was that of one job, the hour's amounts those of several.
            found.before += &before.max(Amount::zero());
        }
        for (number, at, value) in portions {
            if number > found.last_before {
                found.spend(at, &value);
            } else {
                gone.push(format!("{key}:{number}"));
            }
        }
        *self = found;
        let mut current: Vec<_> = gone
            .into_iter()
            .map(|key| Record { key, value: None })
            .collect();
        if outdated {
            let portions = self.portions.keys();
            current.extend(portions.map(|slot| self.record(key, *slot)));
            current.push(self.record_before(key));
        }
        Some(current)
    }
}

fn amount(text: &str) -> Option<Amount> {
    Some(Amount::from(text.parse::<BigRational>().ok()?))
}

/// A time in nanoseconds, and what was spent then.
fn portion(text: &str) -> Option<(Time, Amount)> {
    let (at, value) = text.split_once(' ')?;
    Some((Time::from_nanos(at.parse().ok()?), amount(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString as _};

    fn wei(n: u64) -> Amount {
        Amount::from(&crate::money::Wei::from(n))
    }

    fn at(seconds: u64) -> Time {
        Time::from_secs(1_790_000_000 + seconds)
    }

    fn text(key: &str, value: String) -> Record {
        Record {
            key: key.into(),
            value: Some(value.into()),
        }
    }

    #[test]
    fn what_earlier_versions_wrote_counts_and_is_written_anew_once() {
        let lines = |all: u64, recent: &[(u64, u64)]| {
            let mut text = all.to_string();
            for (seconds, value) in recent {
                text.push_str(&format!("\n{} {value}", at(*seconds).as_nanos()));
            }
            text
        };
        let old = [
            text("spent", lines(100, &[(0, 7), (3_000, 20)])),
            text("spent/llm/m", lines(30, &[(3_001, 5)])),
            // Of two jobs, of which the later spent little.
            text("spent/upscale/m", lines(1, &[(0, 4), (3_500, 1)])),
            text("spending", "another's".into()),
        ];
        let mut budget = Budget::unlimited();
        let new = budget.restore("spent", &old).expect("readable");
        assert_eq!(budget.spent(), wei(100 + 30 + 5));
        assert_eq!(budget.spent_in_hour(at(3_600)), wei(20 + 5 + 1));
        let gone = new.iter().filter(|record| record.value.is_none());
        let gone: Vec<_> = gone.map(|record| &*record.key).collect();
        assert_eq!(gone, ["spent/llm/m", "spent/upscale/m"]);
        let kept: Vec<_> = { new.iter() }
            .filter(|record| record.value.is_some())
            .cloned()
            .collect();
        assert_eq!(kept.len(), 4, "a sum, and three times: {kept:?}");
        let mut again = Budget::unlimited();
        assert_eq!(again.restore("spent", &kept), Some(Vec::new()));
        assert_eq!(again, budget);
    }

    #[test]
    fn a_portion_that_is_in_the_sum_already_counts_once_and_is_taken_away() {
        let mut budget = Budget::unlimited();
        budget.spend(at(0), &wei(3));
        let left = budget.record("spent", slot(at(0)));
        budget.spend(at(3_000), &wei(4));
        assert_eq!(budget.pass(at(3_600)), [slot(at(0))]);
        let stays = budget.record("spent", slot(at(3_000)));
        let records = [budget.record_before("spent"), left.clone(), stays];
        let mut again = Budget::unlimited();
        let anew = again.restore("spent", &records);
        let removed = Record {
            value: None,
            ..left
        };
        assert_eq!(anew, Some(alloc::vec![removed]));
        assert_eq!(again, budget);
        // A clock that went back by hours adds to what counts.
        assert_eq!(again.spend(at(0), &wei(5)), at(10));
        assert_eq!(again.give_back(at(10), &wei(5)), Some(slot(at(10))));
        assert_eq!(again.spent(), budget.spent());
    }

    #[test]
    fn an_amount_of_more_than_an_hour_ago_is_given_back_to_no_later_portion() {
        let mut budget = Budget::unlimited();
        budget.spend(at(0), &wei(3));
        budget.spend(at(10), &wei(4));
        assert_eq!(budget.pass(at(3_600)), [slot(at(0))]);
        assert_eq!(budget.give_back(at(0), &wei(3)), None);
        assert_eq!(budget.spent_in_hour(at(3_600)), wei(4));
        assert_eq!(budget.spent(), wei(4));
    }

    #[test]
    fn what_cannot_be_read_changes_nothing() {
        let mut budget = Budget::unlimited();
        budget.spend(at(0), &wei(3));
        let before = budget.clone();
        for (key, value) in [
            ("spent", ""),
            ("spent", "1/0"),
            ("spent", "1\n2"),
            ("spent:0", "1790000000000000000 1"),
            ("spent:179000000", "1"),
            ("spent/m", "x"),
        ] {
            let records = [text("spent", "1".into()), text(key, value.into())];
            assert_eq!(budget.restore("spent", &records), None, "{key} {value}");
            assert_eq!(budget, before);
        }
    }

    #[test]
    fn another_job_begins_at_nothing_and_in_the_same_hour() {
        let mut budget = Budget::unlimited().per_job(wei(5)).per_hour(wei(8));
        budget.spend(at(0), &wei(5));
        assert!(budget.check(&wei(1)).is_err());
        let mut budget = budget.next_job();
        assert!(budget.check(&wei(3)).is_ok() && budget.check(&wei(4)).is_err());
        assert_eq!(budget.pass(at(3_600)), [slot(at(0))]);
        assert!(budget.check(&wei(5)).is_ok() && budget.check(&wei(6)).is_err());
    }
}
