//! Questions to endpoints of the chain that failed (operations spec 5.2).

use super::{Family, Page};
use crate::error::Cause;
use crate::http::Url;

/// Questions that failed, by endpoint and reason. An endpoint is told by its origin: its path may hold a key.
#[derive(Clone, Debug)]
pub struct Endpoints(Family<u64, 2>);

impl Default for Endpoints {
    fn default() -> Self {
        Self(Family::new(
            "chain_rpc_errors_total",
            ["endpoint", "reason"],
            "Questions to endpoints of the chain that failed.",
        ))
    }
}

impl Endpoints {
    /// Counts a question that failed.
    pub(crate) fn failed(&mut self, endpoint: &Url, cause: &Cause) {
        *self.0.at([&endpoint.origin(), cause.word()]) += 1;
    }

    /// Adds the questions of somebody else.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0.add(&other.0);
        self
    }

    /// Writes them.
    pub fn write(&self, page: &mut Page) {
        self.0.write(page);
    }
}
