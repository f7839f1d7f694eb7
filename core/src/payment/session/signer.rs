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

use bytes::Bytes;

use crate::error::{Cause, Failure, Party};
use crate::exchange::{Bounds, Exchange, Reply};
use crate::http::{self, Body, Headers, Method, Request, Trust, Url};
use crate::machine::{EffectId, Outbox};
use crate::sign::Address;
use crate::signers::{SignerHealth, Standing, all_failed, note};
use crate::time::Time;
use crate::wire::signer::{MAX_SIGNER_BODY, ORCHESTRATOR_URL_HEADER, PAYMENT_PATH};
use crate::wire::{error_words, reason};

/// How long one of several signers has to answer at first. What it does not take is spent on asking the next one.
pub const FIRST_PATIENCE: Duration = Duration::from_secs(2);

/// A slow signer is given this many times the duration of its last answer.
const SLOWER: u32 = 3;

/// Where remote signers for one account are, and who they sign for.
#[derive(Clone, Debug)]
pub struct RemoteSigner {
    /// The URLs of the signers, in the order in which they are asked. Only the origin of each is used.
    pub urls: Vec<Url>,
    /// Header fields for the signers alone.
    pub headers: Headers,
    /// The account, as the signer introduced it in the handshake.
    pub address: Address,
    /// Which certificates will do. The headers may be secret.
    pub trust: Trust,
    /// How long one call may take, at most: less when what was paid runs out, or another signer could be asked.
    pub deadline: Duration,
    /// How they have been.
    pub health: SignerHealth,
}

impl RemoteSigner {
    /// A single signer, publicly trusted, with ten seconds for a call.
    #[must_use]
    pub fn new(url: Url, address: Address) -> Self {
        Self {
            urls: alloc::vec![url],
            headers: Headers::new(),
            address,
            trust: Trust::Public,
            deadline: Duration::from_secs(10),
            health: SignerHealth::default(),
        }
    }

    /// Another one for the same account, asked when those before it fail.
    #[must_use]
    pub fn or(mut self, url: Url) -> Self {
        self.urls.push(url);
        self
    }

    /// With what is known of how they have been.
    #[must_use]
    pub fn health(mut self, health: SignerHealth) -> Self {
        self.health = health;
        self
    }

    /// Header fields for signers, such as an authorization.
    #[must_use]
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }
}

/// The outcome of a call.
pub(super) enum Outcome {
    /// An answer that is the signer's own.
    Answer(Reply),
    /// None, or one that another signer may not give: try elsewhere, or later.
    Failed(Failure),
}

pub(super) struct Client {
    signer: RemoteSigner,
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
    pub(super) fn new(signer: RemoteSigner) -> Self {
        Self {
            signer,
            at: 0,
            favourite: None,
            waiting: VecDeque::new(),
            rounds: 0,
            failures: Vec::new(),
            call: None,
        }
    }

    pub(super) const fn address(&self) -> Address {
        self.signer.address
    }

    pub(super) fn has_urls(&self) -> bool {
        !self.signer.urls.is_empty()
    }

    pub(super) const fn health(&self) -> &SignerHealth {
        &self.signer.health
    }

    /// The one that is asked now.
    pub(super) fn party(&self) -> Party {
        match self.signer.urls.get(self.at) {
            Some(url) => Party::Signer(url.clone()),
            None => Party::KeyHolder,
        }
    }

    /// A new payment begins.
    pub(super) fn begin(&mut self, now: Time) {
        self.rounds = 0;
        self.failures.clear();
        self.line_up(now);
    }

    fn line_up(&mut self, now: Time) {
        let signer = &self.signer;
        self.waiting = signer.health.order(now, &signer.urls);
        if let Some(favourite) = self.favourite
            && signer.health.standing(now, &signer.urls[favourite]) == Standing::Healthy
        {
            self.waiting.retain(|index| *index != favourite);
            self.waiting.push_front(favourite);
        }
        self.at = self.waiting.pop_front().unwrap_or(0);
    }

    /// The one that was asked failed. Goes to the next one; or tells how often all failed by now, and begins anew.
    pub(super) fn failed(&mut self, now: Time, failure: Failure) -> Option<u32> {
        if let Some(url) = self.signer.urls.get(self.at) {
            self.signer.health.failed(now, url);
        }
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
        let all = self.signer.deadline;
        match self.signer.urls.get(self.at) {
            Some(url) if self.rounds == 0 && self.signer.urls.len() > 1 => {
                let took = self.signer.health.took(url).unwrap_or_default();
                all.min(FIRST_PATIENCE.max(took.saturating_mul(SLOWER)))
            }
            _ => all,
        }
    }

    pub(super) fn ask<E>(
        &mut self,
        now: Time,
        out: &mut Outbox<E>,
        body: Vec<u8>,
        within: Duration,
    ) {
        self.abort(out);
        let Some(url) = self.signer.urls.get(self.at) else {
            return;
        };
        let mut request = Request::new(Method::Post, url.with_path(PAYMENT_PATH))
            .header("content-type", "application/json")
            .trust(self.signer.trust)
            .body(Body::Full(Bytes::from(body)));
        for (name, value) in self.signer.headers.iter() {
            request.headers.push_any(name, value);
        }
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
        let url = &self.signer.urls[self.at];
        self.signer.health.answered(now, url, took);
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
