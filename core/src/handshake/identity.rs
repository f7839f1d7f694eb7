//! Identity of the payer, and the signers that vouch for it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::error::{Cause, Failure, Reason};
use crate::exchange::{Bounds, Exchange};
use crate::http::{self, Url};
use crate::machine::{EffectId, Outbox, earlier};
use crate::payment::Payer;
use crate::sign::{Address, Signature};
use crate::signers::{SignerHealth, Signers, all_failed, note};
use crate::time::Time;
use crate::wire::signer::SIGN_INFO_PATH;
use crate::wire::{MAX_IDENTITY_BYTES, error_words, read_identity};

/// How long a signer may take before the next one is asked as well. The first right answer counts: the signature is the
/// same for ever and worth nothing by itself.
pub const IDENTITY_HEDGE: Duration = Duration::from_secs(1);

/// How the payer introduces itself (handshake spec 3).
#[derive(Clone)]
pub enum Identity {
    /// No introduction: for orchestrators without a chain.
    Offchain,
    /// With a signature made before. Orchestrators ask for no nonce and no time, so one lasts for ever.
    Static {
        /// The payer.
        address: Address,
        /// The node signature of the payer over its own text.
        signature: Signature,
    },
    /// With a signature of our own key, which an [`Effect::Sign`](crate::Effect::Sign) reaches.
    Key(Address),
    /// With what a remote signer answers.
    Remote(Signers),
}

impl core::fmt::Debug for Identity {
    // The signature introduces whoever has it, for ever.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Offchain => f.write_str("Offchain"),
            Self::Static { address, .. } => write!(f, "Static({address})"),
            Self::Key(address) => write!(f, "Key({address})"),
            Self::Remote(signers) => f.debug_tuple("Remote").field(signers).finish(),
        }
    }
}

impl Identity {
    /// With what the remote signer at `url` answers. Its path is dropped.
    #[must_use]
    pub fn remote(url: Url) -> Self {
        Self::Remote(Signers::new(url))
    }
}

impl Payer {
    /// How the payer introduces itself to orchestrators.
    #[must_use]
    pub fn identity(&self) -> Identity {
        match self {
            Self::Offchain => Identity::Offchain,
            Self::Remote(signers) => Identity::Remote(signers.clone()),
            Self::Account(account) => Identity::Key(account.policy.address),
        }
    }
}

/// The result of asking the signers: the payer and its signature, or why no signer gave them.
pub(crate) type Introduced = Result<(Address, Signature), Failure>;

/// Signers being asked who pays.
#[derive(Debug)]
pub(crate) struct Introduction {
    signers: Signers,
    within: Duration,
    /// The signers that were not asked yet.
    waiting: VecDeque<usize>,
    asked: Vec<Ask>,
    /// When the next one is asked, unless an answer comes.
    hedge_at: Time,
    failures: Vec<Failure>,
    /// Whether something was noted of signers since [`Introduction::news`] told of it.
    noted: bool,
}

/// A signer that was asked.
#[derive(Debug)]
struct Ask {
    signer: usize,
    exchange: Exchange,
}

impl Introduction {
    pub(crate) fn new<E>(
        now: Time,
        out: &mut Outbox<E>,
        signers: Signers,
        within: Duration,
    ) -> Self {
        let mut this = Self {
            waiting: signers.order(now),
            signers,
            within,
            asked: Vec::new(),
            hedge_at: now,
            failures: Vec::new(),
            noted: false,
        };
        this.ask_next(now, out);
        this
    }

    /// How signers have been, if something was noted since it was told last.
    pub(crate) fn news(&mut self) -> Option<SignerHealth> {
        core::mem::take(&mut self.noted).then(|| self.signers.seen().clone())
    }

    pub(crate) fn wake(&self) -> Option<Time> {
        let late = self.asked.iter().map(|ask| ask.exchange.wake());
        let hedge = (!self.waiting.is_empty()).then_some(self.hedge_at);
        late.fold(hedge, earlier)
    }

    pub(crate) fn abort<E>(&mut self, out: &mut Outbox<E>) {
        for mut ask in self.asked.drain(..) {
            ask.exchange.abort(out);
        }
    }

    pub(crate) fn tick<E>(&mut self, now: Time, out: &mut Outbox<E>) -> Option<Introduced> {
        while let Some((at, cause)) = self.late(now, out) {
            if let Some(told) = self.failed(now, out, at, cause) {
                return Some(told);
            }
        }
        if self.hedge_at <= now {
            self.ask_next(now, out);
        }
        None
    }

    /// The first signer whose answer is late.
    fn late<E>(&mut self, now: Time, out: &mut Outbox<E>) -> Option<(usize, Cause)> {
        let mut asked = self.asked.iter_mut().enumerate();
        asked.find_map(|(at, ask)| Some((at, ask.exchange.late(out, now)?)))
    }

    pub(crate) fn handle<E>(
        &mut self,
        now: Time,
        out: &mut Outbox<E>,
        id: EffectId,
        step: http::In,
    ) -> Option<Introduced> {
        let at = self.asked.iter().position(|ask| ask.exchange.owns(id))?;
        let told = self.asked[at].exchange.step(out, step)?;
        let payer = told.and_then(|reply| match reply.status {
            200 => read_identity(&reply.body).map_err(Cause::from),
            status => Err(Cause::Refused {
                doing: "to tell who pays",
                status,
                reason: Reason::Other,
                text: error_words(&reply.body),
            }),
        });
        match payer {
            Ok(payer) => {
                self.answered(now, out, at);
                Some(Ok(payer))
            }
            Err(cause) => self.failed(now, out, at, cause),
        }
    }

    /// Notes that the signer at `at` gave its answer. Signers that were asked long ago and are silent have to rest.
    fn answered<E>(&mut self, now: Time, out: &mut Outbox<E>, at: usize) {
        let ask = self.asked.swap_remove(at);
        self.noted = true;
        self.signers
            .answered(now, ask.signer, ask.exchange.age(now));
        for silent in &self.asked {
            if silent.exchange.age(now) >= IDENTITY_HEDGE {
                self.signers.failed(now, silent.signer);
            }
        }
        self.abort(out);
    }

    /// Notes that the signer at `at` gave nothing usable, and asks the next one at once. If none is left, the
    /// introduction has failed.
    fn failed<E>(
        &mut self,
        now: Time,
        out: &mut Outbox<E>,
        at: usize,
        cause: Cause,
    ) -> Option<Introduced> {
        let ask = self.asked.remove(at);
        self.noted = true;
        self.signers.failed(now, ask.signer);
        let failure = Failure::new(self.signers.party(ask.signer), cause);
        note(&mut self.failures, failure);
        self.ask_next(now, out);
        if !self.asked.is_empty() {
            return None;
        }
        all_failed(core::mem::take(&mut self.failures)).map(Err)
    }

    fn ask_next<E>(&mut self, now: Time, out: &mut Outbox<E>) {
        if let Some(signer) = self.waiting.pop_front() {
            let bounds = Bounds {
                doing: "the identity",
                what: "the identity in bytes",
                limit: MAX_IDENTITY_BYTES,
                within: self.within,
                redirects: false,
            };
            let request = self.signers.request(signer, SIGN_INFO_PATH, "{}");
            self.asked.push(Ask {
                signer,
                exchange: Exchange::start(out, now, request, bounds),
            });
            self.hedge_at = now + IDENTITY_HEDGE;
        }
    }
}
