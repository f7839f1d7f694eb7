//! An orchestrator under contract, for any kind of job: its lease, the payments to it, and its quote, kept fresh.
//!
//! A job makes a [`Hire`] of a [`Lease`] and has it [pay](Hire::pay). Once there are credentials ([`Told::Ready`]) the job
//! sends its request with them, in the form that its kind of work has, reads the answer, decides what kind of answer
//! it is, and says so. A request that a fresh quote may mend is made again.
//!
//! ```text
//!              pay              Ready                accepted
//!   new ─────────────▶ Paying ─────────▶ Answering ───────────▶ Accepted: further payments go by themselves
//!    │                   ▲                  │                      │
//!    │ pay_anew          │ renewed          │ refused, tries left  │
//!    └────────────────▶ Renewing ◀──────────┘                      │
//!                        └──── Failed ────────── Failed ───────────┴──▶ the job ends it
//! ```
//!
//! The hires of a job pay from one [`Purse`].

use alloc::collections::VecDeque;
use alloc::string::ToString as _;
use alloc::sync::Arc;
use core::time::Duration;

use crate::chain::ChainView;
use crate::error::{Advice, Broken, Cause, Failure, Party, Reason};
use crate::handshake::{self, Handshake};
use crate::machine::{Child, ChildIds, EffectId, Input, Outbox, earlier};
use crate::money::Price;
use crate::payment::session::{self, Credentials, Delivered, Fee, Paid, PaymentId};
use crate::payment::{Payer, PaymentSession};
use crate::pool::{Lease, Outcome};
use crate::sign::Address;
use crate::signers::SignerHealth;
use crate::time::Time;
use crate::wire::OrchestratorInfo;

/// The money of a job: whose it is, and how it is paid.
pub(crate) struct Purse {
    payer: Payer,
    config: session::Config,
}

impl Purse {
    pub(crate) const fn new(payer: Payer, config: session::Config) -> Self {
        Self { payer, config }
    }

    /// Opens a payment session with the orchestrator of a lease. The account that pays is
    /// the one that the handshake named.
    pub(super) fn open(&mut self, now: Time, lease: &Lease) -> PaymentSession {
        self.payer.learn(lease.signer_health());
        let account = lease.payer().map(|(address, _)| address);
        let wanted = lease.wanted().clone();
        self.open_as(now, &lease.info, account, |config| {
            config.capabilities = Some(wanted);
        })
    }

    /// Opens a payment session with the orchestrator of `info`, for work of its own kind. `account` pays.
    pub(super) fn open_as(
        &self,
        now: Time,
        info: &Arc<OrchestratorInfo>,
        account: Option<Address>,
        kind: impl FnOnce(&mut session::Config),
    ) -> PaymentSession {
        let mut config = self.config.clone();
        kind(&mut config);
        PaymentSession::new(now, config, info, self.payer.clone(), account)
    }

    /// Remembers what a session has taught of nonces.
    pub(super) fn learn_nonces(&mut self, session: &PaymentSession) {
        if let (Payer::Account(mine), Some(account)) = (&mut self.payer, session.account()) {
            // The next one may come with the same quote, and no nonce is used twice.
            mine.learn(&account.used);
        }
    }

    /// Remembers how signers have been.
    pub(super) fn learn_signers(&mut self, seen: &SignerHealth) {
        self.payer.learn(seen);
    }

    pub(crate) fn set_chain(&mut self, view: ChainView) {
        if let Payer::Account(account) = &mut self.payer {
            account.chain = view;
        }
    }

    /// The party that signs payments, as errors name it.
    fn party(&self) -> Party {
        match &self.payer {
            Payer::Remote(signers) => signers.party(0),
            _ => Party::KeyHolder,
        }
    }
}

/// News of a hire for its job.
#[derive(Debug)]
pub(crate) enum Told {
    /// The request is paid for: send it, and say how it went with [`Hire::accepted`] or [`Hire::refused`].
    Ready(Credentials),
    /// The orchestrator took a further payment.
    Paid(Paid),
    /// Payments cannot be made for now, and why.
    Held(Failure),
    /// The orchestrator is paid another price from now on.
    Repriced { from: Price, to: Price },
    /// Remote signers have been so.
    Signers(SignerHealth),
    /// Nothing more can come of it: end it.
    Failed(Failure),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// A fresh quote is needed before the request is paid for.
    Renewing,
    Paying(PaymentId),
    Answering(PaymentId),
    Accepted,
}

/// An orchestrator under contract. See the [module](self).
pub(crate) struct Hire {
    lease: Lease,
    payment: Child<PaymentSession>,
    /// Keeps the quote fresh.
    handshake: Child<Handshake>,
    payer: Party,
    state: State,
    /// Requests paid for.
    tries: u32,
    /// Whether the orchestrator was hired before for the same work, and the link broke.
    again: bool,
    /// Renewals that failed in a row, and how many may before the payment that needs one counts as impossible.
    unrenewed: u32,
    max_unrenewed: u32,
    /// When the last request was sent, and how long after it the first output came.
    asked: Time,
    first_byte: Option<Duration>,
    told: VecDeque<Told>,
}

impl Hire {
    /// Takes on the orchestrator of a lease.
    pub(crate) fn new(
        now: Time,
        lease: Lease,
        purse: &mut Purse,
        max_unrenewed: u32,
        ids: &mut ChildIds,
    ) -> Self {
        let payment = purse.open(now, &lease);
        Self {
            payment: ids.adopt(payment),
            handshake: ids.adopt(lease.handshake(now)),
            payer: purse.party(),
            lease,
            state: State::Renewing,
            tries: 0,
            again: false,
            unrenewed: 0,
            max_unrenewed,
            asked: now,
            first_byte: None,
            told: VecDeque::new(),
        }
    }

    pub(crate) const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The orchestrator, in errors.
    pub(crate) fn party(&self) -> Party {
        Party::Orchestrator(self.lease.url().clone())
    }

    /// The payments, to name what they are for, to pace and to stop them.
    pub(crate) const fn payments(&mut self) -> &mut PaymentSession {
        self.payment.get_mut()
    }

    // ---- the request -----------------------------------------------------------------------------------------

    /// Pays for a request.
    pub(crate) fn pay(&mut self, now: Time) {
        self.tries += 1;
        // What cannot be paid now waits for a fresh quote.
        let paying = self.payment.get_mut().pay(now, Fee::Elapsed);
        self.state = paying.map_or(State::Renewing, State::Paying);
    }

    /// Pays for a request from a fresh quote, for what became of an earlier payment is not known.
    pub(crate) fn pay_anew(&mut self, now: Time) {
        self.again = true;
        self.await_renewal(now);
    }

    /// Whether this is the second try with an orchestrator to which the link broke.
    pub(crate) const fn is_again(&self) -> bool {
        self.again
    }

    /// The request is on its way.
    pub(crate) const fn sent(&mut self, now: Time) {
        self.asked = now;
    }

    /// The orchestrator took the request and its payment.
    pub(crate) fn accepted(&mut self, now: Time) {
        if let State::Answering(payment) = self.state {
            self.state = State::Accepted;
            self.payment
                .get_mut()
                .delivered(now, payment, Delivered::Accepted);
        }
    }

    /// The request was refused, or there was no answer. Whether it is made again, since it was made fewer than
    /// `tries` times: then it is paid for from a fresh quote.
    pub(crate) fn refused(&mut self, now: Time, tries: u32) -> bool {
        if let State::Answering(payment) = self.state {
            self.payment
                .get_mut()
                .delivered(now, payment, Delivered::Refused);
        }
        let again = self.tries < tries;
        if again {
            self.await_renewal(now);
        }
        again
    }

    /// Some output came.
    pub(crate) fn gave(&mut self, now: Time) {
        let after = now.since(self.asked);
        self.first_byte.get_or_insert(after);
    }

    /// The outcome of work that was done.
    pub(crate) const fn done(&self) -> Outcome {
        Outcome::Done {
            first_byte: self.first_byte,
        }
    }

    /// Ends the payments and the renewals. The lease is to go back to its pool.
    pub(crate) fn end<E>(mut self, now: Time, purse: &mut Purse, out: &mut Outbox<E>) -> Lease {
        purse.learn_nonces(self.payment.get());
        self.payment.get_mut().close(now);
        self.payment.drain(out, |_| ());
        self.handshake.get_mut().close(now);
        self.handshake.drain(out, |_| ());
        self.lease
    }

    // ---- the machines inside ---------------------------------------------------------------------------------

    /// Whether the answer named `id` is for it.
    pub(crate) const fn owns(&self, id: EffectId) -> bool {
        self.payment.owns(id) || self.handshake.owns(id)
    }

    /// Takes an input that it owns, or a tick.
    pub(crate) fn handle_input(&mut self, now: Time, input: Input) {
        match input {
            Input::Tick => {
                self.payment.handle_input(now, Input::Tick);
                self.handshake.handle_input(now, Input::Tick);
            }
            input if input.id().is_some_and(|id| self.payment.owns(id)) => {
                self.payment.handle_input(now, input);
            }
            input => self.handshake.handle_input(now, input),
        }
    }

    pub(crate) fn wake(&self) -> Option<Time> {
        earlier(self.payment.wake(), self.handshake.wake())
    }

    /// The next thing to know. Ask until there is none: then everything that it wants done is in the outbox.
    pub(crate) fn poll<E>(
        &mut self,
        now: Time,
        out: &mut Outbox<E>,
        ids: &mut ChildIds,
    ) -> Option<Told> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Some(told);
            }
            let (mut payments, mut renewals) = (VecDeque::new(), VecDeque::new());
            self.payment.drain(out, |event| payments.push_back(event));
            self.handshake.drain(out, |event| renewals.push_back(event));
            if payments.is_empty() && renewals.is_empty() {
                return None;
            }
            for event in payments {
                self.on_payment(now, event);
            }
            for event in renewals {
                self.on_handshake(now, event, ids);
            }
        }
    }

    fn on_payment(&mut self, now: Time, event: session::Event) {
        let told = match event {
            session::Event::Ready(id, credentials) if self.state == State::Paying(id) => {
                self.state = State::Answering(id);
                Told::Ready(credentials)
            }
            session::Event::Signers(seen) => Told::Signers(seen),
            session::Event::Paid(_, paid) => Told::Paid(paid),
            session::Event::NeedQuote(_) => return self.renew(now),
            session::Event::Requoted(info) => {
                // The quote is taken already. With an own key it may ask more than the last handshake's, which the
                // handshake does not take for its own.
                let _ = self.handshake.get_mut().adopt(now, Arc::clone(&info));
                self.lease.info = info;
                return;
            }
            session::Event::Held(_, why) => Told::Held(why),
            session::Event::Repriced { from, to } => Told::Repriced { from, to },
            session::Event::Failed(failure) => Told::Failed(failure),
            session::Event::Skipped(_)
                if matches!(self.state, State::Paying(_) | State::Renewing) =>
            {
                // A request without money would be refused.
                let what = "the first payment";
                let why = "it says that nothing is due".to_string();
                Told::Failed(Failure::new(
                    self.payer.clone(),
                    Cause::Nonsense { what, why },
                ))
            }
            session::Event::Ready(..) | session::Event::Skipped(_) => return,
        };
        self.told.push_back(told);
    }

    fn await_renewal(&mut self, now: Time) {
        self.state = State::Renewing;
        self.renew(now);
    }

    fn renew(&mut self, now: Time) {
        // One that has ended says so, and is replaced.
        let _ = self.handshake.get_mut().renew(now);
    }

    fn on_handshake(&mut self, now: Time, event: handshake::Event, ids: &mut ChildIds) {
        let failure = match event {
            handshake::Event::Renewed(info) => {
                self.unrenewed = 0;
                self.payment.get_mut().renew(now, &info);
                self.lease.info = info;
                if self.state == State::Renewing {
                    self.pay(now);
                }
                return;
            }
            handshake::Event::Failed(failure) => failure,
            handshake::Event::Rejected(rejection) => {
                Failure::new(self.party(), rejection.into_cause())
            }
            _ => return,
        };
        if self.state != State::Accepted {
            self.told.push_back(Told::Failed(failure));
            return;
        }
        self.unrenewed += 1;
        self.handshake = ids.adopt(self.lease.handshake(now));
        if self.unrenewed >= self.max_unrenewed {
            // What was paid lasts for a while, and the payments decide what happens then.
            self.unrenewed = 0;
            self.payment.get_mut().no_quote(now, failure);
        } else {
            self.renew(now);
        }
    }
}

/// How often a request may be made with one orchestrator, given the cause of its refusal: `most` where a fresh quote may
/// mend it, and once more where it brings a fresh token (handshake spec 14).
pub(crate) const fn tries(cause: &Cause, most: u32) -> u32 {
    match cause {
        Cause::Refused {
            reason: Reason::AuthToken,
            ..
        } => 2,
        Cause::Refused {
            reason: Reason::ParamsExpired,
            ..
        } => most,
        _ => 1,
    }
}

/// Whether the link broke, which says little about who is at its other end.
pub(crate) fn link_broke(cause: &Cause) -> bool {
    matches!(cause, Cause::Link(fault) if !fault.is_final())
}

/// The verdict of a failure on the orchestrator (jobs spec 2.4).
pub(crate) fn verdict(failure: &Failure) -> Outcome {
    match failure.cause {
        Cause::Refused {
            reason: Reason::Capacity,
            ..
        } => Outcome::Full,
        Cause::Refused {
            reason: Reason::ParamsExpired | Reason::AuthToken,
            ..
        } => Outcome::Stale,
        Cause::Guard(ref broken) if matches!(**broken, Broken::Ceiling { .. }) => Outcome::TooDear,
        // Others can pay it; we cannot.
        Cause::TooDear { .. }
        | Cause::Free
        | Cause::Refused {
            reason: Reason::PriceDoubled,
            ..
        } => Outcome::TooDear,
        // Nothing against it: the job ends.
        _ if failure.advice() == Advice::Stop => Outcome::Unused,
        // Also what others refuse on its account: lent at once again, it would fail at once again.
        _ => Outcome::Failed(failure.clone()),
    }
}
