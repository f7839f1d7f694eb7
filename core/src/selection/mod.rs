//! Policies: which of the sessions at hand a job gets.
//!
//! [`Balanced`] is the default: a weighted draw by price, latency, reliability and load. [`Preferring`] puts it within the
//! limits of a gateway and the preferences of one request.

mod balanced;
mod draw;
mod math;
mod preferring;

pub use balanced::{Balanced, Explanation, Strengths};
pub use draw::{normalize, pick};
pub use preferring::{Nobody, Preferring, Size};
