//! Addresses that were refused so often that they have to wait.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use livepeer_core::Time;

/// Refusals of an address within [`WINDOW`], at most; then it is not let in.
pub const MAX_REFUSALS: usize = 10;
/// How long a refusal counts.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered, at most.
const MAX_ADDRESSES: usize = 1024;

/// When which address was refused.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<IpAddr, Vec<Time>>);

impl Refusals {
    pub(super) fn add(&mut self, now: Time, address: IpAddr) {
        if self.0.len() >= MAX_ADDRESSES && !self.0.contains_key(&address) {
            let counts = |times: &Vec<Time>| times.last().is_some_and(|last| now < *last + WINDOW);
            self.0.retain(|_, times| counts(times));
            if self.0.len() >= MAX_ADDRESSES {
                // A guesser with this many addresses is stopped by their number.
                self.0.pop_first();
            }
        }
        let times = self.0.entry(address).or_default();
        if times.len() == MAX_REFUSALS {
            times.remove(0);
        }
        times.push(now);
    }

    pub(super) fn is_banned(&self, now: Time, address: IpAddr) -> bool {
        let times = self.0.get(&address);
        times.is_some_and(|times| times.len() == MAX_REFUSALS && now < times[0] + WINDOW)
    }
}
