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
//! and a server keeps five. So the first one stays open until the model is seen reading, [`FIRST_OPEN_WITHIN`] has
//! passed, or it has [`FIRST_OPEN_BYTES`]; and later ones begin only while fewer than [`AHEAD`] are unanswered, or at
//! the pace of their time stamps.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use bytes::Bytes;

use super::stamps::{Scanner, Span, Stamp, ticks};
use super::{Matching, Owed};
use crate::time::Time;
use crate::trickle::Seq;

/// The first segment of a channel stays open this long, unless the model is seen reading before.
pub const FIRST_OPEN_WITHIN: Duration = Duration::from_secs(1);

/// The first segment of a channel ends once it has this many bytes, whether or not the model is seen reading.
pub const FIRST_OPEN_BYTES: usize = 8 << 20;

/// The first segment of a channel goes on for this long by itself before it takes in another: a model that reads already
/// is seen by then, and its output keeps the application's segments apart.
pub const JOIN_AFTER: Duration = Duration::from_millis(100);

/// Segments that may be ahead of the output at any speed. With more, input goes on at the pace of its time stamps: a
/// channel holds five, one of them is being written, and a reader may be one behind.
pub const AHEAD: usize = 3;

/// How much earlier than its time stamps say a segment may begin, for the clocks of live sources are not ours.
pub const EARLY: Duration = Duration::from_millis(250);

/// How long a segment without time stamps is taken to play.
const UNSTAMPED: Duration = Duration::from_secs(1);

/// The longest that a segment is taken to play.
const MAX_PLAY: Duration = Duration::from_secs(10);

/// Output that stops this much before the end of a segment answers it all the same: models drop frames.
pub const DROPPED_TAIL: Duration = Duration::from_millis(500);

/// Output whose time stamps are this far ahead of everything handed over does not carry the input's clock.
const AHEAD_OF_INPUT: Duration = Duration::from_millis(500);

/// Unanswered segments that are remembered; beyond it the oldest counts as missing.
pub const MAX_UNANSWERED: usize = 1024;

/// How much input is kept. What was not handed over yet is kept in any case.
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

/// What the publisher of the orchestrator at work is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Begin a segment of the channel with the next one of the application.
    Begin,
    /// Go on in the open segment of the channel with the next one of the application.
    Join,
    /// Write these bytes.
    Data(Bytes),
    /// End the open segment of the channel.
    End,
    /// Nothing before that time.
    Wait(Time),
    /// Nothing before the application goes on.
    Nothing,
}

/// A segment of the application.
#[derive(Debug, Default)]
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
#[derive(Debug)]
struct Sent {
    seq: Seq,
    /// The application's segments in it.
    numbers: Range<u64>,
    /// The server has not said yet whether it has all of it.
    awaited: bool,
    /// The publisher gave it up: no output answers it.
    lost: bool,
}

/// The first segment of a channel, while it is open.
#[derive(Debug)]
struct First {
    opened: Time,
    bytes: usize,
}

/// See the [module](self).
#[derive(Debug)]
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

    /// The one that is handed over now, or will be next: its place among those kept.
    at: usize,
    /// Whether its beginning was handed over, and how many of its pieces.
    begun: bool,
    handed: usize,
    /// Those below were in the hands of an orchestrator before.
    owed_to: u64,
    sent: VecDeque<Sent>,
    /// Whether a segment of the channel is open.
    open: bool,
    first_open: Option<First>,
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
    /// those that the publisher gave up.
    ended: u64,
    sent_before: u64,
    /// The segment forgotten last: late frames of it may follow.
    forgotten: Option<Span>,
    /// There was more output than input: which answers which is not known.
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

    /// The open segment is complete.
    pub(super) fn end(&mut self) {
        if let Some(last) = self.kept.back_mut() {
            last.complete = true;
        }
        self.step_over();
    }

    // ---- what the orchestrator at work gets ------------------------------------------------------------------

    /// What the orchestrator at work gets next.
    pub(super) fn next(&self, now: Time) -> Next {
        let next = self.kept.get(self.at);
        if self.begun {
            return match next.and_then(|kept| kept.pieces.get(self.handed)) {
                Some(data) if self.open => Next::Data(data.clone()),
                // The publisher ended the channel's segment, since nothing came for too long: another takes the rest.
                Some(_) => Next::Begin,
                None => Next::Nothing,
            };
        }
        let ends = self.open.then(|| self.may_end_at(now));
        if ends.is_some_and(|at| at <= now) {
            return Next::End;
        }
        let joins_at = self
            .first_open
            .as_ref()
            .map_or(now, |first| first.opened + JOIN_AFTER);
        let begins = next.map(|_| self.may_begin_at(now).max(joins_at));
        match (begins, ends) {
            (Some(at), _) if at <= now && self.open => Next::Join,
            (Some(at), _) if at <= now => Next::Begin,
            (Some(begins), Some(ends)) => Next::Wait(begins.min(ends)),
            (Some(at), None) | (None, Some(at)) => Next::Wait(at),
            (None, None) => Next::Nothing,
        }
    }

    /// When the open segment of the channel may end.
    fn may_end_at(&self, now: Time) -> Time {
        match &self.first_open {
            Some(first) if !self.seen && first.bytes < FIRST_OPEN_BYTES => {
                first.opened + FIRST_OPEN_WITHIN
            }
            _ => now,
        }
    }

    /// When the next segment of the application may follow those before it.
    fn may_begin_at(&self, now: Time) -> Time {
        let owed = self.first_open.is_some() && self.first + (self.at as u64) < self.owed_to;
        if owed || self.at < self.ahead {
            return now;
        }
        let due = self.due();
        if due <= now + EARLY { now } else { due - EARLY }
    }

    /// When the next segment is due by the time stamps of the one before it.
    fn due(&self) -> Time {
        let before = self.at.checked_sub(1).and_then(|at| self.kept.get(at));
        let plays = before.map_or(Duration::ZERO, Kept::plays);
        // A little faster than the source: else its clock, if it is the faster one, would fill our memory.
        self.paced + plays - plays / 256
    }

    /// [`Next::Begin`] was done: the channel calls it `seq`.
    pub(super) fn took_begin(&mut self, now: Time, seq: Seq) {
        let number = self.first + self.at as u64;
        if !core::mem::replace(&mut self.met, true) {
            self.first_open = Some(First {
                opened: now,
                bytes: 0,
            });
        }
        self.open = true;
        self.sent.push_back(Sent {
            seq,
            numbers: number..number + 1,
            awaited: true,
            lost: false,
        });
        if !self.begun {
            self.took_join(now);
        }
    }

    /// [`Next::Join`] was done.
    pub(super) fn took_join(&mut self, now: Time) {
        let number = self.first + self.at as u64;
        self.paced = if self.at < self.ahead {
            now
        } else {
            self.due().max(now)
        };
        if let Some(sent) = self.sent.back_mut() {
            sent.numbers.end = number + 1;
        }
        self.begun = true;
        self.step_over();
    }

    /// [`Next::Data`] was done.
    pub(super) fn took_data(&mut self) {
        let piece = self.kept.get(self.at);
        let piece = piece.and_then(|kept| kept.pieces.get(self.handed));
        if let (Some(piece), Some(first)) = (piece, &mut self.first_open) {
            first.bytes = first.bytes.saturating_add(piece.len());
        }
        self.handed += 1;
        self.step_over();
    }

    /// [`Next::End`] was done, or the publisher has ended the segment by itself.
    pub(super) fn took_end(&mut self) {
        self.open = false;
        self.first_open = None;
    }

    /// Goes on to the next segment once everything of this one is handed over.
    fn step_over(&mut self) {
        let done = self
            .kept
            .get(self.at)
            .is_some_and(|kept| kept.complete && self.handed >= kept.pieces.len());
        if self.begun && done {
            self.at += 1;
            self.begun = false;
            self.handed = 0;
            self.trim();
            self.forget_answered();
        }
    }

    /// The model reads: its first segment need not stay open any longer.
    pub(super) const fn model_reads(&mut self) {
        self.seen = true;
    }

    /// The orchestrator has the whole of that segment, or it is given up. Returns the application's segments in it.
    pub(super) fn settled(&mut self, seq: Seq, lost: bool) -> Range<u64> {
        let sent = self.sent.iter_mut().find(|sent| sent.seq == seq);
        let Some(sent) = sent.filter(|sent| sent.awaited) else {
            return 0..0;
        };
        sent.awaited = false;
        sent.lost = lost;
        let numbers = sent.numbers.clone();
        if self.answers {
            self.tidy();
        } else {
            self.forget_delivered();
        }
        numbers
    }

    /// Another orchestrator: begins anew at the first segment that is not answered. Returns its number, and how many
    /// were in the hands of the one before.
    pub(super) fn restart(&mut self) -> (u64, usize) {
        // What is not kept any more, nobody can do again.
        while self.kept.front().is_some_and(|first| first.dropped) {
            self.miss_first();
        }
        let again = self.at + usize::from(self.begun);
        for kept in &mut self.kept {
            (kept.open, kept.back) = (None, None);
        }
        self.owed_to = self.owed_to.max(self.first + again as u64);
        (self.at, self.begun, self.handed) = (0, false, 0);
        self.sent.clear();
        (self.open, self.first_open, self.met, self.seen) = (false, None, false, false);
        self.by = None;
        self.drop_output();
        self.reached = self.first;
        (self.ended, self.sent_before) = (0, 0);
        self.forgotten = None;
        (self.first, again)
    }

    // ---- what comes back -------------------------------------------------------------------------------------

    /// Whether output is read, so that it can answer. While it is not, a segment is answered by its delivery.
    pub(super) fn expect_answers(&mut self, read: bool) {
        self.answers = read;
        if !read {
            self.forget_delivered();
        }
    }

    /// Forgets what the orchestrator has whole, for nobody waits for output of it.
    fn forget_delivered(&mut self) {
        let delivered = |sent: &&Sent| !sent.awaited && !sent.lost;
        let end = self
            .sent
            .iter()
            .filter(delivered)
            .map(|sent| sent.numbers.end)
            .max();
        while self.at > 0 && end.is_some_and(|end| self.first < end) {
            self.forget_first();
            self.answered += 1;
        }
        self.tidy();
    }

    /// Bytes of the open output segment.
    pub(super) fn output(&mut self, data: &[u8]) {
        self.returned_bytes += data.len() as u64;
        let mut returned = core::mem::take(&mut self.returned);
        returned.push(data, |stamp| self.output_reaches(stamp));
        self.returned = returned;
    }

    fn output_reaches(&mut self, stamp: Stamp) {
        if self.by == Some(Matching::Count) {
            return;
        }
        let handed = self.at + usize::from(self.begun);
        let from = self.reached.saturating_sub(self.first) as usize;
        // An input that is repeated has the same stamps again: back at the beginning means on to the next.
        let again = self.kept.get(from).is_some_and(|kept| {
            let before = kept.lacks(kept.open.or(kept.back));
            before
                .zip(kept.lacks(Some(stamp)))
                .is_some_and(|(before, now)| {
                    kept.complete
                        && before <= ticks(DROPPED_TAIL)
                        && now - before > ticks(DROPPED_TAIL)
                })
        });
        let from = (from + usize::from(again)).min(handed);
        let holds = |at: &usize| {
            let span = self.kept.get(*at).and_then(Kept::span);
            span.is_some_and(|span| span.contains(stamp))
        };
        let found = (from..handed).find(holds);
        let found = found.or_else(|| (0..from.min(handed)).rev().find(holds));
        let Some(at) = found else {
            return self.output_strays(stamp, handed);
        };
        self.by = Some(Matching::Clock);
        self.matched = true;
        self.reached = self.first + at as u64;
        let kept = &mut self.kept[at];
        let further = match (kept.lacks(Some(stamp)), kept.lacks(kept.open)) {
            (Some(new), Some(old)) => new < old,
            _ => true,
        };
        if further {
            kept.open = Some(stamp);
        }
    }

    /// A frame that belongs to no segment. One of the future shows that the clock is not the input's.
    fn output_strays(&mut self, stamp: Stamp, handed: usize) {
        let late = self.forgotten.is_some_and(|span| span.contains(stamp));
        let mut known = self.kept.iter().take(handed).rev().filter_map(Kept::span);
        let ahead = known.find_map(|span| span.beyond(stamp));
        if !late && ahead.is_some_and(|ahead| ahead > ticks(AHEAD_OF_INPUT)) {
            self.by = Some(Matching::Count);
        }
    }

    /// The open output segment is complete.
    pub(super) fn output_ended(&mut self) {
        if self.returned_bytes == 0 {
            // Publishers end with an empty segment, and keep channels alive with them.
            return self.drop_output();
        }
        self.ended += 1;
        if !self.matched && self.by.is_none() {
            self.by = Some(Matching::Count);
        }
        for kept in &mut self.kept {
            kept.back = kept.open.take().or(kept.back);
        }
        self.drop_output();
        self.forget_answered();
    }

    /// The rest of the open output segment is lost.
    pub(super) fn output_cut(&mut self) {
        let counts = self.by != Some(Matching::Clock);
        self.drop_output();
        self.output_missed(1);
        if counts {
            self.by = Some(Matching::Count);
        }
    }

    /// Segments of the output were missed. Which of the input's they answered is for later ones to show.
    pub(super) fn output_missed(&mut self, count: u64) {
        for _ in 0..count.min(MAX_UNANSWERED as u64) {
            self.ended += 1;
            if self.by != Some(Matching::Clock)
                && let Some(numbers) = self.counted()
            {
                while self.at > 0 && self.first < numbers.end {
                    self.miss_first();
                }
            }
        }
        self.tidy();
    }

    /// What there is of the open output segment is dropped.
    pub(super) fn drop_output(&mut self) {
        for kept in &mut self.kept {
            kept.open = None;
        }
        self.returned = Scanner::default();
        self.returned_bytes = 0;
        self.matched = false;
    }

    /// The application's segments in the segment of the channel that the output segment which ended last answers, if
    /// one answers one.
    fn counted(&self) -> Option<Range<u64>> {
        let nth = self.ended.checked_sub(self.sent_before + 1)?;
        let mut sent = self.sent.iter().filter(|sent| !sent.lost);
        Some(sent.nth(usize::try_from(nth).ok()?)?.numbers.clone())
    }

    /// Forgets what is answered, and what will not be since later segments are.
    fn forget_answered(&mut self) {
        let counted = self.counted();
        if self.by == Some(Matching::Count) {
            self.surplus |= counted.is_none() && self.ended > self.sent_before;
            let numbers = counted.unwrap_or(0..0);
            while self.at > 0 && self.first < numbers.end {
                if self.first < numbers.start {
                    // The publisher gave it up.
                    self.miss_first();
                } else {
                    self.forget_first();
                    self.answered += 1;
                }
            }
            return self.tidy();
        }
        // Where a segment has no stamps, only counting is left.
        let counted = counted.map_or(0, |numbers| numbers.end);
        let by_count = |kept: &Kept, number| kept.span().is_none() && number < counted;
        let reached =
            |(kept, number): &(&Kept, u64)| kept.back.is_some() || by_count(kept, *number);
        let latest = self.kept.iter().zip(self.first..).filter(reached).last();
        let latest = latest.map(|(_, number)| number);
        while let (Some(latest), Some(first)) = (latest, self.kept.front()) {
            let passed = self.first < latest;
            let counts = by_count(first, self.first);
            if self.at == 0 || !(passed || self.first == latest && (counts || first.is_whole())) {
                break;
            }
            if counts || first.is_answered() {
                self.forget_first();
                self.answered += 1;
            } else {
                self.miss_first();
            }
        }
        self.tidy();
    }

    /// The job is over: what is not answered by now will not be.
    pub(super) fn finish(&mut self) {
        while let Some(first) = self.kept.front() {
            // Nothing was published in vain where nobody reads, and of nothing nothing comes.
            if !self.answers || first.len == 0 {
                self.forget_first();
            } else if first.is_answered() {
                self.forget_first();
                self.answered += 1;
            } else {
                self.miss_first();
            }
        }
        self.sent.clear();
    }

    /// The next run of segments that have no output and will get none.
    pub(super) fn next_gap(&mut self) -> Option<Range<u64>> {
        self.gaps.pop_front()
    }

    // ---- questions -------------------------------------------------------------------------------------------

    /// How output is matched to input at the orchestrator at work, once that is known.
    pub(super) const fn matching(&self) -> Option<Matching> {
        self.by
    }

    /// What the output owes.
    pub(super) fn owed(&self) -> Owed {
        if self.kept.iter().any(|kept| !kept.is_answered()) {
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

    /// How many segments were begun in all.
    pub(super) fn begun_in_all(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    // ---- the inside ------------------------------------------------------------------------------------------

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
            self.sent_before += u64::from(!sent.lost);
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
