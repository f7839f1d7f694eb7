//! Benchmarks of the protocol machines, and what several of them share.

pub mod index;
pub mod payment;
