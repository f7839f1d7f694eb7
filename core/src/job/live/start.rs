//! The start: what a hire tells, asking an orchestrator to start the job, and its answer.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::time::Duration;

use super::standby::Flow;
use super::{Event, LiveVideoJob, Running, Started, State};
use crate::error::{Cause, Failure};
use crate::exchange::{Bounds, Exchange, Reply};
use crate::http::{Body, In, Method, Request};
use crate::job::hire::{Told, link_broke, tries};
use crate::payment::session::Credentials;
use crate::pool::{Attempts, Lease, Outcome};
use crate::trickle::message::Messages;
use crate::trickle::{self, ContentType, Publisher, Seq, Start, Subscriber};
use crate::wire::{Channels, MAX_MESSAGE_BYTES, MAX_START_ANSWER_BYTES, cut, reason};

/// The name of a start request in errors.
const START: &str = "to start the job";

impl LiveVideoJob {
    pub(super) fn on_hire(&mut self, told: Told) {
        match told {
            Told::Ready(credentials) => self.send_start(&credentials),
            Told::Paid(paid) => self.out.event(Event::Paid(paid)),
            Told::Held(why) => self.out.event(Event::PaymentHeld(why)),
            Told::Repriced { from, to } => self.out.event(Event::Repriced { from, to }),
            Told::Signers(health) => {
                self.purse.learn_signers(&health);
                self.out.event(Event::Signers(health));
            }
            Told::Failed(failure) => self.release(failure),
        }
    }

    /// Takes on the orchestrator of a lease, and pays for the start.
    pub(super) fn begin_with(&mut self, lease: Lease) {
        let now = self.now;
        self.take_on(lease).pay(now);
        self.seat.state = State::AwaitingPayment;
    }

    /// Tries the orchestrator once more whose start died on the wire. False if there is none.
    pub(super) fn start_again(&mut self) -> bool {
        let Some((lease, failure)) = self.spare.take() else {
            return false;
        };
        if self.attempts.begin(self.now, lease.url()).is_err() {
            self.spare = Some((lease, failure));
            self.release_spare();
            return false;
        }
        let now = self.now;
        self.take_on(lease).pay_anew(now);
        self.seat.state = State::AwaitingPayment;
        true
    }

    fn send_start(&mut self, credentials: &Credentials) {
        let Some(hire) = &mut self.seat.hire else {
            return;
        };
        let url = hire.lease().url().with_path("/");
        let request = credentials
            .post(url.child("live-video-to-video"))
            .header("content-type", "application/json")
            .header("authorization", "Livepeer-AI-Worker-1.0")
            .body(Body::Full(self.request.to_json()))
            .trust(self.config.trust);
        hire.sent(self.now);
        let exchange = Exchange::start(
            &mut self.out,
            self.now,
            request,
            Bounds {
                doing: START,
                what: "the size of the answer to the start request",
                limit: MAX_START_ANSWER_BYTES,
                within: self.config.start_within,
                redirects: false,
            },
        );
        self.seat.state = State::AwaitingStart(exchange);
    }

    pub(super) fn on_start_answer(&mut self, step: In) {
        let State::AwaitingStart(start) = &mut self.seat.state else {
            return;
        };
        match start.step(&mut self.out, step) {
            Some(Ok(reply)) => match self.channels_of(&reply) {
                Ok(channels) => self.run(channels),
                Err(cause) => self.refused(cause),
            },
            Some(Err(cause)) => self.refused(cause),
            None => {}
        }
    }

    /// The channels in an answer to the start request, or why there are none.
    fn channels_of(&self, reply: &Reply) -> Result<Channels, Cause> {
        if reply.status != 200 {
            let text = String::from_utf8_lossy(&reply.body);
            let text = cut(text.trim()).to_string();
            return Err(Cause::Refused {
                doing: START,
                status: reply.status,
                reason: reason(&text),
                text,
            });
        }
        let hire = self
            .seat
            .hire
            .as_ref()
            .ok_or(Cause::Gone("the orchestrator"))?;
        let orchestrator = hire.lease().url();
        let channels = Channels::from_json(&reply.body, orchestrator);
        let channels = channels.map_err(|err| Cause::Nonsense {
            what: err.what,
            why: err.why,
        })?;
        let named = channels.named_by(orchestrator);
        named.map_err(|forbidden| Cause::Link(forbidden.into()))
    }

    /// The start did not come about: ask once more with a fresh quote if that would mend it, else leave.
    pub(super) fn refused(&mut self, cause: Cause) {
        let Some(hire) = &mut self.seat.hire else {
            return;
        };
        let tries = match self.stopping {
            Some(_) => 0,
            None => tries(&cause, self.config.start_tries),
        };
        let failure = Failure::new(hire.party(), cause);
        if hire.refused(self.now, tries) {
            self.seat.state = State::AwaitingPayment;
            return;
        }
        let spare = link_broke(&failure.cause)
            && !hire.is_again()
            && !self.is_beside
            && self.stopping.is_none();
        if spare {
            self.spare_for_later(failure);
        } else {
            self.release(failure);
        }
    }

    pub(super) fn run(&mut self, channels: Channels) {
        if !self.is_beside {
            self.attempts = Attempts::new(self.config.start_limit);
        }
        if let Some(ending) = self.stopping.take() {
            let request = Request::new(Method::Delete, channels.publish).trust(self.config.trust);
            let bounds = Bounds {
                doing: "to close the input",
                what: "the size of the answer",
                limit: MAX_START_ANSWER_BYTES,
                within: trickle::DELETE_WITHIN,
                redirects: false,
            };
            let farewell = Exchange::start(&mut self.out, self.now, request, bounds);
            self.farewell = Some(farewell);
            self.leave(Outcome::Unused);
            self.end_with(ending);
            return;
        }
        if let Some(hire) = &mut self.seat.hire {
            hire.payments().set_manifest(channels.manifest_id.as_str());
            hire.accepted(self.now);
            // It has a name now, and an end only later.
            let every = self.config.pay_every;
            let _ = hire.payments().start_pacing(self.now, every);
        }
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
            control: self.children.adopt(control),
            backlog: self.cached_params.clone().into_iter().collect(),
            keep_alive_due: false,
            on_its_way: None,
            updated: 0,
            events: self.children.adopt(events),
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
        self.seat.state = State::Running(Box::new(running));
        if self.is_beside {
            self.out.event(Event::Standby(session, Box::new(channels)));
        } else {
            self.go_to_work();
        }
    }

    /// The orchestrator works from now on.
    pub(super) fn go_to_work(&mut self) {
        let (State::Running(running), Some(hire)) = (&mut self.seat.state, &self.seat.hire) else {
            return;
        };
        (running.last_output, running.last_input) = (self.now, self.now);
        if !self.input_open {
            running.drain_until = Some(self.now + self.config.drain_within);
        }
        self.out.event(Event::Started(Box::new(Started {
            orchestrator: hire.lease().url().clone(),
            channels: running.channels.clone(),
            swaps: self.swaps,
            session: running.session,
            instead_of: self.lost.take(),
        })));
    }
}
