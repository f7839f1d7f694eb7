//! RTMP publishers: a machine without sockets that takes the connections of a listener and gives frames.
//!
//! [`Server`] is fed what happens at the sockets ([`Input`]) and says what to do there and what to know ([`Output`]), by
//! the rules of [`livepeer_core::machine`]. Whether a stream may be published is the owner's to say; the publisher's
//! reply is held back until then, so that an encoder never shows "live" for a wrong key.
//!
//! ```text
//!             C0 C1 C2           connect, createStream, publish          admit
//! Handshake ───────────▶ Open ──────────────────────────────▶ Authorizing ─────▶ Publishing: waiting
//!     │ 5 s               │ 10 s, 64 KiB                          │ 5 s, 1 MiB,      │  key frame
//!     │                   │                                       │ refuse           ▼
//!     ▼                   ▼                                       ▼               Publishing: begun
//!   close               close                             BadName, close             │
//!                                                                     ┌──────────────┼─────────────────────────┐
//!                                                             deleteStream   FIN, 10 s of silence, a fault   another publisher
//!                                                                     ▼              ▼                         ▼
//!                                                                 Ended         Stalled; 10 s later Ended   "replaced", close;
//!                                                                               or Resumed                  Resumed
//! ```
//!
//! A stream outlives its publisher for [`HOLD`], since encoders come back within seconds, and a takeover is no end of it.
//! Frames are in the publisher's time; [`livepeer_media::timeline`] makes one timeline of them over all publishers.

mod chunk;
mod connection;
pub mod dial;
mod dialogue;
mod messages;
pub mod pull;
pub mod push;
mod refusals;
mod server;
mod types;

pub use self::chunk::{BadChunk, Chunks, MAX_CHUNK_STREAMS, MAX_MESSAGE, MAX_UNFINISHED, Message};
pub use self::connection::{
    AUTHORIZING, BEFORE_PUBLISH, HANDSHAKE, KEY_FRAME_WAIT, LAST_WORDS, MAX_BEFORE_ANSWER,
    MAX_BEFORE_PUBLISH, MAX_RATE, RATE_WINDOW, SILENCE, VIDEO_WAIT,
};
pub use self::messages::{BadPeer, MIN_WINDOW};
pub use self::refusals::{MAX_REFUSALS, WINDOW as REFUSAL_WINDOW};
pub use self::server::{ACTIVE, MAX_CONNECTIONS, MAX_PER_ADDRESS, Server};
pub use self::types::{Config, ConnectionId, Ending, Event, HOLD, Input, Output, StreamId, Why};
