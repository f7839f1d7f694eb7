//! Thousands of seeded fault schedules: what readers hold is always a beginning of what was published, all of it
//! where nothing was beyond recovery, never a byte twice, gaps only with a reason and always told, and it ends.
//!
//! `TRICKLE_SEEDS=10000` plays more of them, `TRICKLE_SEED=n` one.

use livepeer_sim::trickle::{Class, Schedule, run};

/// Seeds beyond the default count that have found a fault once.
const KNOWN: [u64; 8] = [
    2_904, 6_481, 13_573, 23_070, 74_277, 78_806, 331_586, 84_701,
];

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn seeded_fault_schedules_lose_nothing_silently() {
    if let Some(seed) = from_env("TRICKLE_SEED") {
        let mut schedule = Schedule::from_seed(seed);
        schedule.trace = true;
        println!("{schedule:#?}");
        println!("{:#?}", run(schedule));
        return;
    }
    let seeds = from_env("TRICKLE_SEEDS").unwrap_or(1_000);
    let mut total = (0, 0, 0);
    for seed in (0..seeds).chain(KNOWN) {
        let schedule = Schedule::from_seed(seed);
        let class = schedule.class;
        let report = run(schedule);
        total.0 += report.segments;
        total.1 += report.resumed;
        if class != Class::Rough {
            assert_eq!(report.missed, 0, "seed {seed}");
        }
        total.2 += report.missed;
    }
    let (segments, resumed, missed) = total;
    println!("{seeds} seeds: {segments} segments, {resumed} continued, {missed} missed and told");
    assert!(
        seeds < 100 || resumed > seeds / 20,
        "the schedules no longer break segments: {resumed}"
    );
}
