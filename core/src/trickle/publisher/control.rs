//! Steps that a publisher takes by itself: finding its place, judging segments, ending.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::upload::{Upload, Verdict};
use super::{CREATING, Current, Event, MAX_ERRANDS, Publisher, State, too_many};
use crate::error::{Cause, Failure, Misuse, Party, Reason};
use crate::http::{Body, In, Method, Response};
use crate::machine::EffectId;
use crate::time::Time;
use crate::trickle::{DELETE_WITHIN, Ending, PAUSE, Seq, headers};

impl Publisher {
    pub(super) const fn nothing_open(&self) -> Misuse {
        match self.state {
            State::Draining { .. }
            | State::Lingering { .. }
            | State::Deleting { .. }
            | State::Ended => Misuse::Ended,
            _ => Misuse::NotOpen,
        }
    }

    pub(super) fn failure(&self, cause: Cause) -> Failure {
        Failure::new(Party::Channel(self.shared.channel.clone()), cause)
    }

    pub(super) fn probe(&mut self, tries: u32) {
        let request = self.shared.next_request();
        let id = self.shared.out.request(request);
        self.state = State::Probing {
            id: Some(id),
            until: self.now + self.shared.config.probe_within,
            tries,
        };
    }

    pub(super) fn probed(&mut self, reply: &Response, tries: u32) {
        match (reply.status, headers::latest(&reply.headers)) {
            (200, Some(latest)) => {
                self.met = true;
                self.ready(latest);
            }
            (404, _) if self.shared.config.create => {
                let mut request = self.shared.base(Method::Post, self.shared.channel.clone());
                if !self.shared.config.content.as_str().is_empty() {
                    request = request
                        .header(headers::EXPECT_CONTENT, self.shared.config.content.as_str());
                }
                let id = self.shared.out.request(request.body(Body::Empty));
                self.state = State::Creating {
                    id,
                    until: self.now + self.shared.config.probe_within,
                };
            }
            (404, _) => self.fail(Cause::Gone("the channel")),
            _ => self.probe_failed(tries),
        }
    }

    pub(super) fn probe_failed(&mut self, tries: u32) {
        if tries >= self.shared.config.probes {
            // An old server, or none yet: the first segment will tell (trickle spec 6.2-1).
            self.ready(Seq::ZERO);
        } else {
            self.state = State::Probing {
                id: None,
                until: self.now + PAUSE * tries,
                tries: tries + 1,
            };
        }
    }

    pub(super) fn ready(&mut self, first: Seq) {
        if first == Seq::MAX {
            return self.fail(numbers_used_up());
        }
        self.state = State::Ready;
        self.spoke = self.now;
        self.next = first;
        self.shared.out.event(Event::Ready(first));
        self.warm_up();
    }

    /// Sees to it that the request for the next segment is out (trickle spec 6.2-3).
    pub(super) fn warm_up(&mut self) {
        if !matches!(self.state, State::Ready)
            || self.uploads.back().is_some_and(|last| !last.begun)
        {
            return;
        }
        let reset = core::mem::take(&mut self.reset);
        let mut upload = Upload::new(self.now, self.next, reset);
        upload.open(self.now, &mut self.shared);
        self.uploads.push_back(upload);
    }

    /// Hands on what may go.
    pub(super) fn feed(&mut self) {
        for upload in &mut self.uploads {
            upload.feed(self.now, &mut self.shared);
            if upload.holds_back(self.shared.config.policy) {
                break;
            }
        }
    }

    pub(super) fn judge(&mut self, seq: Seq, verdict: Verdict) {
        let Some(at) = self.uploads.iter().position(|upload| upload.seq == seq) else {
            return;
        };
        let begun = self.uploads[at].begun;
        match verdict {
            Verdict::Delivered => {
                self.failures = 0;
                self.met = true;
                if let Some(mut upload) = self.uploads.remove(at) {
                    upload.abort(&mut self.shared);
                    if !upload.keep_alive {
                        self.delivered = Some(self.now);
                        self.shared.out.event(Event::Delivered(seq));
                    }
                }
            }
            Verdict::Gone if matches!(self.state, State::Deleting { .. }) => {
                // Our own DELETE did it; its answer is still to come.
                if begun {
                    self.lose(at, Cause::Gone("the channel"), false);
                } else if let Some(mut upload) = self.uploads.remove(at) {
                    upload.abort(&mut self.shared);
                }
            }
            Verdict::Gone if self.met => self.finish(Ending::EndOfStream),
            Verdict::Gone => self.fail(Cause::Gone("the channel")),
            Verdict::Fatal(cause) => self.fail(cause),
            Verdict::Stale if !begun => {
                // Somebody closed the seq that is next; it is used up. Not at once: a server may do so for ever.
                if let Some(mut upload) = self.uploads.remove(at) {
                    upload.abort(&mut self.shared);
                }
                self.next = seq.next();
                if matches!(self.state, State::Ready) {
                    let mut upload = Upload::new(self.now, self.next, false);
                    upload.rest(self.now);
                    self.uploads.push_back(upload);
                }
            }
            Verdict::Stale => {
                self.lose(at, Cause::Gone("the segment"), false);
                self.ask_anew();
                self.count_failure(Cause::Gone("the segment"));
            }
            Verdict::Lost(cause) => {
                self.lose(at, cause.clone(), true);
                self.count_failure(cause);
            }
        }
    }

    pub(super) fn count_failure(&mut self, last: Cause) {
        self.failures += 1;
        if self.failures >= self.shared.config.max_failures.max(1) {
            self.fail(Cause::GaveUp {
                what: "a segment",
                times: self.failures,
                last: last.to_string(),
            });
        }
    }

    pub(super) fn ask_anew(&mut self) {
        if self.reprobe.is_none() && matches!(self.state, State::Ready) {
            let request = self.shared.next_request();
            let id = self.shared.out.request(request);
            self.reprobe = Some((id, self.now + self.shared.config.probe_within));
        }
    }

    pub(super) fn drop_first(&mut self, limit: usize) {
        self.drop_at(0, too_many(limit));
    }

    /// Gives up a segment by policy: not a failure of the server's.
    pub(super) fn drop_at(&mut self, at: usize, cause: Cause) {
        self.lose(at, cause, true);
    }

    pub(super) fn lose(&mut self, at: usize, cause: Cause, close: bool) {
        let Some(mut upload) = self.uploads.remove(at) else {
            return;
        };
        upload.abort(&mut self.shared);
        if self.current == Current::Writing(upload.seq) {
            self.current = Current::Discarding;
        }
        if close && upload.opened && self.shared.errands.len() < MAX_ERRANDS {
            // Readers would hang until the slot is used again (trickle spec 6.2-8).
            let request = self.shared.request(Method::Delete, upload.seq);
            let id = self.shared.out.request(request);
            self.shared.errands.push((id, self.now + DELETE_WITHIN));
        }
        self.tell_lost(&upload, cause);
    }

    /// Tells that a segment is lost, unless it is a keep-alive, which nobody wrote.
    fn tell_lost(&mut self, upload: &Upload, cause: Cause) {
        if !upload.keep_alive {
            let failure = self.failure(cause);
            self.shared.out.event(Event::Lost(upload.seq, failure));
        }
    }

    pub(super) fn fail(&mut self, cause: Cause) {
        let failure = self.failure(cause);
        self.finish(Ending::Failed(failure));
    }

    /// The end: everything is aborted, segments without an answer are lost.
    pub(super) fn finish(&mut self, ending: Ending) {
        if matches!(self.state, State::Ended) {
            return;
        }
        match self.state {
            State::Probing { id: Some(id), .. }
            | State::Creating { id, .. }
            | State::Deleting { id, .. } => self.shared.out.abort(id),
            _ => {}
        }
        self.state = State::Ended;
        while let Some(mut upload) = self.uploads.pop_front() {
            upload.abort(&mut self.shared);
            if upload.begun {
                let cause = match &ending {
                    Ending::Failed(failure) => failure.cause.clone(),
                    Ending::EndOfStream => Cause::Gone("the channel"),
                    Ending::Closed => Cause::TimedOut {
                        doing: "the last segments",
                        after: self.shared.config.drain_within,
                    },
                };
                self.tell_lost(&upload, cause);
            }
        }
        if let Some((id, _)) = self.reprobe.take() {
            self.shared.out.abort(id);
        }
        for (id, _) in core::mem::take(&mut self.shared.errands) {
            self.shared.out.abort(id);
        }
        self.current = Current::None;
        self.shared.out.event(Event::Closed(ending));
    }

    pub(super) fn tick(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.run_timers();
        self.settle();
    }

    pub(super) fn run_timers(&mut self) {
        let now = self.now;
        match self.state {
            State::Probing { id, until, tries } if until <= now => match id {
                Some(id) => {
                    self.shared.out.abort(id);
                    self.probe_failed(tries);
                }
                None => self.probe(tries),
            },
            State::Creating { id, until } if until <= now => {
                self.shared.out.abort(id);
                self.fail(Cause::TimedOut {
                    doing: "creating the channel",
                    after: self.shared.config.probe_within,
                });
            }
            State::Deleting { until, .. } if until <= now => self.finish(Ending::Closed),
            _ => {}
        }
        let mut verdicts = Vec::new();
        for upload in &mut self.uploads {
            if let Some(verdict) = upload.tick(now, &mut self.shared) {
                verdicts.push((upload.seq, verdict));
            }
        }
        for (seq, verdict) in verdicts {
            self.judge(seq, verdict);
        }
        if let Some((id, until)) = self.reprobe
            && until <= now
        {
            self.shared.out.abort(id);
            self.reprobe = None;
        }
        self.shared.end_errands(now);
    }

    /// Takes the steps that follow from the new state.
    pub(super) fn settle(&mut self) {
        self.break_silence();
        self.feed();
        if let State::Draining { until } = self.state
            && (self.in_flight() == 0 || until <= self.now)
        {
            if self.shared.config.delete {
                let linger = self.shared.config.linger;
                self.state = State::Lingering {
                    until: self.delivered.map_or(self.now, |at| at + linger),
                };
            } else {
                self.finish(Ending::Closed);
            }
        }
        if let State::Lingering { until } = self.state
            && until <= self.now
        {
            // Before the warm POST ends, or there would be one more empty segment (trickle spec 6.2-11).
            let request = self
                .shared
                .base(Method::Delete, self.shared.channel.clone());
            let id = self.shared.out.request(request);
            self.state = State::Deleting {
                id,
                until: self.now + DELETE_WITHIN,
            };
        }
        if matches!(self.state, State::Ended) {
            return;
        }
        let may_begin = self.wants_begin
            && matches!(self.state, State::Ready)
            && self.reprobe.is_none()
            && !self.is_crowded();
        let may_write =
            self.wants_write && self.unsent() <= self.shared.config.max_unsent_bytes as u64 / 2;
        if may_begin || may_write {
            self.wants_begin &= !may_begin;
            self.wants_write &= !may_write;
            self.shared.out.event(Event::Writable);
        }
    }

    pub(super) fn handle_http(&mut self, id: EffectId, step: In) {
        if let Some(upload) = self.uploads.iter_mut().find(|upload| upload.owns(id)) {
            let seq = upload.seq;
            if let Some(verdict) = upload.handle(self.now, id, step, &mut self.shared) {
                self.judge(seq, verdict);
            }
            return;
        }
        if let In::Failed(fault) = &step
            && fault.is_final()
        {
            let ours = match self.state {
                State::Probing { id: own, .. } => own == Some(id),
                State::Creating { id: own, .. } => own == id,
                _ => false,
            };
            if ours {
                self.fail(Cause::Link(fault.clone()));
            }
            return;
        }
        match (&self.state, &step) {
            (
                State::Probing {
                    id: Some(own),
                    tries,
                    ..
                },
                In::Reply(reply),
            ) if *own == id => {
                let tries = *tries;
                self.shared.let_end(self.now, id);
                return self.probed(reply, tries);
            }
            (
                State::Probing {
                    id: Some(own),
                    tries,
                    ..
                },
                In::Failed(_),
            ) if *own == id => {
                let tries = *tries;
                return self.probe_failed(tries);
            }
            (State::Creating { id: own, .. }, In::Reply(reply)) if *own == id => {
                self.shared.let_end(self.now, id);
                return match reply.status {
                    200 => {
                        self.met = true;
                        self.ready(Seq::ZERO);
                    }
                    status => self.fail(Cause::Refused {
                        doing: CREATING,
                        status,
                        reason: Reason::Other,
                        text: String::new(),
                    }),
                };
            }
            (State::Creating { id: own, .. }, In::Failed(fault)) if *own == id => {
                let cause = Cause::Link(fault.clone());
                return self.fail(cause);
            }
            (State::Deleting { id: own, .. }, In::Reply(_) | In::Failed(_)) if *own == id => {
                return self.finish(Ending::Closed);
            }
            _ => {}
        }
        if let Some((own, _)) = self.reprobe
            && own == id
        {
            match step {
                In::Reply(reply) => {
                    self.reprobe = None;
                    self.shared.let_end(self.now, id);
                    if headers::closed(&reply.headers) || reply.status == 404 {
                        self.finish(Ending::EndOfStream);
                    } else if let Some(latest) = headers::latest(&reply.headers) {
                        self.skip_to(latest);
                    }
                }
                In::Failed(_) => self.reprobe = None,
                _ => {}
            }
            return;
        }
        if matches!(step, In::End(_) | In::Failed(_)) {
            self.shared.errands.retain(|(own, _)| *own != id);
        }
    }

    /// The server's head is beyond ours: what we would write next is taken (trickle spec 6.2-5).
    pub(super) fn skip_to(&mut self, latest: Seq) {
        if latest <= self.next {
            return;
        }
        if latest == Seq::MAX {
            return self.fail(numbers_used_up());
        }
        self.next = latest;
        if self.uploads.back().is_some_and(|last| !last.begun)
            && let Some(mut warm) = self.uploads.pop_back()
        {
            warm.abort(&mut self.shared);
        }
        self.warm_up();
    }
}

pub(super) fn numbers_used_up() -> Cause {
    Cause::Nonsense {
        what: "the head of the channel",
        why: "no number is left".to_string(),
    }
}
