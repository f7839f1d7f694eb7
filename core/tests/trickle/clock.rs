//! Time as it passes in these tests.

use livepeer_core::Time;

/// Lets time pass from `now` until `end`. What there is to do now is done by `settle`, which says when something is to
/// be done next; `tick` sets the clock.
pub(crate) fn pass<W>(
    world: &mut W,
    mut now: Time,
    end: Time,
    settle: impl Fn(&mut W) -> Option<Time>,
    tick: impl Fn(&mut W, Time),
) {
    while let Some(wake) = settle(world).filter(|wake| *wake <= end) {
        assert!(wake > now, "a machine wants to wake in the past");
        now = wake;
        tick(world, wake);
    }
    tick(world, end);
    settle(world);
}
