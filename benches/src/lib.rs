//! Benchmarks of the protocol machines.
