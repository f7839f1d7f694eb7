//! Fake peers, seeded links and the steps that tests, fuzzers and benches share. No runtime and no real time.

#![allow(
    missing_debug_implementations,
    reason = "worlds and players are looked into, not printed"
)]

pub mod agenda;
pub mod batch;
pub mod budget;
pub mod caller;
pub mod dice;
pub mod door;
pub mod driven;
pub mod exchanges;
pub mod fuzz;
pub mod key;
pub mod net;
pub mod network;
pub mod openai;
pub mod payment;
pub mod programs;
pub mod purse;
pub mod seeds;
pub mod steps;
pub mod trickle;
pub mod world;

pub use agenda::Agenda;
pub use caller::{Answer, Caller, heard};
pub use dice::Dice;
pub use driven::Driven;
pub use exchanges::Exchanges;
pub use key::Key;
pub use net::{Faults, Link, Net, Node};
pub use purse::Purse;
pub use world::World;
