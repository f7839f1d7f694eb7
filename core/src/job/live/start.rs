//! Paying for the start, asking for it, and renewing the quote.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::standby::Flow;
use super::{AwaitingStart, Event, Farewell, LiveVideoJob, Running, Started, State};
use crate::error::{Cause, Failure, Party, Reason};
use crate::handshake;
use crate::http::{Body, In, Method, Request};
use crate::payment::Payer;
use crate::payment::session::{self, Credentials, Delivered, Fee, PaymentId};
use crate::pool::{Attempts, Outcome};
use crate::trickle::message::Messages;
use crate::trickle::{self, ContentType, Publisher, Seq, Start, Subscriber};
use crate::wire::{Channels, MAX_MESSAGE_BYTES, MAX_START_ANSWER_BYTES, cut, reason};

/// Whether the link broke, which says little about who is at its other end.
fn died(cause: &Cause) -> bool {
    matches!(cause, Cause::Link(fault) if !fault.is_final())
}

/// The name of a start request in errors.
pub(super) const START: &str = "to start the job";

impl LiveVideoJob {
    pub(super) fn on_payment(&mut self, event: session::Event) {
        match event {
            session::Event::Ready(id, credentials) => self.send_start(id, &credentials),
            session::Event::Paid(_, paid) => self.out.event(Event::Paid(paid)),
            session::Event::NeedQuote(_) => self.renew_quote(),
            session::Event::Requoted(info) => {
                if let Some(serving) = &mut self.serving {
                    serving.lease.info = info;
                }
            }
            session::Event::Held(_, why) => self.out.event(Event::PaymentHeld(why)),
            session::Event::Repriced { from, to } => {
                self.out.event(Event::Repriced { from, to });
            }
            session::Event::Failed(failure) => self.release(failure),
            session::Event::Skipped(_) if matches!(self.state, State::AwaitingPayment(_)) => {
                // A start without money would be refused.
                let who = match &self.payer {
                    Payer::Remote(signers) => signers.party(0),
                    _ => Party::KeyHolder,
                };
                let what = "the first payment";
                let why = "it says that nothing is due".to_string();
                self.release(Failure::new(who, Cause::Nonsense { what, why }));
            }
            session::Event::Skipped(_) => {}
        }
    }

    pub(super) fn renew_quote(&mut self) {
        if let Some(serving) = &mut self.serving {
            // One that has ended says so, and is replaced.
            let _ = serving.handshake.get_mut().renew(self.now);
        }
    }

    pub(super) fn on_handshake(&mut self, event: handshake::Event) {
        let Some(serving) = &mut self.serving else {
            return;
        };
        let failure = match event {
            handshake::Event::Renewed(info) => {
                serving.unrenewed = 0;
                serving.payment.get_mut().renew(self.now, &info);
                serving.lease.info = info;
                if matches!(self.state, State::AwaitingPayment(None)) {
                    self.prepare_start();
                }
                return;
            }
            handshake::Event::Failed(failure) => failure,
            handshake::Event::Rejected(rejection) => {
                Failure::new(serving.party(), rejection.into_cause())
            }
            _ => return,
        };
        if !matches!(self.state, State::Running(_)) {
            return self.release(failure);
        }
        serving.unrenewed += 1;
        let give_up = serving.unrenewed >= self.config.max_unrenewed;
        let handshake = serving.lease.handshake(self.now);
        let handshake = self.adopt(handshake);
        let Some(serving) = &mut self.serving else {
            return;
        };
        serving.handshake = handshake;
        if give_up {
            // What was paid lasts for a while, and the payments decide what happens then.
            serving.unrenewed = 0;
            serving.payment.get_mut().no_quote(self.now, failure);
        } else {
            self.renew_quote();
        }
    }

    pub(super) fn prepare_start(&mut self) {
        let Some(serving) = &mut self.serving else {
            return;
        };
        serving.tries += 1;
        let id = serving.payment.get_mut().pay(self.now, Fee::Elapsed).ok();
        self.state = State::AwaitingPayment(id);
    }

    pub(super) fn send_start(&mut self, payment: PaymentId, credentials: &Credentials) {
        let Some(serving) = &mut self.serving else {
            return;
        };
        if !matches!(&self.state, State::AwaitingPayment(Some(awaited)) if *awaited == payment) {
            return;
        }
        let url = serving
            .lease
            .url()
            .with_path("/")
            .child("live-video-to-video");
        let request = Request::new(Method::Post, url)
            .header("content-type", "application/json")
            .header("authorization", "Livepeer-AI-Worker-1.0")
            .header("livepeer-payment", credentials.payment.as_str())
            .header("livepeer-segment", credentials.segment.as_str())
            .body(Body::Full(self.request.to_json()))
            .trust(self.config.trust);
        let exchange = self.out.request(request);
        serving.asked = self.now;
        let deadline = self.now + self.config.start_within;
        self.state = State::AwaitingStart(AwaitingStart {
            exchange,
            payment,
            deadline,
            status: None,
            body: Vec::new(),
        });
    }

    pub(super) fn on_start_answer(&mut self, input: In) {
        let State::AwaitingStart(start) = &mut self.state else {
            return;
        };
        match input {
            In::Reply(head) => start.status = Some(head.status),
            In::Data(data) if start.body.len() + data.len() <= MAX_START_ANSWER_BYTES => {
                start.body.extend_from_slice(&data);
            }
            In::Data(_) => {
                self.out.abort(start.exchange);
                let limit = MAX_START_ANSWER_BYTES;
                self.refused(Cause::TooMuch {
                    what: "the size of the answer to the start request",
                    limit,
                });
            }
            In::End(_) => self.judge_start(),
            In::Failed(fault) => self.refused(Cause::Link(fault)),
            In::Request(_) | In::Sent(_) => {}
        }
    }

    pub(super) fn judge_start(&mut self) {
        let (State::AwaitingStart(start), Some(serving)) = (&self.state, &self.serving) else {
            return;
        };
        let status = start.status.unwrap_or(0);
        if status != 200 {
            let text = String::from_utf8_lossy(&start.body);
            let text = cut(text.trim()).to_string();
            self.refused(Cause::Refused {
                doing: START,
                status,
                reason: reason(&text),
                text,
            });
            return;
        }
        let orchestrator = serving.lease.url();
        let channels = match Channels::from_json(&start.body, orchestrator) {
            Ok(channels) => channels.named_by(orchestrator),
            Err(err) => {
                return self.refused(Cause::Nonsense {
                    what: err.what,
                    why: err.why,
                });
            }
        };
        match channels {
            Ok(channels) => self.run(channels),
            Err(forbidden) => self.refused(Cause::Link(forbidden.into())),
        }
    }

    /// Tries the orchestrator once more whose start died on the wire, with a fresh quote: what became of the first
    /// payment is not known. False if there is none.
    pub(super) fn start_again(&mut self) -> bool {
        let Some((lease, failure)) = self.spare.take() else {
            return false;
        };
        if self.attempts.begin(self.now, lease.url()).is_err() {
            self.spare = Some((lease, failure));
            self.release_spare();
            return false;
        }
        self.take_on(lease);
        if let Some(serving) = &mut self.serving {
            serving.again = true;
        }
        self.state = State::AwaitingPayment(None);
        self.renew_quote();
        true
    }

    /// The start did not come about: ask once more with a fresh quote if that would mend it, else leave.
    pub(super) fn refused(&mut self, cause: Cause) {
        let (State::AwaitingStart(start), Some(serving)) = (&self.state, &mut self.serving) else {
            return;
        };
        let failure = Failure::new(serving.party(), cause);
        let payment = start.payment;
        serving
            .payment
            .get_mut()
            .delivered(self.now, payment, Delivered::Refused);
        let tries = match failure.cause {
            // Once: a fresh quote brings a fresh token (handshake spec 14).
            Cause::Refused {
                reason: Reason::AuthToken,
                ..
            } => 2,
            Cause::Refused {
                reason: Reason::ParamsExpired,
                ..
            } => self.config.start_tries,
            _ => 1,
        };
        if self.stopping.is_some() {
            self.release(failure);
        } else if serving.tries < tries {
            self.state = State::AwaitingPayment(None);
            self.renew_quote();
        } else if died(&failure.cause) && !serving.again && !self.is_beside {
            self.spare_for_later(failure);
        } else {
            self.release(failure);
        }
    }

    pub(super) fn run(&mut self, channels: Channels) {
        let (State::AwaitingStart(start), Some(serving)) = (&self.state, &mut self.serving) else {
            return;
        };
        let payment = start.payment;
        if !self.is_beside {
            self.attempts = Attempts::new(self.config.start_limit);
        }
        if let Some(ending) = self.stopping.take() {
            let request = Request::new(Method::Delete, channels.publish).trust(self.config.trust);
            let exchange = self.out.request(request);
            self.farewell = Some(Farewell {
                exchange,
                deadline: self.now + trickle::DELETE_WITHIN,
            });
            self.leave(Outcome::Unused);
            self.end_with(ending);
            return;
        }
        let session = serving.payment.get_mut();
        session.set_manifest(channels.manifest_id.as_str());
        session.delivered(self.now, payment, Delivered::Accepted);
        // It has a name now, and an end only later.
        let _ = session.start_pacing(self.now, self.config.pay_every);
        let control = Publisher::new(
            self.now,
            trickle::publisher::Config {
                content: ContentType::new(ContentType::JSON),
                // It was made for us just now.
                first: Some(Seq::ZERO),
                trust: self.config.trust,
                // The job ends with it: there is nothing left to be controlled.
                linger: Duration::ZERO,
                ..Default::default()
            },
            channels.control.clone(),
        );
        let events = Subscriber::new(
            self.now,
            trickle::subscriber::Config {
                trust: self.config.trust,
                leave_dead: self.config.leave_dead,
                ..Default::default()
            },
            channels.events.clone(),
            Start::Current,
        );
        let session = self.sessions;
        self.sessions += 1;
        let running = Running {
            session,
            channels: channels.clone(),
            control: self.adopt(control),
            backlog: self.cached_params.clone().into_iter().collect(),
            keep_alive_due: false,
            on_its_way: None,
            updated: 0,
            events: self.adopt(events),
            message: Messages::new(MAX_MESSAGE_BYTES),
            keep_alive_at: self.now + self.config.keep_alive_every,
            watch_at: self.now + self.config.watch_every,
            last_event: self.now,
            last_input: self.now,
            last_output: self.now,
            last_loading: None,
            in_flight: 0,
            flow: Flow::default(),
            last_error: None,
            closing: None,
            input_waits: None,
            drain_until: None,
        };
        self.state = State::Running(Box::new(running));
        if self.is_beside {
            self.out.event(Event::Standby(session, Box::new(channels)));
        } else {
            self.go_to_work();
        }
    }

    /// The orchestrator works from now on.
    pub(super) fn go_to_work(&mut self) {
        let (State::Running(running), Some(serving)) = (&mut self.state, &self.serving) else {
            return;
        };
        (running.last_output, running.last_input) = (self.now, self.now);
        if !self.input_open {
            running.drain_until = Some(self.now + self.config.drain_within);
        }
        self.out.event(Event::Started(Box::new(Started {
            orchestrator: serving.lease.url().clone(),
            channels: running.channels.clone(),
            swaps: self.swaps,
            session: running.session,
            instead_of: self.lost.take(),
        })));
    }
}
