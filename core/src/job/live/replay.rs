//! The input that is not answered yet, kept for the next orchestrator.
//!
//! Whoever publishes writes into a [`Replay`] and hands its [pieces](Replay::next) to the publisher of the
//! orchestrator at work. When that one is lost, [`Replay::restart`] begins anew at the first segment that no output
//! answers, the open one included: what was in its hands, or on its way back, is done again by the next.
//!
//! The n-th complete output segment answers the n-th input segment: the protocol itself does not say which belong
//! together. A model that returns fewer segments than it gets has some of them done again, never more than
//! [`Limits::segments`]; one that returns more may lose what was in its hands.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;

/// How much is kept. What was not handed over yet is kept in any case.
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

/// What is handed to a publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Begin a segment; its number counts from zero over all orchestrators.
    Begin(u64),
    /// Its next bytes.
    Data(Bytes),
    /// It is complete.
    End(u64),
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Replay {
    limits: Limits,
    kept: VecDeque<Kept>,
    /// The number of the first one kept.
    first: u64,
    /// The one that is handed over now, or will be next: its place among those kept.
    at: usize,
    /// Whether its beginning was handed over, and how many of its pieces.
    begun: bool,
    handed: usize,
    bytes: usize,
    /// Output is read, so that it can answer.
    answers: bool,
    /// There was more output than input: which answers which is not known.
    surplus: bool,
}

/// What the output owes to the input so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owed {
    /// Nobody knows.
    #[default]
    Unknown,
    /// An answer to one segment at least.
    Something,
    /// Every segment is answered by one of its own.
    Nothing,
}

#[derive(Debug, Default)]
struct Kept {
    pieces: Vec<Bytes>,
    complete: bool,
    /// The publisher gave it up: no output will answer it.
    lost: bool,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }
}

impl Replay {
    /// Nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Output is read from now on. Without that a segment is answered by its delivery.
    pub const fn expect_answers(&mut self) {
        self.answers = true;
    }

    /// Begins a segment, and ends the one before it if that is open. Returns its number.
    pub fn begin(&mut self) -> u64 {
        self.end();
        self.kept.push_back(Kept::default());
        self.trim();
        self.first + self.kept.len() as u64 - 1
    }

    /// Adds to the open segment; without one the bytes go nowhere.
    pub fn write(&mut self, data: Bytes) {
        if let Some(open) = self.kept.back_mut().filter(|last| !last.complete) {
            self.bytes += data.len();
            open.pieces.push(data);
            self.trim();
        }
    }

    /// The open segment is complete.
    pub fn end(&mut self) {
        if let Some(last) = self.kept.back_mut() {
            last.complete = true;
        }
    }

    /// What the orchestrator at work gets next; `None` once it has everything.
    #[must_use]
    pub fn next(&self) -> Option<Piece> {
        let kept = self.kept.get(self.at)?;
        let number = self.first + self.at as u64;
        if !self.begun {
            Some(Piece::Begin(number))
        } else if let Some(data) = kept.pieces.get(self.handed) {
            Some(Piece::Data(data.clone()))
        } else {
            kept.complete.then_some(Piece::End(number))
        }
    }

    /// [`Replay::next`] was handed over.
    pub fn took(&mut self) {
        match self.next() {
            Some(Piece::Begin(_)) => self.begun = true,
            Some(Piece::Data(_)) => self.handed += 1,
            Some(Piece::End(_)) => {
                self.at += 1;
                self.begun = false;
                self.handed = 0;
            }
            None => {}
        }
    }

    /// The publisher ended the segment that is being handed over, since it was silent for too long: what was not
    /// handed over yet is the next one's.
    pub fn cut(&mut self) {
        if !core::mem::take(&mut self.begun) {
            return;
        }
        let handed = core::mem::take(&mut self.handed);
        // One without a byte is none: it begins again.
        if handed > 0
            && let Some(kept) = self.kept.get_mut(self.at)
        {
            let rest = Kept {
                pieces: kept.pieces.split_off(handed),
                complete: core::mem::replace(&mut kept.complete, true),
                lost: false,
            };
            self.at += 1;
            self.kept.insert(self.at, rest);
        }
    }

    /// The orchestrator has the whole of that segment. Returns whether that answers it.
    pub fn delivered(&mut self, number: u64) -> bool {
        if !self.answers {
            while self.at > 0 && self.first <= number {
                self.forget_first();
            }
        }
        !self.answers
    }

    /// The publisher gave that segment up; the output that follows answers later ones.
    pub fn lost(&mut self, number: u64) {
        let at = number.checked_sub(self.first).map(|at| at as usize);
        if let Some(kept) = at.and_then(|at| self.kept.get_mut(at)) {
            kept.lost = true;
        }
    }

    /// A segment of the output is complete: it answers the first that was handed over.
    pub fn answered(&mut self) {
        while self.at > 0 && self.kept.front().is_some_and(|first| first.lost) {
            self.forget_first();
        }
        if self.at > 0 {
            self.forget_first();
        } else {
            self.surplus = true;
        }
    }

    /// Another orchestrator: begins anew at the first segment that is not answered. Returns its number, and how
    /// many were in the hands of the one before.
    pub fn restart(&mut self) -> (u64, usize) {
        let again = self.at + usize::from(self.begun);
        for kept in &mut self.kept {
            kept.lost = false;
        }
        self.at = 0;
        self.begun = false;
        self.handed = 0;
        (self.first, again)
    }

    /// How many segments are not answered, the open one included.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.kept.len()
    }

    /// What the output owes.
    #[must_use]
    pub fn owed(&self) -> Owed {
        if !self.kept.is_empty() {
            Owed::Something
        } else if self.answers && !self.surplus {
            Owed::Nothing
        } else {
            Owed::Unknown
        }
    }

    /// How many segments were handed over whole.
    #[must_use]
    pub const fn handed(&self) -> u64 {
        self.first + self.at as u64
    }

    /// How many segments were begun in all.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// Whether a segment is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.kept.back().is_some_and(|last| !last.complete)
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.kept.pop_front() {
            self.bytes -= first.bytes();
            self.first += 1;
            self.at = self.at.saturating_sub(1);
        }
    }

    /// Keeps to the limits, if what was handed over allows it.
    fn trim(&mut self) {
        while self.at > 0
            && (self.kept.len() > self.limits.segments || self.bytes > self.limits.bytes)
        {
            self.forget_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(replay: &mut Replay, text: &'static str) {
        replay.begin();
        replay.write(Bytes::from_static(text.as_bytes()));
        replay.end();
    }

    /// What a publisher would have been given.
    fn feed(replay: &mut Replay) -> Vec<(u64, Vec<u8>)> {
        let mut all: Vec<(u64, Vec<u8>)> = Vec::new();
        while let Some(piece) = replay.next() {
            match piece {
                Piece::Begin(number) => all.push((number, Vec::new())),
                Piece::Data(data) => all.last_mut().expect("it has begun").1.extend(data),
                Piece::End(number) => assert_eq!(all.last().expect("it has begun").0, number),
            }
            replay.took();
        }
        all
    }

    #[test]
    fn what_no_output_answers_is_handed_over_again_and_nothing_else() {
        let mut replay = Replay::new(Limits::default());
        replay.expect_answers();
        for text in ["a", "b", "c"] {
            write(&mut replay, text);
        }
        assert_eq!(feed(&mut replay).len(), 3);
        replay.answered();
        assert_eq!(replay.owed(), Owed::Something);
        replay.begin();
        replay.write(Bytes::from_static(b"d"));
        assert_eq!(feed(&mut replay), [(3, b"d".to_vec())]);
        assert_eq!(replay.restart(), (1, 3));
        replay.write(Bytes::from_static(b"D"));
        let again = feed(&mut replay);
        assert_eq!(
            again,
            [(1, b"b".to_vec()), (2, b"c".to_vec()), (3, b"dD".to_vec())]
        );
        replay.end();
        assert_eq!(replay.next(), Some(Piece::End(3)));
        replay.took();
        for _ in 0..5 {
            replay.answered();
        }
        assert_eq!((replay.unanswered(), replay.begun()), (0, 4));
        assert_eq!(replay.owed(), Owed::Unknown, "more came than was asked for");
    }

    #[test]
    fn without_a_reader_delivery_is_the_answer() {
        let mut replay = Replay::new(Limits::default());
        for text in ["a", "b", "c"] {
            write(&mut replay, text);
        }
        feed(&mut replay);
        assert!(replay.delivered(1));
        assert_eq!(replay.restart(), (2, 1));
    }

    #[test]
    fn a_segment_that_was_ended_in_silence_goes_on_as_another_one() {
        let mut replay = Replay::new(Limits::default());
        replay.expect_answers();
        replay.begin();
        replay.write(Bytes::from_static(b"a"));
        assert_eq!(feed(&mut replay), [(0, b"a".to_vec())]);
        replay.write(Bytes::from_static(b"b"));
        replay.cut();
        assert!(replay.is_open());
        assert_eq!(feed(&mut replay), [(1, b"b".to_vec())]);
        replay.end();
        write(&mut replay, "c");
        assert_eq!(
            feed(&mut replay),
            [(2, b"c".to_vec())],
            "their numbers follow"
        );
        replay.answered();
        assert_eq!(replay.restart(), (1, 2), "each part has its own answer");
        // Without a byte there is nothing to answer.
        replay.begin();
        let begun = feed(&mut replay).len();
        replay.cut();
        replay.write(Bytes::from_static(b"d"));
        assert_eq!(begun, 3);
        assert_eq!(feed(&mut replay), [(3, b"d".to_vec())]);
    }

    #[test]
    fn a_segment_that_the_publisher_gave_up_is_answered_by_nobody() {
        let mut replay = Replay::new(Limits::default());
        replay.expect_answers();
        for text in ["a", "b", "c"] {
            write(&mut replay, text);
        }
        feed(&mut replay);
        replay.lost(0);
        replay.answered();
        assert_eq!(replay.restart(), (2, 1), "b was answered, a is given up");
    }

    #[test]
    fn no_more_is_kept_than_agreed_but_what_nobody_has_yet_is() {
        let mut replay = Replay::new(Limits {
            segments: 2,
            bytes: 3,
        });
        replay.expect_answers();
        for _ in 0..4 {
            write(&mut replay, "ab");
        }
        assert_eq!(feed(&mut replay).len(), 4);
        write(&mut replay, "cd");
        assert_eq!(replay.restart().0, 4, "only the new one fits");
        assert_eq!(feed(&mut replay), [(4, b"cd".to_vec())]);
    }
}
