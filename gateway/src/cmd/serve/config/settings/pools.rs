//! How many orchestrators are kept ready for a model, how they are chosen, and how often they are tried.

use std::time::Duration;

use livepeer_core::pipeline::Pipeline;
use livepeer_core::pool::TryLimit;
use livepeer_core::selection::Strengths;

use super::{Reader, pipeline, pipeline_model};

/// The largest weight of a consideration: beyond, the second best would never be chosen anyway.
const MAX_STRENGTH: u64 = 16;

/// Settings of the orchestrators that work for a model.
#[derive(Debug)]
pub(in crate::cmd::serve) struct Pools {
    /// The only pipelines that are listed; all if there are none.
    pub(in crate::cmd::serve) pipelines: Vec<Pipeline>,
    /// Sessions kept ready for each model.
    pub(in crate::cmd::serve) size: usize,
    pub(in crate::cmd::serve) tries: TryLimit,
    /// Further nodes of an orchestrator that are asked, at most.
    pub(in crate::cmd::serve) extra_nodes: usize,
    pub(in crate::cmd::serve) strengths: Strengths,
    /// How long an orchestrator may be silent before another is asked beside it, if ever.
    pub(in crate::cmd::serve) standby: Option<Duration>,
    /// Models whose orchestrators shake hands before the first request.
    pub(in crate::cmd::serve) warm_up: Vec<(Pipeline, String)>,
}

impl Reader<'_> {
    pub(super) fn pools(&mut self) -> Pools {
        Pools {
            pipelines: self.items("pools.pipelines", pipeline),
            size: self.count("pools.size", 1..=1_000) as usize,
            tries: TryLimit {
                tries: self.count("pools.tries", 1..=1_000),
                per_orchestrator: self.count("pools.same_tries", 1..=1_000),
                within: Some(self.time("pools.deadline")),
            },
            extra_nodes: self.count("pools.extra_nodes", 0..=100) as usize,
            strengths: Strengths {
                price: self.count("pools.selector.price", 0..=MAX_STRENGTH),
                latency: self.count("pools.selector.latency", 0..=MAX_STRENGTH),
                reliability: self.count("pools.selector.reliability", 0..=MAX_STRENGTH),
                spread: self.count("pools.selector.spread", 0..=MAX_STRENGTH),
            },
            standby: Some(self.time("pools.standby")).filter(|after| !after.is_zero()),
            warm_up: self.items("pools.warm_up", pipeline_model),
        }
    }

    /// A small number.
    fn count(&mut self, path: &str, within: std::ops::RangeInclusive<u64>) -> u32 {
        self.number(path, within)
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or_default()
    }
}
