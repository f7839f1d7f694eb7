//! The segment being told, resumed where its connection breaks (trickle spec 7.2-7).

use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::fetch::{Answer, Fetch, Tail};
use super::{Event, OVERLAP, Shared, Subscriber};
use crate::http::Out;
use crate::machine::EffectId;
use crate::time::Time;
use crate::trickle::{Ending, PAUSE, Seq, Start, WINDOW};

/// How many bytes of a segment's beginning are held, at most, to see that a resumed one is still the same: server and
/// publisher may have begun anew, and another segment may have its number.
const OPENING_BYTES: usize = 64 << 10;

/// The segment being told.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) seq: Seq,
    /// The connection it comes on, while there is one.
    pub(super) leg: Option<EffectId>,
    /// Another for the same, after silence or a break; it has to skip what is known.
    pub(super) again: Option<Fetch>,
    pub(super) told: u64,
    opening: Vec<Bytes>,
    opening_len: usize,
    pub(super) skip: u64,
    pub(super) resumes: u32,
    pub(super) heard: Time,
    /// When silence is taken for a dead connection.
    pub(super) reread_at: Time,
    broken_at: Time,
}

impl Reading {
    pub(super) fn new(now: Time, seq: Seq, leg: Option<EffectId>, refresh: Duration) -> Self {
        Self {
            seq,
            leg,
            again: None,
            told: 0,
            opening: Vec::new(),
            opening_len: 0,
            skip: 0,
            resumes: 0,
            heard: now,
            reread_at: now + refresh,
            broken_at: now,
        }
    }

    pub(super) fn owns(&self, id: EffectId) -> bool {
        self.leg == Some(id) || self.again.as_ref().is_some_and(|again| again.owns(id))
    }

    /// Hands on bytes, less what was told before the connection broke (the prefix property). False if they do not
    /// continue what was told.
    #[must_use]
    pub(super) fn tell(&mut self, mut bytes: Bytes, shared: &mut Shared) -> bool {
        if self.skip > 0 {
            let known =
                usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
            if !self.recognises(self.told - self.skip, &bytes[..known]) {
                return false;
            }
            self.skip -= known as u64;
            bytes = bytes.slice(known..);
        }
        if bytes.is_empty() {
            return true;
        }
        if self.opening_len < OPENING_BYTES {
            let keep = bytes.len().min(OPENING_BYTES - self.opening_len);
            self.opening.push(bytes.slice(..keep));
            self.opening_len += keep;
        }
        self.told += bytes.len() as u64;
        shared.barren = 0;
        shared.out.event(Event::Data(self.seq, bytes));
        true
    }

    /// Whether these bytes, at that offset, are what was told, as far as it is held.
    fn recognises(&self, offset: u64, bytes: &[u8]) -> bool {
        let Ok(mut skip) = usize::try_from(offset) else {
            return true;
        };
        let mut bytes = bytes;
        for held in &self.opening {
            if skip >= held.len() {
                skip -= held.len();
                continue;
            }
            let ours = &held[skip..];
            let count = ours.len().min(bytes.len());
            if ours[..count] != bytes[..count] {
                return false;
            }
            bytes = &bytes[count..];
            skip = 0;
        }
        true
    }

    pub(super) fn hear(&mut self, now: Time, refresh: Duration) {
        self.heard = now;
        self.reread_at = now + refresh;
    }

    /// How many requests it has under way.
    pub(super) fn legs(&self) -> usize {
        usize::from(self.leg.is_some()) + self.again.as_ref().map_or(0, Fetch::legs)
    }

    pub(super) fn tick(&mut self, now: Time, may_double: bool, shared: &mut Shared) {
        match &mut self.again {
            Some(again) => {
                if again.is_due(now)
                    && let Some(leg) = self.leg.take()
                {
                    // Silent through two questions: it is dead.
                    shared.out.abort(leg);
                }
                again.tick(now, may_double, shared);
            }
            None if self.reread_at <= now => {
                if may_double {
                    self.reread(now, shared);
                } else {
                    self.reread_at = now + OVERLAP;
                }
            }
            None => {}
        }
    }

    pub(super) fn reread(&mut self, now: Time, shared: &mut Shared) {
        let mut fetch = Fetch::new(Start::At(self.seq));
        fetch.send(now, shared);
        self.again = Some(fetch);
    }

    pub(super) fn hang_up(&mut self, shared: &mut Shared) {
        if let Some(id) = self.leg.take() {
            shared.out.abort(id);
        }
        if let Some(mut again) = self.again.take() {
            again.abort(shared);
        }
    }
}

impl Subscriber {
    pub(super) fn read_to_end(&mut self) {
        let Some(mut reading) = self.reading.take() else {
            return;
        };
        reading.hang_up(&mut self.shared);
        if reading.skip > 0 {
            // The server has less of it than it had.
            let (seq, told) = (reading.seq, reading.told);
            self.shared.out.event(Event::Truncated(seq, told));
        } else {
            self.shared.out.event(Event::End(reading.seq));
        }
        self.act();
    }

    /// The number belongs to another segment now: from its beginning, then.
    pub(super) fn another(&mut self) {
        let Some(seq) = self.position() else {
            return;
        };
        self.drop_reading();
        self.shared.out.event(Event::Discontinuity);
        self.highest = seq;
        self.go(Start::At(seq), None);
    }

    pub(super) fn truncate(&mut self) {
        self.drop_reading();
        self.act();
    }

    pub(super) fn broken(&mut self) {
        let config_limit = self.shared.config.max_resumes;
        let Some(reading) = &mut self.reading else {
            return;
        };
        reading.leg = None;
        reading.broken_at = self.now;
        if reading.again.is_some() {
            return;
        }
        reading.resumes += 1;
        if reading.resumes > config_limit {
            return self.truncate();
        }
        reading.reread(self.now, &mut self.shared);
    }

    /// Handles the answer to reading the same segment again.
    pub(super) fn reread_answered(&mut self) {
        let Some(reading) = &mut self.reading else {
            return;
        };
        let Some(fetch) = &mut reading.again else {
            return;
        };
        let Some(answer) = fetch.answer.take() else {
            return;
        };
        match answer {
            Answer::Body { seq, .. } if seq == reading.seq => {
                let leg = fetch.take_leg(&mut self.shared);
                let held = core::mem::take(&mut fetch.held);
                let (tail, paused) = (fetch.tail, fetch.paused);
                reading.again = None;
                if let Some(old) = core::mem::replace(&mut reading.leg, leg) {
                    self.shared.out.abort(old);
                }
                if paused && let Some(id) = leg {
                    self.shared.out.http(id, Out::Resume);
                }
                reading.skip = reading.told;
                self.failures = 0;
                reading.hear(self.now, self.shared.config.refresh);
                for bytes in held {
                    if !reading.tell(bytes, &mut self.shared) {
                        return self.another();
                    }
                }
                match tail {
                    Tail::Open => {}
                    Tail::Ended => self.read_to_end(),
                    Tail::Broken => self.broken(),
                }
            }
            Answer::Failed(why) if reading.leg.is_none() => {
                reading.again = None;
                if let Some(pause) = self.count_failure(&why)
                    && let Some(reading) = &mut self.reading
                {
                    let mut fetch = Fetch::new(Start::At(reading.seq));
                    fetch.pause(self.now + pause);
                    reading.again = Some(fetch);
                }
            }
            Answer::Failed(_) => reading.again = None,
            // The server has begun anew, and the publisher may still have it.
            Answer::NotInWindow(Some(latest))
                if latest < reading.seq.plus(WINDOW as u64 - 1)
                    && self.now.since(reading.broken_at) < self.shared.config.late_within =>
            {
                let mut fetch = Fetch::new(Start::At(reading.seq));
                fetch.pause(self.now + PAUSE);
                reading.again = Some(fetch);
            }
            // Gone, moved, or empty where there were bytes. An older connection that is still open has been silent
            // for so long, although a closed segment is sent to its end, that it is dead.
            Answer::Over | Answer::Missing => {
                self.drop_reading();
                self.finish(Ending::EndOfStream);
            }
            Answer::Body { .. } | Answer::Empty { .. } | Answer::NotInWindow(_) => self.truncate(),
        }
    }
}
