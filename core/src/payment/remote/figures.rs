//! Figures that a signer counts, in the text format of Prometheus.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use core::fmt::Display;
use core::time::Duration;

use num_bigint::BigInt;

use super::{Event, HEALTH_PATH, METRICS_PATH};
use crate::chain::ChainView;
use crate::figures::{Figure as _, Page, Times, payments};
use crate::machine::EffectId;
use crate::sign::Address;
use crate::time::Time;
use crate::wire::byoc::SIGN_JOB_PATH;
use crate::wire::signer::{DISCOVERY_PATH, PAYMENT_PATH, SIGN_INFO_PATH, STATUS_NO_TICKETS};

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
            SIGN_JOB_PATH,
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

    /// Payments that were asked for and not made.
    fn refused(&self) -> u64 {
        // Neither is a wrong method a payment, nor was one due where no ticket was.
        let fine = |status: u16| status < 400 || [405, STATUS_NO_TICKETS].contains(&status);
        let answers = self.answers.iter();
        let refused = answers.filter(|((path, status), _)| *path == PAYMENT_PATH && !fine(*status));
        refused.map(|(_, count)| count).sum()
    }

    pub(super) fn to_prometheus(&self, gauges: &Gauges<'_>) -> String {
        let mut page = Page::new();
        let name = "signer_requests_total";
        page.family(name, "counter", "Requests answered.");
        for ((endpoint, status), count) in &self.answers {
            let status = status.to_string();
            let labels = [("endpoint", *endpoint), ("status", status.as_str())];
            page.line(name, &labels, count);
        }
        let name = "signer_payment_seconds";
        page.family(name, Times::KIND, "How long requests for payments took.");
        self.times.write(&mut page, name, &[]);
        let counters: [(_, _, &dyn Display); 3] = [
            ("tickets_total", "Tickets made.", &self.tickets),
            (
                "tickets_wei_total",
                "What the tickets made are worth on average.",
                &self.value,
            ),
            ("fees_wei_total", "What was billed.", &self.fees),
        ];
        for (name, help, value) in counters {
            page.value(&format!("signer_{name}"), "counter", help, value);
        }
        payments::tickets_sent(&mut page, self.tickets);
        payments::ticket_value_sent(&mut page, &self.value);
        payments::payment_create_errors(&mut page, self.refused());
        self.write_gauges(&mut page, gauges);
        page.finish()
    }

    fn write_gauges(&self, page: &mut Page, gauges: &Gauges<'_>) {
        let age = gauges.chain_age.map(|age| age.as_secs_f64());
        let payer = gauges.chain.sender(gauges.payer);
        let all: [(_, _, Option<&dyn Display>); 8] = [
            (
                "open_requests",
                "Requests without an answer yet.",
                Some(&gauges.open),
            ),
            (
                "listed_orchestrators",
                "Orchestrators listed.",
                Some(&gauges.listed),
            ),
            (
                "chain_l1_block",
                "The last L1 block seen.",
                Some(&gauges.chain.l1_block),
            ),
            (
                "chain_round",
                "The last round seen.",
                Some(&gauges.chain.round),
            ),
            (
                "chain_age_seconds",
                "How long ago the chain was read.",
                age.as_ref().map(|age| age as &dyn Display),
            ),
            (
                "deposit_wei",
                "The payer's deposit.",
                payer.map(|payer| &payer.deposit as &dyn Display),
            ),
            (
                "reserve_wei",
                "What is left of the payer's reserve.",
                payer.map(|payer| &payer.reserve_remaining as &dyn Display),
            ),
            (
                "withdraw_round",
                "The round from which the payer may withdraw, 0 if it did not ask to.",
                payer.map(|payer| &payer.withdraw_round as &dyn Display),
            ),
        ];
        for (name, help, value) in all {
            if let Some(value) = value {
                page.value(&format!("signer_{name}"), "gauge", help, value);
            }
        }
        payments::account(page, gauges.chain, gauges.payer, gauges.chain_age);
    }
}
