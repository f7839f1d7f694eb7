//! The health of remote signers.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use crate::error::{Cause, Failure, Party};
use crate::http::Url;
use crate::time::Time;

/// How long a signer rests after its first failure.
pub const FIRST_REST: Duration = Duration::from_secs(10);

/// No signer rests for longer.
pub const LONGEST_REST: Duration = Duration::from_secs(300);

/// At most this many signers are remembered; beyond it the least recently seen is forgotten.
pub const MAX_SIGNERS: usize = 256;

/// Whether a signer is asked in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The signer answered when it was last asked, was never asked, or has rested.
    Healthy,
    /// The signer failed, and is asked after all others until then.
    Resting(Time),
}

/// How remote signers have been. See the [module](super).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignerHealth {
    known: BTreeMap<Url, Known>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    /// The time at which that was seen.
    at: Time,
    /// Failures in a row.
    failures: u32,
    rests_until: Option<Time>,
    /// How long its last answer took.
    took: Option<Duration>,
}

impl SignerHealth {
    /// How the signer at `url` is; its path does not matter.
    #[must_use]
    pub fn standing(&self, now: Time, url: &Url) -> Standing {
        match self.get(url).and_then(|known| known.rests_until) {
            Some(until) if until > now => Standing::Resting(until),
            _ => Standing::Healthy,
        }
    }

    /// How long its last answer took, if there was one.
    #[must_use]
    pub fn took(&self, url: &Url) -> Option<Duration> {
        self.get(url)?.took
    }

    /// The signers that rest, and until when.
    pub fn resting(&self, now: Time) -> impl Iterator<Item = (&Url, Time)> {
        self.known.iter().filter_map(move |(url, known)| {
            let until = known.rests_until.filter(|until| *until > now)?;
            Some((url, until))
        })
    }

    /// Notes that a signer answered after `took`.
    pub fn answered(&mut self, now: Time, url: &Url, took: Duration) {
        self.set(
            url,
            Known {
                at: now,
                failures: 0,
                rests_until: None,
                took: Some(took),
            },
        );
    }

    /// Notes that a signer gave no answer, or none that could be used.
    pub fn failed(&mut self, now: Time, url: &Url) {
        let old = self.get(url).copied();
        let failures = old.map_or(0, |old| old.failures);
        let rest = FIRST_REST
            .saturating_mul(1 << failures.min(16))
            .min(LONGEST_REST);
        self.set(
            url,
            Known {
                at: now,
                failures: failures.saturating_add(1),
                rests_until: Some(now + rest),
                took: old.and_then(|old| old.took),
            },
        );
    }

    /// Takes over what somebody else saw later. Returns whether there was anything.
    pub fn merge(&mut self, other: &Self) -> bool {
        let mut learned = false;
        for (url, theirs) in &other.known {
            if self.get(url).is_none_or(|ours| ours.at < theirs.at) {
                learned = true;
                self.set(url, *theirs);
            }
        }
        learned
    }

    /// The order in which to ask: signers that answer, as they are listed, then resting ones, first the one that has
    /// rested most.
    pub(crate) fn order(&self, now: Time, urls: &[Url]) -> VecDeque<usize> {
        let mut order: Vec<usize> = (0..urls.len()).collect();
        order.sort_by_key(|index| match self.standing(now, &urls[*index]) {
            Standing::Healthy => Time::ZERO,
            Standing::Resting(until) => until,
        });
        order.into()
    }

    fn get(&self, url: &Url) -> Option<&Known> {
        self.known.get(&url.with_path("/"))
    }

    fn set(&mut self, url: &Url, known: Known) {
        self.known.insert(url.with_path("/"), known);
        if self.known.len() > MAX_SIGNERS {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.at);
            if let Some(url) = oldest.map(|(url, _)| url.clone()) {
                self.known.remove(&url);
            }
        }
    }
}

/// The failure to report when all signers failed: one is named itself, of several each with its last failure.
pub(crate) fn all_failed(mut failures: Vec<Failure>) -> Option<Failure> {
    let last = failures.pop()?;
    if failures.is_empty() {
        return Some(last);
    }
    failures.push(last);
    Some(Failure::new(Party::Signers, Cause::EachFailed(failures)))
}

/// Remembers the last failure of each party.
pub(crate) fn note(failures: &mut Vec<Failure>, failure: Failure) {
    failures.retain(|old| old.who != failure.who);
    failures.push(failure);
}
