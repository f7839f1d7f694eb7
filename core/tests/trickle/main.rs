//! The trickle protocol: publisher, subscriber and server.

mod flow;
mod publisher;
mod server;
mod subscriber;
mod transcripts;
#[path = "../support/vectors.rs"]
mod vectors;
