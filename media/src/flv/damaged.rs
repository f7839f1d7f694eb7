//! Faults of tags.

use bytes::TryGetError;

use crate::h264;

/// The reason why a tag was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damaged {
    /// The tag ends before what it announces.
    #[error("a tag that is cut off")]
    CutOff,
    /// More than [`MAX_MOD_EX`](super::MAX_MOD_EX) extensions.
    #[error("a tag with too many extensions")]
    TooManyExtensions,
    /// Several tracks inside of several tracks.
    #[error("a tag with nested tracks")]
    Nested,
    /// A frame before the configuration that it needs, or a configuration or frame of sound that is not valid.
    #[error("sound that cannot be read")]
    Sound,
    /// A picture that cannot be read.
    #[error(transparent)]
    Picture(#[from] h264::Dropped),
}

impl From<TryGetError> for Damaged {
    fn from(_: TryGetError) -> Self {
        Self::CutOff
    }
}
