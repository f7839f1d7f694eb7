//! The report on a batch job: a table for people, JSON for machines.

use std::time::Duration;

use livepeer_core::job::batch::{self, Trying};
use livepeer_core::money::Price;
use livepeer_core::wire::batch::BatchRequest;
use livepeer_runtime::api::{BatchFailed, Served};
use serde::{Serialize, Serializer};

use crate::ui::{self, Money, Wei, count, duration, facts};

/// Outcome of a job: who did it and what it cost; of one that failed, who had it last. Money is left out where nobody
/// pays.
#[derive(Serialize)]
pub(super) struct Report {
    pipeline: &'static str,
    model: String,
    /// The answer, with files in the place of URLs; not of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<serde_json::Value>,
    /// The files that were written.
    pub(super) files: Vec<String>,
    orchestrator: String,
    address: String,
    units: u64,
    unit: &'static str,
    /// Wei per unit, exactly: `100` or `12500/3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    price_wei: Option<String>,
    #[serde(skip)]
    price: Option<Price>,
    #[serde(flatten, serialize_with = "cost")]
    cost: Option<Money>,
    tickets: u32,
    /// How many times the request was sent.
    tries: u32,
    /// Orchestrators that were tried before.
    attempts: Vec<Attempt>,
    #[serde(rename = "elapsed_us", serialize_with = "micros")]
    elapsed: Duration,
    #[serde(rename = "selecting_us", serialize_with = "micros")]
    selecting: Duration,
    #[serde(rename = "paying_us", serialize_with = "micros")]
    paying: Duration,
    #[serde(rename = "upstream_us", serialize_with = "micros")]
    upstream: Duration,
}

#[derive(Serialize)]
struct Attempt {
    orchestrator: String,
    reason: String,
}

fn cost<S: Serializer>(amount: &Option<Money>, serializer: S) -> Result<S::Ok, S::Error> {
    ui::wei("cost_wei", "cost_wei_exact", amount.as_ref(), serializer)
}

fn micros<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(time.as_micros())
}

impl Report {
    pub(super) fn new(request: &BatchRequest) -> Self {
        Self {
            pipeline: request.pipeline().name(),
            model: request.model().to_owned(),
            answer: None,
            files: Vec::new(),
            orchestrator: String::new(),
            address: String::new(),
            units: 0,
            unit: request.pipeline().work_unit().name(),
            price_wei: None,
            price: None,
            cost: None,
            tickets: 0,
            tries: 0,
            attempts: Vec::new(),
            elapsed: Duration::ZERO,
            selecting: Duration::ZERO,
            paying: Duration::ZERO,
            upstream: Duration::ZERO,
        }
    }

    /// An orchestrator gets the request.
    pub(super) fn trying(&mut self, trying: &Trying) {
        self.orchestrator = trying.url.to_string();
        self.address = trying.address.checksummed();
        self.price_wei = trying.price.map(|price| price.fee(1).to_string());
        self.tries = trying.attempt;
    }

    /// Nobody did it.
    pub(super) fn failed(&mut self, failed: &BatchFailed) {
        if let BatchFailed::NoOrchestrator { attempts, .. }
        | BatchFailed::TimedOut { attempts }
        | BatchFailed::ResultLost { attempts, .. } = failed
        {
            self.attempts(attempts);
        }
    }

    pub(super) fn took(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
    }

    fn attempts(&mut self, attempts: &[batch::Attempt]) {
        let attempts = attempts.iter().map(|attempt| Attempt {
            orchestrator: attempt.url.to_string(),
            reason: attempt.reason.to_string(),
        });
        self.attempts = attempts.collect();
    }

    pub(super) fn served(&mut self, served: &Served) {
        self.orchestrator = served.url.to_string();
        self.address = served.address.checksummed();
        self.units = served.units;
        self.price_wei = served.price.map(|price| price.fee(1).to_string());
        self.price = served.price;
        self.cost = served.price.map(|_| Money(served.cost.clone()));
        self.tickets = served.tickets;
        self.attempts(&served.attempts);
        self.selecting = served.selecting;
        self.paying = served.paying;
        self.upstream = served.upstream;
    }

    pub(super) fn to_table(&self) -> String {
        let mut rows = vec![
            ("orchestrator", self.orchestrator.clone()),
            ("model", self.model.clone()),
            ("work", format!("{} {}s", count(self.units), self.unit)),
        ];
        if let (Some(price), Some(Money(cost))) = (&self.price, &self.cost) {
            rows.push(("price", format!("{price} wei per {}", self.unit)));
            rows.push(("cost", Wei(cost).to_string()));
            rows.push(("tickets", count(self.tickets.into())));
        }
        for attempt in &self.attempts {
            let Attempt {
                orchestrator,
                reason,
            } = attempt;
            rows.push(("tried before", format!("{orchestrator}: {reason}")));
        }
        let parts = [
            ("choosing", self.selecting),
            ("paying", self.paying),
            ("their work", self.upstream),
        ];
        let parts = parts.map(|(what, time)| format!("{what} {}", duration(time)));
        rows.push((
            "time",
            format!("{} ({})", duration(self.elapsed), parts.join(", ")),
        ));
        facts(rows)
    }
}
