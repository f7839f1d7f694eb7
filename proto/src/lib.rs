//! The wire messages between Livepeer gateways and orchestrators, exactly as nonsensical as a peer may make them.
//!
//! [`net`] is generated from `lp_rpc.proto` and committed, so that no build needs a protobuf compiler; the test
//! `generated_code_is_current` regenerates it (in pure Rust) and compares. Set `REGENERATE=1` to rewrite it.
#![no_std]

extern crate alloc;

/// Package `net`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub, reason = "generated")]
#[rustfmt::skip]
#[path = "net.rs"]
pub mod net;
