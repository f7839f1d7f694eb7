//! Policies: which of the sessions at hand a job gets.
//!
//! [`Balanced`] is the default: a weighted draw by price, latency, reliability and load.

mod balanced;
mod draw;
mod math;

pub use balanced::{Balanced, Explanation, Strengths};
pub use draw::{normalize, pick};
