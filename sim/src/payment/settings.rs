//! Settings of a run, and its outcome.

use std::time::Duration;

use livepeer_core::error::Failure;
use livepeer_core::money::{Amount, Wei};
use livepeer_core::payment::Unit;
use livepeer_core::payment::ledger::Minting;

use crate::Dice;

/// Settings of the run that a seed makes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether anything goes wrong at all.
    pub faults: bool,
    /// How long it goes on.
    pub span: Duration,
    /// The unit that the job is billed by.
    pub unit: Unit,
    /// How often payments are meant to be made.
    pub interval: Duration,
    /// Whether the payer has a key of its own.
    pub own_key: bool,
    /// How signers decide.
    pub minting: Minting,
    /// Wei that one ticket is worth.
    pub ticket_ev: u64,
    /// Wei per unit.
    pub price: i64,
    /// A limit on what is spent.
    pub per_job: Option<Amount>,
}

impl Settings {
    /// The settings that follow from a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x5e77);
        let unit = if dice.percent(50) {
            Unit::PixelSeconds
        } else {
            Unit::Seconds
        };
        // A second of work costs about so many wei.
        let per_second = dice.between(1_000_000, 2_000_000_000);
        let price = match unit {
            Unit::PixelSeconds => (per_second / 27_648_000).max(1),
            _ => per_second,
        };
        let per_second = price * unit.per_second().unwrap_or(1);
        // From a tenth of a second to an hour.
        let tenths = match dice.between(0, 2) {
            0 => dice.between(1, 20),
            1 => dice.between(20, 200),
            _ => dice.between(200, 36_000),
        };
        // The preload must not take more than a hundred tickets.
        let preload = per_second * unit.preload().as_secs();
        let ticket_ev = (per_second * tenths / 10)
            .max(preload / 90)
            .min(2_000_000_000_000);
        let own_key = dice.percent(25);
        Self {
            faults: true,
            span: Duration::from_secs(dice.between(120, 600)),
            unit,
            interval: Duration::from_secs([5, 10, 30, 60][dice.between(0, 3) as usize]),
            own_key,
            minting: if dice.percent(50) {
                Minting::Early
            } else {
                Minting::AsReference
            },
            ticket_ev,
            price: i64::try_from(price).unwrap_or(1),
            per_job: dice
                .percent(10)
                .then(|| Amount::from(&Wei::from(per_second * dice.between(60, 400)))),
        }
    }
}

/// The outcome of a run.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Payments that the payer knows were taken.
    pub paid: u32,
    /// Payments that the recipient took.
    pub taken: u32,
    /// Jobs that were cut for lack of money.
    pub cut: u32,
    /// Sessions that ended, and why.
    pub failures: Vec<Failure>,
    /// Fresh quotes asked for.
    pub renewals: u32,
    /// Crashes of either side.
    pub crashes: u32,
    /// Times that payments could not be made while what was paid lasted.
    pub held: u32,
    /// New prices that were paid.
    pub repriced: u32,
    /// Payments that a signer found not due yet.
    pub skipped: u32,
    /// Things that went wrong on the way.
    pub mishaps: u32,
    /// Records that the store of either side did not keep, or said so.
    pub store_failures: u32,
    /// The sum spent, as the payer counts it.
    pub spent: Amount,
    /// The sum of the payments of which the payer never learned whether they were taken.
    pub undecided: Amount,
    /// The sum credited.
    pub credited: Amount,
}
