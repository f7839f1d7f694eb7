//! Live media without codecs and without I/O: MPEG-TS and the frames in it.
//!
//! Nothing here reads a file, a socket or a clock. Two ways lead through it:
//!
//! - Streams that are MPEG-TS already stay as they are. [`segmenter`] is fed bytes and hands out segments; [`pace`] says
//!   when a segment is due; [`retime`] is what the development network does to a stream so that its output can be told
//!   from its input, and [`overlay`] draws into it.
//! - Frames come from and go to WebRTC and RTMP. [`h264`], [`opus`] and [`aac`] know what is in them, [`timeline`] gives
//!   them a time that only goes forward, [`mux`] writes MPEG-TS as models read it soonest, [`demux`] takes a model's
//!   output apart, and [`gop`] keeps what a viewer who comes later begins with.
//!
//! Parsing of PES headers and checksums is that of the crate `mpeg2ts-reader`; what it leaves to its caller (finding the
//! packets, putting sections together, choosing streams) is in the private room `ts`.
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

pub mod aac;
mod clock;
pub mod demux;
mod error;
pub mod flv;
pub mod frame;
pub mod gop;
pub mod h264;
pub mod hls;
mod keyframe;
pub mod mux;
pub mod opus;
pub mod overlay;
pub mod pace;
#[cfg(feature = "probe")]
pub mod probe;
pub mod retime;
pub mod segmenter;
#[cfg(test)]
mod testing;
mod ticks;
pub mod timeline;
mod ts;

pub use demux::Demux;
pub use error::{InputError, Warnings};
pub use frame::{AccessUnit, Audio, AudioCodec, AudioTrack, Ticks, Tracks, VideoCodec};
pub use gop::Gop;
pub use mux::Mux;
pub use overlay::Overlay;
pub use pace::{Pacer, Speed};
pub use retime::Retimer;
pub use segmenter::{Segment, Segmenter};
pub use timeline::Timeline;
