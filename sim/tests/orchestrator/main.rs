//! The orchestrator does what the specifications say of one, seen from the other end of the wire.

mod apps;
mod batch;
mod containers;
mod door;
mod dying;
mod handshake;
mod jobs;
mod payments;
mod program;
mod quirks;
mod sessions;
mod stage;
mod vectors;
