//! `select`: whom a job would get, and why.

use livepeer_core::pool::Candidate;
use livepeer_core::selection::{Balanced, Explanation};
use livepeer_runtime::{Driver, Runtime};
use serde::Serialize;

use super::discover::{search, survey};
use crate::args::SelectArgs;
use crate::cmd::stop::Stop;
use crate::cmd::{on, peers};
use crate::ui::{self, Outcome};

pub(crate) fn run(args: &SelectArgs) -> Outcome {
    on::run(args.find.runtime, Select(args))
}

struct Select<'a>(&'a SelectArgs);

impl on::Work for Select<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, _: Stop) -> Outcome {
        let args = &self.0.find;
        let (driver, discovered) = search(driver, args, "select").await?;
        let survey = survey(&driver, args, &discovered, "select").await?;
        peers::save_pins(&driver, &args.peers)?;
        let (chosen, rows, tried) = survey.look(|pool| {
            let chosen = pool.pick();
            let candidates = pool.candidates();
            let parts = pool.selector().explain(&candidates);
            let rows = candidates.iter().zip(&parts);
            let rows = rows.map(|(candidate, parts)| Row::new(candidate, parts));
            (chosen, rows.collect::<Vec<_>>(), pool.tried())
        });
        let Some(chosen) = chosen else {
            return Err(livepeer_runtime::api::Error::NoOrchestrator(tried).into());
        };
        let mut report = Report {
            chosen: chosen.to_string(),
            candidates: rows,
            rejected: tried
                .iter()
                .map(|one| Rejected {
                    address: one.url.to_string(),
                    why: one.why.to_string(),
                })
                .collect(),
        };
        report
            .candidates
            .sort_by(|a, b| b.probability.total_cmp(&a.probability));
        match (args.json, self.0.explain) {
            (true, _) => ui::print_json(&report),
            (false, false) => ui::print(&report.chosen),
            (false, true) => ui::print(&report.to_text()),
        }
    }
}

/// The ranking.
#[derive(Serialize)]
struct Report {
    chosen: String,
    candidates: Vec<Row>,
    rejected: Vec<Rejected>,
}

/// A candidate. Parts are one for the best there is, and less for the others; the probability is what their
/// weighted product comes to, against that of all.
#[derive(Serialize)]
struct Row {
    address: String,
    probability: f64,
    price: f64,
    latency: f64,
    reliability: f64,
    spread: f64,
    warmth: f64,
    wei_per_unit: Option<String>,
    latency_ms: f64,
    good: u32,
    bad: u32,
}

#[derive(Serialize)]
struct Rejected {
    address: String,
    why: String,
}

impl Row {
    fn new(candidate: &Candidate<'_>, parts: &Explanation) -> Self {
        let record = candidate.record;
        let seen = record.first_byte.or(record.round_trip);
        Self {
            address: candidate.url.to_string(),
            probability: parts.probability,
            price: parts.price,
            latency: parts.latency,
            reliability: parts.reliability,
            spread: parts.spread,
            warmth: parts.warmth,
            wei_per_unit: candidate.info.price.map(|price| price.to_string()),
            latency_ms: seen.unwrap_or(candidate.latency).as_secs_f64() * 1000.0,
            good: record.good,
            bad: record.bad,
        }
    }
}

impl Report {
    fn to_text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .candidates
            .iter()
            .map(|row| {
                let part = |part: f64| format!("{part:.2}");
                vec![
                    row.address.clone(),
                    format!("{:.1} %", row.probability * 100.0),
                    part(row.price),
                    part(row.latency),
                    part(row.reliability),
                    part(row.spread),
                    part(row.warmth),
                    row.wei_per_unit.clone().unwrap_or_else(|| "-".to_owned()),
                    format!("{:.1} ms", row.latency_ms),
                    format!("{}/{}", row.good, row.good + row.bad),
                ]
            })
            .collect();
        let mut text = ui::table(
            &[
                "address",
                "chance",
                "price",
                "latency",
                "reliability",
                "spread",
                "warmth",
                "wei/unit",
                "measured",
                "good jobs",
            ],
            &[1, 2, 3, 4, 5, 6, 7, 8, 9],
            &rows,
        );
        let strengths = Balanced::default().strengths;
        text.push_str(&format!(
            "\nchance = price^{} x latency^{} x reliability^{} x spread^{} x warmth, against the sum of all\n\
             this draw: {}\n",
            strengths.price, strengths.latency, strengths.reliability, strengths.spread, self.chosen
        ));
        for one in &self.rejected {
            text.push_str(&format!("rejected: {}: {}\n", one.address, one.why));
        }
        text
    }
}
