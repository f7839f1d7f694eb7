//! Demands for money, and how they are met.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::ToString as _;
use alloc::sync::Arc;
use core::time::Duration;

use super::types::{Event, Failed};
use super::{MAX_CHALLENGES, Rental, State};
use crate::error::{Advice, Cause, Failure, Party};
use crate::money::Amount;
use crate::payment::session::{self, Delivered, Fee};
use crate::payment::{PaymentSession, Unit};
use crate::wire::challenge::Challenge;
use crate::wire::runner::Runner;

/// The app of the network's live video, which is billed by the pixel where the list does not say.
const SCOPE: &str = "live-video-to-video/scope";

impl Rental {
    /// The orchestrator demands money.
    pub(super) fn demanded(&mut self, demand: Challenge) {
        let now = self.now;
        let Some(mut deal) = self.deal.take() else {
            return;
        };
        self.end_payment(&mut deal, Delivered::Refused);
        deal.demands += 1;
        let runner = deal.runner.url.clone();
        let demands = deal.demands;
        let urls = (demand.orchestrator.clone(), demand.payment_url.clone());
        let named = { urls.0.named_by(&runner) }
            .and_then(|orchestrator| Ok((orchestrator, urls.1.named_by(&runner)?)));
        let dear = self.too_dear(&deal.runner, &demand);
        let manifest = demand.manifest_id.clone();
        let unit = unit_of(&deal.runner);
        deal.manifest = Some(manifest.clone());
        deal.metered = unit != Unit::Fixed;
        let app = deal.runner.app.clone();
        self.deal = Some(deal);
        let (orchestrator, payment_url) = match named {
            Ok(named) => named,
            Err(forbidden) => return self.reject(Cause::Link(forbidden.into())),
        };
        if demands > MAX_CHALLENGES {
            return self.reject(Cause::GaveUp {
                what: "a demand for payment",
                times: MAX_CHALLENGES,
                last: "it demands the same again".into(),
            });
        }
        if let Some(cause) = dear {
            return self.reject(cause);
        }
        let info = Arc::new(crate::wire::OrchestratorInfo {
            transcoder: orchestrator,
            ..demand.info
        });
        let account = self
            .introducing
            .known()
            .flatten()
            .map(|(address, _)| address);
        let session = self.purse.open_as(now, &info, account, |config| {
            config.unit = unit;
            config.app = app;
            config.manifest_id = manifest;
            config.payment_url = Some(payment_url);
        });
        let mut payment = self.ids.adopt(session);
        self.state = State::Paying;
        // One that cannot pay says so.
        let _ = payment.get_mut().pay(now, Fee::Elapsed);
        if let Some(deal) = &mut self.deal {
            deal.payment = Some(payment);
        }
    }

    /// Why a demand is not met, if it is for more than the list said, or than anybody allowed.
    fn too_dear(&self, runner: &Runner, demand: &Challenge) -> Option<Cause> {
        let asked = demand.info.price?.of_one();
        // Prices move a little between a list and a demand.
        let pad = |price: &Amount| {
            let padded = price.as_ratio() * num_bigint::BigInt::from(1_012)
                / num_bigint::BigInt::from(1_000);
            Amount::from(padded)
        };
        let listed = runner.price.as_ref().map(|price| pad(&price.wei));
        let own = self.config.payment.ceilings.base.clone();
        let ceilings = [listed, self.wanted.max_price.clone(), own];
        let ceiling = ceilings.into_iter().flatten().min();
        match ceiling {
            _ if !self.pays => Some(Cause::TooDear {
                asked: asked.to_string(),
                ceiling: "0, for nobody pays".into(),
            }),
            // A price that nobody named before is nobody's to pay.
            None => Some(Cause::TooDear {
                asked: asked.to_string(),
                ceiling: "0, for the list names no price and nobody set a limit".into(),
            }),
            Some(ceiling) if asked > ceiling => Some(Cause::TooDear {
                asked: asked.to_string(),
                ceiling: ceiling.to_string(),
            }),
            Some(_) => None,
        }
    }

    /// Takes in what the payments tell.
    pub(super) fn run(&mut self) {
        loop {
            let mut news = VecDeque::new();
            if let Some(payment) = self.deal.as_mut().and_then(|deal| deal.payment.as_mut()) {
                payment.drain(&mut self.out, |event| news.push_back(event));
            }
            if news.is_empty() {
                return;
            }
            for event in news {
                self.on_payment(event);
            }
        }
    }

    fn on_payment(&mut self, event: session::Event) {
        let paying = matches!(self.state, State::Paying);
        match event {
            session::Event::Ready(id, credentials) if paying => {
                if let Some(deal) = &mut self.deal {
                    (deal.open, deal.credentials) = (Some(id), Some(credentials));
                }
                self.ask();
            }
            session::Event::Paid(_, paid) => self.out.event(Event::Paid(Box::new(paid))),
            session::Event::Signers(seen) => self.out.event(Event::Signers(seen)),
            session::Event::NeedQuote(_) if paying => {
                match self
                    .deal
                    .as_ref()
                    .is_some_and(|deal| deal.demands < MAX_CHALLENGES)
                {
                    true => self.ask_anew(),
                    false => self.reject(Cause::Gone("the quote")),
                }
            }
            session::Event::NeedQuote(_) => {
                let now = self.now;
                let deal = self.deal.as_mut();
                if let Some(deal) = deal
                    && let Some(payment) = &mut deal.payment
                {
                    let party = Party::Orchestrator(deal.runner.url.clone());
                    let failure = Failure::new(party, Cause::Gone("the quote"));
                    payment.get_mut().no_quote(now, failure);
                }
            }
            session::Event::Skipped(_) if paying => self.reject(Cause::Gone("the payment")),
            session::Event::Held(_, failure) | session::Event::Failed(failure) if paying => {
                match failure.advice() {
                    Advice::Stop => {
                        self.end(Event::Failed(Box::new(Failed::Ours(Box::new(failure)))))
                    }
                    _ => {
                        self.out.event(Event::Trouble(Box::new(failure.clone())));
                        self.pass_by(Some(failure));
                    }
                }
            }
            session::Event::Held(_, failure) => self.out.event(Event::Trouble(Box::new(failure))),
            session::Event::Failed(failure) => self.payments_ended(failure),
            session::Event::Ready(..)
            | session::Event::Skipped(_)
            | session::Event::Requoted(_)
            | session::Event::Repriced { .. } => {}
        }
    }

    /// There will be no more payments: the session is over, or lasts as long as what was paid.
    fn payments_ended(&mut self, failure: Failure) {
        let gone = matches!(
            (&failure.who, &failure.cause),
            (Party::Orchestrator(_), Cause::Refused { status: 404, .. })
        );
        let covered = self.payments().and_then(PaymentSession::covered_until);
        let now = self.now;
        match &mut self.state {
            State::Active { .. } if gone => self.end(Event::Released),
            State::Active { until, .. } => {
                // A driver is woken later than now.
                let last = now + Duration::from_millis(1);
                *until = Some(covered.unwrap_or(last).max(last));
                self.out.event(Event::Trouble(Box::new(failure)));
            }
            // A call is cut by its orchestrator when it wants no more of it.
            _ => self.out.event(Event::Trouble(Box::new(failure))),
        }
    }
}

/// The unit that a runner's work is billed by. Never another than the listed one (payments spec T3).
fn unit_of(runner: &Runner) -> Unit {
    match &runner.price {
        Some(price) => price.unit,
        None if runner.app == SCOPE => Unit::PixelSeconds,
        None => Unit::Seconds,
    }
}
