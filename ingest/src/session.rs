//! The name of a session of WHIP or WHEP, and the reasons why one ends.

use std::fmt;

/// Names a session in its URL: 128 random bits, so that nobody finds another's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u128);

impl SessionId {
    pub(crate) const fn new(bits: u128) -> Self {
        Self(bits)
    }

    /// The session of that name: 32 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 32
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        hex.then(|| u128::from_str_radix(text, 16).ok().map(Self))
            .flatten()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    // The whole of it is a key to the session: logs need only tell sessions apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {:08x}…", self.0 >> 96)
    }
}

/// The reason why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// The peer asked for it by DELETE, or said goodbye.
    #[error("disconnected")]
    Disconnected,
    /// No media connection came about.
    #[error("not connected: {0}; the UDP port has to be reachable at the addresses in our answer")]
    NotConnected(&'static str),
    /// The peer is connected and sends no video.
    #[error("no video came")]
    NoVideo,
    /// Video came, and no picture at which decoding can begin.
    #[error("no key frame came")]
    NoKeyFrame,
    /// More video will not help: too much of it was unusable.
    #[error("the video cannot be used: {0}")]
    BadVideo(String),
    /// The peer sent more than any live stream.
    #[error("input rate: more than 50 Mbit/s")]
    InputRate,
    /// Nothing was heard of the peer for a while.
    #[error("the peer is gone")]
    Gone,
    /// The viewer's connection carries less than the stream.
    #[error("too slow for the stream")]
    TooSlow,
    /// Another session sends under the name.
    #[error("another sender took over")]
    TakenOver,
    /// The stream that was watched is over.
    #[error("the stream ended")]
    StreamEnded,
    /// Our side ended it, and says why.
    #[error("{0}")]
    Kicked(String),
    /// The engine gave up.
    #[error("the WebRTC session broke: {0}")]
    Broken(String),
}
