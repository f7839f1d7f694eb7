//! A request for a segment, until its answer is acted on.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};

use bytes::Bytes;

use super::{OVERLAP, Shared};
use crate::http::{In, Out, Response};
use crate::machine::{EffectId, earlier};
use crate::time::Time;
use crate::trickle::{ContentType, STATUS_NOT_IN_WINDOW, Seq, Start, headers};

/// The server's answer.
#[derive(Debug)]
pub(super) enum Answer {
    Body {
        seq: Seq,
        latest: Option<Seq>,
        content: ContentType,
    },
    Empty {
        seq: Seq,
        latest: Option<Seq>,
    },
    /// 470, with the head if it told.
    NotInWindow(Option<Seq>),
    /// 404.
    Missing,
    /// The channel has ended.
    Over,
    /// The link broke, or the answer makes no sense.
    Failed(String),
}

/// How the body stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    Open,
    Ended,
    Broken,
}

#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) want: Start,
    leg: Option<EffectId>,
    /// The request before a refresh, and how long it may still answer.
    old: Option<(EffectId, Time)>,
    send_at: Option<Time>,
    refresh_at: Option<Time>,
    /// A good head, and the request that it answers; whether bytes follow is not known yet.
    head: Option<(EffectId, Response)>,
    pub(super) answer: Option<Answer>,
    pub(super) held: VecDeque<Bytes>,
    held_len: usize,
    pub(super) held_since: Time,
    pub(super) paused: bool,
    pub(super) tail: Tail,
}

impl Fetch {
    pub(super) const fn new(want: Start) -> Self {
        Self {
            want,
            leg: None,
            old: None,
            send_at: None,
            refresh_at: None,
            head: None,
            answer: None,
            held: VecDeque::new(),
            held_len: 0,
            held_since: Time::ZERO,
            paused: false,
            tail: Tail::Open,
        }
    }

    pub(super) fn send(&mut self, now: Time, shared: &mut Shared) {
        self.send_at = None;
        self.refresh_at = Some(now + shared.config.refresh);
        self.leg = Some(shared.get(now, self.want));
    }

    pub(super) const fn pause(&mut self, until: Time) {
        self.send_at = Some(until);
    }

    pub(super) fn owns(&self, id: EffectId) -> bool {
        self.leg == Some(id) || self.old.is_some_and(|(old, _)| old == id)
    }

    pub(super) fn has_bytes(&self) -> bool {
        !self.held.is_empty()
    }

    /// The connection that the body comes on, if it is still open. The other one is let go.
    pub(super) fn take_leg(&mut self, shared: &mut Shared) -> Option<EffectId> {
        if let Some((old, _)) = self.old.take() {
            shared.out.abort(old);
        }
        self.leg.take()
    }

    pub(super) fn handle(&mut self, now: Time, id: EffectId, step: In, shared: &mut Shared) {
        match step {
            In::Reply(reply) => {
                // Who answers first wins.
                let loser = if self.leg == Some(id) {
                    self.old.take().map(|(old, _)| old)
                } else {
                    self.old = None;
                    self.leg.replace(id)
                };
                if let Some(loser) = loser {
                    shared.out.abort(loser);
                }
                self.classify(now, id, reply, shared);
            }
            In::Data(bytes) => {
                if bytes.is_empty() {
                    return;
                }
                self.prevail(id, shared);
                if self.leg != Some(id) {
                    return;
                }
                if let Some((_, head)) = self.head.take() {
                    self.refresh_at = None;
                    self.answer = Some(match self.seq_of(&head) {
                        Some(seq) => Answer::Body {
                            seq,
                            latest: headers::latest(&head.headers),
                            content: ContentType::new(
                                head.headers.get(headers::CONTENT_TYPE).unwrap_or(""),
                            ),
                        },
                        None => Answer::Failed("it names no seq".to_string()),
                    });
                    self.held_since = now;
                }
                self.held_len += bytes.len();
                self.held.push_back(bytes);
                if self.held_len >= shared.config.ahead_bytes && !self.paused {
                    self.paused = true;
                    shared.out.http(id, Out::Pause);
                }
            }
            In::End(_) => {
                self.prevail(id, shared);
                if self.leg != Some(id) {
                    return;
                }
                self.leg = None;
                self.tail = Tail::Ended;
                if let Some((_, head)) = self.head.take() {
                    self.refresh_at = None;
                    self.answer = Some(match self.seq_of(&head) {
                        Some(seq) => Answer::Empty {
                            seq,
                            latest: headers::latest(&head.headers),
                        },
                        None => Answer::Failed("it names no seq".to_string()),
                    });
                }
            }
            In::Failed(fault) => {
                self.forget_head(id);
                if self.old.is_some_and(|(old, _)| old == id) {
                    self.old = None;
                    return;
                }
                self.leg = None;
                if self.held.is_empty() {
                    if let Some((old, _)) = self.old.take() {
                        // The one before may still answer.
                        self.leg = Some(old);
                        return;
                    }
                    self.refresh_at = None;
                    self.answer = Some(Answer::Failed(fault.to_string()));
                } else {
                    self.tail = Tail::Broken;
                }
            }
            In::Sent(_) | In::Request(_) => {}
        }
    }

    /// The request before a refresh goes on after all: its head is good, and here is what follows it.
    fn prevail(&mut self, id: EffectId, shared: &mut Shared) {
        let headed = self.head.as_ref().is_some_and(|(of, _)| *of == id);
        if headed && self.old.is_some_and(|(old, _)| old == id) {
            self.old = None;
            if let Some(loser) = self.leg.replace(id) {
                shared.out.abort(loser);
            }
        }
    }

    fn forget_head(&mut self, id: EffectId) {
        self.head.take_if(|(of, _)| *of == id);
    }

    fn classify(&mut self, now: Time, id: EffectId, reply: Response, shared: &mut Shared) {
        self.head = None;
        self.refresh_at = None;
        let answer = if headers::closed(&reply.headers) {
            Answer::Over
        } else {
            match reply.status {
                200 => match (self.seq_of(&reply), self.want) {
                    (Some(seq), Start::At(want)) if seq != want => {
                        Answer::Failed(format!("it answered with {seq} for {want}"))
                    }
                    (Some(seq), _) => {
                        self.want = Start::At(seq);
                        // A head is no byte: the connection may still be dead.
                        self.refresh_at = Some(now + shared.config.refresh);
                        self.head = Some((id, reply));
                        return;
                    }
                    (None, _) => Answer::Failed("it names no seq".to_string()),
                },
                STATUS_NOT_IN_WINDOW => Answer::NotInWindow(headers::latest(&reply.headers)),
                404 => Answer::Missing,
                status => Answer::Failed(format!("it answered with status {status}")),
            }
        };
        // What else it says is of no use; closing is cheaper than reading.
        if let Some(id) = self.leg.take() {
            shared.out.abort(id);
        }
        self.answer = Some(answer);
    }

    fn seq_of(&self, reply: &Response) -> Option<Seq> {
        // Nothing could follow the last one.
        headers::seq(&reply.headers).filter(|seq| *seq < Seq::MAX)
    }

    /// How many requests it has under way.
    pub(super) fn legs(&self) -> usize {
        usize::from(self.leg.is_some()) + usize::from(self.old.is_some())
    }

    /// Whether it has been unanswered for too long.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.leg.is_some() && self.refresh_at.is_some_and(|at| at <= now)
    }

    /// `may_double`: whether it may have two requests at a time.
    pub(super) fn tick(&mut self, now: Time, may_double: bool, shared: &mut Shared) {
        if self.send_at.is_some_and(|at| at <= now) {
            self.send(now, shared);
        }
        if let Some((old, until)) = self.old
            && until <= now
        {
            self.old = None;
            self.forget_head(old);
            shared.out.abort(old);
        }
        if self.is_due(now)
            && let Some(leg) = self.leg
        {
            if !may_double {
                self.refresh_at = Some(now + OVERLAP);
                return;
            }
            if let Some((older, _)) = self.old.replace((leg, now + OVERLAP)) {
                self.forget_head(older);
                shared.out.abort(older);
            }
            self.send(now, shared);
        }
    }

    pub(super) fn wake(&self) -> Option<Time> {
        let old = self.old.map(|(_, until)| until);
        earlier(earlier(self.send_at, self.refresh_at), old)
    }

    pub(super) fn abort(&mut self, shared: &mut Shared) {
        if let Some(id) = self.take_leg(shared) {
            shared.out.abort(id);
        }
    }
}
