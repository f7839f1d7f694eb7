//! Live video in and out of a gateway, without I/O: WHIP and WHEP sessions, RTMP publishers and the bridge between them
//! and the segments of a job.
#![forbid(unsafe_code)]

mod arrival;
pub mod bridge;
#[cfg(feature = "browser")]
pub mod browser;
mod fragments;
pub mod port;
pub mod rtmp;
pub mod sdp;
mod session;
mod webrtc;
mod whep;
pub mod whip;
