//! Exact money: nothing here rounds unless its name says so.

use alloc::string::{String, ToString};
use core::cmp::Ordering;
use core::fmt;
use core::iter::Sum;
use core::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use num_bigint::{BigInt, BigUint, Sign};
use num_integer::Integer as _;
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
///
/// A number is kept over the denominator that it comes with. The values of tickets are fractions of `2^256 - 1`, and to
/// look for a common divisor of two such numbers takes more than forty times as long as to add them. Equality and order
/// are those of the number, and it is displayed in lowest terms.
#[derive(Clone)]
pub struct Amount(BigRational);

/// At most this many bits are in the denominator of a sum that is not in lowest terms: those of a win probability and of
/// a few prices (`amounts_are_exact_whatever_they_are_kept_over`).
const MAX_DENOMINATOR: u64 = 512;

impl Amount {
    /// The amount of zero.
    #[must_use]
    pub fn zero() -> Self {
        Self(BigRational::zero())
    }

    /// `numerator / denominator`; `None` if the denominator is zero.
    #[must_use]
    pub fn ratio(numerator: impl Into<BigInt>, denominator: impl Into<BigInt>) -> Option<Self> {
        let (numerator, denominator) = (numerator.into(), denominator.into());
        match denominator.sign() {
            Sign::NoSign => None,
            Sign::Plus => Some(Self(BigRational::new_raw(numerator, denominator))),
            Sign::Minus => Some(Self(BigRational::new_raw(-numerator, -denominator))),
        }
    }

    /// The number itself, perhaps not in lowest terms.
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

    /// The amount so many times.
    #[must_use]
    pub fn times(&self, count: impl Into<BigInt>) -> Self {
        let numerator = self.0.numer() * count.into();
        Self(BigRational::new_raw(numerator, self.0.denom().clone()))
    }

    /// How many times `part` goes into the amount, rounded up.
    ///
    /// # Panics
    /// If `part` is zero.
    #[must_use]
    pub fn div_ceil(&self, part: &Self) -> BigInt {
        let (all, part) = (&self.0, &part.0);
        (all.numer() * part.denom()).div_ceil(&(all.denom() * part.numer()))
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

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, two) = (&self.0, &other.0);
        if one.denom() == two.denom() {
            return one.numer().cmp(two.numer());
        }
        (one.numer() * two.denom()).cmp(&(two.numer() * one.denom()))
    }
}

/// `one + two`. Mostly the denominator of one of them is a multiple of the other's.
fn sum(one: &BigRational, two: &BigRational) -> BigRational {
    let (long, short) = match one.denom() < two.denom() {
        true => (two, one),
        false => (one, two),
    };
    let (times, rest) = long.denom().div_rem(short.denom());
    let total = if rest.is_zero() {
        let numerator = long.numer() + short.numer() * times;
        BigRational::new_raw(numerator, long.denom().clone())
    } else {
        let common = long.denom().lcm(short.denom());
        let over_it = |part: &BigRational| part.numer() * (&common / part.denom());
        BigRational::new_raw(over_it(long) + over_it(short), common)
    };
    match total.denom().bits() > MAX_DENOMINATOR {
        true => total.reduced(),
        false => total,
    }
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
        self + -other
    }
}

impl Neg for Amount {
    type Output = Self;
    fn neg(self) -> Self {
        let (numerator, denominator) = self.0.into_raw();
        Self(BigRational::new_raw(-numerator, denominator))
    }
}

impl AddAssign<&Self> for Amount {
    fn add_assign(&mut self, other: &Self) {
        self.0 = sum(&self.0, &other.0);
    }
}

impl SubAssign<&Self> for Amount {
    fn sub_assign(&mut self, other: &Self) {
        *self += &-other.clone();
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::zero(), Add::add)
    }
}

impl fmt::Display for Amount {
    /// `numerator/denominator` in lowest terms, without the denominator if it is one: also the state blob's form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.reduced(), f)
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} wei")
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
        Amount(BigRational::new_raw(
            units.into() * self.wei,
            self.per.into(),
        ))
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
