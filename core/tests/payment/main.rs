//! Payments, of both sides, and the chain they refer to.

mod chain;
mod chain_watch;
mod challenge;
mod figures;
mod invariants;
mod money;
mod prices;
mod recipient;
mod secrets;
mod session;
mod signer;
mod signers;
mod support;
mod tickets;
#[path = "../support/vectors.rs"]
mod vectors;
