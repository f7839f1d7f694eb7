//! Figures of many durations.

use std::time::Duration;

/// The value that such a share of all stays below, of durations in order; zero of none.
#[must_use]
pub fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}
