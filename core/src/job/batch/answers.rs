//! Requests to orchestrators, and what their answers mean (jobs spec 2.4).

use alloc::boxed::Box;
use alloc::string::ToString as _;
use alloc::vec::Vec;

use super::Batch;
use super::job::{Events, InFlight, Stage};
use super::types::{Config, Event, Failed, JobId, Left, RefusedBy, Served, Trying};
use crate::error::{Cause, Failure, Party};
use crate::http::{Fault, In, Out, Protocol, Response};
use crate::money::Amount;
use crate::payment::session::{Credentials, Delivered};
use crate::pool::{Outcome, Selector};
use crate::wire::batch::{Grounds, Verdict, judge, read_answer};
use crate::wire::{WireError, cut, reason, sse};

/// At most this many bytes of a refusal are read.
const MAX_REFUSAL: usize = 64 << 10;

/// The name of a request in errors.
const REQUEST: &str = "the request";

impl<S: Selector> Batch<S> {
    /// Sends the request of a job with the headers that pay for it.
    pub(super) fn send(&mut self, id: JobId, credentials: &Credentials) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(engaged) = &mut job.engaged else {
            return;
        };
        let url = engaged.url.with_path("/").child(self.pipeline.name());
        let request = credentials
            .post(url)
            .header("content-type", job.content_type.clone())
            // Without this, pictures come as data URLs.
            .header("authorization", "Livepeer-AI-Worker-1.0")
            .body(job.body.clone())
            .trust(self.config.trust)
            .protocol(match job.stream {
                // Many streams share a connection where the orchestrator lets them.
                true => Protocol::Either,
                false => Protocol::Http1,
            });
        let bill = engaged.payment.and_then(|payment| {
            let retained = self.retained.get(&engaged.url)?;
            retained.account.payments().bill(payment)
        });
        let exchange = self.out.request(request);
        self.exchanges.insert(exchange, id);
        engaged.tries += 1;
        engaged.asked = self.now;
        job.tries += 1;
        let trying = Trying {
            url: engaged.url.clone(),
            address: engaged.lease.info.address,
            price: bill.as_ref().and_then(|bill| bill.price),
            attempt: job.tries,
        };
        let within = match job.stream {
            true => job.config.stream_silence,
            false => job.config.answer_within,
        };
        let until = self.now + within.max(core::time::Duration::from_millis(1));
        job.stage = Stage::InFlight(Box::new(InFlight {
            exchange,
            status: 0,
            body: Vec::new(),
            until,
            standby: None,
            bill,
            events: None,
        }));
        let took = job.lap(self.now);
        job.paying += took;
        self.await_head(id);
        self.out.event(Event::Trying(id, Box::new(trying)));
    }

    pub(super) fn on_answer(&mut self, id: JobId, step: In) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Stage::InFlight(flight) = &mut job.stage else {
            return;
        };
        match step {
            In::Reply(head) => self.on_head(id, &head),
            In::Data(data) if flight.events.is_some() => self.on_events(id, &data),
            In::Data(data) => {
                let limit = match flight.status {
                    200 => job.config.max_answer,
                    _ => MAX_REFUSAL,
                };
                let room = limit - flight.body.len();
                flight.body.extend_from_slice(&data[..data.len().min(room)]);
                if data.len() > room {
                    self.on_whole(id, false);
                }
            }
            In::End(_) => {
                self.exchanges.remove(&flight.exchange);
                match flight.events {
                    Some(_) => self.on_events_end(id),
                    None => self.on_whole(id, true),
                }
            }
            In::Failed(fault) => {
                self.exchanges.remove(&flight.exchange);
                self.on_broken(id, fault);
            }
            In::Sent(_) | In::Request(_) => {}
        }
    }

    /// The head of an answer: a good one is charged.
    fn on_head(&mut self, id: JobId, head: &Response) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let (Stage::InFlight(flight), Some(engaged)) = (&mut job.stage, &mut job.engaged) else {
            return;
        };
        if flight.status != 0 {
            // One head is all that an answer has.
            return;
        }
        flight.status = head.status;
        flight.standby = None;
        let now = self.now;
        if head.status != 200 {
            return;
        }
        engaged.first = Some(now.since(engaged.asked));
        self.outdo(id);
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let (Stage::InFlight(flight), Some(engaged)) = (&mut job.stage, &mut job.engaged) else {
            return;
        };
        let content = head.headers.get("content-type").unwrap_or_default();
        if job.stream && content.trim_start().starts_with(sse::CONTENT_TYPE) {
            flight.events = Some(Events {
                reader: sse::Reader::new(),
                begun: false,
                finished: false,
            });
            flight.until = now + job.config.stream_silence;
            if job.paused {
                self.out.http(flight.exchange, Out::Pause);
            }
        }
        let streams = flight.events.is_some();
        let held = job.paused && streams;
        let until = flight.until;
        let bill = flight.bill.take();
        let (url, payment) = (engaged.url.clone(), engaged.payment.take());
        job.served = Some(Box::new(Served {
            url: url.clone(),
            address: engaged.lease.info.address,
            units: job.size.units,
            price: bill.as_ref().and_then(|bill| bill.price),
            tickets: bill.as_ref().map_or(0, |bill| bill.tickets),
            value: { bill.as_ref() }.map_or_else(Amount::zero, |bill| bill.value.clone()),
            cost: bill.map_or_else(Amount::zero, |bill| bill.fee),
            attempts: job.attempts.clone(),
            waited: now.since(job.began),
            selecting: job.selecting,
            paying: job.paying,
            upstream: job.upstream + now.since(job.since),
        }));
        self.set_wake(id, (!held).then_some(until));
        if streams {
            self.tell_head(id);
        }
        if let Some(payment) = payment {
            self.settle(&url, payment, Delivered::Accepted);
        }
    }

    /// An answer is whole, or the beginning of one that is too long.
    fn on_whole(&mut self, id: JobId, whole: bool) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Stage::InFlight(flight) = &mut job.stage else {
            return;
        };
        let body = core::mem::take(&mut flight.body);
        let (status, stream, takes_empty) = (flight.status, job.stream, job.takes_empty);
        if status != 200 {
            return self.on_refusal(id, status, &body);
        }
        let body = body.into();
        let what = "an answer";
        if !whole {
            let limit = job.config.max_answer;
            return self.on_no_answer(id, Cause::TooMuch { what, limit });
        }
        match read_answer(self.pipeline, &body) {
            // A whole answer to a request for a stream goes out as one chunk.
            Ok(_) if stream => {
                self.tell_head(id);
                self.out.event(Event::Chunk(id, body));
                self.stream_done(id);
            }
            Ok(answer) if answer.is_empty() && !takes_empty => {
                self.on_no_answer(id, WireError::new(what, "without a picture").into());
            }
            Ok(answer) => self.fetch(id, answer),
            Err(err) => self.on_no_answer(id, err.into()),
        }
    }

    /// Something with status 200 that is no answer, or no whole one.
    pub(super) fn on_no_answer(&mut self, id: JobId, cause: Cause) {
        self.attempt_failed(id, Left::InvalidAnswer, cause);
    }

    /// An attempt failed by the orchestrator's fault: others are asked.
    pub(super) fn attempt_failed(&mut self, id: JobId, left: Left, cause: Cause) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(engaged) = &job.engaged else { return };
        let url = engaged.url.clone();
        job.served = None;
        job.was_late = left == Left::Timeout;
        let failure = Failure::new(Party::Orchestrator(url.clone()), cause);
        self.leave(id, Delivered::Unknown, Outcome::Failed(failure));
        if let Some(job) = self.jobs.get_mut(&id) {
            job.left(url, left);
        }
        self.select(id);
    }

    fn on_broken(&mut self, id: JobId, fault: Fault) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Stage::InFlight(flight) = &mut job.stage else {
            return;
        };
        let begun = flight.events.as_ref().is_some_and(|events| events.begun);
        let status = flight.status;
        if begun {
            return self.stream_broke(id, Cause::Link(fault));
        }
        if status != 0 && status != 200 {
            // The head, and what came of the body, says more.
            return self.on_whole(id, true);
        }
        let cause = Cause::Link(fault.clone());
        if fault.is_before_request() {
            // Nobody saw the payment.
            self.untouched(id);
        }
        self.attempt_failed(id, Left::from(&cause), cause);
    }

    /// The payment that went along with a request was seen by nobody.
    fn untouched(&mut self, id: JobId) {
        let engaged = self.jobs.get_mut(&id).and_then(|job| job.engaged.as_mut());
        let payment =
            engaged.and_then(|engaged| Some((engaged.url.clone(), engaged.payment.take()?)));
        if let Some((url, payment)) = payment {
            self.settle(&url, payment, Delivered::Untouched);
        }
    }

    /// No answer came in time, or no more of a stream.
    pub(super) fn answer_is_late(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Stage::InFlight(flight) = &job.stage else {
            return;
        };
        let begun = flight.events.as_ref().is_some_and(|events| events.begun);
        let finished = flight.events.as_ref().is_some_and(|events| events.finished);
        let cause = is_late(job.stream, &job.config);
        if finished {
            self.stream_done(id);
        } else if begun {
            self.stream_broke(id, cause);
        } else {
            self.attempt_failed(id, Left::Timeout, cause);
        }
    }

    /// The orchestrator, or the runner behind it, refused.
    fn on_refusal(&mut self, id: JobId, status: u16, body: &[u8]) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(engaged) = &mut job.engaged else {
            return;
        };
        let url = engaged.url.clone();
        let verdict = judge(self.pipeline, job.stream, status, body);
        let text = alloc::string::String::from_utf8_lossy(body);
        let text = cut(text.trim()).to_string();
        let failure = Failure::new(
            Party::Orchestrator(url.clone()),
            Cause::Refused {
                doing: REQUEST,
                status,
                reason: reason(&text),
                text,
            },
        );
        let late =
            { job.config.tries.within }.is_some_and(|within| job.trying_since + within < self.now);
        let spent = late || job.tries >= job.config.tries.tries;
        let (how, outcome, left) = match verdict {
            Verdict::Caller { text, runner } => {
                // The runner was asked after the payment was taken.
                let (how, by) = match runner {
                    true => (Delivered::Credited, RefusedBy::Runner),
                    false => (Delivered::Untouched, RefusedBy::Orchestrator),
                };
                self.leave(id, how, Outcome::BadJob);
                return self.fail(id, Failed::Caller { text, by });
            }
            Verdict::Refresh => {
                if !spent && engaged.tries < job.config.tries.per_orchestrator {
                    return self.pay_again(id);
                }
                (Delivered::Refused, Outcome::Stale, Left::Credentials)
            }
            Verdict::Renew => {
                if !spent && !engaged.renewed {
                    engaged.renewed = true;
                    return self.pay_again(id);
                }
                (Delivered::Refused, Outcome::Stale, Left::Credentials)
            }
            Verdict::Busy => (Delivered::Untouched, Outcome::Full, Left::Busy),
            Verdict::Nonce => (Delivered::Refused, Outcome::Stale, Left::Nonce),
            Verdict::Gone => (Delivered::Untouched, Outcome::Gone, Left::Status(status)),
            Verdict::Other { suspend, grounds } => {
                let (how, left) = match grounds {
                    Grounds::Balance => (Delivered::Short, Left::Balance),
                    Grounds::Credentials => (Delivered::Refused, Left::Credentials),
                    Grounds::Price => (Delivered::Refused, Left::Price),
                    // The payment comes before the work.
                    Grounds::Status(500) => (Delivered::Credited, Left::Status(500)),
                    Grounds::Status(status) => (Delivered::Unknown, Left::Status(status)),
                };
                let outcome = match grounds {
                    Grounds::Price => Outcome::TooDear,
                    _ if suspend => Outcome::Failed(failure),
                    _ => Outcome::Unused,
                };
                (how, outcome, left)
            }
        };
        job.was_late = false;
        self.leave(id, how, outcome);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.left(url, left);
        }
        self.select(id);
    }

    /// Makes the request once more to the same orchestrator, paid from a fresh quote.
    fn pay_again(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let took = job.lap(self.now);
        job.upstream += took;
        if let Stage::InFlight(flight) = core::mem::replace(&mut job.stage, Stage::Paying)
            && self.exchanges.remove(&flight.exchange).is_some()
        {
            self.out.abort(flight.exchange);
        }
        let engaged = job.engaged.as_mut();
        let payment =
            engaged.and_then(|engaged| Some((engaged.url.clone(), engaged.payment.take()?)));
        if let Some((url, payment)) = payment {
            self.settle(&url, payment, Delivered::Refused);
        }
        self.pay(id);
    }
}

/// The cause when no answer came in time, or no more of a stream.
pub(super) const fn is_late(stream: bool, config: &Config) -> Cause {
    match stream {
        true => Cause::Silent {
            what: "part of the answer",
            after: config.stream_silence,
        },
        false => Cause::TimedOut {
            doing: REQUEST,
            after: config.answer_within,
        },
    }
}
