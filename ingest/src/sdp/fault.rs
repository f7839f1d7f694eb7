//! Reasons to refuse an offer, and directions of its sections.

/// At most this many bytes has an offer.
pub const MAX_BYTES: usize = 64 << 10;
/// At most this many lines has an offer.
pub const MAX_LINES: usize = 1_000;

/// The reason why an offer is not taken. Its text has nothing of the offer in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The offer is not a session description.
    #[error("not a usable SDP offer: {0}")]
    Malformed(&'static str),
    /// The offer is longer than any that a client sends.
    #[error(
        "the SDP offer has more than {} bytes or {} lines",
        MAX_BYTES,
        MAX_LINES
    )]
    TooLarge,
    /// The offer is sound, and asks for something that is not to be had here.
    #[error("cannot take this offer: {0}")]
    Unsupported(&'static str),
}

impl Fault {
    /// The status of the answer: 400, 413 or 422.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::TooLarge => 413,
            Self::Unsupported(_) => 422,
        }
    }
}

/// The directions of a section, seen from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the meaning")]
pub enum Direction {
    SendOnly,
    RecvOnly,
    SendRecv,
    Inactive,
}

impl Direction {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "sendonly" => Self::SendOnly,
            "recvonly" => Self::RecvOnly,
            "sendrecv" => Self::SendRecv,
            "inactive" => Self::Inactive,
            _ => return None,
        })
    }
}
