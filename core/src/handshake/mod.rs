//! The handshake with one orchestrator, and keeping its answer fresh.
//!
//! A [`Handshake`] introduces the payer, calls `GetOrchestrator`, judges the answer here (orchestrators do not
//! check that they support what is asked) and renews it before the auth token runs out, or when told to.
//!
//! ```text
//!            Static, Offchain                      reject: Rejected ─▶ Ended
//!   new ────────────────────────▶ Calling ───────────────────────────▶
//!    │ Remote                      ▲   │ info accepted: Ready
//!    ├──▶ AwaitingIdentity ────────┤   ▼           (signers that are silent: the next one is asked as well)
//!    │ Key                         │  Settled ◀────────────┐ info accepted: Renewed
//!    └──▶ AwaitingSignature ───────┘   │ renew(), token    │
//!                                      ▼ near its end      │
//!                                    Renewing ─────────────┤
//!                                      │ link broke,       │
//!                                      ▼ capped, no answer │
//!                                    Pausing ──────────────┘ (next try)
//!   any other failure or deadline, or too many tries: Failed ─▶ Ended; close(): Closed ─▶ Ended
//! ```
//! A changed certificate in Calling or Renewing restarts that call once with a fresh pin, if
//! [`Config::pin_change`] allows it (handshake spec 1.2, 15.1).

mod class;
mod config;
mod identity;
mod terms;

pub use crate::payment::requote::NotAdopted;
pub use class::Class;
pub use config::{Config, PinChange, TOKEN_MARGIN};
pub use identity::{IDENTITY_HEDGE, Identity};
pub use terms::{Paying, Rejection, Terms, node_urls};

use alloc::string::ToString;
use alloc::sync::Arc;
use core::time::Duration;

use bytes::Bytes;

use crate::capabilities::Capabilities;
use crate::error::{Cause, Failure, Misuse, Party, Reason};
use crate::http::{self, Fault, Trust, Url};
use crate::machine::{Effect, EffectId, Input, Machine, Outbox, Output, earlier};
use crate::payment::requote::adoptable;
use crate::sign::{Address, SignRefused, Signature};
use crate::signers::SignerHealth;
use crate::time::Time;
use crate::wire::grpc::{self, Answer, NoAnswer};
use crate::wire::{
    OrchestratorAnswer, OrchestratorInfo, check_identity, identity_digest, info_request,
};
pub(crate) use identity::{Introduced, Introduction};

/// The shortest time between renewals, however short a token lives.
pub const MIN_RENEW_INTERVAL: Duration = Duration::from_secs(30);

/// The pause before the second try of a renewal; it doubles from try to try.
pub const RENEW_PAUSE: Duration = Duration::from_secs(1);

/// An event of a handshake, for its owner.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// How remote signers have been, whenever that has changed: take it along to whoever asks them next.
    Signers(SignerHealth),
    /// The payer is known: other handshakes may use this as [`Identity::Static`] and spare the way to the signer.
    Identified(Address, Signature),
    /// The orchestrator fits; this is its info.
    Ready(Arc<OrchestratorInfo>),
    /// The info was renewed. A new session id means a new balance at the orchestrator.
    Renewed(Arc<OrchestratorInfo>),
    /// The orchestrator shows another certificate than before, and the call was repeated with it.
    PinChanged {
        /// SHA-256 of the leaf remembered.
        remembered: [u8; 32],
        /// SHA-256 of the leaf shown now.
        seen: [u8; 32],
    },
    /// The orchestrator answered and does not fit. The last event.
    Rejected(Rejection),
    /// The handshake failed: there is no answer that could be judged. The last event.
    Failed(Failure),
    /// The owner closed this. The last event.
    Closed,
}

/// The handshake with one orchestrator. See the [module](self).
#[derive(Debug)]
pub struct Handshake {
    config: Config,
    to: Url,
    wanted: Capabilities,
    payer: Option<(Address, Signature)>,
    state: State,
    info: Option<Arc<OrchestratorInfo>>,
    renew_at: Option<Time>,
    tries: u32,
    took: Option<Duration>,
    now: Time,
    out: Outbox<Event>,
}

#[derive(Debug)]
enum State {
    AwaitingIdentity(Introduction),
    AwaitingSignature {
        effect: EffectId,
        address: Address,
        until: Time,
    },
    Calling(Call),
    Settled,
    Renewing(Call),
    Pausing {
        until: Time,
    },
    Ended,
}

#[derive(Debug)]
struct Call {
    exchange: EffectId,
    answer: Answer,
    began: Time,
    within: Duration,
    afresh: bool,
}

impl Call {
    fn until(&self) -> Time {
        self.began + self.within
    }
}

impl Handshake {
    /// Starts the handshake with the orchestrator at `to`. With `wanted` empty it is asked for everything it can
    /// do, prices included; otherwise for what the job needs, and refused here if that is not there.
    #[must_use]
    pub fn new(
        now: Time,
        config: Config,
        to: Url,
        identity: Identity,
        wanted: Capabilities,
    ) -> Self {
        let mut this = Self {
            config,
            to,
            wanted,
            payer: None,
            state: State::Settled,
            info: None,
            renew_at: None,
            tries: 0,
            took: None,
            now,
            out: Outbox::default(),
        };
        match identity {
            Identity::Offchain => this.call(false),
            Identity::Static { address, signature } => {
                this.payer = Some((address, signature));
                this.call(false);
            }
            Identity::Key(address) => {
                let effect = this.out.open(Effect::Sign(identity_digest(address)));
                let until = now + at_least_some(this.config.identity_within);
                this.state = State::AwaitingSignature {
                    effect,
                    address,
                    until,
                };
            }
            Identity::Remote(signers) => {
                let within = at_least_some(this.config.identity_within);
                let asking = Introduction::new(now, &mut this.out, signers, within);
                this.state = State::AwaitingIdentity(asking);
            }
        }
        this
    }

    /// Goes on with a session that another handshake opened: `info` is the latest, `payer` the account
    /// that was introduced. Asks nothing until it is time to renew, or told to.
    #[must_use]
    pub fn resume(
        now: Time,
        config: Config,
        to: Url,
        payer: Option<(Address, Signature)>,
        wanted: Capabilities,
        info: Arc<OrchestratorInfo>,
    ) -> Self {
        let mut this = Self {
            config,
            to,
            wanted,
            payer,
            state: State::Settled,
            info: None,
            renew_at: None,
            tries: 0,
            took: None,
            now,
            out: Outbox::default(),
        };
        this.settle(info);
        this
    }

    /// The payer, once it is known; `None` also without a chain.
    #[must_use]
    pub const fn payer(&self) -> Option<(Address, Signature)> {
        self.payer
    }

    /// Where the orchestrator was looked for.
    #[must_use]
    pub const fn to(&self) -> &Url {
        &self.to
    }

    /// The capabilities that the job needs.
    #[must_use]
    pub const fn wanted(&self) -> &Capabilities {
        &self.wanted
    }

    /// The latest info that was accepted, also while it is renewed and after the end.
    #[must_use]
    pub const fn info(&self) -> Option<&Arc<OrchestratorInfo>> {
        self.info.as_ref()
    }

    /// Whether the latest info is in and no other is awaited. False after the end.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        matches!(self.state, State::Settled)
    }

    /// How long the last answered call took.
    #[must_use]
    pub const fn took(&self) -> Option<Duration> {
        self.took
    }

    /// Whether a renewal failed, and is tried again later.
    pub(crate) const fn is_pausing(&self) -> bool {
        matches!(self.state, State::Pausing { .. })
    }

    /// Gets fresh info now: the ticket parameters expired, the signer said so, or the token was refused. Does
    /// nothing if a renewal is under way.
    ///
    /// # Errors
    /// [`Misuse::NotOpen`] before the first [`Event::Ready`], [`Misuse::Ended`] after the end.
    pub fn renew(&mut self, now: Time) -> Result<(), Misuse> {
        self.pass(now);
        match self.state {
            State::Settled | State::Pausing { .. } => {
                self.tries = 0;
                self.call(true);
                Ok(())
            }
            State::Renewing(_) => Ok(()),
            State::Ended => Err(Misuse::Ended),
            State::AwaitingIdentity(_) | State::AwaitingSignature { .. } | State::Calling(_) => {
                Err(Misuse::NotOpen)
            }
        }
    }

    /// Takes over a quote that came with a payment's or segment's answer, if it is no worse (payments spec 11.3).
    /// Tells no event; the token's end does not move, for such quotes carry the old token.
    ///
    /// # Errors
    /// Why the old one stays.
    pub fn adopt(&mut self, now: Time, info: Arc<OrchestratorInfo>) -> Result<(), NotAdopted> {
        self.pass(now);
        let ended = matches!(self.state, State::Ended);
        let old = self.info.as_deref().filter(|_| !ended);
        let old = old.ok_or(NotAdopted::NoSession)?;
        adoptable(old, &info, |price| {
            old.price.is_some_and(|old| price <= old)
        })?;
        // The same place, which the handshake knows better.
        let transcoder = old.transcoder.clone();
        let info = Arc::unwrap_or_clone(info);
        self.info = Some(Arc::new(OrchestratorInfo { transcoder, ..info }));
        Ok(())
    }

    /// Ends this: no more renewals.
    pub fn close(&mut self, now: Time) {
        self.pass(now);
        if !matches!(self.state, State::Ended) {
            self.end(Event::Closed);
        }
    }

    /// Lets time pass, before a command or after an input.
    fn pass(&mut self, now: Time) {
        self.now = self.now.max(now);
        if let State::AwaitingIdentity(asking) = &mut self.state {
            let told = asking.tick(self.now, &mut self.out);
            return self.introduced(told);
        }
        let due = |at: Time| at <= self.now;
        match &self.state {
            State::AwaitingSignature { until, .. } if due(*until) => {
                let cause = self.late("the identity's signature", self.config.identity_within);
                self.end(Event::Failed(Failure::new(Party::KeyHolder, cause)));
            }
            State::Calling(call) | State::Renewing(call) if due(call.until()) => {
                let cause = self.late("the handshake", call.within);
                self.call_failed(cause);
            }
            State::Pausing { until } if due(*until) => self.call(true),
            State::Settled if self.renew_at.is_some_and(due) => {
                self.tries = 0;
                self.call(true);
            }
            _ => {}
        }
    }

    fn wake(&self) -> Option<Time> {
        match &self.state {
            State::AwaitingIdentity(asking) => asking.wake(),
            State::AwaitingSignature { until, .. } | State::Pausing { until } => Some(*until),
            State::Calling(call) | State::Renewing(call) => Some(call.until()),
            State::Settled => self.renew_at,
            State::Ended => None,
        }
    }

    const fn late(&self, doing: &'static str, after: Duration) -> Cause {
        Cause::TimedOut { doing, after }
    }

    /// Signers said who pays, or that is hopeless.
    fn introduced(&mut self, told: Option<Introduced>) {
        if let State::AwaitingIdentity(asking) = &mut self.state
            && let Some(health) = asking.news()
        {
            self.out.event(Event::Signers(health));
        }
        let Some(told) = told else {
            return;
        };
        match told {
            Ok((address, signature)) => self.identified(address, signature),
            Err(failure) => {
                self.state = State::Ended;
                self.out.event(Event::Failed(failure));
            }
        }
    }

    fn identified(&mut self, address: Address, signature: Signature) {
        self.payer = Some((address, signature));
        self.out.event(Event::Identified(address, signature));
        self.call(false);
    }

    /// Calls the orchestrator, for the first time or to renew.
    fn call(&mut self, renewing: bool) {
        self.tries += 1;
        self.state = self.open_call(renewing, false);
    }

    fn open_call(&mut self, renewing: bool, afresh: bool) -> State {
        let within = at_least_some(if renewing {
            self.config.renew_within
        } else {
            self.config.call_within
        });
        let ignore_capacity = renewing || self.config.ignore_capacity;
        let request = info_request(self.payer, &self.wanted, ignore_capacity);
        let to = self.asked(renewing);
        let trust = if afresh {
            Trust::Afresh
        } else {
            self.config.trust
        };
        let exchange = self.out.request(grpc::call(
            to,
            grpc::GET_ORCHESTRATOR,
            &request,
            trust,
            within,
        ));
        let call = Call {
            exchange,
            answer: Answer::default(),
            began: self.now,
            within,
            afresh,
        };
        if renewing {
            State::Renewing(call)
        } else {
            State::Calling(call)
        }
    }

    /// The URL that is asked.
    fn asked(&self, renewing: bool) -> &Url {
        match &self.info {
            Some(info) if renewing => &info.transcoder,
            _ => &self.to,
        }
    }

    /// Handles a call without an answer: the end, or for a renewal a pause and another try.
    fn call_failed(&mut self, cause: Cause) {
        self.abort();
        let renewing = matches!(self.state, State::Renewing(_));
        let passing = matches!(
            cause,
            Cause::TimedOut { .. }
                | Cause::Refused {
                    reason: Reason::Capacity,
                    ..
                }
        ) || matches!(&cause, Cause::Link(fault) if !fault.is_final());
        if renewing && passing && self.tries < self.config.renew_attempts {
            let doublings = (self.tries - 1).min(6);
            let until = self.now + RENEW_PAUSE * 2u32.pow(doublings);
            self.state = State::Pausing { until };
            return;
        }
        // A full node is told apart from a dead one to the end.
        let dead = !matches!(cause, Cause::Refused { .. });
        let cause = if renewing && passing && dead && self.tries > 1 {
            Cause::GaveUp {
                what: "renewing the session",
                times: self.tries,
                last: cause.to_string(),
            }
        } else {
            cause
        };
        let who = self.asked(renewing).clone();
        let failure = Failure::new(Party::Orchestrator(who), cause);
        self.state = State::Ended;
        self.out.event(Event::Failed(failure));
    }

    /// Judges an answer.
    fn answered(&mut self, raw: Bytes) {
        let (renewing, began) = match &self.state {
            State::Calling(call) => (false, call.began),
            State::Renewing(call) => (true, call.began),
            _ => return,
        };
        let mut info = match OrchestratorAnswer::decode(raw) {
            Ok(OrchestratorAnswer::Info(info)) => info,
            Ok(OrchestratorAnswer::Referral(nodes)) => {
                return self.end(Event::Rejected(Rejection::NoWork { nodes }));
            }
            Err(err) => return self.call_failed(err.into()),
        };
        match info.transcoder.named_by(self.asked(renewing)) {
            Ok(transcoder) => info.transcoder = transcoder,
            Err(forbidden) => return self.call_failed(Cause::Link(forbidden.into())),
        }
        if let Err(rejection) = self.config.terms.accept(&info, &self.wanted) {
            self.end(Event::Rejected(rejection));
            return;
        }
        self.took = Some(self.now.since(began));
        let info: Arc<OrchestratorInfo> = info.into();
        self.settle(Arc::clone(&info));
        self.out.event(if renewing {
            Event::Renewed(info)
        } else {
            Event::Ready(info)
        });
    }

    fn settle(&mut self, info: Arc<OrchestratorInfo>) {
        let by_token = info.auth_token.as_ref().map(|token| {
            // Exactly the margin left is still fine (handshake spec 4).
            let due = token.expiration - self.config.renew_margin + Duration::from_nanos(1);
            due.max(self.now + MIN_RENEW_INTERVAL)
        });
        let by_age = self
            .config
            .renew_every
            .map(|age| self.now + age.max(MIN_RENEW_INTERVAL));
        self.renew_at = earlier(by_token, by_age);
        self.info = Some(info);
        self.state = State::Settled;
    }

    fn end(&mut self, last: Event) {
        self.abort();
        self.state = State::Ended;
        self.out.event(last);
    }

    /// Gives up the exchange under way, if there is one. Harmless if it has ended by itself.
    fn abort(&mut self) {
        match &mut self.state {
            State::AwaitingIdentity(asking) => asking.abort(&mut self.out),
            State::Calling(Call { exchange, .. }) | State::Renewing(Call { exchange, .. }) => {
                self.out.abort(*exchange)
            }
            _ => {}
        }
    }

    fn on_http(&mut self, id: EffectId, step: http::In) {
        match &mut self.state {
            State::AwaitingIdentity(asking) => {
                let told = asking.handle(self.now, &mut self.out, id, step);
                self.introduced(told);
            }
            State::Calling(call) | State::Renewing(call) if call.exchange == id => {
                self.on_orchestrator(step);
            }
            _ => {}
        }
    }

    fn on_orchestrator(&mut self, step: http::In) {
        let (State::Calling(call) | State::Renewing(call)) = &mut self.state else {
            return;
        };
        let told = match step {
            http::In::Reply(head) => call.answer.head(&head),
            http::In::Data(data) => call.answer.data(&data),
            http::In::End(trailers) => match core::mem::take(&mut call.answer).end(&trailers) {
                Ok(raw) => return self.answered(raw),
                Err(none) => Err(none),
            },
            http::In::Failed(fault) => return self.link_broke(fault),
            http::In::Sent(_) | http::In::Request(_) => Ok(()),
        };
        if let Err(none) = told {
            self.call_failed(no_answer(none));
        }
    }

    fn link_broke(&mut self, fault: Fault) {
        let (State::Calling(call) | State::Renewing(call)) = &self.state else {
            return;
        };
        let renewing = matches!(self.state, State::Renewing(_));
        match fault {
            Fault::CertificateChanged { remembered, seen }
                if self.config.pin_change == PinChange::AcceptOnce
                    && self.config.trust != Trust::Public
                    && !call.afresh =>
            {
                self.out.event(Event::PinChanged { remembered, seen });
                self.state = self.open_call(renewing, true);
            }
            fault => self.call_failed(Cause::Link(fault)),
        }
    }

    fn on_signed(&mut self, id: EffectId, answer: Result<Signature, SignRefused>) {
        let State::AwaitingSignature {
            effect, address, ..
        } = self.state
        else {
            return;
        };
        if effect != id {
            return;
        }
        let cause = match answer {
            Ok(signature) => match check_identity(address, &signature) {
                Ok(()) => return self.identified(address, signature),
                Err(err) => err.into(),
            },
            Err(SignRefused(text)) => Cause::Declined {
                doing: "to sign the identity",
                reason: Reason::Other,
                text,
            },
        };
        self.end(Event::Failed(Failure::new(Party::KeyHolder, cause)));
    }
}

impl Machine for Handshake {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.now = self.now.max(now);
        match input {
            Input::Http(id, step) => self.on_http(id, step),
            Input::Signed(id, answer) => self.on_signed(id, answer),
            Input::Tick | Input::Stored(..) | Input::Spent(..) => {}
        }
        self.pass(now);
    }

    fn poll_output(&mut self) -> Output<Event> {
        self.out.pop().unwrap_or_else(|| Output::Idle(self.wake()))
    }
}

/// A deadline of nothing would wake a driver in the past.
fn at_least_some(within: Duration) -> Duration {
    within.max(Duration::from_millis(1))
}

fn no_answer(none: NoAnswer) -> Cause {
    match none {
        NoAnswer::Status(status) => Cause::Refused {
            doing: "the handshake",
            status: status.code,
            reason: status.reason(),
            text: status.message,
        },
        NoAnswer::TooLong => Cause::TooMuch {
            what: "the answer in bytes",
            limit: grpc::MAX_MESSAGE_BYTES,
        },
        other => Cause::Nonsense {
            what: "a handshake's answer",
            why: other.to_string(),
        },
    }
}
