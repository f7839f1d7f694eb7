//! Thousands of seeded fault schedules: what readers hold is always a beginning of what was published, all of it
//! where nothing was beyond recovery, never a byte twice, gaps only with a reason and always told, and it ends.
//!
//! `TRICKLE_SEEDS=10000` plays more of them, `TRICKLE_SEED=n` one.

use livepeer_sim::seeds;
use livepeer_sim::trickle::{Schedule, Severity, run};

const KIND: &str = "TRICKLE";

#[test]
fn seeded_fault_schedules_lose_nothing_silently() {
    if let Some(seed) = seeds::alone(KIND) {
        let mut schedule = Schedule::from_seed(seed);
        schedule.trace = true;
        println!("{schedule:#?}");
        println!("{:#?}", run(schedule));
        return;
    }
    let seeds = seeds::wanted(KIND, &[], 1_000);
    let reports = seeds::play(KIND, &seeds, |seed| {
        let schedule = Schedule::from_seed(seed);
        let severity = schedule.severity;
        let report = run(schedule);
        if severity != Severity::Rough {
            assert_eq!(report.missed, 0, "seed {seed}");
        }
        report
    });
    let seeds = seeds.len() as u64;
    let (mut segments, mut resumed, mut missed) = (0, 0, 0);
    for report in reports {
        segments += report.segments;
        resumed += report.resumed;
        missed += report.missed;
    }
    println!("{seeds} seeds: {segments} segments, {resumed} continued, {missed} missed and told");
    assert!(
        seeds < 100 || resumed > seeds / 20,
        "the schedules no longer break segments: {resumed}"
    );
}
