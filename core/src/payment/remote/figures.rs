//! Figures that a signer counts, in the text format of Prometheus.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use core::fmt::{Display, Write as _};
use core::time::Duration;

use num_bigint::BigInt;

use super::{Event, HEALTH_PATH, METRICS_PATH};
use crate::chain::ChainView;
use crate::machine::EffectId;
use crate::sign::Address;
use crate::time::Time;
use crate::wire::signer::{DISCOVERY_PATH, PAYMENT_PATH, SIGN_INFO_PATH};

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// Upper bounds of the times counted, in microseconds.
const BUCKETS: [u64; 8] = [
    500, 1_000, 2_500, 10_000, 50_000, 250_000, 1_000_000, 5_000_000,
];

/// Counters of a signer since its start.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The endpoint of each open exchange, and since when it is open.
    open: BTreeMap<EffectId, (&'static str, Time)>,
    answers: BTreeMap<(&'static str, u16), u64>,
    /// How long payments took, by bucket, not summed up.
    times: [u64; BUCKETS.len() + 1],
    time: Duration,
    tickets: u64,
    /// The value in whole wei, cut for each payment.
    value: BigInt,
    fees: BigInt,
}

/// How things stand at the moment.
pub(super) struct Gauges<'a> {
    pub(super) open: usize,
    pub(super) listed: usize,
    pub(super) chain: &'a ChainView,
    /// How old the reading is, if it comes from the chain.
    pub(super) chain_age: Option<Duration>,
    pub(super) payer: Address,
}

impl Figures {
    /// How many requests to an endpoint, such as `/generate-live-payment`, were answered with a status.
    #[must_use]
    pub fn answers(&self, path: &str, status: u16) -> u64 {
        let count = |((endpoint, code), count): (&(&str, u16), &u64)| {
            (*endpoint == path && *code == status).then_some(*count)
        };
        self.answers.iter().find_map(count).unwrap_or(0)
    }

    /// How many tickets were made.
    #[must_use]
    pub const fn tickets(&self) -> u64 {
        self.tickets
    }

    pub(super) fn begin(&mut self, id: EffectId, path: &str, now: Time) {
        let known = [
            PAYMENT_PATH,
            SIGN_INFO_PATH,
            DISCOVERY_PATH,
            HEALTH_PATH,
            METRICS_PATH,
        ];
        // What callers make up must not become labels.
        let endpoint = known.into_iter().find(|known| *known == path);
        self.open.insert(id, (endpoint.unwrap_or("other"), now));
    }

    pub(super) fn left(&mut self, id: EffectId) {
        self.open.remove(&id);
    }

    pub(super) fn answered(&mut self, id: EffectId, status: u16, now: Time) {
        let Some((endpoint, since)) = self.open.remove(&id) else {
            return;
        };
        *self.answers.entry((endpoint, status)).or_default() += 1;
        if endpoint == PAYMENT_PATH {
            let took = now.since(since);
            let micros = took.as_micros();
            let bucket = BUCKETS
                .iter()
                .position(|bound| micros <= u128::from(*bound));
            self.times[bucket.unwrap_or(BUCKETS.len())] += 1;
            self.time += took;
        }
    }

    pub(super) fn minted(&mut self, event: &Event) {
        if let Event::Minted {
            tickets,
            value,
            fee,
            ..
        } = event
        {
            self.tickets += u64::from(*tickets);
            self.value += value.whole_wei();
            self.fees += fee.whole_wei();
        }
    }

    pub(super) fn to_prometheus(&self, gauges: &Gauges<'_>) -> String {
        let mut page = Page(String::new());
        page.family("requests_total", "counter", "Requests answered.");
        for ((endpoint, status), count) in &self.answers {
            let labels = format!("{{endpoint=\"{endpoint}\",status=\"{status}\"}}");
            page.line("requests_total", &labels, count);
        }
        let name = "payment_seconds";
        page.family(name, "histogram", "How long requests for payments took.");
        let mut sum = 0;
        for (count, bound) in self.times.iter().zip(BUCKETS) {
            sum += count;
            let labels = format!("{{le=\"{}\"}}", Duration::from_micros(bound).as_secs_f64());
            page.line("payment_seconds_bucket", &labels, sum);
        }
        sum += self.times[BUCKETS.len()];
        page.line("payment_seconds_bucket", "{le=\"+Inf\"}", sum);
        page.line("payment_seconds_sum", "", self.time.as_secs_f64());
        page.line("payment_seconds_count", "", sum);
        page.value("tickets_total", "counter", "Tickets made.", self.tickets);
        page.value(
            "tickets_wei_total",
            "counter",
            "What the tickets made are worth on average.",
            &self.value,
        );
        page.value("fees_wei_total", "counter", "What was billed.", &self.fees);
        page.value(
            "open_requests",
            "gauge",
            "Requests without an answer yet.",
            gauges.open,
        );
        page.value(
            "listed_orchestrators",
            "gauge",
            "Orchestrators listed.",
            gauges.listed,
        );
        page.value(
            "chain_l1_block",
            "gauge",
            "The last L1 block seen.",
            gauges.chain.l1_block,
        );
        page.value(
            "chain_round",
            "gauge",
            "The last round seen.",
            gauges.chain.round,
        );
        if let Some(age) = gauges.chain_age {
            let help = "How long ago the chain was read.";
            page.value("chain_age_seconds", "gauge", help, age.as_secs_f64());
        }
        if let Some(payer) = gauges.chain.sender(gauges.payer) {
            page.value(
                "deposit_wei",
                "gauge",
                "The payer's deposit.",
                &payer.deposit,
            );
            page.value(
                "reserve_wei",
                "gauge",
                "What is left of the payer's reserve.",
                &payer.reserve_remaining,
            );
            page.value(
                "withdraw_round",
                "gauge",
                "The round from which the payer may withdraw, 0 if it did not ask to.",
                payer.withdraw_round,
            );
        }
        page.0
    }
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.0,
            "# HELP livepeer_signer_{name} {help}\n# TYPE livepeer_signer_{name} {kind}"
        );
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "livepeer_signer_{name}{labels} {value}");
    }

    fn value(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.line(name, "", value);
    }
}
