//! How often a job may go on with another orchestrator.

use core::time::Duration;

use crate::time::Time;

/// Swaps that may follow one another closely (handshake spec 12; jobs spec 3.4).
pub const MAX_SWAPS: u32 = 2;

/// Swaps at least this far apart do not count as following closely.
pub const SWAP_SPACING: Duration = Duration::from_secs(180);

/// Counts the orchestrators that a job lost in quick succession.
#[derive(Clone, Copy, Debug, Default)]
pub struct SwapLimit {
    last: Option<Time>,
    close_together: u32,
}

impl SwapLimit {
    /// Takes note that the orchestrator ended at `now`, and says whether the job may go on with another.
    pub fn allow(&mut self, now: Time) -> bool {
        match self.last {
            Some(last) if now.since(last) < SWAP_SPACING => self.close_together += 1,
            _ => self.close_together = 1,
        }
        self.last = Some(now);
        self.close_together <= MAX_SWAPS
    }
}
