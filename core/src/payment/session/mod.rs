//! The payer's side of one job at one orchestrator: makes payments, looks at them, delivers them, and paces itself.
//!
//! ```text
//!  pay(), or the pace ─▶ Minting ◀─────────────── a quote, renew() ────────┐
//!        ▲                 │ │ └─ 480, or the quote is worn ─▶ Refreshing ──┤ none: NeedQuote ─▶ AwaitingQuote
//!        │                 │ └─ nobody answers ─▶ Pausing ─▶ Minting        ▲ discard
//!        │                 │ minted, read                                   │
//!        │                 ▼                                                │
//!        │     (counted as spent: Counting)                                 │
//!        │        pay()│            │the pace                               │
//!        │             ▼            ▼                                       │
//!        │  Ready: AwaitingOwner   Delivering ─ 400 expired, nonce; 403 token┤
//!        │             │ delivered()  │ │ └─ no answer ─▶ Confirming ────────┘
//!        └── Paid ◀────┴── 200 ───────┘ └─ not reached, 500 ─▶ Pausing ─▶ Delivering
//!
//!  Our own key holder or store fails: Pausing, then the same again, for as long as what was paid lasts.
//!  482: Skipped, nothing changes. A payment that cannot be made: Held, tried again at the pace while the last one
//!  lasts; then, and before the first one: Failed ─▶ Ended. So too if the orchestrator wants no more payments.
//! ```
//!
//! Nothing leaves that is not counted ([`Effect::Spend`]). What an own key signs is counted meanwhile, and its nonces are
//! stored together with the count: what was signed when a crash came has never left.
//!
//! The signer's blob, or our own memory with an own key, is committed only when the orchestrator took the payment.
//! A payment that was minted and not taken is discarded together with its quote, because the orchestrator may have seen
//! the nonces (payments spec 18.1). One payment is under way at a time, unless requests pay for themselves: see `account`.

mod account;
mod deliver;
mod local;
mod minting;
mod pace;
mod payer;
mod quotes;
mod refresh;
mod signer;
mod types;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

use self::account::Account;
use self::deliver::Delivery as Post;
use self::pace::Coverage;
use self::quotes::Unusable;
use self::refresh::Refresh;
use super::guard::{Proportion, SignedCredentials};
use super::nonce::SenderNonces;
use crate::chain::ChainView;
use crate::error::{Cause, Failure, Misuse, Party};
use crate::http;
use crate::machine::{Effect, EffectId, Input, Machine, Outbox, Output, earlier};
use crate::money::{Amount, Price};
use crate::sign::Address;
use crate::spend::{Spend, SpendRefused};
use crate::store::StoreFailed;
use crate::time::Time;
use crate::units::Unit;
use crate::wire::signer::StateBlob;
use crate::wire::{OrchestratorInfo, SignerState, TicketParams};

pub use crate::wire::payment::Credentials;
pub use account::{BALANCE_LASTS, Bill};
pub use local::LocalAccount;
pub use pace::Charge;
pub use payer::Payer;
pub use signer::FIRST_PATIENCE;
pub use types::{
    Config, DELIVERY_TRIES, Delivered, Event, FIRST_PAUSE, Fee, LONGEST_PAUSE, MAX_REFRESHES,
    MINT_ROUNDS, OWN_TRIES, Paid, PaymentId, QUOTE_DEADLINE,
};

/// Where payments come from.
enum Source {
    Offchain,
    Remote {
        client: Box<signer::Client>,
        /// The signer's blob as of the last payment that was taken.
        committed: StateBlob,
    },
    Local {
        minter: Box<local::Minter>,
        committed: Option<Box<SignerState>>,
    },
}

/// The memory that is committed when a payment is taken.
enum Memory {
    Blob(StateBlob),
    State(Box<SignerState>),
    /// The orchestrator works for nothing.
    Nothing,
}

/// A payment that was minted and read.
struct Minted {
    credentials: Credentials,
    memory: Memory,
    at: Time,
    /// When it was counted as spent; `None` if it is not, or costs nothing.
    counted: Option<Time>,
    tickets: u32,
    value: Amount,
    charge: Charge,
    nonces: SenderNonces,
    signed: Option<SignedCredentials>,
}

/// The payment under way.
struct Current {
    id: PaymentId,
    fee: Fee,
    /// The units that are billed for it, if units are.
    billed: u64,
    /// Whether the owner delivers it.
    by_owner: bool,
    /// When it was asked for last: a signer's clock reads about this.
    asked: Time,
    tries: u32,
}

enum State {
    Resting,
    Minting,
    Counting(Box<Minted>, EffectId, Time),
    PausingCount(Box<Minted>, Time),
    /// The job's own quote is asked for; the signer may have said where else.
    Refreshing(Refresh, Option<http::Url>),
    AwaitingQuote(Time),
    AwaitingOwner(Box<Minted>),
    Delivering(Box<Minted>, Post),
    PausingMint(Time),
    PausingDelivery(Box<Minted>, Post, Time),
    Ended,
}

/// The quote that payments are made from.
struct TicketQuote {
    info: Arc<OrchestratorInfo>,
    params: TicketParams,
    price: Price,
}

/// See the [module](self).
pub struct PaymentSession {
    now: Time,
    config: Config,
    source: Source,
    /// `None` if nothing is paid: off-chain, and to an orchestrator that asks nothing.
    quote: Option<TicketQuote>,
    info: Arc<OrchestratorInfo>,
    /// A payment made from it may have been seen: do not use it again.
    stale: bool,
    /// The price that is billed, and that of the job's first payment: they differ once it was raised.
    initial: Price,
    first: Price,
    /// The orchestrator took a payment, or a start for nothing: its price holds.
    accepted: bool,
    /// Why payments are not made for the time being.
    held: Option<Failure>,
    manifest_id: String,
    nonces: SenderNonces,
    /// The last credentials whose signature was checked.
    signed: Option<SignedCredentials>,
    last_minted: Option<Time>,
    proportion: Proportion,
    coverage: Coverage,
    total: Amount,
    undecided: Amount,
    refreshes: u32,
    pace: Option<(Duration, Time)>,
    ids: u64,
    current: Option<Current>,
    /// The balance, if requests pay for themselves.
    account: Option<Box<Account>>,
    state: State,
    out: Outbox<Event>,
}

impl core::fmt::Debug for PaymentSession {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PaymentSession")
            .field("now", &self.now)
            .field("manifest_id", &self.manifest_id)
            .field("total", &self.total)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

impl PaymentSession {
    /// A session with the orchestrator that gave `info`. Off-chain it needs only an auth token, otherwise also a
    /// price and ticket parameters; without them the session fails at once. So it does if remote signers pay and
    /// `account`, the payer that the handshake introduced, is not known. An own key knows its account itself.
    #[must_use]
    pub fn new(
        now: Time,
        config: Config,
        info: &Arc<OrchestratorInfo>,
        payer: Payer,
        account: Option<Address>,
    ) -> Self {
        let nameless = matches!(payer, Payer::Remote(_)) && account.is_none();
        let source = match payer {
            Payer::Offchain => Source::Offchain,
            Payer::Remote(signers) => Source::Remote {
                client: Box::new(signer::Client::new(signers, account.unwrap_or_default())),
                committed: StateBlob::default(),
            },
            Payer::Account(account) => Source::Local {
                minter: Box::new(local::Minter::new(*account)),
                committed: None,
            },
        };
        let mut this = Self {
            now,
            source,
            quote: None,
            info: Arc::clone(info),
            stale: false,
            initial: Price::FREE,
            first: Price::FREE,
            accepted: false,
            held: None,
            manifest_id: config.manifest_id.clone(),
            nonces: SenderNonces::new([0; 32], 0),
            signed: None,
            last_minted: None,
            proportion: Proportion::default(),
            coverage: Coverage::new(config.unit, Price::FREE),
            total: Amount::zero(),
            undecided: Amount::zero(),
            refreshes: 0,
            pace: None,
            ids: 0,
            current: None,
            account: Self::new_account(config.by_request, now),
            state: State::Resting,
            config,
            out: Outbox::default(),
        };
        if nameless {
            this.fail(Failure::new(
                Party::Signers,
                Cause::Nonsense {
                    what: "identity",
                    why: "the account that pays is not known; a handshake asks the signers for it"
                        .into(),
                },
            ));
        } else if let Err(Unusable::Bad(failure)) = this.take_quote(info) {
            // No price is dearer than the first one.
            this.fail(*failure);
        }
        this
    }

    /// Makes a payment that the owner delivers with a request of its own: the first one of a job, or each one of
    /// jobs that pay with every request. [`Event::Ready`] follows, or [`Event::Skipped`] if nothing is due.
    ///
    /// # Errors
    /// [`Misuse::Ended`] after the end, [`Misuse::StillOpen`] while another payment is under way, unless requests pay for
    /// themselves ([`Config::by_request`]).
    pub fn pay(&mut self, now: Time, fee: Fee) -> Result<PaymentId, Misuse> {
        self.advance(now);
        match fee {
            Fee::Units(units) if self.by_request() => self.pay_request(units),
            fee => self.begin(fee, true),
        }
    }

    /// Tells what became of a payment that the owner delivered. An unknown id is ignored.
    pub fn delivered(&mut self, now: Time, id: PaymentId, how: Delivered) {
        self.advance(now);
        if self.by_request() {
            return self.settle_request(id, how);
        }
        if self.current.as_ref().is_none_or(|current| current.id != id) {
            return;
        }
        match core::mem::replace(&mut self.state, State::Resting) {
            State::AwaitingOwner(minted) => match how {
                Delivered::Accepted | Delivered::Used(_) => self.taken(*minted),
                how => {
                    if how == Delivered::Unsent {
                        self.give_back(minted.counted, &minted.value);
                    }
                    self.abandon(&minted, how == Delivered::Unknown);
                    self.stale = true;
                    self.current = None;
                    self.set_pace();
                }
            },
            other => self.state = other,
        }
    }

    /// Names the job as the orchestrator calls it: payments go to the balance of that name.
    pub fn set_manifest(&mut self, id: impl Into<String>) {
        self.manifest_id = id.into();
    }

    /// Pays by itself from now on, at the latest every `interval`, and earlier when what was paid runs out. Does
    /// nothing where nothing is paid, and for jobs that are paid once.
    ///
    /// # Errors
    /// [`Misuse::Ended`] after the end, [`Misuse::NotOpen`] while the job has no name.
    pub fn start_pacing(&mut self, now: Time, interval: Duration) -> Result<(), Misuse> {
        self.advance(now);
        if matches!(self.state, State::Ended) {
            return Err(Misuse::Ended);
        }
        if self.quote.is_none() || self.config.unit == Unit::Fixed {
            return Ok(());
        }
        if self.manifest_id.is_empty() {
            return Err(Misuse::NotOpen);
        }
        self.pace = Some((interval, self.now));
        self.set_pace();
        Ok(())
    }

    /// Stops paying by itself: the job's input stands still. A payment under way is finished.
    pub fn pause(&mut self) {
        self.pace = None;
    }

    /// Gives fresh orchestrator info: the answer to [`Event::NeedQuote`], or whenever there is some. It replaces
    /// price and ticket parameters together. Another account ends the session. A quote above the session's first price
    /// is not used while there is another way.
    pub fn renew(&mut self, now: Time, info: &Arc<OrchestratorInfo>) {
        self.advance(now);
        if matches!(self.state, State::Ended) {
            return;
        }
        self.on_renewed(info);
    }

    /// Answers [`Event::NeedQuote`] with the news that there is none, and why.
    pub fn no_quote(&mut self, now: Time, failure: Failure) {
        self.advance(now);
        if matches!(self.state, State::AwaitingQuote(_)) {
            self.refuse(failure);
        }
    }

    /// Pushes a new reading of the chain. Only an own key needs it.
    pub fn set_chain(&mut self, now: Time, view: ChainView) {
        self.advance(now);
        if let Source::Local { minter, .. } = &mut self.source {
            minter.set_chain(view);
        }
    }

    /// Ends the session without an event. What is under way is aborted.
    pub fn close(&mut self, now: Time) {
        self.advance(now);
        self.end();
    }

    /// The account of an own key, with the nonces that it has used: take it along to the job's next session.
    #[must_use]
    pub fn account(&self) -> Option<&LocalAccount> {
        match &self.source {
            Source::Local { minter, .. } => Some(minter.account()),
            _ => None,
        }
    }

    /// All that the orchestrator is known to have taken; it may have taken what is [`undecided`](Self::undecided) besides.
    /// A payment that it calls already seen when it is sent again counts as taken, although it calls one so, too, that
    /// first came after its parameters had expired.
    #[must_use]
    pub const fn total(&self) -> &Amount {
        &self.total
    }

    /// The value of the payments that were sent and given up without knowing whether they were taken: their answers were
    /// lost, and when they were sent again their parameters had expired, or nobody was reached any more. Of those that
    /// the owner delivers, it is the owner who says so ([`Delivered::Unknown`]).
    #[must_use]
    pub const fn undecided(&self) -> &Amount {
        &self.undecided
    }

    /// When what was paid is used up, for metered jobs.
    #[must_use]
    pub fn covered_until(&self) -> Option<Time> {
        self.coverage.until()
    }

    /// The quote in use.
    #[must_use]
    pub const fn info(&self) -> &Arc<OrchestratorInfo> {
        &self.info
    }

    fn orchestrator(&self) -> Party {
        Party::Orchestrator(self.info.transcoder.clone())
    }

    fn begin(&mut self, fee: Fee, by_owner: bool) -> Result<PaymentId, Misuse> {
        match self.state {
            State::Ended => return Err(Misuse::Ended),
            _ if self.current.is_some() => return Err(Misuse::StillOpen),
            _ => {}
        }
        let id = PaymentId(self.ids);
        self.ids += 1;
        self.current = Some(Current {
            id,
            fee,
            billed: match fee {
                Fee::Units(units) => units,
                Fee::Elapsed => 0,
            },
            by_owner,
            asked: self.now,
            tries: 0,
        });
        self.refreshes = 0;
        if let Source::Remote { client, .. } = &mut self.source {
            client.begin(self.now);
        }
        self.mint();
        Ok(id)
    }

    fn set_pace(&mut self) {
        if let Some((interval, next)) = &mut self.pace {
            *next = self.coverage.next(self.now, *interval, self.last_minted);
        }
    }

    fn fail(&mut self, failure: Failure) {
        if !matches!(self.state, State::Ended) {
            self.end();
            self.out.event(Event::Failed(failure));
        }
    }

    fn end(&mut self) {
        match core::mem::replace(&mut self.state, State::Ended) {
            State::Delivering(minted, mut post) => {
                // It is on its way.
                self.abandon(&minted, true);
                post.abort(&mut self.out);
            }
            State::PausingDelivery(minted, mut post, _) => {
                self.abandon(&minted, post.is_undecided());
                post.abort(&mut self.out);
            }
            State::Refreshing(mut refresh, _) => refresh.abort(&mut self.out),
            State::Counting(_, asked, _) => self.out.forward(asked, Effect::Spend(Spend::Cancel)),
            _ => {}
        }
        self.stop_minting();
        self.current = None;
        self.pace = None;
    }

    /// Abandons the payment that is being minted: it is of no use any more.
    fn stop_minting(&mut self) {
        if let State::Counting(_, asked, _) = self.state {
            self.out.forward(asked, Effect::Spend(Spend::Cancel));
        }
        match &mut self.source {
            Source::Remote { client, .. } => client.abort(&mut self.out),
            Source::Local { minter, .. } => minter.abort(&mut self.out),
            Source::Offchain => {}
        }
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        let (client, minter) = match &mut self.source {
            Source::Remote { client, .. } => (client.tick(self.now, &mut self.out), None),
            Source::Local { minter, .. } => (None, minter.tick(self.now, &mut self.out)),
            Source::Offchain => (None, None),
        };
        if let Some(outcome) = client {
            self.on_signer(outcome);
        }
        if let Some(outcome) = minter {
            self.on_local(outcome);
        }
        match core::mem::replace(&mut self.state, State::Resting) {
            State::PausingMint(until) if until <= self.now => self.mint(),
            State::PausingCount(minted, until) if until <= self.now => self.count(minted),
            State::Counting(minted, asked, until) if until <= self.now => {
                self.out.forward(asked, Effect::Spend(Spend::Cancel));
                self.not_counted(minted, StoreFailed::late());
            }
            State::PausingDelivery(minted, post, until) if until <= self.now => {
                self.post(minted, post);
            }
            State::Delivering(minted, mut post) => {
                let url = &self.info.transcoder;
                let party = || Party::Orchestrator(url.clone());
                match post.tick(self.now, party, &mut self.out) {
                    None => self.state = State::Delivering(minted, post),
                    Some(verdict) => self.on_verdict(minted, post, verdict),
                }
            }
            State::Refreshing(mut refresh, at) => match refresh.tick(self.now, &mut self.out) {
                None => self.state = State::Refreshing(refresh, at),
                Some(answer) => self.on_refresh(answer, at),
            },
            State::AwaitingQuote(until) if until <= self.now => {
                let failure = Failure::new(
                    self.orchestrator(),
                    Cause::TimedOut {
                        doing: "a request for a fresh quote",
                        after: QUOTE_DEADLINE,
                    },
                );
                self.refuse(failure);
            }
            other => self.state = other,
        }
        if self.current.is_none() && self.pace.is_some_and(|(_, next)| next <= self.now) {
            // Nothing is under way and the session has not ended, so this cannot be refused.
            let _ = self.begin(Fee::Elapsed, false);
        }
    }

    fn on_http(&mut self, id: EffectId, step: http::In) {
        let party = self.orchestrator();
        if let State::Delivering(_, post) = &mut self.state
            && post.owns(id)
        {
            let verdict = post.handle(step, party, &mut self.out);
            if let Some(verdict) = verdict
                && let State::Delivering(minted, post) =
                    core::mem::replace(&mut self.state, State::Resting)
            {
                self.on_verdict(minted, post, verdict);
            }
            return;
        }
        if let State::Refreshing(refresh, _) = &mut self.state
            && refresh.owns(id)
        {
            let answer = refresh.handle(step, &mut self.out);
            if let Some(answer) = answer
                && let State::Refreshing(_, at) =
                    core::mem::replace(&mut self.state, State::Resting)
            {
                self.on_refresh(answer, at);
            }
            return;
        }
        let outcome = match &mut self.source {
            Source::Remote { client, .. } => client.handle(self.now, id, step, &mut self.out),
            _ => None,
        };
        if let Some(outcome) = outcome {
            self.on_signer(outcome);
        }
    }

    fn on_spent(&mut self, id: EffectId, answer: Result<Time, SpendRefused>) {
        match core::mem::replace(&mut self.state, State::Resting) {
            State::Counting(minted, asked, _) if asked == id => {
                return self.counted(minted, answer);
            }
            other => self.state = other,
        }
        let outcome = match &mut self.source {
            Source::Local { minter, .. } => minter.counted(id, answer),
            _ => None,
        };
        if let Some(outcome) = outcome {
            self.on_local(outcome);
        }
    }
}

impl Machine for PaymentSession {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        match input {
            // Of what is stored on its own, nothing is waited for: it only takes room.
            Input::Tick | Input::Stored(..) => {}
            Input::Http(id, step) => self.on_http(id, step),
            Input::Spent(id, answer) => self.on_spent(id, answer),
            Input::Signed(id, answer) => {
                let outcome = match &mut self.source {
                    Source::Local { minter, .. } => minter.signed(id, answer, &mut self.out),
                    _ => None,
                };
                if let Some(outcome) = outcome {
                    self.on_local(outcome);
                }
            }
        }
    }

    fn poll_output(&mut self) -> Output<Event> {
        if let Some(output) = self.out.pop() {
            return output;
        }
        let payer = match &self.source {
            Source::Remote { client, .. } => client.wake(),
            Source::Local { minter, .. } => minter.wake(),
            Source::Offchain => None,
        };
        let state = match &self.state {
            State::AwaitingQuote(until)
            | State::PausingMint(until)
            | State::PausingCount(_, until)
            | State::Counting(_, _, until)
            | State::PausingDelivery(_, _, until) => Some(*until),
            State::Delivering(_, post) => post.wake(),
            State::Refreshing(refresh, _) => refresh.wake(),
            State::Resting | State::Minting | State::AwaitingOwner(_) | State::Ended => None,
        };
        let pace = self
            .pace
            .filter(|_| self.current.is_none())
            .map(|(_, next)| next);
        Output::Idle(earlier(earlier(payer, state), pace))
    }
}

fn pause(tries: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(1 << tries.saturating_sub(1).min(16))
        .min(LONGEST_PAUSE)
}
