//! Reservations and what they cost: demands for payment, first payments and later ones.

use livepeer_core::http::Out;
use livepeer_core::payment::receiver::Trigger;
use livepeer_core::wire::OrchestratorInfo;
use livepeer_core::wire::challenge::Challenge;
use livepeer_core::wire::runner::Mode;
use livepeer_core::{Address, EffectId, Time};
use prost::Message as _;

use super::names::random;
use super::route::Ask;
use super::runner::{Rented, short};
use super::{AppPrice, no};
use crate::event::Surface;
use crate::paid::{Headers, No};
use crate::workers::Order;
use crate::{Orchestrator, account, wire};

/// A place that is taken while its payment is looked at.
pub(crate) struct Renting {
    pub(super) runner: String,
    pub(super) session: String,
    payer: Address,
    price: AppPrice,
    /// The request that the place is for; `None` if it is for a session.
    shot: Option<Order>,
}

impl Orchestrator {
    /// Somebody wants a session.
    pub(super) fn reserve(
        &mut self,
        now: Time,
        id: EffectId,
        runner: &str,
        ask: Ask,
    ) -> Result<Option<Vec<Out>>, No> {
        if self.apps.ready(now, runner)?.app.mode != Mode::Persistent {
            return Err(no(400, "only persistent runners have sessions"));
        }
        self.rent_asked(now, id, runner, &ask.paid, &ask.payer, None)
    }

    /// Somebody wants a place of a runner that is ready, for a session or for one request.
    pub(super) fn rent_asked(
        &mut self,
        now: Time,
        id: EffectId,
        name: &str,
        paid: &Headers,
        payer: &str,
        shot: Option<Order>,
    ) -> Result<Option<Vec<Out>>, No> {
        let runner = self.apps.ready(now, name)?;
        let priced = self.till.is_some();
        if let (true, Some(why)) = (priced, &runner.unpriced) {
            return Err(no(503, format!("live runner price unavailable: {why}")));
        }
        let Some(price) = runner.app.price.filter(|_| priced) else {
            let session = format!("session_{}", random(&mut self.rng, 5));
            self.rent(now, name, session.clone(), Rented::new(Address::ZERO, None))?;
            return Ok(self.rented_free(now, id, name, session, shot));
        };
        if paid.payment.is_empty() && paid.segment.is_empty() {
            return self
                .demand(now, name, price, payer)
                .map(|answer| Some(vec![answer]));
        }
        let (payment, credentials) = self.admit(now, Surface::App, paid)?;
        let session = credentials.manifest_id;
        if credentials
            .auth_token
            .is_none_or(|token| token.session_id != session)
        {
            return Err(no(403, "mismatched manifest and auth token"));
        }
        let expected = payment.expected_price;
        let exact = expected.is_some_and(|e| e.wei() == price.wei && e.per() == 1);
        if price.is_fixed() && !exact {
            return Err(no(400, "payment price does not match live runner price"));
        }
        let renting = Renting {
            runner: name.to_owned(),
            session: session.clone(),
            payer: payment.sender,
            price,
            shot,
        };
        self.rent(now, name, session, Rented::new(payment.sender, Some(price)))?;
        self.await_receipt(now, id, payment, renting.session.clone(), renting);
        Ok(None)
    }

    fn rented_free(
        &mut self,
        now: Time,
        id: EffectId,
        name: &str,
        session: String,
        shot: Option<Order>,
    ) -> Option<Vec<Out>> {
        match shot {
            None => Some(vec![self.reserved(name, &session)]),
            Some(order) => {
                self.shot_rented(now, id, name.to_owned(), session, order);
                None
            }
        }
    }

    /// Demands payment: the place is not taken, and a runner without a free one demands it too.
    fn demand(&mut self, now: Time, runner: &str, price: AppPrice, payer: &str) -> Result<Out, No> {
        let Ok(payer) = payer.parse() else {
            let text = "invalid live runner payment signer address";
            return Ok(wire::error_reply(402, text));
        };
        let manifest_id = self.name();
        let info = self.bare_info(now, payer, price.price(), &manifest_id);
        let info = info.map_err(|text| no(500, text))?;
        let raw = info.encode_to_vec().into();
        let info = OrchestratorInfo::decode(raw).map_err(|err| no(500, err.to_string()))?;
        let path = format!("/apps/{runner}/session/{manifest_id}/payment");
        let challenge = Challenge {
            info,
            orchestrator: self.config.service.clone(),
            manifest_id,
            payment_url: self.config.service.with_path(&path),
        };
        Ok(wire::bytes_reply(
            402,
            wire::JSON,
            challenge.to_json().into(),
        ))
    }

    /// The payment for a place was taken, or was not.
    pub(crate) fn rent_paid(
        &mut self,
        now: Time,
        id: Option<EffectId>,
        mut renting: Renting,
        refused: Option<No>,
    ) -> Result<Option<Vec<Out>>, No> {
        let settled = match refused {
            Some(why) => Err(why),
            None => self.begin_rent(now, &renting),
        };
        if let Err(why) = settled {
            self.release(now, &renting.runner, &renting.session);
            return Err(why);
        }
        match (id, renting.shot.take()) {
            (Some(id), Some(order)) => {
                self.shot_rented(now, id, renting.runner, renting.session, order);
                Ok(None)
            }
            (None, Some(_)) => {
                self.release(now, &renting.runner, &renting.session);
                Ok(None)
            }
            (_, None) => Ok(Some(vec![self.reserved(&renting.runner, &renting.session)])),
        }
    }

    /// Takes what is paid once, and meters the rest.
    fn begin_rent(&mut self, now: Time, renting: &Renting) -> Result<(), No> {
        let Some(till) = &mut self.till else {
            return Ok(());
        };
        let till = till.get_mut();
        let account = account(renting.payer, &renting.session);
        if !renting.price.is_fixed() {
            till.start_meter(now, account, renting.price.unit, Trigger::Ticker);
            return Ok(());
        }
        let fee = renting.price.price().of_one();
        if till.debit(now, &account, &fee).is_err() {
            let balance = till.balance(&account).cloned().unwrap_or_default();
            return Err(no(400, short(&renting.session, &fee, &balance)));
        }
        self.tell_bill(&renting.runner, renting.payer, &renting.session, fee);
        Ok(())
    }

    /// A session is paid on (payments spec 11.4).
    pub(super) fn session_payment(
        &mut self,
        now: Time,
        id: EffectId,
        runner: &str,
        session: &str,
        paid: &Headers,
    ) -> Result<Option<Vec<Out>>, No> {
        let rented = { self.apps.live(now, runner)?.sessions.get(session) }
            .ok_or_else(|| no(404, "runner session not found"))?;
        if rented.price.is_some_and(AppPrice::is_fixed) {
            let text = "fixed-price live runner sessions do not accept follow-up payments";
            return Err(no(409, text));
        }
        self.payment_of(now, id, Surface::App, paid, Some(session))
    }
}
