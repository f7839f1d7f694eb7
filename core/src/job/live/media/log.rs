//! The input that is not answered yet, kept for the next orchestrator, and how it goes to the one at work.
//!
//! The application publishes *segments*; each begins where a decoder can enter. The channel of an orchestrator has
//! segments of its own: usually one for each of the application's, but its first takes in all that is owed:
//!
//! ```text
//!   application   5────6────7────8────9──── …      5 and 6 were with an orchestrator that is lost
//!   channel       0──────────────1────2──── …      the model was seen reading while 7 was written
//! ```
//!
//! A model begins to read some time after its start was answered, at the segment that is open then or at the next,
//! and a server keeps five. So the first one stays open until the model is seen reading, [`FIRST_OPEN_WITHIN`] (for a
//! standby more) has passed, or it has [`FIRST_OPEN_BYTES`]; and later ones begin only while fewer than [`AHEAD`] are unanswered, or at
//! the pace of their time stamps.

mod answers;
mod handing;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use bytes::Bytes;

pub(super) use self::handing::Next;
pub use self::handing::{EARLY, FIRST_OPEN_BYTES, FIRST_OPEN_WITHIN, JOIN_AFTER};
use super::stamps::{Scanner, Span, Stamp, ticks};
use super::{Limits, Matching, Owed};
use crate::time::Time;
use crate::trickle::Seq;

/// Segments that may be ahead of the output at any speed. With more, input goes on at the pace of its time stamps: a
/// channel holds five, one of them is being written, and a reader may be one behind.
pub const AHEAD: usize = 3;

/// Time that a segment without time stamps is taken to play.
const UNSTAMPED: Duration = Duration::from_secs(1);

/// Longest time that a segment is taken to play.
const MAX_PLAY: Duration = Duration::from_secs(10);

/// Output that stops this much before the end of a segment answers it all the same: models drop frames.
pub const DROPPED_TAIL: Duration = Duration::from_millis(500);

/// Unanswered segments that are remembered; beyond it the oldest counts as missing.
pub const MAX_UNANSWERED: usize = 1024;

/// A segment of the application.
#[derive(Clone, Debug, Default)]
struct Kept {
    pieces: Vec<Bytes>,
    len: usize,
    complete: bool,
    /// The pieces are gone: more was kept than agreed.
    dropped: bool,
    span: Option<Span>,
    /// How far the output segment that is open reaches.
    open: Option<Stamp>,
    /// How far output reaches that the application has for good.
    back: Option<Stamp>,
    /// The segment of the channel in which it ends, and the bytes of that one up to there; `None` before it is handed
    /// over whole.
    ends: Option<(Seq, u64)>,
    /// Output of it has ended, and some of it had not left at that time: more may follow. If none does, its rest is
    /// missing, and with that the segment.
    cut: bool,
}

impl Kept {
    fn span(&self) -> Option<&Span> {
        self.span.as_ref().filter(|span| span.is_sound())
    }

    /// Ticks between the end of the output and that of the segment; `None` without output.
    fn lacks(&self, reached: Option<Stamp>) -> Option<i64> {
        Some(-self.span()?.beyond(reached?)?)
    }

    /// Whether the application has output up to its last frame.
    fn is_whole(&self) -> bool {
        self.complete && self.lacks(self.back).is_some_and(|lacks| lacks <= 0)
    }

    /// Whether the application has output of it, but for a few frames that the model may have dropped.
    fn is_answered(&self) -> bool {
        self.complete
            && self
                .lacks(self.back)
                .is_some_and(|lacks| lacks <= ticks(DROPPED_TAIL))
    }

    fn plays(&self) -> Duration {
        let span = self.span().and_then(Span::plays);
        span.unwrap_or(UNSTAMPED).min(MAX_PLAY)
    }
}

/// A segment of the channel.
#[derive(Clone, Debug)]
struct Sent {
    seq: Seq,
    /// The application's segments in it.
    numbers: Range<u64>,
    /// Bytes of it that were handed over, and that have left on a connection which did not break since.
    handed: u64,
    sent: u64,
    /// The server has not said yet whether it has all of it.
    awaited: bool,
    /// The publisher gave it up.
    lost: bool,
    /// The publisher gave it up before there was output of it: no output answers it.
    skipped: bool,
}

/// The first segment of a channel, while it is open.
#[derive(Clone, Debug)]
struct First {
    opened: Time,
    bytes: usize,
}

/// The input that is not answered yet; see the [module](self). How it is handed over is in `handing.rs`, how output
/// answers it in `answers.rs`.
#[derive(Clone, Debug)]
pub(super) struct Log {
    limits: Limits,
    ahead: usize,
    kept: VecDeque<Kept>,
    /// The number of the first one kept.
    first: u64,
    /// How many at the front are dropped, and the bytes of the others.
    dropped: usize,
    bytes: usize,
    /// Reads the segment that the application writes.
    written: Scanner,

    /// The place, among those kept, of the segment that is handed over now or next.
    at: usize,
    /// Whether its beginning was handed over, and how many of its pieces.
    begun: bool,
    handed: usize,
    /// Segments below this number were in the hands of an orchestrator before.
    owed_to: u64,
    sent: VecDeque<Sent>,
    /// Whether a segment of the channel is open.
    open: bool,
    first_open: Option<First>,
    open_within: Duration,
    /// Whether the channel has had its first segment, and whether the model is seen reading.
    met: bool,
    seen: bool,
    /// When the segment before was to begin.
    paced: Time,

    /// Output is read, so that it can answer.
    answers: bool,
    by: Option<Matching>,
    /// Reads the output segment that is open: how many bytes it had, and whether a stamp of it was the input's.
    returned: Scanner,
    returned_bytes: u64,
    matched: bool,
    /// The number of the segment that the output is in, as far as its stamps say.
    reached: u64,
    /// Output segments of the channel that are over, and segments of the channel that are forgotten; both without
    /// those that no output answers.
    ended: u64,
    sent_before: u64,
    /// The segment forgotten last: late frames of it may follow.
    forgotten: Option<Span>,
    /// Whether there was more output than input: then it is unknown which answers which.
    surplus: bool,

    /// Segments that have output, and that have none and will get none.
    pub(super) answered: u64,
    pub(super) missing: u64,
    gaps: VecDeque<Range<u64>>,
}

impl Log {
    pub(super) fn new(now: Time, limits: Limits, ahead: usize) -> Self {
        Self {
            limits,
            ahead: ahead.max(1),
            kept: VecDeque::new(),
            first: 0,
            dropped: 0,
            bytes: 0,
            written: Scanner::default(),
            at: 0,
            begun: false,
            handed: 0,
            owed_to: 0,
            sent: VecDeque::new(),
            open: false,
            first_open: None,
            open_within: FIRST_OPEN_WITHIN,
            met: false,
            seen: false,
            paced: now,
            answers: false,
            by: None,
            returned: Scanner::default(),
            returned_bytes: 0,
            matched: false,
            reached: 0,
            ended: 0,
            sent_before: 0,
            forgotten: None,
            surplus: false,
            answered: 0,
            missing: 0,
            gaps: VecDeque::new(),
        }
    }

    // ---- what the application writes -------------------------------------------------------------------------

    /// Begins a segment, and ends the one before it if that is open. Returns its number.
    pub(super) fn begin(&mut self) -> u64 {
        self.end();
        self.written = Scanner::default();
        self.kept.push_back(Kept::default());
        self.trim();
        self.begun_in_all() - 1
    }

    /// Adds to the open segment; without one the bytes go nowhere.
    pub(super) fn write(&mut self, data: Bytes) {
        let Some(open) = self.kept.back_mut().filter(|last| !last.complete) else {
            return;
        };
        if data.is_empty() {
            return;
        }
        self.written
            .push(&data, |stamp| Span::add(&mut open.span, stamp));
        open.len += data.len();
        self.bytes += data.len();
        open.pieces.push(data);
        self.trim();
    }

    /// Completes the open segment.
    pub(super) fn end(&mut self) {
        if let Some(last) = self.kept.back_mut() {
            last.complete = true;
        }
        self.step_over();
    }

    // ---- questions -------------------------------------------------------------------------------------------

    /// How output is matched to input at the orchestrator at work, once that is known.
    pub(super) const fn matching(&self) -> Option<Matching> {
        self.by
    }

    /// The answers that the output owes.
    pub(super) fn owed(&self) -> Owed {
        let lacks = |at| !self.is_delivered(at);
        let owed = |(at, kept): (usize, &Kept)| !kept.is_answered() || kept.cut && lacks(at);
        if self.kept.iter().enumerate().any(owed) {
            Owed::Something
        } else if self.answers && !self.surplus {
            Owed::Nothing
        } else {
            Owed::Unknown
        }
    }

    /// Whether the orchestrator at work has been handed everything so far.
    pub(super) fn is_handed_over(&self) -> bool {
        match self.kept.get(self.at) {
            Some(kept) => self.begun && self.handed >= kept.pieces.len(),
            None => true,
        }
    }

    /// Whether every segment is handed over, complete, and delivered or given up.
    pub(super) fn is_settled(&self) -> bool {
        self.at == self.kept.len() && !self.open && !self.sent.iter().any(|sent| sent.awaited)
    }

    /// How many segments were handed over whole and are neither delivered nor given up.
    pub(super) fn awaited(&self) -> u64 {
        let handed = self.first + self.at as u64;
        let awaited = self.sent.iter().filter(|sent| sent.awaited);
        awaited
            .map(|sent| {
                sent.numbers
                    .end
                    .min(handed)
                    .saturating_sub(sent.numbers.start)
            })
            .sum()
    }

    /// How many segments were handed over whole.
    pub(super) const fn handed(&self) -> u64 {
        self.first + self.at as u64
    }

    /// The number after that of the last segment whose beginning the orchestrator at work was handed.
    pub(super) fn begun_here(&self) -> u64 {
        self.handed() + u64::from(self.begun)
    }

    /// The bytes that are kept.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many segments were begun in all.
    pub(super) fn begun_in_all(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// Whether more output may follow of a segment that is answered as far as its time stamps tell.
    pub(super) fn expects_rest(&self) -> bool {
        self.kept.iter().any(|kept| kept.cut)
    }

    // ---- the inside ------------------------------------------------------------------------------------------

    /// The segment of the channel in which a segment ends, or in which it is handed over now, and how much of that one
    /// was handed over up to there.
    fn end_of(&self, at: usize) -> Option<(&Sent, u64)> {
        if at == self.at && self.begun {
            return self.sent.back().map(|sent| (sent, sent.handed));
        }
        let (seq, bytes) = self.kept.get(at)?.ends?;
        let sent = self.sent.iter().find(|sent| sent.seq == seq)?;
        Some((sent, bytes))
    }

    /// Whether the server has said that it has all of a segment.
    fn is_delivered(&self, at: usize) -> bool {
        self.end_of(at)
            .is_some_and(|(sent, _)| !sent.awaited && !sent.lost)
    }

    /// Whether the publisher gave a segment up.
    fn is_lost(&self, at: usize) -> bool {
        self.end_of(at).is_some_and(|(sent, _)| sent.lost)
    }

    /// Whether all that was handed over of a segment has left on connections that did not break before the server had
    /// it. Output of what follows in the same segment of the channel shows that it has.
    fn is_sent(&self, at: usize) -> bool {
        let number = self.first + at as u64;
        let follows = |sent: &Sent| number < self.reached && sent.numbers.contains(&self.reached);
        self.end_of(at).is_some_and(|(sent, bytes)| {
            follows(sent)
                || match sent.awaited {
                    true => sent.sent >= bytes,
                    false => !sent.lost,
                }
        })
    }

    /// Forgets the first segment that is kept.
    fn forget_first(&mut self) {
        let Some(first) = self.kept.pop_front() else {
            return;
        };
        if first.dropped {
            self.dropped -= 1;
        } else {
            self.bytes -= first.len;
        }
        if first.span().is_some() {
            self.forgotten = first.span;
        }
        self.first += 1;
        self.at = self.at.saturating_sub(1);
    }

    /// Forgets the first segment that is kept, as one that has no output and will get none.
    fn miss_first(&mut self) {
        let number = self.first;
        self.forget_first();
        self.missing += 1;
        match self.gaps.back_mut() {
            Some(gap) if gap.end == number => gap.end += 1,
            _ => self.gaps.push_back(number..number + 1),
        }
    }

    /// Forgets segments of the channel that nothing depends on any more.
    fn tidy(&mut self) {
        while let Some(sent) = self.sent.front() {
            let ended = self.sent.len() > 1 || !self.open;
            if sent.awaited || !ended || sent.numbers.end > self.first {
                return;
            }
            self.sent_before += u64::from(!sent.skipped);
            self.sent.pop_front();
        }
    }

    /// Keeps to the limits, if what was handed over allows it.
    fn trim(&mut self) {
        while self.dropped < self.at
            && (self.kept.len() - self.dropped > self.limits.segments
                || self.bytes > self.limits.bytes)
        {
            let kept = &mut self.kept[self.dropped];
            kept.dropped = true;
            kept.pieces = Vec::new();
            self.bytes -= kept.len;
            self.dropped += 1;
        }
        while self.at > 0 && self.kept.len() > MAX_UNANSWERED {
            self.miss_first();
        }
    }
}

#[cfg(test)]
mod tests;
