//! Time that follows the wall clock and never goes back.
//!
//! Machines want one kind of time for deadlines and for stamps that peers read. The monotonic clock is right for the
//! first and knows nothing of the second; it also stands still while a virtual machine sleeps. The wall clock is set
//! by people and by NTP, forward and back. So the monotonic clock is the engine and the wall clock the steering wheel:
//!
//! - Ahead by more than [`STEP`]: the machine slept, or the first reading was before NTP's. Time jumps, because that much
//!   time has passed for everybody else.
//! - Otherwise the difference is mended by running a little faster or slower: so fast as would mend it within
//!   [`MENDED_WITHIN`], and by a tenth at most. A few seconds then disturb no payment, which is paced by this clock and
//!   metered by another, and an hour is mended within half a day.

use std::time::Duration;

use livepeer_core::Time;

/// How often the wall clock is looked at, when somebody asks for the time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A wall clock further ahead than this is believed at once.
const STEP: Duration = Duration::from_secs(2);

/// Smaller differences, and those the other way, are mended in about so much time.
const MENDED_WITHIN: Duration = Duration::from_secs(3600);

/// Rates are in millionths.
const ONE: i128 = 1_000_000;

/// The clock never runs faster or slower by more: a tenth.
const MOST: i128 = ONE / 10;

/// The state of the clock: a straight line from its last look at the wall.
#[derive(Debug)]
pub(crate) struct Steering {
    /// The monotonic clock at the last look.
    looked: Duration,
    /// The time at the last look.
    time: Time,
    /// By how many millionths it runs faster than the monotonic clock.
    faster: i128,
}

impl Steering {
    /// A clock that shows `wall` when the monotonic clock shows zero.
    pub(crate) const fn new(wall: Time) -> Self {
        Self {
            looked: Duration::ZERO,
            time: wall,
            faster: 0,
        }
    }

    /// The time, when the monotonic clock shows `monotonic`. Looks at the wall if that is due.
    pub(crate) fn now(&mut self, monotonic: Duration, wall: impl FnOnce() -> Time) -> Time {
        let since = monotonic.saturating_sub(self.looked);
        let time = self.time + self.run(since);
        if since < LOOK_EVERY {
            return time;
        }
        let wall = wall();
        let (ahead, behind) = (wall.since(time), time.since(wall));
        let by = |difference: Duration| (nanos(difference) * ONE / nanos(MENDED_WITHIN)).min(MOST);
        self.looked = monotonic;
        (self.time, self.faster) = if ahead > STEP {
            (wall, 0)
        } else {
            (time, by(ahead) - by(behind))
        };
        self.time
    }

    /// How far this clock runs while the monotonic clock runs so far. What was found at one look holds until the next
    /// is due: if nobody asks for hours, the difference is not mended many times over.
    fn run(&self, since: Duration) -> Duration {
        let mended = nanos(since.min(LOOK_EVERY)) * self.faster / ONE;
        let run = nanos(since) + mended;
        Duration::from_nanos(u64::try_from(run).unwrap_or(u64::MAX))
    }
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_secs(1_700_000_000);

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// A machine whose clocks are set by the test.
    struct Machine {
        clock: Steering,
        monotonic: Duration,
        wall: Time,
        shown: Time,
    }

    impl Machine {
        fn new() -> Self {
            Self {
                clock: Steering::new(START),
                monotonic: Duration::ZERO,
                wall: START,
                shown: START,
            }
        }

        /// Time goes by for everybody. The clock is asked every quarter of a second and never goes back.
        fn run(&mut self, span: Duration) {
            let step = Duration::from_millis(250);
            for _ in 0..span.as_millis() / step.as_millis() {
                self.monotonic += step;
                self.wall = self.wall + step;
                let wall = self.wall;
                let now = self.clock.now(self.monotonic, || wall);
                assert!(now > self.shown, "it stands still or goes back");
                let shown = now.since(self.shown);
                assert!(shown >= step * 9 / 10, "it runs too slowly: {shown:?}");
                self.shown = now;
            }
        }

        fn ahead(&self) -> Duration {
            self.shown.since(self.wall)
        }

        fn behind(&self) -> Duration {
            self.wall.since(self.shown)
        }
    }

    #[test]
    fn a_good_clock_is_shown_as_it_is() {
        let mut machine = Machine::new();
        machine.run(secs(1_000));
        assert_eq!(machine.shown, START + secs(1_000));
    }

    #[test]
    fn a_machine_that_slept_is_right_within_a_second() {
        for slept in [secs(3), secs(3_600), secs(50 * 365 * 86_400)] {
            let mut machine = Machine::new();
            machine.run(secs(10));
            machine.wall = machine.wall + slept;
            machine.run(LOOK_EVERY);
            assert_eq!(machine.shown, machine.wall);
        }
    }

    #[test]
    fn a_wall_clock_that_is_set_back_is_followed_slowly_and_never_back() {
        // A few seconds cost a running job next to nothing.
        let mut machine = Machine::new();
        machine.run(secs(10));
        machine.wall = START;
        machine.run(secs(60));
        let left = machine.ahead();
        assert!(
            left > Duration::from_millis(9_800) && left < secs(10),
            "{left:?}"
        );
        machine.run(secs(3 * 3_600));
        assert!(machine.ahead() < secs(1), "{:?}", machine.ahead());
        // An hour is gone in half a day.
        let mut machine = Machine::new();
        machine.run(secs(3_600));
        machine.wall = START;
        machine.run(secs(43_200));
        assert!(machine.ahead() < secs(60), "{:?}", machine.ahead());
    }

    #[test]
    fn a_wall_clock_a_little_ahead_is_caught_up_with_smoothly() {
        let mut machine = Machine::new();
        machine.wall = machine.wall + secs(1);
        machine.run(secs(1));
        assert!(machine.behind() > Duration::from_millis(990));
        machine.run(secs(4 * 3_600));
        assert!(
            machine.behind() < Duration::from_millis(50),
            "{:?}",
            machine.behind()
        );
    }

    #[test]
    fn nobody_who_asks_seldom_is_worse_off() {
        let mut machine = Machine::new();
        machine.monotonic = secs(100_000);
        machine.wall = START + secs(100_000);
        let wall = machine.wall;
        assert_eq!(machine.clock.now(machine.monotonic, || wall), wall);
        // What was found at one look is not mended for hours.
        let behind = machine.wall;
        machine.monotonic += secs(3_600);
        let now = machine.clock.now(machine.monotonic, || behind);
        machine.monotonic += secs(36_000);
        let later = machine.clock.now(machine.monotonic, || behind);
        assert!(later.since(now) > secs(35_999));
        let wall = later;
        // Nor is one whose monotonic clock is odd.
        assert_eq!(machine.clock.now(Duration::ZERO, || wall), wall);
    }
}
