//! Pipelines that an orchestrator sends a stream through: the seam behind which a real node has its runner.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use livepeer_core::wire::Params;

/// Turns one stream into another, segment by segment and chunk by chunk, so that a byte waits for nothing but the
/// bytes that it is decoded with.
///
/// For every segment of the input there is one of the output: [`begin`](Pipeline::begin), any number of
/// [`data`](Pipeline::data), then [`end`](Pipeline::end). A pipeline meets hostile bytes and must cope with any.
pub trait Pipeline: Send {
    /// A segment begins. Numbers rise, with gaps where the publisher skipped some.
    fn begin(&mut self, seq: u64) {
        let _ = seq;
    }

    /// Bytes of it came in; returns what can go out by now.
    fn data(&mut self, bytes: &Bytes) -> Bytes;

    /// Ends the segment; returns the rest of it. The bytes returned after the last segment end the stream.
    fn end(&mut self) -> Bytes {
        Bytes::new()
    }

    /// The parameters of the model are these from now on.
    fn update(&mut self, params: &Params) {
        let _ = params;
    }
}

/// Returns the input, byte by byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noop;

impl Pipeline for Noop {
    fn data(&mut self, bytes: &Bytes) -> Bytes {
        bytes.clone()
    }
}

/// Makes a fresh pipeline for every session.
#[derive(Clone)]
pub struct PipelineFactory(Arc<dyn Fn() -> Box<dyn Pipeline> + Send + Sync>);

impl PipelineFactory {
    /// Pipelines made by `make`.
    pub fn new<P: Pipeline + 'static>(make: impl Fn() -> P + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || Box::new(make())))
    }

    pub(super) fn make(&self) -> Box<dyn Pipeline> {
        (self.0)()
    }
}

impl Default for PipelineFactory {
    fn default() -> Self {
        Self::new(Noop::default)
    }
}

impl fmt::Debug for PipelineFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PipelineFactory(..)")
    }
}
