//! The reference's own ways of searching, suspending, renewing and choosing, where ours are others: subjects for its
//! vectors, and something to compare with.

pub(crate) mod batch_error;
pub(crate) mod freshness;
pub(crate) mod latency;
pub(crate) mod search;
pub(crate) mod suspensions;
pub(crate) mod weighted;
