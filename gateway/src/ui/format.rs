//! Numbers for people.

use std::fmt;
use std::time::Duration;

use livepeer_core::money::Amount;

/// `12,345`.
pub(crate) fn count(number: u64) -> String {
    grouped(&number.to_string())
}

fn grouped(digits: &str) -> String {
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits),
    };
    let mut text = String::from(sign);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `942 B`, `1.4 KiB`, `18.6 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths, rounded; the next unit begins where this one would show 1024.0.
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// `830 µs`, `24.7 ms`, `12.0 s`, `3 min 04 s`, `2 h 05 min`.
pub(crate) fn duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let seconds = duration.as_secs();
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{}.{} ms", micros / 1000, micros / 100 % 10),
        1_000_000..60_000_000 => format!("{seconds}.{} s", micros / 100_000 % 10),
        60_000_000..3_600_000_000 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// An amount of money with its unit: whole wei exactly, beyond 10^9 wei also in a larger unit, cut and not
/// rounded, so that nobody is shown more than there is. Parts of a wei are shown as `~`.
pub(crate) struct Wei<'a>(pub(crate) &'a Amount);

impl fmt::Display for Wei<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const GWEI: usize = 9;
        const ETHER: usize = 18;
        let digits = self.0.whole_wei().to_string();
        let inexact = if self.0.to_string().contains('/') {
            "~"
        } else {
            ""
        };
        write!(f, "{inexact}{} wei", grouped(&digits))?;
        let (sign, digits) = match digits.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", digits.as_str()),
        };
        let (places, unit) = match digits.len() {
            0..=GWEI => return Ok(()),
            // Up to a ten-thousandth of an ether.
            10..=14 => (GWEI, "gwei"),
            _ => (ETHER, "ETH"),
        };
        let padded = format!("{digits:0>width$}", width = places + 1);
        let (whole, part) = padded.split_at(padded.len() - places);
        // Four figures after the leading zeros.
        let leading = part.len() - part.trim_start_matches('0').len();
        let shown = if whole == "0" { leading + 4 } else { 4 };
        let part = part[..shown.min(part.len())].trim_end_matches('0');
        let dot = if part.is_empty() { "" } else { "." };
        write!(f, " ({sign}{}{dot}{part} {unit})", grouped(whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_bytes() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(964_816), "942.2 KiB");
        assert_eq!(bytes(1 << 20), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16383.9 PiB");
    }

    #[test]
    fn durations() {
        for (micros, shown) in [
            (0, "0 µs"),
            (999, "999 µs"),
            (24_780, "24.7 ms"),
            (999_999, "999.9 ms"),
            (12_000_000, "12.0 s"),
            (59_999_999, "59.9 s"),
            (184_000_000, "3 min 04 s"),
            (7_500_000_000, "2 h 05 min"),
        ] {
            assert_eq!(duration(Duration::from_micros(micros)), shown);
        }
    }

    #[test]
    fn money_is_exact_and_never_rounded_up() {
        let amount = |n: i64, d: i64| Amount::ratio(n, d).expect("a good ratio");
        for (n, d, shown) in [
            (0, 1, "0 wei"),
            (1_200, 1, "1,200 wei"),
            (7, 2, "~3 wei"),
            (999_999_999, 1, "999,999,999 wei"),
            (1_234_567_890, 1, "1,234,567,890 wei (1.2345 gwei)"),
            (
                12_345_678_900_000,
                1,
                "12,345,678,900,000 wei (12,345.6789 gwei)",
            ),
            (
                1_990_656_000_000_000,
                1,
                "1,990,656,000,000,000 wei (0.00199 ETH)",
            ),
            (
                -2_999_999_999_999_999_999,
                1,
                "-2,999,999,999,999,999,999 wei (-2.9999 ETH)",
            ),
            (
                3_000_000_000_000_000_000,
                1,
                "3,000,000,000,000,000,000 wei (3 ETH)",
            ),
        ] {
            assert_eq!(Wei(&amount(n, d)).to_string(), shown);
        }
    }
}
