//! Values that the media of a live job take and tell.

use core::ops::Range;

use bytes::Bytes;

use crate::error::Failure;
use crate::trickle::{ContentType, Seq, publisher};

/// Settings of the media of a live job.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Settings of the publisher. Channels of a job are new: [`publisher::Config::first`] is taken to be zero.
    pub publisher: publisher::Config,
    /// Bounds of the unanswered input that is kept for the next orchestrator.
    pub limits: Limits,
    /// Segments that may be ahead of the output, whatever the speed; `None` is [`AHEAD`](super::AHEAD).
    pub ahead: Option<usize>,
}

/// Bounds of the input that is kept. What was not handed over yet is kept in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Segments. A channel holds five, and a reader may be one behind.
    pub segments: usize,
    /// Bytes in all of them.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segments: 8,
            bytes: 64 << 20,
        }
    }
}

/// Ways to match output to input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matching {
    /// Matching by time stamps: the output carries those of the input.
    Clock,
    /// Matching by counting: the n-th output segment of a channel answers the n-th input segment there.
    Count,
}

impl Matching {
    /// Names the way in one word, for figures and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Count => "count",
        }
    }
}

/// Answers that the output owes to the input so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owed {
    /// Whether answers are owed is not known.
    #[default]
    Unknown,
    /// At least one segment is not answered.
    Something,
    /// Every segment is answered.
    Nothing,
}

/// News of the media for the job: hand each to [`LiveVideoJob::on_media`](crate::job::LiveVideoJob::on_media).
#[derive(Clone, Debug)]
pub struct News {
    /// The number of the [session](crate::job::live::Started::session) that this is about. The job may be with another
    /// by the time it hears of it, who is not to answer for it.
    pub session: u32,
    /// The event itself.
    pub event: Event,
}

/// An event of the media that the job has to know of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A segment of the input's channel begins.
    Begun,
    /// The orchestrator has a segment of the input, or it is given up.
    Done,
    /// Whether there is input that the orchestrator does not take, for too much is on its way.
    Waits(bool),
    /// The answers that the output owes changed.
    Owed(Owed),
    /// Output arrives.
    Seen,
    /// The input is over and delivered. The channel of the input is closed once
    /// [`Media::close_channel`](super::Media::close_channel) says that the job knows.
    Delivered,
    /// A media channel ended, by itself or by a failure.
    Ended(Option<Failure>),
    /// The channel of the session at work is closed by this side: job and media had decided opposite ways between an
    /// orchestrator and its standby in the same moment. Nobody is to blame, and another orchestrator has to go on.
    Declined,
    /// News for those who wait for input to be handed over, settled or closed, or for the media to be idle.
    Ready,
}

/// News of the output, for the application.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OutputEvent {
    /// A segment begins. Output segments are numbered from zero, over all orchestrators and without gaps.
    Begin(Seq, ContentType),
    /// The next bytes of the segment.
    Data(Seq, Bytes),
    /// The segment is complete.
    End(Seq),
    /// The orchestrator was lost inside this segment, after that many bytes of it. Another makes it anew: drop what
    /// there is of it; the next [`OutputEvent::Begin`] has the same number.
    Anew(Seq, u64),
    /// The rest of a segment, after that many bytes, is lost.
    Truncated(Seq, u64),
    /// Segments of the input that are missing: they have no output and will get none, or none of their end. The beginning
    /// of such a segment may have been told, where an upload broke off.
    Gap(Range<Seq>),
    /// The output that follows answers these segments of the input from their beginning. Output of that beginning has
    /// been told before, in segments that had ended when the orchestrator was lost.
    Repeated(Range<Seq>),
    /// The numbering of the channel began anew.
    Discontinuity,
}

/// Counts of what became of input and output so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Segments of the input that were begun.
    pub begun: u64,
    /// Segments among the begun ones that an orchestrator has whole.
    pub delivered: u64,
    /// Segments among the begun ones that have output; where nobody reads the output, the ones that are delivered.
    pub answered: u64,
    /// Segments among the begun ones that have no output and will get none, or none of their end.
    pub missing: u64,
    /// Segments that a later orchestrator got again.
    pub again: u64,
    /// Segments whose beginning was told twice: see [`OutputEvent::Repeated`].
    pub repeated: u64,
    /// Times a segment's connection broke and the rest followed on another.
    pub resumed: u64,
    /// Way in which output was matched to input last, once that was known.
    pub matching: Option<Matching>,
}
