//! The trickle protocol: publisher, subscriber and server.

#[path = "../support/driven.rs"]
mod driven;
mod flow;
mod publisher;
mod server;
mod subscriber;
mod transcripts;
#[path = "../support/vectors.rs"]
mod vectors;
