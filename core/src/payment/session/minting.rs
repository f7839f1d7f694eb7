//! From a quote to a payment that keeps the rules.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};

use bytes::Bytes;

use super::local::Count;
use super::types::{MINT_ROUNDS, OWN_TRIES};
use super::{
    Charge, Credentials, Event, Fee, Memory, Minted, PaymentSession, Source, State, local, pause,
    signer,
};
use crate::capabilities::Capabilities;
use crate::chain::MAX_AGE;
use crate::error::{Broken, Cause, Failure, Party};
use crate::exchange::Reply;
use crate::machine::Effect;
use crate::money::Amount;
use crate::payment::guard::{Expected, verify};
use crate::payment::mint::{Billed, Order, Refusal};
use crate::payment::nonce::SpentNonces;
use crate::spend::{Spend, SpendRefused};
use crate::store::{STORE_WITHIN, StoreFailed};
use crate::time::Time;
use crate::wire::signer::{
    PaymentRequest, PaymentResponse, STATUS_NO_TICKETS, STATUS_PRICE, STATUS_REFRESH, StateBlob,
};
use crate::wire::{SegmentCredentials, error_words, named_ceiling, reason};

impl PaymentSession {
    /// Starts minting the current payment from the quote, or asks for a better one.
    pub(super) fn mint(&mut self) {
        self.stop_minting();
        let Some(current) = &mut self.current else {
            self.state = State::Resting;
            return;
        };
        current.asked = self.now;
        let (id, fee) = (current.id, current.fee);
        let ending = self.token_ends();
        if let Fee::Units(units) = fee
            && self.by_request()
        {
            if self.stale || ending {
                return self.need_quote(None);
            }
            // Others may have been answered while this one waited for a quote.
            if self.pay_from_balance(id, units) {
                self.current = None;
                self.state = State::Resting;
                return self.pay_waiting();
            }
            let billed = self.units_to_bill(units);
            if let Some(current) = &mut self.current {
                current.billed = billed;
            }
        }
        let Some(quote) = &self.quote else {
            return self.introduce();
        };
        let worn = self.nonces.hash() == quote.params.recipient_rand_hash && self.nonces.worn();
        if self.stale || ending || worn {
            return self.need_quote(None);
        }
        if let Source::Local { minter, .. } = &self.source
            && minter.account().chain.age(self.now) > Some(MAX_AGE)
        {
            let cause = Cause::Silent {
                what: "reading of the chain",
                after: MAX_AGE,
            };
            return self.refuse(Failure::new(Party::KeyHolder, cause));
        }
        self.state = State::Minting;
        let order = self.order(fee);
        let quote = quote.info.clone();
        match &mut self.source {
            Source::Offchain => {}
            Source::Remote { client, committed } => {
                let within = self.coverage.patience(self.now, client.patience());
                let request = request(order, committed.clone(), quote.raw.clone());
                client.ask(self.now, &mut self.out, request.to_json(), within);
            }
            Source::Local { minter, committed } => {
                let decided = minter.begin(
                    self.now,
                    &mut self.out,
                    |full| self.coverage.patience(self.now, full),
                    &quote,
                    committed.as_deref(),
                    order,
                );
                if let Err(refusal) = decided {
                    self.refused_by_ourselves(refusal);
                }
            }
        }
    }

    /// Nothing is paid, and the headers say so. On a chain they say who the job is for all the same, signed.
    fn introduce(&mut self) {
        let order = self.order(Fee::Units(0));
        if let Source::Local { minter, .. } = &mut self.source {
            self.state = State::Minting;
            minter.introduce(self.now, &mut self.out, &self.info, order);
            return;
        }
        self.state = State::Resting;
        if let Some(current) = self.current.take() {
            let credentials = Credentials {
                payment: String::new(),
                segment: SegmentCredentials::offchain(self.info.auth_token.as_ref()),
            };
            self.out.event(Event::Ready(current.id, credentials));
        }
    }

    fn order(&self, fee: Fee) -> Order {
        Order {
            billed: match fee {
                Fee::Elapsed => Billed::Elapsed(self.config.unit),
                Fee::Units(_) => {
                    Billed::Units(self.current.as_ref().map_or(0, |current| current.billed))
                }
            },
            manifest_id: self.manifest_id.clone(),
            app: self.config.app.clone(),
            capabilities: self.config.capabilities.clone(),
            ceiling: None,
        }
    }

    pub(super) fn on_answer(&mut self, answer: &Reply) {
        let party = match &self.source {
            Source::Remote { client, .. } => client.party(),
            _ => return,
        };
        match answer.status {
            200 => match PaymentResponse::from_json(&answer.body) {
                Ok(response) => {
                    let credentials = Credentials {
                        payment: response.payment,
                        segment: response.segment,
                    };
                    let memory = Memory::Blob(response.state);
                    self.minted(party, credentials, memory, Amount::zero(), Count::Open);
                }
                // Another signer may have its wits about it.
                Err(err) => self.mint_failed(Failure::new(party, err.into())),
            },
            STATUS_REFRESH => self.need_quote(signer::orchestrator(answer)),
            STATUS_NO_TICKETS => self.skip(),
            status => {
                let text = error_words(&answer.body);
                self.refused_by(party, status, text);
            }
        }
    }

    pub(super) fn refused_by_ourselves(&mut self, refusal: Refusal) {
        match refusal.status {
            STATUS_REFRESH => self.need_quote(None),
            STATUS_NO_TICKETS => self.skip(),
            STATUS_PRICE => {
                let ceiling = named_ceiling(&refusal.message).unwrap_or("our own");
                let failure = self.too_dear(ceiling);
                self.refuse(failure);
            }
            _ => self.refuse(declined(refusal.own_words().into())),
        }
    }

    pub(super) fn refused_by(&mut self, party: Party, status: u16, text: String) {
        let failure = match status {
            STATUS_PRICE => self.too_dear(named_ceiling(&text).unwrap_or("the signer")),
            _ => Failure::new(party, signer::refused(status, text)),
        };
        self.refuse(failure);
    }

    fn too_dear(&self, ceiling: &str) -> Failure {
        let asked = self.info.price.unwrap_or(self.initial).to_string();
        let ceiling = ceiling.into();
        Failure::new(self.orchestrator(), Cause::TooDear { asked, ceiling })
    }

    pub(super) fn skip(&mut self) {
        if self.by_request() {
            return self.count_anew();
        }
        self.state = State::Resting;
        if let Some(current) = self.current.take() {
            self.out.event(Event::Skipped(current.id));
        }
        self.set_pace();
    }

    /// Handles a failure to mint: no signature came. The next signer is asked at once, and all again after a pause: at
    /// least a few rounds, and for as long as what was paid lasts.
    pub(super) fn mint_failed(&mut self, failure: Failure) {
        let Some(current) = &mut self.current else {
            return;
        };
        current.tries += 1;
        let tries = current.tries;
        let Source::Remote { client, .. } = &mut self.source else {
            return;
        };
        let rounds = client.failed(self.now, failure.clone());
        self.out.event(Event::Signers(client.health().clone()));
        let Some(rounds) = rounds else {
            return self.mint();
        };
        let until = self.now + pause(rounds);
        if rounds >= MINT_ROUNDS && self.coverage.until().is_none_or(|covered| covered < until) {
            let failure = client.verdict().unwrap_or(failure);
            return self.give_up("a request for a payment", tries, failure);
        }
        self.state = State::PausingMint(until);
    }

    pub(super) fn give_up(&mut self, what: &'static str, times: u32, last: Failure) {
        let cause = match last.cause {
            // A single try is its own story.
            cause if times <= 1 => cause,
            cause => Cause::GaveUp {
                what,
                times,
                last: cause.to_string(),
            },
        };
        let failure = Failure::new(last.who, cause);
        if self.by_request() {
            // Others may be paid from the balance, and later ones once more.
            self.hold_all(&failure);
        } else {
            self.fail(failure);
        }
    }

    /// Reads what was minted, and lets it go if it keeps the rules and is counted as spent. That of an own key has `count`
    /// asked for already.
    pub(super) fn minted(
        &mut self,
        party: Party,
        credentials: Credentials,
        memory: Memory,
        value: Amount,
        count: Count,
    ) {
        match self.inspect(credentials, memory) {
            Err(broken) => {
                count.take_back(value, &mut self.out);
                self.refuse(Failure::new(party, Cause::Guard(broken)));
            }
            Ok(mut minted) => {
                if let Some(current) = &mut self.current {
                    current.tries = 0;
                }
                self.signed = minted.signed.take().or(self.signed.take());
                let minted = Box::new(minted);
                match count {
                    _ if minted.tickets == 0 => self.send(minted),
                    Count::Open => self.count(minted),
                    Count::Asked(asked, until) => {
                        self.state = State::Counting(minted, asked, until);
                    }
                    Count::Done(at) => self.counted(minted, Ok(at)),
                }
            }
        }
    }

    /// Has the payment counted, and only then lets it go. The nonces of an own key are stored with it.
    pub(super) fn count(&mut self, minted: Box<Minted>) {
        let own = matches!(self.source, Source::Local { .. });
        let nonces = minted.nonces;
        let record = own.then(|| SpentNonces::record(&nonces.hash(), nonces.last()));
        let asked = self.out.open(Effect::Spend(Spend::Take {
            value: minted.value.clone(),
            record,
        }));
        let within = self.coverage.patience(self.now, STORE_WITHIN);
        self.state = State::Counting(minted, asked, self.now + within);
    }

    /// The count may not survive a crash: the payment waits, and the store is asked again.
    pub(super) fn not_counted(&mut self, minted: Box<Minted>, why: StoreFailed) {
        if let Some(until) = self.own_failed(not_stored("what was spent", why)) {
            self.state = State::PausingCount(minted, until);
        }
    }

    /// Learns whether the payment may leave.
    pub(super) fn counted(&mut self, mut minted: Box<Minted>, answer: Result<Time, SpendRefused>) {
        match answer {
            Ok(at) => {
                minted.counted = Some(at);
                self.send(minted);
            }
            Err(SpendRefused::NotStored(why)) => self.not_counted(minted, why),
            Err(SpendRefused::Limit(broken)) => {
                self.refuse(Failure::new(self.payer_party(), Cause::Guard(broken)));
            }
        }
    }

    /// Counts a payment no more that never left.
    pub(super) fn give_back(&mut self, counted: Option<Time>, value: &Amount) {
        if let Some(at) = counted {
            let value = value.clone();
            self.out.open(Effect::Spend(Spend::GiveBack { value, at }));
        }
    }

    /// The key holder or the store failed. Nothing has left, so the same can be tried again: a few times, and for as
    /// long as what was paid lasts. Says when, unless that was the end.
    fn own_failed(&mut self, failure: Failure) -> Option<Time> {
        let current = self.current.as_mut()?;
        current.tries += 1;
        let tries = current.tries;
        let until = self.now + pause(tries);
        if tries >= OWN_TRIES && self.coverage.until().is_none_or(|covered| covered < until) {
            self.give_up("a payment", tries, failure);
            return None;
        }
        Some(until)
    }

    pub(super) fn inspect(
        &self,
        credentials: Credentials,
        memory: Memory,
    ) -> Result<Minted, Box<Broken>> {
        let (Some(current), Some(sender)) = (&self.current, self.sender()) else {
            return Err(Box::new(Broken::Quote));
        };
        let Some(quote) = &self.quote else {
            // Nothing is paid, so there is nothing that could be too much.
            return Ok(Minted {
                credentials,
                memory,
                at: current.asked,
                counted: None,
                tickets: 0,
                value: Amount::zero(),
                charge: Charge::default(),
                nonces: self.nonces,
                signed: None,
            });
        };
        let initial = self.initial;
        let expected = Expected {
            params: &quote.params,
            price: quote.price,
            auth_token: quote.info.auth_token.as_ref(),
            sender,
            manifest_id: &self.manifest_id,
            nonces: self.nonces,
            known: self.signed.as_ref(),
            max_tickets: match &self.source {
                Source::Local { minter, .. } => minter.max_tickets(),
                _ => self.config.max_tickets,
            },
        };
        let verified = verify(&credentials.payment, &credentials.segment, &expected)?;
        let unit = self.config.unit;
        let units = match current.fee {
            Fee::Units(_) => Some(current.billed),
            Fee::Elapsed => None,
        };
        let elapsed = self.last_minted.map(|last| current.asked.since(last));
        self.proportion
            .check(&verified.value, &verified.ev, unit, units, elapsed, initial)?;
        let charge = match units {
            Some(units) => Charge::counted(initial.fee(units)),
            None => Charge::elapsed(unit, initial, elapsed),
        };
        Ok(Minted {
            credentials,
            memory,
            at: current.asked,
            counted: None,
            tickets: verified.tickets,
            value: verified.value,
            charge,
            nonces: verified.nonces,
            signed: Some(verified.credentials),
        })
    }

    pub(super) fn on_local(&mut self, outcome: local::Outcome) {
        let failure = match outcome {
            local::Outcome::Made(made) => {
                let credentials = Credentials {
                    payment: made.payment,
                    segment: made.segment,
                };
                let memory = made
                    .state
                    .map_or(Memory::Nothing, |state| Memory::State(Box::new(state)));
                let (value, count) = (made.value, made.count);
                return self.minted(Party::KeyHolder, credentials, memory, value, count);
            }
            local::Outcome::Limit(broken) => {
                return self.refuse(Failure::new(Party::KeyHolder, Cause::Guard(broken)));
            }
            local::Outcome::Refused(why) => declined(why.to_string()),
            local::Outcome::TimedOut => Failure::new(
                Party::KeyHolder,
                Cause::TimedOut {
                    doing: "a signature",
                    after: local::SIGN_DEADLINE,
                },
            ),
            local::Outcome::NotStored(why) => not_stored("what was spent", why),
        };
        if let Some(until) = self.own_failed(failure) {
            self.state = State::PausingMint(until);
        }
    }

    pub(super) fn on_signer(&mut self, outcome: signer::Outcome) {
        match outcome {
            signer::Outcome::Answer(answer) => {
                if let Source::Remote { client, .. } = &self.source {
                    self.out.event(Event::Signers(client.health().clone()));
                }
                self.on_answer(&answer);
            }
            signer::Outcome::Failed(failure) => self.mint_failed(failure),
        }
    }
}

/// An order as remote signers read it. Our own ceilings were compared with the quote already.
fn request(order: Order, state: StateBlob, orchestrator: Bytes) -> PaymentRequest {
    let (job_type, in_pixels) = match order.billed {
        Billed::Elapsed(unit) => (unit.signer_type(), 0),
        Billed::Units(units) => ("", i64::try_from(units).unwrap_or(i64::MAX)),
    };
    PaymentRequest {
        state,
        orchestrator: Some(orchestrator),
        manifest_id: order.manifest_id,
        app: order.app,
        in_pixels,
        job_type: job_type.into(),
        max_price: None,
        capabilities: order.capabilities.as_ref().map(Capabilities::to_bytes),
    }
}

/// A refusal of our own key holder, or of our own rules about what it may sign.
fn declined(text: String) -> Failure {
    let cause = Cause::Declined {
        doing: "a payment",
        reason: reason(&text),
        text,
    };
    Failure::new(Party::KeyHolder, cause)
}

fn not_stored(what: &'static str, why: StoreFailed) -> Failure {
    Failure::new(Party::Store, Cause::NotStored { what, text: why.0 })
}
