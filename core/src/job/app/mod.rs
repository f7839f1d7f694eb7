//! Renting an app that an orchestrator's runner offers: a session, or a single call (jobs spec 6, 11.5, client-1.0 3).
//!
//! A [`Rental`] asks the orchestrators for their lists, chooses a runner, pays if that is demanded, and keeps paying:
//!
//! | state | input | next | output |
//! |---|---|---|---|
//! | listing | every list, or its failure | asking, or end | the best runner is asked; [`Failed::NoRunner`] |
//! | asking | a demand with status 402, fewer than three before | paying | a payment for its price, if that is what the list said |
//! | asking | session there | active | [`Event::Reserved`]; metered work is paid from now on |
//! | asking | session without its addresses | stopping, asking | it is stopped, and the next runner asked |
//! | asking | head of an app's answer | answering | [`Event::Head`], also where the app refuses |
//! | asking | the orchestrator's own refusal, not reached | asking | the next runner |
//! | asking | no answer, a broken link | asking | a paid reservation once more, then the next runner |
//! | asking | no answer to a free reservation | asking | the next runner; the answer is awaited beside it, and its session stopped |
//! | asking | the same, and an app may have worked | end | [`Failed::Undecided`]; with leave to repeat: the next runner |
//! | paying | credentials | asking | the same request, with them |
//! | asking | a HEAD to a runner with a price | asking | a GET, for the demand: there is no place for it in the answer to a HEAD |
//! | paying | the quote is stale, fewer than three demands | asking | the same request, without payment |
//! | paying | refused, too dear | asking | the next runner, or [`Failed::Ours`] |
//! | answering | bytes, end | answering, end | [`Event::Data`], [`Event::Done`] |
//! | answering | broken, silent | end | [`Failed::Broken`] |
//! | answering | HTTP was left: bytes of the caller | answering | they pass; [`Event::Room`] once they were taken again |
//! | active | payment gone | end | [`Event::Released`] |
//! | active | payment refused | active | [`Event::Trouble`]; stopped when what was paid is used up |
//! | active | closed | stopping | the session is stopped: free ones have no other end |
//!
//! Nothing goes along with a redirect, and a call is paid for while its app thinks. A reservation that may have succeeded
//! is stopped, as far as its name is known: a paid one has it from the demand, and of a free one the late answer brings it. A
//! free one whose answer was lost with its link has no name that anybody knows, and its slot stays taken.

mod answers;
mod beyond;
mod choice;
mod late;
mod listing;
mod paying;
mod types;

pub use beyond::MAX_UNTAKEN;
pub use choice::{History, Wanted};
pub use types::{Answer, Attempt, Call, Config, Event, Failed, Use};

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::ToString as _;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use self::beyond::Beyond;
use self::late::Late;
use super::hire::Purse;
use super::introduction::Introducing;
use crate::chain::ChainView;
use crate::error::{Cause, Failure, Party};
use crate::exchange::Exchange;
use crate::http::{Body, Headers, Method, Out, Request, Url};
use crate::machine::{Child, ChildIds, EffectId, Input, Machine, Outbox, Output, earlier};
use crate::payment::session::{self, Credentials, Delivered, PaymentId};
use crate::payment::{Payer, PaymentSession};
use crate::time::Time;
use crate::wire::app::{Session, app_url, passing};
use crate::wire::challenge::PAYER_ADDRESS_HEADER;
use crate::wire::payment::{PAYMENT_HEADER, SEGMENT_HEADER};
use crate::wire::runner::Runner;
use crate::wire::{cut, error_words, reason};

/// At most this many demands of one runner are met.
pub const MAX_CHALLENGES: u32 = 3;

/// At most this many lists are asked for at a time.
const MAX_LISTING: usize = 5;

/// How long an app may think before its payment counts as taken: an orchestrator looks at it before it asks the app.
const TAKEN_AFTER: Duration = Duration::from_secs(4);

/// The name of a request in errors.
const REQUEST: &str = "the request";

/// An app that is rented. See the [module](self).
#[doc(alias = "reserve_session")]
#[doc(alias = "call_runner")]
#[doc(alias = "runner_selector")]
#[doc(alias = "LiveRunnerSession")]
pub struct Rental {
    config: Config,
    wanted: Wanted,
    plan: Use,
    introducing: Introducing,
    purse: Purse,
    pays: bool,
    history: History,
    to_list: VecDeque<Url>,
    listing: BTreeMap<EffectId, (Url, Exchange)>,
    listed: Vec<Runner>,
    candidates: VecDeque<Runner>,
    attempts: Vec<Attempt>,
    asked_any: bool,
    deal: Option<Deal>,
    /// Reservations that nobody waits for any more.
    late: BTreeMap<EffectId, Late>,
    state: State,
    ids: ChildIds,
    now: Time,
    out: Outbox<Event>,
}

/// Dealings with one runner.
pub(super) struct Deal {
    runner: Runner,
    /// Demands that were met.
    demands: u32,
    /// The name of the session or call, once it is demanded to be paid.
    manifest: Option<alloc::string::String>,
    payment: Option<Child<PaymentSession>>,
    /// The payment whose outcome is not told yet.
    open: Option<PaymentId>,
    credentials: Option<Credentials>,
    metered: bool,
    /// Whether the paid request was sent once more.
    resent: bool,
    /// Whether a demand has to be asked for by another method: the answer to a HEAD has no place for one.
    asks_by_get: bool,
    began: Time,
}

enum State {
    Listing,
    Asking(Ask),
    Paying,
    Active {
        session: Session,
        /// Until when what was paid lasts, once no more is paid.
        until: Option<Time>,
    },
    /// A session is stopped; after that the next runner is asked, or it is the end.
    Stopping(Exchange, bool),
    /// All is over but for late answers; the last event follows them.
    Leaving(Box<Event>),
    Ended,
}

/// A request that was sent, and its answer so far.
struct Ask {
    exchange: EffectId,
    until: Time,
    taken_at: Option<Time>,
    status: u16,
    headers: Headers,
    body: Vec<u8>,
    /// Whether the answer is handed on as it comes.
    handed: bool,
    /// Set once the call has left HTTP.
    beyond: Option<Beyond>,
}

impl core::fmt::Debug for Rental {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Rental")
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

impl Rental {
    /// Rents what `wanted` says from one of `orchestrators`. `payer` pays, and `history` tells of earlier rentals.
    #[must_use]
    pub fn new(
        now: Time,
        config: Config,
        orchestrators: impl IntoIterator<Item = Url>,
        wanted: Wanted,
        plan: Use,
        payer: Payer,
        history: History,
    ) -> Self {
        let mut this = Self::idle(now, config, wanted, plan, payer, history);
        this.to_list = orchestrators.into_iter().collect();
        this.begin();
        this
    }

    /// As [`new`](Self::new), with runners that are known already: of a signer's list, or a session's own app.
    #[must_use]
    pub fn of(
        now: Time,
        config: Config,
        runners: impl IntoIterator<Item = Runner>,
        wanted: Wanted,
        plan: Use,
        payer: Payer,
        history: History,
    ) -> Self {
        let mut this = Self::idle(now, config, wanted, plan, payer, history);
        this.listed = runners.into_iter().collect();
        this.begin();
        this
    }

    fn idle(
        now: Time,
        config: Config,
        wanted: Wanted,
        plan: Use,
        payer: Payer,
        history: History,
    ) -> Self {
        let payment = session::Config {
            trust: config.trust,
            ..config.payment.clone()
        };
        Self {
            introducing: Introducing::new(payer.clone()),
            pays: payer.pays(),
            purse: Purse::new(payer, payment),
            config,
            wanted,
            plan,
            history,
            to_list: VecDeque::new(),
            listing: BTreeMap::new(),
            listed: Vec::new(),
            candidates: VecDeque::new(),
            attempts: Vec::new(),
            asked_any: false,
            deal: None,
            late: BTreeMap::new(),
            state: State::Listing,
            ids: ChildIds::default(),
            now,
            out: Outbox::default(),
        }
    }

    /// How runners have been: for the next rental.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// The settings.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The payments, for questions.
    #[must_use]
    pub fn payments(&self) -> Option<&PaymentSession> {
        Some(self.deal.as_ref()?.payment.as_ref()?.get())
    }

    /// Whether the last event was told.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Holds back the answer to a call, or lets it go on.
    pub fn hold(&mut self, now: Time, held: bool) {
        self.advance(now);
        if let State::Asking(ask) = &mut self.state
            && ask.handed
        {
            let step = if held { Out::Pause } else { Out::Resume };
            // Silence that is ours is nobody's fault.
            ask.pass(self.now, self.config.silence);
            self.out.http(ask.exchange, step);
        }
    }

    /// Pushes a new reading of the chain. Only an own key needs it.
    pub fn set_chain(&mut self, now: Time, view: ChainView) {
        self.advance(now);
        if let Some(payment) = self.deal.as_mut().and_then(|deal| deal.payment.as_mut()) {
            payment.get_mut().set_chain(self.now, view.clone());
        }
        self.purse.set_chain(view);
        self.run();
    }

    /// Ends it: a session is stopped, a call given up. [`Event::Closed`] follows.
    pub fn close(&mut self, now: Time) {
        self.advance(now);
        match core::mem::replace(&mut self.state, State::Listing) {
            State::Active { session, .. } => self.stop(&session, false),
            State::Asking(ask) => {
                let deal = self.deal.as_ref();
                let paid = deal.filter(|deal| deal.credentials.is_some());
                let named =
                    paid.and_then(|deal| Some((deal.runner.url.clone(), deal.manifest.clone()?)));
                match (&self.plan, named) {
                    // The answer may be on its way.
                    (Use::Session, Some((runner, id))) => {
                        self.out.abort(ask.exchange);
                        self.stop(&Session::at(&runner, &id), false);
                    }
                    (Use::Session, None) => {
                        self.await_late(ask);
                        self.end(Event::Closed);
                    }
                    _ => {
                        self.out.abort(ask.exchange);
                        self.end(Event::Closed);
                    }
                }
            }
            State::Leaving(event) => self.state = State::Leaving(event),
            State::Stopping(exchange, _) => self.state = State::Stopping(exchange, false),
            State::Ended => self.state = State::Ended,
            State::Listing | State::Paying => self.end(Event::Closed),
        }
        self.run();
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    // ---- one runner after the other --------------------------------------------------------------------------

    /// Asks the next runner, or says that there is none.
    pub(super) fn next(&mut self) {
        let Some(runner) = self.candidates.pop_front() else {
            let attempts = core::mem::take(&mut self.attempts);
            let failed = match self.asked_any {
                true => Failed::Exhausted { attempts },
                false => Failed::NoRunner { attempts },
            };
            return self.end(Event::Failed(Box::new(failed)));
        };
        self.asked_any = true;
        self.out.event(Event::Trying(runner.url.clone()));
        let head = matches!(&self.plan, Use::Call(call) if call.method == Method::Head);
        self.deal = Some(Deal {
            asks_by_get: head && runner.price.is_some(),
            runner,
            demands: 0,
            manifest: None,
            payment: None,
            open: None,
            credentials: None,
            metered: false,
            resent: false,
            began: self.now,
        });
        self.ask();
    }

    /// Sends the request, with the payment if there is one.
    pub(super) fn ask(&mut self) {
        let payer = self.introducing.known().flatten();
        let Some(deal) = &self.deal else { return };
        let (mut request, within) = match &self.plan {
            Use::Session | Use::List => {
                let request = Request::new(Method::Post, deal.runner.url.clone())
                    .header("content-type", "application/json")
                    .body(Body::Full(Bytes::from_static(b"{}")));
                (request, self.config.within)
            }
            Use::Call(call) => {
                let url = match app_url(&deal.runner.url, &call.path) {
                    Ok(url) => url,
                    Err(bad) => {
                        let what = "a path";
                        let why = bad.to_string();
                        return self.reject(Cause::Nonsense { what, why });
                    }
                };
                let method = match self.asks_by_get() {
                    true => Method::Get,
                    false => call.method,
                };
                let mut request = Request::new(method, url);
                request.headers = passing(&call.headers);
                if let Some(protocol) = &call.upgrade {
                    request.headers.push("upgrade", protocol.as_str());
                } else if !call.body.is_empty() {
                    request = request.body(Body::Full(call.body.clone()));
                }
                (request, self.config.head_within)
            }
        };
        request = request.trust(self.config.trust);
        if request.headers.get("accept").is_none() {
            request.headers.push("accept", "*/*");
        }
        if let Some((payer, _)) = payer {
            request
                .headers
                .push(PAYER_ADDRESS_HEADER, payer.checksummed());
        }
        let paid = deal.credentials.is_some();
        if let Some(credentials) = &deal.credentials {
            request
                .headers
                .push(PAYMENT_HEADER, credentials.payment.as_str());
            request
                .headers
                .push(SEGMENT_HEADER, credentials.segment.as_str());
        }
        let exchange = self.out.request(request);
        self.state = State::Asking(Ask {
            exchange,
            until: self.now + within.max(Duration::from_millis(1)),
            taken_at: (paid && matches!(self.plan, Use::Call(_))).then(|| self.now + TAKEN_AFTER),
            status: 0,
            headers: Headers::new(),
            body: Vec::new(),
            handed: false,
            beyond: None,
        });
    }

    /// Whether the request stands for a HEAD whose price is not known yet.
    pub(super) fn asks_by_get(&self) -> bool {
        let deal = self.deal.as_ref();
        deal.is_some_and(|deal| deal.asks_by_get && deal.credentials.is_none())
    }

    /// Leaves the runner, and asks the next one.
    pub(super) fn reject(&mut self, cause: Cause) {
        let runner = self.deal.as_ref().map(|deal| deal.runner.url.clone());
        let why = runner.map(|url| Failure::new(Party::Orchestrator(url), cause));
        self.pass_by(why);
    }

    /// Leaves the runner, which may not be the one that failed, and asks the next one.
    pub(super) fn pass_by(&mut self, why: Option<Failure>) {
        if let State::Asking(ask) = core::mem::replace(&mut self.state, State::Listing) {
            self.out.abort(ask.exchange);
        }
        if let (Some(deal), Some(why)) = (&self.deal, why) {
            let url = deal.runner.url.clone();
            self.history.failed(self.now, &url);
            self.attempts.push(Attempt { url, why });
        }
        self.part(Delivered::Refused);
        self.next();
    }

    /// Ends the dealings with a runner: it is paid no more.
    fn part(&mut self, how: Delivered) {
        let Some(mut deal) = self.deal.take() else {
            return;
        };
        self.end_payment(&mut deal, how);
    }

    pub(super) fn end_payment(&mut self, deal: &mut Deal, how: Delivered) {
        deal.credentials = None;
        let Some(mut payment) = deal.payment.take() else {
            return;
        };
        if let Some(open) = deal.open.take() {
            payment.get_mut().delivered(self.now, open, how);
        }
        self.purse.learn_nonces(payment.get());
        payment.get_mut().close(self.now);
        payment.drain(&mut self.out, |_| ());
    }

    pub(super) fn end(&mut self, event: Event) {
        self.part(Delivered::Unknown);
        self.to_list.clear();
        for (_, (_, mut exchange)) in core::mem::take(&mut self.listing) {
            exchange.abort(&mut self.out);
        }
        self.introducing.close(&mut self.out);
        self.leave_with(event);
    }

    /// Stops a session; then the next runner is asked, or it is the end.
    pub(super) fn stop(&mut self, session: &Session, goes_on: bool) {
        if !goes_on {
            self.part(Delivered::Unknown);
        }
        let (_, exchange) = self.stop_request(session);
        self.state = State::Stopping(exchange, goes_on);
    }

    fn stopped(&mut self, goes_on: bool) {
        if goes_on {
            let what = "session";
            let why = "it lacks its addresses".into();
            self.state = State::Listing;
            self.reject(Cause::Nonsense { what, why });
        } else {
            self.end(Event::Closed);
        }
    }

    fn introduced(&mut self, told: Option<Result<(), Box<Failure>>>) {
        if let Some(seen) = self.introducing.news() {
            self.out.event(Event::Signers(seen));
        }
        match told {
            None => {}
            Some(Ok(())) => self.list(),
            Some(Err(failure)) => {
                self.end(Event::Failed(Box::new(Failed::Ours(failure))));
            }
        }
    }

    fn tick(&mut self) {
        let now = self.now;
        let told = self.introducing.tick(now, &mut self.out);
        self.introduced(told);
        let mut late = Vec::new();
        for (id, (url, exchange)) in &mut self.listing {
            if let Some(cause) = exchange.late(&mut self.out, now) {
                late.push((*id, url.clone(), cause));
            }
        }
        if !late.is_empty() {
            for (id, url, cause) in late {
                self.listing.remove(&id);
                self.not_listed(url, cause);
            }
            self.list();
        }
        self.late_tick();
        match &mut self.state {
            State::Asking(ask) if ask.until <= now => {
                let (exchange, handed) = (ask.exchange, ask.handed);
                let late = match (handed, &self.plan) {
                    (true, _) if ask.is_over_time() => self.config.socket_within,
                    (true, _) => self.config.silence,
                    (false, Use::Session | Use::List) => self.config.within,
                    (false, Use::Call(_)) => self.config.head_within,
                };
                let cause = Cause::TimedOut {
                    doing: REQUEST,
                    after: late,
                };
                if matches!(self.plan, Use::Session)
                    && let State::Asking(ask) = core::mem::replace(&mut self.state, State::Listing)
                {
                    self.await_late(ask);
                } else {
                    self.out.abort(exchange);
                }
                match handed {
                    true => self.broke(cause),
                    false => self.unanswered(cause, false),
                }
            }
            State::Asking(ask) if ask.taken_at.is_some_and(|at| at <= now) => {
                ask.taken_at = None;
                self.accepted();
            }
            State::Active { session, until } if until.is_some_and(|until| until <= now) => {
                let session = session.clone();
                self.stop(&session, false);
            }
            State::Stopping(exchange, goes_on) => {
                let goes_on = *goes_on;
                if exchange.late(&mut self.out, now).is_some() {
                    self.stopped(goes_on);
                }
            }
            _ => {}
        }
        if let Some(payment) = self.deal.as_mut().and_then(|deal| deal.payment.as_mut())
            && payment.wake().is_some_and(|at| at <= now)
        {
            payment.handle_input(now, Input::Tick);
        }
        self.run();
    }
}

fn refused(doing: &'static str, status: u16, body: &[u8]) -> Cause {
    let text = error_words(body);
    Cause::Refused {
        doing,
        status,
        reason: reason(&text),
        text: cut(&text).to_string(),
    }
}

impl Machine for Rental {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        match input {
            Input::Tick => {}
            Input::Http(id, step) if self.listing.contains_key(&id) => self.on_listed(id, step),
            Input::Http(id, step) if self.late.contains_key(&id) => self.on_late(id, step),
            Input::Http(id, step) => {
                let asked = matches!(&self.state, State::Asking(ask) if ask.exchange == id);
                if asked {
                    self.on_answer(step);
                } else if let State::Stopping(exchange, goes_on) = &mut self.state
                    && exchange.owns(id)
                {
                    let goes_on = *goes_on;
                    if exchange.step(&mut self.out, step).is_some() {
                        self.stopped(goes_on);
                    }
                } else {
                    let told = self
                        .introducing
                        .on_http(self.now, &mut self.out, id, step.clone());
                    match told {
                        Some(_) => self.introduced(told),
                        None => self.feed(Input::Http(id, step)),
                    }
                }
            }
            Input::Signed(id, answer) => match self.introducing.on_signed(id, &answer) {
                Some(told) => self.introduced(Some(told)),
                None => self.feed(Input::Signed(id, answer)),
            },
            other => self.feed(other),
        }
        self.run();
        self.tick();
    }

    fn poll_output(&mut self) -> Output<Event> {
        if let Some(output) = self.out.pop() {
            return output;
        }
        let listing = self.listing.values().map(|(_, exchange)| exchange.wake());
        let listing = listing.fold(self.introducing.wake(), earlier);
        let own = match &self.state {
            State::Asking(ask) => earlier(Some(ask.until), ask.taken_at),
            State::Active { until, .. } => *until,
            State::Stopping(exchange, _) => exchange.wake(),
            State::Listing | State::Paying | State::Leaving(_) | State::Ended => None,
        };
        let own = earlier(own, self.late_wake());
        let payment = self.deal.as_ref().and_then(|deal| deal.payment.as_ref());
        let payment = payment.and_then(Child::wake);
        Output::Idle(earlier(earlier(own, listing), payment))
    }
}

impl Rental {
    fn feed(&mut self, input: Input) {
        let now = self.now;
        if let Some(payment) = self.deal.as_mut().and_then(|deal| deal.payment.as_mut()) {
            payment.handle_input(now, input);
        }
    }
}
