//! Figures of jobs, whoever they are for. Front door and live entry count theirs in a value each, and one page has the
//! sum: names and labels of go-livepeer (operations spec 5.2), but for the text of errors. That is told by the reason,
//! since texts of peers would be labels without bound.

use num_bigint::BigInt;

use super::{Family, Page, payments};
use crate::money::Amount;

/// Counters of the jobs of one kind, or of several together.
#[derive(Clone, Debug)]
pub struct Jobs {
    /// The kind, in a word.
    kind: &'static str,
    errors: Family<u64, 4>,
    tickets: u64,
    /// The worth of the tickets in whole wei, each payment's cut.
    value: BigInt,
    /// Payments that could not be made.
    unmade: u64,
    /// Payments that were not taken, and those that could not be made.
    failures: Family<u64, 1>,
}

impl Jobs {
    /// Nothing counted yet, of jobs of that kind.
    #[must_use]
    pub const fn of(kind: &'static str) -> Self {
        Self {
            kind,
            errors: Family::new(
                "ai_request_errors",
                ["error_code", "orchestrator_uri", "pipeline", "model_name"],
                "Tries that failed; without an orchestrator, requests that nobody did.",
            ),
            tickets: 0,
            value: BigInt::ZERO,
            unmade: 0,
            failures: Family::new(
                "payment_failures_total",
                ["job"],
                "Payments that could not be made, and those that orchestrators did not take, by the kind of job.",
            ),
        }
    }

    /// Counts a payment of so many tickets, and what they are worth.
    pub(crate) fn paid(&mut self, tickets: u64, value: &Amount) {
        self.tickets += tickets;
        self.value += value.whole_wei();
    }

    /// Counts a payment that could not be made.
    pub(crate) fn unpaid(&mut self) {
        self.unmade += 1;
        self.refused();
    }

    /// Counts a payment that an orchestrator did not take.
    pub(crate) fn refused(&mut self) {
        *self.failures.at([self.kind]) += 1;
    }

    /// Counts a try that failed for that reason; without an orchestrator, a job that nobody did.
    pub(crate) fn failed(&mut self, reason: &str, orchestrator: &str, pipeline: &str, model: &str) {
        *self.errors.at([reason, orchestrator, pipeline, model]) += 1;
    }

    /// Adds those of another kind.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.errors.add(&other.errors);
        self.failures.add(&other.failures);
        self.tickets += other.tickets;
        self.value += &other.value;
        self.unmade += other.unmade;
        self
    }

    /// Writes them.
    pub(crate) fn write(&self, page: &mut Page) {
        payments::tickets_sent(page, self.tickets);
        payments::ticket_value_sent(page, &self.value);
        payments::payment_create_errors(page, self.unmade);
        self.failures.write(page);
        self.errors.write(page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_of_all_kinds_are_summed_up_on_one_page() {
        let (mut batch, mut live) = (Jobs::of("batch"), Jobs::of("live"));
        batch.paid(
            2,
            &Amount::ratio(7_000_000_000_u64, 2).expect("not by zero"),
        );
        live.paid(1, &Amount::ratio(500_000_000, 1).expect("not by zero"));
        batch.refused();
        batch.unpaid();
        live.unpaid();
        for jobs in [&mut batch, &mut live] {
            jobs.failed("busy", "https://o.example", "llm", "m");
        }
        let mut page = Page::new();
        batch.and(&live).write(&mut page);
        let text = page.finish();
        for line in [
            "livepeer_tickets_sent 3",
            "livepeer_ticket_value_sent 4",
            "livepeer_payment_create_errors 2",
            "livepeer_payment_failures_total{job=\"batch\"} 2",
            "livepeer_payment_failures_total{job=\"live\"} 1",
            "livepeer_ai_request_errors{error_code=\"busy\",orchestrator_uri=\"https://o.example\",pipeline=\"llm\",model_name=\"m\"} 2",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
    }
}
