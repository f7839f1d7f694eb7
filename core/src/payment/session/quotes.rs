//! Where quotes come from, which of them are good, and what happens while there is none.
//!
//! A job that was paid for is not ended because the next payment cannot be made: it runs on what it has, tries again
//! at its pace, and ends shortly before the money does (payments spec 10).

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::pace::Coverage;
use super::refresh::{Answer, REFRESH_DEADLINE, Refresh};
use super::types::{MAX_REFRESHES, QUOTE_DEADLINE};
use super::{Event, PaymentSession, Source, State, TicketQuote};
use crate::error::{Broken, Cause, Failure, Party};
use crate::http::Url;
use crate::money::Price;
use crate::payment::guard::Proportion;
use crate::payment::price::at_most_doubled;
use crate::payment::requote::{adoptable, is_worth_something};
use crate::sign::Address;
use crate::wire::OrchestratorInfo;
use crate::wire::challenge::{REFRESH_PATH, RefreshRequest};
use crate::wire::signer::StateBlob;

/// How a refusal names the price that a session began with.
pub(super) const FIRST_PRICE: &str = "session's first price";

/// Why a quote is not used.
pub(super) enum Unusable {
    /// No payment can be made from it.
    Bad(Box<Failure>),
    /// The quote asks more than the price that the session began with, and is good otherwise.
    Dearer(Box<TicketQuote>),
}

impl PaymentSession {
    /// Reads the quote to make payments from; `None` if nothing is paid: there is no chain, or the price is zero.
    fn read_quote(
        &self,
        info: &Arc<OrchestratorInfo>,
    ) -> Result<Option<TicketQuote>, Box<Failure>> {
        let fail = |cause| {
            let party = Party::Orchestrator(info.transcoder.clone());
            Box::new(Failure::new(party, cause))
        };
        let nonsense = |why: &str| {
            fail(Cause::Nonsense {
                what: "quote",
                why: why.into(),
            })
        };
        if info.auth_token.is_none() {
            return Err(nonsense("it has no auth token"));
        }
        if matches!(self.source, Source::Offchain) {
            return Ok(None);
        }
        let price = info.price.ok_or_else(|| nonsense("it has no price"))?;
        if info.address != self.info.address {
            return Err(nonsense("it is of another account than the session's"));
        }
        if price.is_free() {
            return match self.source {
                Source::Remote { .. } => Err(fail(Cause::Free)),
                // The orchestrator bills at the first price whatever it says now.
                _ if self.is_paying() => Err(nonsense("its price has become zero")),
                _ => Ok(None),
            };
        }
        let params = info
            .ticket_params
            .clone()
            .ok_or_else(|| nonsense("it has no ticket parameters"))?;
        if !is_worth_something(&params) {
            return Err(nonsense(
                "its tickets are worth nothing, and its price is not zero",
            ));
        }
        let wanted = self.config.capabilities.clone().unwrap_or_default();
        match self.config.ceilings.limit(&wanted) {
            Some(ceiling) if price.of_one() > ceiling => {
                Err(fail(Cause::Guard(Box::new(Broken::Ceiling {
                    by: "configured ceiling",
                    asked: price,
                    ceiling,
                }))))
            }
            _ => Ok(Some(TicketQuote {
                info: Arc::clone(info),
                params,
                price,
            })),
        }
    }

    /// Whether the orchestrator took a payment, so that there is something to run on, and a price that holds.
    pub(super) fn is_paying(&self) -> bool {
        self.accepted && self.quote.is_some()
    }

    /// Whether the session goes on at a price. What elapsed is billed at the first price in any case; a remote signer
    /// refuses quotes above it, with an own key the reference goes up to twice that (payments spec 9).
    fn is_within_first(&self, price: Price) -> bool {
        match &self.source {
            _ if !self.accepted || self.by_request() => true,
            Source::Local { minter, .. } if minter.may_double() => {
                at_most_doubled(&self.initial, &price)
            }
            _ => price <= self.initial,
        }
    }

    /// Checks a quote and puts it to use.
    pub(super) fn take_quote(&mut self, info: &Arc<OrchestratorInfo>) -> Result<(), Unusable> {
        let quote = self.read_quote(info).map_err(Unusable::Bad)?;
        match quote {
            Some(quote) if !self.is_within_first(quote.price) => {
                return Err(Unusable::Dearer(Box::new(quote)));
            }
            quote => self.use_quote(info, quote),
        }
        Ok(())
    }

    fn use_quote(&mut self, info: &Arc<OrchestratorInfo>, quote: Option<TicketQuote>) {
        if !self.accepted {
            // Nothing was paid at an earlier price.
            self.initial = quote.as_ref().map_or(Price::FREE, |quote| quote.price);
            self.first = self.initial;
            self.coverage = Coverage::new(self.config.unit, self.initial);
        }
        self.stale &= match (&self.quote, &quote) {
            (Some(old), Some(new)) => {
                old.params.recipient_rand_hash == new.params.recipient_rand_hash
            }
            _ => false,
        };
        self.quote = quote;
        self.info = Arc::clone(info);
        self.quote_changed();
    }

    /// Takes over a quote that came with an answer, if it is no worse (payments spec 11.3).
    pub(super) fn requote(&mut self, info: OrchestratorInfo) {
        let fits = adoptable(&self.info, &info, |price| self.is_within_first(price));
        if self.quote.is_none() || fits.is_err() {
            return;
        }
        let info = Arc::new(self.at_home(info));
        if self.take_quote(&info).is_ok() {
            self.out.event(Event::Requoted(info));
        }
    }

    /// A quote for the same place, which the quote before knows better.
    fn at_home(&self, info: OrchestratorInfo) -> OrchestratorInfo {
        OrchestratorInfo {
            transcoder: self.info.transcoder.clone(),
            ..info
        }
    }

    /// The quote in use is good for no further payment. Once the orchestrator took one it is asked for a quote at the
    /// job's own price; the owner's handshake is told the price of the day.
    pub(super) fn need_quote(&mut self, at: Option<Url>) {
        self.stop_minting();
        self.refreshes += 1;
        if self.refreshes > MAX_REFRESHES {
            let failure = Failure::new(
                self.orchestrator(),
                Cause::GaveUp {
                    what: "a payment from a fresh quote",
                    times: MAX_REFRESHES,
                    last: "the quote is out of date again".into(),
                },
            );
            return self.refuse(failure);
        }
        match self.sender().filter(|_| self.is_paying()) {
            Some(sender) if !self.manifest_id.is_empty() && !self.by_request() => {
                let request = RefreshRequest {
                    sender,
                    manifest_id: self.manifest_id.clone(),
                };
                let url = self
                    .info
                    .transcoder
                    .child(REFRESH_PATH.trim_start_matches('/'));
                let within = self.coverage.patience(self.now, REFRESH_DEADLINE);
                let trust = self.config.trust;
                let refresh = Refresh::ask(self.now, &mut self.out, url, trust, &request, within);
                self.state = State::Refreshing(refresh, at);
            }
            _ => self.ask_owner(at),
        }
    }

    fn ask_owner(&mut self, at: Option<Url>) {
        self.state = State::AwaitingQuote(self.now + QUOTE_DEADLINE);
        self.out.event(Event::NeedQuote(at));
    }

    /// Handles the orchestrator's answer to a request for a quote at the job's own price.
    pub(super) fn on_refresh(&mut self, answer: Answer, at: Option<Url>) {
        match answer {
            Answer::Quote(info) if info.transcoder == self.info.transcoder => {
                let info = Arc::new(self.at_home(*info));
                match self.take_quote(&info) {
                    Ok(()) => self.mint(),
                    Err(_) => self.ask_owner(at),
                }
            }
            Answer::Quote(_) | Answer::Nothing => self.ask_owner(at),
        }
    }

    /// Handles the info that the owner's handshake brought.
    pub(super) fn on_renewed(&mut self, info: &Arc<OrchestratorInfo>) {
        let same = self.info == *info;
        let wanted = matches!(self.state, State::AwaitingQuote(_));
        match self.take_quote(info) {
            Ok(()) => {
                if let State::Refreshing(refresh, _) = &mut self.state {
                    refresh.abort(&mut self.out);
                    return self.mint();
                }
                // What is being minted from the old quote is of no use any more.
                if wanted || (matches!(self.state, State::Minting) && !same) {
                    self.mint();
                }
            }
            Err(_) if info.address != self.info.address => {
                let failure = Failure::new(
                    self.orchestrator(),
                    Cause::Nonsense {
                        what: "quote",
                        why: "it is of another account than the session's".into(),
                    },
                );
                self.fail(failure);
            }
            Err(Unusable::Bad(failure)) if wanted || !self.accepted => self.refuse(*failure),
            Err(Unusable::Dearer(quote)) if wanted => self.refuse_dearer(*quote),
            // The one in use is good for a while.
            Err(_) => {}
        }
    }

    /// The payment under way cannot be made. A job that was paid for runs on, and tries again at its pace; only when
    /// what was paid is about to run out is this the end.
    pub(super) fn refuse(&mut self, failure: Failure) {
        if self.by_request() {
            return self.hold_all(&failure);
        }
        let runs_on = self.runs_on();
        let Some(current) = self.current.take_if(|_| runs_on) else {
            return self.fail(failure);
        };
        self.state = State::Resting;
        if current.by_owner || self.held.as_ref() != Some(&failure) {
            self.out.event(Event::Held(current.id, failure.clone()));
            self.held = Some(failure);
        }
        self.set_pace();
    }

    /// As [`refuse`](Self::refuse) for a price above the first one. At the end it is paid after all, by a new payer
    /// session, if the caller's ceiling allows it; without a ceiling twice the job's first price is the most.
    fn refuse_dearer(&mut self, quote: TicketQuote) {
        let wanted = self.config.capabilities.clone().unwrap_or_default();
        // The ceiling was compared with the quote already.
        let allowed = self.config.ceilings.limit(&wanted).is_some()
            || at_most_doubled(&self.first, &quote.price);
        if self.runs_on() || !allowed {
            return self.refuse(Failure::new(
                self.orchestrator(),
                Cause::Guard(Box::new(Broken::Ceiling {
                    by: FIRST_PRICE,
                    asked: quote.price,
                    ceiling: self.initial.of_one(),
                })),
            ));
        }
        let (from, to) = (self.initial, quote.price);
        match &mut self.source {
            Source::Remote { committed, .. } => *committed = StateBlob::default(),
            Source::Local { committed, .. } => *committed = None,
            Source::Offchain => {}
        }
        self.initial = to;
        self.last_minted = None;
        self.proportion = Proportion::default();
        self.coverage.reprice(self.now, to);
        let info = Arc::clone(&quote.info);
        self.use_quote(&info, Some(quote));
        self.refreshes = 0;
        self.out.event(Event::Repriced { from, to });
        self.mint();
    }

    /// The party that makes payments.
    pub(super) fn payer_party(&self) -> Party {
        match &self.source {
            Source::Remote { client, .. } => client.party(),
            _ => Party::KeyHolder,
        }
    }

    /// Whether the job goes on without the payment under way, for now.
    fn runs_on(&self) -> bool {
        let Some(current) = self.current.as_ref().filter(|_| self.is_paying()) else {
            return false;
        };
        // What the owner delivers it may do without; and a job that is not paced any more is about to end.
        current.by_owner
            || self.pace.is_none()
            || self.coverage.last_call().is_some_and(|at| self.now < at)
    }

    /// The payer.
    pub(super) fn sender(&self) -> Option<Address> {
        match &self.source {
            Source::Remote { client, .. } => Some(client.address()),
            Source::Local { minter, .. } => Some(minter.address()),
            Source::Offchain => None,
        }
    }
}
