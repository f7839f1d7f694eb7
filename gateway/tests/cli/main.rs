//! The binary as its users meet it: real processes, real sockets, real TLS, signatures and tickets.

mod backends;
mod batch;
#[cfg(unix)]
mod chaos;
#[cfg(unix)]
mod clients;
#[cfg(unix)]
mod crash;
mod discover;
#[cfg(unix)]
mod failover;
mod files;
#[cfg(unix)]
mod front;
#[cfg(unix)]
mod hired;
mod http;
#[cfg(unix)]
mod ingest;
#[cfg(unix)]
mod jobs;
#[cfg(unix)]
mod live_clients;
#[cfg(unix)]
mod outputs;
mod process;
#[cfg(unix)]
mod rows;
mod run;
#[cfg(unix)]
mod runner;
#[cfg(unix)]
mod segments;
#[cfg(unix)]
mod serve;
mod server;
mod signer;
#[cfg(unix)]
mod stop;
#[cfg(unix)]
mod streams;
mod trickle;
mod usage;
