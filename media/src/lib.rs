//! MPEG-TS without codecs and without I/O: cut a stream into segments, measure its time, shift its time stamps.
//!
//! Nothing here reads a file, a socket or a clock. [`segmenter`] is fed bytes and hands out segments; [`pace`] says
//! when a segment is due; [`retime`] is what the development network does to a stream so that its output can be told
//! from its input. Parsing of packets, tables and PES headers is that of the crate `mpeg2ts-reader`; what it leaves to
//! its caller (finding the packets, putting sections together, choosing streams) is in the private room `ts`.
//! With the feature `probe`, `probe` reads how large an image is and how long sound plays.
//!
//! ```
//! use livepeer_media::segmenter::{Config, Segmenter};
//!
//! # fn main() -> Result<(), livepeer_media::InputError> {
//! # let input = include_bytes!("../../gateway/media/testsrc-360p30-12s.ts");
//! let mut segmenter = Segmenter::new(Config::default());
//! let mut bytes = 0;
//! for piece in input.chunks(64 << 10) {
//!     segmenter.push(piece)?;
//!     while let Some(segment) = segmenter.next_segment() {
//!         bytes += segment.data.len();
//!     }
//! }
//! segmenter.finish()?;
//! while let Some(segment) = segmenter.next_segment() {
//!     bytes += segment.data.len();
//! }
//! assert_eq!(bytes, input.len());
//! # Ok(()) }
//! ```

mod clock;
mod error;
mod keyframe;
pub mod pace;
#[cfg(feature = "probe")]
pub mod probe;
pub mod retime;
pub mod segmenter;
#[cfg(test)]
mod testing;
mod ts;

pub use error::{InputError, Warnings};
pub use pace::{Pacer, Speed};
pub use retime::Retimer;
pub use segmenter::{Segment, Segmenter};
