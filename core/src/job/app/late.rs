//! Reservations that nobody waits for any more, whose answer may still bring a session: that is stopped, for a free one has
//! no other end, and its slot would be taken for ever.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::types::Event;
use super::{Ask, Rental, State};
use crate::exchange::Exchange;
use crate::http::{In, Request, Url};
use crate::machine::{EffectId, earlier};
use crate::time::Time;
use crate::wire::app::{MAX_SESSION_BYTES, Session};

/// How long an answer is awaited that is late already.
const LATE_WITHIN: Duration = Duration::from_secs(10);

/// At most this many late answers are awaited.
const MAX_LATE: usize = 8;

/// A reservation that nobody waits for any more.
pub(super) enum Late {
    /// Its answer so far.
    Answer {
        runner: Url,
        until: Time,
        status: u16,
        body: Vec<u8>,
    },
    /// The session that it brought is stopped.
    Stop(Exchange),
}

impl Rental {
    /// Awaits the answer to a reservation whose time is over, or that nobody wants any more.
    pub(super) fn await_late(&mut self, ask: Ask) {
        let free = self.deal.as_ref().filter(|deal| deal.credentials.is_none());
        let Some(runner) = free.map(|deal| deal.runner.url.clone()) else {
            return self.out.abort(ask.exchange);
        };
        if self.late.len() >= MAX_LATE || !matches!(ask.status, 0 | 200) {
            return self.out.abort(ask.exchange);
        }
        let late = Late::Answer {
            runner,
            until: self.now + LATE_WITHIN,
            status: ask.status,
            body: ask.body,
        };
        self.late.insert(ask.exchange, late);
    }

    /// Takes a step of a late answer, or of what it led to.
    pub(super) fn on_late(&mut self, id: EffectId, step: In) {
        let Some(late) = self.late.get_mut(&id) else {
            return;
        };
        let (runner, status, body) = match late {
            Late::Stop(exchange) => {
                if exchange.step(&mut self.out, step).is_some() {
                    self.late.remove(&id);
                }
                return self.leave();
            }
            Late::Answer {
                runner,
                status,
                body,
                ..
            } => (runner, status, body),
        };
        match step {
            In::Reply(head) if head.status == 200 && *status == 0 => *status = 200,
            In::Data(data) if *status == 200 && body.len() + data.len() <= MAX_SESSION_BYTES => {
                body.extend_from_slice(&data);
            }
            In::Sent(_) | In::Request(_) => {}
            In::End(_) => {
                let session = match Session::from_json(body, runner) {
                    Ok(session) => Some(session),
                    Err(bad) => bad.id.map(|id| Session::at(runner, &id)),
                };
                self.late.remove(&id);
                if let Some(session) = session {
                    let (id, exchange) = self.stop_request(&session);
                    self.late.insert(id, Late::Stop(exchange));
                }
                self.leave();
            }
            // No session, or none that can be read.
            step => {
                self.late.remove(&id);
                if !matches!(step, In::Failed(_)) {
                    self.out.abort(id);
                }
                self.leave();
            }
        }
    }

    /// Gives up what is later than late.
    pub(super) fn late_tick(&mut self) {
        let (now, out) = (self.now, &mut self.out);
        let before = self.late.len();
        self.late.retain(|id, late| match late {
            Late::Answer { until, .. } if *until <= now => {
                out.abort(*id);
                false
            }
            Late::Answer { .. } => true,
            Late::Stop(exchange) => exchange.late(out, now).is_none(),
        });
        if self.late.len() < before {
            self.leave();
        }
    }

    pub(super) fn late_wake(&self) -> Option<Time> {
        let wakes = self.late.values().map(|late| match late {
            Late::Answer { until, .. } => Some(*until),
            Late::Stop(exchange) => exchange.wake(),
        });
        wakes.fold(None, earlier)
    }

    /// Begins to stop a session.
    pub(super) fn stop_request(&mut self, session: &Session) -> (EffectId, Exchange) {
        let url = session.stop_url();
        let request = Request::new(crate::http::Method::Post, url).trust(self.config.trust);
        let bounds = self.bounds("a request to stop the session", MAX_SESSION_BYTES);
        let exchange = Exchange::start(&mut self.out, self.now, request, bounds);
        let id = exchange.id().expect("an exchange that begins has an id");
        (id, exchange)
    }

    /// Tells the last event, once no late answer is awaited.
    fn leave(&mut self) {
        if !self.late.is_empty() || !matches!(self.state, State::Leaving(_)) {
            return;
        }
        if let State::Leaving(event) = core::mem::replace(&mut self.state, State::Ended) {
            self.out.event(*event);
        }
    }

    /// Ends with that event, or as soon as no late answer is awaited.
    pub(super) fn leave_with(&mut self, event: Event) {
        self.state = State::Leaving(Box::new(event));
        self.leave();
    }
}
