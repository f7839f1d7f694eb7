//! Programs that serve a request in place of a pipeline, and what header fields tell of them (front-door spec 3.1).

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use num_bigint::BigInt;

use super::reply::{attempt_log, millis, printable, write_cost};
use super::types::{Config, Transparency};
use crate::http::Headers;
use crate::job::byoc::{Attempt, Served};
use crate::money::Amount;
use crate::payment::Unit;
use crate::time::Time;

/// Facts about who serves.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) origin: String,
    /// Wei for a unit, where anything is paid for this request alone.
    pub(super) price: Option<(Amount, Unit)>,
    /// How long it took until the backend answered, if that was measured.
    pub(super) waited: Option<Duration>,
    /// Orchestrators that were tried before, and why they did not serve.
    pub(super) attempts: Vec<(String, String)>,
}

impl Facts {
    /// The facts of a container that serves.
    pub(super) fn of(served: &Served) -> Self {
        Self {
            origin: served.url.origin(),
            price: Some((served.price.of_one(), Unit::Seconds)),
            waited: Some(served.waited),
            attempts: told(&served.attempts),
        }
    }
}

/// Facts about a backend that header fields tell.
#[derive(Debug)]
pub(super) struct Hired<'a> {
    /// The model, as the client called it.
    pub(super) name: &'a str,
    /// The word of the backend's kind.
    pub(super) kind: &'static str,
    /// When it was asked.
    pub(super) asked: Time,
    pub(super) facts: &'a Facts,
    /// Whether all that there is to pay is known.
    pub(super) whole: bool,
    pub(super) now: Time,
    pub(super) began: Time,
    pub(super) received: Time,
}

impl Hired<'_> {
    /// Adds the fields.
    pub(super) fn write(&self, config: &Config, headers: &mut Headers) {
        let (facts, full) = (self.facts, config.transparency == Transparency::Full);
        if config.transparency == Transparency::None {
            return;
        }
        if full {
            headers.push_any("livepeer-orchestrator", facts.origin.as_str());
            headers.push("livepeer-pipeline", self.kind);
        }
        headers.push_any("livepeer-model", printable(self.name));
        self.write_price(config, headers);
        if full {
            headers.push("livepeer-attempts", (facts.attempts.len() + 1).to_string());
            if !facts.attempts.is_empty() {
                let each = facts.attempts.iter();
                let each = each.map(|(origin, why)| (origin.clone(), printable(why)));
                let log = attempt_log(each, &facts.origin);
                headers.push_any("livepeer-attempt-log", log);
            }
            if let Some(waited) = facts.waited {
                let total = self.now.since(self.began);
                let receiving = self.received.since(self.began);
                let own = total.saturating_sub(receiving).saturating_sub(waited);
                headers.push("livepeer-overhead-ms", millis(own));
            }
        }
    }

    /// Adds what is paid. Seconds are counted as orchestrators do: those that have begun.
    fn write_price(&self, config: &Config, headers: &mut Headers) {
        let Some((price, unit)) = &self.facts.price else {
            return;
        };
        let took = self.now.since(self.asked);
        let (unit, units) = match unit {
            Unit::Fixed => ("call", 1),
            Unit::Seconds => {
                let begun = took.as_secs() + u64::from(took.subsec_nanos() > 0);
                ("second", begun.max(1))
            }
            _ => return headers.push("livepeer-price", price.to_string()),
        };
        headers.push("livepeer-unit", unit);
        headers.push("livepeer-price", price.to_string());
        if self.whole || unit == "call" {
            let cost = Amount::from(price.as_ratio() * BigInt::from(units));
            headers.push("livepeer-units", units.to_string());
            write_cost(&cost, config, headers);
        }
    }
}

/// Orchestrators that did not serve, and why each did not.
pub(super) fn told(attempts: &[Attempt]) -> Vec<(String, String)> {
    let told = attempts.iter();
    told.map(|one| (one.url.origin(), one.left.to_string()))
        .collect()
}
