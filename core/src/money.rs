//! Exact money: nothing here rounds unless its name says so.

use alloc::string::{String, ToString};
use core::cmp::Ordering;
use core::fmt;
use core::iter::Sum;
use core::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use num_bigint::{BigInt, BigUint};
use num_rational::BigRational;
use num_traits::{Signed, Zero};

/// A whole, non-negative number of wei: face values, deposits, reserves.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wei(BigUint);

impl Wei {
    /// The amount of zero.
    #[must_use]
    pub fn zero() -> Self {
        Self::default()
    }

    /// Reads a wire field: big-endian bytes, empty for zero.
    #[must_use]
    pub fn from_be_bytes(bytes: &[u8]) -> Self {
        Self(BigUint::from_bytes_be(bytes))
    }

    /// The wire form: minimal big-endian, zero is empty (payments spec 3).
    #[must_use]
    pub fn to_be_bytes(&self) -> alloc::vec::Vec<u8> {
        if self.0.is_zero() {
            alloc::vec::Vec::new()
        } else {
            self.0.to_bytes_be()
        }
    }

    /// The number itself.
    #[must_use]
    pub const fn as_uint(&self) -> &BigUint {
        &self.0
    }
}

impl From<u64> for Wei {
    fn from(wei: u64) -> Self {
        Self(wei.into())
    }
}

impl From<BigUint> for Wei {
    fn from(wei: BigUint) -> Self {
        Self(wei)
    }
}

impl fmt::Display for Wei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Wei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wei", self.0)
    }
}

/// An exact, signed rational number of wei: fees, expected values, balances.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(BigRational);

impl Amount {
    /// The amount of zero.
    #[must_use]
    pub fn zero() -> Self {
        Self(BigRational::zero())
    }

    /// `numerator / denominator`; `None` if the denominator is zero.
    #[must_use]
    pub fn ratio(numerator: impl Into<BigInt>, denominator: impl Into<BigInt>) -> Option<Self> {
        let denominator = denominator.into();
        (!denominator.is_zero()).then(|| Self(BigRational::new(numerator.into(), denominator)))
    }

    /// The number itself.
    #[must_use]
    pub const fn as_ratio(&self) -> &BigRational {
        &self.0
    }

    /// Whether this is nothing.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.is_zero()
    }

    /// Whether this is more than nothing.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.0.is_positive()
    }

    /// Whole wei, cut towards zero; only for people to read.
    #[must_use]
    pub fn whole_wei(&self) -> BigInt {
        self.0.to_integer()
    }
}

impl Default for Amount {
    fn default() -> Self {
        Self::zero()
    }
}

impl From<BigRational> for Amount {
    fn from(ratio: BigRational) -> Self {
        Self(ratio)
    }
}

/// The price of one unit.
impl From<Price> for Amount {
    fn from(price: Price) -> Self {
        price.of_one()
    }
}

impl From<&Wei> for Amount {
    fn from(wei: &Wei) -> Self {
        Self(BigRational::from_integer(wei.0.clone().into()))
    }
}

/// `a + b`. With a whole number on either side the sum is in lowest terms already; the general way looks for a common
/// divisor of numbers of hundreds of bits, which is most of what a payment costs beside its signatures.
fn sum(a: &BigRational, b: &BigRational) -> BigRational {
    let (whole, other) = if a.is_integer() { (a, b) } else { (b, a) };
    if !whole.is_integer() {
        return a + b;
    }
    let numerator = whole.numer() * other.denom() + other.numer();
    BigRational::new_raw(numerator, other.denom().clone())
}

impl Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(sum(&self.0, &other.0))
    }
}

impl Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(sum(&self.0, &-other.0))
    }
}

impl Neg for Amount {
    type Output = Self;
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl AddAssign<&Self> for Amount {
    fn add_assign(&mut self, other: &Self) {
        self.0 = sum(&self.0, &other.0);
    }
}

impl SubAssign<&Self> for Amount {
    fn sub_assign(&mut self, other: &Self) {
        self.0 = sum(&self.0, &-&other.0);
    }
}

impl Sum for Amount {
    /// Amounts over one denominator, such as the values of tickets, are brought to lowest terms once, at the end.
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let mut total = BigRational::zero();
        for Self(next) in all {
            total = if total.denom() == next.denom() {
                BigRational::new_raw(total.numer() + next.numer(), next.into_raw().1)
            } else {
                sum(&total.reduced(), &next)
            };
        }
        Self(total.reduced())
    }
}

impl fmt::Display for Amount {
    /// `numerator/denominator` in lowest terms, without the denominator if it is one: also the state blob's form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wei", self.0)
    }
}

/// Wei per unit, as the wire carries it: a pair of 64-bit numbers of which only the ratio counts.
///
/// The unit is a pixel for video (one second of live video counts as 1280 x 720 x 30 of them), a second or a
/// request for live runners. Equality and order are those of the ratio.
#[derive(Clone, Copy)]
pub struct Price {
    wei: i64,
    per: i64,
}

impl Price {
    /// The price of zero.
    pub const FREE: Self = Self { wei: 0, per: 1 };

    /// `wei` for every `per` units. `None` if `per` is not positive or `wei` is negative: no price at all.
    #[must_use]
    pub const fn new(wei: i64, per: i64) -> Option<Self> {
        if per > 0 && wei >= 0 {
            Some(Self { wei, per })
        } else {
            None
        }
    }

    /// The numerator as given.
    #[must_use]
    pub const fn wei(&self) -> i64 {
        self.wei
    }

    /// The denominator as given.
    #[must_use]
    pub const fn per(&self) -> i64 {
        self.per
    }

    /// Whether work is free at this price.
    #[must_use]
    pub const fn is_free(&self) -> bool {
        self.wei == 0
    }

    /// The price of `units`: `wei x units / per`, exactly.
    #[must_use]
    pub fn fee(&self, units: impl Into<BigInt>) -> Amount {
        Amount(BigRational::new(units.into() * self.wei, self.per.into()))
    }

    /// The price of one unit.
    #[must_use]
    pub fn of_one(&self) -> Amount {
        self.fee(1)
    }
}

impl PartialEq for Price {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Price {}

impl PartialOrd for Price {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Price {
    fn cmp(&self, other: &Self) -> Ordering {
        (i128::from(self.wei) * i128::from(other.per))
            .cmp(&(i128::from(other.wei) * i128::from(self.per)))
    }
}

impl fmt::Display for Price {
    /// Decimal wei per unit with up to three places, for people; `Debug` shows the pair.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thousandths = i128::from(self.wei) * 1000 / i128::from(self.per);
        let (whole, rest) = (thousandths / 1000, thousandths % 1000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let places: String = alloc::format!("{rest:03}");
        f.write_str(&whole.to_string())?;
        write!(f, ".{}", places.trim_end_matches('0'))
    }
}

impl fmt::Debug for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} wei", self.wei, self.per)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_of_many_is_in_lowest_terms() {
        let all = [
            (1, 6),
            (1, 6),
            (5, 6),
            (2, 1),
            (1, 3),
            (-1, 3),
            (7, 2),
            (1, 2),
        ];
        let all = all.map(|(a, b)| Amount::ratio(a, b).expect("not divided by zero"));
        for length in 0..=all.len() {
            let parts = || all[..length].iter().cloned();
            let (ours, theirs) = (
                parts().sum::<Amount>(),
                parts().fold(Amount::zero(), Add::add),
            );
            assert_eq!(ours.to_string(), theirs.to_string());
        }
    }

    #[test]
    fn sums_are_in_lowest_terms_whoever_is_whole() {
        let parts = [0, 1, -1, 6, -6, 7, 30];
        for (a, b) in parts.iter().flat_map(|a| parts.map(|b| (*a, b))) {
            for (c, d) in [(1, 1), (1, 6), (6, 1), (6, 6), (6, 4), (35, 21)] {
                let (left, right) = (
                    BigRational::new(a.into(), c.into()),
                    BigRational::new(b.into(), d.into()),
                );
                let (plus, minus) = (&left + &right, &left - &right);
                let (left, right) = (Amount(left), Amount(right));
                let (mut more, mut less) = (left.clone(), left.clone());
                more += &right;
                less -= &right;
                for (ours, theirs) in [
                    (left.clone() + right.clone(), &plus),
                    (left - right, &minus),
                    (more, &plus),
                    (less, &minus),
                ] {
                    assert_eq!(
                        (ours.0.numer(), ours.0.denom()),
                        (theirs.numer(), theirs.denom())
                    );
                }
            }
        }
    }
}
