//! The binary as its users meet it: real processes, real sockets, real TLS, signatures and tickets.

mod discover;
#[path = "../support/files.rs"]
mod files;
mod http;
#[cfg(unix)]
mod jobs;
#[path = "../support/process.rs"]
mod process;
mod run;
#[path = "../support/server.rs"]
mod server;
mod signer;
mod trickle;
mod usage;
