//! The orchestrator does what the specifications say of one, seen from the other end of the wire.

mod batch;
mod door;
mod handshake;
mod jobs;
mod payments;
mod quirks;
mod sessions;
mod stage;
mod vectors;
