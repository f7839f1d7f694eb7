//! Paying one orchestrator, for applications that run their own jobs.

use livepeer_core::Time;
use livepeer_core::payment::session::{
    Config, Credentials, Delivered, Event, Fee, Paid, PaymentId,
};
use livepeer_core::payment::{Funds, PaymentSession as Machine};
use livepeer_core::wire::OrchestratorInfo;

use super::{Error, OrchestratorSession, Payer};
use crate::{Handle, Runtime};

/// The payer's side of one job at one orchestrator. [`LiveVideoJob`](super::LiveVideoJob) has its own; this is for
/// requests that you send yourself.
///
/// [`PaymentSession::get_payment`] makes the headers for a request; tell what became of it with
/// [`Payment::accepted`] or [`Payment::refused`]. With [`PaymentSession::set_manifest_id`] and
/// [`PaymentSession::pay_every`] further payments go to the orchestrator by themselves.
pub struct PaymentSession<R: Runtime> {
    handle: Handle<Machine, R>,
    session: OrchestratorSession<R>,
}

/// A payment to send along with a request.
#[must_use = "tell the session what became of the payment"]
pub struct Payment<'a, R: Runtime> {
    session: &'a PaymentSession<R>,
    id: PaymentId,
    credentials: Credentials,
}

impl<R: Runtime> PaymentSession<R> {
    /// Prepares to pay the orchestrator of `session` for a job billed as `config` says. `payer` is the one that the
    /// session was opened for.
    ///
    /// # Errors
    /// If the orchestrator's word cannot be paid from.
    pub fn new(
        session: OrchestratorSession<R>,
        payer: &Payer,
        config: Config,
    ) -> Result<Self, Error> {
        let driver = session.handle().driver().clone();
        let info = session.info();
        let mut funds = payer.funds(driver.signer_health());
        let payer = session.handle().with(|handshake, _| handshake.payer());
        if let (Funds::Remote(signer), Some((address, _))) = (&mut funds, payer) {
            signer.address = address;
        }
        let machine = Machine::new(driver.now(), config, &info, funds);
        Ok(Self {
            handle: driver.drive(machine),
            session,
        })
    }

    /// The orchestrator.
    #[must_use]
    pub const fn orchestrator(&self) -> &OrchestratorSession<R> {
        &self.session
    }

    /// Makes the next payment: the preload at first, then what elapsed since the last one. `None` if nothing is due.
    ///
    /// # Errors
    /// If the signer fails, or what it returned breaks a rule of ours.
    pub async fn get_payment(&self) -> Result<Option<Payment<'_, R>>, Error> {
        let wanted = self
            .handle
            .with(|payments, now| payments.pay(now, Fee::Elapsed))?;
        loop {
            match self.next().await? {
                Event::Ready(id, credentials) if id == wanted => {
                    return Ok(Some(Payment {
                        session: self,
                        id,
                        credentials,
                    }));
                }
                Event::Skipped(id) if id == wanted => return Ok(None),
                _ => {}
            }
        }
    }

    /// Names the job as the orchestrator calls it. Needed before [`PaymentSession::pay_every`].
    pub fn set_manifest_id(&self, id: &str) {
        self.handle.with(|payments, _| payments.set_manifest(id));
    }

    /// Pays by itself from now on, at least as often as `interval`. Call [`PaymentSession::paid`] in a loop: it
    /// carries the session.
    ///
    /// # Errors
    /// If the job has no name yet, or the session has ended.
    pub fn pay_every(&self, interval: std::time::Duration) -> Result<(), Error> {
        Ok(self
            .handle
            .with(|payments, now| payments.start_pacing(now, interval))?)
    }

    /// Waits for the next payment that the orchestrator took.
    ///
    /// # Errors
    /// If there will be no more payments, and why.
    pub async fn paid(&self) -> Result<Paid, Error> {
        loop {
            if let Event::Paid(_, paid) = self.next().await? {
                return Ok(paid);
            }
        }
    }

    /// When what was paid is used up, for metered jobs.
    #[must_use]
    pub fn covered_until(&self) -> Option<Time> {
        self.handle.with(|payments, _| payments.covered_until())
    }

    /// The next event, with fresh quotes fetched where they are asked for.
    async fn next(&self) -> Result<Event, Error> {
        loop {
            let event = self.handle.next().await;
            let driver = self.handle.driver();
            self.handle.with(|payments, _| {
                if let Some(health) = payments.signer_health() {
                    driver.learn_signers(health);
                }
            });
            match event {
                Some(Event::NeedQuote(_)) => {
                    let info = self.session.renew().await?;
                    self.renew(&info);
                }
                Some(Event::Failed(failure)) => return Err(failure.into()),
                Some(event) => return Ok(event),
                None => return Err(Error::Ended("it was closed".into())),
            }
        }
    }

    fn renew(&self, info: &OrchestratorInfo) {
        self.handle.with(|payments, now| payments.renew(now, info));
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
    pub fn accepted(self) {
        self.session
            .handle
            .with(|payments, now| payments.delivered(now, self.id, Delivered::Accepted));
    }

    /// The orchestrator refused it, or nobody knows.
    pub fn refused(self) {
        self.session
            .handle
            .with(|payments, now| payments.delivered(now, self.id, Delivered::Refused));
    }
}
