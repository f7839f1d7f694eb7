//! A remote signer's memory of a session, in the exact bytes that every signer with the same key can read.

use alloc::format;
use alloc::string::{String, ToString};

use num_bigint::BigInt;

use super::error::WireError;
use super::json::{Fields, push_go_string};
use crate::money::Amount;
use crate::sign::Address;
use crate::time::Time;

/// The content of a state blob (payments spec 12.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignerState {
    /// Random, names the session.
    pub state_id: String,
    /// The commitment that the last payment's tickets were under: `0x` and 64 lower-case hex digits.
    pub pm_session_id: String,
    /// When the last payment was minted; zero time if never.
    pub last_update: Time,
    /// The orchestrator that the session is with.
    pub orchestrator: Address,
    /// The model that the job runs.
    pub app: String,
    /// Unix seconds until which the webhook need not be asked again; zero if it must.
    pub auth_expiry: i64,
    /// The last nonce under the commitment.
    pub sender_nonce: u32,
    /// The payer's credit.
    pub balance: Amount,
    /// Wei of the price of the session's first call.
    pub initial_price_per_unit: i64,
    /// Units of it.
    pub initial_pixels_per_unit: i64,
    /// The job type.
    pub job_type: String,
    /// Counts calls, from zero.
    pub sequence_number: u64,
    /// The caller.
    pub auth_id: String,
}

impl SignerState {
    /// The JSON text: keys in this order, always all of them.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(640);
        let text = |out: &mut String, key: &str, value: &str| {
            out.push_str(key);
            push_go_string(out, value);
        };
        text(&mut out, "{\"StateID\":", &self.state_id);
        text(&mut out, ",\"PMSessionID\":", &self.pm_session_id);
        text(&mut out, ",\"LastUpdate\":", &rfc3339(self.last_update));
        text(
            &mut out,
            ",\"OrchestratorAddress\":",
            &format!("0x{}", hex::encode(self.orchestrator.0)),
        );
        text(&mut out, ",\"App\":", &self.app);
        out.push_str(&format!(
            ",\"AuthExpiry\":{},\"SenderNonce\":{}",
            self.auth_expiry, self.sender_nonce
        ));
        text(&mut out, ",\"Balance\":", &self.balance.to_string());
        out.push_str(&format!(
            ",\"InitialPricePerUnit\":{},\"InitialPixelsPerUnit\":{}",
            self.initial_price_per_unit, self.initial_pixels_per_unit
        ));
        text(&mut out, ",\"Type\":", &self.job_type);
        out.push_str(&format!(",\"SequenceNumber\":{}", self.sequence_number));
        text(&mut out, ",\"AuthID\":", &self.auth_id);
        out.push('}');
        out
    }

    /// Reads the text. A balance that is no number is zero, as with the reference.
    ///
    /// # Errors
    /// If it is not the JSON object expected.
    pub fn from_json(text: &[u8]) -> Result<Self, WireError> {
        Self::read(text).map_err(|why| WireError::new("signer state", why))
    }

    fn read(text: &[u8]) -> Result<Self, String> {
        let fields = Fields::only(text)?;
        let address = fields.text("OrchestratorAddress")?;
        let stamp = fields.text("LastUpdate")?;
        Ok(Self {
            state_id: fields.text("StateID")?,
            pm_session_id: fields.text("PMSessionID")?,
            last_update: if stamp.is_empty() {
                Time::ZERO
            } else {
                from_rfc3339(&stamp).ok_or("LastUpdate must be a time")?
            },
            orchestrator: if address.is_empty() {
                Address::ZERO
            } else {
                address
                    .parse()
                    .map_err(|_| "OrchestratorAddress must be an address")?
            },
            app: fields.text("App")?,
            auth_expiry: fields.integer("AuthExpiry")?,
            sender_nonce: u32::try_from(fields.integer("SenderNonce")?)
                .map_err(|_| "SenderNonce must have 32 bits")?,
            balance: rational(&fields.text("Balance")?).unwrap_or_default(),
            initial_price_per_unit: fields.integer("InitialPricePerUnit")?,
            initial_pixels_per_unit: fields.integer("InitialPixelsPerUnit")?,
            job_type: fields.text("Type")?,
            sequence_number: u64::try_from(fields.integer("SequenceNumber")?)
                .map_err(|_| "SequenceNumber must not be negative")?,
            auth_id: fields.text("AuthID")?,
        })
    }
}

/// Reads `numerator/denominator` or a whole number.
fn rational(text: &str) -> Option<Amount> {
    let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
    let numerator: BigInt = numerator.parse().ok()?;
    let denominator: BigInt = denominator.parse().ok()?;
    let positive = denominator > BigInt::ZERO;
    Amount::ratio(numerator, denominator).filter(|_| positive)
}

const ZERO_TIME: &str = "0001-01-01T00:00:00Z";
const DAY: u64 = 86_400;

/// A stamp in UTC with as many decimals as it needs. [`Time::ZERO`] stands for the zero stamp.
#[must_use]
pub fn rfc3339(time: Time) -> String {
    if time == Time::ZERO {
        return ZERO_TIME.into();
    }
    let (days, second) = (time.as_secs() / DAY, time.as_secs() % DAY);
    let (year, month, day) = civil(days);
    let mut text = format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    let nanos = time.as_nanos() % 1_000_000_000;
    if nanos != 0 {
        text.push('.');
        text.push_str(format!("{nanos:09}").trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Reads a stamp with any offset; `None` if it is none. A year before 1970 is [`Time::ZERO`].
#[must_use]
pub fn from_rfc3339(text: &str) -> Option<Time> {
    let (date, rest) = text.split_once(['T', 't'])?;
    let mut date = date.split('-');
    let mut part = |digits: usize, range: core::ops::RangeInclusive<u64>| {
        number(date.next()?, digits).filter(|n| range.contains(n))
    };
    let (year, month, day) = (part(4, 0..=9999)?, part(2, 1..=12)?, part(2, 1..=31)?);
    if date.next().is_some() {
        return None;
    }
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone);
    let offset: i64 = match zone {
        "Z" | "z" => 0,
        _ => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let minutes = number(hours, 2)? * 60 + number(minutes, 2)?;
            let seconds = i64::try_from(minutes * 60).ok()?;
            if zone.starts_with('-') {
                -seconds
            } else {
                seconds
            }
        }
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    if fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let nanos =
        number(fraction, fraction.len())? * 10_u64.pow(9 - u32::try_from(fraction.len()).ok()?);
    let mut clock = clock.split(':');
    let mut part = |max: u64| number(clock.next()?, 2).filter(|n| *n <= max);
    let second = part(23)? * 3600 + part(59)? * 60 + part(59)?;
    if clock.next().is_some() {
        return None;
    }
    if year < 1970 {
        return Some(Time::ZERO);
    }
    let seconds = i64::try_from(days_before(year, month, day) * DAY + second).ok()? - offset;
    let nanos = u64::try_from(seconds)
        .unwrap_or(0)
        .checked_mul(1_000_000_000)?
        .checked_add(nanos)?;
    Some(Time::from_nanos(nanos))
}

fn number(digits: &str, count: usize) -> Option<u64> {
    (digits.len() == count && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// Days in the calendar's 400-year cycle.
const CYCLE: u64 = 146_097;
/// Days from the first of March of the year zero, where leap days come last, to the epoch.
const EPOCH: u64 = 719_468;

/// Year, month and day of a number of days after the epoch.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH;
    let (cycle, day) = (days / CYCLE, days % CYCLE);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + cycle * 400 + u64::from(month <= 2);
    (year, month, day - (153 * shifted + 2) / 5 + 1)
}

/// Days from the epoch to a date of 1970 or later.
fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let (cycle, year) = (year / 400, year % 400);
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    cycle * CYCLE + year * 365 + year / 4 - year / 100 + day_of_year - EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_survive_both_ways() {
        for text in [
            "2026-04-07T20:00:00Z",
            "2026-04-07T20:00:05.2Z",
            "1970-01-01T00:00:00.000000001Z",
            "2000-02-29T23:59:59.999999999Z",
            "2100-03-01T00:00:00Z",
            "2400-12-31T12:00:00Z",
            ZERO_TIME,
        ] {
            assert_eq!(rfc3339(from_rfc3339(text).unwrap()), text);
        }
        let mut day = 0;
        while day < 200_000 {
            let time = Time::from_secs(day * DAY + 1);
            assert_eq!(from_rfc3339(&rfc3339(time)), Some(time));
            day += 13;
        }
    }

    #[test]
    fn offsets_are_taken_off() {
        assert_eq!(
            from_rfc3339("2026-04-07T22:00:00+02:00"),
            from_rfc3339("2026-04-07T20:00:00Z")
        );
        assert_eq!(
            from_rfc3339("2026-04-07T18:30:00.5-01:30"),
            from_rfc3339("2026-04-07T20:00:00.5Z")
        );
    }

    #[test]
    fn what_is_no_stamp_is_refused() {
        for text in [
            "",
            "2026-04-07",
            "2026-04-07T20:00:00",
            "2026-13-07T20:00:00Z",
            "2026-04-07T24:00:00Z",
            "2026-04-07T20:00:00.Z",
            "2026-04-07T20:00:00.0000000001Z",
            "2026-04-07T20:00Z",
            "9999-04-07T20:00:00Z",
        ] {
            assert_eq!(from_rfc3339(text), None, "{text}");
        }
    }
}
