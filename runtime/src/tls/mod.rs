//! TLS: whom to trust as client, and what to show as server.

mod pins;
mod server;
mod verify;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use pins::{BadPins, Pins};
pub use server::{BadIdentity, CurrentIdentity, Identity, server_config};
pub(crate) use verify::{Connectors, Opened, Watch};

/// The ALPN name of HTTP/2.
pub(crate) const H2: &[u8] = b"h2";
/// The ALPN name of HTTP/1.1.
pub(crate) const HTTP11: &[u8] = b"http/1.1";

/// The algorithms of aws-lc. Passed wherever rustls would otherwise look for a process-wide default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Fresh random bytes from the system: the seed of a machine.
///
/// # Panics
/// If the system has no randomness to give, as nothing here can go on without.
#[must_use]
pub fn seed() -> livepeer_core::Seed {
    let mut seed = [0; 32];
    provider()
        .secure_random
        .fill(&mut seed)
        .expect("the system has a source of randomness");
    seed
}
