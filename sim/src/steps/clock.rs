//! How time passes for a machine that is played with.

use livepeer_core::Time;

/// A machine that wants to be woken more often than this while time passes would wake without end.
const MAX_WAKES: usize = 100_000;

/// Lets time pass to `end`: `tick`s the player whenever its `drain` asked for it, and once more at the end.
///
/// # Panics
/// If it asks without end.
pub(super) fn pass<P>(
    player: &mut P,
    end: Time,
    mut drain: impl FnMut(&mut P) -> Option<Time>,
    mut tick: impl FnMut(&mut P, Time),
) {
    for _ in 0..MAX_WAKES {
        match drain(player).filter(|wake| *wake <= end) {
            Some(wake) => tick(player, wake),
            None => {
                tick(player, end);
                drain(player);
                return;
            }
        }
    }
    panic!("it wakes without end");
}
