//! Requests' answers: the orchestrator's own, and the app's.

use alloc::boxed::Box;

use super::beyond::Beyond;
use super::types::{Answer, Event, Failed, Use};
use super::{Rental, State, refused};
use crate::error::{Cause, Reason};
use crate::http::{Fault, In, Response, SWITCHING};
use crate::payment::session::Delivered;
use crate::wire::app::{Session, is_untouched, passing};
use crate::wire::challenge::{Challenge, MAX_CHALLENGE_BYTES};
use crate::wire::{error_words, reason};

use super::{MAX_CHALLENGES, REQUEST};

impl Rental {
    pub(super) fn on_answer(&mut self, step: In) {
        let State::Asking(ask) = &mut self.state else {
            return;
        };
        match step {
            In::Reply(head) => self.on_head(head),
            In::Data(data) if ask.handed => {
                ask.pass(self.now, self.config.silence);
                self.out.event(Event::Data(data));
            }
            In::Data(data) => {
                let room = MAX_CHALLENGE_BYTES - ask.body.len();
                ask.body.extend_from_slice(&data[..data.len().min(room)]);
                if data.len() > room {
                    self.reject(Cause::TooMuch {
                        what: "the answer in bytes",
                        limit: MAX_CHALLENGE_BYTES,
                    });
                }
            }
            In::End(_) if ask.handed => self.done(),
            In::End(_) => self.on_whole(),
            In::Failed(fault) => self.on_broken(&fault),
            In::Sent(bytes) => self.taken(bytes),
            In::Request(_) => {}
        }
    }

    fn on_head(&mut self, head: Response) {
        let State::Asking(ask) = &mut self.state else {
            return;
        };
        if ask.status != 0 {
            return;
        }
        ask.status = head.status;
        ask.headers = head.headers;
        // What may be the orchestrator's own is read before it is handed on.
        let own = matches!(ask.status, 400 | 402 | 403 | 404 | 409 | 502 | 503);
        if matches!(self.plan, Use::Call(_)) && !own {
            self.hand_on();
            self.end_head();
        } else {
            ask.until = self.now + self.config.within;
        }
    }

    /// The app answers: its head goes on to whoever called.
    fn hand_on(&mut self) {
        let now = self.now;
        let head_alone = self.asks_by_get();
        let (State::Asking(ask), Some(deal)) = (&mut self.state, &self.deal) else {
            return;
        };
        ask.handed = true;
        ask.taken_at = None;
        let mut headers = passing(&ask.headers);
        if ask.status == SWITCHING {
            ask.beyond = Some(Beyond::new(now + self.config.socket_within));
            if let Some(protocol) = ask.headers.get("upgrade") {
                headers.push("upgrade", protocol);
            }
        }
        ask.pass(now, self.config.silence);
        let answer = Answer {
            runner: deal.runner.url.clone(),
            status: ask.status,
            headers,
            price: deal.runner.price.clone(),
        };
        let mut body = core::mem::take(&mut ask.body);
        if head_alone {
            body.clear();
        }
        self.history
            .served(now, &deal.runner.url, now.since(deal.began));
        self.accepted();
        self.out.event(Event::Head(Box::new(answer)));
        if !body.is_empty() {
            self.out.event(Event::Data(body.into()));
        }
    }

    fn done(&mut self) {
        self.end(Event::Done);
    }

    /// Ends a call that asked for the head alone, where a GET stood for it.
    fn end_head(&mut self) {
        if self.asks_by_get()
            && let State::Asking(ask) = &self.state
        {
            self.out.abort(ask.exchange);
            self.done();
        }
    }

    /// The orchestrator took the payment, and metered work goes on being paid.
    pub(super) fn accepted(&mut self) {
        let now = self.now;
        let Some(deal) = &mut self.deal else { return };
        if let (Some(payment), Some(open)) = (&mut deal.payment, deal.open.take()) {
            payment.get_mut().delivered(now, open, Delivered::Accepted);
            if deal.metered {
                // One that has ended says so.
                let _ = payment.get_mut().start_pacing(now, self.config.interval);
            }
        }
    }

    /// An answer that is read whole has come.
    fn on_whole(&mut self) {
        let State::Asking(ask) = &self.state else {
            return;
        };
        let (status, body) = (ask.status, ask.body.clone());
        if status == 402 {
            match Challenge::from_json(&body) {
                Ok(Some(demand)) => return self.demanded(demand),
                Ok(None) => {}
                Err(err) => return self.reject(err.into()),
            }
        }
        match &self.plan {
            Use::Session | Use::List => self.on_session(status, &body),
            Use::Call(_) => self.on_refusal(status, &body),
        }
    }

    fn on_session(&mut self, status: u16, body: &[u8]) {
        let Some(deal) = &self.deal else { return };
        let runner = deal.runner.url.clone();
        let known = deal.manifest.clone().filter(|_| deal.resent);
        match (status, known) {
            (200, _) => match Session::from_json(body, &runner) {
                Ok(session) => self.reserved(session),
                Err(bad) => match bad.id {
                    Some(id) => self.stop(&Session::at(&runner, &id), true),
                    None => self.reject(bad.why.into()),
                },
            },
            // The answer that was lost was a good one.
            (409, Some(id)) => self.reserved(Session::at(&runner, &id)),
            (status, _) => self.refused_by_orchestrator(status, body),
        }
    }

    fn reserved(&mut self, session: Session) {
        let Some(deal) = &self.deal else { return };
        let runner = deal.runner.url.clone();
        self.history
            .served(self.now, &runner, self.now.since(deal.began));
        self.state = State::Active {
            session: session.clone(),
            until: None,
        };
        self.accepted();
        self.out.event(Event::Reserved { session, runner });
    }

    fn on_refusal(&mut self, status: u16, body: &[u8]) {
        if is_untouched(status, body) {
            return self.reject(refused(REQUEST, status, body));
        }
        let paid = self
            .deal
            .as_ref()
            .is_some_and(|deal| deal.credentials.is_some());
        let about = reason(&error_words(body));
        let stale = matches!(
            about,
            Reason::ParamsExpired
                | Reason::Nonce
                | Reason::RecipientRand
                | Reason::AuthToken
                | Reason::Signature
        );
        match paid && stale && matches!(status, 400 | 403) {
            true => self.refused_by_orchestrator(status, body),
            false => {
                self.hand_on();
                self.done();
            }
        }
    }

    /// The orchestrator refused: a fresh demand may mend that.
    fn refused_by_orchestrator(&mut self, status: u16, body: &[u8]) {
        let mends = matches!(status, 400 | 402 | 403);
        let deal = self.deal.as_ref();
        if mends
            && deal.is_some_and(|deal| deal.credentials.is_some() && deal.demands < MAX_CHALLENGES)
        {
            return self.ask_anew();
        }
        self.reject(refused(REQUEST, status, body));
    }

    /// Asks the same runner once more, without payment.
    pub(super) fn ask_anew(&mut self) {
        if let State::Asking(ask) = core::mem::replace(&mut self.state, State::Listing) {
            self.out.abort(ask.exchange);
        }
        if let Some(mut deal) = self.deal.take() {
            self.end_payment(&mut deal, Delivered::Refused);
            self.deal = Some(deal);
        }
        self.ask();
    }

    fn on_broken(&mut self, fault: &Fault) {
        let State::Asking(ask) = &self.state else {
            return;
        };
        let (handed, status) = (ask.handed, ask.status);
        if handed {
            return self.broke(Cause::Link(fault.clone()));
        }
        if status != 0 {
            // The head, and what came of the body, says more.
            return self.on_whole();
        }
        self.unanswered(Cause::Link(fault.clone()), fault.is_before_request());
    }

    pub(super) fn broke(&mut self, cause: Cause) {
        let Some(deal) = &self.deal else { return };
        let runner = deal.runner.url.clone();
        self.history.failed(self.now, &runner);
        self.end(Event::Failed(Box::new(Failed::Broken { runner, cause })));
    }

    /// No answer came.
    pub(super) fn unanswered(&mut self, cause: Cause, unreached: bool) {
        let Some(deal) = &mut self.deal else { return };
        let paid = deal.credentials.is_some();
        match &self.plan {
            Use::Session if paid && !unreached && !deal.resent => {
                deal.resent = true;
                self.ask();
            }
            Use::Session | Use::List => self.reject(cause),
            // Whoever demands money does so before it hands on anything.
            Use::Call(call)
                if unreached || call.is_safe() || (!paid && deal.runner.price.is_some()) =>
            {
                self.reject(cause);
            }
            Use::Call(_) => {
                let runner = deal.runner.url.clone();
                self.history.failed(self.now, &runner);
                self.end(Event::Failed(Box::new(Failed::Undecided { runner, cause })));
            }
        }
    }
}
