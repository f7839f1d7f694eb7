//! The sessions of a runner, from what it hears on the channel and from lists.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use super::Event;
use crate::machine::Outbox;
use crate::wire::app::registration::SessionNews;

/// At most this many sessions of a runner are known; further ones are ignored.
pub const MAX_SESSIONS: usize = 1_000;
/// At most this many bytes has the name of a session; a longer one is ignored.
const MAX_NAME_BYTES: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Sessions {
    all: BTreeSet<String>,
    /// Sessions of which the channel told since the sign of life under way left: its answer may not know.
    told: BTreeSet<String>,
    /// Whether a channel is read.
    read: bool,
    /// Whether the channel may have missed something.
    missed: bool,
    /// Whether the answer that is waited for says what the channel missed.
    settles: bool,
}

impl Sessions {
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(String::as_str)
    }

    /// A sign of life leaves.
    pub(super) fn asked(&mut self) {
        self.told.clear();
        self.settles = !self.read || core::mem::take(&mut self.missed);
    }

    /// No answer to the sign of life came that lists sessions.
    pub(super) fn unanswered(&mut self) {
        self.missed |= core::mem::take(&mut self.settles);
    }

    /// The answer to a sign of life lists sessions.
    pub(super) fn answered(&mut self, listed: Vec<String>, out: &mut Outbox<Event>) {
        if core::mem::take(&mut self.settles) {
            self.take(listed, out);
        }
    }

    /// A registration begins with these sessions, with a channel or without.
    pub(super) fn begin(&mut self, listed: Vec<String>, read: bool, out: &mut Outbox<Event>) {
        self.told.clear();
        (self.read, self.missed, self.settles) = (read, false, false);
        self.take(listed, out);
    }

    /// The channel tells this.
    pub(super) fn hear(&mut self, news: SessionNews, out: &mut Outbox<Event>) {
        let session = match &news {
            SessionNews::Reserved(session) | SessionNews::Released(session) => session,
            SessionNews::Nothing => return,
        };
        if session.len() > MAX_NAME_BYTES {
            return;
        }
        if self.told.len() < MAX_SESSIONS {
            self.told.insert(session.clone());
        } else {
            // The answer under way is not to be believed.
            self.unanswered();
        }
        match news {
            SessionNews::Reserved(session) => self.add(session, out),
            SessionNews::Released(session) => self.remove(session, out),
            SessionNews::Nothing => {}
        }
    }

    /// Something on the channel was not heard.
    pub(super) fn missed(&mut self) {
        self.missed = true;
    }

    /// The channel is over.
    pub(super) fn unread(&mut self) {
        self.read = false;
    }

    fn take(&mut self, listed: Vec<String>, out: &mut Outbox<Event>) {
        let listed: BTreeSet<String> = listed.into_iter().collect();
        let over = self.all.difference(&listed).cloned();
        let over: Vec<String> = over.filter(|one| !self.told.contains(one)).collect();
        for session in over {
            self.remove(session, out);
        }
        for session in listed {
            if session.len() <= MAX_NAME_BYTES && !self.told.contains(&session) {
                self.add(session, out);
            }
        }
    }

    fn add(&mut self, session: String, out: &mut Outbox<Event>) {
        let room = self.all.len() < MAX_SESSIONS && !session.is_empty();
        if room && self.all.insert(session.clone()) {
            out.event(Event::Reserved(session));
        }
    }

    fn remove(&mut self, session: String, out: &mut Outbox<Event>) {
        if self.all.remove(&session) {
            out.event(Event::Released(session));
        }
    }
}
