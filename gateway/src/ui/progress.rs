//! How far a long piece of work is.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::output::bars;

/// Where no terminal redraws the line, a new one is written that often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// A line on stderr that says how far the work is: redrawn on a terminal, otherwise repeated now and then.
///
/// The line vanishes when dropped, so that what comes after starts on a clean line.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    total: Option<u64>,
    what: &'static str,
    next_line: Instant,
}

impl Progress {
    /// Starts at zero of `total`, if that is known. `what` names the things counted: `segments`.
    pub(crate) fn new(what: &'static str, total: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = match total {
                Some(total) => ProgressBar::new(total).with_style(style(
                    "{bar:32} {pos}/{len} {prefix}  {elapsed_precise}  {msg}",
                )),
                None => ProgressBar::no_length()
                    .with_style(style("{spinner} {pos} {prefix}  {elapsed_precise}  {msg}")),
            };
            let bar = bars().add(bar);
            bar.set_prefix(what);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            bar,
            total,
            what,
            next_line: Instant::now() + PLAIN_INTERVAL,
        }
    }

    /// Shows that `done` are done, and `note` as what else to say: `11 back, 24.7 ms p50`.
    pub(crate) fn set(&mut self, done: u64, note: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(note());
            return;
        }
        let now = Instant::now();
        if now >= self.next_line {
            self.next_line = now + PLAIN_INTERVAL;
            let line = plain_line(done, self.total, self.what, &note());
            // Nobody reads stderr any more: nothing to be done about it.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            bars().remove(&bar);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant and tested")
}

fn plain_line(done: u64, total: Option<u64>, what: &str, note: &str) -> String {
    let of = total
        .map(|total| format!(" of {total}"))
        .unwrap_or_default();
    let separator = if note.is_empty() { "" } else { ", " };
    format!("{done}{of} {what}{separator}{note}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_says_what_is_known() {
        assert_eq!(
            plain_line(3, Some(12), "segments", "2 back"),
            "3 of 12 segments, 2 back"
        );
        assert_eq!(plain_line(3, None, "segments", ""), "3 segments");
    }

    #[test]
    fn the_templates_are_valid() {
        style("{bar:32} {pos}/{len} {prefix}  {elapsed_precise}  {msg}");
        style("{spinner} {pos} {prefix}  {elapsed_precise}  {msg}");
    }

    #[test]
    fn notes_are_not_made_when_nobody_sees_them() {
        if std::io::stderr().is_terminal() {
            return;
        }
        let mut progress = Progress::new("segments", None);
        progress.set(1, || unreachable!("the first plain line is seconds away"));
    }
}
