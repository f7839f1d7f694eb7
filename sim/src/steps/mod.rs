//! Steps that can be taken with a machine: one enum and one player per machine.
//!
//! Property tests draw steps, fuzzers read them from bytes, a failing list of them is a regression test. Players
//! check what holds after each step and at the end, and panic if it does not.

mod answer;
pub mod app;
pub mod batch;
pub mod bridge;
pub mod byoc;
pub mod discovery;
pub mod entry;
pub mod front;
pub mod handshake;
pub mod live_job;
pub mod orchestrator;
mod ours;
mod payer;
pub mod payment_ledger;
pub mod payment_receiver;
pub mod payment_session;
pub mod payment_signer;
pub mod payment_spending;
pub mod pool;
pub mod price_feed;
pub mod programs;
mod reel;
pub mod rtmp;
pub mod runner;
pub mod runner_session;
pub mod trickle_publisher;
pub mod trickle_server;
pub mod trickle_subscriber;
pub mod webrtc;

pub use reel::Reel;
