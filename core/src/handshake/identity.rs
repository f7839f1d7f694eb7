//! Identity of the payer, and the signers that vouch for it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::error::{Cause, Failure, Party, Reason};
use crate::exchange::{Bounds, Exchange};
use crate::http::{self, Body, Headers, Method, Request, Trust, Url};
use crate::machine::{EffectId, Outbox, earlier};
use crate::sign::{Address, Signature};
use crate::signers::{SignerHealth, all_failed, note};
use crate::time::Time;
use crate::wire::{MAX_IDENTITY_BYTES, error_words, read_identity};

/// How long a signer may take before the next one is asked as well. The first right answer counts: the signature is the
/// same for ever and worth nothing by itself.
pub const IDENTITY_HEDGE: Duration = Duration::from_secs(1);

/// How the payer introduces itself (handshake spec 3).
#[derive(Clone)]
pub enum Identity {
    /// Not at all: for orchestrators without a chain.
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

/// Where remote signers for one account are, in the order in which they are asked.
#[derive(Clone, Debug)]
pub struct Signers {
    urls: Vec<Url>,
    headers: Headers,
    health: SignerHealth,
}

impl Signers {
    /// A single signer.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self {
            urls: alloc::vec![url],
            headers: Headers::new(),
            health: SignerHealth::default(),
        }
    }

    /// Another one, asked when those before it gave nothing, or not soon.
    #[must_use]
    pub fn or(mut self, url: Url) -> Self {
        self.urls.push(url);
        self
    }

    /// Header fields for signers, such as an authorization. They go nowhere else (handshake spec 16-14).
    #[must_use]
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// With what is known of how they have been: whoever rests is asked last.
    #[must_use]
    pub fn health(mut self, health: SignerHealth) -> Self {
        self.health = health;
        self
    }

    pub(crate) fn learn(&mut self, health: &SignerHealth) {
        self.health.merge(health);
    }

    fn request(&self, index: usize, trust: Trust) -> Request {
        let url = self.urls[index].with_path("/sign-orchestrator-info");
        let mut request = Request::new(Method::Post, url)
            .header("content-type", "application/json")
            .trust(trust)
            .body(Body::Full(Bytes::from_static(b"{}")));
        for (name, value) in self.headers.iter() {
            request.headers.push_any(name, value);
        }
        request
    }
}

/// The result of asking the signers: the payer and its signature, or why no signer gave them.
pub(super) type Introduced = Result<(Address, Signature), Failure>;

/// Signers being asked who pays.
#[derive(Debug)]
pub(super) struct Introduction {
    signers: Signers,
    trust: Trust,
    within: Duration,
    /// The signers that were not asked yet.
    waiting: VecDeque<usize>,
    asked: Vec<Ask>,
    /// When the next one is asked, unless an answer comes.
    hedge_at: Time,
    failures: Vec<Failure>,
}

/// A signer that was asked.
#[derive(Debug)]
struct Ask {
    signer: usize,
    exchange: Exchange,
}

impl Introduction {
    pub(super) fn new<E>(
        now: Time,
        out: &mut Outbox<E>,
        signers: Signers,
        trust: Trust,
        within: Duration,
    ) -> Self {
        let mut this = Self {
            waiting: signers.health.order(now, &signers.urls),
            signers,
            trust,
            within,
            asked: Vec::new(),
            hedge_at: now,
            failures: Vec::new(),
        };
        this.ask_next(now, out);
        this
    }

    pub(super) const fn health(&self) -> &SignerHealth {
        &self.signers.health
    }

    pub(super) fn wake(&self) -> Option<Time> {
        let late = self.asked.iter().map(|ask| ask.exchange.wake());
        let hedge = (!self.waiting.is_empty()).then_some(self.hedge_at);
        late.fold(hedge, earlier)
    }

    pub(super) fn abort<E>(&mut self, out: &mut Outbox<E>) {
        for mut ask in self.asked.drain(..) {
            ask.exchange.abort(out);
        }
    }

    pub(super) fn tick<E>(&mut self, now: Time, out: &mut Outbox<E>) -> Option<Introduced> {
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

    pub(super) fn handle<E>(
        &mut self,
        now: Time,
        out: &mut Outbox<E>,
        id: EffectId,
        step: http::In,
    ) -> Option<Introduced> {
        let at = self.asked.iter().position(|ask| ask.exchange.owns(id))?;
        let told = self.asked[at].exchange.step(out, step)?;
        let payer = told.and_then(|reply| match reply.status {
            200 => read_identity(&reply.body).map_err(|err| Cause::Nonsense {
                what: err.what,
                why: err.why,
            }),
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
        let Signers { urls, health, .. } = &mut self.signers;
        health.answered(now, &urls[ask.signer], ask.exchange.age(now));
        for silent in &self.asked {
            if silent.exchange.age(now) >= IDENTITY_HEDGE {
                health.failed(now, &urls[silent.signer]);
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
        let Signers { urls, health, .. } = &mut self.signers;
        let url = &urls[ask.signer];
        health.failed(now, url);
        note(
            &mut self.failures,
            Failure::new(Party::Signer(url.clone()), cause),
        );
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
            let request = self.signers.request(signer, self.trust);
            self.asked.push(Ask {
                signer,
                exchange: Exchange::start(out, now, request, bounds),
            });
            self.hedge_at = now + IDENTITY_HEDGE;
        }
    }
}
