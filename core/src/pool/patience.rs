//! How long to wait for more answers before choosing among those at hand (handshake spec 8.1).

use core::time::Duration;

use crate::time::Time;

/// The longest that a search waits, whatever the patience.
pub const CUT_OFF: Duration = Duration::from_secs(6);

/// How long to wait for more answers: until the timer fires and there is one. A timer that fires too early is set
/// again, for as long again as so far.
///
/// Half a second of patience fires after 0.5, 1, 2 and 4 seconds, and is cut off after 6.
#[derive(Clone, Debug)]
pub struct Patience {
    next: Time,
    step: Duration,
    end: Time,
}

impl Patience {
    /// Starts to wait.
    #[must_use]
    pub fn new(now: Time, first: Duration) -> Self {
        let first = first.max(Duration::from_millis(1));
        Self {
            next: now + first,
            step: first,
            end: now + CUT_OFF,
        }
    }

    /// Whether it is over; `any` says whether there is an answer.
    pub fn is_over(&mut self, now: Time, any: bool) -> bool {
        while self.next <= now && self.next < self.end {
            if any {
                return true;
            }
            self.next = self.next + self.step;
            self.step = (self.step * 2).min(CUT_OFF);
        }
        self.end <= now
    }

    /// The time to look again.
    #[must_use]
    pub fn wake(&self) -> Time {
        self.next.min(self.end)
    }
}
