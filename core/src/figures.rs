//! Figures in the text format of Prometheus: one place for all that count.
//!
//! Front door, signer and relay write their pages with these types, and what more than one of them counts has its names
//! in `payments`. A metric is a [`Family`] of series, one for each set of labels. Callers and peers choose some of those
//! labels, such as the names of models, so a family has at most [`MAX_SERIES`]; what comes later counts under `other`. No
//! label names a customer.

mod endpoints;
mod jobs;
mod network;
pub(crate) mod payments;

pub use endpoints::Endpoints;
pub use jobs::Jobs;
pub use network::Network;
pub use payments::{account, ceilings};

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{Display, Write as _};
use core::time::Duration;

use num_bigint::BigInt;

/// The content type of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";
/// At most this many series of one metric, besides those of `other`.
pub const MAX_SERIES: usize = 10_000;
/// The word for labels that are too many.
pub const OTHER: &str = "other";
/// The longest label that is kept, in characters.
pub const MAX_LABEL: usize = 128;

/// The path of a page, where one is served.
pub const PATH: &str = "/metrics";
/// The beginning of every name.
const PREFIX: &str = "livepeer_";

/// A page under construction.
#[derive(Clone, Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// An empty page. All names on it begin with `livepeer_`.
    #[must_use]
    pub const fn new() -> Self {
        let text = String::new();
        Self { text }
    }

    /// The page so far.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    /// Begins a metric.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.text,
            "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}"
        );
    }

    /// Writes one series of the metric that was begun.
    pub fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{PREFIX}{name}");
        for (at, (label, text)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }

    /// Writes a metric of one series without labels.
    pub fn value(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.line(name, &[], value);
    }
}

/// A value that a series has.
pub trait Figure: Default {
    /// Prometheus' word for its type.
    const KIND: &'static str;

    /// Writes it.
    fn write(&self, page: &mut Page, name: &str, labels: &[(&str, &str)]);
}

/// A count that only rises.
impl Figure for u64 {
    const KIND: &'static str = "counter";

    fn write(&self, page: &mut Page, name: &str, labels: &[(&str, &str)]) {
        page.line(name, labels, self);
    }
}

/// A sum of wei that only rises.
impl Figure for BigInt {
    const KIND: &'static str = "counter";

    fn write(&self, page: &mut Page, name: &str, labels: &[(&str, &str)]) {
        page.line(name, labels, self);
    }
}

/// A value of the moment.
impl Figure for f64 {
    const KIND: &'static str = "gauge";

    fn write(&self, page: &mut Page, name: &str, labels: &[(&str, &str)]) {
        page.line(name, labels, self);
    }
}

/// Upper bounds of the times counted, in microseconds.
const BUCKETS: [u64; 12] = [
    500,
    1_000,
    2_500,
    10_000,
    50_000,
    250_000,
    1_000_000,
    5_000_000,
    15_000_000,
    60_000_000,
    150_000_000,
    300_000_000,
];

/// Upper bounds of the times that are counted in milliseconds, in microseconds.
const MILLI_BUCKETS: [u64; 8] = [
    50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// Times, counted by how long they are, and told in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times(Histogram<{ BUCKETS.len() }>);

/// Times, counted by how long they are, and told in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Millis(Histogram<{ MILLI_BUCKETS.len() }>);

impl Times {
    /// Counts a time.
    pub fn add(&mut self, took: Duration) {
        self.0.add(&BUCKETS, took);
    }
}

impl Millis {
    /// Counts a time.
    pub fn add(&mut self, took: Duration) {
        self.0.add(&MILLI_BUCKETS, took);
    }
}

impl Figure for Times {
    const KIND: &'static str = "histogram";

    fn write(&self, page: &mut Page, name: &str, labels: &[(&str, &str)]) {
        self.0.write(page, (name, labels), &BUCKETS, 1.0);
    }
}

impl Figure for Millis {
    const KIND: &'static str = "histogram";

    fn write(&self, page: &mut Page, name: &str, labels: &[(&str, &str)]) {
        self.0.write(page, (name, labels), &MILLI_BUCKETS, 1_000.0);
    }
}

/// Times by bucket.
#[derive(Clone, Copy, Debug)]
struct Histogram<const N: usize> {
    /// Up to each bound, not summed up.
    counts: [u64; N],
    beyond: u64,
    sum: Duration,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            counts: [0; N],
            beyond: 0,
            sum: Duration::ZERO,
        }
    }
}

impl<const N: usize> Histogram<N> {
    /// Counts a time under the first of these bounds, in microseconds, that it does not pass.
    fn add(&mut self, bounds: &[u64; N], took: Duration) {
        let micros = took.as_micros();
        let bucket = bounds.iter().position(|bound| micros <= u128::from(*bound));
        *bucket.map_or(&mut self.beyond, |at| &mut self.counts[at]) += 1;
        self.sum += took;
    }

    /// Writes it in units of which a second has so many.
    fn write(
        &self,
        page: &mut Page,
        (name, labels): (&str, &[(&str, &str)]),
        bounds: &[u64; N],
        in_a_second: f64,
    ) {
        let bucket = alloc::format!("{name}_bucket");
        let told = |time: Duration| time.as_secs_f64() * in_a_second;
        let mut below = 0;
        let bounds = bounds.iter().map(|bound| {
            let bound = told(Duration::from_micros(*bound));
            Cow::Owned(alloc::format!("{bound}"))
        });
        let counts = self.counts.iter().chain([&self.beyond]);
        for (count, bound) in counts.zip(bounds.chain([Cow::Borrowed("+Inf")])) {
            below += count;
            let mut all: Vec<(&str, &str)> = labels.to_vec();
            all.push(("le", &bound));
            page.line(&bucket, &all, below);
        }
        page.line(&alloc::format!("{name}_sum"), labels, told(self.sum));
        page.line(&alloc::format!("{name}_count"), labels, below);
    }
}

/// A metric: its name, and its series by the values of their `N` labels.
#[derive(Clone, Debug)]
pub struct Family<V, const N: usize> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
    series: BTreeMap<[String; N], V>,
}

impl<V: Figure, const N: usize> Family<V, N> {
    /// A metric without series.
    #[must_use]
    pub const fn new(name: &'static str, labels: [&'static str; N], help: &'static str) -> Self {
        Self {
            name,
            help,
            labels,
            series: BTreeMap::new(),
        }
    }

    /// The series of those labels, or that of the others if there are too many: models and orchestrators are `other` then,
    /// and so is an only label.
    pub fn at(&mut self, labels: [&str; N]) -> &mut V {
        let mut key = labels.map(|text| match text.len() <= MAX_LABEL {
            true => String::from(text),
            false => text.chars().take(MAX_LABEL).collect(),
        });
        if self.series.len() >= MAX_SERIES && !self.series.contains_key(&key) {
            for (name, text) in self.labels.iter().zip(&mut key) {
                if N == 1 || UNBOUNDED.contains(name) {
                    *text = OTHER.into();
                }
            }
        }
        self.series.entry(key).or_default()
    }

    /// The value of the series of those labels.
    #[must_use]
    pub fn get(&self, labels: [&str; N]) -> Option<&V> {
        let key = labels.map(String::from);
        self.series.get(&key)
    }

    /// All series, by their labels.
    pub fn iter(&self) -> impl Iterator<Item = (&[String; N], &V)> {
        self.series.iter()
    }

    /// Writes the metric; nothing as long as it has no series.
    pub fn write(&self, page: &mut Page) {
        if self.series.is_empty() {
            return;
        }
        page.family(self.name, V::KIND, self.help);
        for (key, value) in &self.series {
            let labels: Vec<(&str, &str)> = self
                .labels
                .iter()
                .copied()
                .zip(key.iter().map(String::as_str))
                .collect();
            value.write(page, self.name, &labels);
        }
    }
}

impl<const N: usize> Family<u64, N> {
    /// Adds the counts of another.
    fn add(&mut self, other: &Self) {
        for (labels, count) in &other.series {
            *self.at(labels.each_ref().map(String::as_str)) += count;
        }
    }
}

/// The labels whose values callers and peers choose.
const UNBOUNDED: [&str; 5] = [
    "endpoint",
    "model_name",
    "orchestrator_uri",
    "orchestrator_address",
    "capability",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_series_are_bounded() {
        let mut family: Family<u64, 2> = Family::new("asked", ["pipeline", "model_name"], "Asked.");
        *family.at(["llm", "a\"\\\n"]) += 1;
        for n in 0..MAX_SERIES + 5 {
            *family.at(["llm", &alloc::format!("m{n}")]) += 1;
        }
        assert_eq!(family.iter().count(), MAX_SERIES + 1);
        assert_eq!(family.get(["llm", OTHER]), Some(&6));
        // A series that is there goes on.
        *family.at(["llm", "m0"]) += 1;
        assert_eq!(family.get(["llm", "m0"]), Some(&2));
        let mut page = Page::new();
        family.write(&mut page);
        let text = page.finish();
        assert!(text.starts_with("# HELP livepeer_asked Asked.\n# TYPE livepeer_asked counter\n"));
        assert!(text.contains("livepeer_asked{pipeline=\"llm\",model_name=\"a\\\"\\\\\\n\"} 1\n"));
        let long = "m".repeat(MAX_LABEL + 9);
        *family.at(["long", &long]) += 1;
        assert!(family.iter().all(|(key, _)| key[1].len() <= MAX_LABEL));
    }

    #[test]
    fn times_are_summed_up_by_bucket() {
        let mut times = Times::default();
        for micros in [1, 500, 501, 400_000_000] {
            times.add(Duration::from_micros(micros));
        }
        let mut page = Page::new();
        times.write(&mut page, "t", &[("route", "r")]);
        let text = page.finish();
        for line in [
            "livepeer_t_bucket{route=\"r\",le=\"0.0005\"} 2\n",
            "livepeer_t_bucket{route=\"r\",le=\"0.001\"} 3\n",
            "livepeer_t_bucket{route=\"r\",le=\"300\"} 3\n",
            "livepeer_t_bucket{route=\"r\",le=\"+Inf\"} 4\n",
            "livepeer_t_sum{route=\"r\"} 400.001002\n",
            "livepeer_t_count{route=\"r\"} 4\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
