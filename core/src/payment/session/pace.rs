//! How long what was paid lasts, and when to pay next.

use core::time::Duration;

use num_bigint::BigInt;
use num_traits::ToPrimitive as _;

use crate::money::{Amount, Price};
use crate::payment::units::Unit;
use crate::time::Time;

/// The next payment is begun so long before what was paid is used up, or at half time if there is less. An
/// orchestrator meters every five seconds, and a payment takes time to arrive.
const MARGIN: Duration = Duration::from_secs(10);

/// However short the slack, payments are tried at most so often.
const SHORTEST: Duration = Duration::from_secs(1);

/// However short the slack, an answer has so long.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);

/// What was paid against the time that went by. Counted from our first payment, which is before the orchestrator
/// begins to meter: it errs on the early side.
#[derive(Clone, Debug)]
pub(super) struct Coverage {
    unit: Unit,
    price: Price,
    since: Option<Time>,
    paid: Amount,
}

impl Coverage {
    pub(super) fn new(unit: Unit, price: Price) -> Self {
        Self {
            unit,
            price,
            since: None,
            paid: Amount::zero(),
        }
    }

    /// A payment was accepted that was minted at `at`.
    pub(super) fn add(&mut self, at: Time, value: &Amount) {
        self.since.get_or_insert(at);
        self.paid += value;
    }

    /// When what was paid is used up; `None` before the first payment, and for what is not metered.
    pub(super) fn until(&self) -> Option<Time> {
        let rate = self.price.fee(self.unit.per_second()?);
        if !rate.is_positive() {
            return None;
        }
        let nanos = (self.paid.as_ratio() * BigInt::from(1_000_000_000) / rate.as_ratio())
            .to_integer()
            .to_u64()
            .unwrap_or(u64::MAX);
        Some(self.since? + Duration::from_nanos(nanos))
    }

    /// How long to wait for an answer that may take `full`: half of what is left, so that there is time for another
    /// try, but some seconds at least. Asking again does no harm.
    pub(super) fn patience(&self, now: Time, full: Duration) -> Duration {
        let slack = self.until().map_or(Duration::MAX, |until| until.since(now));
        full.min((slack / 2).max(LEAST_PATIENCE))
    }

    /// When to pay next, at the latest after `interval`.
    pub(super) fn next(&self, now: Time, interval: Duration) -> Time {
        let slack = self.until().map_or(Duration::MAX, |until| until.since(now));
        let wait = slack.saturating_sub(MARGIN).max(slack / 2).max(SHORTEST);
        now + interval.max(SHORTEST).min(wait)
    }
}
