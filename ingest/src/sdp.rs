//! Offers of WebRTC peers: which are taken, the text that the engine sees of them, and our answers.
//!
//! [`read`] is the bouncer before the engine. It goes over the text once, takes what is needed and leaves the rest:
//! candidates, simulcast, codecs and header extensions that we do not answer with. The engine never sees the peer's
//! text, only [`Offer::for_engine`], which we write; so whatever a peer thinks up costs one bounded pass.

mod fault;
mod offer;
mod scan;
mod write;

pub use fault::{Direction, Fault, MAX_BYTES, MAX_LINES};
pub use offer::{Format, H264Profile, Kind, Offer, Role, Section, Setup, Taken, read};
pub use scan::{MAX_FORMATS, MAX_SECTIONS};
pub use write::{Answer, Sender};
