//! Benchmarks of the protocol machines, and what several of them share.

pub mod payment;
