//! Finds out what the server holds of a segment whose connection broke after bytes went out.
//!
//! HTTP does not tell. But an open segment can be read back: a GET brings what there is and then falls silent. Once
//! it has been silent for long enough that nothing of the broken request can still be on its way, what it brought
//! is what the server holds. A GET without a head means that there is no byte yet, or that the GET has not arrived;
//! the head of the channel tells the two apart, since the first byte of a segment moves it (trickle spec 5.3).
//!
//! ```text
//!   GET seq ─▶ bytes, all that were sent, and there is more ────▶ Open(count)
//!           ─▶ bytes, then quiet ───────────────────────────────▶ Open(count)
//!           ─▶ quiet ─▶ GET next ─▶ head ≤ seq, still quiet ────▶ Open(0)
//!                   ─▶ head > seq + 1, five times ────────────▶ Open(0)
//!                   ─▶ head = seq + 1 ───────────────────────▶ (the GET is lost: again)
//!           ─▶ 470, head within the window, then quiet ─────────▶ Open(0)
//!           ─▶ 470, head beyond it ─────────────────────────────▶ Evicted
//!           ─▶ end of body ─────────────────────────────────────▶ Closed(count)
//!           ─▶ other bytes ─────────────────────────────────────▶ Differs
//!           ─▶ 404, Lp-Trickle-Closed ──────────────────────────▶ Gone
//! ```

use core::time::Duration;

use super::Shared;
use super::compare::{Compared, View};
use crate::http::{In, Method, Response};
use crate::machine::{EffectId, earlier};
use crate::time::Time;
use crate::trickle::{STATUS_NOT_IN_WINDOW, Seq, WINDOW, headers};

const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How many silent GETs mean that there is no byte, where the channel's head does not tell.
const SILENT_ROUNDS: u32 = 5;
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(super) enum Finding {
    Unknown,
    /// The segment is open and holds that many bytes, a prefix of what was sent.
    Open(u64),
    /// The segment is closed, with that many bytes.
    Closed(u64),
    Evicted,
    /// The segment's bytes at the server are not a prefix of what was sent.
    Differs(&'static str),
    Gone,
}

#[derive(Debug)]
pub(super) struct Recovery {
    seq: Seq,
    get: Option<EffectId>,
    next: Option<EffectId>,
    compared: Compared,
    /// The GET has a head.
    heard: bool,
    /// The server said that it has no byte of it.
    empty: bool,
    quiet_at: Time,
    retry_at: Option<Time>,
    pause: Duration,
    /// How often the channel's head was beyond this segment while the GET was silent.
    rounds: u32,
}

impl Recovery {
    pub(super) fn new(now: Time, seq: Seq, shared: &mut Shared) -> Self {
        let mut recovery = Self {
            seq,
            get: None,
            next: None,
            compared: Compared::default(),
            heard: false,
            empty: false,
            quiet_at: now + shared.config.quiet,
            retry_at: None,
            pause: RETRY_PAUSE,
            rounds: 0,
        };
        recovery.ask(now, shared);
        recovery
    }

    pub(super) fn owns(&self, id: EffectId) -> bool {
        self.get == Some(id) || self.next == Some(id)
    }

    fn ask(&mut self, now: Time, shared: &mut Shared) {
        self.retry_at = None;
        self.compared = Compared::default();
        self.heard = false;
        self.empty = false;
        let request = shared.request(Method::Get, self.seq);
        self.get = Some(shared.out.request(request));
        self.quiet_at = now + shared.config.quiet;
    }

    fn ask_later(&mut self, now: Time, shared: &mut Shared) {
        self.abort(shared);
        self.retry_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(RETRY_PAUSE_MAX);
    }

    pub(super) fn handle(
        &mut self,
        now: Time,
        id: EffectId,
        step: In,
        view: &View<'_>,
        shared: &mut Shared,
    ) -> Finding {
        if self.next == Some(id) {
            match step {
                In::Reply(reply) => self.head_of_channel(now, id, &reply, view, shared),
                In::Failed(_) => {
                    self.next = None;
                    self.ask_later(now, shared);
                    Finding::Unknown
                }
                _ => Finding::Unknown,
            }
        } else if self.get == Some(id) {
            match step {
                In::Reply(reply) => self.reply(now, &reply, view, shared),
                In::Data(bytes) => {
                    self.quiet_at = now + shared.config.quiet;
                    if !self.compared.matches(&bytes, view) {
                        return Finding::Differs("it is not a beginning of what was sent");
                    }
                    if self.compared.count == view.reached && !view.complete {
                        // Nothing else can be on its way.
                        return Finding::Open(self.compared.count);
                    }
                    Finding::Unknown
                }
                In::End(_) => {
                    self.get = None;
                    Finding::Closed(self.compared.count)
                }
                In::Failed(_) => {
                    self.get = None;
                    self.ask_later(now, shared);
                    Finding::Unknown
                }
                In::Sent(_) | In::Request(_) => Finding::Unknown,
            }
        } else {
            Finding::Unknown
        }
    }

    fn reply(
        &mut self,
        now: Time,
        reply: &Response,
        view: &View<'_>,
        shared: &mut Shared,
    ) -> Finding {
        // It is not silent, so the head need not tell.
        self.drop_next(shared);
        if headers::closed(&reply.headers) || reply.status == 404 {
            return Finding::Gone;
        }
        match reply.status {
            200 if headers::seq(&reply.headers).is_none_or(|seq| seq == view.seq) => {
                self.heard = true;
                self.quiet_at = now + shared.config.quiet;
                Finding::Unknown
            }
            STATUS_NOT_IN_WINDOW => match headers::latest(&reply.headers) {
                // Its slot is taken by the one a window later, which is the head at the earliest.
                Some(latest) if latest >= view.seq.plus(WINDOW as u64) => Finding::Evicted,
                Some(_) => {
                    self.drop_get(shared);
                    self.empty = true;
                    self.quiet_at = now + shared.config.quiet;
                    Finding::Unknown
                }
                None => {
                    self.ask_later(now, shared);
                    Finding::Unknown
                }
            },
            _ => {
                self.ask_later(now, shared);
                Finding::Unknown
            }
        }
    }

    fn head_of_channel(
        &mut self,
        now: Time,
        id: EffectId,
        reply: &Response,
        view: &View<'_>,
        shared: &mut Shared,
    ) -> Finding {
        self.next = None;
        shared.out.abort(id);
        if headers::closed(&reply.headers) || reply.status == 404 {
            return Finding::Gone;
        }
        self.quiet_at = now + shared.config.quiet;
        match headers::latest(&reply.headers) {
            Some(latest) if reply.status == 200 => {
                // One above, it has a byte, and the GET is slow or dead. Further above, it may also be that only later
                // segments have begun; a GET that falls silent again and again is believed then.
                self.rounds += u32::from(latest > view.seq.next());
                if latest <= view.seq || self.rounds >= SILENT_ROUNDS {
                    self.empty = true;
                } else {
                    self.ask_later(now, shared);
                }
            }
            _ => self.ask_later(now, shared),
        }
        Finding::Unknown
    }

    pub(super) fn tick(&mut self, now: Time, shared: &mut Shared) -> Finding {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.ask(now, shared);
            return Finding::Unknown;
        }
        if self.retry_at.is_some() || self.next.is_some() || self.quiet_at > now {
            return Finding::Unknown;
        }
        if self.compared.count > 0 {
            return Finding::Open(self.compared.count);
        }
        if self.empty {
            return Finding::Open(0);
        }
        let request = shared.next_request();
        self.next = Some(shared.out.request(request));
        Finding::Unknown
    }

    pub(super) fn wake(&self) -> Option<Time> {
        if self.retry_at.is_some() {
            return self.retry_at;
        }
        earlier(None, self.next.is_none().then_some(self.quiet_at))
    }

    /// Reads along once the segment goes on: a server that says nothing for long is asked anew, as if the GET had got
    /// lost.
    pub(super) fn read_along(&mut self, now: Time, shared: &mut Shared) {
        if self.asks_anew(shared).is_some_and(|at| at <= now) {
            self.drop_get(shared);
            self.ask(now, shared);
        }
    }

    /// When a server that is read along with and says nothing is asked anew.
    pub(super) fn asks_anew(&self, shared: &Shared) -> Option<Time> {
        self.get
            .is_some()
            .then(|| self.quiet_at + shared.config.answer_within)
    }

    fn drop_get(&mut self, shared: &mut Shared) {
        if let Some(id) = self.get.take() {
            shared.out.abort(id);
        }
    }

    fn drop_next(&mut self, shared: &mut Shared) {
        if let Some(id) = self.next.take() {
            shared.out.abort(id);
        }
    }

    pub(super) fn abort(&mut self, shared: &mut Shared) {
        self.drop_get(shared);
        self.drop_next(shared);
    }
}
