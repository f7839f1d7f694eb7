//! Trickle under faults: publisher, server and subscriber over links that cut, stall, swallow and delay, against a
//! model of what readers may see.
//!
//! Everything follows from one seed: [`Schedule::from_seed`] draws the world and its faults, [`run`] plays it in
//! virtual time and panics with the seed if a property of the trickle specification's section 12 breaks.

mod model;
mod world;

pub use model::{Model, Outcome};
pub use world::{Report, Schedule, Severity, run};
