//! A job and where it stands.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::types::{Attempt, JobId, Left, Order, Served};
use crate::error::{Cause, Failure};
use crate::exchange::Exchange;
use crate::http::{Fault, Url};
use crate::machine::{EffectId, Outbox, earlier};
use crate::money::Amount;
use crate::payment::session::PaymentId;
use crate::time::Time;
use crate::wire::byoc::stream::StreamChannels;
use crate::wire::byoc::{Relay, SignedBy, Token, Wishes};

/// The purpose of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// A request of a caller's.
    Request,
    /// The start of a stream of that name.
    Start(JobId),
}

/// A job from its order to its last event.
pub(super) struct Job {
    pub(super) aim: Aim,
    pub(super) order: Order,
    pub(super) wishes: Wishes,
    pub(super) began: Time,
    /// Until when tokens are waited for.
    pub(super) search_until: Time,
    pub(super) signed: Signed,
    /// Whether it waits for orchestrators to be found.
    pub(super) waits: bool,
    /// Whether orchestrators were looked for on its account.
    pub(super) looked: bool,
    /// Whether tokens were asked for at all.
    pub(super) begun: bool,
    /// Orchestrators that are still to be asked for a token.
    pub(super) waiting: VecDeque<Url>,
    /// Orchestrators that are being asked.
    pub(super) asking: BTreeMap<EffectId, (Url, Exchange)>,
    /// Usable tokens, in order of arrival.
    pub(super) tokens: VecDeque<Offer>,
    pub(super) attempts: Vec<Attempt>,
    /// Orchestrators that got the request.
    pub(super) tried: BTreeSet<Url>,
    /// Whether one of them was reached.
    pub(super) reached: bool,
    pub(super) requests: u32,
    pub(super) paused: bool,
    pub(super) engaged: Option<Engaged>,
    pub(super) flight: Option<Flight>,
}

/// A token, and when it came.
pub(super) struct Offer {
    pub(super) url: Url,
    pub(super) at: Time,
    pub(super) token: Token,
}

/// The signature under a job.
pub(super) enum Signed {
    /// Nobody was asked for it.
    Not,
    /// The key holder is asked.
    Key(EffectId, Time),
    /// A remote signer is asked; these are left, and this is how others failed.
    Asking {
        signer: usize,
        exchange: Exchange,
        left: VecDeque<usize>,
        failures: Vec<Failure>,
    },
    /// The signature is there; `None` where there is no chain.
    Done(Option<SignedBy>),
}

/// The orchestrator that a job is with.
pub(super) struct Engaged {
    pub(super) url: Url,
    pub(super) token: Token,
    /// The payment that is awaited, or whose outcome is; `None` where nothing is paid.
    pub(super) payment: Option<PaymentId>,
    pub(super) tickets: u32,
    /// The value of these tickets, in wei.
    pub(super) value: Amount,
}

/// A request that was sent, and its answer so far.
pub(super) struct Flight {
    pub(super) exchange: EffectId,
    pub(super) asked: Time,
    pub(super) until: Time,
    pub(super) served: Option<Served>,
    pub(super) status: u16,
    /// The balance that the orchestrator reports, in whole wei.
    pub(super) balance: Option<i64>,
    pub(super) body: Vec<u8>,
    pub(super) relay: Option<Relay>,
    /// The channels of a stream that was started, if they can be used.
    pub(super) opened: Option<StreamChannels>,
}

impl Job {
    pub(super) fn new(now: Time, mut order: Order, wishes: Wishes) -> Self {
        order.job = order.job.to_send();
        Self {
            aim: Aim::Request,
            order,
            wishes,
            began: now,
            search_until: now,
            signed: Signed::Not,
            waits: false,
            looked: false,
            begun: false,
            waiting: VecDeque::new(),
            asking: BTreeMap::new(),
            tokens: VecDeque::new(),
            attempts: Vec::new(),
            tried: BTreeSet::new(),
            reached: false,
            requests: 0,
            paused: false,
            engaged: None,
            flight: None,
        }
    }

    /// Whether the job may go to the orchestrator at `url`.
    pub(super) fn allows(&self, url: &Url) -> bool {
        let named = |all: &[Url]| all.iter().any(|one| one.with_path("/") == *url);
        !self.tried.contains(url)
            && !named(&self.wishes.exclude)
            && (self.wishes.include.is_empty() || named(&self.wishes.include))
    }

    pub(super) fn left(&mut self, url: Url, left: Left) {
        self.attempts.push(Attempt { url, left });
    }

    /// When something of it is due.
    pub(super) fn wake(&self) -> Option<Time> {
        let signature = match &self.signed {
            Signed::Key(_, until) => Some(*until),
            Signed::Asking { exchange, .. } => exchange.wake(),
            Signed::Not | Signed::Done(_) => None,
        };
        let search =
            (!self.waiting.is_empty() || !self.asking.is_empty()).then_some(self.search_until);
        let tokens = self.asking.values().map(|(_, exchange)| exchange.wake());
        let flight = self.flight.as_ref().map(|flight| flight.until);
        tokens.fold(earlier(earlier(signature, flight), search), earlier)
    }

    /// Gives up what it still asks: tokens, and the signature.
    pub(super) fn stop_asking<E>(&mut self, out: &mut Outbox<E>) {
        self.stop_search(out);
        if let Signed::Asking { exchange, .. } = &mut self.signed {
            exchange.abort(out);
            self.signed = Signed::Not;
        }
    }

    /// Asks for no more tokens.
    pub(super) fn stop_search<E>(&mut self, out: &mut Outbox<E>) {
        self.waiting.clear();
        for (_, (_, mut exchange)) in core::mem::take(&mut self.asking) {
            exchange.abort(out);
        }
    }
}

/// Why an orchestrator was left whose link broke.
pub(super) fn broken(fault: &Fault) -> Left {
    if fault.is_before_request() {
        Left::Unreached
    } else {
        Left::Broken
    }
}

/// The cause of a stream that was cut by its time.
pub(super) const fn too_long(after: core::time::Duration) -> Cause {
    Cause::TimedOut {
        doing: "the request",
        after,
    }
}
