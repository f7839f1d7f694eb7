//! The report on work of a container or an app: a table for people, JSON for machines.

use std::time::Duration;

use livepeer_core::job::{app, byoc};
use livepeer_core::money::Price;
use livepeer_core::wire::app::Session;
use livepeer_runtime::api::{
    AppFailed, ByocFailed, ByocServed, ByocStreamBegun, MediaFigures, Spent,
};
use serde::{Serialize, Serializer};

use super::Answer;
use crate::ui::{self, Failed, Money, Outcome, Wei, bytes, count, duration, facts};

/// Outcome of work: who did it, what came of it and what it cost.
#[derive(Default, Serialize)]
pub(super) struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    capability: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    /// The orchestrator, or the runner behind it.
    pub(super) served_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Rented>,
    /// The app's own status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    content_type: String,
    pub(super) bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<Segments>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    /// Wei per second, exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    price_wei: Option<String>,
    #[serde(skip)]
    price: Option<Price>,
    tickets: u64,
    /// The worth of the tickets.
    #[serde(flatten, serialize_with = "worth")]
    worth: Option<Money>,
    /// Requests sent, those of earlier tries too.
    pub(super) tries: u32,
    /// Orchestrators or runners that were tried before.
    attempts: Vec<Attempt>,
    #[serde(rename = "elapsed_us", serialize_with = "micros")]
    elapsed: Duration,
}

/// Segments of a stream: published, come back, and lost.
#[derive(Serialize)]
struct Segments {
    out: u64,
    back: u64,
    lost: u64,
}

#[derive(Serialize)]
struct Rented {
    id: String,
    app_url: String,
    control_url: String,
}

#[derive(Serialize)]
struct Attempt {
    url: String,
    reason: String,
}

fn worth<S: Serializer>(amount: &Option<Money>, serializer: S) -> Result<S::Ok, S::Error> {
    ui::wei("paid_wei", "paid_wei_exact", amount.as_ref(), serializer)
}

fn micros<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(time.as_micros())
}

impl Report {
    pub(super) fn of_container(name: &str) -> Self {
        Self {
            capability: Some(name.to_owned()),
            ..Self::default()
        }
    }

    pub(super) fn of_app(name: &str) -> Self {
        Self {
            app: Some(name.to_owned()),
            tries: 1,
            ..Self::default()
        }
    }

    /// The head of a container's answer.
    pub(super) fn served(&mut self, served: &ByocServed) {
        self.served_by = served.url.to_string();
        self.content_type.clone_from(&served.content_type);
        self.tickets = served.tickets.into();
        self.priced(served.price);
        self.tried(&served.attempts);
    }

    /// A stream ran, and these are its figures.
    pub(super) fn streamed(&mut self, begun: &ByocStreamBegun, media: &MediaFigures) {
        self.served_by = begun.url.to_string();
        self.priced(begun.price);
        self.tried(&begun.attempts);
        self.tries = u32::try_from(self.attempts.len()).unwrap_or(u32::MAX);
        self.tries = self.tries.saturating_add(1);
        self.segments = Some(Segments {
            out: media.begun,
            back: media.answered,
            lost: media.missing,
        });
    }

    /// Whether all of a stream came back.
    pub(super) fn is_whole(&self) -> Outcome {
        match &self.segments {
            Some(Segments { lost, .. }) if *lost > 0 => Err(Failed::new(
                format_args!("{lost} segments were lost"),
                "See the log with --log info; the output has all the others",
            )),
            _ => Ok(()),
        }
    }

    fn priced(&mut self, price: Price) {
        if !price.is_free() {
            self.price = Some(price);
            self.price_wei = Some(price.fee(1).to_string());
        }
    }

    fn tried(&mut self, attempts: &[byoc::Attempt]) {
        let attempts = attempts.iter().map(|attempt| Attempt {
            url: attempt.url.to_string(),
            reason: attempt.left.to_string(),
        });
        self.attempts = attempts.collect();
    }

    /// No container did it.
    pub(super) fn not_done(&mut self, failed: &ByocFailed) {
        if let ByocFailed::NoOrchestrator { attempts }
        | ByocFailed::Exhausted { attempts, .. }
        | ByocFailed::Undecided { attempts } = failed
        {
            self.tried(attempts);
        }
    }

    /// No app did it.
    pub(super) fn not_rented(&mut self, failed: &AppFailed) {
        if let AppFailed::NoRunner { attempts } | AppFailed::Exhausted { attempts } = failed {
            let attempts = attempts.iter().map(|attempt: &app::Attempt| Attempt {
                url: attempt.url.to_string(),
                reason: attempt.why.cause.to_string(),
            });
            self.attempts = attempts.collect();
        }
    }

    pub(super) fn session(&mut self, session: &Session) {
        self.session = Some(Rented {
            id: session.id.clone(),
            app_url: session.app.to_string(),
            control_url: session.control.to_string(),
        });
    }

    pub(super) fn content_type(&mut self, of: Option<&str>) {
        of.unwrap_or_default().clone_into(&mut self.content_type);
    }

    pub(super) fn spent(&mut self, spent: &Spent) {
        if spent.payments > 0 {
            self.tickets = spent.tickets;
            self.worth = Some(Money(spent.expected_value.clone()));
        }
    }

    pub(super) fn ended(&mut self, answer: Option<&Answer>, elapsed: Duration) {
        self.answer = answer.and_then(Answer::value);
        self.file = answer.and_then(Answer::file);
        self.elapsed = elapsed;
    }

    pub(super) fn to_table(&self) -> String {
        let mut rows = Vec::new();
        let texts = [("container", &self.capability), ("app", &self.app)];
        for (name, text) in texts {
            rows.extend(text.clone().map(|text| (name, text)));
        }
        rows.push(("served by", self.served_by.clone()));
        if let Some(session) = &self.session {
            rows.push(("session", session.id.clone()));
        }
        if let Some(status) = self.status {
            rows.push(("status", status.to_string()));
        }
        if let Some(Segments { out, back, lost }) = &self.segments {
            let text = format!(
                "{} out, {} back, {} lost",
                count(*out),
                count(*back),
                count(*lost)
            );
            rows.push(("segments", text));
        }
        if self.status.is_some() || self.capability.is_some() {
            let kind = match &self.content_type[..] {
                "" => String::new(),
                kind => format!(" of {kind}"),
            };
            rows.push(("answer", format!("{}{kind}", bytes(self.bytes))));
        }
        if let Some(price) = &self.price {
            rows.push(("price", format!("{price} wei per second")));
        }
        if self.tickets > 0 {
            rows.push(("tickets", count(self.tickets)));
        }
        if let Some(Money(worth)) = &self.worth {
            rows.push(("paid", Wei(worth).to_string()));
        }
        for Attempt { url, reason } in &self.attempts {
            rows.push(("tried before", format!("{url}: {reason}")));
        }
        rows.push(("time", duration(self.elapsed)));
        facts(rows)
    }
}
