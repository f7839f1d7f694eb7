//! What a node can do, and whether that is enough.

/// Why an orchestrator does not fit a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// The orchestrator told nothing about itself.
    #[error("the orchestrator reports no capabilities")]
    Unknown,
}
