//! The pool's memory of one orchestrator.

use alloc::collections::BTreeSet;
use core::time::Duration;

use super::Config;
use super::lease::Why;
use crate::http::Url;
use crate::sign::Address;
use crate::time::Time;
use crate::track_record::TrackRecord;

/// At most this many times in a row a node without capacity is asked again after the same pause.
const FULL_RUN: u32 = 3;

/// Where an orchestrator stands.
#[derive(Debug)]
pub(super) enum Stage {
    /// The orchestrator waits to be asked.
    Queued,
    /// The orchestrator is being asked.
    Asked,
    /// The orchestrator has this session.
    Session(u32),
    /// The orchestrator is left alone.
    Resting,
    /// The orchestrator is listed no more.
    Gone,
}

/// An orchestrator that the pool knows.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) url: Url,
    /// The accounts that are registered for it, as far as its lists know.
    pub(super) accounts: BTreeSet<Address>,
    /// Named by a node rather than by a list; such ones are not asked for further ones.
    pub(super) extra: bool,
    /// The orchestrator is on the latest list, or another one named it.
    pub(super) listed: bool,
    pub(super) stage: Stage,
    /// The time before which the orchestrator is neither leased nor asked.
    pub(super) resting_until: Time,
    /// Whether it rests because of faults.
    pub(super) suspended: bool,
    /// Why there is no session with it.
    pub(super) why: Option<Why>,
    /// Faults in a row, some of them healed by time.
    faults: u32,
    last_fault: Time,
    /// How many times in a row a job found it full.
    full: u32,
    /// The results of jobs and handshakes.
    pub(super) record: TrackRecord,
    /// Units per second of the jobs of this pool, smoothed.
    pub(super) speed: Option<u64>,
}

impl Node {
    pub(super) fn new(url: Url, extra: bool) -> Self {
        Self {
            url,
            accounts: BTreeSet::new(),
            extra,
            listed: true,
            stage: Stage::Queued,
            resting_until: Time::ZERO,
            suspended: false,
            why: None,
            faults: 0,
            last_fault: Time::ZERO,
            full: 0,
            record: TrackRecord::default(),
            speed: None,
        }
    }

    /// Counts a fault and says until when the node is left alone: longer with every fault in a row. Every quiet
    /// [`Config::heal_after`] since the last one takes a fault off.
    pub(super) fn fault(&mut self, now: Time, config: &Config) -> Time {
        let quiet = now.since(self.last_fault).as_nanos() / config.heal_after.as_nanos().max(1);
        let healed = u32::try_from(quiet).unwrap_or(u32::MAX);
        self.faults = self.faults.saturating_sub(healed).saturating_add(1);
        self.last_fault = now;
        self.record.age(now);
        self.record.bad = self.record.bad.saturating_add(1);
        let doublings = (self.faults - 1).min(20);
        let penalty = config
            .min_penalty
            .saturating_mul(1 << doublings)
            .min(config.max_penalty)
            .max(super::SOON);
        self.rest(now + penalty);
        self.suspended = true;
        self.resting_until
    }

    /// Whether the node had no fault since then.
    pub(super) fn was_good_since(&self, then: Time) -> bool {
        self.last_fault < then
    }

    /// Leaves the node alone without blame.
    pub(super) fn rest(&mut self, until: Time) {
        self.stage = Stage::Resting;
        self.resting_until = self.resting_until.max(until);
    }

    /// A job found the node full: how long it is left alone. A slot may be free soon; one that is lost at the
    /// orchestrator never is (jobs spec 2.4), so from [`FULL_RUN`] times in a row on the pause doubles.
    pub(super) fn full_again(&mut self, config: &Config) -> Duration {
        self.full = self.full.saturating_add(1);
        let doublings = self.full.saturating_sub(FULL_RUN).min(20);
        let pause = config.full_pause.saturating_mul(1 << doublings);
        pause.min(config.max_penalty.max(config.full_pause))
    }

    /// Work was done: all is forgiven.
    pub(super) fn done(&mut self, now: Time, first_byte: Option<Duration>) {
        self.faults = 0;
        self.full = 0;
        self.record.age(now);
        self.record.good = self.record.good.saturating_add(1);
        if let Some(took) = first_byte {
            smooth(&mut self.record.first_byte, took);
        }
    }

    /// A job was done at that speed.
    pub(super) fn measured(&mut self, units_per_second: u64) {
        self.speed = Some(match self.speed {
            None => units_per_second,
            Some(was) => was - was / 4 + units_per_second / 4,
        });
    }

    /// A handshake was answered.
    pub(super) fn answered(&mut self, took: Duration) {
        smooth(&mut self.record.round_trip, took);
    }

    /// Why there is no session with it, for the final error.
    pub(super) fn excuse(&self, now: Time) -> Option<Why> {
        match (&self.stage, &self.why) {
            (Stage::Resting, Some(Why::Failed(failure)))
                if self.suspended && self.resting_until > now =>
            {
                Some(Why::Suspended {
                    until: self.resting_until,
                    failure: failure.clone(),
                })
            }
            _ => self.why.clone(),
        }
    }
}

/// Three parts of what was, one part of what is.
fn smooth(average: &mut Option<Duration>, seen: Duration) {
    *average = Some(match *average {
        None => seen,
        Some(was) => (was * 3 + seen) / 4,
    });
}
