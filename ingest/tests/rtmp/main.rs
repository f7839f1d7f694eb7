//! RTMP: recorded publishers, the life of a stream, hostile peers.

mod hostile;
mod peer;
mod programs;
mod publishers;
mod pulls;
mod pushes;
mod recordings;
