//! Events on their way to those who listen: bounded, tried again, and waited for by nobody.

use alloc::collections::VecDeque;
use core::time::Duration;

use bytes::Bytes;

use super::types::{Hook, Notice};
use crate::error::Cause;
use crate::exchange::{Bounds, Exchange, Reply};
use crate::http::{Body, In, Method, Request};
use crate::machine::{EffectId, Outbox, earlier};
use crate::rng::Rng;
use crate::time::Time;
use crate::wire::entry::{batch, envelope};

/// At most this many events wait to be told; beyond, the oldest are dropped.
pub const MAX_WAITING: usize = 10_000;
/// At most this many bytes of events wait to be told.
pub const MAX_WAITING_BYTES: usize = 8 << 20;
/// At most this many events are told at once.
pub const MAX_BATCH: usize = 100;
/// How often events are told in vain before they are dropped.
pub const MAX_TRIES: u32 = 10;
/// How long after the first vain try the next one follows. Each wait is twice the one before, up to the longest.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);

const BOUNDS: Bounds = Bounds {
    doing: "events",
    what: "the answer to events in bytes",
    limit: 4 << 10,
    within: Duration::from_secs(10),
    redirects: false,
};

/// The events that wait for the operator's place, in order.
#[derive(Debug)]
pub(super) struct News {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// How many of them are being told.
    told: usize,
    exchange: Option<Exchange>,
    tries: u32,
    /// When they are told again, after a vain try.
    rest: Option<Time>,
    rng: Rng,
    lost: u64,
}

impl News {
    pub(super) const fn new(rng: Rng) -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            told: 0,
            exchange: None,
            tries: 0,
            rest: None,
            rng,
            lost: 0,
        }
    }

    /// Whether the exchange of that name tells events.
    pub(super) fn owns(&self, id: EffectId) -> bool {
        self.exchange.as_ref().is_some_and(|told| told.owns(id))
    }

    pub(super) fn wake(&self) -> Option<Time> {
        earlier(self.rest, self.exchange.as_ref().and_then(Exchange::wake))
    }

    /// How many events wait, and their bytes.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.waiting.len(), self.bytes)
    }

    /// Puts an event in the queue.
    pub(super) fn push(&mut self, now: Time, gateway: &str, queue: &str, event: &str) {
        let event = envelope(self.rng.bytes32(), now, gateway, queue, event);
        if event.len() > MAX_WAITING_BYTES {
            self.lost += 1;
            return;
        }
        self.bytes += event.len();
        self.waiting.push_back(event);
        // Those that are being told may be taken; the oldest of the others go.
        while self.waiting.len() > MAX_WAITING || self.bytes > MAX_WAITING_BYTES {
            let Some(oldest) = self.waiting.remove(self.told) else {
                break;
            };
            self.bytes -= oldest.len();
            self.lost += 1;
        }
    }

    /// Tells what waits, unless something is being told.
    pub(super) fn send<E>(&mut self, out: &mut Outbox<E>, now: Time, to: Option<&Hook>) {
        let Some(to) = to else {
            return self.clear(out);
        };
        if self.exchange.is_some() || self.rest.is_some() || self.waiting.is_empty() {
            return;
        }
        self.told = self.waiting.len().min(MAX_BATCH);
        let body = batch(self.waiting.iter().take(self.told));
        let mut request = Request::new(Method::Post, to.url.clone())
            .header("content-type", "application/json")
            .body(Body::Full(body));
        for (name, value) in to.headers.iter() {
            request.headers.push_any(name, value);
        }
        self.exchange = Some(Exchange::start(out, now, request, BOUNDS));
    }

    /// Forgets all events: nobody is there to be told.
    fn clear<E>(&mut self, out: &mut Outbox<E>) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.abort(out);
        }
        self.waiting.clear();
        (self.bytes, self.told, self.tries, self.rest) = (0, 0, 0, None);
    }

    /// Takes a step of the exchange. The answer, once there is one.
    pub(super) fn step<E>(
        &mut self,
        out: &mut Outbox<E>,
        now: Time,
        step: In,
    ) -> Option<Result<Reply, Cause>> {
        let answer = self.exchange.as_mut()?.step(out, step)?;
        self.over(now, answer.as_ref().is_ok_and(Reply::is_success));
        Some(answer)
    }

    /// Does what is due; whether an answer is late.
    pub(super) fn tick<E>(&mut self, out: &mut Outbox<E>, now: Time) -> bool {
        self.rest = self.rest.filter(|at| *at > now);
        let late = { self.exchange.as_mut() }.and_then(|exchange| exchange.late(out, now));
        if late.is_some() {
            self.over(now, false);
        }
        late.is_some()
    }

    fn over(&mut self, now: Time, taken: bool) {
        self.exchange = None;
        let told = core::mem::take(&mut self.told);
        if !taken {
            self.tries += 1;
            if self.tries < MAX_TRIES {
                let rest = FIRST_REST.saturating_mul(1 << (self.tries - 1).min(8));
                self.rest = Some(now + rest.min(LONGEST_REST));
                return;
            }
            self.lost += told as u64;
        }
        self.tries = 0;
        for event in self.waiting.drain(..told) {
            self.bytes -= event.len();
        }
    }

    /// News for the operator, if there are any.
    pub(super) fn notice(&mut self) -> Option<Notice> {
        let lost = core::mem::take(&mut self.lost);
        (lost > 0).then_some(Notice::EventsLost(lost))
    }
}
