//! Streams that are over, and what is still told of them.

use alloc::collections::VecDeque;
use alloc::string::String;

use super::types::{MAX_REMEMBERED, REMEMBERED};
use crate::time::Time;

/// The last status of a stream that is over.
#[derive(Debug)]
struct Told {
    until: Time,
    id: String,
    name: String,
    status: String,
}

/// The streams that ended last, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Remembered(VecDeque<Told>);

impl Remembered {
    /// Notes the last status of a stream.
    pub(super) fn push(&mut self, now: Time, id: String, name: String, status: String) {
        if self.0.len() == MAX_REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(Told {
            until: now + REMEMBERED,
            id,
            name,
            status,
        });
    }

    /// The status of the stream that ended last, of those with that id or else with that name.
    pub(super) fn get(&self, text: &str) -> Option<&str> {
        let by = |fits: fn(&Told, &str) -> bool| self.0.iter().rev().find(|told| fits(told, text));
        let found = by(|told, text| told.id == text).or_else(|| by(|told, text| told.name == text));
        found.map(|told| told.status.as_str())
    }

    /// Forgets those whose time is over.
    pub(super) fn tick(&mut self, now: Time) {
        while self.0.front().is_some_and(|told| told.until <= now) {
            self.0.pop_front();
        }
    }

    pub(super) fn wake(&self) -> Option<Time> {
        self.0.front().map(|told| told.until)
    }
}
