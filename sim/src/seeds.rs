//! Many seeds of one kind of run, on all threads that the machine has.
//!
//! `KIND_SEED=n` in the environment plays one seed, `KIND_SEEDS=n` that many, from `KIND_SEED_FROM=n` on. A seed that fails is printed, and fails
//! the test that plays it.

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use livepeer_core::Seed;

/// A number in the environment.
#[must_use]
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seed that the environment asks for.
#[must_use]
pub fn alone(kind: &str) -> Option<u64> {
    number(&format!("{kind}_SEED"))
}

/// The seed of that number, for a source of chance.
#[must_use]
pub fn seed(number: u64) -> Seed {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    seed
}

/// The seeds to play: the one that the environment asks for, or those that found something once, and then as many as
/// it asks for, `usual` if it does not.
#[must_use]
pub fn wanted(kind: &str, found: &[u64], usual: u64) -> Vec<u64> {
    if let Some(one) = alone(kind) {
        return vec![one];
    }
    let from = number(&format!("{kind}_SEED_FROM")).unwrap_or(0);
    let count = number(&format!("{kind}_SEEDS")).unwrap_or(usual);
    found.iter().copied().chain(from..from + count).collect()
}

/// Runs every seed, each on its own, and hands back what came of them in the order of the seeds.
///
/// # Panics
/// As the first of the seeds that failed did, once each of them is printed; no seed after it is begun.
pub fn play<R: Send>(kind: &str, seeds: &[u64], run: impl Fn(u64) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let played = Mutex::new(Vec::with_capacity(seeds.len()));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(&seed) = seeds.get(at) else { return };
            // The panic goes on below: nobody sees what it left behind.
            let came = catch_unwind(AssertUnwindSafe(|| run(seed)));
            if came.is_err() {
                eprintln!("{kind}_SEED={seed} plays this again");
                next.store(seeds.len(), Ordering::Relaxed);
            }
            let mut played = played.lock().expect("nobody panics while holding it");
            played.push((at, came));
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads.min(seeds.len()) {
            scope.spawn(work);
        }
    });
    let mut played = played.into_inner().expect("nobody panics while holding it");
    played.sort_by_key(|(at, _)| *at);
    let came =
        |(_, came): (_, thread::Result<R>)| came.unwrap_or_else(|panic| resume_unwind(panic));
    played.into_iter().map(came).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_the_seeds_is_in_their_order() {
        let seeds: Vec<u64> = [7].into_iter().chain(0..100).collect();
        let doubled: Vec<u64> = seeds.iter().map(|seed| seed * 2).collect();
        assert_eq!(play("TRIED", &seeds, |seed| seed * 2), doubled);
    }

    #[test]
    fn the_first_of_the_seeds_that_fail_fails_it_all() {
        let seeds: Vec<u64> = (0..1_000).collect();
        let begun = AtomicUsize::new(0);
        let failed = catch_unwind(AssertUnwindSafe(|| {
            play("TRIED", &seeds, |seed| {
                begun.fetch_add(1, Ordering::Relaxed);
                assert!(seed < 5, "seed {seed} is bad");
            })
        }));
        let panic = failed.expect_err("most of them are bad");
        assert_eq!(
            panic.downcast_ref::<String>().map(String::as_str),
            Some("seed 5 is bad")
        );
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        assert!(
            begun.into_inner() <= 5 + 2 * threads,
            "it goes on after a failure"
        );
    }
}
