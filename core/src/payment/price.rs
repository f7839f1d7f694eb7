//! Prices between the market and the wire (payments spec 5, 9).

use alloc::boxed::Box;
use alloc::string::{String, ToString};

use num_bigint::BigInt;
use num_integer::Integer as _;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive as _, Zero};

use crate::money::{Amount, Price};
use crate::units::{PIXELS_PER_SECOND, Unit};

/// Whole wei per unit that a live runner advertises for its price in wei: per hour for what is metered, per use
/// for [`Unit::Fixed`]. `None` below one wei.
#[must_use]
pub fn runner_price(wei: &Amount, unit: Unit) -> Option<Price> {
    let per = match unit {
        Unit::Seconds => BigInt::from(3600),
        Unit::PixelSeconds => BigInt::from(3600) * PIXELS_PER_SECOND,
        Unit::Fixed => BigInt::one(),
    };
    let whole = (wei.as_ratio() / per).floor().to_integer().to_i64()?;
    (whole >= 1).then(|| Price::new(whole, 1))?
}

/// A price in thousandths, cut, and at most what 64 bits hold.
#[must_use]
pub fn to_thousandths(price: &BigRational) -> i64 {
    (price * BigInt::from(1000))
        .to_integer()
        .to_i64()
        .unwrap_or(if price.is_negative() {
            i64::MIN
        } else {
            i64::MAX
        })
}

/// The price that is advertised for `base` when redeeming a ticket costs one part in `multiplier` of its face
/// value: `base x (1 + 1/multiplier)` cut to three decimals; unchanged if redeeming costs nothing.
#[must_use]
pub fn auto_adjusted(base: &BigRational, multiplier: &BigRational) -> BigRational {
    if multiplier.is_zero() {
        return base.clone();
    }
    let adjusted = base * (BigRational::one() + multiplier.recip());
    BigRational::new(to_thousandths(&adjusted).into(), BigInt::from(1000))
}

/// A ratio as a wire price. `None` if it is negative or does not fit the wire's two 64-bit numbers.
#[must_use]
pub fn to_price(ratio: &BigRational) -> Option<Price> {
    Price::new(ratio.numer().to_i64()?, ratio.denom().to_i64()?)
}

/// Whether an own-key payer goes on: the price has at most doubled since the session began.
#[must_use]
pub fn at_most_doubled(initial: &Price, current: &Price) -> bool {
    *current.of_one().as_ratio() <= initial.of_one().as_ratio() * BigInt::from(2)
}

/// A number of wei per unit with exactly `decimals` places, rounded to nearest, halves away from zero: how error
/// texts show prices (three places) and ticket values (five).
#[must_use]
pub fn decimal(ratio: &BigRational, decimals: usize) -> String {
    let scale = BigInt::from(10).pow(u32::try_from(decimals).unwrap_or(0));
    let scaled = (ratio.abs() * &scale).round().to_integer();
    let (whole, rest) = scaled.div_rem(&scale);
    let sign = if ratio.is_negative() && !scaled.is_zero() {
        "-"
    } else {
        ""
    };
    if decimals == 0 {
        return alloc::format!("{sign}{whole}");
    }
    let rest = rest.to_string();
    alloc::format!("{sign}{whole}.{rest:0>decimals$}")
}

/// A limit on the price of a unit, and who set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// Words that name it in a refusal: `configured maximum price`.
    pub name: &'static str,
    /// Wei per unit; a quote equal to it passes.
    pub price: BigRational,
}

/// A quote is above the lowest ceiling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "orchestrator price {} exceeds {} ceiling {}",
    decimal(quoted, 3),
    ceiling.name,
    decimal(&ceiling.price, 3)
)]
pub struct AboveCeiling {
    /// Wei per unit asked.
    pub quoted: BigRational,
    /// The lowest of the ceilings.
    pub ceiling: Ceiling,
}

/// Compares a quote with the lowest of several ceilings; of equal ones the first counts.
///
/// # Errors
/// If the quote is above it.
pub fn check_ceilings(
    quoted: &BigRational,
    ceilings: impl IntoIterator<Item = Ceiling>,
) -> Result<(), Box<AboveCeiling>> {
    let lowest = ceilings
        .into_iter()
        .reduce(|a, b| if b.price < a.price { b } else { a });
    match lowest {
        Some(ceiling) if *quoted > ceiling.price => Err(Box::new(AboveCeiling {
            quoted: quoted.clone(),
            ceiling,
        })),
        _ => Ok(()),
    }
}
