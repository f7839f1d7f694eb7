//! MPEG-TS without codecs: cut a stream into segments, pace them, shift their time stamps.
//!
//! Nothing here reads a file, a socket or a clock. [`segmenter`] is fed bytes and hands out segments; [`pace`]
//! says when a segment is due; [`retime`] is what the development network does to a stream so that its output can
//! be told from its input. Parsing of packets, tables and PES headers is that of the crate `mpeg2ts-reader`; what
//! it leaves to its caller (finding the packets, putting sections together, choosing streams) is in [`ts`].

mod clock;
mod error;
mod keyframe;
pub(crate) mod pace;
pub(crate) mod retime;
pub(crate) mod segmenter;
#[cfg(test)]
mod testing;
mod ts;

pub(crate) use error::{InputError, Warnings};
pub(crate) use pace::{Pacer, Speed};
pub(crate) use retime::Retimer;
pub(crate) use segmenter::Segment;
