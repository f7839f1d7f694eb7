//! Fake peers, seeded links and the steps that tests, fuzzers and benches share. No runtime and no real time.

pub mod fuzz;
