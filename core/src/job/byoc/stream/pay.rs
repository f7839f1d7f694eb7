//! Payments for a stream that runs: a fresh token from time to time, and what the balance there lacks.

use alloc::boxed::Box;
use alloc::string::ToString as _;
use core::time::Duration;

use super::ask::What;
use crate::error::{Advice, Cause, Failure, Reason};
use crate::exchange::{Bounds, Exchange, Reply};
use crate::http::{Body, In, Method, Request};
use crate::job::byoc::{Byoc, Failed, JobId};
use crate::machine::{EffectId, Outbox};
use crate::payment::byoc::LOW_WATER_SECONDS;
use crate::payment::session::{Credentials, Delivered, PaymentId};
use crate::time::Time;
use crate::wire::byoc::stream::PAYMENT_PATH;
use crate::wire::byoc::{
    CAPABILITY_HEADER, JOB_HEADER, MAX_TOKEN_BYTES, SENDER_HEADER, Sender, SignedBy, TOKEN_PATH,
    Token,
};
use crate::wire::error_words;
use crate::wire::payment::PAYMENT_HEADER;

/// How often a stream is paid for. Orchestrators bill every 23 seconds.
const PAY_EVERY: Duration = Duration::from_secs(50);

/// How many seconds are on the balance after a payment: those until the next one, and those that are not billed yet.
pub(in crate::job::byoc) const SECONDS_AHEAD: u64 = LOW_WATER_SECONDS;

/// How long an orchestrator may take for a fresh token.
const TOKEN_WITHIN: Duration = Duration::from_secs(3);

/// How long an orchestrator may take for a payment.
const PAYMENT_WITHIN: Duration = Duration::from_secs(10);

/// How long to wait before a step is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// An orchestrator is gone after this many tokens or payments in a row that came to nothing.
const MAX_FAILURES: u32 = 3;

/// An orchestrator is left after this many payments in a row that it refused, each made under a fresh token.
const MAX_REFUSED: u32 = 2;

/// The payments for a stream at one orchestrator.
pub(super) struct Bill {
    /// The payment that the present is paid from, and since when.
    held: Option<(PaymentId, Time)>,
    due: Time,
    step: Step,
    failures: u32,
    refused: u32,
}

enum Step {
    Rest,
    Token(Exchange),
    /// The payer makes a payment.
    Paying(PaymentId),
    Posting(Exchange, PaymentId),
}

impl Bill {
    pub(super) fn new(now: Time, payment: Option<PaymentId>) -> Self {
        Self {
            held: payment.map(|payment| (payment, now)),
            due: now + PAY_EVERY,
            step: Step::Rest,
            failures: 0,
            refused: 0,
        }
    }

    pub(super) const fn held(&self) -> Option<(PaymentId, Time)> {
        self.held
    }

    /// The payment whose outcome is not known.
    pub(super) const fn open(&self) -> Option<PaymentId> {
        match &self.step {
            Step::Paying(payment) | Step::Posting(_, payment) => Some(*payment),
            Step::Rest | Step::Token(_) => None,
        }
    }

    /// The request that is under way.
    pub(super) fn exchange(&self) -> Option<EffectId> {
        match &self.step {
            Step::Token(exchange) | Step::Posting(exchange, _) => exchange.id(),
            Step::Rest | Step::Paying(_) => None,
        }
    }

    pub(super) fn wake(&self) -> Option<Time> {
        match &self.step {
            Step::Rest => Some(self.due),
            Step::Token(exchange) | Step::Posting(exchange, _) => exchange.wake(),
            Step::Paying(_) => None,
        }
    }

    pub(super) fn abort<E>(&mut self, out: &mut Outbox<E>) {
        if let Step::Token(exchange) | Step::Posting(exchange, _) = &mut self.step {
            exchange.abort(out);
        }
    }
}

impl Byoc {
    fn bill(&mut self, id: JobId) -> Option<&mut Bill> {
        Some(&mut self.streams.get_mut(&id)?.running()?.bill)
    }

    /// Makes the payment that is due, or notes that its answer is late.
    pub(super) fn bill_is_due(&mut self, id: JobId) {
        let (now, trust) = (self.now, self.config.trust);
        let payer = self.introducing.known().flatten();
        let capability = self.capability.clone();
        let Some(running) = self.streams.get_mut(&id).and_then(super::Stream::running) else {
            return;
        };
        let bill = &mut running.bill;
        match &mut bill.step {
            Step::Rest if bill.due > now => {}
            // What was free stays free.
            Step::Rest if running.token.price.is_free() => bill.due = now + PAY_EVERY,
            Step::Rest => {
                let sender = payer.map(|(sender, signature)| SignedBy { sender, signature });
                let request = Request::new(Method::Get, running.url.with_path(TOKEN_PATH))
                    .header(SENDER_HEADER, Sender(sender).to_header())
                    .header(CAPABILITY_HEADER, capability.as_str())
                    .trust(trust);
                let bounds = Bounds {
                    doing: "a request for a token",
                    what: "the token in bytes",
                    limit: MAX_TOKEN_BYTES,
                    within: TOKEN_WITHIN,
                    redirects: false,
                };
                bill.step = Step::Token(Exchange::start(&mut self.out, now, request, bounds));
            }
            Step::Token(exchange) => {
                if let Some(cause) = exchange.late(&mut self.out, now) {
                    self.bill_failed(id, cause);
                }
            }
            Step::Posting(exchange, _) => {
                if let Some(cause) = exchange.late(&mut self.out, now) {
                    self.paid(id, Err(cause));
                }
            }
            Step::Paying(_) => {}
        }
    }

    /// Takes a step of an answer about payments.
    pub(super) fn on_bill(&mut self, id: JobId, step: In) {
        let Some(running) = self.streams.get_mut(&id).and_then(super::Stream::running) else {
            return;
        };
        let url = running.url.clone();
        match &mut running.bill.step {
            Step::Token(exchange) => {
                let Some(told) = exchange.step(&mut self.out, step) else {
                    return;
                };
                let token = told.and_then(|reply| match reply.status {
                    200 => Token::from_json(&reply.body, &url).map_err(Cause::from),
                    _ => Err(refusal("a request for a token", &reply)),
                });
                match token {
                    Ok(token) => self.pay_stream(id, token),
                    Err(cause) => self.bill_failed(id, cause),
                }
            }
            Step::Posting(exchange, _) => {
                if let Some(told) = exchange.step(&mut self.out, step) {
                    self.paid(id, told);
                }
            }
            Step::Rest | Step::Paying(_) => {}
        }
    }

    /// Pays by a fresh token.
    fn pay_stream(&mut self, id: JobId, token: Token) {
        let now = self.now;
        let Some(running) = self.streams.get_mut(&id).and_then(super::Stream::running) else {
            return;
        };
        let url = running.url.clone();
        running.bill.step = Step::Rest;
        let held = running.bill.held.take();
        running.token = token.clone();
        if let Some((payment, since)) = held {
            let took = now.since(since).as_nanos().div_ceil(1_000_000_000);
            let seconds = u64::try_from(took).unwrap_or(u64::MAX);
            self.settle(&url, payment, Delivered::Used(seconds));
        }
        if !self.affordable(&token) {
            let asked = token.price.to_string();
            let ceiling = "what is paid".into();
            return self.lose_session(id, Cause::TooDear { asked, ceiling });
        }
        self.retain(&url, &token);
        let units = self.units(&url, &token, SECONDS_AHEAD);
        let paying = self.with_account(&url, |account, now| account.pay(now, units, id));
        match paying {
            Some(Ok(payment)) => {
                if let Some(bill) = self.bill(id) {
                    bill.step = Step::Paying(payment);
                }
            }
            Some(Err(failure)) => self.stream_unpaid(id, &failure),
            None => self.lose_session(id, Cause::Gone("the account")),
        }
    }

    /// A payment for a stream is made.
    pub(in crate::job::byoc) fn stream_paid(
        &mut self,
        id: JobId,
        payment: PaymentId,
        tickets: u32,
        credentials: Credentials,
    ) {
        let (now, trust) = (self.now, self.config.trust);
        let Some(running) = self.streams.get_mut(&id).and_then(super::Stream::running) else {
            return;
        };
        if !matches!(&running.bill.step, Step::Paying(awaited) if *awaited == payment) {
            return;
        }
        if tickets == 0 {
            return self.is_covered(id, payment);
        }
        let request = Request::new(Method::Post, running.service().with_path(PAYMENT_PATH))
            .header(JOB_HEADER, running.header.clone())
            .header(PAYMENT_HEADER, credentials.payment)
            .trust(trust)
            .body(Body::Empty);
        let bounds = Bounds {
            doing: "a payment",
            what: "the answer in bytes",
            limit: MAX_TOKEN_BYTES,
            within: PAYMENT_WITHIN,
            redirects: false,
        };
        let exchange = Exchange::start(&mut self.out, now, request, bounds);
        running.bill.step = Step::Posting(exchange, payment);
    }

    /// The orchestrator has answered a payment, or has not.
    fn paid(&mut self, id: JobId, told: Result<Reply, Cause>) {
        let Some(running) = self.streams.get_mut(&id).and_then(super::Stream::running) else {
            return;
        };
        let url = running.url.clone();
        let Some(payment) = running.bill.open() else {
            return;
        };
        running.bill.step = Step::Rest;
        match told {
            Ok(reply) if reply.is_success() => self.is_covered(id, payment),
            Ok(reply) if matches!(reply.status, 400..=499) => {
                self.settle(&url, payment, Delivered::Refused);
                let cause = refusal("a payment", &reply);
                let due = self.now + AGAIN_AFTER;
                if let Some(bill) = self.bill(id)
                    && bill.refused + 1 < MAX_REFUSED
                {
                    bill.refused += 1;
                    bill.due = due;
                } else {
                    self.lose_session(id, cause);
                }
            }
            Ok(reply) => {
                self.settle(&url, payment, Delivered::Unknown);
                self.bill_failed(id, refusal("a payment", &reply));
            }
            Err(cause) => {
                self.settle(&url, payment, Delivered::Unknown);
                self.bill_failed(id, cause);
            }
        }
    }

    /// The time ahead is paid for.
    fn is_covered(&mut self, id: JobId, payment: PaymentId) {
        let now = self.now;
        if let Some(bill) = self.bill(id) {
            *bill = Bill::new(now, Some(payment));
        }
    }

    /// A step came to nothing: it is tried again, or the orchestrator is gone.
    fn bill_failed(&mut self, id: JobId, cause: Cause) {
        let now = self.now;
        let Some(bill) = self.bill(id) else { return };
        bill.step = Step::Rest;
        bill.failures += 1;
        if bill.failures >= MAX_FAILURES {
            return self.lose_session(id, cause);
        }
        bill.due = now + AGAIN_AFTER;
    }

    /// The payer makes no payment for a stream.
    pub(in crate::job::byoc) fn stream_unpaid(&mut self, id: JobId, failure: &Failure) {
        let Some(running) = self.streams.get_mut(&id).and_then(super::Stream::running) else {
            return;
        };
        let (url, open) = (running.url.clone(), running.bill.open());
        running.bill.step = Step::Rest;
        if let Some(payment) = open {
            self.settle(&url, payment, Delivered::Untouched);
        }
        if failure.advice() != Advice::Stop {
            return self.lose_session(id, failure.cause.clone());
        }
        // Nobody else could be paid either.
        self.leave_session(id, Some(What::Farewell));
        self.end_stream(id, Err(Box::new(Failed::Ours(Box::new(failure.clone())))));
    }
}

fn refusal(doing: &'static str, reply: &Reply) -> Cause {
    Cause::Refused {
        doing,
        status: reply.status,
        reason: Reason::Other,
        text: error_words(&reply.body),
    }
}
