//! A network of two hundred orchestrators, most of them of no use, from many seeds.
//!
//! `NETWORK_SEEDS=10000` plays more of them, `NETWORK_SEED=n` one.

use std::time::Duration;

use livepeer_core::pool::TryLimit;
use livepeer_sim::network::{Network, Report, Scenario};
use livepeer_sim::seeds;

const KIND: &str = "NETWORK";

/// Seeds that once found something come first.
const FOUND: [u64; 0] = [];

fn play(scenario: &Scenario, seed: u64) -> Report {
    Network::new(scenario.clone(), seeds::seed(seed)).run()
}

#[test]
fn every_job_that_can_be_served_is_served() {
    let scenario = Scenario::default();
    let reports = seeds::play(KIND, &seeds::wanted(KIND, &FOUND, 20), |seed| {
        let report = play(&scenario, seed);
        if let Some(tried) = report.given_up.first() {
            let told: Vec<String> = tried.iter().map(ToString::to_string).collect();
            panic!(
                "a job gave up although there are steady orchestrators:\n{}",
                told.join("\n")
            );
        }
        assert_eq!(report.done, scenario.jobs);
        report
    });
    let mut waits: Vec<Duration> = Vec::new();
    let (mut done, mut failed) = (0, 0);
    for report in reports {
        waits.extend(report.waits);
        done += report.done;
        failed += report.failed;
    }
    waits.sort();
    let at = |part: usize| waits[(waits.len() - 1) * part / 100];
    println!(
        "{done} jobs, {failed} failed leases; waits: median {:?}, 99th of 100 {:?}, longest {:?}",
        at(50),
        at(99),
        at(100)
    );
    // With a standby ready, most jobs wait for nothing; only the very first wait for handshakes.
    assert_eq!(at(50), Duration::ZERO);
}

#[test]
fn no_job_that_cannot_be_served_hangs() {
    let mut scenario = Scenario {
        peers: 60,
        steady: 0,
        jobs: 4,
        jobs_within: Duration::from_secs(60),
        try_limit: TryLimit {
            within: Some(Duration::from_secs(20)),
            ..Scenario::default().try_limit
        },
        ..Scenario::default()
    };
    // Nobody is cheap enough.
    scenario.pool.handshake.terms.ceilings.base = Some(livepeer_core::money::Amount::zero());
    seeds::play(KIND, &seeds::wanted(KIND, &FOUND, 10), |seed| {
        let report = play(&scenario, seed);
        assert_eq!((report.done, report.given_up.len()), (0, scenario.jobs));
        for tried in report.given_up {
            assert!(tried.len() > 10, "it says what was tried");
        }
    });
}

#[test]
fn a_run_replays() {
    let scenario = Scenario {
        peers: 50,
        ..Scenario::default()
    };
    let (one, other) = (play(&scenario, 7), play(&scenario, 7));
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}
