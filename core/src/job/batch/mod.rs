//! Batch jobs: one request, one answer, whoever gives it.

mod types;

pub use types::{Attempt, Config, Failed, File, JobId, Left, RefusedBy, Served, Trying};
