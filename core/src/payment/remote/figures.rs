//! Figures that a signer counts, in the text format of Prometheus.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use core::time::Duration;

use num_bigint::BigInt;

use super::{Event, HEALTH_PATH, METRICS_PATH};
use crate::chain::ChainView;
use crate::figures::{Figure as _, Page, Times};
use crate::machine::EffectId;
use crate::sign::Address;
use crate::time::Time;
use crate::wire::signer::{DISCOVERY_PATH, PAYMENT_PATH, SIGN_INFO_PATH};

/// The beginning of every name.
const PREFIX: &str = "livepeer_signer_";

/// Counters of a signer since its start.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The endpoint of each open exchange, and since when it is open.
    open: BTreeMap<EffectId, (&'static str, Time)>,
    answers: BTreeMap<(&'static str, u16), u64>,
    /// How long payments took.
    times: Times,
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
            self.times.add(now.since(since));
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
        let mut page = Page::new(PREFIX);
        page.family("requests_total", "counter", "Requests answered.");
        for ((endpoint, status), count) in &self.answers {
            let status = status.to_string();
            let labels = [("endpoint", *endpoint), ("status", status.as_str())];
            page.line("requests_total", &labels, count);
        }
        let name = "payment_seconds";
        page.family(name, Times::KIND, "How long requests for payments took.");
        self.times.write(&mut page, name, &[]);
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
        page.finish()
    }
}
