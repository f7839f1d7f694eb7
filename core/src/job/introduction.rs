//! The payer of jobs whose orchestrators are asked without a handshake: who it is, and its signature to prove it.

use alloc::boxed::Box;
use core::time::Duration;

use crate::error::{Cause, Failure, Party, Reason};
use crate::handshake::{Introduced, Introduction};
use crate::http::In;
use crate::machine::{Effect, EffectId, Outbox};
use crate::payment::Payer;
use crate::sign::{Address, SignRefused, Signature};
use crate::signers::SignerHealth;
use crate::time::Time;
use crate::wire::identity_digest;

/// How long the key holder may take for a signature.
pub(super) const SIGN_WITHIN: Duration = Duration::from_secs(30);

/// How long a signer may take to say who pays.
const INTRODUCE_WITHIN: Duration = Duration::from_secs(5);

/// Asks who pays, once, and again after a failure.
pub(super) struct Introducing {
    payer: Payer,
    state: State,
    /// How remote signers have been, until that is told.
    noted: Option<SignerHealth>,
}

enum State {
    /// Nobody has asked yet, or the last answer was a failure.
    Unknown,
    Signing(EffectId, Address, Time),
    Asking(Introduction),
    /// `None` where there is no chain.
    Known(Option<(Address, Signature)>),
}

impl Introducing {
    pub(super) const fn new(payer: Payer) -> Self {
        Self {
            payer,
            state: State::Unknown,
            noted: None,
        }
    }

    /// The payer, once that is known; inside, `None` where there is no chain.
    pub(super) const fn known(&self) -> Option<Option<(Address, Signature)>> {
        match &self.state {
            State::Known(payer) => Some(*payer),
            _ => None,
        }
    }

    /// Forgets a payer whom orchestrators do not take any more: the signer may have changed its key.
    pub(super) fn forget(&mut self) {
        if matches!(
            (&self.payer, &self.state),
            (Payer::Remote(_), State::Known(_))
        ) {
            self.state = State::Unknown;
        }
    }

    /// Asks, unless that is known or asked already.
    pub(super) fn ask<E>(&mut self, now: Time, out: &mut Outbox<E>) {
        if !matches!(self.state, State::Unknown) {
            return;
        }
        self.state = match &self.payer {
            Payer::Offchain => State::Known(None),
            Payer::Account(account) => {
                let address = account.policy.address;
                let asked = out.open(Effect::Sign(identity_digest(address)));
                State::Signing(asked, address, now + SIGN_WITHIN)
            }
            Payer::Remote(signers) => {
                let signers = signers.clone();
                State::Asking(Introduction::new(now, out, signers, INTRODUCE_WITHIN))
            }
        };
    }

    pub(super) fn on_http<E>(
        &mut self,
        now: Time,
        out: &mut Outbox<E>,
        id: EffectId,
        step: In,
    ) -> Option<Result<(), Box<Failure>>> {
        let State::Asking(asking) = &mut self.state else {
            return None;
        };
        let told = asking.handle(now, out, id, step)?;
        Some(self.told(told))
    }

    pub(super) fn on_signed(
        &mut self,
        id: EffectId,
        answer: &Result<Signature, SignRefused>,
    ) -> Option<Result<(), Box<Failure>>> {
        let State::Signing(asked, address, _) = self.state else {
            return None;
        };
        if asked != id {
            return None;
        }
        let payer = { answer.clone() }.map(|signature| (address, signature));
        Some(self.told(payer.map_err(|SignRefused(text)| not_signed(text))))
    }

    pub(super) fn tick<E>(
        &mut self,
        now: Time,
        out: &mut Outbox<E>,
    ) -> Option<Result<(), Box<Failure>>> {
        match &mut self.state {
            State::Signing(_, _, until) if *until <= now => Some(self.told(Err(sign_late()))),
            State::Asking(asking) => {
                let told = asking.tick(now, out)?;
                Some(self.told(told))
            }
            _ => None,
        }
    }

    fn told(&mut self, told: Introduced) -> Result<(), Box<Failure>> {
        self.learn();
        let (state, said) = match told {
            Ok(payer) => (State::Known(Some(payer)), Ok(())),
            Err(failure) => (State::Unknown, Err(Box::new(failure))),
        };
        self.state = state;
        said
    }

    pub(super) fn wake(&self) -> Option<Time> {
        match &self.state {
            State::Signing(_, _, until) => Some(*until),
            State::Asking(asking) => asking.wake(),
            State::Unknown | State::Known(_) => None,
        }
    }

    pub(super) fn close<E>(&mut self, out: &mut Outbox<E>) {
        if let State::Asking(asking) = &mut self.state {
            asking.abort(out);
        }
        self.state = State::Unknown;
    }

    /// How remote signers have been, if something was noted since it was told last.
    pub(super) fn news(&mut self) -> Option<SignerHealth> {
        self.learn();
        core::mem::take(&mut self.noted)
    }

    fn learn(&mut self) {
        if let State::Asking(asking) = &mut self.state
            && let Some(seen) = asking.news()
        {
            self.payer.learn(&seen);
            self.noted = Some(seen);
        }
    }
}

/// The key holder did not sign, and said why.
pub(super) fn not_signed(text: alloc::string::String) -> Failure {
    Failure::new(
        Party::KeyHolder,
        Cause::Declined {
            doing: "a signature",
            reason: Reason::Other,
            text,
        },
    )
}

/// The key holder did not answer.
pub(super) const fn sign_late() -> Failure {
    Failure::new(
        Party::KeyHolder,
        Cause::TimedOut {
            doing: "a request for a signature",
            after: SIGN_WITHIN,
        },
    )
}
