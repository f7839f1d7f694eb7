//! Figures of the orchestrators, as they were when all of them were asked last: names and labels of go-livepeer
//! (operations spec 5.2). One that is not there any more has no series.

use num_traits::ToPrimitive as _;

use super::{Family, Page};
use crate::money::Amount;

/// Orchestrators as they were when all of them were asked last.
#[derive(Clone, Debug)]
pub struct Network {
    found: usize,
    errors: Family<u64, 2>,
    prices: Family<f64, 1>,
    busy: Family<f64, 3>,
    idle: Family<f64, 3>,
}

impl Default for Network {
    fn default() -> Self {
        // The labels of the reference, whose pipeline is always empty.
        let labels = ["model_name", "orchestrator_uri", "pipeline"];
        Self {
            found: 0,
            errors: Family::new(
                "discovery_errors_total",
                ["orchestrator_uri", "error_code"],
                "Orchestrators that were asked how they are, in vain.",
            ),
            prices: Family::new(
                "live_ai_price_per_pixel",
                ["orchestrator_uri"],
                "Wei that an orchestrator asks for a pixel of live video.",
            ),
            busy: Family::new(
                "ai_container_in_use",
                labels,
                "Containers of live video at work.",
            ),
            idle: Family::new(
                "ai_container_idle",
                labels,
                "Containers of live video free.",
            ),
        }
    }
}

impl Network {
    /// Begins anew, with so many orchestrators found. Errors count on.
    pub fn begin(&mut self, found: usize) {
        let before = core::mem::take(self);
        self.errors = before.errors;
        self.found = found;
    }

    /// Counts an orchestrator that was asked in vain, for that reason.
    pub fn failed(&mut self, orchestrator: &str, reason: &str) {
        *self.errors.at([orchestrator, reason]) += 1;
    }

    /// Notes an orchestrator's price of a pixel of live video.
    pub fn price(&mut self, orchestrator: &str, price: &Amount) {
        *self.prices.at([orchestrator]) = price.as_ratio().to_f64().unwrap_or_default();
    }

    /// Notes how many containers of live video an orchestrator has for a model: at work, and free.
    pub fn containers(&mut self, orchestrator: &str, model: &str, busy: u32, idle: u32) {
        let labels = [model, orchestrator, ""];
        *self.busy.at(labels) = busy.into();
        *self.idle.at(labels) = idle.into();
    }

    /// Writes them.
    pub fn write(&self, page: &mut Page) {
        page.value(
            "ai_orchestrators_available_total",
            "gauge",
            "Orchestrators found.",
            self.found,
        );
        self.errors.write(page);
        self.prices.write(page);
        self.busy.write(page);
        self.idle.write(page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orchestrators_are_as_they_were_last_and_errors_count_on() {
        let mut network = Network::default();
        let one = "https://o1.example:8935";
        network.begin(2);
        network.price(one, &Amount::ratio(3, 2).expect("not by zero"));
        network.containers(one, "noop", 1, 3);
        network.failed("https://o2.example:8935", "unreachable");
        network.begin(1);
        network.failed("https://o2.example:8935", "unreachable");
        network.containers(one, "noop", 2, 2);
        let mut page = Page::new();
        network.write(&mut page);
        let text = page.finish();
        for line in [
            "livepeer_ai_orchestrators_available_total 1",
            "livepeer_discovery_errors_total{orchestrator_uri=\"https://o2.example:8935\",error_code=\"unreachable\"} 2",
            "livepeer_ai_container_in_use{model_name=\"noop\",orchestrator_uri=\"https://o1.example:8935\",pipeline=\"\"} 2",
            "livepeer_ai_container_idle{model_name=\"noop\",orchestrator_uri=\"https://o1.example:8935\",pipeline=\"\"} 2",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
        assert!(!text.contains("live_ai_price_per_pixel"), "{text}");
    }
}
