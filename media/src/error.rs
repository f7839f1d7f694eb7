//! Faults of an input, and oddities that are no faults.

use std::fmt;

/// The input cannot be cut. One line of cause; [`InputError::remedy`] is one line of help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// Not one byte came.
    #[error("the input is empty")]
    Empty,
    /// No run of packets begins with sync bytes.
    #[error("the input is not MPEG-TS: {}", found(.looks_like))]
    NotMpegTs {
        /// The format that the first bytes suggest, if they suggest any.
        looks_like: Option<&'static str>,
    },
    /// The input was MPEG-TS, and stopped being so.
    #[error("the input stops being MPEG-TS at byte {at}: no sync byte within {searched} bytes")]
    LostSync {
        /// The offset of the first byte outside a packet.
        at: u64,
        /// How far the search went.
        searched: usize,
    },
    /// There are packets, but nothing says what is in them.
    #[error("the input has no PAT and PMT that name a stream within its first {searched} bytes")]
    NoTables {
        /// How far the search went.
        searched: u64,
    },
}

fn found(looks_like: &Option<&'static str>) -> String {
    match looks_like {
        Some(kind) => format!("it looks like {kind}"),
        None => "there are no sync bytes 188 bytes apart".to_owned(),
    }
}

impl InputError {
    /// The advice for the fault.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Empty => "Check that what makes the input writes MPEG-TS",
            Self::NotMpegTs { .. } => {
                "Convert it first: ffmpeg -i INPUT -c copy -f mpegts OUTPUT.ts"
            }
            Self::LostSync { .. } => {
                "The file is damaged; rewrite it: ffmpeg -i INPUT -c copy -f mpegts OUTPUT.ts"
            }
            Self::NoTables { .. } => {
                "Write the tables regularly: ffmpeg -i INPUT -c copy -f mpegts \
                 -mpegts_flags +resend_headers OUTPUT.ts"
            }
        }
    }
}

/// Oddities of an input that could be cut nevertheless. Every odd byte is in the segments all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Warnings {
    /// Bytes after the last whole packet: the input was cut off.
    pub trailing_bytes: u64,
    /// Bytes between packets, or before the first one.
    pub junk_bytes: u64,
    /// How often the time stamps jumped: an edit, or the start of the next round of a loop.
    pub jumps: u64,
    /// Cuts for want of a key frame, or because a segment reached its size limit.
    pub forced_cuts: u64,
}

impl Warnings {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let odd = [
            (
                self.trailing_bytes,
                "bytes of an incomplete packet at the end",
            ),
            (self.junk_bytes, "bytes outside of packets"),
            (self.jumps, "jumps of the time stamps"),
            (self.forced_cuts, "cuts without a key frame"),
        ];
        let mut separator = "";
        for (count, what) in odd {
            if count != 0 {
                write!(f, "{separator}{count} {what}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}
