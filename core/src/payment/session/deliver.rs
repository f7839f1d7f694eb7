//! Bringing a payment to the orchestrator by a request of its own (payments spec 11.3, 18.1).

use alloc::boxed::Box;
use core::time::Duration;

use super::types::{DELIVERY_TRIES, Paid};
use super::{Credentials, Event, Memory, Minted, PaymentSession, Source, State, pause};
use crate::error::{Cause, Failure, Party, Reason};
use crate::exchange::{Bounds, Exchange, Reply};
use crate::http::{self, Fault, Trust, Url};
use crate::machine::{EffectId, Outbox};
use crate::time::Time;
use crate::wire::payment::read_payment_result;
use crate::wire::{OrchestratorInfo, error_words, reason, says_already_seen};

/// How long an orchestrator may take to answer a payment, at most.
pub(super) const DELIVERY_DEADLINE: Duration = Duration::from_secs(20);

/// The longest answer to a payment that is read; the rest of a longer one is not.
const MAX_ANSWER_BYTES: usize = 1 << 20;

const DOING: &str = "a payment";

/// The outcome of an attempt to deliver.
pub(super) enum Verdict {
    /// The orchestrator took it, and may have sent a fresh quote.
    Taken(Option<Box<OrchestratorInfo>>),
    /// The orchestrator did not take it, and will not: forget it together with its quote.
    Discard,
    /// The orchestrator saw nothing yet: send the same after a pause.
    Again(Failure),
    /// The outcome is unknown: send the same now. Tickets count only once.
    Confirm,
    /// There is no use in paying on.
    Over(Failure),
}

#[derive(Default)]
pub(super) struct Delivery {
    exchange: Option<Exchange>,
    /// How often it was sent. Nobody else uses its nonces: seen before, they were taken from an earlier attempt,
    /// whatever was answered to that.
    sent: u32,
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
        let request = credentials.post(url).trust(trust);
        let bounds = Bounds {
            doing: DOING,
            what: "the answer to a payment",
            limit: MAX_ANSWER_BYTES,
            within,
            redirects: false,
        };
        self.exchange = Some(Exchange::start(out, now, request, bounds));
        self.sent += 1;
    }

    pub(super) fn abort<E>(&mut self, out: &mut Outbox<E>) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.abort(out);
        }
    }

    /// Whether an attempt that was not answered may have arrived.
    pub(super) const fn is_undecided(&self) -> bool {
        self.confirming
    }

    pub(super) fn owns(&self, id: EffectId) -> bool {
        let exchange = self.exchange.as_ref();
        exchange.is_some_and(|exchange| exchange.owns(id))
    }

    pub(super) fn wake(&self) -> Option<Time> {
        self.exchange.as_ref().and_then(Exchange::wake)
    }

    pub(super) fn tick<E>(
        &mut self,
        now: Time,
        party: impl FnOnce() -> Party,
        out: &mut Outbox<E>,
    ) -> Option<Verdict> {
        let cause = self.exchange.as_mut()?.late(out, now)?;
        Some(self.unknown(Failure::new(party(), cause)))
    }

    pub(super) fn handle<E>(
        &mut self,
        step: http::In,
        party: Party,
        out: &mut Outbox<E>,
    ) -> Option<Verdict> {
        let exchange = self.exchange.as_mut()?;
        let told = exchange.step(out, step)?;
        Some(match told {
            Ok(reply) => self.judge(party, reply),
            Err(Cause::Link(fault)) => {
                let status = exchange.heard().status;
                self.broke(party, status, fault)
            }
            // The beginning of a long answer says enough.
            Err(_) => {
                let reply = exchange.heard();
                self.judge(party, reply)
            }
        })
    }

    fn broke(&mut self, party: Party, status: u16, fault: Fault) -> Verdict {
        let (reached, over) = (!fault.is_before_request(), fault.is_final());
        let failure = Failure::new(party, Cause::Link(fault));
        match status {
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

    fn judge(&mut self, party: Party, reply: Reply) -> Verdict {
        let Reply { status, body, .. } = reply;
        if status == 200 {
            return Verdict::Taken(read_payment_result(body.into()).map(Box::new));
        }
        let text = error_words(&body);
        let meaning = reason(&text);
        let seen = says_already_seen(&text);
        let refused = Failure::new(
            party,
            Cause::Refused {
                doing: DOING,
                status,
                reason: meaning,
                text,
            },
        );
        match (status, meaning) {
            (400, _) if self.sent > 1 && seen => Verdict::Taken(None),
            (400, Reason::ParamsExpired | Reason::Nonce | Reason::RecipientRand)
            | (403, Reason::AuthToken) => Verdict::Discard,
            // Somebody in between gave up on the orchestrator, which may have taken it all the same.
            (408 | 502 | 504, _) => self.unknown(refused),
            (403, Reason::Capacity) | (429 | 500 | 503, _) => Verdict::Again(refused),
            _ => Verdict::Over(refused),
        }
    }
}

impl PaymentSession {
    pub(super) fn send(&mut self, minted: Box<Minted>) {
        let Some(current) = &mut self.current else {
            return;
        };
        self.nonces = minted.nonces;
        current.tries = 0;
        if self.account.is_some() {
            return self.hand_out(*minted);
        }
        if current.by_owner {
            let event = Event::Ready(current.id, minted.credentials.clone());
            self.state = State::AwaitingOwner(minted);
            self.out.event(event);
        } else {
            self.post(minted, Delivery::default());
        }
    }

    pub(super) fn post(&mut self, minted: Box<Minted>, mut post: Delivery) {
        let url = match &self.config.payment_url {
            Some(url) => url.clone(),
            None => self.info.transcoder.child("payment"),
        };
        if let Some(current) = &mut self.current {
            current.tries += 1;
        }
        post.send(
            self.now,
            &mut self.out,
            url,
            self.config.trust,
            &minted.credentials,
            self.coverage.patience(self.now, DELIVERY_DEADLINE),
        );
        self.state = State::Delivering(minted, post);
    }

    /// The orchestrator took the payment: what was pending is committed.
    pub(super) fn taken(&mut self, minted: Minted) {
        match (&mut self.source, minted.memory) {
            (Source::Remote { committed, .. }, Memory::Blob(blob)) => *committed = blob,
            (Source::Local { committed, .. }, Memory::State(state)) => *committed = Some(state),
            _ => {}
        }
        self.accepted = true;
        self.held = None;
        self.state = State::Resting;
        if minted.tickets == 0 {
            // The orchestrator works for nothing.
            self.current = None;
            return;
        }
        self.last_minted = Some(minted.at);
        self.proportion.paid(&minted.value, &minted.charge.fee);
        self.coverage.add(minted.at, &minted.value);
        self.total += &minted.value;
        if let Some(current) = self.current.take() {
            let paid = Paid {
                tickets: minted.tickets,
                value: minted.value,
                total: self.total.clone(),
                covered_until: self.coverage.until(),
                charge: minted.charge,
            };
            self.out.event(Event::Paid(current.id, paid));
        }
        self.set_pace();
    }

    pub(super) fn on_verdict(&mut self, minted: Box<Minted>, post: Delivery, verdict: Verdict) {
        match verdict {
            Verdict::Taken(info) => {
                self.taken(*minted);
                if let Some(info) = info {
                    self.requote(*info);
                }
            }
            Verdict::Discard => {
                self.abandon(&minted, post.is_undecided());
                self.stale = true;
                self.need_quote(None);
            }
            Verdict::Again(failure) => {
                let tries = self.current.as_ref().map_or(0, |current| current.tries);
                let until = self.now + pause(tries);
                let covered = self
                    .coverage
                    .until()
                    .is_some_and(|covered| covered >= until);
                if tries >= DELIVERY_TRIES && !covered {
                    self.abandon(&minted, post.is_undecided());
                    return self.give_up("delivering a payment", tries, failure);
                }
                self.state = State::PausingDelivery(minted, post, until);
            }
            Verdict::Confirm => self.post(minted, post),
            Verdict::Over(failure) => {
                self.abandon(&minted, post.is_undecided());
                self.fail(failure);
            }
        }
    }

    /// Lets go of a payment that was sent. If it may have arrived, it stays undecided whether it was taken.
    pub(super) fn abandon(&mut self, minted: &Minted, undecided: bool) {
        if undecided {
            self.undecided += &minted.value;
        }
    }
}
