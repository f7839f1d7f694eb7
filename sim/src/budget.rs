//! A bound on the time that one input takes: bounded size is not bounded time.
//!
//! The clock counts the processor's time of the thread, so that a busy machine does not count. The bound is loose on
//! purpose: an honest look at a large input takes a tenth of it even without optimisation, and one whose time grows with
//! the square of the input many times as much.

use std::fs;
use std::time::{Duration, Instant};

/// How long one input may keep a machine or a decoder busy, at most.
pub const STEP_BUDGET: Duration = Duration::from_secs(2);

/// Runs `act`, the work on one input, and hands back what came of it.
///
/// # Panics
/// If it takes longer than [`STEP_BUDGET`].
pub fn within_budget<R>(what: &str, act: impl FnOnce() -> R) -> R {
    let clock = Clock::start();
    let result = act();
    let spent = clock.spent();
    assert!(
        spent <= STEP_BUDGET,
        "{what} took {spent:?} of the processor, and may take {STEP_BUDGET:?}"
    );
    result
}

/// The processor's time of this thread, or that on the wall where the system does not tell.
#[derive(Debug)]
pub struct Clock {
    wall: Instant,
    busy: Option<Duration>,
}

impl Clock {
    /// A clock that begins to count.
    #[must_use]
    pub fn start() -> Self {
        Self {
            wall: Instant::now(),
            busy: busy(),
        }
    }

    /// The time since the start.
    #[must_use]
    pub fn spent(&self) -> Duration {
        match (self.busy, busy()) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => self.wall.elapsed(),
        }
    }
}

/// How long this thread has run, as Linux counts it.
fn busy() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}
