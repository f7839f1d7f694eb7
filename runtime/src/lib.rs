//! Drives the machines of `livepeer-core` over hyper and rustls, on any async runtime.
//!
//! [`Driver::drive`] takes a machine and gives back a [`Handle`]: [`Handle::with`] runs any command,
//! [`Handle::next`] yields events. [`http::Server`] lets peers talk to a machine. What a runtime has to offer is
//! the trait [`Runtime`]; the crates `livepeer-tokio` and `livepeer-smol` implement it.

mod adapter;
pub mod api;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod driver;
mod engine;
pub mod http;
#[cfg(feature = "ingest")]
pub mod ingest;
pub mod keys;
mod lane;
pub mod rt;
mod services;
mod signal;
mod steering;
pub mod store;
pub mod tls;
mod trace;

#[doc(hidden)]
pub use {livepeer_core, livepeer_media};

pub use driver::{Driver, Handle};
pub use engine::Drivable;
pub use keys::{KeyHolder, LocalKey, NoKey};
pub use rt::{Clock, Runtime};
pub use store::{MemoryStore, Store};
pub use tls::{Pins, seed};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. A panic elsewhere, which can only be one of an owner's command, does not spread through the lock.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
