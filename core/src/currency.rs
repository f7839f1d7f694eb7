//! Prices as operators write them: in wei, ETH or dollars, for one unit or for many.

use alloc::format;
use alloc::string::String;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One as _, Signed as _};

use crate::money::Amount;

/// Wei in an ETH.
pub const WEI_PER_ETH: u64 = 1_000_000_000_000_000_000;
/// At most this many characters of a number are read.
const MAX_DIGITS: usize = 100;

/// The currency of a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the meaning")]
pub enum Currency {
    Wei,
    Eth,
    Usd,
}

impl Currency {
    /// The currency of that name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let is = |word: &str| name.eq_ignore_ascii_case(word);
        match () {
            () if is("wei") => Some(Self::Wei),
            () if is("ETH") => Some(Self::Eth),
            () if is("USD") => Some(Self::Usd),
            () => None,
        }
    }
}

/// A price as an operator wrote it: an amount of a currency for a number of units, exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceTag {
    amount: BigRational,
    currency: Currency,
    per: BigRational,
}

impl PriceTag {
    /// A price of `amount` for `per` units; `None` if the amount is negative or the units are not positive.
    #[must_use]
    pub fn new(amount: BigRational, currency: Currency, per: BigRational) -> Option<Self> {
        let is_price = !amount.is_negative() && per.is_positive();
        is_price.then_some(Self {
            amount,
            currency,
            per,
        })
    }

    /// Reads a price such as `1200`, `0.5`, `1/3` or `0.50USD/1000000`: a decimal, wei if no currency follows it, and the
    /// number of units that it is for.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (price, per) = match text.split_once('/') {
            Some((price, per)) => (price.trim_end(), whole(per.trim_start())?),
            None => (text, BigRational::one()),
        };
        let end = price.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (amount, currency) = price.split_at(end.unwrap_or(price.len()));
        let currency = match currency {
            "" => Currency::Wei,
            name => Currency::from_name(name)?,
        };
        Self::new(decimal(amount)?, currency, per)
    }

    /// The currency.
    #[must_use]
    pub const fn currency(&self) -> Currency {
        self.currency
    }

    /// The number of units that the amount is for.
    #[must_use]
    pub const fn per(&self) -> &BigRational {
        &self.per
    }

    /// Gives the same amount for another number of units; `None` if that is not positive.
    #[must_use]
    pub fn for_units(&self, per: BigRational) -> Option<Self> {
        Self::new(self.amount.clone(), self.currency, per)
    }

    /// Wei for one unit; `None` if the price is in dollars and the price of a dollar is not known.
    #[must_use]
    pub fn of_one(&self, wei_per_usd: Option<&Amount>) -> Option<Amount> {
        let wei = match self.currency {
            Currency::Wei => self.amount.clone(),
            Currency::Eth => &self.amount * BigInt::from(WEI_PER_ETH),
            Currency::Usd => &self.amount * wei_per_usd?.as_ratio(),
        };
        Some((wei / &self.per).into())
    }
}

/// The answer of a price feed: how much of one currency one unit of the other is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feed {
    /// Dollars for one ether.
    UsdPerEth(BigRational),
    /// Ether for one dollar.
    EthPerUsd(BigRational),
}

impl Feed {
    /// Dollars in wei, exactly. `None` if the feed says that ether is worth nothing.
    #[must_use]
    pub fn wei(&self, usd: &BigRational) -> Option<Amount> {
        let wei_per_eth = BigInt::from(WEI_PER_ETH);
        match self {
            Self::UsdPerEth(price) if price.is_positive() => {
                Some(Amount::from(usd * wei_per_eth / price))
            }
            Self::EthPerUsd(price) if price.is_positive() => {
                Some(Amount::from(usd * price * wei_per_eth))
            }
            _ => None,
        }
    }

    /// The price of a dollar in wei, likewise.
    #[must_use]
    pub fn wei_per_usd(&self) -> Option<Amount> {
        self.wei(&BigRational::one())
    }
}

/// The price of a dollar in wei, from that of an ETH in dollars; `None` if that is not a decimal above zero.
#[must_use]
pub fn wei_per_usd(usd_per_eth: &str) -> Option<Amount> {
    Feed::UsdPerEth(decimal(usd_per_eth)?).wei_per_usd()
}

/// An amount in dollars with nine places, rounded up: what is dearer than nothing is not shown as nothing. The price of a
/// dollar is above zero.
#[must_use]
pub fn in_usd(wei: &Amount, wei_per_usd: &Amount) -> String {
    const PLACES: usize = 9;
    let billionths = wei.as_ratio() / wei_per_usd.as_ratio() * BigInt::from(1_000_000_000);
    let digits = format!(
        "{:0>width$}",
        billionths.ceil().to_integer(),
        width = PLACES + 1
    );
    let (whole, places) = digits.split_at(digits.len() - PLACES);
    format!("{whole}.{places}")
}

/// Digits alone.
fn whole(text: &str) -> Option<BigRational> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number: BigInt = text
        .parse()
        .ok()
        .filter(|_| is_number && text.len() <= MAX_DIGITS)?;
    Some(BigRational::from_integer(number))
}

/// Digits, and perhaps a point and further ones.
fn decimal(text: &str) -> Option<BigRational> {
    let Some((before, after)) = text.split_once('.') else {
        return whole(text);
    };
    whole(before)?;
    whole(after)?;
    let places = u32::try_from(after.len()).ok()?;
    Some(whole(&format!("{before}{after}"))? / BigInt::from(10).pow(places))
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn a_price_is_a_decimal_a_currency_and_units() {
        let dollar = wei_per_usd("3456.12345678").expect("a price of ETH");
        let shown = |text: &str| {
            let of_one = PriceTag::parse(text).map(|tag| tag.of_one(Some(&dollar)));
            of_one.map(|wei| wei.expect("the price of a dollar is known").to_string())
        };
        for (text, wei) in [
            ("0", "0"),
            ("1200", "1200"),
            ("0100wei", "100"),
            ("0.5", "1/2"),
            ("1/3", "1/3"),
            ("0.000000000001ETH", "1000000"),
            ("0.50USD/1000000000000", "25000000000000/172806172839"),
            ("0.5usd", "25000000000000000000000000/172806172839"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(wei), "{text}");
        }
        for text in [
            "",
            "USD",
            "-1",
            "+1",
            ".5USD",
            "1.USD",
            "1.5.2USD",
            "1,5USD",
            "1e3",
            "1_000",
            "0x10",
            "100 USD",
            "100EUR",
            "1/0",
            "1/-3",
            "1/2/3",
            "\u{663}USD",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
        assert_eq!(shown(&"9".repeat(MAX_DIGITS + 1)), None);
    }

    #[test]
    fn dollars_need_a_price_of_eth() {
        let tag = PriceTag::parse("1USD").expect("a price");
        assert_eq!(tag.of_one(None), None);
        assert_eq!(
            wei_per_usd("2000"),
            Amount::ratio(500_000_000_000_000_i64, 1)
        );
        for text in ["0", "0.0", "-1", "1e3", ""] {
            assert_eq!(wei_per_usd(text), None, "{text}");
        }
        let dollar = Amount::ratio(500_000_000_000_000_i64, 1).expect("a price");
        let shown = |wei: i64| in_usd(&Amount::ratio(wei, 1).expect("an amount"), &dollar);
        assert_eq!(shown(0), "0.000000000");
        assert_eq!(shown(1), "0.000000001");
        assert_eq!(shown(1_250_000_000_000_000), "2.500000000");
    }
}
