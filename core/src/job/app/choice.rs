//! The choice of a runner: which ones fit, and who is asked first.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::http::Url;
use crate::money::Amount;
use crate::time::Time;
use crate::wire::runner::{Mode, Runner};

/// How long a runner that failed is asked last.
const REMEMBERED: Duration = Duration::from_secs(10);

/// At most this many runners are remembered.
const MAX_REMEMBERED: usize = 1_024;

/// The app that is wanted, and on which terms. Names are compared exactly; of several, any will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The apps; any if there are none.
    pub apps: Vec<String>,
    /// The models of GPU; any if there are none.
    pub gpus: Vec<String>,
    /// The most wei per unit that a runner may cost.
    pub max_price: Option<Amount>,
}

/// How runners have been, for whoever rents one next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(BTreeMap<Url, Past>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Past {
    failed: Option<Time>,
    took: Duration,
    used: Time,
}

impl History {
    /// Notes that a runner did what was asked, and how long it took for that.
    pub fn served(&mut self, now: Time, runner: &Url, took: Duration) {
        let past = self.of(now, runner);
        (past.failed, past.took) = (None, took);
    }

    /// Notes that a runner refused or failed.
    pub fn failed(&mut self, now: Time, runner: &Url) {
        self.of(now, runner).failed = Some(now);
    }

    /// Takes over what another rental saw since.
    pub fn merge(&mut self, other: &Self) {
        for (url, seen) in &other.0 {
            if self.0.get(url).is_none_or(|known| known.used < seen.used) {
                *self.of(seen.used, url) = seen.clone();
            }
        }
    }

    fn of(&mut self, now: Time, runner: &Url) -> &mut Past {
        if !self.0.contains_key(runner) && self.0.len() >= MAX_REMEMBERED {
            let oldest = self.0.iter().min_by_key(|(_, past)| past.used);
            if let Some(oldest) = oldest.map(|(url, _)| url.clone()) {
                self.0.remove(&oldest);
            }
        }
        let past = self.0.entry(runner.clone()).or_default();
        past.used = now;
        past
    }

    fn rests(&self, now: Time, runner: &Url) -> bool {
        let failed = self.0.get(runner).and_then(|past| past.failed);
        failed.is_some_and(|at| now < at + REMEMBERED)
    }

    fn took(&self, runner: &Url) -> Duration {
        self.0.get(runner).map_or(Duration::ZERO, |past| past.took)
    }
}

/// The runners that fit, best first: those that did not just fail, have room, cost nothing, cost less, and were quicker;
/// otherwise as they are listed. One that does not say how one works with it, as
/// serverless ones do, fits both ways; without a `mode` all do.
pub(super) fn choose(
    now: Time,
    wanted: &Wanted,
    mode: Option<Mode>,
    history: &History,
    listed: impl IntoIterator<Item = Runner>,
) -> Vec<Runner> {
    let mut fit: Vec<Runner> = Vec::new();
    for runner in listed {
        let named =
            |all: &[String], name: &str| all.is_empty() || all.iter().any(|one| one.trim() == name);
        let gpu = runner.gpu.as_ref().map_or("", |gpu| gpu.name.as_str());
        let price = runner.price.as_ref().map(|price| &price.wei);
        let dear = |ceiling: &Amount| price.is_some_and(|price| price > ceiling);
        if (mode.is_none() || runner.mode.is_none() || runner.mode == mode)
            && named(&wanted.apps, &runner.app)
            && named(&wanted.gpus, gpu)
            && !wanted.max_price.as_ref().is_some_and(dear)
            && !fit.iter().any(|known| known.url == runner.url)
        {
            fit.push(runner);
        }
    }
    fit.sort_by(|a, b| {
        let key = |runner: &Runner| (history.rests(now, &runner.url), runner.available == 0);
        let price = |runner: &Runner| {
            runner
                .price
                .as_ref()
                .map_or_else(Amount::zero, |price| price.wei.clone())
        };
        let took = |runner: &Runner| history.took(&runner.url);
        { key(a).cmp(&key(b)) }
            .then_with(|| price(a).cmp(&price(b)))
            .then_with(|| took(a).cmp(&took(b)))
    });
    fit
}
