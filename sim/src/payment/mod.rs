//! Payer, signers and recipient under faults: a world of three parties and a ledger that knows better.
//!
//! [`World`] runs one seed: requests and answers are lost, late and doubled, signers go away, quotes expire, prices
//! change, and both the payer and the recipient crash and come back with what their stores kept. [`Model`] watches
//! from outside, with sums of its own, and panics when a ticket counts twice, a nonce is used for two tickets,
//! something is said before it is durable, or a balance is not what went in less what went out.

mod model;
mod settings;
mod world;

pub use model::Model;
pub use settings::{Settings, Summary};
pub use world::World;
