//! Answers: which segments the output that comes back answers, by its time stamps or by counting, and which segments
//! will have none.

use core::ops::Range;
use core::time::Duration;

use super::{DROPPED_TAIL, Kept, Log, MAX_UNANSWERED, Sent};
use crate::job::live::media::Matching;
use crate::job::live::media::stamps::{Scanner, Stamp, ticks};
use crate::trickle::subscriber;

/// Lead of the output's time stamps over everything handed over, beyond which they are not of the input's clock.
const AHEAD_OF_INPUT: Duration = Duration::from_millis(500);

impl Log {
    /// Notes whether output is read, so that it can answer. While output is not read, a segment is answered by its
    /// delivery.
    pub(in crate::job::live::media) fn expect_answers(&mut self, read: bool) {
        self.answers = read;
        if !read {
            self.forget_delivered();
        }
    }

    /// Whether output is read.
    pub(in crate::job::live::media) const fn expects_answers(&self) -> bool {
        self.answers
    }

    /// Forgets what the orchestrator has whole, for nobody waits for output of it.
    pub(super) fn forget_delivered(&mut self) {
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

    /// Takes in an event of the output.
    pub(in crate::job::live::media) fn on_output(&mut self, event: &subscriber::Event) {
        match event {
            subscriber::Event::Begin(..) => self.drop_output(),
            subscriber::Event::Data(_, data) => {
                self.output(data);
                self.model_reads();
            }
            subscriber::Event::End(_) => self.output_ended(),
            subscriber::Event::Truncated(..) => self.output_cut(),
            subscriber::Event::Gap(range) => {
                self.output_missed(range.end.get().saturating_sub(range.start.get()));
            }
            subscriber::Event::Discontinuity | subscriber::Event::Closed(_) => {}
        }
    }

    /// Reads bytes of the open output segment.
    pub(super) fn output(&mut self, data: &[u8]) {
        self.returned_bytes += data.len() as u64;
        let mut returned = core::mem::take(&mut self.returned);
        returned.push(data, |stamp| self.output_reaches(stamp));
        self.returned = returned;
    }

    /// Finds the segment that a frame of the output answers.
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

    /// Judges a frame that belongs to no segment. One of the future shows that the clock is not the input's.
    fn output_strays(&mut self, stamp: Stamp, handed: usize) {
        let late = self.forgotten.is_some_and(|span| span.contains(stamp));
        let mut known = self.kept.iter().take(handed).rev().filter_map(Kept::span);
        let ahead = known.find_map(|span| span.beyond(stamp));
        if !late && ahead.is_some_and(|ahead| ahead > ticks(AHEAD_OF_INPUT)) {
            self.by = Some(Matching::Count);
        }
    }

    /// Notes that the open output segment is complete.
    pub(super) fn output_ended(&mut self) {
        if self.returned_bytes == 0 {
            // Publishers end with an empty segment, and keep channels alive with them.
            return self.drop_output();
        }
        self.ended += 1;
        if !self.matched && self.by.is_none() {
            self.by = Some(Matching::Count);
        }
        let counted = self.counted().unwrap_or(0..0);
        for at in 0..self.kept.len() {
            let sent = self.is_sent(at);
            let by_count = self.by == Some(Matching::Count) || self.kept[at].span().is_none();
            let counts = by_count && counted.contains(&(self.first + at as u64));
            let kept = &mut self.kept[at];
            kept.back = kept.open.take().or(kept.back);
            kept.cut = (kept.cut || kept.back.is_some() || counts) && !sent;
        }
        self.drop_output();
        self.forget_answered();
    }

    /// The segments of which output has ended before it had all of them.
    pub(in crate::job::live::media) fn answered_in_part(&self) -> Option<Range<u64>> {
        let begun = |(kept, _): &(&Kept, u64)| kept.back.is_some() || kept.cut;
        let mut numbers = self.kept.iter().zip(self.first..).filter(begun);
        let (_, first) = numbers.next()?;
        let last = numbers.last().map_or(first, |(_, number)| number);
        Some(first..last + 1)
    }

    /// Notes that the rest of the open output segment is lost.
    pub(super) fn output_cut(&mut self) {
        let counts = self.by != Some(Matching::Clock);
        self.drop_output();
        self.output_missed(1);
        if counts {
            self.by = Some(Matching::Count);
        }
    }

    /// Notes that segments of the output were missed. Which of the input's they answered is for later ones to show.
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

    /// Drops what there is of the open output segment.
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
        let mut sent = self.sent.iter().filter(|sent| !sent.skipped);
        Some(sent.nth(usize::try_from(nth).ok()?)?.numbers.clone())
    }

    /// Forgets what is answered, and what will not be since later segments are.
    pub(super) fn forget_answered(&mut self) {
        let counted = self.counted();
        if self.by == Some(Matching::Count) {
            self.surplus |= counted.is_none() && self.ended > self.sent_before;
            let numbers = counted.unwrap_or(0..0);
            while self.at > 0 && self.first < numbers.end {
                let first = &self.kept[0];
                if self.first >= numbers.start && first.cut {
                    // More output may follow, or the next orchestrator has to answer it again.
                    break;
                }
                if self.is_lost(0) || first.cut {
                    // The publisher gave it up, or its rest.
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
            let whole = (counts || first.is_whole()) && !first.cut;
            if self.at == 0 || !(passed || self.first == latest && whole) {
                break;
            }
            if (counts || first.is_answered()) && !first.cut {
                self.forget_first();
                self.answered += 1;
            } else {
                self.miss_first();
            }
        }
        self.tidy();
    }

    /// Ends with the job: what is not answered by now will not be. Nobody can tell whether the model made nothing of the
    /// rest of a segment or its output is lost, so that is missing too
    /// (`the_rest_of_a_segment_that_no_output_follows_is_missing`).
    pub(in crate::job::live::media) fn finish(&mut self) {
        while let Some(first) = self.kept.front() {
            // Nothing was published in vain where nobody reads, and of nothing nothing comes.
            if !self.answers || first.len == 0 {
                self.forget_first();
            } else if first.is_answered() && !first.cut {
                self.forget_first();
                self.answered += 1;
            } else {
                self.miss_first();
            }
        }
        self.sent.clear();
    }

    /// Takes the next run of segments that have no output and will get none.
    pub(in crate::job::live::media) fn next_gap(&mut self) -> Option<Range<u64>> {
        self.gaps.pop_front()
    }
}
