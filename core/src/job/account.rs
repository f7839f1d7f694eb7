//! The account with an orchestrator, which lasts from job to job: the payments to it, which job each is for, and how they
//! ended.
//!
//! A machine of many jobs keeps an [`Account`] for each orchestrator that it owes something. A job [pays](Account::pay),
//! is told of its credentials or of what is wrong ([`Told`]), and [says](Account::settle) how the request went.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::hire::Purse;
use crate::error::{Cause, Failure, Party};
use crate::http::Url;
use crate::machine::{Child, EffectId, Input, Outbox};
use crate::payment::PaymentSession;
use crate::payment::session::{self, Credentials, Delivered, Fee, Paid, PaymentId};
use crate::signers::SignerHealth;
use crate::time::Time;

/// News of an account, as they wait for the machine whose jobs `J` it pays for.
pub(super) type Notice = (Url, session::Event);

/// An account with an orchestrator, for the jobs `J`. See the [module](self).
pub(super) struct Account<J> {
    url: Url,
    payment: Child<PaymentSession>,
    claims: BTreeMap<PaymentId, Claim<J>>,
    /// Why there will be no more payments.
    ended: Option<Failure>,
}

/// A payment of a job.
struct Claim<J> {
    job: J,
    /// Whether the job still waits for its credentials.
    awaited: bool,
}

/// The meaning of a notice for jobs.
pub(super) enum Told<J> {
    /// The request of a job is paid for.
    Ready(J, PaymentId, Credentials),
    /// A request is paid for that nobody makes any more: it counts as not sent.
    Unwanted(PaymentId),
    /// The requests of these jobs cannot be paid for.
    Unpaid(Vec<J>, Failure),
    /// The payments need a fresh quote.
    NeedQuote,
    /// The orchestrator took a payment.
    Paid(Paid),
    /// Remote signers have been so.
    Signers(SignerHealth),
    /// Nothing.
    Nothing,
}

impl<J: Copy> Account<J> {
    /// An account with the orchestrator at `url`. A session that fails at once says so when it is [drained](Self::drain).
    pub(super) const fn new(url: Url, payment: Child<PaymentSession>) -> Self {
        Self {
            url,
            payment,
            claims: BTreeMap::new(),
            ended: None,
        }
    }

    /// The payments, for questions.
    pub(super) const fn payments(&self) -> &PaymentSession {
        self.payment.get()
    }

    /// Whether nothing more can be paid.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Whether no payment is awaited, and of none the outcome.
    pub(super) fn is_idle(&self) -> bool {
        self.claims.is_empty()
    }

    pub(super) const fn owns(&self, id: EffectId) -> bool {
        self.payment.owns(id)
    }

    pub(super) const fn wake(&self) -> Option<Time> {
        self.payment.wake()
    }

    /// The payments, for commands.
    pub(super) const fn payments_mut(&mut self) -> &mut PaymentSession {
        self.payment.get_mut()
    }

    /// Takes an input.
    pub(super) fn feed(&mut self, now: Time, input: Input) {
        self.payment.handle_input(now, input);
    }

    /// Moves what the payments want done, and what they tell, to the machine: after every command and input.
    pub(super) fn drain<E, N: From<Notice>>(
        &mut self,
        out: &mut Outbox<E>,
        news: &mut VecDeque<N>,
    ) {
        let (url, ended) = (&self.url, &mut self.ended);
        self.payment.drain(out, |event| {
            if let session::Event::Failed(failure) = &event {
                *ended = Some(failure.clone());
            }
            news.push_back((url.clone(), event).into());
        });
    }

    /// Pays for a request of so many units.
    ///
    /// # Errors
    /// The reason why nothing more can be paid.
    pub(super) fn pay(&mut self, now: Time, units: u64, job: J) -> Result<PaymentId, Box<Failure>> {
        let paying = self.payment.get_mut().pay(now, Fee::Units(units));
        let Ok(payment) = paying else {
            // A session that is over has said why.
            let ended = self.ended.clone();
            let ended = ended.unwrap_or_else(|| gone(&self.url, "the session"));
            return Err(Box::new(ended));
        };
        let awaited = true;
        self.claims.insert(payment, Claim { job, awaited });
        Ok(payment)
    }

    /// Says how the request went that a payment was for, or was to be for.
    pub(super) fn settle(&mut self, now: Time, payment: PaymentId, how: Delivered) {
        self.claims.remove(&payment);
        let payments = self.payment.get_mut();
        payments.cancel(now, payment);
        payments.delivered(now, payment, how);
    }

    /// The jobs that have a payment here, in the order in which they asked for it.
    pub(super) fn jobs(&self) -> impl Iterator<Item = J> {
        self.claims.values().map(|claim| claim.job)
    }

    /// There is no fresh quote to be had, for want of `what`.
    pub(super) fn no_quote(&mut self, now: Time, what: &'static str) {
        let failure = gone(&self.url, what);
        self.payment.get_mut().no_quote(now, failure);
    }

    /// Ends the payments.
    pub(super) fn close<E>(mut self, now: Time, purse: &mut Purse, out: &mut Outbox<E>) {
        purse.learn_nonces(self.payment.get());
        self.payment.get_mut().close(now);
        self.payment.drain(out, |_| ());
    }
}

impl<J: Copy> Told<J> {
    /// Reads a notice of an account, which may be closed by now.
    pub(super) fn read(account: Option<&mut Account<J>>, event: session::Event) -> Self {
        let mut claims = account.map(|account| &mut account.claims);
        let mut unpaid = |payment, failure| {
            let claim = claims.as_mut().and_then(|claims| claims.get(&payment));
            Self::Unpaid(claim.map(|claim| claim.job).into_iter().collect(), failure)
        };
        match event {
            session::Event::Held(payment, failure) => unpaid(payment, failure),
            session::Event::Skipped(payment) => {
                let failure = Failure::new(Party::KeyHolder, Cause::Gone("the payment"));
                unpaid(payment, failure)
            }
            session::Event::Ready(payment, credentials) => {
                match claims.and_then(|claims| claims.get_mut(&payment)) {
                    Some(claim) => {
                        claim.awaited = false;
                        Self::Ready(claim.job, payment, credentials)
                    }
                    None => Self::Unwanted(payment),
                }
            }
            session::Event::Failed(failure) => {
                let all = claims.iter().flat_map(|claims| claims.values());
                let waiting = all.filter(|claim| claim.awaited);
                Self::Unpaid(waiting.map(|claim| claim.job).collect(), failure)
            }
            session::Event::NeedQuote(_) => Self::NeedQuote,
            session::Event::Paid(_, paid) => Self::Paid(paid),
            session::Event::Signers(seen) => Self::Signers(seen),
            session::Event::Requoted(_) | session::Event::Repriced { .. } => Self::Nothing,
        }
    }
}

/// The failure where an orchestrator has no account, or no quote, any more.
pub(super) fn gone(url: &Url, what: &'static str) -> Failure {
    Failure::new(Party::Orchestrator(url.clone()), Cause::Gone(what))
}
