//! How much went through a channel, and how fast.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::ui::{self, Latencies, Outcome, bytes, count, duration};

/// The figures of one end of a channel.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures {
    /// The channel's URL.
    channel: String,
    #[serde(skip)]
    began: Instant,
    #[serde(skip)]
    latency_of: &'static str,
    /// Segments that are whole.
    pub(super) segments: u64,
    /// Segments that were lost or missed, or ended too early.
    pub(super) lost: u64,
    /// Times a segment went on over another connection.
    pub(super) resumed: u64,
    /// Bytes of all segments.
    pub(super) bytes: u64,
    /// Latencies of the end of the channel that the table names.
    pub(super) latency: Latencies,
    elapsed_us: u64,
}

impl Figures {
    /// Figures of nothing yet. `latency_of` names in the table what the latencies are of.
    pub(super) fn new(channel: String, latency_of: &'static str) -> Self {
        Self {
            channel,
            began: Instant::now(),
            latency_of,
            segments: 0,
            lost: 0,
            resumed: 0,
            bytes: 0,
            latency: Latencies::default(),
            elapsed_us: 0,
        }
    }

    /// The note for the line of progress.
    pub(super) fn note(&self) -> String {
        let latency = self
            .latency
            .p50()
            .map_or_else(String::new, |p50| format!(", {} p50", duration(p50)));
        format!("{}, {}{latency}", bytes(self.bytes), self.rate())
    }

    fn rate(&self) -> String {
        let millis = self.began.elapsed().as_millis().max(1);
        let rate = u128::from(self.bytes) * 1000 / millis;
        format!("{}/s", bytes(u64::try_from(rate).unwrap_or(u64::MAX)))
    }

    /// Shows them, if there are any, with what came of the command: as JSON on standard output; as a table there if it
    /// is free, else on standard error.
    ///
    /// # Errors
    /// The failure of the command itself, or if the figures cannot be written.
    pub(super) fn show(mut self, json: bool, stdout_is_free: bool, outcome: Outcome) -> Outcome {
        if self.bytes == 0 && self.segments + self.lost == 0 {
            return outcome;
        }
        let elapsed = self.began.elapsed();
        self.elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        if json {
            return ui::print_json_with(&self, outcome);
        }
        let table = self.table(elapsed);
        if stdout_is_free {
            ui::print(&table)?;
        } else {
            ui::tell(&table);
        }
        outcome
    }

    fn table(&self, elapsed: Duration) -> String {
        let optional = |figure: Option<Duration>| figure.map_or_else(|| "-".to_owned(), duration);
        let latency = format!(
            "{} / {}",
            optional(self.latency.p50()),
            optional(self.latency.p99())
        );
        ui::facts([
            ("channel", self.channel.clone()),
            (
                "segments / lost",
                format!("{} / {}", count(self.segments), count(self.lost)),
            ),
            ("connections resumed", count(self.resumed)),
            (
                "bytes",
                format!(
                    "{} in {}, {}",
                    bytes(self.bytes),
                    duration(elapsed),
                    self.rate()
                ),
            ),
            (self.latency_of, latency),
        ])
    }
}
