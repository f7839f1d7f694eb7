//! The Livepeer gateway protocol as sans-IO state machines.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod capabilities;
pub mod chain;
pub mod discovery;
pub mod error;
pub mod handshake;
pub mod http;
pub mod intake;
pub mod job;
pub mod machine;
pub mod money;
pub mod onchain;
pub mod payment;
pub mod pool;
pub mod rng;
pub mod selection;
pub mod sign;
pub mod signers;
pub mod store;
pub mod time;
mod track_record;
pub mod trickle;
pub mod units;
pub mod wire;

pub use chain::ChainView;
pub use error::{Advice, Cause, Failure, Misuse, Party};
pub use machine::{Child, Effect, EffectId, Input, Machine, Outbox, Output};
pub use rng::{Rng, Seed};
pub use sign::{Address, Digest, Signature};
pub use signers::SignerHealth;
pub use time::Time;
pub use track_record::TrackRecord;
