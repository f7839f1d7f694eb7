//! The summary of a live job: a table for people, JSON for machines.

use std::time::Duration;

use livepeer_core::money::Amount;
use livepeer_core::payment::session::Charge;
use livepeer_media::Warnings;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::format::{Wei, bytes, count, duration};
use super::latency::Latencies;
use super::table::facts;

/// An amount that goes into JSON with [`wei`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Money(pub(crate) Amount);

/// An amount as two members of JSON, or none: in whole wei, cut towards zero, and exactly, which may be
/// `numerator/denominator`. Both are text, since readers of JSON numbers are seldom exact beyond 2^53.
pub(crate) fn wei<S: Serializer>(
    whole: &'static str,
    exact: &'static str,
    amount: Option<&Money>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    if let Some(Money(amount)) = amount {
        map.serialize_entry(whole, &amount.whole_wei().to_string())?;
        map.serialize_entry(exact, &amount.to_string())?;
    }
    map.end()
}

fn paid<S: Serializer>(amount: &Option<Money>, serializer: S) -> Result<S::Ok, S::Error> {
    wei("paid_wei", "paid_wei_exact", amount.as_ref(), serializer)
}

fn cost<S: Serializer>(charge: &Option<Charge>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Cost {
        #[serde(flatten, serialize_with = "per_second")]
        per_second: Option<Money>,
        #[serde(flatten, serialize_with = "rounding")]
        rounding: Option<Money>,
    }
    fn per_second<S: Serializer>(amount: &Option<Money>, to: S) -> Result<S::Ok, S::Error> {
        wei(
            "wei_per_second",
            "wei_per_second_exact",
            amount.as_ref(),
            to,
        )
    }
    fn rounding<S: Serializer>(amount: &Option<Money>, to: S) -> Result<S::Ok, S::Error> {
        wei("rounding_wei", "rounding_wei_exact", amount.as_ref(), to)
    }
    Cost {
        per_second: charge.as_ref().and_then(Charge::per_second).map(Money),
        rounding: charge.as_ref().map(|charge| Money(charge.rounding.clone())),
    }
    .serialize(serializer)
}

fn balance<S: Serializer>(amount: &Option<Money>, serializer: S) -> Result<S::Ok, S::Error> {
    wei(
        "balance_wei",
        "balance_wei_exact",
        amount.as_ref(),
        serializer,
    )
}

/// The figures of one job. Fields that do not apply (money off-chain) are `None` and left out of the table.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Summary {
    /// The orchestrator that served it at last.
    pub(crate) orchestrator: String,
    /// The model that was asked for.
    pub(crate) model: String,
    /// The orchestrator's name of the job.
    pub(crate) manifest_id: String,
    /// From the start of the job to its end.
    #[serde(rename = "elapsed_us", serialize_with = "micros")]
    pub(crate) elapsed: Duration,
    /// Media time published.
    #[serde(rename = "media_us", serialize_with = "micros")]
    pub(crate) media: Duration,
    /// Segments published and taken whole.
    pub(crate) segments_out: u64,
    /// Segments for which output came back.
    pub(crate) segments_in: u64,
    /// Segments for which none did.
    pub(crate) segments_lost: u64,
    /// How output was matched to input: by the `clock` of their time stamps, or by `count`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) matched_by: Option<&'static str>,
    /// Orchestrators that were lost on the way.
    pub(crate) swaps: u64,
    /// Segments that a later orchestrator got again.
    pub(crate) segments_again: u64,
    /// Pictures of a sender that went into the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pictures_out: Option<u64>,
    /// Pictures that came back, where somebody could watch them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pictures_in: Option<u64>,
    /// Bytes published.
    pub(crate) bytes_out: u64,
    /// Bytes that came back.
    pub(crate) bytes_in: u64,
    /// From the first byte out to the first byte back.
    #[serde(
        rename = "first_output_us",
        serialize_with = "optional_micros",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) first_output: Option<Duration>,
    /// From the last byte of a segment out to its last byte back.
    pub(crate) latency: Latencies,
    /// Payments that the orchestrator accepted.
    pub(crate) payments: u64,
    /// Payments that it refused.
    pub(crate) payments_refused: u64,
    /// Tickets in them.
    pub(crate) tickets: u64,
    /// The expected value of these tickets.
    #[serde(flatten, serialize_with = "paid")]
    pub(crate) paid: Option<Money>,
    /// The cost of a second, and how much of it all is due to rounding.
    #[serde(flatten, serialize_with = "cost")]
    pub(crate) charge: Option<Charge>,
    /// The balance left at the orchestrator.
    #[serde(flatten, serialize_with = "balance")]
    pub(crate) balance: Option<Money>,
    /// Oddities of the input.
    pub(crate) warnings: Warnings,
    /// The batch job that followed, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<BatchSummary>,
}

/// The figures of one batch job.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BatchSummary {
    /// The pipeline.
    pub(crate) pipeline: &'static str,
    /// The model.
    pub(crate) model: String,
    /// Bytes of the results.
    pub(crate) bytes: u64,
    /// Units that were paid for.
    pub(crate) units: u64,
    /// The word for one unit.
    pub(crate) unit: &'static str,
    /// The fee.
    #[serde(flatten, serialize_with = "fee")]
    pub(crate) cost: Money,
    /// Tickets that went along.
    pub(crate) tickets: u64,
    /// From the request to the answer.
    #[serde(rename = "waited_us", serialize_with = "micros")]
    pub(crate) waited: Duration,
}

fn fee<S: Serializer>(amount: &Money, serializer: S) -> Result<S::Ok, S::Error> {
    wei("cost_wei", "cost_wei_exact", Some(amount), serializer)
}

impl Summary {
    /// Two columns for people.
    pub(crate) fn to_table(&self) -> String {
        let optional = |figure: Option<Duration>| figure.map_or_else(|| "-".to_owned(), duration);
        let mut rows = vec![
            ("orchestrator", self.orchestrator.clone()),
            ("model", self.model.clone()),
            ("manifest id", self.manifest_id.clone()),
            (
                "elapsed",
                format!(
                    "{} for {} of media",
                    duration(self.elapsed),
                    duration(self.media)
                ),
            ),
            (
                "segments out / in / lost",
                format!(
                    "{} / {} / {}",
                    count(self.segments_out),
                    count(self.segments_in),
                    count(self.segments_lost)
                ),
            ),
            (
                "bytes out / in",
                format!("{} / {}", bytes(self.bytes_out), bytes(self.bytes_in)),
            ),
            ("first output byte after", optional(self.first_output)),
            (
                "segment latency p50 / p99",
                format!(
                    "{} / {}",
                    optional(self.latency.p50()),
                    optional(self.latency.p99())
                ),
            ),
            (
                "payments accepted / refused",
                format!(
                    "{} / {}",
                    count(self.payments),
                    count(self.payments_refused)
                ),
            ),
            ("tickets", count(self.tickets)),
        ];
        if self.swaps > 0 {
            let swaps = format!("{} / {}", count(self.swaps), count(self.segments_again));
            rows.insert(1, ("orchestrators lost / segments sent again", swaps));
        }
        if let Some(back) = self.pictures_in {
            let out = self.pictures_out.map_or_else(|| "-".to_owned(), count);
            rows.push(("pictures out / in", format!("{out} / {}", count(back))));
        }
        if let Some(paid) = &self.paid {
            rows.push(("expected value paid", Wei(&paid.0).to_string()));
        }
        if let Some(charge) = &self.charge {
            if let Some(cost) = charge.per_second() {
                rows.push(("cost of a second", Wei(&cost).to_string()));
            }
            if charge.rounding.is_positive() {
                let rounding = Wei(&charge.rounding).to_string();
                rows.push(("of it all for rounding up", rounding));
            }
        }
        if let Some(balance) = &self.balance {
            rows.push(("balance left", Wei(&balance.0).to_string()));
        }
        if !self.warnings.is_empty() {
            rows.push(("input", self.warnings.to_string()));
        }
        if let Some(batch) = &self.batch {
            rows.push((
                batch.pipeline,
                format!(
                    "{} {}s of {} in {}, {}",
                    count(batch.units),
                    batch.unit,
                    batch.model,
                    duration(batch.waited),
                    bytes(batch.bytes)
                ),
            ));
            rows.push((
                "paid for it",
                format!(
                    "{} in {} {}",
                    Wei(&batch.cost.0),
                    count(batch.tickets),
                    if batch.tickets == 1 {
                        "ticket"
                    } else {
                        "tickets"
                    },
                ),
            ));
        }
        facts(rows)
    }
}

fn micros<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

fn optional_micros<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => micros(duration, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let mut summary = Summary {
            orchestrator: "https://127.0.0.1:8935".into(),
            model: "noop".into(),
            manifest_id: "a1b2c3d4".into(),
            elapsed: Duration::from_millis(12_040),
            media: Duration::from_secs(12),
            segments_out: 12,
            segments_in: 12,
            bytes_out: 964_816,
            bytes_in: 964_816,
            first_output: Some(Duration::from_micros(3_210)),
            payments: 3,
            tickets: 7,
            paid: Some(Money(
                Amount::ratio(7_000_000_000_000_i64, 1).expect("good"),
            )),
            charge: Some(Charge {
                fee: Amount::ratio(7_000_000_000_000_i64, 1).expect("good"),
                time: Duration::from_millis(17_500),
                rounding: Amount::zero(),
            }),
            balance: Some(Money(Amount::ratio(-1, 3).expect("good"))),
            ..Summary::default()
        };
        for latency in [4, 5, 9] {
            summary.latency.record(Duration::from_millis(latency));
        }
        summary
    }

    #[test]
    fn people_get_a_table() {
        assert_eq!(
            summary().to_table(),
            "orchestrator                  https://127.0.0.1:8935\n\
             model                         noop\n\
             manifest id                   a1b2c3d4\n\
             elapsed                       12.0 s for 12.0 s of media\n\
             segments out / in / lost      12 / 12 / 0\n\
             bytes out / in                942.2 KiB / 942.2 KiB\n\
             first output byte after       3.2 ms\n\
             segment latency p50 / p99     5.0 ms / 9.0 ms\n\
             payments accepted / refused   3 / 0\n\
             tickets                       7\n\
             expected value paid           7,000,000,000,000 wei (7,000 gwei)\n\
             cost of a second              400,000,000,000 wei (400 gwei)\n\
             balance left                  ~0 wei\n"
        );
    }

    /// A job billed in whole seconds: two payments of 5 s for 4.8 s each.
    fn rounded_up() -> Summary {
        let mut summary = summary();
        summary.charge = Some(Charge {
            fee: Amount::ratio(10_000, 1).expect("good"),
            time: Duration::from_millis(9_600),
            rounding: Amount::ratio(400, 1).expect("good"),
        });
        summary
    }

    #[test]
    fn what_whole_seconds_cost_more_than_the_time_used_is_shown() {
        let table = rounded_up().to_table();
        for row in [
            "cost of a second              ~1,041 wei",
            "of it all for rounding up     400 wei",
        ] {
            assert!(table.contains(row), "{table}");
        }
        let json = serde_json::to_value(rounded_up()).expect("plain data");
        assert_eq!(json["wei_per_second"], "1041");
        assert_eq!(json["wei_per_second_exact"], "3125/3");
        assert_eq!(json["rounding_wei"], "400");
        assert_eq!(json["rounding_wei_exact"], "400");
    }

    #[test]
    fn machines_get_exact_numbers() {
        let json = serde_json::to_value(summary()).expect("plain data");
        assert_eq!(json["elapsed_us"], 12_040_000);
        assert_eq!(json["paid_wei"], "7000000000000");
        assert_eq!(json["paid_wei_exact"], "7000000000000");
        assert_eq!(json["wei_per_second"], "400000000000");
        assert_eq!(json["rounding_wei"], "0");
        assert_eq!(json["balance_wei"], "0");
        assert_eq!(json["balance_wei_exact"], "-1/3");
        assert_eq!(json["latency"]["max_us"], 9000);
        assert_eq!(json["warnings"]["jumps"], 0);
        let offchain = serde_json::to_value(Summary::default()).expect("plain data");
        for money in ["paid_wei", "wei_per_second", "rounding_wei"] {
            assert!(offchain.get(money).is_none(), "{money}");
        }
    }
}
