//! Handing over: the steps by which the orchestrator at work gets the segments, when each may be taken, and what the
//! log notes of it.

use core::ops::Range;
use core::time::Duration;

use bytes::Bytes;

use super::{First, Kept, Log, Sent};
use crate::time::Time;
use crate::trickle::Seq;

/// Time for which the first segment of a channel stays open, unless the model is seen reading before.
pub const FIRST_OPEN_WITHIN: Duration = Duration::from_secs(1);

/// Bytes after which the first segment of a channel ends, whether or not the model is seen reading.
pub const FIRST_OPEN_BYTES: usize = 8 << 20;

/// Time for which the first segment of a channel goes on by itself before it takes in another: a model that reads
/// already is seen by then, and its output keeps the application's segments apart.
pub const JOIN_AFTER: Duration = Duration::from_millis(100);

/// Time by which a segment may begin earlier than its time stamps say, for the clocks of live sources are not ours.
pub const EARLY: Duration = Duration::from_millis(250);

/// Step that the publisher of the orchestrator at work is to take next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::job::live::media) enum Next {
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

impl Log {
    /// Tells the next step of the handing over.
    pub(in crate::job::live::media) fn next(&self, now: Time) -> Next {
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

    /// Has the first segment of the channel stay open for another time than [`FIRST_OPEN_WITHIN`].
    pub(in crate::job::live::media) const fn stay_open(&mut self, within: Duration) {
        self.open_within = within;
    }

    /// Tells when the open segment of the channel may end.
    fn may_end_at(&self, now: Time) -> Time {
        match &self.first_open {
            Some(first) if !self.seen && first.bytes < FIRST_OPEN_BYTES => {
                first.opened + self.open_within
            }
            _ => now,
        }
    }

    /// Tells when the next segment of the application may follow those before it.
    fn may_begin_at(&self, now: Time) -> Time {
        let owed = self.first_open.is_some() && self.first + (self.at as u64) < self.owed_to;
        if owed || self.at < self.ahead {
            return now;
        }
        let due = self.due();
        if due <= now + EARLY { now } else { due - EARLY }
    }

    /// Tells when the next segment is due by the time stamps of the one before it.
    fn due(&self) -> Time {
        let before = self.at.checked_sub(1).and_then(|at| self.kept.get(at));
        let plays = before.map_or(Duration::ZERO, Kept::plays);
        // A little faster than the source: else its clock, if it is the faster one, would fill our memory.
        self.paced + plays - plays / 256
    }

    /// Notes that [`Next::Begin`] was done: the channel calls it `seq`.
    pub(in crate::job::live::media) fn took_begin(&mut self, now: Time, seq: Seq) {
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
            handed: 0,
            sent: 0,
            awaited: true,
            lost: false,
            skipped: false,
        });
        if !self.begun {
            self.took_join(now);
        }
    }

    /// Notes that [`Next::Join`] was done.
    pub(in crate::job::live::media) fn took_join(&mut self, now: Time) {
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

    /// Notes that [`Next::Data`] was done.
    pub(in crate::job::live::media) fn took_data(&mut self) {
        let piece = self.kept.get(self.at);
        let piece = piece.and_then(|kept| kept.pieces.get(self.handed));
        let len = piece.map_or(0, Bytes::len);
        if let Some(first) = &mut self.first_open {
            first.bytes = first.bytes.saturating_add(len);
        }
        if let Some(sent) = self.sent.back_mut() {
            sent.handed += len as u64;
        }
        self.handed += 1;
        self.step_over();
    }

    /// Notes that [`Next::End`] was done, or that the publisher has ended the segment by itself.
    pub(in crate::job::live::media) fn took_end(&mut self) {
        self.open = false;
        self.first_open = None;
    }

    /// Goes on to the next segment once everything of this one is handed over.
    pub(super) fn step_over(&mut self) {
        let done = self
            .kept
            .get(self.at)
            .is_some_and(|kept| kept.complete && self.handed >= kept.pieces.len());
        if self.begun && done {
            let ends = self.sent.back().map(|sent| (sent.seq, sent.handed));
            self.kept[self.at].ends = ends;
            self.at += 1;
            self.begun = false;
            self.handed = 0;
            self.trim();
            self.forget_answered();
        }
    }

    /// Notes how many bytes of each segment of the channel have left, on a connection that did not break since.
    pub(in crate::job::live::media) fn note_sent(&mut self, bytes: impl Fn(Seq) -> u64) {
        for sent in self.sent.iter_mut().filter(|sent| sent.awaited) {
            sent.sent = bytes(sent.seq);
        }
    }

    /// Notes that the model reads: its first segment need not stay open any longer.
    pub(in crate::job::live::media) const fn model_reads(&mut self) {
        self.seen = true;
    }

    /// Notes that the orchestrator has the whole of that segment of the channel, or that the publisher gave it up. Returns
    /// the application's segments in it.
    pub(in crate::job::live::media) fn settled(&mut self, seq: Seq, lost: bool) -> Range<u64> {
        // Output segments so far, the open one included.
        let so_far = self.ended + u64::from(self.returned_bytes > 0);
        let answered = so_far.saturating_sub(self.sent_before) as usize;
        let mut counted = self.sent.iter().filter(|sent| !sent.skipped);
        let nth = counted.position(|sent| sent.seq == seq);
        let skipped = lost && nth.is_some_and(|nth| nth >= answered);
        let sent = self.sent.iter_mut().find(|sent| sent.seq == seq);
        let Some(sent) = sent.filter(|sent| sent.awaited) else {
            return 0..0;
        };
        sent.awaited = false;
        (sent.lost, sent.skipped) = (lost, skipped);
        let numbers = sent.numbers.clone();
        if self.answers {
            self.tidy();
        } else {
            self.forget_delivered();
        }
        numbers
    }

    /// Begins anew for another orchestrator, at the first segment that is not answered. Returns the number of that
    /// segment, and how many were in the hands of the orchestrator before.
    pub(in crate::job::live::media) fn restart(&mut self) -> (u64, usize) {
        // What is not kept any more, nobody can do again.
        while self.kept.front().is_some_and(|first| first.dropped) {
            self.miss_first();
        }
        let again = self.at + usize::from(self.begun);
        for kept in &mut self.kept {
            (kept.open, kept.back, kept.ends, kept.cut) = (None, None, None, false);
        }
        self.owed_to = self.owed_to.max(self.first + again as u64);
        (self.at, self.begun, self.handed) = (0, false, 0);
        self.sent.clear();
        (self.open, self.first_open, self.met, self.seen) = (false, None, false, false);
        self.open_within = FIRST_OPEN_WITHIN;
        self.by = None;
        self.drop_output();
        self.reached = self.first;
        (self.ended, self.sent_before) = (0, 0);
        self.forgotten = None;
        (self.first, again)
    }
}
