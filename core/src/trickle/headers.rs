//! Header names of the protocol, and their values as values (trickle spec 3).

use super::Seq;
use crate::http::Headers;

/// The resolved seq of a 200, or the index as asked of a 470.
pub const SEQ: &str = "lp-trickle-seq";
/// The head.
pub const LATEST: &str = "lp-trickle-latest";
/// The header whose presence says that the channel is over.
pub const CLOSED: &str = "lp-trickle-closed";
/// A non-empty value marks the first POST of a publisher's run.
pub const RESET: &str = "lp-trickle-reset";
/// The media type that a create request asks for.
pub const EXPECT_CONTENT: &str = "expect-content";
/// The media type of a body.
pub const CONTENT_TYPE: &str = "content-type";
/// `close` asks a driver to end the connection after this exchange.
pub const CONNECTION: &str = "connection";
/// Where a redirect leads.
pub const LOCATION: &str = "location";

/// A non-negative decimal that fits the protocol's signed 64 bits; anything else is as good as absent (D2).
#[must_use]
pub fn number(text: &str) -> Option<Seq> {
    let digits = text.trim();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits
        .parse::<i64>()
        .ok()
        .and_then(|n| u64::try_from(n).ok())
        .map(Seq::new)
}

/// The seq that a reply names.
#[must_use]
pub fn seq(headers: &Headers) -> Option<Seq> {
    headers.get(SEQ).and_then(number)
}

/// The head that a reply names.
#[must_use]
pub fn latest(headers: &Headers) -> Option<Seq> {
    headers.get(LATEST).and_then(number)
}

/// Whether a reply says that the channel is over.
#[must_use]
pub fn closed(headers: &Headers) -> bool {
    headers.get(CLOSED).is_some()
}

/// Whether a request begins a publisher's run.
#[must_use]
pub fn reset(headers: &Headers) -> bool {
    headers.get(RESET).is_some_and(|value| !value.is_empty())
}

/// An index as URLs carry it: an optional sign and digits that fit a signed 64-bit integer (trickle spec 2).
#[must_use]
pub fn index(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_signed_decimals_of_64_bits() {
        for (text, value) in [
            ("0", Some(0)),
            ("+0", Some(0)),
            ("-0", Some(0)),
            ("007", Some(7)),
            ("-2", Some(-2)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("+", None),
            ("--1", None),
            ("1.0", None),
            (" 1", None),
            ("0x1", None),
            ("next", None),
        ] {
            assert_eq!(index(text), value, "{text:?}");
        }
    }

    #[test]
    fn an_unusable_header_number_is_absent() {
        for text in ["", "-1", "+1", "1e3", "99999999999999999999", "x"] {
            assert_eq!(number(text), None, "{text:?}");
        }
        assert_eq!(number(" 12 "), Some(Seq::new(12)));
    }

    #[test]
    fn an_empty_reset_counts_as_absent() {
        let mut headers = Headers::new();
        assert!(!reset(&headers));
        headers.push(RESET, "");
        assert!(!reset(&headers));
        let mut headers = Headers::new();
        headers.push(RESET, "no");
        assert!(reset(&headers));
    }
}
