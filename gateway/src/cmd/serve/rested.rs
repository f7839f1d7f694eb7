//! Models that have rested: the machines that worked for them may have been closed, and what they knew is in the store
//! alone.

use std::collections::BTreeMap;
use std::time::Duration;

use livepeer_core::Time;
use livepeer_core::pipeline::Pipeline;

/// A model that rested for longer begins with what the store knows: the machine that worked for it may have been closed.
const RESTED: Duration = Duration::from_secs(5 * 60);
/// At most this many models are remembered to be at work.
const MAX_USED: usize = 1_024;

/// When each model was last worked for.
#[derive(Default)]
pub(super) struct Used(BTreeMap<(Pipeline, String), Time>);

impl Used {
    /// Whether a model has rested, or is new, before a job that begins now.
    pub(super) fn rested(&self, pipeline: Pipeline, model: &str, now: Time) -> bool {
        let last = self.0.get(&(pipeline, model.to_owned()));
        last.is_none_or(|last| *last + RESTED <= now)
    }

    /// Notes that a job has begun, so that a machine works for the model. Not before: of several jobs that are the first
    /// ones, any may be the one whose account the machine gets. Callers name models: of those beyond
    /// [`MAX_USED`] nothing is remembered, and the store is asked each time.
    pub(super) fn began(&mut self, pipeline: Pipeline, model: &str, now: Time) {
        let key = (pipeline, model.to_owned());
        if self.0.len() >= MAX_USED && !self.0.contains_key(&key) {
            self.0.retain(|_, last| *last + RESTED > now);
        }
        if self.0.len() < MAX_USED || self.0.contains_key(&key) {
            self.0.insert(key, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_callers_make_up_are_not_remembered_without_end() {
        let mut used = Used::default();
        let begin = Time::from_secs(1_000);
        assert!(used.rested(Pipeline::Llm, "real", begin));
        assert!(
            used.rested(Pipeline::Llm, "real", begin),
            "no job has begun"
        );
        used.began(Pipeline::Llm, "real", begin);
        assert!(!used.rested(Pipeline::Llm, "real", begin));
        for n in 0..3 * MAX_USED {
            used.began(Pipeline::Llm, &n.to_string(), begin);
        }
        assert_eq!(used.0.len(), MAX_USED);
        assert!(!used.rested(Pipeline::Llm, "real", begin), "it is at work");
        let later = begin + RESTED;
        used.began(Pipeline::Llm, "another", later);
        assert_eq!(used.0.len(), 1, "those that rested are forgotten");
        assert!(used.rested(Pipeline::Llm, "real", later));
    }
}
