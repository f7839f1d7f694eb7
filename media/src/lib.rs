//! MPEG-TS without codecs and without I/O: cut a stream into segments, measure its time, shift its time stamps.
//!
//! Nothing here reads a file, a socket or a clock. [`segmenter`] is fed bytes and hands out segments; [`retime`] is what
//! the development network does to a stream so that its output can be told from its input. Parsing of packets, tables
//! and PES headers is that of the crate `mpeg2ts-reader`; what it leaves to its caller (finding the packets, putting
//! sections together, choosing streams) is in the private room `ts`.

pub mod clock;
mod error;
mod keyframe;
pub mod retime;
pub mod segmenter;
#[cfg(test)]
mod testing;
mod ts;

pub use error::{InputError, Warnings};
pub use retime::Retimer;
pub use segmenter::{Segment, Segmenter};
