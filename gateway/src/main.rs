//! A small, fast Livepeer gateway.

fn main() {}
