//! Policies: which of the sessions at hand a job gets.
//!
//! [`Balanced`] is ours and the default. [`Weighted`] is the reference's draw by stake, price and chance;
//! [`latency`] has its scores and its choice by them.

mod balanced;
pub mod latency;
mod math;
mod weighted;

pub use balanced::{Balanced, Explanation, Strengths};
pub use weighted::{Filters, Weighted, Weights, draw, normalize, weights};
