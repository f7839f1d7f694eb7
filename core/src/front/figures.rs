//! Figures of the front door and of the batch jobs behind it, counted from how requests end (front-door spec 3.4).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};

use num_bigint::BigInt;
use num_traits::ToPrimitive as _;

use super::admission::Admission;
use super::route::Route;
use super::types::{Outcome, Summary};
use crate::figures::{Family, Jobs, Page, Times};
use crate::job::batch::{Left, Served};
use crate::job::byoc;
use crate::money::Amount;
use crate::sign::Address;
use crate::wire::byoc::Grounds;

/// Counters since the start. Names that Go's gateway has too keep its words and labels.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    requests: Family<u64, 5>,
    refused: Family<u64, 1>,
    /// Ends by state and outcome.
    ended: Family<u64, 2>,
    client_retries: u64,
    seconds: Family<Times, 1>,
    overhead: Family<Times, 1>,
    first_event: Family<Times, 1>,
    /// Wei that served jobs are charged: each fee rounded up.
    charged: BigInt,
    pub(super) jobs: Jobs,
    /// Payments of jobs for containers.
    orders: Jobs,
    /// Payments of calls of apps, and of sessions with them.
    calls: Jobs,
    models_requested: Family<u64, 2>,
    latency_score: Family<f64, 4>,
    price: Family<f64, 2>,
    left: Family<u64, 1>,
    containers: Family<u64, 2>,
    /// Addresses as texts.
    pub(super) addresses: Checksums,
}

/// Addresses and how they are written: the capitals of one are a hash, which is not to be made for each answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Checksums(BTreeMap<Address, String>);

/// At most this many addresses are remembered: far more than there are orchestrators.
const MAX_ADDRESSES: usize = 1_024;

impl Checksums {
    /// The address as it is written.
    pub(super) fn of(&mut self, address: Address) -> &str {
        if self.0.len() >= MAX_ADDRESSES && !self.0.contains_key(&address) {
            self.0.clear();
        }
        let text = self.0.entry(address);
        text.or_insert_with(|| address.checksummed())
    }
}

/// How things stand at the moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauges {
    /// Requests that are not answered yet, by route.
    pub(super) in_flight: BTreeMap<Route, u64>,
    /// Requests by state.
    pub(super) states: BTreeMap<Admission, u64>,
}

impl Default for Figures {
    fn default() -> Self {
        let job = ["pipeline", "model_name"];
        let try_ = [
            "orchestrator_uri",
            "orchestrator_address",
            "pipeline",
            "model_name",
        ];
        Self {
            requests: Family::new(
                "front_requests_total",
                ["route", "pipeline", "model_name", "status", "outcome"],
                "Requests that are over.",
            ),
            refused: Family::new(
                "front_refused_total",
                ["reason"],
                "Requests that were answered with an error.",
            ),
            ended: Family::new(
                "front_ended_total",
                ["state", "outcome"],
                "Requests that are over, by the state that they were in.",
            ),
            client_retries: 0,
            seconds: Family::new("front_seconds", ["route"], "How long requests took."),
            overhead: Family::new(
                "front_overhead_seconds",
                ["route"],
                "How much of that was this gateway's own time.",
            ),
            first_event: Family::new(
                "front_ttft_seconds",
                ["model_name"],
                "How long the first event of a stream took.",
            ),
            charged: BigInt::default(),
            jobs: Jobs::of("batch"),
            orders: Jobs::of("byoc"),
            calls: Jobs::of("app"),
            models_requested: Family::new(
                "ai_models_requested",
                job,
                "Batch requests that were answered.",
            ),
            latency_score: Family::new(
                "ai_request_latency_score",
                try_,
                "Seconds per unit of the last request.",
            ),
            price: Family::new("ai_request_price", job, "Wei per unit of the last request."),
            left: Family::new(
                "ai_retry_class_total",
                ["class"],
                "Orchestrators that were left for another one, by the reason.",
            ),
            containers: Family::new(
                "byoc_requests_total",
                ["capability", "code"],
                "Jobs for containers that are over, by the status that was answered; none if the client went away before.",
            ),
            addresses: Checksums::default(),
        }
    }
}

impl Figures {
    /// Counts a request that is over.
    pub(super) fn count(&mut self, of: &Summary, per_model: bool) {
        let route = of.route.map_or("", Route::name);
        let (pipeline, model) = match &of.job {
            Some((pipeline, model)) if per_model => (pipeline.name(), model.as_str()),
            Some((pipeline, _)) => (pipeline.name(), ""),
            None => ("", ""),
        };
        let status = of
            .status
            .map_or_else(String::new, |status| status.to_string());
        let labels = [route, pipeline, model, &status, of.outcome.name()];
        *self.requests.at(labels) += 1;
        if let Some(reason) = of.error {
            *self.refused.at([reason]) += 1;
        }
        *self.ended.at([of.state.name(), of.outcome.name()]) += 1;
        self.client_retries += u64::from(of.is_retry);
        self.seconds.at([route]).add(of.took);
        if let Some(overhead) = of.overhead {
            self.overhead.at([route]).add(overhead);
        }
        if let Some(first) = of.first {
            self.first_event.at([model]).add(first);
        }
        if of.job.is_none() {
            return;
        }
        let attempts = of.served.as_ref().map_or(&of.attempts, |of| &of.attempts);
        for attempt in attempts {
            let reason = format!("{}", attempt.reason);
            *self.left.at([&reason]) += 1;
            let at = attempt.url.origin();
            self.jobs.failed(&reason, &at, pipeline, model);
            if let Left::Nonce | Left::Balance | Left::Credentials = attempt.reason {
                self.jobs.refused();
            }
        }
        match &of.served {
            Some(served) => {
                if of.outcome == Outcome::Answered {
                    *self.models_requested.at([pipeline, model]) += 1;
                }
                self.count_served(served, pipeline, model);
            }
            None if of.outcome == Outcome::Refused => {
                let reason = of.error.unwrap_or("");
                self.jobs.failed(reason, "", pipeline, model);
            }
            None => {}
        }
    }

    /// Counts a job for a container that is over.
    pub(super) fn count_container(&mut self, capability: &str, status: Option<u16>) {
        let code = status.map_or_else(|| "none".into(), |status| status.to_string());
        *self.containers.at([capability, &code]) += 1;
    }

    /// Counts the payment of a job for a container that was done, and what came of others before.
    pub(super) fn count_order(&mut self, served: &byoc::Served) {
        if served.tickets > 0 {
            self.orders.paid(served.tickets.into(), &served.value);
        }
        self.count_attempts(&served.attempts);
    }

    /// Counts the payments of a job for a container that orchestrators did not take, or that could not be made.
    pub(super) fn count_attempts(&mut self, attempts: &[byoc::Attempt]) {
        for attempt in attempts {
            match attempt.left {
                byoc::Left::Unpaid => self.orders.unpaid(),
                byoc::Left::Refused(Grounds::Balance | Grounds::Signature | Grounds::Payment) => {
                    self.orders.refused();
                }
                _ => {}
            }
        }
    }

    /// Counts what a call of an app, or a session with it, was paid with.
    pub(super) fn count_app(&mut self, tickets: u64, value: &Amount) {
        self.calls.paid(tickets, value);
    }

    /// Counts payments of an app that could not be made, and those that its orchestrator did not take.
    pub(super) fn count_app_failures(&mut self, unmade: u64, refused: u64) {
        (0..unmade).for_each(|_| self.calls.unpaid());
        (0..refused).for_each(|_| self.calls.refused());
    }

    fn count_served(&mut self, served: &Served, pipeline: &str, model: &str) {
        self.charged += served.cost.as_ratio().ceil().to_integer();
        self.jobs.paid(served.tickets.into(), &served.value);
        let uri = served.url.origin();
        if served.units > 0 {
            let account = match served.address.is_zero() {
                true => "",
                false => self.addresses.of(served.address),
            };
            let score = served.upstream.as_secs_f64() / served.units as f64;
            *self.latency_score.at([&uri, account, pipeline, model]) = score;
        }
        if let Some(price) = &served.price {
            // For people to look at: fees are counted exactly, in wei.
            let price = price.of_one().as_ratio().to_f64().unwrap_or_default();
            *self.price.at([pipeline, model]) = price;
        }
    }

    /// Writes the page, with the jobs of others.
    pub(super) fn to_prometheus(&self, gauges: &Gauges, others: &Jobs) -> String {
        let mut page = Page::new();
        self.requests.write(&mut page);
        self.refused.write(&mut page);
        self.ended.write(&mut page);
        page.value(
            "front_client_retries_total",
            "counter",
            "Requests that a client's SDK sent again.",
            self.client_retries,
        );
        self.seconds.write(&mut page);
        self.overhead.write(&mut page);
        self.first_event.write(&mut page);
        page.family(
            "front_inflight",
            "gauge",
            "Requests that are not answered yet.",
        );
        for (route, count) in &gauges.in_flight {
            page.line("front_inflight", &[("route", route.name())], count);
        }
        page.value(
            "front_streams",
            "gauge",
            "Streams that are being written.",
            gauges.states.get(&Admission::Answering).unwrap_or(&0),
        );
        page.family(
            "front_state",
            "gauge",
            "Requests that are not answered yet, by the state of their admission.",
        );
        for (state, count) in &gauges.states {
            page.line("front_state", &[("state", state.name())], count);
        }
        page.value(
            "front_charge_wei_total",
            "counter",
            "Fees of served jobs, each rounded up.",
            &self.charged,
        );
        let hired = self.orders.clone().and(&self.calls);
        self.jobs.clone().and(&hired).and(others).write(&mut page);
        self.models_requested.write(&mut page);
        self.latency_score.write(&mut page);
        self.price.write(&mut page);
        self.left.write(&mut page);
        self.containers.write(&mut page);
        page.finish()
    }

    /// Writes the requests at a door for operators.
    pub(super) fn to_operators_prometheus(&self) -> String {
        let mut asked: Family<u64, 2> = Family::new(
            "ops_requests_total",
            ["route", "code"],
            "Requests at the door for operators, by the status that was answered; none if the client went away before.",
        );
        for ([route, _, _, status, _], count) in self.requests.iter() {
            let code = if status.is_empty() { "none" } else { status };
            *asked.at([route, code]) += count;
        }
        let mut page = Page::new();
        asked.write(&mut page);
        page.finish()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::time::Duration;

    use super::*;
    use crate::figures::{MAX_SERIES, OTHER};
    use crate::front::types::RequestId;
    use crate::http::Url;
    use crate::job::batch::{Attempt, Left};
    use crate::money::{Amount, Price};
    use crate::pipeline::Pipeline;
    use crate::rng::Rng;
    use crate::time::Time;

    fn summary(model: &str) -> Summary {
        Summary {
            id: RequestId::draw(Time::ZERO, &mut Rng::new([1; 32])),
            route: Some(Route::Chat),
            state: Admission::Working,
            status: Some(200),
            error: None,
            outcome: Outcome::Answered,
            job: Some((Pipeline::Llm, model.into())),
            served: None,
            attempts: Vec::new(),
            is_retry: false,
            took: Duration::from_millis(20),
            overhead: None,
            first: None,
        }
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn each_end_of_a_request_is_counted_where_it_belongs() {
        let mut figures = Figures::default();
        let attempts = Vec::from([Attempt {
            url: url("https://a.example:8935"),
            reason: Left::Busy,
        }]);
        let mut live = Jobs::of("live");
        live.paid(1, &Amount::ratio(500_000_000, 1).unwrap());
        figures.count(
            &Summary {
                served: Some(Served {
                    url: url("https://b.example:8935"),
                    address: Address([1; 20]),
                    units: 1_000,
                    price: Price::new(12_500, 3),
                    cost: Amount::ratio(10, 3).unwrap(),
                    tickets: 2,
                    value: Amount::ratio(3_500_000_000_u64, 1).unwrap(),
                    attempts: attempts.clone(),
                    waited: Duration::ZERO,
                    selecting: Duration::ZERO,
                    paying: Duration::ZERO,
                    upstream: Duration::from_secs(2),
                }),
                is_retry: true,
                overhead: Some(Duration::from_micros(300)),
                ..summary("m")
            },
            true,
        );
        figures.count(
            &Summary {
                status: Some(503),
                error: Some("no_orchestrator"),
                outcome: Outcome::Refused,
                attempts,
                ..summary("m")
            },
            true,
        );
        let gauges = Gauges {
            in_flight: BTreeMap::from([(Route::Chat, 3)]),
            states: BTreeMap::from([(Admission::Reading, 1), (Admission::Answering, 2)]),
        };
        let page = figures.to_prometheus(&gauges, &live);
        let chat = Route::Chat.name();
        for line in [
            &*format!(
                "front_requests_total{{route=\"{chat}\",pipeline=\"llm\",model_name=\"m\",status=\"200\",outcome=\"answered\"}} 1"
            ),
            "front_refused_total{reason=\"no_orchestrator\"} 1",
            "front_client_retries_total 1",
            &format!("front_seconds_count{{route=\"{chat}\"}} 2"),
            &format!("front_overhead_seconds_bucket{{route=\"{chat}\",le=\"0.0005\"}} 1"),
            &format!("front_inflight{{route=\"{chat}\"}} 3"),
            "front_streams 2",
            "front_state{state=\"reading\"} 1",
            "front_ended_total{state=\"working\",outcome=\"refused\"} 1",
            "front_charge_wei_total 4",
            "tickets_sent 3",
            "ticket_value_sent 4",
            "ai_models_requested{pipeline=\"llm\",model_name=\"m\"} 1",
            "ai_request_latency_score{orchestrator_uri=\"https://b.example:8935\",orchestrator_address=\"0x0101010101010101010101010101010101010101\",pipeline=\"llm\",model_name=\"m\"} 0.002",
            "ai_request_errors{error_code=\"busy\",orchestrator_uri=\"https://a.example:8935\",pipeline=\"llm\",model_name=\"m\"} 2",
            "ai_request_errors{error_code=\"no_orchestrator\",orchestrator_uri=\"\",pipeline=\"llm\",model_name=\"m\"} 1",
            "ai_retry_class_total{class=\"busy\"} 2",
        ] {
            let line = format!("\nlivepeer_{line}\n");
            assert!(page.contains(&line), "{line}{page}");
        }
    }

    #[test]
    fn addresses_are_written_as_ever_and_few_are_remembered() {
        let mut all = Checksums::default();
        for n in 0..2 * MAX_ADDRESSES {
            let mut address = Address([0xab; 20]);
            address.0[..8].copy_from_slice(&n.to_be_bytes());
            for _ in 0..2 {
                assert_eq!(all.of(address), address.checksummed());
            }
            assert!(all.0.len() <= MAX_ADDRESSES);
        }
    }

    #[test]
    fn names_that_callers_make_up_do_not_grow_the_page_for_ever() {
        let mut figures = Figures::default();
        for n in 0..MAX_SERIES + 10 {
            figures.count(&summary(&format!("m{n}")), true);
        }
        assert_eq!(figures.requests.iter().count(), MAX_SERIES + 1);
        let labels = [Route::Chat.name(), "llm", OTHER, "200", "answered"];
        assert_eq!(figures.requests.get(labels), Some(&10));
    }

    #[test]
    fn figures_without_models_have_an_empty_label() {
        let mut figures = Figures::default();
        for n in 0..3 {
            figures.count(&summary(&format!("m{n}")), false);
        }
        let labels = [Route::Chat.name(), "llm", "", "200", "answered"];
        assert_eq!(figures.requests.get(labels), Some(&3));
        assert_eq!(figures.requests.iter().count(), 1);
    }
}
