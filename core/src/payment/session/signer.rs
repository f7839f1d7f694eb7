//! A call to a remote signer, at the first of several URLs that answers.
//!
//! Signers are asked one after the other, never two at a time. Two answers made from one blob carry the same nonces
//! (payments spec 19-11), so the second could simply be dropped, and no money would be lost; but the spec wants one
//! request in flight per session (18.1), and whoever runs the signers counts, and may bill, what they minted. So that
//! a silent signer costs little all the same, each one has little time while there are others that were not asked:
//! [`FIRST_PATIENCE`], or as long as its answers are known to take. Only when all failed they get the full deadline.
//!
//! The signer that answered last stays the first to be asked while it answers: the clocks of signers may differ, and a
//! blob from the future bills the preload once more (12.4).

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::error::{Cause, Failure, Party};
use crate::exchange::{Bounds, Exchange, Reply};
use crate::http::{self, Url};
use crate::machine::{EffectId, Outbox};
use crate::sign::Address;
use crate::signers::{SignerHealth, Signers, Standing, all_failed, note};
use crate::time::Time;
use crate::wire::signer::{MAX_SIGNER_BODY, ORCHESTRATOR_URL_HEADER, PAYMENT_PATH};
use crate::wire::{error_words, reason};

/// How long one of several signers has to answer at first. What it does not take is spent on asking the next one.
pub const FIRST_PATIENCE: Duration = Duration::from_secs(2);

/// How long one call may take, at most: less when what was paid runs out, or another signer could be asked.
const DEADLINE: Duration = Duration::from_secs(10);

/// A slow signer is given this many times the duration of its last answer.
const SLOWER: u32 = 3;

/// The outcome of a call.
pub(super) enum Outcome {
    /// An answer that is the signer's own.
    Answer(Reply),
    /// None, or one that another signer may not give: try elsewhere, or later.
    Failed(Failure),
}

pub(super) struct Client {
    signers: Signers,
    /// The account that they sign for.
    address: Address,
    at: usize,
    /// The signer that answered last.
    favourite: Option<usize>,
    /// The signers that are asked after the present one, in this round.
    waiting: VecDeque<usize>,
    /// How often all failed, for this payment.
    rounds: u32,
    /// The last failure of each, for this payment.
    failures: Vec<Failure>,
    call: Option<Exchange>,
}

impl Client {
    pub(super) fn new(signers: Signers, address: Address) -> Self {
        Self {
            signers,
            address,
            at: 0,
            favourite: None,
            waiting: VecDeque::new(),
            rounds: 0,
            failures: Vec::new(),
            call: None,
        }
    }

    pub(super) const fn address(&self) -> Address {
        self.address
    }

    pub(super) const fn health(&self) -> &SignerHealth {
        self.signers.seen()
    }

    /// The signer that is asked now.
    pub(super) fn party(&self) -> Party {
        self.signers.party(self.at)
    }

    /// A new payment begins.
    pub(super) fn begin(&mut self, now: Time) {
        self.rounds = 0;
        self.failures.clear();
        self.line_up(now);
    }

    fn line_up(&mut self, now: Time) {
        self.waiting = self.signers.order(now);
        if let Some(favourite) = self.favourite
            && self.signers.standing(now, favourite) == Standing::Healthy
        {
            self.waiting.retain(|at| *at != favourite);
            self.waiting.push_front(favourite);
        }
        self.at = self.waiting.pop_front().unwrap_or(0);
    }

    /// Goes to the next signer, since the one that was asked failed; or tells how often all failed by now, and begins
    /// anew.
    pub(super) fn failed(&mut self, now: Time, failure: Failure) -> Option<u32> {
        self.signers.failed(now, self.at);
        note(&mut self.failures, failure);
        if let Some(next) = self.waiting.pop_front() {
            self.at = next;
            return None;
        }
        self.rounds += 1;
        self.line_up(now);
        Some(self.rounds)
    }

    /// The failure to report when every signer failed.
    pub(super) fn verdict(&mut self) -> Option<Failure> {
        all_failed(core::mem::take(&mut self.failures))
    }

    /// How long the one that is asked now has.
    pub(super) fn patience(&self) -> Duration {
        if self.rounds > 0 || self.signers.urls().len() == 1 {
            return DEADLINE;
        }
        let took = self.signers.took(self.at).unwrap_or_default();
        DEADLINE.min(FIRST_PATIENCE.max(took.saturating_mul(SLOWER)))
    }

    pub(super) fn ask<E>(
        &mut self,
        now: Time,
        out: &mut Outbox<E>,
        body: Vec<u8>,
        within: Duration,
    ) {
        self.abort(out);
        let request = self.signers.request(self.at, PAYMENT_PATH, body);
        let bounds = Bounds {
            doing: "a request for a payment",
            what: "the answer to a request for a payment",
            limit: MAX_SIGNER_BODY,
            within,
            redirects: false,
        };
        self.call = Some(Exchange::start(out, now, request, bounds));
    }

    pub(super) fn abort<E>(&mut self, out: &mut Outbox<E>) {
        if let Some(mut call) = self.call.take() {
            call.abort(out);
        }
    }

    pub(super) fn wake(&self) -> Option<Time> {
        self.call.as_ref().and_then(Exchange::wake)
    }

    pub(super) fn tick<E>(&mut self, now: Time, out: &mut Outbox<E>) -> Option<Outcome> {
        let cause = self.call.as_mut()?.late(out, now)?;
        Some(self.failure(cause))
    }

    pub(super) fn handle<E>(
        &mut self,
        now: Time,
        id: EffectId,
        step: http::In,
        out: &mut Outbox<E>,
    ) -> Option<Outcome> {
        let call = self.call.as_mut().filter(|call| call.owns(id))?;
        let reply = match call.step(out, step)? {
            Ok(reply) => reply,
            Err(cause) => return Some(self.failure(cause)),
        };
        if reply.status >= 500 || reply.status == 408 {
            let text = error_words(&reply.body);
            return Some(self.failure(refused(reply.status, text)));
        }
        let took = call.age(now);
        self.signers.answered(now, self.at, took);
        self.favourite = Some(self.at);
        Some(Outcome::Answer(reply))
    }

    fn failure(&self, cause: Cause) -> Outcome {
        Outcome::Failed(Failure::new(self.party(), cause))
    }
}

/// Where to get a fresh quote, as a signer says that asks for one.
pub(super) fn orchestrator(reply: &Reply) -> Option<Url> {
    let url = reply.headers.get(ORCHESTRATOR_URL_HEADER)?;
    Url::parse(url).ok().map(Url::told)
}

/// A signer's refusal in its own words.
pub(super) fn refused(status: u16, text: String) -> Cause {
    Cause::Refused {
        doing: "a payment",
        status,
        reason: reason(&text),
        text,
    }
}
