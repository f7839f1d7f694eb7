//! Putting lists together.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use crate::http::Url;
use crate::sign::Address;
use crate::wire::listing::Found;

/// Every orchestrator once, by its normalised address. What is said first counts; what is said later adds to it. Lists
/// are a peer's, and long ones: nothing here takes longer than sorting them would.
pub(super) fn merge<'a>(all: impl Iterator<Item = &'a Found>) -> Vec<Found> {
    let mut merged: Vec<Found> = Vec::new();
    let mut known: BTreeMap<Url, Merged<'a>> = BTreeMap::new();
    for found in all {
        let key = found.url.with_path("/");
        let at = merged.len();
        let one = known.entry(key).or_insert_with(|| Merged {
            at,
            ..Merged::default()
        });
        if one.at == at {
            merged.push(Found {
                capabilities: Vec::new(),
                runners: Vec::new(),
                account: None,
                other_accounts: Vec::new(),
                ..found.clone()
            });
        }
        let first = &mut merged[one.at];
        for account in found.accounts() {
            if one.accounts.insert(account) {
                match first.account {
                    None => first.account = Some(*account),
                    Some(_) => first.other_accounts.push(*account),
                }
            }
        }
        first.stake = first.stake.or(found.stake);
        let names = &found.capabilities;
        one.capabilities
            .add(&mut first.capabilities, names, |name| name);
        one.runners
            .add(&mut first.runners, &found.runners, |runner| &runner.url);
    }
    merged
}

/// Where an orchestrator is among the merged ones, and what is known of it.
#[derive(Default)]
struct Merged<'a> {
    at: usize,
    accounts: BTreeSet<&'a Address>,
    capabilities: Seen<'a, String>,
    runners: Seen<'a, Url>,
}

/// The keys that were added before.
struct Seen<'a, K>(BTreeSet<&'a K>);

impl<K> Default for Seen<'_, K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<'a, K: Ord> Seen<'a, K> {
    /// Adds to `all` what is new of `more`, in its order.
    fn add<T: Clone>(&mut self, all: &mut Vec<T>, more: &'a [T], key: impl Fn(&'a T) -> &'a K) {
        let new = more.iter().filter(|one| self.0.insert(key(one)));
        all.extend(new.cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::rc::Rc;
    use alloc::string::ToString as _;
    use core::cell::Cell;
    use core::cmp::Ordering;

    /// A key that counts how often it is compared.
    #[derive(Clone)]
    struct Counted(usize, Rc<Cell<usize>>);

    impl Ord for Counted {
        fn cmp(&self, other: &Self) -> Ordering {
            self.1.set(self.1.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Counted {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl PartialEq for Counted {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other).is_eq()
        }
    }

    impl Eq for Counted {}

    /// How many comparisons it takes to add `n` keys, a thousand at a time, each twice.
    fn comparisons(n: usize) -> usize {
        let count = Rc::new(Cell::new(0));
        let keys: Vec<Counted> = (0..2 * n).map(|i| Counted(i % n, count.clone())).collect();
        let (mut seen, mut all) = (Seen::default(), Vec::new());
        for some in keys.chunks(1_000) {
            seen.add(&mut all, some, |key| key);
        }
        assert_eq!(all.len(), n);
        count.get()
    }

    #[test]
    fn four_times_the_list_is_little_more_than_four_times_the_work() {
        let (small, large) = (comparisons(4_000), comparisons(16_000));
        assert!(large < small * 6, "{small} comparisons, then {large}");
    }

    #[test]
    fn many_words_on_one_orchestrator_are_put_together_in_order() {
        let mut word = Found::at("https://o:1".parse().unwrap());
        let words: Vec<Found> = (0..200)
            .map(|i| {
                word.capabilities = (0..500).map(|k| format!("live/{}", i * 250 + k)).collect();
                word.clone()
            })
            .collect();
        let merged = merge(words.iter());
        let names: Vec<String> = (0..50_250)
            .map(|k| "live/".to_string() + &k.to_string())
            .collect();
        assert_eq!(merged.len(), 1);
        assert_eq!(merged[0].capabilities, names);
    }
}
