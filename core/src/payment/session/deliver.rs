//! Bringing a payment to the orchestrator by a request of its own (payments spec 11.3, 18.1).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::Credentials;
use crate::error::{Cause, Failure, Party, Reason};
use crate::http::{self, Fault, Method, Request, Trust, Url};
use crate::machine::{EffectId, Outbox};
use crate::time::Time;
use crate::wire::payment::{PAYMENT_HEADER, SEGMENT_HEADER, read_payment_result};
use crate::wire::{OrchestratorInfo, error_words, reason, says_already_seen};

/// How long an orchestrator may take to answer a payment, at most.
pub(super) const DELIVERY_DEADLINE: Duration = Duration::from_secs(20);

/// Of a longer answer the rest is not read.
const MAX_ANSWER_BYTES: usize = 1 << 20;

const DOING: &str = "a payment";

/// What an attempt came to.
pub(super) enum Verdict {
    /// The orchestrator took it, and may have sent a fresh quote.
    Taken(Option<Box<OrchestratorInfo>>),
    /// It did not, and will not: forget it together with its quote.
    Discard,
    /// It saw nothing yet: send the same after a pause.
    Again(Failure),
    /// Nobody knows whether it did: send the same now. Tickets count only once.
    Confirm,
    /// There is no use in paying on.
    Over(Failure),
}

#[derive(Default)]
pub(super) struct Delivery {
    exchange: Option<EffectId>,
    within: Duration,
    until: Time,
    status: u16,
    body: Vec<u8>,
    /// An earlier attempt may have arrived.
    confirming: bool,
}

impl Delivery {
    pub(super) fn send<E>(
        &mut self,
        now: Time,
        out: &mut Outbox<E>,
        url: Url,
        trust: Trust,
        credentials: &Credentials,
        within: Duration,
    ) {
        self.abort(out);
        let request = Request::new(Method::Post, url)
            .header(PAYMENT_HEADER, credentials.payment.as_str())
            .header(SEGMENT_HEADER, credentials.segment.as_str())
            .trust(trust);
        self.exchange = Some(out.request(request));
        self.within = within;
        self.until = now + within;
        self.status = 0;
        self.body.clear();
    }

    pub(super) fn abort<E>(&mut self, out: &mut Outbox<E>) {
        if let Some(exchange) = self.exchange.take() {
            out.abort(exchange);
        }
    }

    pub(super) fn owns(&self, id: EffectId) -> bool {
        self.exchange == Some(id)
    }

    pub(super) const fn wake(&self) -> Time {
        self.until
    }

    pub(super) fn tick<E>(
        &mut self,
        now: Time,
        party: impl FnOnce() -> Party,
        out: &mut Outbox<E>,
    ) -> Option<Verdict> {
        if self.until > now {
            return None;
        }
        self.abort(out);
        let cause = Cause::TimedOut {
            doing: DOING,
            after: self.within,
        };
        Some(self.unknown(Failure::new(party(), cause)))
    }

    pub(super) fn handle<E>(
        &mut self,
        step: http::In,
        party: Party,
        out: &mut Outbox<E>,
    ) -> Option<Verdict> {
        match step {
            http::In::Reply(reply) => {
                self.status = reply.status;
                None
            }
            http::In::Data(data) => {
                self.body.extend_from_slice(&data);
                if self.body.len() <= MAX_ANSWER_BYTES {
                    return None;
                }
                self.abort(out);
                self.body.truncate(MAX_ANSWER_BYTES);
                Some(self.judge(party))
            }
            http::In::End(_) => {
                self.exchange = None;
                Some(self.judge(party))
            }
            http::In::Failed(fault) => {
                self.exchange = None;
                Some(self.broke(party, fault))
            }
            http::In::Request(_) | http::In::Sent(_) => None,
        }
    }

    fn broke(&mut self, party: Party, fault: Fault) -> Verdict {
        let (reached, over) = (!fault.is_before_request(), fault.is_final());
        let failure = Failure::new(party, Cause::Link(fault));
        match self.status {
            // The head said all that counts.
            200 => Verdict::Taken(None),
            _ if over => Verdict::Over(failure),
            _ if reached => self.unknown(failure),
            _ => Verdict::Again(failure),
        }
    }

    fn unknown(&mut self, failure: Failure) -> Verdict {
        if core::mem::replace(&mut self.confirming, true) {
            Verdict::Again(failure)
        } else {
            Verdict::Confirm
        }
    }

    fn judge(&mut self, party: Party) -> Verdict {
        let body = Bytes::from(core::mem::take(&mut self.body));
        if self.status == 200 {
            return Verdict::Taken(read_payment_result(body).map(Box::new));
        }
        let text = error_words(&body);
        let meaning = reason(&text);
        let seen = says_already_seen(&text);
        let refused = Failure::new(
            party,
            Cause::Refused {
                doing: DOING,
                status: self.status,
                reason: meaning,
                text,
            },
        );
        match (self.status, meaning) {
            (400, _) if self.confirming && seen => Verdict::Taken(None),
            (400, Reason::ParamsExpired | Reason::Nonce | Reason::RecipientRand)
            | (403, Reason::AuthToken) => Verdict::Discard,
            (403, Reason::Capacity) | (408 | 429 | 500 | 502..=504, _) => Verdict::Again(refused),
            _ => Verdict::Over(refused),
        }
    }
}
