//! Figures of live entry, under the names of go-livepeer where it has them too (operations spec 5.2).

use alloc::string::{String, ToString as _};
use core::time::Duration;

use crate::figures::{Family, Jobs, Millis, Page};
use crate::pipeline::Pipeline;
use crate::wire::DEFAULT_MODEL;

/// Counters since the start.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) jobs: Jobs,
    attempts: Family<u64, 1>,
    running: Family<f64, 1>,
    first_segment: Family<Millis, 1>,
    swaps: Family<u64, 1>,
    auth: Family<Millis, 0>,
    hooks: Family<u64, 2>,
    /// Bytes that came and went on the connection by WHIP that was looked at last.
    whip: Option<(u64, u64)>,
}

/// Places of the operator's, and of media servers, that are asked or told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Auth,
    Heartbeat,
    Events,
    Kick,
}

impl Told {
    const fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Heartbeat => "heartbeat",
            Self::Events => "events",
            Self::Kick => "kick",
        }
    }
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            jobs: Jobs::of("live"),
            attempts: Family::new(
                "ai_live_attempt",
                ["model_name"],
                "Live streams that were let in.",
            ),
            running: Family::new(
                "ai_current_live_pipelines",
                ["pipeline"],
                "Live streams at work, by model.",
            ),
            first_segment: Family::new(
                "ai_first_segment_delay_ms",
                ["orchestrator_uri"],
                "How many milliseconds after a stream was let in its first output came.",
            ),
            swaps: Family::new(
                "live_swap_total",
                ["reason"],
                "Orchestrators of live streams that were lost and replaced, by the reason.",
            ),
            auth: Family::new(
                "auth_webhook_time_milliseconds",
                [],
                "How many milliseconds the webhook took to admit a stream.",
            ),
            hooks: Family::new(
                "webhook_requests_total",
                ["hook", "code"],
                "Questions to webhooks and media servers, by the status of the answer; none if no answer came.",
            ),
            whip: None,
        }
    }
}

/// The name of a model, also where the sender names none.
fn named(model: &str) -> &str {
    if model.is_empty() {
        DEFAULT_MODEL
    } else {
        model
    }
}

impl Figures {
    pub(super) fn admitted(&mut self, model: &str) {
        *self.attempts.at([named(model)]) += 1;
    }

    pub(super) fn began(&mut self, model: &str) {
        *self.running.at([named(model)]) += 1.0;
    }

    pub(super) fn ended(&mut self, model: &str) {
        *self.running.at([named(model)]) -= 1.0;
    }

    pub(super) fn failed(&mut self, reason: &str, orchestrator: &str, model: &str) {
        let pipeline = Pipeline::LiveVideoToVideo.name();
        self.jobs
            .failed(reason, orchestrator, pipeline, named(model));
    }

    pub(super) fn first_output(&mut self, orchestrator: &str, after: Duration) {
        self.first_segment.at([orchestrator]).add(after);
    }

    pub(super) fn swapped(&mut self, reason: &str) {
        *self.swaps.at([reason]) += 1;
    }

    pub(super) fn let_in(&mut self, after: Duration) {
        self.auth.at([]).add(after);
    }

    /// Counts an answer, or that none came.
    pub(super) fn told(&mut self, hook: Told, status: Option<u16>) {
        let code = status.map_or_else(|| String::from("none"), |status| status.to_string());
        *self.hooks.at([hook.name(), &code]) += 1;
    }

    pub(super) const fn whip(&mut self, received: u64, sent: u64) {
        self.whip = Some((received, sent));
    }

    /// Writes all but what other jobs have, too.
    pub(super) fn to_prometheus(&self) -> String {
        let mut page = Page::new();
        self.attempts.write(&mut page);
        self.running.write(&mut page);
        self.first_segment.write(&mut page);
        self.swaps.write(&mut page);
        self.auth.write(&mut page);
        self.hooks.write(&mut page);
        if let Some((received, sent)) = self.whip {
            for (way, bytes) in [("received", received), ("sent", sent)] {
                let name = alloc::format!("ai_whip_transport_bytes_{way}");
                let help = "Bytes on the connection by WHIP that was looked at last.";
                page.value(&name, "gauge", help, bytes);
            }
        }
        page.finish()
    }
}
