//! Live video in and out of a gateway: the machines of [`livepeer_ingest`] over sockets, and what joins them to jobs.
//!
//! ```text
//!   WHIP ──▶ Webrtc ──┐                                                 ┌──▶ Webrtc ──▶ WHEP
//!                     ├─ Taker ─▶ Show ─▶ Input ─ job ─ Output ─▶ Show ─┤
//!   RTMP ──▶ Rtmp ────┤                                                 └──▶ Push ──▶ RTMP
//!        ◀── Pull ────┘
//! ```
//!
//! Frames go from the socket to the job without a task in between: whoever reads a datagram or a connection's bytes
//! feeds the machine, which tells of a frame, which its [`Taker`] takes in place, up to the queue of the request that
//! carries the job's input.
//!
//! | task | lives | waits for |
//! |---|---|---|
//! | port, one for all sessions | until the last [`Webrtc`] is dropped | datagrams; room for them, if there was none |
//! | listener | until the last [`Rtmp`] is dropped | connections |
//! | connection of RTMP | until it closes | bytes, room for ours |
//! | show | as long as its job | output of the job; room in its input, if there was none |

mod dial;
mod link;
mod news;
mod places;
mod player;
mod pull;
mod push;
mod rtmp;
mod show;
mod taker;
mod webrtc;

pub use livepeer_ingest as machines;

pub use pull::Pull;
pub use push::Push;
pub use rtmp::Rtmp;
pub use show::{Figures, Show};
pub use taker::{Sent, Taker};
pub use webrtc::{Call, Webrtc, addresses};
