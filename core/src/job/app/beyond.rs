//! Calls that leave HTTP, for a WebSocket perhaps: bytes pass both ways until either side ends (client-1.0 6.4).

use core::time::Duration;

use bytes::Bytes;

use super::types::Event;
use super::{Ask, Rental, State};
use crate::http::{Headers, Out};
use crate::time::Time;

/// A caller with this many bytes that the transport has not taken is to wait.
pub const MAX_UNTAKEN: usize = 64 << 10;

/// How long an app may be silent once its caller has ended.
pub(super) const END_WITHIN: Duration = Duration::from_secs(10);

/// A call that has left HTTP.
pub(super) struct Beyond {
    /// Bytes of the caller that the transport has not taken.
    untaken: usize,
    /// The caller says no more.
    ended: bool,
    /// When it is over in any case.
    until: Time,
}

impl Beyond {
    pub(super) const fn new(until: Time) -> Self {
        Self {
            untaken: 0,
            ended: false,
            until,
        }
    }
}

impl Ask {
    /// Whether the call has lasted for as long as one may that has left HTTP.
    pub(super) fn is_over_time(&self) -> bool {
        { self.beyond.as_ref() }.is_some_and(|beyond| beyond.until <= self.until)
    }

    /// Notes that something passed: the silence that may follow begins now.
    pub(super) fn pass(&mut self, now: Time, silence: Duration) {
        self.until = match &self.beyond {
            None => now + silence,
            Some(beyond) => {
                let silence = if beyond.ended { END_WITHIN } else { silence };
                (now + silence).min(beyond.until)
            }
        };
    }
}

impl Rental {
    /// Whether the call has left HTTP and the app takes what is said to it.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        match &self.state {
            State::Asking(Ask {
                beyond: Some(beyond),
                ..
            }) => beyond.untaken < MAX_UNTAKEN,
            _ => false,
        }
    }

    /// Says something to the app of a call that has left HTTP; otherwise nothing happens. Whoever finds no
    /// [room](Self::has_room) is to wait for [`Event::Room`] first.
    pub fn say(&mut self, now: Time, bytes: Bytes) {
        self.advance(now);
        let (now, silence) = (self.now, self.config.silence);
        if let State::Asking(ask) = &mut self.state
            && let Some(beyond) = ask.beyond.as_mut().filter(|beyond| !beyond.ended)
            && !bytes.is_empty()
        {
            beyond.untaken += bytes.len();
            let full = beyond.untaken >= MAX_UNTAKEN;
            ask.pass(now, silence);
            self.out.http(ask.exchange, Out::Data(bytes));
            if full {
                self.out.http(ask.exchange, Out::Report);
            }
        }
    }

    /// Tells the app of a call that has left HTTP that no more is said to it. It may go on, and is to end in its turn.
    pub fn say_no_more(&mut self, now: Time) {
        self.advance(now);
        let (now, silence) = (self.now, self.config.silence);
        if let State::Asking(ask) = &mut self.state
            && let Some(beyond) = ask.beyond.as_mut().filter(|beyond| !beyond.ended)
        {
            beyond.ended = true;
            ask.pass(now, silence);
            self.out.http(ask.exchange, Out::End(Headers::new()));
        }
    }

    /// The transport took bytes that were said.
    pub(super) fn taken(&mut self, bytes: usize) {
        if let State::Asking(ask) = &mut self.state
            && let Some(beyond) = &mut ask.beyond
        {
            let full = beyond.untaken >= MAX_UNTAKEN;
            beyond.untaken = beyond.untaken.saturating_sub(bytes);
            if full && beyond.untaken < MAX_UNTAKEN {
                self.out.event(Event::Room);
            } else if full {
                self.out.http(ask.exchange, Out::Report);
            }
        }
    }
}
