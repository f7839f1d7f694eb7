//! Where the subscriber goes next, and what it makes of answers (trickle spec 7.2 to 7.4).

use alloc::string::ToString;
use core::time::Duration;

use super::fetch::{Answer, Fetch, Tail};
use super::reading::Reading;
use super::{Event, Lag, RESTART_AFTER, SKIPS_AT_ONCE, Subscriber};
use crate::error::{Cause, Failure, Party};
use crate::http::Out;
use crate::trickle::{ContentType, Ending, PAUSE, PAUSE_MAX, Seq, Start, WINDOW};

impl Subscriber {
    /// Wants something else next, at once or after a pause.
    pub(super) fn go(&mut self, to: Start, pause: Option<Duration>) {
        self.fetch.abort(&mut self.shared);
        self.fetch = Fetch::new(to);
        if let Some((id, _)) = self.asking.take() {
            self.shared.out.abort(id);
        }
        self.ahead_since = None;
        self.late_since = None;
        self.low_since = None;
        self.send_after(pause.unwrap_or(Duration::ZERO));
    }

    /// Repeats the request after a pause.
    pub(super) fn again(&mut self, pause: Duration) {
        self.fetch.abort(&mut self.shared);
        self.fetch = Fetch::new(self.fetch.want);
        self.send_after(pause);
    }

    pub(super) fn send_after(&mut self, pause: Duration) {
        let mut at = self.now + pause;
        if self.shared.barren >= 2 {
            at = at.max(self.shared.last_request + PAUSE);
        }
        if at <= self.now {
            self.fetch.send(self.now, &mut self.shared);
        } else {
            self.fetch.pause(at);
        }
    }

    /// Something new came: the next questions need no pause.
    pub(super) fn news(&mut self) {
        self.shared.barren = 0;
        self.skips = 0;
        self.last_news = self.now;
        self.ahead_since = None;
        self.late_since = None;
        self.low_since = None;
    }

    pub(super) fn count_failure(&mut self, last: &dyn core::fmt::Display) -> Option<Duration> {
        self.failures += 1;
        if self.failures >= self.shared.config.max_failures.max(1) {
            let last = last.to_string();
            self.fail(Cause::GaveUp {
                what: "reading the channel",
                times: self.failures,
                last,
            });
            return None;
        }
        // A channel that was there is asked again at once: while one pauses, its window of five segments may pass.
        let at_once = u32::from(self.met || self.shared.config.leave_dead);
        let Some(doublings) = self.failures.checked_sub(1 + at_once) else {
            return Some(Duration::ZERO);
        };
        let doubled = PAUSE * 2_u32.saturating_pow(doublings);
        Some(doubled.min(PAUSE_MAX))
    }

    pub(super) fn fail(&mut self, cause: Cause) {
        let who = Party::Channel(self.shared.channel.clone());
        self.finish(Ending::Failed(Failure::new(who, cause)));
    }

    pub(super) fn finish(&mut self, ending: Ending) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.drop_reading();
        self.fetch.abort(&mut self.shared);
        if let Some((id, _)) = self.asking.take() {
            self.shared.out.abort(id);
        }
        self.shared.out.event(Event::Closed(ending));
    }

    /// Ends the segment that is being told, unfinished.
    pub(super) fn drop_reading(&mut self) {
        if let Some(mut reading) = self.reading.take() {
            reading.hang_up(&mut self.shared);
            let (seq, told) = (reading.seq, reading.told);
            self.shared.out.event(Event::Truncated(seq, told));
        }
    }

    // ---- answers ---------------------------------------------------------------------------------------------

    /// Acts on what the fetch has, as far as the segment being told allows.
    pub(super) fn act(&mut self) {
        while !self.ended {
            let Some(answer) = self.fetch.answer.as_ref() else {
                return;
            };
            match answer {
                Answer::Body { .. } | Answer::Empty { .. } | Answer::Over
                    if self.reading.is_some() =>
                {
                    return;
                }
                _ => {}
            }
            let Some(answer) = self.fetch.answer.take() else {
                return;
            };
            match answer {
                Answer::Over => return self.finish(Ending::EndOfStream),
                Answer::Missing => self.missing(),
                Answer::NotInWindow(Some(latest)) => {
                    self.met = true;
                    if !self.not_in_window(latest) {
                        // It changes the position; that waits for the end of the segment being told.
                        self.fetch.answer = Some(Answer::NotInWindow(Some(latest)));
                        return;
                    }
                }
                Answer::NotInWindow(None) => {
                    if self.asking.is_none() {
                        let id = self.shared.next();
                        self.asking = Some((id, self.now + PAUSE_MAX));
                    }
                    return;
                }
                Answer::Failed(why) => {
                    if self.reading.is_some() {
                        // What is being told may go on for long; the budget is for those who wait.
                        let most = self.shared.config.max_failures.max(2) - 2;
                        self.failures = self.failures.min(most);
                    }
                    if let Some(pause) = self.count_failure(&why) {
                        self.again(pause);
                    }
                }
                Answer::Empty { seq, latest } => {
                    // Closed by hand at the head: that did not move the head, and the next is ahead until somebody posts
                    // (trickle spec 7.2-4).
                    let head = latest.unwrap_or(seq.next());
                    self.arrive(seq, head, ContentType::default());
                    self.shared.out.event(Event::End(seq));
                    let by_hand = latest.is_some_and(|latest| latest <= seq);
                    self.go(Start::At(seq.next()), by_hand.then_some(PAUSE));
                }
                Answer::Body {
                    seq,
                    latest,
                    content,
                } => self.begin(seq, latest, content),
            }
        }
    }

    fn arrive(&mut self, seq: Seq, head: Seq, content: ContentType) {
        self.met = true;
        self.failures = 0;
        self.highest = self.highest.max(head);
        self.news();
        self.shared.out.event(Event::Begin(seq, content));
    }

    pub(super) fn begin(&mut self, seq: Seq, latest: Option<Seq>, content: ContentType) {
        if let (Some(most), Some(latest)) = (self.shared.config.max_lag, latest)
            && latest > seq.plus(most).next()
        {
            // Still there, but further behind than the owner wants to be.
            self.news();
            return self.skip(seq, latest);
        }
        self.arrive(seq, seq.next().max(latest.unwrap_or(seq)), content);
        let mut fetch = core::mem::replace(&mut self.fetch, Fetch::new(Start::At(seq.next())));
        let leg = fetch.take_leg(&mut self.shared);
        self.send_after(Duration::ZERO);
        let mut reading = Reading::new(self.now, seq, leg, self.shared.config.refresh);
        for bytes in fetch.held.drain(..) {
            // Nothing was told of it yet that they could contradict.
            let _ = reading.tell(bytes, &mut self.shared);
        }
        self.reading = Some(reading);
        if fetch.paused
            && let Some(id) = leg
        {
            self.shared.out.http(id, Out::Resume);
        }
        match fetch.tail {
            Tail::Open => {}
            Tail::Ended => self.read_to_end(),
            Tail::Broken => self.broken(),
        }
    }

    pub(super) fn missing(&mut self) {
        if self.met {
            if self.reading.is_some() {
                // The segment being told may still have bytes on the way.
                self.fetch.answer = Some(Answer::Over);
                return;
            }
            return self.finish(Ending::EndOfStream);
        }
        if self.now.since(self.began) >= self.shared.config.start_within {
            return self.fail(Cause::Gone("the channel"));
        }
        self.again(PAUSE);
    }

    /// The decision of trickle spec 7.3. False if it has to wait.
    pub(super) fn not_in_window(&mut self, latest: Seq) -> bool {
        let Start::At(want) = self.fetch.want else {
            // The segment before the head is gone: take the head.
            self.go(Start::At(latest), None);
            return true;
        };
        self.failures = 0;
        if latest > want {
            self.highest = self.highest.max(latest);
            // Its slot is not due for another one yet, so it was never there.
            let since = *self.late_since.get_or_insert(self.now);
            if latest < want.plus(WINDOW as u64 - 1)
                && self.now.since(since) < self.shared.config.late_within
            {
                self.again(PAUSE);
                return true;
            }
            if self.reading.is_some() {
                return false;
            }
            self.skip(want, latest);
            return true;
        }
        let since = *self.ahead_since.get_or_insert(self.now);
        if latest == want {
            self.low_since = None;
            let first = since == self.now;
            let pause = if first {
                Duration::from_millis(50)
            } else {
                PAUSE
            };
            self.again(pause);
        } else {
            let restarted = latest.next() < self.highest && {
                let low = *self.low_since.get_or_insert(self.now);
                self.now.since(low) >= RESTART_AFTER
            };
            if latest.next() >= self.highest {
                self.low_since = None;
            }
            if restarted {
                if self.reading.is_some() {
                    return false;
                }
                self.highest = latest;
                self.shared.out.event(Event::Discontinuity);
                self.go(Start::At(latest), None);
                return true;
            }
            self.again(PAUSE);
        }
        if self.now.since(since) >= self.shared.config.ahead_within {
            self.fail(Cause::TimedOut {
                doing: "a segment ahead of the head",
                after: self.shared.config.ahead_within,
            });
        }
        true
    }

    /// Falls behind: from `want` to wherever the policy says.
    pub(super) fn skip(&mut self, want: Seq, latest: Seq) {
        // While one pauses, a window of short segments passes. So the first skips in a row need no pause, and where
        // the owner's choice was gone by the time that it was asked for, the head is not.
        let lag = match (self.skips, self.shared.config.lag) {
            (1.., Lag::Current | Lag::Earliest) => Lag::Live,
            (_, lag) => lag,
        };
        if self.skips < SKIPS_AT_ONCE {
            self.skips += 1;
            self.shared.barren = 0;
        }
        let target = match lag {
            Lag::Live => latest,
            Lag::Current => latest.minus(1),
            Lag::Earliest => latest.minus(WINDOW as u64 - 1),
            Lag::Fail => {
                let cause = Cause::TooMuch {
                    what: "the lag behind the channel's head",
                    limit: self
                        .shared
                        .config
                        .max_lag
                        .map_or(WINDOW, |most| usize::try_from(most).unwrap_or(usize::MAX)),
                };
                return self.fail(cause);
            }
        };
        let target = target.max(want.next());
        self.shared.out.event(Event::Gap(want..target));
        self.go(Start::At(target), None);
    }
}
