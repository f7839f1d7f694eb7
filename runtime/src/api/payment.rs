//! Paying one orchestrator, for applications that run their own jobs.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use livepeer_core::payment::PaymentSession as Machine;
use livepeer_core::payment::session::{
    Config, Credentials, Delivered, Event, Fee, Paid, PaymentId,
};
use livepeer_core::{Misuse, Time};

use super::board::Board;
use super::ring::Ring;
use super::{Error, OrchestratorSession};
use crate::{Handle, Runtime};

/// The payer's side of one job at one orchestrator. [`LiveVideoJob`](super::LiveVideoJob) has its own; this is for
/// requests that you send yourself.
///
/// [`PaymentSession::get_payment`] makes the headers for a request; tell what became of it with
/// [`Payment::accepted`] or [`Payment::refused`]. With [`PaymentSession::set_manifest_id`] and
/// [`PaymentSession::pay_every`] further payments go to the orchestrator by themselves, until the session is dropped.
///
/// A quote numbers its tickets once, so two payers must not share one. That is why a session with an orchestrator is
/// given away, and a second payer needs one of its own:
///
/// ```compile_fail,E0382
/// use livepeer_core::payment::session::Config;
/// use livepeer_runtime::Runtime;
/// use livepeer_runtime::api::OrchestratorSession;
///
/// fn pay_twice<R: Runtime>(session: OrchestratorSession<R>, config: Config) {
///     let one = session.payments(config.clone());
///     let two = session.payments(config);
/// }
/// ```
pub struct PaymentSession<R: Runtime> {
    shared: Arc<Shared<R>>,
}

struct Shared<R: Runtime> {
    handle: Handle<Machine, R>,
    session: OrchestratorSession<R>,
    board: Board<State>,
}

#[derive(Default)]
struct State {
    /// Payments that somebody waits for, and what came of them.
    making: BTreeMap<PaymentId, Option<Made>>,
    paid: Ring<Paid>,
    ended: Option<Error>,
}

/// The outcome of making a payment.
enum Made {
    Payment(Credentials),
    /// No payment is due.
    Nothing,
    /// The payment cannot be made. The session lives on: what was paid before lasts for a while.
    Held(Error),
}

/// A payment to send along with a request. One that is dropped counts as refused.
#[must_use = "tell the session what became of the payment"]
pub struct Payment<'a, R: Runtime> {
    session: &'a PaymentSession<R>,
    id: PaymentId,
    credentials: Credentials,
    told: bool,
}

/// A payment that is being made. If nobody waits for it any more, it counts as refused when it comes.
struct Making<'a, R: Runtime> {
    shared: &'a Shared<R>,
    id: PaymentId,
}

impl<R: Runtime> OrchestratorSession<R> {
    /// Prepares to pay the orchestrator for a job billed as `config` says, by the payer of the session. If its info
    /// cannot be paid from, the first payment says so.
    #[doc(alias = "PaymentSession")]
    #[must_use]
    pub fn payments(self, config: Config) -> PaymentSession<R> {
        PaymentSession::new(self, config)
    }
}

impl<R: Runtime> PaymentSession<R> {
    fn new(session: OrchestratorSession<R>, config: Config) -> Self {
        let driver = session.handle().driver().clone();
        let info = session.info();
        let mut payer = session.payer().clone();
        payer.learn(&driver.signer_health());
        let introduced = session.handle().with(|handshake, _| handshake.payer());
        let account = introduced.map(|(address, _)| address);
        let machine = Machine::new(driver.now(), config, &info, payer, account);
        let shared = Arc::new(Shared {
            handle: driver.drive(machine),
            session,
            board: Board::new(State::default()),
        });
        driver.runtime().spawn(Arc::clone(&shared).pump());
        Self { shared }
    }

    /// The orchestrator.
    #[must_use]
    pub fn orchestrator(&self) -> &OrchestratorSession<R> {
        &self.shared.session
    }

    /// Makes the next payment: the preload at first, then what elapsed since the last one. `None` if nothing is due.
    ///
    /// # Errors
    /// If the signer fails, or what it returned breaks a rule of ours; or if another payment is under way.
    pub async fn get_payment(&self) -> Result<Option<Payment<'_, R>>, Error> {
        let making = match self.begin() {
            Ok(making) => making,
            // Why is known, or will be at once.
            Err(Misuse::Ended) => return Err(self.end().await),
            Err(misuse) => return Err(misuse.into()),
        };
        let id = making.id;
        let made = self
            .shared
            .board
            .until(|state| {
                let made = state.making.get_mut(&id).and_then(Option::take);
                match (made, &state.ended) {
                    (Some(made), _) => Some(Ok(made)),
                    (None, Some(error)) => Some(Err(error.clone())),
                    (None, None) => None,
                }
            })
            .await?;
        Ok(match made {
            Made::Nothing => None,
            Made::Held(error) => return Err(error),
            Made::Payment(credentials) => Some(Payment {
                session: self,
                id,
                credentials,
                told: false,
            }),
        })
    }

    fn begin(&self) -> Result<Making<'_, R>, Misuse> {
        let shared = &*self.shared;
        // One lock in the other: the answer may be there before the call returns.
        shared.board.with(|state| {
            let id = shared
                .handle
                .with(|payments, now| payments.pay(now, Fee::Elapsed))?;
            state.making.insert(id, None);
            Ok(Making { shared, id })
        })
    }

    /// The reason why there will be no more payments.
    async fn end(&self) -> Error {
        self.shared.board.until(|state| state.ended.clone()).await
    }

    /// Names the job as the orchestrator calls it. Needed before [`PaymentSession::pay_every`].
    pub fn set_manifest_id(&self, id: &str) {
        self.shared
            .handle
            .with(|payments, _| payments.set_manifest(id));
    }

    /// Pays by itself from now on, at least as often as `interval`.
    ///
    /// # Errors
    /// If the job has no name yet, or the session has ended.
    #[doc(alias = "send_payment")]
    #[doc(alias = "start_payment_sender")]
    pub fn pay_every(&self, interval: Duration) -> Result<(), Error> {
        Ok(self
            .shared
            .handle
            .with(|payments, now| payments.start_pacing(now, interval))?)
    }

    /// The payments that the orchestrator took, from the first on. Whoever asks gets all of them; those that nobody
    /// reads are dropped, the oldest first, once there are more than 256. Each tells the total so far.
    #[must_use]
    pub fn paid(&self) -> PaidPayments<R> {
        PaidPayments {
            shared: Arc::clone(&self.shared),
            next: 0,
            done: false,
        }
    }

    /// The time when what was paid is used up, for metered jobs.
    #[must_use]
    pub fn covered_until(&self) -> Option<Time> {
        self.shared
            .handle
            .with(|payments, _| payments.covered_until())
    }
}

/// The payments that an orchestrator took: a [`Stream`], which ends with the reason why there will be no more. See
/// [`PaymentSession::paid`].
pub struct PaidPayments<R: Runtime> {
    shared: Arc<Shared<R>>,
    /// The number of the payment that comes next.
    next: u64,
    /// The stream has yielded its last item.
    done: bool,
}

impl<R: Runtime> PaidPayments<R> {
    /// The next payment; waits for one if need be.
    ///
    /// # Errors
    /// If there will be no more payments, and why.
    pub async fn next(&mut self) -> Result<Paid, Error> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Paid, Error>> {
        let next = &mut self.next;
        let board = &self.shared.board;
        board.poll(cx, |state| match (state.paid.read(next), &state.ended) {
            (Some(paid), _) => Some(Ok(paid)),
            (None, Some(error)) => Some(Err(error.clone())),
            (None, None) => None,
        })
    }
}

impl<R: Runtime> Stream for PaidPayments<R> {
    type Item = Result<Paid, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll(cx));
        self.done = next.is_err();
        Poll::Ready(Some(next))
    }
}

impl<R: Runtime> fmt::Debug for PaidPayments<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaidPayments")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl<R: Runtime> Shared<R> {
    /// Carries events until there are no more, and fetches fresh quotes where they are asked for.
    async fn pump(self: Arc<Self>) {
        let driver = self.handle.driver();
        let ended = loop {
            match self.handle.next().await {
                Some(Event::Signers(health)) => driver.learn_signers(&health),
                Some(Event::Ready(id, credentials)) => self.made(id, Made::Payment(credentials)),
                Some(Event::Skipped(id)) => self.made(id, Made::Nothing),
                Some(Event::Held(id, failure)) => self.made(id, Made::Held(failure.into())),
                Some(Event::Paid(_, paid)) => self.board.change(|state| state.paid.push(paid)),
                Some(Event::NeedQuote(_)) => match self.session.renew().await {
                    Ok(info) => self.handle.with(|payments, now| payments.renew(now, &info)),
                    // What was paid lasts for a while, and the payments decide what happens then.
                    Err(Error::Failed(failure)) => self
                        .handle
                        .with(|payments, now| payments.no_quote(now, *failure)),
                    // There will be no quote any more.
                    Err(error) => break error,
                },
                Some(Event::Requoted(info)) => {
                    // The session may have newer info already, and keeps it.
                    let _ = self
                        .session
                        .handle()
                        .with(|handshake, now| handshake.adopt(now, info));
                }
                Some(Event::Failed(failure)) => break failure.into(),
                Some(_) => {}
                None => break Error::Closed,
            }
        };
        self.handle.with(|payments, now| payments.close(now));
        self.board.change(|state| state.ended = Some(ended));
    }

    /// A payment is made, or nothing is due.
    fn made(&self, id: PaymentId, made: Made) {
        let waited = self.board.change(|state| match state.making.get_mut(&id) {
            Some(place) => {
                *place = Some(made);
                true
            }
            None => false,
        });
        if !waited {
            self.delivered(id, Delivered::Refused);
        }
    }

    fn delivered(&self, id: PaymentId, how: Delivered) {
        self.handle
            .with(|payments, now| payments.delivered(now, id, how));
    }
}

impl<R: Runtime> Drop for Making<'_, R> {
    fn drop(&mut self) {
        let unseen = self
            .shared
            .board
            .with(|state| state.making.remove(&self.id));
        if matches!(unseen, Some(Some(Made::Payment(_)))) {
            self.shared.delivered(self.id, Delivered::Refused);
        }
    }
}

impl<R: Runtime> Drop for PaymentSession<R> {
    fn drop(&mut self) {
        self.shared.handle.close();
        // The pump may wait for a quote.
        self.shared.session.handle().close();
    }
}

impl<R: Runtime> fmt::Debug for PaymentSession<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaymentSession")
            .field("orchestrator", &self.shared.session)
            .field("covered_until", &self.covered_until())
            .finish_non_exhaustive()
    }
}

impl<R: Runtime> Payment<'_, R> {
    /// The value of the header `livepeer-payment`; empty off-chain, and sent all the same.
    #[must_use]
    pub fn payment(&self) -> &str {
        &self.credentials.payment
    }

    /// The value of the header `livepeer-segment`.
    #[must_use]
    pub fn segment(&self) -> &str {
        &self.credentials.segment
    }

    /// The orchestrator took it.
    pub fn accepted(mut self) {
        self.tell(Delivered::Accepted);
    }

    /// The orchestrator refused it, or nobody knows.
    pub fn refused(mut self) {
        self.tell(Delivered::Refused);
    }

    fn tell(&mut self, how: Delivered) {
        if !std::mem::replace(&mut self.told, true) {
            self.session.shared.delivered(self.id, how);
        }
    }
}

impl<R: Runtime> fmt::Debug for Payment<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payment")
            .field("id", &self.id)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl<R: Runtime> Drop for Payment<'_, R> {
    fn drop(&mut self) {
        self.tell(Delivered::Refused);
    }
}
