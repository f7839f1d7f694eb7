//! How often a job may go on with another orchestrator.

use core::time::Duration;

use crate::time::Time;

/// Swaps that may follow one another closely (handshake spec 12; jobs spec 3.4).
pub const MAX_SWAPS: u32 = 2;

/// Swaps at least this far apart do not count as following closely.
pub const SWAP_SPACING: Duration = Duration::from_secs(180);

/// Counts the orchestrators that a job lost in quick succession.
#[derive(Clone, Copy, Debug)]
pub struct SwapLimit {
    most: u32,
    spacing: Duration,
    last: Option<Time>,
    close_together: u32,
}

impl Default for SwapLimit {
    /// The reference's.
    fn default() -> Self {
        Self::new(MAX_SWAPS, SWAP_SPACING)
    }
}

impl SwapLimit {
    /// A limit of at most `most` swaps in a row, each less than `spacing` after the one before.
    #[must_use]
    pub const fn new(most: u32, spacing: Duration) -> Self {
        Self {
            most,
            spacing,
            last: None,
            close_together: 0,
        }
    }

    /// Whether another orchestrator could follow if the one at work ended at `now`.
    #[must_use]
    pub fn allows(mut self, now: Time) -> bool {
        self.allow(now)
    }

    /// Takes note that the orchestrator ended at `now`, and says whether the job may go on with another.
    pub fn allow(&mut self, now: Time) -> bool {
        match self.last {
            Some(last) if now.since(last) < self.spacing => self.close_together += 1,
            _ => self.close_together = 1,
        }
        self.last = Some(now);
        self.close_together <= self.most
    }
}
