//! The choice of a session for a job.

use alloc::vec::Vec;
use core::time::Duration;

use crate::http::Url;
use crate::rng::Rng;
use crate::track_record::TrackRecord;
use crate::wire::OrchestratorInfo;

/// A session that could be lent. All of them fit the job and are within the price ceiling.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The orchestrator.
    pub url: &'a Url,
    /// The orchestrator's latest info, price included.
    pub info: &'a OrchestratorInfo,
    /// How long its last handshake took.
    pub latency: Duration,
    /// How many jobs have it now.
    pub lent: u32,
    /// Whether every wanted model is loaded already. A node that does not spell a model out does not say so, and
    /// counts as warm.
    pub warm: bool,
    /// The record of its earlier performance.
    pub record: &'a TrackRecord,
    /// The units per second that jobs of this pool got there; `None` as long as none was measured.
    pub speed: Option<u64>,
}

/// The policy of a pool: chooses among the candidates that the pool brought together.
///
/// Draws only from the seeded `rng`, so that runs replay.
pub trait Selector {
    /// The index of the chosen one, or `None` to choose none of them.
    fn select(&mut self, rng: &mut Rng, from: &[Candidate<'_>]) -> Option<usize>;
}

/// Chooses the session whose handshake took least, of those with the fewest jobs; warm ones before cold ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quickest;

impl Selector for Quickest {
    fn select(&mut self, _: &mut Rng, from: &[Candidate<'_>]) -> Option<usize> {
        (0..from.len()).min_by_key(|at| (!from[*at].warm, from[*at].lent, from[*at].latency))
    }
}

/// The index of the one that `choose` picks among the candidates that `fit`; `None` if there are none, too.
pub(crate) fn among(
    from: &[Candidate<'_>],
    fit: impl Fn(&Candidate<'_>) -> bool,
    choose: impl FnOnce(&[Candidate<'_>]) -> Option<usize>,
) -> Option<usize> {
    if from.iter().all(&fit) {
        return choose(from);
    }
    let fitting = from.iter().enumerate().filter(|(_, one)| fit(one));
    let (places, left): (Vec<_>, Vec<_>) = fitting.map(|(at, one)| (at, one.clone())).unzip();
    if left.is_empty() {
        return None;
    }
    places.get(choose(&left)?).copied()
}
