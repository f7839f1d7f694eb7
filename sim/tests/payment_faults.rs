//! Payer, signers and recipient under everything that can go wrong. A failing seed is printed; run it alone with
//! `PAYMENT_SEED=n`, and more of them with `PAYMENT_SEEDS=n`.

use std::time::Duration;

use livepeer_core::payment::Unit;
use livepeer_core::payment::ledger::Minting;
use livepeer_sim::payment::{Settings, Summary, World};
use livepeer_sim::seeds;

const KIND: &str = "PAYMENT";

/// Seeds that once found something come first: in 1384 a payment comes again before the record of the first is kept, is
/// called seen, and the record fails.
const FOUND: [u64; 1] = [1384];

fn run(seed: u64, settings: Settings) -> Summary {
    let told = settings.clone();
    let ran = std::panic::catch_unwind(|| World::run(seed, settings));
    ran.unwrap_or_else(|panic| {
        eprintln!("seed {seed}: {told:?}");
        std::panic::resume_unwind(panic)
    })
}

#[test]
fn no_ticket_counts_twice_and_every_balance_adds_up_whatever_goes_wrong() {
    let alone = seeds::alone(KIND).is_some();
    let ran = seeds::play(KIND, &seeds::wanted(KIND, &FOUND, 40), |seed| {
        run(seed, Settings::of(seed))
    });
    let mut all = Summary::default();
    for one in ran {
        if alone {
            println!("{one:#?}");
        }
        all.paid += one.paid;
        all.taken += one.taken;
        all.cut += one.cut;
        all.renewals += one.renewals;
        all.crashes += one.crashes;
        all.skipped += one.skipped;
        all.held += one.held;
        all.repriced += one.repriced;
        all.mishaps += one.mishaps;
        all.store_failures += one.store_failures;
        all.undecided += &one.undecided;
        all.credited += &one.credited;
        all.failures.extend(one.failures);
    }
    if alone {
        return;
    }
    println!(
        "{} payments known, {} taken, {} cut, {} renewals, {} crashes, {} skipped, {} held, {} mishaps, {} failures",
        all.paid,
        all.taken,
        all.cut,
        all.renewals,
        all.crashes,
        all.skipped,
        all.held,
        all.mishaps,
        all.failures.len()
    );
    if seeds::number("PAYMENT_VERBOSE").is_some() {
        for failure in &all.failures {
            println!("{failure}");
        }
    }
    // The runs are worth nothing if nothing happens in them.
    for happened in [
        all.paid,
        all.cut,
        all.renewals,
        all.crashes,
        all.skipped,
        all.held,
        all.mishaps,
        all.store_failures,
    ] {
        assert!(happened > 0, "{all:?}");
    }
    assert!(all.undecided.is_positive(), "{all:?}");
}

#[test]
fn when_nothing_goes_wrong_a_job_is_never_cut_at_any_pace() {
    for seed in 0..5 {
        for interval in [5, 10, 30, 60] {
            let settings = Settings {
                faults: false,
                span: Duration::from_secs(400),
                interval: Duration::from_secs(interval),
                per_job: None,
                ..Settings::of(seed)
            };
            let one = run(seed, settings.clone());
            assert_eq!(one.cut, 0, "{seed} {settings:?} {one:?}");
            assert!(one.failures.is_empty(), "{seed} {settings:?} {one:?}");
            assert_eq!(one.paid, one.taken, "{seed} {settings:?}");
            assert_eq!(one.spent, one.credited, "{seed} {settings:?}");
        }
    }
}

#[test]
fn a_signer_that_mints_like_the_reference_does_not_starve_a_slow_job() {
    for (unit, price) in [(Unit::Seconds, 1_000), (Unit::PixelSeconds, 1)] {
        for interval in [5, 10, 30, 60] {
            let settings = Settings {
                faults: false,
                span: Duration::from_secs(3_000),
                interval: Duration::from_secs(interval),
                unit,
                price,
                minting: Minting::AsReference,
                // A ticket is worth many intervals: the reference cuts such jobs at 30 s (its issue 4077).
                ticket_ev: 1_000 * unit.per_second().unwrap() * u64::try_from(price).unwrap(),
                own_key: false,
                per_job: None,
            };
            let one = run(1, settings.clone());
            assert_eq!(
                (one.cut, one.failures.len()),
                (0, 0),
                "{settings:?} {one:?}"
            );
            assert!(one.skipped > 0, "{settings:?}");
        }
    }
}
