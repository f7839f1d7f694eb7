//! The pace of a streamed answer: when its head goes out, when silence needs a comment, and how far a slow client may
//! fall behind (front-door spec 1.5).
//!
//! ```text
//!   upstream head ──▶ waiting for the first event ── event, or `early_head` ──▶ flowing ──▶ ended
//!                                                                          ▲  │ unsent > 256 KiB
//!                                                                    Room  │  ▼ Full: the job is not read
//!                                                                         clogged ── `write_stall` ──▶ dropped
//! ```

use core::time::Duration;

use super::types::{Config, JOB_GRACE, MAX_UNSENT, RELAY_WITHIN};
use crate::time::Time;

/// Longer than any answer takes.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// The clock and the meter of one streamed answer.
#[derive(Debug)]
pub(super) struct Pace {
    /// The orchestrator was last heard, or the client gave room again.
    heard: Time,
    /// Something was last written.
    wrote: Time,
    head_out: bool,
    unsent: usize,
    clogged: bool,
    /// Since when a report of what was sent is awaited.
    awaited: Option<Time>,
    early_head: Duration,
    keep_alive: Duration,
    silence: Duration,
    stall: Duration,
}

/// Something that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Send the head, and a comment.
    Head,
    /// Send a comment.
    KeepAlive,
    /// Ask the driver to report what was sent.
    Report,
    /// The orchestrator is silent for too long, and its job has not said so.
    Silent,
    /// The client takes nothing.
    Stalled,
}

impl Pace {
    /// The pace of an answer whose upstream head has come.
    pub(super) const fn new(now: Time, config: &Config) -> Self {
        Self {
            heard: now,
            wrote: now,
            head_out: false,
            unsent: 0,
            clogged: false,
            awaited: None,
            early_head: config.early_head,
            keep_alive: config.keep_alive,
            silence: config.stream_silence,
            stall: config.write_stall,
        }
    }

    /// The pace of an answer that is passed on as it comes, and whose head is out.
    pub(super) const fn of_relay(now: Time, config: &Config) -> Self {
        Self {
            heard: now,
            wrote: now,
            head_out: true,
            unsent: 0,
            clogged: false,
            awaited: None,
            early_head: NEVER,
            keep_alive: NEVER,
            silence: RELAY_WITHIN,
            stall: config.write_stall,
        }
    }

    /// The pace of events that are passed on as they come.
    pub(super) const fn of_events(now: Time, config: &Config) -> Self {
        Self {
            silence: config.stream_silence,
            ..Self::of_relay(now, config)
        }
    }

    /// The pace of data that a container says when it likes.
    pub(super) const fn of_data(now: Time, config: &Config) -> Self {
        Self {
            silence: NEVER,
            keep_alive: config.keep_alive,
            ..Self::of_relay(now, config)
        }
    }

    pub(super) const fn is_head_out(&self) -> bool {
        self.head_out
    }

    /// Notes an event of the orchestrator.
    pub(super) const fn hear(&mut self, now: Time) {
        self.heard = now;
    }

    /// Notes that the head goes out.
    pub(super) const fn send_head(&mut self) {
        self.head_out = true;
    }

    /// Notes bytes that are written; says whether the client has fallen behind with these.
    pub(super) fn write(&mut self, now: Time, bytes: usize) -> bool {
        self.wrote = now;
        self.unsent += bytes;
        let falls_behind = self.unsent > MAX_UNSENT && !self.clogged;
        if falls_behind {
            self.clogged = true;
        }
        falls_behind
    }

    /// Notes that a report is asked for.
    pub(super) const fn ask(&mut self, now: Time) {
        if self.awaited.is_none() {
            self.awaited = Some(now);
        }
    }

    /// Notes that bytes were sent; says whether the client has caught up with these.
    pub(super) fn sent(&mut self, now: Time, bytes: usize) -> bool {
        self.unsent = self.unsent.saturating_sub(bytes);
        self.awaited = None;
        let caught_up = self.clogged && self.unsent <= MAX_UNSENT / 2;
        if caught_up {
            self.clogged = false;
            // The orchestrator was not read meanwhile, so its silence was ours.
            self.heard = now;
        }
        caught_up
    }

    /// Whether more is unsent than the driver was asked about.
    pub(super) const fn needs_report(&self) -> bool {
        self.clogged && self.awaited.is_none()
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Time {
        self.dues().map(|(at, _)| at).min().unwrap_or(Time::MAX)
    }

    /// The first thing that is due now.
    pub(super) fn due(&self, now: Time) -> Option<Due> {
        let due = self.dues().filter(|(at, _)| *at <= now);
        due.min_by_key(|(at, _)| *at).map(|(_, due)| due)
    }

    fn dues(&self) -> impl Iterator<Item = (Time, Due)> {
        let stalled = self.awaited.map(|since| (since + self.stall, Due::Stalled));
        let silent = (!self.clogged).then(|| (self.heard + self.silence + JOB_GRACE, Due::Silent));
        let quiet = self.wrote + self.keep_alive;
        let speak = match (self.head_out, self.unsent, self.awaited) {
            (false, ..) => Some((self.heard + self.early_head, Due::Head)),
            (true, 0, _) => Some((quiet, Due::KeepAlive)),
            // A comment would only lie behind what is not sent; whether it is, the driver knows.
            (true, _, None) => Some((quiet, Due::Report)),
            (true, _, Some(_)) => None,
        };
        [stalled, silent, speak].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::from_secs(secs)
    }

    fn begun() -> Pace {
        Pace::new(at(0), &Config::default())
    }

    #[test]
    fn a_head_goes_out_after_ten_seconds_and_comments_every_fifteen() {
        let mut pace = begun();
        assert_eq!((pace.next(), pace.due(at(9))), (at(10), None));
        assert_eq!(pace.due(at(10)), Some(Due::Head));
        pace.send_head();
        assert!(!pace.write(at(10), 14));
        assert_eq!(pace.due(at(25)), Some(Due::Report), "it may be unsent");
        pace.ask(at(25));
        assert_eq!(pace.due(at(26)), None);
        pace.sent(at(26), 14);
        assert_eq!(pace.due(at(26)), Some(Due::KeepAlive));
        assert!(!pace.write(at(26), 14));
        assert_eq!(pace.next(), at(41));
    }

    #[test]
    fn an_orchestrator_may_be_silent_for_two_minutes_whatever_we_say_meanwhile() {
        let mut pace = begun();
        pace.send_head();
        pace.hear(at(5));
        for second in [15, 30, 45, 60, 75, 90, 105, 120, 134] {
            pace.write(at(second), 14);
            pace.sent(at(second), 14);
            assert_eq!(pace.due(at(second)), None);
        }
        assert_eq!(pace.due(at(135)), Some(Due::Silent));
    }

    #[test]
    fn a_client_that_falls_behind_holds_up_the_orchestrator_and_is_dropped_after_a_minute() {
        let mut pace = begun();
        pace.send_head();
        assert!(!pace.write(at(1), MAX_UNSENT));
        assert!(pace.write(at(1), 1), "one byte too many");
        assert!(!pace.write(at(1), 1), "told once");
        assert!(pace.needs_report());
        pace.ask(at(1));
        assert!(!pace.sent(at(50), 10), "a little is taken");
        assert!(pace.needs_report());
        pace.ask(at(50));
        assert_eq!(pace.due(at(109)), None);
        assert_eq!(pace.due(at(110)), Some(Due::Stalled));
        assert!(pace.sent(at(109), MAX_UNSENT), "or it catches up");
        pace.write(at(130), 1);
        pace.sent(at(130), 1);
        assert_eq!(
            pace.due(at(140)),
            None,
            "our own pause is no silence of theirs"
        );
    }
}
