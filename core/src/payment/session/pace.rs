//! How long what was paid lasts, and when to pay next.

use core::ops::AddAssign;
use core::time::Duration;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::ToPrimitive as _;

use crate::money::{Amount, Price};
use crate::time::Time;
use crate::units::Unit;

/// The nanoseconds in a second.
const NANOS: u64 = 1_000_000_000;

/// How long before what was paid is used up the next payment is begun, or at half time if there is less. An
/// orchestrator meters every five seconds, and a payment takes time to arrive.
const MARGIN: Duration = Duration::from_secs(10);

/// The shortest time between tries of a payment, however short the slack.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long an answer may take, at least, however short the slack.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);

/// How long before a second is full work billed in whole seconds, rounded up, is paid: a little later it would cost
/// another second (payments spec 10).
const BEFORE_FULL: Duration = Duration::from_millis(100);

/// The amount paid against the time that went by. Counted from our first payment, which is before the orchestrator
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
        let nanos = (self.paid.as_ratio() * BigInt::from(NANOS) / rate.as_ratio())
            .to_integer()
            .to_u64()
            .unwrap_or(u64::MAX);
        Some(self.since? + Duration::from_nanos(nanos))
    }

    /// The time from which on a payment that cannot be made is the end: a little before what was paid is used up, so
    /// that the job can go on elsewhere. `None` where [`Coverage::until`] is.
    pub(super) fn last_call(&self) -> Option<Time> {
        Some(self.until()? - MARGIN.min(self.unit.preload() / 2))
    }

    /// Goes on at another price, with what is left.
    pub(super) fn reprice(&mut self, now: Time, price: Price) {
        if let (Some(rate), Some(until)) = (self.unit.per_second(), self.until()) {
            let left = BigRational::new(until.since(now).as_nanos().into(), NANOS.into());
            let left = left * self.price.fee(rate).as_ratio();
            self.paid = Amount::from(left);
            self.since = Some(now);
        }
        self.price = price;
    }

    /// How long to wait for an answer that may take `full`: half of what is left, so that there is time for another
    /// try, but some seconds at least. Asking again does no harm.
    pub(super) fn patience(&self, now: Time, full: Duration) -> Duration {
        let slack = self.until().map_or(Duration::MAX, |until| until.since(now));
        full.min((slack / 2).max(LEAST_PATIENCE))
    }

    /// When to pay next, at the latest after `interval`; `billed` is up to when time was billed.
    pub(super) fn next(&self, now: Time, interval: Duration, billed: Option<Time>) -> Time {
        let slack = self.until().map_or(Duration::MAX, |until| until.since(now));
        let wait = slack.saturating_sub(MARGIN).max(slack / 2).max(SHORTEST);
        let latest = now + interval.max(SHORTEST).min(wait);
        match (self.unit, billed) {
            (Unit::Seconds, Some(billed)) => {
                let seconds = (latest.since(billed) + BEFORE_FULL).as_secs();
                let cheapest = billed + Duration::from_secs(seconds) - BEFORE_FULL;
                if cheapest > now { cheapest } else { latest }
            }
            _ => latest,
        }
    }
}

/// The charge for work that was paid: the fee, and how long the work took where it is metered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// The fee, in wei. Tickets are worth slightly more or less than it: none is cut in two.
    pub fee: Amount,
    /// How long the work took; the first payment of a metered job is for time to come.
    pub time: Duration,
    /// The part of the fee, in wei, that is due to billing whole seconds, rounded up with each payment. Zero for work
    /// that is billed by another unit.
    pub rounding: Amount,
}

impl Charge {
    /// Charges for the time since the last payment, or the preload if there was none, at a price per unit.
    pub(super) fn elapsed(unit: Unit, price: Price, since_last: Option<Duration>) -> Self {
        let since_last = since_last.filter(|elapsed| !elapsed.is_zero());
        let time = since_last.unwrap_or(unit.preload());
        let fee = price.fee(unit.billable(since_last.unwrap_or_default()));
        let rounding = if unit == Unit::Seconds {
            let seconds = BigRational::new(time.as_nanos().into(), NANOS.into());
            fee.clone() - Amount::from(price.of_one().as_ratio() * seconds)
        } else {
            Amount::zero()
        };
        Self {
            fee,
            time,
            rounding,
        }
    }

    /// Charges for units that were counted, whatever time they took.
    pub(super) fn counted(fee: Amount) -> Self {
        Self {
            fee,
            ..Self::default()
        }
    }

    /// The cost of a second, in wei, rounding included; `None` before any time was billed.
    #[must_use]
    pub fn per_second(&self) -> Option<Amount> {
        let time = BigRational::new(self.time.as_nanos().into(), NANOS.into());
        (!self.time.is_zero()).then(|| Amount::from(self.fee.as_ratio() / time))
    }
}

impl AddAssign<&Self> for Charge {
    fn add_assign(&mut self, more: &Self) {
        self.fee += &more.fee;
        self.time += more.time;
        self.rounding += &more.rounding;
    }
}
