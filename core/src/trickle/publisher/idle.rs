//! Keeping a channel alive while the publisher's owner has nothing to say.
//!
//! Peers give up on what is silent: pytrickle on any request after 30 s, the Python gateway after five minutes, and
//! servers remove a channel to which nobody posted for five minutes (trickle spec D10, D11, 5.9). So a segment that
//! has fallen silent is ended, and while there is none an empty one goes out now and then.

use core::time::Duration;

use super::{Current, Event, Publisher, State};
use crate::time::Time;
use crate::trickle::Seq;

/// How long a publisher is silent before it does something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// A segment that has bytes is ended after this long without another one, and [`Event::Cut`] says so.
    pub cut_after: Duration,
    /// An empty segment is published after this long without any other. The owner hears nothing of it.
    pub keep_alive_every: Duration,
}

impl Default for Idle {
    /// Well below the 30 s after which the first peers give up.
    fn default() -> Self {
        Self {
            cut_after: Duration::from_secs(3),
            keep_alive_every: Duration::from_secs(20),
        }
    }
}

impl Publisher {
    /// When the silence will have lasted too long, if nothing more is said.
    pub(super) fn silent_at(&self) -> Option<Time> {
        let idle = self.shared.config.idle?;
        if !matches!(self.state, State::Ready) || self.reprobe.is_some() || self.next == Seq::MAX {
            return None;
        }
        match self.current {
            Current::Writing(seq) => {
                let has_bytes = |upload: &super::Upload| upload.seq == seq && upload.has_bytes();
                Some(if self.uploads.iter().any(has_bytes) {
                    self.spoke + idle.cut_after
                } else {
                    self.spoke + idle.keep_alive_every
                })
            }
            // What is unanswered is looked after by deadlines of its own.
            Current::None if self.in_flight() == 0 => Some(self.spoke + idle.keep_alive_every),
            Current::None | Current::Discarding => None,
        }
    }

    /// Does something about a silence that has lasted too long.
    pub(super) fn break_silence(&mut self) {
        if self.silent_at().is_none_or(|at| at > self.now) {
            return;
        }
        self.spoke = self.now;
        if let Current::Writing(seq) = self.current {
            self.end_segment(seq);
            self.current = Current::None;
            self.shared.out.event(Event::Cut(seq));
        } else {
            let seq = self.take_warm();
            if let Some(upload) = self.uploads.iter_mut().find(|upload| upload.seq == seq) {
                upload.keep_alive = true;
            }
            self.end_segment(seq);
        }
        self.feed();
    }
}
